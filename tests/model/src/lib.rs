// SPDX-License-Identifier: GPL-2.0

//! Models of the module's protocols between threads: loom goes through all interleavings that the
//! threads of a scenario can have, within a bound on how often one is interrupted by another.
//!
//! - `sched/readiness.rs` and `mailbox.rs` are the module's very own files, on a `kernel` crate
//!   made of loom's atomics and locks. `conn` has the rest of a connection, in few words.
//! - `closing` is a model of who owns a transmit while its connection is being closed. It follows
//!   `conn.rs` and `peer.rs` by hand.
//!
//! Whether these checks can fail is a test too: `build.rs` makes broken variants of the two files,
//! and each must be found out by the scenario that it names.
#![cfg(test)]

mod closing;
mod conn;
mod explore;
mod threads;

#[path = "../../../mailbox.rs"]
#[allow(dead_code)] // Here nobody asks who it is that was posted.
mod mailbox;
#[path = "../../../sched/readiness.rs"]
mod readiness;

/// The broken variants.
#[allow(clippy::all)]
mod broken {
    include!(concat!(env!("OUT_DIR"), "/broken.rs"));
}

/// The scenarios with the files as they are.
macro_rules! hold {
    ($($scenario:path as $name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            $scenario();
        }
    )*};
}

hold! {
    conn::arrivals as arrivals,
    conn::arrivals_from_two_sides as arrivals_from_two_sides,
    conn::both_ways as both_ways,
    conn::two_schedulers as two_schedulers,
    conn::full as full,
    conn::full_again as full_again,
    conn::release as release,
    conn::held as held,
    conn::arrival_before_release as arrival_before_release,
    conn::want_of_memory as want_of_memory,
    threads::posts_are_taken as posts_are_taken,
    threads::a_post_wakes as a_post_wakes,
    threads::two_posts_wake_two as two_posts_wake_two,
    threads::a_post_wakes_one as a_post_wakes_one,
    threads::a_kick_wakes as a_kick_wakes,
    threads::stop_reaches_all as stop_reaches_all,
    threads::timed_waits as timed_waits,
}

/// What the module once did.
#[test]
fn want_of_memory_as_event_is_found_out() {
    explore::must_fail(conn::want_of_memory_as_event);
}
