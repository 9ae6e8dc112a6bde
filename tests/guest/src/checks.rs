// SPDX-License-Identifier: GPL-2.0

//! Checks after every scenario: nothing may be left.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};

use crate::debugfs::{self, Section};
use crate::lab::Lab;
use crate::module;
use crate::node::Node;
use crate::wait;

/// How long counters and sockets may take to come to rest.
const REST_LIMIT: Duration = Duration::from_secs(20);
/// kmemleak does not report what is younger than five seconds.
const LEAK_AGE: Duration = Duration::from_millis(5500);

/// Values of an NI in the statistics that count what exists now.
const GAUGES: [&str; 4] = ["peers", "conns", "handshakes", "txs"];

/// Takes down every node's NIs as an administrator would; nothing of them may stay.
///
/// What is there is read from debugfs, which has it for all namespaces at once.
pub fn retire(lab: &Lab) -> Result<()> {
    let sections = debugfs::stats()?;
    let with_interface: Vec<(&Node, Vec<&str>)> = lab
        .nodes()
        .map(|node| Ok((node, interfaces_of(&sections, node.space.inode()?))))
        .filter(|found| !matches!(found, Ok((_, nids)) if nids.is_empty()))
        .collect::<Result<_>>()?;
    // What one of them still has would make peers of others again: each step is done by all, side by side.
    // A gateway that is gone would be looked for, and be a peer again.
    for what in ["route", "peer"] {
        together(&with_interface, |(node, _)| {
            node.socklctl(&[what, "del", "any"]).map(drop)
        })?;
    }
    wait::until(REST_LIMIT, "counters at rest", at_rest)?;
    together(&with_interface, |(node, nids)| {
        nids.iter()
            .try_for_each(|nid| node.socklctl(&["ni", "del", nid]).map(drop))
    })?;
    let left = debugfs::stats()?;
    let left: Vec<_> = left.iter().map(|section| &section.heading).collect();
    ensure!(
        !left.iter().any(|heading| heading.starts_with("ni ")),
        "NIs are left: {left:?}"
    );
    Ok(())
}

/// The NIDs of the NIs in the namespace with this number.
fn interfaces_of(sections: &[Section], namespace: u64) -> Vec<&str> {
    let ending = format!(" namespace {namespace}");
    let headings = sections.iter().map(|section| section.heading.as_str());
    headings
        .filter_map(|heading| heading.strip_prefix("ni ")?.strip_suffix(&ending))
        .collect()
}

fn at_rest() -> Result<()> {
    // Whether the node passes on messages is told before its pools.
    let mut forwards = false;
    for section in debugfs::stats()? {
        let heading = &section.heading;
        match heading.split(' ').next().unwrap_or_default() {
            "peer" | "route" | "conn" => bail!("{heading} is left"),
            "ni" => {
                for name in GAUGES {
                    let count = section.get(name)?;
                    ensure!(count == 0, "{heading} has {count} {name}");
                }
            }
            "forwarding" => forwards = section.get("on")? != 0,
            "pool" => {
                for name in ["busy", "waiting"] {
                    let count = section.get(name)?;
                    ensure!(count == 0, "forwarding buffers, {heading}: {count} {name}");
                }
                let buffers = section.get("buffers")?;
                ensure!(
                    forwards || buffers == 0,
                    "forwarding buffers, {heading}: {buffers} are left"
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// Does the same for all of them, side by side.
fn together<T: Sync>(all: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = all
            .iter()
            .map(|one| scope.spawn(move || work(one)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a check panicked"))?)
    })
}

/// No TCP socket may be left anywhere in this machine.
pub fn no_sockets() -> Result<()> {
    wait::until(REST_LIMIT, "no TCP sockets left", || {
        let table = fs::read_to_string("/proc/net/sockstat")?;
        let line = table
            .lines()
            .find(|line| line.starts_with("TCP:"))
            .unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        for name in ["inuse", "orphan", "alloc"] {
            let at = words.iter().position(|word| *word == name);
            match at.and_then(|at| words.get(at + 1)) {
                Some(&"0") => {}
                _ => bail!("{line}"),
            }
        }
        Ok(())
    })
}

/// kmemleak, if the kernel has it.
pub struct Leaks;

impl Leaks {
    const FILE: &str = "/sys/kernel/debug/kmemleak";
    /// A few reports are enough to find the first.
    const SHOWN: usize = 60;

    /// Whether this kernel can look for leaks.
    pub fn known() -> bool {
        fs::write(Leaks::FILE, "scan=off").is_ok()
    }

    /// Forgets whatever leaked before the module was ever there.
    pub fn forget() -> Result<()> {
        Ok(fs::write(Leaks::FILE, "clear")?)
    }

    /// Looks for leaks.
    pub fn none() -> Result<()> {
        wait::quiet_time(LEAK_AGE);
        // An object is reported when two scans found it unreferenced and unchanged.
        for _ in 0..2 {
            fs::write(Leaks::FILE, "scan")?;
        }
        let report = fs::read_to_string(Leaks::FILE)?;
        let count = report
            .lines()
            .filter(|line| line.starts_with("unreferenced object"))
            .count();
        if count > 0 {
            let shown: Vec<_> = report.lines().take(Leaks::SHOWN).collect();
            bail!(
                "{count} leaked objects; the module was at {}:\n{}",
                module::places(),
                shown.join("\n")
            );
        }
        Ok(())
    }
}
