// SPDX-License-Identifier: GPL-2.0

//! Counters: what happened, and what is alive.
//!
//! All are atomics without a lock. Traffic is counted per connection, where one thread writes, and
//! added up when a connection ends; so no counter is shared between processors on the hot path. That
//! sums miss nothing, and count nothing twice, is what an interface's [`Ledger`] is for, which has a
//! mutex of its own.

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
    time::msecs_to_jiffies, //
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

/// What went over the connections of an interface: of those that there are, and of those that have
/// ended. Its mutex is inside of all others but a connection's I/O mutex, which is not taken with it.
#[pin_data]
pub(crate) struct Ledger {
    #[pin]
    books: Mutex<Books>,
}

/// What names an account: its peer, and its connection, each by the address of its counters, which
/// nobody else has as long as there is the account.
type AccountId = (usize, usize);

struct Books {
    /// Of connections that there are.
    open: RBTree<AccountId, Arc<Traffic>>,
    /// The sum of all others.
    closed: Traffic,
}

impl Ledger {
    /// Nothing so far. May sleep.
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

    /// What went over all connections so far. May sleep.
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

    /// What went so far over all connections of the peer for which `closed` has the sum of those that
    /// have ended. May sleep.
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

/// A connection's account in a [`Ledger`]. With the end of it what was counted goes to the sums of the
/// interface and of the peer; may sleep.
pub(crate) struct Account {
    ledger: Arc<Ledger>,
    peer: Arc<Traffic>,
    traffic: Arc<Traffic>,
}

impl Account {
    /// For a connection that counts in `traffic`, to a peer whose ended connections `peer` is the sum
    /// of. May sleep.
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
        // Memory first: who only wants to know a sum does not wait for that.
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
    /// Those of them that there was no place for: too many strangers.
    pub(crate) strangers_refused: Counter,
    /// Idle strangers who had to make room for others.
    pub(crate) strangers_closed: Counter,
    /// Messages for strangers to whom this node would have had to connect: too many of them.
    pub(crate) calls_refused: Counter,
    /// Messages that the peer should not have sent here: not for this interface, or from a sender that the
    /// peer can't speak for.
    pub(crate) misrouted: Counter,
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

    /// As [`Gauge::wait_zero`], but not longer than about so many milliseconds, nor when a signal has
    /// come.
    pub(crate) fn try_wait_zero(&self, limit_ms: u32) -> Waited {
        let mut guard = self.lock.lock();
        // As above.
        self.waiting.xchg(true, Full);
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

/// How a wait with a limit has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// None is alive.
    Zero,
    /// Some are, and the time is over.
    InVain,
    /// Some are, and a signal has come.
    Interrupted,
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
