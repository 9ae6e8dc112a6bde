// SPDX-License-Identifier: GPL-2.0

//! Peers: nodes that this one talks to.
//!
//! A [`Peer`] is in its interface's table from its creation until it is unlinked, and is shared by
//! [`Arc`] with its connections and with attempts to connect. Its lock protects its lists, its
//! queue and its routes; a transmit's connection is chosen and fed under it, so that none is given
//! to a connection that is being closed. No callback takes that lock. A peer whose `closing` is set
//! is out of the table for good: whoever finds one looks the NID up again. The last reference frees
//! it, always in thread context.
//!
//! A connection, its peer and its interface instance know each other (`conn.rs`; this file with
//! `peer/state.rs` and `peer/life.rs`; `ni.rs`), and can't do without: a peer chooses a connection and feeds
//! it with its lock held, the end of a connection may end its peer's life, and both look peers up in
//! the instance's table, or leave it. All others are given what they need, or reach these by a trait.

mod addresses;
mod admin;
mod connect;
pub(crate) mod conns_per_peer;
mod life;
mod select_conn;
mod send;
mod state;
mod strangers;
mod table;
mod timeouts;
mod unacked;
mod zc_reqs;

use crate::{
    conn::Conn,
    interface::PeerUse,
    lib_linux::{
        misc,
        queue::Fifo,
        time, //
    },
    ni::Ni,
    route,
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
        Loss,
        PeerState, //
    },
    wire::{
        ConnType,
        Nid,
        Proto, //
    }, //
};
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
    send::Unsent,
    strangers::{
        Slots,
        StrangerSlot,
        Strangers, //
    },
    table::PeerTable,
    unacked::Cookies,
};
use self::{life::Life, state::Buried, unacked::Unacked};

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

/// An address of a peer; what changes about it is protected by the peer's lock.
pub(crate) type Route = route::Route<PeerInner>;

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
    /// This node has sent it something for its own sake, or a program has connected to it.
    asked_for: Atomic<bool>,
    events: Events,
    /// Of connections that have ended; written by those that end, with the ledger's mutex held.
    traffic: Arc<Traffic>,
    /// A message has come since the peer last had no connection.
    heard: Atomic<bool>,
    /// INVARIANT: Only ever used for the reaper's list of peers that wait for a connection.
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
    /// While it is in the table, if it is a stranger who has a route for the sake of others' messages.
    call: Option<StrangerSlot>,
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
                        call: None,
                    },
                    "socklnd_peer"
                ),
                unacked <- new_spinlock!(
                    Unacked::new(ni.cookies().peek()),
                    "socklnd_peer_unacked"
                ),
                last_alive_ms: Atomic::new(time::monotonic_ms()),
                asked_for: Atomic::new(false),
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
    pub(crate) fn fail_txs(&self, txs: Fifo<Tx>, why: Failure) {
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
                    let buried = inner.bury(Failure::restarted(), |_| true);
                    drop(inner);
                    self.mark_busy();
                    self.notify_down(buried, Loss::Restarted);
                    return Err(Refusal::Version);
                }
                let mut replaced = None;
                if life.twins_of(conn).count() >= most_twins {
                    let old = life.stale_duplicate(conn, now, silent_ms);
                    replaced = Some(old.ok_or(Refusal::Duplicate)?);
                }
                life.push(conn);
                if let Some(old) = replaced {
                    buried = inner.bury(Failure::restarted(), |c| Arc::ptr_eq(c, &old));
                }
            }
            _ => {
                let life = Life::begin(conn).map_err(|_| Refusal::NoMemory)?;
                // If there are connections, the peer was restarted, and they lead nowhere.
                buried = inner.bury(Failure::restarted(), |_| true);
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
        self.notify_down(buried, Loss::Restarted);
        if can_send {
            let upper = self.ni.upper();
            upper.peer_found(self.ni.as_arc_borrow(), self.nid, PeerState::Up);
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

    /// Connections were taken out: tells the layer above if the last one that could carry messages was among
    /// them. Thread context, no spinlock held.
    fn notify_down(self: &Arc<Self>, buried: Buried, loss: Loss) {
        misc::assert_may_sleep();
        if !buried.lost {
            return;
        }
        let last_alive_ms = self.last_alive_ms.load(Relaxed);
        let upper = self.ni.upper();
        upper.peer_down(self.ni.as_arc_borrow(), self.nid, loss, last_alive_ms);
    }

    /// Closes `conn`, or more as `what` says, because of `why`, unless it is being closed already. If it
    /// has failed, the rest are tested.
    ///
    /// Thread context, no spinlock held, nor the connection's I/O mutex.
    pub(crate) fn close_conn(self: &Arc<Self>, conn: &Arc<Conn>, why: Failure, what: Close) {
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
        let lasted = now.saturating_sub(conn.born_ms()) >= min || why.error == ESHUTDOWN;
        let heard = buried.lost && self.heard.xchg(false, Relaxed);
        if let Some(route) = inner.route_to(addr) {
            let state = route.state_mut(&mut inner);
            match (lasted || heard, can_send) {
                (true, false) => state.worked(),
                // The others are likely to follow.
                (true, true) => state.postpone(now, min),
                // It only follows the last one that could send, whose loss has been judged.
                (false, false) if !buried.lost => {}
                (false, _) => state.cut_short(now, min, max),
            }
        }
        let mut launch = None;
        if why.error != ESHUTDOWN {
            inner.test_conns(now);
            if !can_send && inner.has_come_outdated(now) {
                // It is there, and was refused because of this connection.
                launch = self.claim_route(&mut inner, now);
            }
        }
        let incomplete = inner.is_incomplete(self.ni.conns_per_peer()) && why.error != ESHUTDOWN;
        let gone = inner.life.is_none();
        drop(inner);
        if incomplete {
            self.ni.context().queue_connect_wait(self.clone());
        }
        if gone {
            self.mark_busy();
        }
        let loss = if why.error == ESHUTDOWN {
            Loss::Closed
        } else {
            Loss::Failed
        };
        self.notify_down(buried, loss);
        if let Some(claim) = launch {
            self.connect(claim);
        }
        self.unlink_if_unused();
    }

    /// Ends the peer: it is out of the table already. Thread context.
    fn close(self: &Arc<Self>, why: Failure) {
        let mut failed = Fifo::new();
        let mut inner = self.inner.lock();
        inner.closing = true;
        inner.drop_routes(|_| true);
        // Who closes the interface, or deletes the peer, tells the layer above.
        let _ = inner.bury(why, |_| true);
        failed.append(&mut inner.queue);
        let call = inner.call.take();
        self.purge_from_reaper(&inner);
        drop(inner);
        drop(call);
        self.fail_txs(failed, why);
    }

    /// Unlinks the peer if nothing is left of it. Thread context.
    pub(crate) fn unlink_if_unused(self: &Arc<Self>) {
        self.ni.peers().unlink_if(self, PeerInner::is_unused);
    }

    /// Unlinks the peer if nobody has asked for it, it has no connection, and none is waited for. Thread context.
    fn unlink_if_forgettable(self: &Arc<Self>) {
        self.ni.peers().unlink_if(self, PeerInner::is_forgettable);
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
