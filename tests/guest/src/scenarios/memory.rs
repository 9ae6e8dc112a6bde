// SPDX-License-Identifier: GPL-2.0

//! No memory, at any moment.

mod nth;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;

use super::connect::disconnect;
use super::versions::set;
use crate::family;
use crate::faults::{Faults, Thread, threads};
use crate::ioctl;
use crate::lab::Lab;
use crate::module;
use crate::node::{Bench, Op, answer};
use crate::pace;
use crate::port::note;
use crate::wait;

pub use nth::{across_gateway, between_two};

/// The kernel puts all modules into one area, and the only one is ours.
const NEIGHBOURHOOD: u64 = 64 << 20;
/// More allocations than inserting the module makes.
const MOST: u32 = 2000;
/// What a ping waits for whose question or answer may be lost for want of memory.
const ATTEMPT: Duration = Duration::from_secs(1);
/// One in so many allocations fails during transfers.
const RATE: usize = 61;
/// For so long.
const HARD_TIMES: Duration = Duration::from_secs(20);
/// In this time a node without memory is well again, once there is some.
const RECOVERED: Duration = Duration::from_secs(60);

fn code() -> Result<Range<u64>> {
    let place = module::places();
    let last = place.split_whitespace().next_back().context("no address")?;
    let address = u64::from_str_radix(last.trim_start_matches("0x"), 16)?;
    Ok(address - NEIGHBOURHOOD..address + NEIGHBOURHOOD)
}

/// Each allocation that inserting the module makes fails once: each time the module is refused with
/// the right error, and leaves nothing behind.
pub fn inserting(_: &mut Lab) -> Result<()> {
    let _faults = Faults::aim(&code()?)?;
    module::remove()?;
    let mut refused = 0;
    for nth in 1..MOST {
        let (inserted, fired) = Thread::this().with_nth(nth, module::try_insert)?;
        match inserted {
            Ok(()) if !fired => {
                note(&format!("of {} allocations {refused} are vital", nth - 1));
                ensure!(refused > 0, "no allocation failed");
                return Ok(());
            }
            // Something that can be done without.
            Ok(()) => drop(module::remove()?),
            Err(Errno::NOMEM) => refused += 1,
            Err(other) => bail!("allocation {nth}: {other} instead of ENOMEM"),
        }
        ensure!(
            !module::is_inserted(),
            "allocation {nth}: the module is still there"
        );
    }
    bail!("there is no end of allocations")
}

/// Each allocation of each thread fails once while a connection is made: who asks is told or answered,
/// and a later attempt succeeds.
pub fn connecting(lab: &mut Lab) -> Result<()> {
    // The same thread has all handshakes, and there is one.
    module::remove()?;
    // Over IPv6 there are three.
    module::try_insert_with(if family::is_ipv6() {
        c"nconnds=1"
    } else {
        c"nconnds=1 protocol=2 typed_conns=0"
    })?;
    set("min_reconnectms", 1)?;
    set("max_reconnectms", 1)?;
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _faults = Faults::aim(&code()?)?;
    let attempt = pace::stretched(ATTEMPT);
    let mut failed = BTreeMap::<_, u32>::new();
    let mut told = BTreeMap::<_, u32>::new();
    for thread in [Thread::this()].into_iter().chain(threads("socklnd_")?) {
        for nth in 1.. {
            let what = || format!("allocation {nth} of {}", thread.name);
            ensure!(nth < MOST, "there is no end: {}", what());
            disconnect(one, two)?;
            let (first, fired) = one
                .space
                .within(|| {
                    let device = ioctl::open()?;
                    let tried = thread.with_nth(nth, || ioctl::ping(&device, two, attempt))?;
                    wait::until(RECOVERED, "ping with memory", || {
                        Ok(ioctl::ping(&device, two, pace::stretched(RECOVERED))?)
                    })?;
                    Ok(tried)
                })
                .with_context(what)?;
            if !fired {
                break;
            }
            // Threads of several nodes have the same name.
            *failed.entry(thread.name.clone()).or_default() += 1;
            let first = first.map_or_else(|why| why.to_string(), |()| "well".to_owned());
            *told.entry(first).or_default() += 1;
        }
    }
    note(&format!("allocations that failed: {failed:?}"));
    note(&format!("of the attempts then: {told:?}"));
    ensure!(failed.len() >= 3, "not all threads had one that failed");
    Ok(())
}

/// Allocations fail all the time during transfers: no byte is wrong, everything ends in time, and
/// afterwards all is well.
pub fn in_transfer(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _services = [one.serve()?, two.serve()?];
    let faults = Faults::aim(&code()?)?;
    let bench = |op, size| Bench {
        op,
        size,
        count: 40,
        in_flight: 8,
        // When a message is lost, the transfer waits so long for its answer.
        limit: Duration::from_secs(4),
    };
    let kinds = [
        bench(Op::Put, 100),
        bench(Op::Get, 100),
        bench(Op::Put, 70_000),
        bench(Op::Get, 70_000),
    ];
    let started = Instant::now();
    let (mut whole, mut hurt) = (0, 0);
    let limit = pace::stretched(3 * HARD_TIMES);
    while started.elapsed() < HARD_TIMES || hurt == 0 && started.elapsed() < limit {
        for (from, to) in [(one, two), (two, one)] {
            for kind in &kinds {
                faults.fire(RATE)?;
                let job = from.start_bench(to, kind)?;
                let output = job.wait(kind.limit + RECOVERED);
                faults.cease()?;
                let output = output?;
                if !output.status.success() {
                    hurt += 1;
                    continue;
                }
                let result = answer(output)?;
                ensure!(
                    result["verify_failures"].as_u64() == Some(0),
                    "wrong contents arrived: {result}"
                );
                if result["errors"].as_u64() == Some(0) {
                    whole += 1;
                } else {
                    hurt += 1;
                }
            }
        }
    }
    note(&format!("{whole} transfers unharmed, {hurt} with errors"));
    ensure!(hurt > 0, "no transfer was harmed");
    for (from, to) in [(one, two), (two, one)] {
        wait::until(RECOVERED, "ping with memory", || from.ping(to).map(drop))?;
        for kind in &kinds {
            // What TCP has lost it repeats in its own time.
            wait::until(RECOVERED, "transfer with memory", || {
                let started = Instant::now();
                from.bench(
                    to,
                    &Bench {
                        limit: RECOVERED,
                        ..*kind
                    },
                )?;
                note(&format!("size {}: {:?}", kind.size, started.elapsed()));
                Ok(())
            })?;
        }
    }
    Ok(())
}
