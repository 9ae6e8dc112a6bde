// SPDX-License-Identifier: GPL-2.0

//! Operations: PUTs and GETs of this node that wait for their ACK or REPLY.
//!
//! An [`Op`] is in the [`OpTable`] from its start to its end. Whatever ends it takes it out of the table first: the
//! response, an error of the transmit, the end of the connection that it was sent by, shutdown, or its owner who
//! cancels it. So it ends exactly once, and a later response finds no operation with its handle.
//!
//! How an operation has ended is an [`OpEvent`] in an [`EventQueue`]. That belongs to the thread that waits for
//! it, and its operations hold references to it. The table is protected by a spinlock of
//! [`super::PortalsInner`], an event queue by its own; neither is taken while the other is held.

use super::handle::{
    HandleTable,
    Slot, //
};
use crate::{
    lib_linux::{
        misc,
        page::PageRange, //
    },
    upper::ConnId,
    wire::{
        Nid,
        WireHandle, //
    }, //
};
use kernel::{
    current,
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        CondVarTimeoutResult,
        SpinLock, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// The longest time that [`EventQueue::wait`] sleeps at once; it fits into jiffies whatever their length is.
const MAX_SLEEP: Delta = Delta::from_secs(3600);

/// The most operations of one NI at a time.
const MAX_OPS: usize = 4096;
/// The number of operations that memory is allocated for at first.
const MIN_OPS: usize = 64;

/// What an operation waits for.
pub(super) enum Expect {
    /// A PUT: the ACK.
    Ack {
        /// The match bits, which the ACK repeats.
        match_bits: u64,
        /// Its payload in bytes, which bounds the length in the ACK.
        length: u32,
    },
    /// A GET: the REPLY.
    Reply {
        /// The memory for its payload. Taken when a REPLY begins to arrive, so that a second one finds none.
        sink: Option<PageRange>,
    },
}

/// An operation that has not ended.
pub(super) struct Op {
    /// The node that it was sent to, and that may answer it.
    pub(super) target: Nid,
    pub(super) expect: Expect,
    /// The connection that has sent the message. Set when the transmit was completed: until then, the
    /// end of the connection completes the transmit with an error, which ends the operation.
    pub(super) sent_by: Option<ConnId>,
    pub(super) eq: Arc<EventQueue>,
    /// Identifies it to its owner.
    pub(super) tag: u32,
}

impl Op {
    /// Whether a REPLY is being received.
    fn is_arriving(&self) -> bool {
        matches!(self.expect, Expect::Reply { sink: None })
    }

    /// Completes it: queues its event. Thread context, no lock of the message layer held.
    pub(super) fn complete(self, result: Result<u32>) {
        misc::assert_may_sleep();
        self.eq.push(OpEvent {
            tag: self.tag,
            result,
            at: Instant::now(),
        });
    }
}

/// Identifies an operation of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpHandle(pub(super) u64);

/// Why an ACK or a REPLY belongs to no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwanted {
    /// No operation has its handle.
    Unknown,
    /// The operation with its handle has another target, another type, or other match bits; or its length is
    /// too large.
    Mismatch,
    /// A REPLY to the operation is being received already.
    Duplicate,
}

/// All operations of an NI.
pub(super) struct OpTable {
    /// Differs between instances of an NI, so that a response to an earlier instance is not valid.
    interface_cookie: u64,
    table: HandleTable<Op>,
    is_shut_down: bool,
}

impl OpTable {
    /// An empty table, whose handles on the wire contain `interface_cookie`.
    pub(super) const fn new(interface_cookie: u64) -> Self {
        Self {
            interface_cookie,
            table: HandleTable::new(),
            is_shut_down: false,
        }
    }

    /// The handle of `op` on the wire.
    pub(super) fn wire_handle(&self, op: OpHandle) -> WireHandle {
        WireHandle {
            interface_cookie: self.interface_cookie,
            object: op.0,
        }
    }

    /// The number of operations that memory is needed for; `None` if there is enough, or as much as is allowed.
    pub(super) fn needed_capacity(&self) -> Option<usize> {
        let capacity = self.table.capacity();
        (self.table.len() >= capacity && capacity < MAX_OPS)
            .then(|| capacity.saturating_mul(2).clamp(MIN_OPS, MAX_OPS))
    }

    /// See [`HandleTable::grow`].
    pub(super) fn grow(&mut self, room: &mut KVVec<Slot<Op>>) {
        self.table.grow(room);
    }

    /// Adds an operation. Returns it with an error, `ESHUTDOWN` or `ENOBUFS`.
    pub(super) fn insert(&mut self, op: Op) -> core::result::Result<OpHandle, (Error, Op)> {
        if self.is_shut_down {
            return Err((ESHUTDOWN, op));
        }
        if self.table.len() >= MAX_OPS {
            return Err((ENOBUFS, op));
        }
        self.table
            .insert(op)
            .map(OpHandle)
            .map_err(|op| (ENOBUFS, op))
    }

    /// The number of operations. For tests.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether an operation has not ended.
    pub(super) fn contains(&mut self, op: OpHandle) -> bool {
        self.table.get_mut(op.0).is_some()
    }

    /// Removes an operation, to complete it.
    pub(super) fn remove(&mut self, op: OpHandle) -> Option<Op> {
        self.table.remove(op.0)
    }

    /// Notes that the message of an operation was sent by this connection.
    pub(super) fn set_sent_by(&mut self, op: OpHandle, conn: ConnId) {
        if let Some(op) = self.table.get_mut(op.0) {
            op.sent_by = Some(conn);
        }
    }

    fn find(&mut self, from: Nid, handle: WireHandle) -> core::result::Result<&mut Op, Unwanted> {
        if handle.interface_cookie != self.interface_cookie {
            return Err(Unwanted::Unknown);
        }
        let op = self.table.get_mut(handle.object).ok_or(Unwanted::Unknown)?;
        if op.target != from {
            return Err(Unwanted::Mismatch);
        }
        Ok(op)
    }

    /// Removes the operation that an ACK completes.
    pub(super) fn remove_acked(
        &mut self,
        from: Nid,
        handle: WireHandle,
        match_bits: u64,
        mlength: u32,
    ) -> core::result::Result<Op, Unwanted> {
        match self.find(from, handle)?.expect {
            Expect::Ack {
                match_bits: wanted,
                length,
            } if wanted == match_bits && mlength <= length => {}
            _ => return Err(Unwanted::Mismatch),
        }
        self.table.remove(handle.object).ok_or(Unwanted::Unknown)
    }

    /// Finds the operation that a REPLY completes, and the memory for its payload. Removes nothing: the
    /// operation ends when the payload was received.
    pub(super) fn begin_reply(
        &mut self,
        from: Nid,
        handle: WireHandle,
    ) -> core::result::Result<(OpHandle, PageRange), Unwanted> {
        let Expect::Reply { sink } = &mut self.find(from, handle)?.expect else {
            return Err(Unwanted::Mismatch);
        };
        let sink = sink.take().ok_or(Unwanted::Duplicate)?;
        Ok((OpHandle(handle.object), sink))
    }

    /// Removes the next operation, from slot `*at` on, that was sent by `conn`, to its target or to a gateway. To be
    /// called when `conn` has ended, as a response is not to be expected any more; except of an operation
    /// whose REPLY is being received, which completes it in any case.
    pub(super) fn remove_sent_by(&mut self, at: &mut usize, conn: ConnId) -> Option<Op> {
        self.table
            .remove_next(at, |op| op.sent_by == Some(conn) && !op.is_arriving())
    }

    /// Refuses new operations from now on, and removes the next one from slot `*at` on. To be called until there
    /// is none.
    pub(super) fn shut_down_next(&mut self, at: &mut usize) -> Option<Op> {
        self.is_shut_down = true;
        self.table.remove_next(at, |_| true)
    }
}

/// An operation has ended.
pub(crate) struct OpEvent {
    /// Identifies the operation to its owner.
    pub(crate) tag: u32,
    /// The number of bytes that were moved, or the error.
    pub(crate) result: Result<u32>,
    /// When it has ended.
    pub(crate) at: Instant<Monotonic>,
}

struct EventQueueInner {
    events: KVec<OpEvent>,
    /// Events that are in the queue, and operations that have not ended.
    reserved: usize,
}

/// Queues the events of a thread's operations.
///
/// # Invariants
///
/// `events.len() <= reserved <= capacity`, and `events` has room for `capacity`.
#[pin_data]
pub(crate) struct EventQueue {
    #[pin]
    inner: SpinLock<EventQueueInner>,
    #[pin]
    arrived: CondVar,
    capacity: usize,
}

impl EventQueue {
    /// A queue for at most `capacity` operations at a time. May sleep.
    pub(crate) fn new(capacity: usize) -> Result<Arc<Self>> {
        let events = KVec::with_capacity(capacity, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                inner <- new_spinlock!(
                    EventQueueInner { events, reserved: 0 },
                    "socklnd_portals_eq"
                ),
                arrived <- new_condvar!("socklnd_portals_eq_arrived"),
                capacity,
            }),
            GFP_KERNEL,
        )
    }

    /// Memory for [`EventQueue::wait`]. May sleep.
    pub(crate) fn new_batch(&self) -> Result<KVec<OpEvent>> {
        Ok(KVec::with_capacity(self.capacity, GFP_KERNEL)?)
    }

    /// Reserves the place for the event of an operation. `ENOBUFS` if there are too many.
    pub(super) fn reserve(&self) -> Result {
        let mut inner = self.inner.lock();
        if inner.reserved >= self.capacity {
            return Err(ENOBUFS);
        }
        inner.reserved += 1;
        Ok(())
    }

    /// Takes back a reservation: the operation will have no event.
    pub(super) fn unreserve(&self) {
        let mut inner = self.inner.lock();
        inner.reserved = inner.reserved.saturating_sub(1);
    }

    fn push(&self, event: OpEvent) {
        // There is room, by the invariant.
        let _ = self.inner.lock().events.push_within_capacity(event);
        self.arrived.notify_one();
    }

    /// Waits until there are events, and moves them to `batch`, which is from [`EventQueue::new_batch`] and is
    /// cleared first. Thread context, sleeps.
    ///
    /// # Errors
    ///
    /// - `EINTR` if a signal is pending.
    /// - `ETIMEDOUT` if there is no event until `deadline`.
    pub(crate) fn wait(&self, batch: &mut KVec<OpEvent>, deadline: Instant<Monotonic>) -> Result {
        batch.clear();
        if batch.capacity() < self.capacity {
            return Err(EINVAL);
        }
        let mut inner = self.inner.lock();
        loop {
            // Checked even if there is no need to sleep, so that a busy thread can be interrupted.
            if current!().signal_pending() {
                return Err(EINTR);
            }
            if !inner.events.is_empty() {
                inner.reserved = inner.reserved.saturating_sub(inner.events.len());
                // INVARIANT: `batch` is empty and has room enough.
                core::mem::swap(&mut inner.events, batch);
                return Ok(());
            }
            let left = deadline - Instant::now();
            if left <= Delta::ZERO {
                return Err(ETIMEDOUT);
            }
            let left = u32::try_from(left.min(MAX_SLEEP).as_millis_ceil()).unwrap_or(u32::MAX);
            match self
                .arrived
                .wait_interruptible_timeout(&mut inner, msecs_to_jiffies(left))
            {
                CondVarTimeoutResult::Woken { .. } | CondVarTimeoutResult::Timeout => {}
                CondVarTimeoutResult::Signal { .. } => return Err(EINTR),
            }
        }
    }

    /// Waits for the event of the only operation, as [`EventQueue::wait`].
    pub(crate) fn wait_one(&self, deadline: Instant<Monotonic>) -> Result<OpEvent> {
        let mut batch = self.new_batch()?;
        self.wait(&mut batch, deadline)?;
        batch.pop().ok_or(EIO)
    }
}

#[kunit_tests(socklnd_portals_op)]
mod tests {
    use super::*;
    use crate::lib_linux::page::Pages;

    const COOKIE: u64 = 0x1234_5678_9abc_def0;
    const CONN: ConnId = 16;
    const OTHER: ConnId = 32;

    fn later() -> Instant<Monotonic> {
        Instant::now() + MAX_SLEEP
    }

    fn nid(last: u8) -> Nid {
        Nid::tcp(0, [10, 0, 0, last])
    }

    fn table() -> Result<OpTable> {
        let mut table = OpTable::new(COOKIE);
        let mut room = KVVec::with_capacity(table.needed_capacity().ok_or(EINVAL)?, GFP_KERNEL)?;
        table.grow(&mut room);
        Ok(table)
    }

    fn add(table: &mut OpTable, eq: &Arc<EventQueue>, expect: Expect) -> Result<WireHandle> {
        eq.reserve()?;
        let op = Op {
            target: nid(1),
            expect,
            sent_by: None,
            eq: eq.clone(),
            tag: 7,
        };
        let op = table.insert(op).map_err(|(e, _)| e)?;
        Ok(table.wire_handle(op))
    }

    fn put() -> Expect {
        Expect::Ack {
            match_bits: 5,
            length: 100,
        }
    }

    fn get(len: usize) -> Result<Expect> {
        let pages = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
        Ok(Expect::Reply {
            sink: Some(PageRange::new(pages, 0, len)?),
        })
    }

    #[test]
    fn ack_ends_a_put_once() -> Result {
        let (mut table, eq) = (table()?, EventQueue::new(4)?);
        let handle = add(&mut table, &eq, put())?;
        let op = table
            .remove_acked(nid(1), handle, 5, 60)
            .map_err(|_| EINVAL)?;
        op.complete(Ok(60));
        assert!(table.remove_acked(nid(1), handle, 5, 60).err() == Some(Unwanted::Unknown));
        let event = eq.wait_one(later())?;
        assert_eq!(event.tag, 7);
        assert_eq!(event.result, Ok(60));
        assert_eq!(table.len(), 0);
        Ok(())
    }

    #[test]
    fn wrong_acks() -> Result {
        let (mut table, eq) = (table()?, EventQueue::new(4)?);
        let handle = add(&mut table, &eq, put())?;
        let foreign = WireHandle {
            interface_cookie: COOKIE ^ 1,
            ..handle
        };
        assert!(table.remove_acked(nid(1), foreign, 5, 60).err() == Some(Unwanted::Unknown));
        assert!(
            table.remove_acked(nid(1), WireHandle::NONE, 5, 60).err() == Some(Unwanted::Unknown)
        );
        assert!(table.remove_acked(nid(2), handle, 5, 60).err() == Some(Unwanted::Mismatch));
        assert!(table.remove_acked(nid(1), handle, 6, 60).err() == Some(Unwanted::Mismatch));
        assert!(table.remove_acked(nid(1), handle, 5, 101).err() == Some(Unwanted::Mismatch));
        assert!(table.begin_reply(nid(1), handle).err() == Some(Unwanted::Mismatch));
        // None of them has changed anything.
        assert!(table.remove_acked(nid(1), handle, 5, 100).is_ok());
        Ok(())
    }

    #[test]
    fn reply_begins_once_and_ends_once() -> Result {
        let (mut table, eq) = (table()?, EventQueue::new(4)?);
        let handle = add(&mut table, &eq, get(64)?)?;
        assert!(table.begin_reply(nid(2), handle).err() == Some(Unwanted::Mismatch));
        assert!(table.remove_acked(nid(1), handle, 0, 0).err() == Some(Unwanted::Mismatch));
        let (op, sink) = table.begin_reply(nid(1), handle).map_err(|_| EINVAL)?;
        assert_eq!(sink.len(), 64);
        assert!(table.begin_reply(nid(1), handle).err() == Some(Unwanted::Duplicate));
        assert!(table.remove(op).is_some());
        // The REPLY that is still being received completes nothing.
        assert!(table.remove(op).is_none());
        assert!(table.begin_reply(nid(1), handle).err() == Some(Unwanted::Unknown));
        Ok(())
    }

    #[test]
    fn the_end_of_a_connection_ends_what_went_by_it() -> Result {
        let (mut table, eq) = (table()?, EventQueue::new(8)?);
        let sent = OpHandle(add(&mut table, &eq, put())?.object);
        let other = OpHandle(add(&mut table, &eq, put())?.object);
        let waits = OpHandle(add(&mut table, &eq, put())?.object);
        let arriving = add(&mut table, &eq, get(64)?)?;
        for (op, conn) in [
            (sent, CONN),
            (other, OTHER),
            (OpHandle(arriving.object), CONN),
        ] {
            table.set_sent_by(op, conn);
        }
        assert!(table.begin_reply(nid(1), arriving).is_ok());
        let mut at = 0;
        assert!(table.remove_sent_by(&mut at, CONN).is_some());
        assert!(table.remove_sent_by(&mut at, CONN).is_none());
        assert!(table.remove(sent).is_none());
        assert!(table.remove(OpHandle(arriving.object)).is_some());
        assert!(table.remove_sent_by(&mut 0, OTHER).is_some());
        assert!(table.remove(waits).is_some());
        Ok(())
    }

    #[test]
    fn closed() -> Result {
        let (mut table, eq) = (table()?, EventQueue::new(4)?);
        let handle = add(&mut table, &eq, put())?;
        let mut at = 0;
        let op = table.shut_down_next(&mut at).ok_or(EINVAL)?;
        op.complete(Err(ESHUTDOWN));
        assert!(table.shut_down_next(&mut at).is_none());
        assert!(table.remove_acked(nid(1), handle, 5, 0).err() == Some(Unwanted::Unknown));
        assert_eq!(add(&mut table, &eq, put()).err(), Some(ESHUTDOWN));
        assert_eq!(eq.wait_one(later())?.result, Err(ESHUTDOWN));
        Ok(())
    }

    #[test]
    fn event_queue_is_bounded() -> Result {
        let eq = EventQueue::new(2)?;
        eq.reserve()?;
        eq.reserve()?;
        assert_eq!(eq.reserve(), Err(ENOBUFS));
        eq.unreserve();
        eq.reserve()?;
        for tag in 0..2 {
            eq.push(OpEvent {
                tag,
                result: Ok(0),
                at: Instant::now(),
            });
        }
        let mut batch = eq.new_batch()?;
        eq.wait(&mut batch, later())?;
        assert_eq!(batch.len(), 2);
        assert_eq!(eq.wait(&mut batch, Instant::now()), Err(ETIMEDOUT));
        eq.reserve()?;
        eq.reserve()?;
        assert_eq!(eq.reserve(), Err(ENOBUFS));
        Ok(())
    }
}
