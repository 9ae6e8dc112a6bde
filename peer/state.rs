// SPDX-License-Identifier: GPL-2.0

//! What can be told of a peer, and changed in it, with its lock held.
//!
//! [`PeerInner`] is protected by the peer's lock; nothing here takes another one but that of a connection's
//! queue of transmits.

use super::{
    conns_per_peer,
    life::{
        self,
        Life, //
    },
    PeerInner,
    Route,
    TEST_PAUSE_MS, //
};
use crate::{
    conn::Conn,
    tunables,
    tx::Tx,
    upper::Failure,
    wire::{
        ConnType,
        MsgClass,
        Proto, //
    }, //
};
use core::net::IpAddr;
use kernel::sync::Arc;

/// What taking out connections has come to.
#[must_use]
#[derive(Clone, Copy, Default)]
pub(super) struct Buried {
    /// Some were taken out.
    pub(super) any: bool,
    /// There was one that could carry messages, and there is none any more: the layer above has to be
    /// told, see [`Peer::notify_down`](super::Peer::notify_down).
    pub(super) lost: bool,
}

impl Buried {
    /// Both of two.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            any: self.any || other.any,
            lost: self.lost || other.lost,
        }
    }
}

impl PeerInner {
    pub(super) fn route_to(&self, addr: IpAddr) -> Option<Arc<Route>> {
        self.routes.iter().find(|r| r.addr().ip() == addr).cloned()
    }

    /// Its connections.
    pub(super) fn conns(&self) -> &[Arc<Conn>] {
        self.life.as_ref().map_or(&[], Life::conns)
    }

    pub(super) fn conns_to(&self, addr: IpAddr) -> impl Iterator<Item = &Arc<Conn>> {
        self.conns().iter().filter(move |c| c.remote().ip() == addr)
    }

    /// How many connections of type `kind` there are to `addr`.
    pub(super) fn count_to(&self, addr: IpAddr, kind: ConnType) -> usize {
        life::count_to(self.conns(), addr, kind)
    }

    /// The version of the protocol that it speaks, if that is known.
    pub(super) fn proto(&self) -> Option<Proto> {
        self.life.as_ref().map(Life::proto).or(self.named)
    }

    /// The type of connection to `addr` that is to be made next, if this node wants `own` for bulk,
    /// each way.
    pub(super) fn missing_type(&self, addr: IpAddr, own: u32) -> Option<ConnType> {
        let bulk = self.bulk_conns(own);
        conns_per_peer::next_missing(self.is_typed(), bulk, |kind| self.count_to(addr, kind))
    }

    /// Whether connections to it are to have types, as far as its version is known.
    pub(super) fn is_typed(&self) -> bool {
        tunables::typed(self.proto().unwrap_or(self.newest_proto))
    }

    /// How many connections for bulk there are to be, each way, if this node wants `own`.
    pub(super) fn bulk_conns(&self, own: u32) -> u32 {
        match (self.proto(), &self.life) {
            (Some(proto), _) if !proto.has_many_conns() => 1,
            (_, Some(life)) => life.agreement.bulk(own),
            (_, None) => own.max(1),
        }
    }

    /// The peer, at `addr`, has refused one more connection.
    pub(super) fn refused(&mut self, addr: IpAddr) {
        let is_typed = self.is_typed();
        if let Some(life) = &mut self.life {
            life.refused(addr, is_typed);
        }
    }

    /// Whether there is a connection that can carry messages.
    pub(super) fn can_send(&self) -> bool {
        self.life.as_ref().is_some_and(Life::can_send)
    }

    /// Has all connections tested, unless they were a moment ago. Thread context.
    pub(super) fn test_conns(&mut self, now: u64) {
        if now.saturating_sub(self.tested_ms) < TEST_PAUSE_MS {
            return;
        }
        self.tested_ms = now;
        for conn in self.conns() {
            conn.test();
        }
    }

    /// Whether it was refused because of an older incarnation, so lately that it may still be trying.
    pub(super) fn has_come_outdated(&self, now: u64) -> bool {
        let fresh = |since: u64| now.saturating_sub(since) <= tunables::handshake_timeout_ms();
        self.outdated_ms.is_some_and(fresh)
    }

    /// Whether a connection to `addr` that was made at `since`, or later, has lasted for `min_ms`.
    pub(super) fn has_stood(&self, addr: IpAddr, since: u64, now: u64, min_ms: u64) -> bool {
        self.conns_to(addr).any(|conn| {
            let born = conn.born_ms();
            born >= since && now.saturating_sub(born) >= min_ms
        })
    }

    /// Each route may be tried again for the sake of messages that wait.
    pub(super) fn forget_tries(&mut self) {
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

    /// Whether there are connections, but not all by all routes, if this node wants `own` for bulk,
    /// each way.
    pub(super) fn is_incomplete(&self, own: u32) -> bool {
        let lacking = |route: &Arc<Route>| self.missing_type(route.addr().ip(), own).is_some();
        self.life.is_some() && self.routes.iter().any(lacking)
    }

    /// Whether an attempt of ours may be about to succeed. One that has been out for longer than a
    /// handshake takes is more likely lost on the way, and must not keep the peer out.
    pub(super) fn is_racing(&self, now: u64) -> bool {
        let fresh = |since: u64| now.saturating_sub(since) < tunables::handshake_timeout_ms();
        self.routes
            .iter()
            .any(|r| r.state(self).racing_since.is_some_and(fresh))
    }

    /// The connection for a message.
    pub(super) fn choose(&self, tx: &Tx) -> Option<&Arc<Conn>> {
        self.life.as_ref()?.choose(tx)
    }

    /// The connection for acknowledgements.
    pub(super) fn ack_conn(&self, class: MsgClass) -> Option<&Arc<Conn>> {
        self.life.as_ref()?.choose_for(class)
    }

    /// Gives what waited for a connection to the connections.
    pub(super) fn feed(&mut self) {
        if let Some(life) = self.life.as_mut().filter(|life| !life.acks.is_empty()) {
            if let Some(conn) = life.choose_for(MsgClass::Ack).cloned() {
                conn.queue_acks(&mut life.acks);
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

    /// Takes out the connections that match and hands them to the reaper. With the last one the peer's
    /// [`Life`] ends.
    ///
    /// The list's own reference goes along: none is dropped here, under the lock.
    pub(super) fn bury(&mut self, why: Failure, matching: impl Fn(&Arc<Conn>) -> bool) -> Buried {
        let Some(life) = &mut self.life else {
            return Buried::default();
        };
        let could_send = life.can_send();
        let mut any = false;
        while let Some(conn) = life.take(&matching) {
            conn.bury(why);
            any = true;
        }
        let lost = could_send && !life.can_send();
        if life.conns().is_empty() {
            self.life = None;
        }
        Buried { any, lost }
    }

    /// Drops the routes that match. Returns whether any did.
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
        self.life.is_none() && self.routes.is_empty() && self.queue.is_empty()
    }

    /// Whether an administrator has added it.
    pub(super) fn is_added(&self) -> bool {
        self.routes.iter().any(|r| r.state(self).shares > 0)
    }

    /// Whether nobody asked for it, and there is no connection to it.
    pub(super) fn is_unreferenced(&self) -> bool {
        self.life.is_none() && !self.is_added()
    }

    pub(super) fn is_forgettable(&self) -> bool {
        let connecting = |r: &Arc<Route>| r.state(self).connecting;
        self.is_unreferenced() && self.queue.is_empty() && !self.routes.iter().any(connecting)
    }
}
