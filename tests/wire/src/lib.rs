// SPDX-License-Identifier: GPL-2.0

//! The module's wire formats and some of its rules, built in user space from the very same files.
//!
//! `cargo test` runs the unit tests that the kernel runs under KUnit, and property tests.

#![cfg_attr(not(test), no_std)]
// Only the tests use what is in here, and not all of it. The kernel's linter looks after the files.
#![allow(dead_code, unused_imports)]

/// The folder that holds the module's sources: `mod wire` finds its own folder from there.
#[path = "../../.."]
mod module {
    pub(crate) mod wire;

    pub(crate) mod interface {
        pub(crate) mod select;
    }
    pub(crate) mod peer {
        pub(crate) mod conns_per_peer;
        pub(crate) mod select_conn;
    }
    pub(crate) mod route {
        pub(crate) mod backoff;
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod rules;
