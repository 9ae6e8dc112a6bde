// SPDX-License-Identifier: GPL-2.0

//! Memory descriptors: memory that messages of other nodes write to or read from.
//!
//! An [`Md`] does not change. It is shared by [`Arc`] between its match entry and the messages that use it, and
//! keeps its pages allocated: unlinking an entry does not free memory that a message is using. What does
//! change, how often it may still be used and how much of it is filled, is part of the entry and protected
//! by the table's lock.

use super::PortalsInner;
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

/// Where in the memory a message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// At the offset that its sender has chosen.
    Remote,
    /// Behind the message before. The memory is used up from its beginning to its end.
    Append,
}

/// What happens to a message that is longer than the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooLong {
    /// It is truncated.
    Truncate,
    /// It does not match.
    Reject,
}

/// How often a descriptor may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Without limit, by several messages at a time.
    Always,
    /// This number of times; with the last use the entry is unlinked.
    Times(u32),
    /// Without limit, but by one message at a time: the entry matches no other message until the event of
    /// this one was handled. For memory that is read before it may be overwritten.
    OneAtATime,
}

/// A memory descriptor.
pub(crate) struct Md {
    /// The memory.
    pub(crate) range: PageRange,
    /// What it may be used for.
    pub(crate) access: Access,
    /// What happens to a message that is too long.
    pub(crate) too_long: TooLong,
    /// Where messages begin.
    pub(crate) placement: Placement,
    /// How often it may be used.
    pub(crate) reuse: Reuse,
    /// What is called after each use.
    pub(crate) handler: Option<Arc<dyn Handler>>,
}

impl Md {
    /// How many of `length` bytes at `offset` are moved; `None` if the message does not match.
    pub(super) fn fit(&self, offset: u32, length: u32) -> Option<u32> {
        self.too_long.fit(self.range.len(), offset, length)
    }
}

impl TooLong {
    /// How many of `length` bytes at `offset` are moved to or from memory of `size` bytes; `None` if the message
    /// does not match.
    pub(super) fn fit(self, size: usize, offset: u32, length: u32) -> Option<u32> {
        // An offset behind the end does not match, even for a message without a payload.
        let room = size.checked_sub(offset as usize)?;
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        match self {
            _ if length <= room => Some(length),
            Self::Truncate => Some(room),
            Self::Reject => None,
        }
    }
}

/// A memory descriptor was used by a message.
pub(crate) struct MdEvent {
    /// A PUT was received, or the REPLY to a GET was sent.
    pub(crate) access: Access,
    /// The node that sent the message.
    pub(crate) from: Nid,
    /// The match bits of the message.
    pub(crate) match_bits: u64,
    /// The eight bytes that a PUT has in its header; 0 for a GET.
    pub(crate) hdr_data: u64,
    /// The length of the PUT's payload, or of the memory that a GET is for.
    pub(crate) rlength: u32,
    /// Bytes that were moved.
    pub(crate) mlength: u32,
    /// These bytes: a part of the descriptor's memory.
    pub(crate) range: PageRange,
    /// How the message has ended. After an error, any part of `range` may have been written.
    pub(crate) result: Result,
}

/// Handles the events of a memory descriptor.
pub(crate) trait Handler: Send + Sync {
    /// A message that uses the descriptor has ended.
    ///
    /// Thread context, may sleep; no lock is held that sending or receiving takes. It must not wait for
    /// the network, because a scheduler calls it. The ACK of a PUT is sent after this has returned.
    fn event(&self, portals: &Arc<PortalsInner>, event: &MdEvent);
}

#[kunit_tests(socklnd_portals_md)]
mod tests {
    use super::*;

    #[test]
    fn fits() {
        assert_eq!(TooLong::Reject.fit(100, 0, 100), Some(100));
        assert_eq!(TooLong::Reject.fit(100, 60, 40), Some(40));
        assert_eq!(TooLong::Reject.fit(100, 100, 0), Some(0));
        assert_eq!(TooLong::Reject.fit(0, 0, 0), Some(0));
    }

    #[test]
    fn too_long() {
        assert_eq!(TooLong::Reject.fit(100, 0, 101), None);
        assert_eq!(TooLong::Reject.fit(100, 60, 41), None);
        assert_eq!(TooLong::Truncate.fit(100, 0, 101), Some(100));
        assert_eq!(TooLong::Truncate.fit(100, 60, u32::MAX), Some(40));
        assert_eq!(TooLong::Truncate.fit(100, 100, 1), Some(0));
    }

    #[test]
    fn offset_behind_the_end() {
        assert_eq!(TooLong::Truncate.fit(100, 101, 0), None);
        assert_eq!(TooLong::Truncate.fit(100, u32::MAX, u32::MAX), None);
        assert_eq!(TooLong::Reject.fit(100, u32::MAX, 1), None);
    }
}
