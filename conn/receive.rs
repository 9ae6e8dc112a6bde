// SPDX-License-Identifier: GPL-2.0

//! Receiving: what the scheduler's thread does with what comes in by a connection.
//!
//! [`Conn::receive`] holds the connection's I/O mutex while it reads, and gives it up each time that it
//! calls the message layer, which may sleep, send, and take locks inside of which somebody waits for that
//! mutex. Meanwhile the state is [`State::Asking`], or that of the next message: nobody else receives, but
//! the reaper may end the connection, which is looked for when the mutex is taken again.
//!
//! A connection is parked while the message layer has yet to say where a payload goes. Of a token that was
//! kept, the answer waits in [`Parked`], which has a spinlock of its own, innermost; so it can be given by
//! any thread, whoever holds the mutex. When the connection ends, the answer, or its time, is over.

use super::{
    rx::{
        Event,
        Progress,
        Rx,
        State, //
    },
    Conn,
    Deadlines,
    Io,
    Reason,
    Turn,
    QUANTUM, //
};
use crate::{
    lib_linux::{
        page::RecvBuf,
        socket::{
            Socket,
            TcpState, //
        },
        time, //
    },
    trace,
    tunables,
    upper::{
        Answer,
        Arrived,
        Completion,
        Decision,
        Delivery,
        Failure,
        Incoming,
        Receiving,
        RecvToken,
        Sink,
        Until,
        Waiter, //
    },
    wire::{
        acked_ranges,
        Added,
        Foreign,
        Header, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        MutexGuard, //
    }, //
};

/// What has become of a token that was kept.
#[allow(dead_code, reason = "the embedded message layer keeps none")]
pub(super) enum Parked {
    /// Nothing yet; or there is none.
    Waits,
    /// That is where the payload goes.
    Answered(Delivery),
    /// The connection has ended.
    Over(Failure),
}

/// How far receiving has come.
pub(super) enum Step {
    /// The turn has ended.
    Over(Turn),
    /// The message layer is to be called.
    Call(Call),
}

/// A call of the message layer.
pub(super) enum Call {
    /// A message has begun.
    Parse {
        header: core::result::Result<Header, Foreign>,
        payload: usize,
        /// What was read, and where in it the header begins.
        frame: RecvBuf,
        start: usize,
    },
    /// So much of a payload is there.
    Ask {
        waiter: KBox<dyn Waiter>,
        payload: usize,
        arrived: Arrived,
    },
    /// A message has ended.
    Complete {
        done: KBox<dyn Completion>,
        result: Progress,
    },
}

/// What came of a call.
enum Returned {
    /// What is decided about the payload.
    Decision {
        result: Result<Decision>,
        payload: usize,
        arrived: Option<Arrived>,
        frame: Option<RecvBuf>,
    },
    /// The message has ended.
    Completed(Progress, Option<RecvBuf>),
}

impl Call {
    /// Calls the message layer. Thread context, no lock held.
    fn make(self, conn: &Arc<Conn>) -> Returned {
        match self {
            Self::Parse {
                header,
                payload,
                frame,
                start,
            } => {
                let raw = frame.as_slice().get(start..).unwrap_or_default();
                let result = conn.parse(header.as_ref(), raw).map(Answer::decision);
                if let (0, Ok(Decision::Now(Delivery::Accept(_)))) = (payload, &result) {
                    // This was all of it.
                    return Returned::of_nothing(result, frame);
                }
                Returned::Decision {
                    result,
                    payload,
                    arrived: None,
                    frame: Some(frame),
                }
            }
            Self::Ask {
                waiter,
                payload,
                arrived,
            } => Returned::Decision {
                result: Ok(waiter
                    .ask(arrived, RecvToken::new(conn.as_arc_borrow()))
                    .decision()),
                payload,
                arrived: Some(arrived),
                frame: None,
            },
            Self::Complete { done, result } => {
                done.complete(result.map_err(|why| why.failure().receiving()));
                Returned::Completed(result, None)
            }
        }
    }
}

impl Returned {
    /// Of a message without a payload, whose header was in `frame`: it is complete. Thread context, no lock
    /// held.
    fn of_nothing(result: Result<Decision>, frame: RecvBuf) -> Self {
        let result = match result {
            Ok(Decision::Now(Delivery::Accept(sink))) if sink.memory.len() == 0 => {
                let Sink { memory, done } = sink;
                drop(memory);
                done.complete(Ok(()));
                Ok(())
            }
            Ok(Decision::Now(delivery)) => {
                // A mistake of the message layer: it wants more than there is.
                delivery.fail(Failure::local(EIO));
                Err(EIO.into())
            }
            _ => Ok(()),
        };
        Self::Completed(result, Some(frame))
    }

    /// Nothing is to be received of what is decided: the connection has ended. Thread context, no lock
    /// held.
    fn fail(self, why: Failure) {
        if let Self::Decision {
            result: Ok(Decision::Now(delivery)),
            ..
        } = self
        {
            delivery.fail(why);
        }
    }
}

impl Conn {
    /// Receives until nothing is there, the quantum is used up, or the connection is closed. The
    /// scheduler's thread, which holds the I/O mutex, and gives it up now and then.
    pub(super) fn receive<'a>(
        self: &'a Arc<Self>,
        mut io: MutexGuard<'a, Io>,
    ) -> (MutexGuard<'a, Io>, Progress<Turn>) {
        let mut quantum = QUANTUM;
        loop {
            let call = match self.receive_some(&mut io, &mut quantum) {
                Ok(Step::Over(turn)) => return (io, Ok(turn)),
                Ok(Step::Call(call)) => call,
                Err(e) => return (io, Err(e)),
            };
            self.unlock(io);
            let returned = call.make(self);
            io = self.io.lock();
            if io.socket.is_none() {
                drop(io);
                returned.fail(self.closed().unwrap_or(Failure::dropped()));
                return (self.io.lock(), Ok(Turn::Idle));
            }
            match self.returned(&mut io, returned) {
                Ok(true) => {}
                Ok(false) => return (io, Ok(Turn::Idle)),
                Err(e) => return (io, Err(e)),
            }
        }
    }

    /// Goes on after a call of the message layer. Returns whether to go on with receiving.
    #[inline(never)]
    fn returned(self: &Arc<Self>, io: &mut Io, returned: Returned) -> Progress<bool> {
        match returned {
            Returned::Decision {
                result,
                payload,
                arrived,
                frame,
            } => {
                if let Some(frame) = frame {
                    io.rx.put_buf(frame);
                }
                self.decided(io, payload, arrived, result?)
            }
            Returned::Completed(result, frame) => {
                if let Some(frame) = frame {
                    io.rx.put_buf(frame);
                    io.rx.state = State::Frame { have: 0 };
                }
                result?;
                self.arrived(&mut io.rx)?;
                Ok(true)
            }
        }
    }

    /// Asks the message layer what becomes of a message, whose header is `raw` on the wire.
    fn parse(
        self: &Arc<Self>,
        header: core::result::Result<&Header, &Foreign>,
        raw: &[u8],
    ) -> Result<Answer> {
        let peer = &self.peer;
        let token = RecvToken::new(self.as_arc_borrow());
        let msg = Incoming {
            via: peer.nid(),
            addr: self.remote.ip(),
            header,
            raw,
        };
        let ni = peer.ni();
        ni.upper().parse(ni.as_arc_borrow(), &msg, token)
    }

    /// The answer of whoever has kept the token, if there is one.
    fn take_delivery(&self) -> Option<Delivery> {
        let mut parked = self.parked.lock();
        match core::mem::replace(&mut *parked, Parked::Waits) {
            Parked::Answered(delivery) => Some(delivery),
            other => {
                *parked = other;
                None
            }
        }
    }

    /// The connection has ended because of `why`: what may still be said about a payload is too late. The
    /// reaper's thread, no lock held.
    pub(super) fn end_parked(&self, why: Failure) {
        let before = core::mem::replace(&mut *self.parked.lock(), Parked::Over(why));
        if let Parked::Answered(delivery) = before {
            delivery.fail(why);
        }
    }

    /// Receives until the message layer has to be called, nothing is there, the quantum is used up, or the
    /// connection is closed. The scheduler's thread.
    // Not inlined: what it needs of the stack is free again when the message layer is called.
    #[inline(never)]
    fn receive_some(self: &Arc<Self>, io: &mut Io, quantum: &mut usize) -> Progress<Step> {
        loop {
            // What needs no more bytes. A connection that was closed meanwhile stays in the state that it is
            // in, for `Rx::abandon`.
            while io.rx.due.is_none() && io.rx.is_complete() && !self.is_closing() {
                match io.rx.advance()? {
                    Event::Nothing => {}
                    Event::Noop => self.take_acks(io)?,
                    Event::Header(header) => {
                        let (payload, routed) = match &header {
                            Ok(header) => (header.payload_len, header.src != self.peer.nid()),
                            Err(foreign) => (foreign.payload_len, true),
                        };
                        self.begun(io, payload, routed)?;
                        return Ok(Step::Call(Call::Parse {
                            header,
                            payload: payload as usize,
                            start: io.rx.header_start(),
                            frame: io.rx.take_buf(),
                        }));
                    }
                    Event::Payload(done, result) => {
                        return Ok(Step::Call(Call::Complete { done, result }));
                    }
                    Event::End => self.arrived(&mut io.rx)?,
                }
            }
            if io.rx.fresh {
                io.rx.fresh = false;
                // All that came so far are whole messages. A gateway's buffer is in use until TCP has
                // acknowledged what was in it, and others may wait for that.
                if (tunables::eager_acks() || io.rx.routed) && !io.rx.is_started() {
                    if let Some(socket) = io.socket.as_ref() {
                        socket.acknowledge_now();
                    }
                }
            }
            if *quantum == 0 {
                return Ok(Step::Over(Turn::More));
            }
            let Some(socket) = io.socket.as_ref().filter(|_| !self.is_closing()) else {
                return Ok(Step::Over(Turn::Idle));
            };
            if let Some(cookie) = io.rx.due {
                // Without reading, this is how the end of the connection shows.
                if let Some(e) = socket.failure() {
                    return Err(e.into());
                }
                self.acknowledge(&mut io.rx, cookie)?;
                if io.rx.due.is_some() {
                    return Ok(Step::Over(Turn::Idle));
                }
                io.deadlines.rx_progress(time::monotonic_ms());
                *quantum = quantum.saturating_sub(QUANTUM / 64);
                continue;
            }
            if matches!(&io.rx.state, State::Gather { .. }) {
                let Some(call) = self.gathered(&mut io.rx, &mut io.deadlines, socket)? else {
                    return Ok(Step::Over(Turn::Idle));
                };
                // Of messages without a payload many could be passed on in one turn.
                *quantum = quantum.saturating_sub(QUANTUM / 64);
                return Ok(Step::Call(call));
            }
            if matches!(&io.rx.state, State::Parked { .. }) {
                if let Some(e) = socket.failure() {
                    return Err(e.into());
                }
                *quantum = quantum.saturating_sub(QUANTUM / 64);
                match self.parked(io)? {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            }
            let nob = match io.rx.receive(socket) {
                Ok(0) if io.rx.is_started() => return Err(Reason::Cut),
                Ok(0) => return Err(ECONNRESET.into()),
                Ok(nob) => nob,
                Err(e) if e == EAGAIN => return Ok(Step::Over(Turn::Idle)),
                Err(e) => return Err(e.into()),
            };
            let now = time::monotonic_ms();
            io.deadlines.rx_progress(now);
            io.rx.fresh = true;
            self.peer.set_last_alive(now);
            self.traffic.rx_bytes.add(nob as u64);
            // Small messages cost more than their bytes.
            *quantum = quantum.saturating_sub(nob.max(QUANTUM / 64));
        }
    }

    /// Whether the payload is there that `rx` gathers: then its waiter is to be asked.
    fn gathered(
        &self,
        rx: &mut Rx,
        deadlines: &mut Deadlines,
        socket: &Socket,
    ) -> Progress<Option<Call>> {
        // Without reading, this is how the end of the connection shows.
        if let Some(e) = socket.failure() {
            return Err(e.into());
        }
        let State::Gather { payload, .. } = &rx.state else {
            return Ok(None);
        };
        let payload = *payload;
        if socket.available() < payload {
            socket.wait_for(payload);
        }
        if rx.is_short(socket) {
            if socket.state() != TcpState::Established {
                // Nothing more will come.
                return Err(Reason::Cut);
            }
            self.gathers(rx, deadlines, socket);
            return Ok(None);
        }
        let arrived = if socket.available() < payload {
            Arrived::Part
        } else {
            Arrived::All
        };
        let gathered = core::mem::replace(&mut rx.state, State::Asking);
        let State::Gather { waiter, .. } = gathered else {
            return Ok(None);
        };
        Ok(Some(Call::Ask {
            waiter,
            payload,
            arrived,
        }))
    }

    /// Looks whether the message layer has said where the payload goes for which the connection is parked.
    /// `None` is yes, and it goes on.
    fn parked(&self, io: &mut Io) -> Progress<Option<Step>> {
        let (waiter, payload) = match core::mem::replace(&mut io.rx.state, State::Asking) {
            State::Parked { waiter, payload } => (waiter, payload),
            other => {
                io.rx.state = other;
                return Ok(None);
            }
        };
        if let Some((waiter, arrived)) = waiter {
            return Ok(Some(Step::Call(Call::Ask {
                waiter,
                payload,
                arrived,
            })));
        }
        match self.take_delivery() {
            Some(delivery) => {
                self.go_on(io, payload, delivery)?;
                Ok(None)
            }
            None => {
                io.rx.state = State::Parked {
                    waiter: None,
                    payload,
                };
                Ok(Some(Step::Over(Turn::Idle)))
            }
        }
    }

    /// A payload goes on whose connection was parked.
    fn go_on(&self, io: &mut Io, payload: usize, delivery: Delivery) -> Result {
        if let Some(socket) = &io.socket {
            socket.wait_for(1);
        }
        // What this side has waited for is not counted against the peer.
        io.deadlines.rx_progress(time::monotonic_ms());
        self.begin_payload(io, payload, delivery)
    }

    /// `payload` bytes follow, and that is where they go.
    fn begin_payload(&self, io: &mut Io, payload: usize, delivery: Delivery) -> Result {
        if let Delivery::Misrouted = delivery {
            self.peer.count(1, |events| &events.misrouted);
        }
        io.rx.begin_payload(payload, delivery)
    }

    /// The message layer has said what becomes of `payload` bytes, of which, if it was a waiter, so much is
    /// there. Returns whether to go on with receiving.
    fn decided(
        self: &Arc<Self>,
        io: &mut Io,
        payload: usize,
        arrived: Option<Arrived>,
        decision: Decision,
    ) -> Progress<bool> {
        let delivery = match decision {
            Decision::Now(delivery) => delivery,
            Decision::Later => {
                io.rx.state = State::Parked {
                    waiter: None,
                    payload,
                };
                return Ok(true);
            }
            Decision::Wait(waiter, Until::Arrived) => {
                io.rx.state = State::Gather {
                    waiter,
                    payload,
                    seen: 0,
                };
                return Ok(true);
            }
            Decision::Wait(waiter, until) => {
                io.rx.state = State::Parked {
                    waiter: Some((waiter, arrived.unwrap_or(Arrived::Part))),
                    payload,
                };
                if until == Until::Memory {
                    self.peer.ni().context().retry(self.clone());
                }
                return Ok(false);
            }
        };
        if arrived.is_some() {
            self.go_on(io, payload, delivery)?;
        } else {
            self.begin_payload(io, payload, delivery)?;
        }
        Ok(true)
    }

    /// A message has begun with so much payload, which the peer has sent itself or passed on.
    fn begun(&self, io: &mut Io, payload_len: u32, routed: bool) -> Progress {
        self.traffic.rx_msgs.add(1);
        let frame = self.proto.hdr_len() as u64;
        let bytes = u64::from(payload_len).saturating_add(frame);
        trace::receive(|| self.traced(), bytes, None);
        self.peer.note_rx();
        io.rx.routed = routed;
        // Not after the payload, which may have to wait for a buffer that this sets free.
        self.take_acks(io)
    }

    /// The peer has sent a message header, which may say which messages of ours have arrived.
    fn take_acks(&self, io: &mut Io) -> Progress {
        let ranges = acked_ranges(self.proto, &io.rx.msg)?;
        if ranges == [None; 2] {
            return Ok(());
        }
        Ok(self.peer.handle_zc_ack(ranges, io.ended.sent())?)
    }

    /// Looks whether more has come of a payload that is to be there before it is read. May sleep.
    pub(super) fn gathers(&self, rx: &mut Rx, deadlines: &mut Deadlines, socket: &Socket) {
        if rx.has_grown(socket) {
            let now = time::monotonic_ms();
            deadlines.rx_progress(now);
            self.peer.set_last_alive(now);
        }
    }

    /// All of a message has arrived: its sender may want to be told.
    pub(super) fn arrived(self: &Arc<Self>, rx: &mut Rx) -> Progress {
        match rx.msg.cookies {
            [0, _] => Ok(()),
            [cookie, _] => self.acknowledge(rx, cookie),
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
}

impl Receiving for Conn {
    fn deliver(self: Arc<Self>, delivery: Delivery) {
        let mut parked = self.parked.lock();
        if let Parked::Over(why) = *parked {
            drop(parked);
            return delivery.fail(why);
        }
        let before = core::mem::replace(&mut *parked, Parked::Answered(delivery));
        drop(parked);
        // Nothing: there is one token at a time.
        drop(before);
        self.retry();
    }

    fn wake(self: Arc<Self>) {
        self.retry();
    }

    fn give_up(self: Arc<Self>) {
        self.close_late();
    }
}
