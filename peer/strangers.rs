// SPDX-License-Identifier: GPL-2.0

//! Strangers: peers that nobody here has asked for.
//!
//! Each connection to one takes a [`StrangerSlot`] before it is admitted. So does, in a table of its own, each
//! stranger that gets a route for the sake of a message that somebody else has sent or wants answered: a
//! *callee*. How many slots one source address may have, and how many there are for all, is bounded. Who
//! comes when there is none left gets that of a stranger who is idle: a callee without connections first,
//! then the one from whom no message has ever come, then the one who has been silent for longest. If nobody
//! is idle, the newcomer is refused, and nobody else notices.
//!
//! Two [`Strangers`] are part of an interface. Their mutexes are taken outside a peer's lock, and never one
//! inside the other. A slot is given back when its connection is freed, or its peer unlinked, so what counts
//! is memory that is in use.

use super::Peer;
use crate::{
    conn::StrangerLimit,
    lib_linux::{
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

/// How many slots are looked at in search of an idle stranger: not all, so that a flood of newcomers
/// costs little.
const LOOKS: usize = 64;

/// What has the slots of a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slots {
    /// Connections. Their source is the address at the other end.
    Conns,
    /// Peers that are called for others' sake. Their source is the address of those others.
    Callees,
}

/// The strangers that an interface has.
#[pin_data]
pub(crate) struct Strangers {
    what: Slots,
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

/// A stranger's slot.
pub(crate) struct StrangerSlot {
    ni: Arc<Ni>,
    what: Slots,
    source: IpAddr,
    peer: Arc<Peer>,
}

/// How idle a stranger is: of two, the lesser one has to go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Idleness {
    /// Somebody here has asked for it meanwhile. It stays, and needs no slot.
    Wanted,
    /// A callee that has no connection, nor is about to have one.
    Unconnected(u64),
    /// Whether a message has come from it, and when it was last alive.
    Silent(bool, u64),
}

/// Who has to go, and from which source it is.
struct Surplus {
    idleness: Idleness,
    source: IpAddr,
    peer: Arc<Peer>,
}

impl Strangers {
    /// None.
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
    /// `most` says; none is needed if somebody here has asked for that peer. May sleep, no spinlock held.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the inner one if there is none, and nobody is idle who has one.
    pub(crate) fn enter(
        &self,
        peer: &Arc<Peer>,
        source: IpAddr,
        most: (usize, usize),
    ) -> Result<core::result::Result<Option<StrangerSlot>, StrangerLimit>> {
        if peer.is_wanted() {
            return Ok(Ok(None));
        }
        let ni = peer.ni();
        let look = Look {
            new: peer,
            what: self.what,
            now: time::monotonic_ms(),
        };
        let mut inner = self.inner.lock();
        let full = inner.full(source, most);
        let surplus = match full {
            Some(StrangerLimit::Source) => inner.idle_of(source, &look),
            Some(StrangerLimit::Total) => inner.idle_of_all(&look),
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
    /// Which bound is reached, if one is.
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

    /// Takes a slot of `peer` away, if it has one. What comes back is to be dropped with no lock held.
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

    /// The most idle one of those from this address, but for the newcomer.
    fn idle_of(&self, source: IpAddr, look: &Look<'_>) -> Option<Surplus> {
        look.most_idle(source, self.sources.get(&source)?)
    }

    /// The most idle one of some, but for the newcomer; the next search goes on behind them.
    fn idle_of_all(&mut self, look: &Look<'_>) -> Option<Surplus> {
        let begun_behind = self.hand.is_some();
        let best = self.idle_from_hand(look);
        if best.is_none() && begun_behind {
            return self.idle_from_hand(look);
        }
        best
    }

    fn idle_from_hand(&mut self, look: &Look<'_>) -> Option<Surplus> {
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
            if let Some(idle) = look.most_idle(*source, peers) {
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
struct Look<'a> {
    /// The newcomer, who is not to be found.
    new: &'a Arc<Peer>,
    what: Slots,
    /// In monotonic milliseconds.
    now: u64,
}

impl Look<'_> {
    /// The most idle one of those of a source.
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

    /// It is about to get a route for the sake of `cause`: takes a slot for that, if it needs one and has
    /// none. May sleep, no spinlock held.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is one stranger too many; `ENOMEM`.
    #[inline(never)]
    pub(crate) fn call_for(self: &Arc<Self>, cause: Cause) -> Result {
        let (of_source, of_all) = tunables::strangers(self.ni.conns_per_peer());
        let (source, of_source) = match cause {
            Cause::Own => return Ok(()),
            Cause::Answer(source) => (source, of_source),
            // The sender may be a client of many servers, or a gateway that many clients are behind.
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

    /// How idle it is, if it may go to make room for somebody else. Thread context.
    fn idleness(&self, what: Slots, now: u64) -> Option<Idleness> {
        let last_alive_ms = self.last_alive_ms.load(Relaxed);
        let inner = self.inner.lock();
        if inner.closing {
            return None;
        }
        if self.asked_for.load(Relaxed) || inner.is_added() {
            return Some(Idleness::Wanted);
        }
        let conns = inner.conns();
        if conns.is_empty() {
            let gone = what == Slots::Callees && inner.is_forgettable();
            return gone.then_some(Idleness::Unconnected(last_alive_ms));
        }
        // It may still be about to say what it wants.
        let is_new = now.saturating_sub(last_alive_ms) < tunables::handshake_timeout_ms();
        let idle = !is_new && conns.iter().all(|conn| conn.load() == 0);
        idle.then(|| Idleness::Silent(self.heard.load(Relaxed), last_alive_ms))
    }
}
