// SPDX-License-Identifier: GPL-2.0

//! Pools of forwarding buffers, for a message layer that forwards.
//!
//! A network namespace, which is a node, has one [`Forwarder`]. Its memory exists only while an
//! administrator wants the node to forward. It is shared by [`Arc`]; what changes is in its pools, see
//! [`pool`], and in its table of credits, see [`credits`], which have locks of their own.
//!
//! A connection that waits for a buffer is parked with a [`Waiter`](crate::upper::Waiter), which is asked
//! again when there may be a buffer. Where messages go is decided elsewhere.

mod credits;
mod pool;

use crate::{
    lib_linux::netns::Net,
    tunables,
    upper::Receiving,
    wire::{
        Nid,
        MAX_PAYLOAD, //
    },
};
use core::net::{
    IpAddr,
    Ipv6Addr, //
};
use kernel::{
    new_mutex,
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        Arc,
        Mutex,
        SpinLock, //
    },
    time::Instant, //
};

use self::{
    credits::FmbCredits,
    pool::{
        BlockedConn,
        Stuck, //
    },
};

pub(crate) use self::{
    credits::FwdPath,
    pool::{
        FmbRequest,
        Grant,
        PoolInfo, //
    },
};

pub(crate) type Pool = pool::Pool<dyn Receiving>;
pub(crate) type Fmb = pool::Fmb<dyn Receiving>;

/// From this number of entries on, unused credits are freed. An entry takes about a quarter of a KiB.
const PURGE_AT: usize = 1024;

/// The most nodes and addresses that have credits at a time.
const MAX_CREDITS: usize = 16384;

/// What credits belong to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CreditsKey {
    /// The host with this address.
    Addr(IpAddr),
    /// This node.
    Node(Nid),
}

/// The credits of all nodes and addresses.
struct CreditsTable {
    tree: RBTree<CreditsKey, Arc<FmbCredits>>,
    len: usize,
    /// When there are so many, unused ones are looked for.
    purge_at: usize,
}

impl CreditsTable {
    /// The path of a message; or the first of its keys that is not in the table.
    fn path(&self, keys: &[CreditsKey; 3]) -> core::result::Result<FwdPath, CreditsKey> {
        let [addr, prev_hop, next_hop] = keys;
        let get = |key: &CreditsKey| self.tree.get(key).cloned().ok_or(*key);
        Ok(FwdPath {
            addr: get(addr)?,
            prev_hop: get(prev_hop)?,
            next_hop: get(next_hop)?,
        })
    }

    /// Frees unused credits.
    fn purge(&mut self) {
        let mut cursor = self.tree.cursor_front_mut();
        while let Some(at) = cursor {
            let (_, credits) = at.current();
            if !credits.is_unused() {
                cursor = at.move_next();
                continue;
            }
            (cursor, _) = at.remove_current();
            self.len = self.len.saturating_sub(1);
        }
        self.purge_at = self.len.saturating_mul(2).max(PURGE_AT);
    }
}

/// The addresses that one host can have: in IPv6 it may choose any in a /64.
fn host_prefix(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => addr,
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64).into(),
    }
}

/// The forwarding buffers of one node.
#[pin_data]
pub(crate) struct Forwarder {
    net: Net,
    small: Arc<Pool>,
    large: Arc<Pool>,
    /// No other lock is taken while this one is held.
    #[pin]
    credits: SpinLock<CreditsTable>,
    /// Whether it is enabled. Held while that changes.
    #[pin]
    enabled: Mutex<bool>,
}

/// What an administrator is told about a forwarder.
pub(crate) struct ForwarderInfo {
    pub(crate) is_enabled: bool,
    pub(crate) small: PoolInfo,
    pub(crate) large: PoolInfo,
}

impl Forwarder {
    /// The forwarder of the node `net`, which is disabled. May sleep.
    pub(crate) fn new(net: Net) -> Result<Arc<Self>> {
        let small = Pool::new(0, PAGE_SIZE)?;
        let large = Pool::new(1, MAX_PAYLOAD as usize)?;
        Arc::pin_init(
            pin_init!(Self {
                net,
                small,
                large,
                credits <- new_spinlock!(
                    CreditsTable {
                        tree: RBTree::new(),
                        len: 0,
                        purge_at: PURGE_AT,
                    },
                    "socklnd_fwd_credits"
                ),
                enabled <- new_mutex!(false, "socklnd_fwd_enabled"),
            }),
            GFP_KERNEL,
        )
    }

    /// The node.
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Enables forwarding, which allocates the buffers. Does nothing if it is enabled. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; it stays disabled.
    pub(crate) fn enable(&self) -> Result {
        let mut enabled = self.enabled.lock();
        if !*enabled {
            let (small, large) = tunables::forwarding_buffers();
            self.small.open(small)?;
            self.large.open(large).inspect_err(|_| self.small.close())?;
            *enabled = true;
        }
        Ok(())
    }

    /// Disables forwarding, which frees the buffers: idle ones at once, the others when their messages
    /// have ended. Does nothing if it is disabled. May sleep.
    pub(crate) fn disable(&self) {
        let mut enabled = self.enabled.lock();
        if *enabled {
            *enabled = false;
            self.small.close();
            self.large.close();
        }
    }

    /// Whether it is enabled. Thread context.
    pub(crate) fn is_enabled(&self) -> bool {
        self.small.is_open()
    }

    /// The path of a message that `from` has sent from `addr`, and that is sent on to `to`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if too many nodes and addresses have credits, `ENOMEM`.
    pub(crate) fn path(&self, addr: IpAddr, from: Nid, to: Nid) -> Result<FwdPath> {
        let keys = [
            CreditsKey::Addr(host_prefix(addr)),
            CreditsKey::Node(from),
            CreditsKey::Node(to),
        ];
        loop {
            // In a statement of its own, so that the lock is released before credits are added.
            let found = self.credits.lock().path(&keys);
            match found {
                Ok(path) => return Ok(path),
                Err(missing) => self.add_credits(missing)?,
            }
        }
    }

    fn add_credits(&self, key: CreditsKey) -> Result {
        let new = match key {
            CreditsKey::Addr(_) => FmbCredits::of_addr()?,
            CreditsKey::Node(nid) => FmbCredits::of_node(nid)?,
        };
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut credits = self.credits.lock();
        if credits.tree.get(&key).is_some() {
            // Another thread has added them. Free ours after the lock is released.
            drop(credits);
            return Ok(());
        }
        if credits.len >= credits.purge_at {
            credits.purge();
        }
        if credits.len >= MAX_CREDITS {
            return Err(ENOBUFS);
        }
        credits.len = credits.len.saturating_add(1);
        let _ = credits.tree.insert(node.into_node(key, new));
        Ok(())
    }

    /// If messages wait and no buffer comes back, closes the connection that sends too slowly into one; or
    /// calls `give_up` for the node that nothing can be sent to. Thread context, may sleep.
    pub(crate) fn free_stuck(&self, mut give_up: impl FnMut(Nid)) {
        let now = Instant::now();
        for pool in [&self.small, &self.large] {
            match pool.find_stuck(now) {
                Some(Stuck::Receiving(conn)) => conn.give_up(),
                Some(Stuck::Sending(next_hop)) => {
                    if let Some(nid) = next_hop.node() {
                        give_up(nid);
                    }
                }
                None => {}
            }
        }
    }

    /// What an administrator is told about it. May sleep.
    pub(crate) fn info(&self) -> ForwarderInfo {
        let enabled = self.enabled.lock();
        ForwarderInfo {
            is_enabled: *enabled,
            small: self.small.info(),
            large: self.large.info(),
        }
    }

    /// The pool for a payload of `len` bytes.
    pub(crate) fn pool(&self, len: usize) -> &Arc<Pool> {
        if len <= self.small.bytes() {
            &self.small
        } else {
            &self.large
        }
    }
}

impl BlockedConn for dyn Receiving {
    fn wake(self: Arc<Self>) {
        Receiving::wake(self);
    }
}
