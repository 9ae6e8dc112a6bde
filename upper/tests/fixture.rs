// SPDX-License-Identifier: GPL-2.0

//! What the tests of the boundary share: a message layer that answers late, and an NI with it, to which the test
//! is connected as a peer.
//!
//! What a test waits for is in a [`Slot`], which a mutex of its own protects. The test's thread owns the
//! NI; a [`Fixture`] shuts it down when it is dropped.

use super::super::*;
use crate::{
    conn::Conn,
    lib_linux::{
        misc,
        page::{
            Kind,
            PageRange,
            Pages,
            Scattered, //
        },
        socket::{
            tests::{
                eventually,
                pair,
                settled, //
            },
            Socket, //
        }, //
    },
    ni::Ni,
    trace::Side,
    wire::{
        Body,
        ByteOrder,
        ConnType,
        Hello,
        IpVec,
        Msg,
        MsgKind,
        Proto,
        WireHandle,
        HEADER_LEN,
        MAX_HDR,
        PID_LUSTRE, //
    },
    Lnd,
    LND, //
};
use kernel::{
    new_condvar,
    new_mutex,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        CondVar,
        Mutex, //
    },
    time::msecs_to_jiffies, //
};

/// A network without other NIs.
pub(super) const NETWORK: u16 = 4712;

/// The longest wait for an event that must come, on any machine.
const PATIENCE_MS: u32 = 60_000;

/// Bytes of a payload: more than a page, and not a multiple of anything.
pub(super) const LEN: usize = 5003;

/// A queue from one thread to another.
#[pin_data]
pub(super) struct Slot<T> {
    #[pin]
    values: Mutex<KVec<T>>,
    #[pin]
    filled: CondVar,
}

impl<T> Slot<T> {
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                values <- new_mutex!(KVec::new()),
                filled <- new_condvar!(),
            }),
            GFP_KERNEL,
        )
    }

    pub(super) fn put(&self, value: T) {
        let _ = self.values.lock().push(value, GFP_KERNEL);
        self.filled.notify_all();
    }

    /// The oldest value; `ETIMEDOUT` if there is none for long.
    pub(super) fn take(&self) -> Result<T> {
        let mut values = self.values.lock();
        let mut left = msecs_to_jiffies(PATIENCE_MS);
        while values.is_empty() {
            if left == 0 {
                return Err(ETIMEDOUT);
            }
            left = match self.filled.wait_interruptible_timeout(&mut values, left) {
                kernel::sync::CondVarTimeoutResult::Woken { jiffies } => jiffies,
                kernel::sync::CondVarTimeoutResult::Signal { jiffies } => jiffies,
                kernel::sync::CondVarTimeoutResult::Timeout => 0,
            };
        }
        Ok(values.remove(0)?)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.lock().is_empty()
    }
}

/// Puts the status of a message into a slot.
pub(super) struct Told(Arc<Slot<Status>>);

impl Told {
    pub(super) fn new(slot: &Arc<Slot<Status>>) -> Result<KBox<dyn Completion>> {
        Ok(KBox::new(Self(slot.clone()), GFP_KERNEL)?)
    }
}

impl Completion for Told {
    fn complete(self: KBox<Self>, status: Status) {
        misc::assert_may_sleep();
        self.0.put(status);
    }
}

/// How a layer answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It keeps the token.
    Keeps,
    /// It returns a waiter, which is asked first when the payload is there, then when it is woken.
    Waits,
}

/// A layer that leaves all answers to the test's thread.
pub(super) struct Late {
    manner: Manner,
    /// How many connections for bulk it wants; 0 is whatever the driver wants.
    pub(super) conns: Atomic<u32>,
    /// The headers of all messages.
    pub(super) seen: Arc<Slot<RawHeader>>,
    pub(super) kept: Arc<Slot<KeptToken>>,
    pub(super) asked: Arc<Slot<(Arrived, Arc<dyn Receiving>)>>,
    /// The answers of waiters that were woken.
    pub(super) deliveries: Arc<Slot<Delivery>>,
    pub(super) ended: Arc<Slot<ConnId>>,
    /// A waiter was dropped.
    pub(super) gone: Arc<Slot<()>>,
}

impl Late {
    pub(super) fn new(manner: Manner) -> Result<Arc<Self>> {
        let this = Self {
            manner,
            conns: Atomic::new(0),
            seen: Slot::new()?,
            kept: Slot::new()?,
            asked: Slot::new()?,
            deliveries: Slot::new()?,
            ended: Slot::new()?,
            gone: Slot::new()?,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }
}

impl MessageLayer for Late {
    fn started(&self, _ni: NiRef<'_>) -> Result {
        Ok(())
    }

    fn parse(&self, _ni: NiRef<'_>, msg: &Incoming<'_>, token: RecvToken<'_>) -> Result<Answer> {
        self.seen.put(msg.raw_header()?);
        Ok(match self.manner {
            Manner::Keeps => {
                let (answer, kept) = token.keep();
                self.kept.put(kept);
                answer
            }
            Manner::Waits => {
                let waiter = TestWaiter {
                    asked: self.asked.clone(),
                    deliveries: self.deliveries.clone(),
                    gone: self.gone.clone(),
                };
                token.wait(KBox::new(waiter, GFP_KERNEL)?, Until::Arrived)
            }
        })
    }

    fn peer_down(&self, _ni: NiRef<'_>, _peer: Nid, _loss: Loss, _last_alive_ms: u64) {}

    fn conn_ended(&self, conn: ConnId, _why: Error) {
        self.ended.put(conn);
    }

    fn peer_found(&self, _ni: NiRef<'_>, _peer: Nid, _state: PeerState) {}

    fn tunables(&self) -> NiTunables {
        NiTunables {
            conns_per_peer: Some(self.conns.load(Relaxed)).filter(|conns| *conns > 0),
            tos: Some(8),
        }
    }

    fn shutdown(&self, _ni: NiRef<'_>) {}
}

struct TestWaiter {
    asked: Arc<Slot<(Arrived, Arc<dyn Receiving>)>>,
    deliveries: Arc<Slot<Delivery>>,
    gone: Arc<Slot<()>>,
}

impl Drop for TestWaiter {
    fn drop(&mut self) {
        self.gone.put(());
    }
}

impl Waiter for TestWaiter {
    fn ask(self: KBox<Self>, arrived: Arrived, token: RecvToken<'_>) -> Answer {
        if self.deliveries.is_empty() {
            self.asked.put((arrived, token.conn().into()));
            return token.wait(self, Until::Woken);
        }
        let delivery = self.deliveries.take().unwrap_or(Delivery::Discard);
        token.deliver(delivery)
    }
}

/// An NI with the layer that is tested, and a connection from a peer, whose end the test has.
pub(super) struct Fixture {
    lnd: Arc<Lnd>,
    pub(super) net: Net,
    pub(super) target: Nid,
    pub(super) sender: Nid,
    socket: Socket,
}

impl Fixture {
    /// `last` is the last byte of the addresses, another one for each test.
    pub(super) fn new(layer: &Arc<Late>, last: u8) -> Result<Self> {
        let lnd = LND.get().ok_or(ENODEV)?;
        let (socket, ours) = pair()?;
        let this = Self {
            lnd,
            net: Net::current(),
            target: Nid::tcp(NETWORK, [127, 0, 77, last]),
            sender: Nid::tcp(NETWORK, [10, 77, 0, last]),
            socket,
        };
        this.driver().start(&this.net, this.target, layer.clone())?;
        misc::memalloc_nofs(|| this.connect(ours))?;
        Ok(this)
    }

    /// Adds a connection, as a handshake does.
    fn connect(&self, socket: Socket) -> Result {
        let ni = self.ni()?;
        let peer = ni.peers().find_or_create(&ni, self.sender)?;
        let hello = Hello {
            proto: Proto::V1,
            order: ByteOrder::Little,
            src: self.sender,
            dest: None,
            src_pid: PID_LUSTRE,
            dest_pid: PID_LUSTRE,
            incarnation: 1,
            kind: Some(ConnType::Any),
            ips: IpVec::new(),
        };
        let sched = ni.context().choose_sched(None, &|_| true)?;
        let conn = Conn::new(
            &peer,
            sched,
            &socket,
            ConnType::Any,
            Side::Passive,
            &hello,
            None,
        )?;
        peer.admit(&conn, None).map_err(|_| EBUSY)?;
        conn.start(socket);
        Ok(())
    }

    pub(super) fn ni(&self) -> Result<Arc<Ni>> {
        self.lnd.find_ni(&self.net, Some(self.target)).ok_or(ENOENT)
    }

    fn header(&self, src: Nid) -> Header {
        Header {
            dest: self.target,
            src,
            dest_pid: PID_LUSTRE,
            src_pid: PID_LUSTRE,
            payload_len: LEN as u32,
            body: Body::Reply {
                dst_wmd: WireHandle::NONE,
            },
        }
    }

    /// This node sends a payload to `to`.
    pub(super) fn send_to(
        &self,
        to: Nid,
        payload: impl Into<Payload>,
        sent: &Arc<Slot<Status>>,
    ) -> Result {
        let mut header = self.header(self.target);
        header.dest = to;
        self.send_as(to, SentHeader::Parsed(&header), payload, sent)
    }

    /// This node sends a message to `to`.
    pub(super) fn send_as(
        &self,
        to: Nid,
        header: SentHeader<'_>,
        payload: impl Into<Payload>,
        sent: &Arc<Slot<Status>>,
    ) -> Result {
        let (ni, done) = (self.ni()?, Told::new(sent)?);
        let cause = Cause::of_header(ni.nid(), to, header);
        let payload = Some(payload.into());
        LndNi::send(ni.as_arc_borrow(), to, cause, header, payload, done);
        Ok(())
    }

    /// The header of a message that a gateway to another kind of network sends, in the short form.
    pub(super) fn foreign_header(&self) -> Result<[u8; HEADER_LEN]> {
        let mut short = self.header(self.target).build()?;
        // The LND type of the source is that of InfiniBand.
        *short.get_mut(14).ok_or(EINVAL)? = 5;
        Ok(short)
    }

    /// The peer receives a message, and looks whether the payload is the one with this `seed`.
    pub(super) fn has_received(&self, seed: u64) -> Result<bool> {
        self.received(seed).map(|(_, is_intact)| is_intact)
    }

    /// As [`Fixture::has_received`]; also returns the header.
    pub(super) fn received(&self, seed: u64) -> Result<([u8; HEADER_LEN], bool)> {
        let mut bytes = KVec::from_elem(0u8, Proto::V1.hdr_len() + LEN, GFP_KERNEL)?;
        let mut rest = bytes.as_mut_slice();
        while !rest.is_empty() {
            let nob = eventually(|| settled(self.socket.recv_bytes(rest)))??;
            rest = rest.split_at_mut_checked(nob).ok_or(EPIPE)?.1;
            if nob == 0 {
                return Err(EPIPE);
            }
        }
        let pages = Pages::alloc(LEN + 13)?;
        let payload = bytes.get(Proto::V1.hdr_len()..).ok_or(EINVAL)?;
        pages.copy_in(13, payload)?;
        let header = bytes.first_chunk().ok_or(EINVAL)?;
        Ok((*header, is_intact(&pages, seed)?))
    }

    /// How many bytes were sent without a copy so far.
    pub(super) fn zc_bytes(&self) -> Result<u64> {
        Ok(self.ni()?.ledger().total().zc_bytes.get())
    }

    /// The peer sends these bytes.
    pub(super) fn send_bytes(&self, bytes: &[u8]) -> Result {
        if self.socket.send_bytes(bytes)? != bytes.len() {
            return Err(ENOBUFS);
        }
        Ok(())
    }

    /// The peer sends the header of a message.
    pub(super) fn send_header(&self) -> Result {
        let mut room = [0; MAX_HDR];
        let header = self.header(self.sender);
        self.send_bytes(Proto::V1.hdr(&Msg::new(MsgKind::Lnet), Some(&header), &mut room)?)
    }

    /// The peer sends a message whose payload depends on `seed`.
    pub(super) fn send(&self, seed: u64) -> Result {
        let pages = Pages::alloc(LEN)?;
        pages.fill_pattern(0, LEN, seed)?;
        let mut payload = KVec::from_elem(0u8, LEN, GFP_KERNEL)?;
        pages.copy_out(0, &mut payload)?;
        self.send_header()?;
        self.send_bytes(&payload)
    }

    /// Ends the connection, as if it had failed.
    pub(super) fn cut(&self) -> Result {
        let peer = self.ni()?.peers().find(self.sender);
        peer.ok_or(ENOENT)?
            .close_where(Failure::of_socket(ECONNRESET), |_| true);
        Ok(())
    }

    pub(super) fn driver(&self) -> ArcBorrow<'_, dyn Driver + 'static> {
        self.lnd.as_arc_borrow()
    }

    pub(super) fn del(&self) {
        let _ = self.driver().stop(&self.net, self.target);
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.del();
    }
}

/// Memory at an odd offset to receive into; `arrived` gets the status.
pub(super) fn sink(arrived: &Arc<Slot<Status>>) -> Result<(Arc<Pages>, Delivery)> {
    let pages = Arc::new(Pages::alloc(LEN + 13)?, GFP_KERNEL)?;
    let range = PageRange::new(pages.clone(), 13, LEN)?;
    let done = Told::new(arrived)?;
    Ok((
        pages,
        Delivery::Accept(Sink {
            memory: range.into(),
            done,
        }),
    ))
}

/// Lengths of the pieces of another owner's memory. The first makes more pieces than one call takes.
pub(super) const CUTS: [usize; 3] = [7, 1001, 4096];

/// The offset of a payload in another owner's memory.
pub(super) const SKIP: usize = 11;

/// Memory of another owner to receive into; `arrived` gets the status.
pub(super) fn foreign_sink(
    kind: Kind,
    cut: usize,
    arrived: &Arc<Slot<Status>>,
) -> Result<(Arc<Scattered>, Delivery)> {
    let memory = Scattered::new(kind, SKIP + LEN + 1, cut)?;
    let range = memory.range(SKIP, LEN)?;
    let sink = Sink {
        memory: Memory::Foreign(range),
        done: Told::new(arrived)?,
    };
    Ok((memory, Delivery::Accept(sink)))
}

/// Memory of another owner with a payload that depends on `seed`.
pub(super) fn foreign_payload(
    kind: Kind,
    cut: usize,
    seed: u64,
) -> Result<(Arc<Scattered>, Payload)> {
    let memory = Scattered::new(kind, SKIP + LEN + 1, cut)?;
    memory.fill_pattern(SKIP, LEN, seed)?;
    let range = memory.range(SKIP, LEN)?;
    Ok((memory, Memory::Foreign(range)))
}

/// Whether all of the payload with this `seed` is there.
pub(super) fn is_intact(pages: &Pages, seed: u64) -> Result<bool> {
    let sent = Pages::alloc(LEN)?;
    sent.fill_pattern(0, LEN, seed)?;
    Ok(pages.xxh64(13, LEN, 0)? == sent.xxh64(0, LEN, 0)?)
}
