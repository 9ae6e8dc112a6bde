// SPDX-License-Identifier: GPL-2.0

//! Pools of forwarding buffers, and who waits for one: a service to the message layer that forwards.
//!
//! A network namespace, which is a node, has one [`Forwarder`]. Its memory is there only while an
//! administrator wants the node to forward. It is shared by [`Arc`]; what changes is in its pools, see
//! [`pool`], and in its table of shares, which have locks of their own.
//!
//! Who waits for a buffer parks its connection, see [`Waiter`](crate::upper::Waiter), and is asked again
//! when there may be one. Where messages go is decided elsewhere.

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
    }, //
};

use self::pool::{
    Share,
    Stuck, //
};

pub(crate) use self::pool::{
    Place,
    PoolInfo,
    Take,
    Way, //
};

pub(crate) type Pool = pool::Pool<dyn Receiving>;
pub(crate) type Fmb = pool::Fmb<dyn Receiving>;

/// From so many on, shares that nothing is counted by are thrown away. Each takes about a quarter of a KiB.
const SWEEP_AT: usize = 1024;

/// The most nodes and addresses that are counted by at a time.
const MAX_SHARES: usize = 16384;

/// Whose share of the buffers it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The machine with this address.
    Addr(IpAddr),
    /// This node.
    Node(Nid),
}

/// Who has a share of the buffers.
struct Shares {
    tree: RBTree<Key, Arc<Share>>,
    count: usize,
    /// When there are so many, it is looked for some that can go.
    sweep_at: usize,
}

impl Shares {
    /// The shares of a message; the first one that is missing, if there is one.
    fn way(&self, [origin, from, to]: &[Key; 3]) -> core::result::Result<Way, Key> {
        let get = |key: &Key| self.tree.get(key).cloned().ok_or(*key);
        Ok(Way {
            origin: get(origin)?,
            from: get(from)?,
            to: get(to)?,
        })
    }

    fn sweep(&mut self) {
        let mut cursor = self.tree.cursor_front_mut();
        while let Some(at) = cursor {
            let (_, share) = at.current();
            if !share.is_idle() {
                cursor = at.move_next();
                continue;
            }
            (cursor, _) = at.remove_current();
            self.count = self.count.saturating_sub(1);
        }
        self.sweep_at = self.count.saturating_mul(2).max(SWEEP_AT);
    }
}

/// The addresses that one machine can have: an IPv6 one has a whole /64 to choose from.
fn site(addr: IpAddr) -> IpAddr {
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
    /// Innermost.
    #[pin]
    shares: SpinLock<Shares>,
    /// Held while it is switched on or off. Says which.
    #[pin]
    switch: Mutex<bool>,
}

/// What an administrator is told.
pub(crate) struct ForwarderInfo {
    pub(crate) on: bool,
    pub(crate) small: PoolInfo,
    pub(crate) large: PoolInfo,
}

impl Forwarder {
    /// The forwarder of the node `net`: switched off. May sleep.
    pub(crate) fn new(net: Net) -> Result<Arc<Self>> {
        let small = Pool::new(0, PAGE_SIZE)?;
        let large = Pool::new(1, MAX_PAYLOAD as usize)?;
        Arc::pin_init(
            pin_init!(Self {
                net,
                small,
                large,
                shares <- new_spinlock!(
                    Shares {
                        tree: RBTree::new(),
                        count: 0,
                        sweep_at: SWEEP_AT,
                    },
                    "socklnd_fwd_shares"
                ),
                switch <- new_mutex!(false, "socklnd_fwd_switch"),
            }),
            GFP_KERNEL,
        )
    }

    /// The node.
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Switches it on, which takes the memory, or off, which gives it back: at once what nothing is
    /// in, and the rest message by message. Nothing happens if that is so already. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; then it is off.
    pub(crate) fn set(&self, on: bool) -> Result {
        let mut is_on = self.switch.lock();
        if *is_on == on {
            return Ok(());
        }
        *is_on = false;
        if on {
            let (small, large) = tunables::forwarding_buffers();
            self.small.open(small)?;
            self.large.open(large).inspect_err(|_| self.small.close())?;
            *is_on = true;
        } else {
            self.small.close();
            self.large.close();
        }
        Ok(())
    }

    /// Whether it is on. Thread context.
    pub(crate) fn is_on(&self) -> bool {
        self.small.is_open()
    }

    /// The shares by which a message is counted that `from` has sent from `addr`, and that is sent on to
    /// `to`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there are too many, `ENOMEM`.
    pub(crate) fn way(&self, addr: IpAddr, from: Nid, to: Nid) -> Result<Way> {
        let keys = [Key::Addr(site(addr)), Key::Node(from), Key::Node(to)];
        loop {
            // In a statement of its own: the lock is free again when one is added.
            let found = self.shares.lock().way(&keys);
            match found {
                Ok(way) => return Ok(way),
                Err(missing) => self.add_share(missing)?,
            }
        }
    }

    fn add_share(&self, key: Key) -> Result {
        let new = match key {
            Key::Addr(_) => Share::new()?,
            Key::Node(nid) => Share::of_node(nid)?,
        };
        let room = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut shares = self.shares.lock();
        if shares.tree.get(&key).is_some() {
            // Somebody else was faster. What was made is freed with the lock given up.
            drop(shares);
            return Ok(());
        }
        if shares.count >= shares.sweep_at {
            shares.sweep();
        }
        if shares.count >= MAX_SHARES {
            return Err(ENOBUFS);
        }
        shares.count = shares.count.saturating_add(1);
        let _ = shares.tree.insert(room.into_node(key, new));
        Ok(())
    }

    /// If messages wait, and no buffer comes back, has one node give up those that it holds: who sends
    /// too slowly into one, or, told to `give_up`, to whom messages can't be sent on. Thread context, may
    /// sleep.
    pub(crate) fn relieve(&self, now_ms: u64, mut give_up: impl FnMut(Nid)) {
        for pool in [&self.small, &self.large] {
            match pool.stuck(now_ms) {
                Some(Stuck::Receiving(conn)) => conn.give_up(),
                Some(Stuck::Sending(to)) => {
                    if let Some(nid) = to.node() {
                        give_up(nid);
                    }
                }
                None => {}
            }
        }
    }

    /// What there is to tell. May sleep.
    pub(crate) fn info(&self) -> ForwarderInfo {
        let is_on = self.switch.lock();
        ForwarderInfo {
            on: *is_on,
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

impl pool::Waiter for dyn Receiving {
    fn wake(self: Arc<Self>) {
        Receiving::wake(self);
    }
}
