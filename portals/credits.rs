// SPDX-License-Identifier: GPL-2.0

//! Response credits: how many ACKs and REPLYs wait to be sent to each node.
//!
//! A node that sends requests and does not read the responses must not fill this node's memory with them, nor
//! use up what others need. So a request is dropped when too many responses wait. Each node has a count,
//! which exists while it is not zero. [`RESERVED_PER_NODE`] responses are reserved for each node; beyond that
//! a node may have up to [`MAX_PER_NODE`], of the [`MAX_SHARED`] that all nodes share. The same holds for nodes
//! behind gateways; but a gateway can name any number of nodes, so no more than [`MAX_ROUTED`] of these are
//! counted at a time. The number of peers is bounded by that of their connections.
//!
//! A [`ResponseCredits`] belongs to the message layer of one NI. A spinlock, taken in thread context only,
//! protects its counts; no other lock is taken while it is held. A [`ResponseCredit`] is one response,
//! counted until it is dropped.

use super::PortalsInner;
use crate::{
    lib_linux::misc,
    wire::Nid, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode,
        RBTreeNodeReservation, //
    },
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// Unsent responses that each node may have. A node that reads hardly ever has more.
const RESERVED_PER_NODE: u32 = 8;
/// The most unsent responses to one node.
const MAX_PER_NODE: u32 = 1024;
/// The most unsent responses to all nodes together beyond those that are reserved. Each takes about half a KiB.
const MAX_SHARED: u32 = 64 << 10;
/// The most nodes behind gateways that have unsent responses.
const MAX_ROUTED: u32 = 4096;

/// How a response reaches its node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// The node is a peer.
    Direct,
    /// The node is behind a gateway.
    Routed,
}

/// What responses are counted by: the node, and how it is reached.
type Key = (Nid, Reach);

/// The counts of all nodes that have unsent responses.
struct Table {
    counts: RBTree<Key, u32>,
    /// The sum of all counts beyond what is reserved.
    shared: u32,
    /// The number of nodes behind gateways.
    routed: u32,
}

/// Whether one more response can be counted.
enum Counted {
    Yes,
    TooMany,
    /// The node has no count yet, and adding one takes memory.
    NoEntry,
}

impl Table {
    /// Counts one more response to a node that has a count.
    fn add(&mut self, key: Key) -> Counted {
        let Some(count) = self.counts.get_mut(&key) else {
            return Counted::NoEntry;
        };
        if *count >= RESERVED_PER_NODE {
            if *count >= MAX_PER_NODE || self.shared >= MAX_SHARED {
                return Counted::TooMany;
            }
            self.shared += 1;
        }
        *count += 1;
        Counted::Yes
    }

    /// Counts one more response, if need be with the memory in `node`. What is not used is returned, to be
    /// dropped with no lock held.
    fn add_entry(
        &mut self,
        key: Key,
        node: RBTreeNodeReservation<Key, u32>,
    ) -> (Counted, Option<RBTreeNodeReservation<Key, u32>>) {
        match self.add(key) {
            Counted::NoEntry => {}
            counted => return (counted, Some(node)),
        }
        if key.1 == Reach::Routed {
            if self.routed >= MAX_ROUTED {
                return (Counted::TooMany, Some(node));
            }
            self.routed += 1;
        }
        // Nothing is replaced: there is no such entry.
        let _ = self.counts.insert(node.into_node(key, 1));
        (Counted::Yes, None)
    }

    /// Counts one response less. The entry that is returned is to be dropped with no lock held.
    fn sub(&mut self, key: Key) -> Option<RBTreeNode<Key, u32>> {
        let count = self.counts.get_mut(&key)?;
        if *count > RESERVED_PER_NODE {
            self.shared = self.shared.saturating_sub(1);
        }
        *count = count.saturating_sub(1);
        if *count > 0 {
            return None;
        }
        if key.1 == Reach::Routed {
            self.routed = self.routed.saturating_sub(1);
        }
        self.counts.remove_node(&key)
    }
}

/// Counts the responses of one NI that wait to be sent.
#[pin_data]
pub(super) struct ResponseCredits {
    #[pin]
    table: SpinLock<Table>,
}

impl ResponseCredits {
    /// No response waits.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            table <- new_spinlock!(
                Table {
                    counts: RBTree::new(),
                    shared: 0,
                    routed: 0,
                },
                "socklnd_portals_credits"
            ),
        })
    }

    /// Counts one more response. Returns `false` if there are too many, or no memory. May sleep.
    fn add(&self, nid: Nid, reach: Reach) -> bool {
        let key = (nid, reach);
        let counted = self.table.lock().add(key);
        match counted {
            Counted::Yes => return true,
            Counted::TooMany => return false,
            Counted::NoEntry => {}
        }
        let Ok(node) = RBTreeNodeReservation::new(GFP_KERNEL) else {
            return false;
        };
        let (counted, unused) = self.table.lock().add_entry(key, node);
        drop(unused);
        matches!(counted, Counted::Yes)
    }

    fn sub(&self, nid: Nid, reach: Reach) {
        let entry = self.table.lock().sub((nid, reach));
        drop(entry);
    }
}

/// One unsent response, counted until it is dropped. Dropped in thread context, no spinlock held.
pub(super) struct ResponseCredit {
    portals: Arc<PortalsInner>,
    to: Nid,
    reach: Reach,
}

impl ResponseCredit {
    /// Counts one more response to `to`, whose request was received from `via`. `None` if too many wait.
    /// May sleep.
    pub(super) fn new(portals: &Arc<PortalsInner>, to: Nid, via: Nid) -> Option<Self> {
        let reach = if via == to {
            Reach::Direct
        } else {
            Reach::Routed
        };
        portals.credits.add(to, reach).then(|| Self {
            portals: portals.clone(),
            to,
            reach,
        })
    }

    /// The message layer that sends the response.
    pub(super) fn portals(&self) -> &PortalsInner {
        &self.portals
    }
}

impl Drop for ResponseCredit {
    fn drop(&mut self) {
        misc::assert_may_sleep();
        self.portals.credits.sub(self.to, self.reach);
    }
}

#[kunit_tests(socklnd_portals_credits)]
mod tests {
    use super::*;

    fn nid(number: u32) -> Nid {
        Nid::tcp(0, core::net::Ipv4Addr::from_bits(0x0a00_0000 | number))
    }

    /// Counts as many responses as possible, and returns their number.
    fn take_all(credits: &ResponseCredits, number: u32, reach: Reach) -> u32 {
        let mut count = 0;
        while credits.add(nid(number), reach) {
            count += 1;
        }
        count
    }

    #[test]
    fn nobody_takes_from_others() -> Result {
        let credits = KBox::pin_init(ResponseCredits::new(), GFP_KERNEL)?;
        // Many nodes that do not read, and then many that do.
        for greedy in 1..=40 {
            assert_eq!(take_all(&credits, greedy, Reach::Direct), MAX_PER_NODE);
        }
        for innocent in 1000..1300 {
            for _ in 0..RESERVED_PER_NODE {
                assert!(credits.add(nid(innocent), Reach::Direct));
            }
        }
        for innocent in 1000..1300 {
            for _ in 0..RESERVED_PER_NODE {
                credits.sub(nid(innocent), Reach::Direct);
            }
        }
        credits.sub(nid(1), Reach::Direct);
        assert_eq!(take_all(&credits, 1, Reach::Direct), 1);
        Ok(())
    }

    #[test]
    fn all_together_are_bounded() -> Result {
        let credits = KBox::pin_init(ResponseCredits::new(), GFP_KERNEL)?;
        let mut shared = 0;
        let mut greedy = 0;
        while shared < MAX_SHARED {
            greedy += 1;
            shared += take_all(&credits, greedy, Reach::Direct) - RESERVED_PER_NODE;
        }
        assert_eq!(shared, MAX_SHARED);
        assert_eq!(
            take_all(&credits, greedy + 1, Reach::Direct),
            RESERVED_PER_NODE
        );
        // What one node gives back, another one can have.
        credits.sub(nid(1), Reach::Direct);
        assert_eq!(
            take_all(&credits, greedy + 2, Reach::Direct),
            RESERVED_PER_NODE + 1
        );
        Ok(())
    }

    #[test]
    fn a_gateway_names_so_many_nodes() -> Result {
        let credits = KBox::pin_init(ResponseCredits::new(), GFP_KERNEL)?;
        for number in 0..MAX_ROUTED {
            assert!(credits.add(nid(number), Reach::Routed));
        }
        assert!(!credits.add(nid(MAX_ROUTED), Reach::Routed));
        assert!(credits.add(nid(0), Reach::Routed));
        // Peers are not affected, nor is a peer that is also behind a gateway.
        assert!(credits.add(nid(MAX_ROUTED), Reach::Direct));
        credits.sub(nid(0), Reach::Routed);
        assert!(!credits.add(nid(MAX_ROUTED), Reach::Routed));
        credits.sub(nid(0), Reach::Routed);
        assert!(credits.add(nid(MAX_ROUTED), Reach::Routed));
        credits.sub(nid(MAX_ROUTED + 1), Reach::Routed);
        Ok(())
    }
}
