// SPDX-License-Identifier: GPL-2.0

//! Payloads that are sent without a copy: all of their pages are released, also on errors.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::traffic::{await_traffic, four_ways};
use super::versions::set;
use crate::command::Job;
use crate::lab::Lab;
use crate::module;
use crate::node::{Bench, Node, Op};
use crate::pace;
use crate::port::note;
use crate::wait;

const SYSCTL: &str = "/proc/sys/socknal/zero_copy";
const PARAMETER: &str = "/sys/module/ksocklnd/parameters/zc_min_payload";
const ZC_MSGS: &str = "/zero_copy/msgs";
const LARGEST: usize = 1 << 20;
/// More than any payload has: everything is copied.
const OFF: &str = "1048577";

/// More than can be moved while the scenario lasts.
const ENDLESS: Bench = Bench {
    op: Op::Put,
    size: 20_000,
    count: 1_000_000,
    in_flight: 8,
    limit: Duration::from_secs(300),
};

/// Messages that are sent without a copy arrive intact, and the tunable decides which messages
/// these are.
pub fn verified(lab: &mut Lab) -> Result<()> {
    for path in [SYSCTL, PARAMETER] {
        ensure!(fs::read_to_string(path)?.trim() == "2048", "{path}");
        for wrong in ["-2", "2147483648", "all"] {
            ensure!(fs::write(path, wrong).is_err(), "{path} takes {wrong}");
        }
    }
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _services = [one.serve()?, two.serve()?];
    for (threshold, size, count, is_zerocopy) in [
        ("2048", 2047, 20, false),
        ("2048", 2048, 20, true),
        ("0", 1, 20, true),
        ("0", 5000, 20, true),
        ("65536", 65535, 4, false),
        ("65536", 65536, 4, true),
        ("1048576", LARGEST, 2, true),
        (OFF, LARGEST, 2, false),
        ("2147483647", 100_000, 2, false),
    ] {
        fs::write(SYSCTL, threshold)?;
        ensure!(fs::read_to_string(PARAMETER)?.trim() == threshold);
        let zc_msgs = check_zero_copy(one, two, size, count)?;
        // PUTs from here, and REPLYs to the GETs from there.
        let as_expected = if is_zerocopy {
            zc_msgs >= 2 * count as u64
        } else {
            zc_msgs == 0
        };
        ensure!(
            as_expected,
            "{size} bytes, threshold {threshold}: {zc_msgs} of {count} messages each way were sent without a copy"
        );
    }
    // Sent again and again, while the owner of the memory already uses other parts of it.
    fs::write(SYSCTL, "2048")?;
    let weather = "delay 3ms 2ms loss 2% reorder 10% duplicate 1%";
    for (index, size, count) in [(0, 5000, 20), (1, 200_000, 4)] {
        lab.netem(index, weather)?;
        let zc_msgs = check_zero_copy(one, two, size, count)?;
        ensure!(
            zc_msgs >= 2 * count as u64,
            "{zc_msgs} messages were sent without a copy"
        );
    }
    Ok(())
}

/// Moves data all four ways; returns how many messages the first node has sent without a copy for it.
fn check_zero_copy(one: &Node, two: &Node, size: usize, count: usize) -> Result<u64> {
    let before = one.counter(ZC_MSGS)?;
    four_ways(one, two, size, count)?;
    // Whether the receivers on this machine copied: every zero-copy message must be complete.
    let zc_msgs = one.counter(ZC_MSGS)? - before;
    wait::until(Duration::from_secs(10), "everything given back", || {
        let live = one.counter("/live/txs")?;
        ensure!(live == 0, "{live} zero-copy messages are not complete");
        Ok(())
    })?;
    Ok(zc_msgs)
}

/// Has the node's own card delay what it sends, so that zero-copy packets wait there.
fn slow_card(node: &Node, arguments: &str) -> Result<()> {
    let mut words = vec!["qdisc", "replace", "dev", "eth0", "root", "netem"];
    words.extend(arguments.split_whitespace());
    node.space.tool("tc", &words, "").map(drop)
}

/// Transfers in both directions, without a copy.
fn transfers(lab: &Lab) -> Result<Vec<Job>> {
    let (one, two) = (lab.node(0), lab.node(1));
    let mut jobs = vec![one.serve()?, two.serve()?];
    jobs.push(one.start_bench(two, &ENDLESS)?);
    let get = Bench {
        op: Op::Get,
        ..ENDLESS
    };
    jobs.push(two.start_bench(one, &get)?);
    await_traffic(two, 10)?;
    await_traffic(one, 10)?;
    await_zero_copy(one)?;
    Ok(jobs)
}

/// Waits until messages of the node are sent without a copy and are not complete.
fn await_zero_copy(node: &Node) -> Result<()> {
    ensure!(
        node.counter(ZC_MSGS)? > 0,
        "nothing was sent without a copy"
    );
    wait::until(Duration::from_secs(20), "zero-copy messages", || {
        ensure!(node.counter("/live/txs")? > 0, "none at this moment");
        Ok(())
    })
}

/// Waits until nothing is on its way out any more.
fn await_given_back(node: &Node, limit: Duration) -> Result<Duration> {
    let started = Instant::now();
    wait::until(limit, "everything given back", || {
        let live = node.counter("/live/txs")?;
        ensure!(live == 0, "{live} messages are still there");
        Ok(())
    })?;
    Ok(started.elapsed())
}

/// Connections are closed while zero-copy packets wait in the device's queue; and connections to a
/// peer that is unreachable, until they time out.
pub fn cut(lab: &mut Lab) -> Result<()> {
    // What goes through takes less.
    let timeout = pace::scaled(6);
    set("sock_timeout", timeout)?;
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    slow_card(one, "delay 200ms")?;
    for round in 0..4 {
        let mut jobs = transfers(lab)?;
        if round % 2 == 0 { one } else { two }.close_conns()?;
        for job in &mut jobs {
            job.kill();
        }
        let time = await_given_back(one, Duration::from_secs(20))?;
        note(&format!("given back in {:.1} s", time.as_secs_f64()));
    }
    let mut jobs = transfers(lab)?;
    lab.cable(0, false)?;
    for job in &mut jobs {
        job.kill();
    }
    // The deadline, five quarters of it at most, and the time to get there.
    let limit = Duration::from_secs(timeout * 5 / 4 + 30);
    let time = await_given_back(one, limit).context("without a cable")?;
    note(&format!("timed out in {:.1} s", time.as_secs_f64()));
    lab.cable(0, true)
}

/// The NI, and the module, are removed while zero-copy packets wait in the device's queue.
pub fn unload(lab: &mut Lab) -> Result<()> {
    let mut slowest = Duration::ZERO;
    for round in 0..4 {
        if !module::is_inserted() {
            module::insert()?;
        }
        lab.connect(2)?;
        slow_card(lab.node(0), "delay 300ms")?;
        let mut jobs = transfers(lab)?;
        if round % 2 == 0 {
            let started = Instant::now();
            lab.node(0).ni_del()?;
            slowest = slowest.max(started.elapsed());
        }
        for job in &mut jobs {
            job.kill();
        }
        drop(jobs);
        slowest = slowest.max(module::remove()?);
    }
    note(&format!("the slowest took {:.2} s", slowest.as_secs_f64()));
    module::insert()
}
