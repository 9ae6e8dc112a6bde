// SPDX-License-Identifier: GPL-2.0

//! The reaper: closes what has ended and finds what has stopped.
//!
//! One thread. It terminates the connections on its deathrow as they come, gives connections that
//! ran out of memory another try after a tick, and looks once a second for deadlines: those of
//! handshakes and of transmits that wait for a connection, and those of a part of the connections,
//! so that each of them is seen four times per timeout.
//!
//! Shared by [`Arc`] between [`crate::Lnd`] and the thread; its mailboxes have locks of their own.

use crate::{
    conn::Conn,
    lib_linux::{
        thread::KThread,
        time, //
    },
    mailbox::{
        Mail,
        Mailbox, //
    },
    ni::Ni,
    peer::{
        Peer,
        PEER_BUCKETS,
        PENDING_LIST, //
    },
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

/// Which list of a connection is the deathrow.
pub(crate) const DEATHROW_LIST: u64 = 2;

/// Which list of a connection is that of those who wait for memory.
pub(crate) const ENOMEM_LIST: u64 = 3;

/// Between two looks for deadlines.
const SCAN_MS: u64 = 1000;

/// How often each connection is looked at within the timeout.
const SCANS_PER_TIMEOUT: u64 = 4;

/// Before a socket that had no memory is tried again: the least that a sleep can take.
const ENOMEM_RETRY_MS: u64 = 1;

/// The reaper's lists.
#[pin_data]
pub(crate) struct Reaper {
    #[pin]
    deathrow: Mailbox<Conn, DEATHROW_LIST>,
    #[pin]
    enomem: Mailbox<Conn, ENOMEM_LIST>,
    #[pin]
    pending: Mailbox<Peer, PENDING_LIST>,
    /// The kernel has taken an address away.
    sweep: Atomic<bool>,
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
                pending <- Mailbox::new(),
                sweep: Atomic::new(false),
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

    /// Looks soon at the interfaces whose addresses are gone. Any context.
    pub(crate) fn sweep(&self) {
        self.sweep.store(true, Release);
        self.deathrow.kick();
    }

    /// A test hook holds a connection back: wakes all of them at the next look. Any context.
    pub(crate) fn wake_later(&self) {
        self.stalled.store(true, Relaxed);
    }

    /// Looks after the transmits that wait for a connection to `peer`. Any context.
    pub(crate) fn watch(&self, peer: Arc<Peer>) {
        self.pending.post(peer);
    }

    fn run(&self, lnd: &Lnd) {
        let mut next_scan = time::monotonic_ms().saturating_add(SCAN_MS);
        let mut bucket = 0;
        loop {
            let now = time::monotonic_ms();
            let mut wait = next_scan.saturating_sub(now);
            if !self.enomem.is_empty() {
                wait = wait.min(ENOMEM_RETRY_MS);
            }
            match self
                .deathrow
                .take(Some(u32::try_from(wait).unwrap_or(u32::MAX)))
            {
                Mail::Object(conn) => conn.terminate(),
                Mail::Tick => {}
                Mail::Stop => return,
            }
            if self.sweep.load(Relaxed) && self.sweep.xchg(false, Acquire) {
                lnd.for_each_ni(Ni::sweep_interfaces);
            }
            if time::monotonic_ms().saturating_sub(now) >= ENOMEM_RETRY_MS {
                self.retry_all();
            }
            let now = time::monotonic_ms();
            if now >= next_scan {
                next_scan = now.saturating_add(SCAN_MS);
                bucket = self.scan(lnd, now, bucket);
            }
        }
    }

    fn retry_all(&self) {
        for conn in self.enomem.drain() {
            conn.retry();
        }
    }

    /// Looks after the peers with transmits that wait, and lets go of the others. Thread context.
    pub(crate) fn tend_pending(&self, now: u64) {
        for peer in self.pending.drain() {
            if peer.tend(now) {
                self.watch(peer);
            }
        }
    }

    /// One look for deadlines; connections are looked at from `first` bucket on. Returns where the
    /// next look begins.
    fn scan(&self, lnd: &Lnd, now: u64, first: usize) -> usize {
        self.tend_pending(now);
        // Fully ordered: who sets it again during this look is woken by the next.
        if self.stalled.load(Relaxed) && self.stalled.xchg(false, Full) {
            lnd.for_each_ni(|ni| ni.peers().for_each(|peer| peer.retry_conns()));
        }
        let timeout_s = (tunables::timeout_ms() / 1000).max(1);
        let chunk = (PEER_BUCKETS as u64 * SCANS_PER_TIMEOUT).div_ceil(timeout_s);
        let chunk = chunk.min(PEER_BUCKETS as u64) as usize;
        lnd.for_each_ni(|ni| {
            ni.pending().expire(now);
            ni.probe_gateways(now);
            for offset in 0..chunk {
                let bucket = first.wrapping_add(offset) % PEER_BUCKETS;
                ni.peers()
                    .for_each_in(bucket, |peer| peer.check_deadlines(now));
            }
        });
        first.wrapping_add(chunk) % PEER_BUCKETS
    }
}
