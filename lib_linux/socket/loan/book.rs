// SPDX-License-Identifier: GPL-2.0

//! Books of loans: which ones are out.
//!
//! A [`LoanBook`] lists the loans to which nothing is added any more and of which packets have
//! something. Its spinlock, taken with interrupts off, protects the list; it is shared by [`Arc`] with the
//! loans.

use super::{
    super::super::sys,
    Lender,
    Lent, //
};
use core::ptr::{
    self,
    NonNull, //
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

/// A loan's place in its book.
pub(super) struct Neighbours<T> {
    pub(super) before: Option<NonNull<Lent<T>>>,
    pub(super) behind: Option<NonNull<Lent<T>>>,
}

/// The loans of one kind that are out: closed, and not returned.
#[pin_data]
pub(crate) struct LoanBook<T> {
    #[pin]
    pub(super) out: SpinLockIrq<Out<T>>,
}

/// The list of a [`LoanBook`].
///
/// # Invariants
///
/// `first` begins a doubly linked list of valid [`Lent`]s that were boxes. Their `object`s are used by
/// nobody who does not hold the book's lock.
pub(super) struct Out<T> {
    first: Option<NonNull<Lent<T>>>,
}

// SAFETY: The objects in the list may be used by whatever thread holds the lock.
unsafe impl<T: Send> Send for Out<T> {}

impl<T> Out<T> {
    /// Adds a loan.
    ///
    /// # Safety
    ///
    /// `lent` must be valid, in no list, and stay valid until it is removed. Nobody may use its object
    /// from now on without the lock.
    pub(super) unsafe fn add(&mut self, lent: NonNull<Lent<T>>) {
        let neighbours = Neighbours {
            before: None,
            behind: self.first,
        };
        // SAFETY: By the requirement it is valid, and the lock is ours.
        unsafe { *(*lent.as_ptr()).neighbours.get() = neighbours };
        if let Some(first) = self.first {
            // SAFETY: By the type invariants it is valid, and the lock is ours.
            unsafe { (*(*first.as_ptr()).neighbours.get()).before = Some(lent) };
        }
        // INVARIANT: The new one is valid, and the others stand behind it.
        self.first = Some(lent);
    }

    /// Takes a loan out.
    ///
    /// # Safety
    ///
    /// `lent` must be in this list.
    pub(super) unsafe fn remove(&mut self, lent: NonNull<Lent<T>>) {
        // SAFETY: By the type invariants it is valid, and the lock is ours.
        let neighbours = unsafe { &*(*lent.as_ptr()).neighbours.get() };
        let (before, behind) = (neighbours.before, neighbours.behind);
        match before {
            // SAFETY: By the type invariants it is valid, and the lock is ours.
            Some(before) => unsafe { (*(*before.as_ptr()).neighbours.get()).behind = behind },
            // INVARIANT: What stood behind the first one is the rest of the list.
            None => self.first = behind,
        }
        if let Some(behind) = behind {
            // SAFETY: By the type invariants it is valid, and the lock is ours.
            unsafe { (*(*behind.as_ptr()).neighbours.get()).before = before };
        }
    }

    /// Takes out a loan of which packets have something, and leaves those to the kernel. Returns its
    /// object. The rest of it stays allocated for good.
    fn disown(&mut self) -> Option<T> {
        let mut next = self.first;
        while let Some(lent) = next {
            // SAFETY: By the type invariants it is valid.
            let ubuf = Opaque::cast_into(unsafe { &raw const (*lent.as_ptr()).ubuf });
            // SAFETY: The loan is valid, `ubuf` is its first field, has the room behind it that the
            // function asks for, and was allocated with it.
            if unsafe { sys::socklnd_helper_ubuf_disown(ubuf) } {
                // SAFETY: It is in this list.
                unsafe { self.remove(lent) };
                // SAFETY: `complete` will not make a box of it any more: the reference just taken is
                // never given up. So this is the only owner of the object, and the original is not
                // used again.
                return Some(unsafe { ptr::read(&raw const (*lent.as_ptr()).object) });
            }
            // Its last packet has gone this moment: who gave that up waits for the lock.
            // SAFETY: By the type invariants it is valid, and the lock is ours.
            next = unsafe { (*(*lent.as_ptr()).neighbours.get()).behind };
        }
        None
    }
}

impl<T: Lender> LoanBook<T> {
    /// No loans. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                // INVARIANT: The list is empty.
                out <- new_spinlock_irq!(Out { first: None }, "socklnd_loan_book"),
            }),
            GFP_KERNEL,
        )
    }

    /// Calls `f` with the object of one of the loans that are out, if there are any. Thread context;
    /// `f` must not sleep, and runs with interrupts off.
    pub(crate) fn with_one<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        let out = self.out.lock();
        let first = out.first?;
        // SAFETY: By the invariants of `Out` it is valid, and the object is ours as long as the lock is
        // held.
        Some(f(unsafe { &(*first.as_ptr()).object }))
    }

    /// Gives up all loans that are out: calls `f` with their objects, and has the packets that have
    /// their pages give these back to nobody. What that needs stays allocated for good, about a hundred
    /// bytes for each. Those that are being returned this moment are returned as usual, before
    /// [`wait_for_callbacks`](crate::lib_linux::wait_for_callbacks) returns. May sleep.
    ///
    /// Then the pages may be sent although their owner has them again: it must never change them.
    pub(crate) fn disown(&self, mut f: impl FnMut(T)) {
        loop {
            let object = self.out.lock().disown();
            match object {
                Some(object) => f(object),
                None => return,
            }
        }
    }
}
