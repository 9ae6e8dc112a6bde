// SPDX-License-Identifier: GPL-2.0

//! An acceptor request.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| socklnd_fuzz::acceptor(data));
