// SPDX-License-Identifier: GPL-2.0

//! Allocations that fail on purpose: the kernel's fault injection, aimed at the module's code.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result};

const SITES: [&str; 2] = ["failslab", "fail_page_alloc"];
/// The most frames that the kernel looks at.
const DEPTH: &str = "32";

/// Fails allocations that the module's code asks for, directly or not, until it is dropped.
pub struct Faults;

impl Faults {
    /// Aims at allocations below code at these addresses. None fails yet.
    pub fn aim(code: &Range<u64>) -> Result<Faults> {
        let (start, end) = (format!("{:#x}", code.start), format!("{:#x}", code.end));
        for site in SITES {
            for (name, value) in [
                ("probability", "0"),
                ("verbose", "0"),
                ("stacktrace-depth", DEPTH),
                ("require-start", start.as_str()),
                ("require-end", end.as_str()),
                // Those that could have waited for memory fail too.
                ("ignore-gfp-wait", "0"),
            ] {
                set(site, name, value)?;
            }
        }
        set("failslab", "cache-filter", "0")?;
        set("fail_page_alloc", "min-order", "0")?;
        Ok(Faults)
    }

    /// Lets one in `interval` allocations fail, so many times; -1 is without end.
    pub fn fire(&self, interval: usize, times: i32) -> Result<()> {
        for site in SITES {
            set(site, "interval", &interval.to_string())?;
            set(site, "times", &times.to_string())?;
            set(site, "probability", "100")?;
        }
        Ok(())
    }

    /// Lets none fail. Returns how many of the times were left over.
    pub fn cease(&self) -> Result<i32> {
        let mut left = 0;
        for site in SITES {
            set(site, "probability", "0")?;
            let times = fs::read_to_string(file(site, "times"))?;
            left += times.trim().parse::<i32>().context("no number of times")?;
        }
        Ok(left)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        for site in SITES {
            let _ = set(site, "probability", "0");
        }
    }
}

fn file(site: &str, name: &str) -> String {
    format!("/sys/kernel/debug/{site}/{name}")
}

fn set(site: &str, name: &str, value: &str) -> Result<()> {
    let file = file(site, name);
    fs::write(&file, value).with_context(|| format!("cannot write {value} to {file}"))
}

/// Runs `work` in this thread with its `nth` allocation failing, of those that are aimed at.
/// Returns what `work` returned, and whether it came as far as that allocation.
pub fn with_nth<T>(nth: u32, work: impl FnOnce() -> T) -> Result<(T, bool)> {
    const FILE: &str = "/proc/thread-self/fail-nth";
    fs::write(FILE, nth.to_string()).context("the kernel can't fail allocations by number")?;
    let result = work();
    let left = fs::read_to_string(FILE)?;
    fs::write(FILE, "0")?;
    Ok((result, left.trim() == "0"))
}
