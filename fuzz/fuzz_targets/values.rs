// SPDX-License-Identifier: GPL-2.0

//! Values that are built, and read back.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| socklnd_fuzz::values(data));
