// SPDX-License-Identifier: GPL-2.0

//! Pings.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::family;
use crate::lab::Lab;
use crate::modern;
use crate::node::{Node, errno};
use crate::pace;
use crate::peer::{self, GET, Hello, Listener};
use crate::wait;

/// How much later than asked for a command may end.
const SLACK: Duration = Duration::from_secs(15);

/// Two nodes ping each other.
pub fn ping_both_ways(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    for (from, to) in [(0, 1), (1, 0)] {
        let (from, to) = (lab.node(from), lab.node(to));
        let answer = from.ping(to)?;
        let nids = answer["node"]["nis"].as_array().context("no NIDs")?;
        ensure!(
            nids.iter().any(|ni| ni["nid"] == to.nid().as_str()),
            "not the node's NID: {answer}"
        );
    }
    Ok(())
}

/// Pings to a node that does not answer fail in time. When it is back they succeed.
pub fn ping_unreachable(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    lab.cable(1, false)?;
    expect_failure(
        one,
        two,
        Duration::from_secs(3),
        &["ETIMEDOUT", "EHOSTUNREACH"],
    )?;
    lab.cable(1, true)?;
    recovers(one, two)?;

    // A connection that goes dead is another thing than one that was never made.
    lab.cable(1, false)?;
    expect_failure(
        one,
        two,
        Duration::from_secs(3),
        &["ETIMEDOUT", "EHOSTUNREACH"],
    )?;
    lab.cable(1, true)?;
    recovers(one, two)
}

/// If no program listens at the address, a ping fails at once with ECONNREFUSED.
pub fn ping_nobody_listens(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    one.ni_add()?;
    one.peer_add(two)?;
    expect_failure(
        one,
        two,
        pace::stretched(Duration::from_secs(10)),
        &["ECONNREFUSED", "EHOSTUNREACH"],
    )?;
    let output = one.ping_within(two, Duration::from_secs(60))?;
    ensure!(
        output.time < pace::stretched(Duration::from_secs(20)),
        "refused only after {:.1} s",
        output.time.as_secs_f64()
    );
    two.ni_add()?;
    recovers(one, two)
}

/// The peer is a script, which compares each byte that the module sends when it connects.
pub fn ping_scripted_peer(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let listener = Listener::new(&script.space, script.addr)?;
    node.ni_add()?;
    node.peer_add(script)?;
    let ping = node.start_ping(script)?;
    // Three connections come, in any order; the ping is on the one for control.
    let mut conns = Vec::new();
    for _ in 0..3 {
        let (mut conn, hello) = listener.accept_greeting(Duration::from_secs(10))?;
        ensure!(hello.src_pid == 12345, "wrong process number in {hello:x?}");
        conn.send(&Hello::new(script.addr, node.addr, peer::inverse(hello.conn_type)).bytes())?;
        conns.push((hello.conn_type, conn));
        if hello.conn_type == peer::CONTROL {
            let (_, conn) = conns.last_mut().context("just pushed")?;
            let request = conn.receive_message()?;
            ensure!(
                request.kind == GET && request.length == 0,
                "no ping: {request:x?}"
            );
            ensure!(
                request.dest == peer::nid(script.addr) && request.src == peer::nid(node.addr),
                "wrong NIDs: {request:x?}"
            );
            conn.send(&request.reply(pong(script)).bytes())?;
        }
    }
    let mut types: Vec<u32> = conns.iter().map(|(conn_type, _)| *conn_type).collect();
    types.sort_unstable();
    ensure!(
        types == [peer::CONTROL, peer::BULK_IN, peer::BULK_OUT],
        "wrong types of connections: {types:?}"
    );
    ping.wait(Duration::from_secs(20))?.checked("ping")?;
    Ok(())
}

/// What a node answers to a ping: magic, features, process number, and one NID that is up.
pub fn pong(node: &Node) -> Vec<u8> {
    if family::is_ipv6() {
        return modern::pong(node.addr);
    }
    let mut out = Vec::new();
    for field in [0x7069_6e67_u32, 1, 12345, 1] {
        out.extend(field.to_le_bytes());
    }
    out.extend(peer::nid(node.addr).to_le_bytes());
    out.extend(0x15aa_c0de_u32.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    out
}

fn expect_failure(from: &Node, to: &Node, limit: Duration, names: &[&str]) -> Result<()> {
    let output = from.try_ping(to, limit)?;
    let name = errno(&output)?;
    ensure!(
        names.contains(&name.as_str()),
        "failed with {name} instead of one of {names:?}"
    );
    ensure!(
        output.time < limit + pace::stretched(SLACK),
        "failed only after {:.1} s",
        output.time.as_secs_f64()
    );
    Ok(())
}

/// The back-off between attempts has grown meanwhile, but not to more than some seconds.
fn recovers(from: &Node, to: &Node) -> Result<()> {
    wait::until(Duration::from_secs(30), "ping succeeds again", || {
        from.ping(to).map(drop)
    })
}
