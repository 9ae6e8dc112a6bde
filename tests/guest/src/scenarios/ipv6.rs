// SPDX-License-Identifier: GPL-2.0

//! What is special about IPv6. That everything else works over it as well is seen by running the
//! other scenarios over it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::node::{Node, Op, check_bench};

/// How long a transfer may take.
const TRANSFER_LIMIT: Duration = Duration::from_secs(120);

/// An address of its own that a node has here, besides those that all scenarios give it.
fn address(node: &Node) -> String {
    format!("fd01::{}", node.addr.octets()[3])
}

fn nid(node: &Node) -> String {
    format!("{}@tcp", address(node))
}

/// Gives a node its address, and an interface with the NID for it.
fn start(node: &Node) -> Result<()> {
    let line = format!("addr add {}/64 dev eth0 nodad\n", address(node));
    node.space.ip(&line)?;
    node.socklctl(&["ni", "add", &nid(node)]).map(drop)
}

/// Pings a NID; the answer must name it.
fn ping(from: &Node, to: &str) -> Result<()> {
    let answer = from.socklctl(&["ping", to])?;
    let nis = answer["node"]["nis"].as_array().context("no NIDs")?;
    ensure!(
        nis.iter().any(|ni| ni["nid"] == to),
        "not the node's NID: {answer}"
    );
    Ok(())
}

/// Its connections.
fn conns(node: &Node) -> Result<Vec<Value>> {
    node.list(&["conn", "list"])
}

/// Two nodes that have nothing but IPv6 find each other by their NIDs, and move data both ways.
pub fn basic(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    start(one)?;
    start(two)?;
    ping(one, &nid(two))?;
    ping(two, &nid(one))?;
    let _services = [one.serve()?, two.serve()?];
    for (from, to) in [(one, two), (two, one)] {
        for op in [Op::Put, Op::Get] {
            // Large enough for pages to be lent.
            for (size, count) in [(100, 20), (20_000, 20), (1 << 20, 4)] {
                let bench = crate::node::Bench {
                    op,
                    size,
                    count,
                    in_flight: 4,
                    limit: TRANSFER_LIMIT,
                };
                let job = from.start(&[
                    "bench",
                    "--op",
                    &op.to_string(),
                    "--size",
                    &size.to_string(),
                    "--count",
                    &count.to_string(),
                    &nid(to),
                ])?;
                check_bench(job.wait(TRANSFER_LIMIT)?, &bench)?;
            }
        }
    }
    let list = conns(one)?;
    ensure!(list.len() == 3, "not one of each type: {list:?}");
    for conn in &list {
        let end = |name: &str| conn[name].as_str().unwrap_or_default().to_owned();
        ensure!(
            end("local").starts_with(&format!("[{}]:", address(one)))
                && end("peer").starts_with(&format!("[{}]:", address(two))),
            "wrong addresses: {conn}"
        );
        ensure!(conn["protocol"] == 4, "another version: {conn}");
        ensure!(
            conn["type"] != "bulk_out" || conn["zero_copy"]["bytes"].as_u64() > Some(1 << 20),
            "nothing was lent: {conn}"
        );
    }
    Ok(())
}
