// SPDX-License-Identifier: GPL-2.0

//! Routes: addresses at which a peer can be reached.
//!
//! A route is created by an administrator, who gives it shares, or on demand for the address in a NID. Its
//! peer and the handshake that uses it share it by [`Arc`]. The peer's lock protects its state, which
//! [`LockedBy`] enforces. It is freed when the peer has dropped it and no attempt is under way.

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
    /// It was created without shares, for an address that the driver has discovered.
    discovered: bool,
    state: LockedBy<RouteState, P>,
}

/// The state of a route, protected by the peer's lock.
pub(crate) struct RouteState {
    /// How often administrators have added it, less how often they have deleted a share.
    pub(crate) shares: u32,
    /// It is no longer in the peer's list: the connection of an attempt that ends now is closed.
    pub(crate) deleted: bool,
    /// An attempt is queued or under way. There is at most one, whatever its type.
    pub(crate) connecting: bool,
    /// When the attempt under way began to connect, in monotonic milliseconds. The peer's own attempt may race
    /// with it.
    pub(crate) racing_since: Option<u64>,
    /// An attempt has failed, and since then no attempt on any of the peer's routes has succeeded, and the
    /// messages that it was for have not been given up.
    pub(crate) tried: bool,
    /// The peer is up, although the last attempt led to no lasting connection: transmits may wait for another
    /// connection.
    pub(crate) expect_passive: bool,
    /// Attempts to connect so far.
    pub(crate) attempts: u64,
    /// Those of them that failed.
    pub(crate) failures: u64,
    /// Connections that this route has opened so far.
    pub(crate) opened: u64,
    /// The interface that it connects from, once that was chosen: see [`Peer::choose_source`].
    ///
    /// [`Peer::choose_source`]: crate::peer::Peer::choose_source
    pub(crate) interface: Option<RouteUse>,
    backoff: Backoff,
}

impl<P> Route<P> {
    /// A route to `addr`, not yet in any list. May sleep.
    pub(crate) fn new(addr: SocketAddr, shares: u32, owner: &SpinLock<P>) -> Result<Arc<Self>> {
        let route = Self {
            addr,
            discovered: shares == 0,
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

    /// The address of the peer.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether the driver discovered the address before any administrator added it.
    pub(crate) fn is_discovered(&self) -> bool {
        self.discovered
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

    /// Whether an attempt may begin, regardless of the back-off.
    pub(crate) fn is_free(&self) -> bool {
        !self.deleted && !self.connecting
    }

    /// When the last attempt failed, or its connection was closed early, in monotonic milliseconds.
    pub(crate) fn failed_ms(&self) -> u64 {
        self.backoff.failed_ms()
    }

    /// Whether a transmit may wait for a connection on this route.
    pub(crate) fn may_queue(&self) -> bool {
        !self.deleted && (self.connecting || self.expect_passive)
    }

    /// An attempt failed: the next one waits, longer each time.
    pub(crate) fn back_off(&mut self, now_ms: u64, min_ms: u64, max_ms: u64) {
        self.backoff.fail(now_ms, min_ms, max_ms);
    }

    /// A connection was closed soon after it was opened. This counts as a failure, but the peer is up.
    pub(crate) fn note_short_conn(&mut self, now_ms: u64, min_ms: u64, max_ms: u64) {
        self.expect_passive = true;
        self.back_off(now_ms, min_ms, max_ms);
    }

    /// The peer's own attempt was first: wait for `wait_ms` before the next attempt.
    pub(crate) fn yield_to_peer(&mut self, now_ms: u64, wait_ms: u64) {
        self.expect_passive = true;
        self.backoff.postpone(now_ms, wait_ms);
    }

    /// A connection that had worked was closed while others stay: wait for `wait_ms` before the next attempt.
    pub(crate) fn postpone(&mut self, now_ms: u64, wait_ms: u64) {
        self.forget_failures();
        self.backoff.postpone(now_ms, wait_ms);
    }

    /// A connection has worked: the next attempt may begin at once.
    pub(crate) fn note_success(&mut self) {
        self.expect_passive = false;
        self.forget_failures();
    }

    /// Resets the back-off, after a connection that has worked.
    pub(crate) fn forget_failures(&mut self) {
        self.backoff = Backoff::new();
    }
}
