// SPDX-License-Identifier: GPL-2.0

//! The events of a connection, as one atomic word.
//!
//! Part of its connection, and freed with it. No lock protects it: every change is one atomic operation.
//! The same file is built in user space, where all interleavings of the threads that use it are tried
//! (`tests/model`).

use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed, //
    }, //
};

/// The events that a connection has to handle, and whether it is in its scheduler's queue.
///
/// From the moment when an event sets [`Readiness::SCHEDULED`] until [`Readiness::finish`] clears it, the
/// connection is either queued or being run by one thread. An event in that time only sets its bit, which
/// `finish` sees. So no event is lost, and no connection is queued twice.
pub(crate) struct Readiness(Atomic<u32>);

impl Readiness {
    /// There may be something to read.
    pub(crate) const RX: u32 = 1 << 0;
    /// There may be something to write, and room for it.
    pub(crate) const TX: u32 = 1 << 1;
    /// Queued or being run.
    const SCHEDULED: u32 = 1 << 2;
    /// Not to be run yet: the handshake's answer has not been sent.
    const HELD: u32 = 1 << 3;
    /// The socket's send buffer is full: queued transmits wait for `write_space`.
    pub(crate) const FULL: u32 = 1 << 4;

    const EVENTS: u32 = Self::RX | Self::TX;

    /// No events, and held until [`Readiness::release`].
    pub(crate) fn new_held() -> Self {
        Self(Atomic::new(Self::HELD))
    }

    /// Applies `change` atomically; returns the old and the new value.
    ///
    /// Fully ordered: the run that an event causes must see what was written before the event.
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

    /// Sets `SCHEDULED` in `bits` if there is an event and the connection is neither scheduled nor held.
    fn schedule(bits: u32) -> u32 {
        if bits & Self::EVENTS != 0 && bits & (Self::SCHEDULED | Self::HELD) == 0 {
            bits | Self::SCHEDULED
        } else {
            bits
        }
    }

    /// Whether the caller has to queue the connection after the change from `old` to `new`.
    fn newly_scheduled((old, new): (u32, u32)) -> bool {
        old & Self::SCHEDULED == 0 && new & Self::SCHEDULED != 0
    }

    /// An event of the socket, whose lock is held. Returns whether the caller has to queue the
    /// connection.
    #[must_use]
    pub(crate) fn event(&self, events: u32) -> bool {
        let old = self.0.load(Acquire);
        if old & events == events && old & Self::SCHEDULED != 0 && old & Self::FULL == 0 {
            // The bits are set already, and not yet taken. The run takes them before it takes the socket's
            // lock, which the caller of this callback holds, so it sees the cause of this event.
            return false;
        }
        Self::newly_scheduled(self.update(|bits| {
            let bits = bits | events;
            // There is room in the send buffer.
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

    /// Requests a run for a reason other than an event of the socket, whose lock need not be held. Returns
    /// whether the caller has to queue the connection.
    #[must_use]
    pub(crate) fn request_retry(&self) -> bool {
        Self::newly_scheduled(self.update(|bits| Self::schedule(bits | Self::EVENTS)))
    }

    /// Ends being held. Returns whether the caller has to queue the connection.
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        // There was no event for what happened before the socket was hooked: set both.
        Self::newly_scheduled(
            self.update(|bits| Self::schedule((bits & !Self::HELD) | Self::EVENTS)),
        )
    }

    /// Takes the events for this run; they are cleared.
    pub(crate) fn take(&self) -> u32 {
        self.update(|bits| bits & !Self::EVENTS).0 & Self::EVENTS
    }

    /// Ends a run. `again` has the events that it left unfinished, and [`Readiness::FULL`] if the send buffer was
    /// full. Returns whether the caller has to queue the connection again.
    #[must_use]
    pub(crate) fn finish(&self, again: u32) -> bool {
        let (_, new) = self.update(|bits| {
            // There may have been room since the send buffer was found full; or a transmit was queued, or a retry
            // requested, before `FULL` was set, which costs one more turn. Do not set `FULL`.
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
