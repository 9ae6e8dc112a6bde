// SPDX-License-Identifier: GPL-2.0

//! What must be true after every scenario: nothing is left behind.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::module;
use crate::node::Node;
use crate::wait;

/// How long counters and sockets may take to come to rest.
const REST_LIMIT: Duration = Duration::from_secs(20);
/// kmemleak does not report what is younger than five seconds.
const LEAK_AGE: Duration = Duration::from_millis(5500);

/// Numbers of `socklctl stats` that count what exists now.
const GAUGES: [&str; 5] = ["peers", "routes", "conns", "handshakes", "txs"];

/// Takes down every node's interfaces as an administrator would; nothing of them may stay.
pub fn retire(lab: &Lab) -> Result<()> {
    let nodes: Vec<&Node> = lab.nodes().collect();
    // What one of them still has would make peers of others again: each step is done by all, side by side.
    let has_interface = together(&nodes, |node| Ok(node.stats()?.is_some()))?;
    let nodes: Vec<&Node> = std::iter::zip(nodes, has_interface)
        .filter_map(|(node, has_interface)| has_interface.then_some(node))
        .collect();
    // A gateway that is gone would be looked for, and be a peer again.
    together(&nodes, |node| node.socklctl(&["route", "del", "any"]))?;
    together(&nodes, |node| node.socklctl(&["peer", "del", "any"]))?;
    together(&nodes, |node| {
        let what = format!("counters of {} at rest", node.nid());
        wait::until(REST_LIMIT, &what, || at_rest(node))?;
        for ni in node.list(&["ni", "list"])? {
            node.socklctl(&["ni", "del", ni["nid"].as_str().unwrap_or_default()])?;
        }
        ensure!(
            node.list(&["ni", "list"])?.is_empty(),
            "{} is still listed after its removal",
            node.nid()
        );
        Ok(())
    })?;
    Ok(())
}

/// Does the same at all nodes, side by side; gives what came of it in the order of the nodes.
fn together<T: Send>(
    nodes: &[&Node],
    work: impl Fn(&Node) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(move || work(node)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a check panicked"))?)
            .collect()
    })
}

fn at_rest(node: &Node) -> Result<()> {
    for stats in node.list(&["stats"])? {
        let busy: Vec<_> = GAUGES
            .iter()
            .filter(|name| stats["live"][**name].as_u64() != Some(0))
            .collect();
        ensure!(busy.is_empty(), "{busy:?} not zero in {stats}");
    }
    let routing = node.socklctl(&["show", "routing"])?;
    for pool in ["small", "large"] {
        let pool = &routing[pool];
        let idle = pool["busy"] == 0 && pool["waiting"] == 0;
        ensure!(idle, "forwarding buffers are in use: {routing}");
        ensure!(
            routing["routing"] == true || pool["buffers"] == 0,
            "forwarding buffers are left: {routing}"
        );
    }
    let conns = node.list(&["conn", "list"])?;
    ensure!(
        conns.is_empty(),
        "connections are left: {}",
        Value::from(conns)
    );
    Ok(())
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
