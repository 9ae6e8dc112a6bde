// SPDX-License-Identifier: GPL-2.0

//! Network interfaces (NIs), each with one NID in one network namespace.
//!
//! An [`Ni`] owns its interfaces, its peers and its message layer. It is in the module's list from
//! [`Ni::start`] until it is shut down, and is shared by [`Arc`] with all that belongs to it; those
//! cycles are broken by [`Ni::end`] and [`Ni::await_end`]. After these it has no socket and does
//! nothing; the object stays for as long as packets refer to pages of its messages, see
//! [`ZcBatch`](crate::conn::ZcBatch). What changes is in its parts, each with a lock of its own.

mod addresses;
mod context;
mod live;
mod local;
mod offer;

use self::local::LocalMsg;
pub(crate) use self::{
    context::Context,
    live::Live, //
};
use crate::{
    acceptor::{
        self,
        Acceptor,
        Listener, //
    },
    conn::{
        Doubt,
        Handshake,
        HandshakeTable, //
    },
    interface::Interfaces,
    lib_linux::{
        link,
        misc,
        netns::Net,
        queue::Fifo,
        socket::Socket,
        time, //
    },
    peer::{
        conns_per_peer,
        Cookies,
        Peer,
        PeerTable,
        Slots,
        Strangers,
        Unsent, //
    },
    stats::{
        Events,
        Ledger, //
    },
    tunables::{
        self,
        NidCheck, //
    },
    tx::Tx,
    upper::{
        Cause,
        Completion,
        Failure,
        Health,
        Link,
        MessageLayer,
        Payload,
        SentHeader,
        Status, //
    },
    wire::{
        Nid,
        Proto,
        MAX_PAYLOAD, //
    },
};
use core::net::{
    IpAddr,
    SocketAddr, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        ArcBorrow, //
    }, //
};

/// The most connections for bulk to a peer, each way; those of the C driver can be told no more.
const MAX_CONNS: u32 = 127;

/// One NID of this node.
#[pin_data]
pub(crate) struct Ni {
    acceptor: Arc<Acceptor<Ni>>,
    context: Arc<dyn Context>,
    /// Later ones have higher numbers; none has 0.
    serial: u64,
    nid: Nid,
    net: Net,
    /// Tells this life of the node from earlier ones: nanoseconds of wall clock at its start.
    incarnation: u64,
    /// For messages that peers are to acknowledge.
    cookies: Cookies,
    /// The newest version of the protocol that it speaks, and the one that it begins with on IPv4.
    protos: (Proto, Proto),
    /// How many connections for bulk it wants to each peer, each way.
    conns_per_peer: Atomic<u32>,
    /// The same when it started.
    conns_at_start: Atomic<u32>,
    /// The type of service that the message layer wants; -1 is none in particular.
    tos: Atomic<i32>,
    peers: PeerTable,
    upper: Arc<dyn MessageLayer>,
    #[pin]
    strangers: Strangers,
    #[pin]
    callees: Strangers,
    #[pin]
    handshakes: HandshakeTable,
    #[pin]
    interfaces: Interfaces<Ni>,
    /// The message layer knows that it works.
    started: Atomic<bool>,
    /// The message layer was told last that the link is gone.
    link_is_down: Atomic<bool>,
    down: Atomic<bool>,
    live: Live,
    events: Events,
    ledger: Arc<Ledger>,
}

impl Ni {
    /// Brings up `nid` in `net`, with the message layer `upper`, and listens on its address. May sleep.
    ///
    /// # Errors
    ///
    /// `EPROTONOSUPPORT` for an IPv6 address, if only older versions are to be spoken than have a form
    /// for it; those of [`Interfaces::add`]; `ENOMEM`.
    pub(crate) fn start(
        context: Arc<dyn Context>,
        acceptor: &Arc<Acceptor<Self>>,
        serial: u64,
        net: Net,
        nid: Nid,
        upper: Arc<dyn MessageLayer>,
    ) -> Result<Arc<Self>> {
        let peers = PeerTable::new()?;
        let live = Live::new()?;
        let ledger = Ledger::new()?;
        let ni = Arc::pin_init(
            pin_init!(Self {
                acceptor: acceptor.clone(),
                context,
                serial,
                nid,
                net,
                incarnation: time::realtime_ns(),
                cookies: Cookies::new(),
                protos: tunables::protocols(),
                conns_per_peer: Atomic::new(1),
                conns_at_start: Atomic::new(1),
                tos: Atomic::new(-1),
                peers,
                upper,
                strangers <- Strangers::new(Slots::Conns),
                callees <- Strangers::new(Slots::Callees),
                handshakes <- HandshakeTable::new(),
                interfaces <- Interfaces::new(),
                started: Atomic::new(false),
                link_is_down: Atomic::new(false),
                down: Atomic::new(false),
                live,
                events: Events::new(),
                ledger,
            }),
            GFP_KERNEL,
        )?;
        ni.check_nid(nid)?;
        ni.interfaces.add(acceptor, &ni, nid.addr(), None)?;
        // Not before the NI is there whose speed may be asked for.
        ni.settle_conns();
        Ok(ni)
    }

    /// Ends all that belongs to the NI: nothing begins any more, and its addresses are free.
    /// May sleep, but does not wait for peers or devices: connections are aborted. To be called once, and
    /// [`Ni::await_end`] then, which need not hold what this is called with.
    pub(crate) fn end(self: &Arc<Self>) {
        self.down.store(true, Release);
        self.interfaces.close(&self.acceptor, self);
        // Handshakes first: from here on they admit nothing. Then the peers, whose table stays
        // closed; what they had queued is completed. Then what waits for an answer.
        self.handshakes.close();
        self.peers.close(Failure::dropped());
        self.upper.shutdown(self.as_arc_borrow());
    }

    /// Waits until all that [`Ni::end`] has ended is over, and all its sockets are closed. Sleeps, but
    /// only for threads of this module, none of which waits for anything outside. Packets that refer to
    /// pages of messages are not waited for.
    pub(crate) fn await_end(self: &Arc<Self>) {
        // A daemon may have taken a handshake out of the list before, and still be at it.
        self.live.handshakes.wait_zero();
        self.live.conns.wait_zero();
        // The reaper's lists refer to the peers, and so to the NI.
        self.context.purge(time::monotonic_ms());
    }

    /// Whether it was, or is being, shut down.
    pub(crate) fn is_shutdown(&self) -> bool {
        self.down.load(Acquire)
    }

    /// Whether the device that has its address can send. Thread context.
    pub(crate) fn link(&self) -> Link {
        match link::is_up(&self.net, self.nid.addr()) {
            Some(true) => Link::Up,
            Some(false) | None => Link::Down,
        }
    }

    /// The message layer has been told that it works: from now on it is told of the link. Thread context.
    pub(crate) fn set_started(&self) {
        self.started.store(true, Release);
    }

    /// Tells the message layer if its link has come or gone since it was last told. The reaper's thread,
    /// may sleep.
    pub(crate) fn look_at_link(self: &Arc<Self>) {
        if !self.started.load(Acquire) || self.is_shutdown() {
            return;
        }
        let link = self.link();
        let is_down = link == Link::Down;
        // Nobody but the reaper changes it.
        if self.link_is_down.load(Relaxed) != is_down {
            self.link_is_down.store(is_down, Relaxed);
            self.events.link_changes.add(1);
            self.upper.link_changed(self.as_arc_borrow(), link);
        }
    }

    /// The module's threads.
    pub(crate) fn context(&self) -> &Arc<dyn Context> {
        &self.context
    }

    /// Its number: later ones have higher numbers, and none has 0. For walks over all instances.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Its NID.
    pub(crate) fn nid(&self) -> Nid {
        self.nid
    }

    /// The network namespace that it is in.
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Tells this life of the node from earlier ones; it grows with each.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Cookies for messages that peers are to acknowledge.
    pub(crate) fn cookies(&self) -> &Cookies {
        &self.cookies
    }

    /// The newest version of the protocol that it speaks.
    pub(crate) fn newest_proto(&self) -> Proto {
        self.protos.0
    }

    /// Whether it speaks this version.
    pub(crate) fn speaks(&self, proto: Proto) -> bool {
        (self.oldest_proto()..=self.newest_proto()).contains(&proto)
    }

    /// The oldest version in which it can say who it is.
    pub(crate) fn oldest_proto(&self) -> Proto {
        Proto::oldest_for(self.nid)
    }

    /// The version to begin with if nothing is known about the peer `nid`, which is at `addr`.
    pub(crate) fn first_proto(&self, nid: Nid, addr: IpAddr) -> Proto {
        let (newest, first) = self.protos;
        let addrs = [addr, nid.addr(), self.nid.addr()];
        first.max(Proto::first_try(&addrs)).min(newest)
    }

    /// Refuses a NID for which no version that is spoken here has a form.
    fn check_nid(&self, nid: Nid) -> Result {
        if Proto::oldest_for(nid) <= self.newest_proto() {
            Ok(())
        } else {
            Err(EPROTONOSUPPORT)
        }
    }

    /// How many connections for bulk it wants to each peer, each way. Any context.
    pub(crate) fn conns_per_peer(&self) -> u32 {
        self.conns_per_peer.load(Relaxed)
    }

    /// The type of service of its packets; `None` leaves it to the kernel. Any context.
    pub(crate) fn tos(&self) -> Option<u8> {
        u8::try_from(self.tos.load(Relaxed))
            .ok()
            .or_else(tunables::type_of_service)
    }

    /// Settles how many connections for bulk it wants when it starts. May sleep, and waits for the kernel's
    /// configuration lock (RTNL) if that is by the speed of the link.
    fn settle_conns(&self) {
        let wanted = self.upper.tunables().conns_per_peer;
        let conns = match wanted.or_else(tunables::bulk_conns) {
            Some(conns) if conns > 0 => conns,
            _ => {
                let speed = link::speed_mbps(&self.net, self.nid.addr());
                conns_per_peer::for_speed(speed.unwrap_or(0))
            }
        };
        self.conns_at_start.store(conns, Relaxed);
        self.read_tunables();
    }

    /// Asks the message layer how the NI is to be. Thread context, no lock held.
    pub(crate) fn read_tunables(&self) {
        misc::assert_may_sleep();
        let wanted = self.upper.tunables();
        let conns = wanted.conns_per_peer.filter(|conns| *conns > 0);
        let conns = conns.unwrap_or_else(|| self.conns_at_start.load(Relaxed));
        self.conns_per_peer.store(conns.min(MAX_CONNS), Relaxed);
        self.tos.store(wanted.tos.map_or(-1, i32::from), Relaxed);
    }

    /// The addresses that it publishes and listens on.
    pub(crate) fn interfaces(&self) -> &Interfaces<Ni> {
        &self.interfaces
    }

    /// Its peers.
    pub(crate) fn peers(&self) -> &PeerTable {
        &self.peers
    }

    /// Strangers with connections, see [`Strangers`].
    pub(crate) fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    /// Strangers that this node connects to because of other nodes' messages.
    pub(crate) fn callees(&self) -> &Strangers {
        &self.callees
    }

    /// Its handshakes.
    pub(crate) fn handshakes(&self) -> &HandshakeTable {
        &self.handshakes
    }

    /// The message layer above it.
    pub(crate) fn upper(&self) -> &dyn MessageLayer {
        &*self.upper
    }

    /// How many of its objects are alive.
    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// What happened to it.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// What went over its connections.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Applies the tunables that may change during a socket's life to all there are. May sleep.
    ///
    /// # Errors
    ///
    /// The first one; others are changed all the same.
    pub(crate) fn apply_tunables(&self) -> Result {
        let mut result = self.interfaces.apply_tunables();
        // A connection that joins its peer after this looks at the tunables itself.
        for peer in self.peers.collect()?.iter() {
            match peer.snapshot() {
                Ok(peer) => {
                    for conn in peer.conns.iter() {
                        result = result.and(conn.apply_tunables());
                    }
                }
                Err(e) => result = result.and(Err(e)),
            }
        }
        result
    }

    /// Why a node at `addr` may not claim the NID `nid`, if it may not.
    ///
    /// This is no proof of identity: any node in a subnet can take any address in it.
    pub(crate) fn doubt(&self, nid: Nid, addr: IpAddr) -> Option<Doubt> {
        if nid.net() != self.nid.net() {
            return Some(Doubt::Network);
        }
        if nid == self.nid {
            return Some(Doubt::Own);
        }
        if !nid.is_of_a_node() {
            return Some(Doubt::LinkLocal);
        }
        let is_known =
            || nid.addr() == addr || self.peers.find(nid).is_some_and(|p| p.has_route_to(addr));
        // A node with several addresses in one subnet connects from any of them.
        let is_near = || self.interfaces.share_subnet(nid.addr(), addr);
        match tunables::nid_check() {
            NidCheck::Off => None,
            NidCheck::Subnet => (!is_known() && !is_near()).then_some(Doubt::Far),
            NidCheck::Strict => (!is_known()).then_some(Doubt::Unknown),
        }
    }

    /// A message to this very node: no wire is needed.
    fn send_to_self(
        self: ArcBorrow<'_, Self>,
        header: SentHeader<'_>,
        payload: Option<Payload>,
        done: KBox<dyn Completion>,
    ) -> core::result::Result<(), (Failure, KBox<dyn Completion>)> {
        if let Err(e) = self.check(self.nid, header, payload.as_ref()) {
            return Err((e, done));
        }
        LocalMsg::send(self, header, payload, done)
    }

    fn send_to_peer(
        self: ArcBorrow<'_, Self>,
        to: Nid,
        cause: Cause,
        header: SentHeader<'_>,
        payload: Option<Payload>,
        done: KBox<dyn Completion>,
    ) -> core::result::Result<(), (Failure, KBox<dyn Completion>)> {
        if let Err(e) = self.check(to, header, payload.as_ref()) {
            return Err((e, done));
        }
        let deadline = time::monotonic_ms().saturating_add(tunables::timeout_ms());
        let tx = Tx::new(header, payload, deadline, done, &self.live.txs);
        let mut tx = tx.map_err(|(e, done)| (Failure::local(e), done))?;
        // Mostly it is there, and has a route.
        let mut known = self.peers.find(to);
        let why = loop {
            let found = match known.take() {
                Some(peer) => {
                    if cause == Cause::Own {
                        peer.mark_wanted();
                    }
                    Ok(peer)
                }
                None => self.peer_for(to, cause),
            };
            let peer = match found {
                Ok(peer) => peer,
                // Unlinked meanwhile.
                Err(e) if e == ESTALE && self.is_shutdown() => break Failure::dropped(),
                Err(e) if e == ESTALE => continue,
                Err(e) => break Failure::connecting(e),
            };
            let (unsent, back) = match peer.send(tx) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent,
            };
            tx = back;
            match unsent {
                Unsent::Failed(e) => break Failure::connecting(e),
                Unsent::Gone | Unsent::NoRoute if self.is_shutdown() => break Failure::dropped(),
                Unsent::Gone | Unsent::NoRoute => {}
            }
        };
        self.events.tx_errors.add(1);
        tx.finish(Err(why));
        Ok(())
    }

    fn check(&self, to: Nid, header: SentHeader<'_>, payload: Option<&Payload>) -> Status {
        if self.is_shutdown() {
            return Err(Failure::dropped());
        }
        if to.net() != self.nid.net() {
            return Err(Failure::new(EHOSTUNREACH, Health::LocalNoRoute));
        }
        self.check_nid(to).map_err(Failure::local)?;
        if header.payload_len() > MAX_PAYLOAD {
            return Err(Failure::local(EMSGSIZE));
        }
        if payload.map_or(0, Payload::len) != header.payload_len() as usize {
            return Err(Failure::local(EINVAL));
        }
        Ok(())
    }

    /// The peer with this NID, for a message that is sent for the sake of `cause`; an unknown one is taken to
    /// be at the address that its NID names.
    ///
    /// # Errors
    ///
    /// `EBUSY` if that is one stranger too many; `ESTALE`, `ESHUTDOWN`, `ENOMEM`.
    fn peer_for(self: ArcBorrow<'_, Self>, nid: Nid, cause: Cause) -> Result<Arc<Peer>> {
        // One without a way to it was made this moment, by another sender or by a handshake that
        // is not over: it gets its route here as well.
        let known = self.peers.find(nid).filter(|peer| peer.is_reachable());
        let peer = match &known {
            Some(peer) => peer.clone(),
            None => self.peers.find_or_create(&self.into(), nid)?,
        };
        if cause == Cause::Own {
            peer.mark_wanted();
        }
        if known.is_none() {
            let addr = SocketAddr::new(nid.addr(), tunables::port());
            let called = peer.call_for(cause).and_then(|()| peer.add_route(addr, 0));
            if let Err(e) = called {
                peer.unlink_if_unused();
                return Err(e);
            }
        }
        Ok(peer)
    }

    /// Adds a share of the route to `nid` by `addr`. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that makes no sense, `EEXIST` if the address was added with another port,
    /// `EPROTONOSUPPORT` for an IPv6 NID, if the version is not to be spoken that it takes; `ENOMEM`,
    /// `ESHUTDOWN`.
    pub(crate) fn add_peer(self: &Arc<Self>, nid: Nid, addr: SocketAddr) -> Result {
        if nid.net() != self.nid.net() || nid == self.nid || addr.port() == 0 {
            return Err(EINVAL);
        }
        self.check_nid(nid)?;
        loop {
            let peer = self.peers.find_or_create(self, nid)?;
            match peer.add_route(addr, 1) {
                Err(e) if e == ESTALE => continue,
                result => {
                    peer.unlink_if_unused();
                    return result;
                }
            }
        }
    }

    /// Ends transmits that could not be sent. Thread context, no spinlock held.
    pub(crate) fn fail_txs(&self, mut txs: Fifo<Tx>, why: Failure) {
        misc::assert_may_sleep();
        while let Some(tx) = txs.pop_front() {
            self.events.tx_errors.add(1);
            tx.finish(Err(why));
        }
    }
}

impl acceptor::User for Ni {
    fn net(&self) -> &Net {
        &self.net
    }

    fn count_refused(&self) {
        self.events.bad_handshakes.add(1);
    }

    fn accepted(
        self: &Arc<Self>,
        listener: &Arc<Listener<Self>>,
        socket: Socket,
        remote: SocketAddr,
    ) -> Result {
        Handshake::start_passive(self, listener, socket, remote)
    }
}
