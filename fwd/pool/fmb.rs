// SPDX-License-Identifier: GPL-2.0

//! A forwarding message buffer that is in use.
//!
//! An [`Fmb`] is owned by the message that is in the buffer. Dropping it returns the buffer to its pool.

use super::{
    BlockedConn,
    Pool, //
};
use crate::{
    fwd::credits::FmbCredits,
    lib_linux::page::{
        PageRange,
        Pages, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A forwarding message buffer. Dropped in thread context, with no spinlock held.
pub(crate) struct Fmb<C: BlockedConn + ?Sized> {
    /// `None` only while it is dropped.
    pages: Option<Arc<Pages>>,
    next_hop: Arc<FmbCredits>,
    seq: u64,
    pool: Arc<Pool<C>>,
}

impl<C: BlockedConn + ?Sized> Fmb<C> {
    /// The buffer that `pool` has granted to the message with number `seq`, which goes to `next_hop`.
    pub(super) fn new(
        pool: &Arc<Pool<C>>,
        seq: u64,
        next_hop: &Arc<FmbCredits>,
        pages: Arc<Pages>,
    ) -> Self {
        Self {
            pages: Some(pages),
            next_hop: next_hop.clone(),
            seq,
            pool: pool.clone(),
        }
    }

    /// The first `len` bytes of the buffer.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the buffer is shorter.
    pub(crate) fn range(&self, len: usize) -> Result<PageRange> {
        let pages = self.pages.as_ref().ok_or(EINVAL)?;
        PageRange::new(pages.clone(), 0, len)
    }

    /// Notes that the buffer has all of the message, which is about to be sent. Thread context, no
    /// spinlock held.
    pub(crate) fn set_received(&self) {
        self.pool.set_received(self.seq);
    }

    /// The credits of the node that the message goes to.
    pub(crate) fn next_hop(&self) -> &FmbCredits {
        &self.next_hop
    }
}

impl<C: BlockedConn + ?Sized> Drop for Fmb<C> {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            self.pool.give_back(self.seq, pages);
        }
    }
}
