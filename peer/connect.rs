// SPDX-License-Identifier: GPL-2.0

//! How a peer gets its connections: which route connects when, and the results of attempts.
//!
//! All functions use state that the peer's lock protects, and take that lock.

use super::{
    ClosedConns,
    Peer,
    PeerInner,
    Route, //
};
use crate::{
    conn::Handshake,
    lib_linux::{
        misc,
        queue::Fifo,
        ratelimit::pr_warn_ratelimited,
        time, //
    },
    route::RouteState,
    tunables,
    tx::Tx,
    upper::{
        Failure,
        Health,
        Loss,
        PeerState, //
    },
    wire::{
        ConnType,
        Proto, //
    }, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Whether the peer, by its address, is about to connect to this node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PassiveHandshake {
    /// It is.
    UnderWay,
    /// It is not, or that was not checked.
    None,
}

/// A route that is marked as connecting, and the type of the connection.
pub(super) struct Claim {
    route: Arc<Route>,
    kind: ConnType,
}

/// Whether the transmits that wait for a connection will get one.
enum Outlook {
    /// There is a connection, or an attempt is under way.
    Unneeded,
    /// Another address is to be tried.
    Claimed(Claim),
    /// No address is left. The transmits that waited.
    NoneLeft(Fifo<Tx>),
}

impl Peer {
    /// Finds a route that should connect now, and marks it as connecting.
    pub(super) fn claim_route(&self, inner: &mut PeerInner, now: u64) -> Option<Claim> {
        if !inner.routes.iter().any(|r| r.state(inner).connecting) {
            // New messages: addresses that failed for earlier ones may be tried again.
            inner.reset_tried();
        }
        self.claim(inner, |state| state.is_due(now))
    }

    /// Claims the first route that is `wanted` and lacks a connection.
    fn claim(&self, inner: &mut PeerInner, wanted: impl Fn(&RouteState) -> bool) -> Option<Claim> {
        let own = self.ni().conns_per_peer();
        let (route, kind) = inner.routes.iter().find_map(|route| {
            if !wanted(route.state(inner)) {
                return None;
            }
            let kind = inner.missing_type(route.addr().ip(), own)?;
            Some((route.clone(), kind))
        })?;
        let state = route.state_mut(inner);
        state.connecting = true;
        state.expect_passive = false;
        Some(Claim { route, kind })
    }

    /// Begins an attempt on a claimed route, and if that fails, on the next. May sleep.
    pub(super) fn connect(self: &Arc<Self>, claim: Claim) {
        let mut next = Some(claim);
        while let Some(Claim { route, kind }) = next {
            next = match Handshake::start_active(self, &route, kind) {
                Ok(()) => return,
                Err(e) => self.attempt_failed(&route, Failure::connecting(e)),
            };
        }
        self.unlink_if_unused();
    }

    /// If there is no connection for messages, and no attempt is under way: claims a route that was not tried
    /// yet for these transmits, whether its back-off has passed or not. Each route is tried once. If none is
    /// left, gives up the transmits.
    fn next_attempt(&self, inner: &mut PeerInner, passive: PassiveHandshake) -> Outlook {
        if inner.can_send() || inner.may_queue() || passive == PassiveHandshake::UnderWay {
            return Outlook::Unneeded;
        }
        let untried = |state: &RouteState| state.is_free() && !state.tried;
        if let Some(claim) = self.claim(inner, untried) {
            return Outlook::Claimed(claim);
        }
        inner.reset_tried();
        let mut failed = Fifo::new();
        failed.append(&mut inner.queue);
        Outlook::NoneLeft(failed)
    }

    /// Acts on the result of [`Peer::next_attempt`]. Returns the claim. Thread context, no spinlock held.
    fn apply_outlook(self: &Arc<Self>, outlook: Outlook, why: Failure) -> Option<Claim> {
        misc::assert_may_sleep();
        match outlook {
            Outlook::Unneeded => None,
            Outlook::Claimed(claim) => Some(claim),
            Outlook::NoneLeft(failed) => {
                if why.error != ESHUTDOWN {
                    // Before the transmits fail: if this peer is a router, their senders use another one when
                    // they try again.
                    let upper = self.ni.upper();
                    upper.peer_found(self.ni.as_arc_borrow(), self.nid, PeerState::Down);
                }
                self.fail_txs(failed, why);
                None
            }
        }
    }

    /// Routes were deleted because of `why`: transmits that wait for a connection use another route, or fail.
    /// Thread context, no spinlock held.
    pub(super) fn reroute_queue(self: &Arc<Self>, why: Failure) {
        misc::assert_may_sleep();
        let passive = self.passive_handshake();
        let mut inner = self.inner.lock();
        if inner.closing || inner.queue.is_empty() {
            return;
        }
        let outlook = self.next_attempt(&mut inner, passive);
        drop(inner);
        if let Some(claim) = self.apply_outlook(outlook, why) {
            self.connect(claim);
        }
    }

    /// Fails transmits that have waited too long, and begins an attempt if transmits wait or connections are
    /// missing and a route's back-off has passed.
    ///
    /// Returns whether transmits or missing connections are left. Thread context.
    pub(crate) fn service_pending_tx(self: &Arc<Self>, now: u64) -> bool {
        let mut expired = Fifo::new();
        let mut waiting = Fifo::new();
        let mut inner = self.inner.lock();
        while let Some(tx) = inner.queue.pop_front() {
            if tx.may_wait(now) {
                waiting.push_back(tx);
            } else {
                expired.push_back(tx);
            }
        }
        inner.queue.append(&mut waiting);
        let waits = !inner.queue.is_empty() || inner.is_incomplete(self.ni().conns_per_peer());
        let launch = if waits {
            self.claim_route(&mut inner, now)
        } else {
            None
        };
        drop(inner);
        if !expired.is_empty() {
            pr_warn_ratelimited!(
                "{}: gave up {} messages for {}: no connection in time (sock_timeout={})\n",
                self.ni.nid(),
                expired.len(),
                self.nid,
                tunables::timeout_ms() / 1000
            );
        }
        self.count(expired.len() as u64, |events| &events.timeouts);
        self.fail_txs(expired, Failure::new(ETIMEDOUT, Health::NetworkTimeout));
        if let Some(claim) = launch {
            self.connect(claim);
        }
        waits
    }

    /// Records that an attempt begins. Returns `false` if it is not needed, because there is a connection of
    /// type `kind` by now. Thread context.
    ///
    /// # Errors
    ///
    /// `ESHUTDOWN` if the route or the peer was deleted.
    pub(crate) fn begin_attempt(&self, route: &Route, kind: ConnType) -> Result<bool> {
        let own = self.ni().conns_per_peer();
        let mut inner = self.inner.lock();
        if inner.closing || route.state(&inner).deleted {
            return Err(ESHUTDOWN);
        }
        let most = match kind {
            ConnType::Any | ConnType::Control => 1,
            ConnType::BulkIn | ConnType::BulkOut => inner.bulk_conns(own) as usize,
        };
        if inner.count_to(route.addr().ip(), kind) >= most {
            return Ok(false);
        }
        let state = route.state_mut(&mut inner);
        state.racing_since = Some(time::monotonic_ms());
        state.attempts = state.attempts.saturating_add(1);
        drop(inner);
        self.count(1, |events| &events.connect_attempts);
        Ok(true)
    }

    /// Ends the claim of an attempt that is not needed. Thread context, may sleep.
    pub(crate) fn cancel_attempt(self: &Arc<Self>, route: &Route) {
        route.state_mut(&mut self.inner.lock()).connecting = false;
        self.connect_missing();
        self.unlink_if_unused();
    }

    /// The version of the protocol for a handshake with the peer at `addr` that begins now. Thread context.
    pub(crate) fn proto_to_try(&self, addr: IpAddr) -> Proto {
        let known = self.inner.lock().proto();
        known.unwrap_or_else(|| self.ni().first_proto(self.nid, addr))
    }

    /// Records the version that the peer named when it refused another: it is tried next. Returns whether it
    /// was not known before, so that it can be tried at once. Thread context, no spinlock held.
    pub(crate) fn note_preferred_proto(self: &Arc<Self>, named: Proto) -> bool {
        misc::assert_may_sleep();
        let mut inner = self.inner.lock();
        let mut closed = ClosedConns::default();
        if inner.proto() != Some(named) {
            // The peer was restarted if it has connections of another version.
            closed = inner.close_conns(Failure::restarted(), |_| true);
        }
        let news = inner.proto().is_none();
        if inner.conn_set.is_none() {
            inner.preferred_proto = Some(named);
        }
        drop(inner);
        if closed.any {
            self.mark_busy();
        }
        self.notify_down(closed, Loss::Restarted);
        news
    }

    /// Ends the claim of a failed attempt so that the next one begins at once. Thread context.
    pub(crate) fn retry_route(self: &Arc<Self>, route: &Route) {
        let mut inner = self.inner.lock();
        let state = route.state_mut(&mut inner);
        state.connecting = false;
        state.racing_since = None;
        // So that transmits keep waiting.
        state.expect_passive = true;
        drop(inner);
        self.connect_missing();
    }

    /// Whether one of its routes is to `addr`. Thread context.
    pub(crate) fn has_route_to(&self, addr: IpAddr) -> bool {
        self.inner.lock().route_to(addr).is_some()
    }

    /// Whether a node at one of its addresses is about to connect. Thread context, no spinlock held.
    pub(super) fn passive_handshake(&self) -> PassiveHandshake {
        misc::assert_may_sleep();
        let handshakes = self.ni().handshakes();
        match handshakes.any_from(|addr| self.has_route_to(addr)) {
            true => PassiveHandshake::UnderWay,
            false => PassiveHandshake::None,
        }
    }

    /// Whether `route` was deleted. Thread context.
    pub(crate) fn has_lost(&self, route: &Route) -> bool {
        route.state(&self.inner.lock()).deleted
    }

    /// Ends the claim of an attempt that failed. Thread context, may sleep.
    pub(crate) fn connect_failed(self: &Arc<Self>, route: &Route, why: Failure) {
        misc::assert_may_sleep();
        match self.attempt_failed(route, why) {
            Some(claim) => self.connect(claim),
            None => self.unlink_if_unused(),
        }
    }

    /// As [`Peer::connect_failed`]; returns the next claim.
    fn attempt_failed(self: &Arc<Self>, route: &Route, why: Failure) -> Option<Claim> {
        let now = time::monotonic_ms();
        let addr = route.addr().ip();
        let (min, max) = (tunables::min_reconnect_ms(), tunables::max_reconnect_ms());
        // Transmits wait for the peer's own connection, if it is connecting.
        let passive = self.passive_handshake();
        let mut inner = self.inner.lock();
        let stood = inner.has_lasted(addr, route.state(&inner).failed_ms(), now, min);
        let state = route.state_mut(&mut inner);
        state.connecting = false;
        state.racing_since = None;
        if stood {
            state.forget_failures();
        }
        if why.error == EALREADY {
            // The peer is connecting by itself. That is no failure: transmits wait until their deadline.
            state.yield_to_peer(now, min);
            inner.note_refusal(addr);
        } else {
            state.failures = state.failures.saturating_add(1);
            state.tried = true;
            state.back_off(now, min, max);
        }
        let outlook = self.next_attempt(&mut inner, passive);
        let incomplete = inner.is_incomplete(self.ni().conns_per_peer());
        drop(inner);
        if incomplete {
            self.ni.context().queue_connect_wait(self.clone());
        }
        self.apply_outlook(outlook, why)
    }

    /// Returns whether there is a connection for messages. If not, connects to the peer if a route's back-off
    /// has passed. Thread context, may sleep.
    pub(crate) fn probe(self: &Arc<Self>, now: u64) -> bool {
        let mut inner = self.inner.lock();
        if inner.closing {
            return false;
        }
        if inner.can_send() {
            return true;
        }
        let launch = self.claim_route(&mut inner, now);
        drop(inner);
        if let Some(claim) = launch {
            self.connect(claim);
        }
        false
    }

    /// After a successful attempt: connects the next type that is missing. Thread context.
    pub(crate) fn connect_missing(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        if inner.closing {
            return;
        }
        let launch = self.claim_route(&mut inner, time::monotonic_ms());
        let incomplete = inner.is_incomplete(self.ni().conns_per_peer());
        drop(inner);
        if let Some(claim) = launch {
            self.connect(claim);
        } else if incomplete {
            self.ni.context().queue_connect_wait(self.clone());
        }
    }
}
