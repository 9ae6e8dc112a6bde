// SPDX-License-Identifier: GPL-2.0

//! The message layer: the boundary to it, and the one that is built in.
//!
//! The driver below hands every header that it has read to a [`MessageLayer`], which says where the
//! payload goes. The built-in one, [`Portals`], does what Portals and LNet do: others write into and
//! read from memory that is found by match entries in a table of portals; PUTs are acknowledged and
//! GETs are replied to; and this node does the same to others. Those in other networks are reached
//! through gateways, see [`router`]. On top of that it answers LNet's ping, and can offer a service
//! for moving bulk data to and fro.
//!
//! # Lifetime and locks
//!
//! A [`Portals`] belongs to one interface instance. What it does goes through [`Core`], which is
//! shared with everything that is under way: a completion of a transmit or of a received payload
//! holds a reference, but the core holds none to them, nor to the interface. So there is no cycle,
//! and the last one to end frees it. [`MessageLayer::shutdown`] ends all operations and empties the
//! table; memory that a message is being received into lives until that has ended too.
//!
//! The table of match entries, the table of operations, the router's table and the counts of answers
//! owed each have a spinlock, taken in thread context only. They are never taken together, and nothing
//! is sent, completed or freed under them. Inside the locks of the driver they are the innermost ones.

pub(crate) mod bulk;
mod handle;
mod incoming;
mod md;
mod op;
mod outgoing;
mod owed;
pub(crate) mod ping;
pub(crate) mod router;
mod table;

use self::{
    bulk::{
        BulkMemory,
        BulkResult,
        BulkService,
        BulkSpec,
        Service, //
    },
    md::Md,
    op::OpTable,
    owed::Owed,
    ping::PingReport,
    router::{
        NetRoute,
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
    fwd,
    lib_linux::{
        misc,
        ratelimit::pr_info_ratelimited, //
    },
    ni::Ni,
    stats::Counter,
    upper::{
        Answer,
        Completion,
        ConnId,
        Delivery,
        Incoming,
        Loss,
        RecvToken,
        Status,
        Until, //
    },
    wire::{
        Header,
        Nid, //
    },
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

/// What the driver needs from the layer above it.
///
/// All are called in thread context.
pub(crate) trait MessageLayer: Send + Sync {
    /// A message has begun to come in: says where its payload goes, or keeps the token and says it later.
    ///
    /// No lock is held that sending or receiving takes: may sleep and send; but the connection's scheduler
    /// waits. An error closes the connection.
    fn parse(&self, ni: &Arc<Ni>, msg: &Incoming<'_>, token: RecvToken<'_>) -> Result<Answer>;

    /// The last connection of `peer` that could carry messages is gone. It was alive at
    /// `last_alive_ms`, in monotonic milliseconds. Called once for each time that this happens.
    fn peer_down(&self, ni: &Arc<Ni>, peer: Nid, loss: Loss, last_alive_ms: u64);

    /// The connection `conn` has ended because of `why`; all messages that went by it were completed
    /// before. An answer to one of them will hardly come any more. Called at least once for each.
    fn conn_ended(&self, conn: ConnId, why: Error);

    /// There is a connection for messages to `peer`, or there is none, and none could be made. May be
    /// told again and again.
    fn peer_found(&self, ni: &Arc<Ni>, peer: Nid, alive: bool);

    /// Through which node of the interface's own network the next message to network `target` goes,
    /// if there is one that lives.
    fn gateway(&self, target: u16) -> Option<Nid>;

    /// Whether `peer` may pass on messages from network `source`.
    fn is_gateway(&self, peer: Nid, source: u16) -> bool;

    /// The next gateway that was lost, counted from `at` on, which moves behind it.
    fn lost_gateway(&self, at: &mut usize) -> Option<Nid>;

    /// The interface goes away: all that waits on it ends with `ESHUTDOWN`, and nothing new begins.
    fn shutdown(&self, ni: &Arc<Ni>);
}

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
    memory: Arc<BulkMemory>,
    /// The bulk service while one is offered. Outside the service's own lock.
    #[pin]
    service: Mutex<Option<Arc<BulkService>>>,
}

impl Core {
    fn new(memory: &Arc<BulkMemory>) -> Result<Arc<Self>> {
        // Never the value of `WireHandle::NONE`.
        let interface = misc::random_u64() >> 1;
        Arc::pin_init(
            pin_init!(Self {
                table <- new_spinlock!(MatchTable::new(), "socklnd_portals_table"),
                ops <- new_spinlock!(OpTable::new(interface), "socklnd_portals_ops"),
                router <- Router::new(),
                owed <- Owed::new(),
                counters: Counters {
                    puts: Counter::new(),
                    gets: Counter::new(),
                    acks: Counter::new(),
                    replies: Counter::new(),
                    drops: Counter::new(),
                    unwanted: Counter::new(),
                    unanswered: Counter::new(),
                },
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
    /// The message layer of one interface. It answers pings from the start. Sessions of its bulk service
    /// take their memory from what the module has for all. May sleep.
    pub(crate) fn new(memory: &Arc<BulkMemory>) -> Result<Arc<Self>> {
        let core = Core::new(memory)?;
        ping::serve(&core)?;
        Ok(Arc::new(Self { core }, GFP_KERNEL)?)
    }

    /// What became of the messages so far.
    pub(crate) fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// The routes to other networks.
    pub(crate) fn router(&self) -> &Router {
        &self.core.router
    }

    /// Asks `to` who it is. Sleeps, but not longer than `timeout_ms`.
    ///
    /// # Errors
    ///
    /// - `ETIMEDOUT` if there was no answer in time.
    /// - `EINTR` if a signal came.
    /// - `EPROTO` if the answer makes no sense.
    /// - What [`Ni::send`] says: `EHOSTUNREACH`, `ECONNREFUSED`, `ESHUTDOWN`, ...
    pub(crate) fn ping(&self, ni: &Arc<Ni>, to: Nid, timeout_ms: u32) -> Result<PingReport> {
        ping::ping(&self.core, ni, to, timeout_ms)
    }

    /// Moves bulk data to or from a node that offers the service. Sleeps, but not longer than the
    /// time in `spec`. See [`bulk`].
    ///
    /// # Errors
    ///
    /// None once messages were sent: those that failed are in the result; except `EINTR`. Else:
    ///
    /// - `EINVAL` if `spec` makes no sense, `EMSGSIZE` if its messages are too long.
    /// - `EBUSY` if the peer can't serve this now.
    /// - `EPROTO` if its answer makes no sense.
    /// - The errors of [`Portals::ping`]. A node that does not offer the service does not answer.
    pub(crate) fn run_bulk(&self, ni: &Arc<Ni>, spec: &BulkSpec) -> Result<BulkResult> {
        bulk::run(&self.core, ni, spec)
    }

    /// Offers the bulk service until the guard is dropped. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is offered already, `ESHUTDOWN`, `ENOMEM`, `ENOSPC`.
    pub(crate) fn start_service(&self) -> Result<Service> {
        Service::start(&self.core)
    }
}

impl Portals {
    /// A message that a gateway has passed on, or that is for another node. Not inlined: what is neither
    /// needs less of the stack.
    #[inline(never)]
    fn parse_routed(
        &self,
        ni: &Arc<Ni>,
        msg: &Incoming<'_>,
        header: &Header,
        token: RecvToken<'_>,
    ) -> Answer {
        match fwd::dispatch(ni, msg.via, msg.addr, header) {
            Ok(None) => token.deliver(self.core.parse(ni, msg.via, header)),
            Ok(Some(onwards)) => token.wait(onwards, Until::Arrived),
            Err(why) => {
                why.counter(ni.events()).add(1);
                why.log(ni, msg.via, header);
                token.deliver(Delivery::Misrouted)
            }
        }
    }
}

impl MessageLayer for Portals {
    fn parse(&self, ni: &Arc<Ni>, msg: &Incoming<'_>, token: RecvToken<'_>) -> Result<Answer> {
        Ok(match msg.header {
            Ok(header) if header.src == msg.via && header.dest == ni.nid() => {
                token.deliver(self.core.parse(ni, msg.via, header))
            }
            Ok(header) => self.parse_routed(ni, msg, header, token),
            Err(foreign) => {
                let why = fwd::refuse(ni, msg.via, foreign);
                why.counter(ni.events()).add(1);
                token.deliver(Delivery::Misrouted)
            }
        })
    }

    fn peer_down(&self, ni: &Arc<Ni>, peer: Nid, loss: Loss, _last_alive_ms: u64) {
        if loss == Loss::Failed {
            // First of all: who is told now of a loss and tries again does so by another gateway.
            self.peer_found(ni, peer, false);
        }
        self.core.peer_down(peer);
    }

    fn conn_ended(&self, conn: ConnId, why: Error) {
        self.core.conn_ended(conn, why);
    }

    fn peer_found(&self, ni: &Arc<Ni>, peer: Nid, alive: bool) {
        if self.core.router.found(peer, alive) {
            let state = if alive { "up" } else { "down" };
            pr_info_ratelimited!("{}: gateway {} is {}\n", ni.nid(), peer, state);
        }
    }

    fn gateway(&self, target: u16) -> Option<Nid> {
        self.core.router.choose(target)
    }

    fn is_gateway(&self, peer: Nid, source: u16) -> bool {
        let matching = |route: &NetRoute| route.gateway == peer && route.target == source;
        self.core.router.any(matching)
    }

    fn lost_gateway(&self, at: &mut usize) -> Option<Nid> {
        self.core.router.next_down(at)
    }

    fn shutdown(&self, _ni: &Arc<Ni>) {
        self.core.shutdown();
    }
}

impl Drop for Portals {
    fn drop(&mut self) {
        // An interface that failed to start was never shut down.
        self.core.shutdown();
    }
}
