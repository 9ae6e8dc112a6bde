// SPDX-License-Identifier: GPL-2.0

//! How many answers wait to be sent, and to whom.
//!
//! A node that asks and does not read the answers must not fill our memory with them, nor take theirs
//! from others: what it asks when too many wait is dropped. Each node has a count of its own, which
//! exists while there is something to count. Up to [`ASSURED`] answers it gets whatever others do; beyond,
//! up to [`MAX_OWED`] of the [`MAX_EXTRA`] that all nodes have together. Who is reached through gateways
//! is counted by the same rules, but a gateway can name any number of nodes: so no more than
//! [`MAX_ROUTED`] of them are counted at a time. Of direct peers there are as many as may connect.
//!
//! An [`Owed`] belongs to the message layer of one interface, and its counts to a spinlock, taken in
//! thread context only and innermost. A [`Debt`] is one answer, counted until it is dropped.

use super::Core;
use crate::wire::Nid;
use kernel::{
    new_spinlock,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// So many unsent answers a node may have whatever others do. Who reads has hardly ever more.
const ASSURED: u32 = 8;
/// The most unsent answers to one node.
const MAX_OWED: u32 = 1024;
/// The most unsent answers to all nodes together beyond what is assured. Each takes about half a
/// KiB.
const MAX_EXTRA: u32 = 64 << 10;
/// The most nodes behind gateways to which answers are owed.
const MAX_ROUTED: u32 = 4096;

/// The way that an answer takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The node is a peer.
    Direct,
    /// Through a gateway.
    Routed,
}

/// Memory for a node in the table.
type Room = RBTreeNodeReservation<(Nid, bool), u32>;

/// Nodes that are owed answers, by NID, and by how they are reached.
struct Table {
    counts: RBTree<(Nid, bool), u32>,
    extra: u32,
    routed: u32,
}

/// What the table says to one more answer.
enum Verdict {
    Counted,
    TooMany,
    /// The node is not in it yet: memory is wanted.
    Unknown,
}

impl Table {
    fn key(nid: Nid, reach: Reach) -> (Nid, bool) {
        (nid, reach == Reach::Routed)
    }

    /// Counts one more answer to a node that is in the table.
    fn add(&mut self, nid: Nid, reach: Reach) -> Verdict {
        let Some(count) = self.counts.get_mut(&Self::key(nid, reach)) else {
            return Verdict::Unknown;
        };
        if *count >= ASSURED {
            if *count >= MAX_OWED || self.extra >= MAX_EXTRA {
                return Verdict::TooMany;
            }
            self.extra += 1;
        }
        *count += 1;
        Verdict::Counted
    }

    /// Brings in a node that was not there a moment ago, with its first answer. What is not used comes
    /// back, to be dropped with no lock held.
    fn add_first(&mut self, nid: Nid, reach: Reach, room: Room) -> (Verdict, Option<Room>) {
        match self.add(nid, reach) {
            Verdict::Unknown => {}
            verdict => return (verdict, Some(room)),
        }
        if reach == Reach::Routed {
            if self.routed >= MAX_ROUTED {
                return (Verdict::TooMany, Some(room));
            }
            self.routed += 1;
        }
        // Nothing is replaced: it was just looked for.
        let _ = self.counts.insert(room.into_node(Self::key(nid, reach), 1));
        (Verdict::Counted, None)
    }

    /// An answer is owed no longer. What comes back is to be dropped with no lock held.
    fn sub(
        &mut self,
        nid: Nid,
        reach: Reach,
    ) -> Option<kernel::rbtree::RBTreeNode<(Nid, bool), u32>> {
        let key = Self::key(nid, reach);
        let count = self.counts.get_mut(&key)?;
        if *count > ASSURED {
            self.extra = self.extra.saturating_sub(1);
        }
        *count = count.saturating_sub(1);
        if *count > 0 {
            return None;
        }
        if reach == Reach::Routed {
            self.routed = self.routed.saturating_sub(1);
        }
        self.counts.remove_node(&key)
    }
}

/// Counts the answers of one interface that wait to be sent.
#[pin_data]
pub(super) struct Owed {
    #[pin]
    table: SpinLock<Table>,
}

impl Owed {
    /// Nothing is owed to anybody.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            table <- new_spinlock!(
                Table {
                    counts: RBTree::new(),
                    extra: 0,
                    routed: 0,
                },
                "socklnd_portals_owed"
            ),
        })
    }

    /// One more answer; `false` if there are too many, or no memory to count it. May sleep.
    fn add(&self, nid: Nid, reach: Reach) -> bool {
        let verdict = self.table.lock().add(nid, reach);
        match verdict {
            Verdict::Counted => return true,
            Verdict::TooMany => return false,
            Verdict::Unknown => {}
        }
        let Ok(room) = RBTreeNodeReservation::new(GFP_KERNEL) else {
            return false;
        };
        let (verdict, left) = self.table.lock().add_first(nid, reach, room);
        drop(left);
        matches!(verdict, Verdict::Counted)
    }

    fn sub(&self, nid: Nid, reach: Reach) {
        let gone = self.table.lock().sub(nid, reach);
        drop(gone);
    }
}

/// One unsent answer, counted until it is dropped. Dropped in thread context, no spinlock held.
pub(super) struct Debt {
    core: Arc<Core>,
    to: Nid,
    reach: Reach,
}

impl Debt {
    /// Counts one more answer to `to`, whose question `via` has sent or passed on. `None` if too many
    /// wait. May sleep.
    pub(super) fn new(core: &Arc<Core>, to: Nid, via: Nid) -> Option<Self> {
        let reach = if via == to {
            Reach::Direct
        } else {
            Reach::Routed
        };
        core.owed.add(to, reach).then(|| Self {
            core: core.clone(),
            to,
            reach,
        })
    }

    /// The message layer that owes it.
    pub(super) fn core(&self) -> &Core {
        &self.core
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        self.core.owed.sub(self.to, self.reach);
    }
}

#[kunit_tests(socklnd_portals_owed)]
mod tests {
    use super::*;

    fn nid(number: u32) -> Nid {
        Nid::tcp(0, core::net::Ipv4Addr::from_bits(0x0a00_0000 | number))
    }

    /// As many as can be had.
    fn take_all(owed: &Owed, number: u32, reach: Reach) -> u32 {
        let mut count = 0;
        while owed.add(nid(number), reach) {
            count += 1;
        }
        count
    }

    #[test]
    fn nobody_takes_from_others() -> Result {
        let owed = KBox::pin_init(Owed::new(), GFP_KERNEL)?;
        // Those who ask and don't read, and many who do.
        for greedy in 1..=40 {
            assert_eq!(take_all(&owed, greedy, Reach::Direct), MAX_OWED);
        }
        for innocent in 1000..1300 {
            for _ in 0..ASSURED {
                assert!(owed.add(nid(innocent), Reach::Direct));
            }
        }
        for innocent in 1000..1300 {
            for _ in 0..ASSURED {
                owed.sub(nid(innocent), Reach::Direct);
            }
        }
        owed.sub(nid(1), Reach::Direct);
        assert_eq!(take_all(&owed, 1, Reach::Direct), 1);
        Ok(())
    }

    #[test]
    fn all_together_are_bounded() -> Result {
        let owed = KBox::pin_init(Owed::new(), GFP_KERNEL)?;
        let mut extra = 0;
        let mut greedy = 0;
        while extra < MAX_EXTRA {
            greedy += 1;
            extra += take_all(&owed, greedy, Reach::Direct) - ASSURED;
        }
        assert_eq!(extra, MAX_EXTRA);
        assert_eq!(take_all(&owed, greedy + 1, Reach::Direct), ASSURED);
        // Whatever is given back can be had again, by anybody.
        owed.sub(nid(1), Reach::Direct);
        assert_eq!(take_all(&owed, greedy + 2, Reach::Direct), ASSURED + 1);
        Ok(())
    }

    #[test]
    fn a_gateway_names_so_many_nodes() -> Result {
        let owed = KBox::pin_init(Owed::new(), GFP_KERNEL)?;
        for number in 0..MAX_ROUTED {
            assert!(owed.add(nid(number), Reach::Routed));
        }
        assert!(!owed.add(nid(MAX_ROUTED), Reach::Routed));
        assert!(owed.add(nid(0), Reach::Routed));
        // Peers are not concerned, nor is one whose answers also go another way.
        assert!(owed.add(nid(MAX_ROUTED), Reach::Direct));
        owed.sub(nid(0), Reach::Routed);
        assert!(!owed.add(nid(MAX_ROUTED), Reach::Routed));
        owed.sub(nid(0), Reach::Routed);
        assert!(owed.add(nid(MAX_ROUTED), Reach::Routed));
        owed.sub(nid(MAX_ROUTED + 1), Reach::Routed);
        Ok(())
    }
}
