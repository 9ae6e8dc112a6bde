// SPDX-License-Identifier: GPL-2.0

//! What a pool's lock protects: its idle buffers, its buffers in use, and the queue of messages that wait; and
//! the rules that say which message is granted the next buffer, see [`super`].
//!
//! A [`PoolState`] takes no lock. It drops nothing that may free memory: what is taken out is returned to
//! the caller, who drops it after the pool's lock was released.

use crate::{
    fwd::credits::{
        FmbCredits,
        FwdPath, //
    },
    lib_linux::page::Pages, //
};
use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// The most buffers of a pool of `capacity` that messages to one node hold.
fn max_to_node(capacity: usize) -> isize {
    // If one node is stuck, the others keep about seven eighths of the buffers. With the two extra
    // buffers a message can come in and another one wait while a node receives a third.
    (capacity / 8 + 2) as isize
}

/// The most buffers of a pool of `capacity` that messages of low priority hold.
fn max_low(capacity: usize) -> usize {
    capacity / 4 + 1
}

/// The most buffers of a pool of `capacity` that messages from one node, or from one address, hold.
fn max_from_one(capacity: usize) -> isize {
    (capacity / 2).max(1) as isize
}

/// In which order messages are granted buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// A message that has arrived and whose next hop could be reached the last time.
    Normal,
    /// Any other message. All of these together hold a quarter of the buffers.
    Low,
}

/// The place of a message in the queue. The order of the fields is that of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    pub(super) priority: Priority,
    /// The node that it goes to, by [`FmbCredits::id`].
    pub(super) next_hop: usize,
    /// The address that it came from, by [`FmbCredits::id`].
    pub(super) addr: usize,
    /// Counts the messages that have asked for a buffer: no two have the same number.
    pub(super) seq: u64,
}

impl QueueKey {
    /// The first place of all messages to `next_hop`.
    fn first_to(priority: Priority, next_hop: usize) -> Self {
        Self {
            priority,
            next_hop,
            addr: 0,
            seq: 0,
        }
    }
}

/// A message that waits for a buffer.
pub(super) struct WaitingMsg<C: ?Sized> {
    pub(super) conn: Arc<C>,
    pub(super) path: FwdPath,
    /// Memory for its entry in [`PoolState::active`].
    pub(super) node: RBTreeNodeReservation<u64, ActiveFmb<C>>,
}

/// A buffer that is in use, or was granted.
pub(super) struct ActiveFmb<C: ?Sized> {
    /// Since when the message is being received, or being sent.
    pub(super) since: Instant<Monotonic>,
    pub(super) path: FwdPath,
    pub(super) priority: Priority,
    /// The connection that the message is received from; `None` once all of it has arrived.
    pub(super) conn: Option<Arc<C>>,
    /// The buffer, from the moment that it is granted to a waiting message until that asks for it.
    pub(super) granted: Option<Arc<Pages>>,
}

impl<C: ?Sized> ActiveFmb<C> {
    pub(super) fn new(
        conn: Arc<C>,
        path: &FwdPath,
        priority: Priority,
        granted: Option<Arc<Pages>>,
    ) -> Self {
        Self {
            since: Instant::now(),
            path: path.clone(),
            priority,
            conn: Some(conn),
            granted,
        }
    }
}

/// # Invariants
///
/// `idle` has room for `capacity` buffers. While the lock is not held: if there is an idle buffer, no message
/// waits that may have it.
pub(super) struct PoolState<C: ?Sized> {
    /// Which of the node's pools it is.
    index: usize,
    pub(super) is_open: bool,
    /// The most buffers that are kept.
    pub(super) capacity: usize,
    pub(super) idle: KVVec<Arc<Pages>>,
    /// Buffers that are in use or granted, by the number of their message.
    pub(super) active: RBTree<u64, ActiveFmb<C>>,
    /// The number of these.
    pub(super) nactive: usize,
    /// The number of these whose messages have a low priority.
    nactive_low: usize,
    /// When the last buffer came back, or the first one was granted.
    pub(super) last_return: Instant<Monotonic>,
    pub(super) queue: RBTree<QueueKey, WaitingMsg<C>>,
    /// The number of messages in it.
    pub(super) nwaiting: usize,
    /// The nodes to which the last waiting message of each priority went, by [`FmbCredits::id`].
    pub(super) last_next_hop: [usize; 2],
    /// How many messages have asked for a buffer.
    last_seq: u64,
    /// How many of them had to wait.
    pub(super) waits: u64,
}

impl<C: ?Sized> PoolState<C> {
    /// A closed pool.
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            is_open: false,
            capacity: 0,
            idle: KVVec::new(),
            active: RBTree::new(),
            nactive: 0,
            nactive_low: 0,
            last_return: Instant::now(),
            queue: RBTree::new(),
            nwaiting: 0,
            last_next_hop: [0; 2],
            last_seq: 0,
            waits: 0,
        }
    }

    /// The number of the next message that asks for a buffer.
    pub(super) fn next_seq(&mut self) -> u64 {
        // 64 bits last for ever.
        self.last_seq = self.last_seq.wrapping_add(1);
        self.last_seq
    }

    /// Whether messages to `next_hop` may hold one more buffer.
    fn may_send_to(&self, next_hop: &FmbCredits, priority: Priority) -> bool {
        // CAST: There are far fewer than fit.
        let idle = self.idle.len() as isize;
        let fits = priority == Priority::Normal || self.nactive_low < max_low(self.capacity);
        next_hop.usage(self.index).is_some_and(|usage| {
            let to = usage.to.load(Relaxed);
            fits && idle > to && to < max_to_node(self.capacity)
        })
    }

    /// Whether messages from `source`, a node or an address, may hold one more buffer.
    fn may_receive_from(&self, source: &FmbCredits) -> bool {
        let max = max_from_one(self.capacity);
        let usage = source.usage(self.index);
        usage.is_some_and(|usage| usage.from.load(Relaxed) < max)
    }

    /// Whether a message on this `path` may have a buffer.
    pub(super) fn may_grant(&self, path: &FwdPath, priority: Priority) -> bool {
        self.may_send_to(&path.next_hop, priority)
            && self.may_receive_from(&path.addr)
            && self.may_receive_from(&path.prev_hop)
    }

    /// Counts `by` more buffers, or fewer if that is negative, that messages on this `path` hold.
    pub(super) fn charge(&mut self, path: &FwdPath, priority: Priority, by: isize) {
        self.nactive = self.nactive.saturating_add_signed(by);
        if priority == Priority::Low {
            self.nactive_low = self.nactive_low.saturating_add_signed(by);
        }
        for source in [&path.addr, &path.prev_hop] {
            if let Some(usage) = source.usage(self.index) {
                usage.from.add(by, Relaxed);
            }
        }
        if let Some(usage) = path.next_hop.usage(self.index) {
            usage.to.add(by, Relaxed);
        }
    }

    /// Takes an idle buffer for a message that [`Self::may_grant`] allows one.
    pub(super) fn pop_idle(&mut self, path: &FwdPath, priority: Priority) -> Option<Arc<Pages>> {
        let pages = self.idle.pop()?;
        if self.nactive == 0 {
            self.last_return = Instant::now();
        }
        self.charge(path, priority, 1);
        Some(pages)
    }

    /// The message at `key`, or the first one behind that.
    fn first_from(&self, key: QueueKey) -> Option<(QueueKey, &WaitingMsg<C>)> {
        let cursor = self.queue.cursor_lower_bound(&key)?;
        let (key, _) = cursor.current();
        let key = *key;
        Some((key, self.queue.get(&key)?))
    }

    /// The next message to the node of `start`, which [`Self::may_send_to`] allows one. Source addresses
    /// take turns: the search begins behind the one that was granted a buffer last.
    fn next_to_node(&self, start: QueueKey, next_hop: &FmbCredits) -> Option<QueueKey> {
        let last = next_hop.usage(self.index)?.last_addr.load(Relaxed);
        for first in [last.saturating_add(1), 0] {
            let mut at = QueueKey {
                addr: first,
                seq: 0,
                ..start
            };
            while let Some((key, msg)) = self.first_from(at) {
                if (key.priority, key.next_hop) != (start.priority, start.next_hop) {
                    break;
                }
                at = key;
                if !self.may_receive_from(&msg.path.addr) {
                    // Skip all messages from this address.
                    at.addr = key.addr.saturating_add(1);
                    at.seq = 0;
                } else if !self.may_receive_from(&msg.path.prev_hop) {
                    at.seq = key.seq.saturating_add(1);
                } else {
                    return Some(key);
                }
            }
        }
        None
    }

    /// The next message of this `priority` that may have a buffer. Nodes take turns: the search begins
    /// behind the one to which the last message went.
    fn next_of(&self, priority: Priority) -> Option<QueueKey> {
        let last = self.last_next_hop.get(priority as usize)?;
        for first in [last.saturating_add(1), 0] {
            let mut at = QueueKey::first_to(priority, first);
            while let Some((key, msg)) = self.first_from(at) {
                if key.priority != priority {
                    break;
                }
                let start = QueueKey::first_to(priority, key.next_hop);
                if self.may_send_to(&msg.path.next_hop, priority) {
                    if let Some(key) = self.next_to_node(start, &msg.path.next_hop) {
                        return Some(key);
                    }
                }
                // Skip all messages to this node.
                at = QueueKey::first_to(priority, key.next_hop.saturating_add(1));
            }
        }
        None
    }

    /// The message that is granted the next idle buffer.
    pub(super) fn next_waiting(&self) -> Option<QueueKey> {
        if self.idle.is_empty() {
            return None;
        }
        let normal = self.next_of(Priority::Normal);
        normal.or_else(|| self.next_of(Priority::Low))
    }

    /// Notes that the message at `key`, which goes to `next_hop`, has had its turn.
    pub(super) fn set_last_turn(&mut self, key: &QueueKey, next_hop: &FmbCredits) {
        if let Some(last) = self.last_next_hop.get_mut(key.priority as usize) {
            *last = key.next_hop;
        }
        if let Some(usage) = next_hop.usage(self.index) {
            usage.last_addr.store(key.addr, Relaxed);
        }
    }

    /// Whether a message to this node waits.
    pub(super) fn has_waiting_to(&self, next_hop: usize) -> bool {
        [Priority::Normal, Priority::Low].iter().any(|priority| {
            self.first_from(QueueKey::first_to(*priority, next_hop))
                .is_some_and(|(key, _)| key.next_hop == next_hop)
        })
    }

    /// Whether a message to another node waits.
    pub(super) fn has_waiting_to_other(&self, next_hop: usize) -> bool {
        [Priority::Normal, Priority::Low].iter().any(|priority| {
            [0, next_hop.saturating_add(1)].iter().any(|first| {
                self.first_from(QueueKey::first_to(*priority, *first))
                    .is_some_and(|(key, _)| key.next_hop != next_hop)
            })
        })
    }

    /// Takes a message out of the queue.
    pub(super) fn dequeue(&mut self, key: &QueueKey) -> Option<WaitingMsg<C>> {
        let msg = self.queue.remove(key)?;
        self.nwaiting = self.nwaiting.saturating_sub(1);
        if let Some(usage) = msg.path.addr.usage(self.index) {
            usage.waiting.fetch_sub(1, Relaxed);
        }
        Some(msg)
    }
}
