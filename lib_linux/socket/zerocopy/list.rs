// SPDX-License-Identifier: GPL-2.0

//! Lists of [`ZcUbuf`](super::ZcUbuf)s that are not complete.
//!
//! A [`ZcList`] has the ubufs that are closed, and that packets still refer to. Its spinlock, taken with
//! interrupts off, protects the list; it is shared by [`Arc`] with the ubufs.

use super::{
    super::super::sys,
    ZcDone,
    ZcOps, //
};
use core::{
    cell::UnsafeCell,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        new_spinlock_irq,
        Arc,
        SpinLockIrq, //
    },
    types::Opaque, //
};

/// The links of a ubuf in its list.
pub(super) struct Links<T> {
    pub(super) prev: Option<NonNull<ZcDone<T>>>,
    pub(super) next: Option<NonNull<ZcDone<T>>>,
}

/// The ubufs of one kind that are closed and not complete.
///
/// # Examples
///
/// ```
/// struct Request(u32);
///
/// impl ZcOps for Request {
///     fn complete(_this: KBox<ZcDone<Self>>) {}
/// }
///
/// let list = ZcList::new()?;
/// drop(ZcUbuf::new(Request(7), &list)?);
/// // No packet refers to any.
/// assert_eq!(list.with_first(|request| request.0), None);
/// let mut disowned = 0;
/// list.disown(|_request| disowned += 1);
/// assert_eq!(disowned, 0);
/// # Ok::<(), Error>(())
/// ```
#[pin_data]
pub(crate) struct ZcList<T> {
    #[pin]
    pub(super) pending: SpinLockIrq<Pending<T>>,
}

/// The list of a [`ZcList`].
///
/// # Invariants
///
/// `first` begins a doubly linked list of valid [`ZcDone`]s that were boxes. Their `object`s are used by
/// nobody who does not hold the list's lock.
pub(super) struct Pending<T> {
    first: Option<NonNull<ZcDone<T>>>,
}

// SAFETY: The objects in the list may be used by whatever thread holds the lock.
unsafe impl<T: Send> Send for Pending<T> {}

impl<T> Pending<T> {
    /// The links of a ubuf. To read or write them takes the lock.
    ///
    /// # Safety
    ///
    /// `done` must be valid.
    unsafe fn links(done: NonNull<ZcDone<T>>) -> *mut Links<T> {
        // SAFETY: By this function's requirement.
        UnsafeCell::raw_get(unsafe { &raw const (*done.as_ptr()).links })
    }

    /// Sets the link of `done` to the ubuf before it.
    ///
    /// # Safety
    ///
    /// `done` must be in this list.
    unsafe fn set_prev(&mut self, done: NonNull<ZcDone<T>>, prev: Option<NonNull<ZcDone<T>>>) {
        // SAFETY: By the type invariants it is valid.
        let links = unsafe { Self::links(done) };
        // SAFETY: The lock is ours.
        unsafe { (*links).prev = prev };
    }

    /// Adds a ubuf.
    ///
    /// # Safety
    ///
    /// `done` must be valid, in no list, and stay valid until it is removed. Nobody may use its object
    /// from now on without the lock.
    pub(super) unsafe fn add(&mut self, done: NonNull<ZcDone<T>>) {
        let links = Links {
            prev: None,
            next: self.first,
        };
        // SAFETY: By this function's requirement.
        let own = unsafe { Self::links(done) };
        // SAFETY: It is in no list, so nobody else uses its links.
        unsafe { own.write(links) };
        if let Some(first) = self.first {
            // SAFETY: It is in this list.
            unsafe { self.set_prev(first, Some(done)) };
        }
        // INVARIANT: The new one is valid, and the others follow it.
        self.first = Some(done);
    }

    /// Removes a ubuf.
    ///
    /// # Safety
    ///
    /// `done` must be in this list.
    pub(super) unsafe fn remove(&mut self, done: NonNull<ZcDone<T>>) {
        // SAFETY: By the type invariants it is valid.
        let links = unsafe { Self::links(done) };
        // SAFETY: The lock is ours.
        let Links { prev, next } = unsafe { links.read() };
        match prev {
            Some(prev) => {
                // SAFETY: By the type invariants it is valid.
                let links = unsafe { Self::links(prev) };
                // SAFETY: The lock is ours.
                unsafe { (*links).next = next };
            }
            // INVARIANT: What follows the first one is the rest of the list.
            None => self.first = next,
        }
        if let Some(next) = next {
            // SAFETY: It is in this list.
            unsafe { self.set_prev(next, prev) };
        }
    }

    /// Removes a ubuf that packets refer to, and leaves these to the kernel's own callback. Returns
    /// its object. The rest of its memory stays allocated for good.
    fn disown(&mut self) -> Option<T> {
        let mut next = self.first;
        while let Some(done) = next {
            // SAFETY: By the type invariants it is valid.
            let ubuf = Opaque::cast_into(unsafe { &raw const (*done.as_ptr()).ubuf });
            // SAFETY: The object is valid, `ubuf` is its first field, has the room behind it that the
            // function asks for, and was allocated with it.
            if unsafe { sys::socklnd_helper_ubuf_disown(ubuf) } {
                // SAFETY: It is in this list.
                unsafe { self.remove(done) };
                // SAFETY: By the type invariants it is valid.
                let object = unsafe { &raw const (*done.as_ptr()).object };
                // SAFETY: `complete` will not make a box of it any more: the reference just taken is
                // never given up. So this is the only owner of the object, and the original is not
                // used again.
                return Some(unsafe { ptr::read(object) });
            }
            // Its last packet was just freed: the thread that did so waits for the lock.
            // SAFETY: By the type invariants it is valid.
            let links = unsafe { Self::links(done) };
            // SAFETY: The lock is ours.
            next = unsafe { (*links).next };
        }
        None
    }
}

impl<T: ZcOps> ZcList<T> {
    /// An empty list. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                // INVARIANT: The list is empty.
                pending <- new_spinlock_irq!(Pending { first: None }, "socklnd_zc_list"),
            }),
            GFP_KERNEL,
        )
    }

    /// Calls `f` with the object of the first ubuf, if there is one. Thread context;
    /// `f` must not sleep, and runs with interrupts off.
    pub(crate) fn with_first<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        let pending = self.pending.lock();
        let first = pending.first?;
        // SAFETY: By the invariants of `Pending` it is valid, and the object is ours as long as the lock is
        // held.
        Some(f(unsafe { &(*first.as_ptr()).object }))
    }

    /// Removes all ubufs and calls `f` with their objects. The packets that refer to them are left to the
    /// kernel's own callback, for which about a hundred bytes of each ubuf stay allocated for good. Those
    /// that become complete at this moment do so as usual, before
    /// [`wait_for_callbacks`](crate::lib_linux::wait_for_callbacks) returns. May sleep.
    ///
    /// The pages may still be sent after this: their owner must never change them.
    pub(crate) fn disown(&self, mut f: impl FnMut(T)) {
        loop {
            let object = self.pending.lock().disown();
            match object {
                Some(object) => f(object),
                None => return,
            }
        }
    }
}
