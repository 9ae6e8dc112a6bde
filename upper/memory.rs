// SPDX-License-Identifier: GPL-2.0

//! Memory for payloads, of this module or of another owner.
//!
//! A [`Memory`] has one owner: the driver, from the call that hands it over until it calls the payload's
//! completion. It is dropped before that. Nothing protects the contents, see [`crate::lib_linux::page`].

use crate::lib_linux::{
    iov::{
        Bvecs,
        RecvBvecs, //
    },
    page::{
        copy,
        Access,
        Dest,
        Foreign,
        PageRange,
        Source, //
    }, //
};

/// Memory that a payload is sent from ([`Source`]) or received into ([`Dest`]). May be empty.
pub(crate) enum Memory<A> {
    /// Pages of this module, which are reference-counted.
    Pages(PageRange),
    /// Memory of the message layer, at any offset and of any kind, which it may reuse once the payload's
    /// completion is called. TCP may have a reference to pages of it for longer if the message has failed.
    Foreign(Foreign<A>),
}

/// What is sent.
pub(crate) type Payload = Memory<Source>;

impl<A> From<PageRange> for Memory<A> {
    fn from(range: PageRange) -> Self {
        Self::Pages(range)
    }
}

impl<A: Access> Memory<A> {
    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Pages(range) => range.len(),
            Self::Foreign(memory) => memory.len(),
        }
    }

    /// Goes on with a CRC32 over all of it. Any context.
    pub(crate) fn crc32(&self, crc: u32) -> u32 {
        match self {
            Self::Pages(range) => range.crc32(crc),
            Self::Foreign(memory) => memory.crc32(crc),
        }
    }
}

impl Memory<Source> {
    /// Adds all but the first `skip` bytes to `to`. Returns whether there was room for them. Any context.
    pub(crate) fn add_to<'a>(&'a self, to: &mut Bvecs<'a>, skip: usize) -> bool {
        match self {
            Self::Pages(range) => to.push_range(range, skip),
            Self::Foreign(memory) => to.push_foreign(memory, skip),
        }
    }

    /// Whether TCP may refer to it.
    pub(crate) fn can_zerocopy(&self) -> bool {
        match self {
            Self::Pages(_) => true,
            Self::Foreign(memory) => memory.can_zerocopy(),
        }
    }

    /// Copies it to `to`, as far as there is room; they may be the same memory. Any context.
    pub(crate) fn copy_to(&self, to: &Memory<Dest>) {
        match (self, to) {
            (Self::Pages(from), Memory::Pages(to)) => copy(from.pieces(0), to.pieces(0)),
            (Self::Pages(from), Memory::Foreign(to)) => copy(from.pieces(0), to.pieces(0)),
            (Self::Foreign(from), Memory::Pages(to)) => copy(from.pieces(0), to.pieces(0)),
            (Self::Foreign(from), Memory::Foreign(to)) => copy(from.pieces(0), to.pieces(0)),
        }
    }
}

impl Memory<Dest> {
    /// Adds all but the first `skip` bytes to `to`. Returns whether there was room for them. Any context.
    pub(crate) fn add_to_recv<'a>(&'a self, to: &mut RecvBvecs<'a>, skip: usize) -> bool {
        match self {
            Self::Pages(range) => to.push_range(range, skip),
            Self::Foreign(memory) => to.push_foreign(memory, skip),
        }
    }
}
