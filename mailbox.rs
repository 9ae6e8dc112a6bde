// SPDX-License-Identifier: GPL-2.0

//! A queue of objects for one or more threads.
//!
//! Schedulers, autoconnect daemons, the acceptor and the reaper each sleep on one of these. Posting works in any
//! context, socket callbacks included, and allocates nothing: an object has its own links, and is in a mailbox
//! at most once however often it is posted.
//!
//! A mailbox is part of the object that runs the threads. Its lock protects the list and the flags. It is
//! the innermost lock of the module, and is taken with interrupts off because socket callbacks take it. The
//! mailbox holds a reference to a posted object until a thread takes it out.

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
    /// The highest value of `len` so far.
    peak: usize,
    /// Threads that sleep in [`Mailbox::take`] and have not been woken yet.
    idle: usize,
    stopped: bool,
    /// A thread is to wake without an object, see [`Mailbox::kick`].
    kicked: bool,
}

/// The result of [`Mailbox::take`].
pub(crate) enum Mail<T> {
    /// An object that was posted.
    Object(Arc<T>),
    /// Nothing was posted within the time, or [`Mailbox::kick`] was called.
    Tick,
    /// The mailbox is empty and stopped: the thread is to end.
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

    /// Queues `object`, unless it is in a mailbox with this `ID` already, and wakes a sleeping thread.
    ///
    /// Any context. Returns whether it was queued now.
    pub(crate) fn post(&self, object: Arc<T>) -> bool {
        // An object that is queued already will be taken out after the event for which the caller posts
        // it, so the second post can be dropped. The queue holds a reference too, so the caller's is not
        // the last one.
        let Ok(object) = ListArc::try_from_arc(object) else {
            return false;
        };
        let mut inner = self.inner.lock();
        inner.list.push_back(object);
        inner.len = inner.len.saturating_add(1);
        inner.peak = inner.peak.max(inner.len);
        let wake = inner.idle > 0;
        if wake {
            // Decremented here and not by the sleeping thread, so that many posts wake no more threads
            // than sleep.
            inner.idle -= 1;
        }
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
        true
    }

    /// Wakes the threads although there is no object. Any context.
    pub(crate) fn kick(&self) {
        let mut inner = self.inner.lock();
        inner.kicked = true;
        inner.idle = 0;
        drop(inner);
        self.wake.notify_all();
    }

    /// Makes the threads end once the mailbox is empty. Any context; the caller joins them.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner.lock();
        inner.stopped = true;
        inner.idle = 0;
        drop(inner);
        self.wake.notify_all();
    }

    /// Takes out all objects that are there now, without waiting. Any context.
    ///
    /// Objects that are posted meanwhile, also by the caller, stay for the next time.
    pub(crate) fn drain(&self) -> impl Iterator<Item = Arc<T>> {
        let mut list = List::new();
        let mut inner = self.inner.lock();
        list.push_all_back(&mut inner.list);
        inner.len = 0;
        drop(inner);
        core::iter::from_fn(move || list.pop_front().map(ListArc::into_arc))
    }

    /// Takes out the first object if it is `wanted`, without waiting. Any context; `wanted` is called with the
    /// mailbox's lock held.
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

    /// The number of objects. Any context.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().len
    }

    /// The highest number of objects so far. Any context.
    pub(crate) fn peak(&self) -> usize {
        self.inner.lock().peak
    }

    /// Whether there are no objects. Any context.
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
                // A kernel thread gets no signal except when it is stopped, and `stop` is called before that;
                // so the result does not matter.
                None => {
                    let _ = self.wake.wait_interruptible(&mut inner);
                }
                Some(jiffies) => {
                    left = match self.wake.wait_interruptible_timeout(&mut inner, jiffies) {
                        CondVarTimeoutResult::Woken { jiffies } => Some(jiffies),
                        CondVarTimeoutResult::Signal { jiffies } => Some(jiffies),
                        CondVarTimeoutResult::Timeout => {
                            // If a post has decremented it just now it is 0: a mailbox that is used with a timeout
                            // has one thread.
                            inner.idle = inner.idle.saturating_sub(1);
                            Some(0)
                        }
                    };
                }
            }
        }
    }
}
