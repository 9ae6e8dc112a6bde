// SPDX-License-Identifier: GPL-2.0

//! Pools of forwarding buffers, and who waits for them.
//!
//! A [`Pool`] is shared by [`Arc`] between its forwarder, the buffers that are out, and the messages
//! that want one. Its spinlock protects all of it; it is taken in thread context only, and nothing
//! is woken, freed or allocated for long under it. A buffer that is out is an [`Fmb`]: whoever drops
//! that gives the buffer back, once. An open pool keeps it, and gives it to somebody who waits; a
//! closed one frees it. [`Share`]s count who holds how many, and belong to whoever is counted.
//!
//! # Who gets one
//!
//! So that a receiver who doesn't read can't keep the buffers from the others, messages on their way
//! to the same node hold few of them, see [`most_to_one`]: so few that the others hardly feel the
//! lack, and yet enough to keep a receiver busy who reads; and one more only while there are more idle
//! ones than they hold. Messages that are unsure share a quarter: those to nodes that nothing has reached
//! yet, or not any more, which may be anything that a sender has made up; and those that TCP has no room
//! for, so that they need a buffer before all of them has come. A sender, and all senders at one address, get half.
//!
//! Those who wait stand in a tree: those with sure messages before the others, then by node, address of
//! the sender, and time. Turns go round among the nodes, and for each node among the
//! addresses. Finding who is next takes logarithmic time for each step, and the number of steps does not
//! grow with the number of those who wait: a node that may have no more is passed over as a whole, and
//! holds a buffer at least; so is, for each node, an address that may have no more, and no more than two
//! can hold half of the buffers. How many messages of one address wait is bounded, see [`MAX_WAITING`].
//!
//! Who sends too slowly into a buffer although somebody waits has to give it up, and so has, if no buffer
//! comes back at all, a node that nothing can be sent to: see [`Pool::stuck`].

use crate::{
    lib_linux::{
        page::{
            PageRange,
            Pages, //
        },
        time, //
    },
    upper::Arrived,
    wire::Nid, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow,
        SpinLock, //
    }, //
};

/// How many pools a node has: for small and for large messages.
pub(super) const POOLS: usize = 2;

/// The most messages from one address that wait for a buffer of a pool: more than a node has
/// connections.
const MAX_WAITING: u32 = 256;

/// How long a message may take to come, or to go, in milliseconds, while somebody waits because of it.
const STUCK_MS: u64 = 5_000;

/// Somebody who can wait for a buffer.
pub(crate) trait Waiter {
    /// Has the waiter ask the pool again. Thread context, no spinlock held.
    fn wake(self: Arc<Self>);
}

/// The most buffers of a pool of `capacity` that messages on their way to one node hold.
fn most_to_one(capacity: usize) -> isize {
    // With one that is stuck the others have about seven eighths of what they had. The two more let
    // the next message come in, and another one wait, while a receiver gets one.
    (capacity / 8 + 2) as isize
}

/// The most buffers of a pool of `capacity` that unsure messages hold.
fn most_unsure(capacity: usize) -> usize {
    capacity / 4 + 1
}

/// The most buffers of a pool of `capacity` that messages from one node, or one address, hold.
fn most_from_one(capacity: usize) -> isize {
    (capacity / 2).max(1) as isize
}

/// What one node, or address, has to do with one pool. Changed under the pool's lock.
struct Held {
    /// Buffers with messages from it, and to it.
    from: Atomic<isize>,
    to: Atomic<isize>,
    /// Messages from it that wait.
    waiting: Atomic<u32>,
    /// Of messages to it: the address that had the last turn.
    turn: Atomic<usize>,
}

/// A node's share of the buffers; or an address's, which is nobody's target.
pub(crate) struct Share {
    held: [Held; POOLS],
    /// The last message to it was sent.
    reached: Atomic<bool>,
    /// Whose it is, if it is a node's.
    node: Option<Nid>,
}

impl Share {
    /// An address's, of no buffers. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Self::with(None)
    }

    /// A node's, of no buffers. May sleep.
    pub(crate) fn of_node(nid: Nid) -> Result<Arc<Self>> {
        Self::with(Some(nid))
    }

    fn with(node: Option<Nid>) -> Result<Arc<Self>> {
        let none = |_| Held {
            from: Atomic::new(0),
            to: Atomic::new(0),
            waiting: Atomic::new(0),
            turn: Atomic::new(0),
        };
        let share = Self {
            held: core::array::from_fn(none),
            reached: Atomic::new(false),
            node,
        };
        Ok(Arc::new(share, GFP_KERNEL)?)
    }

    /// A message to the node was sent, or could not be. Any context.
    pub(crate) fn set_reached(&self, reached: bool) {
        if self.reached.load(Relaxed) != reached {
            self.reached.store(reached, Relaxed);
        }
    }

    /// Whose it is, if it is a node's.
    pub(super) fn node(&self) -> Option<Nid> {
        self.node
    }

    /// Whether no buffer has a message from it or to it, and none from it waits for one. Any context.
    pub(super) fn is_idle(&self) -> bool {
        self.held.iter().all(|held| {
            held.from.load(Relaxed) == 0
                && held.to.load(Relaxed) == 0
                && held.waiting.load(Relaxed) == 0
        })
    }

    fn id(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}

/// From where to which next node a message goes.
#[derive(Clone)]
pub(crate) struct Way {
    /// The share of the address that it has come from.
    pub(crate) origin: Arc<Share>,
    /// That of the node that has sent it here.
    pub(crate) from: Arc<Share>,
    /// That of the one that it is sent on to.
    pub(crate) to: Arc<Share>,
}

/// A place among those who wait, or who have got something meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    unsure: bool,
    to: usize,
    origin: usize,
    /// Which message it is of all that have asked.
    number: u64,
}

/// What came of the wish for a buffer.
pub(crate) enum Take<W: Waiter + ?Sized> {
    /// Here it is.
    Got(Fmb<W>),
    /// There is none; whoever asked will be woken when there is one for him.
    Wait,
    /// There is none, and no memory to remember who asked: it has to ask again by itself.
    NoMemory,
    /// There is none, and too many wait that came from the same address.
    TooMany,
    /// The pool is closed.
    Closed,
}

/// What there is to tell about a pool.
pub(crate) struct PoolInfo {
    /// Bytes of one buffer.
    pub(crate) bytes: usize,
    /// Buffers that exist.
    pub(crate) buffers: usize,
    /// Those of them that are out.
    pub(crate) busy: usize,
    /// Who waits now.
    pub(crate) waiting: usize,
    /// How often somebody had to wait so far.
    pub(crate) waits: u64,
}

/// Who has to give up buffers.
pub(super) enum Stuck<W: ?Sized> {
    /// Who receives into one.
    Receiving(Arc<W>),
    /// The node that what is in them is sent to, by its share.
    Sending(Arc<Share>),
}

struct Waiting<W: ?Sized> {
    who: Arc<W>,
    way: Way,
    out: RBTreeNodeReservation<u64, Out<W>>,
}

/// A buffer that is out.
struct Out<W: ?Sized> {
    since_ms: u64,
    way: Way,
    unsure: bool,
    /// Who receives into it, until it is all there.
    who: Option<Arc<W>>,
    /// The buffer, until whoever waited for it has fetched it.
    granted: Option<Arc<Pages>>,
}

/// # Invariants
///
/// `idle` has room for `capacity` buffers. While nobody holds the lock: if there is an idle buffer,
/// nobody waits who may have it.
struct Inner<W: ?Sized> {
    open: bool,
    /// The most buffers that are kept.
    capacity: usize,
    idle: KVVec<Arc<Pages>>,
    /// Buffers that are out, or granted, by the number of their message.
    out: RBTree<u64, Out<W>>,
    busy: usize,
    /// Of those, the ones with unsure messages.
    unsure: usize,
    /// When one came back last, or the first one went out.
    back_ms: u64,
    line: RBTree<Place, Waiting<W>>,
    waiting: usize,
    /// The nodes that had the last turn: of those with sure messages, and of those with others.
    turns: [usize; 2],
    /// How many messages have asked so far.
    number: u64,
    waits: u64,
}

/// Buffers of one size.
#[pin_data]
pub(crate) struct Pool<W: Waiter + ?Sized> {
    index: usize,
    bytes: usize,
    #[pin]
    inner: SpinLock<Inner<W>>,
}

impl<W: ?Sized> Inner<W> {
    /// Whether messages to `to` may hold one more buffer of the pool.
    fn may_go_to(&self, pool: usize, to: &Share, unsure: bool) -> bool {
        // CAST: There are far fewer than fit.
        let idle = self.idle.len() as isize;
        let fits = !unsure || self.unsure < most_unsure(self.capacity);
        to.held.get(pool).is_some_and(|held| {
            let to = held.to.load(Relaxed);
            fits && idle > to && to < most_to_one(self.capacity)
        })
    }

    /// Whether messages from `from` may hold one more buffer of the pool.
    fn may_come_from(&self, pool: usize, from: &Share) -> bool {
        let most = most_from_one(self.capacity);
        let held = from.held.get(pool);
        held.is_some_and(|held| held.from.load(Relaxed) < most)
    }

    /// Whether a message that goes this `way` may have a buffer.
    fn may_go(&self, pool: usize, way: &Way, unsure: bool) -> bool {
        self.may_go_to(pool, &way.to, unsure)
            && self.may_come_from(pool, &way.origin)
            && self.may_come_from(pool, &way.from)
    }

    /// Counts a buffer that goes out, by 1, or is out no longer, by -1.
    fn count(&mut self, pool: usize, way: &Way, unsure: bool, by: isize) {
        self.busy = self.busy.saturating_add_signed(by);
        if unsure {
            self.unsure = self.unsure.saturating_add_signed(by);
        }
        for from in [&way.origin, &way.from] {
            if let Some(held) = from.held.get(pool) {
                held.from.add(by, Relaxed);
            }
        }
        if let Some(held) = way.to.held.get(pool) {
            held.to.add(by, Relaxed);
        }
    }

    /// Takes an idle buffer for the message of that number. The caller has made sure that there is one
    /// for it.
    fn pop(&mut self, pool: usize, way: &Way, unsure: bool) -> Option<Arc<Pages>> {
        let pages = self.idle.pop()?;
        if self.busy == 0 {
            self.back_ms = time::monotonic_ms();
        }
        self.count(pool, way, unsure, 1);
        Some(pages)
    }

    /// Who stands at `place`, or is the first behind it.
    fn from(&self, place: Place) -> Option<(Place, &Waiting<W>)> {
        let cursor = self.line.cursor_lower_bound(&place)?;
        let (place, _) = cursor.current();
        let place = *place;
        Some((place, self.line.get(&place)?))
    }

    /// Whose turn it is of those who wait for the node at `start`, which may have a buffer: the addresses
    /// behind the one that had the last turn come first.
    fn turn_at(&self, pool: usize, start: Place, to: &Share) -> Option<Place> {
        let last = to.held.get(pool)?.turn.load(Relaxed);
        for first in [last.saturating_add(1), 0] {
            let mut at = Place {
                origin: first,
                number: 0,
                ..start
            };
            while let Some((place, waiting)) = self.from(at) {
                if (place.unsure, place.to) != (start.unsure, start.to) {
                    break;
                }
                at = place;
                if !self.may_come_from(pool, &waiting.way.origin) {
                    at.origin = place.origin.saturating_add(1);
                    at.number = 0;
                } else if !self.may_come_from(pool, &waiting.way.from) {
                    at.number = place.number.saturating_add(1);
                } else {
                    return Some(place);
                }
            }
        }
        None
    }

    /// Whose turn it is of those with sure messages, or with others.
    fn turn_of(&self, pool: usize, unsure: bool) -> Option<Place> {
        let last = self.turns.get(usize::from(unsure))?;
        for first in [last.saturating_add(1), 0] {
            let mut at = Place {
                unsure,
                to: first,
                origin: 0,
                number: 0,
            };
            while let Some((place, waiting)) = self.from(at) {
                if place.unsure != unsure {
                    break;
                }
                at.to = place.to;
                if self.may_go_to(pool, &waiting.way.to, unsure) {
                    if let Some(place) = self.turn_at(pool, at, &waiting.way.to) {
                        return Some(place);
                    }
                }
                at.to = place.to.saturating_add(1);
            }
        }
        None
    }

    /// Whose turn it is.
    fn turn(&self, pool: usize) -> Option<Place> {
        if self.idle.is_empty() {
            return None;
        }
        let sure = self.turn_of(pool, false);
        sure.or_else(|| self.turn_of(pool, true))
    }

    /// Whether somebody waits for the node with this number.
    fn is_awaited(&self, to: usize) -> bool {
        let at = |unsure| Place {
            unsure,
            to,
            origin: 0,
            number: 0,
        };
        let is_there = |place| self.from(place).is_some_and(|(next, _)| next.to == to);
        is_there(at(false)) || is_there(at(true))
    }

    /// Takes who stands at `place` out of the line. What comes back is to be dropped with no lock held.
    fn leave(&mut self, pool: usize, place: &Place) -> Option<Waiting<W>> {
        let gone = self.line.remove(place)?;
        self.waiting = self.waiting.saturating_sub(1);
        if let Some(held) = gone.way.origin.held.get(pool) {
            held.waiting.fetch_sub(1, Relaxed);
        }
        Some(gone)
    }
}

impl<W: Waiter + ?Sized> Pool<W> {
    /// The `index`-th pool of a node, for buffers of `bytes`. It is closed. May sleep.
    pub(super) fn new(index: usize, bytes: usize) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                index,
                bytes,
                inner <- new_spinlock!(
                    Inner {
                        open: false,
                        capacity: 0,
                        idle: KVVec::new(),
                        out: RBTree::new(),
                        busy: 0,
                        unsure: 0,
                        back_ms: 0,
                        line: RBTree::new(),
                        waiting: 0,
                        turns: [0; 2],
                        number: 0,
                        waits: 0,
                    },
                    "socklnd_fwd_pool"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Opens the pool with `capacity` buffers, those included that are still out. The caller opens
    /// and closes one at a time. May sleep.
    pub(super) fn open(&self, capacity: usize) -> Result {
        let mut fresh = KVVec::with_capacity(capacity, GFP_KERNEL)?;
        loop {
            // Memory first; if more has come back and was freed by then, once again.
            let missing = capacity.saturating_sub(self.inner.lock().busy);
            for _ in fresh.len()..missing {
                let pages = Pages::alloc(self.bytes)?;
                fresh.push(Arc::new(pages, GFP_KERNEL)?, GFP_KERNEL)?;
            }
            let mut inner = self.inner.lock();
            if fresh.len() < capacity.saturating_sub(inner.busy) {
                continue;
            }
            inner.open = true;
            inner.capacity = capacity;
            // INVARIANT: That many fit; nobody waits for a closed pool.
            let old = core::mem::replace(&mut inner.idle, fresh);
            drop(inner);
            // Freeing it may sleep.
            drop(old);
            return Ok(());
        }
    }

    /// Closes the pool: frees the buffers that are not out, and sends away who waits. May sleep.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.open = false;
        inner.capacity = 0;
        let idle = core::mem::replace(&mut inner.idle, KVVec::new());
        drop(inner);
        drop(idle);
        loop {
            let mut inner = self.inner.lock();
            let first = inner.line.cursor_front().map(|cursor| *cursor.current().0);
            let gone = first.and_then(|place| inner.leave(self.index, &place));
            drop(inner);
            // What was granted is given back by whoever comes to fetch it.
            match gone {
                Some(gone) => gone.who.wake(),
                None => return,
            }
        }
    }

    /// What there is to tell. Thread context.
    pub(crate) fn info(&self) -> PoolInfo {
        let inner = self.inner.lock();
        PoolInfo {
            bytes: self.bytes,
            buffers: inner.idle.len().saturating_add(inner.busy),
            busy: inner.busy,
            waiting: inner.waiting,
            waits: inner.waits,
        }
    }

    /// Whether it is open. Thread context.
    pub(super) fn is_open(&self) -> bool {
        self.inner.lock().open
    }

    /// Bytes of one buffer.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A buffer for a message that goes this `way`, and of which so much has arrived. `who` asks, and asks again when woken; until then
    /// it waits, at the `place` that it is told and brings along. Thread context, may sleep for memory.
    pub(crate) fn take(
        self: &Arc<Self>,
        who: ArcBorrow<'_, W>,
        way: &Way,
        arrived: Arrived,
        place: &mut Option<Place>,
    ) -> Take<W> {
        if let Some(at) = *place {
            let mut inner = self.inner.lock();
            if inner.line.get(&at).is_some() {
                return Take::Wait;
            }
            let is_open = inner.open;
            let out = inner.out.get_mut(&at.number);
            let granted = out.and_then(|out| out.granted.take());
            drop(inner);
            *place = None;
            // If there is nothing, the pool was closed meanwhile.
            if let Some(pages) = granted {
                let fmb = self.fmb(at.number, way, pages);
                return if is_open {
                    Take::Got(fmb)
                } else {
                    Take::Closed
                };
            }
        }
        let Ok(out) = RBTreeNodeReservation::new(GFP_KERNEL) else {
            return Take::NoMemory;
        };
        let mut room = None;
        loop {
            let mut inner = self.inner.lock();
            if !inner.open {
                return Take::Closed;
            }
            let unsure = arrived == Arrived::Part || !way.to.reached.load(Relaxed);
            if inner.may_go(self.index, way, unsure) {
                if let Some(pages) = inner.pop(self.index, way, unsure) {
                    inner.number = inner.number.wrapping_add(1);
                    let number = inner.number;
                    let out = out.into_node(number, Self::out(who.into(), way, unsure, None));
                    // Nothing is replaced: 64 bits last for ever.
                    let _ = inner.out.insert(out);
                    drop(inner);
                    return Take::Got(self.fmb(number, way, pages));
                }
            }
            let Some(held) = way.origin.held.get(self.index) else {
                return Take::Closed;
            };
            if held.waiting.load(Relaxed) >= MAX_WAITING {
                return Take::TooMany;
            }
            let Some(line) = room.take() else {
                drop(inner);
                // Memory without the lock.
                match RBTreeNodeReservation::new(GFP_KERNEL) {
                    Ok(line) => room = Some(line),
                    Err(_) => return Take::NoMemory,
                }
                continue;
            };
            held.waiting.fetch_add(1, Relaxed);
            inner.number = inner.number.wrapping_add(1);
            let at = Place {
                unsure,
                to: way.to.id(),
                origin: way.origin.id(),
                number: inner.number,
            };
            let waiting = Waiting {
                who: who.into(),
                way: way.clone(),
                out,
            };
            let _ = inner.line.insert(line.into_node(at, waiting));
            inner.waiting = inner.waiting.saturating_add(1);
            inner.waits = inner.waits.saturating_add(1);
            *place = Some(at);
            return Take::Wait;
        }
    }

    fn out(who: Arc<W>, way: &Way, unsure: bool, granted: Option<Arc<Pages>>) -> Out<W> {
        Out {
            since_ms: time::monotonic_ms(),
            way: way.clone(),
            unsure,
            who: Some(who),
            granted,
        }
    }

    fn fmb(self: &Arc<Self>, number: u64, way: &Way, pages: Arc<Pages>) -> Fmb<W> {
        Fmb {
            pages: Some(pages),
            to: way.to.clone(),
            number,
            pool: self.clone(),
        }
    }

    /// Ends waiting at `place`. What was granted goes to others. Thread context, no spinlock held.
    pub(crate) fn cancel(&self, place: Place) {
        let mut inner = self.inner.lock();
        let gone = inner.leave(self.index, &place);
        let out = inner.out.get_mut(&place.number);
        let granted = out.and_then(|out| out.granted.take());
        drop(inner);
        drop(gone);
        if let Some(pages) = granted {
            self.give_back(place.number, pages);
        }
    }

    fn give_back(&self, number: u64, pages: Arc<Pages>) {
        let mut inner = self.inner.lock();
        let out = inner.out.remove(&number);
        if let Some(out) = &out {
            inner.count(self.index, &out.way, out.unsure, -1);
        }
        inner.back_ms = time::monotonic_ms();
        let mut excess = Some(pages);
        if inner.idle.len().saturating_add(inner.busy) < inner.capacity {
            if let Some(pages) = excess.take() {
                let _ = inner.idle.push_within_capacity(pages);
            }
        }
        drop(inner);
        drop(out);
        // A closed pool keeps nothing, nor does one that was opened again with fewer.
        drop(excess);
        self.wake_waiters();
    }

    /// Gives idle buffers to those who wait.
    fn wake_waiters(&self) {
        loop {
            let mut inner = self.inner.lock();
            let Some(place) = inner.turn(self.index) else {
                return;
            };
            let Some(next) = inner.leave(self.index, &place) else {
                return;
            };
            let Waiting { who, way, out } = next;
            let pages = inner.pop(self.index, &way, place.unsure);
            if let Some(turn) = inner.turns.get_mut(usize::from(place.unsure)) {
                *turn = place.to;
            }
            if let Some(held) = way.to.held.get(self.index) {
                held.turn.store(place.origin, Relaxed);
            }
            let out = out.into_node(
                place.number,
                Self::out(who.clone(), &way, place.unsure, pages),
            );
            let _ = inner.out.insert(out);
            drop(inner);
            who.wake();
        }
    }

    /// Who has to give up buffers, if others wait because of it. Thread context.
    pub(super) fn stuck(&self, now_ms: u64) -> Option<Stuck<W>> {
        let late = |since: u64| now_ms.saturating_sub(since) >= STUCK_MS;
        let inner = self.inner.lock();
        let first = inner.line.cursor_front()?.current().0.to;
        let last = inner.line.cursor_back()?.current().0.to;
        let is_empty = inner.idle.is_empty();
        // As many steps as there are buffers.
        for out in inner.out.values() {
            if !late(out.since_ms) || out.granted.is_some() {
                continue;
            }
            let to = out.way.to.id();
            match &out.who {
                Some(who) if is_empty || inner.is_awaited(to) => {
                    return Some(Stuck::Receiving(who.clone()));
                }
                // Those who wait for the same node are slowed down by nobody else.
                None if is_empty && late(inner.back_ms) && (to != first || to != last) => {
                    return Some(Stuck::Sending(out.way.to.clone()));
                }
                _ => {}
            }
        }
        None
    }
}

/// A forwarding message buffer that is out. Dropped in thread context, no spinlock held.
pub(crate) struct Fmb<W: Waiter + ?Sized> {
    /// `None` only while it is dropped.
    pages: Option<Arc<Pages>>,
    /// Of the node that the message is sent on to.
    to: Arc<Share>,
    number: u64,
    pool: Arc<Pool<W>>,
}

impl<W: Waiter + ?Sized> Fmb<W> {
    /// Its first `len` bytes. `EINVAL` if it has not as many.
    pub(crate) fn range(&self, len: usize) -> Result<PageRange> {
        let pages = self.pages.as_ref().ok_or(EINVAL)?;
        PageRange::new(pages.clone(), 0, len)
    }

    /// All of the message is in it, and is to be sent on. Thread context, no spinlock held.
    pub(crate) fn received(&self) {
        let mut inner = self.pool.inner.lock();
        let who = inner.out.get_mut(&self.number).and_then(|out| {
            out.since_ms = time::monotonic_ms();
            out.who.take()
        });
        drop(inner);
        drop(who);
    }

    /// The share of the node that the message is sent on to.
    pub(crate) fn target(&self) -> &Share {
        &self.to
    }
}

impl<W: Waiter + ?Sized> Drop for Fmb<W> {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            self.pool.give_back(self.number, pages);
        }
    }
}

#[kunit_tests(socklnd_fwd_pool)]
mod tests {
    use super::*;

    struct Sleeper(Atomic<u32>);

    impl Waiter for Sleeper {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A connection that asks for a buffer for one message at a time.
    struct Asker {
        who: Arc<Sleeper>,
        way: Way,
        arrived: Arrived,
        place: Option<Place>,
    }

    impl Asker {
        fn new(way: &Way) -> Result<Self> {
            Ok(Self {
                who: Arc::new(Sleeper(Atomic::new(0)), GFP_KERNEL)?,
                way: way.clone(),
                arrived: Arrived::All,
                place: None,
            })
        }

        fn woken(&self) -> u32 {
            self.who.0.load(Relaxed)
        }

        fn ask(&mut self, pool: &Arc<Pool<Sleeper>>) -> Take<Sleeper> {
            pool.take(
                self.who.as_arc_borrow(),
                &self.way,
                self.arrived,
                &mut self.place,
            )
        }

        fn got(&mut self, pool: &Arc<Pool<Sleeper>>) -> Option<Fmb<Sleeper>> {
            match self.ask(pool) {
                Take::Got(fmb) => Some(fmb),
                _ => None,
            }
        }

        fn waits(&mut self, pool: &Arc<Pool<Sleeper>>) -> bool {
            matches!(self.ask(pool), Take::Wait)
        }

        fn cancel(&mut self, pool: &Pool<Sleeper>) {
            if let Some(place) = self.place.take() {
                pool.cancel(place);
            }
        }
    }

    fn pool(capacity: usize) -> Result<Arc<Pool<Sleeper>>> {
        let pool = Pool::new(0, 100)?;
        pool.open(capacity)?;
        Ok(pool)
    }

    /// From an address and a node of its own, to another that something has reached.
    fn new_way() -> Result<Way> {
        let to = Share::new()?;
        to.set_reached(true);
        Ok(Way {
            origin: Share::new()?,
            from: Share::new()?,
            to,
        })
    }

    fn towards(way: &Way) -> Result<Way> {
        Ok(Way {
            to: way.to.clone(),
            ..new_way()?
        })
    }

    /// What is held by messages from the same node, and by those to the same.
    fn held(way: &Way) -> (isize, isize) {
        let from = &way.from.held[0].from;
        (from.load(Relaxed), way.to.held[0].to.load(Relaxed))
    }

    fn state(pool: &Pool<Sleeper>) -> (usize, usize, usize) {
        let info = pool.info();
        (info.buffers, info.busy, info.waiting)
    }

    #[test]
    fn one_after_the_other() -> Result {
        let pool = pool(1)?;
        let mut holder = Asker::new(&new_way()?)?;
        let out = holder.got(&pool);
        assert!(out.is_some());
        let mut askers = [Asker::new(&new_way()?)?, Asker::new(&new_way()?)?];
        for asker in askers.iter_mut() {
            // Asking again does not change the place in the line.
            assert!(asker.waits(&pool) && asker.waits(&pool));
        }
        assert!(state(&pool) == (1, 1, 2));
        drop(out);
        let [one, other] = &mut askers;
        let (first, second) = if one.woken() == 1 {
            (one, other)
        } else {
            (other, one)
        };
        assert!((first.woken(), second.woken()) == (1, 0));
        // Who comes now comes too late, although the buffer was not fetched yet.
        assert!(holder.waits(&pool));
        assert!(second.waits(&pool));
        let out = first.got(&pool);
        assert!(out.is_some());
        drop(out);
        assert!(second.woken() + holder.woken() == 1);
        drop(second.got(&pool));
        drop(holder.got(&pool));
        drop(second.got(&pool));
        for asker in [&mut holder, first, second] {
            asker.cancel(&pool);
        }
        assert!(state(&pool) == (1, 0, 0));
        Ok(())
    }

    #[test]
    fn who_dies_waiting_gives_all_back() -> Result {
        let pool = pool(1)?;
        let mut holder = Asker::new(&new_way()?)?;
        let out = holder.got(&pool);
        let way = new_way()?;
        // Both from the same address, so that the first one is the next.
        let (mut first, mut second) = (Asker::new(&way)?, Asker::new(&way)?);
        assert!(first.waits(&pool) && second.waits(&pool));
        drop(out);
        assert!(first.woken() == 1);
        // It dies before it has fetched what it was granted.
        first.cancel(&pool);
        assert!(second.woken() == 1);
        assert!(held(&way) == (1, 1));
        second.cancel(&pool);
        assert!(held(&way) == (0, 0));
        assert!(state(&pool) == (1, 0, 0));
        assert!(way.origin.is_idle());
        Ok(())
    }

    /// All that can be had.
    fn take_all(pool: &Arc<Pool<Sleeper>>, way: &Way) -> Result<KVec<Fmb<Sleeper>>> {
        let mut asker = Asker::new(way)?;
        let mut out = KVec::new();
        while let Some(fmb) = asker.got(pool) {
            out.push(fmb, GFP_KERNEL)?;
        }
        asker.cancel(pool);
        Ok(out)
    }

    #[test]
    fn a_stuck_node_leaves_nearly_all_to_others() -> Result {
        for (capacity, one, two) in [(8, 3, 3), (16, 4, 4), (64, 10, 10), (2, 1, 1), (1, 1, 0)] {
            let pool = pool(capacity)?;
            let (stuck, other) = (new_way()?, new_way()?);
            let mut out = take_all(&pool, &stuck)?;
            assert!(out.len() == one);
            let mut asker = Asker::new(&stuck)?;
            assert!(asker.waits(&pool));
            // Its waiting is not in the way of others.
            for _ in 0..100 {
                assert!(take_all(&pool, &other)?.len() == two);
            }
            assert!(asker.woken() == 0);
            drop(out.pop());
            assert!(asker.woken() == 1);
            assert!(asker.got(&pool).is_some());
        }
        Ok(())
    }

    #[test]
    fn something_is_left_however_many_are_stuck() -> Result {
        let pool = pool(16)?;
        let mut out = KVec::new();
        for most in [4, 4, 4, 2, 1, 1, 0] {
            let stuck = take_all(&pool, &new_way()?)?;
            assert!(stuck.len() == most);
            out.push(stuck, GFP_KERNEL)?;
        }
        Ok(())
    }

    #[test]
    fn one_sender_gets_half() -> Result {
        let other = new_way()?;
        let origin = || -> Result<Way> {
            Ok(Way {
                origin: other.origin.clone(),
                ..new_way()?
            })
        };
        let from = || -> Result<Way> {
            Ok(Way {
                from: other.from.clone(),
                ..new_way()?
            })
        };
        // Whether it is one node, or many at one address.
        let ways: [&dyn Fn() -> Result<Way>; 2] = [&origin, &from];
        for way in ways {
            let pool = pool(16)?;
            let mut out = KVec::new();
            for most in [4, 4, 0, 0] {
                let stuck = take_all(&pool, &way()?)?;
                assert!(stuck.len() == most);
                out.push(stuck, GFP_KERNEL)?;
            }
            assert!(take_all(&pool, &new_way()?)?.len() == 4);
        }
        Ok(())
    }

    #[test]
    fn what_is_unsure_gets_a_quarter() -> Result {
        let pool = pool(16)?;
        let mut out = KVec::new();
        for most in [4, 1, 0, 0] {
            let way = new_way()?;
            way.to.set_reached(false);
            let stuck = take_all(&pool, &way)?;
            assert!(stuck.len() == most);
            out.push(stuck, GFP_KERNEL)?;
        }
        // So does what has not come yet, whoever it is for.
        let mut part = Asker::new(&new_way()?)?;
        part.arrived = Arrived::Part;
        assert!(part.waits(&pool));
        part.cancel(&pool);
        // Who waits for such a node comes after those who wait for others.
        let lost = new_way()?;
        lost.to.set_reached(false);
        let good = new_way()?;
        let mut full = take_all(&pool, &good)?;
        let (mut first, mut second) = (Asker::new(&lost)?, Asker::new(&good)?);
        assert!(first.waits(&pool) && second.waits(&pool));
        drop(full.pop());
        assert!((first.woken(), second.woken()) == (0, 1));
        drop(out.pop());
        drop(out.pop());
        drop(out.pop());
        assert!(first.woken() == 1);
        // Its class is that of the time when it asked.
        lost.to.set_reached(true);
        drop(first.got(&pool));
        drop(second.got(&pool));
        Ok(())
    }

    #[test]
    fn addresses_take_turns() -> Result {
        let (one, other) = (new_way()?, new_way()?);
        for (crowded, good) in [(&one, &other), (&other, &one)] {
            let pool = pool(8)?;
            let way = |from: &Way| Way {
                to: one.to.clone(),
                ..from.clone()
            };
            let mut out = take_all(&pool, &way(crowded))?;
            // From one address a hundred wait for the node, and one more from another.
            let mut crowd = KVec::new();
            for _ in 0..100 {
                let from = Share::new()?;
                let mut asker = Asker::new(&Way {
                    from,
                    ..way(crowded)
                })?;
                assert!(asker.waits(&pool));
                crowd.push(asker, GFP_KERNEL)?;
            }
            let mut good = Asker::new(&way(good))?;
            assert!(good.waits(&pool));
            for _ in 0..2 {
                drop(out.pop());
            }
            assert!(good.woken() == 1);
            drop(good.got(&pool));
            for asker in crowd.iter_mut() {
                asker.cancel(&pool);
            }
            drop(out);
            assert!(state(&pool) == (8, 0, 0));
        }
        Ok(())
    }

    #[test]
    fn so_many_of_an_address_wait() -> Result {
        let pool = pool(1)?;
        let out = take_all(&pool, &new_way()?)?;
        let way = new_way()?;
        let mut waiting = KVec::new();
        for _ in 0..MAX_WAITING {
            let mut asker = Asker::new(&way)?;
            assert!(asker.waits(&pool));
            waiting.push(asker, GFP_KERNEL)?;
        }
        assert!(matches!(Asker::new(&way)?.ask(&pool), Take::TooMany));
        let mut other = Asker::new(&new_way()?)?;
        assert!(other.waits(&pool));
        other.cancel(&pool);
        for asker in waiting.iter_mut() {
            asker.cancel(&pool);
        }
        drop(out);
        assert!(state(&pool) == (1, 0, 0));
        Ok(())
    }

    #[test]
    fn closed_and_open_again() -> Result {
        let pool = pool(4)?;
        let way = new_way()?;
        let mut asker = Asker::new(&way)?;
        let out = asker.got(&pool);
        let second = asker.got(&pool);
        let mut waiting = Asker::new(&way)?;
        assert!(waiting.waits(&pool));
        pool.close();
        // Only what is out is left, and gone when it comes back.
        assert!(waiting.woken() == 1);
        assert!(matches!(waiting.ask(&pool), Take::Closed));
        assert!(state(&pool) == (2, 2, 0));
        drop(second);
        assert!(state(&pool) == (1, 1, 0));
        pool.open(3)?;
        assert!(state(&pool) == (3, 1, 0));
        // What was granted and not fetched goes with the pool as well.
        let busy = new_way()?;
        let more = take_all(&pool, &busy)?;
        let mut late = Asker::new(&towards(&busy)?)?;
        assert!(late.waits(&pool));
        drop(more);
        assert!(late.woken() == 1);
        pool.close();
        assert!(matches!(late.ask(&pool), Take::Closed));
        assert!(state(&pool) == (1, 1, 0));
        drop(out);
        assert!(state(&pool) == (0, 0, 0));
        pool.open(0)?;
        assert!(asker.waits(&pool));
        pool.close();
        assert!(state(&pool) == (0, 0, 0));
        assert!(held(&way) == (0, 0));
        Ok(())
    }

    #[test]
    fn who_is_stuck_gives_way_to_others() -> Result {
        let pool = pool(1)?;
        let now = || time::monotonic_ms().saturating_add(STUCK_MS);
        let way = new_way()?;
        let mut holder = Asker::new(&way)?;
        let out = holder.got(&pool).ok_or(EINVAL)?;
        assert!(pool.stuck(now()).is_none());
        let mut same = Asker::new(&towards(&way)?)?;
        assert!(same.waits(&pool));
        let mut other = Asker::new(&new_way()?)?;
        assert!(other.waits(&pool));
        assert!(pool.stuck(time::monotonic_ms()).is_none());
        let receiving =
            |stuck| matches!(stuck, Some(Stuck::Receiving(who)) if Arc::ptr_eq(&who, &holder.who));
        assert!(receiving(pool.stuck(now())));
        out.received();
        other.cancel(&pool);
        // A slow receiver is no reason for those who send to it.
        assert!(pool.stuck(now()).is_none());
        assert!(other.waits(&pool));
        let sending =
            |stuck| matches!(stuck, Some(Stuck::Sending(to)) if Arc::ptr_eq(&to, &way.to));
        assert!(sending(pool.stuck(now())));
        same.cancel(&pool);
        other.cancel(&pool);
        drop(out);
        assert!(pool.stuck(now()).is_none());
        Ok(())
    }
}
