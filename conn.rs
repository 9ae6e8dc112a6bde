// SPDX-License-Identifier: GPL-2.0

//! Connections: one TCP stream each between this node and a peer.
//!
//! A [`Conn`] is created when a handshake has succeeded, and admitted to its peer. It ends in three steps.
//! [`Conn::begin_close`], under the peer's lock, marks it closed, so that no more transmits are queued, and
//! passes it to the reaper; the caller has taken it out of the peer's list. [`Conn::terminate`], in the
//! reaper's thread, removes the socket's callbacks, completes all transmits with an error and closes the
//! socket. Dropping the last [`Arc`] frees it, in any thread: packets may refer to messages that were sent
//! without a copy long after the socket was closed, see [`zerocopy`]. Code that waits for connections to
//! end waits for their termination, and not for that.
//!
//! Protection: the state that only the thread doing I/O uses is in [`Io`], behind a mutex, which is the
//! outermost lock of the hot path. The scheduler and the reaper take it, and so do threads that read or set
//! socket options. The queue of transmits and acknowledgements has a spinlock of its own, taken inside the
//! peer's. The rest is atomic or constant. The socket's callbacks touch only [`Readiness`] and the
//! scheduler's mailbox.

mod close;
mod deadlines;
mod ended;
mod handshake;
mod handshakes;
mod info;
mod loss;
mod reason;
mod receive;
mod rx;
mod tx;
mod tx_queue;
mod upcall;
mod zerocopy;

use crate::{
    fault::Stall,
    lib_linux::{
        iov::BvecBuf,
        misc,
        queue::Fifo,
        socket::{
            HookedSocket,
            Socket,
            SocketEvents,
            ZcDone,
            ZcUbuf, //
        },
        time, //
    },
    peer::{
        Peer,
        StrangerSlot, //
    },
    sched::{
        self,
        Assignment,
        Readiness,
        SCHED_LIST, //
    },
    stats::{
        Account,
        Counter,
        Gauge,
        LiveGuard,
        Traffic, //
    },
    trace::{
        self,
        Side,
        TracedConn, //
    },
    tunables,
    tx::Tx,
    upper::Failure,
    wire::{
        Acks,
        ConnType,
        Hello,
        Proto, //
    }, //
};
use core::net::SocketAddr;
use kernel::{
    list::{
        impl_list_arc_safe,
        impl_list_item,
        AtomicTracker,
        ListLinks,
        TryNewListArc, //
    },
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        new_spinlock,
        Arc,
        ArcBorrow,
        Mutex,
        MutexGuard,
        SpinLock, //
    }, //
};

use deadlines::Deadlines;
pub(crate) use deadlines::{
    DeadlineCheck,
    TimeoutKind, //
};
use ended::Ended;
pub(crate) use handshake::{
    Handshake,
    HANDOVER_LIST,
    HANDSHAKE_LIST, //
};
pub(crate) use handshakes::HandshakeTable;
use receive::Parked;
pub(crate) use rx::MsgOrigin;

use reason::Reason;
pub(crate) use reason::{
    Doubt,
    StrangerLimit, //
};
use tx_queue::TxQueue;
pub(crate) use zerocopy::ZcBatch;

/// The ID of a connection's links in the deathrow.
pub(crate) const DEATHROW_LIST: u64 = 2;

/// The ID of a connection's links in the reaper's list of connections that wait for memory.
pub(crate) const ENOMEM_LIST: u64 = 3;

/// Fragments that one call of TCP can take: a message of the largest size with its header, and some
/// small ones.
const TX_FRAGS: usize = 320;

/// Fragments of one receive call: the payload of the largest message, at any offset, and the header of
/// the next.
const RX_FRAGS: usize = 260;

/// Bytes that a connection may send, and receive, in one turn. Then it goes to the end of its scheduler's
/// queue.
const QUANTUM: usize = 1 << 20;

/// The schedulers of connections.
pub(crate) type Sched = sched::Sched<Conn>;

/// One TCP stream to a peer.
#[pin_data]
pub(crate) struct Conn {
    peer: Arc<Peer>,
    sched: Assignment<Conn>,
    kind: ConnType,
    proto: Proto,
    /// Whether this node opened it, or the peer.
    side: Side,
    local: SocketAddr,
    remote: SocketAddr,
    /// The peer's incarnation.
    incarnation: u64,
    born_ms: u64,
    ready: Readiness,
    #[pin]
    io: Mutex<Io>,
    #[pin]
    txq: SpinLock<TxQueue>,
    /// The delivery of a payload, if the message layer kept the receive token. Innermost lock.
    #[pin]
    parked: SpinLock<Parked>,
    /// It is closed: nothing is sent or received any more. Written with the lock of `txq` held.
    closing: Atomic<bool>,
    /// Bytes queued and not yet accepted by TCP.
    queued: Atomic<u64>,
    /// Bytes that TCP held when the scheduler last looked.
    wmem: Atomic<u64>,
    /// Batches of transmits sent without a copy that are not complete.
    zc_batches: Atomic<i64>,
    /// The next turn is to send a TCP keepalive probe.
    probe_wanted: Atomic<bool>,
    traffic: Arc<Traffic>,
    /// How often the send buffer was full.
    full: Counter,
    /// How often the socket had no memory.
    enomem: Counter,
    /// INVARIANT: Only ever used for the mailbox of `sched`.
    #[pin]
    sched_links: ListLinks<SCHED_LIST>,
    #[pin]
    sched_tracker: AtomicTracker<SCHED_LIST>,
    /// INVARIANT: Only ever used for the reaper's deathrow.
    #[pin]
    deathrow_links: ListLinks<DEATHROW_LIST>,
    #[pin]
    deathrow_tracker: AtomicTracker<DEATHROW_LIST>,
    /// INVARIANT: Only ever used for the reaper's ENOMEM list.
    #[pin]
    enomem_links: ListLinks<ENOMEM_LIST>,
    #[pin]
    enomem_tracker: AtomicTracker<ENOMEM_LIST>,
    /// Present if the peer is a stranger.
    _stranger_slot: Option<StrangerSlot>,
}

impl_list_arc_safe! {
    impl ListArcSafe<SCHED_LIST> for Conn { tracked_by sched_tracker: AtomicTracker<SCHED_LIST>; }
    impl ListArcSafe<DEATHROW_LIST> for Conn { tracked_by deathrow_tracker: AtomicTracker<DEATHROW_LIST>; }
    impl ListArcSafe<ENOMEM_LIST> for Conn { tracked_by enomem_tracker: AtomicTracker<ENOMEM_LIST>; }
}
impl_list_item! {
    impl ListItem<SCHED_LIST> for Conn { using ListLinks { self.sched_links }; }
    impl ListItem<DEATHROW_LIST> for Conn { using ListLinks { self.deathrow_links }; }
    impl ListItem<ENOMEM_LIST> for Conn { using ListLinks { self.enomem_links }; }
}

/// The state of the thread that does I/O.
struct Io {
    /// `None` before the handshake is over, and again once terminated.
    socket: Option<HookedSocket<Conn>>,
    rx: rx::Rx,
    /// Transmits to complete when the mutex is unlocked.
    ended: Ended,
    /// Transmits in the order in which they are sent; a part of the first may have been sent.
    out: Fifo<Tx>,
    /// For sending without a copy. INVARIANT: If TCP has a part of the first of `out` without a copy, the
    /// packets refer to this.
    zc: Option<ZcUbuf<ZcBatch>>,
    deadlines: Deadlines,
    stall: Stall,
    /// `None` once terminated.
    account: Option<Account>,
    /// `None` once terminated.
    live: Option<LiveGuard>,
}

/// Memory for the lists of pieces that a turn of I/O hands to TCP.
pub(crate) struct Lists {
    tx: BvecBuf,
    rx: BvecBuf,
}

/// How a turn of I/O in one direction ended.
enum Turn {
    /// There is nothing to do until the next event.
    Idle,
    /// The quantum is used up; there may be more to do.
    More,
    /// The send buffer is full.
    Full,
    /// The socket had no memory. No event reports that there is memory again.
    NoMemory,
}

impl Conn {
    /// A connection to `peer`, which has sent `hello`. It is not yet admitted, has no socket, and does not
    /// run before [`Conn::start`]. May sleep.
    pub(crate) fn new(
        peer: &Arc<Peer>,
        sched: Arc<Sched>,
        socket: &Socket,
        kind: ConnType,
        side: Side,
        hello: &Hello,
        stranger_slot: Option<StrangerSlot>,
    ) -> Result<Arc<Self>> {
        let now = time::monotonic_ms();
        let traffic = Arc::new(Traffic::new(), GFP_KERNEL)?;
        let io = Io {
            socket: None,
            rx: rx::Rx::new(hello.proto, hello.order)?,
            ended: Ended::new(),
            out: Fifo::new(),
            zc: None,
            deadlines: Deadlines {
                tx_ms: now,
                rx_ms: now,
                wmem_mark: 0,
            },
            stall: Stall::new(),
            account: Some(peer.account(&traffic)?),
            live: Some(Gauge::enter(peer.ni().live().conns())),
        };
        let local = socket.local_addr()?;
        let remote = socket.peer_addr()?;
        Arc::pin_init(
            pin_init!(Self {
                peer: peer.clone(),
                sched: Assignment::new(sched),
                kind,
                proto: hello.proto,
                side,
                local,
                remote,
                incarnation: hello.incarnation,
                born_ms: now,
                ready: Readiness::new_held(),
                io <- new_mutex!(io, "socklnd_conn_io"),
                txq <- new_spinlock!(
                    TxQueue {
                        fifo: Fifo::new(),
                        acks: Acks::new(),
                        acks_wanted: false,
                        ping: false,
                        peak: 0,
                        closed: None,
                    },
                    "socklnd_conn_txq"
                ),
                parked <- new_spinlock!(Parked::Waits, "socklnd_conn_parked"),
                closing: Atomic::new(false),
                queued: Atomic::new(0),
                wmem: Atomic::new(0),
                zc_batches: Atomic::new(0),
                probe_wanted: Atomic::new(false),
                traffic,
                full: Counter::new(),
                enomem: Counter::new(),
                sched_links <- ListLinks::new(),
                sched_tracker <- AtomicTracker::new(),
                deathrow_links <- ListLinks::new(),
                deathrow_tracker <- AtomicTracker::new(),
                enomem_links <- ListLinks::new(),
                enomem_tracker <- AtomicTracker::new(),
                _stranger_slot: stranger_slot,
            }),
            GFP_KERNEL,
        )
    }

    /// Takes the socket and passes the connection to its scheduler. May sleep.
    pub(crate) fn start(self: &Arc<Self>, socket: Socket) {
        let hooked = socket.hook(self.clone());
        let mut io = self.io.lock();
        // If the connection was closed meanwhile, the reaper either takes the socket from here, or has
        // terminated the connection already.
        let closed = self.txq.lock().closed.is_some();
        if !closed {
            // Tunables that changed during the handshake were not applied to this connection.
            let _ = apply_tunables(&hooked, self.peer.ni().tos());
            io.socket = Some(hooked);
            drop(io);
            trace::connect(|| self.traced(), 0, None);
            if self.ready.release() {
                self.sched.enqueue(self.clone());
            }
        }
    }

    /// Makes TCP send data that it holds back. May sleep.
    pub(crate) fn push(&self) {
        self.with_socket(Socket::push);
    }

    /// Applies the tunables that may change during a connection's life. May sleep.
    pub(crate) fn apply_tunables(&self) -> Result {
        self.with_socket(|socket| apply_tunables(socket, self.peer.ni().tos()))
            .unwrap_or(Ok(()))
    }

    /// Calls `look` with the connection's socket, if it has one. May sleep.
    pub(crate) fn with_socket<R>(&self, look: impl FnOnce(&Socket) -> R) -> Option<R> {
        let io = self.io.lock();
        io.socket.as_ref().map(|socket| look(socket))
    }

    /// Queues it to its scheduler again, after it had no memory or was held back. Thread context.
    pub(crate) fn retry(self: Arc<Self>) {
        // Not `event`, which relies on the socket's lock; that is not held here.
        if self.ready.request_retry() {
            let sched = self.sched.clone();
            sched.enqueue(self);
        }
    }

    /// Unlocks the I/O mutex, and completes the transmits that ended while it was held. Thread context.
    fn unlock(&self, mut io: MutexGuard<'_, Io>) {
        let ended = io.ended.take();
        drop(io);
        if let Some(ended) = ended {
            ended.finish(|txs, why| self.peer.fail_txs(txs, why));
        }
    }

    /// The reason for which it is closed, if it is. Thread context.
    fn close_reason(&self) -> Option<Failure> {
        self.txq.lock().closed
    }

    /// The reason for which the connection has ended, if it has. Thread context, may sleep.
    fn failure(&self) -> Option<Failure> {
        // The socket first: it is taken out after `closed` was set, so if there is no socket there is a
        // reason in `closed`.
        let failed = {
            let io = self.io.lock();
            io.socket.as_ref().and_then(|socket| socket.failure())
        };
        let closed = self.txq.lock().closed;
        closed.or(failed.map(Failure::of_socket))
    }

    /// All of `tx` was sent, and TCP does not need its pages any more: it is complete, unless the peer has yet
    /// to acknowledge it. Thread context, no spinlock held.
    fn tx_released(&self, tx: KBox<Tx>, ended: &mut Ended) {
        misc::assert_may_sleep();
        if tx.cookie() == 0 {
            return ended.sent().push_back(tx);
        }
        let Some(tx) = self.peer.zc_req_released(tx) else {
            return;
        };
        // Either the peer has acknowledged it, or this connection has ended.
        let closed = self.txq.lock().closed;
        match closed {
            None => ended.sent().push_back(tx),
            Some(why) => ended.fail(tx, why),
        }
    }

    /// For tracepoints.
    fn traced(&self) -> TracedConn {
        let (nid, peer) = (self.peer.ni().nid(), self.peer.nid());
        TracedConn::new(nid, peer, self.local, self.remote, self.kind)
    }

    fn event(this: ArcBorrow<'_, Self>, events: u32) {
        if this.ready.event(events) {
            this.sched.enqueue(this.into());
        }
    }
}

/// Applies the tunables for a connection's socket. May sleep.
fn apply_tunables(socket: &Socket, tos: Option<u8>) -> Result {
    socket.set_nodelay(!tunables::use_nagle());
    let (tx, rx) = tunables::buffer_sizes();
    socket.set_buffers(tx, rx);
    if let Some(tos) = tos {
        socket.set_tos(tos);
    }
    let (idle, interval, count) = tunables::tcp_keepalive();
    socket.set_keepalive(idle, interval, count)
}

impl Io {
    /// Whether something is under way, given that TCP's send buffer has `wmem` bytes.
    fn is_busy(&self, wmem: usize) -> bool {
        wmem > 0 || !self.out.is_empty() || self.rx.is_started()
    }
}

impl sched::Serve for Conn {
    type ZcBatch = ZcBatch;
    type Scratch = Lists;

    fn scratch() -> Result<Lists> {
        Ok(Lists {
            tx: BvecBuf::with_capacity(TX_FRAGS)?,
            rx: BvecBuf::with_capacity(RX_FRAGS)?,
        })
    }

    /// One turn of the scheduler's thread: sends and receives what is possible, up to the quantum.
    fn run(self: Arc<Self>, lists: &mut Lists) {
        let events = self.ready.take();
        let mut again = 0;
        let mut failure = None;
        let mut io = self.io.lock();
        if self.probe_wanted.load(Relaxed) && self.probe_wanted.xchg(false, Relaxed) {
            if let Some(socket) = &io.socket {
                socket.send_ack();
            }
        }
        let events = if self.is_closing() { 0 } else { events };
        let admitted = io.stall.admit(events, time::monotonic_ms);
        let held_back = admitted != events;
        if held_back {
            self.peer.ni().context().wake_later();
        }
        let events = admitted;
        if events & Readiness::TX != 0 {
            match self.transmit(&mut io, &mut lists.tx) {
                Ok(Turn::Idle) => {}
                Ok(Turn::More) => again |= Readiness::TX,
                Ok(Turn::Full) => {
                    self.full.add(1);
                    again |= Readiness::FULL;
                }
                Ok(Turn::NoMemory) => {
                    self.enomem.add(1);
                    self.peer.count(1, |events| &events.enomem);
                    self.peer.ni().context().retry(self.clone());
                }
                Err(e) => failure = Some(e.into()),
            }
        }
        if events & Readiness::RX != 0 && failure.is_none() {
            let turn;
            (io, turn) = self.receive(io, &mut lists.rx);
            match turn {
                Ok(Turn::More) => again |= Readiness::RX,
                Ok(_) => {}
                Err(e) => failure = Some(e),
            }
        }
        if let Some(socket) = &io.socket {
            let wmem = socket.wmem_queued();
            self.wmem.store(wmem as u64, Relaxed);
            // With the mutex held, see `Peer::check_timeouts`.
            if held_back || io.is_busy(wmem) {
                self.peer.mark_busy();
            }
        }
        self.unlock(io);
        if let Some(why) = failure {
            self.fail(why);
        }
        if self.ready.finish(again) {
            let sched = self.sched.clone();
            sched.enqueue(self);
        }
    }

    fn finish(returned: KBox<ZcDone<ZcBatch>>) {
        ZcBatch::finish(returned);
    }
}

impl SocketEvents for Conn {
    fn data_ready(this: ArcBorrow<'_, Self>) {
        Self::event(this, Readiness::RX);
    }

    fn write_space(this: ArcBorrow<'_, Self>) {
        Self::event(this, Readiness::TX);
    }

    fn state_change(this: ArcBorrow<'_, Self>) {
        // A read returns the error or the end of the stream.
        Self::event(this, Readiness::RX);
    }
}
