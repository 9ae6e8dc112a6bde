// SPDX-License-Identifier: GPL-2.0

//! Receiving: what the scheduler's thread does with data that a connection receives.
//!
//! [`Conn::receive`] holds the connection's I/O mutex while it reads, and unlocks it for each call of the
//! message layer, which may sleep, send, and take locks inside of which another thread waits for that mutex.
//! During the call the state is [`State::Asking`], or that of the next message. No other thread receives
//! then, but the reaper may end the connection, so that is checked when the mutex is locked again.
//!
//! A connection is parked while the message layer has not yet said where a payload goes. If the message layer
//! keeps the receive token, its delivery is stored in [`Parked`], which has a spinlock of its own, the
//! innermost lock; so any thread can deliver, whatever thread holds the mutex. When the connection ends, the
//! delivery fails.

use super::{
    rx::{
        Event,
        MsgOrigin,
        Progress,
        Rx,
        State, //
    },
    upcall::{
        Call,
        Returned, //
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
        iov::BvecBuf,
        misc,
        socket::{
            Socket,
            TcpState, //
        },
        time, //
    },
    trace,
    tunables,
    upper::{
        Arrived,
        Decision,
        Delivery,
        Failure,
        Receiving,
        Until, //
    },
    wire::{
        acked_ranges,
        Added, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        MutexGuard, //
    }, //
};

/// The state of a receive token that the message layer has kept.
#[allow(dead_code, reason = "the embedded message layer keeps none")]
pub(super) enum Parked {
    /// It has not delivered; or there is no token.
    Waits,
    /// Where the payload goes.
    Answered(Delivery),
    /// The connection has ended.
    Over(Failure),
}

/// Why receiving stops for now.
pub(super) enum Step {
    /// The turn has ended.
    Over(Turn),
    /// The message layer is to be called.
    Call(Call),
}

impl Conn {
    /// Receives until no data is left, the quantum is used up, or the connection is closed. The scheduler's
    /// thread; the I/O mutex is unlocked for calls of the message layer.
    pub(super) fn receive<'a>(
        self: &'a Arc<Self>,
        mut io: MutexGuard<'a, Io>,
        list: &mut BvecBuf,
    ) -> (MutexGuard<'a, Io>, Progress<Turn>) {
        let mut quantum = QUANTUM;
        loop {
            let call = match self.receive_some(&mut io, &mut quantum, list) {
                Ok(Step::Over(turn)) => return (io, Ok(turn)),
                Ok(Step::Call(call)) => call,
                Err(e) => return (io, Err(e)),
            };
            self.unlock(io);
            let returned = call.make(self);
            io = self.io.lock();
            if io.socket.is_none() {
                drop(io);
                returned.fail(self.close_reason().unwrap_or(Failure::dropped()));
                return (self.io.lock(), Ok(Turn::Idle));
            }
            match self.resume(&mut io, returned) {
                Ok(true) => {}
                Ok(false) => return (io, Ok(Turn::Idle)),
                Err(e) => return (io, Err(e)),
            }
        }
    }

    /// Continues after a call of the message layer. Returns whether to receive more.
    #[inline(never)]
    fn resume(self: &Arc<Self>, io: &mut Io, returned: Returned) -> Progress<bool> {
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
                self.apply_decision(io, payload, arrived, result?)
            }
            Returned::Completed(result, frame) => {
                if let Some(frame) = frame {
                    io.rx.put_buf(frame);
                    io.rx.state = State::Hdr { have: 0 };
                }
                result?;
                self.finish_msg(&mut io.rx)?;
                Ok(true)
            }
        }
    }

    /// The delivery of a token that was kept, if there is one.
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

    /// The connection has ended because of `why`: a delivery of a kept token fails from now on. The reaper's
    /// thread, no lock held.
    pub(super) fn end_parked(&self, why: Failure) {
        misc::assert_may_sleep();
        let before = core::mem::replace(&mut *self.parked.lock(), Parked::Over(why));
        if let Parked::Answered(delivery) = before {
            delivery.fail(why);
        }
    }

    /// Receives until the message layer has to be called, no data is left, the quantum is used up, or the
    /// connection is closed. The scheduler's thread.
    // Not inlined, so that its stack frame is gone when the message layer is called.
    #[inline(never)]
    fn receive_some(
        self: &Arc<Self>,
        io: &mut Io,
        quantum: &mut usize,
        list: &mut BvecBuf,
    ) -> Progress<Step> {
        loop {
            // Handle everything that needs no more bytes. If the connection is closed, the state stays as it
            // is, for `Rx::abandon`.
            while io.rx.pending_ack.is_none() && io.rx.is_complete() && !self.is_closing() {
                match io.rx.advance()? {
                    Event::Nothing => {}
                    Event::Noop => self.handle_acks(io)?,
                    Event::Header(header) => {
                        let (payload, origin) = match &header {
                            Ok(header) if header.src == self.peer.nid() => {
                                (header.payload_len, MsgOrigin::Peer)
                            }
                            Ok(header) => (header.payload_len, MsgOrigin::Routed),
                            Err(foreign) => (foreign.payload_len, MsgOrigin::Routed),
                        };
                        self.begin_msg(io, payload, origin)?;
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
                    Event::End => self.finish_msg(&mut io.rx)?,
                }
            }
            if io.rx.new_data {
                io.rx.new_data = false;
                // Only whole messages were received so far. A router's buffer is in use until TCP has
                // acknowledged its contents, and other messages may wait for it.
                let is_routed = io.rx.origin == MsgOrigin::Routed;
                if (tunables::eager_acks() || is_routed) && !io.rx.is_started() {
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
            if let Some(cookie) = io.rx.pending_ack {
                // Nothing is read, so check here whether the connection has ended.
                if let Some(e) = socket.failure() {
                    return Err(e.into());
                }
                self.ack_msg(&mut io.rx, cookie)?;
                if io.rx.pending_ack.is_some() {
                    return Ok(Step::Over(Turn::Idle));
                }
                io.deadlines.note_rx_progress(time::monotonic_ms());
                *quantum = quantum.saturating_sub(QUANTUM / 64);
                continue;
            }
            if matches!(&io.rx.state, State::Gather { .. }) {
                let Some(call) = self.poll_gather(&mut io.rx, &mut io.deadlines, socket)? else {
                    return Ok(Step::Over(Turn::Idle));
                };
                // Otherwise one turn could handle any number of messages without a payload.
                *quantum = quantum.saturating_sub(QUANTUM / 64);
                return Ok(Step::Call(call));
            }
            if matches!(&io.rx.state, State::Parked { .. }) {
                if let Some(e) = socket.failure() {
                    return Err(e.into());
                }
                *quantum = quantum.saturating_sub(QUANTUM / 64);
                match self.poll_parked(io)? {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            }
            let nob = match io.rx.receive(socket, list) {
                Ok(0) if io.rx.is_started() => return Err(Reason::Cut),
                Ok(0) => return Err(ECONNRESET.into()),
                Ok(nob) => nob,
                Err(e) if e == EAGAIN => return Ok(Step::Over(Turn::Idle)),
                Err(e) => return Err(e.into()),
            };
            let now = time::monotonic_ms();
            io.deadlines.note_rx_progress(now);
            io.rx.new_data = true;
            self.peer.set_last_alive(now);
            self.traffic.rx_bytes.add(nob as u64);
            // A small message takes more time than its bytes.
            *quantum = quantum.saturating_sub(nob.max(QUANTUM / 64));
        }
    }

    /// Returns the call of the waiter, if the payload that it waits for has arrived.
    fn poll_gather(
        &self,
        rx: &mut Rx,
        deadlines: &mut Deadlines,
        socket: &Socket,
    ) -> Progress<Option<Call>> {
        // Nothing is read, so check here whether the connection has ended.
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
        if rx.awaits_payload(socket) {
            if socket.state() != TcpState::Established {
                // No more data will arrive.
                return Err(Reason::Cut);
            }
            self.note_gather_progress(rx, deadlines, socket);
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

    /// Checks whether the message layer has said where the payload goes for which the connection is parked.
    /// Returns `None` if it has: receiving continues.
    fn poll_parked(&self, io: &mut Io) -> Progress<Option<Step>> {
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
                self.resume_payload(io, payload, delivery)?;
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

    /// Begins to receive a payload for which the connection was parked.
    fn resume_payload(&self, io: &mut Io, payload: usize, delivery: Delivery) -> Result {
        if let Some(socket) = &io.socket {
            socket.wait_for(1);
        }
        // The time of the wait does not count against the peer's timeout.
        io.deadlines.note_rx_progress(time::monotonic_ms());
        self.begin_payload(io, payload, delivery)
    }

    /// Begins to receive a payload of `payload` bytes.
    fn begin_payload(&self, io: &mut Io, payload: usize, delivery: Delivery) -> Result {
        if let Delivery::Misrouted = delivery {
            self.peer.count(1, |events| &events.misrouted);
        }
        io.rx.begin_payload(payload, delivery)
    }

    /// Acts on the message layer's decision about a payload of `payload` bytes, of which `arrived` has arrived
    /// if a waiter made the decision. Returns whether to receive more.
    fn apply_decision(
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
                let so_far = if payload == 0 {
                    Arrived::All
                } else {
                    Arrived::Part
                };
                io.rx.state = State::Parked {
                    waiter: Some((waiter, arrived.unwrap_or(so_far))),
                    payload,
                };
                if until == Until::Memory {
                    self.peer.ni().context().retry(self.clone());
                }
                return Ok(false);
            }
        };
        if arrived.is_some() {
            self.resume_payload(io, payload, delivery)?;
        } else {
            self.begin_payload(io, payload, delivery)?;
        }
        Ok(true)
    }

    /// The header of a message was received: counts it, and handles the acknowledgements in it.
    fn begin_msg(&self, io: &mut Io, payload_len: u32, origin: MsgOrigin) -> Progress {
        self.traffic.rx_msgs.add(1);
        let frame = self.proto.hdr_len() as u64;
        let bytes = u64::from(payload_len).saturating_add(frame);
        trace::receive(|| self.traced(), bytes, None);
        self.peer.note_rx();
        io.rx.origin = origin;
        // Before the payload, which may wait for a buffer that an acknowledgement frees.
        self.handle_acks(io)
    }

    /// Handles the acknowledgements in a message header from the peer.
    fn handle_acks(&self, io: &mut Io) -> Progress {
        let ranges = acked_ranges(self.proto, &io.rx.msg)?;
        if ranges == [None; 2] {
            return Ok(());
        }
        Ok(self.peer.handle_zc_ack(ranges, io.ended.sent())?)
    }

    /// Records progress if more has arrived of a payload that is not read before all of it is there. May sleep.
    pub(super) fn note_gather_progress(
        &self,
        rx: &mut Rx,
        deadlines: &mut Deadlines,
        socket: &Socket,
    ) {
        if rx.note_gathered(socket) {
            let now = time::monotonic_ms();
            deadlines.note_rx_progress(now);
            self.peer.set_last_alive(now);
        }
    }

    /// A whole message was received: acknowledges it if its sender asked for that.
    pub(super) fn finish_msg(self: &Arc<Self>, rx: &mut Rx) -> Progress {
        match rx.msg.cookies {
            [0, _] => Ok(()),
            [cookie, _] => self.ack_msg(rx, cookie),
        }
    }

    /// Queues the acknowledgement of a message with this cookie.
    fn ack_msg(self: &Arc<Self>, rx: &mut Rx, cookie: u64) -> Progress {
        rx.pending_ack = match self.peer.queue_zc_ack(self, cookie, rx.origin)? {
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
        // Nothing is in it: there is one token at a time.
        drop(before);
        self.retry();
    }

    fn wake(self: Arc<Self>) {
        self.retry();
    }

    fn give_up(self: Arc<Self>) {
        self.close_slow_sender();
    }
}
