// SPDX-License-Identifier: GPL-2.0

//! Memory of another owner, for unit tests: of several kinds, in pieces at odd offsets. The bytes between them
//! must not change.
//!
//! Shared by [`Arc`] between a test and the [`Foreign`]s that it gives to others; freed with the last of
//! them. Nothing protects the contents, see [`super`].

use super::{
    super::{
        copy,
        crc32,
        Dest,
        PageRange,
        Pages,
        Source, //
    },
    *, //
};
use kernel::{
    page::AsPageIter,
    sync::Arc, //
};

/// The allocator of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The page allocator.
    Pages,
    /// A slab: it can't be sent without a copy.
    Slab,
    /// `vmalloc`.
    Vmalloc,
}

/// Bytes between two pieces.
const GAP: usize = 13;

/// The value of the bytes between two pieces.
const UNTOUCHED: u8 = 0xa5;

/// The owner of the memory.
enum Storage {
    Pages { _pages: Pages },
    Slab { _pieces: KVec<KVec<u8>> },
    Vmalloc { _bytes: VVec<u8> },
}

/// Memory in pieces.
///
/// # Invariants
///
/// `bvecs` and `gaps` refer to memory that `_storage` owns, and to which no Rust reference exists. They do
/// not change.
pub(crate) struct Scattered {
    bvecs: KVec<bindings::bio_vec>,
    gaps: KVec<bindings::bio_vec>,
    len: usize,
    _storage: Storage,
}

// SAFETY: C functions may access the memory in any thread.
unsafe impl Send for Scattered {}

// SAFETY: As above.
unsafe impl Sync for Scattered {}

/// Adds `len` bytes of `page` from `at` to a list.
fn add(
    to: &mut KVec<bindings::bio_vec>,
    page: *mut bindings::page,
    at: usize,
    len: usize,
) -> Result {
    let bvec = bindings::bio_vec {
        bv_page: page,
        bv_offset: at.try_into()?,
        bv_len: len.try_into()?,
    };
    Ok(to.push(bvec, GFP_KERNEL)?)
}

impl Scattered {
    /// `len` bytes in pieces of `cut`, or less where a page ends. May sleep.
    pub(crate) fn new(kind: Kind, len: usize, cut: usize) -> Result<Arc<Self>> {
        if cut == 0 || cut > PAGE_SIZE {
            return Err(EINVAL);
        }
        let count = len.div_ceil(cut);
        let mut bvecs = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut gaps = KVec::with_capacity(count + 1, GFP_KERNEL)?;
        let piece = |index: usize| cut.min(len - index * cut);
        let _storage = match kind {
            Kind::Slab => {
                let mut pieces = KVec::with_capacity(count, GFP_KERNEL)?;
                for index in 0..count {
                    let mut bytes = KVec::from_elem(0u8, piece(index) + 2 * GAP, GFP_KERNEL)?;
                    let start = bytes.as_mut_ptr();
                    let add = |to: &mut _, at: usize, len| {
                        let address = start.wrapping_add(at);
                        // SAFETY: What `kmalloc` allocates is in the kernel's linear mapping.
                        let page = unsafe { sys::socklnd_helper_virt_to_page(address.cast()) };
                        add(to, page, address.addr() % PAGE_SIZE, len)
                    };
                    add(&mut gaps, 0, GAP)?;
                    add(&mut bvecs, GAP, piece(index))?;
                    add(&mut gaps, GAP + piece(index), GAP)?;
                    pieces.push(bytes, GFP_KERNEL)?;
                }
                Storage::Slab { _pieces: pieces }
            }
            Kind::Pages | Kind::Vmalloc => {
                let total = count * (cut + GAP) + GAP;
                let mut pages = KVec::with_capacity(total.div_ceil(PAGE_SIZE), GFP_KERNEL)?;
                let storage = if kind == Kind::Pages {
                    let all = Pages::alloc(total)?;
                    for page in all.pages.iter() {
                        pages.push(page.as_ptr(), GFP_KERNEL)?;
                    }
                    Storage::Pages { _pages: all }
                } else {
                    let mut bytes = VVec::from_elem(0u8, total, GFP_KERNEL)?;
                    for page in bytes.page_iter() {
                        pages.push(page.as_ptr(), GFP_KERNEL)?;
                    }
                    Storage::Vmalloc { _bytes: bytes }
                };
                let add = |to: &mut _, at: usize, len: usize| {
                    let (mut at, end) = (at, at + len);
                    while at < end {
                        let inside = at % PAGE_SIZE;
                        let part = (end - at).min(PAGE_SIZE - inside);
                        let page = pages.get(at / PAGE_SIZE).copied().ok_or(EINVAL)?;
                        add(to, page, inside, part)?;
                        at += part;
                    }
                    Ok::<_, Error>(())
                };
                for index in 0..count {
                    let at = index * (cut + GAP);
                    add(&mut gaps, at, GAP)?;
                    add(&mut bvecs, at + GAP, piece(index))?;
                }
                storage
            }
        };
        // INVARIANT: The entries were made for the memory of `storage`.
        let this = Self {
            bvecs,
            gaps,
            len,
            _storage,
        };
        let this = Arc::new(this, GFP_KERNEL)?;
        let pages = Pages::alloc(this.gaps_len())?;
        let untouched = KVec::from_elem(UNTOUCHED, this.gaps_len(), GFP_KERNEL)?;
        pages.copy_in(0, &untouched)?;
        copy(pages.pieces(0, pages.len), this.gaps::<Dest>()?.pieces(0));
        Ok(this)
    }

    fn gaps_len(&self) -> usize {
        self.gaps.iter().map(|bvec| bvec.bv_len as usize).sum()
    }

    fn part<A: Access>(
        self: &Arc<Self>,
        bvecs: &[bindings::bio_vec],
        skip: usize,
        len: usize,
    ) -> Result<Foreign<A>> {
        let start = NonNull::from(bvecs).cast();
        let (count, skip) = (bvecs.len().try_into()?, skip.try_into()?);
        // SAFETY: By the type invariants; the result holds a reference to `self`.
        let part = unsafe { Foreign::new(start, count, skip, len.try_into()?) }?;
        Ok(part.owned_by(self.clone()))
    }

    fn gaps<A: Access>(self: &Arc<Self>) -> Result<Foreign<A>> {
        self.part(&self.gaps, 0, self.gaps_len())
    }

    /// `len` bytes behind the first `skip`. Any context.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are not as many.
    pub(crate) fn range<A: Access>(
        self: &Arc<Self>,
        skip: usize,
        len: usize,
    ) -> Result<Foreign<A>> {
        self.part(&self.bvecs, skip, len)
    }

    /// A copy of all pieces, which does not depend on a range being found. May sleep.
    fn read_all(self: &Arc<Self>) -> Result<Pages> {
        let all = Pages::alloc(self.len)?;
        let from = self.range::<Source>(0, self.len)?;
        copy(from.pieces(0), all.pieces(0, self.len));
        Ok(all)
    }

    /// Fills the `len` bytes behind the first `skip`, see [`Pages::fill_pattern`]. May sleep.
    pub(crate) fn fill_pattern(self: &Arc<Self>, skip: usize, len: usize, seed: u64) -> Result {
        let all = self.read_all()?;
        all.fill_pattern(skip, len, seed)?;
        let to = self.range::<Dest>(0, self.len)?;
        copy(all.pieces(0, self.len), to.pieces(0));
        Ok(())
    }

    /// Whether the `len` bytes behind the first `skip` are as [`Scattered::fill_pattern`] makes them, and
    /// nobody has touched any between the pieces. May sleep.
    pub(crate) fn is_intact(self: &Arc<Self>, skip: usize, len: usize, seed: u64) -> Result<bool> {
        let expected = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
        expected.fill_pattern(0, len, seed)?;
        let expected = PageRange::new(expected, 0, len)?.crc32(!0);
        let all = Arc::new(self.read_all()?, GFP_KERNEL)?;
        let filled = PageRange::new(all, skip, len)?.crc32(!0) == expected;
        let untouched = KVec::from_elem(UNTOUCHED, self.gaps_len(), GFP_KERNEL)?;
        Ok(filled && self.gaps::<Source>()?.crc32(!0) == crc32(!0, &untouched))
    }

    /// Bytes in all pieces.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[kernel::macros::kunit_tests(socklnd_lib_linux_page_foreign)]
mod suite {
    use super::*;
    use crate::lib_linux::iov::BvecBuf;

    const KINDS: [Kind; 3] = [Kind::Pages, Kind::Slab, Kind::Vmalloc];

    #[test]
    fn only_counted_pages_can_be_sent_without_a_copy() -> Result {
        for kind in KINDS {
            let memory = Scattered::new(kind, 10_000, 700)?;
            let part = memory.range::<Source>(1, 9_999)?;
            assert_eq!(part.can_zerocopy(), kind != Kind::Slab);
            let mut buf = BvecBuf::with_capacity(64)?;
            let mut bvecs = buf.start();
            assert!(bvecs.can_zerocopy());
            assert!(bvecs.push_foreign(&part, 0));
            assert_eq!(bvecs.can_zerocopy(), kind != Kind::Slab);
        }
        Ok(())
    }

    #[test]
    fn no_byte_beyond_the_end() -> Result {
        let memory = Scattered::new(Kind::Pages, 1000, 7)?;
        assert!(memory.range::<Source>(0, 1000).is_ok());
        assert!(memory.range::<Source>(1000, 0).is_ok());
        assert!(memory.range::<Source>(1, 1000).is_err());
        assert!(memory.range::<Source>(u32::MAX as usize, 1).is_err());
        assert!(memory.range::<Source>(1, u32::MAX as usize + 1).is_err());
        let part = memory.range::<Source>(10, 100)?;
        assert_eq!(part.pieces(0).map(|piece| piece.len()).sum::<usize>(), 100);
        assert_eq!(part.pieces(99).map(|piece| piece.len()).sum::<usize>(), 1);
        for skip in [100, 101, usize::MAX] {
            assert_eq!(part.pieces(skip).count(), 0);
        }
        Ok(())
    }

    #[test]
    fn contents_from_any_offset() -> Result {
        for kind in KINDS {
            for cut in [1, 3, 511, PAGE_SIZE - 1, PAGE_SIZE] {
                let len = if cut < 10 { 500 } else { 2 * PAGE_SIZE + 77 };
                // With some bytes around.
                let memory = Scattered::new(kind, len + 9, cut)?;
                memory.fill_pattern(5, len, 3)?;
                assert!(memory.is_intact(5, len, 3)?);
                assert!(!memory.is_intact(5, len, 4)?);
                assert!(!memory.is_intact(4, len, 3)?);
                let bytes = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
                bytes.fill_pattern(0, len, 3)?;
                let all = PageRange::new(bytes, 0, len)?;
                for skip in [0, 1, 100, 499] {
                    let rest = all.slice(skip, len - skip)?;
                    let part = memory.range::<Source>(5 + skip, len - skip)?;
                    assert_eq!(part.crc32(7), rest.crc32(7));
                }
            }
        }
        Ok(())
    }
}
