// SPDX-License-Identifier: GPL-2.0

//! Allocations that fail on purpose: the kernel's fault injection, aimed at the module's code.

use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const SITES: [&str; 2] = ["failslab", "fail_page_alloc"];
/// The most frames that the kernel looks at.
const DEPTH: &str = "32";
/// Where kmemleak gets memory for its notes about an allocation, that is once more for each. It can do
/// without.
const NOTES: &str = "__alloc_object";

/// Fails allocations that the module's code asks for, directly or not, until it is dropped.
pub struct Faults;

impl Faults {
    /// Aims at allocations below code at these addresses. None fails yet. A kernel that can't tell who asks
    /// for memory is aimed at all allocations: those of the module's own threads are the module's in any case.
    pub fn aim(code: &Range<u64>) -> Result<Faults> {
        for site in SITES {
            for (name, value) in [
                ("probability", "0"),
                ("verbose", "0"),
                // Those that could have waited for memory fail too.
                ("ignore-gfp-wait", "0"),
            ] {
                set(site, name, value)?;
            }
        }
        if Path::new(&file(SITES[0], "require-start")).exists() {
            let notes = function(NOTES)?;
            for site in SITES {
                set(site, "stacktrace-depth", DEPTH)?;
                for (name, address) in [
                    ("require-start", code.start),
                    ("require-end", code.end),
                    ("reject-start", notes.start),
                    ("reject-end", notes.end),
                ] {
                    set(site, name, &format!("{address:#x}"))?;
                }
            }
        }
        set("failslab", "cache-filter", "0")?;
        set("fail_page_alloc", "min-order", "0")?;
        Ok(Faults)
    }

    /// Lets one in `interval` allocations fail.
    pub fn fire(&self, interval: usize) -> Result<()> {
        for site in SITES {
            set(site, "interval", &interval.to_string())?;
            set(site, "times", "-1")?;
            set(site, "probability", "100")?;
        }
        Ok(())
    }

    /// Lets none fail.
    pub fn cease(&self) -> Result<()> {
        for site in SITES {
            set(site, "probability", "0")?;
        }
        Ok(())
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

/// Where the kernel has a function.
fn function(name: &str) -> Result<Range<u64>> {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let mut addresses = Vec::new();
    let mut start = None;
    for line in symbols.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), _, Some(symbol)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let address = u64::from_str_radix(address, 16)?;
        addresses.push(address);
        if symbol == name {
            start = Some(address);
        }
    }
    let start = start.with_context(|| format!("the kernel has no {name}"))?;
    let behind = addresses.into_iter().filter(|address| *address > start);
    let end = behind
        .min()
        .with_context(|| format!("nothing is behind {name}"))?;
    Ok(start..end)
}

/// A thread of the kernel.
pub struct Thread {
    /// What it is called.
    pub name: String,
    file: PathBuf,
}

/// The kernel's threads whose names begin like this, by their names.
pub fn threads(start: &str) -> Result<Vec<Thread>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Some have ended meanwhile.
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.starts_with(start) {
            found.push(Thread {
                name: name.trim().to_owned(),
                file: path.join("fail-nth"),
            });
        }
    }
    found.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(found)
}

impl Thread {
    /// The one that this is called in.
    pub fn this() -> Thread {
        Thread {
            name: "the asker".to_owned(),
            file: PathBuf::from("/proc/thread-self/fail-nth"),
        }
    }

    /// Runs `work` while the `nth` allocation of the thread fails, of those that are aimed at. Returns
    /// what `work` returned, and whether the thread came as far as that allocation.
    pub fn with_nth<T>(&self, nth: u32, work: impl FnOnce() -> T) -> Result<(T, bool)> {
        let file = OpenOptions::new().read(true).write(true).open(&self.file);
        let file = file.context("the kernel can't fail allocations by number")?;
        file.write_at(nth.to_string().as_bytes(), 0)?;
        let result = work();
        // Nothing is allocated for this: the allocation could be still to come.
        let mut left = [0; 16];
        let length = file.read_at(&mut left, 0)?;
        file.write_at(b"0", 0)?;
        Ok((result, left[..length].trim_ascii() == b"0"))
    }
}
