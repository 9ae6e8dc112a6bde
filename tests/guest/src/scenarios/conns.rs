// SPDX-License-Identifier: GPL-2.0

//! Properties of connections: which one a message takes, keepalive, counters.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::unload::Flood;
use crate::debugfs::sections;
use crate::family;
use crate::lab::Lab;
use crate::module;
use crate::node::{Bench, Node, Op};
use crate::pace;
use crate::peer::{BULK_OUT, CONTROL, Conn, Message};
use crate::port::note;
use crate::wait;

const SOON: Duration = Duration::from_secs(10);

fn set(name: &str, value: u64) -> Result<()> {
    let path = format!("/sys/module/ksocklnd/parameters/{name}");
    fs::write(path, value.to_string()).with_context(|| format!("{name} = {value}"))
}

fn await_conns(one: &Node, two: &Node) -> Result<()> {
    wait::until(SOON, "connections of all types", || {
        // Who accepts one has it a moment after who has made it.
        for (node, other) in [(one, two), (two, one)] {
            let conns = node.conns_to(other)?.len();
            ensure!(conns == 3, "{}: {conns}", node.nid());
        }
        Ok(())
    })
}

/// Messages that a node has sent over its connection of this type.
fn sent(node: &Node, kind: &str) -> Result<u64> {
    let mut conns = sections(&format!("conn {kind} {}:", node.addr))?;
    let (Some(conn), None) = (conns.pop(), conns.pop()) else {
        bail!("not one connection of type {kind}");
    };
    conn.get("tx_msgs")
}

/// A message of `min_bulk` bytes, headers included, is bulk, and a shorter one is not.
pub fn limit_of_bulk(lab: &mut Lab) -> Result<()> {
    const COUNT: usize = 20;
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _service = two.serve()?;
    one.ping(two)?;
    await_conns(one, two)?;
    let (_, headers) = family::newest();
    for limit in [1024, 3000] {
        set("min_bulk", limit as u64)?;
        for (size, is_bulk) in [(limit - headers - 1, false), (limit - headers, true)] {
            let before = (sent(one, "control")?, sent(one, "bulk_out")?);
            let bench = Bench {
                op: Op::Put,
                size,
                count: COUNT,
                in_flight: 4,
                limit: Duration::from_secs(30),
            };
            one.bench(two, &bench)?;
            let control = sent(one, "control")? - before.0;
            let bulk = sent(one, "bulk_out")? - before.1;
            // What a transfer says to begin and to end is short.
            let expected = if is_bulk { COUNT as u64 } else { 0 };
            ensure!(
                bulk == expected && (is_bulk || control >= COUNT as u64),
                "{size} bytes with min_bulk {limit}: {bulk} bulk and {control} other messages"
            );
        }
    }
    ensure!(sent(one, "bulk_in")? == 0, "something went the wrong way");
    Ok(())
}

/// The peer's entry in the list of a node that has one.
fn only_peer(node: &Node) -> Result<Value> {
    let mut peers = node.list(&["peer", "list"])?;
    ensure!(peers.len() == 1, "{} peers", peers.len());
    Ok(peers.remove(0))
}

/// The counts of connections that a route has opened, and the time since data was last received
/// from the peer, in milliseconds.
pub fn last_alive(lab: &mut Lab) -> Result<()> {
    const QUIET: Duration = Duration::from_millis(2500);
    // The look for deadlines, which notices acknowledgements, comes to each busy peer every second.
    set("sock_timeout", 4)?;
    // On a slow machine there would be such by themselves.
    set("keepalive", 0)?;
    let (one, two) = (lab.node(0), lab.node(1));
    one.ni_add()?;
    // It has no route back, so all connections are made by the first.
    two.ni_add()?;
    one.peer_add(two)?;
    for round in 1..=3 {
        one.ping(two)?;
        await_conns(one, two)?;
        let route = only_peer(one)?["routes"][0].clone();
        ensure!(
            route["opened"] == 3 * round && route["conns"] == 3,
            "round {round}: {route}"
        );
        two.close_conns()?;
        wait::until(SOON, "connections closed", || {
            ensure!(one.conns_to(two)?.is_empty());
            Ok(())
        })?;
    }

    one.ping(two)?;
    await_conns(one, two)?;
    let idle = |node| -> Result<Duration> {
        let peer = only_peer(node)?;
        let ms = peer["idle_ms"]
            .as_u64()
            .with_context(|| format!("{peer}"))?;
        Ok(Duration::from_millis(ms))
    };
    for (from, to) in [(one, two), (two, one)] {
        for node in [from, to] {
            wait::until(SOON, "silence", || {
                let idle = idle(node)?;
                ensure!(idle >= QUIET, "idle for {idle:?}");
                Ok(())
            })?;
            let (started, before) = (Instant::now(), idle(node)?);
            wait::quiet_time(QUIET);
            let grown = idle(node)?.saturating_sub(before);
            ensure!(
                grown >= QUIET - Duration::from_millis(50) && grown <= started.elapsed(),
                "after {QUIET:?} it was idle for {grown:?} more"
            );
        }
        let started = Instant::now();
        from.ping(to)?;
        for node in [from, to] {
            let idle = idle(node)?;
            ensure!(
                idle <= started.elapsed(),
                "{} says it was idle for {idle:?}",
                node.nid()
            );
        }
    }
    Ok(())
}

/// How many keepalive probes a node's TCP has sent.
fn probes(node: &Node) -> Result<u64> {
    let table = node
        .space
        .within(|| Ok(fs::read_to_string("/proc/thread-self/net/netstat")?))?;
    let lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split(' ').collect()).collect();
    let [names, values] = lines.as_slice() else {
        bail!("strange: {table}");
    };
    let at = names.iter().position(|name| *name == "TCPKeepAlive");
    let value = at.and_then(|at| values.get(at));
    Ok(value.context("no TCPKeepAlive")?.parse()?)
}

/// TCP keepalive probes on an idle connection are sent at the configured interval, and cause no
/// other traffic.
pub fn keepalive(lab: &mut Lab) -> Result<()> {
    const QUIET: Duration = Duration::from_secs(5);
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let mut conn = Conn::greeted(&script.space, script.addr, node, CONTROL)?;
    conn.ping(1)?;
    let counted = || -> Result<(u64, Duration)> {
        let (started, before) = (Instant::now(), probes(node)?);
        wait::quiet_time(QUIET);
        Ok((probes(node)? - before, started.elapsed()))
    };
    let (count, _) = counted()?;
    ensure!(count == 0, "{count} probes within {QUIET:?} of the default");
    // After two seconds of silence, which the answer to a probe begins anew.
    set("keepalive_idle", 2)?;
    conn.ping(2)?;
    let (count, time) = counted()?;
    note(&format!("{count} probes in {time:?}"));
    ensure!(
        (1..=time.as_secs() / 2 + 1).contains(&count),
        "{count} probes in {time:?}"
    );
    set("keepalive_idle", 0)?;
    conn.ping(3)?;
    let (count, _) = counted()?;
    ensure!(count == 0, "{count} probes that nobody asked for");
    conn.ping(4)
}

/// With Nagle's algorithm a small message waits until the one before it is acknowledged. `conn
/// push` sends it at once.
pub fn nagle(lab: &mut Lab) -> Result<()> {
    let far = pace::stretched(Duration::from_secs(4));
    let (node, script) = (lab.node(0), lab.node(1));
    set("nagle", 1)?;
    // TCP is not to send again what it thinks lost: until that is acknowledged it sends nothing new.
    let least = 5 * far.as_secs();
    let route = format!("10.0.0.0/24 dev eth0 src {} rto_min {least}s", node.addr);
    // As the kernel has it already.
    let metric = if family::is_ipv6() { 256 } else { 0 };
    node.space
        .ip(&format!("route replace {route} metric {metric}\n"))?;
    node.ni_add()?;
    let mut conn = Conn::greeted(&script.space, script.addr, node, CONTROL)?;
    conn.ping(1)?;
    let received = || node.counter("/rx/msgs");
    let before = received()?;
    // From now on acknowledgements are late.
    lab.netem(0, &format!("delay {}ms", far.as_millis()))?;
    let pings = [2, 3].map(|handle| Message::ping(script.addr, node.addr, handle));
    conn.send(&pings[0].bytes())?;
    // The first one is answered before the second one comes.
    wait::quiet_time(pace::stretched(Duration::from_millis(500)));
    conn.send(&pings[1].bytes())?;
    conn.receive_message()?.check_pong(&pings[0])?;
    let answered = Instant::now();
    wait::until(SOON, "second ping", || {
        ensure!(received()? == before + 2);
        Ok(())
    })?;
    ensure!(
        !conn.has_input(Duration::from_millis(500))?,
        "the second answer was not held back"
    );
    node.socklctl(&["conn", "push"])?;
    conn.receive_message()?.check_pong(&pings[1])?;
    let time = answered.elapsed();
    note(&format!("second answer after {:.1} s", time.as_secs_f64()));
    ensure!(time < far, "it came with the acknowledgement");
    Ok(())
}

/// Connections to a peer that has become unreachable are closed in time, although more messages are
/// sent all the time.
pub fn dead_peer_while_sending(lab: &mut Lab) -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(6);
    set("sock_timeout", TIMEOUT.as_secs())?;
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    one.ping(two)?;
    await_conns(one, two)?;
    lab.cable(1, false)?;
    let started = Instant::now();
    let peer = format!("peer {} of {}", two.nid(), one.nid());
    // Found by one of four looks in this time.
    let limit = TIMEOUT + TIMEOUT / 4 + Duration::from_secs(5);
    wait::until(limit, "timeout", || {
        let _ = one.try_ping(two, Duration::from_millis(300))?;
        let peers = sections(&peer)?;
        let peer = peers.first().context("no peer")?;
        ensure!(
            peer.get("timeouts")? > 0,
            "{} are left",
            one.conns_to(two)?.len()
        );
        Ok(())
    })?;
    let time = started.elapsed();
    note(&format!("given up after {:.1} s", time.as_secs_f64()));
    ensure!(time + Duration::from_secs(2) >= TIMEOUT, "too soon");
    lab.cable(1, true)
}

/// TCP sockets of a node, in any state, that are not listening.
fn sockets(node: &Node) -> Result<Vec<String>> {
    const LISTEN: &str = "0A";
    let mut sockets = node.tcp_sockets()?;
    sockets.retain(|line| line.split_whitespace().nth(3) != Some(LISTEN));
    Ok(sockets)
}

/// Connections that are closed gracefully while the peer is unreachable do not stay for ever.
pub fn closed_while_unreachable(lab: &mut Lab) -> Result<()> {
    /// How long the module lets a socket that it has closed try to say so.
    const ORPHAN: Duration = Duration::from_secs(10);
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    one.ping(two)?;
    await_conns(one, two)?;
    lab.cable(0, false)?;
    one.close_conns()?;
    let before = sockets(one)?;
    ensure!(before.len() == 3, "not closed politely: {before:?}");
    wait::until(2 * ORPHAN, "no sockets left", || {
        let left = sockets(one)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    lab.cable(0, true)
}

/// With one scheduler, a connection that always has work does not keep others from being served.
pub fn fair_turns(lab: &mut Lab) -> Result<()> {
    const PINGS: u64 = 20;
    module::remove()?;
    module::try_insert_with(c"nscheds=1")?;
    let (node, greedy, modest) = (lab.node(0), lab.node(1), lab.node(2));
    node.ni_add()?;
    // Short messages, which are sent faster than they are received: many by one call there, each by
    // one here.
    let put = Message::put(greedy.addr, node.addr, 7, 7, Vec::new()).bytes();
    let flood = Flood::start(greedy, node, BULK_OUT, put.repeat(900))?;
    flood.await_under_way()?;
    let before = flood.sent();
    let mut conn = Conn::greeted(&modest.space, modest.addr, node, CONTROL)?;
    let mut slowest = Duration::ZERO;
    for handle in 1..=PINGS {
        let started = Instant::now();
        conn.ping(handle)?;
        slowest = slowest.max(started.elapsed());
    }
    let sent = flood.sent() - before;
    note(&format!(
        "slowest answer after {:.3} s, among {sent} thousand messages",
        slowest.as_secs_f64()
    ));
    let limit = pace::stretched(Duration::from_secs(10));
    ensure!(slowest < limit, "after {slowest:?}");
    node.close_conns()?;
    flood.ended()
}
