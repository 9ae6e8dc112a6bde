// SPDX-License-Identifier: GPL-2.0

//! Verified data between nodes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command::Job;
use crate::ioctl;
use crate::lab::Lab;
use crate::node::{Bench, Node, Op, check_bench};
use crate::port::note;
use crate::wait;

const LARGEST: usize = 1 << 20;
/// Sizes around every boundary that the code could care about: nothing, headers, the limit between
/// control and bulk (with and without a header), pages, 64 KiB, the largest.
const SIZES: [usize; 28] = [
    0,
    1,
    2,
    63,
    64,
    71,
    72,
    73,
    144,
    951,
    952,
    953,
    1023,
    1024,
    1025,
    4095,
    4096,
    4097,
    8192,
    16383,
    16384,
    16385,
    65535,
    65536,
    65537,
    LARGEST / 2 + 1,
    LARGEST - 1,
    LARGEST,
];
/// So many messages of each size each way: a thousand in all four ways together. Of the large ones
/// fewer, because the debug kernel is slow; the stock kernel gets more of them.
const COUNT: usize = 250;
const COUNT_LARGE: usize = 25;
const LARGE: usize = 20_000;

/// Messages of every size in both directions, one after the other and at the same time.
pub fn messages(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _services = [one.serve()?, two.serve()?];
    for size in SIZES {
        let count = if size > LARGE { COUNT_LARGE } else { COUNT };
        four_ways(one, two, size, count)?;
    }
    Ok(())
}

/// PUT and GET from both sides at the same time.
pub fn four_ways(one: &Node, two: &Node, size: usize, count: usize) -> Result<()> {
    let mut jobs = Vec::new();
    for (from, to) in [(one, two), (two, one)] {
        for op in [Op::Put, Op::Get] {
            let bench = Bench {
                op,
                size,
                count,
                in_flight: 8,
                limit: Duration::from_secs(120),
            };
            jobs.push((
                format!("{op} of {size} from {}", from.nid()),
                bench,
                from.start_bench(to, &bench)?,
            ));
        }
    }
    let mut rates = Vec::new();
    for (what, bench, job) in jobs {
        let result =
            check_bench(job.wait(bench.limit + Duration::from_secs(20))?, &bench).context(what)?;
        rates.push(format!(
            "{:.0}",
            result["messages_per_second"].as_f64().unwrap_or_default()
        ));
    }
    note(&format!(
        "{count} times {size} bytes: {} messages/s",
        rates.join(", ")
    ));
    Ok(())
}

/// A message longer than the maximum is refused with EMSGSIZE, and does no harm.
pub fn too_long(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _service = two.serve()?;
    let longest = Bench {
        op: Op::Put,
        size: LARGEST,
        count: 4,
        in_flight: 2,
        limit: Duration::from_secs(30),
    };
    one.bench(two, &longest)?;
    for op in [1, 2] {
        let error = one.space.within(|| {
            Ok(ioctl::bench(
                &ioctl::open()?,
                two.addr,
                op,
                LARGEST as u32 + 1,
            ))
        })?;
        ensure!(
            error == Err(rustix::io::Errno::MSGSIZE),
            "instead of EMSGSIZE: {error:?}"
        );
    }
    one.bench(two, &longest)?;
    Ok(())
}

/// Loss, delay, reordering and duplicates: all data arrives intact.
pub fn bad_network(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _services = [one.serve()?, two.serve()?];
    let weather = "delay 3ms 2ms loss 2% reorder 10% duplicate 1%";
    lab.netem(0, weather)?;
    lab.netem(1, weather)?;
    for size in [0, 100, 5000, 300_000] {
        four_ways(one, two, size, if size > LARGE { 5 } else { 50 })?;
    }
    Ok(())
}

/// With socket buffers that hold a part of a message, messages are sent and received in pieces.
pub fn tiny_buffers(lab: &mut Lab) -> Result<()> {
    for name in ["tx_buffer_size", "rx_buffer_size"] {
        fs::write(format!("/sys/module/ksocklnd/parameters/{name}"), "30000")?;
    }
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _services = [one.serve()?, two.serve()?];
    for size in [0, 3000, 40_000, LARGEST] {
        four_ways(one, two, size, if size > LARGE { 3 } else { 50 })?;
    }
    for conn in one.conns_to(two)? {
        for buffer in ["tx_buffer", "rx_buffer"] {
            let bytes = conn[buffer]
                .as_u64()
                .with_context(|| format!("no {buffer} in {conn}"))?;
            ensure!(bytes < 70_000, "{buffer} of {conn}");
        }
    }
    Ok(())
}

/// A link that is down for some seconds during a transfer: nothing is lost.
pub fn cable_pulled(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _services = [one.serve()?, two.serve()?];
    let mut bench = Bench {
        op: Op::Put,
        size: 4096,
        count: 100,
        in_flight: 8,
        limit: Duration::from_secs(180),
    };
    // More than goes through until the cable is out; more again, should the machine be faster then.
    bench.count = lasting(one, two, &bench, Duration::from_secs(2))?;
    for _ in 0..3 {
        let mut job = one.start_bench(two, &bench)?;
        await_traffic(two, 20)?;
        lab.cable(1, false)?;
        wait::quiet_time(Duration::from_secs(3));
        let was_cut = job.running()?;
        lab.cable(1, true)?;
        check_bench(job.wait(bench.limit)?, &bench)?;
        if was_cut {
            return Ok(());
        }
        bench.count *= 4;
    }
    bail!("each time all was through before the cable was out")
}

/// How many messages take this time between these two nodes, by how long some of them take now, at
/// least as many as those.
pub fn lasting(from: &Node, to: &Node, some: &Bench, time: Duration) -> Result<usize> {
    let result = from.bench(to, some)?;
    let rate = result["messages_per_second"].as_f64().context("no rate")?;
    let count = (rate * time.as_secs_f64()) as usize;
    note(&format!("{rate:.0} messages/s"));
    Ok(count.max(some.count))
}

/// Ten nodes: each of them exchanges data with the second next and pings all.
pub fn ten_nodes(lab: &mut Lab) -> Result<()> {
    const NODES: usize = 10;
    lab.connect(NODES)?;
    let services: Vec<Job> = lab.nodes().map(Node::serve).collect::<Result<_>>()?;
    for from in 0..NODES {
        let pings = (0..NODES).filter(|to| *to != from);
        let pings: Vec<Job> = pings
            .map(|to| lab.node(from).start_ping(lab.node(to)))
            .collect::<Result<_>>()?;
        for ping in pings {
            ping.wait(Duration::from_secs(30))?.checked("ping")?;
        }
    }
    let bench = Bench {
        op: Op::Put,
        size: 20_000,
        count: 60,
        in_flight: 4,
        limit: Duration::from_secs(90),
    };
    let jobs = (0..NODES).map(|from| {
        let bench = Bench {
            op: if from % 2 == 0 { Op::Put } else { Op::Get },
            ..bench
        };
        Ok((
            bench,
            lab.node(from)
                .start_bench(lab.node((from + 2) % NODES), &bench)?,
        ))
    });
    for (bench, job) in jobs.collect::<Result<Vec<_>>>()? {
        check_bench(job.wait(bench.limit)?, &bench)?;
    }
    drop(services);
    Ok(())
}

/// Waits until a node has received so many messages since now.
pub fn await_traffic(node: &Node, messages: u64) -> Result<()> {
    let path = "/rx/msgs";
    let before = node.counter(path)?;
    wait::until(Duration::from_secs(30), "traffic", || {
        let now = node.counter(path)?;
        if now < before + messages {
            bail!("only {} messages", now - before);
        }
        Ok(())
    })
}
