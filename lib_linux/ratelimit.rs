// SPDX-License-Identifier: GPL-2.0

//! Log lines that can't flood the log.
//!
//! Each use of a macro has a limit of its own, in a static: 10 lines in 5 seconds, as with C's
//! `pr_*_ratelimited`. The limit consists of atomics; two processors that meet at the end of an
//! interval may let a few lines more through, which is harmless.

use super::time;
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

const INTERVAL_MS: u64 = 5_000;
const BURST: u32 = 10;

/// How many lines one place of the code has logged lately.
pub(crate) struct RateLimit {
    /// When the current interval began, in monotonic milliseconds.
    begin_ms: Atomic<u64>,
    /// Lines asked for in the current interval.
    lines: Atomic<u32>,
}

impl RateLimit {
    /// A limit with nothing used up.
    pub(crate) const fn new() -> Self {
        Self {
            begin_ms: Atomic::new(0),
            lines: Atomic::new(0),
        }
    }

    /// Whether a line may be logged now, and if so how many were not since the last. Any context.
    pub(crate) fn allow(&self) -> Option<u32> {
        self.allow_at(time::monotonic_ms())
    }

    fn allow_at(&self, now_ms: u64) -> Option<u32> {
        let begin_ms = self.begin_ms.load(Relaxed);
        let mut missed = 0;
        // The very first line begins an interval as well, unless the machine has only just started.
        if now_ms.wrapping_sub(begin_ms) >= INTERVAL_MS
            && self.begin_ms.cmpxchg(begin_ms, now_ms, Relaxed).is_ok()
        {
            missed = self.lines.xchg(0, Relaxed).saturating_sub(BURST);
        }
        // Can't wrap: that would take 2^32 lines in one interval.
        (self.lines.fetch_add(1, Relaxed) < BURST).then_some(missed)
    }
}

/// Logs with the given macro of the `kernel` crate unless this place has logged too much lately.
macro_rules! pr_ratelimited {
    ($pr:ident, $($arg:tt)+) => {{
        static LIMIT: $crate::lib_linux::ratelimit::RateLimit =
            $crate::lib_linux::ratelimit::RateLimit::new();
        if let Some(missed) = LIMIT.allow() {
            if missed > 0 {
                ::kernel::$pr!("{} lines like the next one were not logged\n", missed);
            }
            ::kernel::$pr!($($arg)+);
        }
    }};
}
pub(crate) use pr_ratelimited;

/// As [`pr_warn!`](kernel::pr_warn), but limited.
macro_rules! pr_warn_ratelimited {
    ($($arg:tt)+) => { $crate::lib_linux::ratelimit::pr_ratelimited!(pr_warn, $($arg)+) };
}
pub(crate) use pr_warn_ratelimited;

/// As [`pr_info!`](kernel::pr_info), but limited.
macro_rules! pr_info_ratelimited {
    ($($arg:tt)+) => { $crate::lib_linux::ratelimit::pr_ratelimited!(pr_info, $($arg)+) };
}
pub(crate) use pr_info_ratelimited;

#[kunit_tests(socklnd_lib_linux_ratelimit)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_silence_then_a_count() {
        let limit = RateLimit::new();
        for _ in 0..BURST {
            assert!(limit.allow_at(INTERVAL_MS) == Some(0));
        }
        assert!(limit.allow_at(INTERVAL_MS).is_none());
        assert!(limit.allow_at(INTERVAL_MS + 1).is_none());
        assert!(limit.allow_at(2 * INTERVAL_MS) == Some(2));
        assert!(limit.allow_at(2 * INTERVAL_MS) == Some(0));
    }
}
