// SPDX-License-Identifier: GPL-2.0

//! Peers: the nodes that this one exchanges messages with.
//!
//! A [`Peer`] is in its NI's table from its creation until it is unlinked. Its connections and attempts to
//! connect share it by [`Arc`]. Its lock protects its connections, its routes and its queue. The connection of
//! a transmit is chosen, and the transmit queued to it, with that lock held, so that no transmit is queued to a
//! connection that is closed. No socket callback takes the lock. A peer whose `closing` is set is out of the
//! table for good: code that finds it set looks the NID up again. The last reference is dropped in thread
//! context.
//!
//! A connection, its peer and its NI refer to each other (`conn.rs`; this file with `peer/state.rs` and
//! `peer/conn_set.rs`; `ni.rs`), because a peer chooses a connection and queues to it with its lock held, the
//! end of a connection may end its peer, and both look peers up in the NI's table or remove them. All others
//! are given what they need, or reach these by a trait.

mod addresses;
mod admin;
mod conn_set;
mod connect;
pub(crate) mod conns_per_peer;
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
use self::{conn_set::ConnSet, state::ClosedConns, unacked::Unacked};

/// The minimum time between two probes of a peer's connections, in milliseconds: longer than the answer to a
/// probe takes, and much shorter than the restart of a node.
const PROBE_PAUSE_MS: u64 = 100;

/// Which connections are closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// Only the given one.
    One,
    /// Also the peer's other connections to the same address, except those that were created less than a
    /// timeout ago, when the given one had already stopped making progress.
    Siblings,
}

/// The ID of a peer's links in the reaper's list of peers with transmits that wait for a connection.
pub(crate) const CONNECT_WAIT_LIST: u64 = 4;

/// The ID of a peer's links in the reaper's list of busy peers.
pub(crate) const BUSY_LIST: u64 = 7;

/// The ID of a peer's links in the reaper's list of idle peers.
pub(crate) const IDLE_LIST: u64 = 8;

/// A list of the reaper's that has peers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerList {
    /// Those with something under way.
    Busy,
    /// Those that are to be sent keepalive messages.
    Idle,
}

/// An address of a peer. The peer's lock protects its state.
pub(crate) type Route = route::Route<PeerInner>;

/// A node that this one exchanges messages with.
#[pin_data]
pub(crate) struct Peer {
    ni: Arc<Ni>,
    nid: Nid,
    #[pin]
    inner: SpinLock<PeerInner>,
    /// Messages that it was asked to acknowledge. This lock may be taken inside that of `inner`, and no
    /// other lock inside of it.
    #[pin]
    unacked: SpinLock<Unacked>,
    last_alive_ms: Atomic<u64>,
    /// This node has sent it a message for its own sake, or a program has connected to it.
    wanted: Atomic<bool>,
    events: Events,
    /// The traffic of connections that have ended. Written with the ledger's mutex held.
    traffic: Arc<Traffic>,
    /// A message was received since the peer last had no connection.
    has_rx: Atomic<bool>,
    /// INVARIANT: Only ever used for the reaper's list of peers that wait for a connection.
    #[pin]
    connect_wait_links: ListLinks<CONNECT_WAIT_LIST>,
    #[pin]
    connect_wait_tracker: AtomicTracker<CONNECT_WAIT_LIST>,
    /// It is in the reaper's list of busy peers, or being taken out of it. Changed under the lock of
    /// `inner`.
    is_busy: Atomic<bool>,
    /// When it was added there, in monotonic milliseconds.
    busy_since_ms: Atomic<u64>,
    /// INVARIANT: Only ever used for the reaper's list of busy peers.
    #[pin]
    busy_links: ListLinks<BUSY_LIST>,
    #[pin]
    busy_tracker: AtomicTracker<BUSY_LIST>,
    /// When its silence began, in monotonic milliseconds, while it is in the reaper's list of idle peers.
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
    /// It is out of the table for good.
    closing: bool,
    /// While it has connections.
    conn_set: Option<ConnSet>,
    /// The version of the protocol that it named when it refused another one, while it has no connections.
    preferred_proto: Option<Proto>,
    routes: KVec<Arc<Route>>,
    /// Transmits that wait for a connection.
    queue: Fifo<Tx>,
    /// The most transmits that have waited at the same time.
    queue_peak: usize,
    /// The newest version that its NI speaks. If that is newer than 2, connecting begins with 3 or later.
    newest_proto: Proto,
    /// When it was last sent a keepalive message, in monotonic milliseconds.
    pinged_ms: u64,
    /// When its connections were last probed, in monotonic milliseconds.
    probed_ms: u64,
    /// When a HELLO with its NID and an older incarnation was refused, in monotonic milliseconds; `None` once a
    /// connection was admitted after that.
    stale_hello_ms: Option<u64>,
    /// It is in the reaper's list of idle peers, or being taken out of it.
    is_idle: bool,
    /// This node's addresses that were in the HELLO to it. It is sent the same ones again.
    reported_addrs: KVec<PeerUse>,
    /// Its slot while it is in the table, if it is a stranger with a route for other nodes' messages.
    call: Option<StrangerSlot>,
}

/// Why a connection was not admitted to its peer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The peer was deleted meanwhile.
    Closing,
    /// This node is connecting to that peer itself, and has the higher NID.
    Race,
    /// The peer sent this HELLO before connections of another version were established, which this node had
    /// opened.
    Crossing,
    /// There is a connection of that type already.
    Duplicate,
    /// The peer was restarted after this handshake began.
    Stale,
    /// Its connections speak another version. Those are closed as well.
    Version,
    /// There is no memory.
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
                        conn_set: None,
                        preferred_proto: None,
                        routes: KVec::new(),
                        queue: Fifo::new(),
                        queue_peak: 0,
                        newest_proto: ni.newest_proto(),
                        pinged_ms: 0,
                        probed_ms: 0,
                        stale_hello_ms: None,
                        is_idle: false,
                        reported_addrs: KVec::new(),
                        call: None,
                    },
                    "socklnd_peer"
                ),
                unacked <- new_spinlock!(
                    Unacked::new(ni.cookies().peek()),
                    "socklnd_peer_unacked"
                ),
                last_alive_ms: Atomic::new(time::monotonic_ms()),
                wanted: Atomic::new(false),
                events: Events::new(),
                traffic,
                has_rx: Atomic::new(false),
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

    /// The NI that the peer is reached through.
    pub(crate) fn ni(&self) -> &Arc<Ni> {
        &self.ni
    }

    /// Its NID.
    pub(crate) fn nid(&self) -> Nid {
        self.nid
    }

    /// Its event counters.
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

    /// The traffic of all of its connections so far. May sleep.
    pub(crate) fn total_traffic(&self) -> Traffic {
        self.ni.ledger().total_of(&self.traffic)
    }

    /// Counts `n` events, for the peer and for its NI. Any context.
    pub(crate) fn count(&self, n: u64, which: impl Fn(&Events) -> &Counter) {
        which(&self.events).add(n);
        which(self.ni.events()).add(n);
    }

    /// Completes transmits that could not be sent. Thread context, no spinlock held.
    pub(crate) fn fail_txs(&self, txs: Fifo<Tx>, why: Failure) {
        misc::assert_may_sleep();
        self.events.tx_errors.add(txs.len() as u64);
        self.ni.fail_txs(txs, why);
    }

    /// Records that the peer was alive at `now_ms`. Any context.
    pub(crate) fn set_last_alive(&self, now_ms: u64) {
        self.last_alive_ms.store(now_ms, Relaxed);
    }

    /// Records that the peer sent a message. Any context.
    pub(crate) fn note_rx(&self) {
        // It is mostly set already: a read lets processors share the cache line.
        if !self.has_rx.load(Relaxed) {
            self.has_rx.store(true, Relaxed);
        }
    }

    /// Admits a connection whose handshake has succeeded so far.
    ///
    /// `route` is that of an attempt of this node, and its claim ends. Connections that programs have opened
    /// have no route. Thread context, no spinlock held.
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
        let stale = |conn_set: &ConnSet| conn_set.incarnation() > conn.incarnation();
        if inner.conn_set.as_ref().is_some_and(stale) {
            // The HELLO is late or forged, or the peer's clock was set back before it was restarted. In that
            // case it has lost the connections that exist here, and resets them when they are probed.
            inner.probe_conns(now);
            inner.stale_hello_ms = Some(now);
            return Err(Refusal::Stale);
        }
        // Memory first: nothing is closed for a connection that can't be admitted.
        let max_duplicates = self.max_duplicates(conn);
        let mut closed = ClosedConns::default();
        match &mut inner.conn_set {
            Some(conn_set) if conn_set.incarnation() == conn.incarnation() => {
                conn_set.reserve().map_err(|_| Refusal::NoMemory)?;
                if conn_set.proto() != conn.proto() {
                    if !conn.is_active() && conn_set.has_just_connected(now) {
                        return Err(Refusal::Crossing);
                    }
                    // Both nodes connected at once, with different versions.
                    let closed = inner.close_conns(Failure::restarted(), |_| true);
                    drop(inner);
                    self.mark_busy();
                    self.notify_down(closed, Loss::Restarted);
                    return Err(Refusal::Version);
                }
                let mut replaced = None;
                if conn_set.duplicates_of(conn).count() >= max_duplicates {
                    let old = conn_set.stale_duplicate(conn, now, silent_ms);
                    replaced = Some(old.ok_or(Refusal::Duplicate)?);
                }
                conn_set.push(conn);
                if let Some(old) = replaced {
                    closed = inner.close_conns(Failure::restarted(), |c| Arc::ptr_eq(c, &old));
                }
            }
            _ => {
                let conn_set = ConnSet::new(conn).map_err(|_| Refusal::NoMemory)?;
                // If there are connections, the peer was restarted and has lost them.
                closed = inner.close_conns(Failure::restarted(), |_| true);
                inner.conn_set = Some(conn_set);
                inner.preferred_proto = None;
            }
        }
        if let Some(conn_set) = &mut inner.conn_set {
            conn_set.agreement.note_admission();
        }
        inner.stale_hello_ms = None;
        let can_send = inner.can_send();
        if can_send {
            inner.reset_tried();
        }
        if let Some(route) = route {
            let state = route.state_mut(&mut inner);
            state.connecting = false;
            state.racing_since = None;
            state.opened = state.opened.saturating_add(1);
        }
        self.bind_route(&mut inner, conn);
        self.set_last_alive(now);
        inner.send_queued();
        drop(inner);
        self.mark_busy();
        self.notify_down(closed, Loss::Restarted);
        if can_send {
            let upper = self.ni.upper();
            upper.peer_found(self.ni.as_arc_borrow(), self.nid, PeerState::Up);
        }
        Ok(())
    }

    /// How many connections of the type of `conn` there may be between the same two addresses.
    fn max_duplicates(&self, conn: &Conn) -> usize {
        match conn.kind() {
            ConnType::BulkIn | ConnType::BulkOut if conn.proto().has_many_conns() => {
                self.ni.conns_per_peer() as usize
            }
            _ => 1,
        }
    }

    /// Connections were closed: notifies the message layer if none is left that can carry messages. Thread
    /// context, no spinlock held.
    fn notify_down(self: &Arc<Self>, closed: ClosedConns, loss: Loss) {
        misc::assert_may_sleep();
        if !closed.lost_last {
            return;
        }
        let last_alive_ms = self.last_alive_ms.load(Relaxed);
        let upper = self.ni.upper();
        upper.peer_down(self.ni.as_arc_borrow(), self.nid, loss, last_alive_ms);
    }

    /// Closes `conn`, or more as `what` says, because of `why`, unless it is closed already. If it has failed,
    /// the peer's other connections are probed.
    ///
    /// Thread context, no spinlock held, nor the connection's I/O mutex.
    pub(crate) fn close_conn(self: &Arc<Self>, conn: &Arc<Conn>, why: Failure, what: Close) {
        misc::assert_may_sleep();
        let now = time::monotonic_ms();
        let addr = conn.remote().ip();
        let mut inner = self.inner.lock();
        let mut closed = inner.close_conns(why, |c| Arc::ptr_eq(c, conn));
        if !closed.any {
            return;
        }
        if what == Close::Siblings {
            let begun = now.saturating_sub(tunables::timeout_ms());
            let others = |c: &Arc<Conn>| c.remote().ip() == addr && c.born_ms() <= begun;
            closed = closed.and(inner.close_conns(why, others));
        }
        let can_send = inner.can_send();
        let (min, max) = (tunables::min_reconnect_ms(), tunables::max_reconnect_ms());
        let lasted = now.saturating_sub(conn.born_ms()) >= min || why.error == ESHUTDOWN;
        let heard = closed.lost_last && self.has_rx.xchg(false, Relaxed);
        if let Some(route) = inner.route_to(addr) {
            let state = route.state_mut(&mut inner);
            match (lasted || heard, can_send) {
                (true, false) => state.note_success(),
                // The others are likely to fail as well.
                (true, true) => state.postpone(now, min),
                // It only follows the last one that could send, whose loss has been judged.
                (false, false) if !closed.lost_last => {}
                (false, _) => state.note_short_conn(now, min, max),
            }
        }
        let mut launch = None;
        if why.error != ESHUTDOWN {
            inner.probe_conns(now);
            if !can_send && inner.has_recent_stale_hello(now) {
                // The peer is up, and was refused because of this connection.
                launch = self.claim_route(&mut inner, now);
            }
        }
        let incomplete = inner.is_incomplete(self.ni.conns_per_peer()) && why.error != ESHUTDOWN;
        let gone = inner.conn_set.is_none();
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
        self.notify_down(closed, loss);
        if let Some(claim) = launch {
            self.connect(claim);
        }
        self.unlink_if_unused();
    }

    /// Ends the peer, which is out of the table already. Thread context.
    fn close(self: &Arc<Self>, why: Failure) {
        let mut failed = Fifo::new();
        let mut inner = self.inner.lock();
        inner.closing = true;
        inner.drop_routes(|_| true);
        // The caller, which stops the NI or deletes the peer, notifies the message layer.
        let _ = inner.close_conns(why, |_| true);
        failed.append(&mut inner.queue);
        let call = inner.call.take();
        self.purge_from_reaper(&inner);
        drop(inner);
        drop(call);
        self.fail_txs(failed, why);
    }

    /// Unlinks the peer if it has no connection, no route and no transmit. Thread context.
    pub(crate) fn unlink_if_unused(self: &Arc<Self>) {
        self.ni.peers().unlink_if(self, PeerInner::is_unused);
    }

    /// Unlinks the peer if it is a stranger without a connection or an attempt. Thread context.
    fn unlink_if_forgettable(self: &Arc<Self>) {
        self.ni.peers().unlink_if(self, PeerInner::is_forgettable);
    }

    /// Queues all connections to their schedulers. Thread context.
    pub(crate) fn retry_conns(&self) {
        let mut last = 0;
        while let Some(conn) = self.conn_after(last) {
            last = conn.id();
            conn.retry();
        }
    }

    /// The connection with the lowest ID above `id`. A walk by these visits each connection that exists all
    /// the time exactly once, whatever others are added or removed. Thread context.
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
