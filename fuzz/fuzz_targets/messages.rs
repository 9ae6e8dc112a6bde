// SPDX-License-Identifier: GPL-2.0

//! A stream of messages behind a HELLO.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| socklnd_fuzz::messages(data));
