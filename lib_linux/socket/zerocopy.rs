// SPDX-License-Identifier: GPL-2.0

//! Sending pages without a copy, as `MSG_ZEROCOPY` does.
//!
//! The packets that [`Socket::send_zerocopy`] makes refer to the sender's own pages. TCP needs these
//! until the other side has acknowledged them, because it may have to send them again; a driver or a
//! queueing discipline may need them for longer. A [`ZcUbuf`] is a `struct ubuf_info`, to which each of
//! these packets holds a reference. When the last reference is dropped, the kernel calls the `complete`
//! callback, which passes the object in the [`ZcUbuf`] to [`ZcOps::complete`]. This happens exactly once
//! for each [`ZcUbuf`], however the connection ends, and not before the [`ZcUbuf`] itself is dropped.
//!
//! Protection and lifetime:
//!
//! - The reference count in the `struct ubuf_info` protects its memory. The [`ZcUbuf`] holds one
//!   reference, and every packet with its pages holds another. Whoever drops the last reference owns
//!   the memory from then on, as a box.
//! - The object can be reached through the [`ZcUbuf`] while that exists, then through the [`ZcList`]
//!   until the last packet is freed, and through the box afterwards.
//! - A [`ZcList`] has the ubufs that are closed, and that packets still refer to. Its spinlock protects
//!   the list. It is shared by [`Arc`] with the ubufs.
//! - The pages do not depend on any of this: each packet holds a reference to each of its pages, and
//!   drops it itself. That works for pages of the page allocator, and a [`Bvecs`] says whether it
//!   refers to others. Rust code never changes the contents of such a page through a reference. So a
//!   completion that came too early could damage data, but not memory.
//!
//! While the connection exists, completion takes until the other side acknowledges the data. When the
//! socket is aborted, TCP frees its packets at once; a packet in a device's queue stays until the device
//! has sent or dropped it, one that waits for address resolution stays for some seconds, one in a
//! queueing discipline that delays packets stays as long as the delay, and one in a netfilter queue stays
//! until a program has decided about it. So a ubuf can outlive its connection, its NI and its
//! network namespace. Only the removal of the module waits for it, because the callback is in the module.
//! [`ZcList::disown`] ends that wait: it leaves the packets to a callback of the kernel's own.
//!
//! Packets to a receiver on the same machine, over the loopback device or a veth, are copied on the way,
//! so that no receive queue holds the sender's pages: [`ZcDone::was_copied`].
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

mod list;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use self::list::Links;
pub(crate) use self::list::ZcList;
use super::{
    super::{
        iov::Bvecs,
        queue::{
            Link,
            Linked, //
        },
        sys, //
    },
    More,
    Socket, //
};
use core::{
    cell::UnsafeCell,
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    bindings,
    container_of,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// Objects that can be in a [`ZcUbuf`], and their part of `struct ubuf_info_ops`.
///
/// # Examples
///
/// ```
/// use kernel::sync::atomic::{Atomic, Relaxed};
///
/// static COMPLETE: Atomic<u32> = Atomic::new(0);
///
/// struct Request(u32);
///
/// impl ZcOps for Request {
///     fn complete(this: KBox<ZcDone<Self>>) {
///         COMPLETE.store(this.0, Relaxed);
///     }
/// }
///
/// // No packet refers to it, so it is complete when it is closed.
/// drop(ZcUbuf::new(Request(7), &ZcList::new()?)?);
/// assert_eq!(COMPLETE.load(Relaxed), 7);
/// # Ok::<(), Error>(())
/// ```
pub(crate) trait ZcOps: Send + Sized + 'static {
    /// No packet refers to the pages any more.
    ///
    /// Called in any context but hard interrupts, with any lock of TCP or of a driver held. Must not
    /// sleep, must not take a lock that is ever taken with interrupts on, and must not drop anything
    /// whose destructor may do these things: it should pass the object to a thread.
    fn complete(this: KBox<ZcDone<Self>>);
}

/// The kernel's own callback works on a `struct ubuf_info_msgzc`, which is larger by this.
const ROOM: usize = sys::SIZEOF_ubuf_info_msgzc - sys::SIZEOF_ubuf_info;

/// The memory of a [`ZcUbuf`], and what is left of it when it is complete: then it is a box.
///
/// # Invariants
///
/// - `ubuf` is initialised; its callback is `complete::<T>`, or that of the kernel after
///   [`ZcList::disown`].
/// - While it is in `list`, nobody uses `object` or `links` without the list's lock.
///
/// # Examples
///
/// ```
/// use kernel::sync::atomic::{Atomic, Relaxed};
///
/// static SENT: Atomic<u32> = Atomic::new(0);
///
/// struct Request(u32);
///
/// impl ZcOps for Request {
///     fn complete(this: KBox<ZcDone<Self>>) {
///         if !this.was_copied() {
///             SENT.store(ZcDone::into_object(this).0, Relaxed);
///         }
///     }
/// }
///
/// drop(ZcUbuf::new(Request(7), &ZcList::new()?)?);
/// assert_eq!(SENT.load(Relaxed), 7);
/// # Ok::<(), Error>(())
/// ```
#[repr(C)]
pub(crate) struct ZcDone<T> {
    ubuf: Opaque<bindings::ubuf_info>,
    /// For the kernel's own callback, if the ubuf is disowned.
    _room: Opaque<[u8; ROOM]>,
    link: Link<Self>,
    list: Arc<ZcList<T>>,
    /// Protected by the lock of `list`.
    links: UnsafeCell<Links<T>>,
    copied: Atomic<bool>,
    object: T,
}

// SAFETY: `ubuf` is memory for C, which may be used by any thread; `links` is used under a lock;
// the rest is `Send`.
unsafe impl<T: Send> Send for ZcDone<T> {}

// SAFETY: The link is a plain field, always the same one, and private; only a queue touches it.
unsafe impl<T> Linked for ZcDone<T> {
    unsafe fn raw_link(this: *mut Self) -> *mut Link<Self> {
        // SAFETY: By the function's requirement the field is in bounds of an object.
        unsafe { &raw mut (*this).link }
    }
}

impl<T> ZcDone<T> {
    /// Whether some of the pages were copied on the way after all: by a receiver on this machine,
    /// or for a device that can't gather a packet from pages.
    pub(crate) fn was_copied(&self) -> bool {
        self.copied.load(Relaxed)
    }

    /// The object. Frees the rest.
    pub(crate) fn into_object(this: KBox<Self>) -> T {
        KBox::into_inner(this).object
    }
}

impl<T> Deref for ZcDone<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

/// A `struct ubuf_info` with an object, which can be used for sends without a copy. Dropping it closes
/// it; if no packet refers to it then, it is complete at once.
///
/// # Invariants
///
/// Points to a [`ZcDone`] that was a box, and holds one of the references that `ubuf` counts.
///
/// # Examples
///
/// ```
/// struct Nothing;
///
/// impl ZcOps for Nothing {
///     fn complete(_this: KBox<ZcDone<Self>>) {}
/// }
///
/// let list = ZcList::new()?;
/// // No packet refers to it, so this completes it at once.
/// drop(ZcUbuf::new(Nothing, &list)?);
/// assert!(list.with_first(|_| ()).is_none());
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct ZcUbuf<T: ZcOps>(NonNull<ZcDone<T>>);

// SAFETY: Any thread may give up the reference, and the object may be used by any.
unsafe impl<T: ZcOps> Send for ZcUbuf<T> {}

impl<T: ZcOps> ZcUbuf<T> {
    const OPS: &'static bindings::ubuf_info_ops = &bindings::ubuf_info_ops {
        complete: Some(complete::<T>),
        link_skb: None,
    };

    /// A ubuf without pages, which `list` will have once it is closed. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the object is dropped.
    pub(crate) fn new(object: T, list: &Arc<ZcList<T>>) -> Result<Self> {
        let done = ZcDone {
            ubuf: Opaque::new(bindings::ubuf_info {
                ops: Self::OPS,
                // Our own reference.
                refcnt: bindings::refcount_t {
                    refs: bindings::atomic_t { counter: 1 },
                },
                // What the kernel's own MSG_ZEROCOPY has. That the pages are not the packet's own
                // keeps everybody from changing them in place. Without `DONT_ORPHAN` they would be
                // copied as soon as TCP clones the packet, which it does in order to send it.
                // CAST: Bits of the first byte.
                flags: (bindings::SKBFL_ZEROCOPY_ENABLE
                    | bindings::SKBFL_SHARED_FRAG
                    | bindings::SKBFL_DONT_ORPHAN) as u8,
            }),
            _room: Opaque::zeroed(),
            link: Link::new(),
            list: list.clone(),
            links: UnsafeCell::new(Links {
                prev: None,
                next: None,
            }),
            copied: Atomic::new(false),
            object,
        };
        // INVARIANT: Initialised above, and in no list.
        let done = KBox::new(done, GFP_KERNEL)?;
        // INVARIANT: It was a box, and the count's initial value is our reference.
        Ok(Self(NonNull::from(KBox::leak(done))))
    }

    /// The `struct ubuf_info` that packets refer to.
    fn ubuf(&self) -> *mut bindings::ubuf_info {
        // SAFETY: By the type invariants the object is there.
        Opaque::cast_into(unsafe { &raw const (*self.0.as_ptr()).ubuf })
    }
}

impl<T: ZcOps> Deref for ZcUbuf<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants the object is there. Nobody else reaches this field as long
        // as our reference keeps `complete` from making a box.
        unsafe { &(*self.0.as_ptr()).object }
    }
}

impl<T: ZcOps> DerefMut for ZcUbuf<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: As in `deref`; and there is no other `ZcUbuf` for it.
        unsafe { &mut (*self.0.as_ptr()).object }
    }
}

impl<T: ZcOps> Drop for ZcUbuf<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the object is there.
        let list = unsafe { &(*self.0.as_ptr()).list };
        // SAFETY: It is valid until `complete` takes it out of the list, and was in none. The object is
        // not used by way of this any more.
        unsafe { list.pending.lock().add(self.0) };
        // SAFETY: By the type invariants we have a reference to a `ZcDone<T>`; it is not used
        // after this.
        unsafe { complete::<T>(ptr::null_mut(), self.ubuf(), true) };
    }
}

/// `ubuf_info_ops.complete`: gives up one reference. `success` is false if the pages were copied.
///
/// The caller is whoever frees a packet, in whatever context: usually a softirq, but also a thread,
/// which can be preempted here. So when the last ubuf is complete, this may still be executing its
/// last instructions, see [`wait_for_callbacks`](crate::lib_linux::wait_for_callbacks).
///
/// # Safety
///
/// `ubuf` must be that of a [`ZcDone<T>`]. The caller must have a reference to it, and give it up.
unsafe extern "C" fn complete<T: ZcOps>(
    _skb: *mut bindings::sk_buff,
    ubuf: *mut bindings::ubuf_info,
    success: bool,
) {
    // SAFETY: By this function's requirement it is that field.
    let done = unsafe { container_of!(Opaque::cast_from(ubuf).cast_mut(), ZcDone<T>, ubuf) };
    if !success {
        // SAFETY: The caller's reference keeps the object in memory. The field is atomic, and nobody
        // has a `&mut` to it before the last reference is gone.
        unsafe { &(*done).copied }.store(true, Relaxed);
    }
    // SAFETY: As above.
    let refcnt = unsafe { &raw mut (*ubuf).refcnt };
    // This is a release, and an acquire if it returns true: what was done to the object before any
    // reference was dropped is visible to the thread that drops the last one.
    // SAFETY: As above; the reference is the caller's to give up.
    if unsafe { bindings::refcount_dec_and_test(refcnt) } {
        // SAFETY: The last reference was ours, so the object is ours, and with it its reference to the list.
        let list = unsafe { &(*done).list };
        // SAFETY: A field of a valid object is not at null.
        let listed = unsafe { NonNull::new_unchecked(done) };
        // SAFETY: It was listed before the `ZcUbuf` gave up its reference, and is not disowned: that takes
        // another reference.
        unsafe { list.pending.lock().remove(listed) };
        // SAFETY: By the invariants of `ZcUbuf` this was a box. The last reference is gone, so nobody
        // uses it any more, and nobody gets here again.
        T::complete(unsafe { KBox::from_raw(done) });
    }
}

impl Socket {
    /// Whether sending without a copy works and pays, as far as can be told at this moment. Any context.
    ///
    /// It does not if the device can't gather packets from pages, because TCP copies then anyway; and not
    /// if TCP probes for a larger MTU, because the packets that it makes for that refer to the pages
    /// without a reference to the ubuf.
    pub(crate) fn can_zerocopy(&self) -> bool {
        // SAFETY: By the type invariants `sk` is valid.
        unsafe { sys::socklnd_helper_sk_can_zerocopy(self.sk()) }
    }

    /// As [`Socket::send`], but without copying: the packets refer to the pages and to `zc`. The pages
    /// should not change before `zc` is complete, because TCP may send them again.
    ///
    /// TCP may copy nonetheless; then no packet refers to `zc`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if not all of `from` can be sent so; and those of [`Socket::send`].
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::{
    ///     iov::BvecBuf,
    ///     page::{PageRange, Pages},
    ///     socket::{
    ///         tests::{drain, eventually, pair},
    ///         More, //
    ///     },
    /// };
    /// use kernel::sync::{atomic::{Atomic, Relaxed}, Arc};
    ///
    /// static COMPLETE: Atomic<bool> = Atomic::new(false);
    ///
    /// struct Request(PageRange);
    ///
    /// impl ZcOps for Request {
    ///     fn complete(_this: KBox<ZcDone<Self>>) {
    ///         COMPLETE.store(true, Relaxed);
    ///     }
    /// }
    ///
    /// let (one, two) = pair()?;
    /// assert!(one.can_zerocopy());
    /// let range = PageRange::new(Arc::new(Pages::alloc(1000)?, GFP_KERNEL)?, 0, 1000)?;
    /// let zc = ZcUbuf::new(Request(range), &ZcList::new()?)?;
    /// let mut buf = BvecBuf::with_capacity(1)?;
    /// let mut from = buf.start();
    /// assert!(from.push_range(&zc.0, 0));
    /// assert_eq!(one.send_zerocopy(&from, More::None, &zc)?, 1000);
    /// drop(zc);
    /// drain(&two, 1000)?;
    /// eventually(|| COMPLETE.load(Relaxed).then_some(()))?;
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn send_zerocopy<T: ZcOps>(
        &self,
        from: &Bvecs<'_>,
        more: More,
        zc: &ZcUbuf<T>,
    ) -> Result<usize> {
        if !from.can_zerocopy() {
            return Err(EINVAL);
        }
        // SAFETY: `zc` has a reference until after the call, and its callback fits it. The list can be sent
        // without a copy.
        unsafe { self.send_message(from, more, zc.ubuf()) }
    }
}
