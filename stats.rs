// SPDX-License-Identifier: GPL-2.0

//! Counters: what happened, and what is alive.
//!
//! All are atomics without a lock. Traffic is counted per connection, where one thread writes, and
//! added up when a connection ends; so no counter is shared between processors on the hot path.

use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        CondVar,
        Mutex, //
    }, //
};

/// A counter that only grows.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    /// Zero.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Adds `n`. Any context.
    pub(crate) fn add(&self, n: u64) {
        self.0.add(n, Relaxed);
    }

    /// The sum so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Messages and bytes, both ways.
pub(crate) struct Traffic {
    pub(crate) tx_msgs: Counter,
    pub(crate) tx_bytes: Counter,
    pub(crate) rx_msgs: Counter,
    pub(crate) rx_bytes: Counter,
    /// Of the messages sent, those that were lent to TCP and not copied.
    pub(crate) zc_msgs: Counter,
    /// Their bytes, headers included.
    pub(crate) zc_bytes: Counter,
}

impl Traffic {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Self {
            tx_msgs: Counter::new(),
            tx_bytes: Counter::new(),
            rx_msgs: Counter::new(),
            rx_bytes: Counter::new(),
            zc_msgs: Counter::new(),
            zc_bytes: Counter::new(),
        }
    }

    /// Adds the sums of `other`.
    pub(crate) fn absorb(&self, other: &Self) {
        self.tx_msgs.add(other.tx_msgs.get());
        self.tx_bytes.add(other.tx_bytes.get());
        self.rx_msgs.add(other.rx_msgs.get());
        self.rx_bytes.add(other.rx_bytes.get());
        self.zc_msgs.add(other.zc_msgs.get());
        self.zc_bytes.add(other.zc_bytes.get());
    }
}

/// What an interface, and each of its peers, counts over its life, by cause.
pub(crate) struct Events {
    /// Attempts of ours to connect.
    pub(crate) attempts: Counter,
    /// Connections that this node opened.
    pub(crate) connects: Counter,
    /// Connections that other nodes opened.
    pub(crate) accepts: Counter,
    /// Attempts of ours that failed.
    pub(crate) connect_failures: Counter,
    /// Handshakes of others that were refused by the rules: a lost race, a duplicate, an old
    /// incarnation.
    pub(crate) refusals: Counter,
    /// Handshakes of others that ended otherwise: garbage, silence, too many at once.
    pub(crate) bad_handshakes: Counter,
    /// Messages that nobody here wanted and nobody passed on: not for this interface, or from a
    /// sender that isn't the peer. By cause, see [`crate::fwd::Misrouted`], these are:
    pub(crate) misrouted: Counter,
    pub(crate) fwd_forged: Counter,
    pub(crate) fwd_direct: Counter,
    pub(crate) fwd_off: Counter,
    pub(crate) fwd_no_route: Counter,
    pub(crate) fwd_back: Counter,
    /// Messages that came in by this interface and were passed on by another.
    pub(crate) fwd_msgs: Counter,
    /// Their payload.
    pub(crate) fwd_bytes: Counter,
    /// Messages that were to be passed on and could not be, or not received as a whole.
    pub(crate) fwd_failed: Counter,
    /// Connections closed because the peer broke the protocol.
    pub(crate) protocol_errors: Counter,
    /// Connections closed because the peer reset or closed them.
    pub(crate) disconnects: Counter,
    /// Connections closed, and queued transmits ended, by a deadline.
    pub(crate) timeouts: Counter,
    /// Transmits that ended with an error.
    pub(crate) tx_errors: Counter,
    /// Times that a scheduler ran out of memory for a socket and tried again later.
    pub(crate) enomem: Counter,
    /// Messages lent to TCP of which something was copied on the way after all.
    pub(crate) zc_copied: Counter,
}

impl Events {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Self {
            attempts: Counter::new(),
            connects: Counter::new(),
            accepts: Counter::new(),
            connect_failures: Counter::new(),
            refusals: Counter::new(),
            bad_handshakes: Counter::new(),
            misrouted: Counter::new(),
            fwd_forged: Counter::new(),
            fwd_direct: Counter::new(),
            fwd_off: Counter::new(),
            fwd_no_route: Counter::new(),
            fwd_back: Counter::new(),
            fwd_msgs: Counter::new(),
            fwd_bytes: Counter::new(),
            fwd_failed: Counter::new(),
            protocol_errors: Counter::new(),
            disconnects: Counter::new(),
            timeouts: Counter::new(),
            tx_errors: Counter::new(),
            enomem: Counter::new(),
            zc_copied: Counter::new(),
        }
    }
}

/// How many objects of a kind are alive; somebody may wait until none is.
#[pin_data]
pub(crate) struct Gauge {
    count: Atomic<i64>,
    waiting: Atomic<bool>,
    #[pin]
    lock: Mutex<()>,
    #[pin]
    zero: CondVar,
}

impl Gauge {
    /// None alive. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                count: Atomic::new(0),
                waiting: Atomic::new(false),
                lock <- new_mutex!((), "socklnd_gauge"),
                zero <- new_condvar!("socklnd_gauge_zero"),
            }),
            GFP_KERNEL,
        )
    }

    /// One more, until the guard is dropped. Any context.
    pub(crate) fn enter(this: &Arc<Self>) -> LiveGuard {
        this.count.add(1, Relaxed);
        LiveGuard(this.clone())
    }

    /// How many are alive.
    pub(crate) fn get(&self) -> i64 {
        self.count.load(Relaxed)
    }

    /// Waits until none is alive. The caller has seen to it that none is made any more. Sleeps.
    pub(crate) fn wait_zero(&self) {
        let mut guard = self.lock.lock();
        // Fully ordered against the count: either the last guard sees that somebody waits, or the
        // waiter sees zero.
        self.waiting.xchg(true, Full);
        while self.count.fetch_add(0, Full) != 0 {
            self.zero.wait(&mut guard);
        }
    }
}

/// Counts one live object. Dropped in thread context.
pub(crate) struct LiveGuard(Arc<Gauge>);

impl Drop for LiveGuard {
    fn drop(&mut self) {
        let gauge = &self.0;
        if gauge.count.fetch_sub(1, Full) == 1 && gauge.waiting.load(Relaxed) {
            let _guard = gauge.lock.lock();
            gauge.zero.notify_all();
        }
    }
}
