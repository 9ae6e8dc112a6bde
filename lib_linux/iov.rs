// SPDX-License-Identifier: GPL-2.0

//! Lists of pieces of pages to send from or receive into.
//!
//! A [`BvecBuf`] is memory for such a list, which its owner allocates once, uses for one list after
//! the other, and frees. A list borrows the buffer and everything that it refers to until the call
//! that uses it has returned: so the compiler checks that Rust code frees or changes nothing of it
//! during the call.
//!
//! C header: [`include/linux/bvec.h`](srctree/include/linux/bvec.h)

use super::page::{
    Access,
    Dest,
    Foreign,
    FrozenFrag,
    PageRange,
    Piece,
    RecvBuf,
    Source, //
};
use core::marker::PhantomData;
use kernel::{
    bindings,
    prelude::*, //
};

/// Memory for a list of a limited number of pieces.
///
/// # Invariants
///
/// The entries are only used while a [`Bvecs`] or [`RecvBvecs`] borrows the buffer.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::page::{PageRange, Pages};
/// use kernel::sync::Arc;
///
/// let pages = Arc::new(Pages::alloc(1000)?, GFP_KERNEL)?;
/// let range = PageRange::new(pages, 0, 1000)?;
/// let mut buf = BvecBuf::with_capacity(4)?;
/// let mut bvecs = buf.start();
/// assert!(bvecs.push_range(&range, 100));
/// assert_eq!(bvecs.len_bytes(), 900);
/// assert!(buf.start_recv().push_range(&range, 0));
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct BvecBuf(KVec<bindings::bio_vec>);

// SAFETY: By the type invariants nothing uses the entries unless a list borrows the buffer, and a
// buffer that is borrowed can't be sent.
unsafe impl Send for BvecBuf {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl Sync for BvecBuf {}

impl BvecBuf {
    /// Allocates memory for `capacity` pieces. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn with_capacity(capacity: usize) -> Result<Self> {
        Ok(Self(KVec::with_capacity(capacity, GFP_KERNEL)?))
    }

    /// Begins a list to send from; the buffer is emptied. Any context.
    pub(crate) fn start(&mut self) -> Bvecs<'_> {
        // INVARIANT: There are no bytes.
        Bvecs {
            list: List::new(self),
            can_zerocopy: true,
        }
    }

    /// Begins a list to receive into; the buffer is emptied. Any context.
    pub(crate) fn start_recv(&mut self) -> RecvBvecs<'_> {
        RecvBvecs(List::new(self))
    }
}

/// What both kinds of list have in common.
///
/// # Invariants
///
/// Every piece in the buffer consists of bytes that are valid for `'a`; `len` is their number.
struct List<'a> {
    buf: &'a mut BvecBuf,
    len: usize,
    _refers_to: PhantomData<&'a [u8]>,
}

impl<'a> List<'a> {
    fn new(buf: &'a mut BvecBuf) -> Self {
        buf.0.clear();
        // INVARIANT: There are no pieces.
        Self {
            buf,
            len: 0,
            _refers_to: PhantomData,
        }
    }

    /// Adds a piece; returns false if there is no room for it.
    ///
    /// # Safety
    ///
    /// The `len` bytes from `offset` in `page` on, which may go on in the pages behind it, must be
    /// valid for `'a`.
    unsafe fn push(&mut self, page: *mut bindings::page, offset: usize, len: usize) -> bool {
        let (Ok(bv_offset), Ok(bv_len)) = (offset.try_into(), len.try_into()) else {
            return false;
        };
        let Some(total) = self.len.checked_add(len) else {
            return false;
        };
        let piece = bindings::bio_vec {
            bv_page: page,
            bv_len,
            bv_offset,
        };
        // INVARIANT: The piece is valid by the safety requirements, and counted.
        if self.buf.0.push_within_capacity(piece).is_err() {
            return false;
        }
        self.len = total;
        true
    }

    /// Adds pieces; returns false if there was no room for all.
    fn push_pieces<A: Access>(&mut self, mut pieces: impl Iterator<Item = Piece<'a, A>>) -> bool {
        pieces.all(|piece| {
            // SAFETY: A piece is valid for its lifetime.
            unsafe { self.push(piece.page(), piece.offset(), piece.len()) }
        })
    }

    fn as_ptr(&self) -> *const bindings::bio_vec {
        self.buf.0.as_ptr()
    }

    fn count(&self) -> usize {
        self.buf.0.len()
    }
}

/// A list to send from.
///
/// # Invariants
///
/// For `'a` all bytes of the list may be read by C. If `can_zerocopy`, they are in pages whose references
/// count, and Rust code never has a `&mut` to them: C code that takes a reference to such a page may
/// read it for longer than `'a`.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::page::{PageFrag, PageRange, Pages};
/// use kernel::sync::Arc;
///
/// let header = PageFrag::alloc(72)?.filled(&[0; 72])?;
/// let payload = PageRange::new(Arc::new(Pages::alloc(1000)?, GFP_KERNEL)?, 0, 1000)?;
/// let mut buf = BvecBuf::with_capacity(2)?;
/// // The first 24 bytes of the message are sent already.
/// let mut bvecs: Bvecs<'_> = buf.start();
/// assert!(bvecs.push_frag(&header, 24));
/// assert!(bvecs.push_range(&payload, 0));
/// assert_eq!(bvecs.len_bytes(), 1048);
/// assert!(bvecs.can_zerocopy());
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct Bvecs<'a> {
    list: List<'a>,
    can_zerocopy: bool,
}

impl<'a> Bvecs<'a> {
    /// Adds `range` without its first `skip` bytes. Any context.
    ///
    /// Returns whether there was room for all of it; what there was room for is in the list.
    pub(crate) fn push_range(&mut self, range: &'a PageRange, skip: usize) -> bool {
        // INVARIANT: Pages may always be accessed by C, and by nobody else.
        self.list.push_pieces(range.pieces::<Source>(skip))
    }

    /// Adds `memory` without its first `skip` bytes. Any context.
    ///
    /// Returns whether there was room for all of it; what there was room for is in the list.
    ///
    /// # Examples
    ///
    /// ```
    /// # use crate::lib_linux::page::{Kind, Scattered};
    /// # let memory = Scattered::new(Kind::Slab, 1000, 1000)?.range(0, 1000)?;
    /// let mut buf = BvecBuf::with_capacity(4)?;
    /// let mut bvecs = buf.start();
    /// assert!(bvecs.push_foreign(&memory, 100));
    /// assert_eq!(bvecs.len_bytes(), 900);
    /// // It is in a slab.
    /// assert!(!bvecs.can_zerocopy());
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn push_foreign(&mut self, memory: &'a Foreign<Source>, skip: usize) -> bool {
        // INVARIANT: The memory may be read; the list can be sent without a copy only if all of it can.
        self.can_zerocopy &= memory.can_zerocopy();
        self.list.push_pieces(memory.pieces(skip))
    }

    /// Whether all of it may be referred to by TCP. Any context.
    pub(crate) fn can_zerocopy(&self) -> bool {
        self.can_zerocopy
    }

    /// Adds `frag` without its first `skip` bytes. Any context.
    ///
    /// Returns whether there was room.
    pub(crate) fn push_frag(&mut self, frag: &'a FrozenFrag, skip: usize) -> bool {
        match frag.len().checked_sub(skip) {
            None | Some(0) => true,
            Some(len) => {
                let (page, offset) = frag.locate(skip);
                // SAFETY: The bytes are part of `frag`, which is borrowed for `'a`.
                // INVARIANT: The bytes may be read, and don't change.
                unsafe { self.list.push(page, offset, len) }
            }
        }
    }

    /// Bytes in the list.
    pub(crate) fn len_bytes(&self) -> usize {
        self.list.len
    }

    /// The list as C wants it; its pieces may be read.
    pub(super) fn as_ptr(&self) -> *const bindings::bio_vec {
        self.list.as_ptr()
    }

    /// How many pieces [`Self::as_ptr`] points to.
    pub(super) fn count(&self) -> usize {
        self.list.count()
    }
}

/// A list to receive into.
///
/// # Invariants
///
/// For `'a` all bytes of the list may be written by C.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::{page::{PageRange, Pages, RecvBuf}, socket::tests::{eventually, pair}};
/// use kernel::sync::Arc;
///
/// let mut header = RecvBuf::alloc(4)?;
/// let pages = Arc::new(Pages::alloc(100)?, GFP_KERNEL)?;
/// let payload = PageRange::new(pages.clone(), 0, 100)?;
/// let mut buf = BvecBuf::with_capacity(2)?;
/// let mut bvecs: RecvBvecs<'_> = buf.start_recv();
/// assert!(bvecs.push_buf(&mut header, 0, 4));
/// assert!(bvecs.push_range(&payload, 0));
///
/// let (one, two) = pair()?;
/// one.send_bytes(b"headpayload")?;
/// eventually(|| (two.available() == 11).then_some(()))?;
/// assert_eq!(two.recv(&bvecs)?, 11);
/// assert_eq!(header.as_slice(), b"head");
/// let mut start = [0; 7];
/// pages.copy_out(0, &mut start)?;
/// assert_eq!(&start, b"payload");
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct RecvBvecs<'a>(List<'a>);

impl<'a> RecvBvecs<'a> {
    /// Adds `range` without its first `skip` bytes. Any context.
    ///
    /// Returns whether there was room for all of it; what there was room for is in the list.
    pub(crate) fn push_range(&mut self, range: &'a PageRange, skip: usize) -> bool {
        // INVARIANT: Pages may always be accessed by C.
        self.0.push_pieces(range.pieces::<Dest>(skip))
    }

    /// Adds `memory` without its first `skip` bytes. Any context.
    ///
    /// Returns whether there was room for all of it; what there was room for is in the list.
    ///
    /// # Examples
    ///
    /// ```
    /// # use crate::lib_linux::page::{Kind, Scattered};
    /// # let memory = Scattered::new(Kind::Slab, 1000, 1000)?.range(0, 1000)?;
    /// let mut buf = BvecBuf::with_capacity(4)?;
    /// let mut bvecs = buf.start_recv();
    /// assert!(bvecs.push_foreign(&memory, 100));
    /// assert_eq!(bvecs.len_bytes(), 900);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn push_foreign(&mut self, memory: &'a Foreign<Dest>, skip: usize) -> bool {
        // INVARIANT: The memory may be written.
        self.0.push_pieces(memory.pieces(skip))
    }

    /// Adds `len` bytes of `buf` from `offset`, or as many as there are. Any context.
    ///
    /// Returns whether there was room.
    pub(crate) fn push_buf(&mut self, buf: &'a mut RecvBuf, offset: usize, len: usize) -> bool {
        match buf.len().saturating_sub(offset).min(len) {
            0 => true,
            len => {
                let (page, offset) = buf.locate(offset);
                // SAFETY: The bytes are part of `buf`, which is borrowed for `'a`.
                // INVARIANT: With an exclusive borrow the bytes may be written.
                unsafe { self.0.push(page, offset, len) }
            }
        }
    }

    /// Bytes in the list.
    pub(super) fn len_bytes(&self) -> usize {
        self.0.len
    }

    /// The list as C wants it; its pieces may be written.
    pub(super) fn as_ptr(&self) -> *const bindings::bio_vec {
        self.0.as_ptr()
    }

    /// How many pieces [`Self::as_ptr`] points to.
    pub(super) fn count(&self) -> usize {
        self.0.count()
    }
}

#[kunit_tests(socklnd_lib_linux_iov)]
mod tests {
    use super::*;
    use crate::lib_linux::page::{
        PageFrag,
        Pages, //
    };
    use kernel::{
        page::PAGE_SIZE,
        sync::Arc, //
    };

    fn range(offset: usize, len: usize) -> Result<PageRange> {
        let pages = Arc::new(Pages::alloc(4 * PAGE_SIZE)?, GFP_KERNEL)?;
        PageRange::new(pages, offset, len)
    }

    #[test]
    fn ranges_are_cut_at_pages() -> Result {
        let range = range(PAGE_SIZE - 10, PAGE_SIZE + 30)?;
        let mut buf = BvecBuf::with_capacity(8)?;
        let mut bvecs = buf.start();
        assert!(bvecs.push_range(&range, 0));
        assert_eq!((bvecs.count(), bvecs.len_bytes()), (3, PAGE_SIZE + 30));
        let mut bvecs = buf.start();
        assert!(bvecs.push_range(&range, 10));
        assert_eq!((bvecs.count(), bvecs.len_bytes()), (2, PAGE_SIZE + 20));
        let mut bvecs = buf.start();
        assert!(bvecs.push_range(&range, PAGE_SIZE + 30));
        assert!(bvecs.push_range(&range, usize::MAX));
        assert_eq!((bvecs.count(), bvecs.len_bytes()), (0, 0));
        Ok(())
    }

    #[test]
    fn what_fits_is_in() -> Result {
        let range = range(0, 3 * PAGE_SIZE)?;
        let frag = PageFrag::alloc(72)?.filled(&[0; 72])?;
        let mut buf = BvecBuf::with_capacity(3)?;
        // The allocator may have given more.
        let capacity = buf.0.capacity();
        let mut bvecs = buf.start();
        for _ in 0..capacity - 2 {
            assert!(bvecs.push_frag(&frag, 0));
        }
        assert!(!bvecs.push_range(&range, 0));
        assert_eq!(bvecs.len_bytes(), (capacity - 2) * 72 + 2 * PAGE_SIZE);
        assert!(!bvecs.push_frag(&frag, 0));
        assert!(bvecs.push_frag(&frag, 72));
        Ok(())
    }

    #[test]
    fn buffers_to_receive_into() -> Result {
        let mut into = RecvBuf::alloc(72)?;
        let mut buf = BvecBuf::with_capacity(2)?;
        for (offset, len, bytes) in [(0, 72, 72), (10, 72, 62), (72, 1, 0), (100, 5, 0)] {
            let mut bvecs = buf.start_recv();
            assert!(bvecs.push_buf(&mut into, offset, len));
            assert_eq!(bvecs.len_bytes(), bytes);
        }
        Ok(())
    }
}
