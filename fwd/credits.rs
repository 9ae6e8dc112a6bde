// SPDX-License-Identifier: GPL-2.0

//! How many forwarding buffers a node or an address holds.
//!
//! [`FmbCredits`] exist once for each node and each address that messages come from or go to, and are shared by
//! [`Arc`] between the forwarder's table, the buffers in use and the messages that wait. Their counts are
//! changed under the lock of the pool that they are about; they are atomics because the forwarder reads them
//! without that lock, to find credits that it can free.

use crate::wire::Nid;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// The number of pools of a node: one for small and one for large messages.
pub(super) const POOLS: usize = 2;

/// What one node, or address, holds of one pool.
pub(super) struct FmbUsage {
    /// Buffers with messages from it.
    pub(super) from: Atomic<isize>,
    /// Buffers with messages to it.
    pub(super) to: Atomic<isize>,
    /// Messages from it that wait for a buffer.
    pub(super) waiting: Atomic<u32>,
    /// The source address that was last granted a buffer for a message to it, by [`FmbCredits::id`].
    pub(super) last_addr: Atomic<usize>,
}

/// What a node, or an address, holds of all pools. Messages only come from addresses, they go to nodes.
pub(crate) struct FmbCredits {
    usage: [FmbUsage; POOLS],
    /// Whether the last message to it could be sent.
    is_reached: Atomic<bool>,
    /// The node; `None` for an address.
    node: Option<Nid>,
}

impl FmbCredits {
    /// Of an address, which holds no buffer. May sleep.
    pub(super) fn of_addr() -> Result<Arc<Self>> {
        Self::new(None)
    }

    /// Of a node, which holds no buffer. May sleep.
    pub(super) fn of_node(nid: Nid) -> Result<Arc<Self>> {
        Self::new(Some(nid))
    }

    fn new(node: Option<Nid>) -> Result<Arc<Self>> {
        let none = |_| FmbUsage {
            from: Atomic::new(0),
            to: Atomic::new(0),
            waiting: Atomic::new(0),
            last_addr: Atomic::new(0),
        };
        let credits = Self {
            usage: core::array::from_fn(none),
            is_reached: Atomic::new(false),
            node,
        };
        Ok(Arc::new(credits, GFP_KERNEL)?)
    }

    /// Notes whether a message to the node could be sent. Any context.
    pub(crate) fn set_reached(&self, is_reached: bool) {
        // Most messages change nothing: do not write to a cache line that all processors read.
        if self.is_reached() != is_reached {
            self.is_reached.store(is_reached, Relaxed);
        }
    }

    /// Whether the last message to the node could be sent. Any context.
    pub(super) fn is_reached(&self) -> bool {
        self.is_reached.load(Relaxed)
    }

    /// The node; `None` for an address. Any context.
    pub(super) fn node(&self) -> Option<Nid> {
        self.node
    }

    /// Whether it holds no buffer, and no message from it waits for one. Any context.
    pub(super) fn is_unused(&self) -> bool {
        self.usage.iter().all(|usage| {
            usage.from.load(Relaxed) == 0
                && usage.to.load(Relaxed) == 0
                && usage.waiting.load(Relaxed) == 0
        })
    }

    /// What it holds of a pool. `None` if there is no such pool.
    pub(super) fn usage(&self, pool: usize) -> Option<&FmbUsage> {
        self.usage.get(pool)
    }

    /// A number that differs from that of all other credits that exist.
    pub(super) fn id(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}

/// Where a message comes from and where it goes next.
#[derive(Clone)]
pub(crate) struct FwdPath {
    /// The credits of the address that it came from.
    pub(super) addr: Arc<FmbCredits>,
    /// The credits of the node that sent it to this one.
    pub(super) prev_hop: Arc<FmbCredits>,
    /// The credits of the node that this one sends it to.
    pub(super) next_hop: Arc<FmbCredits>,
}
