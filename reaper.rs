// SPDX-License-Identifier: GPL-2.0

//! The reaper: terminates connections and enforces deadlines.
//!
//! One thread. It terminates the connections on its deathrow as they are added, and retries connections that
//! had no memory after a tick. Once a second it checks the deadlines of handshakes and of transmits that wait
//! for a connection, and those of some of the busy peers, so that each busy peer is checked at least four times
//! per timeout. Idle peers cost nothing, except that keepalive messages are sent to those whose version has
//! them. Every few milliseconds it also makes the autoconnect daemons check whether programs have closed the
//! sockets that they hand over, because the kernel does not report that; and poll attempts that a test hook
//! holds. `peer/timeouts.rs` says how a peer gets into a list and out of it, and why none is missed.
//!
//! Shared by [`Arc`] between [`crate::Lnd`] and the thread. Its mailboxes have locks of their own.

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
        PeerList,
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

/// The time between two rounds of checks, at most, in milliseconds.
const ROUND_MS: u64 = 1000;

/// How often each busy peer is checked within the timeout, at least.
const LOOKS_PER_TIMEOUT: u64 = 4;

/// The wait before a connection that had no memory is retried, in milliseconds: the shortest sleep.
const ENOMEM_RETRY_MS: u64 = 1;

/// The time between two checks whether programs have closed the sockets that they hand over, in milliseconds.
const HANDOVER_POLL_MS: u64 = 10;

/// The reaper's lists.
#[pin_data]
pub(crate) struct Reaper {
    #[pin]
    deathrow: Mailbox<Conn, DEATHROW_LIST>,
    #[pin]
    enomem: Mailbox<Conn, ENOMEM_LIST>,
    /// Handshakes whose sockets programs have not closed yet, or that a test hook holds.
    #[pin]
    handovers: Mailbox<Handshake, HANDOVER_LIST>,
    #[pin]
    connect_wait: Mailbox<Peer, CONNECT_WAIT_LIST>,
    /// Busy peers, the one that was checked longest ago first.
    #[pin]
    busy: Mailbox<Peer, BUSY_LIST>,
    /// Idle peers to which keepalive messages can be sent, approximately in the order in which their silence
    /// began.
    #[pin]
    idle: Mailbox<Peer, IDLE_LIST>,
    /// Whether there are deleted peers among the busy ones, and among the idle ones.
    deleted: [Atomic<bool>; 2],
    /// How many busy peers, and how many idle ones, were checked so far.
    checks: [Counter; 2],
    /// The kernel has reported a change of an address.
    addresses: Atomic<bool>,
    /// A test hook has held a connection back since the last round.
    stalled: Atomic<bool>,
}

impl Reaper {
    /// A reaper whose lists are empty and whose thread is not started. May sleep.
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
                checks: [Counter::new(), Counter::new()],
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

    /// Makes the thread end once the deathrow is empty. Any context.
    pub(crate) fn stop(&self) {
        self.deathrow.stop();
    }

    /// Adds a closed connection to the deathrow. Any context.
    pub(crate) fn queue_deathrow(&self, conn: Arc<Conn>) {
        self.deathrow.post(conn);
    }

    /// Retries `conn` after a tick. Thread context.
    pub(crate) fn retry(&self, conn: Arc<Conn>) {
        if self.enomem.post(conn) {
            self.deathrow.kick();
        }
    }

    /// Posts `handshake` to the daemons after a while, because no event will. Thread context.
    pub(crate) fn poll_handover(&self, handshake: Arc<Handshake>) {
        if self.handovers.post(handshake) {
            self.deathrow.kick();
        }
    }

    /// Checks soon the addresses that may have changed. Any context.
    pub(crate) fn check_addresses(&self) {
        self.addresses.store(true, Release);
        self.deathrow.kick();
    }

    /// A test hook holds a connection back: retries all connections in the next round. Any context.
    pub(crate) fn wake_later(&self) {
        self.stalled.store(true, Relaxed);
    }

    /// Services transmits that wait for a connection to `peer` in each round. Any context.
    pub(crate) fn queue_connect_wait(&self, peer: Arc<Peer>) {
        self.connect_wait.post(peer);
    }

    /// Adds `peer` to the busy peers. For [`Peer::queue_busy`]. Any context.
    pub(crate) fn queue_busy(&self, peer: Arc<Peer>) {
        self.busy.post(peer);
    }

    /// Adds `peer` to the idle peers. For [`Peer`]. Any context.
    pub(crate) fn queue_idle(&self, peer: Arc<Peer>) {
        self.idle.post(peer);
    }

    /// A peer in `list` was deleted: takes it out soon. Any context.
    pub(crate) fn purge_soon(&self, list: PeerList) {
        let [busy, idle] = &self.deleted;
        let deleted = match list {
            PeerList::Busy => busy,
            PeerList::Idle => idle,
        };
        deleted.store(true, Release);
    }

    /// How many peers are in the list of busy ones, and in that of idle ones. Any context.
    pub(crate) fn list_lens(&self) -> [usize; 2] {
        [self.busy.len(), self.idle.len()]
    }

    /// How many busy peers, and how many idle ones, were checked so far. Any context.
    pub(crate) fn checks(&self) -> [u64; 2] {
        let [busy, idle] = &self.checks;
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
                    // Terminate those that are left as if their time had come.
                    stalled.terminate_due(u64::MAX);
                    // They have ended; drop their references.
                    self.handovers.drain().for_each(drop);
                    return;
                }
            }
            if self.addresses.load(Relaxed) && self.addresses.xchg(false, Acquire) {
                lnd.walk_nis(|ni| {
                    ni.check_addresses();
                    ni.look_at_link();
                });
            }
            if time::monotonic_ms().saturating_sub(now) >= ENOMEM_RETRY_MS {
                self.retry_all();
            }
            let now = time::monotonic_ms();
            if now >= next_poll && !self.handovers.is_empty() {
                next_poll = now.saturating_add(HANDOVER_POLL_MS);
                self.handovers.drain().for_each(Handshake::requeue);
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

    /// Services the peers with transmits that wait, and drops those without.
    fn service_connect_wait(&self, now: u64) {
        for peer in self.connect_wait.drain() {
            if peer.service_pending_tx(now) {
                self.queue_connect_wait(peer);
            }
        }
    }

    /// Checks busy peers.
    fn check_busy(&self, now: u64, which: Which) {
        let [checks, _] = &self.checks;
        let mut round = Round::new(self.busy.len(), now, tunables::timeout_ms(), which);
        while let Some(peer) = self.busy.pop_if(|peer| round.takes(peer.busy_since_ms())) {
            checks.add(1);
            peer.check_timeouts(now);
        }
    }

    /// Checks idle peers.
    fn check_idle(&self, now: u64, which: Which) {
        let [_, checks] = &self.checks;
        let long = |since| {
            // Without keepalive messages all are taken out of the list.
            let after = tunables::ping_after_ms().unwrap_or(0);
            now.saturating_sub(since) >= after
        };
        // Those that are added again in this round are for the next.
        for _ in 0..self.idle.len() {
            let taken = self
                .idle
                .pop_if(|peer| which == Which::All || long(peer.idle_since_ms()));
            let Some(peer) = taken else { break };
            checks.add(1);
            peer.check_silence(now);
        }
    }

    /// Checks all peers in all lists, and so drops those that were deleted. Thread context, may sleep.
    pub(crate) fn purge(&self, now: u64) {
        self.service_connect_wait(now);
        self.check_busy(now, Which::All);
        self.check_idle(now, Which::All);
    }

    /// One round of checks.
    fn scan(&self, lnd: &Lnd, now: u64) {
        self.service_connect_wait(now);
        // Fully ordered: a connection that sets it again meanwhile is retried in the next round.
        if self.stalled.load(Relaxed) && self.stalled.xchg(false, Full) {
            lnd.walk_nis(|ni| ni.peers().walk(|peer| peer.retry_conns()));
        }
        lnd.walk_nis(|ni| {
            // NIs that wait for their address, and changes that were missed.
            ni.check_addresses();
            ni.look_at_link();
            ni.handshakes().expire(now);
        });
        lnd.upper().tick(now);
        let [busy, idle] = &self.deleted;
        self.check_busy(now, Which::with_deleted(busy));
        // After the busy peers, which become idle when they have acknowledged a keepalive message.
        self.check_idle(now, Which::with_deleted(idle));
    }
}

/// Closed connections whose termination a test hook delays, each with the time when it was closed.
struct Stalled(KVec<(u64, Arc<Conn>)>);

impl Stalled {
    /// Terminates `conn`, which was closed at about `now`; or later, if the hook is set.
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

/// The time between two rounds for this timeout.
fn round_ms(timeout_ms: u64) -> u64 {
    (timeout_ms / LOOKS_PER_TIMEOUT).clamp(1, ROUND_MS)
}

/// Which peers of a list are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those that are due.
    Due,
    /// All, because some of them were deleted.
    All,
}

impl Which {
    /// All if `deleted` is set, which is cleared.
    fn with_deleted(deleted: &Atomic<bool>) -> Self {
        if deleted.xchg(false, Acquire) {
            Self::All
        } else {
            Self::Due
        }
    }
}

/// Which busy peers are checked in one round.
///
/// They are in the order in which they were added to the list, which is that in which they were checked
/// last. A round takes so many of them that all are checked within a quarter of the timeout, which spreads
/// the work. That alone is not enough, because the list may get shorter, and then each round takes fewer than
/// the one before. So it also takes those that are due before the next round.
struct Round {
    /// How many are left of those that were in the list when it began.
    left: usize,
    /// How many it takes in any case.
    share: usize,
    /// Peers that were added before this time are checked in this round: the next would be too late.
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

    /// Whether it takes the next peer, which was added to the list at `since_ms`.
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

    /// One round. Returns how many peers it has checked, and the longest time since the last check of one.
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
