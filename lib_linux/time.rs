// SPDX-License-Identifier: GPL-2.0

//! Clocks.
//!
//! There is no state here. All functions are for any context.
//!
//! Points in time that are compared with a peer's, a connection's or a route's are milliseconds and not
//! [`Instant`](kernel::time::Instant)s. Many of them are atomics, and the kernel crate neither has an atomic
//! instant nor lets other crates convert one to a number and back; others are in files that are also built in
//! user space. Spans of time and local points in time are [`Delta`](kernel::time::Delta)s and instants where no
//! conversion is needed for that.
//!
//! C header: [`include/linux/ktime.h`](srctree/include/linux/ktime.h)

use kernel::bindings;

const NSEC_PER_MSEC: u64 = 1_000_000;

/// `CLOCK_MONOTONIC` in milliseconds: it never goes back, and stops while the machine is suspended.
///
/// # Examples
///
/// ```
/// let begin = monotonic_ms();
/// assert!(monotonic_ms() >= begin);
/// ```
pub(crate) fn monotonic_ms() -> u64 {
    // SAFETY: Reading the clock has no preconditions.
    let ns = unsafe { bindings::ktime_get() };
    u64::try_from(ns).unwrap_or(0) / NSEC_PER_MSEC
}

/// `CLOCK_REALTIME` in nanoseconds since 1970, or zero if it is set to a time before. May jump when it is
/// set.
///
/// # Examples
///
/// ```
/// // After 2020.
/// assert!(realtime_ns() / 1_000_000_000 > 1_577_836_800);
/// ```
pub(crate) fn realtime_ns() -> u64 {
    // SAFETY: Reading the clock has no preconditions.
    let ns = unsafe { bindings::ktime_get_real() };
    u64::try_from(ns).unwrap_or(0)
}
