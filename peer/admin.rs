// SPDX-License-Identifier: GPL-2.0

//! What administrators do with peers: add and take away routes, close connections, look.
//!
//! All of it works on the state that the peer's lock protects, and takes that lock itself.

use super::{
    life::Life,
    Buried,
    Close,
    Peer,
    Route, //
};
use crate::{
    conn::Conn,
    interface::RouteUse,
    lib_linux::queue::Fifo,
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

/// What an administrator is told about a peer.
pub(crate) struct PeerInfo {
    pub(crate) nid: Nid,
    /// Transmits that wait for a connection.
    pub(crate) queued: usize,
    /// The most that have waited at the same time.
    pub(crate) queued_peak: usize,
    /// The peer's; zero without connections.
    pub(crate) incarnation: u64,
    pub(crate) last_alive_ms: u64,
    pub(crate) routes: KVec<RouteInfo>,
    pub(crate) conns: KVec<Arc<Conn>>,
}

/// What an administrator is told about a route.
pub(crate) struct RouteInfo {
    pub(crate) addr: SocketAddr,
    /// The address that it connects from, if it is settled.
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

/// Which routes of a peer are taken away, and what goes with them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// All that match.
    All,
    /// One share of the first that matches.
    Single,
    /// As [`Deletion::Single`], to undo an addition: connections stay, and so does what the driver
    /// found by itself.
    Undo,
}

impl Peer {
    /// Closes the connections from or to `addr`, or all. Returns how many. Thread context.
    pub(crate) fn close_matching(self: &Arc<Self>, addr: Option<IpAddr>) -> usize {
        self.close_where(Failure::dropped(), |conn| is_at(conn, addr))
    }

    /// Nothing that is sent to the peer arrives, and others wait for that: closes its connections, and ends
    /// what waits for one. Thread context, no spinlock held.
    pub(crate) fn give_up(self: &Arc<Self>) {
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
        let mut closed = 0;
        // One at a time: closing takes the lock, and may end the peer.
        while let Some(conn) = self.find_conn(&matching) {
            self.close_conn(&conn, why, Close::One);
            closed += 1;
        }
        closed
    }

    /// Has the connections from or to `addr`, or all, send what TCP holds back. Returns how many.
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

    /// Adds a share of the route to `addr`, which is made if there is none; without shares, it only
    /// sees to it that there is one to that IP address. May sleep.
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
        // An IP address is one route, whatever the port: as ever in this driver.
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
        // That port was a guess, and is known now.
        inner.routes.push(new, GFP_ATOMIC)?;
        inner.drop_routes(|r| Arc::ptr_eq(r, &route));
        drop(inner);
        self.ni.handshakes().cancel_deleted();
        Ok(())
    }

    /// Takes away routes: that to `addr`, or any.
    ///
    /// With a route go the connections to its address; when the last share is gone, the peer loses
    /// its other routes and all connections. Unless an addition is undone: then connections stay, and
    /// the peer is left with what it would have had without. Returns whether anything matched. Thread
    /// context.
    pub(crate) fn del_route(self: &Arc<Self>, addr: Option<IpAddr>, what: Deletion) -> bool {
        let mut failed = Fifo::new();
        let mut inner = self.inner.lock();
        let mut buried = Buried::default();
        let matching = |route: &Arc<Route>| addr.is_none_or(|a| route.addr().ip() == a);
        let undone = what == Deletion::Undo;
        // Whose connections go.
        let mut dropped = addr;
        if what != Deletion::All {
            let Some(route) = inner.routes.iter().find(|r| matching(r)).cloned() else {
                return false;
            };
            let state = route.state_mut(&mut inner);
            state.shares = state.shares.saturating_sub(1);
            if state.shares == 0 && !(undone && route.is_found()) {
                inner.drop_routes(|r| Arc::ptr_eq(r, &route));
                dropped = Some(route.addr().ip());
            } else {
                dropped = None;
            }
        } else if !inner.drop_routes(matching) && addr.is_some() {
            return false;
        }
        if let Some(dropped) = dropped.filter(|_| !undone) {
            buried = inner.bury(Failure::dropped(), |conn| conn.remote().ip() == dropped);
        }
        let keeps = undone && !(inner.life.is_none() && inner.routes.is_empty());
        if !inner.is_added() && !keeps {
            inner.drop_routes(|_| true);
            buried = buried.and(inner.bury(Failure::dropped(), |_| true));
            failed.append(&mut inner.queue);
        }
        drop(inner);
        self.fail_txs(failed, Failure::dropped());
        if buried.lost {
            self.mark_busy();
        }
        self.notify_down(buried, Loss::Closed);
        self.ni.handshakes().cancel_deleted();
        self.lost_routes(Failure::dropped());
        self.unlink_if_unused();
        true
    }

    /// What an administrator is told, all at one moment. May sleep.
    pub(crate) fn snapshot(&self) -> Result<PeerInfo> {
        loop {
            let (nroutes, nconns) = {
                let inner = self.inner.lock();
                (inner.routes.len(), inner.conns().len())
            };
            // Memory first; if there is more to tell by then, once again.
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
                incarnation: inner.life.as_ref().map_or(0, Life::incarnation),
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
