// SPDX-License-Identifier: GPL-2.0

//! The peers of an NI, by NID.
//!
//! A hash table with a lock per bucket, which is taken outside a peer's. Peers are added and unlinked
//! under the bucket's lock, so a closed table stays empty. The hash has a random key, because NIDs come
//! from the network and could be chosen to collide.

use super::{
    Peer,
    PeerInner, //
};
use crate::{
    lib_linux::misc,
    ni::Ni,
    upper::Failure,
    wire::Nid, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::{
        new_spinlock,
        Arc,
        SpinLock, //
    }, //
};

/// The number of buckets.
const PEER_BUCKETS: usize = 128;

#[pin_data]
struct Bucket {
    #[pin]
    inner: SpinLock<BucketInner>,
}

struct BucketInner {
    peers: KVec<Arc<Peer>>,
    closed: bool,
}

/// All peers of an NI.
pub(crate) struct PeerTable {
    buckets: Pin<KBox<[Bucket]>>,
    key: [u64; 2],
}

impl PeerTable {
    /// An empty table. May sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            buckets: KBox::pin_slice(|_| Self::new_bucket(), PEER_BUCKETS, GFP_KERNEL)?,
            key: [misc::random_u64(), misc::random_u64()],
        })
    }

    fn new_bucket() -> impl PinInit<Bucket, Error> {
        try_pin_init!(Bucket {
            inner <- new_spinlock!(
                BucketInner {
                    peers: KVec::new(),
                    closed: false,
                },
                "socklnd_peer_table"
            ),
        })
    }

    fn bucket(&self, nid: Nid) -> Option<&Bucket> {
        let net = u64::from(nid.net());
        let hash = match nid.addr() {
            IpAddr::V4(addr) => misc::siphash(self.key, &[net << 32 | u64::from(addr.to_bits())]),
            IpAddr::V6(addr) => {
                let addr = addr.to_bits();
                misc::siphash(self.key, &[net, (addr >> 64) as u64, addr as u64])
            }
        };
        self.buckets.get((hash % PEER_BUCKETS as u64) as usize)
    }

    /// The peer with this NID. Thread context.
    pub(crate) fn find(&self, nid: Nid) -> Option<Arc<Peer>> {
        let inner = self.bucket(nid)?.inner.lock();
        let peer = inner.peers.iter().find(|p| p.nid() == nid).cloned();
        peer
    }

    /// The peer with this NID; it is created if there is none. May sleep.
    pub(crate) fn find_or_create(&self, ni: &Arc<Ni>, nid: Nid) -> Result<Arc<Peer>> {
        if let Some(peer) = self.find(nid) {
            return Ok(peer);
        }
        misc::assert_memalloc_nofs();
        ni.read_tunables();
        let new = Peer::new(ni, nid)?;
        let mut inner = self.bucket(nid).ok_or(EINVAL)?.inner.lock();
        if inner.closed {
            return Err(ESHUTDOWN);
        }
        // Another thread may have added it meanwhile.
        if let Some(peer) = inner.peers.iter().find(|p| p.nid() == nid) {
            return Ok(peer.clone());
        }
        inner.peers.push(new.clone(), GFP_ATOMIC)?;
        drop(inner);
        // The reaper unlinks it if it stays unused.
        new.mark_busy();
        Ok(new)
    }

    /// Takes `peer` out of the table if `condition` holds, and ends it. Thread context.
    pub(super) fn unlink_if(&self, peer: &Arc<Peer>, condition: fn(&PeerInner) -> bool) {
        let Some(bucket) = self.bucket(peer.nid()) else {
            return;
        };
        let mut bucket = bucket.inner.lock();
        let mut inner = peer.inner.lock();
        if inner.closing || !condition(&inner) {
            return;
        }
        inner.closing = true;
        drop(inner);
        let at = bucket.peers.iter().position(|p| Arc::ptr_eq(p, peer));
        let unlinked = at.and_then(|at| bucket.peers.remove(at).ok());
        drop(bucket);
        // With no lock held: this may drop routes.
        if let Some(peer) = unlinked {
            peer.close(Failure::dropped());
        }
    }

    /// The peer of a bucket with the lowest address above `last`. A walk by index would skip the peer behind
    /// one that is removed.
    fn peer_after(&self, bucket: usize, last: usize) -> Option<Arc<Peer>> {
        let inner = self.buckets.get(bucket)?.inner.lock();
        let behind = inner.peers.iter().filter(|peer| address(peer) > last);
        behind.min_by_key(|peer| address(peer)).cloned()
    }

    /// A snapshot of all peers. A peer that is in the table all the time is in it once. Its memory need not be
    /// contiguous. May sleep.
    pub(crate) fn collect(&self) -> Result<KVVec<Arc<Peer>>> {
        let mut all = KVVec::new();
        for bucket in self.buckets.iter() {
            loop {
                let count = bucket.inner.lock().peers.len();
                // Allocate first; if there are more by then, try again.
                all.reserve(count, GFP_KERNEL)?;
                let inner = bucket.inner.lock();
                if inner.peers.len() <= count {
                    for peer in inner.peers.iter() {
                        let _ = all.push_within_capacity(peer.clone());
                    }
                    break;
                }
            }
        }
        Ok(all)
    }

    /// Calls `f` for each peer, with no lock held. A peer that is in the table all the time is visited once; one
    /// that is added or removed meanwhile may be missed.
    pub(crate) fn walk(&self, mut f: impl FnMut(&Arc<Peer>)) {
        for bucket in 0..PEER_BUCKETS {
            let mut last = 0;
            while let Some(peer) = self.peer_after(bucket, last) {
                last = address(&peer);
                f(&peer);
            }
        }
    }

    /// Ends all peers, and lets no more be added. Thread context.
    pub(crate) fn close(&self, why: Failure) {
        for bucket in self.buckets.iter() {
            let peers = {
                let mut inner = bucket.inner.lock();
                inner.closed = true;
                core::mem::replace(&mut inner.peers, KVec::new())
            };
            for peer in peers.iter() {
                peer.close(why);
            }
        }
    }
}

fn address(peer: &Arc<Peer>) -> usize {
    core::ptr::from_ref::<Peer>(peer).addr()
}
