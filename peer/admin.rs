// SPDX-License-Identifier: GPL-2.0

//! What administrators do with peers: add and delete routes, close connections, list.
//!
//! All functions use state that the peer's lock protects, and take that lock.

use super::{
    conn_set::ConnSet,
    Close,
    ClosedConns,
    Peer,
    Route, //
};
use crate::{
    conn::Conn,
    interface::RouteUse,
    lib_linux::{
        misc,
        queue::Fifo, //
    },
    upper::{
        Failure,
        Health,
        Loss, //
    },
    wire::Nid, //
};
use core::net::{
    IpAddr,
    SocketAddr, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// A peer, as listed for administrators.
pub(crate) struct PeerInfo {
    pub(crate) nid: Nid,
    /// Transmits that wait for a connection.
    pub(crate) queued: usize,
    /// The most that have waited at the same time.
    pub(crate) queued_peak: usize,
    /// The peer's incarnation; zero without connections.
    pub(crate) incarnation: u64,
    pub(crate) last_alive_ms: u64,
    pub(crate) routes: KVec<RouteInfo>,
    pub(crate) conns: KVec<Arc<Conn>>,
}

/// A route, as listed for administrators.
pub(crate) struct RouteInfo {
    pub(crate) addr: SocketAddr,
    /// The address that it connects from, if it has been chosen.
    pub(crate) local: Option<IpAddr>,
    pub(crate) shares: u32,
    /// Attempts to connect so far, and those of them that failed.
    pub(crate) attempts: u64,
    pub(crate) failures: u64,
    /// Connections that it has opened so far.
    pub(crate) opened: u64,
    /// Connections to its address.
    pub(crate) nconns: usize,
    /// An attempt is under way.
    pub(crate) connecting: bool,
}

/// Which routes of a peer are deleted, and what is deleted with them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// All that match.
    All,
    /// One share of the first that matches.
    Single,
    /// As [`Deletion::Single`], to undo an addition: connections stay, and so do routes that the driver
    /// discovered.
    Undo,
}

impl Peer {
    /// Closes the connections from or to `addr`, or all. Returns how many. Thread context.
    pub(crate) fn close_matching(self: &Arc<Self>, addr: Option<IpAddr>) -> usize {
        self.close_where(Failure::dropped(), |conn| is_at(conn, addr))
    }

    /// Closes all connections of a peer that does not receive, and fails its queued transmits. Thread context,
    /// no spinlock held.
    pub(crate) fn give_up(self: &Arc<Self>) {
        misc::assert_may_sleep();
        let mut waiting = Fifo::new();
        waiting.append(&mut self.inner.lock().queue);
        self.count(1, |events| &events.timeouts);
        let why = Failure::new(ETIMEDOUT, Health::NetworkTimeout);
        self.fail_txs(waiting, why);
        self.close_where(why, |_| true);
    }

    /// Closes the connections that match because of `why`. Returns how many. Thread context, no
    /// spinlock held.
    pub(crate) fn close_where(
        self: &Arc<Self>,
        why: Failure,
        matching: impl Fn(&Conn) -> bool,
    ) -> usize {
        misc::assert_may_sleep();
        let mut closed = 0;
        // One at a time: closing takes the lock, and may unlink the peer.
        while let Some(conn) = self.find_conn(&matching) {
            self.close_conn(&conn, why, Close::One);
            closed += 1;
        }
        closed
    }

    /// Makes TCP send data that it holds back on the connections from or to `addr`, or all. Returns how many.
    /// May sleep.
    pub(crate) fn push_matching(&self, addr: Option<IpAddr>) -> Result<usize> {
        let conns = self.snapshot()?.conns;
        let matching = conns.iter().filter(|conn| is_at(conn, addr));
        Ok(matching.inspect(|conn| conn.push()).count())
    }

    fn find_conn(&self, matching: impl Fn(&Conn) -> bool) -> Option<Arc<Conn>> {
        let inner = self.inner.lock();
        let mut conns = inner.conns().iter();
        conns.find(|conn| matching(conn)).cloned()
    }

    /// Adds shares to the route to `addr`, which is created if there is none; with 0 shares, only makes sure
    /// that there is a route to that IP address. May sleep.
    ///
    /// # Errors
    ///
    /// `EEXIST` if an administrator has added that IP address with another port; `ESTALE` if the peer
    /// was deleted meanwhile; `ENOMEM`.
    pub(crate) fn add_route(self: &Arc<Self>, addr: SocketAddr, shares: u32) -> Result {
        let new = Route::new(addr, shares, &self.inner)?;
        let mut inner = self.inner.lock();
        if inner.closing {
            return Err(ESTALE);
        }
        // There is one route for each IP address, whatever the port.
        let Some(route) = inner.route_to(addr.ip()) else {
            inner.routes.push(new, GFP_ATOMIC)?;
            return Ok(());
        };
        let state = route.state_mut(&mut inner);
        if shares == 0 || route.addr() == addr {
            state.shares = state.shares.saturating_add(shares);
            return Ok(());
        }
        if state.shares > 0 {
            return Err(EEXIST);
        }
        // The port of a discovered route was the default one; use the administrator's.
        inner.routes.push(new, GFP_ATOMIC)?;
        inner.drop_routes(|r| Arc::ptr_eq(r, &route));
        drop(inner);
        self.ni.handshakes().cancel_deleted_routes();
        Ok(())
    }

    /// Deletes routes: that to `addr`, or any.
    ///
    /// The connections to the address of a deleted route are closed. When the last share is deleted, the other
    /// routes and all connections of the peer are removed too. If an addition is undone, connections stay, and
    /// the peer keeps what it would have without the addition. Returns whether a route matched. Thread
    /// context.
    pub(crate) fn del_route(self: &Arc<Self>, addr: Option<IpAddr>, what: Deletion) -> bool {
        let mut failed = Fifo::new();
        let mut inner = self.inner.lock();
        let mut closed = ClosedConns::default();
        let matching = |route: &Arc<Route>| addr.is_none_or(|a| route.addr().ip() == a);
        let undone = what == Deletion::Undo;
        // The address whose connections are closed.
        let mut dropped = addr;
        if what != Deletion::All {
            let Some(route) = inner.routes.iter().find(|r| matching(r)).cloned() else {
                return false;
            };
            let state = route.state_mut(&mut inner);
            state.shares = state.shares.saturating_sub(1);
            if state.shares == 0 && !(undone && route.is_discovered()) {
                inner.drop_routes(|r| Arc::ptr_eq(r, &route));
                dropped = Some(route.addr().ip());
            } else {
                dropped = None;
            }
        } else if !inner.drop_routes(matching) && addr.is_some() {
            return false;
        }
        if let Some(dropped) = dropped.filter(|_| !undone) {
            closed = inner.close_conns(Failure::dropped(), |conn| conn.remote().ip() == dropped);
        }
        let keeps = undone && !(inner.conn_set.is_none() && inner.routes.is_empty());
        if !inner.is_added() && !keeps {
            inner.drop_routes(|_| true);
            closed = closed.and(inner.close_conns(Failure::dropped(), |_| true));
            failed.append(&mut inner.queue);
        }
        drop(inner);
        self.fail_txs(failed, Failure::dropped());
        if closed.lost_last {
            self.mark_busy();
        }
        self.notify_down(closed, Loss::Closed);
        self.ni.handshakes().cancel_deleted_routes();
        self.reroute_queue(Failure::dropped());
        self.unlink_if_unused();
        true
    }

    /// The peer as listed for administrators, all of it at one moment. May sleep.
    pub(crate) fn snapshot(&self) -> Result<PeerInfo> {
        loop {
            let (nroutes, nconns) = {
                let inner = self.inner.lock();
                (inner.routes.len(), inner.conns().len())
            };
            // Allocate first; if there are more by then, try again.
            let mut routes = KVec::with_capacity(nroutes, GFP_KERNEL)?;
            let mut conns = KVec::with_capacity(nconns, GFP_KERNEL)?;
            let inner = self.inner.lock();
            if inner.routes.len() > nroutes || inner.conns().len() > nconns {
                continue;
            }
            for route in inner.routes.iter() {
                let state = route.state(&inner);
                let info = RouteInfo {
                    addr: route.addr(),
                    local: state.interface.as_ref().map(RouteUse::addr),
                    shares: state.shares,
                    attempts: state.attempts,
                    failures: state.failures,
                    opened: state.opened,
                    nconns: inner.conns_to(route.addr().ip()).count(),
                    connecting: state.connecting,
                };
                let _ = routes.push_within_capacity(info);
            }
            for conn in inner.conns() {
                let _ = conns.push_within_capacity(conn.clone());
            }
            return Ok(PeerInfo {
                nid: self.nid,
                queued: inner.queue.len(),
                queued_peak: inner.queue_peak,
                incarnation: inner.conn_set.as_ref().map_or(0, ConnSet::incarnation),
                last_alive_ms: self.last_alive_ms.load(Relaxed),
                routes,
                conns,
            });
        }
    }
}

/// Whether the connection is from or to `addr`; `None` is any address.
fn is_at(conn: &Conn, addr: Option<IpAddr>) -> bool {
    addr.is_none_or(|a| conn.remote().ip() == a || conn.local().ip() == a)
}
