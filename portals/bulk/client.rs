// SPDX-License-Identifier: GPL-2.0

//! The side of the bulk service that uses it.
//!
//! Everything here belongs to the thread that calls [`run`], and ends when that returns: a
//! [`Transfer`] that is dropped cancels what it has under way. Memory whose operation did not end
//! well is never used for another message: TCP may still send it, or a late REPLY be written to it.

use super::{
    BulkOp,
    BulkResult,
    BulkSpec,
    Kind,
    Offer,
    State,
    NONCE_MASK,
    PORTAL_GET,
    PORTAL_PUT,
    SPREAD,
    STATE_LEN,
    TURNS,
    TURN_BYTES, //
};
use crate::{
    lib_linux::{
        misc,
        page::{
            PageRange,
            Pages, //
        },
        thread,
        time, //
    },
    portals::{
        op::{
            Inbox,
            OpHandle,
            Outcome, //
        },
        outgoing::{
            Get,
            Put, //
        },
        Core, //
    },
    upper::NiRef,
    wire::MAX_PAYLOAD, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// How long the server may take to open a session, in milliseconds.
const OPEN_MS: u64 = 30_000;
/// So many failures one after the other, on top of those that were under way, end a transfer.
const MAX_FAILURES: u64 = 64;

/// See [`crate::portals::Local::run_bulk`].
pub(in crate::portals) fn run(
    core: &Arc<Core>,
    ni: NiRef<'_>,
    spec: &BulkSpec,
) -> Result<BulkResult> {
    if spec.size > MAX_PAYLOAD {
        return Err(EMSGSIZE);
    }
    let offer = Offer {
        op: spec.op,
        verify: spec.verify,
        size: spec.size,
        in_flight: spec.in_flight,
    };
    if !offer.is_sane() || spec.count == 0 || spec.timeout_ms == 0 {
        return Err(EINVAL);
    }
    let start_ms = time::monotonic_ms();
    let session = Session {
        core,
        ni,
        spec,
        nonce: misc::random_u64() & NONCE_MASK,
        deadline_ms: start_ms.saturating_add(u64::from(spec.timeout_ms)),
    };
    let open_ms = session.deadline_ms.min(start_ms.saturating_add(OPEN_MS));
    let result = session
        .open(offer, open_ms)
        .and_then(|window| session.transfer(window));
    session.close();
    result
}

/// What all messages of a session have in common.
struct Session<'a> {
    core: &'a Arc<Core>,
    ni: NiRef<'a>,
    spec: &'a BulkSpec,
    nonce: u64,
    deadline_ms: u64,
}

impl Session<'_> {
    /// Tells the server something.
    fn tell(&self, kind: Kind, hdr_data: u64, deadline_ms: u64) -> Result {
        let put = Put {
            to: self.spec.peer,
            portal: PORTAL_PUT,
            match_bits: kind.bits(self.nonce, 0),
            hdr_data,
            offset: 0,
            payload: None,
            ack: true,
        };
        let outcome = self.core.put_and_wait(self.ni, put, deadline_ms)?;
        outcome.result.map(|_| ())
    }

    /// Asks the server how it sees the session. `EBUSY` if there is none.
    fn state(&self, deadline_ms: u64) -> Result<State> {
        let pages = Arc::new(Pages::alloc(STATE_LEN)?, GFP_KERNEL)?;
        let get = Get {
            to: self.spec.peer,
            portal: PORTAL_GET,
            match_bits: Kind::State.bits(self.nonce, 0),
            offset: 0,
            sink: PageRange::new(pages.clone(), 0, STATE_LEN)?,
        };
        let outcome = self.core.get_and_wait(self.ni, get, deadline_ms)?;
        if outcome.result? as usize != STATE_LEN {
            return Err(EPROTO);
        }
        let mut bytes = [0; STATE_LEN];
        pages.copy_out(0, &mut bytes)?;
        let state = State::from_bytes(&bytes).ok_or(EPROTO)?;
        if state.status != 0 {
            return Err(EBUSY);
        }
        Ok(state)
    }

    /// Opens the session and says how many messages may be under way.
    fn open(&self, offer: Offer, deadline_ms: u64) -> Result<u32> {
        self.tell(Kind::Open, offer.encode(), deadline_ms)?;
        let state = self.state(deadline_ms)?;
        // What is more than we could do ourselves is no answer either.
        if state.size != offer.size || !(1..=offer.window()).contains(&state.window) {
            return Err(EPROTO);
        }
        Ok(state.window)
    }

    /// The message is sent in any case. The answer is waited for if there is time and no signal, so
    /// that the session is gone when the caller is told; but there is nothing to do if it fails.
    fn close(&self) {
        let _ = self.tell(Kind::Close, 0, self.deadline_ms);
    }

    fn transfer(&self, window: u32) -> Result<BulkResult> {
        let mut transfer = Transfer::new(self, window)?;
        let is_complete = transfer.run()?;
        let mut result = transfer.into_result();
        if is_complete && self.spec.op == BulkOp::Put && self.spec.verify {
            self.compare(&mut result);
        }
        Ok(result)
    }

    /// Compares the server's count with ours.
    fn compare(&self, result: &mut BulkResult) {
        match self.state(self.deadline_ms) {
            Ok(state) => {
                result.verify_failures = result.verify_failures.saturating_add(state.bad);
                // A message may have arrived without its ACK having done so, but not the other way.
                let arrived = state.good.saturating_add(state.bad);
                let lacking = result.messages.saturating_sub(arrived);
                // Nor may more have arrived than were sent: then one came twice.
                let sent = result.messages.saturating_add(result.errors);
                let excess = arrived.saturating_sub(sent);
                result.verify_failures = result
                    .verify_failures
                    .saturating_add(lacking)
                    .saturating_add(excess);
            }
            // The count is a message too, and this run is not known to have gone well.
            Err(e) => {
                result.errors = result.errors.saturating_add(1);
                result.first_error.get_or_insert(e);
            }
        }
    }
}

/// One of the messages that may be under way at a time.
struct Slot {
    /// `None` if it has to be made.
    pages: Option<Arc<Pages>>,
    op: Option<OpHandle>,
    started: Instant<Monotonic>,
    /// How many messages it has had.
    turn: u32,
    /// The hash that the message under way should have.
    expected: u64,
}

/// The messages of a session.
struct Transfer<'a> {
    session: &'a Session<'a>,
    inbox: Arc<Inbox>,
    slots: KVec<Slot>,
    /// Slots without a message.
    free: KVec<u32>,
    /// Of a GET: what the server has.
    reference: Option<Pages>,
    /// The hashes of messages, once they are known: by turn, and for PUTs by slot and turn.
    hashes: KVVec<Option<u64>>,
    /// Messages that were started, or could not be.
    begun: u64,
    failures: u64,
    first_start: Option<Instant<Monotonic>>,
    last_end: Option<Instant<Monotonic>>,
    latency_sum_ns: u64,
    result: BulkResult,
}

impl<'a> Transfer<'a> {
    fn new(session: &'a Session<'a>, window: u32) -> Result<Self> {
        let spec = session.spec;
        let count = window as usize;
        let mut slots = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut free = KVec::with_capacity(count, GFP_KERNEL)?;
        for index in 0..window {
            slots.push(
                Slot {
                    pages: None,
                    op: None,
                    started: Instant::now(),
                    turn: 0,
                    expected: 0,
                },
                GFP_KERNEL,
            )?;
            free.push(index, GFP_KERNEL)?;
        }
        let patterns = match spec.op {
            BulkOp::Put => count,
            BulkOp::Get => 1,
        };
        let mut reference = None;
        if spec.op == BulkOp::Get && spec.verify {
            reference = Some(pattern(spec.size, session.nonce)?);
        }
        let mut transfer = Self {
            session,
            inbox: Inbox::new(count)?,
            slots,
            free,
            reference,
            hashes: KVVec::from_elem(None, patterns * TURNS as usize, GFP_KERNEL)?,
            begun: 0,
            failures: 0,
            first_start: None,
            last_end: None,
            latency_sum_ns: 0,
            result: BulkResult::default(),
        };
        // Before the clock runs.
        for index in 0..window {
            transfer.pages(index)?;
        }
        Ok(transfer)
    }

    /// The memory of a slot.
    fn pages(&mut self, index: u32) -> Result<Arc<Pages>> {
        let spec = self.session.spec;
        let slot = self.slots.get_mut(index as usize).ok_or(EIO)?;
        if let Some(pages) = &slot.pages {
            return Ok(pages.clone());
        }
        let pages = match spec.op {
            BulkOp::Put => pattern(spec.size, self.session.nonce ^ u64::from(index))?,
            BulkOp::Get => Pages::alloc(spec.size as usize)?,
        };
        let pages = Arc::new(pages, GFP_KERNEL)?;
        slot.pages = Some(pages.clone());
        Ok(pages)
    }

    /// The hash of a slot's message at `offset` in its pattern.
    fn expected(&mut self, index: u32, turn: u32, offset: u32) -> Result<u64> {
        let size = self.session.spec.size as usize;
        let (at, pages) = match self.session.spec.op {
            BulkOp::Put => {
                let slot = self.slots.get(index as usize).ok_or(EIO)?;
                let pages: &Pages = slot.pages.as_ref().ok_or(EIO)?;
                (index * TURNS + turn, pages)
            }
            BulkOp::Get => (turn, self.reference.as_ref().ok_or(EIO)?),
        };
        let known = self.hashes.get_mut(at as usize).ok_or(EIO)?;
        if let Some(hash) = *known {
            return Ok(hash);
        }
        let hash = pages.xxh64(offset as usize, size, 0)?;
        *known = Some(hash);
        Ok(hash)
    }

    /// Starts the next message, in a slot that is free.
    fn start(&mut self, index: u32) -> Result {
        let spec = self.session.spec;
        let pages = self.pages(index)?;
        let slot = self.slots.get_mut(index as usize).ok_or(EIO)?;
        let turn = slot.turn % TURNS;
        slot.turn = slot.turn.wrapping_add(1);
        // If nobody looks at the contents, they are as TCP likes them best.
        let offset = if spec.verify { turn * TURN_BYTES } else { 0 };
        let expected = if spec.verify {
            self.expected(index, turn, offset)?
        } else {
            0
        };
        let (core, ni) = (self.session.core, self.session.ni);
        let started = Instant::now();
        self.first_start.get_or_insert(started);
        // Noted before it starts, as it may end before it returns; but that is seen only later.
        let slot = self.slots.get_mut(index as usize).ok_or(EIO)?;
        slot.started = started;
        slot.expected = expected;
        let op = match spec.op {
            BulkOp::Put => {
                let put = Put {
                    to: spec.peer,
                    portal: PORTAL_PUT,
                    match_bits: Kind::Data.bits(self.session.nonce, index),
                    hdr_data: expected,
                    offset: 0,
                    payload: Some(PageRange::new(pages, offset as usize, spec.size as usize)?),
                    ack: true,
                };
                core.put(ni, put, &self.inbox, index)?
            }
            BulkOp::Get => {
                let get = Get {
                    to: spec.peer,
                    portal: PORTAL_GET,
                    match_bits: Kind::Data.bits(self.session.nonce, 0),
                    offset,
                    sink: PageRange::new(pages, 0, spec.size as usize)?,
                };
                core.get(ni, get, &self.inbox, index)?
            }
        };
        slot.op = Some(op);
        Ok(())
    }

    fn failed(&mut self, why: Error) {
        self.failures = self.failures.saturating_add(1);
        self.result.errors = self.result.errors.saturating_add(1);
        self.result.first_error.get_or_insert(why);
    }

    /// A message has ended.
    fn ended(&mut self, outcome: &Outcome) -> Result {
        let spec = self.session.spec;
        let slot = self.slots.get_mut(outcome.tag as usize).ok_or(EIO)?;
        slot.op = None;
        self.free
            .push_within_capacity(outcome.tag)
            .map_err(|_| EIO)?;
        self.last_end = Some(outcome.at);
        let mlength = match outcome.result {
            Ok(mlength) => mlength,
            Err(e) => {
                slot.pages = None;
                self.failed(e);
                return Ok(());
            }
        };
        let latency = u64::try_from((outcome.at - slot.started).as_nanos()).unwrap_or(0);
        let is_right = mlength == spec.size
            && match &slot.pages {
                // What was PUT, the server compares.
                Some(pages) if spec.verify && spec.op == BulkOp::Get => {
                    pages.xxh64(0, spec.size as usize, 0)? == slot.expected
                }
                _ => true,
            };
        self.failures = 0;
        let result = &mut self.result;
        if result.messages == 0 {
            result.latency_min_ns = latency;
        }
        result.messages = result.messages.saturating_add(1);
        result.bytes = result.bytes.saturating_add(u64::from(mlength));
        result.latency_min_ns = result.latency_min_ns.min(latency);
        result.latency_max_ns = result.latency_max_ns.max(latency);
        self.latency_sum_ns = self.latency_sum_ns.saturating_add(latency);
        if !is_right {
            result.verify_failures = result.verify_failures.saturating_add(1);
        }
        Ok(())
    }

    /// All messages, one after the other or many at a time. `false` if the time was too short,
    /// `EINTR` if a signal came.
    fn run(&mut self) -> Result<bool> {
        let window = self.slots.len() as u64;
        let mut batch = self.inbox.new_batch()?;
        let mut is_over = false;
        loop {
            while !is_over && self.begun < self.session.spec.count {
                let Some(index) = self.free.pop() else { break };
                self.begun = self.begun.saturating_add(1);
                if let Err(e) = self.start(index) {
                    // There was one less a moment ago.
                    let _ = self.free.push_within_capacity(index);
                    self.failed(e);
                    is_over = e == ESHUTDOWN;
                }
                is_over |= self.failures > window.saturating_add(MAX_FAILURES);
            }
            if self.free.len() == self.slots.len() {
                return Ok(true);
            }
            match self.inbox.wait(&mut batch, self.session.deadline_ms) {
                Ok(()) => {}
                Err(e) if e == ETIMEDOUT => {
                    self.time_out();
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
            for outcome in batch.iter() {
                self.ended(outcome)?;
            }
            thread::cond_resched();
        }
    }

    /// No time is left: what is under way has failed.
    fn time_out(&mut self) {
        let late = self.cancel();
        for _ in 0..late {
            self.failed(ETIMEDOUT);
        }
        self.last_end = Some(Instant::now());
    }

    /// Cancels what is under way and says how much that was.
    fn cancel(&mut self) -> usize {
        let mut count = 0;
        for slot in self.slots.iter_mut() {
            if let Some(op) = slot.op.take() {
                // One that has ended this very moment came too late as well.
                self.session.core.cancel(op);
                count += 1;
            }
        }
        count
    }

    fn into_result(mut self) -> BulkResult {
        let mut result = core::mem::take(&mut self.result);
        if let (Some(start), Some(end)) = (self.first_start, self.last_end) {
            result.elapsed_ns = u64::try_from((end - start).as_nanos()).unwrap_or(0);
        }
        result.latency_mean_ns = self
            .latency_sum_ns
            .checked_div(result.messages)
            .unwrap_or(0);
        result
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The memory of which messages of `size` bytes are parts.
fn pattern(size: u32, seed: u64) -> Result<Pages> {
    let len = size as usize + SPREAD as usize;
    let pages = Pages::alloc(len)?;
    pages.fill_pattern(0, len, seed)?;
    Ok(pages)
}
