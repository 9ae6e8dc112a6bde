// SPDX-License-Identifier: GPL-2.0

//! Lending pages to TCP, which is sending without a copy.
//!
//! The packets that [`Socket::send_lent`] makes refer to the sender's own pages. TCP needs these
//! until the other side has acknowledged them, for it may have to send them again; a driver or a
//! queueing discipline may need them for longer. A [`Loan`] tells when nobody does any more: it
//! counts who holds such packets, and with the last of them its object goes to
//! [`Lender::returned`]. That happens exactly once for every loan, however the connection ends, and
//! not before the [`Loan`] itself was dropped.
//!
//! What protects what, and who frees it:
//!
//! - The count in the `struct ubuf_info` protects the loan's memory. The [`Loan`] holds one
//!   reference, and every packet with pages of it another. Whoever gives up the last one owns the
//!   memory from then on, as a box.
//! - The loan's object can only be reached through the [`Loan`] while that exists, through the
//!   [`LoanBook`] until the last packet is gone, and through the box afterwards.
//! - A [`LoanBook`] lists the loans to which nothing is added any more and of which packets have
//!   something; its spinlock protects the list. It is shared by [`Arc`] with the loans.
//! - The pages themselves don't depend on any of this: each packet holds a reference to each of its
//!   pages, and gives it back itself. That works for pages of the page allocator, and a [`Bvecs`] says
//!   whether it refers to others. Nor does Rust ever change, by a reference, what such a page contains. So
//!   what a loan returned too early could do is damage data, not memory.
//!
//! How long may it take? While the connection lives, until the other side acknowledges. When the
//! socket is aborted, TCP lets go at once; a packet that is in a device's queue takes until the
//! device has sent or dropped it, one that waits for an address to be resolved some seconds, one
//! in a delaying queueing discipline as long as that delays, and one that a program was asked about
//! (NFQUEUE) as long as that program likes. So a loan outlives its connection, its interface, and its
//! network namespace, and nobody waits for it but the end of the module, whose code the callback is.
//! Even that need not: [`LoanBook::disown`] leaves the packets to a callback of the kernel's own.
//!
//! Packets that reach a receiver on the same machine, over the loopback device or a veth, are copied
//! on the way, so that nobody's receive queue holds the sender's pages: [`Lent::was_copied`].
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

mod book;

pub(crate) use self::book::LoanBook;
use self::book::Neighbours;
use super::{
    super::{
        iov::Bvecs,
        queue::{
            Link,
            Linked, //
        },
        sys, //
    },
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

/// Objects that can be in a [`Loan`].
pub(crate) trait Lender: Send + Sized + 'static {
    /// All pages were given back.
    ///
    /// Called in any context, hard interrupts excluded, with any lock of TCP or of a driver held.
    /// Must not sleep, must take no lock that is ever taken with interrupts on, and must not drop
    /// anything whose destructor may do these things: the object is for some thread to look after.
    fn returned(this: KBox<Lent<Self>>);
}

/// What the kernel's own callback takes a `struct ubuf_info` for is larger by this.
const ROOM: usize = sys::SIZEOF_ubuf_info_msgzc - sys::SIZEOF_ubuf_info;

/// What a loan consists of. A box of it exists only once everything was given back.
#[repr(C)]
pub(crate) struct Lent<T> {
    ubuf: Opaque<bindings::ubuf_info>,
    /// For the kernel's own callback, if the loan is disowned.
    _room: Opaque<[u8; ROOM]>,
    link: Link<Self>,
    book: Arc<LoanBook<T>>,
    /// Protected by the book's lock.
    neighbours: UnsafeCell<Neighbours<T>>,
    copied: Atomic<bool>,
    object: T,
}

// SAFETY: `ubuf` is memory for C, which may be used by any thread; `neighbours` is used under a lock;
// the rest is `Send`.
unsafe impl<T: Send> Send for Lent<T> {}

// SAFETY: The link is a plain field, always the same one, and private; only a queue touches it.
unsafe impl<T> Linked for Lent<T> {
    unsafe fn raw_link(this: *mut Self) -> *mut Link<Self> {
        // SAFETY: By the function's requirement the field is in bounds of an object.
        unsafe { &raw mut (*this).link }
    }
}

impl<T> Lent<T> {
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

impl<T> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

/// A loan that pages can be added to. Dropping it ends that; when TCP has nothing of it, the object
/// is returned at once.
///
/// # Invariants
///
/// Points to a [`Lent`] that was a box, and holds one of the references that `ubuf` counts.
///
/// # Examples
///
/// ```
/// struct Nothing;
///
/// impl Lender for Nothing {
///     fn returned(_this: KBox<Lent<Self>>) {}
/// }
///
/// let book = LoanBook::new()?;
/// // Nothing was lent, so this returns it at once.
/// drop(Loan::new(Nothing, &book)?);
/// assert!(book.with_one(|_| ()).is_none());
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct Loan<T: Lender>(NonNull<Lent<T>>);

// SAFETY: Any thread may give up the reference, and the object may be used by any.
unsafe impl<T: Lender> Send for Loan<T> {}

impl<T: Lender> Loan<T> {
    const OPS: &'static bindings::ubuf_info_ops = &bindings::ubuf_info_ops {
        complete: Some(complete::<T>),
        link_skb: None,
    };

    /// A loan of no pages yet, to be listed in `book`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the object is dropped.
    pub(crate) fn new(object: T, book: &Arc<LoanBook<T>>) -> Result<Self> {
        let lent = Lent {
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
            book: book.clone(),
            neighbours: UnsafeCell::new(Neighbours {
                before: None,
                behind: None,
            }),
            copied: Atomic::new(false),
            object,
        };
        let lent = KBox::new(lent, GFP_KERNEL)?;
        // INVARIANT: It was a box, and the count's initial value is our reference.
        Ok(Self(NonNull::from(KBox::leak(lent))))
    }

    /// What the packets refer to.
    fn ubuf(&self) -> *mut bindings::ubuf_info {
        // SAFETY: By the type invariants the object is there.
        Opaque::cast_into(unsafe { &raw const (*self.0.as_ptr()).ubuf })
    }
}

impl<T: Lender> Deref for Loan<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants the object is there. Nobody else reaches this field as long
        // as our reference keeps `complete` from making a box.
        unsafe { &(*self.0.as_ptr()).object }
    }
}

impl<T: Lender> DerefMut for Loan<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: As in `deref`; and there is no other `Loan` for it.
        unsafe { &mut (*self.0.as_ptr()).object }
    }
}

impl<T: Lender> Drop for Loan<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the loan is there.
        let book = unsafe { &(*self.0.as_ptr()).book };
        // SAFETY: It is valid until `complete` takes it out of the list, and was in none. The object is
        // not used by way of this any more.
        unsafe { book.out.lock().add(self.0) };
        // SAFETY: By the type invariants we have a reference to a loan of a `T`; it is not used
        // after this.
        unsafe { complete::<T>(ptr::null_mut(), self.ubuf(), true) };
    }
}

/// `ubuf_info_ops.complete`: gives up one reference. `success` is false if the pages were copied.
///
/// The caller is whoever frees a packet, in whatever context: usually a softirq, but also a thread,
/// which can be preempted here. So when the last loan was returned, this may still be executing its
/// last instructions, see [`wait_for_callbacks`](crate::lib_linux::wait_for_callbacks).
///
/// # Safety
///
/// `ubuf` must be that of a [`Lent<T>`]. The caller must have a reference to it, and give it up.
unsafe extern "C" fn complete<T: Lender>(
    _skb: *mut bindings::sk_buff,
    ubuf: *mut bindings::ubuf_info,
    success: bool,
) {
    // SAFETY: By this function's requirement it is that field.
    let lent = unsafe { container_of!(Opaque::cast_from(ubuf).cast_mut(), Lent<T>, ubuf) };
    if !success {
        // SAFETY: The caller's reference keeps the loan in memory. The field is atomic, and nobody
        // has a `&mut` to it before the last reference is gone.
        unsafe { &(*lent).copied }.store(true, Relaxed);
    }
    // SAFETY: As above.
    let refcnt = unsafe { &raw mut (*ubuf).refcnt };
    // What was done to the loan before any reference was given up is seen by who gives up the last:
    // this is a release, and if it returns true an acquire.
    // SAFETY: As above; the reference is the caller's to give up.
    if unsafe { bindings::refcount_dec_and_test(refcnt) } {
        // SAFETY: The last reference was ours, so the loan is ours, and its book with it.
        let book = unsafe { &(*lent).book };
        // SAFETY: A field of a valid object is not at null.
        let listed = unsafe { NonNull::new_unchecked(lent) };
        // SAFETY: It was listed before the `Loan` gave up its reference, and is not disowned: that takes
        // another reference.
        unsafe { book.out.lock().remove(listed) };
        // SAFETY: By the invariants of `Loan` this was a box. The last reference is gone, so nobody
        // uses it any more, and nobody gets here again.
        T::returned(unsafe { KBox::from_raw(lent) });
    }
}

impl Socket {
    /// Whether pages are better lent than copied here, as far as one can tell at this moment. Any
    /// context.
    ///
    /// Not if the device can't gather packets from pages, for then TCP copies anyway. And not if
    /// TCP probes for a larger MTU: the packets that it makes for that refer to the pages, but don't
    /// count as holders of the loan.
    pub(crate) fn can_lend(&self) -> bool {
        // SAFETY: By the type invariants `sk` is valid.
        unsafe { sys::socklnd_helper_sk_can_lend(self.sk()) }
    }

    /// As [`Socket::send`], but without copying: the pages become part of `loan`. Their owner should
    /// not change them before it is returned, because TCP may send them again.
    ///
    /// TCP may copy nonetheless; the loan then knows nothing of it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if not all of `from` can be lent; and those of [`Socket::send`].
    pub(crate) fn send_lent<T: Lender>(
        &self,
        from: &Bvecs<'_>,
        more: bool,
        loan: &Loan<T>,
    ) -> Result<usize> {
        if !from.can_lend() {
            return Err(EINVAL);
        }
        // SAFETY: `loan` has a reference until after the call, and its callback fits it. The list can be
        // lent.
        unsafe { self.send_message(from, more, loan.ubuf()) }
    }
}

#[kunit_tests(socklnd_lib_linux_loan)]
mod tests {
    use super::{
        super::{
            super::{
                iov::BvecBuf,
                page::{
                    PageRange,
                    Pages, //
                }, //
            },
            tests::{
                drain,
                eventually,
                pair,
                settled, //
            }, //
        },
        *, //
    };

    /// Counts its returns.
    struct Object {
        returns: Arc<Atomic<u32>>,
        copies: Arc<Atomic<u32>>,
    }

    impl Lender for Object {
        fn returned(this: KBox<Lent<Self>>) {
            this.returns.add(1, Relaxed);
            if this.was_copied() {
                this.copies.add(1, Relaxed);
            }
        }
    }

    /// Pages to lend, the loans' counts, and room for a list.
    struct Fixture {
        pages: Arc<Pages>,
        payload: PageRange,
        returns: Arc<Atomic<u32>>,
        copies: Arc<Atomic<u32>>,
        book: Arc<LoanBook<Object>>,
        frags: BvecBuf,
    }

    impl Fixture {
        fn new(len: usize) -> Result<Self> {
            let pages = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
            pages.fill_pattern(0, len, 1)?;
            Ok(Self {
                payload: PageRange::new(pages.clone(), 0, len)?,
                pages,
                returns: Arc::new(Atomic::new(0), GFP_KERNEL)?,
                copies: Arc::new(Atomic::new(0), GFP_KERNEL)?,
                book: LoanBook::new()?,
                frags: BvecBuf::with_capacity(64)?,
            })
        }

        fn loan(&self) -> Result<Loan<Object>> {
            let object = Object {
                returns: self.returns.clone(),
                copies: self.copies.clone(),
            };
            Loan::new(object, &self.book)
        }

        /// Lends the payload from `skip` on, as far as TCP takes it.
        fn send(&mut self, socket: &Socket, skip: usize, loan: &Loan<Object>) -> Result<usize> {
            let mut from = self.frags.start();
            assert!(from.push_range(&self.payload, skip));
            socket.send_lent(&from, false, loan)
        }

        fn returned(&self) -> u32 {
            self.returns.load(Relaxed)
        }

        fn await_returned(&self, count: u32) -> Result {
            eventually(|| (self.returned() == count).then_some(()))
        }
    }

    #[test]
    fn nothing_lent_returns_at_once() -> Result {
        let fixture = Fixture::new(1)?;
        drop(fixture.loan()?);
        assert_eq!(fixture.returned(), 1);
        Ok(())
    }

    #[test]
    fn returned_once_when_acknowledged() -> Result {
        let len = 50_000;
        let mut fixture = Fixture::new(len)?;
        let (one, two) = pair()?;
        assert!(one.can_lend());
        let sink = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
        let into = PageRange::new(sink.clone(), 0, len)?;
        let mut rx = BvecBuf::with_capacity(64)?;
        let loan = fixture.loan()?;
        let (mut sent, mut have) = (0, 0);
        while have < len {
            if sent < len {
                sent += settled(fixture.send(&one, sent, &loan))
                    .transpose()?
                    .unwrap_or(0);
            }
            let mut to = rx.start_recv();
            assert!(to.push_range(&into, have));
            have += eventually(|| settled(two.recv(&to)))??;
        }
        assert_eq!(sink.xxh64(0, len, 0)?, fixture.pages.xxh64(0, len, 0)?);
        eventually(|| (one.wmem_queued() == 0).then_some(()))?;
        // More could be lent, so it is not over.
        assert_eq!(fixture.returned(), 0);
        drop(loan);
        fixture.await_returned(1)?;
        // The receiver is on this machine.
        assert_eq!(fixture.copies.load(Relaxed), 1);
        one.abort();
        two.abort();
        assert_eq!(fixture.returned(), 1);
        Ok(())
    }

    #[test]
    fn not_returned_while_unacknowledged() -> Result {
        let mut fixture = Fixture::new(200_000)?;
        let (one, two) = pair()?;
        // Until the receiver's buffer and the sender's are full.
        let (mut loans, mut total) = (0, 0);
        loop {
            let loan = fixture.loan()?;
            loans += 1;
            match fixture.send(&one, 0, &loan) {
                Ok(sent) => total += sent,
                Err(e) if e == EAGAIN => break,
                Err(e) => return Err(e),
            }
        }
        // The last one has nothing, the one before it can't have been acknowledged.
        assert!(loans > 2);
        assert!(fixture.returned() < loans);
        assert!(one.wmem_queued() > 0);
        drain(&two, total)?;
        fixture.await_returned(loans)
    }

    #[test]
    fn returned_once_when_aborted() -> Result {
        for sender_first in [true, false] {
            let mut fixture = Fixture::new(200_000)?;
            let (one, two) = pair()?;
            let mut loans = 0;
            loop {
                let loan = fixture.loan()?;
                loans += 1;
                match fixture.send(&one, 0, &loan) {
                    Ok(_) => {}
                    Err(e) if e == EAGAIN => break,
                    Err(e) => return Err(e),
                }
            }
            assert!(fixture.returned() < loans);
            // Nobody has read anything. The abort of either side makes the sender let go.
            if sender_first {
                one.abort();
                fixture.await_returned(loans)?;
                two.abort();
            } else {
                two.abort();
                fixture.await_returned(loans)?;
                one.abort();
            }
            assert_eq!(fixture.returned(), loans);
        }
        Ok(())
    }

    #[test]
    fn disowned_loans_are_never_returned() -> Result {
        let mut fixture = Fixture::new(200_000)?;
        let (one, two) = pair()?;
        let mut loans = 0;
        loop {
            let loan = fixture.loan()?;
            loans += 1;
            match fixture.send(&one, 0, &loan) {
                Ok(_) => {}
                Err(e) if e == EAGAIN => break,
                Err(e) => return Err(e),
            }
        }
        let returned = fixture.returned();
        assert!(returned < loans);
        assert!(fixture.book.with_one(|_| ()).is_some());
        let mut objects = 0;
        fixture.book.disown(|_object| objects += 1);
        // None is in between: nobody has read anything.
        assert_eq!(objects + returned, loans);
        assert!(fixture.book.with_one(|_| ()).is_none());
        one.abort();
        two.abort();
        assert_eq!(fixture.returned(), returned);
        Ok(())
    }

    #[test]
    fn one_loan_for_many_calls_among_copies() -> Result {
        let mut fixture = Fixture::new(5000)?;
        let (one, two) = pair()?;
        for round in 1..50 {
            let loan = fixture.loan()?;
            let mut total = 0;
            for call in 0..4 {
                total += fixture.send(&one, call * 7, &loan)?;
                total += one.send_bytes(b"copied")?;
            }
            drop(loan);
            drain(&two, total)?;
            fixture.await_returned(round)?;
        }
        Ok(())
    }

    #[test]
    fn a_failed_call_keeps_nothing() -> Result {
        let mut fixture = Fixture::new(5000)?;
        let (one, two) = pair()?;
        two.abort();
        eventually(|| one.failure())?;
        let loan = fixture.loan()?;
        assert!(fixture.send(&one, 0, &loan).is_err());
        drop(loan);
        assert_eq!(fixture.returned(), 1);
        Ok(())
    }

    #[test]
    fn pages_outlive_their_owner() -> Result {
        const LEN: usize = 4096;
        let mut fixture = Fixture::new(LEN)?;
        let hash = fixture.pages.xxh64(0, LEN, 0)?;
        let (one, two) = pair()?;
        // More than the receiver has room for, so what is lent stays where it is.
        one.set_buffers(2_000_000, 0);
        two.set_buffers(0, 50_000);
        let ahead = 1000 * 512;
        for _ in 0..1000 {
            assert_eq!(one.send_bytes(&[0; 512])?, 512);
        }
        let loan = fixture.loan()?;
        assert_eq!(fixture.send(&one, 0, &loan)?, LEN);
        drop(loan);
        let returns = fixture.returns.clone();
        drop(fixture);
        // If the pages were free, these would get them.
        let others = Pages::alloc(1 << 20)?;
        others.fill_pattern(0, 1 << 20, 7)?;
        assert_eq!(returns.load(Relaxed), 0);
        drain(&two, ahead)?;
        let sink = Arc::new(Pages::alloc(LEN)?, GFP_KERNEL)?;
        let into = PageRange::new(sink.clone(), 0, LEN)?;
        let mut rx = BvecBuf::with_capacity(2)?;
        let mut have = 0;
        while have < LEN {
            let mut to = rx.start_recv();
            assert!(to.push_range(&into, have));
            have += eventually(|| settled(two.recv(&to)))??;
        }
        assert_eq!(sink.xxh64(0, LEN, 0)?, hash);
        eventually(|| (returns.load(Relaxed) == 1).then_some(()))
    }
}
