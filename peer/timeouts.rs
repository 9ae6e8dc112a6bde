// SPDX-License-Identifier: GPL-2.0

//! What the reaper checks of a peer: deadlines of what is under way, silence, and whether to unlink it.
//!
//! Peers with nothing under way should cost nothing. So the reaper has a list of busy peers: code that begins
//! something for a peer adds it by [`Peer::mark_busy`], and [`Peer::check_timeouts`] takes it out again. A peer
//! that nobody has added and that has no connection stays busy too, until it is unlinked. The reaper has a
//! second list of idle peers, to which keepalive messages can be sent; each is taken out when it has been silent
//! for long.
//!
//! The peer's lock protects whether it is in either list. It is added to neither once `closing` is set.

use super::{
    Close,
    Peer,
    PeerList, //
};
use crate::{
    conn::{
        Conn,
        DeadlineCheck,
        TimeoutKind, //
    },
    lib_linux::{
        misc,
        time, //
    },
    peer::PeerInner,
    tunables,
    upper::{
        Failure,
        Health, //
    },
    wire::MsgClass, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// The minimum time between two keepalive messages to a silent peer, in milliseconds.
const PING_PAUSE_MS: u64 = 10_000;

impl Peer {
    /// Makes the reaper check the peer, because something is under way or it may have to be unlinked.
    ///
    /// Called after that began, and after or inside the critical section in which it began: see
    /// [`Peer::check_timeouts`]. Thread context, no spinlock held; a connection's I/O mutex may be.
    pub(crate) fn mark_busy(self: &Arc<Self>) {
        misc::assert_may_sleep();
        if !self.is_busy.load(Relaxed) {
            self.queue_busy();
        }
    }

    /// As [`Peer::mark_busy`], but only the peer's lock orders it against a check.
    pub(crate) fn queue_busy(self: &Arc<Self>) {
        let inner = self.inner.lock();
        if inner.closing || self.is_busy.load(Relaxed) {
            return;
        }
        self.is_busy.store(true, Relaxed);
        self.busy_since_ms.store(time::monotonic_ms(), Relaxed);
        self.ni.context().queue_busy(self.clone());
    }

    /// When it was added to the list of busy peers, in monotonic milliseconds. Any context.
    pub(crate) fn busy_since_ms(&self) -> u64 {
        self.busy_since_ms.load(Relaxed)
    }

    /// When its silence began, in monotonic milliseconds, while it is in the list of idle peers. Any context.
    pub(crate) fn idle_since_ms(&self) -> u64 {
        self.idle_since_ms.load(Relaxed)
    }

    /// Checks for deadlines that have passed. The reaper has taken the peer out of the list of busy peers; it
    /// is added again if something is under way. Thread context, may sleep.
    ///
    /// # Why no busy peer is missed
    ///
    /// The state that makes a peer busy is written in a critical section: of a connection's I/O mutex, of the
    /// lock of the unacknowledged messages, or of the peer's own lock. `mark_busy` reads `is_busy` after that
    /// section began. This function clears `is_busy` first, and then enters a critical section of each of
    /// those locks to read the state. Of two critical sections of a lock one comes first:
    ///
    /// - If it is that of this function, the other thread reads `is_busy` after it was cleared. It finds
    ///   it clear and adds the peer to the list; or another thread has set it again after it was cleared, and
    ///   has added the peer.
    /// - If it is that of the other thread, this function sees the state that it has written.
    ///
    /// A connection whose I/O mutex is locked counts as busy. A connection that is not checked was admitted after
    /// `is_busy` was cleared, under the peer's lock, and then the peer is marked busy.
    pub(crate) fn check_timeouts(self: &Arc<Self>, now: u64) {
        misc::assert_may_sleep();
        let mut next = {
            let inner = self.inner.lock();
            self.is_busy.store(false, Relaxed);
            inner.conns().len()
        };
        let mut busy = false;
        // Backwards, because connections behind one that is taken out meanwhile move up.
        while next > 0 {
            next -= 1;
            let Some(conn) = self.conn(next) else {
                continue;
            };
            match conn.check_deadlines(now) {
                DeadlineCheck::Idle => {}
                DeadlineCheck::Busy => busy = true,
                DeadlineCheck::Failed(why) => {
                    self.count(1, |events| &events.timeouts);
                    self.close_conn(&conn, why, Close::Siblings);
                }
            }
        }
        busy |= self.check_acks(now);
        self.unlink_if_idle(now);
        busy |= self.inner.lock().is_unreferenced();
        if busy {
            self.queue_busy();
        } else {
            self.queue_idle();
        }
    }

    /// Closes connections by which messages went that the peer has not acknowledged in time. Returns
    /// whether it has yet to acknowledge any. Thread context.
    fn check_acks(self: &Arc<Self>, now: u64) -> bool {
        let begun = now.saturating_sub(tunables::timeout_ms());
        self.unacked.lock().expire(begun);
        let (mut last, mut from) = (None, 0);
        loop {
            let late = self.unacked.lock().next_late(from, last, begun);
            let Some((id, next)) = late else { break };
            (last, from) = (Some(id), next);
            let matching = |conn: &&Arc<Conn>| conn.id() == id;
            let conn = self.inner.lock().conns().iter().find(matching).cloned();
            // If it is not there, it is closed, and its messages end with it.
            if let Some(conn) = conn {
                conn.report_timeout(TimeoutKind::ZcAck);
                self.count(1, |events| &events.timeouts);
                let why = Failure::new(ETIMEDOUT, Health::NetworkTimeout);
                self.close_conn(&conn, why, Close::Siblings);
            }
        }
        self.zc_req_counts().0 > 0
    }

    /// Unlinks a peer that was not added by an administrator and has been unused for long. Thread context.
    fn unlink_if_idle(self: &Arc<Self>, now: u64) {
        let idle = now.saturating_sub(self.last_alive_ms.load(Relaxed));
        if idle > tunables::max_reconnect_ms().saturating_mul(2) {
            self.unlink_if_forgettable();
        }
    }

    /// Adds the peer to the list of idle peers, if keepalive messages can be sent to it.
    fn queue_idle(self: &Arc<Self>) {
        if tunables::ping_after_ms().is_none() {
            return;
        }
        let mut inner = self.inner.lock();
        if inner.closing || inner.is_idle || inner.ping_conn().is_none() {
            return;
        }
        inner.is_idle = true;
        self.idle_since_ms
            .store(self.last_alive_ms.load(Relaxed), Relaxed);
        self.ni.context().queue_idle(self.clone());
    }

    /// Sends a keepalive message if the peer has been silent for long and its version has such messages. The
    /// reaper has taken it out of the list of idle peers. Thread context.
    pub(crate) fn check_silence(self: &Arc<Self>, now: u64) {
        let silent = now.saturating_sub(self.last_alive_ms.load(Relaxed));
        let due = tunables::ping_after_ms().is_some_and(|after| silent >= after);
        let mut inner = self.inner.lock();
        inner.is_idle = false;
        let pause = now.saturating_sub(inner.pinged_ms);
        if due && pause >= PING_PAUSE_MS {
            if let Some(conn) = inner.ping_conn().cloned() {
                inner.pinged_ms = now;
                conn.queue_ping();
                drop(inner);
                // It becomes idle again when the peer has acknowledged that.
                return self.mark_busy();
            }
        }
        drop(inner);
        self.queue_idle();
    }

    /// The peer, whose `inner` this is, is closing: makes the reaper take it out of its lists soon.
    pub(super) fn purge_from_reaper(&self, inner: &PeerInner) {
        let context = self.ni.context();
        if self.is_busy.load(Relaxed) {
            context.purge_soon(PeerList::Busy);
        }
        if inner.is_idle {
            context.purge_soon(PeerList::Idle);
        }
    }
}

impl PeerInner {
    /// The connection for keepalive messages, if its version has them.
    fn ping_conn(&self) -> Option<&Arc<Conn>> {
        self.proto().filter(|proto| proto.has_pings())?;
        self.ack_conn(MsgClass::Ack)
    }
}
