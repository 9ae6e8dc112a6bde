// SPDX-License-Identifier: GPL-2.0

//! Transmits: messages on their way out.
//!
//! A [`Tx`] has one owner at any time, the holder of its [`KBox`]: the sender while it is built,
//! the peer's queue while no connection is there, the connection's queue, the scheduler while bytes
//! go out, and, if its pages were lent to TCP, the loan until TCP has let go of them. Completing it
//! consumes the box, so it can't be completed twice; and dropping the box completes it with
//! `ESHUTDOWN`, so it can't be forgotten. No lock protects a `Tx`: the lock of the queue that it is
//! in does.

use crate::{
    lib_linux::{
        iov::Bvecs,
        page::{
            FrozenFrag,
            PageRange, //
        },
        queue::{
            impl_linked,
            Link, //
        },
    },
    stats::{
        Gauge,
        LiveGuard, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What the message layer wants done when a transmit, or a received payload, has ended.
pub(crate) trait Completion: Send {
    /// The operation ended with `result`.
    ///
    /// Thread context. No spinlock of the driver is held, a connection's I/O mutex may be: sending
    /// is allowed, waiting for the network is not.
    fn complete(self: KBox<Self>, result: Result);

    /// Whether anybody still waits for this. If not, a transmit that could not be sent so far need
    /// not be. Thread context, the peer's lock is held.
    fn is_wanted(&self) -> bool {
        true
    }
}

/// A message on its way out.
pub(crate) struct Tx {
    link: Link<Tx>,
    /// The header in wire format; in a page fragment, so that TCP can take it by reference.
    header: FrozenFrag,
    payload: Option<PageRange>,
    /// Bytes of header and payload that TCP has accepted.
    sent: usize,
    /// Whether these were lent to TCP.
    lent: bool,
    /// When waiting for a connection ends, in monotonic milliseconds.
    deadline_ms: u64,
    done: Option<KBox<dyn Completion>>,
    _live: LiveGuard,
}

impl_linked!(Tx, link);

impl Tx {
    /// A transmit of `header` and `payload`. On error `done` is given back with it. May sleep.
    pub(crate) fn new(
        header: &[u8],
        payload: Option<PageRange>,
        deadline_ms: u64,
        done: KBox<dyn Completion>,
        live: &Arc<Gauge>,
    ) -> core::result::Result<KBox<Self>, (Error, KBox<dyn Completion>)> {
        let header = match FrozenFrag::new(header) {
            Ok(header) => header,
            Err(e) => return Err((e, done)),
        };
        let uninit = match KBox::<Self>::new_uninit(GFP_KERNEL) {
            Ok(uninit) => uninit,
            Err(_) => return Err((ENOMEM, done)),
        };
        Ok(KBox::write(
            uninit,
            Self {
                link: Link::new(),
                header,
                payload,
                sent: 0,
                lent: false,
                deadline_ms,
                done: Some(done),
                _live: Gauge::enter(live),
            },
        ))
    }

    /// Bytes of the whole message on the wire.
    pub(crate) fn len(&self) -> usize {
        self.header.len() + self.payload.as_ref().map_or(0, PageRange::len)
    }

    /// Bytes that TCP has not accepted yet.
    pub(crate) fn remaining(&self) -> usize {
        self.len().saturating_sub(self.sent)
    }

    /// Whether any byte of it is on the wire, so that the stream breaks if the rest does not follow.
    pub(crate) fn is_started(&self) -> bool {
        self.sent > 0
    }

    /// Whether TCP has some of it on loan: then all of it has to go that way, and it must not be
    /// completed before the loan is returned.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent
    }

    /// Whether what remains is to be lent to TCP and not copied; `min` is the smallest payload for
    /// which that is to be done, if there is one.
    pub(crate) fn is_to_be_lent(&self, min: Option<usize>) -> bool {
        if self.is_started() {
            return self.lent;
        }
        match (&self.payload, min) {
            (Some(payload), Some(min)) => payload.len() >= min,
            _ => false,
        }
    }

    /// Whether it is worth waiting for a connection at `now`, in monotonic milliseconds.
    pub(crate) fn may_wait(&self, now: u64) -> bool {
        now < self.deadline_ms && self.done.as_ref().is_some_and(|done| done.is_wanted())
    }

    /// Adds what remains to `io`. Returns whether there was room for all of it.
    pub(crate) fn add_to<'a>(&'a self, io: &mut Bvecs<'a>) -> bool {
        let header = self.header.len();
        if self.sent < header && !io.push_frag(&self.header, self.sent) {
            return false;
        }
        match &self.payload {
            Some(range) => io.push_range(range, self.sent.saturating_sub(header)),
            None => true,
        }
    }

    /// Notes that TCP accepted the next `nob` bytes, as a loan or as a copy.
    pub(crate) fn advance(&mut self, nob: usize, lent: bool) {
        self.lent |= lent && nob > 0;
        self.sent = self.sent.saturating_add(nob).min(self.len());
    }

    /// Ends the transmit. Frees it first, so that whoever is told may count on its resources.
    pub(crate) fn finish(mut self: KBox<Self>, result: Result) {
        let done = self.done.take();
        drop(self);
        if let Some(done) = done {
            done.complete(result);
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done.complete(Err(ESHUTDOWN));
        }
    }
}
