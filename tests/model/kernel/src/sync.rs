// SPDX-License-Identifier: GPL-2.0

//! Locks and wake-ups.

use crate::time::Jiffies;
use loom::sync::{Condvar, Mutex, MutexGuard};
use std::{
    cell::Cell,
    collections::VecDeque,
    ops::{Deref, DerefMut},
};

pub use crate::new_spinlock_irq;
pub use std::sync::Arc;

pub mod atomic;

/// A lock.
#[derive(Debug)]
pub struct SpinLockIrq<T>(Mutex<T>);

impl<T> SpinLockIrq<T> {
    /// Not locked.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Locks it.
    pub fn lock(&self) -> Guard<'_, T> {
        Guard {
            lock: self,
            held: Some(self.0.lock().unwrap()),
        }
    }
}

/// That a lock is held.
#[derive(Debug)]
pub struct Guard<'a, T> {
    lock: &'a SpinLockIrq<T>,
    /// `None` only while its thread sleeps in a [`CondVar`].
    held: Option<MutexGuard<'a, T>>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().unwrap()
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().unwrap()
    }
}

/// How a bounded wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CondVarTimeoutResult {
    /// The time is over.
    Timeout,
    /// Somebody notified this thread.
    Woken {
        /// The rest of the time.
        jiffies: Jiffies,
    },
    /// A signal, of which there are none here.
    Signal {
        /// The rest of the time.
        jiffies: Jiffies,
    },
}

/// A queue of threads that sleep. Each wake-up goes to one that sleeps when it is sent; threads
/// don't wake by themselves.
#[derive(Debug)]
pub struct CondVar {
    sleepers: Mutex<Sleepers>,
    changed: Condvar,
}

std::thread_local! {
    /// Loom runs all threads of an exploration in one of the system's.
    static WOKEN: Cell<usize> = const { Cell::new(0) };
}

/// How many sleepers have been woken since this was last called, by whatever thread of this
/// exploration.
pub fn woken() -> usize {
    WOKEN.replace(0)
}

#[derive(Debug)]
struct Sleepers {
    queue: VecDeque<u64>,
    next: u64,
}

impl CondVar {
    /// Nobody sleeps.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            sleepers: Mutex::new(Sleepers {
                queue: VecDeque::new(),
                next: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn enter(&self) -> (MutexGuard<'_, Sleepers>, u64) {
        let mut sleepers = self.sleepers.lock().unwrap();
        let me = sleepers.next;
        sleepers.next += 1;
        sleepers.queue.push_back(me);
        (sleepers, me)
    }

    /// Lets go of the lock, sleeps until notified, and takes the lock again. Returns whether a
    /// signal came.
    #[must_use = "a signal may have come"]
    pub fn wait_interruptible<T>(&self, guard: &mut Guard<'_, T>) -> bool {
        let (mut sleepers, me) = self.enter();
        guard.held = None;
        while sleepers.queue.contains(&me) {
            sleepers = self.changed.wait(sleepers).unwrap();
        }
        drop(sleepers);
        guard.held = Some(guard.lock.0.lock().unwrap());
        false
    }

    /// The same, but a sleeper that is not notified before others have gone on wakes by itself.
    ///
    /// Each sleep costs a jiffy. Like the kernel's, it calls it a timeout if none is left, notified
    /// or not.
    #[must_use = "a signal may have come"]
    pub fn wait_interruptible_timeout<T>(
        &self,
        guard: &mut Guard<'_, T>,
        jiffies: Jiffies,
    ) -> CondVarTimeoutResult {
        let (sleepers, me) = self.enter();
        drop(sleepers);
        guard.held = None;
        let mut sleepers = self.sleepers.lock().unwrap();
        let notified = !sleepers.queue.contains(&me);
        sleepers.queue.retain(|sleeper| *sleeper != me);
        drop(sleepers);
        guard.held = Some(guard.lock.0.lock().unwrap());
        match jiffies.saturating_sub(1) {
            jiffies if notified && jiffies > 0 => CondVarTimeoutResult::Woken { jiffies },
            _ => CondVarTimeoutResult::Timeout,
        }
    }

    /// Wakes the thread that has slept longest.
    pub fn notify_one(&self) {
        let mut sleepers = self.sleepers.lock().unwrap();
        if sleepers.queue.pop_front().is_some() {
            WOKEN.set(WOKEN.get() + 1);
            self.changed.notify_all();
        }
    }

    /// Wakes all threads.
    pub fn notify_all(&self) {
        let mut sleepers = self.sleepers.lock().unwrap();
        WOKEN.set(WOKEN.get() + sleepers.queue.len());
        sleepers.queue.clear();
        self.changed.notify_all();
    }
}
