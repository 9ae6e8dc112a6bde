// SPDX-License-Identifier: GPL-2.0

//! Small pieces of pages that TCP can read.
//!
//! A [`PageFrag`] is a small piece of memory with one owner, who frees it, and who alone has
//! access. A [`FrozenFrag`] is one that does not change any more, so TCP may read it even after its
//! owner has freed it. They come from caches, one for each processor, each with a lock of its own. A
//! cache holds a reference to the pages that it cuts up, which [`FragCaches`] drops in the end. A
//! fragment keeps up to eight pages allocated, so it is for short-lived data.
//!
//! C header: [`include/linux/page_frag_cache.h`](srctree/include/linux/page_frag_cache.h)

use super::super::sys;
use core::ptr::NonNull;
use kernel::{
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// A small buffer that is part of a page.
///
/// # Invariants
///
/// `start` comes from the page fragment allocator, is ours, and is valid for `len` initialised
/// bytes.
///
/// # Examples
///
/// ```
/// let frozen = PageFrag::alloc(72)?.filled(b"a header")?;
/// assert_eq!(frozen.len(), 8);
/// assert!(PageFrag::alloc(4)?.filled(b"a header").is_err());
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct PageFrag {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: A `PageFrag` is a box of bytes.
unsafe impl Send for PageFrag {}

// SAFETY: A `PageFrag` is a box of bytes.
unsafe impl Sync for PageFrag {}

impl PageFrag {
    /// Allocates `len` zero bytes, at most a page. May sleep.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if `len` is zero or more than a page.
    /// - `ENOMEM`.
    pub(crate) fn alloc(len: usize) -> Result<Self> {
        let size = match c_uint::try_from(len) {
            Ok(size) if size > 0 && len <= PAGE_SIZE => size,
            _ => return Err(EINVAL),
        };
        // SAFETY: The size is not zero, and at most a page.
        let start = unsafe { sys::socklnd_helper_page_frag_alloc(size) };
        let start = NonNull::new(start.cast::<u8>()).ok_or(ENOMEM)?;
        // SAFETY: We just got `len` bytes.
        unsafe { start.write_bytes(0, len) };
        // INVARIANT: Allocated and initialised above.
        Ok(Self { start, len })
    }

    /// The contents.
    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: By the type invariants the bytes are valid, initialised and ours.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Writes `contents`, which can't be changed any more, and cuts the fragment to their length.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `contents` is longer than the fragment.
    pub(crate) fn filled(mut self, contents: &[u8]) -> Result<FrozenFrag> {
        let room = self.as_mut_slice().get_mut(..contents.len());
        room.ok_or(EINVAL)?.copy_from_slice(contents);
        // INVARIANT: The length was just checked to be at most the old one.
        self.len = contents.len();
        // INVARIANT: `FrozenFrag` has no method that gives access to the bytes.
        Ok(FrozenFrag(self))
    }

    /// The page of the byte at `offset`, and the byte's offset in the page. The bytes behind it are in
    /// this page, or in physically adjacent ones.
    pub(in super::super) fn locate(&self, offset: usize) -> (*mut bindings::page, usize) {
        let address = self.start.as_ptr().wrapping_add(offset.min(self.len));
        // SAFETY: Page fragments are in the kernel's linear mapping.
        let page = unsafe { sys::socklnd_helper_virt_to_page(address.cast()) };
        (page, address.addr() % PAGE_SIZE)
    }
}

impl Drop for PageFrag {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the fragment is ours, from the matching allocator.
        unsafe { bindings::page_frag_free(self.start.as_ptr().cast()) };
    }
}

/// A [`PageFrag`] that does not change any more, so that TCP can send it without a copy.
///
/// # Invariants
///
/// Rust code never has a `&mut` to the bytes again.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::iov::BvecBuf;
///
/// let frag: FrozenFrag = PageFrag::alloc(72)?.filled(&[0; 72])?;
/// let mut buf = BvecBuf::with_capacity(1)?;
/// let mut bvecs = buf.start();
/// // 24 bytes of it were sent before.
/// assert!(bvecs.push_frag(&frag, 24));
/// assert_eq!(bvecs.len_bytes(), frag.len() - 24);
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct FrozenFrag(PageFrag);

impl FrozenFrag {
    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len
    }

    /// As [`PageFrag::locate`].
    pub(in super::super) fn locate(&self, offset: usize) -> (*mut bindings::page, usize) {
        self.0.locate(offset)
    }
}

/// The caches that [`PageFrag`]s come from. Dropping this frees the memory that is left in them. The
/// memory of a cache that is filled after that is leaked when the module is removed. Thread context.
///
/// # Examples
///
/// ```
/// let caches = FragCaches::new();
/// let frag = PageFrag::alloc(72)?.filled(&[0; 72])?;
/// drop(caches);
/// // The fragment keeps its pages.
/// assert_eq!(frag.len(), 72);
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct FragCaches(());

impl FragCaches {
    /// To be called by the module's `init`, before anything is allocated.
    pub(crate) fn new() -> Self {
        Self(())
    }
}

impl Drop for FragCaches {
    fn drop(&mut self) {
        // SAFETY: The function takes the lock of each cache, and drops the cache's own reference to its
        // pages. Fragments that are still in use have references of their own.
        unsafe { sys::socklnd_helper_page_frag_drain() };
    }
}

#[kunit_tests(socklnd_lib_linux_page_frag)]
mod tests {
    use super::*;

    #[test]
    fn fragments_may_have_room_to_spare() -> Result {
        let frag = PageFrag::alloc(72)?;
        let place = frag.locate(0);
        let filled = frag.filled(&[7; 24])?;
        assert_eq!(filled.len(), 24);
        assert!(filled.locate(0) == place);
        assert!(PageFrag::alloc(8)?.filled(&[0; 9]).is_err());
        Ok(())
    }

    #[test]
    fn fragments_are_not_the_receive_paths() -> Result {
        const COUNT: usize = 64;
        let mut ours = KVec::with_capacity(COUNT, GFP_KERNEL)?;
        let mut theirs = KVec::with_capacity(COUNT, GFP_KERNEL)?;
        for _ in 0..COUNT {
            ours.push(PageFrag::alloc(72)?, GFP_KERNEL)?;
            // SAFETY: The size is reasonable, and the mask asks for no alignment.
            let start = unsafe { bindings::__netdev_alloc_frag_align(72, c_uint::MAX) };
            let start = NonNull::new(start.cast::<u8>()).ok_or(ENOMEM)?;
            // A fragment of theirs is freed like one of ours.
            theirs.push(PageFrag { start, len: 0 }, GFP_KERNEL)?;
        }
        let page = |frag: &PageFrag| frag.locate(0).0;
        assert!(!ours
            .iter()
            .any(|one| theirs.iter().any(|other| page(one) == page(other))));
        Ok(())
    }

    #[test]
    fn fragments_are_zeroed_and_separate() -> Result {
        assert!(PageFrag::alloc(0).is_err());
        assert!(PageFrag::alloc(PAGE_SIZE + 1).is_err());
        assert_eq!(PageFrag::alloc(PAGE_SIZE)?.as_mut_slice().len(), PAGE_SIZE);
        let mut one = PageFrag::alloc(72)?;
        let mut two = PageFrag::alloc(72)?;
        one.as_mut_slice().fill(0xff);
        assert!(two.as_mut_slice().iter().all(|&byte| byte == 0));
        drop(two);
        assert!(one.as_mut_slice().iter().all(|&byte| byte == 0xff));
        Ok(())
    }
}
