// SPDX-License-Identifier: GPL-2.0

//! How scenarios are run.

use loom::model::Builder;
use std::{
    panic,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        Arc,
    },
};

/// How often a thread may be interrupted by another where it could have gone on.
///
/// Nearly all ordering bugs need one or two. What waits, and what ends, is not counted.
const PREEMPTIONS: usize = 3;

/// Runs `scenario` in all its interleavings.
pub(crate) fn explore(scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        scenario();
    });
    println!("{} interleavings", count.load(Relaxed));
}

/// Checks that a test fails.
pub(crate) fn must_fail(test: fn()) {
    assert!(
        panic::catch_unwind(test).is_err(),
        "no interleaving shows what is broken"
    );
}
