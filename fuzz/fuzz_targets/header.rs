// SPDX-License-Identifier: GPL-2.0

//! A message's header.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| socklnd_fuzz::header(data));
