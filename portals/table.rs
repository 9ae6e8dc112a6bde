// SPDX-License-Identifier: GPL-2.0

//! The portal table: finds the memory for a message.
//!
//! A match entry has one memory descriptor and belongs to one of [`MAX_PORTALS`] portals. A message names
//! a portal and 64 match bits. It gets the first entry of that portal whose criteria fit its match bits
//! and its source, and whose descriptor can take it. Entries are ordered: a new one goes in front of
//! all others or behind them.
//!
//! Most entries have exact match bits. A tree finds these by their bits; only the few entries that ignore some
//! bits are tried one by one. So services can post thousands of entries.
//!
//! A [`MatchTable`] is protected by a spinlock of [`super::PortalsInner`]. It never allocates and never
//! drops an entry: entries that are removed are returned to the caller, who drops them with no lock
//! held, because memory is freed with them.

use super::md::{
    Access,
    Md,
    Placement,
    Reuse, //
};
use crate::{
    lib_linux::page::PageRange,
    wire::Nid, //
};
use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode,
        RBTreeNodeReservation, //
    },
    sync::Arc, //
};

/// The number of portals.
pub(crate) const MAX_PORTALS: u32 = 64;

/// The most entries in a table.
const MAX_ENTRIES: usize = 16384;
/// The most entries in a table that ignore some match bits.
const MAX_WILD: usize = 64;

/// Which messages an entry matches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Criteria {
    /// The portal that it belongs to.
    pub(crate) portal: u32,
    /// The match bits.
    pub(crate) match_bits: u64,
    /// The bits that may differ.
    pub(crate) ignore_bits: u64,
    /// The source; `None` for any.
    pub(crate) source: Option<Nid>,
}

impl Criteria {
    fn class(&self) -> Class {
        if self.ignore_bits == 0 {
            Class::Exact(self.match_bits, self.source)
        } else {
            Class::Wild
        }
    }

    fn accept(&self, info: &MatchInfo) -> bool {
        self.portal == info.portal
            && (self.match_bits ^ info.match_bits) & !self.ignore_bits == 0
            && self.source.is_none_or(|nid| nid == info.from)
    }
}

/// The place of a new entry among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// In front of them.
    First,
    /// Behind them.
    Last,
}

/// What a message is matched by.
#[derive(Clone, Copy, Debug)]
pub(super) struct MatchInfo {
    pub(super) access: Access,
    pub(super) from: Nid,
    pub(super) portal: u32,
    pub(super) match_bits: u64,
    pub(super) offset: u32,
    /// The length of the PUT's payload, or of the memory that a GET is for.
    pub(super) length: u32,
}

/// How an entry is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// By its match bits and its source.
    Exact(u64, Option<Nid>),
    /// One by one: it ignores some match bits.
    Wild,
}

/// The key of an entry in the tree. Within a class, entries are in the order in which they match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    portal: u32,
    class: Class,
    order: i64,
}

/// Identifies a match entry. No two entries of a table ever have the same handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MeHandle(Key);

struct Entry {
    criteria: Criteria,
    md: Arc<Md>,
    /// Bytes of the descriptor that are filled, if it is an appending one.
    filled: u32,
    /// How often it may still be used, if that is limited.
    uses: Option<u32>,
    /// Whether a message uses the descriptor, if it is for one at a time.
    is_busy: bool,
}

impl Entry {
    /// The offset and length of the memory that a message gets; `None` if it does not match.
    fn fit(&self, info: &MatchInfo) -> Option<(u32, u32)> {
        if self.is_busy || self.md.access != info.access || !self.criteria.accept(info) {
            return None;
        }
        let offset = match self.md.placement {
            Placement::Remote => info.offset,
            Placement::Append => self.filled,
        };
        Some((offset, self.md.fit(offset, info.length)?))
    }
}

/// An entry that was removed. Dropped with no lock held.
pub(super) struct Unlinked(
    #[expect(dead_code, reason = "held to be dropped")] RBTreeNode<Key, Entry>,
);

/// Memory for an entry.
pub(super) struct Reservation(RBTreeNodeReservation<Key, Entry>);

impl Reservation {
    /// May sleep.
    pub(super) fn new() -> Result<Self> {
        Ok(Self(RBTreeNodeReservation::new(GFP_KERNEL)?))
    }
}

/// The memory that a message gets.
pub(super) struct Match {
    pub(super) me: MeHandle,
    pub(super) md: Arc<Md>,
    /// The part of the descriptor that the message is for.
    pub(super) range: PageRange,
    /// The entry, if this is its last use.
    pub(super) unlinked: Option<Unlinked>,
}

/// All match entries of an NI.
pub(super) struct MatchTable {
    entries: RBTree<Key, Entry>,
    len: usize,
    /// The number of [`Class::Wild`] entries.
    nwild: usize,
    /// The order of the first entry, and of the last one.
    first: i64,
    last: i64,
    is_shut_down: bool,
}

impl MatchTable {
    /// An empty table.
    pub(super) fn new() -> Self {
        Self {
            entries: RBTree::new(),
            len: 0,
            nwild: 0,
            first: 0,
            last: 0,
            is_shut_down: false,
        }
    }

    /// Adds an entry. On error the memory is returned, to be dropped with no lock held.
    ///
    /// # Errors
    ///
    /// - `ESHUTDOWN` if the table was shut down.
    /// - `EINVAL` if there is no such portal, or the entry could never be used.
    /// - `ENOSPC` if there are too many.
    pub(super) fn insert(
        &mut self,
        reservation: Reservation,
        criteria: Criteria,
        position: Position,
        md: &Arc<Md>,
    ) -> core::result::Result<MeHandle, (Error, Reservation)> {
        let class = criteria.class();
        let is_wild = class == Class::Wild;
        let error = if self.is_shut_down {
            Some(ESHUTDOWN)
        } else if criteria.portal >= MAX_PORTALS || md.reuse == Reuse::Times(0) {
            Some(EINVAL)
        } else if self.len >= MAX_ENTRIES || (is_wild && self.nwild >= MAX_WILD) {
            Some(ENOSPC)
        } else {
            None
        };
        if let Some(error) = error {
            return Err((error, reservation));
        }
        // 64 bits last for ever.
        let order = match position {
            Position::First => {
                self.first = self.first.wrapping_sub(1);
                self.first
            }
            Position::Last => {
                self.last = self.last.wrapping_add(1);
                self.last
            }
        };
        let key = Key {
            portal: criteria.portal,
            class,
            order,
        };
        let entry = Entry {
            criteria,
            md: md.clone(),
            filled: 0,
            uses: match md.reuse {
                Reuse::Times(uses) => Some(uses),
                Reuse::Always | Reuse::OneAtATime => None,
            },
            is_busy: false,
        };
        // Nothing is replaced: no other entry has this order.
        let _ = self.entries.insert(reservation.0.into_node(key, entry));
        self.len += 1;
        self.nwild += usize::from(is_wild);
        Ok(MeHandle(key))
    }

    /// Removes an entry, if it is there.
    pub(super) fn remove(&mut self, me: MeHandle) -> Option<Unlinked> {
        let node = self.entries.remove_node(&me.0)?;
        self.len -= 1;
        self.nwild -= usize::from(me.0.class == Class::Wild);
        Some(Unlinked(node))
    }

    /// The number of entries. For tests.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Refuses new entries from now on, and removes one. To be called until there is none.
    pub(super) fn shut_down_next(&mut self) -> Option<Unlinked> {
        self.is_shut_down = true;
        let key = *self.entries.cursor_front()?.current().0;
        self.remove(MeHandle(key))
    }

    /// The first entry of a portal and class that matches, with the offset and length of the memory.
    fn first_match(&mut self, class: Class, info: &MatchInfo) -> Option<(Key, u32, u32)> {
        let start = Key {
            portal: info.portal,
            class,
            order: i64::MIN,
        };
        let mut cursor = self.entries.cursor_lower_bound_mut(&start);
        while let Some(at) = cursor {
            let (key, entry) = at.current();
            if key.portal != info.portal || key.class != class {
                break;
            }
            if let Some((offset, mlength)) = entry.fit(info) {
                return Some((*key, offset, mlength));
            }
            cursor = at.move_next();
        }
        None
    }

    /// Finds the memory for a message, and notes its use.
    pub(super) fn match_md(&mut self, info: &MatchInfo) -> Option<Match> {
        let classes = [
            Class::Exact(info.match_bits, Some(info.from)),
            Class::Exact(info.match_bits, None),
            Class::Wild,
        ];
        let mut found: Option<(Key, u32, u32)> = None;
        for class in classes {
            if let Some(other) = self.first_match(class, info) {
                if found.is_none_or(|(key, ..)| other.0.order < key.order) {
                    found = Some(other);
                }
            }
        }
        let (key, offset, mlength) = found?;
        let entry = self.entries.get_mut(&key)?;
        let md = entry.md.clone();
        let range = md.range.slice(offset as usize, mlength as usize).ok()?;
        entry.is_busy = md.reuse == Reuse::OneAtATime;
        if md.placement == Placement::Append {
            entry.filled = offset.saturating_add(mlength);
        }
        let mut is_spent = false;
        if let Some(uses) = &mut entry.uses {
            *uses = uses.saturating_sub(1);
            is_spent = *uses == 0;
        }
        let me = MeHandle(key);
        Some(Match {
            me,
            md,
            range,
            unlinked: if is_spent { self.remove(me) } else { None },
        })
    }

    /// Notes that the message has ended that used a descriptor for one message at a time.
    pub(super) fn release(&mut self, me: MeHandle) {
        if let Some(entry) = self.entries.get_mut(&me.0) {
            entry.is_busy = false;
        }
    }
}

#[kunit_tests(socklnd_portals_table)]
mod tests {
    use super::*;
    use crate::{
        lib_linux::page::Pages,
        portals::md::TooLong, //
    };

    fn nid(last: u8) -> Nid {
        Nid::tcp(0, [10, 0, 0, last])
    }

    fn md(access: Access, len: usize) -> Result<Md> {
        let pages = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
        Ok(Md {
            range: PageRange::new(pages, 0, len)?,
            access,
            too_long: TooLong::Reject,
            placement: Placement::Remote,
            reuse: Reuse::Always,
            handler: None,
        })
    }

    const ANY: Criteria = Criteria {
        portal: 4,
        match_bits: 0x10,
        ignore_bits: 0,
        source: None,
    };

    fn put(from: u8, match_bits: u64, length: u32) -> MatchInfo {
        MatchInfo {
            access: Access::Put,
            from: nid(from),
            portal: 4,
            match_bits,
            offset: 0,
            length,
        }
    }

    fn add(table: &mut MatchTable, what: Criteria, at: Position, md: Md) -> Result<MeHandle> {
        let md = Arc::new(md, GFP_KERNEL)?;
        table
            .insert(Reservation::new()?, what, at, &md)
            .map_err(|(e, _)| e)
    }

    fn first_me(table: &mut MatchTable, info: &MatchInfo) -> Option<MeHandle> {
        table.match_md(info).map(|found| found.me)
    }

    #[test]
    fn bits_portal_and_access() -> Result {
        let mut table = MatchTable::new();
        let me = add(&mut table, ANY, Position::Last, md(Access::Put, 100)?)?;
        assert_eq!(first_me(&mut table, &put(1, 0x10, 100)), Some(me));
        assert_eq!(first_me(&mut table, &put(1, 0x11, 100)), None);
        assert_eq!(first_me(&mut table, &put(1, 0x10, 101)), None);
        let mut other = put(1, 0x10, 100);
        other.portal = 5;
        assert_eq!(first_me(&mut table, &other), None);
        other.portal = u32::MAX;
        assert_eq!(first_me(&mut table, &other), None);
        let mut get = put(1, 0x10, 100);
        get.access = Access::Get;
        assert_eq!(first_me(&mut table, &get), None);
        Ok(())
    }

    #[test]
    fn ignored_bits() -> Result {
        let mut table = MatchTable::new();
        let what = Criteria {
            ignore_bits: 0xff,
            ..ANY
        };
        let me = add(&mut table, what, Position::Last, md(Access::Put, 100)?)?;
        assert_eq!(first_me(&mut table, &put(1, 0x10, 1)), Some(me));
        assert_eq!(first_me(&mut table, &put(1, 0xab, 1)), Some(me));
        assert_eq!(first_me(&mut table, &put(1, 0x110, 1)), None);
        Ok(())
    }

    #[test]
    fn source() -> Result {
        let mut table = MatchTable::new();
        let what = Criteria {
            source: Some(nid(1)),
            ..ANY
        };
        let one = add(&mut table, what, Position::Last, md(Access::Put, 100)?)?;
        let any = add(&mut table, ANY, Position::Last, md(Access::Put, 100)?)?;
        assert_eq!(first_me(&mut table, &put(1, 0x10, 1)), Some(one));
        assert_eq!(first_me(&mut table, &put(2, 0x10, 1)), Some(any));
        Ok(())
    }

    #[test]
    fn order_goes_across_classes() -> Result {
        let mut table = MatchTable::new();
        let wild = Criteria {
            ignore_bits: 0xff,
            ..ANY
        };
        let a = add(&mut table, ANY, Position::Last, md(Access::Put, 10)?)?;
        let b = add(&mut table, wild, Position::Last, md(Access::Put, 20)?)?;
        let c = add(&mut table, ANY, Position::Last, md(Access::Put, 30)?)?;
        assert_eq!(first_me(&mut table, &put(1, 0x10, 10)), Some(a));
        // A message that does not fit the first one gets the next one.
        assert_eq!(first_me(&mut table, &put(1, 0x10, 20)), Some(b));
        assert_eq!(first_me(&mut table, &put(1, 0x10, 30)), Some(c));
        assert_eq!(first_me(&mut table, &put(1, 0x10, 31)), None);
        let d = add(&mut table, wild, Position::First, md(Access::Put, 10)?)?;
        let e = add(&mut table, wild, Position::First, md(Access::Put, 5)?)?;
        assert_eq!(first_me(&mut table, &put(1, 0x10, 10)), Some(d));
        assert_eq!(first_me(&mut table, &put(1, 0x10, 5)), Some(e));
        assert!(table.remove(d).is_some());
        assert!(table.remove(d).is_none());
        assert_eq!(first_me(&mut table, &put(1, 0x10, 10)), Some(a));
        Ok(())
    }

    #[test]
    fn truncation() -> Result {
        let mut table = MatchTable::new();
        let mut cut = md(Access::Put, 100)?;
        cut.too_long = TooLong::Truncate;
        add(&mut table, ANY, Position::Last, cut)?;
        let mut info = put(1, 0x10, 300);
        info.offset = 40;
        let found = table.match_md(&info).ok_or(EINVAL)?;
        assert_eq!((found.range.offset(), found.range.len()), (40, 60));
        info.offset = 100;
        let found = table.match_md(&info).ok_or(EINVAL)?;
        assert_eq!((found.range.offset(), found.range.len()), (100, 0));
        info.offset = 101;
        assert!(table.match_md(&info).is_none());
        Ok(())
    }

    #[test]
    fn used_once() -> Result {
        let mut table = MatchTable::new();
        let mut once = md(Access::Put, 100)?;
        once.reuse = Reuse::Times(1);
        let me = add(&mut table, ANY, Position::Last, once)?;
        let found = table.match_md(&put(1, 0x10, 1)).ok_or(EINVAL)?;
        assert_eq!(found.me, me);
        assert!(found.unlinked.is_some());
        assert_eq!(table.len(), 0);
        assert!(table.match_md(&put(1, 0x10, 1)).is_none());
        assert!(table.remove(me).is_none());
        Ok(())
    }

    #[test]
    fn one_at_a_time() -> Result {
        let mut table = MatchTable::new();
        let mut exclusive = md(Access::Put, 100)?;
        exclusive.reuse = Reuse::OneAtATime;
        let me = add(&mut table, ANY, Position::Last, exclusive)?;
        assert_eq!(first_me(&mut table, &put(1, 0x10, 1)), Some(me));
        assert_eq!(first_me(&mut table, &put(1, 0x10, 1)), None);
        table.release(me);
        assert_eq!(first_me(&mut table, &put(1, 0x10, 1)), Some(me));
        // Unlinked while a message uses it.
        assert!(table.remove(me).is_some());
        table.release(me);
        assert_eq!(first_me(&mut table, &put(1, 0x10, 1)), None);
        Ok(())
    }

    #[test]
    fn appending() -> Result {
        let mut table = MatchTable::new();
        let mut append = md(Access::Put, 100)?;
        append.placement = Placement::Append;
        add(&mut table, ANY, Position::Last, append)?;
        let mut info = put(1, 0x10, 60);
        info.offset = 99;
        let found = table.match_md(&info).ok_or(EINVAL)?;
        assert_eq!((found.range.offset(), found.range.len()), (0, 60));
        assert!(table.match_md(&info).is_none());
        info.length = 40;
        let found = table.match_md(&info).ok_or(EINVAL)?;
        assert_eq!((found.range.offset(), found.range.len()), (60, 40));
        Ok(())
    }

    #[test]
    fn refused_entries() -> Result {
        let mut table = MatchTable::new();
        let what = Criteria {
            portal: MAX_PORTALS,
            ..ANY
        };
        let me = add(&mut table, what, Position::Last, md(Access::Put, 1)?);
        assert_eq!(me.err(), Some(EINVAL));
        let mut never = md(Access::Put, 1)?;
        never.reuse = Reuse::Times(0);
        assert_eq!(
            add(&mut table, ANY, Position::Last, never).err(),
            Some(EINVAL)
        );
        Ok(())
    }

    #[test]
    fn closed() -> Result {
        let mut table = MatchTable::new();
        add(&mut table, ANY, Position::Last, md(Access::Put, 1)?)?;
        add(&mut table, ANY, Position::Last, md(Access::Get, 1)?)?;
        assert!(table.shut_down_next().is_some());
        assert!(table.shut_down_next().is_some());
        assert!(table.shut_down_next().is_none());
        assert_eq!(table.len(), 0);
        let me = add(&mut table, ANY, Position::Last, md(Access::Put, 1)?);
        assert_eq!(me.err(), Some(ESHUTDOWN));
        Ok(())
    }
}
