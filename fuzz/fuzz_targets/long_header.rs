// SPDX-License-Identifier: GPL-2.0

//! A message's header with NIDs of 20 bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| socklnd_fuzz::long_header(data));
