// SPDX-License-Identifier: GPL-2.0

//! A message layer that answers late, from another thread, and after the connection has died; and what the
//! driver makes of that, with a peer at the other end of a TCP connection that the test plays.
//!
//! What a test waits for is in a [`Slot`], which a mutex of its own protects. The test's thread owns the
//! NI; a [`Fixture`] shuts it down when it is dropped.

use super::*;
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
    tunables,
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

/// A network that nobody else is in.
const NETWORK: u16 = 4712;

/// So long is waited for what must come, on however slow a machine.
const PATIENCE_MS: u32 = 60_000;

/// Bytes of a payload: more than a page, and not a multiple of anything.
const LEN: usize = 5003;

/// A queue of one thread's for another.
#[pin_data]
struct Slot<T> {
    #[pin]
    values: Mutex<KVec<T>>,
    #[pin]
    filled: CondVar,
}

impl<T> Slot<T> {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                values <- new_mutex!(KVec::new()),
                filled <- new_condvar!(),
            }),
            GFP_KERNEL,
        )
    }

    fn put(&self, value: T) {
        let _ = self.values.lock().push(value, GFP_KERNEL);
        self.filled.notify_all();
    }

    /// The oldest value; `ETIMEDOUT` if there is none for long.
    fn take(&self) -> Result<T> {
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

    fn is_empty(&self) -> bool {
        self.values.lock().is_empty()
    }
}

/// Says how a message has ended.
struct Told(Arc<Slot<Status>>);

impl Told {
    fn new(slot: &Arc<Slot<Status>>) -> Result<KBox<dyn Completion>> {
        Ok(KBox::new(Self(slot.clone()), GFP_KERNEL)?)
    }
}

impl Completion for Told {
    fn complete(self: KBox<Self>, status: Status) {
        misc::assert_may_sleep();
        self.0.put(status);
    }
}

/// What a layer does with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It keeps the token.
    Keeps,
    /// It has a waiter asked, first when the payload is there, then when it is woken.
    Waits,
}

/// A layer that leaves all answers to the test's thread.
struct Late {
    manner: Manner,
    /// How many connections for bulk it wants; 0 is whatever the driver wants.
    conns: Atomic<u32>,
    /// The headers of all messages.
    seen: Arc<Slot<RawHeader>>,
    kept: Arc<Slot<KeptToken>>,
    asked: Arc<Slot<(Arrived, Arc<dyn Receiving>)>>,
    /// What a waiter says when it was woken.
    deliveries: Arc<Slot<Delivery>>,
    ended: Arc<Slot<ConnId>>,
    /// A waiter was dropped.
    gone: Arc<Slot<()>>,
}

impl Late {
    fn new(manner: Manner) -> Result<Arc<Self>> {
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
struct Fixture {
    lnd: Arc<Lnd>,
    net: Net,
    target: Nid,
    sender: Nid,
    socket: Socket,
}

impl Fixture {
    /// `last` tells the addresses of tests apart.
    fn new(layer: &Arc<Late>, last: u8) -> Result<Self> {
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

    /// As after a handshake.
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
        let conn = Conn::new(&peer, sched, &socket, ConnType::Any, Side::Passive, &hello, None)?;
        peer.admit(&conn, None).map_err(|_| EBUSY)?;
        conn.start(socket);
        Ok(())
    }

    fn ni(&self) -> Result<Arc<Ni>> {
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
    fn send_to(&self, to: Nid, payload: impl Into<Payload>, sent: &Arc<Slot<Status>>) -> Result {
        let mut header = self.header(self.target);
        header.dest = to;
        self.send_as(to, SentHeader::Parsed(&header), payload, sent)
    }

    /// This node sends a message to `to`.
    fn send_as(
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
    fn foreign_header(&self) -> Result<[u8; HEADER_LEN]> {
        let mut short = self.header(self.target).build()?;
        // The LND type of the source is that of InfiniBand.
        *short.get_mut(14).ok_or(EINVAL)? = 5;
        Ok(short)
    }

    /// The peer receives a message, and looks whether the payload is the one with this `seed`.
    fn has_received(&self, seed: u64) -> Result<bool> {
        self.received(seed).map(|(_, is_intact)| is_intact)
    }

    /// As [`Fixture::has_received`]; also returns the header.
    fn received(&self, seed: u64) -> Result<([u8; HEADER_LEN], bool)> {
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
    fn zc_bytes(&self) -> Result<u64> {
        Ok(self.ni()?.ledger().total().zc_bytes.get())
    }

    /// The peer sends these bytes.
    fn send_bytes(&self, bytes: &[u8]) -> Result {
        if self.socket.send_bytes(bytes)? != bytes.len() {
            return Err(ENOBUFS);
        }
        Ok(())
    }

    /// The peer sends the header of a message.
    fn send_header(&self) -> Result {
        let mut room = [0; MAX_HDR];
        let header = self.header(self.sender);
        self.send_bytes(Proto::V1.hdr(&Msg::new(MsgKind::Lnet), Some(&header), &mut room)?)
    }

    /// The peer sends a message whose payload depends on `seed`.
    fn send(&self, seed: u64) -> Result {
        let pages = Pages::alloc(LEN)?;
        pages.fill_pattern(0, LEN, seed)?;
        let mut payload = KVec::from_elem(0u8, LEN, GFP_KERNEL)?;
        pages.copy_out(0, &mut payload)?;
        self.send_header()?;
        self.send_bytes(&payload)
    }

    /// Ends the connection, as if it had failed.
    fn cut(&self) -> Result {
        let peer = self.ni()?.peers().find(self.sender);
        peer.ok_or(ENOENT)?
            .close_where(Failure::of_socket(ECONNRESET), |_| true);
        Ok(())
    }

    fn driver(&self) -> ArcBorrow<'_, dyn Driver + 'static> {
        self.lnd.as_arc_borrow()
    }

    fn del(&self) {
        let _ = self.driver().stop(&self.net, self.target);
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.del();
    }
}

/// Memory at an odd offset, and where it is told when a payload is in it.
fn sink(arrived: &Arc<Slot<Status>>) -> Result<(Arc<Pages>, Delivery)> {
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

/// How somebody else's memory may be cut to pieces. The first makes more of them than one call takes.
const CUTS: [usize; 3] = [7, 1001, 4096];

/// Where in somebody else's memory a payload begins.
const SKIP: usize = 11;

/// Memory of somebody else, and where it is told when a payload is in it.
fn foreign_sink(
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

/// Memory of somebody else with a payload that depends on `seed`.
fn foreign_payload(kind: Kind, cut: usize, seed: u64) -> Result<(Arc<Scattered>, Payload)> {
    let memory = Scattered::new(kind, SKIP + LEN + 1, cut)?;
    memory.fill_pattern(SKIP, LEN, seed)?;
    let range = memory.range(SKIP, LEN)?;
    Ok((memory, Memory::Foreign(range)))
}

/// Whether all of the payload with this `seed` is there.
fn is_intact(pages: &Pages, seed: u64) -> Result<bool> {
    let sent = Pages::alloc(LEN)?;
    sent.fill_pattern(0, LEN, seed)?;
    Ok(pages.xxh64(13, LEN, 0)? == sent.xxh64(0, LEN, 0)?)
}

#[kernel::macros::kunit_tests(socklnd_upper)]
mod suite {
    use super::*;

    #[test]
    fn answered_later_by_another_thread() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 1)?;
        let arrived = Slot::new()?;
        for seed in 1..=3 {
            fixture.send(seed)?;
        }
        let kept = layer.kept.take()?;
        // The connection is parked: the others stay behind the first one.
        assert!(layer.kept.is_empty());
        let (pages, delivery) = sink(&arrived)?;
        kept.deliver(delivery);
        assert!(arrived.take()?.is_ok());
        assert!(is_intact(&pages, 1)?);
        // A token that is dropped throws its message away, and the next one comes.
        drop(layer.kept.take()?);
        let (pages, delivery) = sink(&arrived)?;
        layer.kept.take()?.deliver(delivery);
        assert!(arrived.take()?.is_ok());
        assert!(is_intact(&pages, 3)?);
        Ok(())
    }

    #[test]
    fn answered_after_the_connection_has_died() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 2)?;
        let arrived = Slot::new()?;
        fixture.send(1)?;
        let kept = layer.kept.take()?;
        fixture.cut()?;
        layer.ended.take()?;
        let (_pages, delivery) = sink(&arrived)?;
        kept.deliver(delivery);
        // Before the call was over.
        assert!(!arrived.is_empty());
        let failure = arrived.take()?.err().ok_or(EINVAL)?;
        assert!(failure.health == Health::RemoteError);
        Ok(())
    }

    #[test]
    fn answered_after_the_interface_has_gone() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 3)?;
        let arrived = Slot::new()?;
        fixture.send(1)?;
        let kept = layer.kept.take()?;
        fixture.del();
        let (_pages, delivery) = sink(&arrived)?;
        kept.deliver(delivery);
        let failure = arrived.take()?.err().ok_or(EINVAL)?;
        assert!(failure.health == Health::LocalDropped);
        Ok(())
    }

    #[test]
    fn a_waiter_is_asked_when_the_payload_is_there_and_when_woken() -> Result {
        let layer = Late::new(Manner::Waits)?;
        let fixture = Fixture::new(&layer, 4)?;
        let arrived = Slot::new()?;
        fixture.send(1)?;
        let (how_much, conn) = layer.asked.take()?;
        assert!(how_much == Arrived::All);
        let (pages, delivery) = sink(&arrived)?;
        layer.deliveries.put(delivery);
        conn.wake();
        assert!(arrived.take()?.is_ok());
        assert!(is_intact(&pages, 1)?);
        layer.gone.take()?;
        // One that waits when the connection dies goes with it.
        fixture.send(2)?;
        let (_, conn) = layer.asked.take()?;
        fixture.cut()?;
        layer.ended.take()?;
        layer.gone.take()?;
        conn.wake();
        Ok(())
    }

    #[test]
    fn received_into_memory_of_others() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 6)?;
        let arrived = Slot::new()?;
        let mut seed = 0;
        for kind in [Kind::Pages, Kind::Slab, Kind::Vmalloc] {
            for cut in CUTS {
                seed += 1;
                fixture.send(seed)?;
                let (memory, delivery) = foreign_sink(kind, cut, &arrived)?;
                layer.kept.take()?.deliver(delivery);
                assert!(arrived.take()?.is_ok());
                assert!(memory.is_intact(SKIP, LEN, seed)?);
            }
        }
        // What is not as long as the payload gets as much of it.
        fixture.send(1)?;
        let memory = Scattered::new(Kind::Slab, 777, 10)?;
        layer.kept.take()?.deliver(Delivery::Accept(Sink {
            memory: Memory::Foreign(memory.range(0, memory.len())?),
            done: Told::new(&arrived)?,
        }));
        assert!(arrived.take()?.is_ok());
        assert!(memory.is_intact(0, 777, 1)?);
        Ok(())
    }

    #[test]
    fn sent_from_memory_of_others() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 7)?;
        let sent = Slot::new()?;
        let mut seed = 0;
        for kind in [Kind::Pages, Kind::Slab, Kind::Vmalloc] {
            for cut in CUTS {
                seed += 1;
                let zc_bytes = fixture.zc_bytes()?;
                let (_memory, payload) = foreign_payload(kind, cut, seed)?;
                fixture.send_to(fixture.sender, payload, &sent)?;
                assert!(fixture.has_received(seed)?);
                assert!(sent.take()?.is_ok());
                // What is in a slab must be copied.
                assert!((fixture.zc_bytes()? > zc_bytes) == (kind != Kind::Slab));
            }
        }
        Ok(())
    }

    #[test]
    fn an_ni_has_the_tunables_of_its_layer() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        layer.conns.store(3, Relaxed);
        let fixture = Fixture::new(&layer, 11)?;
        let ni = fixture.ni()?;
        assert_eq!(LndNi::conns_per_peer(&*ni), 3);
        assert_eq!(ni.tos(), Some(8));
        assert!(LndNi::link(&*ni) == Link::Up);
        // What an administrator changes counts for peers that come.
        layer.conns.store(1000, Relaxed);
        assert_eq!(ni.conns_per_peer(), 3);
        let other = Nid::tcp(NETWORK, [10, 77, 1, 1]);
        let peer = misc::memalloc_nofs(|| ni.peers().find_or_create(&ni, other))?;
        peer.unlink_if_unused();
        assert_eq!(ni.conns_per_peer(), 127);
        let driver = fixture.driver();
        assert!(tunables::timeout_ms() / 1000 > 0);
        let again = driver.start(&fixture.net, fixture.target, layer.clone());
        assert!(again.err() == Some(EEXIST));
        assert!(driver.stop(&fixture.net, other).err() == Some(ENOENT));
        Ok(())
    }

    #[test]
    fn headers_of_others_are_kept_as_they_are() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 10)?;
        let (sent, arrived) = (Slot::new()?, Slot::new()?);
        let short = fixture.foreign_header()?;
        let raw = RawHeader::from_short(&short)?;
        let pages = Arc::new(Pages::alloc(LEN)?, GFP_KERNEL)?;
        pages.fill_pattern(0, LEN, 1)?;
        let payload = PageRange::new(pages, 0, LEN)?;
        let header = SentHeader::Raw(&raw);
        // To a peer,
        fixture.send_as(fixture.sender, header, payload.clone(), &sent)?;
        assert!(fixture.received(1)? == (short, true));
        assert!(sent.take()?.is_ok());
        // by this node's way to itself,
        fixture.send_as(fixture.target, header, payload.clone(), &sent)?;
        let (pages, delivery) = sink(&arrived)?;
        layer.kept.take()?.deliver(delivery);
        assert!(arrived.take()?.is_ok());
        assert!(is_intact(&pages, 1)?);
        assert!(sent.take()?.is_ok());
        assert!(layer.seen.take()? == raw);
        // and from a peer.
        fixture.send_bytes(&short)?;
        assert!(layer.seen.take()? == raw);
        // An address that the peer's version has no form for.
        let mut long = *raw.as_long();
        *long.get_mut(20).ok_or(EINVAL)? = 12;
        *long.get_mut(39).ok_or(EINVAL)? = 1;
        let raw = RawHeader::from_long(&long)?;
        fixture.send_as(fixture.sender, SentHeader::Raw(&raw), payload, &sent)?;
        let failure = sent.take()?.err().ok_or(EINVAL)?;
        assert!(failure.error == EPROTONOSUPPORT);
        Ok(())
    }

    #[test]
    fn whose_fault_it_is() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 12)?;
        let (sent, arrived) = (Slot::new()?, Slot::new()?);
        let pages = Arc::new(Pages::alloc(LEN)?, GFP_KERNEL)?;
        let payload = PageRange::new(pages, 0, LEN)?;
        // Nothing leads to another network.
        let elsewhere = Nid::tcp(NETWORK + 1, [10, 77, 0, 12]);
        fixture.send_to(elsewhere, payload, &sent)?;
        let failure = sent.take()?.err().ok_or(EINVAL)?;
        assert!(failure == Failure::new(EHOSTUNREACH, Health::LocalNoRoute));
        // A message has begun to come when this node gives its sender up, whatever the error is called.
        fixture.send_header()?;
        let (_, delivery) = sink(&arrived)?;
        layer.kept.take()?.deliver(delivery);
        fixture.ni()?.close_peer(fixture.sender, ECONNRESET);
        let failure = arrived.take()?.err().ok_or(EINVAL)?;
        assert!(failure == Failure::new(ECONNRESET, Health::LocalDropped));
        Ok(())
    }

    #[test]
    fn memory_of_others_is_theirs_again_when_the_connection_dies() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 8)?;
        let (sent, arrived) = (Slot::new()?, Slot::new()?);
        // The peer reads nothing, so some of these are not sent.
        for _ in 0..200 {
            let (_, payload) = foreign_payload(Kind::Vmalloc, 4096, 1)?;
            fixture.send_to(fixture.sender, payload, &sent)?;
        }
        // And has yet to send the rest of a message.
        fixture.send_header()?;
        let (_, delivery) = foreign_sink(Kind::Slab, 7, &arrived)?;
        layer.kept.take()?.deliver(delivery);
        fixture.cut()?;
        assert!(arrived.take()?.is_err());
        for _ in 0..200 {
            let _ = sent.take()?;
        }
        Ok(())
    }

    #[test]
    fn messages_to_oneself_in_memory_of_others() -> Result {
        let layer = Late::new(Manner::Keeps)?;
        let fixture = Fixture::new(&layer, 9)?;
        let (sent, arrived) = (Slot::new()?, Slot::new()?);
        for (seed, kind) in (1..).zip([Kind::Pages, Kind::Slab, Kind::Vmalloc]) {
            let (from, payload) = foreign_payload(kind, 1001, seed)?;
            fixture.send_to(fixture.target, payload, &sent)?;
            let (to, delivery) = foreign_sink(kind, 7, &arrived)?;
            layer.kept.take()?.deliver(delivery);
            assert!(arrived.take()?.is_ok());
            assert!(sent.take()?.is_ok());
            assert!(from.is_intact(SKIP, LEN, seed)?);
            assert!(to.is_intact(SKIP, LEN, seed)?);
        }
        Ok(())
    }

    #[test]
    fn messages_to_oneself_are_answered_later_as_well() -> Result {
        for manner in [Manner::Keeps, Manner::Waits] {
            let layer = Late::new(manner)?;
            let fixture = Fixture::new(&layer, 5)?;
            let (sent, arrived) = (Slot::new()?, Slot::new()?);
            let pages = Arc::new(Pages::alloc(LEN)?, GFP_KERNEL)?;
            pages.fill_pattern(0, LEN, 1)?;
            fixture.send_to(fixture.target, PageRange::new(pages, 0, LEN)?, &sent)?;
            assert!(sent.is_empty());
            let (pages, delivery) = sink(&arrived)?;
            match manner {
                Manner::Keeps => layer.kept.take()?.deliver(delivery),
                Manner::Waits => {
                    let (_, conn) = layer.asked.take()?;
                    layer.deliveries.put(delivery);
                    conn.wake();
                }
            }
            assert!(arrived.take()?.is_ok());
            assert!(sent.take()?.is_ok());
            assert!(is_intact(&pages, 1)?);
        }
        Ok(())
    }
}
