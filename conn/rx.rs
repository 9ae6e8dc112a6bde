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
//! The message layer may say later where a payload goes, see [`crate::upper`]. Until then nothing is read:
//! TCP slows the sender down, and the time is not counted against the peer. A [`Waiter`] that wants the
//! payload to be there first is asked when TCP has all of it, or as much as fits.
//!
//! A peer may ask for more acknowledgements than are remembered for one that does not read them. Then,
//! too, nothing is read until there is room, and what the peer does not read makes its connection
//! late in the end.
//!
//! What is done with what is complete is in [`super::receive`].

use super::Reason;
use crate::{
    lib_linux::{
        iov::BvecBuf,
        page::{
            crc32,
            RecvBuf, //
        },
        socket::Socket, //
    },
    upper::{
        Arrived,
        Completion,
        Delivery,
        Sink,
        Waiter, //
    },
    wire::{
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
use kernel::prelude::*;

/// Fragments of one receive call: the payload of the largest message, at any offset, and the
/// frame of the next.
const RX_FRAGS: usize = 260;

/// What is being received.
pub(super) enum State {
    /// A frame, of which `have` bytes are there; or more than it has, if it is a NOOP.
    Frame { have: usize },
    /// The message layer is being asked where the payload goes.
    Asking,
    /// A payload that is to be there before `waiter` is asked; `seen` bytes of it were when it was last
    /// looked.
    Gather {
        waiter: KBox<dyn Waiter>,
        payload: usize,
        seen: usize,
    },
    /// A payload of which somebody says later where it goes: the waiter, of whose payload so much is
    /// there; without one, whoever has the token.
    Parked {
        waiter: Option<(KBox<dyn Waiter>, Arrived)>,
        payload: usize,
    },
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
pub(super) enum Event {
    /// Nothing that concerns anybody.
    Nothing,
    /// A NOOP.
    Noop,
    /// The header of a message; or of one that is from, or for, a network of another kind.
    Header(core::result::Result<Header, Foreign>),
    /// A message that ends with a completion.
    Payload(KBox<dyn Completion>, Progress),
    /// A message that nobody has to be told of.
    End,
}

/// What the message layer has begun to receive, when the connection ends.
pub(super) enum Remains {
    /// Nothing, or nothing that it has to be told of.
    Nothing,
    /// To be completed.
    Payload(KBox<dyn Completion>),
    /// To be dropped.
    Waiter(KBox<dyn Waiter>),
}

/// What receiving comes to, or why it can't go on.
pub(super) type Progress<T = ()> = core::result::Result<T, Reason>;

/// The receive side.
pub(super) struct Rx {
    proto: Proto,
    order: ByteOrder,
    pub(super) state: State,
    /// Where frames are read into.
    frame: RecvBuf,
    /// Header of the message that is being received, if the version has such.
    pub(super) msg: Msg,
    /// The cookie of a message that has arrived, for whose acknowledgement there is no room yet.
    pub(super) due: Option<u64>,
    /// Checksum of what was received of a message that has one, as long as nothing of it is thrown
    /// away.
    csum: Option<u32>,
    /// The last message came from another node than the peer, who has only passed it on.
    pub(super) routed: bool,
    /// Something has come in since the end of a message was looked for.
    pub(super) fresh: bool,
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
            fresh: false,
            frags: BvecBuf::with_capacity(RX_FRAGS)?,
        })
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_started(&self) -> bool {
        !matches!(self.state, State::Frame { have: 0 }) || self.due.is_some()
    }

    /// Whether nothing is read because the message layer has yet to say where a payload goes, or for want
    /// of room for an acknowledgement.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(&self.state, State::Asking | State::Parked { .. }) || self.due.is_some()
    }

    /// Whether a payload is to be there before it is read, and the peer has yet to send more of it: TCP has
    /// room for that.
    pub(super) fn is_short(&self, socket: &Socket) -> bool {
        match &self.state {
            State::Gather { payload, .. } => *payload > 0 && !socket.is_ready(),
            _ => false,
        }
    }

    /// Whether more of such a payload has come since this was asked last.
    pub(super) fn has_grown(&mut self, socket: &Socket) -> bool {
        let State::Gather { seen, .. } = &mut self.state else {
            return false;
        };
        let before = core::mem::replace(seen, socket.available());
        *seen > before
    }

    /// Gives up what is being received; the caller ends what comes back, with no lock held.
    pub(super) fn abandon(&mut self) -> Remains {
        match core::mem::replace(&mut self.state, State::Frame { have: 0 }) {
            State::Frame { .. } | State::Asking => Remains::Nothing,
            State::Gather { waiter, .. } => Remains::Waiter(waiter),
            State::Parked { waiter, .. } => match waiter {
                Some((waiter, _)) => Remains::Waiter(waiter),
                None => Remains::Nothing,
            },
            State::Body { sink, .. } => Remains::Payload(sink.done),
            State::Slop { done, .. } => done.map_or(Remains::Nothing, Remains::Payload),
        }
    }

    /// Receives once. Returns how many bytes came; zero is the end of the stream.
    pub(super) fn receive(&mut self, socket: &Socket) -> Result<usize> {
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
                let left = sink.memory.len().saturating_sub(*have);
                let mut frags = self.frags.start_recv();
                // With nothing to skip, the next frame is right behind: one call for both.
                let whole = sink.memory.add_to_recv(&mut frags, *have);
                if whole && *slop == 0 {
                    frags.push_buf(&mut self.frame, 0, hdr_len);
                }
                let nob = socket.recv(&frags)?;
                let body = nob.min(left);
                *have = have.saturating_add(body);
                *ahead = nob.saturating_sub(body);
                Ok(nob)
            }
            State::Asking | State::Gather { .. } | State::Parked { .. } => Err(EAGAIN),
            State::Slop { left, .. } => {
                let nob = socket.discard(*left)?;
                *left = left.saturating_sub(nob);
                Ok(nob)
            }
        }
    }

    /// Where in the frame the header of a message begins.
    pub(super) fn header_start(&self) -> usize {
        if self.proto.has_msg_header() {
            MSG_LEN
        } else {
            0
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
    pub(super) fn is_complete(&self) -> bool {
        match &self.state {
            State::Frame { have } => *have >= self.needed(*have),
            State::Body { sink, have, .. } => *have >= sink.memory.len(),
            State::Slop { left, .. } => *left == 0,
            State::Asking | State::Gather { .. } | State::Parked { .. } => false,
        }
    }

    /// Goes on to the next state. To be called when the current one is over.
    pub(super) fn advance(&mut self) -> Progress<Event> {
        match core::mem::replace(&mut self.state, State::Frame { have: 0 }) {
            State::Frame { have } => self.take_frame(have),
            State::Body { sink, slop, .. } if slop > 0 => {
                self.state = State::Slop {
                    left: slop,
                    done: Some(sink.done),
                };
                Ok(Event::Nothing)
            }
            State::Body { sink, ahead, .. } => {
                self.state = State::Frame { have: ahead };
                let intact = self.check_body(&sink);
                Ok(Event::Payload(sink.done, intact))
            }
            State::Slop { done, .. } => Ok(match done {
                Some(done) => Event::Payload(done, Ok(())),
                None => Event::End,
            }),
            waiting => {
                self.state = waiting;
                Ok(Event::Nothing)
            }
        }
    }

    /// Reads the frame, of which, or of more, `have` bytes are there.
    fn take_frame(&mut self, have: usize) -> Progress<Event> {
        let start = self.header_start();
        if self.proto.has_msg_header() {
            self.msg = self.msg()?;
            self.begin_sum()?;
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
        self.state = State::Asking;
        Ok(Event::Header(header))
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
            self.csum = Some(sink.memory.crc32(csum));
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

    /// Takes out the frame, of whose header the message layer gets the bytes, for as long as it is asked.
    pub(super) fn take_buf(&mut self) -> RecvBuf {
        core::mem::replace(&mut self.frame, RecvBuf::none())
    }

    /// Puts the frame back.
    pub(super) fn put_buf(&mut self, frame: RecvBuf) {
        self.frame = frame;
    }

    /// `payload` bytes follow, and that is where they go.
    pub(super) fn begin_payload(&mut self, payload: usize, delivery: Delivery) -> Result {
        let wanted = match &delivery {
            Delivery::Discard | Delivery::Misrouted => 0,
            Delivery::Accept(sink) => sink.memory.len(),
        };
        if wanted < payload {
            // What is thrown away can't be checked.
            self.csum = None;
        }
        let Some(slop) = payload.checked_sub(wanted) else {
            // A mistake of the message layer, not of the peer; but the stream would be out of step. What
            // is to be completed is when the connection ends.
            if let Delivery::Accept(sink) = delivery {
                self.state = State::Slop {
                    left: payload,
                    done: Some(sink.done),
                };
            }
            return Err(EIO);
        };
        self.state = match delivery {
            Delivery::Discard | Delivery::Misrouted => State::Slop {
                left: payload,
                done: None,
            },
            Delivery::Accept(sink) => State::Body {
                sink,
                have: 0,
                slop,
                ahead: 0,
            },
        };
        Ok(())
    }
}
