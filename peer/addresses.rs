// SPDX-License-Identifier: GPL-2.0

//! Which local addresses a peer and its routes use.
//!
//! All functions use state that the peer's lock protects, and take that lock. The lock of the list of
//! interfaces is taken inside it.

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
    lib_linux::misc,
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
    /// The local address for an attempt on `route`. It is chosen again while there is no connection from it:
    /// an address in the same subnet as the peer's, preferably one that no other route uses. Thread context.
    ///
    /// # Errors
    ///
    /// `EADDRNOTAVAIL` if the NI has no address of the family.
    pub(crate) fn choose_source(&self, route: &Route) -> Result<IpAddr> {
        let interfaces = self.ni.interfaces();
        let remote = route.addr().ip();
        let mut inner = self.inner.lock();
        let bound = route.state(&inner).interface.as_ref().map(RouteUse::addr);
        let chosen = match bound {
            Some(local) if inner.has_conn_between(local, remote) => interfaces.find(local),
            _ => None,
        };
        let chosen = chosen
            .or_else(|| {
                interfaces.find_in_subnet(remote, |local| !inner.is_source_used(local, route))
            })
            .or_else(|| interfaces.find_in_subnet(remote, |local| bound == Some(local)))
            .or_else(|| interfaces.find_in_subnet(remote, |_| true))
            .or_else(|| interfaces.find(bound?))
            .or_else(|| interfaces.find_of_family(remote))
            .ok_or(EADDRNOTAVAIL)?;
        let addr = chosen.addr();
        if bound != Some(addr) {
            // From now on it counts as used.
            route.state_mut(&mut inner).interface = Some(RouteUse::new(chosen));
        }
        Ok(addr)
    }

    /// The addresses for the HELLO to a peer that has connected and named `theirs`. Thread context.
    pub(crate) fn select_interfaces(&self, theirs: &[Ipv4Addr]) -> IpVec {
        let mut chosen = IpVec::new();
        let mut inner = self.inner.lock();
        if inner
            .reported_addrs
            .reserve(MAX_INTERFACES, GFP_ATOMIC)
            .is_err()
        {
            return chosen;
        }
        let interfaces = self.ni.interfaces();
        let mut known = IpVec::new();
        for reported in inner.reported_addrs.iter() {
            if let IpAddr::V4(ip) = reported.addr() {
                // There is room: no more were in an earlier HELLO.
                let _ = known.push(ip);
            }
        }
        let candidates = interfaces.candidates(|interface| Some(interface.npeers()));
        select_ips(&candidates, &known, theirs, |ip| {
            let addr = IpAddr::V4(ip);
            if !inner.reported_addrs.iter().any(|r| r.addr() == addr) {
                // Removed since it became a candidate: leave it out.
                let Some(interface) = interfaces.find(addr) else {
                    return;
                };
                let _ = inner
                    .reported_addrs
                    .push_within_capacity(PeerUse::new(interface));
            }
            let _ = chosen.push(ip);
        });
        chosen
    }

    /// Adds routes to addresses that the peer has named: one for each interface that no other route of the
    /// peer uses, by subnet and then by load. May sleep.
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
                let used = inner.has_route_from(interface.addr());
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
            // Connect it although no transmit waits for it.
            self.ni.context().queue_connect_wait(self.clone());
        }
        Ok(())
    }

    /// Records the local address of `conn` in the route to its remote address, unless that uses another one
    /// already.
    pub(super) fn bind_route(&self, inner: &mut PeerInner, conn: &Conn) {
        let (local, remote) = (conn.local().ip(), conn.remote().ip());
        let Some(route) = inner.route_to(remote) else {
            return;
        };
        let state = route.state(inner);
        let bound = state.interface.as_ref().map(RouteUse::addr);
        if bound.is_some_and(|addr| state.connecting || inner.has_conn_between(addr, remote)) {
            return;
        }
        let interface = self.ni.interfaces().find(local);
        route.state_mut(inner).interface = interface.map(RouteUse::new);
    }

    /// Closes connections from `addr`, an address of this node that is removed, and deletes routes without
    /// shares that use it. Other routes choose another address. Thread context, no spinlock held.
    pub(crate) fn drop_local_addr(self: &Arc<Self>, addr: IpAddr, why: Failure) {
        misc::assert_may_sleep();
        let mut inner = self.inner.lock();
        inner.reported_addrs.retain(|r| r.addr() != addr);
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
        self.reroute_queue(why);
        self.unlink_if_unused();
    }
}

impl PeerInner {
    /// Whether a route connects from `addr`.
    fn has_route_from(&self, addr: IpAddr) -> bool {
        self.routes.iter().any(|route| {
            let bound = route.state(self).interface.as_ref();
            bound.is_some_and(|bound| bound.addr() == addr)
        })
    }

    /// Whether a route other than `this` connects from `addr`, or is about to.
    fn is_source_used(&self, addr: IpAddr, this: &Route) -> bool {
        self.routes.iter().any(|route| {
            let state = route.state(self);
            let bound = state.interface.as_ref().map(RouteUse::addr);
            !core::ptr::eq(&**route, this)
                && bound == Some(addr)
                && (state.connecting || self.has_conn_between(addr, route.addr().ip()))
        })
    }

    /// Whether there is a connection between these two addresses.
    fn has_conn_between(&self, local: IpAddr, remote: IpAddr) -> bool {
        self.conns_to(remote).any(|conn| conn.local().ip() == local)
    }
}
