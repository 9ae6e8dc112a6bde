// SPDX-License-Identifier: GPL-2.0

//! Memory that TCP can read and write by page.
//!
//! [`Pages`] are payload: whole pages, shared by [`Arc`] between all that read, write, send or receive
//! them, and freed with the last reference. No lock protects their contents. If two threads write the
//! same bytes at the same time, the contents are a mixture: that is a bug of the callers, but no
//! undefined behaviour, because no Rust reference to the contents ever exists: all access is by C
//! functions that copy.
//!
//! A [`PageFrag`] is a smaller piece of memory that TCP can read.
//!
//! Both come from the page allocator, so TCP can send them without a copy: a page is not reused
//! before the last reference to it is dropped, by whichever owner. Memory of other owners, which may
//! be of any kind, is a [`Foreign`].
//!
//! A [`RecvBuf`] is a small piece of `kmalloc` memory with one owner, which TCP only writes.

mod foreign;
mod frag;
mod piece;

#[cfg(CONFIG_KUNIT = "y")]
pub(crate) use self::foreign::tests::{
    Kind,
    Scattered, //
};
pub(super) use self::piece::Piece;
pub(crate) use self::{
    foreign::Foreign,
    frag::{
        FragCaches,
        FrozenFrag,
        PageFrag, //
    },
    piece::{
        copy,
        Access,
        Dest,
        Source, //
    }, //
};
use super::sys;
use kernel::{
    bindings,
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc, //
};

/// Continues the CRC32 `crc`, as the kernel's `crc32_le` does, over `bytes`. Any context.
///
/// # Examples
///
/// ```
/// assert_eq!(!crc32(!0, b"123456789"), 0xcbf4_3926);
/// ```
pub(crate) fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    // SAFETY: `bytes` is valid for reads of its length during the call.
    unsafe { sys::crc32_le(crc, bytes.as_ptr().cast(), bytes.len()) }
}

/// A buffer made of pages.
///
/// # Invariants
///
/// `pages` has as many pages as `len` bytes need.
///
/// # Examples
///
/// ```
/// use kernel::page::PAGE_SIZE;
///
/// let pages = Pages::alloc(2 * PAGE_SIZE)?;
/// pages.copy_in(PAGE_SIZE - 2, b"over the edge")?;
/// let mut back = [0; 13];
/// pages.copy_out(PAGE_SIZE - 2, &mut back)?;
/// assert_eq!(&back, b"over the edge");
/// assert_eq!(pages.copy_in(2 * PAGE_SIZE, b"!"), Err(EINVAL));
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct Pages {
    pages: KVec<Page>,
    len: usize,
}

impl Pages {
    /// Allocates `len` zero bytes, which are charged to the memory cgroup of the current process. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn alloc(len: usize) -> Result<Self> {
        let count = len.div_ceil(PAGE_SIZE);
        let mut pages = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            pages.push(
                Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?,
                GFP_KERNEL,
            )?;
        }
        // INVARIANT: `count` pages were allocated.
        Ok(Self { pages, len })
    }

    /// Checks that the range is within the buffer.
    fn check(&self, offset: usize, len: usize) -> Result {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(EINVAL),
        }
    }

    /// These bytes, piece by piece. Those that don't exist are left out.
    fn pieces<A: Access>(
        &self,
        offset: usize,
        len: usize,
    ) -> impl Iterator<Item = Piece<'_, A>> + '_ {
        let mut inside = offset % PAGE_SIZE;
        let mut left = len;
        let pages = self.pages.iter().skip(offset / PAGE_SIZE);
        pages.map_while(move |page| {
            let len = left.min(PAGE_SIZE.saturating_sub(inside));
            // SAFETY: The bytes are within a page that `self` owns. Nobody has a Rust reference to what
            // is in it.
            let piece = (len > 0).then(|| unsafe { Piece::new(page.as_ptr(), inside, len) });
            left = left.saturating_sub(len);
            inside = 0;
            piece
        })
    }

    /// Copies `from` to `offset`. Any context.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is not within the buffer; nothing was copied.
    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) -> Result {
        self.check(offset, from.len())?;
        let mut from = from;
        for piece in self.pieces(offset, from.len()) {
            let Some((bytes, rest)) = from.split_at_checked(piece.len()) else {
                break;
            };
            piece.write(bytes);
            from = rest;
        }
        Ok(())
    }

    /// Fills `to` from `offset`. Any context.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is not within the buffer; nothing was copied.
    pub(crate) fn copy_out(&self, offset: usize, to: &mut [u8]) -> Result {
        self.check(offset, to.len())?;
        let mut to = to;
        for piece in self.pieces::<Source>(offset, to.len()) {
            let Some((bytes, rest)) = core::mem::take(&mut to).split_at_mut_checked(piece.len())
            else {
                break;
            };
            piece.read(bytes);
            to = rest;
        }
        Ok(())
    }

    /// The XXH64 hash of `len` bytes from `offset`. Any context.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is not within the buffer.
    ///
    /// # Examples
    ///
    /// ```
    /// let pages = Pages::alloc(100)?;
    /// pages.copy_in(50, b"abc")?;
    /// assert_eq!(pages.xxh64(50, 3, 0)?, 0x44bc_2cf5_ad77_0999);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn xxh64(&self, offset: usize, len: usize, seed: u64) -> Result<u64> {
        self.check(offset, len)?;
        let mut state = sys::xxh64_state::default();
        // SAFETY: `state` may be written to.
        unsafe { sys::xxh64_reset(&mut state, seed) };
        for piece in self.pieces::<Source>(offset, len) {
            // SAFETY: `state` was initialised. The piece can be read.
            unsafe {
                sys::socklnd_helper_xxh64_update_page(
                    &mut state,
                    piece.page(),
                    piece.offset(),
                    piece.len(),
                )
            };
        }
        // SAFETY: `state` was initialised.
        Ok(unsafe { sys::xxh64_digest(&state) })
    }

    /// Fills `len` bytes from `offset` with a pattern that only depends on `seed` and on the distance
    /// from `offset`. Any context.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is not within the buffer; nothing was written.
    ///
    /// # Examples
    ///
    /// ```
    /// let pages = Pages::alloc(1000)?;
    /// pages.fill_pattern(0, 500, 1)?;
    /// pages.fill_pattern(500, 500, 1)?;
    /// assert_eq!(pages.xxh64(0, 500, 0)?, pages.xxh64(500, 500, 0)?);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn fill_pattern(&self, offset: usize, len: usize, seed: u64) -> Result {
        self.check(offset, len)?;
        let mut chunk = [0; 256];
        let mut done = 0;
        let mut word = seed;
        while done < len {
            for bytes in chunk.chunks_exact_mut(8) {
                // SplitMix64: neighbouring seeds give unrelated patterns.
                word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = word;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                bytes.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
            }
            let piece = chunk.get(..len.saturating_sub(done)).unwrap_or(&chunk);
            self.copy_in(offset.saturating_add(done), piece)?;
            done = done.saturating_add(piece.len());
        }
        Ok(())
    }
}

/// A range of a buffer, with a reference to the buffer.
///
/// # Invariants
///
/// `offset + len` is at most the buffer's length.
///
/// # Examples
///
/// ```
/// use kernel::sync::Arc;
///
/// let pages = Arc::new(Pages::alloc(1000)?, GFP_KERNEL)?;
/// let range = PageRange::new(pages, 100, 500)?;
/// let rest = range.slice(400, 100)?;
/// assert_eq!((rest.offset(), rest.len()), (500, 100));
/// rest.pages().copy_in(500, &[7; 100])?;
/// assert_eq!(rest.crc32(!0), crc32(!0, &[7; 100]));
/// assert!(range.slice(400, 101).is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub(crate) struct PageRange {
    pages: Arc<Pages>,
    offset: usize,
    len: usize,
}

impl PageRange {
    /// `len` bytes of `pages` from `offset`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is not within the buffer.
    pub(crate) fn new(pages: Arc<Pages>, offset: usize, len: usize) -> Result<Self> {
        pages.check(offset, len)?;
        // INVARIANT: Just checked.
        Ok(Self { pages, offset, len })
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The buffer.
    pub(crate) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    /// The offset in the buffer at which it begins, in bytes.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Continues a CRC32 over all of it, see [`crc32`]. Any context.
    pub(crate) fn crc32(&self, crc: u32) -> u32 {
        piece::crc32(crc, self.pieces::<Source>(0))
    }

    /// All but the first `skip` bytes, piece by piece, see [`copy`]. Any context.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{page::PAGE_SIZE, sync::Arc};
    ///
    /// let pages = Arc::new(Pages::alloc(2 * PAGE_SIZE)?, GFP_KERNEL)?;
    /// let range = PageRange::new(pages, 100, PAGE_SIZE)?;
    /// assert_eq!(range.pieces::<Source>(0).count(), 2);
    /// assert_eq!(range.pieces::<Source>(PAGE_SIZE - 100).count(), 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn pieces<A: Access>(&self, skip: usize) -> impl Iterator<Item = Piece<'_, A>> + '_ {
        let skip = skip.min(self.len);
        self.pages
            .pieces(self.offset.wrapping_add(skip), self.len.wrapping_sub(skip))
    }

    /// `len` bytes of this range from `offset`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are not within this range.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Result<Self> {
        match offset.checked_add(len) {
            // INVARIANT: The new range is within the old one.
            Some(end) if end <= self.len => Ok(Self {
                pages: self.pages.clone(),
                offset: self.offset.wrapping_add(offset),
                len,
            }),
            _ => Err(EINVAL),
        }
    }
}

/// A small buffer to receive into, which may be kept for long.
///
/// # Examples
///
/// ```
/// let mut buf = RecvBuf::alloc(4)?;
/// assert_eq!(buf.as_slice(), [0; 4]);
/// buf.shift(2, 2);
/// assert_eq!(buf.len(), 4);
/// assert_eq!(RecvBuf::none().len(), 0);
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct RecvBuf(KVec<u8>);

impl RecvBuf {
    /// A buffer of no bytes, without memory.
    pub(crate) const fn none() -> Self {
        Self(KVec::new())
    }

    /// Allocates `len` zero bytes. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn alloc(len: usize) -> Result<Self> {
        Ok(Self(KVec::from_elem(0, len, GFP_KERNEL)?))
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The contents.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Moves `len` bytes from `from`, or as many as there are, to the beginning.
    pub(crate) fn shift(&mut self, from: usize, len: usize) {
        let from = from.min(self.0.len());
        let end = from.saturating_add(len).min(self.0.len());
        self.0.copy_within(from..end, 0);
    }

    /// The page of the byte at `offset`, and the byte's offset in the page, for C to write there. The
    /// bytes behind it are in this page, or in physically adjacent ones.
    pub(super) fn locate(&mut self, offset: usize) -> (*mut bindings::page, usize) {
        let len = self.0.len();
        let address = self.0.as_mut_ptr().wrapping_add(offset.min(len));
        // SAFETY: What `kmalloc` allocates is in the kernel's linear mapping.
        let page = unsafe { sys::socklnd_helper_virt_to_page(address.cast()) };
        (page, address.addr() % PAGE_SIZE)
    }
}

#[kunit_tests(socklnd_lib_linux_page)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked() -> Result {
        let len = 2 * PAGE_SIZE + 100;
        let pages = Pages::alloc(len)?;
        let mut buf = [0; 16];
        assert!(pages.copy_out(len - 16, &mut buf).is_ok());
        assert!(pages.copy_out(len, &mut []).is_ok());
        for (offset, ok) in [
            (len - 15, false),
            (len, false),
            (usize::MAX, false),
            (0, true),
        ] {
            assert!(pages.copy_out(offset, &mut buf).is_ok() == ok);
            assert!(pages.copy_in(offset, &buf).is_ok() == ok);
            assert!(pages.xxh64(offset, 16, 0).is_ok() == ok);
            assert!(pages.fill_pattern(offset, 16, 0).is_ok() == ok);
        }
        assert!(pages.xxh64(1, usize::MAX, 0).is_err());
        Ok(())
    }

    #[test]
    fn empty_buffers_work() -> Result {
        let pages = Pages::alloc(0)?;
        assert_eq!(pages.xxh64(0, 0, 0)?, 0xef46_db37_51d8_e999);
        pages.fill_pattern(0, 0, 1)?;
        assert!(pages.copy_in(0, &[1]).is_err());
        Ok(())
    }

    #[test]
    fn copies_cross_pages() -> Result {
        let pages = Pages::alloc(3 * PAGE_SIZE)?;
        let mut written = KVec::from_elem(0u8, PAGE_SIZE + 300, GFP_KERNEL)?;
        for (index, byte) in written.iter_mut().enumerate() {
            *byte = (index % 251) as u8;
        }
        pages.copy_in(PAGE_SIZE - 100, &written)?;
        let mut read = KVec::from_elem(0u8, written.len(), GFP_KERNEL)?;
        pages.copy_out(PAGE_SIZE - 100, &mut read)?;
        assert!(read.as_slice() == written.as_slice());
        // The byte before and the one behind are untouched.
        let mut byte = [1];
        pages.copy_out(PAGE_SIZE - 101, &mut byte)?;
        assert_eq!(byte, [0]);
        pages.copy_out(2 * PAGE_SIZE + 200, &mut byte)?;
        assert_eq!(byte, [0]);
        Ok(())
    }

    #[test]
    fn xxh64_is_the_known_function() -> Result {
        let pages = Pages::alloc(2 * PAGE_SIZE)?;
        // Across a page boundary; the value is that of xxhsum for "abc".
        pages.copy_in(PAGE_SIZE - 1, b"abc")?;
        assert_eq!(pages.xxh64(PAGE_SIZE - 1, 3, 0)?, 0x44bc_2cf5_ad77_0999);
        Ok(())
    }

    #[test]
    fn crc32_is_the_known_function() -> Result {
        let pages = Arc::new(Pages::alloc(2 * PAGE_SIZE)?, GFP_KERNEL)?;
        // Across a page boundary; the value is the usual check of CRC-32.
        pages.copy_in(PAGE_SIZE - 4, b"123456789")?;
        let range = PageRange::new(pages.clone(), PAGE_SIZE - 4, 9)?;
        assert_eq!(range.crc32(!0), !0xcbf4_3926);
        assert_eq!(crc32(!0, b"123456789"), !0xcbf4_3926);
        // In two steps, and over a part.
        let range = PageRange::new(pages.clone(), PAGE_SIZE, 5)?;
        assert_eq!(range.crc32(crc32(!0, b"1234")), !0xcbf4_3926);
        Ok(())
    }

    #[test]
    fn contents_are_shifted_as_far_as_they_go() -> Result {
        let mut buf = RecvBuf::alloc(4)?;
        for (from, len, after) in [
            (1, 2, [2, 3, 3, 4]),
            (0, 4, [1, 2, 3, 4]),
            (3, 9, [4, 2, 3, 4]),
            (4, 1, [1, 2, 3, 4]),
            (usize::MAX, usize::MAX, [1, 2, 3, 4]),
        ] {
            buf.0.copy_from_slice(&[1, 2, 3, 4]);
            buf.shift(from, len);
            assert!(buf.as_slice() == after);
        }
        Ok(())
    }

    #[test]
    fn patterns_depend_on_seed_and_distance_only() -> Result {
        let pages = Pages::alloc(4 * PAGE_SIZE)?;
        let len = PAGE_SIZE + 77;
        pages.fill_pattern(5, len, 1)?;
        let first = pages.xxh64(5, len, 0)?;
        pages.fill_pattern(2 * PAGE_SIZE + 3, len, 1)?;
        assert_eq!(pages.xxh64(2 * PAGE_SIZE + 3, len, 0)?, first);
        pages.fill_pattern(5, len, 2)?;
        assert!(pages.xxh64(5, len, 0)? != first);
        Ok(())
    }

    #[test]
    fn ranges_stay_within_their_buffer() -> Result {
        let pages = Arc::new(Pages::alloc(1000)?, GFP_KERNEL)?;
        assert!(PageRange::new(pages.clone(), 1, 1000).is_err());
        assert!(PageRange::new(pages.clone(), usize::MAX, 2).is_err());
        let range = PageRange::new(pages, 100, 500)?;
        let part = range.slice(50, 450)?;
        assert_eq!((part.offset(), part.len()), (150, 450));
        assert!(range.slice(51, 450).is_err());
        assert!(range.slice(usize::MAX, 2).is_err());
        assert_eq!(part.slice(450, 0)?.len(), 0);
        Ok(())
    }
}
