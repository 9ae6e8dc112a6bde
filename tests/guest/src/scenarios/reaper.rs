// SPDX-License-Identifier: GPL-2.0

//! The reaper: peers with traffic, idle ones, and strangers.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::hooks::set_timeout;
use super::versions::set;
use crate::debugfs::sections;
use crate::family;
use crate::lab::Lab;
use crate::modern::{Link, dialects};
use crate::node::Node;
use crate::peer::{BULK_OUT, CONTROL, Conn, Message};
use crate::port::note;
use crate::wait;

/// What may come on top of what the clock says.
const SLACK: Duration = Duration::from_secs(30);

fn total(name: &str) -> Result<u64> {
    let node = sections("node")?;
    node.first().context("no section of the node")?.get(name)
}

/// Waits until nothing is under way any more. Returns how many looks at busy peers there were.
fn await_idle() -> Result<u64> {
    wait::until(SLACK, "all peers idle", || {
        let busy = total("busy_peers")?;
        ensure!(busy == 0, "{busy} are busy");
        Ok(())
    })?;
    total("busy_checks")
}

/// Many idle peers cost nothing. Among them, one that stops in the middle of a message is found in
/// time. If keepalive messages are enabled, idle peers get them.
pub fn idle_peers(lab: &mut Lab) -> Result<()> {
    const PEERS: u8 = 100;
    const TIMEOUT: u64 = 4;
    set_timeout(TIMEOUT)?;
    set("keepalive", 0)?;
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let addrs: Vec<_> = (100..100 + PEERS)
        .map(|last| Ipv4Addr::new(10, 0, 0, last))
        .collect();
    let lines = addrs.iter().map(|addr| family::addr_add(*addr, 24));
    script.space.ip(&lines.collect::<String>())?;
    let mut conns = Vec::new();
    for addr in &addrs {
        conns.push(Conn::greeted(&script.space, *addr, node, CONTROL)?);
    }
    let dialect = dialects().find(|dialect| dialect.version >= 3);
    let dialect = dialect.context("no version with signs of life")?;
    let dial = |conn_type| Link::dial(&script.space, script.addr, node, dialect, conn_type);
    let mut links = [dial(CONTROL)?, dial(BULK_OUT)?];
    links[0].ping(1)?;

    let before = await_idle()?;
    let started = Instant::now();
    let mut busy = conns.pop().context("no connection")?;
    let message = Message::put(addrs[conns.len()], node.addr, 7, 7, vec![7; 5000]).bytes();
    busy.send(&message[..1000])?;
    let limit = Duration::from_secs(TIMEOUT + TIMEOUT / 4);
    let (_, time) = busy.await_closed(limit + SLACK)?;
    let looks = await_idle()? - before;
    note(&format!(
        "given up after {:.1} s and {looks} looks, with {PEERS} idle peers",
        time.as_secs_f64()
    ));
    ensure!(looks > 0, "nobody has looked");
    // About one a second. At each peer four times within the timeout would be hundreds.
    let time = started.elapsed().as_secs();
    ensure!(looks <= 5 + 2 * time, "{looks} looks within {time} s");
    let left = node.list(&["conn", "list"])?.len();
    ensure!(
        left == conns.len() + links.len(),
        "{left} connections are left"
    );
    let (idle, checks) = (total("idle_peers")?, total("idle_checks")?);
    ensure!(
        (idle, checks) == (0, 0),
        "without keepalive messages, {idle} peers are in the list for them, after {checks} checks"
    );

    set("keepalive", 1)?;
    links[1].receive_sign_of_life()?;
    // All of them are deleted while some rest.
    node.socklctl(&["peer", "del", "any"])?;
    wait::until(SLACK, "peers gone", || {
        let (peers, idle) = (node.counter("/live/peers")?, total("idle_peers")?);
        ensure!(
            (peers, idle) == (0, 0),
            "{peers} peers, of which {idle} are in the list"
        );
        Ok(())
    })
}

/// Waits until a node knows nobody any more.
fn await_forgotten(node: &Node) -> Result<()> {
    wait::until(SLACK, "peer forgotten", || {
        let peers = node.list(&["peer", "list"])?.len();
        ensure!(peers == 0, "{peers} are left");
        Ok(())
    })?;
    let busy = total("busy_peers")?;
    ensure!(busy == 0, "{busy} are looked at");
    Ok(())
}

/// A peer that was not added by an administrator is removed when it was unreachable for some time,
/// whether it ever had a connection or not.
pub fn forgotten_peers(lab: &mut Lab) -> Result<()> {
    // Twice as long as the longer of these.
    for (name, ms) in [("min_reconnectms", 100), ("max_reconnectms", 1500)] {
        set(name, ms)?;
    }
    let (node, other) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let output = node.try_ping(other, Duration::from_secs(1))?;
    ensure!(!output.status.success(), "an answer from nobody");
    await_forgotten(node)?;

    other.ni_add()?;
    node.ping(other)?;
    let peers = node.list(&["peer", "list"])?.len();
    ensure!(peers == 1, "{peers} peers");
    other.ni_del()?;
    await_forgotten(node)
}
