// SPDX-License-Identifier: GPL-2.0

//! Counters: how often something has happened, and how many objects exist.
//!
//! All are atomics without a lock. Traffic is counted per connection, by the one thread that does its I/O, and added up
//! when the connection ends. Other counters, and the [`Gauge`]s, belong to an NI or to a peer, and any
//! processor may write to them: the message layer's counters and the gauge of transmits once for each message.
//! A [`Ledger`] makes sure that the sums of traffic count each connection once; it has a mutex.

use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        CondVar,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Delta, //
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

/// Defines a struct of counters.
macro_rules! counters {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field:ident,)+
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$field_meta])* $vis $field: $crate::stats::Counter,)+
        }

        impl $name {
            /// All zero.
            $vis const fn new() -> Self {
                Self {
                    $($field: $crate::stats::Counter::new(),)+
                }
            }

            /// Each counter with its name.
            $vis fn all(&self) -> impl Iterator<Item = (&'static str, &$crate::stats::Counter)> {
                [$((stringify!($field), &self.$field),)+].into_iter()
            }
        }
    };
}
pub(crate) use counters;

counters! {
    /// Messages and bytes in both directions.
    pub(crate) struct Traffic {
        tx_msgs,
        tx_bytes,
        rx_msgs,
        rx_bytes,
        /// Messages that TCP has sent from the pages of their payload, without a copy.
        zc_msgs,
        /// Bytes of these, headers included.
        zc_bytes,
    }
}

impl Traffic {
    /// Adds the traffic in `other`.
    pub(crate) fn add(&self, other: &Self) {
        for ((_, sum), (_, counter)) in self.all().zip(other.all()) {
            sum.add(counter.get());
        }
    }
}

/// The traffic of all connections of an NI, including those that have ended. No other lock is taken
/// while its mutex is held; it is not taken while a connection's I/O mutex is held.
#[pin_data]
pub(crate) struct Ledger {
    #[pin]
    books: Mutex<Books>,
}

/// Identifies an account: the addresses of the counters of its peer and of its connection, which are
/// unique while the account exists.
type AccountId = (usize, usize);

struct Books {
    /// Of connections that have not ended.
    open: RBTree<AccountId, Arc<Traffic>>,
    /// The sum of those that have.
    closed: Traffic,
}

impl Ledger {
    /// No traffic. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                books <- new_mutex!(
                    Books {
                        open: RBTree::new(),
                        closed: Traffic::new(),
                    },
                    "socklnd_ledger"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// The traffic of all connections so far. May sleep.
    pub(crate) fn total(&self) -> Traffic {
        let books = self.books.lock();
        let total = Traffic::new();
        total.add(&books.closed);
        books.open.values().for_each(|traffic| total.add(traffic));
        total
    }

    /// The traffic so far of all connections of a peer. `closed` is the sum of the peer's connections that have
    /// ended. May sleep.
    pub(crate) fn total_of(&self, closed: &Arc<Traffic>) -> Traffic {
        let peer = address(closed);
        let mut books = self.books.lock();
        let total = Traffic::new();
        total.add(closed);
        let mut cursor = books.open.cursor_lower_bound_mut(&(peer, 0));
        while let Some(at) = cursor {
            let ((owner, _), traffic) = at.current();
            if *owner != peer {
                break;
            }
            total.add(traffic);
            cursor = at.move_next();
        }
        total
    }
}

/// A connection's account in a [`Ledger`]. When it is dropped, its traffic is added to the sums of the NI
/// and of the peer; that may sleep.
pub(crate) struct Account {
    ledger: Arc<Ledger>,
    peer: Arc<Traffic>,
    traffic: Arc<Traffic>,
}

impl Account {
    /// For a connection that counts in `traffic`. `peer` is the sum of its peer's connections that have ended.
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn open(
        ledger: &Arc<Ledger>,
        peer: &Arc<Traffic>,
        traffic: &Arc<Traffic>,
    ) -> Result<Self> {
        let this = Self {
            ledger: ledger.clone(),
            peer: peer.clone(),
            traffic: traffic.clone(),
        };
        // Memory is allocated before the lock is taken.
        let node = RBTreeNode::new(this.id(), traffic.clone(), GFP_KERNEL)?;
        let replaced = ledger.books.lock().open.insert(node);
        // Nothing was replaced, as the addresses are unique.
        drop(replaced);
        Ok(this)
    }

    fn id(&self) -> AccountId {
        (address(&self.peer), address(&self.traffic))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let id = self.id();
        let mut books = self.ledger.books.lock();
        let removed = books.open.remove_node(&id);
        books.closed.add(&self.traffic);
        self.peer.add(&self.traffic);
        drop(books);
        drop(removed);
    }
}

fn address(traffic: &Arc<Traffic>) -> usize {
    core::ptr::from_ref::<Traffic>(traffic).addr()
}

counters! {
    /// What an NI, and each of its peers, counts by cause.
    pub(crate) struct Events {
        /// Attempts of this node to connect.
        connect_attempts,
        /// Attempts of this node that failed.
        connect_failures,
        /// Connections that this node opened.
        connects,
        /// Connections that other nodes opened.
        accepts,
        /// Handshakes of other nodes that the rules refused: a lost race, a duplicate, an old incarnation.
        refusals,
        /// Handshakes of other nodes that failed otherwise: malformed, too slow, too many at a time.
        bad_handshakes,
        /// Those of them that were refused because there were too many strangers.
        strangers_refused,
        /// Connections of idle strangers that were closed to make room for others.
        strangers_closed,
        /// Messages to strangers that were refused because there are too many that this node would have to connect to.
        calls_refused,
        /// Messages that the peer should not have sent here: not for this NI, or from a source that the
        /// peer is no gateway for.
        misrouted,
        /// Connections closed because the peer broke the protocol.
        protocol_errors,
        /// Connections closed because the peer reset or closed them.
        disconnects,
        /// Connections closed, and queued transmits ended, by a deadline.
        timeouts,
        /// Transmits that ended with an error.
        tx_errors,
        /// Times that a scheduler ran out of memory for a socket, and tried again later.
        enomem,
        /// Times that the link of an NI has changed.
        link_changes,
        /// Messages that were sent without a copy, but of which TCP has copied a part after all.
        zc_copied,
    }
}

/// The number of objects of a kind that exist. A thread may wait until there is none.
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
    /// No object exists. May sleep.
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

    /// Counts one more object until the guard is dropped. Any context.
    pub(crate) fn enter(this: &Arc<Self>) -> LiveGuard {
        this.count.add(1, Relaxed);
        LiveGuard(this.clone())
    }

    /// The number of objects.
    pub(crate) fn get(&self) -> i64 {
        self.count.load(Relaxed)
    }

    /// Waits until there is no object. The caller makes sure that none is made any more. Sleeps.
    pub(crate) fn wait_zero(&self) {
        let mut guard = self.lock.lock();
        // Fully ordered with the count: either the last guard sees that a thread waits, or this thread sees
        // zero.
        self.waiting.xchg(true, Full);
        while self.count.fetch_add(0, Full) != 0 {
            self.zero.wait(&mut guard);
        }
    }

    /// As [`Gauge::wait_zero`], but not longer than about `limit`, and not when a signal is pending.
    pub(crate) fn try_wait_zero(&self, limit: Delta) -> Waited {
        let limit_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let mut guard = self.lock.lock();
        // As above.
        self.waiting.xchg(true, Full);
        let mut left = msecs_to_jiffies(limit_ms);
        while self.count.fetch_add(0, Full) != 0 {
            left = match self.zero.wait_interruptible_timeout(&mut guard, left) {
                CondVarTimeoutResult::Woken { jiffies } => jiffies,
                CondVarTimeoutResult::Timeout => return Waited::TimedOut,
                CondVarTimeoutResult::Signal { .. } => return Waited::Interrupted,
            };
        }
        Waited::Zero
    }
}

/// How a wait with a limit has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There is no object.
    Zero,
    /// There are objects, and the time has passed.
    TimedOut,
    /// There are objects, and a signal is pending.
    Interrupted,
}

/// Counts one object. Dropped in thread context.
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

#[kunit_tests(socklnd_stats)]
mod tests {
    use super::*;

    fn counters() -> Result<Arc<Traffic>> {
        Ok(Arc::new(Traffic::new(), GFP_KERNEL)?)
    }

    #[test]
    fn sums_neither_lose_nor_repeat_an_account() -> Result {
        let ledger = Ledger::new()?;
        let peers = [counters()?, counters()?];
        let mut accounts = KVec::new();
        for index in 0u64..6 {
            let traffic = counters()?;
            let peer = &peers[usize::from(index % 2 == 1)];
            accounts.push(Account::open(&ledger, peer, &traffic)?, GFP_KERNEL)?;
            // What comes later counts too.
            traffic.tx_bytes.add(10 + index);
            traffic.rx_msgs.add(1);
        }
        let sums = || {
            let of = |peer| ledger.total_of(peer).tx_bytes.get();
            let total = ledger.total();
            (
                total.tx_bytes.get(),
                total.rx_msgs.get(),
                peers.each_ref().map(of),
            )
        };
        assert!(sums() == (75, 6, [36, 39]));
        while let Ok(account) = accounts.remove(0) {
            drop(account);
            assert!(sums() == (75, 6, [36, 39]));
        }
        Ok(())
    }
}
