// SPDX-License-Identifier: GPL-2.0

//! Nodes in the middle: routes to other networks, and what passes through gateways.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::node::{Node, errno};
use crate::wait;

const LIMIT: Duration = Duration::from_secs(20);

fn fails(node: &Node, words: &[&str], name: &str) -> Result<()> {
    let got = errno(&node.attempt(words, LIMIT)?).with_context(|| words.join(" "))?;
    ensure!(got == name, "{}: {got} instead of {name}", words.join(" "));
    Ok(())
}

/// Every route: network, gateway, priority, state.
fn routes(node: &Node) -> Result<Value> {
    let routes = node.list(&["route", "list"])?.into_iter();
    Ok(routes
        .map(|route| {
            json!([
                route["network"],
                route["gateway"],
                route["priority"],
                route["state"]
            ])
        })
        .collect())
}

fn await_routes(node: &Node, expected: &Value) -> Result<()> {
    wait::until(LIMIT, "state of the routes", || {
        let now = routes(node)?;
        ensure!(now == *expected, "{now} instead of {expected}");
        Ok(())
    })
}

/// Routes come and go as they are told to, and as their gateways do.
pub fn routes_come_and_go(lab: &mut Lab) -> Result<()> {
    let (node, first, second) = (lab.node(0), lab.node(1), lab.node(2));
    node.ni_add()?;
    fails(node, &["ping", "10.1.0.1@tcp1"], "ENETUNREACH")?;
    fails(node, &["route", "del", "any", "10.0.0.2@tcp"], "ENOENT")?;
    fails(node, &["route", "notify", "10.0.0.2@tcp", "up"], "ENOENT")?;
    fails(node, &["route", "add", "tcp", "10.0.0.2@tcp"], "EINVAL")?;
    fails(node, &["route", "add", "tcp1", "10.0.0.1@tcp"], "EINVAL")?;
    fails(
        node,
        &["route", "add", "tcp2", "10.1.0.1@tcp1"],
        "ENETUNREACH",
    )?;
    for words in [
        &["route", "add", "tcp1", "10.0.0.3@tcp"][..],
        &["route", "add", "tcp2", "10.0.0.2@tcp", "--priority", "7"],
        &["route", "add", "tcp1", "10.0.0.2@tcp"],
    ] {
        node.socklctl(words)?;
    }
    fails(
        node,
        &["route", "add", "tcp1", "10.0.0.2@tcp", "-p", "3"],
        "EEXIST",
    )?;
    let state = |second: &str, third: &str| {
        json!([
            ["tcp1", "10.0.0.2@tcp", 0, second],
            ["tcp1", "10.0.0.3@tcp", 0, third],
            ["tcp2", "10.0.0.2@tcp", 7, second],
        ])
    };
    await_routes(node, &state("up", "up"))?;

    // Nobody is there: the routes go down, the answer is an error, and from then on at once.
    for _ in 0..2 {
        fails(node, &["ping", "-W", "5", "10.1.0.1@tcp1"], "ECONNREFUSED")?;
    }
    await_routes(node, &state("down", "down"))?;
    let started = Instant::now();
    fails(node, &["ping", "-W", "15", "10.1.0.1@tcp1"], "EHOSTUNREACH")?;
    ensure!(started.elapsed() < Duration::from_secs(5), "it took long");

    // They are looked for, and found when they come.
    first.ni_add()?;
    await_routes(node, &state("up", "down"))?;
    second.ni_add()?;
    await_routes(node, &state("up", "up"))?;
    first.ni_del()?;
    await_routes(node, &state("down", "up"))?;

    // An administrator's word holds, whatever happens to the node.
    node.socklctl(&["route", "notify", "10.0.0.3@tcp", "down"])?;
    await_routes(node, &state("down", "set down"))?;
    ensure!(
        node.conns_to(second)?.is_empty(),
        "the gateway's connections are still there"
    );
    second.ping(node)?;
    first.ni_add()?;
    await_routes(node, &state("up", "set down"))?;
    node.socklctl(&["route", "notify", "10.0.0.3@tcp", "up"])?;
    await_routes(node, &state("up", "up"))?;

    // Messages are given to both in turn; neither passes any on.
    for _ in 0..6 {
        fails(node, &["ping", "-W", "0.1", "10.1.0.1@tcp1"], "ETIMEDOUT")?;
    }
    for gateway in [first, second] {
        ensure!(gateway.counter("/misrouted")? == 3, "not in turn");
    }
    let gone = node.socklctl(&["route", "del", "any", "10.0.0.2@tcp"])?;
    ensure!(gone["count"] == 2, "{gone}");
    let gone = node.socklctl(&["route", "del", "tcp1"])?;
    ensure!(gone["count"] == 1, "{gone}");
    fails(node, &["ping", "10.1.0.1@tcp1"], "ENETUNREACH")
}
