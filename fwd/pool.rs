// SPDX-License-Identifier: GPL-2.0

//! Pools of forwarding buffers, and who waits for them.
//!
//! A [`Pool`] is shared by [`Arc`] between its forwarder, the buffers that are out, and the messages
//! that want one. Its spinlock protects all of it; it is taken in thread context only, and nothing
//! is woken, freed or allocated for long under it. A buffer that is out is an [`Fmb`]: whoever drops
//! that gives the buffer back, once. An open pool keeps it, and gives it to whoever has waited
//! longest; a closed one frees it.
//!
//! So that a receiver who doesn't read can't keep the buffers from the others, messages on their way
//! to the same node hold few of them, see [`most_to_one`]: so few that the others hardly feel the
//! lack, and yet enough to keep a receiver busy who reads. Besides, messages to one node, and those
//! from one node, may hold a buffer more only while there are more idle ones than they hold, so that
//! something is left however many are stuck, and whatever one sender does. Who waits for that waits
//! beside the line, not in it.

use crate::lib_linux::page::{
    PageRange,
    Pages, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    }, //
};

/// How many pools a node has: for small and for large messages.
pub(super) const POOLS: usize = 2;

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

/// How many buffers are held by messages that one node has sent, and by those on their way to it; in
/// each of the pools. Changed under the pool's lock.
struct Held {
    from: Atomic<isize>,
    to: Atomic<isize>,
}

/// A node's share of the buffers.
pub(crate) struct Share([Held; POOLS]);

impl Share {
    /// None. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let none = |_| Held {
            from: Atomic::new(0),
            to: Atomic::new(0),
        };
        Ok(Arc::new(Self(core::array::from_fn(none)), GFP_KERNEL)?)
    }
}

/// From which node to which next one a message goes.
#[derive(Clone)]
pub(crate) struct Way {
    /// The share of the node that has sent it here.
    pub(crate) from: Arc<Share>,
    /// That of the one that it is sent on to.
    pub(crate) to: Arc<Share>,
}

impl Way {
    /// Buffers of a pool that are held by messages from the same node, and by those to the same.
    fn held(&self, pool: usize) -> Option<(&Atomic<isize>, &Atomic<isize>)> {
        Some((&self.from.0.get(pool)?.from, &self.to.0.get(pool)?.to))
    }
}

/// What came of the wish for a buffer.
pub(crate) enum Take<W: Waiter> {
    /// Here it is.
    Got(Fmb<W>),
    /// There is none; whoever asked will be woken when there is one for him.
    Wait,
    /// There is none, and no memory to remember who asked: it has to ask again by itself.
    NoMemory,
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

struct Waiting<W> {
    who: Arc<W>,
    way: Way,
    /// The buffer that it got while it waited, and has not fetched yet.
    granted: Option<Arc<Pages>>,
}

/// # Invariants
///
/// `idle` has room for `capacity` buffers. While nobody holds the lock: if there is an idle buffer,
/// nobody waits who may have it.
struct Inner<W> {
    open: bool,
    /// The most buffers that are kept.
    capacity: usize,
    idle: KVVec<Arc<Pages>>,
    /// Buffers that are out, or granted.
    busy: usize,
    waiting: KVec<Waiting<W>>,
    waits: u64,
}

/// Buffers of one size.
#[pin_data]
pub(crate) struct Pool<W: Waiter> {
    index: usize,
    bytes: usize,
    #[pin]
    inner: SpinLock<Inner<W>>,
}

impl<W: Waiter> Pool<W> {
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
                        busy: 0,
                        waiting: KVec::new(),
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
        let waiting = core::mem::replace(&mut inner.waiting, KVec::new());
        for gone in waiting.iter().filter(|gone| gone.granted.is_some()) {
            self.count_out(&mut inner, &gone.way, false);
        }
        drop(inner);
        drop(idle);
        for gone in waiting {
            gone.who.wake();
        }
    }

    /// What there is to tell. Thread context.
    pub(crate) fn info(&self) -> PoolInfo {
        let inner = self.inner.lock();
        PoolInfo {
            bytes: self.bytes,
            buffers: inner.idle.len().saturating_add(inner.busy),
            busy: inner.busy,
            waiting: inner.waiting.len(),
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

    /// A buffer for a message that goes this `way`. `who` asks, and asks again when woken; until then
    /// it waits. Thread context.
    pub(crate) fn take(self: &Arc<Self>, who: &Arc<W>, way: &Way) -> Take<W> {
        let mut inner = self.inner.lock();
        if !inner.open {
            return Take::Closed;
        }
        let mut waiting = inner.waiting.iter();
        let pages = match waiting.position(|waiting| Arc::ptr_eq(&waiting.who, who)) {
            Some(at) => {
                if inner.waiting.get(at).is_some_and(|w| w.granted.is_none()) {
                    return Take::Wait;
                }
                inner.waiting.remove(at).ok().and_then(|w| w.granted)
            }
            None => {
                let pages = self.grant(&mut inner, way);
                if pages.is_none() {
                    let waiting = Waiting {
                        who: who.clone(),
                        way: way.clone(),
                        granted: None,
                    };
                    if inner.waiting.push(waiting, GFP_ATOMIC).is_err() {
                        return Take::NoMemory;
                    }
                    inner.waits = inner.waits.saturating_add(1);
                }
                pages
            }
        };
        drop(inner);
        match pages {
            Some(pages) => Take::Got(Fmb {
                pages: Some(pages),
                way: way.clone(),
                pool: self.clone(),
            }),
            None => Take::Wait,
        }
    }

    /// Ends waiting. What `who` was granted goes to others. Thread context.
    pub(crate) fn cancel(&self, who: &Arc<W>) {
        let mut inner = self.inner.lock();
        let mut waiting = inner.waiting.iter();
        let at = waiting.position(|waiting| Arc::ptr_eq(&waiting.who, who));
        let gone = at.and_then(|at| inner.waiting.remove(at).ok());
        drop(inner);
        if let Some((pages, way)) = gone.and_then(|gone| Some((gone.granted?, gone.way))) {
            self.give_back(pages, &way);
        }
    }

    fn give_back(&self, pages: Arc<Pages>, way: &Way) {
        let mut inner = self.inner.lock();
        self.count_out(&mut inner, way, false);
        let mut excess = Some(pages);
        if inner.idle.len().saturating_add(inner.busy) < inner.capacity {
            if let Some(pages) = excess.take() {
                let _ = inner.idle.push_within_capacity(pages);
            }
        }
        drop(inner);
        // A closed pool keeps nothing, nor does one that was opened again with fewer.
        drop(excess);
        self.wake_waiters();
    }

    /// Gives idle buffers to those who wait, longest first.
    fn wake_waiters(&self) {
        loop {
            let mut inner = self.inner.lock();
            let may_have = |w: &Waiting<W>| w.granted.is_none() && self.is_entitled(&inner, &w.way);
            let Some(at) = inner.waiting.iter().position(may_have) else {
                return;
            };
            let Some(way) = inner.waiting.get(at).map(|w| w.way.clone()) else {
                return;
            };
            let granted = self.grant(&mut inner, &way);
            let Some(waiting) = inner.waiting.get_mut(at) else {
                return;
            };
            waiting.granted = granted;
            let who = waiting.who.clone();
            drop(inner);
            who.wake();
        }
    }

    /// Whether a message that goes this `way` may have an idle buffer.
    fn is_entitled(&self, inner: &Inner<W>, way: &Way) -> bool {
        // CAST: There are far fewer than fit.
        let idle = inner.idle.len() as isize;
        way.held(self.index).is_some_and(|(from, to)| {
            let (from, to) = (from.load(Relaxed), to.load(Relaxed));
            idle > from && idle > to && to < most_to_one(inner.capacity)
        })
    }

    fn grant(&self, inner: &mut Inner<W>, way: &Way) -> Option<Arc<Pages>> {
        if !self.is_entitled(inner, way) {
            return None;
        }
        let pages = inner.idle.pop()?;
        self.count_out(inner, way, true);
        Some(pages)
    }

    /// Counts a buffer that goes out, or is out no longer.
    fn count_out(&self, inner: &mut Inner<W>, way: &Way, goes: bool) {
        let (busy, change) = if goes {
            (inner.busy.saturating_add(1), 1)
        } else {
            (inner.busy.saturating_sub(1), -1)
        };
        inner.busy = busy;
        if let Some((from, to)) = way.held(self.index) {
            from.add(change, Relaxed);
            to.add(change, Relaxed);
        }
    }
}

/// A forwarding message buffer that is out. Dropped in thread context, no spinlock held.
pub(crate) struct Fmb<W: Waiter> {
    /// `None` only while it is dropped.
    pages: Option<Arc<Pages>>,
    way: Way,
    pool: Arc<Pool<W>>,
}

impl<W: Waiter> Fmb<W> {
    /// Its first `len` bytes. `EINVAL` if it has not as many.
    pub(super) fn range(&self, len: usize) -> Result<PageRange> {
        let pages = self.pages.as_ref().ok_or(EINVAL)?;
        PageRange::new(pages.clone(), 0, len)
    }
}

impl<W: Waiter> Drop for Fmb<W> {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            self.pool.give_back(pages, &self.way);
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

    impl Sleeper {
        fn new() -> Result<Arc<Self>> {
            Ok(Arc::new(Self(Atomic::new(0)), GFP_KERNEL)?)
        }

        fn woken(&self) -> u32 {
            self.0.load(Relaxed)
        }
    }

    fn got(take: Take<Sleeper>) -> Option<Fmb<Sleeper>> {
        match take {
            Take::Got(fmb) => Some(fmb),
            _ => None,
        }
    }

    fn pool(capacity: usize) -> Result<Arc<Pool<Sleeper>>> {
        let pool = Pool::new(0, 100)?;
        pool.open(capacity)?;
        Ok(pool)
    }

    fn new_way() -> Result<Way> {
        Ok(Way {
            from: Share::new()?,
            to: Share::new()?,
        })
    }

    /// What is held by messages from the same node, and by those to the same.
    fn held(way: &Way) -> Option<(isize, isize)> {
        let (from, to) = way.held(0)?;
        Some((from.load(Relaxed), to.load(Relaxed)))
    }

    fn state(pool: &Pool<Sleeper>) -> (usize, usize, usize) {
        let info = pool.info();
        (info.buffers, info.busy, info.waiting)
    }

    #[test]
    fn first_come_first_served() -> Result {
        let pool = pool(1)?;
        let holder = Sleeper::new()?;
        let out = got(pool.take(&holder, &new_way()?));
        assert!(out.is_some());
        let ways = [new_way()?, new_way()?];
        let sleepers = [Sleeper::new()?, Sleeper::new()?];
        for (who, way) in sleepers.iter().zip(&ways) {
            // Asking again does not change the place in the line.
            assert!(matches!(pool.take(who, way), Take::Wait));
            assert!(matches!(pool.take(who, way), Take::Wait));
        }
        assert!(state(&pool) == (1, 1, 2));
        drop(out);
        assert!((sleepers[0].woken(), sleepers[1].woken()) == (1, 0));
        // Who comes now comes too late, although the buffer was not fetched yet.
        assert!(matches!(pool.take(&holder, &new_way()?), Take::Wait));
        assert!(matches!(pool.take(&sleepers[1], &ways[1]), Take::Wait));
        let out = got(pool.take(&sleepers[0], &ways[0]));
        assert!(out.is_some());
        drop(out);
        assert!((sleepers[1].woken(), holder.woken()) == (1, 0));
        drop(got(pool.take(&sleepers[1], &ways[1])));
        assert!(holder.woken() == 1);
        pool.cancel(&holder);
        assert!(state(&pool) == (1, 0, 0));
        Ok(())
    }

    #[test]
    fn who_dies_waiting_gives_all_back() -> Result {
        let pool = pool(1)?;
        let holder = Sleeper::new()?;
        let out = got(pool.take(&holder, &new_way()?));
        let (first, second) = (Sleeper::new()?, Sleeper::new()?);
        let way = new_way()?;
        assert!(matches!(pool.take(&first, &way), Take::Wait));
        assert!(matches!(pool.take(&second, &new_way()?), Take::Wait));
        drop(out);
        assert!(first.woken() == 1);
        // It dies before it has fetched what it was granted.
        pool.cancel(&first);
        pool.cancel(&first);
        assert!(second.woken() == 1);
        assert!(held(&way) == Some((0, 0)));
        pool.cancel(&second);
        assert!(state(&pool) == (1, 0, 0));
        Ok(())
    }

    /// All that can be had.
    fn take_all(pool: &Arc<Pool<Sleeper>>, way: &Way) -> Result<KVec<Fmb<Sleeper>>> {
        let who = Sleeper::new()?;
        let mut out = KVec::new();
        while let Some(fmb) = got(pool.take(&who, way)) {
            out.push(fmb, GFP_KERNEL)?;
        }
        pool.cancel(&who);
        Ok(out)
    }

    #[test]
    fn a_stuck_node_leaves_nearly_all_to_others() -> Result {
        for (capacity, one, two) in [(8, 3, 3), (16, 4, 4), (64, 10, 10), (2, 1, 1), (1, 1, 0)] {
            let pool = pool(capacity)?;
            let (stuck, other) = (new_way()?, new_way()?);
            let mut out = take_all(&pool, &stuck)?;
            assert!(out.len() == one);
            let who = Sleeper::new()?;
            assert!(matches!(pool.take(&who, &stuck), Take::Wait));
            // Its waiting is not in the way of others.
            for _ in 0..100 {
                assert!(take_all(&pool, &other)?.len() == two);
            }
            assert!(who.woken() == 0);
            drop(out.pop());
            assert!(who.woken() == 1);
            assert!(got(pool.take(&who, &stuck)).is_some());
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
        let pool = pool(16)?;
        let from = Share::new()?;
        let mut out = KVec::new();
        for most in [4, 4, 0, 0] {
            let from = from.clone();
            let to = Share::new()?;
            let stuck = take_all(&pool, &Way { from, to })?;
            assert!(stuck.len() == most);
            out.push(stuck, GFP_KERNEL)?;
        }
        assert!(take_all(&pool, &new_way()?)?.len() == 4);
        Ok(())
    }

    #[test]
    fn closed_and_open_again() -> Result {
        let pool = pool(4)?;
        let way = new_way()?;
        let who = Sleeper::new()?;
        let out = got(pool.take(&who, &way));
        let second = got(pool.take(&who, &way));
        let waiting = Sleeper::new()?;
        assert!(matches!(pool.take(&waiting, &way), Take::Wait));
        pool.close();
        // Only what is out is left, and gone when it comes back.
        assert!(waiting.woken() == 1);
        assert!(matches!(pool.take(&waiting, &way), Take::Closed));
        assert!(state(&pool) == (2, 2, 0));
        drop(second);
        assert!(state(&pool) == (1, 1, 0));
        pool.open(3)?;
        assert!(state(&pool) == (3, 1, 0));
        drop(out);
        assert!(state(&pool) == (3, 0, 0));
        pool.close();
        pool.open(0)?;
        assert!(matches!(pool.take(&who, &way), Take::Wait));
        pool.close();
        assert!(state(&pool) == (0, 0, 0));
        assert!(held(&way) == Some((0, 0)));
        Ok(())
    }
}
