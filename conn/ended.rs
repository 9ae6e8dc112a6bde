// SPDX-License-Identifier: GPL-2.0

//! Transmits that have ended while a connection's I/O mutex is held.
//!
//! The message layer must not be called with that mutex held, so they wait, in the connection's I/O state and
//! under that mutex, until the thread that has ended them gives it up. That is soon: at the end of its
//! turn, or before it calls the message layer for another reason. Nobody else ever finds any.

use crate::{
    lib_linux::queue::Fifo,
    tx::Tx,
    upper::Failure, //
};
use kernel::prelude::*;

/// Transmits that are to be completed.
pub(super) struct Ended {
    /// Those that were sent.
    sent: Fifo<Tx>,
    /// Those that were not, and why the last of them was not.
    failed: Fifo<Tx>,
    why: Failure,
}

impl Ended {
    /// None.
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

    /// Adds one that was not sent because of `why`. Any context.
    pub(super) fn fail(&mut self, tx: KBox<Tx>, why: Failure) {
        self.failed.push_back(tx);
        self.why = why;
    }

    /// Takes out all, if there are any. Any context.
    pub(super) fn take(&mut self) -> Option<Self> {
        let any = !self.sent.is_empty() || !self.failed.is_empty();
        any.then(|| core::mem::replace(self, Self::new()))
    }

    /// Completes them; `fail` completes those that were not sent. Thread context, no lock held.
    pub(super) fn finish(mut self, fail: impl FnOnce(Fifo<Tx>, Failure)) {
        while let Some(tx) = self.sent.pop_front() {
            tx.finish(Ok(()));
        }
        if !self.failed.is_empty() {
            fail(self.failed, self.why);
        }
    }
}
