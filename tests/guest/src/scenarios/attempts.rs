// SPDX-License-Identifier: GPL-2.0

//! Attempts to connect, of this node and of others, and their results.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::net::bind;

use super::basic::pong;
use super::versions::set;
use crate::command::Job;
use crate::family;
use crate::lab::Lab;
use crate::node::{Node, errno};
use crate::pace;
use crate::peer::{
    ACCEPTOR_MAGIC, BULK_IN, CONTROL, Conn, Hello, Listener, NONE, inverse, nid, request,
    tcp_socket,
};
use crate::port::note;
use crate::wait;

const SOON: Duration = Duration::from_secs(30);
/// What may come on top of what the clock says.
const SLACK: Duration = Duration::from_secs(10);
/// From where a node connects.
const RESERVED: std::ops::RangeInclusive<u16> = 512..=1023;

/// Introduces the script with this type and incarnation; returns what the node answers.
pub fn introduce(
    script: &Node,
    node: &Node,
    conn_type: u32,
    incarnation: u64,
) -> Result<(Conn, Hello)> {
    let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
    conn.send(&request(ACCEPTOR_MAGIC, 1, nid(node.addr)))?;
    let hello = Hello {
        incarnation,
        ..Hello::new(script.addr, node.addr, conn_type)
    };
    conn.send(&hello.bytes())?;
    let answer = conn.receive_hello()?;
    Ok((conn, answer))
}

/// A connection of a type that exists already, or with an older incarnation of the peer, is refused
/// before its HELLO is answered, and existing connections stay. A newer incarnation replaces the
/// old connections.
pub fn incarnations(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let accepted = |conn_type, incarnation| -> Result<Conn> {
        let (conn, answer) = introduce(script, node, conn_type, incarnation)?;
        ensure!(
            answer.conn_type == inverse(conn_type),
            "not accepted: {answer:x?}"
        );
        Ok(conn)
    };
    let refused = |conn_type, incarnation| -> Result<()> {
        let (mut conn, answer) = introduce(script, node, conn_type, incarnation)?;
        ensure!(answer.conn_type == NONE, "not refused: {answer:x?}");
        let (got, _) = conn.await_closed(SOON)?;
        ensure!(got.is_empty(), "after the refusal came {got:02x?}");
        Ok(())
    };
    let mut control = accepted(CONTROL, 2000)?;
    control.ping(1)?;
    refused(CONTROL, 2000).context("of a type that is there")?;
    control.ping(2)?;
    for conn_type in [BULK_IN, CONTROL] {
        refused(conn_type, 1999).context("of an earlier life")?;
        control.ping(3)?;
    }
    let mut bulk = accepted(BULK_IN, 2000)?;
    ensure!(node.conns_to(script)?.len() == 2, "not two connections");
    let mut restarted = accepted(CONTROL, 2001)?;
    for old in [&mut control, &mut bulk] {
        old.await_closed(SOON)
            .context("a connection of an earlier life")?;
    }
    restarted.ping(4)?;
    let conns = node.conns_to(script)?.len();
    ensure!(conns == 1, "{conns} connections are left");
    Ok(())
}

/// A peer that accepts connections, sends its HELLO and closes at once counts as failed: the
/// interval between attempts grows.
pub fn closing_peer(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let listener = Listener::new(&script.space, script.addr)?;
    node.ni_add()?;
    node.peer_add(script)?;
    let started = Instant::now();
    let (mut attempts, mut pings) = (0, 0);
    let mut ping = node.start(&["ping", "-W", "5", &script.nid()])?;
    while started.elapsed() < Duration::from_secs(8) {
        // Whoever lost the connection hears of that at once, and asks again.
        if !ping.running()? {
            pings += 1;
            ping = node.start(&["ping", "-W", "5", &script.nid()])?;
        }
        let Ok((mut conn, hello)) = listener.accept_greeting(Duration::from_millis(20)) else {
            continue;
        };
        attempts += 1;
        conn.send(&Hello::new(script.addr, node.addr, inverse(hello.conn_type)).bytes())?;
    }
    ping.kill();
    note(&format!("{attempts} attempts and {pings} pings"));
    ensure!(attempts > 1, "{attempts} attempts");
    // With waits that begin at one second and double, and three connections wanted at most each time,
    // eight seconds have room for few.
    let time = started.elapsed();
    let waits = (time.as_secs() + 1).ilog2() + 1;
    ensure!(
        attempts <= 3 * (waits + 1),
        "{attempts} attempts in {:.1} s",
        time.as_secs_f64()
    );
    Ok(())
}

/// No attempt to connect comes by itself after one that has failed.
fn rest_for_long() -> Result<()> {
    set("max_reconnectms", 3_600_000)?;
    set("min_reconnectms", 3_600_000)
}

/// A peer is deleted while messages wait for it and no attempt is under way: the messages fail at
/// once.
pub fn deleted_while_waiting(lab: &mut Lab) -> Result<()> {
    rest_for_long()?;
    let (node, script) = (lab.node(0), lab.node(1));
    let listener = Listener::new(&script.space, script.addr)?;
    node.ni_add()?;
    node.peer_add(script)?;
    let mut ping = node.start_ping(script)?;
    let (mut conn, _) = listener.accept_greeting(SOON)?;
    conn.send(&Hello::new(script.addr, node.addr, NONE).bytes())?;
    conn.await_closed(SOON)?;
    wait::until(SOON, "end of the attempt", || {
        ensure!(node.counter("/live/handshakes")? == 0);
        Ok(())
    })?;
    ensure!(
        node.counter("/live/txs")? == 1 && ping.running()?,
        "it did not wait"
    );
    node.socklctl(&["peer", "del", &script.nid()])?;
    let left = node.counter("/live/txs")?;
    ensure!(left == 0, "{left} messages still wait");
    let name = errno(&ping.wait(SLACK)?)?;
    ensure!(name == "ESHUTDOWN", "the ping failed with {name}");
    Ok(())
}

/// While a route may not be tried, because attempts have failed, messages fail at once; but not
/// while a passive handshake of the peer is under way. The same is true if an attempt fails during
/// such a handshake.
pub fn hello_during_backoff(lab: &mut Lab) -> Result<()> {
    rest_for_long()?;
    set("accept_timeout", 3600)?;
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    node.peer_add(script)?;
    let name = errno(&node.try_ping(script, SOON)?)?;
    ensure!(name == "ECONNREFUSED", "the attempt failed with {name}");
    let name = errno(&node.try_ping(script, SOON)?)?;
    ensure!(name == "EHOSTUNREACH", "while it rests, {name}");

    let half_way = || -> Result<Conn> {
        let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
        conn.send(&request(ACCEPTOR_MAGIC, 1, nid(node.addr)))?;
        conn.send(&Hello::new(script.addr, node.addr, CONTROL).bytes()[..40])?;
        Ok(conn)
    };
    let waits = |ping: &mut Job| {
        wait::until(SOON, "a message that waits", || {
            ensure!(ping.running()?, "it failed: {}", ping.stderr());
            ensure!(node.counter("/live/txs")? == 1);
            Ok(())
        })
    };
    let answered = |mut conn: Conn, ping: Job| -> Result<()> {
        conn.send(&Hello::new(script.addr, node.addr, CONTROL).bytes()[40..])?;
        conn.expect_hello(CONTROL)?;
        let message = conn.receive_message()?;
        conn.send(&message.reply(pong(script)).bytes())?;
        ping.wait(SOON)?.checked("ping")?;
        Ok(())
    };
    let conn = half_way()?;
    wait::until(SOON, "greeting under way", || {
        ensure!(node.counter("/live/handshakes")? == 1);
        Ok(())
    })?;
    let mut ping = node.start_ping(script)?;
    waits(&mut ping)?;
    answered(conn, ping)?;

    // Now there is somebody, who hangs up on the attempt while the greeting is under way.
    node.socklctl(&["peer", "del", "any"])?;
    node.peer_add(script)?;
    let listener = Listener::new(&script.space, script.addr)?;
    let mut ping = node.start_ping(script)?;
    let attempt = listener.accept_request(SOON)?;
    let conn = half_way()?;
    wait::until(SOON, "greeting and attempt under way", || {
        ensure!(node.counter("/live/handshakes")? == 2);
        Ok(())
    })?;
    attempt.reset()?;
    wait::until(SOON, "end of the attempt", || {
        ensure!(node.counter("/live/handshakes")? == 1);
        Ok(())
    })?;
    waits(&mut ping)?;
    answered(conn, ping)
}

/// Takes all reserved ports of a node but these; the node's own are taken already.
fn squat(node: &Node, free: &[u16]) -> Result<Vec<OwnedFd>> {
    node.space.within(|| {
        let mut taken = Vec::new();
        for port in RESERVED.filter(|port| !free.contains(port)) {
            let socket = tcp_socket()?;
            match bind(&socket, &family::real(node.addr, port)) {
                Ok(()) => taken.push(socket),
                Err(Errno::ADDRINUSE) => {}
                Err(why) => return Err(why).with_context(|| format!("port {port}")),
            }
        }
        Ok(taken)
    })
}

/// Attempts skip reserved ports that are in use. Without a free one, the attempt fails at once.
pub fn taken_ports(lab: &mut Lab) -> Result<()> {
    const FREE: [u16; 3] = [513, 700, 1000];
    let (one, two) = (lab.node(0), lab.node(1));
    one.ni_add()?;
    // It has no route back, so all connections are made by the first.
    two.ni_add()?;
    one.peer_add(two)?;
    let squatters = squat(one, &FREE)?;
    ensure!(squatters.len() >= 500, "only {} taken", squatters.len());
    one.ping(two)?;
    wait::until(SOON, "a connection from each free port", || {
        let mut ports = Vec::new();
        for conn in one.conns_to(two)? {
            let local = conn["local"].as_str().unwrap_or_default();
            let (_, port) = local.rsplit_once(':').unwrap_or_default();
            ports.push(port.parse::<u16>().unwrap_or_default());
        }
        ports.sort_unstable();
        ensure!(ports == FREE, "ports {ports:?}");
        // Who accepts one has it a moment after who has made it.
        let accepted = two.conns_to(one)?.len();
        ensure!(accepted == FREE.len(), "accepted {accepted}");
        Ok(())
    })?;
    two.close_conns()?;
    wait::until(SOON, "all connections closed", || {
        ensure!(one.conns_to(two)?.is_empty());
        Ok(())
    })?;

    let rest = squat(one, &[])?;
    ensure!(rest.len() == FREE.len(), "{} of three taken", rest.len());
    one.socklctl(&["peer", "del", "any"])?;
    let output = one.try_ping(two, SOON)?;
    let name = errno(&output)?;
    ensure!(name == "EADDRNOTAVAIL", "failed with {name}");
    ensure!(
        output.time < pace::stretched(SLACK),
        "failed after {:.1} s",
        output.time.as_secs_f64()
    );
    drop((squatters, rest));
    wait::until(SOON, "ping with ports", || one.ping(two).map(drop))
}

/// An attempt without an answer ends after the time that a message may wait, not after TCP's own
/// timeout.
pub fn unanswered(lab: &mut Lab) -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(4);
    set("sock_timeout", TIMEOUT.as_secs())?;
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    // Frames to a card that is not there: nobody says that nobody is there.
    let neighbour = format!("{} lladdr 02:00:00:00:00:01 dev eth0\n", two.addr);
    one.space.ip(&format!("neigh replace {neighbour}"))?;
    let started = Instant::now();
    let mut ping = one.start_ping(two)?;
    wait::until(SOON, "attempt under way", || {
        ensure!(one.counter("/live/handshakes")? == 1);
        Ok(())
    })?;
    wait::until(TIMEOUT + SLACK, "end of the attempt", || {
        ensure!(one.counter("/live/handshakes")? == 0);
        Ok(())
    })?;
    let time = started.elapsed();
    note(&format!("given up after {:.1} s", time.as_secs_f64()));
    ensure!(
        time + Duration::from_millis(100) >= TIMEOUT,
        "given up too soon"
    );
    ping.kill();
    Ok(())
}
