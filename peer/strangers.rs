// SPDX-License-Identifier: GPL-2.0

//! Strangers: peers that nobody here has asked for, and that have connected themselves.
//!
//! Each of their connections takes a [`StrangerSlot`] before it is admitted. How many slots one source address
//! may have, and how many there are for all, is bounded. Who comes when there is none left gets that of a
//! stranger who is idle: the one first from whom no message has ever come, then the one who has been
//! silent for longest. If nobody is idle, the newcomer is refused, and nobody else notices.
//!
//! A [`Strangers`] is part of an interface. Its mutex is taken outside a peer's lock. A slot is given
//! back when its connection is freed, so what counts is memory that is in use.

use super::Peer;
use crate::{
    conn::StrangerLimit,
    lib_linux::time,
    ni::Ni,
    tunables, //
};
use core::net::IpAddr;
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        atomic::Relaxed,
        Arc,
        Mutex, //
    }, //
};

/// How many slots are looked at in search of an idle stranger: not all, so that a flood of newcomers
/// costs little.
const LOOKS: usize = 64;

/// The strangers that an interface has.
#[pin_data]
pub(crate) struct Strangers {
    #[pin]
    inner: Mutex<Inner>,
}

struct Inner {
    /// Who has the slots of a source address; a peer is there once for each.
    sources: RBTree<IpAddr, KVec<Arc<Peer>>>,
    total: usize,
    /// Where the search for an idle stranger goes on.
    hand: Option<IpAddr>,
}

/// A stranger's slot, for one connection.
pub(crate) struct StrangerSlot {
    ni: Arc<Ni>,
    source: IpAddr,
    peer: Arc<Peer>,
}

/// How idle a stranger is: of two, the lesser one has to go.
type Idleness = (bool, u64);

impl Strangers {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(
                Inner {
                    sources: RBTree::new(),
                    total: 0,
                    hand: None,
                },
                "socklnd_strangers"
            ),
        })
    }

    /// A slot for a connection of `peer` from `source`; none is needed if somebody here has asked for
    /// that peer. May sleep, no spinlock held.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the inner one if there is none, and nobody is idle who has one.
    pub(crate) fn enter(
        &self,
        peer: &Arc<Peer>,
        source: IpAddr,
    ) -> Result<core::result::Result<Option<StrangerSlot>, StrangerLimit>> {
        if peer.is_wanted() {
            return Ok(Ok(None));
        }
        let ni = peer.ni();
        let (of_source, of_all) = tunables::strangers(ni.conns_per_peer());
        let mut inner = self.inner.lock();
        let now = time::monotonic_ms();
        let full = inner.full(source, of_source, of_all);
        let surplus = match full {
            Some(StrangerLimit::Source) => inner.idle_of(source, peer, now),
            Some(StrangerLimit::Total) => inner.idle_of_all(peer, now),
            None => None,
        };
        if let (Some(limit), None) = (full, &surplus) {
            return Ok(Err(limit));
        }
        inner.push(source, peer)?;
        drop(inner);
        if let Some(surplus) = surplus {
            ni.events().strangers_closed.add(1);
            surplus.close_where(ESHUTDOWN, |_| true);
        }
        Ok(Ok(Some(StrangerSlot {
            ni: ni.clone(),
            source,
            peer: peer.clone(),
        })))
    }

    fn leave(&self, source: IpAddr, peer: &Arc<Peer>) {
        let mut inner = self.inner.lock();
        let mut empty = false;
        let mut left = None;
        if let Some(peers) = inner.sources.get_mut(&source) {
            let at = peers.iter().position(|p| Arc::ptr_eq(p, peer));
            left = at.and_then(|at| peers.remove(at).ok());
            empty = peers.is_empty();
        }
        if empty {
            inner.sources.remove(&source);
        }
        inner.total = inner.total.saturating_sub(1);
        drop(inner);
        drop(left);
    }
}

impl Inner {
    /// Which bound is reached, if one is.
    fn full(&self, source: IpAddr, of_source: usize, of_all: usize) -> Option<StrangerLimit> {
        let own = self.sources.get(&source).map_or(0, |peers| peers.len());
        if own >= of_source {
            Some(StrangerLimit::Source)
        } else {
            (self.total >= of_all).then_some(StrangerLimit::Total)
        }
    }

    fn push(&mut self, source: IpAddr, peer: &Arc<Peer>) -> Result {
        match self.sources.get_mut(&source) {
            Some(peers) => peers.push(peer.clone(), GFP_KERNEL)?,
            None => {
                let mut peers = KVec::new();
                peers.push(peer.clone(), GFP_KERNEL)?;
                self.sources
                    .try_create_and_insert(source, peers, GFP_KERNEL)?;
            }
        }
        self.total = self.total.saturating_add(1);
        Ok(())
    }

    /// The most idle one of those from this address, but for the newcomer.
    fn idle_of(&self, source: IpAddr, new: &Arc<Peer>, now: u64) -> Option<Arc<Peer>> {
        let (_, peer) = most_idle(self.sources.get(&source)?, new, now)?;
        Some(peer.clone())
    }

    /// The most idle one of some, but for the newcomer; the next search goes on behind them.
    fn idle_of_all(&mut self, new: &Arc<Peer>, now: u64) -> Option<Arc<Peer>> {
        let begun_behind = self.hand.is_some();
        let best = self.idle_from_hand(new, now);
        if best.is_none() && begun_behind {
            return self.idle_from_hand(new, now);
        }
        best
    }

    fn idle_from_hand(&mut self, new: &Arc<Peer>, now: u64) -> Option<Arc<Peer>> {
        let hand = self.hand.take();
        let mut cursor = match &hand {
            Some(hand) => self.sources.cursor_lower_bound_mut(hand),
            None => self.sources.cursor_front_mut(),
        };
        let mut best: Option<(Idleness, Arc<Peer>)> = None;
        let mut looks = 0;
        while let Some(at) = cursor {
            let (source, peers) = at.current();
            if looks >= LOOKS {
                self.hand = Some(*source);
                break;
            }
            looks = looks.saturating_add(peers.len());
            if let Some((idle, peer)) = most_idle(peers, new, now) {
                if best.as_ref().is_none_or(|(least, _)| idle < *least) {
                    best = Some((idle, peer.clone()));
                }
            }
            cursor = at.move_next();
        }
        best.map(|(_, peer)| peer)
    }
}

/// The most idle one of these, but for the newcomer.
fn most_idle<'a>(
    peers: &'a [Arc<Peer>],
    new: &Arc<Peer>,
    now: u64,
) -> Option<(Idleness, &'a Arc<Peer>)> {
    let others = peers.iter().filter(|peer| !Arc::ptr_eq(peer, new));
    let idle = others.filter_map(|peer| Some((peer.idleness(now)?, peer)));
    idle.min_by_key(|(idle, _)| *idle)
}

impl Drop for StrangerSlot {
    fn drop(&mut self) {
        self.ni.strangers().leave(self.source, &self.peer);
    }
}

impl Peer {
    /// Somebody here wants something of it, and has not just answered: it is no stranger from now on. Any
    /// context.
    pub(crate) fn ask_for(&self) {
        // Mostly set already, and then no processor needs the line to itself.
        if !self.asked_for.load(Relaxed) {
            self.asked_for.store(true, Relaxed);
        }
    }

    /// Whether an administrator has added it, or somebody here has asked for it. Thread context.
    fn is_wanted(&self) -> bool {
        self.asked_for.load(Relaxed) || self.inner.lock().is_added()
    }

    /// How idle it is, if it may go to make room for somebody else. Thread context.
    fn idleness(&self, now: u64) -> Option<Idleness> {
        let last_alive_ms = self.last_alive_ms.load(Relaxed);
        // It may still be about to say what it wants.
        let is_new = now.saturating_sub(last_alive_ms) < tunables::handshake_timeout_ms();
        if is_new || self.asked_for.load(Relaxed) {
            return None;
        }
        let inner = self.inner.lock();
        let conns = inner.conns();
        let idle = !inner.closing
            && !conns.is_empty()
            && !inner.is_added()
            && conns.iter().all(|conn| conn.load() == 0);
        idle.then(|| (self.heard.load(Relaxed), last_alive_ms))
    }
}
