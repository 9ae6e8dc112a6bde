// SPDX-License-Identifier: GPL-2.0

//! Transmits that end while a connection's I/O mutex is held.
//!
//! The message layer must not be called with that mutex held. So these transmits wait in the connection's
//! I/O state, under the mutex, until the thread that holds it unlocks it: at the end of its turn, or before
//! it calls the message layer for another reason. When the mutex is unlocked, there are none.

use crate::{
    lib_linux::{
        misc,
        queue::Fifo, //
    },
    tx::Tx,
    upper::Failure, //
};
use kernel::prelude::*;

/// Transmits to complete.
pub(super) struct Ended {
    /// Those that were sent.
    sent: Fifo<Tx>,
    /// Those that failed, and the reason of the last of them.
    failed: Fifo<Tx>,
    why: Failure,
}

impl Ended {
    /// No transmits.
    pub(super) const fn new() -> Self {
        Self {
            sent: Fifo::new(),
            failed: Fifo::new(),
            why: Failure::dropped(),
        }
    }

    /// Those that were sent. Any context.
    pub(super) fn sent(&mut self) -> &mut Fifo<Tx> {
        &mut self.sent
    }

    /// Adds one that failed with `why`. Any context.
    pub(super) fn fail(&mut self, tx: KBox<Tx>, why: Failure) {
        self.failed.push_back(tx);
        self.why = why;
    }

    /// Takes out all, if there are any. Any context.
    pub(super) fn take(&mut self) -> Option<Self> {
        let any = !self.sent.is_empty() || !self.failed.is_empty();
        any.then(|| core::mem::replace(self, Self::new()))
    }

    /// Completes them; `fail` completes those that failed. Thread context, no lock held.
    pub(super) fn finish(mut self, fail: impl FnOnce(Fifo<Tx>, Failure)) {
        misc::assert_may_sleep();
        while let Some(tx) = self.sent.pop_front() {
            tx.finish(Ok(()));
        }
        if !self.failed.is_empty() {
            fail(self.failed, self.why);
        }
    }
}
