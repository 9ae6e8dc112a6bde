// SPDX-License-Identifier: GPL-2.0

//! The message layer that is built in.
//!
//! The driver below hands every header that it has read to a [`MessageLayer`], see [`crate::upper`], which
//! says where the payload goes. The built-in one, [`Portals`], does what Portals and LNet do: others write into and
//! read from memory that is found by match entries in a table of portals; PUTs are acknowledged and
//! GETs are replied to; and this node does the same to others. Those in other networks are reached
//! through gateways, see [`router`]; and a node may be one itself, see [`forward`]. On top of that it answers LNet's ping, and can offer a service
//! for moving bulk data to and fro.
//!
//! # Lifetime and locks
//!
//! A [`Portals`] belongs to one NI, and to a [`Node`], which knows all of them that are in a
//! namespace. What it does goes through [`Core`], which is
//! shared with everything that is under way: a completion of a transmit or of a received payload
//! holds a reference, but the core holds none to them, nor to the interface. So there is no cycle,
//! and the last one to end frees it. [`MessageLayer::shutdown`] ends all operations and empties the
//! table; memory that a message is being received into lives until that has ended too.
//!
//! The table of match entries, the table of operations, the router's table and the counts of answers
//! owed each have a spinlock, taken in thread context only. They are never taken together, and nothing
//! is sent, completed or freed under them. Inside the locks of the driver they are the innermost ones.

mod bulk;
pub(crate) mod door;
mod forward;
mod handle;
mod incoming;
mod md;
mod node;
mod op;
mod outgoing;
mod owed;
mod ping;
mod router;
mod table;

use self::{
    bulk::{
        BulkMemory,
        BulkService, //
    },
    md::Md,
    op::OpTable,
    owed::Owed,
    router::Router,
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
    stats::Counter,
    upper::{
        Answer,
        Completion,
        ConnId,
        Incoming,
        Link,
        Loss,
        MessageLayer,
        NiRef,
        PeerState,
        RecvToken,
        Status, //
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

/// What is to be done when something has ended: like [`Completion`], but by value, and done with
/// `ESHUTDOWN` if whoever was to complete it forgets it.
trait Finish: Sized + Send + 'static {
    /// It ended with `result`. As [`Completion::complete`].
    fn finish(self, result: Result);

    /// It ended well: the message went by this connection. As [`Completion::sent`].
    fn sent(self, _conn: ConnId) {
        self.finish(Ok(()));
    }

    /// As [`Completion::is_wanted`].
    fn is_wanted(&self) -> bool {
        true
    }
}

struct Then<T: Finish>(Option<T>);

impl<T: Finish> Completion for Then<T> {
    fn complete(mut self: KBox<Self>, status: Status) {
        let what = self.0.take();
        drop(self);
        if let Some(what) = what {
            what.finish(status.map_err(|failure| failure.error));
        }
    }

    fn sent(mut self: KBox<Self>, conn: ConnId) {
        let what = self.0.take();
        drop(self);
        if let Some(what) = what {
            what.sent(conn);
        }
    }

    fn is_wanted(&self) -> bool {
        self.0.as_ref().is_some_and(T::is_wanted)
    }
}

impl<T: Finish> Drop for Then<T> {
    fn drop(&mut self) {
        if let Some(what) = self.0.take() {
            what.finish(Err(ESHUTDOWN));
        }
    }
}

/// Makes a completion of `what`. If there is no memory, `what` is finished with that. May sleep.
fn completion<T: Finish>(what: T) -> Result<KBox<dyn Completion>> {
    match KBox::<Then<T>>::new_uninit(GFP_KERNEL) {
        Ok(room) => {
            let then: KBox<_> = KBox::write(room, Then(Some(what)));
            Ok(then)
        }
        Err(_) => {
            what.finish(Err(ENOMEM));
            Err(ENOMEM)
        }
    }
}

pub(crate) use self::node::{
    Layer,
    Local,
    Node,
    LAYER, //
};

/// Messages by what became of them.
pub(crate) struct Counters {
    /// PUTs that found memory here.
    pub(crate) puts: Counter,
    /// GETs that found memory here.
    pub(crate) gets: Counter,
    /// ACKs that ended an operation.
    pub(crate) acks: Counter,
    /// REPLYs that belonged to an operation.
    pub(crate) replies: Counter,
    /// PUTs and GETs for which no memory was there, or that there was no memory to answer.
    pub(crate) drops: Counter,
    /// ACKs and REPLYs that came too late, twice, or that nobody had asked for.
    pub(crate) unwanted: Counter,
    /// ACKs and REPLYs that could not be sent.
    pub(crate) unanswered: Counter,
    /// Messages that went nowhere: by cause, see [`forward::Misrouted`].
    pub(crate) fwd_forged: Counter,
    pub(crate) fwd_direct: Counter,
    pub(crate) fwd_off: Counter,
    pub(crate) fwd_no_route: Counter,
    pub(crate) fwd_back: Counter,
    /// Messages that came in by this interface and were passed on by another.
    pub(crate) fwd_msgs: Counter,
    /// Their payload.
    pub(crate) fwd_bytes: Counter,
    /// Messages that were to be passed on and could not be, or not received as a whole.
    pub(crate) fwd_failed: Counter,
}

impl Counters {
    const fn new() -> Self {
        Self {
            puts: Counter::new(),
            gets: Counter::new(),
            acks: Counter::new(),
            replies: Counter::new(),
            drops: Counter::new(),
            unwanted: Counter::new(),
            unanswered: Counter::new(),
            fwd_forged: Counter::new(),
            fwd_direct: Counter::new(),
            fwd_off: Counter::new(),
            fwd_no_route: Counter::new(),
            fwd_back: Counter::new(),
            fwd_msgs: Counter::new(),
            fwd_bytes: Counter::new(),
            fwd_failed: Counter::new(),
        }
    }
}

/// What is shared by an interface's message layer and all that is under way.
#[pin_data]
pub(crate) struct Core {
    #[pin]
    table: SpinLock<MatchTable>,
    #[pin]
    ops: SpinLock<OpTable>,
    #[pin]
    router: Router,
    #[pin]
    owed: Owed,
    counters: Counters,
    /// The node that the interface is of.
    node: Arc<Node>,
    memory: Arc<BulkMemory>,
    /// The bulk service while one is offered. Outside the service's own lock.
    #[pin]
    service: Mutex<Option<Arc<BulkService>>>,
}

impl Core {
    fn new(memory: &Arc<BulkMemory>, node: &Arc<Node>) -> Result<Arc<Self>> {
        // Never the value of `WireHandle::NONE`.
        let interface = misc::random_u64() >> 1;
        Arc::pin_init(
            pin_init!(Self {
                table <- new_spinlock!(MatchTable::new(), "socklnd_portals_table"),
                ops <- new_spinlock!(OpTable::new(interface), "socklnd_portals_ops"),
                router <- Router::new(),
                owed <- Owed::new(),
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
    /// `ESHUTDOWN`, `ENOMEM`; `EINVAL` if there is no such portal; `ENOSPC` if there are too many.
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

    /// Unlinks a match entry, if it is there. A message that matched before goes on. Thread context.
    pub(crate) fn unlink(&self, me: MeHandle) {
        let unlinked = self.table.lock().remove(me);
        drop(unlinked);
    }

    fn conn_ended(&self, conn: ConnId, why: Error) {
        // What the connection failed with is no matter of who waits for an answer.
        let why = if why == ESHUTDOWN { why } else { ECONNRESET };
        let mut at = 0;
        loop {
            let op = self.ops.lock().next_lost(&mut at, conn);
            let Some(op) = op else { break };
            op.finish(Err(why));
        }
    }

    /// A peer of the interface `own` is there, or could not be reached: it may be a gateway.
    fn peer_found(&self, own: Nid, peer: Nid, state: PeerState) {
        if self.router.found(peer, state == PeerState::Up) {
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
            let op = self.ops.lock().close(&mut at);
            let Some(op) = op else { break };
            op.finish(Err(ESHUTDOWN));
        }
        let service = self.service.lock().clone();
        if let Some(service) = service {
            service.stop(self);
        }
        loop {
            let unlinked = self.table.lock().close();
            if unlinked.is_none() {
                break;
            }
        }
    }
}

/// The built-in message layer of one interface.
pub(crate) struct Portals {
    core: Arc<Core>,
}

impl Portals {
    /// The message layer of one interface of `node`. It answers pings from the start. Sessions of its bulk
    /// service take their memory from what the module has for all. May sleep.
    fn new(memory: &Arc<BulkMemory>, node: &Arc<Node>) -> Result<Arc<Self>> {
        let core = Core::new(memory, node)?;
        ping::serve(&core)?;
        Ok(Arc::new(Self { core }, GFP_KERNEL)?)
    }
}

impl MessageLayer for Portals {
    fn started(&self, ni: NiRef<'_>) -> Result {
        self.core.node.add(ni, &self.core)
    }

    fn parse(&self, ni: NiRef<'_>, msg: &Incoming<'_>, token: RecvToken<'_>) -> Result<Answer> {
        let core = &self.core;
        Ok(match msg.header {
            Ok(header) if header.src == msg.via && header.dest == ni.nid() => {
                token.deliver(core.parse(ni, msg, header))
            }
            Ok(header) => core.parse_routed(ni, msg, header, token),
            Err(foreign) => core.refuse(ni, msg.via, foreign, token),
        })
    }

    fn peer_down(&self, ni: NiRef<'_>, peer: Nid, loss: Loss, _last_alive_ms: u64) {
        if loss == Loss::Failed {
            // First of all: who is told now of a loss and tries again does so by another gateway.
            self.peer_found(ni, peer, PeerState::Down);
        }
        self.core.peer_down(peer);
    }

    fn conn_ended(&self, conn: ConnId, why: Error) {
        self.core.conn_ended(conn, why);
    }

    fn peer_found(&self, ni: NiRef<'_>, peer: Nid, state: PeerState) {
        self.core.peer_found(ni.nid(), peer, state);
    }

    fn link_changed(&self, ni: NiRef<'_>, link: Link) {
        let state = match link {
            Link::Up => "up",
            Link::Down => "down",
        };
        pr_info_ratelimited!("{}: its link is {state}\n", ni.nid());
    }

    fn shutdown(&self, ni: NiRef<'_>) {
        self.core.node.remove(ni.nid());
        self.core.shutdown();
    }
}

impl Drop for Portals {
    fn drop(&mut self) {
        // An interface that failed to start was never shut down.
        self.core.shutdown();
    }
}
