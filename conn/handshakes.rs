// SPDX-License-Identifier: GPL-2.0

//! The handshakes that an NI has under way, bounded in number and time.
//!
//! The list has a mutex, and shares the handshakes by [`Arc`]. No handshake is ended with the mutex held,
//! because ending it takes it out of the list. Memory for the list is allocated with the mutex held, by
//! threads that begin a handshake; all of them run in a scope that keeps allocations from entering a
//! file system.

use super::Handshake;
use crate::{
    fault,
    lib_linux::misc,
    tunables, //
};
use core::net::IpAddr;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// How many passive handshakes one source address may have under way.
const MAX_PENDING_PER_SOURCE: usize = 8;

/// The handshakes that an NI has under way.
#[pin_data]
pub(crate) struct HandshakeTable {
    #[pin]
    inner: Mutex<TableInner>,
}

struct TableInner {
    handshakes: KVec<Arc<Handshake>>,
    closed: bool,
}

impl HandshakeTable {
    /// An empty table.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(
                TableInner {
                    handshakes: KVec::new(),
                    closed: false,
                },
                "socklnd_handshakes"
            ),
        })
    }

    /// Adds one. If there are too many passive ones then, the oldest of them fails.
    pub(super) fn add(&self, new: &Arc<Handshake>) -> Result {
        misc::assert_memalloc_nofs();
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(ESHUTDOWN);
        }
        if new.is_passive() && fault::handshake_fails() {
            return Err(ENOMEM);
        }
        inner.handshakes.push(new.clone(), GFP_KERNEL)?;
        if !new.is_passive() {
            return Ok(());
        }
        let strangers = || inner.handshakes.iter().filter(|h| h.is_passive());
        let same_source = || strangers().filter(|h| h.remote().ip() == new.remote().ip());
        let surplus = if same_source().count() > MAX_PENDING_PER_SOURCE {
            same_source().next().cloned()
        } else if strangers().count() > tunables::pending_limit() {
            strangers().next().cloned()
        } else {
            None
        };
        drop(inner);
        if let Some(surplus) = surplus {
            surplus.fail(EBUSY);
        }
        Ok(())
    }

    pub(super) fn remove(&self, this: &Arc<Handshake>) {
        let mut inner = self.inner.lock();
        let at = inner.handshakes.iter().position(|h| Arc::ptr_eq(h, this));
        let removed = at.and_then(|at| inner.handshakes.remove(at).ok());
        drop(inner);
        drop(removed);
    }

    /// Whether there is a passive handshake from an address that matches. Thread context, may sleep.
    pub(crate) fn any_from(&self, matching: impl Fn(IpAddr) -> bool) -> bool {
        let inner = self.inner.lock();
        let mut strangers = inner.handshakes.iter().filter(|h| h.is_passive());
        strangers.any(|h| matching(h.remote().ip()))
    }

    /// Fails those whose deadline is at `now` or before. The reaper's thread.
    pub(crate) fn expire(&self, now: u64) {
        self.fail_all(ETIMEDOUT, |h| now >= h.deadline_ms());
    }

    /// Fails those that use `addr`, which is no longer an address of the NI. Thread context, may sleep.
    pub(crate) fn fail_bound_to(&self, addr: IpAddr, why: Error) {
        self.fail_all(why, |h| h.is_bound_to(addr));
    }

    /// Fails active ones whose route was deleted. Thread context, may sleep.
    pub(crate) fn cancel_deleted_routes(&self) {
        self.fail_all(ESHUTDOWN, |h| h.has_lost_route());
    }

    fn fail_all(&self, why: Error, doomed: impl Fn(&Handshake) -> bool) {
        loop {
            let next = {
                let inner = self.inner.lock();
                let mut all = inner.handshakes.iter();
                all.find(|h| doomed(h)).cloned()
            };
            // This takes it out of the list.
            match next {
                Some(next) => next.fail(why),
                None => return,
            }
        }
    }

    /// Fails all, and lets no more be added. Thread context.
    pub(crate) fn close(&self) {
        loop {
            let next = {
                let mut inner = self.inner.lock();
                inner.closed = true;
                inner.handshakes.pop()
            };
            match next {
                Some(next) => next.fail(ESHUTDOWN),
                None => return,
            }
        }
    }
}
