// SPDX-License-Identifier: GPL-2.0

//! The receive side of a connection: header, payload, slop.
//!
//! [`Rx`] is part of the connection's I/O state and protected by its mutex. Between messages it waits for
//! the bytes that the connection's version of the protocol has in front of a payload, here called the header.
//! It reads as many bytes as the longest header has; after a NOOP, which is shorter, the rest begins the next
//! header. The message layer says where the payload goes, and the payload is received straight into those
//! pages. Bytes that it does not want are discarded ("slop"), so that the stream stays in step. The [`Sink`]
//! keeps the memory of the message alive that is being received.
//!
//! The message layer may say later where a payload goes, see [`crate::upper`]. Until then nothing is read: TCP
//! slows the sender down, and the time does not count against the peer's timeout. A [`Waiter`] that wants the
//! payload to be there first is asked when TCP has all of it, or as much as fits.
//!
//! If there is no room for an acknowledgement that the peer asked for, nothing is read either until there is.
//! A peer that does not read acknowledgements makes no progress, so its connection times out in the end.
//!
//! What is done with complete messages is in [`super::receive`].

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

/// The part of a message that is being received.
pub(super) enum State {
    /// The header, of which `have` bytes are there. These may be more than the header of a NOOP has.
    Hdr { have: usize },
    /// The message layer was asked where the payload goes, and has not returned.
    Asking,
    /// A payload that is to arrive before `waiter` is asked; `seen` bytes had arrived at the last check.
    Gather {
        waiter: KBox<dyn Waiter>,
        payload: usize,
        seen: usize,
    },
    /// A payload that is to be delivered later: by the waiter, with how much has arrived; or without a waiter,
    /// through the token that was kept.
    Parked {
        waiter: Option<(KBox<dyn Waiter>, Arrived)>,
        payload: usize,
    },
    /// A payload. `have` bytes of it are in the sink, and `slop` bytes follow. `ahead` bytes of the next header
    /// are there.
    Body {
        sink: Sink,
        have: usize,
        slop: usize,
        ahead: usize,
    },
    /// Bytes to discard. The completion, if there is one, is called after them.
    Slop {
        left: usize,
        done: Option<KBox<dyn Completion>>,
    },
}

/// Where a message comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MsgOrigin {
    /// The peer itself.
    Peer,
    /// Another node: the peer is a router, and has forwarded it.
    Routed,
}

/// What was received completely.
pub(super) enum Event {
    /// Nothing to act on.
    Nothing,
    /// A NOOP.
    Noop,
    /// The header of a message; or of a message from or to a network of another type.
    Header(core::result::Result<Header, Foreign>),
    /// A message with a completion to call.
    Payload(KBox<dyn Completion>, Progress),
    /// A message without a completion.
    End,
}

/// What is left of a message that was being received when the connection ended.
pub(super) enum Remains {
    /// Nothing that the message layer has to be told of.
    Nothing,
    /// To be completed.
    Payload(KBox<dyn Completion>),
    /// To be dropped.
    Waiter(KBox<dyn Waiter>),
}

/// The result of receiving, or the reason why the connection has to be closed.
pub(super) type Progress<T = ()> = core::result::Result<T, Reason>;

/// The receive side.
pub(super) struct Rx {
    proto: Proto,
    order: ByteOrder,
    pub(super) state: State,
    /// Where headers are read into.
    hdr_buf: RecvBuf,
    /// The message header (`struct ksock_msg_hdr`) of the current message, if the version has one.
    pub(super) msg: Msg,
    /// The cookie of a received message for whose acknowledgement there is no room yet.
    pub(super) pending_ack: Option<u64>,
    /// The checksum of the received part of the current message, if it has one and nothing of it is
    /// discarded.
    csum: Option<u32>,
    /// Where the last message comes from.
    pub(super) origin: MsgOrigin,
    /// Data was received since the last check for the end of a message.
    pub(super) new_data: bool,
}

impl Rx {
    /// The state at the start of a stream. May sleep.
    pub(super) fn new(proto: Proto, order: ByteOrder) -> Result<Self> {
        Ok(Self {
            proto,
            order,
            state: State::Hdr { have: 0 },
            hdr_buf: RecvBuf::alloc(proto.hdr_len())?,
            msg: Msg::new(MsgKind::Lnet),
            pending_ack: None,
            csum: None,
            origin: MsgOrigin::Peer,
            new_data: false,
        })
    }

    /// Whether a part of a message was received, and not all of it.
    pub(super) fn is_started(&self) -> bool {
        !matches!(self.state, State::Hdr { have: 0 }) || self.pending_ack.is_some()
    }

    /// Whether nothing is read, because the message layer has not yet said where a payload goes or because
    /// there is no room for an acknowledgement.
    pub(super) fn is_parked(&self) -> bool {
        matches!(&self.state, State::Asking | State::Parked { .. }) || self.pending_ack.is_some()
    }

    /// Whether a payload is to arrive before it is read, and the peer has to send more of it, for which TCP has
    /// room.
    pub(super) fn awaits_payload(&self, socket: &Socket) -> bool {
        match &self.state {
            State::Gather { payload, .. } => *payload > 0 && !socket.is_ready(),
            _ => false,
        }
    }

    /// Records how much of such a payload has arrived. Returns whether it is more than at the last call.
    pub(super) fn note_gathered(&mut self, socket: &Socket) -> bool {
        let State::Gather { seen, .. } = &mut self.state else {
            return false;
        };
        let before = core::mem::replace(seen, socket.available());
        *seen > before
    }

    /// Drops the message that is being received. The caller completes what is returned, with no lock held.
    pub(super) fn abandon(&mut self) -> Remains {
        match core::mem::replace(&mut self.state, State::Hdr { have: 0 }) {
            State::Hdr { .. } | State::Asking => Remains::Nothing,
            State::Gather { waiter, .. } => Remains::Waiter(waiter),
            State::Parked { waiter, .. } => match waiter {
                Some((waiter, _)) => Remains::Waiter(waiter),
                None => Remains::Nothing,
            },
            State::Body { sink, .. } => Remains::Payload(sink.done),
            State::Slop { done, .. } => done.map_or(Remains::Nothing, Remains::Payload),
        }
    }

    /// Receives once; `list` is memory for that. Returns the number of bytes; zero is the end of the stream.
    pub(super) fn receive(&mut self, socket: &Socket, list: &mut BvecBuf) -> Result<usize> {
        let hdr_len = self.proto.hdr_len();
        match &mut self.state {
            State::Hdr { have } => {
                let left = hdr_len.saturating_sub(*have);
                let mut frags = list.start_recv();
                frags.push_buf(&mut self.hdr_buf, *have, left);
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
                let mut frags = list.start_recv();
                // Without slop the next header follows: one call receives both.
                let whole = sink.memory.add_to_recv(&mut frags, *have);
                if whole && *slop == 0 {
                    frags.push_buf(&mut self.hdr_buf, 0, hdr_len);
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

    /// The offset of the LNet header in the header.
    pub(super) fn header_start(&self) -> usize {
        if self.proto.has_msg_header() {
            MSG_LEN
        } else {
            0
        }
    }

    /// The message header at the front of the header.
    fn msg(&self) -> Progress<Msg> {
        let bytes = self.hdr_buf.as_slice().first_chunk().ok_or(EPROTO)?;
        Ok(Msg::parse(bytes, self.order)?)
    }

    /// The length of the header, of which `have` bytes are there.
    fn hdr_needed(&self, have: usize) -> usize {
        if !self.proto.has_msg_header() || have < MSG_LEN {
            return self.proto.hdr_len();
        }
        match self.msg() {
            Ok(msg) if msg.kind == MsgKind::Lnet => self.proto.hdr_len(),
            // A NOOP has no more. Anything else is an error, which the caller finds.
            _ => MSG_LEN,
        }
    }

    /// Whether the current state needs no more bytes from the socket.
    pub(super) fn is_complete(&self) -> bool {
        match &self.state {
            State::Hdr { have } => *have >= self.hdr_needed(*have),
            State::Body { sink, have, .. } => *have >= sink.memory.len(),
            State::Slop { left, .. } => *left == 0,
            State::Asking | State::Gather { .. } | State::Parked { .. } => false,
        }
    }

    /// Goes to the next state. Called when [`Rx::is_complete`].
    pub(super) fn advance(&mut self) -> Progress<Event> {
        match core::mem::replace(&mut self.state, State::Hdr { have: 0 }) {
            State::Hdr { have } => self.parse_hdr(have),
            State::Body { sink, slop, .. } if slop > 0 => {
                self.state = State::Slop {
                    left: slop,
                    done: Some(sink.done),
                };
                Ok(Event::Nothing)
            }
            State::Body { sink, ahead, .. } => {
                self.state = State::Hdr { have: ahead };
                let intact = self.check_payload_csum(&sink);
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

    /// Parses the header, of which `have` bytes, or more than it has, are there.
    fn parse_hdr(&mut self, have: usize) -> Progress<Event> {
        let start = self.header_start();
        if self.proto.has_msg_header() {
            self.msg = self.msg()?;
            self.begin_csum()?;
        }
        if self.msg.kind == MsgKind::Noop {
            self.check_csum()?;
            let rest = have.saturating_sub(MSG_LEN);
            // The bytes behind it begin the next header.
            self.hdr_buf.shift(MSG_LEN, rest);
            self.state = State::Hdr { have: rest };
            return Ok(Event::Noop);
        }
        let bytes = self.hdr_buf.as_slice().get(start..).ok_or(EPROTO)?;
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
            // Before the message layer acts on it.
            self.check_csum()?;
        }
        self.state = State::Asking;
        Ok(Event::Header(header))
    }

    /// Begins the checksum of a message, if it has one, with its message header.
    fn begin_csum(&mut self) -> Progress {
        self.csum = None;
        if self.msg.csum == 0 {
            return Ok(());
        }
        if !self.proto.has_checksums() {
            // No node sends one, and the protocol does not say what it covers.
            return Err(Reason::UnexpectedChecksum(self.msg.csum));
        }
        let unsummed = Msg {
            csum: 0,
            ..self.msg
        };
        self.csum = Some(crc32(!0, &unsummed.build(self.order)?));
        Ok(())
    }

    /// Adds the payload to the checksum of a message, if it has one, and compares it.
    fn check_payload_csum(&mut self, sink: &Sink) -> Progress {
        if let Some(csum) = self.csum {
            self.csum = Some(sink.memory.crc32(csum));
        }
        self.check_csum()
    }

    /// Compares the checksum of a message, if it has one, with that of the received bytes.
    fn check_csum(&mut self) -> Progress {
        match self.csum.take() {
            Some(csum) if csum != self.msg.csum => Err(Reason::Checksum(self.msg.csum, csum)),
            _ => Ok(()),
        }
    }

    /// Takes out the buffer of the header, which the message layer reads during its call.
    pub(super) fn take_buf(&mut self) -> RecvBuf {
        core::mem::replace(&mut self.hdr_buf, RecvBuf::none())
    }

    /// Puts the buffer back.
    pub(super) fn put_buf(&mut self, frame: RecvBuf) {
        self.hdr_buf = frame;
    }

    /// Begins to receive a payload of `payload` bytes.
    pub(super) fn begin_payload(&mut self, payload: usize, delivery: Delivery) -> Result {
        let wanted = match &delivery {
            Delivery::Discard | Delivery::Misrouted => 0,
            Delivery::Accept(sink) => sink.memory.len(),
        };
        if wanted < payload {
            // Discarded bytes can't be checked.
            self.csum = None;
        }
        let Some(slop) = payload.checked_sub(wanted) else {
            // An error of the message layer, not of the peer, but the stream would get out of step. The
            // completion is called when the connection ends.
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
