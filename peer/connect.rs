// SPDX-License-Identifier: GPL-2.0

//! How a peer comes by its connections: which route connects when, and what becomes of attempts.
//!
//! All of it works on the state that the peer's lock protects, and takes that lock itself.

use super::{
    Buried,
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

/// A route that is to connect, marked so, and the type of the connection.
pub(super) struct Claim {
    route: Arc<Route>,
    kind: ConnType,
}

/// Whether what waits for a connection will have one.
enum Outlook {
    /// There is one, or an attempt is under way.
    Good,
    /// There may be one to another address.
    Further(Claim),
    /// No address is left. What has waited.
    None(Fifo<Tx>),
}

impl Peer {
    /// Finds a route that should connect now, marks it so, and says for which type.
    pub(super) fn claim_route(&self, inner: &mut PeerInner, now: u64) -> Option<Claim> {
        if !inner.routes.iter().any(|r| r.state(inner).connecting) {
            // What is tried from here on is tried for other messages than before.
            inner.forget_tries();
        }
        self.claim(inner, |state| state.is_due(now))
    }

    /// Claims the first route that is `wanted`, and by which a connection is missing.
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

    /// Begins an attempt for a claimed route, and if that can't be, for the next. May sleep.
    pub(super) fn connect(self: &Arc<Self>, claim: Claim) {
        let mut next = Some(claim);
        while let Some(Claim { route, kind }) = next {
            next = match Handshake::connect(self, &route, kind) {
                Ok(()) => return,
                Err(e) => self.attempt_failed(&route, Failure::connecting(e)),
            };
        }
        self.unlink_if_unused();
    }

    /// If no connection can carry messages, and no attempt is under way that may bring one: claims an
    /// address that was not tried yet, whether or not it should rest; each is tried once, after one
    /// whose turn it was. If there is none, gives up what waits.
    fn look_further(&self, inner: &mut PeerInner, has_passive_handshake: bool) -> Outlook {
        if inner.can_send() || inner.may_queue() || has_passive_handshake {
            return Outlook::Good;
        }
        let untried = |state: &RouteState| state.is_free() && !state.tried;
        if let Some(claim) = self.claim(inner, untried) {
            return Outlook::Further(claim);
        }
        inner.forget_tries();
        let mut failed = Fifo::new();
        failed.append(&mut inner.queue);
        Outlook::None(failed)
    }

    /// Acts as [`Peer::look_further`] says. Returns the claim. Thread context, no spinlock held.
    fn follow(self: &Arc<Self>, outlook: Outlook, why: Failure) -> Option<Claim> {
        misc::assert_may_sleep();
        match outlook {
            Outlook::Good => None,
            Outlook::Further(claim) => Some(claim),
            Outlook::None(failed) => {
                if why.error != ESHUTDOWN {
                    // First of all: who is told now that nothing was sent and tries again does so by
                    // another gateway, if this is one.
                    let upper = self.ni.upper();
                    upper.peer_found(self.ni.as_arc_borrow(), self.nid, PeerState::Down);
                }
                self.fail_txs(failed, why);
                None
            }
        }
    }

    /// Routes were taken away because of `why`: what waits for a connection goes by another, or fails.
    /// Thread context, no spinlock held.
    pub(super) fn lost_routes(self: &Arc<Self>, why: Failure) {
        misc::assert_may_sleep();
        let has_passive_handshake = self.has_passive_handshake();
        let mut inner = self.inner.lock();
        if inner.closing || inner.queue.is_empty() {
            return;
        }
        let outlook = self.look_further(&mut inner, has_passive_handshake);
        drop(inner);
        if let Some(claim) = self.follow(outlook, why) {
            self.connect(claim);
        }
    }

    /// Looks after transmits that wait, and types of connections that are missing: tries routes that
    /// are due, ends what waited too long.
    ///
    /// Returns whether there is still something to look after. Thread context.
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

    /// Notes that the connection request of an attempt is about to go out. Returns `false` if it need
    /// not, because a connection of type `kind` has come meanwhile. Thread context.
    ///
    /// # Errors
    ///
    /// `ESHUTDOWN` if there is no point in it any more: the route or the peer was deleted.
    pub(crate) fn connect_begins(&self, route: &Route, kind: ConnType) -> Result<bool> {
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
        self.count(1, |events| &events.attempts);
        Ok(true)
    }

    /// Ends a claimed attempt that need not be made. Thread context, may sleep.
    pub(crate) fn attempt_unneeded(self: &Arc<Self>, route: &Route) {
        route.state_mut(&mut self.inner.lock()).connecting = false;
        self.connect_more();
        self.unlink_if_unused();
    }

    /// The version of the protocol for a handshake that begins now, with the peer at `addr`. Thread
    /// context.
    pub(crate) fn proto_to_try(&self, addr: IpAddr) -> Proto {
        let known = self.inner.lock().proto();
        known.unwrap_or_else(|| self.ni().first_proto(self.nid, addr))
    }

    /// The peer has refused a version, and named another: that is the one to try next. Returns
    /// whether that is news, so that it can be tried at once. Thread context, no spinlock held.
    pub(crate) fn note_preferred_proto(self: &Arc<Self>, named: Proto) -> bool {
        misc::assert_may_sleep();
        let mut inner = self.inner.lock();
        let mut buried = Buried::default();
        if inner.proto() != Some(named) {
            // With connections of another version, it must have been started anew since.
            buried = inner.bury(Failure::restarted(), |_| true);
        }
        let news = inner.proto().is_none();
        if inner.life.is_none() {
            inner.named = Some(named);
        }
        drop(inner);
        if buried.any {
            self.mark_busy();
        }
        self.notify_down(buried, Loss::Restarted);
        news
    }

    /// Ends a claimed attempt that the peer has refused because of its version, and named another,
    /// which was not known before. Thread context.
    pub(crate) fn try_again(self: &Arc<Self>, route: &Route) {
        let mut inner = self.inner.lock();
        let state = route.state_mut(&mut inner);
        state.connecting = false;
        state.racing_since = None;
        // The next one begins at once.
        state.expect_passive = true;
        drop(inner);
        self.connect_more();
    }

    /// Whether an administrator, or the NID itself, says that the peer is at `addr`.
    pub(crate) fn has_route_to(&self, addr: IpAddr) -> bool {
        self.inner.lock().route_to(addr).is_some()
    }

    /// Whether somebody at one of its addresses is about to connect. Thread context, no spinlock held.
    pub(super) fn has_passive_handshake(&self) -> bool {
        self.ni()
            .handshakes()
            .any_from(|addr| self.has_route_to(addr))
    }

    /// Whether `route` has been taken away. Thread context.
    pub(crate) fn has_lost(&self, route: &Route) -> bool {
        route.state(&self.inner.lock()).deleted
    }

    /// Ends a claimed attempt that brought no connection. Thread context, may sleep.
    pub(crate) fn connect_failed(self: &Arc<Self>, route: &Route, why: Failure) {
        misc::assert_may_sleep();
        match self.attempt_failed(route, why) {
            Some(claim) => self.connect(claim),
            None => self.unlink_if_unused(),
        }
    }

    /// As [`Peer::connect_failed`]; returns what is to be tried next.
    fn attempt_failed(self: &Arc<Self>, route: &Route, why: Failure) -> Option<Claim> {
        let now = time::monotonic_ms();
        let addr = route.addr().ip();
        let (min, max) = (tunables::min_reconnect_ms(), tunables::max_reconnect_ms());
        // What waits goes to the connection that the peer makes, if it is at it.
        let has_passive_handshake = self.has_passive_handshake();
        let mut inner = self.inner.lock();
        let stood = inner.has_stood(addr, route.state(&inner).failed_ms(), now, min);
        let state = route.state_mut(&mut inner);
        state.connecting = false;
        state.racing_since = None;
        if stood {
            state.forget_failures();
        }
        if why.error == EALREADY {
            // The peer's own connection is coming. That is no failure, and what waits may go on
            // waiting until its deadline.
            state.yield_to_peer(now, min);
            inner.refused(addr);
        } else {
            state.failures = state.failures.saturating_add(1);
            state.tried = true;
            state.back_off(now, min, max);
        }
        let outlook = self.look_further(&mut inner, has_passive_handshake);
        let incomplete = inner.is_incomplete(self.ni().conns_per_peer());
        drop(inner);
        if incomplete {
            self.ni.context().queue_connect_wait(self.clone());
        }
        self.follow(outlook, why)
    }

    /// Looks whether the peer is there: connects if no connection can carry messages and it is time
    /// to. Returns whether one can. Thread context, may sleep.
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

    /// After a successful attempt: goes on with the next type that is missing. Thread context.
    pub(crate) fn connect_more(self: &Arc<Self>) {
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
