// SPDX-License-Identifier: GPL-2.0

//! Pieces of pages, which C functions read and write.
//!
//! A [`Piece`] borrows the memory that it is part of, whoever owns that. Nothing protects the contents, see
//! [`super`].

use super::super::sys;
use core::marker::PhantomData;
use kernel::bindings;

/// What may be done with memory: as the directions of a `struct iov_iter`.
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

/// It may be read, see [`copy`].
///
/// # Examples
///
/// ```
/// fn is_access<A: Access>() {}
///
/// is_access::<Source>();
/// ```
pub(crate) enum Source {}

/// It may be read and written, see [`copy`].
///
/// # Examples
///
/// ```
/// fn is_access<A: Access>() {}
///
/// is_access::<Dest>();
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
/// `offset..offset + len` is within the page. For `'a` C functions may do with these bytes what `A` says,
/// and no Rust reference to them exists.
pub(crate) struct Piece<'a, A> {
    page: *mut bindings::page,
    offset: usize,
    len: usize,
    _part_of: PhantomData<(&'a [u8], A)>,
}

impl<A> Piece<'_, A> {
    /// `len` bytes of `page` from `offset` on.
    ///
    /// # Safety
    ///
    /// As the type's invariants say.
    pub(super) unsafe fn new(page: *mut bindings::page, offset: usize, len: usize) -> Self {
        // INVARIANT: These are our requirements.
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

    /// Where in the page it begins.
    pub(in super::super) fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes.
    pub(in super::super) fn len(&self) -> usize {
        self.len
    }

    /// Copies its contents, or as many bytes as `to` has room for. Any context.
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

    /// Leaves out the first `nob` bytes, or all if there are not as many.
    fn skip(&mut self, nob: usize) {
        let nob = nob.min(self.len);
        // INVARIANT: What is left is part of what there was.
        self.offset = self.offset.wrapping_add(nob);
        self.len = self.len.wrapping_sub(nob);
    }
}

impl Piece<'_, Dest> {
    /// Overwrites it, or as much as there is of `from`. Any context.
    pub(super) fn write(&self, from: &[u8]) {
        let len = self.len.min(from.len());
        // SAFETY: By the type invariants the bytes can be written; `from` has as many.
        unsafe {
            sys::socklnd_helper_memcpy_to_page(self.page, self.offset, from.as_ptr().cast(), len)
        };
    }
}

/// Goes on with a CRC32, see [`super::crc32`], over `pieces`. Any context.
pub(super) fn crc32<'a, A: Access>(crc: u32, pieces: impl Iterator<Item = Piece<'a, A>>) -> u32 {
    pieces.fold(crc, |crc, piece| {
        // SAFETY: By the type invariants the bytes can be read.
        unsafe { sys::socklnd_helper_crc32_page(crc, piece.page, piece.offset, piece.len) }
    })
}

/// Copies `from` to `to`, as far as both go; they may be the same memory. Any context.
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
