// SPDX-License-Identifier: GPL-2.0

//! Schedulers: the threads that move bytes.
//!
//! One per processor, bound to it. A connection belongs to one scheduler for its whole life, and
//! that scheduler alone does its socket I/O. It is driven by nothing but the socket's `data_ready`
//! and `write_space` callbacks and by transmits being queued; with nothing to do it sleeps.
//!
//! [`Sched`] is shared by [`Arc`] between [`crate::Lnd`], its thread and its connections, and
//! protected by the mailbox's own lock, but for the list of loans that TCP has returned, which has
//! one like it. What a connection waits for is one atomic word, [`Readiness`], so that a callback
//! takes no lock unless the connection has to be queued.

use crate::{
    conn::{
        Batch,
        Conn, //
    },
    lib_linux::{
        misc,
        queue::Fifo,
        socket::Lent,
        thread::{
            self,
            KThread, //
        }, //
    },
    mailbox::{
        Mail,
        Mailbox, //
    }, //
};
use core::ops::Deref;
use kernel::{
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        },
        new_spinlock_irq,
        Arc,
        SpinLockIrq, //
    }, //
};

/// Which list of a connection is the scheduler's.
pub(crate) const SCHED_LIST: u64 = 1;

/// A scheduler: a queue of connections that can make progress, and the thread that serves them.
#[pin_data]
pub(crate) struct Sched {
    #[pin]
    mailbox: Mailbox<Conn, SCHED_LIST>,
    /// Transmits that TCP has let go of, to be finished.
    #[pin]
    returned: SpinLockIrq<Fifo<Lent<Batch>>>,
    cpu: u32,
    /// Connections assigned, for balance.
    nconns: Atomic<i64>,
}

impl Sched {
    /// A scheduler for `cpu`. Its thread is started by [`Sched::start`]. May sleep.
    pub(crate) fn new(cpu: u32) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                mailbox <- Mailbox::new(),
                returned <- new_spinlock_irq!(Fifo::new(), "socklnd_sched_returned"),
                cpu,
                nconns: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts the thread. Dropping the thread joins it: call [`Sched::stop`] before. May sleep.
    pub(crate) fn start(self: &Arc<Self>) -> Result<KThread> {
        let name = CString::try_from_fmt(fmt!("socklnd_sd{:02}", self.cpu))?;
        KThread::spawn(&name, Some(self.cpu), self.clone(), Self::run)
    }

    /// Lets the thread end when no connection waits any more. Any context.
    pub(crate) fn stop(&self) {
        self.mailbox.stop();
    }

    /// The processor that the thread is bound to.
    pub(crate) fn cpu(&self) -> u32 {
        self.cpu
    }

    /// How many connections it serves.
    pub(crate) fn nconns(&self) -> i64 {
        self.nconns.load(Relaxed)
    }

    /// Queues a connection whose [`Readiness`] said that it has to be. Any context.
    pub(crate) fn enqueue(&self, conn: Arc<Conn>) {
        self.mailbox.post(conn);
    }

    /// Has the thread finish transmits that TCP has let go of. Any context.
    pub(crate) fn post_returned(&self, batch: KBox<Lent<Batch>>) {
        self.returned.lock().push_back(batch);
        self.mailbox.kick();
    }

    fn finish_returned(&self) {
        let mut returned = Fifo::new();
        returned.append(&mut self.returned.lock());
        while let Some(batch) = returned.pop_front() {
            misc::memalloc_nofs(|| Batch::finish(batch));
        }
    }

    fn run(this: Arc<Self>) {
        loop {
            let mail = this.mailbox.take(None);
            this.finish_returned();
            match mail {
                // One bounded turn each, then back to the end of the queue: nobody starves. A file
                // system may wait for this connection to write its pages back, so no allocation
                // may wait for that file system.
                Mail::Object(conn) => misc::memalloc_nofs(|| conn.run()),
                Mail::Tick => {}
                Mail::Stop => return,
            }
            thread::cond_resched();
        }
    }
}

/// A connection's place with its scheduler, which counts it while this exists.
pub(crate) struct Assignment(Arc<Sched>);

impl Assignment {
    /// A place with `sched`.
    pub(crate) fn new(sched: Arc<Sched>) -> Self {
        sched.nconns.add(1, Relaxed);
        Self(sched)
    }
}

impl Deref for Assignment {
    type Target = Arc<Sched>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.0.nconns.add(-1, Relaxed);
    }
}

/// What a connection waits for, and whether it is in its scheduler's queue.
///
/// The rule: from the moment in which an event sets [`Readiness::SCHEDULED`] until
/// [`Readiness::finish`] clears it, the connection is either queued or being run, by one thread.
/// An event in that time only sets its bit, and `finish` sees it. So no event is lost, and no
/// connection is queued twice.
pub(crate) struct Readiness(Atomic<u32>);

impl Readiness {
    /// There may be something to read.
    pub(crate) const RX: u32 = 1 << 0;
    /// There may be something to write, and room for it.
    pub(crate) const TX: u32 = 1 << 1;
    /// Queued or being run.
    const SCHEDULED: u32 = 1 << 2;
    /// Not to be run yet: the handshake's answer is not on its way.
    const HELD: u32 = 1 << 3;
    /// The socket's send buffer is full: more transmits change nothing until `write_space`.
    pub(crate) const FULL: u32 = 1 << 4;

    const EVENTS: u32 = Self::RX | Self::TX;

    /// No events, and held until [`Readiness::release`].
    pub(crate) fn new_held() -> Self {
        Self(Atomic::new(Self::HELD))
    }

    /// Applies `change` atomically; returns the old and the new value.
    ///
    /// Fully ordered, which the protocol needs: what was written before an event must be seen by
    /// the run that the event causes.
    fn update(&self, change: impl Fn(u32) -> u32) -> (u32, u32) {
        let mut old = self.0.load(Relaxed);
        loop {
            let new = change(old);
            match self.0.cmpxchg(old, new, Full) {
                Ok(_) => return (old, new),
                Err(now) => old = now,
            }
        }
    }

    /// Sets `SCHEDULED` in `bits` if there is an event that nobody takes care of.
    fn schedule(bits: u32) -> u32 {
        if bits & Self::EVENTS != 0 && bits & (Self::SCHEDULED | Self::HELD) == 0 {
            bits | Self::SCHEDULED
        } else {
            bits
        }
    }

    /// Whether going from `old` to `new` obliges the caller to queue the connection.
    fn newly_scheduled((old, new): (u32, u32)) -> bool {
        old & Self::SCHEDULED == 0 && new & Self::SCHEDULED != 0
    }

    /// An event of the socket. Returns whether the caller has to queue the connection.
    #[must_use]
    pub(crate) fn event(&self, events: u32) -> bool {
        let old = self.0.load(Acquire);
        if old & events == events && old & Self::SCHEDULED != 0 && old & Self::FULL == 0 {
            // Known already, and not yet looked at. The run clears the bits before it takes the
            // socket's lock, which the caller of this callback holds: so it sees what caused this.
            return false;
        }
        Self::newly_scheduled(self.update(|bits| {
            let bits = bits | events;
            // Room in the send buffer is what `FULL` waits for.
            let bits = if events & Self::TX != 0 {
                bits & !Self::FULL
            } else {
                bits
            };
            Self::schedule(bits)
        }))
    }

    /// A transmit was queued. Returns whether the caller has to queue the connection.
    #[must_use]
    pub(crate) fn tx_queued(&self) -> bool {
        Self::newly_scheduled(self.update(|bits| {
            if bits & Self::FULL != 0 {
                bits
            } else {
                Self::schedule(bits | Self::TX)
            }
        }))
    }

    /// Ends being held. Returns whether the caller has to queue the connection.
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        // Whatever came before the callbacks were in place left no event: look at both.
        Self::newly_scheduled(
            self.update(|bits| Self::schedule((bits & !Self::HELD) | Self::EVENTS)),
        )
    }

    /// The events to look at in this run; they are cleared.
    pub(crate) fn take(&self) -> u32 {
        self.update(|bits| bits & !Self::EVENTS).0 & Self::EVENTS
    }

    /// Ends a run. `again` are events that it left unfinished, or [`Readiness::FULL`] if it ended
    /// for want of room. Returns whether the caller has to queue the connection once more.
    #[must_use]
    pub(crate) fn finish(&self, again: u32) -> bool {
        let (_, new) = self.update(|bits| {
            // Room that came after the send buffer was found full overtakes that finding.
            let again = if bits & Self::TX != 0 {
                again & !Self::FULL
            } else {
                again
            };
            let bits = bits | again;
            if bits & Self::EVENTS == 0 {
                bits & !Self::SCHEDULED
            } else {
                bits
            }
        });
        new & Self::SCHEDULED != 0
    }
}

#[kunit_tests(socklnd_sched)]
mod tests {
    use super::*;

    fn released() -> Readiness {
        let ready = Readiness::new_held();
        assert!(ready.release());
        assert_eq!(ready.take(), Readiness::EVENTS);
        assert!(!ready.finish(0));
        ready
    }

    #[test]
    fn held_until_released() {
        let ready = Readiness::new_held();
        assert!(!ready.event(Readiness::RX));
        assert!(!ready.tx_queued());
        assert!(ready.release());
    }

    #[test]
    fn queued_once() {
        let ready = released();
        assert!(ready.event(Readiness::RX));
        assert!(!ready.event(Readiness::RX));
        assert!(!ready.tx_queued());
        assert_eq!(ready.take(), Readiness::EVENTS);
        assert!(!ready.finish(0));
        assert!(ready.tx_queued());
    }

    #[test]
    fn event_during_run_is_not_lost() {
        let ready = released();
        assert!(ready.event(Readiness::RX));
        assert_eq!(ready.take(), Readiness::RX);
        assert!(!ready.event(Readiness::RX));
        assert!(ready.finish(0));
        assert_eq!(ready.take(), Readiness::RX);
        assert!(!ready.finish(0));
    }

    #[test]
    fn full_waits_for_write_space_only() {
        let ready = released();
        assert!(ready.tx_queued());
        assert_eq!(ready.take(), Readiness::TX);
        assert!(!ready.finish(Readiness::FULL));
        assert!(!ready.tx_queued());
        assert!(ready.event(Readiness::TX));
        assert_eq!(ready.take(), Readiness::TX);
        assert!(!ready.finish(0));
    }

    #[test]
    fn write_space_overtakes_full() {
        let ready = released();
        assert!(ready.tx_queued());
        assert_eq!(ready.take(), Readiness::TX);
        assert!(!ready.event(Readiness::TX));
        assert!(ready.finish(Readiness::FULL));
    }
}
