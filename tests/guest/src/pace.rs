// SPDX-License-Identifier: GPL-2.0

//! How fast this guest is, as far as limits and loads go by it.
//!
//! Limits of scenarios are written for a reference, the debug kernel on an emulated machine. A guest may be
//! many times slower: its host is slower, busy, or gives it only a part of a processor. So a piece of
//! work like that of the scenarios is timed, at the start and again before each scenario, and limits
//! are stretched by what comes of it. That is done where they are applied ([`crate::wait::until`],
//! [`crate::command::Job::wait`], the time-outs of scripts' sockets, [`crate::node::Bench::limit`]);
//! scenarios name the times of the reference. What a scenario stretches itself are module parameters
//! that its load must fit within, and bounds of times that it measures.

use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// What one unit of the work takes on the reference.
const UNIT: Duration = Duration::from_millis(50);
/// For so long it is repeated: longer than the period of most quotas of processor time, so that a part
/// of both, with processor and without, is in it.
const TIME: Duration = Duration::from_millis(120);
/// Nothing is stretched by more: parameters of the module are stretched too, and what waits for them to pass
/// takes that much longer also when the host is no longer busy.
const MOST: f64 = 8.0;

/// Thousandths.
static SLOWNESS: AtomicU64 = AtomicU64::new(1000);

/// Times the work once more, and says how many times slower than the reference this guest is now, at
/// least 1. A host that was busy just now may be so again soon: the measure falls slowly.
pub fn measure() -> Result<f64> {
    let started = Instant::now();
    let mut units = 0;
    while started.elapsed() < TIME {
        unit()?;
        units += 1;
    }
    let now = started.elapsed().as_secs_f64() / f64::from(units) / UNIT.as_secs_f64();
    let now = now.max(f64::midpoint(now, slowness())).clamp(1.0, MOST);
    SLOWNESS.store((now * 1000.0) as u64, Ordering::Relaxed);
    Ok(now)
}

/// How many times slower than the reference this guest is, at least 1.
pub fn slowness() -> f64 {
    SLOWNESS.load(Ordering::Relaxed) as f64 / 1000.0
}

/// What takes this time on the reference takes that long here.
pub fn stretched(time: Duration) -> Duration {
    time.mul_f64(slowness())
}

/// The same for a number: of seconds, in a parameter of the module, or of something that takes time.
pub fn scaled(number: u64) -> u64 {
    (number as f64 * slowness()).ceil() as u64
}

/// What scenarios spend their time with: processes, threads, files of the kernel's, data through sockets.
fn unit() -> Result<()> {
    Command::new("true").status()?;
    let (mut one, mut other) = UnixStream::pair()?;
    let mut buffer = [0; 4096];
    for _ in 0..20 {
        one.write_all(&buffer)?;
        other.read_exact(&mut buffer)?;
    }
    let reader = thread::spawn(move || other.read(&mut [0]));
    black_box(fs::read("/proc/net/dev")?);
    black_box(fs::read("/proc/self/maps")?);
    drop(one);
    let _ = reader.join();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_less_than_what_is_written() {
        for _ in 0..3 {
            let slowness = measure().unwrap();
            assert!((1.0..=MOST).contains(&slowness), "{slowness}");
            let second = Duration::from_secs(1);
            // Other tests stretch their limits meanwhile, but nobody else measures.
            assert!(stretched(second) >= second && scaled(3) >= 3);
        }
    }
}
