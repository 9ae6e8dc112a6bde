// SPDX-License-Identifier: GPL-2.0

//! The embedded message layer.
//!
//! The driver hands each message header that it has received to a [`MessageLayer`], see [`crate::upper`], which
//! says where the payload goes. The embedded one, [`Portals`], does what Portals and LNet do. Other nodes write
//! into and read from memory that is found by match entries in a table of portals. PUTs are answered by ACKs,
//! GETs by REPLYs. This node sends PUTs and GETs to others, those in other networks through gateways, see
//! [`router`]; and it may be a gateway itself, see [`forward`]. It answers LNet's ping, and can offer
//! a service that moves bulk data for tests.
//!
//! # Lifetime and locks
//!
//! A [`Portals`] belongs to one NI and refers to its [`Node`], which knows all NIs of a
//! namespace. Its state is a [`PortalsInner`]. Each completion of a transmit or of a received payload holds
//! a reference to that; it holds none to them, nor to the NI, so there is no cycle of
//! references. [`MessageLayer::shutdown`] ends all operations and empties the table of match entries.
//! Memory that a message is being received into is freed when that has ended too.
//!
//! The tables of match entries, of operations, of routes and of response credits each have a spinlock, taken in
//! thread context only. No two of them are held together, and nothing is sent, completed or freed
//! while one is held.

mod bulk;
mod credits;
pub(crate) mod debugfs;
mod forward;
mod handle;
mod incoming;
pub(crate) mod ioctl;
mod md;
mod node;
mod op;
mod outgoing;
mod ping;
mod router;
mod table;

use self::{
    bulk::{
        BulkMemory,
        BulkService, //
    },
    credits::ResponseCredits,
    md::Md,
    op::OpTable,
    router::{
        Liveness,
        Router, //
    },
    table::{
        Criteria,
        MatchTable,
        MeHandle,
        Position,
        Reservation, //
    },
};
use crate::{
    lib_linux::{
        misc,
        ratelimit::pr_info_ratelimited, //
    },
    stats::counters,
    upper::{
        Answer,
        ConnId,
        Incoming,
        Link,
        Loss,
        MessageLayer,
        NiRef,
        PeerState,
        RecvToken, //
    },
    wire::Nid, //
};
use kernel::{
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        SpinLock, //
    }, //
};

pub(crate) use self::node::{
    Layer,
    LocalNi,
    Node,
    LAYER, //
};

/// The release that the driver says of itself.
pub(crate) const RELEASE: &[u8] = b"0.1.0";

/// What the parameter `conns_per_peer` is by default.
pub(crate) const CONNS_PER_PEER: c_int = 1;

/// The registration with an upper layer, which the embedded layer does not need.
pub(crate) struct Registration;

impl Registration {
    /// Does nothing.
    pub(crate) fn new() -> Self {
        Self
    }
}

counters! {
    /// Counts messages by what was done with them.
    pub(crate) struct Counters {
        /// PUTs that matched an entry.
        puts,
        /// GETs that matched an entry, and pings.
        gets,
        /// ACKs that completed an operation.
        acks,
        /// REPLYs that belonged to an operation.
        replies,
        /// PUTs and GETs that matched no entry, or that could not be answered: too many responses wait, or no memory.
        drops,
        /// ACKs and REPLYs that belonged to no operation.
        unwanted,
        /// ACKs and REPLYs that could not be sent.
        unanswered,
        /// Messages that were received by this NI and forwarded by another.
        fwd_msgs,
        /// Bytes of their payload.
        fwd_bytes,
        /// Messages that were to be forwarded, but could not be sent, or were not received completely.
        fwd_failed,
        /// Messages that were neither for this NI nor forwarded, see [`forward::Misrouted`].
        fwd_forged,
        fwd_direct,
        fwd_off,
        fwd_no_route,
        fwd_back,
    }
}

/// The state of an NI's message layer, shared with its messages in progress.
#[pin_data]
pub(crate) struct PortalsInner {
    #[pin]
    table: SpinLock<MatchTable>,
    #[pin]
    ops: SpinLock<OpTable>,
    #[pin]
    router: Router,
    #[pin]
    credits: ResponseCredits,
    counters: Counters,
    /// The node that the NI belongs to.
    node: Arc<Node>,
    memory: Arc<BulkMemory>,
    /// The bulk service while one is offered. Its own lock is taken inside of this one.
    #[pin]
    service: Mutex<Option<Arc<BulkService>>>,
}

impl PortalsInner {
    fn new(memory: &Arc<BulkMemory>, node: &Arc<Node>) -> Result<Arc<Self>> {
        // Differs from the value in `WireHandle::NONE`.
        let interface_cookie = misc::random_u64() >> 1;
        Arc::pin_init(
            pin_init!(Self {
                table <- new_spinlock!(MatchTable::new(), "socklnd_portals_table"),
                ops <- new_spinlock!(OpTable::new(interface_cookie), "socklnd_portals_ops"),
                router <- Router::new(),
                credits <- ResponseCredits::new(),
                counters: Counters::new(),
                node: node.clone(),
                memory: memory.clone(),
                service <- new_mutex!(None, "socklnd_portals_service"),
            }),
            GFP_KERNEL,
        )
    }

    /// Posts a match entry with its descriptor. May sleep.
    ///
    /// # Errors
    ///
    /// `ESHUTDOWN`, `ENOMEM`; `EINVAL` if there is no such portal; `ENOSPC` if there are too many entries.
    pub(crate) fn attach(
        &self,
        criteria: Criteria,
        position: Position,
        md: &Arc<Md>,
    ) -> Result<MeHandle> {
        let reservation = Reservation::new()?;
        let attached = self
            .table
            .lock()
            .insert(reservation, criteria, position, md);
        attached.map_err(|(error, _)| error)
    }

    /// Unlinks a match entry, if it is there. A message that has matched it continues. Thread context.
    pub(crate) fn unlink(&self, me: MeHandle) {
        misc::assert_may_sleep();
        let unlinked = self.table.lock().remove(me);
        drop(unlinked);
    }

    fn conn_ended(&self, conn: ConnId, why: Error) {
        // An operation fails with one error however its connection has failed.
        let why = if why == ESHUTDOWN { why } else { ECONNRESET };
        let mut at = 0;
        loop {
            let op = self.ops.lock().remove_sent_by(&mut at, conn);
            let Some(op) = op else { break };
            op.complete(Err(why));
        }
    }

    /// Notes whether `peer` could be reached, should it be a gateway. `own` is the NI's NID. Thread
    /// context.
    fn set_gateway_state(&self, own: Nid, peer: Nid, state: PeerState) {
        let liveness = match state {
            PeerState::Up => Liveness::Alive,
            PeerState::Down => Liveness::Dead,
        };
        if self.router.set_liveness(peer, liveness) {
            let state = match state {
                PeerState::Up => "up",
                PeerState::Down => "down",
            };
            pr_info_ratelimited!("{own}: gateway {peer} is {state}\n");
        }
    }

    fn peer_down(&self, peer: Nid) {
        let service = self.service.lock().clone();
        if let Some(service) = service {
            service.peer_down(peer);
        }
    }

    fn shutdown(&self) {
        let mut at = 0;
        loop {
            let op = self.ops.lock().shut_down_next(&mut at);
            let Some(op) = op else { break };
            op.complete(Err(ESHUTDOWN));
        }
        let service = self.service.lock().clone();
        if let Some(service) = service {
            service.stop(self);
        }
        loop {
            let unlinked = self.table.lock().shut_down_next();
            if unlinked.is_none() {
                break;
            }
        }
    }
}

/// The embedded message layer of one NI.
pub(crate) struct Portals {
    inner: Arc<PortalsInner>,
}

impl Portals {
    /// The message layer of one NI of `node`. It answers pings from now on. Sessions of its bulk
    /// service get their memory from `memory`. May sleep.
    fn new(memory: &Arc<BulkMemory>, node: &Arc<Node>) -> Result<Arc<Self>> {
        let inner = PortalsInner::new(memory, node)?;
        ping::post_push_buffer(&inner)?;
        Ok(Arc::new(Self { inner }, GFP_KERNEL)?)
    }
}

impl MessageLayer for Portals {
    fn started(&self, ni: NiRef<'_>) -> Result {
        self.inner.node.add_ni(ni, &self.inner)
    }

    fn parse(&self, ni: NiRef<'_>, msg: &Incoming<'_>, token: RecvToken<'_>) -> Result<Answer> {
        let inner = &self.inner;
        Ok(match msg.header {
            Ok(header) if header.src == msg.via && header.dest == ni.nid() => {
                token.deliver(inner.parse(ni, msg, header))
            }
            Ok(header) => inner.parse_routed(ni, msg, header, token),
            Err(foreign) => inner.drop_foreign(ni, msg.via, foreign, token),
        })
    }

    fn peer_down(&self, ni: NiRef<'_>, peer: Nid, loss: Loss, _last_alive_ms: u64) {
        if loss == Loss::Failed {
            // First, so that a message that is sent again goes through another gateway.
            self.inner
                .set_gateway_state(ni.nid(), peer, PeerState::Down);
        }
        self.inner.peer_down(peer);
    }

    fn conn_ended(&self, conn: ConnId, why: Error) {
        self.inner.conn_ended(conn, why);
    }

    fn peer_found(&self, ni: NiRef<'_>, peer: Nid, state: PeerState) {
        self.inner.set_gateway_state(ni.nid(), peer, state);
    }

    fn link_changed(&self, ni: NiRef<'_>, link: Link) {
        let state = match link {
            Link::Up => "up",
            Link::Down => "down",
        };
        pr_info_ratelimited!("{}: its link is {state}\n", ni.nid());
    }

    fn shutdown(&self, ni: NiRef<'_>) {
        self.inner.node.remove_ni(ni.nid());
        self.inner.shutdown();
    }
}

impl Drop for Portals {
    fn drop(&mut self) {
        // An NI that failed to start was not shut down.
        self.inner.shutdown();
    }
}
