// SPDX-License-Identifier: GPL-2.0

//! Memory of other owners, as a list of `struct bio_vec` that C code has made.
//!
//! A [`Foreign`] refers to the list and to its memory, and owns neither. Its constructor requires that both
//! stay valid until it is dropped. The memory may be of any kind, at any offset.
//!
//! C header: [`include/linux/bvec.h`](srctree/include/linux/bvec.h)

use super::{
    super::sys,
    piece::{
        self,
        Access,
        Piece, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull,
    slice, //
};
use kernel::{
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// A range of the bytes of a list of `struct bio_vec`, which may be accessed as `A` says.
///
/// # Invariants
///
/// `bvecs` points to `count` entries, which do not change; together they have at least `skip + len`
/// bytes. C functions may access the `len` bytes behind the first `skip` as `A` says, and no Rust
/// reference to them exists. If `can_zerocopy`, they are in pages with a reference count.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::sys;
/// use core::ptr::NonNull;
/// use kernel::{bindings, page::PAGE_SIZE};
///
/// let mut bytes = KVec::from_elem(7u8, 100, GFP_KERNEL)?;
/// let address = bytes.as_mut_ptr();
/// let mut bvec = bindings::bio_vec {
///     // SAFETY: What `kmalloc` allocates is in the kernel's linear mapping.
///     bv_page: unsafe { sys::socklnd_helper_virt_to_page(address.cast()) },
///     bv_offset: (address.addr() % PAGE_SIZE) as u32,
///     bv_len: 100,
/// };
/// // SAFETY: The list and the bytes outlive `memory`, and are not used meanwhile.
/// let memory: Foreign<Source> = unsafe { Foreign::new(NonNull::from(&mut bvec), 1, 10, 90) }?;
/// assert_eq!(memory.len(), 90);
/// // The bytes are in a slab.
/// assert!(!memory.can_zerocopy());
/// assert_eq!(memory.crc32(!0), crc32(!0, &[7; 90]));
/// assert_eq!(memory.pieces(90).count(), 0);
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct Foreign<A> {
    bvecs: NonNull<bindings::bio_vec>,
    count: u32,
    skip: u32,
    len: u32,
    can_zerocopy: bool,
    /// In unit tests: the owner of the memory.
    #[cfg(CONFIG_KUNIT = "y")]
    _owner: Option<kernel::sync::Arc<tests::Scattered>>,
    _access: PhantomData<A>,
}

// SAFETY: By the type invariants C functions may access the memory, in any thread.
unsafe impl<A> Send for Foreign<A> {}

// SAFETY: As above.
unsafe impl<A> Sync for Foreign<A> {}

impl<A: Access> Foreign<A> {
    /// The `len` bytes behind the first `skip` of a list of `count` entries at `bvecs`. Any context.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the list has less than `skip + len` bytes.
    ///
    /// # Safety
    ///
    /// As long as the value lives:
    ///
    /// - `bvecs` must point to `count` entries, which must not change.
    /// - Each must refer to bytes of a page, or of pages that are physically adjacent.
    /// - Any thread may read the `len` bytes, and, if `A` is [`Dest`](super::Dest), write them; no Rust
    ///   reference to them may exist.
    ///
    /// A reader may hold references to pages that have a reference count, and read them, for longer.
    #[allow(
        dead_code,
        reason = "for what binds to a message layer in C, and for tests"
    )]
    pub(crate) unsafe fn new(
        bvecs: NonNull<bindings::bio_vec>,
        count: u32,
        skip: u32,
        len: u32,
    ) -> Result<Self> {
        let mut this = Self {
            bvecs,
            count,
            skip,
            len,
            can_zerocopy: false,
            #[cfg(CONFIG_KUNIT = "y")]
            _owner: None,
            _access: PhantomData,
        };
        let sum = |sum: u64, bvec: &bindings::bio_vec| sum.saturating_add(bvec.bv_len.into());
        // INVARIANT: If this does not fail, there are as many bytes; the rest is this function's
        // requirement.
        if this.bvecs().iter().fold(0, sum) < u64::from(skip).saturating_add(len.into()) {
            return Err(EINVAL);
        }
        let can_zerocopy = this.pieces(0).all(|piece| {
            // SAFETY: The piece is in this page, which is valid as long as `this` exists.
            unsafe { sys::socklnd_helper_sendpage_ok(piece.page()) }
        });
        // INVARIANT: Each page was checked.
        this.can_zerocopy = can_zerocopy;
        Ok(this)
    }

    /// The list.
    fn bvecs(&self) -> &[bindings::bio_vec] {
        // SAFETY: By the type invariants there are as many entries, and they do not change.
        unsafe { slice::from_raw_parts(self.bvecs.as_ptr(), self.count as usize) }
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether TCP may refer to it: all of it is in pages whose references count, and not, say, in those
    /// of a slab.
    pub(crate) fn can_zerocopy(&self) -> bool {
        self.can_zerocopy
    }

    /// Continues a CRC32 over all of it, see [`super::crc32`]. Any context.
    pub(crate) fn crc32(&self, crc: u32) -> u32 {
        piece::crc32(crc, self.pieces(0))
    }

    /// All but the first `skip` bytes, piece by piece. Any context.
    pub(crate) fn pieces(&self, skip: usize) -> impl Iterator<Item = Piece<'_, A>> + '_ {
        let mut skip_left = (self.skip as usize).saturating_add(skip);
        let mut left = self.len().saturating_sub(skip);
        let mut bvecs = self.bvecs().iter();
        // The rest of the current entry.
        let (mut page, mut offset, mut inside) = (core::ptr::null_mut(), 0, 0);
        core::iter::from_fn(move || {
            while left > 0 {
                let skipped = skip_left.min(inside);
                skip_left -= skipped;
                offset += skipped;
                inside -= skipped;
                if inside == 0 {
                    let bvec = bvecs.next()?;
                    (page, offset, inside) =
                        (bvec.bv_page, bvec.bv_offset as usize, bvec.bv_len as usize);
                    continue;
                }
                let start = offset % PAGE_SIZE;
                let len = inside.min(left).min(PAGE_SIZE - start);
                // The entry's pages are adjacent, and so are their `struct page`s.
                let here: *mut bindings::page = page;
                let here = here.wrapping_add(offset / PAGE_SIZE);
                offset += len;
                inside -= len;
                left -= len;
                // SAFETY: The bytes are within this page, and within the range of the type invariants;
                // `self` is borrowed for the piece's lifetime.
                return Some(unsafe { Piece::new(here, start, len) });
            }
            None
        })
    }
}

#[cfg(CONFIG_KUNIT = "y")]
impl<A: Access> Foreign<A> {
    /// Adds a reference to `owner`, which owns the memory.
    fn owned_by(mut self, owner: kernel::sync::Arc<tests::Scattered>) -> Self {
        self._owner = Some(owner);
        self
    }
}

#[cfg(CONFIG_KUNIT = "y")]
pub(super) mod tests;
