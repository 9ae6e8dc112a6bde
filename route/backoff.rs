// SPDX-License-Identifier: GPL-2.0

//! The exponential back-off of a route.
//!
//! Part of its route, and protected with it by the peer's lock. `core` only: the same file is built in
//! user space, for property tests (`tests/wire`).

/// When the next attempt may begin. All times are in monotonic milliseconds.
pub(crate) struct Backoff {
    not_before_ms: u64,
    /// When the last one failed; zero before the first.
    failed_ms: u64,
    /// The wait after the next failure; zero before the first.
    interval_ms: u64,
}

impl Backoff {
    /// No back-off: an attempt may begin at once.
    pub(crate) fn new() -> Self {
        Self {
            not_before_ms: 0,
            failed_ms: 0,
            interval_ms: 0,
        }
    }

    /// Whether an attempt may begin at `now_ms`.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.not_before_ms
    }

    /// When the last attempt failed; zero if none has.
    pub(crate) fn failed_ms(&self) -> u64 {
        self.failed_ms
    }

    /// An attempt failed. The next one waits for `min_ms` at first, then twice as long each time, up to the
    /// greater of `max_ms` and `min_ms`.
    pub(crate) fn fail(&mut self, now_ms: u64, min_ms: u64, max_ms: u64) {
        let wait = self.interval_ms.clamp(min_ms, max_ms.max(min_ms));
        self.not_before_ms = now_ms.saturating_add(wait);
        self.failed_ms = now_ms;
        self.interval_ms = wait.saturating_mul(2);
    }

    /// The next attempt waits for `wait_ms`, or longer if the back-off is longer.
    pub(crate) fn postpone(&mut self, now_ms: u64, wait_ms: u64) {
        self.not_before_ms = self.not_before_ms.max(now_ms.saturating_add(wait_ms));
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_route))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_limit() {
        let mut backoff = Backoff::new();
        assert!(backoff.is_due(0));
        let mut now = 5_000;
        for wait in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            backoff.fail(now, 1_000, 60_000);
            assert!(!backoff.is_due(now + wait - 1));
            assert!(backoff.is_due(now + wait));
            now += wait;
        }
    }

    #[test]
    fn backoff_survives_odd_limits() {
        let mut backoff = Backoff::new();
        backoff.fail(0, 10, 0);
        assert!(backoff.is_due(10));
        backoff.fail(u64::MAX, u64::MAX, u64::MAX);
        assert!(backoff.is_due(u64::MAX));
    }
}
