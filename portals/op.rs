// SPDX-License-Identifier: GPL-2.0

//! Operations of our own: PUTs and GETs that wait for their ACK or REPLY.
//!
//! An [`Op`] is in the [`OpTable`] from its start to its end. Whoever takes it out of the table is
//! the one who ends it: the answer, an error of the transmit, the end of the connection that it went
//! by, shutdown, or the owner who does not want to wait any longer. So it ends exactly once, and
//! what comes after that finds nothing under its name.
//!
//! The outcome goes to an [`Inbox`], which belongs to the thread that waits for it and is kept
//! alive by its operations. The table is protected by a spinlock of [`super::Core`], an inbox by
//! its own; neither is taken while the other is held.

use super::handle::{
    HandleTable,
    Slot, //
};
use crate::{
    lib_linux::{
        page::PageRange,
        time, //
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
        Instant,
        Monotonic, //
    }, //
};

/// The most operations that may be under way on one interface.
const MAX_OPS: usize = 4096;
/// Room for so many is made at first.
const MIN_OPS: usize = 64;

/// What an operation waits for.
pub(super) enum Expect {
    /// Of a PUT: only for the message to be sent.
    Sent {
        /// Its payload in bytes.
        length: u32,
    },
    /// Of a PUT: the ACK.
    Ack {
        /// The match bits, which the ACK has to repeat.
        match_bits: u64,
        /// Its payload in bytes: the target can't have kept more.
        length: u32,
    },
    /// Of a GET: the REPLY.
    Reply {
        /// Where its payload goes. Taken when it begins to arrive, so that no second one does.
        sink: Option<PageRange>,
    },
}

/// An operation that has not ended.
pub(super) struct Op {
    /// To whom it was sent, the only one who may answer it.
    pub(super) peer: Nid,
    pub(super) expect: Expect,
    /// The connection by which the message went: once TCP has accepted all of it and
    /// needs no page of it any more. If that comes with the connection's end, the operation fails.
    pub(super) sent_by: Option<ConnId>,
    pub(super) inbox: Arc<Inbox>,
    /// The owner's name for it.
    pub(super) tag: u32,
}

impl Op {
    fn is_arriving(&self) -> bool {
        matches!(self.expect, Expect::Reply { sink: None })
    }

    /// Ends it: its owner is told. Thread context, no lock of the message layer held.
    pub(super) fn finish(self, result: Result<u32>) {
        self.inbox.push(Outcome {
            tag: self.tag,
            result,
            at: Instant::now(),
        });
    }
}

/// Names an operation of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpHandle(pub(super) u64);

/// Why an answer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwanted {
    /// No operation has that name: it has ended, or never was.
    Unknown,
    /// There is such an operation, but this can't be its answer: not from the peer that was asked,
    /// of another type, or with impossible contents.
    Wrong,
    /// An answer is already arriving.
    Twice,
}

/// All operations of an interface.
pub(super) struct OpTable {
    /// Differs between instances of an interface, so that an answer to a former one fits none.
    interface: u64,
    table: HandleTable<Op>,
    closed: bool,
}

impl OpTable {
    /// An empty table whose names are marked with `interface`.
    pub(super) const fn new(interface: u64) -> Self {
        Self {
            interface,
            table: HandleTable::new(),
            closed: false,
        }
    }

    /// The name of `op` on the wire.
    pub(super) fn wire_handle(&self, op: OpHandle) -> WireHandle {
        WireHandle {
            interface: self.interface,
            object: op.0,
        }
    }

    /// How much room there should be; `None` if there is enough, or no more allowed.
    pub(super) fn wants_room(&self) -> Option<usize> {
        let capacity = self.table.capacity();
        (self.table.len() >= capacity && capacity < MAX_OPS)
            .then(|| capacity.saturating_mul(2).clamp(MIN_OPS, MAX_OPS))
    }

    /// Brings in room that was made without a lock held; what is left in `room` is to be dropped so.
    pub(super) fn enlarge(&mut self, room: &mut KVVec<Slot<Op>>) {
        self.table.enlarge(room);
    }

    /// Adds an operation. On error it is given back: `ESHUTDOWN`, `ENOBUFS`.
    pub(super) fn insert(&mut self, op: Op) -> core::result::Result<OpHandle, (Error, Op)> {
        if self.closed {
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

    /// How many there are. For tests.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether an operation has not ended.
    pub(super) fn contains(&mut self, op: OpHandle) -> bool {
        self.table.get_mut(op.0).is_some()
    }

    /// Takes an operation out, to end it.
    pub(super) fn remove(&mut self, op: OpHandle) -> Option<Op> {
        self.table.remove(op.0)
    }

    /// The message of an operation was sent, by a connection if not to this node itself. Takes it out
    /// if that was all it waited for.
    pub(super) fn sent(&mut self, op: OpHandle, by: Option<ConnId>) -> Option<(Op, u32)> {
        let found = self.table.get_mut(op.0)?;
        found.sent_by = by;
        let Expect::Sent { length } = found.expect else {
            return None;
        };
        Some((self.table.remove(op.0)?, length))
    }

    fn find(&mut self, from: Nid, handle: WireHandle) -> core::result::Result<&mut Op, Unwanted> {
        if handle.interface != self.interface {
            return Err(Unwanted::Unknown);
        }
        let op = self.table.get_mut(handle.object).ok_or(Unwanted::Unknown)?;
        if op.peer != from {
            return Err(Unwanted::Wrong);
        }
        Ok(op)
    }

    /// An ACK came. Takes out the operation that it ends.
    pub(super) fn ack(
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
            _ => return Err(Unwanted::Wrong),
        }
        self.table.remove(handle.object).ok_or(Unwanted::Unknown)
    }

    /// A REPLY begins. Says where its payload goes and which operation to end afterwards.
    pub(super) fn reply(
        &mut self,
        from: Nid,
        handle: WireHandle,
    ) -> core::result::Result<(OpHandle, PageRange), Unwanted> {
        let Expect::Reply { sink } = &mut self.find(from, handle)?.expect else {
            return Err(Unwanted::Wrong);
        };
        let sink = sink.take().ok_or(Unwanted::Twice)?;
        Ok((OpHandle(handle.object), sink))
    }

    /// Takes out the next operation that will hardly be answered now that `conn` has ended: the
    /// question went by it, be it to the target or to a gateway. An answer that has begun to arrive,
    /// by whatever connection, ends it itself.
    pub(super) fn next_lost(&mut self, at: &mut usize, conn: ConnId) -> Option<Op> {
        self.table
            .remove_next(at, |op| op.sent_by == Some(conn) && !op.is_arriving())
    }

    /// Admits no more operations, and takes out the next one that is still there.
    pub(super) fn close(&mut self, at: &mut usize) -> Option<Op> {
        self.closed = true;
        self.table.remove_next(at, |_| true)
    }
}

/// How an operation ended.
pub(crate) struct Outcome {
    /// The owner's name for it.
    pub(crate) tag: u32,
    /// Bytes that were moved, or why not.
    pub(crate) result: Result<u32>,
    /// When.
    pub(crate) at: Instant<Monotonic>,
}

struct InboxInner {
    outcomes: KVec<Outcome>,
    /// Outcomes that are here or will come.
    owed: usize,
}

/// Where the outcomes of a thread's operations arrive.
///
/// # Invariants
///
/// `outcomes.len() <= owed <= capacity`, and `outcomes` has room for `capacity`.
#[pin_data]
pub(crate) struct Inbox {
    #[pin]
    inner: SpinLock<InboxInner>,
    #[pin]
    arrived: CondVar,
    capacity: usize,
}

impl Inbox {
    /// An inbox for at most `capacity` operations at a time. May sleep.
    pub(crate) fn new(capacity: usize) -> Result<Arc<Self>> {
        let outcomes = KVec::with_capacity(capacity, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                inner <- new_spinlock!(
                    InboxInner { outcomes, owed: 0 },
                    "socklnd_inbox"
                ),
                arrived <- new_condvar!("socklnd_inbox_arrived"),
                capacity,
            }),
            GFP_KERNEL,
        )
    }

    /// A batch to be handed to [`Inbox::wait`]. May sleep.
    pub(crate) fn new_batch(&self) -> Result<KVec<Outcome>> {
        Ok(KVec::with_capacity(self.capacity, GFP_KERNEL)?)
    }

    /// Counts an operation that is about to start. `ENOBUFS` if there are too many.
    pub(super) fn reserve(&self) -> Result {
        let mut inner = self.inner.lock();
        if inner.owed >= self.capacity {
            return Err(ENOBUFS);
        }
        inner.owed += 1;
        Ok(())
    }

    /// An operation will have no outcome after all.
    pub(super) fn unreserve(&self) {
        let mut inner = self.inner.lock();
        inner.owed = inner.owed.saturating_sub(1);
    }

    fn push(&self, outcome: Outcome) {
        // There is room, see the invariant.
        let _ = self.inner.lock().outcomes.push_within_capacity(outcome);
        self.arrived.notify_one();
    }

    /// Waits until there are outcomes and puts them into `batch`, which has to be one of
    /// [`Inbox::new_batch`]; what was in it is dropped. Thread context, sleeps.
    ///
    /// # Errors
    ///
    /// - `EINTR` if a signal came.
    /// - `ETIMEDOUT` if there is none at `deadline_ms`, a time in monotonic milliseconds.
    pub(crate) fn wait(&self, batch: &mut KVec<Outcome>, deadline_ms: u64) -> Result {
        batch.clear();
        if batch.capacity() < self.capacity {
            return Err(EINVAL);
        }
        let mut inner = self.inner.lock();
        loop {
            // Asked even if there is no need to sleep, so that a busy thread can be interrupted.
            if current!().signal_pending() {
                return Err(EINTR);
            }
            if !inner.outcomes.is_empty() {
                inner.owed = inner.owed.saturating_sub(inner.outcomes.len());
                // INVARIANT: `batch` is empty and has room enough.
                core::mem::swap(&mut inner.outcomes, batch);
                return Ok(());
            }
            let left = deadline_ms.saturating_sub(time::monotonic_ms());
            if left == 0 {
                return Err(ETIMEDOUT);
            }
            // An hour at a time is enough for the loop, and fits whatever a tick is.
            let left = u32::try_from(left).unwrap_or(u32::MAX).min(3_600_000);
            match self
                .arrived
                .wait_interruptible_timeout(&mut inner, msecs_to_jiffies(left))
            {
                CondVarTimeoutResult::Woken { .. } | CondVarTimeoutResult::Timeout => {}
                CondVarTimeoutResult::Signal { .. } => return Err(EINTR),
            }
        }
    }

    /// Waits for the one outcome of the only operation, as [`Inbox::wait`].
    pub(crate) fn wait_one(&self, deadline_ms: u64) -> Result<Outcome> {
        let mut batch = self.new_batch()?;
        self.wait(&mut batch, deadline_ms)?;
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

    fn nid(last: u8) -> Nid {
        Nid::tcp(0, [10, 0, 0, last])
    }

    fn table() -> Result<OpTable> {
        let mut table = OpTable::new(COOKIE);
        let mut room = KVVec::with_capacity(table.wants_room().ok_or(EINVAL)?, GFP_KERNEL)?;
        table.enlarge(&mut room);
        Ok(table)
    }

    fn add(table: &mut OpTable, inbox: &Arc<Inbox>, expect: Expect) -> Result<WireHandle> {
        inbox.reserve()?;
        let op = Op {
            peer: nid(1),
            expect,
            sent_by: None,
            inbox: inbox.clone(),
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
        let (mut table, inbox) = (table()?, Inbox::new(4)?);
        let handle = add(&mut table, &inbox, put())?;
        let op = table.ack(nid(1), handle, 5, 60).map_err(|_| EINVAL)?;
        op.finish(Ok(60));
        assert!(table.ack(nid(1), handle, 5, 60).err() == Some(Unwanted::Unknown));
        let outcome = inbox.wait_one(u64::MAX)?;
        assert_eq!(outcome.tag, 7);
        assert_eq!(outcome.result, Ok(60));
        assert_eq!(table.len(), 0);
        Ok(())
    }

    #[test]
    fn wrong_acks() -> Result {
        let (mut table, inbox) = (table()?, Inbox::new(4)?);
        let handle = add(&mut table, &inbox, put())?;
        let stranger = WireHandle {
            interface: COOKIE ^ 1,
            ..handle
        };
        assert!(table.ack(nid(1), stranger, 5, 60).err() == Some(Unwanted::Unknown));
        assert!(table.ack(nid(1), WireHandle::NONE, 5, 60).err() == Some(Unwanted::Unknown));
        assert!(table.ack(nid(2), handle, 5, 60).err() == Some(Unwanted::Wrong));
        assert!(table.ack(nid(1), handle, 6, 60).err() == Some(Unwanted::Wrong));
        assert!(table.ack(nid(1), handle, 5, 101).err() == Some(Unwanted::Wrong));
        assert!(table.reply(nid(1), handle).err() == Some(Unwanted::Wrong));
        // None of them has done any harm.
        assert!(table.ack(nid(1), handle, 5, 100).is_ok());
        Ok(())
    }

    #[test]
    fn reply_begins_once_and_ends_once() -> Result {
        let (mut table, inbox) = (table()?, Inbox::new(4)?);
        let handle = add(&mut table, &inbox, get(64)?)?;
        assert!(table.reply(nid(2), handle).err() == Some(Unwanted::Wrong));
        assert!(table.ack(nid(1), handle, 0, 0).err() == Some(Unwanted::Wrong));
        let (op, sink) = table.reply(nid(1), handle).map_err(|_| EINVAL)?;
        assert_eq!(sink.len(), 64);
        assert!(table.reply(nid(1), handle).err() == Some(Unwanted::Twice));
        assert!(table.remove(op).is_some());
        // The one that is still arriving finds nothing to end.
        assert!(table.remove(op).is_none());
        assert!(table.reply(nid(1), handle).err() == Some(Unwanted::Unknown));
        Ok(())
    }

    #[test]
    fn sending_ends_only_what_waits_for_no_answer() -> Result {
        let (mut table, inbox) = (table()?, Inbox::new(4)?);
        let asked = OpHandle(add(&mut table, &inbox, put())?.object);
        let told = OpHandle(add(&mut table, &inbox, Expect::Sent { length: 9 })?.object);
        assert!(table.sent(asked, None).is_none());
        let ended = table.sent(told, Some(CONN));
        assert_eq!(ended.map(|(_, length)| length), Some(9));
        assert!(table.sent(told, Some(CONN)).is_none());
        assert_eq!(table.len(), 1);
        Ok(())
    }

    #[test]
    fn the_end_of_a_connection_ends_what_went_by_it() -> Result {
        let (mut table, inbox) = (table()?, Inbox::new(8)?);
        let sent = OpHandle(add(&mut table, &inbox, put())?.object);
        let other = OpHandle(add(&mut table, &inbox, put())?.object);
        let waits = OpHandle(add(&mut table, &inbox, put())?.object);
        let arriving = add(&mut table, &inbox, get(64)?)?;
        for (op, conn) in [
            (sent, CONN),
            (other, OTHER),
            (OpHandle(arriving.object), CONN),
        ] {
            assert!(table.sent(op, Some(conn)).is_none());
        }
        assert!(table.reply(nid(1), arriving).is_ok());
        let mut at = 0;
        assert!(table.next_lost(&mut at, CONN).is_some());
        assert!(table.next_lost(&mut at, CONN).is_none());
        assert!(table.remove(sent).is_none());
        assert!(table.remove(OpHandle(arriving.object)).is_some());
        assert!(table.next_lost(&mut 0, OTHER).is_some());
        assert!(table.remove(waits).is_some());
        Ok(())
    }

    #[test]
    fn closed() -> Result {
        let (mut table, inbox) = (table()?, Inbox::new(4)?);
        let handle = add(&mut table, &inbox, put())?;
        let mut at = 0;
        let op = table.close(&mut at).ok_or(EINVAL)?;
        op.finish(Err(ESHUTDOWN));
        assert!(table.close(&mut at).is_none());
        assert!(table.ack(nid(1), handle, 5, 0).err() == Some(Unwanted::Unknown));
        assert_eq!(add(&mut table, &inbox, put()).err(), Some(ESHUTDOWN));
        assert_eq!(inbox.wait_one(u64::MAX)?.result, Err(ESHUTDOWN));
        Ok(())
    }

    #[test]
    fn inbox_is_bounded() -> Result {
        let inbox = Inbox::new(2)?;
        inbox.reserve()?;
        inbox.reserve()?;
        assert_eq!(inbox.reserve(), Err(ENOBUFS));
        inbox.unreserve();
        inbox.reserve()?;
        for tag in 0..2 {
            inbox.push(Outcome {
                tag,
                result: Ok(0),
                at: Instant::now(),
            });
        }
        let mut batch = inbox.new_batch()?;
        inbox.wait(&mut batch, u64::MAX)?;
        assert_eq!(batch.len(), 2);
        assert_eq!(inbox.wait(&mut batch, 0), Err(ETIMEDOUT));
        inbox.reserve()?;
        Ok(())
    }
}
