// SPDX-License-Identifier: GPL-2.0

//! What a connection waits for, as one atomic word.
//!
//! Part of its connection, and freed with it. Nothing protects it: every change is one atomic
//! operation. The very same file is built in user space, where all interleavings of the threads
//! that use it are tried (`tests/model`).

use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed, //
    }, //
};

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

    /// An event of the socket, whose lock is held. Returns whether the caller has to queue the
    /// connection.
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

    /// Something else than the socket asks for another look, and nobody holds its lock. Returns
    /// whether the caller has to queue the connection.
    #[must_use]
    pub(crate) fn again(&self) -> bool {
        Self::newly_scheduled(self.update(|bits| Self::schedule(bits | Self::EVENTS)))
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
