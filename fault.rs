// SPDX-License-Identifier: GPL-2.0

//! Fault injection: faults on demand, set by files in debugfs.
//!
//! The knobs are zero except in tests, so on the hot path they are only read, from a shared cache line. A
//! connection's own state is a [`Stall`], part of its I/O state and protected by its mutex. No thread ever
//! waits for a hook: a connection that is held back is left alone until the reaper wakes it, and so is an
//! attempt to connect.

use crate::{
    lib_linux::param::Knob,
    sched::Readiness, //
};
use kernel::prelude::*;

/// So many of the next sends fail as if the kernel had no memory for the socket.
pub(crate) static ENOMEM_TX: Knob = Knob::new(0, 0..=1_000_000);

/// So many of the next accepts fail as if the kernel had no memory for a socket.
pub(crate) static ENOMEM_ACCEPT: Knob = Knob::new(0, 0..=1_000_000);

/// So many of the next handshakes that others begin fail as if there were no memory for them.
pub(crate) static ENOMEM_HANDSHAKE: Knob = Knob::new(0, 0..=1_000_000);

/// Seconds for which every turn of sending is held back.
pub(crate) static STALL_TX: Knob = Knob::new(0, 0..=86_400);

/// Seconds for which every turn of receiving is held back.
pub(crate) static STALL_RX: Knob = Knob::new(0, 0..=86_400);

/// Seconds by which the reaper delays the termination of a closed connection.
pub(crate) static STALL_REAPER: Knob = Knob::new(0, 0..=86_400);

/// Whether attempts to connect are left as they are, whatever their connection requests lead to.
pub(crate) static HOLD_CONNECT: Knob = Knob::new(0, 0..=1);

/// Whether the send that is about to be made is one of those that fail. Any context.
pub(crate) fn send_fails() -> bool {
    ENOMEM_TX.count_down()
}

/// Whether the accept that is about to be made is one of those that fail. Any context.
pub(crate) fn accept_fails() -> bool {
    ENOMEM_ACCEPT.count_down()
}

/// Whether the passive handshake that is about to begin is one of those that fail. Any context.
pub(crate) fn handshake_fails() -> bool {
    ENOMEM_HANDSHAKE.count_down()
}

/// Whether the results of attempts to connect are left unread. Any context.
pub(crate) fn attempts_are_held() -> bool {
    HOLD_CONNECT.get() != 0
}

/// By how long the reaper delays the termination of a closed connection, in milliseconds. Any context.
pub(crate) fn reaper_stall_ms() -> u64 {
    u64::try_from(STALL_REAPER.get())
        .unwrap_or(0)
        .saturating_mul(1000)
}

/// Until when a connection is held back, each way; in monotonic milliseconds.
pub(crate) struct Stall {
    tx: Option<u64>,
    rx: Option<u64>,
}

impl Stall {
    /// Not held back.
    pub(crate) const fn new() -> Self {
        Self { tx: None, rx: None }
    }

    /// Those of `events` that a turn may handle. The caller arranges a later turn for the others.
    pub(crate) fn admit(&mut self, events: u32, now_ms: impl FnOnce() -> u64) -> u32 {
        let (tx, rx) = (STALL_TX.get(), STALL_RX.get());
        if tx == 0 && rx == 0 {
            return events;
        }
        let now = now_ms();
        let mut admitted = events;
        if events & Readiness::TX != 0 && Self::holds(&mut self.tx, tx, now) {
            admitted &= !Readiness::TX;
        }
        if events & Readiness::RX != 0 && Self::holds(&mut self.rx, rx, now) {
            admitted &= !Readiness::RX;
        }
        admitted
    }

    /// Whether a turn at `now` has to wait, if turns wait for so many seconds.
    fn holds(until: &mut Option<u64>, seconds: i32, now: u64) -> bool {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        match *until {
            _ if seconds == 0 => *until = None,
            None => *until = Some(now.saturating_add(seconds.saturating_mul(1000))),
            Some(end) if now >= end => *until = None,
            Some(_) => {}
        }
        until.is_some()
    }
}

#[kunit_tests(socklnd_fault)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_waits_once() {
        let mut until = None;
        assert!(!Stall::holds(&mut until, 0, 1000));
        assert!(Stall::holds(&mut until, 3, 1000));
        assert!(Stall::holds(&mut until, 3, 3999));
        assert!(!Stall::holds(&mut until, 3, 4000));
        assert!(Stall::holds(&mut until, 3, 4000));
        // When the hook is disabled, all stalls end.
        assert!(!Stall::holds(&mut until, 0, 4001));
        assert!(until.is_none());
    }

    #[test]
    fn without_hooks_nothing_waits() {
        let mut stall = Stall::new();
        let both = Readiness::TX | Readiness::RX;
        assert_eq!(stall.admit(both, || 0), both);
    }
}
