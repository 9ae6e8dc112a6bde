// SPDX-License-Identifier: GPL-2.0

//! Pieces of pages, which C functions read and write.
//!
//! A [`Piece`] borrows the memory that it is part of, from any owner. No lock protects the contents, see
//! [`super`].

use super::super::sys;
use core::marker::PhantomData;
use kernel::bindings;

/// How memory may be accessed, like the direction of a `struct iov_iter`: [`Source`] or [`Dest`].
///
/// # Examples
///
/// ```
/// use crate::lib_linux::page::{PageRange, Pages};
/// use kernel::sync::Arc;
///
/// fn pieces<A: Access>(range: &PageRange) -> usize {
///     range.pieces::<A>(0).count()
/// }
///
/// let range = PageRange::new(Arc::new(Pages::alloc(100)?, GFP_KERNEL)?, 0, 100)?;
/// assert_eq!((pieces::<Source>(&range), pieces::<Dest>(&range)), (1, 1));
/// # Ok::<(), Error>(())
/// ```
pub(crate) trait Access: Send + Sync + 'static {}

/// The memory may be read.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::page::{PageRange, Pages};
/// use kernel::sync::Arc;
///
/// let pages = Arc::new(Pages::alloc(8)?, GFP_KERNEL)?;
/// let range = PageRange::new(pages, 2, 4)?;
/// let sum = range.pieces::<Source>(1).map(|piece| piece.len()).sum::<usize>();
/// assert_eq!(sum, 3);
/// # Ok::<(), Error>(())
/// ```
pub(crate) enum Source {}

/// The memory may be read and written.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::page::{PageRange, Pages};
/// use kernel::sync::Arc;
///
/// let from = PageRange::new(Arc::new(Pages::alloc(8)?, GFP_KERNEL)?, 0, 8)?;
/// from.pages().copy_in(0, b"12345678")?;
/// let to = PageRange::new(Arc::new(Pages::alloc(8)?, GFP_KERNEL)?, 0, 8)?;
/// copy(from.pieces::<Source>(4), to.pieces::<Dest>(0));
/// let mut bytes = [0; 8];
/// to.pages().copy_out(0, &mut bytes)?;
/// assert_eq!(&bytes, b"5678\0\0\0\0");
/// # Ok::<(), Error>(())
/// ```
pub(crate) enum Dest {}

impl Access for Source {}
impl Access for Dest {}

/// Some bytes of one page.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::page::{PageRange, Pages};
/// use kernel::sync::Arc;
///
/// let range = PageRange::new(Arc::new(Pages::alloc(100)?, GFP_KERNEL)?, 10, 50)?;
/// let piece: Option<Piece<'_, Source>> = range.pieces(0).next();
/// assert!(piece.is_some_and(|piece| piece.len() == 50));
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// `offset..offset + len` is within the page. For `'a` C functions may access these bytes as `A` says, and
/// no Rust reference to them exists.
pub(crate) struct Piece<'a, A> {
    page: *mut bindings::page,
    offset: usize,
    len: usize,
    _part_of: PhantomData<(&'a [u8], A)>,
}

impl<A> Piece<'_, A> {
    /// `len` bytes of `page` from `offset`. Any context.
    ///
    /// # Safety
    ///
    /// The bytes must be as the type invariants say.
    pub(super) unsafe fn new(page: *mut bindings::page, offset: usize, len: usize) -> Self {
        // INVARIANT: By this function's requirement.
        Self {
            page,
            offset,
            len,
            _part_of: PhantomData,
        }
    }

    /// The page.
    pub(in super::super) fn page(&self) -> *mut bindings::page {
        self.page
    }

    /// The offset in the page at which it begins, in bytes.
    pub(in super::super) fn offset(&self) -> usize {
        self.offset
    }

    /// The length in bytes.
    pub(in super::super) fn len(&self) -> usize {
        self.len
    }

    /// Copies the contents to `to`, as far as there is room. Any context.
    pub(super) fn read(&self, to: &mut [u8]) {
        let len = self.len.min(to.len());
        // SAFETY: By the type invariants the bytes can be read; `to` has as many, for which any are valid.
        unsafe {
            sys::socklnd_helper_memcpy_from_page(
                to.as_mut_ptr().cast(),
                self.page,
                self.offset,
                len,
            )
        };
    }

    /// Removes the first `nob` bytes, or all if there are less.
    fn skip(&mut self, nob: usize) {
        let nob = nob.min(self.len);
        // INVARIANT: The new range is part of the old one.
        self.offset = self.offset.wrapping_add(nob);
        self.len = self.len.wrapping_sub(nob);
    }
}

impl Piece<'_, Dest> {
    /// Copies `from` to it, as far as there is room. Any context.
    pub(super) fn write(&self, from: &[u8]) {
        let len = self.len.min(from.len());
        // SAFETY: By the type invariants the bytes can be written; `from` has as many.
        unsafe {
            sys::socklnd_helper_memcpy_to_page(self.page, self.offset, from.as_ptr().cast(), len)
        };
    }
}

/// Continues a CRC32, see [`super::crc32`], over `pieces`. Any context.
pub(super) fn crc32<'a, A: Access>(crc: u32, pieces: impl Iterator<Item = Piece<'a, A>>) -> u32 {
    pieces.fold(crc, |crc, piece| {
        // SAFETY: By the type invariants the bytes can be read.
        unsafe { sys::socklnd_helper_crc32_page(crc, piece.page, piece.offset, piece.len) }
    })
}

/// Copies `from` to `to`, until one of them ends. Both may be the same memory; what `to` has afterwards is
/// unspecified if they overlap otherwise, because pieces are copied one after the other. Any context.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::page::{PageRange, Pages};
/// use kernel::{page::PAGE_SIZE, sync::Arc};
///
/// let pages = Arc::new(Pages::alloc(2 * PAGE_SIZE)?, GFP_KERNEL)?;
/// pages.copy_in(PAGE_SIZE - 3, b"across")?;
/// let from = PageRange::new(pages.clone(), PAGE_SIZE - 3, 6)?;
/// let to = PageRange::new(pages.clone(), 1, 5)?;
/// copy(from.pieces(0), to.pieces(0));
/// let mut bytes = [0; 7];
/// pages.copy_out(0, &mut bytes)?;
/// assert_eq!(&bytes, b"\0acros\0");
/// # Ok::<(), Error>(())
/// ```
pub(crate) fn copy<'a, 'b>(
    mut from: impl Iterator<Item = Piece<'a, Source>>,
    mut to: impl Iterator<Item = Piece<'b, Dest>>,
) {
    let (mut source, mut dest) = (from.next(), to.next());
    while let (Some(a), Some(b)) = (&mut source, &mut dest) {
        let len = a.len.min(b.len);
        // SAFETY: By the type invariants the bytes can be read and written.
        unsafe { sys::socklnd_helper_memmove_page(b.page, b.offset, a.page, a.offset, len) };
        a.skip(len);
        b.skip(len);
        if a.len == 0 {
            source = from.next();
        }
        if b.len == 0 {
            dest = to.next();
        }
    }
}
