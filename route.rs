// SPDX-License-Identifier: GPL-2.0

//! Routes: addresses at which a peer can be reached.
//!
//! A route is created by an administrator, who gives it shares, or on demand from a NID that is an
//! address itself. It is shared by [`Arc`] between its peer and the handshake
//! that tries it; what changes is protected by the peer's lock, which [`LockedBy`] enforces. It is
//! freed when the peer has dropped it and no attempt is under way.

mod backoff;

use crate::interface::RouteUse;
use backoff::Backoff;
use core::net::SocketAddr;
use kernel::{
    prelude::*,
    sync::{
        Arc,
        LockedBy,
        SpinLock, //
    }, //
};

/// One address of a peer, whose lock protects a `P`.
pub(crate) struct Route<P> {
    addr: SocketAddr,
    /// It was made without shares: the driver found the address by itself.
    found: bool,
    state: LockedBy<RouteState, P>,
}

/// What changes about a route; protected by the peer's lock.
pub(crate) struct RouteState {
    /// How often an administrator added it, less how often a share was taken away.
    pub(crate) shares: u32,
    /// It is not in the peer's list any more: an attempt that ends now is thrown away.
    pub(crate) deleted: bool,
    /// An attempt is queued or under way. At most one is, whatever its type.
    pub(crate) connecting: bool,
    /// Since when, in monotonic milliseconds, the connection request of an attempt has been on the
    /// network, where it may race with the peer's own.
    pub(crate) racing_since: Option<u64>,
    /// An attempt has failed, and since then none has succeeded by any of the peer's routes, nor have
    /// the messages been given up for which it was made.
    pub(crate) tried: bool,
    /// The peer is there, although the last attempt brought nothing that lasted: what is to be sent
    /// may wait for another connection.
    pub(crate) expect_passive: bool,
    /// Attempts to connect so far.
    pub(crate) attempts: u64,
    /// Those of them that failed.
    pub(crate) failures: u64,
    /// Connections that this route has opened so far.
    pub(crate) opened: u64,
    /// Whose address it connects from, once that was chosen: see [`Peer::source`].
    ///
    /// [`Peer::source`]: crate::peer::Peer::source
    pub(crate) interface: Option<RouteUse>,
    backoff: Backoff,
}

impl<P> Route<P> {
    /// A route to `addr`, not yet in any list. May sleep.
    pub(crate) fn new(addr: SocketAddr, shares: u32, owner: &SpinLock<P>) -> Result<Arc<Self>> {
        let route = Self {
            addr,
            found: shares == 0,
            state: LockedBy::new(
                owner,
                RouteState {
                    shares,
                    deleted: false,
                    connecting: false,
                    racing_since: None,
                    tried: false,
                    expect_passive: false,
                    attempts: 0,
                    failures: 0,
                    opened: 0,
                    interface: None,
                    backoff: Backoff::new(),
                },
            ),
        };
        Ok(Arc::new(route, GFP_KERNEL)?)
    }

    /// Where it leads to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether the driver found the address by itself, before any administrator added it.
    pub(crate) fn is_found(&self) -> bool {
        self.found
    }

    /// Its state, for the holder of the peer's lock.
    pub(crate) fn state<'a>(&'a self, peer: &'a P) -> &'a RouteState {
        self.state.access(peer)
    }

    /// Its state, for the holder of the peer's lock.
    pub(crate) fn state_mut<'a>(&'a self, peer: &'a mut P) -> &'a mut RouteState {
        self.state.access_mut(peer)
    }
}

impl RouteState {
    /// Whether an attempt may begin at `now_ms`.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.is_free() && self.backoff.is_due(now_ms)
    }

    /// Whether an attempt may begin, apart from the time.
    pub(crate) fn is_free(&self) -> bool {
        !self.deleted && !self.connecting
    }

    /// When the last attempt failed, or its connection was cut short, in monotonic milliseconds.
    pub(crate) fn failed_ms(&self) -> u64 {
        self.backoff.failed_ms()
    }

    /// Whether a transmit may wait for a connection of this route.
    pub(crate) fn may_queue(&self) -> bool {
        !self.deleted && (self.connecting || self.expect_passive)
    }

    /// An attempt failed: the next one waits, longer each time.
    pub(crate) fn back_off(&mut self, now_ms: u64, min_ms: u64, max_ms: u64) {
        self.backoff.fail(now_ms, min_ms, max_ms);
    }

    /// A connection was closed as soon as it was made, which is no better than a failure; but
    /// somebody was there.
    pub(crate) fn cut_short(&mut self, now_ms: u64, min_ms: u64, max_ms: u64) {
        self.expect_passive = true;
        self.back_off(now_ms, min_ms, max_ms);
    }

    /// The peer's own attempt was first: look again after `wait_ms` whether it came through.
    pub(crate) fn yield_to_peer(&mut self, now_ms: u64, wait_ms: u64) {
        self.expect_passive = true;
        self.backoff.postpone(now_ms, wait_ms);
    }

    /// A connection that did its work was lost while others stay: nothing before `wait_ms` have
    /// passed.
    pub(crate) fn postpone(&mut self, now_ms: u64, wait_ms: u64) {
        self.forget_failures();
        self.backoff.postpone(now_ms, wait_ms);
    }

    /// A connection did its work: the next attempt may come at once.
    pub(crate) fn worked(&mut self) {
        self.expect_passive = false;
        self.forget_failures();
    }

    /// Failures in front of a connection that did its work count no more.
    pub(crate) fn forget_failures(&mut self) {
        self.backoff = Backoff::new();
    }
}
