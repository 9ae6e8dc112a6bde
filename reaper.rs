// SPDX-License-Identifier: GPL-2.0

//! The reaper: closes what has ended and finds what has stopped.
//!
//! One thread. It terminates the connections on its deathrow as they come, gives connections that
//! ran out of memory another try after a tick, and looks once a second for deadlines: those of
//! handshakes and of transmits that wait for a connection, and those of a part of the peers with which
//! something is under way, so that each of them is seen at least four times per timeout. Peers that
//! are idle cost nothing, but that those are sent a sign of life now and then whose version has such.
//! It also has the autoconnect daemons look, every few milliseconds, whether programs have closed the
//! sockets that they hand over, because the kernel tells nobody; and at attempts that a test hook holds.
//! How a peer comes into a list and out of it, and why none is forgotten, is told in `peer/timeouts.rs`.
//!
//! Shared by [`Arc`] between [`crate::Lnd`] and the thread; its mailboxes have locks of their own.

use crate::{
    conn::{
        Conn,
        Handshake,
        DEATHROW_LIST,
        ENOMEM_LIST,
        HANDOVER_LIST, //
    },
    fault,
    lib_linux::{
        thread::KThread,
        time, //
    },
    mailbox::{
        Mail,
        Mailbox, //
    },
    peer::{
        Peer,
        BUSY_LIST,
        CONNECT_WAIT_LIST,
        IDLE_LIST, //
    },
    stats::Counter,
    tunables,
    Lnd, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        Arc, //
    }, //
};

/// Between two rounds of looks, at most.
const ROUND_MS: u64 = 1000;

/// How often each busy peer is looked at within the timeout, at least.
const LOOKS_PER_TIMEOUT: u64 = 4;

/// Before a socket that had no memory is tried again: the least that a sleep can take.
const ENOMEM_RETRY_MS: u64 = 1;

/// Between two looks whether programs have closed the sockets that they hand over.
const HANDOVER_POLL_MS: u64 = 10;

/// The reaper's lists.
#[pin_data]
pub(crate) struct Reaper {
    #[pin]
    deathrow: Mailbox<Conn, DEATHROW_LIST>,
    #[pin]
    enomem: Mailbox<Conn, ENOMEM_LIST>,
    /// Those whose sockets programs have not closed yet, or that a test hook holds.
    #[pin]
    handovers: Mailbox<Handshake, HANDOVER_LIST>,
    #[pin]
    connect_wait: Mailbox<Peer, CONNECT_WAIT_LIST>,
    /// Peers with something under way, the one first that was looked at longest ago.
    #[pin]
    busy: Mailbox<Peer, BUSY_LIST>,
    /// Idle peers that are to be sent signs of life; about in the order in which they fell silent.
    #[pin]
    idle: Mailbox<Peer, IDLE_LIST>,
    /// Among the busy peers, and the idle ones, are such as were deleted.
    deleted: [Atomic<bool>; 2],
    /// Looks at busy peers so far, and at idle ones.
    looks: [Counter; 2],
    /// The kernel says that something happened to an address.
    addresses: Atomic<bool>,
    /// A test hook has held a connection back since the last look.
    stalled: Atomic<bool>,
}

impl Reaper {
    /// Empty lists without the thread. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                deathrow <- Mailbox::new(),
                enomem <- Mailbox::new(),
                handovers <- Mailbox::new(),
                connect_wait <- Mailbox::new(),
                busy <- Mailbox::new(),
                idle <- Mailbox::new(),
                deleted: [Atomic::new(false), Atomic::new(false)],
                looks: [Counter::new(), Counter::new()],
                addresses: Atomic::new(false),
                stalled: Atomic::new(false),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts the thread. Dropping it joins it: call [`Reaper::stop`] before. May sleep.
    pub(crate) fn start(self: &Arc<Self>, lnd: &Arc<Lnd>) -> Result<KThread> {
        KThread::spawn(
            c"socklnd_reaper",
            None,
            (self.clone(), lnd.clone()),
            |(this, lnd)| this.run(&lnd),
        )
    }

    /// Lets the thread end once the deathrow is empty. Any context.
    pub(crate) fn stop(&self) {
        self.deathrow.stop();
    }

    /// Takes over a connection that was closed. Any context.
    pub(crate) fn bury(&self, conn: Arc<Conn>) {
        self.deathrow.post(conn);
    }

    /// Tries to send again on `conn` after a tick. Thread context.
    pub(crate) fn retry(&self, conn: Arc<Conn>) {
        if self.enomem.post(conn) {
            self.deathrow.kick();
        }
    }

    /// Has `handshake` looked at again after a while, of which no event will tell anything. Thread context.
    pub(crate) fn poll_handover(&self, handshake: Arc<Handshake>) {
        if self.handovers.post(handshake) {
            self.deathrow.kick();
        }
    }

    /// Looks soon at addresses that something may have happened to. Any context.
    pub(crate) fn look_at_addresses(&self) {
        self.addresses.store(true, Release);
        self.deathrow.kick();
    }

    /// A test hook holds a connection back: wakes all of them at the next look. Any context.
    pub(crate) fn wake_later(&self) {
        self.stalled.store(true, Relaxed);
    }

    /// Looks after the transmits that wait for a connection to `peer`. Any context.
    pub(crate) fn queue_connect_wait(&self, peer: Arc<Peer>) {
        self.connect_wait.post(peer);
    }

    /// Looks for deadlines of what is under way with `peer`. For [`Peer::queue_busy`]. Any context.
    pub(crate) fn queue_busy(&self, peer: Arc<Peer>) {
        self.busy.post(peer);
    }

    /// Looks at `peer` when it has been silent for long. For [`Peer`] itself. Any context.
    pub(crate) fn queue_idle(&self, peer: Arc<Peer>) {
        self.idle.post(peer);
    }

    /// A peer was deleted that is among the busy ones, or the idle ones: lets go of it soon. Any
    /// context.
    pub(crate) fn purge_soon(&self, busy: bool, idle: bool) {
        for (deleted, is_there) in self.deleted.iter().zip([busy, idle]) {
            if is_there {
                deleted.store(true, Release);
            }
        }
    }

    /// How many peers are busy, and how many are idle and to be sent signs of life. Any context.
    pub(crate) fn list_lens(&self) -> [usize; 2] {
        [self.busy.len(), self.idle.len()]
    }

    /// How many looks at busy peers there were so far, and at idle ones. Any context.
    pub(crate) fn looks(&self) -> [u64; 2] {
        let [busy, idle] = &self.looks;
        [busy.get(), idle.get()]
    }

    fn run(&self, lnd: &Lnd) {
        let mut stalled = Stalled(KVec::new());
        let mut next_scan = time::monotonic_ms().saturating_add(ROUND_MS);
        let mut next_poll = 0_u64;
        loop {
            let now = time::monotonic_ms();
            let mut wait = next_scan.saturating_sub(now);
            if !self.handovers.is_empty() {
                wait = wait.min(next_poll.saturating_sub(now));
            }
            if !self.enomem.is_empty() {
                wait = wait.min(ENOMEM_RETRY_MS);
            }
            stalled.terminate_due(now);
            match self
                .deathrow
                .take(Some(u32::try_from(wait).unwrap_or(u32::MAX)))
            {
                Mail::Object(conn) => stalled.terminate(conn, now),
                Mail::Tick => {}
                Mail::Stop => {
                    // Those that are left go as if their time had come.
                    stalled.terminate_due(u64::MAX);
                    // They are over; what is there would keep all else alive.
                    self.handovers.drain().for_each(drop);
                    return;
                }
            }
            if self.addresses.load(Relaxed) && self.addresses.xchg(false, Acquire) {
                lnd.walk_nis(|ni| {
                    ni.look_at_addresses();
                    ni.look_at_link();
                });
            }
            if time::monotonic_ms().saturating_sub(now) >= ENOMEM_RETRY_MS {
                self.retry_all();
            }
            let now = time::monotonic_ms();
            if now >= next_poll && !self.handovers.is_empty() {
                next_poll = now.saturating_add(HANDOVER_POLL_MS);
                self.handovers.drain().for_each(Handshake::look_again);
            }
            if now >= next_scan {
                next_scan = now.saturating_add(round_ms(tunables::timeout_ms()));
                self.scan(lnd, now);
            }
        }
    }

    fn retry_all(&self) {
        for conn in self.enomem.drain() {
            conn.retry();
        }
    }

    /// Looks after the peers with transmits that wait, and lets go of the others.
    fn service_connect_wait(&self, now: u64) {
        for peer in self.connect_wait.drain() {
            if peer.service_pending_tx(now) {
                self.queue_connect_wait(peer);
            }
        }
    }

    /// Looks at busy peers.
    fn check_busy(&self, now: u64, which: Which) {
        let [looks, _] = &self.looks;
        let mut round = Round::new(self.busy.len(), now, tunables::timeout_ms(), which);
        while let Some(peer) = self.busy.pop_if(|peer| round.takes(peer.busy_since_ms())) {
            looks.add(1);
            peer.check_timeouts(now);
        }
    }

    /// Looks at idle peers.
    fn check_idle(&self, now: u64, which: Which) {
        let [_, looks] = &self.looks;
        let long = |since| {
            // Those that are of no use here any more are let go of.
            let after = tunables::ping_after_ms().unwrap_or(0);
            now.saturating_sub(since) >= after
        };
        // Those that are put there again in this round are not for this round.
        for _ in 0..self.idle.len() {
            let taken = self
                .idle
                .pop_if(|peer| which == Which::All || long(peer.idle_since_ms()));
            let Some(peer) = taken else { break };
            looks.add(1);
            peer.check_silence(now);
        }
    }

    /// Looks at all peers in all lists, and so lets go of those that were deleted. Thread context, may
    /// sleep.
    pub(crate) fn purge(&self, now: u64) {
        self.service_connect_wait(now);
        self.check_busy(now, Which::All);
        self.check_idle(now, Which::All);
    }

    /// One round of looks for deadlines.
    fn scan(&self, lnd: &Lnd, now: u64) {
        self.service_connect_wait(now);
        // Fully ordered: who sets it again during this look is woken by the next.
        if self.stalled.load(Relaxed) && self.stalled.xchg(false, Full) {
            lnd.walk_nis(|ni| ni.peers().walk(|peer| peer.retry_conns()));
        }
        lnd.walk_nis(|ni| {
            // Those that are waited for, and what was passed over.
            ni.look_at_addresses();
            ni.look_at_link();
            ni.handshakes().expire(now);
        });
        lnd.upper().tick(now);
        let [busy, idle] = &self.deleted;
        self.check_busy(now, Which::with_deleted(busy));
        // After those: who has got a sign of life meanwhile is silent from then on.
        self.check_idle(now, Which::with_deleted(idle));
    }
}

/// Closed connections that a test hook has the reaper leave as they are, each since when.
struct Stalled(KVec<(u64, Arc<Conn>)>);

impl Stalled {
    /// Terminates `conn`, which was closed about `now`; later, if the hook is set.
    fn terminate(&mut self, conn: Arc<Conn>, now: u64) {
        if fault::reaper_stall_ms() == 0 || self.0.reserve(1, GFP_KERNEL).is_err() {
            return conn.terminate();
        }
        // There is room: it was reserved.
        let _ = self.0.push_within_capacity((now, conn));
    }

    /// Terminates those whose time has come by `now`.
    fn terminate_due(&mut self, now: u64) {
        let stall = fault::reaper_stall_ms();
        let due = |(since, _): &(u64, Arc<Conn>)| now.saturating_sub(*since) >= stall;
        while let Some(at) = self.0.iter().position(due) {
            if let Ok((_, conn)) = self.0.remove(at) {
                conn.terminate();
            }
        }
    }
}

/// Between two rounds, if this is the timeout.
fn round_ms(timeout_ms: u64) -> u64 {
    (timeout_ms / LOOKS_PER_TIMEOUT).clamp(1, ROUND_MS)
}

/// Which peers of a list are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those whose turn it is.
    Due,
    /// All, because some of them were deleted.
    All,
}

impl Which {
    /// All if `deleted` says that there are such; it does not any more.
    fn with_deleted(deleted: &Atomic<bool>) -> Self {
        if deleted.xchg(false, Acquire) {
            Self::All
        } else {
            Self::Due
        }
    }
}

/// Which busy peers are looked at in one round.
///
/// They come in the order in which they were put into the list, which is that in which they were
/// looked at last. A round takes as many of them as it takes for all to have their turn within a
/// quarter of the timeout, and so the work is spread. That alone would not do: each round may find
/// fewer than the one before, and would take fewer. So it also takes those whose turn it is before the
/// next round.
struct Round {
    /// Those that were there when it began; who is put there again comes behind them.
    left: usize,
    /// How many of them it takes in any case.
    share: usize,
    /// Those that were there before are to be looked at now: the next round is too late.
    due_ms: u64,
}

impl Round {
    /// At `now`, with so many peers in the list.
    fn new(len: usize, now: u64, timeout_ms: u64, which: Which) -> Self {
        let round = round_ms(timeout_ms);
        let quarter = timeout_ms / LOOKS_PER_TIMEOUT;
        // CAST: A timeout is a number of seconds that fits into an `i32`.
        let rounds = (quarter / round).max(1) as usize;
        Self {
            left: len,
            share: match which {
                Which::Due => len.div_ceil(rounds),
                Which::All => len,
            },
            due_ms: now.saturating_add(round).saturating_sub(quarter),
        }
    }

    /// Whether it takes the next peer, which is in the list since then.
    fn takes(&mut self, since_ms: u64) -> bool {
        let takes = self.left > 0 && (self.share > 0 || since_ms < self.due_ms);
        if takes {
            self.left = self.left.saturating_sub(1);
            self.share = self.share.saturating_sub(1);
        }
        takes
    }
}

#[kunit_tests(socklnd_reaper)]
mod tests {
    use super::*;

    const SECOND: u64 = 1000;
    /// When all of them are put there: longer after the machine was started than any timeout.
    const START: u64 = 100_000 * SECOND;

    /// A list of busy peers: each with when it was put there, and how many more looks it takes.
    fn list(looks: &[u32]) -> Result<KVec<(u64, u32)>> {
        let mut list = KVec::new();
        for looks in looks {
            list.push((START, *looks), GFP_KERNEL)?;
        }
        Ok(list)
    }

    /// One round. Returns how many peers it has looked at, and the longest that one had waited.
    fn round(list: &mut KVec<(u64, u32)>, now: u64, timeout: u64) -> Result<(usize, u64)> {
        let mut round = Round::new(list.len(), now, timeout, Which::Due);
        let (mut count, mut longest) = (0, 0);
        while list.first().is_some_and(|(since, _)| round.takes(*since)) {
            let (since, looks) = list.remove(0).map_err(|_| EINVAL)?;
            count += 1;
            longest = longest.max(now - since);
            if looks > 1 {
                list.push((now, looks - 1), GFP_KERNEL)?;
            }
        }
        Ok((count, longest))
    }

    #[test]
    fn each_is_seen_in_a_quarter_of_the_timeout() -> Result {
        for timeout in [1, 2, 3, 4, 5, 8, 50, 301].map(|seconds| seconds * SECOND) {
            // Of those in front most are idle by the next look, and the list gets shorter.
            let mut list = list(&[1; 150])?;
            for _ in 0..50 {
                list.push((START, 20), GFP_KERNEL)?;
            }
            let mut now = START;
            while !list.is_empty() {
                now += round_ms(timeout);
                let (_, longest) = round(&mut list, now, timeout)?;
                assert!(longest <= timeout / 4);
                if let Some((since, _)) = list.first() {
                    assert!(now - since < timeout / 4);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn work_is_spread() -> Result {
        // All of them became busy at the same moment.
        let mut list = list(&[u32::MAX; 120])?;
        for second in 1..=50 {
            let (count, _) = round(&mut list, START + second * SECOND, 48 * SECOND)?;
            assert_eq!(count, 10);
        }
        Ok(())
    }

    #[test]
    fn nobody_is_looked_at_twice_in_a_round() -> Result {
        for timeout in [1, 2, 50].map(|seconds| seconds * SECOND) {
            let mut list = list(&[u32::MAX; 3])?;
            let (count, _) = round(&mut list, START + 100 * SECOND, timeout)?;
            assert_eq!(count, 3);
        }
        Ok(())
    }

    #[test]
    fn a_shorter_timeout_counts_at_once() -> Result {
        let mut list = list(&[u32::MAX; 100])?;
        let (count, _) = round(&mut list, START + SECOND, 86_400 * SECOND)?;
        assert_eq!(count, 1);
        let (count, _) = round(&mut list, START + 2 * SECOND, 4 * SECOND)?;
        assert_eq!(count, 100);
        Ok(())
    }
}
