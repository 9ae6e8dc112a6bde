// SPDX-License-Identifier: GPL-2.0

//! NIDs as text and as numbers.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| socklnd_fuzz::nid(data));
