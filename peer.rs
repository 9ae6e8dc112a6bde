// SPDX-License-Identifier: GPL-2.0

//! Peers: nodes that this one talks to.
//!
//! A [`Peer`] is in its interface's table from its creation until it is unlinked, and is shared by
//! [`Arc`] with its connections and with attempts to connect. Its lock protects its lists, its
//! queue and its routes; a transmit's connection is chosen and fed under it, so that none is given
//! to a connection that is being closed. No callback takes that lock. A peer whose `closing` is set
//! is out of the table for good: whoever finds one looks the NID up again. The last reference frees
//! it, always in thread context.

mod addresses;
mod admin;
mod connect;
pub(crate) mod conns_per_peer;
mod life;
mod select_conn;
mod table;
mod timeouts;
mod unacked;

use crate::{
    conn::Conn,
    interface::PeerUse,
    lib_linux::{
        misc,
        queue::Fifo,
        time, //
    },
    ni::Ni,
    route::Route,
    stats::{
        Account,
        Counter,
        Events,
        Gauge,
        LiveGuard,
        Traffic, //
    },
    tunables,
    tx::Tx,
    upper::{
        ConnId,
        Failure,
        Loss, //
    },
    wire::{
        Added,
        ConnType,
        MsgClass,
        Nid,
        Proto,
        WireError, //
    }, //
};
use core::net::IpAddr;
use kernel::{
    list::{
        impl_list_arc_safe,
        impl_list_item,
        AtomicTracker,
        ListLinks,
        TryNewListArc, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        new_spinlock,
        Arc,
        SpinLock, //
    }, //
};

pub(crate) use self::{
    admin::{
        Deletion,
        PeerInfo,
        RouteInfo, //
    },
    table::PeerTable,
    unacked::Cookies,
};
use self::{
    life::Life,
    unacked::{
        Reservation,
        Unacked, //
    },
};

/// Between two tests of a peer's connections, in milliseconds. Longer than one takes that is answered
/// at once, and much shorter than it takes a node to come back.
const TEST_PAUSE_MS: u64 = 100;

/// What is closed when a connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// That one only.
    One,
    /// Also the peer's other connections to the same address, but for those that came up after the
    /// troubles of that one began, a timeout ago.
    Siblings,
}

/// Which list of a peer is the reaper's: peers with transmits that wait for a connection.
pub(crate) const CONNECT_WAIT_LIST: u64 = 4;

/// Which list of a peer is that of those with something under way.
pub(crate) const BUSY_LIST: u64 = 7;

/// Which list of a peer is that of those whose silence is to be noticed.
pub(crate) const IDLE_LIST: u64 = 8;

/// A node that this one talks to.
#[pin_data]
pub(crate) struct Peer {
    ni: Arc<Ni>,
    nid: Nid,
    #[pin]
    inner: SpinLock<PeerInner>,
    /// Messages that it was asked to acknowledge. The lock may be taken inside that of `inner`, and
    /// no other inside of it.
    #[pin]
    unacked: SpinLock<Unacked>,
    last_alive_ms: Atomic<u64>,
    events: Events,
    /// Forwarding buffers with messages from it, and with such on their way to it.
    /// Of connections that have ended; written by those that end, with the ledger's mutex held.
    traffic: Arc<Traffic>,
    /// A message has come since the peer last had no connection.
    heard: Atomic<bool>,
    /// INVARIANT: Only ever used for the reaper's list of pending peers.
    #[pin]
    connect_wait_links: ListLinks<CONNECT_WAIT_LIST>,
    #[pin]
    connect_wait_tracker: AtomicTracker<CONNECT_WAIT_LIST>,
    /// It is in the reaper's list of busy peers, or being taken out of it. Changed under the lock of
    /// `inner`.
    is_busy: Atomic<bool>,
    /// Since when it is there, in monotonic milliseconds.
    busy_since_ms: Atomic<u64>,
    /// INVARIANT: Only ever used for the reaper's list of busy peers.
    #[pin]
    busy_links: ListLinks<BUSY_LIST>,
    #[pin]
    busy_tracker: AtomicTracker<BUSY_LIST>,
    /// Since when its silence counts, while it is in the reaper's list of idle peers.
    idle_since_ms: Atomic<u64>,
    /// INVARIANT: Only ever used for the reaper's list of idle peers.
    #[pin]
    idle_links: ListLinks<IDLE_LIST>,
    #[pin]
    idle_tracker: AtomicTracker<IDLE_LIST>,
    _live: LiveGuard,
}

impl_list_arc_safe! {
    impl ListArcSafe<CONNECT_WAIT_LIST> for Peer { tracked_by connect_wait_tracker: AtomicTracker<CONNECT_WAIT_LIST>; }
    impl ListArcSafe<BUSY_LIST> for Peer { tracked_by busy_tracker: AtomicTracker<BUSY_LIST>; }
    impl ListArcSafe<IDLE_LIST> for Peer { tracked_by idle_tracker: AtomicTracker<IDLE_LIST>; }
}
impl_list_item! {
    impl ListItem<CONNECT_WAIT_LIST> for Peer { using ListLinks { self.connect_wait_links }; }
    impl ListItem<BUSY_LIST> for Peer { using ListLinks { self.busy_links }; }
    impl ListItem<IDLE_LIST> for Peer { using ListLinks { self.idle_links }; }
}

/// What the peer's lock protects.
pub(crate) struct PeerInner {
    /// Out of the table, never to come back.
    closing: bool,
    /// While it has connections.
    life: Option<Life>,
    /// The version of the protocol that it named when it refused another; while it has no connections.
    named: Option<Proto>,
    routes: KVec<Arc<Route>>,
    /// Transmits that wait for a connection.
    queue: Fifo<Tx>,
    /// The most transmits that have waited at the same time.
    queue_peak: usize,
    /// The newest version that its interface speaks: with a newer one than 2, none older than 3 is
    /// tried first.
    newest_proto: Proto,
    /// When it was sent a sign of life, in monotonic milliseconds.
    pinged_ms: u64,
    /// When its connections were tested, in monotonic milliseconds.
    tested_ms: u64,
    /// When it, or somebody in its name, was refused because of an older incarnation, in monotonic
    /// milliseconds; forgotten when a connection is admitted.
    outdated_ms: Option<u64>,
    /// It is in the reaper's list of idle peers, or being taken out of it.
    is_idle: bool,
    /// Addresses of ours that it was told when it connected; it is told the same ones again.
    told: KVec<PeerUse>,
}

/// What taking out connections has come to.
#[must_use]
#[derive(Clone, Copy, Default)]
struct Buried {
    /// Some were taken out.
    any: bool,
    /// There was one that could carry messages, and there is none any more: the layer above has to be
    /// told, by [`Peer::notify_down`].
    lost: bool,
}

impl Buried {
    /// Both of two.
    fn and(self, other: Self) -> Self {
        Self {
            any: self.any || other.any,
            lost: self.lost || other.lost,
        }
    }
}

/// Why a connection was not admitted to its peer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The peer was deleted meanwhile.
    Closing,
    /// This node is connecting to that peer itself, and its NID is the higher one.
    Race,
    /// The peer sent this HELLO when it did not know yet that connections of another version, which
    /// this node was making, would stand first.
    Crossing,
    /// There is a connection of that type.
    Duplicate,
    /// The peer was restarted after this handshake had begun.
    Stale,
    /// Its connections speak another version: both begin anew.
    Version,
    /// No memory.
    NoMemory,
}

impl Peer {
    fn new(ni: &Arc<Ni>, nid: Nid) -> Result<Arc<Self>> {
        let traffic = Arc::new(Traffic::new(), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                ni: ni.clone(),
                nid,
                inner <- new_spinlock!(
                    PeerInner {
                        closing: false,
                        life: None,
                        named: None,
                        routes: KVec::new(),
                        queue: Fifo::new(),
                        queue_peak: 0,
                        newest_proto: ni.newest_proto(),
                        pinged_ms: 0,
                        tested_ms: 0,
                        outdated_ms: None,
                        is_idle: false,
                        told: KVec::new(),
                    },
                    "socklnd_peer"
                ),
                unacked <- new_spinlock!(
                    Unacked::new(ni.cookies().peek()),
                    "socklnd_peer_unacked"
                ),
                last_alive_ms: Atomic::new(time::monotonic_ms()),
                events: Events::new(),
                traffic,
                heard: Atomic::new(false),
                connect_wait_links <- ListLinks::new(),
                connect_wait_tracker <- AtomicTracker::new(),
                is_busy: Atomic::new(false),
                busy_since_ms: Atomic::new(0),
                busy_links <- ListLinks::new(),
                busy_tracker <- AtomicTracker::new(),
                idle_since_ms: Atomic::new(0),
                idle_links <- ListLinks::new(),
                idle_tracker <- AtomicTracker::new(),
                _live: Gauge::enter(ni.live().peers()),
            }),
            GFP_KERNEL,
        )
    }

    /// The interface that the peer is reached through.
    pub(crate) fn ni(&self) -> &Arc<Ni> {
        &self.ni
    }

    /// Who it is.
    pub(crate) fn nid(&self) -> Nid {
        self.nid
    }

    /// What happened to it.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// An account for a connection to it that counts in `traffic`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn account(&self, traffic: &Arc<Traffic>) -> Result<Account> {
        Account::open(self.ni.ledger(), &self.traffic, traffic)
    }

    /// What went over all of its connections so far. May sleep.
    pub(crate) fn total_traffic(&self) -> Traffic {
        self.ni.ledger().total_of(&self.traffic)
    }

    /// Counts `n` events, for the peer and for its interface. Any context.
    pub(crate) fn count(&self, n: u64, which: impl Fn(&Events) -> &Counter) {
        which(&self.events).add(n);
        which(self.ni.events()).add(n);
    }

    /// Ends transmits that could not be sent. Thread context, no spinlock held.
    pub(crate) fn fail_txs(&self, txs: Fifo<Tx>, why: impl Into<Failure>) {
        misc::assert_may_sleep();
        self.events.tx_errors.add(txs.len() as u64);
        self.ni.fail_txs(txs, why);
    }

    /// Notes that the peer gave a sign of life. Any context.
    pub(crate) fn set_last_alive(&self, now_ms: u64) {
        self.last_alive_ms.store(now_ms, Relaxed);
    }

    /// Notes that the peer sent a message. Any context.
    pub(crate) fn note_rx(&self) {
        // Mostly set already, and then no processor needs the line to itself.
        if !self.heard.load(Relaxed) {
            self.heard.store(true, Relaxed);
        }
    }

    /// Whether there is a connection for messages, or a route to make one by. Thread context.
    pub(crate) fn is_reachable(&self) -> bool {
        let inner = self.inner.lock();
        inner.can_send() || !inner.routes.is_empty()
    }

    /// Sends `tx`, or queues it until there is a connection. On error it is given back.
    ///
    /// `ESTALE` means that the peer was deleted meanwhile, `EPROTONOSUPPORT` that it speaks a version
    /// that has no form for the NIDs in the message. Thread context, no spinlock held.
    pub(crate) fn send(
        self: &Arc<Self>,
        tx: KBox<Tx>,
    ) -> core::result::Result<(), (Error, KBox<Tx>)> {
        misc::assert_may_sleep();
        let result = match self.try_send(tx, false) {
            // Asked only now: it takes a lock that is not the peer's own.
            Err((e, tx)) if e == EHOSTUNREACH && self.has_passive_handshake() => {
                self.try_send(tx, true)
            }
            result => result,
        };
        if matches!(&result, Err((e, _)) if *e != ESTALE) {
            // The interface counts it itself.
            self.events.tx_errors.add(1);
        }
        result
    }

    /// As [`Peer::send`]; if `expect_passive`, there will be a connection.
    fn try_send(
        self: &Arc<Self>,
        tx: KBox<Tx>,
        expect_passive: bool,
    ) -> core::result::Result<(), (Error, KBox<Tx>)> {
        let now = time::monotonic_ms();
        let mut inner = self.inner.lock();
        if inner.closing {
            return Err((ESTALE, tx));
        }
        let launch = self.claim_route(&mut inner, now);
        let result = match inner.choose(&tx) {
            // One that comes from a network of IPv6, or goes there, by way of a gateway.
            Some(conn) if !tx.fits(conn.proto()) => Err((EPROTONOSUPPORT, tx)),
            Some(conn) => conn.queue_tx(tx).map_err(|tx| (ESTALE, tx)),
            None if expect_passive || inner.may_queue() => {
                inner.queue.push_back(tx);
                inner.queue_peak = inner.queue_peak.max(inner.queue.len());
                self.ni.context().queue_connect_wait(self.clone());
                Ok(())
            }
            None => Err((EHOSTUNREACH, tx)),
        };
        drop(inner);
        if let Some(claim) = launch {
            self.connect(claim);
        }
        result
    }

    /// Admits a connection whose handshake has succeeded so far.
    ///
    /// `route` is that of an attempt of ours; its claim ends. Connections of ours that programs have made
    /// have none. Thread context, no spinlock held.
    pub(crate) fn admit(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        route: Option<&Route>,
    ) -> core::result::Result<(), Refusal> {
        misc::assert_may_sleep();
        let now = conn.born_ms();
        let silent_ms = now.saturating_sub(self.last_alive_ms.load(Relaxed));
        let mut inner = self.inner.lock();
        if let Some(route) = route {
            if route.state(&inner).deleted {
                return Err(Refusal::Closing);
            }
        }
        if inner.closing {
            return Err(Refusal::Closing);
        }
        if !conn.is_active() && self.ni.nid() > self.nid && inner.is_racing(now) {
            return Err(Refusal::Race);
        }
        let stale = |life: &Life| life.incarnation() > conn.incarnation();
        if inner.life.as_ref().is_some_and(stale) {
            // Late, forged, or of a peer whose clock was put back before it was restarted: then it
            // has lost those connections, and says so when they are tested.
            inner.test_conns(now);
            inner.outdated_ms = Some(now);
            return Err(Refusal::Stale);
        }
        // Memory first: nothing ends for the sake of a connection that can't be admitted.
        let most_twins = self.most_twins(conn);
        let mut buried = Buried::default();
        match &mut inner.life {
            Some(life) if life.incarnation() == conn.incarnation() => {
                life.reserve().map_err(|_| Refusal::NoMemory)?;
                if life.proto() != conn.proto() {
                    if !conn.is_active() && life.has_just_connected(now) {
                        return Err(Refusal::Crossing);
                    }
                    // Each of us has begun with another version.
                    let buried = inner.bury(ESTALE, |_| true);
                    drop(inner);
                    self.mark_busy();
                    if buried.lost {
                        self.notify_down(Loss::Restarted);
                    }
                    return Err(Refusal::Version);
                }
                let mut replaced = None;
                if life.twins_of(conn).count() >= most_twins {
                    let old = life.stale_duplicate(conn, now, silent_ms);
                    replaced = Some(old.ok_or(Refusal::Duplicate)?);
                }
                life.push(conn);
                if let Some(old) = replaced {
                    buried = inner.bury(ESTALE, |c| Arc::ptr_eq(c, &old));
                }
            }
            _ => {
                let life = Life::begin(conn).map_err(|_| Refusal::NoMemory)?;
                // If there are connections, the peer was restarted, and they lead nowhere.
                buried = inner.bury(ESTALE, |_| true);
                inner.life = Some(life);
                inner.named = None;
            }
        }
        if let Some(life) = &mut inner.life {
            life.agreement.admitted();
        }
        inner.outdated_ms = None;
        let can_send = inner.can_send();
        if can_send {
            inner.forget_tries();
        }
        if let Some(route) = route {
            let state = route.state_mut(&mut inner);
            state.connecting = false;
            state.racing_since = None;
            state.opened = state.opened.saturating_add(1);
        }
        self.bind_route(&mut inner, conn);
        self.set_last_alive(now);
        inner.feed();
        drop(inner);
        self.mark_busy();
        if buried.lost {
            self.notify_down(Loss::Restarted);
        }
        if can_send {
            let upper = self.ni.upper();
            upper.peer_found(self.ni.as_arc_borrow(), self.nid, true);
        }
        Ok(())
    }

    /// How many connections like `conn` there may be, between the same two addresses.
    fn most_twins(&self, conn: &Conn) -> usize {
        match conn.kind() {
            ConnType::BulkIn | ConnType::BulkOut if conn.proto().has_many_conns() => {
                self.ni.conns_per_peer() as usize
            }
            _ => 1,
        }
    }

    /// The last connection that could carry messages is gone. Thread context, no spinlock held.
    fn notify_down(self: &Arc<Self>, loss: Loss) {
        misc::assert_may_sleep();
        let last_alive_ms = self.last_alive_ms.load(Relaxed);
        let upper = self.ni.upper();
        upper.peer_down(self.ni.as_arc_borrow(), self.nid, loss, last_alive_ms);
    }

    /// Tells the peer that its message with this cookie has arrived by the connection `by`, which it
    /// may have passed on for another node: then that must not wait behind messages in any case. If
    /// there is no room for it, `by` is looked at again when there may be. Thread context, no spinlock
    /// held; a connection's I/O mutex may be.
    ///
    /// A connection that is out of the list may belong to an earlier life of the peer, and its messages
    /// have failed with it: to the peer their cookies mean nothing any more, or something else.
    ///
    /// # Errors
    ///
    /// [`WireError::Cookie`] if no message can have that cookie, or had it shortly before.
    pub(crate) fn queue_zc_ack(
        self: &Arc<Self>,
        by: &Arc<Conn>,
        cookie: u64,
        routed: bool,
    ) -> core::result::Result<Added, WireError> {
        let class = if routed {
            MsgClass::Ack
        } else {
            tunables::ack_class()
        };
        let mut inner = self.inner.lock();
        let Some(life) = &mut inner.life else {
            return Ok(Added::Yes);
        };
        if !life.conns().iter().any(|conn| Arc::ptr_eq(conn, by)) {
            return Ok(Added::Yes);
        }
        if let Some(conn) = life.choose_for(class).cloned() {
            if !life.acks.is_empty() {
                conn.queue_acks(&mut life.acks);
            }
            return conn.queue_ack(cookie);
        }
        // The connection for that is missing: it will come, or all will go.
        if life.acks.add(cookie)? == Added::Full {
            // In its place any that there is.
            return by.queue_ack(cookie);
        }
        drop(inner);
        self.ni.context().queue_connect_wait(self.clone());
        Ok(Added::Yes)
    }

    /// A message is about to go by the connection `conn`, and the peer is to say when it has arrived.
    /// Returns the cookie for it; 0, which is none, if there is no memory for that. May sleep.
    pub(crate) fn zc_req_add(self: &Arc<Self>, conn: ConnId) -> u64 {
        let Ok(room) = Reservation::new() else {
            return 0;
        };
        let more = || self.ni.cookies().take();
        let cookie = self.unacked.lock().add(conn, room, more);
        self.mark_busy();
        cookie
    }

    /// The message with this cookie will not be sent after all. Thread context.
    pub(crate) fn zc_req_cancel(&self, cookie: u64) {
        self.unacked.lock().forget(cookie);
    }

    /// TCP has let go of `tx`, which the peer was asked to acknowledge. Gives it back if that is not
    /// waited for: it has been, or the connection has ended. Thread context.
    pub(crate) fn zc_req_released(&self, tx: KBox<Tx>) -> Option<KBox<Tx>> {
        self.unacked.lock().released(tx, time::monotonic_ms())
    }

    /// The peer says that messages with cookies in these ranges have arrived: those that have ended with
    /// that come to `done`. Thread context, no spinlock held; a connection's I/O mutex may be.
    ///
    /// # Errors
    ///
    /// [`WireError::Cookie`] if it was not asked for one of them, or has said so before.
    pub(crate) fn handle_zc_ack(
        &self,
        ranges: [Option<(u64, u64)>; 2],
        done: &mut Fifo<Tx>,
    ) -> core::result::Result<(), WireError> {
        let mut unacked = self.unacked.lock();
        let mut ranges = ranges.into_iter().flatten();
        ranges.try_for_each(|range| unacked.acknowledged(range, done))
    }

    /// The connection `conn` has ended because of `why`: so do the messages that went by it and were
    /// to be acknowledged. Thread context, no spinlock held.
    pub(crate) fn abandon(&self, conn: ConnId, why: Error) {
        misc::assert_may_sleep();
        let txs = self.unacked.lock().abandon(conn, time::monotonic_ms());
        self.fail_txs(txs, why);
    }

    /// How many messages the peer has yet to acknowledge, and how many it has. Thread context.
    pub(crate) fn zc_req_counts(&self) -> (u64, u64) {
        self.unacked.lock().counts()
    }

    /// Closes `conn`, or more as `what` says, because of `why`, unless it is being closed already. If it
    /// has failed, the rest are tested.
    ///
    /// Thread context, no spinlock held; the connection's I/O mutex may be.
    pub(crate) fn close_conn(self: &Arc<Self>, conn: &Arc<Conn>, why: Error, what: Close) {
        misc::assert_may_sleep();
        let now = time::monotonic_ms();
        let addr = conn.remote().ip();
        let mut inner = self.inner.lock();
        let mut buried = inner.bury(why, |c| Arc::ptr_eq(c, conn));
        if !buried.any {
            return;
        }
        if what == Close::Siblings {
            let begun = now.saturating_sub(tunables::timeout_ms());
            let others = |c: &Arc<Conn>| c.remote().ip() == addr && c.born_ms() <= begun;
            buried = buried.and(inner.bury(why, others));
        }
        let can_send = inner.can_send();
        let (min, max) = (tunables::min_reconnect_ms(), tunables::max_reconnect_ms());
        let lasted = now.saturating_sub(conn.born_ms()) >= min || why == ESHUTDOWN;
        let heard = !can_send && self.heard.xchg(false, Relaxed);
        if let Some(route) = inner.route_to(addr) {
            let state = route.state_mut(&mut inner);
            match (lasted || heard, can_send) {
                (true, false) => state.worked(),
                // The others are likely to follow.
                (true, true) => state.postpone(now, min),
                (false, _) => state.cut_short(now, min, max),
            }
        }
        let mut launch = None;
        if why != ESHUTDOWN {
            inner.test_conns(now);
            if !can_send && inner.has_come_outdated(now) {
                // It is there, and was refused because of this connection.
                launch = self.claim_route(&mut inner, now);
            }
        }
        let incomplete = inner.is_incomplete(self.ni.conns_per_peer()) && why != ESHUTDOWN;
        let gone = inner.life.is_none();
        drop(inner);
        if incomplete {
            self.ni.context().queue_connect_wait(self.clone());
        }
        if gone {
            self.mark_busy();
        }
        if buried.lost {
            self.notify_down(if why == ESHUTDOWN {
                Loss::Closed
            } else {
                Loss::Failed
            });
        }
        if let Some(claim) = launch {
            self.connect(claim);
        }
        self.unlink_if_unused();
    }

    /// Ends the peer: it is out of the table already. Thread context.
    fn close(self: &Arc<Self>, why: Error) {
        let mut failed = Fifo::new();
        let mut inner = self.inner.lock();
        inner.closing = true;
        inner.drop_routes(|_| true);
        // Who closes the interface, or deletes the peer, tells the layer above.
        let _ = inner.bury(why, |_| true);
        failed.append(&mut inner.queue);
        self.purge_from_reaper(&inner);
        drop(inner);
        self.fail_txs(failed, why);
    }

    /// Unlinks the peer if nothing is left of it. Thread context.
    pub(crate) fn unlink_if_unused(self: &Arc<Self>) {
        self.ni.peers().unlink_if(self, PeerInner::is_unused);
    }

    /// Has all connections looked at by their schedulers. Thread context.
    pub(crate) fn retry_conns(&self) {
        let mut last = 0;
        while let Some(conn) = self.conn_after(last) {
            last = conn.id();
            conn.retry();
        }
    }

    /// The connection with the lowest number above `id`. A walk by these meets each connection that is
    /// there all the time once, whichever others come and go. Thread context.
    fn conn_after(&self, id: ConnId) -> Option<Arc<Conn>> {
        let inner = self.inner.lock();
        let behind = inner.conns().iter().filter(|conn| conn.id() > id);
        behind.min_by_key(|conn| conn.id()).cloned()
    }

    /// The `index`-th connection. Thread context.
    pub(crate) fn conn(&self, index: usize) -> Option<Arc<Conn>> {
        self.inner.lock().conns().get(index).cloned()
    }
}

impl PeerInner {
    fn route_to(&self, addr: IpAddr) -> Option<Arc<Route>> {
        self.routes.iter().find(|r| r.addr().ip() == addr).cloned()
    }

    /// Its connections.
    fn conns(&self) -> &[Arc<Conn>] {
        self.life.as_ref().map_or(&[], Life::conns)
    }

    fn conns_to(&self, addr: IpAddr) -> impl Iterator<Item = &Arc<Conn>> {
        self.conns().iter().filter(move |c| c.remote().ip() == addr)
    }

    /// How many connections of type `kind` there are to `addr`.
    fn count_to(&self, addr: IpAddr, kind: ConnType) -> usize {
        life::count_to(self.conns(), addr, kind)
    }

    /// The version of the protocol that it speaks, if that is known.
    fn proto(&self) -> Option<Proto> {
        self.life.as_ref().map(Life::proto).or(self.named)
    }

    /// The type of connection to `addr` that is to be made next, if this node wants `own` for bulk,
    /// each way.
    fn missing_type(&self, addr: IpAddr, own: u32) -> Option<ConnType> {
        let bulk = self.bulk_conns(own);
        conns_per_peer::next_missing(self.is_typed(), bulk, |kind| self.count_to(addr, kind))
    }

    /// Whether connections to it are to have types, as far as its version is known.
    fn is_typed(&self) -> bool {
        tunables::typed(self.proto().unwrap_or(self.newest_proto))
    }

    /// How many connections for bulk there are to be, each way, if this node wants `own`.
    fn bulk_conns(&self, own: u32) -> u32 {
        match (self.proto(), &self.life) {
            (Some(proto), _) if !proto.has_many_conns() => 1,
            (_, Some(life)) => life.agreement.bulk(own),
            (_, None) => own.max(1),
        }
    }

    /// The peer, at `addr`, has refused one more connection.
    fn refused(&mut self, addr: IpAddr) {
        let is_typed = self.is_typed();
        if let Some(life) = &mut self.life {
            life.refused(addr, is_typed);
        }
    }

    /// Whether there is a connection that can carry messages.
    fn can_send(&self) -> bool {
        self.life.as_ref().is_some_and(Life::can_send)
    }

    /// Has all connections tested, unless they were a moment ago. Thread context.
    fn test_conns(&mut self, now: u64) {
        if now.saturating_sub(self.tested_ms) < TEST_PAUSE_MS {
            return;
        }
        self.tested_ms = now;
        for conn in self.conns() {
            conn.test();
        }
    }

    /// Whether it was refused because of an older incarnation, so lately that it may still be trying.
    fn has_come_outdated(&self, now: u64) -> bool {
        let fresh = |since: u64| now.saturating_sub(since) <= tunables::handshake_timeout_ms();
        self.outdated_ms.is_some_and(fresh)
    }

    /// Whether a connection to `addr` that was made at `since`, or later, has lasted for `min_ms`.
    fn has_stood(&self, addr: IpAddr, since: u64, now: u64, min_ms: u64) -> bool {
        self.conns_to(addr).any(|conn| {
            let born = conn.born_ms();
            born >= since && now.saturating_sub(born) >= min_ms
        })
    }

    /// Each route may be tried again for the sake of messages that wait.
    fn forget_tries(&mut self) {
        let mut index = 0;
        while let Some(route) = self.routes.get(index).cloned() {
            route.state_mut(self).tried = false;
            index += 1;
        }
    }

    /// Whether a transmit may wait for a connection.
    fn may_queue(&self) -> bool {
        self.routes.iter().any(|r| r.state(self).may_queue())
    }

    /// Whether there are connections, but not all by all routes, if this node wants `own` for bulk,
    /// each way.
    fn is_incomplete(&self, own: u32) -> bool {
        let lacking = |route: &Arc<Route>| self.missing_type(route.addr().ip(), own).is_some();
        self.life.is_some() && self.routes.iter().any(lacking)
    }

    /// Whether an attempt of ours may be about to succeed. One that has been out for longer than a
    /// handshake takes is more likely lost on the way, and must not keep the peer out.
    fn is_racing(&self, now: u64) -> bool {
        let fresh = |since: u64| now.saturating_sub(since) < tunables::handshake_timeout_ms();
        self.routes
            .iter()
            .any(|r| r.state(self).racing_since.is_some_and(fresh))
    }

    /// The connection for a message.
    fn choose(&self, tx: &Tx) -> Option<&Arc<Conn>> {
        self.life.as_ref()?.choose(tx)
    }

    /// The connection for acknowledgements.
    fn ack_conn(&self, class: MsgClass) -> Option<&Arc<Conn>> {
        self.life.as_ref()?.choose_for(class)
    }

    /// Gives what waited for a connection to the connections.
    fn feed(&mut self) {
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
    fn bury(&mut self, why: Error, matching: impl Fn(&Arc<Conn>) -> bool) -> Buried {
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
    fn drop_routes(&mut self, matching: impl Fn(&Arc<Route>) -> bool) -> bool {
        let mut any = false;
        while let Some(at) = self.routes.iter().position(&matching) {
            if let Ok(route) = self.routes.remove(at) {
                route.state_mut(self).deleted = true;
                any = true;
            }
        }
        any
    }

    fn is_unused(&self) -> bool {
        self.life.is_none() && self.routes.is_empty() && self.queue.is_empty()
    }

    /// Whether nobody asked for it, and there is no connection to it.
    fn is_unreferenced(&self) -> bool {
        self.life.is_none() && self.routes.iter().all(|r| r.state(self).shares == 0)
    }

    fn is_forgettable(&self) -> bool {
        let connecting = |r: &Arc<Route>| r.state(self).connecting;
        self.is_unreferenced() && self.queue.is_empty() && !self.routes.iter().any(connecting)
    }
}
