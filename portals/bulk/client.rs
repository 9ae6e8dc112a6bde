// SPDX-License-Identifier: GPL-2.0

//! The client of the bulk service.
//!
//! All of it belongs to the thread that calls [`run`], and ends when that returns: dropping a [`Transfer`]
//! cancels its operations. Memory whose operation has failed is not used for another message: TCP may
//! still send it, or a late REPLY be written to it.

use super::{
    pattern,
    BulkOp,
    BulkResult,
    BulkSpec,
    RequestKind,
    SessionParams,
    SessionState,
    NPATTERNS,
    PATTERN_STEP,
    PORTAL_GET,
    PORTAL_PUT,
    SESSION_ID_MASK,
    STATE_LEN, //
};
use crate::{
    lib_linux::{
        misc,
        page::{
            PageRange,
            Pages, //
        },
        thread, //
    },
    portals::{
        op::{
            EventQueue,
            OpEvent,
            OpHandle, //
        },
        outgoing::{
            Get,
            Put, //
        },
        PortalsInner, //
    },
    upper::NiRef,
    wire::MAX_PAYLOAD, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How long the server may take to open a session.
const OPEN_TIMEOUT: Delta = Delta::from_secs(30);
/// The most failures in a row, beyond the size of the window, until the transfer ends.
const MAX_FAILURES: u64 = 64;

/// See [`crate::portals::LocalNi::run_bulk`].
pub(in crate::portals) fn run(
    portals: &Arc<PortalsInner>,
    ni: NiRef<'_>,
    spec: &BulkSpec,
) -> Result<BulkResult> {
    if spec.size > MAX_PAYLOAD {
        return Err(EMSGSIZE);
    }
    let params = SessionParams {
        op: spec.op,
        verify: spec.verify,
        size: spec.size,
        in_flight: spec.in_flight,
    };
    if !params.is_valid() || spec.count == 0 || spec.timeout <= Delta::ZERO {
        return Err(EINVAL);
    }
    let start = Instant::now();
    let session = Session {
        portals,
        ni,
        spec,
        id: misc::random_u64() & SESSION_ID_MASK,
        deadline: start + spec.timeout,
    };
    let open_deadline = start + spec.timeout.min(OPEN_TIMEOUT);
    let (result, close_deadline) = match session.open(params, open_deadline) {
        Ok(window) => (session.transfer(window), session.deadline),
        // A server that has not responded to this request may not respond to the next one either.
        Err(e) => (Err(e), open_deadline),
    };
    session.close(close_deadline);
    result
}

/// What the messages of a session have in common.
struct Session<'a> {
    portals: &'a Arc<PortalsInner>,
    ni: NiRef<'a>,
    spec: &'a BulkSpec,
    id: u64,
    deadline: Instant<Monotonic>,
}

impl Session<'_> {
    /// Sends a request to the server and waits for the ACK.
    fn request(&self, kind: RequestKind, hdr_data: u64, deadline: Instant<Monotonic>) -> Result {
        let put = Put {
            to: self.spec.peer,
            portal: PORTAL_PUT,
            match_bits: kind.match_bits(self.id, 0),
            hdr_data,
            offset: 0,
            payload: None,
        };
        let event = self.portals.put_and_wait(self.ni, put, deadline)?;
        event.result.map(|_| ())
    }

    /// GETs the state of the session from the server. `EBUSY` if there is no session.
    fn get_state(&self, deadline: Instant<Monotonic>) -> Result<SessionState> {
        let pages = Arc::new(Pages::alloc(STATE_LEN)?, GFP_KERNEL)?;
        let get = Get {
            to: self.spec.peer,
            portal: PORTAL_GET,
            match_bits: RequestKind::State.match_bits(self.id, 0),
            offset: 0,
            sink: PageRange::new(pages.clone(), 0, STATE_LEN)?,
        };
        let event = self.portals.get_and_wait(self.ni, get, deadline)?;
        if event.result? as usize != STATE_LEN {
            return Err(EPROTO);
        }
        let mut bytes = [0; STATE_LEN];
        pages.copy_out(0, &mut bytes)?;
        let state = SessionState::from_bytes(&bytes).ok_or(EPROTO)?;
        if state.status != 0 {
            return Err(EBUSY);
        }
        Ok(state)
    }

    /// Opens the session, and returns the number of messages at a time.
    fn open(&self, params: SessionParams, deadline: Instant<Monotonic>) -> Result<u32> {
        self.request(RequestKind::Open, params.encode(), deadline)?;
        let state = self.get_state(deadline)?;
        // A window that is larger than asked for is invalid too.
        if state.size != params.size || !(1..=params.window()).contains(&state.window) {
            return Err(EPROTO);
        }
        Ok(state.window)
    }

    /// Closes the session. The request is sent in any case. Its ACK is waited for until `deadline`, unless a signal
    /// is pending, so that the server has closed the session when this returns; an error is ignored.
    fn close(&self, deadline: Instant<Monotonic>) {
        let _ = self.request(RequestKind::Close, 0, deadline);
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

    /// Compares the number of messages that the server has received with that of messages sent.
    fn compare(&self, result: &mut BulkResult) {
        match self.get_state(self.deadline) {
            Ok(state) => {
                result.verify_failures = result.verify_failures.saturating_add(state.bad);
                // The server has received each message that it has acknowledged, and maybe more.
                let arrived = state.good.saturating_add(state.bad);
                let lacking = result.messages.saturating_sub(arrived);
                // If it has received more than were sent, it has received one twice.
                let sent = result.messages.saturating_add(result.errors);
                let excess = arrived.saturating_sub(sent);
                result.verify_failures = result
                    .verify_failures
                    .saturating_add(lacking)
                    .saturating_add(excess);
            }
            // It is not known whether the transfer has succeeded.
            Err(e) => {
                result.errors = result.errors.saturating_add(1);
                result.first_error.get_or_insert(e);
            }
        }
    }
}

/// A place for one of the messages that are sent at a time.
struct Slot {
    /// Its memory. `None` if it has to be allocated.
    pages: Option<Arc<Pages>>,
    op: Option<OpHandle>,
    started: Instant<Monotonic>,
    /// How many messages it was used for.
    turn: u32,
    /// The hash of its message.
    expected: u64,
}

/// The messages of a session.
struct Transfer<'a> {
    session: &'a Session<'a>,
    eq: Arc<EventQueue>,
    slots: KVec<Slot>,
    /// Slots without a message.
    free: KVec<u32>,
    /// For GETs: the pattern of the server.
    reference: Option<Pages>,
    /// The hashes of messages, once they were computed: by turn, and for PUTs by slot and turn.
    hashes: KVVec<Option<u64>>,
    /// Messages that were started, or failed to start.
    begun: u64,
    /// Messages that have failed since the last one that has succeeded.
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
            reference = Some(pattern(spec.size, session.id)?);
        }
        let mut transfer = Self {
            session,
            eq: EventQueue::new(count)?,
            slots,
            free,
            reference,
            hashes: KVVec::from_elem(None, patterns * NPATTERNS as usize, GFP_KERNEL)?,
            begun: 0,
            failures: 0,
            first_start: None,
            last_end: None,
            latency_sum_ns: 0,
            result: BulkResult::default(),
        };
        // Before the time is taken.
        for index in 0..window {
            transfer.pages(index)?;
        }
        Ok(transfer)
    }

    /// The memory of a slot, which is allocated if it has none.
    fn pages(&mut self, index: u32) -> Result<Arc<Pages>> {
        let spec = self.session.spec;
        let slot = self.slots.get_mut(index as usize).ok_or(EIO)?;
        if let Some(pages) = &slot.pages {
            return Ok(pages.clone());
        }
        let pages = match spec.op {
            BulkOp::Put => pattern(spec.size, self.session.id ^ u64::from(index))?,
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
                (index * NPATTERNS + turn, pages)
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
        let turn = slot.turn % NPATTERNS;
        slot.turn = slot.turn.wrapping_add(1);
        // If the contents are not compared, all messages begin at a page.
        let offset = if spec.verify { turn * PATTERN_STEP } else { 0 };
        let expected = if spec.verify {
            self.expected(index, turn, offset)?
        } else {
            0
        };
        let (portals, ni) = (self.session.portals, self.session.ni);
        let started = Instant::now();
        self.first_start.get_or_insert(started);
        // Set before it is started, as it may have ended when that returns.
        let slot = self.slots.get_mut(index as usize).ok_or(EIO)?;
        slot.started = started;
        slot.expected = expected;
        let op = match spec.op {
            BulkOp::Put => {
                let put = Put {
                    to: spec.peer,
                    portal: PORTAL_PUT,
                    match_bits: RequestKind::Data.match_bits(self.session.id, index),
                    hdr_data: expected,
                    offset: 0,
                    payload: Some(PageRange::new(pages, offset as usize, spec.size as usize)?),
                };
                portals.put(ni, put, &self.eq, index)?
            }
            BulkOp::Get => {
                let get = Get {
                    to: spec.peer,
                    portal: PORTAL_GET,
                    match_bits: RequestKind::Data.match_bits(self.session.id, 0),
                    offset,
                    sink: PageRange::new(pages, 0, spec.size as usize)?,
                };
                portals.get(ni, get, &self.eq, index)?
            }
        };
        slot.op = Some(op);
        Ok(())
    }

    fn count_failure(&mut self, why: Error) {
        self.failures = self.failures.saturating_add(1);
        self.result.errors = self.result.errors.saturating_add(1);
        self.result.first_error.get_or_insert(why);
    }

    /// Counts a message that has ended, and frees its slot.
    fn complete(&mut self, event: &OpEvent) -> Result {
        let spec = self.session.spec;
        let slot = self.slots.get_mut(event.tag as usize).ok_or(EIO)?;
        slot.op = None;
        self.free.push_within_capacity(event.tag).map_err(|_| EIO)?;
        self.last_end = Some(event.at);
        let mlength = match event.result {
            Ok(mlength) => mlength,
            Err(e) => {
                slot.pages = None;
                self.count_failure(e);
                return Ok(());
            }
        };
        let latency = u64::try_from((event.at - slot.started).as_nanos()).unwrap_or(0);
        let is_intact = mlength == spec.size
            && match &slot.pages {
                // The server compares PUTs.
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
        if !is_intact {
            result.verify_failures = result.verify_failures.saturating_add(1);
        }
        Ok(())
    }

    /// Sends all messages. Returns `false` if the deadline has passed; `EINTR` if a signal is pending.
    fn run(&mut self) -> Result<bool> {
        let window = self.slots.len() as u64;
        let mut batch = self.eq.new_batch()?;
        let mut is_over = false;
        loop {
            while !is_over && self.begun < self.session.spec.count {
                let Some(index) = self.free.pop() else { break };
                self.begun = self.begun.saturating_add(1);
                if let Err(e) = self.start(index) {
                    // There is room: it was just popped.
                    let _ = self.free.push_within_capacity(index);
                    self.count_failure(e);
                    is_over = e == ESHUTDOWN;
                }
                is_over |= self.failures > window.saturating_add(MAX_FAILURES);
            }
            if self.free.len() == self.slots.len() {
                return Ok(true);
            }
            match self.eq.wait(&mut batch, self.session.deadline) {
                Ok(()) => {}
                Err(e) if e == ETIMEDOUT => {
                    self.time_out();
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
            for event in batch.iter() {
                self.complete(event)?;
            }
            thread::cond_resched();
        }
    }

    /// Cancels all operations and counts them as failed: the deadline has passed.
    fn time_out(&mut self) {
        let late = self.cancel();
        for _ in 0..late {
            self.count_failure(ETIMEDOUT);
        }
        self.last_end = Some(Instant::now());
    }

    /// Cancels all operations and returns their number.
    fn cancel(&mut self) -> usize {
        let mut count = 0;
        for slot in self.slots.iter_mut() {
            if let Some(op) = slot.op.take() {
                // One that has ended at this moment counts as cancelled too.
                self.session.portals.cancel(op);
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
