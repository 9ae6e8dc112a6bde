// SPDX-License-Identifier: GPL-2.0

//! No memory, at any moment.

mod nth;

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;

use super::connect::disconnect;
use crate::faults::{Faults, Thread};
use crate::lab::Lab;
use crate::module;
use crate::node::{Bench, Op, answer};
use crate::port::note;
use crate::wait;

pub use nth::{across_gateway, between_two};

/// The kernel puts all modules into one area, and the only one is ours.
const NEIGHBOURHOOD: u64 = 64 << 20;
/// More allocations than inserting the module makes.
const MOST: u32 = 2000;
/// How many allocations of a connection's making fail, one after the other.
const CONNECTS: usize = 40;
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

/// Allocations fail while connections are made: a later attempt succeeds.
pub fn connecting(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let faults = Faults::aim(&code()?)?;
    let mut failed = 0;
    for round in 1..=CONNECTS {
        disconnect(one, two)?;
        faults.fire(round, 1)?;
        let first = one.try_ping(two, Duration::from_secs(5));
        failed += 2 - faults.cease()?;
        first?;
        wait::until(RECOVERED, "ping with memory", || one.ping(two).map(drop))
            .with_context(|| format!("round {round}"))?;
    }
    note(&format!("{failed} allocations failed in {CONNECTS} rounds"));
    ensure!(failed > CONNECTS as i32 / 4, "few allocations failed");
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
        limit: Duration::from_secs(10),
    };
    let kinds = [
        bench(Op::Put, 100),
        bench(Op::Get, 100),
        bench(Op::Put, 70_000),
        bench(Op::Get, 70_000),
    ];
    let started = Instant::now();
    let (mut whole, mut hurt) = (0, 0);
    while started.elapsed() < HARD_TIMES {
        for (from, to) in [(one, two), (two, one)] {
            for kind in &kinds {
                faults.fire(RATE, -1)?;
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
