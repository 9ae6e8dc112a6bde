// SPDX-License-Identifier: GPL-2.0

//! Counters of events and traffic, and gauges of live objects.
//!
//! All are atomics without a lock. Traffic is counted per connection, where one thread writes, and added up
//! when a connection ends. The [`Ledger`] of an NI, which has a mutex, makes sure that sums miss nothing and
//! count nothing twice.

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

/// Messages and bytes, both ways.
pub(crate) struct Traffic {
    pub(crate) tx_msgs: Counter,
    pub(crate) tx_bytes: Counter,
    pub(crate) rx_msgs: Counter,
    pub(crate) rx_bytes: Counter,
    /// Of the messages sent, those that were sent without a copy.
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

/// The traffic of an NI's connections: of those that exist, and of those that have ended. Its mutex is inside
/// of all others except a connection's I/O mutex, which is not taken with it.
#[pin_data]
pub(crate) struct Ledger {
    #[pin]
    books: Mutex<Books>,
}

/// The key of an account: its peer and its connection, each by the address of its counters, which is unique
/// while the account exists.
type AccountId = (usize, usize);

struct Books {
    /// The traffic of connections that exist.
    open: RBTree<AccountId, Arc<Traffic>>,
    /// The sum of all that have ended.
    closed: Traffic,
}

impl Ledger {
    /// An empty ledger. May sleep.
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
        total.absorb(&books.closed);
        books
            .open
            .values()
            .for_each(|traffic| total.absorb(traffic));
        total
    }

    /// The traffic so far of all connections of a peer; `closed` has the sum of those that have ended. May
    /// sleep.
    pub(crate) fn total_of(&self, closed: &Arc<Traffic>) -> Traffic {
        let peer = address(closed);
        let mut books = self.books.lock();
        let total = Traffic::new();
        total.absorb(closed);
        let mut cursor = books.open.cursor_lower_bound_mut(&(peer, 0));
        while let Some(at) = cursor {
            let ((owner, _), traffic) = at.current();
            if *owner != peer {
                break;
            }
            total.absorb(traffic);
            cursor = at.move_next();
        }
        total
    }
}

/// A connection's account in a [`Ledger`]. Dropping it adds the traffic to the sums of the NI and of the peer;
/// may sleep.
pub(crate) struct Account {
    ledger: Arc<Ledger>,
    peer: Arc<Traffic>,
    traffic: Arc<Traffic>,
}

impl Account {
    /// An account for a connection that counts in `traffic`, to a peer for which `peer` has the sum of ended
    /// connections. May sleep.
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
        // Allocate before the mutex is locked, so that readers of sums do not wait.
        let node = RBTreeNode::new(this.id(), traffic.clone(), GFP_KERNEL)?;
        let replaced = ledger.books.lock().open.insert(node);
        // The addresses are those of objects that there are, so there was no such account.
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
        books.closed.absorb(&self.traffic);
        self.peer.absorb(&self.traffic);
        drop(books);
        drop(removed);
    }
}

fn address(traffic: &Arc<Traffic>) -> usize {
    core::ptr::from_ref::<Traffic>(traffic).addr()
}

/// The event counters of an NI, and of each of its peers.
pub(crate) struct Events {
    /// Attempts of this node to connect.
    pub(crate) attempts: Counter,
    /// Connections that this node opened.
    pub(crate) connects: Counter,
    /// Connections that other nodes opened.
    pub(crate) accepts: Counter,
    /// Attempts of this node that failed.
    pub(crate) connect_failures: Counter,
    /// Passive handshakes that were refused by the rules: a lost race, a duplicate, an old incarnation.
    pub(crate) refusals: Counter,
    /// Passive handshakes that failed otherwise: wrong data, timeouts, too many at once.
    pub(crate) bad_handshakes: Counter,
    /// Those of them that were refused because there were too many strangers.
    pub(crate) strangers_refused: Counter,
    /// Idle strangers whose connections were closed in favour of others.
    pub(crate) strangers_closed: Counter,
    /// Messages to strangers that were refused because this node would have had to connect to too many.
    pub(crate) calls_refused: Counter,
    /// Messages that the peer should not have sent here: not for this NI, or from a sender that the peer is no
    /// router for.
    pub(crate) misrouted: Counter,
    /// Connections closed because the peer violated the protocol.
    pub(crate) protocol_errors: Counter,
    /// Connections closed because the peer reset or closed them.
    pub(crate) disconnects: Counter,
    /// Connections closed, and queued transmits failed, because of a timeout.
    pub(crate) timeouts: Counter,
    /// Transmits that failed.
    pub(crate) tx_errors: Counter,
    /// How often a socket had no memory to send.
    pub(crate) enomem: Counter,
    /// Times that the link of an interface has come or gone.
    pub(crate) link_changes: Counter,
    /// Messages sent without a copy of which the kernel copied something on the way after all.
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
            strangers_refused: Counter::new(),
            strangers_closed: Counter::new(),
            calls_refused: Counter::new(),
            misrouted: Counter::new(),
            protocol_errors: Counter::new(),
            disconnects: Counter::new(),
            timeouts: Counter::new(),
            tx_errors: Counter::new(),
            enomem: Counter::new(),
            link_changes: Counter::new(),
            zc_copied: Counter::new(),
        }
    }
}

/// How many objects of a kind exist; a thread can wait until there are none.
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
    /// A gauge at zero. May sleep.
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

    /// Counts one object, until the guard is dropped. Any context.
    pub(crate) fn enter(this: &Arc<Self>) -> LiveGuard {
        this.count.add(1, Relaxed);
        LiveGuard(this.clone())
    }

    /// How many objects there are.
    pub(crate) fn get(&self) -> i64 {
        self.count.load(Relaxed)
    }

    /// Waits until there are none. The caller has made sure that no more are created. Sleeps.
    pub(crate) fn wait_zero(&self) {
        let mut guard = self.lock.lock();
        // Fully ordered against the count: either the last guard sees that a thread waits, or this thread
        // sees zero.
        self.waiting.xchg(true, Full);
        while self.count.fetch_add(0, Full) != 0 {
            self.zero.wait(&mut guard);
        }
    }

    /// As [`Gauge::wait_zero`], but at most for about `limit`, and not after a signal.
    pub(crate) fn try_wait_zero(&self, limit: Delta) -> Waited {
        let mut guard = self.lock.lock();
        // As above.
        self.waiting.xchg(true, Full);
        let limit_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let mut left = msecs_to_jiffies(limit_ms);
        while self.count.fetch_add(0, Full) != 0 {
            left = match self.zero.wait_interruptible_timeout(&mut guard, left) {
                CondVarTimeoutResult::Woken { jiffies } => jiffies,
                CondVarTimeoutResult::Timeout => return Waited::InVain,
                CondVarTimeoutResult::Signal { .. } => return Waited::Interrupted,
            };
        }
        Waited::Zero
    }
}

/// The result of a wait with a limit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There are none.
    Zero,
    /// The time is over, and there are some.
    InVain,
    /// There was a signal, and there are some.
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
