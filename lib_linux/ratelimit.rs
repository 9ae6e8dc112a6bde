// SPDX-License-Identifier: GPL-2.0

//! Log lines that can't flood the log.
//!
//! Each use of a macro has a limit of its own, in a static: 10 lines in 5 seconds, as with C's
//! `pr_*_ratelimited`. What strangers can cause is limited for each of their addresses as well, so that
//! one of them can't use up what there is for all.
//!
//! The limits consist of atomics; two processors that meet at the end of an interval may let a few lines
//! more through, which is harmless. They are statics, and nobody frees them.

use super::{
    misc,
    time, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

const INTERVAL_MS: u64 = 5_000;
const BURST: u32 = 10;

/// Of these, those about one source.
const BURST_OF_SOURCE: u32 = 3;

/// How many counts there are for sources. Sources that share one are others in the next interval.
const SLOTS: usize = 16;

/// How many lines there were lately.
///
/// # Examples
///
/// ```
/// let limit = RateLimit::new();
/// assert_eq!(limit.allow(), Some(0));
/// let logged = (0..100).filter(|_| limit.allow().is_some()).count();
/// assert!(logged < 100);
/// ```
pub(crate) struct RateLimit {
    /// When the current interval began, in monotonic milliseconds.
    begin_ms: Atomic<u64>,
    /// Lines asked for in the current interval.
    lines: Atomic<u32>,
    /// Lines that were not logged since somebody was told how many.
    missed: Atomic<u32>,
}

impl RateLimit {
    /// A limit with nothing used up.
    pub(crate) const fn new() -> Self {
        Self {
            begin_ms: Atomic::new(0),
            lines: Atomic::new(0),
            missed: Atomic::new(0),
        }
    }

    /// Whether a line may be logged now, and if so how many were not that nobody was told of. Any context.
    pub(crate) fn allow(&self) -> Option<u32> {
        self.allow_at(time::monotonic_ms(), BURST)
    }

    fn allow_at(&self, now_ms: u64, burst: u32) -> Option<u32> {
        let begin_ms = self.begin_ms.load(Relaxed);
        // The very first line begins an interval as well, unless the machine has only just started.
        let begins = now_ms.wrapping_sub(begin_ms) >= INTERVAL_MS
            && self.begin_ms.cmpxchg(begin_ms, now_ms, Relaxed).is_ok();
        if begins {
            self.lines.store(0, Relaxed);
        }
        // Can't wrap: that would take 2^32 lines in one interval.
        if self.lines.fetch_add(1, Relaxed) >= burst {
            self.miss();
            return None;
        }
        // Told once in an interval: this is a line, too.
        Some(if begins {
            self.missed.xchg(0, Relaxed)
        } else {
            0
        })
    }

    /// A line was not logged.
    fn miss(&self) {
        self.missed.fetch_add(1, Relaxed);
    }
}

/// How many lines about strangers there were lately: about each source, and in all.
///
/// # Examples
///
/// ```
/// use core::net::{IpAddr, Ipv4Addr};
///
/// let limit = SourceLimit::new();
/// let stranger = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// assert_eq!(limit.allow(stranger), Some(0));
/// let logged = (0..100).filter(|_| limit.allow(stranger).is_some()).count();
/// assert!(logged < 100);
/// ```
pub(crate) struct SourceLimit {
    all: RateLimit,
    slots: [RateLimit; SLOTS],
    /// Random; 0 before the first line.
    key: Atomic<u64>,
}

impl SourceLimit {
    /// A limit with nothing used up.
    pub(crate) const fn new() -> Self {
        Self {
            all: RateLimit::new(),
            slots: [const { RateLimit::new() }; SLOTS],
            key: Atomic::new(0),
        }
    }

    /// Whether a line about somebody at `addr` may be logged now, and if so how many were not that nobody
    /// was told of. Any context.
    pub(crate) fn allow(&self, addr: IpAddr) -> Option<u32> {
        self.allow_at(time::monotonic_ms(), self.key(), addr)
    }

    fn allow_at(&self, now_ms: u64, key: u64, addr: IpAddr) -> Option<u32> {
        let slot = self.slots.get(slot(now_ms, key, addr))?;
        if slot.allow_at(now_ms, BURST_OF_SOURCE).is_none() {
            self.all.miss();
            return None;
        }
        self.all.allow_at(now_ms, BURST)
    }

    fn key(&self) -> u64 {
        if self.key.load(Relaxed) == 0 {
            // The first one counts; of two at a time one is lost.
            let _ = self.key.cmpxchg(0, misc::random_u64() | 1, Relaxed);
        }
        self.key.load(Relaxed)
    }
}

/// Where lines about `addr` are counted in this interval. Of IPv6 the first half of the address counts:
/// whoever has one has all of its second halves.
fn slot(now_ms: u64, key: u64, addr: IpAddr) -> usize {
    let source = match addr {
        IpAddr::V4(addr) => u64::from(addr.to_bits()),
        // CAST: The upper half.
        IpAddr::V6(addr) => (addr.to_bits() >> 64) as u64,
    };
    let hash = misc::siphash([key, now_ms / INTERVAL_MS], &[source]);
    // CAST: Less than `SLOTS`.
    (hash % SLOTS as u64) as usize
}

/// Logs with the given macro of the `kernel` crate what a limit allows.
macro_rules! pr_limited {
    ($pr:ident, $allowed:expr, $($arg:tt)+) => {
        if let Some(missed) = $allowed {
            if missed > 0 {
                ::kernel::$pr!("{} lines like the next one were not logged\n", missed);
            }
            ::kernel::$pr!($($arg)+);
        }
    };
}
pub(crate) use pr_limited;

/// Logs with the given macro of the `kernel` crate unless this place has logged too much lately.
macro_rules! pr_ratelimited {
    ($pr:ident, $($arg:tt)+) => {{
        static LIMIT: $crate::lib_linux::ratelimit::RateLimit =
            $crate::lib_linux::ratelimit::RateLimit::new();
        $crate::lib_linux::ratelimit::pr_limited!($pr, LIMIT.allow(), $($arg)+);
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

/// As [`pr_warn!`](kernel::pr_warn), but limited for the one at this address, and for all.
macro_rules! pr_warn_about {
    ($addr:expr, $($arg:tt)+) => {{
        static LIMIT: $crate::lib_linux::ratelimit::SourceLimit =
            $crate::lib_linux::ratelimit::SourceLimit::new();
        $crate::lib_linux::ratelimit::pr_limited!(pr_warn, LIMIT.allow($addr), $($arg)+);
    }};
}
pub(crate) use pr_warn_about;

#[kunit_tests(socklnd_lib_linux_ratelimit)]
mod tests {
    use super::*;
    use core::net::{
        Ipv4Addr,
        Ipv6Addr, //
    };

    #[test]
    fn a_burst_then_silence_then_a_count() {
        let limit = RateLimit::new();
        for _ in 0..BURST {
            assert!(limit.allow_at(INTERVAL_MS, BURST) == Some(0));
        }
        assert!(limit.allow_at(INTERVAL_MS, BURST).is_none());
        assert!(limit.allow_at(INTERVAL_MS + 1, BURST).is_none());
        assert!(limit.allow_at(2 * INTERVAL_MS, BURST) == Some(2));
        assert!(limit.allow_at(2 * INTERVAL_MS, BURST) == Some(0));
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    #[test]
    fn one_source_does_not_hide_the_others() {
        let limit = SourceLimit::new();
        let (flood, other) = (v4(1), v4(2));
        let mut seen = 0;
        for interval in 1..=20 {
            let now = interval * INTERVAL_MS;
            let logged = (0..1000).filter(|_| limit.allow_at(now, 7, flood).is_some());
            assert!(logged.count() <= BURST_OF_SOURCE as usize);
            seen += u32::from(limit.allow_at(now, 7, other).is_some());
        }
        // They share a count now and then.
        assert!(seen > 10 && seen <= 20);
    }

    #[test]
    fn many_sources_do_not_fill_the_log() {
        let limit = SourceLimit::new();
        for interval in 1..=3 {
            let now = interval * INTERVAL_MS;
            let logged = (0..=u8::MAX).filter(|last| limit.allow_at(now, 7, v4(*last)).is_some());
            assert!(logged.count() <= BURST as usize);
        }
    }

    #[test]
    fn what_was_not_logged_is_told() {
        let limit = SourceLimit::new();
        let asked = 1000;
        let logged = (0..asked).filter(|_| limit.allow_at(INTERVAL_MS, 7, v4(1)).is_some());
        let missed = asked - logged.count() as u32;
        assert!(limit.allow_at(3 * INTERVAL_MS, 7, v4(2)) == Some(missed));
        assert!(limit.allow_at(3 * INTERVAL_MS, 7, v4(3)) == Some(0));
    }

    #[test]
    fn the_first_half_of_a_long_address_counts() {
        let addr = |net, host| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, net, 0, 0, 0, host));
        for host in 2..50 {
            assert_eq!(slot(0, 7, addr(1, 1)), slot(0, 7, addr(1, host)));
        }
        assert!((2..50).any(|net| slot(0, 7, addr(1, 1)) != slot(0, 7, addr(net, 1))));
    }
}
