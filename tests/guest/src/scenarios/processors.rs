// SPDX-License-Identifier: GPL-2.0

//! Processors that go offline and come back.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::bystander::Bystander;
use super::versions::set;
use crate::debugfs::sections;
use crate::lab::Lab;
use crate::module;
use crate::node::Node;
use crate::wait;

/// The processor that comes and goes: the first one must stay.
const SECOND: &str = "/sys/devices/system/cpu/cpu1/online";
/// A bound for what happens at once.
const SOON: Duration = Duration::from_secs(60);
/// So many messages show that a transfer goes on.
const SOME: u64 = 50;

/// The second processor is away while this is there.
struct Away;

impl Away {
    fn take() -> Result<Away> {
        fs::write(SECOND, "0").context("the second processor stays")?;
        Ok(Away)
    }

    fn end(self) -> Result<()> {
        // Before the attempt to do so once more, which changes nothing.
        fs::write(SECOND, "1").context("the second processor does not come back")
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let _ = fs::write(SECOND, "1");
    }
}

/// The schedulers' threads, and the processors that each may run on.
fn threads() -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        // Some of the others end meanwhile.
        let Ok(status) = fs::read_to_string(entry?.path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        if let Some(number) = field("Name:").strip_prefix("socklnd_sd") {
            found.insert(number.to_owned(), field("Cpus_allowed_list:"));
        }
    }
    Ok(found)
}

/// Waits until there is a scheduler for each of these processors, bound to it, and no other.
fn await_bound(cpus: &[u32]) -> Result<()> {
    let bound = |cpu: &u32| (format!("{cpu:02}"), cpu.to_string());
    let wanted: BTreeMap<_, _> = cpus.iter().map(bound).collect();
    wait::until(SOON, &format!("schedulers of {cpus:?}"), || {
        let there = threads()?;
        ensure!(there == wanted, "{there:?}");
        Ok(())
    })
}

/// How many connections each scheduler serves.
fn served() -> Result<Vec<u64>> {
    let scheds = sections("scheduler")?;
    scheds.iter().map(|sched| sched.get("conns")).collect()
}

/// Waits until some more messages have come.
fn goes_on(node: &Node) -> Result<()> {
    let before = node.counter("/rx/msgs")?;
    wait::until(SOON, "messages", || {
        let more = node.counter("/rx/msgs")? - before;
        ensure!(more >= SOME, "{more} only");
        Ok(())
    })
}

/// A processor that comes online after the module was inserted gets a scheduler. One that goes
/// offline and comes back during a transfer has its scheduler bound to it again, and nothing else
/// changes.
pub fn come_and_go(lab: &mut Lab) -> Result<()> {
    let away = Away::take()?;
    module::remove()?;
    module::insert()?;
    // Packets between namespaces arrive where they were sent, and so would all connections.
    set("enable_irq_affinity", 0)?;
    lab.connect(2)?;
    lab.node(0).ping(lab.node(1))?;
    await_bound(&[0])?;
    for node in lab.nodes() {
        node.ni_del()?;
    }
    away.end()?;

    let bystander = Bystander::start(lab)?;
    await_bound(&[0, 1])?;
    let conns = served()?;
    ensure!(
        conns.len() == 2 && conns.iter().all(|count| *count > 0),
        "connections of the schedulers: {conns:?}"
    );
    for round in 0..2 {
        let away = Away::take()?;
        goes_on(lab.node(0)).with_context(|| format!("round {round}: it is away"))?;
        away.end()?;
        await_bound(&[0, 1]).with_context(|| format!("round {round}"))?;
        goes_on(lab.node(0)).with_context(|| format!("round {round}: it is back"))?;
    }
    bystander.unharmed(lab)
}
