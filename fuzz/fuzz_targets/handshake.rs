// SPDX-License-Identifier: GPL-2.0

//! What comes over a connection until the HELLO is complete, in pieces.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| socklnd_fuzz::handshake(data));
