// SPDX-License-Identifier: GPL-2.0

//! An intrusive queue of boxes.
//!
//! A [`Fifo`] owns the boxes that are in it, and frees them when it is dropped. It has no shared
//! state: what protects the [`Fifo`] itself, usually a lock around it, protects the boxes.
//!
//! # Soundness
//!
//! The boxes are linked through a field of their contents, which safe code with a `&mut` to the
//! contents could overwrite, by `mem::swap` for instance. So the first box, the only one that `&mut`
//! is given to, is kept in a field of its own, and its link is not used. The others can only be
//! reached by `&`, through which a [`Link`] can't be changed.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::prelude::*;

/// The field by which a `T` is linked into a [`Fifo<T>`].
///
/// # Invariants
///
/// While the object that contains it is in a [`Fifo`], and is not the first one there, `next` is the
/// next box of the queue, or `None` for the last one. At other times `next` is not used.
///
/// # Examples
///
/// ```
/// struct Request {
///     number: u32,
///     link: Link<Request>,
/// }
/// impl_linked!(Request, link);
///
/// let request = Request { number: 7, link: Link::new() };
/// let mut fifo = Fifo::new();
/// fifo.push_back(KBox::new(request, GFP_KERNEL)?);
/// assert_eq!(fifo.pop_front().map(|request| request.number), Some(7));
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct Link<T> {
    next: Option<NonNull<T>>,
}

// SAFETY: By the type invariants the pointer is only used by a queue, which owns what it points to.
unsafe impl<T: Send> Send for Link<T> {}

// SAFETY: There is nothing to be done with a `&Link<T>`.
unsafe impl<T: Sync> Sync for Link<T> {}

impl<T> Link<T> {
    /// A link that is in no queue.
    pub(crate) const fn new() -> Self {
        // INVARIANT: The object that will contain it is in no queue yet.
        Self { next: None }
    }
}

/// Objects that can be in a [`Fifo`]. Implemented by [`impl_linked!`].
///
/// # Examples
///
/// ```
/// /// Drops what is queued beyond a limit, and returns how many boxes that were.
/// fn limit<T: Linked>(fifo: &mut Fifo<T>, limit: usize) -> usize {
///     let excess = fifo.len().saturating_sub(limit);
///     (0..excess).filter_map(|_| fifo.pop_front()).count()
/// }
///
/// struct Item(Link<Item>);
/// impl_linked!(Item, 0);
///
/// let mut fifo = Fifo::new();
/// for _ in 0..5 {
///     fifo.push_back(KBox::new(Item(Link::new()), GFP_KERNEL)?);
/// }
/// assert_eq!(limit(&mut fifo, 3), 2);
/// # Ok::<(), Error>(())
/// ```
///
/// # Safety
///
/// [`Linked::raw_link`] must return the address of a field of `*this`, always the same one, which
/// nothing but a [`Fifo`] reads or writes through a `&Self`.
pub(crate) unsafe trait Linked: Sized {
    /// The address of the object's link.
    ///
    /// # Safety
    ///
    /// `this` must point to an object.
    unsafe fn raw_link(this: *mut Self) -> *mut Link<Self>;
}

/// Implements [`Linked`] for a type, so that its boxes can be in a [`Fifo`]: `impl_linked!(Type, field)`,
/// where `field` is of type [`Link<Type>`](Link).
///
/// # Examples
///
/// ```
/// struct Request {
///     number: u32,
///     link: Link<Request>,
/// }
/// impl_linked!(Request, link);
///
/// let mut fifo = Fifo::new();
/// for number in 1..=2 {
///     fifo.push_back(KBox::new(Request { number, link: Link::new() }, GFP_KERNEL)?);
/// }
/// assert!(fifo.iter().map(|request| request.number).eq(1..=2));
/// # Ok::<(), Error>(())
/// ```
macro_rules! impl_linked {
    ($type:ty, $field:tt) => {
        #[allow(unsafe_code)]
        // SAFETY: The link is a field of the object, whose type must be `Link<Self>` because the
        // expression below is not coerced; a `Link` can't be changed through a shared reference.
        unsafe impl $crate::lib_linux::queue::Linked for $type {
            unsafe fn raw_link(this: *mut Self) -> *mut $crate::lib_linux::queue::Link<Self> {
                // SAFETY: By the function's requirement the field is in bounds of an object.
                unsafe { &raw mut (*this).$field }
            }
        }
    };
}
pub(crate) use impl_linked;

/// A first-in-first-out queue of [`KBox<T>`].
///
/// # Invariants
///
/// - `rest` and `tail` are both `None`, or the first and the last box of a list that the boxes'
///   links form. The boxes come from [`KBox::into_raw`] and are owned by the queue.
/// - If `head` is `None`, so is `rest`.
/// - `len` is the number of boxes.
///
/// # Examples
///
/// ```
/// struct Item {
///     number: u32,
///     link: Link<Item>,
/// }
/// impl_linked!(Item, link);
///
/// let mut fifo = Fifo::new();
/// for number in 1..=3 {
///     let link = Link::new();
///     fifo.push_back(KBox::new(Item { number, link }, GFP_KERNEL)?);
/// }
/// assert_eq!(fifo.len(), 3);
/// assert_eq!(fifo.front().map(|item| item.number), Some(1));
/// let first = fifo.pop_front().ok_or(ENOENT)?;
/// fifo.front_mut().ok_or(ENOENT)?.number = 7;
/// fifo.push_front(first);
///
/// let mut all = Fifo::new();
/// all.append(&mut fifo);
/// assert!(fifo.is_empty());
/// assert!(all.iter().map(|item| item.number).eq([1, 7, 3]));
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct Fifo<T: Linked> {
    head: Option<KBox<T>>,
    rest: Option<NonNull<T>>,
    tail: Option<NonNull<T>>,
    len: usize,
    _owns: PhantomData<KBox<T>>,
}

// SAFETY: A queue owns its boxes, and is sent with all of them.
unsafe impl<T: Linked + Send> Send for Fifo<T> {}

// SAFETY: A `&Fifo<T>` gives access to `&T` only.
unsafe impl<T: Linked + Sync> Sync for Fifo<T> {}

impl<T: Linked> Fifo<T> {
    /// An empty queue.
    pub(crate) const fn new() -> Self {
        // INVARIANT: There are no boxes.
        Self {
            head: None,
            rest: None,
            tail: None,
            len: 0,
            _owns: PhantomData,
        }
    }

    /// Reads a box's link.
    ///
    /// # Safety
    ///
    /// `item` must be in the list of a queue to which the caller has at least shared access.
    unsafe fn next(item: NonNull<T>) -> Option<NonNull<T>> {
        // SAFETY: Boxes in a queue are objects.
        let link = unsafe { T::raw_link(item.as_ptr()) };
        // SAFETY: `link` is a field of the object, and nobody changes it meanwhile.
        unsafe { (*link).next }
    }

    /// Writes a box's link.
    ///
    /// # Safety
    ///
    /// `item` must be an object that the caller owns, as a box or in a queue.
    unsafe fn set_next(item: NonNull<T>, next: Option<NonNull<T>>) {
        // SAFETY: As this function's own requirement.
        let link = unsafe { T::raw_link(item.as_ptr()) };
        // SAFETY: `link` is a field of the object, to which nobody else has access.
        unsafe { (*link).next = next };
    }

    /// Adds a box at the end. Any context.
    pub(crate) fn push_back(&mut self, item: KBox<T>) {
        // INVARIANT: One more box: the head if there was none, else the end of the list.
        self.len = self.len.wrapping_add(1);
        if self.head.is_none() {
            self.head = Some(item);
            return;
        }
        let item = NonNull::from(KBox::leak(item));
        // SAFETY: We have just taken ownership of the box.
        unsafe { Self::set_next(item, None) };
        match self.tail {
            // SAFETY: By the type invariants the tail is ours.
            Some(tail) => unsafe { Self::set_next(tail, Some(item)) },
            None => self.rest = Some(item),
        }
        self.tail = Some(item);
    }

    /// Adds a box at the beginning. Any context.
    pub(crate) fn push_front(&mut self, item: KBox<T>) {
        // INVARIANT: One more box: the new head; the old one begins the list.
        self.len = self.len.wrapping_add(1);
        let Some(second) = self.head.replace(item) else {
            return;
        };
        let second = NonNull::from(KBox::leak(second));
        // SAFETY: We have just taken ownership of the box.
        unsafe { Self::set_next(second, self.rest) };
        self.rest = Some(second);
        if self.tail.is_none() {
            self.tail = Some(second);
        }
    }

    /// Removes the first box. Any context.
    pub(crate) fn pop_front(&mut self) -> Option<KBox<T>> {
        let item = self.head.take()?;
        // INVARIANT: One box less; the first of the list becomes the head.
        self.len = self.len.wrapping_sub(1);
        if let Some(second) = self.rest {
            // SAFETY: By the type invariants the box is in our list.
            self.rest = unsafe { Self::next(second) };
            if self.rest.is_none() {
                self.tail = None;
            }
            // SAFETY: By the type invariants the box comes from `into_raw`, and it was just taken
            // out of the list.
            self.head = Some(unsafe { KBox::from_raw(second.as_ptr()) });
        }
        Some(item)
    }

    /// The first box's contents.
    pub(crate) fn front(&self) -> Option<&T> {
        self.head.as_deref()
    }

    /// The first box's contents, to be changed.
    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.head.as_deref_mut()
    }

    /// Moves all boxes of `other` to the end of this queue, in constant time. Any context.
    pub(crate) fn append(&mut self, other: &mut Self) {
        let Some(first) = other.head.take() else {
            return;
        };
        let (rest, tail, len) = (other.rest.take(), other.tail.take(), other.len);
        // INVARIANT: Nothing is left in `other`.
        other.len = 0;
        self.push_back(first);
        // INVARIANT: The list of `other`, if there is one, is put behind ours, and its boxes are
        // counted; the first was counted above.
        if rest.is_some() {
            match self.tail {
                // SAFETY: By the type invariants the tail is ours.
                Some(last) => unsafe { Self::set_next(last, rest) },
                None => self.rest = rest,
            }
            self.tail = tail;
            self.len = self.len.wrapping_add(len.wrapping_sub(1));
        }
    }

    /// Whether the queue is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// The number of boxes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The contents of the boxes, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        // INVARIANT: The list of a queue that is borrowed for the iterator's lifetime.
        Iter {
            head: self.front(),
            rest: self.rest,
        }
    }
}

impl<T: Linked> Drop for Fifo<T> {
    fn drop(&mut self) {
        // A loop, so that the depth of the stack does not depend on the length of the queue.
        while self.pop_front().is_some() {}
    }
}

/// Iterates over the contents of a [`Fifo`].
///
/// # Invariants
///
/// `rest` is in the list of a queue that is borrowed for `'a`.
struct Iter<'a, T: Linked> {
    head: Option<&'a T>,
    rest: Option<NonNull<T>>,
}

impl<'a, T: Linked> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        let item = self.rest?;
        // SAFETY: By the type invariants the box is in the list of a borrowed queue.
        // INVARIANT: So is the next.
        self.rest = unsafe { Fifo::next(item) };
        // SAFETY: As above; there is only shared access to the contents for `'a`.
        Some(unsafe { item.as_ref() })
    }
}

#[kunit_tests(socklnd_lib_linux_queue)]
mod tests {
    use super::*;
    use kernel::sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    };

    struct Item {
        link: Link<Item>,
        value: u32,
        freed: Arc<Atomic<u32>>,
    }

    impl_linked!(Item, link);

    impl Drop for Item {
        fn drop(&mut self) {
            self.freed.add(1, Relaxed);
        }
    }

    fn fifo(values: core::ops::Range<u32>, freed: &Arc<Atomic<u32>>) -> Result<Fifo<Item>> {
        let mut fifo = Fifo::new();
        for value in values {
            fifo.push_back(item(value, freed)?);
        }
        Ok(fifo)
    }

    fn item(value: u32, freed: &Arc<Atomic<u32>>) -> Result<KBox<Item>> {
        let item = Item {
            link: Link::new(),
            value,
            freed: freed.clone(),
        };
        Ok(KBox::new(item, GFP_KERNEL)?)
    }

    /// Whether `fifo` holds exactly `values`, by all ways of looking.
    fn holds(fifo: &mut Fifo<Item>, values: core::ops::Range<u32>) -> bool {
        fifo.len() == values.len()
            && fifo.is_empty() == values.is_empty()
            && fifo.iter().map(|item| item.value).eq(values.clone())
            && fifo.front().map(|item| item.value) == values.clone().next()
            && fifo.front_mut().map(|item| item.value) == values.clone().next()
    }

    #[test]
    fn first_in_first_out() -> Result {
        let freed = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        for len in 0..5 {
            let mut fifo = fifo(0..len, &freed)?;
            for value in 0..len {
                assert!(holds(&mut fifo, value..len));
                assert!(fifo.pop_front().map(|item| item.value) == Some(value));
            }
            assert!(fifo.pop_front().is_none());
            assert!(holds(&mut fifo, 0..0));
            // An emptied queue is as good as a new one.
            fifo.push_back(item(0, &freed)?);
            fifo.push_back(item(1, &freed)?);
            assert!(holds(&mut fifo, 0..2));
        }
        Ok(())
    }

    #[test]
    fn push_front_goes_first() -> Result {
        let freed = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        for len in 0..4 {
            let mut fifo = fifo(1..len + 1, &freed)?;
            fifo.push_front(item(0, &freed)?);
            assert!(holds(&mut fifo, 0..len + 1));
            fifo.push_back(item(len + 1, &freed)?);
            assert!(holds(&mut fifo, 0..len + 2));
        }
        Ok(())
    }

    #[test]
    fn append_all_lengths() -> Result {
        let freed = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        for first in 0..4 {
            for second in 0..4 {
                let mut one = fifo(0..first, &freed)?;
                let mut two = fifo(first..first + second, &freed)?;
                one.append(&mut two);
                assert!(holds(&mut one, 0..first + second));
                assert!(holds(&mut two, 0..0));
                one.push_back(item(first + second, &freed)?);
                two.push_back(item(0, &freed)?);
                assert!(holds(&mut one, 0..first + second + 1));
                assert!(holds(&mut two, 0..1));
            }
        }
        Ok(())
    }

    #[test]
    fn changing_the_front_breaks_nothing() -> Result {
        let freed = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let mut one = fifo(0..3, &freed)?;
        let mut two = fifo(3..6, &freed)?;
        if let (Some(one), Some(two)) = (one.front_mut(), two.front_mut()) {
            core::mem::swap(one, two);
        }
        assert!(one.iter().map(|item| item.value).eq([3, 1, 2]));
        assert!(two.iter().map(|item| item.value).eq([0, 4, 5]));
        Ok(())
    }

    #[test]
    fn drop_frees_every_box_once() -> Result {
        let freed = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        drop(fifo(0..1000, &freed)?);
        assert_eq!(freed.load(Relaxed), 1000);
        Ok(())
    }
}
