// SPDX-License-Identifier: GPL-2.0

//! The state of a peer, for code that holds its lock.
//!
//! The peer's lock protects [`PeerInner`]. The only other lock taken here is that of a connection's queue.

use super::{
    conn_set::{
        self,
        ConnSet, //
    },
    conns_per_peer,
    PeerInner,
    Route,
    PROBE_PAUSE_MS, //
};
use crate::{
    conn::Conn,
    tunables,
    tx::Tx,
    upper::Failure,
    wire::{
        ConnType,
        ConnTypes,
        MsgClass,
        Proto, //
    }, //
};
use core::net::IpAddr;
use kernel::sync::Arc;

/// The result of closing connections.
#[must_use]
#[derive(Clone, Copy, Default)]
pub(super) struct ClosedConns {
    /// Some were closed.
    pub(super) any: bool,
    /// There was one that could carry messages, and none is left: the message layer has to be notified, see
    /// [`Peer::notify_down`](super::Peer::notify_down).
    pub(super) lost_last: bool,
}

impl ClosedConns {
    /// The result of both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            any: self.any || other.any,
            lost_last: self.lost_last || other.lost_last,
        }
    }
}

impl PeerInner {
    pub(super) fn route_to(&self, addr: IpAddr) -> Option<Arc<Route>> {
        self.routes.iter().find(|r| r.addr().ip() == addr).cloned()
    }

    /// Its connections.
    pub(super) fn conns(&self) -> &[Arc<Conn>] {
        self.conn_set.as_ref().map_or(&[], ConnSet::conns)
    }

    pub(super) fn conns_to(&self, addr: IpAddr) -> impl Iterator<Item = &Arc<Conn>> {
        conn_set::conns_to(self.conns(), addr)
    }

    /// How many connections of type `kind` there are to `addr`.
    pub(super) fn count_to(&self, addr: IpAddr, kind: ConnType) -> usize {
        conn_set::count_to(self.conns(), addr, kind)
    }

    /// The version of the protocol that it speaks, if that is known.
    pub(super) fn proto(&self) -> Option<Proto> {
        self.conn_set
            .as_ref()
            .map(ConnSet::proto)
            .or(self.preferred_proto)
    }

    /// The type of connection to `addr` to open next, if this node wants `own` for bulk, each way.
    pub(super) fn missing_type(&self, addr: IpAddr, own: u32) -> Option<ConnType> {
        let bulk = self.bulk_conns(own);
        conns_per_peer::next_missing(self.conn_types(), bulk, |kind| self.count_to(addr, kind))
    }

    /// Whether connections to it are to have types, according to its version if that is known.
    pub(super) fn conn_types(&self) -> ConnTypes {
        tunables::conn_types(self.proto().unwrap_or(self.newest_proto))
    }

    /// How many connections for bulk there should be, each way, if this node wants `own`.
    pub(super) fn bulk_conns(&self, own: u32) -> u32 {
        match (self.proto(), &self.conn_set) {
            (Some(proto), _) if !proto.has_many_conns() => 1,
            (_, Some(conn_set)) => conn_set.agreement.bulk(own),
            (_, None) => own.max(1),
        }
    }

    /// The peer at `addr` has refused a connection.
    pub(super) fn note_refusal(&mut self, addr: IpAddr) {
        let types = self.conn_types();
        if let Some(conn_set) = &mut self.conn_set {
            conn_set.note_refusal(addr, types);
        }
    }

    /// Whether there is a connection that can carry messages.
    pub(super) fn can_send(&self) -> bool {
        self.conn_set.as_ref().is_some_and(ConnSet::can_send)
    }

    /// Makes TCP probe all connections, unless that was done a moment ago. Thread context.
    pub(super) fn probe_conns(&mut self, now: u64) {
        if now.saturating_sub(self.probed_ms) < PROBE_PAUSE_MS {
            return;
        }
        self.probed_ms = now;
        for conn in self.conns() {
            conn.request_probe();
        }
    }

    /// Whether it was refused because of an older incarnation so recently that it may still be connecting.
    pub(super) fn has_recent_stale_hello(&self, now: u64) -> bool {
        let fresh = |since: u64| now.saturating_sub(since) <= tunables::handshake_timeout_ms();
        self.stale_hello_ms.is_some_and(fresh)
    }

    /// Whether a connection to `addr` that was created at `since` or later has lasted for `min_ms`.
    pub(super) fn has_lasted(&self, addr: IpAddr, since: u64, now: u64, min_ms: u64) -> bool {
        self.conns_to(addr).any(|conn| {
            let born = conn.born_ms();
            born >= since && now.saturating_sub(born) >= min_ms
        })
    }

    /// Lets each route be tried again for the transmits that wait.
    pub(super) fn reset_tried(&mut self) {
        let mut index = 0;
        while let Some(route) = self.routes.get(index).cloned() {
            route.state_mut(self).tried = false;
            index += 1;
        }
    }

    /// Whether a transmit may wait for a connection.
    pub(super) fn may_queue(&self) -> bool {
        self.routes.iter().any(|r| r.state(self).may_queue())
    }

    /// Whether there are connections, but some are missing, if this node wants `own` for bulk, each way.
    pub(super) fn is_incomplete(&self, own: u32) -> bool {
        let lacking = |route: &Arc<Route>| self.missing_type(route.addr().ip(), own).is_some();
        self.conn_set.is_some() && self.routes.iter().any(lacking)
    }

    /// Whether an attempt of this node may be about to succeed. One that began longer ago than a handshake takes
    /// has probably been lost, and is no reason to refuse the peer.
    pub(super) fn is_racing(&self, now: u64) -> bool {
        let fresh = |since: u64| now.saturating_sub(since) < tunables::handshake_timeout_ms();
        self.routes
            .iter()
            .any(|r| r.state(self).racing_since.is_some_and(fresh))
    }

    /// The connection for a message.
    pub(super) fn choose(&self, tx: &Tx) -> Option<&Arc<Conn>> {
        self.conn_set.as_ref()?.choose(tx)
    }

    /// The connection for acknowledgements.
    pub(super) fn ack_conn(&self, class: MsgClass) -> Option<&Arc<Conn>> {
        self.conn_set.as_ref()?.choose_for(class)
    }

    /// Queues waiting transmits and acknowledgements to connections.
    pub(super) fn send_queued(&mut self) {
        if let Some(conn_set) = self
            .conn_set
            .as_mut()
            .filter(|conn_set| !conn_set.acks.is_empty())
        {
            if let Some(conn) = conn_set.choose_for(MsgClass::Ack).cloned() {
                conn.queue_acks(&mut conn_set.acks);
            }
        }
        while let Some(tx) = self.queue.pop_front() {
            let refused = match self.choose(&tx) {
                Some(conn) => conn.queue_tx(tx).err(),
                None => Some(tx),
            };
            if let Some(tx) = refused {
                self.queue.push_front(tx);
                return;
            }
        }
    }

    /// Takes out the connections that match and passes them, with the list's references, to the reaper. The
    /// [`ConnSet`] is dropped with the last one.
    pub(super) fn close_conns(
        &mut self,
        why: Failure,
        matching: impl Fn(&Arc<Conn>) -> bool,
    ) -> ClosedConns {
        let Some(conn_set) = &mut self.conn_set else {
            return ClosedConns::default();
        };
        let could_send = conn_set.can_send();
        let mut any = false;
        while let Some(conn) = conn_set.take(&matching) {
            conn.begin_close(why);
            any = true;
        }
        let lost_last = could_send && !conn_set.can_send();
        if conn_set.conns().is_empty() {
            self.conn_set = None;
        }
        ClosedConns { any, lost_last }
    }

    /// Deletes the routes that match. Returns whether any did.
    pub(super) fn drop_routes(&mut self, matching: impl Fn(&Arc<Route>) -> bool) -> bool {
        let mut any = false;
        while let Some(at) = self.routes.iter().position(&matching) {
            if let Ok(route) = self.routes.remove(at) {
                route.state_mut(self).deleted = true;
                any = true;
            }
        }
        any
    }

    pub(super) fn is_unused(&self) -> bool {
        self.conn_set.is_none() && self.routes.is_empty() && self.queue.is_empty()
    }

    /// Whether an administrator has added it.
    pub(super) fn is_added(&self) -> bool {
        self.routes.iter().any(|r| r.state(self).shares > 0)
    }

    /// Whether no administrator has added it, and it has no connection.
    pub(super) fn is_unreferenced(&self) -> bool {
        self.conn_set.is_none() && !self.is_added()
    }

    pub(super) fn is_forgettable(&self) -> bool {
        let connecting = |r: &Arc<Route>| r.state(self).connecting;
        self.is_unreferenced() && self.queue.is_empty() && !self.routes.iter().any(connecting)
    }
}
