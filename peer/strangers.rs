// SPDX-License-Identifier: GPL-2.0

//! Strangers: peers that this node has no use for of its own.
//!
//! Each connection to a stranger takes a [`StrangerSlot`] before it is admitted. So does, in a table of its own,
//! each stranger that gets a route because of a message from another node, to answer or to forward it: a
//! *callee*. The number of slots is limited for each source address and in total. When there is none left, an
//! idle stranger loses its slot: a callee without connections first, then a stranger that has never sent a
//! message, then the one that has been silent for longest. If no stranger is idle, the new one is refused.
//!
//! Two [`Strangers`] are part of an NI. Their mutexes are taken outside a peer's lock, and never one inside the
//! other. A slot is freed when its connection is, or when its peer is unlinked, so the limits bound the memory in
//! use.

use super::Peer;
use crate::{
    conn::StrangerLimit,
    lib_linux::{
        misc,
        ratelimit::pr_info_about,
        time, //
    },
    ni::Ni,
    tunables,
    upper::{
        Cause,
        Failure, //
    }, //
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

/// How many slots one search for an idle stranger visits: not all, so that many new connections cost little.
const LOOKS: usize = 64;

/// What the slots of a table are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slots {
    /// Connections. Their source is the remote address.
    Conns,
    /// Peers that this node connects to because of other nodes' messages. Their source is the address of those
    /// nodes.
    Callees,
}

/// The strangers of an NI.
#[pin_data]
pub(crate) struct Strangers {
    what: Slots,
    #[pin]
    inner: Mutex<Inner>,
}

struct Inner {
    /// The peers with slots of a source address; each is there once for each slot.
    sources: RBTree<IpAddr, KVec<Arc<Peer>>>,
    total: usize,
    /// Where the next search for an idle stranger begins.
    hand: Option<IpAddr>,
}

/// A stranger's slot.
pub(crate) struct StrangerSlot {
    ni: Arc<Ni>,
    what: Slots,
    source: IpAddr,
    peer: Arc<Peer>,
}

/// Which stranger loses its slot first: the one with the least value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Idleness {
    /// It is no stranger any more. It needs no slot, and its connections stay.
    Wanted,
    /// A callee without a connection or an attempt, and when it was last alive.
    Unconnected(u64),
    /// Whether it has sent a message, and when it was last alive.
    Silent(bool, u64),
}

/// A stranger that loses its slot, and the source of that.
struct Surplus {
    idleness: Idleness,
    source: IpAddr,
    peer: Arc<Peer>,
}

impl Strangers {
    /// No strangers.
    pub(crate) fn new(what: Slots) -> impl PinInit<Self> {
        pin_init!(Self {
            what,
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

    /// A slot for `peer`, or a connection of it, from `source`, of which and of all there may be as many as
    /// `most` says; none is needed if the peer is no stranger. May sleep, no spinlock held.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the inner error if a limit is reached and no stranger is idle.
    pub(crate) fn enter(
        &self,
        peer: &Arc<Peer>,
        source: IpAddr,
        most: (usize, usize),
    ) -> Result<core::result::Result<Option<StrangerSlot>, StrangerLimit>> {
        misc::assert_may_sleep();
        if peer.is_wanted() {
            return Ok(Ok(None));
        }
        let ni = peer.ni();
        let search = IdleSearch {
            new: peer,
            what: self.what,
            now: time::monotonic_ms(),
        };
        let mut inner = self.inner.lock();
        let full = inner.full(source, most);
        let surplus = match full {
            Some(StrangerLimit::Source) => inner.idle_of(source, &search),
            Some(StrangerLimit::Total) => inner.idle_of_all(&search),
            None => None,
        };
        if let (Some(limit), None) = (full, &surplus) {
            return Ok(Err(limit));
        }
        inner.push(source, peer)?;
        let mut spare = None;
        if let Some(wanted) = surplus.as_ref().filter(|s| s.idleness == Idleness::Wanted) {
            spare = inner.remove(wanted.source, &wanted.peer);
        }
        drop(inner);
        drop(spare);
        if let Some(surplus) = surplus.filter(|s| s.idleness != Idleness::Wanted) {
            ni.events().strangers_closed.add(1);
            surplus.peer.close_where(Failure::dropped(), |_| true);
            if self.what == Slots::Callees {
                surplus.peer.unlink_if_forgettable();
            }
        }
        Ok(Ok(Some(StrangerSlot {
            ni: ni.clone(),
            what: self.what,
            source,
            peer: peer.clone(),
        })))
    }
}

impl Inner {
    /// The limit that is reached, if one is.
    fn full(&self, source: IpAddr, most: (usize, usize)) -> Option<StrangerLimit> {
        let (of_source, of_all) = most;
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

    /// Frees a slot of `peer`, if it has one. The caller drops the returned reference with no lock held.
    fn remove(&mut self, source: IpAddr, peer: &Arc<Peer>) -> Option<Arc<Peer>> {
        let peers = self.sources.get_mut(&source)?;
        let at = peers.iter().position(|p| Arc::ptr_eq(p, peer))?;
        let removed = peers.remove(at).ok()?;
        if peers.is_empty() {
            self.sources.remove(&source);
        }
        self.total = self.total.saturating_sub(1);
        Some(removed)
    }

    /// The most idle peer with this address, except `new`.
    fn idle_of(&self, source: IpAddr, search: &IdleSearch<'_>) -> Option<Surplus> {
        search.most_idle(source, self.sources.get(&source)?)
    }

    /// The most idle one of some peers, except `new`; the next search begins behind them.
    fn idle_of_all(&mut self, search: &IdleSearch<'_>) -> Option<Surplus> {
        let begun_behind = self.hand.is_some();
        let best = self.idle_from_hand(search);
        if best.is_none() && begun_behind {
            return self.idle_from_hand(search);
        }
        best
    }

    fn idle_from_hand(&mut self, search: &IdleSearch<'_>) -> Option<Surplus> {
        let hand = self.hand.take();
        let mut cursor = match &hand {
            Some(hand) => self.sources.cursor_lower_bound_mut(hand),
            None => self.sources.cursor_front_mut(),
        };
        let mut best: Option<Surplus> = None;
        let mut looks = 0;
        while let Some(at) = cursor {
            let (source, peers) = at.current();
            if looks >= LOOKS {
                self.hand = Some(*source);
                break;
            }
            looks = looks.saturating_add(peers.len());
            if let Some(idle) = search.most_idle(*source, peers) {
                let least = best.as_ref().map(|best| best.idleness);
                if least.is_none_or(|least| idle.idleness < least) {
                    best = Some(idle);
                }
            }
            cursor = at.move_next();
        }
        best
    }
}

/// A search for an idle stranger.
struct IdleSearch<'a> {
    /// The new peer, which is not a candidate.
    new: &'a Arc<Peer>,
    what: Slots,
    /// The time in monotonic milliseconds.
    now: u64,
}

impl IdleSearch<'_> {
    /// The most idle stranger of a source.
    fn most_idle(&self, source: IpAddr, peers: &[Arc<Peer>]) -> Option<Surplus> {
        let others = peers.iter().filter(|peer| !Arc::ptr_eq(peer, self.new));
        let idle = others.filter_map(|peer| Some((peer.idleness(self.what, self.now)?, peer)));
        let (idleness, peer) = idle.min_by_key(|(idle, _)| *idle)?;
        Some(Surplus {
            idleness,
            source,
            peer: peer.clone(),
        })
    }
}

impl Drop for StrangerSlot {
    fn drop(&mut self) {
        let strangers = match self.what {
            Slots::Conns => self.ni.strangers(),
            Slots::Callees => self.ni.callees(),
        };
        let removed = strangers.inner.lock().remove(self.source, &self.peer);
        drop(removed);
    }
}

impl Peer {
    /// This node sends it a message that is not an answer, or connects to it: it is no stranger from now on. Any
    /// context.
    pub(crate) fn mark_wanted(&self) {
        // It is mostly set already: a read lets processors share the cache line.
        if !self.wanted.load(Relaxed) {
            self.wanted.store(true, Relaxed);
        }
    }

    /// Whether it is no stranger. Thread context.
    fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed) || self.inner.lock().is_added()
    }

    /// Takes a slot for a route that it is about to get because of `cause`, if it needs one and has none. May
    /// sleep, no spinlock held.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a limit is reached; `ENOMEM`.
    #[inline(never)]
    pub(crate) fn call_for(self: &Arc<Self>, cause: Cause) -> Result {
        misc::assert_may_sleep();
        let (of_source, of_all) = tunables::strangers(self.ni.conns_per_peer());
        let (source, of_source) = match cause {
            Cause::Own => return Ok(()),
            Cause::Answer(source) => (source, of_source),
            // The sender may be a client of many servers, or a router for many clients.
            Cause::Forward(source) => (source, of_source.max(of_all / 2)),
        };
        if self.inner.lock().call.is_some() {
            return Ok(());
        }
        let slot = match self.ni.callees().enter(self, source, (of_source, of_all))? {
            Ok(slot) => slot,
            Err(limit) => {
                self.ni.events().calls_refused.add(1);
                pr_info_about!(
                    source,
                    "{}: does not connect to {} for the sake of {source:?}: one too many ({})\n",
                    self.ni.nid(),
                    self.nid,
                    limit.parameter()
                );
                return Err(EBUSY);
            }
        };
        let mut inner = self.inner.lock();
        let unneeded = if inner.closing {
            slot
        } else {
            core::mem::replace(&mut inner.call, slot)
        };
        drop(inner);
        drop(unneeded);
        Ok(())
    }

    /// How idle it is, if its connections may be closed in favour of another peer's. Thread context.
    fn idleness(&self, what: Slots, now: u64) -> Option<Idleness> {
        let last_alive_ms = self.last_alive_ms.load(Relaxed);
        let inner = self.inner.lock();
        if inner.closing {
            return None;
        }
        if self.wanted.load(Relaxed) || inner.is_added() {
            return Some(Idleness::Wanted);
        }
        let conns = inner.conns();
        if conns.is_empty() {
            let gone = what == Slots::Callees && inner.is_forgettable();
            return gone.then_some(Idleness::Unconnected(last_alive_ms));
        }
        // It may be about to send its first message.
        let is_new = now.saturating_sub(last_alive_ms) < tunables::handshake_timeout_ms();
        let idle = !is_new && conns.iter().all(|conn| conn.load() == 0);
        idle.then(|| Idleness::Silent(self.has_rx.load(Relaxed), last_alive_ms))
    }
}
