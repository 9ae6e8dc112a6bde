// SPDX-License-Identifier: GPL-2.0

//! Acknowledgements to the peer of its messages: not to a later incarnation, and also if they have to wait. And
//! counters of messages that could not be sent.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::versions::{no_conns, set};
use crate::debugfs::{hook, sections, sum};
use crate::family;
use crate::lab::Lab;
use crate::modern::{Dialect, Frame, Hello, Link, Order};
use crate::node::{Node, errno};
use crate::peer::{ANY, BULK_OUT, CONTROL, Conn, NONE, REPLY, nid};
use crate::port::note;
use crate::wait;

/// In this time what has ended is done with, on the slowest machine.
const SOON: Duration = Duration::from_secs(30);
/// So many times a life ends in each way; in most of them an old driver told the next one.
const LIVES: u64 = 8;
/// Messages that are sent at once while a connection ends.
const BURST: u64 = 200;
/// More gaps between cookies than are remembered for any peer.
const GAPS: u64 = 300;
/// More sends than there are.
const MANY: u32 = 1_000_000;

fn today() -> Dialect {
    Dialect {
        version: if family::is_ipv6() { 4 } else { 3 },
        order: Order::Little,
    }
}

/// Connects as a life of the script that began so many nanoseconds after the first.
fn dial_as(script: &Node, node: &Node, life: u64, conn_type: u32) -> Result<Link> {
    let dialect = today();
    let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
    let mut hello = Hello::new(dialect, script.addr, node.addr, conn_type);
    hello.incarnation += life;
    conn.send(&dialect.request(1, nid(node.addr)))?;
    conn.send(&hello.bytes())?;
    let answer = Hello::receive(&mut conn)?;
    ensure!(answer.conn_type != NONE, "refused: {answer:x?}");
    Ok(Link::greeted(conn, dialect, conn_type))
}

/// Pings over a connection. Returns which messages it was told of before the answer came.
fn told_before_pong(link: &mut Link, handle: u64) -> Result<Vec<u64>> {
    let ping = link.new_ping(handle);
    link.send([0, 0], &ping)?;
    let mut told = Vec::new();
    loop {
        let frame = link.receive()?;
        told.extend(frame.acknowledges());
        if let Frame::Message { message, .. } = &frame {
            message.check_pong(&ping)?;
            return Ok(told);
        }
    }
}

/// Sends messages with cookies until the connection ends, and reads what it is told.
fn stream_and_read(stream: &TcpStream, frames: impl Fn(u64) -> Vec<u8> + Send) {
    let (mut reader, mut writer) = (stream, stream);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                match reader.read(&mut bytes) {
                    Ok(1..) => {}
                    Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                    _ => return,
                }
            }
        });
        let mut next = 2;
        while writer.write_all(&frames(next)).is_ok() {
            next += BURST;
        }
    });
}

/// A connection is closed while many messages are to be acknowledged: by an administrator, or
/// because the peer was restarted. The next connection acknowledges none of the messages of the
/// earlier one.
pub fn acks_after_restart(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let dialect = today();
    node.ni_add()?;
    let mut stale = Vec::new();
    let mut life = 0;
    for round in 0..2 * LIVES {
        let restarts = round % 2 == 1;
        // So that it outlives its connections.
        node.peer_add(script)?;
        let link = dial_as(script, node, life, ANY)?;
        let frames = {
            let put = link.new_put(0);
            move |from: u64| -> Vec<u8> {
                let message = |cookie| dialect.message([cookie, 0], &put);
                (from..from + BURST).flat_map(message).collect()
            }
        };
        let stream = link.conn.into_stream();
        let over = AtomicBool::new(false);
        let told = std::thread::scope(|scope| -> Result<Vec<u64>> {
            scope.spawn(|| {
                stream_and_read(&stream, frames);
                over.store(true, Ordering::Relaxed);
            });
            wait::until(SOON, "messages under way", || {
                let conns = node.conns_to(script)?;
                let conn = conns.first().context("no connection")?;
                let count = conn["rx"]["msgs"].as_u64().context("no counter")?;
                ensure!(count > 5 * BURST, "{count} messages so far");
                Ok(())
            })?;
            if restarts {
                life += 1;
            } else {
                node.close_conns()?;
            }
            let mut link =
                wait::until(SOON, "next connection", || dial_as(script, node, life, ANY))?;
            let mut told = told_before_pong(&mut link, 1)?;
            wait::until(SOON, "end of the old connection", || {
                ensure!(over.load(Ordering::Relaxed));
                Ok(())
            })?;
            told.extend(told_before_pong(&mut link, 2)?);
            // Its own are told as ever.
            let put = link.new_put(10);
            link.send([2, 0], &put)?;
            let own = link.receive()?.acknowledges();
            ensure!(
                own == [2] || !told.is_empty(),
                "of its own it is told {own:x?}"
            );
            link.conn.reset()?;
            Ok(told)
        })
        .with_context(|| format!("round {round}"))?;
        if !told.is_empty() {
            let count = told.len();
            note(&format!(
                "round {round}, restarted {restarts}: told of {count}"
            ));
            stale.push(round);
        }
        node.socklctl(&["peer", "del", "any"])?;
        wait::until(SOON, "connection forgotten", || no_conns(node, script))?;
    }
    ensure!(stale.is_empty(), "stale in rounds {stale:?}");
    Ok(())
}

/// Waits until the node has so many pings, and more messages with cookies than it can remember, and reads all
/// that it has to say then: answers to the pings and to one that comes last, and that [`GAPS`] messages have
/// arrived. Returns which ones.
fn told_when_read(node: &Node, script: &Node, link: &mut Link, pings: u64) -> Result<Vec<u64>> {
    let mut read = 0;
    // Also by way of its answers: the last of them comes behind all that was asked before.
    wait::until(SOON, "no room", || {
        let conns = node.conns_to(script)?;
        let conn = conns.first().context("the connection is gone")?;
        let count = conn["rx"]["msgs"].as_u64().context("no counter")?;
        ensure!(count > pings + 32, "only {count} messages have come");
        // Until nothing more is read.
        let before = core::mem::replace(&mut read, count);
        ensure!(before == count, "{count} messages have come");
        Ok(())
    })?;
    let (mut told, mut answers) = (Vec::new(), 0);
    while told.len() < GAPS as usize || answers <= pings {
        let frame = link.receive().context("while it was full")?;
        told.extend(frame.acknowledges());
        if let Frame::Message { message, .. } = &frame {
            ensure!(message.kind == REPLY, "not an answer: {message:x?}");
            answers += 1;
        }
    }
    Ok(told)
}

/// The acknowledgements of [`GAPS`] messages, which are all that comes by this connection.
fn told_of(link: &mut Link) -> Result<Vec<u64>> {
    let mut told = Vec::new();
    while told.len() < GAPS as usize {
        told.extend(
            link.receive()
                .context("when there was memory")?
                .acknowledges(),
        );
    }
    Ok(told)
}

/// Every second cookie has a gap, more than can be remembered: while there is no connection for
/// acknowledgements, while the peer does not read them, and while there is no memory. All are
/// acknowledged later, and the memory for them is bounded.
pub fn gaps(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let dialect = today();
    set("buffer_size", 4096)?;
    node.ni_add()?;
    let cookies: Vec<u64> = (1..=GAPS).map(|n| 2 * n).collect();
    let complete = |what: &str, mut told: Vec<u64>| {
        told.sort_unstable();
        ensure!(told == cookies, "{what}: told of {told:?}");
        Ok(())
    };

    // There is none but for control, which is not for that.
    let mut control = Link::dial(&script.space, script.addr, node, dialect, CONTROL)?;
    for cookie in &cookies {
        let put = control.new_put(10);
        control.send([*cookie, 0], &put)?;
    }
    let mut told = told_before_pong(&mut control, 1).context("without a connection for them")?;
    // Those that did not go along with an answer go behind it.
    told.extend(told_before_pong(&mut control, 2)?);
    note(&format!("by another connection: {told:?}"));
    let mut bulk = Link::dial(&script.space, script.addr, node, dialect, BULK_OUT)?;
    while told.len() < cookies.len() {
        told.extend(bulk.receive()?.acknowledges());
    }
    complete("without a connection for them", told)?;
    control.conn.reset()?;
    bulk.conn.reset()?;
    wait::until(SOON, "connections forgotten", || no_conns(node, script))?;

    // The one that there is is full.
    let mut link = Link::dial(&script.space, script.addr, node, dialect, ANY)?;
    link.conn.narrow(2048)?;
    let mut pings = 0;
    wait::until(SOON, "full connection", || {
        for _ in 0..50 {
            pings += 1;
            let ping = link.new_ping(pings);
            link.send([0, 0], &ping)?;
        }
        let conns = node.conns_to(script)?;
        let queued = conns.first().context("no connection")?["queued_bytes"].as_u64();
        let queued = queued.context("no counter")?;
        // So much that it is not just on its way.
        ensure!(queued > 10_000, "only {queued} bytes are stuck");
        Ok(())
    })?;
    let puts: Vec<u8> = cookies
        .iter()
        .flat_map(|cookie| dialect.message([*cookie, 0], &link.new_put(10)))
        .collect();
    let last = link.new_ping(pings + 1);
    let frames = [puts.clone(), dialect.message([0, 0], &last)].concat();
    // It may be that the node does not read all of it before it is read.
    link.conn.be_patient()?;
    let mut writer = link.conn.duplicate()?;
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(move || writer.write_all(&frames));
        let told = told_when_read(node, script, &mut link, pings);
        if told.is_err() {
            // What is still being written ends with it.
            link.conn.finish()?;
        }
        complete("while it was full", told?)
    })?;
    link.conn.reset()?;
    wait::until(SOON, "connection forgotten", || no_conns(node, script))?;

    // TCP has room for what it is told, but no memory.
    let mut link = Link::dial(&script.space, script.addr, node, dialect, ANY)?;
    let failures = || sum(&sections("conn ")?, "enomem");
    let before = failures()?;
    let fault = hook("enomem_tx", MANY)?;
    link.conn.be_patient()?;
    let mut writer = link.conn.duplicate()?;
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(move || writer.write_all(&puts));
        let bounded = wait::until(SOON, "attempts to send", || {
            let txs = node.counter("/live/txs")?;
            // As many as are remembered, and a keepalive message.
            if txs > 33 {
                return Ok(Err(anyhow!("{txs} acknowledgements have been taken")));
            }
            let failed = failures()? - before;
            ensure!(failed > 5, "{failed} attempts to send have failed");
            Ok(Ok(()))
        });
        drop(fault);
        let told = bounded.and_then(|bounded| {
            bounded?;
            told_of(&mut link)
        });
        if told.is_err() {
            link.conn.finish()?;
        }
        complete("while there was no memory", told?)
    })?;
    let errors = node.counter("/errors/protocol")?;
    ensure!(errors == 0, "{errors} breaches of the protocol");
    link.conn.reset()?;
    wait::until(SOON, "connection forgotten", || no_conns(node, script))
}

/// A message that can't be sent counts once for its NI and once for its peer.
pub fn counted_once(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    node.peer_add(script)?;
    set("zc_min_payload", 0)?;
    let of_peer = || -> Result<u64> {
        let peers = node.list(&["stats", "--peers"])?;
        let peer = peers.first().context("no peer")?;
        peer["errors"]["tx"].as_u64().context("no counter")
    };
    // Sent without a copy, when its connection ends.
    let mut link = Link::dial(&script.space, script.addr, node, today(), ANY)?;
    link.ping(1)?;
    lab.netem(1, "loss 100%")?;
    let ping = link.new_ping(2);
    link.send([0, 0], &ping)?;
    wait::until(SOON, "answer sent without a copy", || {
        let conns = node.conns_to(script)?;
        let conn = conns.first().context("no connection")?;
        let zc_msgs = conn["zero_copy"]["msgs"].as_u64().context("no counter")?;
        ensure!(
            zc_msgs == 2 && node.counter("/live/txs")? == 1,
            "{zc_msgs} were sent without a copy"
        );
        Ok(())
    })?;
    node.close_conns()?;
    wait::until(SOON, "end of the answer", || {
        ensure!(node.counter("/live/txs")? == 0);
        Ok(())
    })?;
    lab.netem(1, "delay 0ms")?;
    ensure!(of_peer()? == 1, "{} of the peer are lost", of_peer()?);
    // Nobody listens: those that wait, and those that need not wait.
    for _ in 0..3 {
        let name = errno(&node.try_ping(script, SOON)?)?;
        note(&format!("a ping without a listener: {name}"));
    }
    let (one, all) = (of_peer()?, node.counter("/errors/tx")?);
    ensure!(one == all && one >= 4, "{one} of the peer, {all} in all");
    link.conn.reset()?;
    Ok(())
}
