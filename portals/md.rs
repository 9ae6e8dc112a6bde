// SPDX-License-Identifier: GPL-2.0

//! Memory descriptors: memory that messages of others may write to or read from.
//!
//! An [`Md`] never changes once it is made. It is shared by [`Arc`] between its match entry and the
//! messages under way, and keeps its pages alive; so unlinking an entry never takes memory from
//! under a message. What does change, how often it may still be used and how far it is filled,
//! belongs to the entry and is protected by the table's lock.

use super::{
    table::MeHandle,
    Core, //
};
use crate::{
    lib_linux::page::PageRange,
    wire::Nid, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What a message does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// A PUT writes it.
    Put,
    /// A GET reads it.
    Get,
}

/// Who says where in the memory a message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The sender of the message.
    Remote,
    /// The memory is used up from its beginning to its end, each message behind the one before.
    Append,
}

/// How often a descriptor may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// As often as messages come, several at a time.
    Always,
    /// So many times; with the last use the entry is unlinked.
    Times(u32),
    /// As often as messages come, but one at a time: until the event of a message has been handled
    /// the entry matches no other. For memory that has to be looked at before it is overwritten.
    OneAtATime,
}

/// A memory descriptor.
pub(crate) struct Md {
    /// The memory.
    pub(crate) range: PageRange,
    /// What it may be used for.
    pub(crate) access: Access,
    /// Whether a message that is too long is cut off. Otherwise it does not match.
    pub(crate) truncate: bool,
    /// Where messages begin.
    pub(crate) placement: Placement,
    /// How often it may be used.
    pub(crate) reuse: Reuse,
    /// Who is told about each use.
    pub(crate) handler: Option<Arc<dyn Handler>>,
}

impl Md {
    /// How many of `length` bytes at `offset` it takes; `None` if it can't take the message.
    pub(super) fn fit(&self, offset: u32, length: u32) -> Option<u32> {
        fit(self.range.len(), self.truncate, offset, length)
    }
}

/// How many of `length` bytes memory of `size` bytes takes at `offset`.
pub(super) fn fit(size: usize, truncate: bool, offset: u32, length: u32) -> Option<u32> {
    // An offset behind the end does not match at all: there is no room to speak of.
    let room = size.checked_sub(offset as usize)?;
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    if length <= room {
        Some(length)
    } else if truncate {
        Some(room)
    } else {
        None
    }
}

/// What happened to a memory descriptor.
pub(crate) struct Event {
    /// The entry that matched.
    pub(crate) me: MeHandle,
    /// A PUT has been received, or the REPLY to a GET has been sent.
    pub(crate) access: Access,
    /// Whose message it was.
    pub(crate) from: Nid,
    /// The match bits of the message, which an entry with ignore bits can't know beforehand.
    pub(crate) match_bits: u64,
    /// Eight bytes that came with a PUT; 0 for a GET.
    pub(crate) hdr_data: u64,
    /// Bytes that the sender had to offer, or room for.
    pub(crate) rlength: u32,
    /// Bytes that were moved.
    pub(crate) mlength: u32,
    /// Where they are: `mlength` bytes of the descriptor.
    pub(crate) range: PageRange,
    /// With an error, any part of the memory may have been written.
    pub(crate) result: Result,
}

/// Who is told about the use of a memory descriptor.
pub(crate) trait Handler: Send + Sync {
    /// A message for the descriptor has ended, well or not.
    ///
    /// Thread context, may sleep; no lock is held that sending or receiving takes. A scheduler waits, so
    /// it must not wait for the network. The ACK of a PUT leaves only after this has returned.
    fn event(&self, core: &Arc<Core>, event: &Event);
}

#[kunit_tests(socklnd_portals_md)]
mod tests {
    use super::*;

    #[test]
    fn fits() {
        assert_eq!(fit(100, false, 0, 100), Some(100));
        assert_eq!(fit(100, false, 60, 40), Some(40));
        assert_eq!(fit(100, false, 100, 0), Some(0));
        assert_eq!(fit(0, false, 0, 0), Some(0));
    }

    #[test]
    fn too_long() {
        assert_eq!(fit(100, false, 0, 101), None);
        assert_eq!(fit(100, false, 60, 41), None);
        assert_eq!(fit(100, true, 0, 101), Some(100));
        assert_eq!(fit(100, true, 60, u32::MAX), Some(40));
        assert_eq!(fit(100, true, 100, 1), Some(0));
    }

    #[test]
    fn offset_behind_the_end() {
        assert_eq!(fit(100, true, 101, 0), None);
        assert_eq!(fit(100, true, u32::MAX, u32::MAX), None);
        assert_eq!(fit(100, false, u32::MAX, 1), None);
    }
}
