// SPDX-License-Identifier: GPL-2.0

//! The receive side of a connection: frame, buffer, body, slop.
//!
//! [`Rx`] is part of the connection's I/O state and protected by its mutex. Between messages it
//! waits for what the connection's version has in front of a payload: its frame. As many bytes are
//! read as the longest one has; if it is a NOOP, which is shorter, the rest begins the next. The
//! message layer says where the payload goes, and the payload is received straight into those pages;
//! what it doesn't want is skipped, so that the stream stays in step. The buffer of a message that is
//! being received is kept alive by the [`Sink`] here.
//!
//! A message that is to be passed on needs a forwarding buffer, of which there are few. So it asks for one
//! only when TCP has the payload, or as much of it as fits: who sends slowly holds what belongs to his own
//! connection, and nothing that others wait for. While there is no buffer nothing is read, so that TCP
//! slows the sender down, and that time is not counted against him. The buffer is received into like any
//! other memory, see [`crate::fwd`].
//!
//! A peer may ask for more acknowledgements than are remembered for one that does not read them. Then,
//! too, nothing is read until there is room, and what the peer does not read makes its connection
//! late in the end.

use super::{
    Conn,
    Deadlines,
    Io,
    Reason,
    Turn,
    QUANTUM, //
};
use crate::{
    fwd::{
        self,
        Arrived,
        Misrouted,
        Order,
        Origin,
        Take, //
    },
    lib_linux::{
        iov::BvecBuf,
        page::{
            crc32,
            RecvBuf, //
        },
        socket::{
            Socket,
            TcpState, //
        },
        time, //
    },
    portals::{
        Delivery,
        Sink, //
    },
    trace,
    tunables,
    tx::Completion,
    wire::{
        acked_ranges,
        Added,
        ByteOrder,
        Foreign,
        Header,
        Msg,
        MsgKind,
        Proto,
        WireError,
        MSG_LEN, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Fragments of one receive call: the payload of the largest message, at any offset, and the
/// frame of the next.
const RX_FRAGS: usize = 260;

/// What is being received.
enum State {
    /// A frame, of which `have` bytes are there; or more than it has, if it is a NOOP.
    Frame { have: usize },
    /// A payload that waits to be complete in TCP, where `seen` bytes of it were when it was last looked,
    /// and then for a forwarding buffer.
    Fmb { order: Order, seen: usize },
    /// A payload; `have` bytes of it are in the sink, and `slop` bytes follow. Of the next frame,
    /// `ahead` bytes are there.
    Body {
        sink: Sink,
        have: usize,
        slop: usize,
        ahead: usize,
    },
    /// Bytes that nobody wants. The completion, if there is one, is due after them.
    Slop {
        left: usize,
        done: Option<KBox<dyn Completion>>,
    },
}

/// What is complete.
enum Event {
    /// A NOOP.
    Noop,
    /// A message's frame; [`Rx::expect`] is to be told what becomes of the payload.
    Message(Header),
    /// The frame of a message that can go nowhere; likewise.
    Foreign(Foreign),
    /// A message whose sender wants to be told of that by its cookie.
    Arrived(u64),
}

/// What receiving comes to, or why it can't go on.
type Progress<T = ()> = core::result::Result<T, Reason>;

/// The receive side.
pub(super) struct Rx {
    proto: Proto,
    order: ByteOrder,
    state: State,
    /// Where frames are read into.
    frame: RecvBuf,
    /// Header of the message that is being received, if the version has such.
    msg: Msg,
    /// The cookie of a message that has arrived, for whose acknowledgement there is no room yet.
    due: Option<u64>,
    /// Checksum of what was received of a message that has one, as long as nothing of it is thrown
    /// away.
    csum: Option<u32>,
    /// The last message came from another node than the peer, who has only passed it on.
    routed: bool,
    /// What the gateway keeps for the address that the connection comes from, once something is to be
    /// passed on.
    origin: Option<Origin>,
    frags: BvecBuf,
}

impl Rx {
    /// At the start of a stream. May sleep.
    pub(super) fn new(proto: Proto, order: ByteOrder) -> Result<Self> {
        Ok(Self {
            proto,
            order,
            state: State::Frame { have: 0 },
            frame: RecvBuf::alloc(proto.hdr_len())?,
            msg: Msg::new(MsgKind::Lnet),
            due: None,
            csum: None,
            routed: false,
            origin: None,
            frags: BvecBuf::with_capacity(RX_FRAGS)?,
        })
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_started(&self) -> bool {
        !matches!(self.state, State::Frame { have: 0 }) || self.due.is_some()
    }

    /// Whether nothing is read for want of a forwarding buffer, or of room for an acknowledgement.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(&self.state, State::Fmb { order, .. } if order.is_waiting()) || self.due.is_some()
    }

    /// Whether a message is to be passed on whose payload the peer has yet to send: TCP has room for more
    /// of it.
    pub(super) fn is_short(&self, socket: &Socket) -> bool {
        match &self.state {
            State::Fmb { order, .. } => {
                let payload = order.payload_len();
                !order.is_waiting() && payload > 0 && !socket.is_ready()
            }
            _ => false,
        }
    }

    /// Whether more of such a payload has come since this was asked last.
    pub(super) fn has_grown(&mut self, socket: &Socket) -> bool {
        let State::Fmb { seen, .. } = &mut self.state else {
            return false;
        };
        let before = core::mem::replace(seen, socket.available());
        *seen > before
    }

    /// Gives up what is being received; the caller completes what comes back.
    pub(super) fn abandon(&mut self) -> Option<KBox<dyn Completion>> {
        match core::mem::replace(&mut self.state, State::Frame { have: 0 }) {
            State::Frame { .. } => None,
            State::Fmb { order, .. } => {
                order.cancel();
                None
            }
            State::Body { sink, .. } => Some(sink.done),
            State::Slop { done, .. } => done,
        }
    }

    /// Receives once. Returns how many bytes came; zero is the end of the stream.
    fn receive(&mut self, socket: &Socket) -> Result<usize> {
        let hdr_len = self.proto.hdr_len();
        match &mut self.state {
            State::Frame { have } => {
                let left = hdr_len.saturating_sub(*have);
                let mut frags = self.frags.start_recv();
                frags.push_buf(&mut self.frame, *have, left);
                let nob = socket.recv(&frags)?;
                *have = have.saturating_add(nob);
                Ok(nob)
            }
            State::Body {
                sink,
                have,
                slop,
                ahead,
            } => {
                let left = sink.range.len().saturating_sub(*have);
                let mut frags = self.frags.start_recv();
                // With nothing to skip, the next frame is right behind: one call for both.
                let whole = frags.push_range(&sink.range, *have);
                if whole && *slop == 0 {
                    frags.push_buf(&mut self.frame, 0, hdr_len);
                }
                let nob = socket.recv(&frags)?;
                let body = nob.min(left);
                *have = have.saturating_add(body);
                *ahead = nob.saturating_sub(body);
                Ok(nob)
            }
            State::Fmb { .. } => Err(EAGAIN),
            State::Slop { left, .. } => {
                let nob = socket.discard(*left)?;
                *left = left.saturating_sub(nob);
                Ok(nob)
            }
        }
    }

    /// The message header at the front of the frame.
    fn msg(&self) -> Progress<Msg> {
        let bytes = self.frame.as_slice().first_chunk().ok_or(EPROTO)?;
        Ok(Msg::parse(bytes, self.order)?)
    }

    /// How long a frame is of which `have` bytes are there.
    fn needed(&self, have: usize) -> usize {
        if !self.proto.has_msg_header() || have < MSG_LEN {
            return self.proto.hdr_len();
        }
        match self.msg() {
            Ok(msg) if msg.kind == MsgKind::Lnet => self.proto.hdr_len(),
            // What it is not is known by now, too.
            _ => MSG_LEN,
        }
    }

    /// Whether the current state is over without another byte from the socket.
    fn is_complete(&self) -> bool {
        match &self.state {
            State::Frame { have } => *have >= self.needed(*have),
            State::Body { sink, have, .. } => *have >= sink.range.len(),
            State::Slop { left, .. } => *left == 0,
            State::Fmb { .. } => false,
        }
    }

    /// Goes on to the next state. To be called when the current one is over.
    fn advance(&mut self) -> Progress<Option<Event>> {
        match core::mem::replace(&mut self.state, State::Frame { have: 0 }) {
            State::Frame { have } => return self.take_frame(have).map(Some),
            State::Body { sink, slop, .. } if slop > 0 => {
                self.state = State::Slop {
                    left: slop,
                    done: Some(sink.done),
                };
                return Ok(None);
            }
            State::Body { sink, ahead, .. } => {
                self.state = State::Frame { have: ahead };
                let intact = self.check_body(&sink);
                sink.done.complete(intact.map_err(Reason::errno));
                intact?;
            }
            State::Fmb { .. } => {}
            State::Slop { done, .. } => {
                if let Some(done) = done {
                    done.complete(Ok(()));
                }
            }
        }
        Ok(match self.msg.cookies {
            [0, _] => None,
            [cookie, _] => Some(Event::Arrived(cookie)),
        })
    }

    /// Reads the frame, of which, or of more, `have` bytes are there.
    fn take_frame(&mut self, have: usize) -> Progress<Event> {
        let mut start = 0;
        if self.proto.has_msg_header() {
            self.msg = self.msg()?;
            self.begin_sum()?;
            start = MSG_LEN;
        }
        if self.msg.kind == MsgKind::Noop {
            self.check_sum()?;
            let rest = have.saturating_sub(MSG_LEN);
            // What came behind it begins the next frame.
            self.frame.shift(MSG_LEN, rest);
            self.state = State::Frame { have: rest };
            return Ok(Event::Noop);
        }
        let bytes = self.frame.as_slice().get(start..).ok_or(EPROTO)?;
        let header = match self.proto.parse_header(bytes) {
            Err(WireError::Foreign(foreign)) => Err(foreign),
            header => Ok(header?),
        };
        if let Some(csum) = self.csum {
            self.csum = Some(crc32(csum, bytes));
        }
        let payload_len = match &header {
            Ok(header) => header.payload_len,
            Err(foreign) => foreign.payload_len,
        };
        if payload_len == 0 {
            // Before anybody acts on it.
            self.check_sum()?;
        }
        Ok(header.map_or_else(Event::Foreign, Event::Message))
    }

    /// Begins a message's checksum, if it has one, with its message header.
    fn begin_sum(&mut self) -> Progress {
        self.csum = None;
        if self.msg.csum == 0 {
            return Ok(());
        }
        if !self.proto.has_checksums() {
            // Nobody sends such, and nobody says what it would be of.
            return Err(Reason::Unsummed(self.msg.csum));
        }
        let unsummed = Msg {
            csum: 0,
            ..self.msg
        };
        self.csum = Some(crc32(!0, &unsummed.build(self.order)?));
        Ok(())
    }

    /// Compares a message's checksum, if it has one, when all of its payload is there.
    fn check_body(&mut self, sink: &Sink) -> Progress {
        if let Some(csum) = self.csum {
            self.csum = Some(sink.range.crc32(csum)?);
        }
        self.check_sum()
    }

    /// Compares a message's checksum, if it has one, with that of what was received.
    fn check_sum(&mut self) -> Progress {
        match self.csum.take() {
            Some(csum) if csum != self.msg.csum => Err(Reason::Checksum(self.msg.csum, csum)),
            _ => Ok(()),
        }
    }

    /// After a frame: `payload` bytes follow, for which the message layer has decided `delivery`.
    fn expect(&mut self, payload: usize, delivery: Delivery) -> Result {
        let wanted = match &delivery {
            Delivery::Discard => 0,
            Delivery::Forward(_) => payload,
            Delivery::Accept(sink) => sink.range.len(),
        };
        if wanted < payload {
            // What is thrown away can't be checked.
            self.csum = None;
        }
        self.state = match delivery {
            Delivery::Discard => State::Slop {
                left: payload,
                done: None,
            },
            Delivery::Forward(order) => State::Fmb { order, seen: 0 },
            Delivery::Accept(sink) => {
                let Some(slop) = payload.checked_sub(sink.range.len()) else {
                    // A mistake of ours, not of the peer; but the stream would be out of step.
                    sink.done.complete(Err(EIO));
                    return Err(EIO);
                };
                State::Body {
                    sink,
                    have: 0,
                    slop,
                    ahead: 0,
                }
            }
        };
        Ok(())
    }
}

impl Conn {
    /// Receives until nothing is there, the quantum is used up, or the connection is closed. The
    /// scheduler's thread.
    pub(super) fn receive(self: &Arc<Self>, io: &mut Io) -> Progress<Turn> {
        let Some(socket) = io.socket.as_ref() else {
            return Ok(Turn::Idle);
        };
        let mut quantum = QUANTUM;
        while quantum > 0 {
            if self.is_closing() {
                return Ok(Turn::Idle);
            }
            if let Some(cookie) = io.rx.due {
                // Without reading, this is how the end of the connection shows.
                if let Some(e) = socket.failure() {
                    return Err(e.into());
                }
                self.acknowledge(&mut io.rx, cookie)?;
                if io.rx.due.is_some() {
                    return Ok(Turn::Idle);
                }
                io.deadlines.rx_progress(time::monotonic_ms());
                self.progress(&mut io.rx)?;
                quantum = quantum.saturating_sub(QUANTUM / 64);
                continue;
            }
            if let State::Fmb { order, .. } = &io.rx.state {
                // Without reading, this is how the end of the connection shows.
                if let Some(e) = socket.failure() {
                    return Err(e.into());
                }
                let payload = order.payload_len();
                if !order.is_waiting() && socket.available() < payload {
                    socket.wait_for(payload);
                }
                if io.rx.is_short(socket) {
                    if socket.state() != TcpState::Established {
                        // Nothing more will come.
                        return Err(Reason::Cut);
                    }
                    self.gathers(&mut io.rx, &mut io.deadlines, socket);
                    return Ok(Turn::Idle);
                }
                let arrived = if socket.available() < payload {
                    Arrived::Part
                } else {
                    Arrived::All
                };
                if !self.buffered(&mut io.rx, arrived)? {
                    return Ok(Turn::Idle);
                }
                socket.wait_for(1);
                io.deadlines.rx_progress(time::monotonic_ms());
                self.progress(&mut io.rx)?;
                // Of messages without a payload many could be passed on in one turn.
                quantum = quantum.saturating_sub(QUANTUM / 64);
                continue;
            }
            let nob = match io.rx.receive(socket) {
                Ok(0) if io.rx.is_started() => return Err(Reason::Cut),
                Ok(0) => return Err(ECONNRESET.into()),
                Ok(nob) => nob,
                Err(e) if e == EAGAIN => return Ok(Turn::Idle),
                Err(e) => return Err(e.into()),
            };
            let now = time::monotonic_ms();
            io.deadlines.rx_progress(now);
            self.peer.set_last_alive(now);
            self.traffic.rx_bytes.add(nob as u64);
            // Small messages cost more than their bytes.
            quantum = quantum.saturating_sub(nob.max(QUANTUM / 64));
            self.progress(&mut io.rx)?;
            // All that came so far are whole messages. A gateway's buffer is in use until TCP has
            // acknowledged what was in it, and others may wait for that.
            if (tunables::eager_acks() || io.rx.routed) && !io.rx.is_started() {
                socket.acknowledge_now();
            }
        }
        Ok(Turn::More)
    }

    /// Goes through the states that need no more bytes. A connection that was closed meanwhile stays
    /// in the state that it is in, for [`Rx::abandon`].
    fn progress(self: &Arc<Self>, rx: &mut Rx) -> Progress {
        while rx.due.is_none() && rx.is_complete() && !self.is_closing() {
            match rx.advance()? {
                Some(Event::Message(header)) => {
                    self.begun(rx, header.payload_len, header.src != self.peer.nid())?;
                    let delivery = self.deliver(&mut rx.origin, &header)?;
                    rx.expect(header.payload_len as usize, delivery)?;
                }
                Some(Event::Foreign(foreign)) => {
                    self.begun(rx, foreign.payload_len, true)?;
                    self.drop_misrouted(fwd::refuse(&self.peer, &foreign));
                    rx.expect(foreign.payload_len as usize, Delivery::Discard)?;
                }
                Some(Event::Noop) => self.take_acks(&rx.msg)?,
                Some(Event::Arrived(cookie)) => self.acknowledge(rx, cookie)?,
                None => {}
            }
        }
        Ok(())
    }

    /// A message with so much payload has begun, which the peer has sent itself or passed on.
    fn begun(&self, rx: &mut Rx, payload_len: u32, routed: bool) -> Progress {
        self.traffic.rx_msgs.add(1);
        let frame = self.proto.hdr_len() as u64;
        let bytes = u64::from(payload_len).saturating_add(frame);
        trace::receive(|| self.traced(), bytes, None);
        self.peer.note_rx();
        rx.routed = routed;
        // Not after the payload, which may have to wait for a buffer that this sets free.
        self.take_acks(&rx.msg)
    }

    /// The peer has sent `msg`, which may say which messages of ours have arrived.
    fn take_acks(&self, msg: &Msg) -> Progress {
        let ranges = acked_ranges(self.proto, msg)?;
        if ranges != [None; 2] {
            self.peer.handle_zc_ack(ranges)?;
        }
        Ok(())
    }

    /// Looks whether more has come of a payload that is to be passed on. May sleep.
    pub(super) fn gathers(&self, rx: &mut Rx, deadlines: &mut Deadlines, socket: &Socket) {
        if rx.has_grown(socket) {
            let now = time::monotonic_ms();
            deadlines.rx_progress(now);
            self.peer.set_last_alive(now);
        }
    }

    /// A message has arrived whose sender wants to be told of that by this cookie.
    fn acknowledge(self: &Arc<Self>, rx: &mut Rx, cookie: u64) -> Progress {
        rx.due = match self.peer.queue_zc_ack(self, cookie, rx.routed)? {
            Added::Yes => None,
            Added::Full => Some(cookie),
        };
        Ok(())
    }

    /// Asks for the forwarding buffer that `rx` waits for. Returns whether it waits no longer.
    fn buffered(self: &Arc<Self>, rx: &mut Rx, arrived: Arrived) -> Result<bool> {
        let State::Fmb { order, .. } = &mut rx.state else {
            return Ok(true);
        };
        let taken = order.take(self, arrived);
        match taken {
            Take::Wait => return Ok(false),
            Take::NoMemory => {
                self.peer.ni().context().retry(self.clone());
                return Ok(false);
            }
            Take::Got(_) | Take::TooMany | Take::Closed => {}
        }
        let begun = core::mem::replace(&mut rx.state, State::Frame { have: 0 });
        let State::Fmb { order, .. } = begun else {
            return Ok(true);
        };
        let payload = order.payload_len();
        let delivery = match taken {
            Take::Got(fmb) => order.receive(fmb).map_or_else(
                |_| {
                    self.peer.count(1, |events| &events.fwd_failed);
                    Delivery::Discard
                },
                Delivery::Accept,
            ),
            Take::TooMany => {
                self.peer.count(1, |events| &events.fwd_failed);
                Delivery::Discard
            }
            // Forwarding was switched off meanwhile.
            _ => {
                self.drop_misrouted(Misrouted::Off);
                Delivery::Discard
            }
        };
        rx.expect(payload, delivery)?;
        Ok(true)
    }

    fn drop_misrouted(&self, why: Misrouted) {
        self.peer.count(1, |events| &events.misrouted);
        self.peer.count(1, |events| why.counter(events));
    }

    /// Says what to do with the message that `header` begins; the message layer does, if it is for
    /// this interface.
    fn deliver(&self, origin: &mut Option<Origin>, header: &Header) -> Result<Delivery> {
        match fwd::dispatch(&self.peer, self.remote.ip(), origin, header) {
            Ok(None) => {
                let ni = self.peer.ni();
                ni.upper().parse(ni, self.peer.nid(), header)
            }
            Ok(Some(order)) => Ok(Delivery::Forward(order)),
            Err(why) => {
                self.drop_misrouted(why);
                why.log(&self.peer, header);
                Ok(Delivery::Discard)
            }
        }
    }
}
