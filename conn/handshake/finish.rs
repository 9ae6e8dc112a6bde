// SPDX-License-Identifier: GPL-2.0

//! The end of a handshake: the other node's HELLO was received, and is accepted or refused.
//!
//! The caller has taken the socket out of the handshake, so it owns all that it works with. No lock is held.

use super::{
    Addressee,
    Handshake,
    Reason,
    Role, //
};
use crate::{
    conn::{
        Conn,
        Doubt, //
    },
    lib_linux::socket::Socket,
    peer::{
        Close,
        Peer,
        Refusal,
        Route,
        StrangerSlot, //
    },
    trace::Side,
    tunables,
    upper::Failure,
    wire::{
        ConnType,
        Hello,
        IpVec,
        Nid,
        Proto, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Why a handshake failed although the HELLO was complete.
pub(super) enum Unfinished {
    Failed(Reason),
    /// The peer speaks this version, and not that of our HELLO.
    Version(Proto),
}

impl<E: Into<Reason>> From<E> for Unfinished {
    fn from(why: E) -> Self {
        Self::Failed(why.into())
    }
}

impl Handshake {
    /// Passes the result of an active handshake to its peer.
    pub(super) fn end_active(
        &self,
        peer: &Arc<Peer>,
        route: &Arc<Route>,
        done: core::result::Result<(), Unfinished>,
    ) {
        let why = match done {
            Ok(()) => return peer.connect_missing(),
            Err(Unfinished::Failed(why)) if self.has_lost_address() => {
                self.trace_failure(why);
                peer.count(1, |events| &events.connect_failures);
                // The next attempt uses another address.
                return peer.retry_route(route);
            }
            Err(Unfinished::Failed(why)) => why,
            Err(Unfinished::Version(named)) if peer.note_preferred_proto(named) => {
                self.trace_failure(Reason::AnswerVersion(named));
                return peer.retry_route(route);
            }
            // The peer has named another version before: do not retry at once.
            Err(Unfinished::Version(named)) => Reason::AnswerVersion(named),
        };
        self.report_failure(why);
        peer.count(1, |events| &events.connect_failures);
        peer.connect_failed(route, why.connect_failure());
    }

    #[inline(never)]
    pub(super) fn finish_active(
        &self,
        peer: &Arc<Peer>,
        route: Option<&Route>,
        kind: ConnType,
        socket: Socket,
        hello: Hello,
        tried: Proto,
    ) -> core::result::Result<(), Unfinished> {
        if hello.src != peer.nid() {
            return Err(Reason::Source(hello.src).into());
        }
        let Some(theirs) = hello.kind else {
            return Err(if hello.proto != tried {
                Unfinished::Version(hello.proto)
            } else {
                // The peer's own attempt came first, or it has this connection already.
                EALREADY.into()
            });
        };
        if hello.proto != tried {
            return Err(Reason::AnswerVersion(hello.proto).into());
        }
        if theirs.inverse() != kind {
            return Err(Reason::ConnType(theirs).into());
        }
        self.check_dest(&hello)?;
        let slot = self.slot_for(peer, hello.src)?;
        let conn = self.new_conn(peer, &socket, kind, &hello, slot)?;
        peer.admit(&conn, route).map_err(|refusal| match refusal {
            Refusal::Closing => ESHUTDOWN,
            Refusal::NoMemory => ENOMEM,
            Refusal::Race
            | Refusal::Crossing
            | Refusal::Duplicate
            | Refusal::Stale
            | Refusal::Version => EALREADY,
        })?;
        self.check_address(peer, &conn)?;
        peer.count(1, |events| &events.connects);
        conn.start(socket);
        if tunables::routes_are_learned() {
            // An error does not matter: without memory there are fewer routes.
            let _ = peer.learn_routes(&hello.ips, self.remote.port());
        }
        Ok(())
    }

    #[inline(never)]
    pub(super) fn finish_registered(
        &self,
        nid: Nid,
        kind: ConnType,
        socket: Socket,
        hello: Hello,
        tried: Proto,
    ) -> core::result::Result<(), Reason> {
        let peer = self.ni.peers().find_or_create(&self.ni, nid)?;
        peer.mark_wanted();
        let why = match self.finish_active(&peer, None, kind, socket, hello, tried) {
            Ok(()) => return Ok(()),
            Err(Unfinished::Failed(why)) => why,
            Err(Unfinished::Version(named)) => {
                // For the next socket of the program, if the peer is kept.
                peer.note_preferred_proto(named);
                Reason::AnswerVersion(named)
            }
        };
        // Remove the peer if it was created for this handshake.
        peer.unlink_if_unused();
        Err(why)
    }

    /// Checks that `hello` is for this NI, if it names a destination.
    fn check_dest(&self, hello: &Hello) -> core::result::Result<(), Reason> {
        match hello.dest {
            Some(dest) if dest != self.ni.nid() => Err(Reason::Dest(hello.src, dest)),
            _ => Ok(()),
        }
    }

    /// Closes `conn`, which was just admitted, if its local address was removed meanwhile: the removal has
    /// closed only the connections that existed then.
    fn check_address(&self, peer: &Arc<Peer>, conn: &Arc<Conn>) -> Result {
        if !self.has_lost_address() {
            return Ok(());
        }
        peer.close_conn(conn, Failure::dropped(), Close::One);
        Err(ENETDOWN)
    }

    /// The handshake of the NI that `hello` is for: this one, or a new one of another NI. May sleep.
    fn addressee(self: &Arc<Self>, hello: &Hello) -> core::result::Result<Arc<Self>, Reason> {
        let Role::Passive {
            listener: Some(listener),
        } = &self.role
        else {
            return Ok(self.clone());
        };
        let addressee = self.io.lock().addressee;
        if addressee == Addressee::Known || hello.dest == Some(self.ni.nid()) {
            return Ok(self.clone());
        }
        let found = match hello.dest {
            Some(dest) => listener.find_user(|ni| ni.nid() == dest),
            None => {
                let net = hello.src.net();
                // Prefer the NI whose NID has the address.
                let namesake = Nid::tcp(net, listener.addr());
                listener
                    .find_user(|ni| ni.nid() == namesake)
                    .or_else(|| listener.find_user(|ni| ni.nid().net() == net))
            }
        };
        let ni = found.ok_or(match hello.dest {
            Some(dest) => Reason::Dest(hello.src, dest),
            None => Reason::Claim(hello.src, Doubt::Network),
        })?;
        if Arc::ptr_eq(&ni, &self.ni) {
            return Ok(self.clone());
        }
        if !ni.speaks(hello.proto) {
            return Err(Reason::Version(hello.src, hello.proto));
        }
        Self::new_passive(&ni, listener, self.remote, self.deadline_ms()).map_err(Into::into)
    }

    #[inline(never)]
    pub(super) fn finish_passive(
        self: &Arc<Self>,
        socket: Socket,
        hello: Hello,
    ) -> core::result::Result<(), Reason> {
        self.addressee(&hello)?.admit_passive(socket, hello)
    }

    /// As [`Handshake::finish_passive`], for the NI that the connection is for.
    #[inline(never)]
    fn admit_passive(&self, socket: Socket, hello: Hello) -> core::result::Result<(), Reason> {
        let theirs = hello.kind.ok_or(Reason::NoConnType(hello.src))?;
        self.check_dest(&hello)?;
        if !self.ni.upper().admits_peers() {
            return Err(ESHUTDOWN.into());
        }
        if let Some(doubt) = self.ni.doubt(hello.src, self.remote.ip()) {
            return Err(Reason::Claim(hello.src, doubt));
        }
        let peer = self.ni.peers().find_or_create(&self.ni, hello.src)?;
        let kind = theirs.inverse();
        let slot = self.slot_for(&peer, hello.src).inspect_err(|_| {
            // Remove the peer if it was created for this handshake.
            peer.unlink_if_unused();
        })?;
        let admitted =
            self.new_conn(&peer, &socket, kind, &hello, slot)
                .and_then(|conn| match peer.admit(&conn, None) {
                    Ok(()) => Ok(conn),
                    Err(Refusal::NoMemory) => Err(ENOMEM),
                    Err(_) => Err(EALREADY),
                });
        let conn = match admitted {
            Ok(conn) => conn,
            Err(e) => {
                // No HELLO was sent yet. Remove the peer if it was created for this handshake.
                peer.unlink_if_unused();
                if e != EALREADY {
                    return Err(e.into());
                }
                self.trace_failure(e.into());
                peer.count(1, |events| &events.refusals);
                self.send_hello(&socket, hello.proto, hello.src, None, &IpVec::new())?;
                socket.close_gracefully();
                return Ok(());
            }
        };
        self.check_address(&peer, &conn)?;
        let ips = if hello.proto.names_addresses() {
            peer.select_interfaces(&hello.ips)
        } else {
            IpVec::new()
        };
        let sent = self.send_hello(&socket, hello.proto, hello.src, Some(kind), &ips);
        if let Err(e) = sent {
            peer.close_conn(&conn, Failure::of_socket(e), Close::One);
            return Err(e.into());
        }
        peer.count(1, |events| &events.accepts);
        conn.start(socket);
        Ok(())
    }

    /// A slot for a connection to `peer`, which claims the NID `nid`, if it is a stranger. May sleep.
    fn slot_for(
        &self,
        peer: &Arc<Peer>,
        nid: Nid,
    ) -> core::result::Result<Option<StrangerSlot>, Reason> {
        let most = tunables::strangers(self.ni.conns_per_peer());
        let entered = self.ni.strangers().enter(peer, self.remote.ip(), most)?;
        entered.map_err(|limit| {
            self.ni.events().strangers_refused.add(1);
            Reason::StrangerLimit(nid, limit)
        })
    }

    fn new_conn(
        &self,
        peer: &Arc<Peer>,
        socket: &Socket,
        kind: ConnType,
        hello: &Hello,
        slot: Option<StrangerSlot>,
    ) -> Result<Arc<Conn>> {
        let is_wanted = |cpu| self.ni.upper().uses_cpu(cpu);
        let context = self.ni.context();
        let sched = context.choose_sched(socket.incoming_cpu(), &is_wanted)?;
        Conn::new(peer, sched, socket, kind, self.side(), hello, slot)
    }

    /// Which side this node is.
    pub(super) fn side(&self) -> Side {
        match self.role {
            Role::Passive { .. } => Side::Passive,
            Role::Active { .. } | Role::Registered { .. } => Side::Active,
        }
    }
}
