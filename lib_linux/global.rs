// SPDX-License-Identifier: GPL-2.0

//! A place from which callbacks without an argument find the module's state.
//!
//! An [`Instance`] is a static that refers to an [`Arc`] while a [`Published`] exists. Readers are
//! protected by RCU: they take their reference inside a read-side critical section, and dropping the
//! [`Published`] waits for a grace period before it gives up the reference that keeps the object
//! alive. The last reference frees the object.

use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        rcu,
        Arc,
        ArcBorrow, //
    }, //
};

/// A static reference to a `T` that comes and goes.
///
/// # Invariants
///
/// The pointer is null or comes from [`Arc::into_raw`]. The reference that it stands for is given
/// up only after the pointer was replaced by null and a grace period has passed.
///
/// # Examples
///
/// ```
/// use kernel::sync::Arc;
///
/// static NUMBER: Instance<u32> = Instance::new();
///
/// assert!(NUMBER.get().is_none());
/// let published = NUMBER.publish(Arc::new(7, GFP_KERNEL)?)?;
/// assert_eq!(NUMBER.get().map(|number| *number), Some(7));
/// drop(published);
/// assert!(NUMBER.get().is_none());
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct Instance<T> {
    object: Atomic<*mut T>,
    _owns: PhantomData<Arc<T>>,
}

// SAFETY: Sharing an `Instance<T>` lets other threads obtain an `Arc<T>`, by cloning; so what is
// needed is that an `Arc<T>` may be sent.
unsafe impl<T: Send + Sync> Sync for Instance<T> {}

impl<T> Instance<T> {
    /// Refers to nothing.
    pub(crate) const fn new() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            object: Atomic::new(ptr::null_mut()),
            _owns: PhantomData,
        }
    }

    /// Makes `object` visible until the result is dropped. Any context.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is an object already.
    pub(crate) fn publish(&'static self, object: Arc<T>) -> Result<Published<T>> {
        let new = Arc::into_raw(object).cast_mut();
        // INVARIANT: Null is replaced by a pointer from `into_raw`. `Release` pairs with the
        // `Acquire` in `get`: who sees the pointer sees the object that it points to.
        match self.object.cmpxchg(ptr::null_mut(), new, Release) {
            Ok(_) => Ok(Published(self)),
            Err(_) => {
                // SAFETY: `new` was returned by `into_raw` above, and nobody else has seen it.
                drop(unsafe { Arc::from_raw(new) });
                Err(EBUSY)
            }
        }
    }

    /// The object, if there is one now. Any context.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        let guard = rcu::read_lock();
        let object = self.object.load(Acquire);
        if object.is_null() {
            return None;
        }
        // SAFETY: By the type invariants `object` comes from `into_raw` and its reference is held
        // at least until a grace period has passed after it was withdrawn. It was not withdrawn
        // when it was loaded, and no grace period that begins later ends before `guard` is dropped.
        let object: Arc<T> = unsafe { ArcBorrow::from_raw(object) }.into();
        drop(guard);
        Some(object)
    }
}

/// Keeps an object visible in an [`Instance`]. Dropping it withdraws the object, waits for readers
/// that have no reference yet, and gives up the reference; may sleep.
///
/// # Invariants
///
/// The instance's pointer is not null, and nobody else replaces it.
///
/// # Examples
///
/// ```
/// use kernel::sync::Arc;
///
/// static NUMBER: Instance<u32> = Instance::new();
///
/// let published: Published<u32> = NUMBER.publish(Arc::new(7, GFP_KERNEL)?)?;
/// // One object at a time.
/// assert!(matches!(NUMBER.publish(Arc::new(8, GFP_KERNEL)?), Err(e) if e == EBUSY));
/// drop(published);
/// assert!(NUMBER.publish(Arc::new(8, GFP_KERNEL)?).is_ok());
/// # Ok::<(), Error>(())
/// ```
#[must_use]
pub(crate) struct Published<T: 'static>(&'static Instance<T>);

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let object = self.0.object.xchg(ptr::null_mut(), Acquire);
        rcu::synchronize_rcu();
        // SAFETY: By the type invariants `object` was put there by `publish`, from `into_raw`, and
        // is taken out once, here.
        drop(unsafe { Arc::from_raw(object) });
    }
}

#[kunit_tests(socklnd_lib_linux_global)]
mod tests {
    use super::*;

    #[test]
    fn one_object_at_a_time() -> Result {
        static INSTANCE: Instance<u32> = Instance::new();
        assert!(INSTANCE.get().is_none());
        let published = INSTANCE.publish(Arc::new(7, GFP_KERNEL)?)?;
        assert!(matches!(INSTANCE.publish(Arc::new(8, GFP_KERNEL)?), Err(e) if e == EBUSY));
        let seen = INSTANCE.get().ok_or(ENOENT)?;
        drop(published);
        assert_eq!(*seen, 7);
        assert!(INSTANCE.get().is_none());
        let _again = INSTANCE.publish(seen)?;
        assert!(INSTANCE.get().is_some());
        Ok(())
    }
}
