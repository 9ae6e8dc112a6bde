// SPDX-License-Identifier: GPL-2.0

//! A queue of objects that wait for the attention of a thread.
//!
//! Schedulers, autoconnect daemons, the acceptor and the reaper each sleep on one of these. Posting
//! is legal in any context, socket callbacks included, and allocates nothing: an object carries its
//! own links, and is in a mailbox at most once however often it is posted.
//!
//! A mailbox belongs to the [`Arc`] of the object that runs the threads. Its lock protects the list
//! and the flags; it is the innermost lock of the module, taken with interrupts off, because socket
//! callbacks take it. A posted object is kept alive by the mailbox until a thread takes it out.

use kernel::{
    list::{
        List,
        ListArc,
        ListArcSafe,
        ListItem,
        TryNewListArc, //
    },
    new_condvar,
    prelude::*,
    sync::{
        new_spinlock_irq,
        Arc,
        CondVar,
        CondVarTimeoutResult,
        SpinLockIrq, //
    },
    time::msecs_to_jiffies, //
};

struct Inner<T: ListItem<ID> + ListArcSafe<ID>, const ID: u64> {
    list: List<T, ID>,
    len: usize,
    /// The most that `len` has been.
    peak: usize,
    /// Threads that sleep in [`Mailbox::take`] and have not been woken yet.
    idle: usize,
    stopped: bool,
    /// A wake-up without an object, see [`Mailbox::kick`].
    kicked: bool,
}

/// What a thread found when it looked into its mailbox.
pub(crate) enum Mail<T> {
    /// An object that was posted.
    Object(Arc<T>),
    /// Nothing came within the time, or somebody called [`Mailbox::kick`].
    Tick,
    /// The mailbox is empty and stopped: the thread ends.
    Stop,
}

/// A queue of `T`s for one or more threads.
#[pin_data]
pub(crate) struct Mailbox<T: ListItem<ID> + ListArcSafe<ID>, const ID: u64> {
    #[pin]
    inner: SpinLockIrq<Inner<T, ID>>,
    #[pin]
    wake: CondVar,
}

impl<T, const ID: u64> Mailbox<T, ID>
where
    T: ListItem<ID> + ListArcSafe<ID> + TryNewListArc<ID>,
{
    /// An empty mailbox.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock_irq!(
                Inner {
                    list: List::new(),
                    len: 0,
                    peak: 0,
                    idle: 0,
                    stopped: false,
                    kicked: false,
                },
                "socklnd_mailbox"
            ),
            wake <- new_condvar!("socklnd_mailbox_wake"),
        })
    }

    /// Queues `object` unless it is in a mailbox of this kind already, and wakes a sleeping thread.
    ///
    /// Any context. Returns whether it was queued now.
    pub(crate) fn post(&self, object: Arc<T>) -> bool {
        // An object that is queued already will be looked at after whatever made the caller post
        // it again, so the second post can be dropped. The caller's reference is not the last one:
        // the queue holds another.
        let Ok(object) = ListArc::try_from_arc(object) else {
            return false;
        };
        let mut inner = self.inner.lock();
        inner.list.push_back(object);
        inner.len = inner.len.saturating_add(1);
        inner.peak = inner.peak.max(inner.len);
        let wake = inner.idle > 0;
        if wake {
            // Counted down here, not by the sleeper, so that of many posts only as many wake
            // somebody as there are sleepers.
            inner.idle -= 1;
        }
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
        true
    }

    /// Wakes a thread although there is no object. Any context.
    pub(crate) fn kick(&self) {
        let mut inner = self.inner.lock();
        inner.kicked = true;
        inner.idle = 0;
        drop(inner);
        self.wake.notify_all();
    }

    /// Tells the threads to end once the mailbox is empty. Any context; the caller joins them.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner.lock();
        inner.stopped = true;
        inner.idle = 0;
        drop(inner);
        self.wake.notify_all();
    }

    /// Takes out all that is there now, without waiting. Any context.
    ///
    /// What is posted meanwhile, by the caller too, stays for the next time.
    pub(crate) fn drain(&self) -> impl Iterator<Item = Arc<T>> {
        let mut list = List::new();
        let mut inner = self.inner.lock();
        list.push_all_back(&mut inner.list);
        inner.len = 0;
        drop(inner);
        core::iter::from_fn(move || list.pop_front().map(ListArc::into_arc))
    }

    /// Takes out the first object if it is `wanted`, without waiting. Any context; the mailbox's lock
    /// is held while that is asked.
    pub(crate) fn pop_if(&self, wanted: impl FnOnce(&T) -> bool) -> Option<Arc<T>> {
        let mut inner = self.inner.lock();
        if !inner.list.iter().next().is_some_and(|first| wanted(&first)) {
            return None;
        }
        let object = inner.list.pop_front()?;
        inner.len = inner.len.saturating_sub(1);
        drop(inner);
        Some(object.into_arc())
    }

    /// How many objects are there. Any context.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().len
    }

    /// The most objects that have been there at the same time. Any context.
    pub(crate) fn peak(&self) -> usize {
        self.inner.lock().peak
    }

    /// Whether nothing is there. Any context.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().list.is_empty()
    }

    /// Waits for the next object; with `timeout_ms`, not longer than that. Thread context.
    pub(crate) fn take(&self, timeout_ms: Option<u32>) -> Mail<T> {
        let mut left = timeout_ms.map(msecs_to_jiffies);
        let mut inner = self.inner.lock();
        loop {
            if let Some(object) = inner.list.pop_front() {
                inner.len = inner.len.saturating_sub(1);
                drop(inner);
                return Mail::Object(object.into_arc());
            }
            if inner.stopped {
                return Mail::Stop;
            }
            if inner.kicked {
                inner.kicked = false;
                return Mail::Tick;
            }
            if left == Some(0) {
                return Mail::Tick;
            }
            inner.idle += 1;
            match left {
                // A kernel thread gets no signals but that of being stopped, and whoever stops
                // this one calls `stop` first; so the loop need not look at them.
                None => {
                    let _ = self.wake.wait_interruptible(&mut inner);
                }
                Some(jiffies) => {
                    left = match self.wake.wait_interruptible_timeout(&mut inner, jiffies) {
                        CondVarTimeoutResult::Woken { jiffies } => Some(jiffies),
                        CondVarTimeoutResult::Signal { jiffies } => Some(jiffies),
                        CondVarTimeoutResult::Timeout => {
                            // Nobody counted this sleeper down.
                            inner.idle = inner.idle.saturating_sub(1);
                            Some(0)
                        }
                    };
                }
            }
        }
    }
}
