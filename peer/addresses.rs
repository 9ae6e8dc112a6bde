// SPDX-License-Identifier: GPL-2.0

//! Which addresses of this node a peer and its routes use.
//!
//! All of it works on the state that the peer's lock protects, and takes that lock itself; the list
//! of interfaces is locked inside it.

use super::{
    Peer,
    PeerInner,
    Route, //
};
use crate::{
    conn::Conn,
    interface::{
        select_ips,
        select_local,
        PeerUse,
        RouteUse,
        MAX_INTERFACES, //
    },
    upper::Failure,
    wire::IpVec, //
};
use core::net::{
    IpAddr,
    Ipv4Addr,
    SocketAddr, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Peer {
    /// The address that an attempt by `route` connects from. It is chosen anew while there is no connection
    /// from there: in a subnet of the peer's address, and rather where no other route connects from, or is
    /// about to. Thread context.
    ///
    /// # Errors
    ///
    /// `EADDRNOTAVAIL` if the node has none of the family.
    pub(crate) fn source(&self, route: &Route) -> Result<IpAddr> {
        let interfaces = self.ni.interfaces();
        let remote = route.addr().ip();
        let mut inner = self.inner.lock();
        let bound = route.state(&inner).interface.as_ref().map(RouteUse::addr);
        let chosen = match bound {
            Some(local) if inner.is_joined(local, remote) => interfaces.find(local),
            _ => None,
        };
        let chosen = chosen
            .or_else(|| interfaces.near(remote, |local| !inner.is_taken(local, route)))
            .or_else(|| interfaces.near(remote, |local| bound == Some(local)))
            .or_else(|| interfaces.near(remote, |_| true))
            .or_else(|| interfaces.find(bound?))
            .or_else(|| interfaces.of_family(remote))
            .ok_or(EADDRNOTAVAIL)?;
        let addr = chosen.addr();
        if bound != Some(addr) {
            // From now on it counts as used.
            route.state_mut(&mut inner).interface = Some(RouteUse::new(chosen));
        }
        Ok(addr)
    }

    /// What to tell a peer that connects and has named `theirs`: addresses of ours to connect to.
    /// Thread context.
    pub(crate) fn select_interfaces(&self, theirs: &[Ipv4Addr]) -> IpVec {
        let mut chosen = IpVec::new();
        let mut inner = self.inner.lock();
        if inner.told.reserve(MAX_INTERFACES, GFP_ATOMIC).is_err() {
            return chosen;
        }
        let interfaces = self.ni.interfaces();
        let mut known = IpVec::new();
        for told in inner.told.iter() {
            if let IpAddr::V4(ip) = told.addr() {
                // No more were told than fit.
                let _ = known.push(ip);
            }
        }
        let candidates = interfaces.candidates(|interface| Some(interface.npeers()));
        select_ips(&candidates, &known, theirs, |ip| {
            let addr = IpAddr::V4(ip);
            if !inner.told.iter().any(|told| told.addr() == addr) {
                // Gone since it was a candidate: then it is not told.
                let Some(interface) = interfaces.find(addr) else {
                    return;
                };
                let _ = inner.told.push_within_capacity(PeerUse::new(interface));
            }
            let _ = chosen.push(ip);
        });
        chosen
    }

    /// Makes routes to addresses that the peer has named: one for each interface of ours that no
    /// other route of the peer uses, by subnet and then by load. May sleep.
    pub(crate) fn learn_routes(self: &Arc<Self>, theirs: &[Ipv4Addr], port: u16) -> Result {
        for ip in theirs {
            let addr = SocketAddr::new(IpAddr::V4(*ip), port);
            let new = Route::new(addr, 0, &self.inner)?;
            let mut inner = self.inner.lock();
            if inner.closing || inner.route_to(addr.ip()).is_some() {
                continue;
            }
            let interfaces = self.ni.interfaces();
            let free = interfaces.candidates(|interface| {
                let used = inner.uses(interface.addr());
                (!used).then(|| interface.nroutes())
            });
            let Some(interface) =
                select_local(&free, *ip).and_then(|local| interfaces.find(local.into()))
            else {
                continue;
            };
            new.state_mut(&mut inner).interface = Some(RouteUse::new(interface));
            inner.routes.push(new, GFP_ATOMIC)?;
            drop(inner);
            // It is connected although nothing waits for it.
            self.ni.context().queue_connect_wait(self.clone());
        }
        Ok(())
    }

    /// Notes that the route to where `conn` leads connects from where `conn` comes from, unless it connects
    /// from elsewhere already.
    pub(super) fn bind_route(&self, inner: &mut PeerInner, conn: &Conn) {
        let (local, remote) = (conn.local().ip(), conn.remote().ip());
        let Some(route) = inner.route_to(remote) else {
            return;
        };
        let state = route.state(inner);
        let bound = state.interface.as_ref().map(RouteUse::addr);
        if bound.is_some_and(|addr| state.connecting || inner.is_joined(addr, remote)) {
            return;
        }
        let interface = self.ni.interfaces().find(local);
        route.state_mut(inner).interface = interface.map(RouteUse::new);
    }

    /// Ends what uses `addr`, an address of this node that goes: routes that nobody added and
    /// connections. Other routes choose another address. Thread context, no spinlock held.
    pub(crate) fn leave(self: &Arc<Self>, addr: IpAddr, why: Failure) {
        let mut inner = self.inner.lock();
        inner.told.retain(|told| told.addr() != addr);
        let on_it = |inner: &PeerInner, route: &Arc<Route>| {
            let bound = route.state(inner).interface.as_ref();
            bound.is_some_and(|bound| bound.addr() == addr)
        };
        while let Some(route) = inner.routes.iter().find(|r| on_it(&inner, r)).cloned() {
            let state = route.state_mut(&mut inner);
            state.interface = None;
            if state.shares == 0 {
                inner.drop_routes(|r| Arc::ptr_eq(r, &route));
            }
        }
        drop(inner);
        self.close_where(why, |conn| conn.local().ip() == addr);
        self.lost_routes(why);
        self.unlink_if_unused();
    }
}

impl PeerInner {
    /// Whether a route connects from `addr`.
    fn uses(&self, addr: IpAddr) -> bool {
        self.routes.iter().any(|route| {
            let bound = route.state(self).interface.as_ref();
            bound.is_some_and(|bound| bound.addr() == addr)
        })
    }

    /// Whether another route than `this` connects from `addr`, or is about to.
    fn is_taken(&self, addr: IpAddr, this: &Route) -> bool {
        self.routes.iter().any(|route| {
            let state = route.state(self);
            let bound = state.interface.as_ref().map(RouteUse::addr);
            !core::ptr::eq(&**route, this)
                && bound == Some(addr)
                && (state.connecting || self.is_joined(addr, route.addr().ip()))
        })
    }

    /// Whether there is a connection between these two addresses.
    fn is_joined(&self, local: IpAddr, remote: IpAddr) -> bool {
        self.conns_to(remote).any(|conn| conn.local().ip() == local)
    }
}
