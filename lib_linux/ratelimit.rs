// SPDX-License-Identifier: GPL-2.0

//! Log lines with a rate limit.
//!
//! Each use of a macro has a limit of its own, in a static: 10 lines in 5 seconds, as C's
//! `pr_*_ratelimited` has. Lines that other machines can cause are also limited for each of their
//! addresses, so that one of them can't use up the limit for all.
//!
//! The limits consist of atomics; if two processors begin an interval at the same time, a few lines more
//! are logged, which is harmless. They are statics, and never freed.

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

/// The limit for one source.
const BURST_OF_SOURCE: u32 = 3;

/// The number of limits for sources. Which sources share one changes with each interval.
const SLOTS: usize = 16;

/// The limit of one kind of log line.
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
    /// Lines that were not logged since their number was last returned.
    missed: Atomic<u32>,
}

impl RateLimit {
    /// A limit of which nothing is used.
    pub(crate) const fn new() -> Self {
        Self {
            begin_ms: Atomic::new(0),
            lines: Atomic::new(0),
            missed: Atomic::new(0),
        }
    }

    /// Counts a line. If it may be logged, returns the number of lines that were not logged before and
    /// are not reported yet; `None` if it must not. Any context.
    pub(crate) fn allow(&self) -> Option<u32> {
        self.allow_at(time::monotonic_ms(), BURST)
    }

    fn allow_at(&self, now_ms: u64, burst: u32) -> Option<u32> {
        let begin_ms = self.begin_ms.load(Relaxed);
        // The very first line begins an interval, too, unless the clock is still below `INTERVAL_MS`.
        let begins = now_ms.wrapping_sub(begin_ms) >= INTERVAL_MS
            && self.begin_ms.cmpxchg(begin_ms, now_ms, Relaxed).is_ok();
        if begins {
            self.lines.store(0, Relaxed);
        }
        // Does not wrap: there are less than 2^32 lines in an interval.
        if self.lines.fetch_add(1, Relaxed) >= burst {
            self.miss();
            return None;
        }
        // Only once in an interval, because the report is a line, too.
        Some(if begins {
            self.missed.xchg(0, Relaxed)
        } else {
            0
        })
    }

    /// Counts a line that was not logged.
    fn miss(&self) {
        self.missed.fetch_add(1, Relaxed);
    }
}

/// The limit of one kind of log line about other machines: for each source, and in all.
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
    /// The random key of the hash; 0 before the first line.
    key: Atomic<u64>,
}

impl SourceLimit {
    /// A limit of which nothing is used.
    pub(crate) const fn new() -> Self {
        Self {
            all: RateLimit::new(),
            slots: [const { RateLimit::new() }; SLOTS],
            key: Atomic::new(0),
        }
    }

    /// Counts a line about the machine at `addr`, see [`RateLimit::allow`]. Any context.
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
            // If two processors do this at the same time, both use the first key.
            let _ = self.key.cmpxchg(0, misc::random_u64() | 1, Relaxed);
        }
        self.key.load(Relaxed)
    }
}

/// The index of the limit for `addr` in this interval. Only the first half of an IPv6 address is used:
/// a machine can have any second half.
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

/// Logs a line by the given macro of the `kernel` crate, if the result of an `allow` says so.
#[doc(hidden)]
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

/// Logs a line by the given macro of the `kernel` crate, with a [`RateLimit`] of its own.
#[doc(hidden)]
macro_rules! pr_ratelimited {
    ($pr:ident, $($arg:tt)+) => {{
        static LIMIT: $crate::lib_linux::ratelimit::RateLimit =
            $crate::lib_linux::ratelimit::RateLimit::new();
        $crate::lib_linux::ratelimit::pr_limited!($pr, LIMIT.allow(), $($arg)+);
    }};
}
pub(crate) use pr_ratelimited;

/// As [`pr_warn!`](kernel::pr_warn), with a rate limit.
///
/// # Examples
///
/// ```
/// let mut evaluated = 0;
/// for _ in 0..100 {
///     pr_warn_ratelimited!("line {} of an example\n", {
///         evaluated += 1;
///         evaluated
///     });
/// }
/// // Arguments of lines that are not logged are not evaluated.
/// assert!(evaluated < 100);
/// ```
macro_rules! pr_warn_ratelimited {
    ($($arg:tt)+) => { $crate::lib_linux::ratelimit::pr_ratelimited!(pr_warn, $($arg)+) };
}
pub(crate) use pr_warn_ratelimited;

/// As [`pr_info!`](kernel::pr_info), with a rate limit.
///
/// # Examples
///
/// ```
/// let mut evaluated = 0;
/// for _ in 0..100 {
///     pr_info_ratelimited!("line {} of an example\n", {
///         evaluated += 1;
///         evaluated
///     });
/// }
/// assert!(evaluated < 100);
/// ```
macro_rules! pr_info_ratelimited {
    ($($arg:tt)+) => { $crate::lib_linux::ratelimit::pr_ratelimited!(pr_info, $($arg)+) };
}
pub(crate) use pr_info_ratelimited;

/// As [`pr_warn!`](kernel::pr_warn), with a rate limit for the machine at an address, and one for all.
///
/// # Examples
///
/// ```
/// use core::net::{IpAddr, Ipv4Addr};
///
/// let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// let mut evaluated = 0;
/// for _ in 0..100 {
///     pr_warn_about!(source, "line {} of an example\n", {
///         evaluated += 1;
///         evaluated
///     });
/// }
/// assert!(evaluated < 100);
/// ```
macro_rules! pr_warn_about {
    ($addr:expr, $($arg:tt)+) => {{
        static LIMIT: $crate::lib_linux::ratelimit::SourceLimit =
            $crate::lib_linux::ratelimit::SourceLimit::new();
        $crate::lib_linux::ratelimit::pr_limited!(pr_warn, LIMIT.allow($addr), $($arg)+);
    }};
}
pub(crate) use pr_warn_about;

/// As [`pr_info!`](kernel::pr_info), with a rate limit for the machine at an address, and one for all.
///
/// # Examples
///
/// ```
/// use core::net::{IpAddr, Ipv4Addr};
///
/// let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// let mut evaluated = 0;
/// for _ in 0..100 {
///     pr_info_about!(source, "line {} of an example\n", {
///         evaluated += 1;
///         evaluated
///     });
/// }
/// assert!(evaluated < 100);
/// ```
macro_rules! pr_info_about {
    ($addr:expr, $($arg:tt)+) => {{
        static LIMIT: $crate::lib_linux::ratelimit::SourceLimit =
            $crate::lib_linux::ratelimit::SourceLimit::new();
        $crate::lib_linux::ratelimit::pr_limited!(pr_info, LIMIT.allow($addr), $($arg)+);
    }};
}
pub(crate) use pr_info_about;

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
