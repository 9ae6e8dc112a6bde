// SPDX-License-Identifier: GPL-2.0

//! The receive side of a connection: header, body, slop.
//!
//! [`Rx`] is part of the connection's I/O state and protected by its mutex. Between messages it
//! waits for a header. The message layer says where the payload goes, and the payload is received
//! straight into those pages; what it doesn't want is skipped, so that the stream stays in step.
//! The buffer of a message that is being received is kept alive by the [`Sink`] here.

use super::{
    Conn,
    Io,
    Turn,
    QUANTUM, //
};
use crate::{
    lib_linux::{
        iov::BvecBuf,
        page::PageFrag,
        socket::Socket,
        time,
        trace, //
    },
    portals::{
        Delivery,
        Sink, //
    },
    tunables,
    tx::Completion,
    wire::{
        Header,
        HEADER_LEN, //
    }, //
};
use kernel::prelude::*;

/// Fragments of one receive call: the payload of the largest message, at any offset, and the
/// header of the next.
const RX_FRAGS: usize = 260;

/// What is being received.
enum State {
    /// A header, of which `have` bytes are there.
    Header { have: usize },
    /// A payload; `have` bytes of it are in the sink, and `slop` bytes follow.
    Body {
        sink: Sink,
        have: usize,
        slop: usize,
    },
    /// Bytes that nobody wants. The completion, if there is one, is due after them.
    Slop {
        left: usize,
        done: Option<KBox<dyn Completion>>,
    },
}

/// The receive side.
pub(super) struct Rx {
    state: State,
    /// Where headers are read into.
    header: PageFrag,
    frags: BvecBuf,
}

impl Rx {
    /// At the start of a stream. May sleep.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            state: State::Header { have: 0 },
            header: PageFrag::alloc(HEADER_LEN)?,
            frags: BvecBuf::with_capacity(RX_FRAGS)?,
        })
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_started(&self) -> bool {
        !matches!(self.state, State::Header { have: 0 })
    }

    /// Gives up what is being received; the caller completes what comes back.
    pub(super) fn abandon(&mut self) -> Option<KBox<dyn Completion>> {
        match core::mem::replace(&mut self.state, State::Header { have: 0 }) {
            State::Header { .. } => None,
            State::Body { sink, .. } => Some(sink.done),
            State::Slop { done, .. } => done,
        }
    }

    /// Receives once. Returns how many bytes came; zero is the end of the stream.
    fn receive(&mut self, socket: &Socket) -> Result<usize> {
        match &mut self.state {
            State::Header { have } => {
                let left = HEADER_LEN.saturating_sub(*have);
                let mut frags = self.frags.start_recv();
                frags.push_frag_mut(&mut self.header, *have, left);
                let nob = socket.recv(&frags)?;
                *have = have.saturating_add(nob);
                Ok(nob)
            }
            State::Body { sink, have, slop } => {
                let left = sink.range.len().saturating_sub(*have);
                let mut frags = self.frags.start_recv();
                // With nothing to skip, the next header is right behind: one call for both.
                let whole = frags.push_range(&sink.range, *have);
                if whole && *slop == 0 {
                    frags.push_frag_mut(&mut self.header, 0, HEADER_LEN);
                }
                let nob = socket.recv(&frags)?;
                let body = nob.min(left);
                *have = have.saturating_add(body);
                if nob > body {
                    // The header's bytes came after the whole body.
                    let State::Body { sink, .. } =
                        core::mem::replace(&mut self.state, State::Header { have: nob - body })
                    else {
                        return Ok(nob);
                    };
                    sink.done.complete(Ok(()));
                }
                Ok(nob)
            }
            State::Slop { left, .. } => {
                let nob = socket.discard(*left)?;
                *left = left.saturating_sub(nob);
                Ok(nob)
            }
        }
    }

    /// Goes on to the next state if the current one has all it needs. Returns a complete header.
    fn advance(&mut self) -> Result<Option<Header>> {
        match &self.state {
            State::Header { have } if *have < HEADER_LEN => return Ok(None),
            State::Body { sink, have, .. } if *have < sink.range.len() => return Ok(None),
            State::Slop { left, .. } if *left > 0 => return Ok(None),
            _ => {}
        }
        match core::mem::replace(&mut self.state, State::Header { have: 0 }) {
            State::Header { .. } => {
                let bytes = self.header.as_slice().first_chunk().ok_or(EPROTO)?;
                return Ok(Some(Header::parse(bytes).map_err(|_| EPROTO)?));
            }
            State::Body { sink, slop, .. } if slop > 0 => {
                self.state = State::Slop {
                    left: slop,
                    done: Some(sink.done),
                };
            }
            State::Body { sink, .. } => sink.done.complete(Ok(())),
            State::Slop { done, .. } => {
                if let Some(done) = done {
                    done.complete(Ok(()));
                }
            }
        }
        Ok(None)
    }

    /// After a header: `payload` bytes follow, for which the message layer has decided `delivery`.
    fn expect(&mut self, payload: usize, delivery: Delivery) -> Result {
        self.state = match delivery {
            Delivery::Discard => State::Slop {
                left: payload,
                done: None,
            },
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
                }
            }
        };
        Ok(())
    }

    /// Whether the current state is over without another byte from the socket.
    fn is_complete(&self) -> bool {
        match &self.state {
            State::Header { have } => *have >= HEADER_LEN,
            State::Body { sink, have, .. } => *have >= sink.range.len(),
            State::Slop { left, .. } => *left == 0,
        }
    }
}

impl Conn {
    /// Receives until nothing is there or the quantum is used up. The scheduler's thread.
    pub(super) fn receive(&self, io: &mut Io) -> Result<Turn> {
        let Some(socket) = io.socket.as_ref() else {
            return Ok(Turn::Idle);
        };
        let mut quantum = QUANTUM;
        while quantum > 0 {
            let nob = match io.rx.receive(socket) {
                Ok(0) if io.rx.is_started() => return Err(EPROTO),
                Ok(0) => return Err(ECONNRESET),
                Ok(nob) => nob,
                Err(e) if e == EAGAIN => return Ok(Turn::Idle),
                Err(e) => return Err(e),
            };
            let now = time::monotonic_ms();
            io.deadlines.rx_progress(now);
            self.peer.alive(now);
            self.traffic.rx_bytes.add(nob as u64);
            // Small messages cost more than their bytes.
            quantum = quantum.saturating_sub(nob.max(QUANTUM / 64));
            while io.rx.is_complete() {
                if let Some(header) = io.rx.advance()? {
                    self.traffic.rx_msgs.add(1);
                    let bytes = u64::from(header.payload_len).saturating_add(HEADER_LEN as u64);
                    trace::receive(|| self.subject(), bytes, None);
                    self.peer.heard();
                    let delivery = self.deliver(&header)?;
                    io.rx.expect(header.payload_len as usize, delivery)?;
                }
            }
            // All that came so far are whole messages.
            if tunables::eager_acks() && !io.rx.is_started() {
                socket.acknowledge_now();
            }
        }
        Ok(Turn::More)
    }

    /// Asks the message layer what to do with the message that `header` begins.
    fn deliver(&self, header: &Header) -> Result<Delivery> {
        let ni = self.peer.ni();
        if header.dest != ni.nid() || header.src != self.peer.nid() {
            // There is no forwarding: such a message is for nobody here, or not from whom it says.
            self.peer.count(1, |events| &events.misrouted);
            return Ok(Delivery::Discard);
        }
        ni.upper().parse(ni, self.peer.nid(), header)
    }
}
