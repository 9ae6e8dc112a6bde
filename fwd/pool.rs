// SPDX-License-Identifier: GPL-2.0

//! Pools of forwarding buffers, and who waits for them.
//!
//! A [`Pool`] is shared by [`Arc`] between its forwarder, the buffers that are out, and the messages
//! that want one. Its spinlock protects all of it; it is taken in thread context only, and nothing
//! is woken, freed or allocated for long under it. A buffer that is out is an [`Fmb`]: whoever drops
//! that gives the buffer back, once. An open pool keeps it, and gives it to whoever has waited
//! longest; a closed one frees it.
//!
//! So that one receiver who doesn't read can't keep all buffers from the others, messages on their
//! way to the same node may hold a buffer more only while there are more idle ones than they hold:
//! one node gets half of the pool at most, two that are stuck get a third each, and so on. Who waits
//! for that waits beside the line, not in it.

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

/// How many buffers are held by messages on their way to one node, in each of the pools.
pub(crate) struct Share([Atomic<usize>; POOLS]);

impl Share {
    /// None. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self([const { Atomic::new(0) }; POOLS]),
            GFP_KERNEL,
        )?)
    }

    fn held(&self, pool: usize) -> Option<&Atomic<usize>> {
        self.0.get(pool)
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
    share: Arc<Share>,
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
            self.count_out(&mut inner, &gone.share, false);
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

    /// A buffer for a message whose way is counted by `share`. `who` asks, and asks again when
    /// woken; until then it waits. Thread context.
    pub(crate) fn take(self: &Arc<Self>, who: &Arc<W>, share: &Arc<Share>) -> Take<W> {
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
                let pages = self.grant(&mut inner, share);
                if pages.is_none() {
                    let waiting = Waiting {
                        who: who.clone(),
                        share: share.clone(),
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
                share: share.clone(),
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
        if let Some((pages, share)) = gone.and_then(|gone| Some((gone.granted?, gone.share))) {
            self.give_back(pages, &share);
        }
    }

    fn give_back(&self, pages: Arc<Pages>, share: &Share) {
        let mut inner = self.inner.lock();
        self.count_out(&mut inner, share, false);
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
            let waiting = &inner.waiting;
            let may_have = |w: &Waiting<W>| {
                w.granted.is_none() && self.is_entitled(inner.idle.len(), &w.share)
            };
            let Some(at) = waiting.iter().position(may_have) else {
                return;
            };
            let Some(share) = inner.waiting.get(at).map(|w| w.share.clone()) else {
                return;
            };
            let granted = self.grant(&mut inner, &share);
            let Some(waiting) = inner.waiting.get_mut(at) else {
                return;
            };
            waiting.granted = granted;
            let who = waiting.who.clone();
            drop(inner);
            who.wake();
        }
    }

    /// Whether a message counted by `share` may have one of `idle` buffers.
    fn is_entitled(&self, idle: usize, share: &Share) -> bool {
        share
            .held(self.index)
            .is_some_and(|held| idle > held.load(Relaxed))
    }

    fn grant(&self, inner: &mut Inner<W>, share: &Share) -> Option<Arc<Pages>> {
        if !self.is_entitled(inner.idle.len(), share) {
            return None;
        }
        let pages = inner.idle.pop()?;
        self.count_out(inner, share, true);
        Some(pages)
    }

    /// Counts a buffer that goes out, or is out no longer. The pool's lock orders the changes, but
    /// for buffers of one node that are out.
    fn count_out(&self, inner: &mut Inner<W>, share: &Share, goes: bool) {
        let held = share.held(self.index);
        if goes {
            inner.busy = inner.busy.saturating_add(1);
            held.map(|held| held.fetch_add(1, Relaxed));
        } else {
            inner.busy = inner.busy.saturating_sub(1);
            held.map(|held| held.fetch_sub(1, Relaxed));
        }
    }
}

/// A forwarding message buffer that is out. Dropped in thread context, no spinlock held.
pub(crate) struct Fmb<W: Waiter> {
    /// `None` only while it is dropped.
    pages: Option<Arc<Pages>>,
    share: Arc<Share>,
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
            self.pool.give_back(pages, &self.share);
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

    fn state(pool: &Pool<Sleeper>) -> (usize, usize, usize) {
        let info = pool.info();
        (info.buffers, info.busy, info.waiting)
    }

    #[test]
    fn first_come_first_served() -> Result {
        let pool = pool(1)?;
        let holder = Sleeper::new()?;
        let out = got(pool.take(&holder, &Share::new()?));
        assert!(out.is_some());
        let shares = [Share::new()?, Share::new()?];
        let sleepers = [Sleeper::new()?, Sleeper::new()?];
        for (who, share) in sleepers.iter().zip(&shares) {
            // Asking again does not change the place in the line.
            assert!(matches!(pool.take(who, share), Take::Wait));
            assert!(matches!(pool.take(who, share), Take::Wait));
        }
        assert!(state(&pool) == (1, 1, 2));
        drop(out);
        assert!((sleepers[0].woken(), sleepers[1].woken()) == (1, 0));
        // Who comes now comes too late, although the buffer was not fetched yet.
        assert!(matches!(pool.take(&holder, &Share::new()?), Take::Wait));
        assert!(matches!(pool.take(&sleepers[1], &shares[1]), Take::Wait));
        let out = got(pool.take(&sleepers[0], &shares[0]));
        assert!(out.is_some());
        drop(out);
        assert!((sleepers[1].woken(), holder.woken()) == (1, 0));
        drop(got(pool.take(&sleepers[1], &shares[1])));
        assert!(holder.woken() == 1);
        pool.cancel(&holder);
        assert!(state(&pool) == (1, 0, 0));
        Ok(())
    }

    #[test]
    fn who_dies_waiting_gives_all_back() -> Result {
        let pool = pool(1)?;
        let holder = Sleeper::new()?;
        let out = got(pool.take(&holder, &Share::new()?));
        let (first, second) = (Sleeper::new()?, Sleeper::new()?);
        let share = Share::new()?;
        assert!(matches!(pool.take(&first, &share), Take::Wait));
        assert!(matches!(pool.take(&second, &Share::new()?), Take::Wait));
        drop(out);
        assert!(first.woken() == 1);
        // It dies before it has fetched what it was granted.
        pool.cancel(&first);
        pool.cancel(&first);
        assert!(second.woken() == 1);
        assert!(share.0[0].load(Relaxed) == 0);
        pool.cancel(&second);
        assert!(state(&pool) == (1, 0, 0));
        Ok(())
    }

    #[test]
    fn one_node_gets_half_and_another_the_rest() -> Result {
        let pool = pool(8)?;
        let who = Sleeper::new()?;
        let (stuck, other) = (Share::new()?, Share::new()?);
        let mut out = KVec::new();
        while let Some(fmb) = got(pool.take(&who, &stuck)) {
            out.push(fmb, GFP_KERNEL)?;
        }
        assert!(out.len() == 4);
        // Its waiting is not in the way of others.
        let second = Sleeper::new()?;
        for _ in 0..100 {
            assert!(got(pool.take(&second, &other)).is_some());
        }
        assert!(who.woken() == 0);
        drop(out.pop());
        assert!(who.woken() == 1);
        assert!(got(pool.take(&who, &stuck)).is_some());
        Ok(())
    }

    #[test]
    fn closed_and_open_again() -> Result {
        let pool = pool(4)?;
        let share = Share::new()?;
        let who = Sleeper::new()?;
        let out = got(pool.take(&who, &share));
        let second = got(pool.take(&who, &share));
        let waiting = Sleeper::new()?;
        assert!(matches!(pool.take(&waiting, &share), Take::Wait));
        pool.close();
        // Only what is out is left, and gone when it comes back.
        assert!(waiting.woken() == 1);
        assert!(matches!(pool.take(&waiting, &share), Take::Closed));
        assert!(state(&pool) == (2, 2, 0));
        drop(second);
        assert!(state(&pool) == (1, 1, 0));
        pool.open(3)?;
        assert!(state(&pool) == (3, 1, 0));
        drop(out);
        assert!(state(&pool) == (3, 0, 0));
        pool.close();
        pool.open(0)?;
        assert!(matches!(pool.take(&who, &share), Take::Wait));
        pool.close();
        assert!(state(&pool) == (0, 0, 0));
        assert!(share.0[0].load(Relaxed) == 0);
        Ok(())
    }
}
