// SPDX-License-Identifier: GPL-2.0

//! What the reaper looks after: deadlines of what is under way, silence, and peers to be forgotten.
//!
//! So that peers with which nothing is under way cost nothing, the reaper knows those with which
//! something is: whoever begins it puts the peer into the reaper's list of busy ones, by
//! [`Peer::mark_busy`], and [`Peer::check_timeouts`] takes it out again. A peer is also busy as long as nobody asked
//! for it and it has no connection, that is, until it is forgotten. Of the others, those that can be
//! sent signs of life are in a second list of idle ones, out of which each is taken when it has been silent for long.
//!
//! The peer's lock protects whether it is in either list. None is put there once `closing` is set.

use super::{
    Close,
    Peer, //
};
use crate::{
    conn::{
        Conn,
        Late,
        Look, //
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

/// Between two signs of life that a silent peer is sent at least.
const PING_PAUSE_MS: u64 = 10_000;

impl Peer {
    /// Something is under way, or the peer may have to be forgotten: has the reaper look at it.
    ///
    /// To be called after that began, and behind, or inside, the critical section in which it did: see
    /// [`Peer::check_timeouts`]. Thread context, no spinlock held; a connection's I/O mutex may be.
    pub(crate) fn mark_busy(self: &Arc<Self>) {
        misc::assert_may_sleep();
        if !self.is_busy.load(Relaxed) {
            self.queue_busy();
        }
    }

    /// As [`Peer::mark_busy`], but ordered against a look by nothing else than the peer's lock.
    pub(crate) fn queue_busy(self: &Arc<Self>) {
        let inner = self.inner.lock();
        if inner.closing || self.is_busy.load(Relaxed) {
            return;
        }
        self.is_busy.store(true, Relaxed);
        self.busy_since_ms.store(time::monotonic_ms(), Relaxed);
        self.ni.context().queue_busy(self.clone());
    }

    /// Since when it is in the list of busy peers, in monotonic milliseconds. Any context.
    pub(crate) fn busy_since_ms(&self) -> u64 {
        self.busy_since_ms.load(Relaxed)
    }

    /// Since when it has been silent, as long as it is in the list of idle peers. Any context.
    pub(crate) fn idle_since_ms(&self) -> u64 {
        self.idle_since_ms.load(Relaxed)
    }

    /// Looks for deadlines that have passed. The reaper has taken the peer out of the list of busy
    /// ones; it is put there again if something is under way. Thread context, may sleep.
    ///
    /// # Why nothing is forgotten
    ///
    /// What makes a peer busy is written in a critical section: of a connection's I/O mutex, of the
    /// lock of the unacknowledged messages, or of the peer's own lock. `mark_busy` reads `is_busy` after
    /// that section began. This function clears `is_busy` first, then enters a critical section of
    /// each of those locks to see what is there. Of two critical sections of a lock one is first:
    ///
    /// - If it is that of this function, the other's reading comes after the clearing. So it finds
    ///   `is_busy` clear, and puts the peer into the list; or it finds what somebody else set after
    ///   the clearing, with whose look the same can be said again.
    /// - If it is the other one, this function sees what it has written.
    ///
    /// An I/O mutex that is not to be had counts as busy. A connection that is not among those looked
    /// at has joined the peer after the clearing, under the peer's lock, and then the peer is stirred.
    pub(crate) fn check_timeouts(self: &Arc<Self>, now: u64) {
        misc::assert_may_sleep();
        let mut next = {
            let inner = self.inner.lock();
            self.is_busy.store(false, Relaxed);
            inner.conns().len()
        };
        let mut busy = false;
        // Backwards: those behind one that is taken out meanwhile move up, and none is left out.
        while next > 0 {
            next -= 1;
            let Some(conn) = self.conn(next) else {
                continue;
            };
            match conn.check_deadlines(now) {
                Look::Idle => {}
                Look::Busy => busy = true,
                Look::Over(why) => {
                    self.count(1, |events| &events.timeouts);
                    self.close_conn(&conn, why, Close::Siblings);
                }
            }
        }
        busy |= self.check_acks(now);
        self.forget_if_idle(now);
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
            let late = self.unacked.lock().late(from, last, begun);
            let Some((id, next)) = late else { break };
            (last, from) = (Some(id), next);
            let matching = |conn: &&Arc<Conn>| conn.id() == id;
            let conn = self.inner.lock().conns().iter().find(matching).cloned();
            // If it is not there, it is being closed, and its messages end with that.
            if let Some(conn) = conn {
                conn.report_timeout(Late::Acknowledging);
                self.count(1, |events| &events.timeouts);
                let why = Failure::new(ETIMEDOUT, Health::NetworkTimeout);
                self.close_conn(&conn, why, Close::Siblings);
            }
        }
        self.zc_req_counts().0 > 0
    }

    /// Unlinks a peer that nobody asked for and nobody talks to any more. Thread context.
    fn forget_if_idle(self: &Arc<Self>, now: u64) {
        let idle = now.saturating_sub(self.last_alive_ms.load(Relaxed));
        if idle > tunables::max_reconnect_ms().saturating_mul(2) {
            self.unlink_if_forgettable();
        }
    }

    /// Puts the peer into the list of idle ones, if it is to be sent signs of life.
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

    /// Sends a sign of life if the peer has been silent for long, and its version knows such. The
    /// reaper has taken it out of the list of idle ones. Thread context.
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
                // It is idle again when that has arrived.
                return self.mark_busy();
            }
        }
        drop(inner);
        self.queue_idle();
    }

    /// The peer, whose `inner` this is, is closing for good: soon neither list has it any more.
    pub(super) fn purge_from_reaper(&self, inner: &PeerInner) {
        let is_busy = self.is_busy.load(Relaxed);
        self.ni.context().purge_soon(is_busy, inner.is_idle);
    }
}

impl PeerInner {
    /// The connection for signs of life, if its version knows such.
    fn ping_conn(&self) -> Option<&Arc<Conn>> {
        self.proto().filter(|proto| proto.has_pings())?;
        self.ack_conn(MsgClass::Ack)
    }
}
