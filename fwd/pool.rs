// SPDX-License-Identifier: GPL-2.0

//! Pools of forwarding message buffers, and the messages that wait for one.
//!
//! A [`Pool`] is shared by [`Arc`] between its forwarder, the buffers in use, and the messages that want one. Its
//! spinlock protects all of its [`PoolState`]; it is taken in thread context only. Nothing is woken or freed
//! while it is held, and no memory is waited for. A buffer in use is an [`Fmb`]; dropping that returns
//! the buffer once. An open pool keeps it, and grants it to a message that waits; a closed pool frees it.
//!
//! # Which message gets a buffer
//!
//! A receiver that does not read must not keep the buffers from the others. So messages to one node hold few
//! of them: so few that the others hardly notice the lack, yet enough to keep a node busy that does read; and
//! one more only while more buffers are idle than these messages hold.
//!
//! Messages of low priority share a quarter of the buffers. These are messages to nodes that no message has
//! reached yet, or that the last one did not reach: a sender may have made up any number of such nodes. And
//! they are messages for which TCP has no room, so that they need a buffer before they have arrived.
//!
//! Messages from one node, and messages from one address, hold at most half of the buffers.
//!
//! Messages that wait are queued by priority, node, source address, and time. Nodes take turns, and for each
//! node its source addresses do. To find the next message takes a number of steps that does not grow with the
//! number of messages that wait. A step takes logarithmic time, and skips all messages to a node that may
//! have no more buffers, of which it holds one at least; or all messages from an address
//! that may have no more, of which there are no more than two, as each holds half of the buffers. How many
//! messages of one address wait is bounded by [`MAX_WAITING`].
//!
//! A connection that sends too slowly into a buffer while others wait has to give it up. So has, if no buffer
//! comes back at all, a node to which nothing can be sent. See [`Pool::find_stuck`].

mod fmb;
mod state;

use self::state::{
    ActiveFmb,
    PoolState,
    Priority,
    QueueKey,
    WaitingMsg, //
};
use super::credits::{
    FmbCredits,
    FwdPath, //
};
use crate::{
    lib_linux::{
        misc,
        page::Pages, //
    },
    upper::Arrived, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    rbtree::RBTreeNodeReservation,
    sync::{
        atomic::Relaxed,
        Arc,
        ArcBorrow,
        SpinLock, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

pub(super) use self::fmb::Fmb;

/// The most messages from one address that wait for a buffer of a pool: more than a node has
/// connections.
const MAX_WAITING: u32 = 256;

/// How long a message may take to arrive, or to be sent, while another one waits for its buffer.
const MAX_STUCK: Delta = Delta::from_secs(5);

/// A connection that can wait for a buffer.
pub(crate) trait BlockedConn {
    /// Makes the connection ask its pool again. Thread context, no spinlock held.
    fn wake(self: Arc<Self>);
}

/// A message's request for a buffer. It must be cancelled, see [`Pool::cancel`], unless a buffer was granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FmbRequest {
    /// Where it waits, or waited until a buffer was granted.
    queued: Option<QueueKey>,
}

/// The answer to a request for a buffer.
pub(crate) enum Grant<C: BlockedConn + ?Sized> {
    /// The buffer.
    Granted(Fmb<C>),
    /// There is none. The connection is woken when one was granted.
    Queued,
    /// There is none, and no memory to queue the request: the caller has to ask again after a while.
    NoMemory,
    /// There is none, and too many messages from the same address wait.
    QueueFull,
    /// The pool is closed.
    Closed,
}

/// What is reported about a pool.
pub(crate) struct PoolInfo {
    /// Bytes of one buffer.
    pub(crate) bytes: usize,
    /// Buffers that exist.
    pub(crate) buffers: usize,
    /// Buffers that are in use.
    pub(crate) busy: usize,
    /// Messages that wait now.
    pub(crate) waiting: usize,
    /// How often a message had to wait so far.
    pub(crate) waits: u64,
}

/// What holds buffers that others wait for.
pub(super) enum Stuck<C: ?Sized> {
    /// This connection sends too slowly into a buffer.
    Receiving(Arc<C>),
    /// Messages to this node can't be sent.
    Sending(Arc<FmbCredits>),
}

/// Buffers of one size.
#[pin_data]
pub(crate) struct Pool<C: BlockedConn + ?Sized> {
    index: usize,
    bytes: usize,
    #[pin]
    state: SpinLock<PoolState<C>>,
}

impl<C: BlockedConn + ?Sized> Pool<C> {
    /// The `index`-th pool of a node, for buffers of `bytes`. It is closed. May sleep.
    pub(super) fn new(index: usize, bytes: usize) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                state <- new_spinlock!(PoolState::new(index), "socklnd_fwd_pool"),
                index,
                bytes,
            }),
            GFP_KERNEL,
        )
    }

    /// Opens the pool with `capacity` buffers, including those that are still in use. The caller serializes
    /// this with [`Pool::close`]. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the pool is as it was.
    pub(super) fn open(&self, capacity: usize) -> Result {
        let mut fresh = KVVec::with_capacity(capacity, GFP_KERNEL)?;
        loop {
            let missing = capacity.saturating_sub(self.state.lock().nactive);
            for _ in fresh.len()..missing {
                let pages = Pages::alloc(self.bytes)?;
                fresh.push(Arc::new(pages, GFP_KERNEL)?, GFP_KERNEL)?;
            }
            let mut state = self.state.lock();
            if fresh.len() < capacity.saturating_sub(state.nactive) {
                // More buffers came back meanwhile, and were freed.
                continue;
            }
            state.is_open = true;
            state.capacity = capacity;
            // INVARIANT: `fresh` has room for `capacity`; no message waits for a closed pool.
            let old = core::mem::replace(&mut state.idle, fresh);
            drop(state);
            // Freeing memory may sleep.
            drop(old);
            return Ok(());
        }
    }

    /// Closes the pool: frees its idle buffers, and wakes the connections that wait, which find it closed. May
    /// sleep.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_open = false;
        state.capacity = 0;
        let idle = core::mem::replace(&mut state.idle, KVVec::new());
        drop(state);
        drop(idle);
        loop {
            let mut state = self.state.lock();
            let first = state.queue.cursor_front().map(|at| *at.current().0);
            let msg = first.and_then(|key| state.dequeue(&key));
            drop(state);
            // A buffer that was granted returns when its message asks for it.
            match msg {
                Some(msg) => msg.conn.wake(),
                None => return,
            }
        }
    }

    /// What is reported about it. Thread context.
    pub(super) fn info(&self) -> PoolInfo {
        let state = self.state.lock();
        PoolInfo {
            bytes: self.bytes,
            buffers: state.idle.len().saturating_add(state.nactive),
            busy: state.nactive,
            waiting: state.nwaiting,
            waits: state.waits,
        }
    }

    /// Whether it is open. Thread context.
    pub(super) fn is_open(&self) -> bool {
        self.state.lock().is_open
    }

    /// Bytes of one buffer.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Asks for a buffer for a message on this `path`, of which so much has `arrived` at `conn`. A connection
    /// that was woken asks again with the same `request`. Thread context, may sleep for memory.
    pub(crate) fn request(
        self: &Arc<Self>,
        conn: ArcBorrow<'_, C>,
        path: &FwdPath,
        arrived: Arrived,
        request: &mut FmbRequest,
    ) -> Grant<C> {
        if let Some(key) = request.queued {
            let mut state = self.state.lock();
            if state.queue.get(&key).is_some() {
                return Grant::Queued;
            }
            let is_open = state.is_open;
            let active = state.active.get_mut(&key.seq);
            let granted = active.and_then(|active| active.granted.take());
            drop(state);
            request.queued = None;
            // If nothing was granted, the pool was closed meanwhile.
            if let Some(pages) = granted {
                let fmb = Fmb::new(self, key.seq, &path.next_hop, pages);
                return if is_open {
                    Grant::Granted(fmb)
                } else {
                    Grant::Closed
                };
            }
        }
        let Ok(active_node) = RBTreeNodeReservation::new(GFP_KERNEL) else {
            return Grant::NoMemory;
        };
        let mut queue_node = None;
        loop {
            let mut state = self.state.lock();
            if !state.is_open {
                return Grant::Closed;
            }
            let priority = if arrived == Arrived::All && path.next_hop.is_reached() {
                Priority::Normal
            } else {
                Priority::Low
            };
            if state.may_grant(path, priority) {
                if let Some(pages) = state.pop_idle(path, priority) {
                    let seq = state.next_seq();
                    let active = ActiveFmb::new(conn.into(), path, priority, None);
                    // Nothing is replaced: no other message has this number.
                    let _ = state.active.insert(active_node.into_node(seq, active));
                    drop(state);
                    return Grant::Granted(Fmb::new(self, seq, &path.next_hop, pages));
                }
            }
            let Some(usage) = path.addr.usage(self.index) else {
                return Grant::Closed;
            };
            if usage.waiting.load(Relaxed) >= MAX_WAITING {
                return Grant::QueueFull;
            }
            let Some(queue_node) = queue_node.take() else {
                // Memory can only be waited for without the lock.
                drop(state);
                match RBTreeNodeReservation::new(GFP_KERNEL) {
                    Ok(node) => queue_node = Some(node),
                    Err(_) => return Grant::NoMemory,
                }
                continue;
            };
            usage.waiting.fetch_add(1, Relaxed);
            let key = QueueKey {
                priority,
                next_hop: path.next_hop.id(),
                addr: path.addr.id(),
                seq: state.next_seq(),
            };
            let msg = WaitingMsg {
                conn: conn.into(),
                path: path.clone(),
                node: active_node,
            };
            let _ = state.queue.insert(queue_node.into_node(key, msg));
            state.nwaiting = state.nwaiting.saturating_add(1);
            state.waits = state.waits.saturating_add(1);
            request.queued = Some(key);
            return Grant::Queued;
        }
    }

    /// Ends a request. A buffer that it was granted goes to another message. Thread context, no spinlock held.
    pub(crate) fn cancel(&self, request: &mut FmbRequest) {
        misc::assert_may_sleep();
        let Some(key) = request.queued.take() else {
            return;
        };
        let mut state = self.state.lock();
        let msg = state.dequeue(&key);
        let active = state.active.get_mut(&key.seq);
        let granted = active.and_then(|active| active.granted.take());
        drop(state);
        drop(msg);
        if let Some(pages) = granted {
            self.give_back(key.seq, pages);
        }
    }

    /// Notes that a message has arrived and is about to be sent. Thread context, no spinlock held.
    fn set_received(&self, seq: u64) {
        misc::assert_may_sleep();
        let mut state = self.state.lock();
        let conn = state.active.get_mut(&seq).and_then(|active| {
            active.since = Instant::now();
            active.conn.take()
        });
        drop(state);
        drop(conn);
    }

    /// Returns the buffer of the message with this number. Thread context, no spinlock held.
    fn give_back(&self, seq: u64, pages: Arc<Pages>) {
        misc::assert_may_sleep();
        let mut state = self.state.lock();
        let active = state.active.remove(&seq);
        if let Some(active) = &active {
            state.charge(&active.path, active.priority, -1);
        }
        state.last_return = Instant::now();
        let mut excess = Some(pages);
        if state.idle.len().saturating_add(state.nactive) < state.capacity {
            if let Some(pages) = excess.take() {
                let _ = state.idle.push_within_capacity(pages);
            }
        }
        drop(state);
        drop(active);
        // A closed pool keeps no buffer, nor does one that was opened again with fewer.
        drop(excess);
        self.grant_idle();
    }

    /// Grants idle buffers to messages that wait.
    fn grant_idle(&self) {
        loop {
            let mut state = self.state.lock();
            let Some(key) = state.next_waiting() else {
                return;
            };
            let Some(msg) = state.dequeue(&key) else {
                return;
            };
            let WaitingMsg { conn, path, node } = msg;
            let pages = state.pop_idle(&path, key.priority);
            state.set_last_turn(&key, &path.next_hop);
            let active = ActiveFmb::new(conn.clone(), &path, key.priority, pages);
            let _ = state.active.insert(node.into_node(key.seq, active));
            drop(state);
            conn.wake();
        }
    }

    /// What has to give up its buffers because other messages wait for them. Thread context.
    pub(super) fn find_stuck(&self, now: Instant<Monotonic>) -> Option<Stuck<C>> {
        let is_late = |since: Instant<Monotonic>| now - since >= MAX_STUCK;
        let state = self.state.lock();
        if state.queue.is_empty() {
            return None;
        }
        let is_empty = state.idle.is_empty();
        // Takes as many steps as there are buffers; each takes logarithmic time.
        for active in state.active.values() {
            if !is_late(active.since) || active.granted.is_some() {
                continue;
            }
            let next_hop = active.path.next_hop.id();
            match &active.conn {
                Some(conn) if is_empty || state.has_waiting_to(next_hop) => {
                    return Some(Stuck::Receiving(conn.clone()));
                }
                // If all messages that wait go to this node too, they would not be sent any sooner.
                None if is_empty
                    && is_late(state.last_return)
                    && state.has_waiting_to_other(next_hop) =>
                {
                    return Some(Stuck::Sending(active.path.next_hop.clone()));
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
