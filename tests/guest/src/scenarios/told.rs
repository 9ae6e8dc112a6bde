// SPDX-License-Identifier: GPL-2.0

//! Whose messages have arrived is told him, and not a later life of his.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::versions::no_conns;
use crate::family;
use crate::lab::Lab;
use crate::modern::{Dialect, Frame, Hello, Link, Order};
use crate::node::Node;
use crate::peer::{ANY, Conn, NONE, nid};
use crate::port::note;
use crate::wait;

/// In this time what has ended is done with, on the slowest machine.
const SOON: Duration = Duration::from_secs(30);
/// So many times a life ends in each way; in most of them an old driver told the next one.
const LIVES: u64 = 8;
/// Messages that are sent at once while a connection ends.
const BURST: u64 = 200;

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

/// A connection ends while it is full of messages that are to be acknowledged: because an administrator
/// closes it, or because the peer was started anew. What comes next is told of nothing that was not sent
/// by it.
pub fn former_lives(lab: &mut Lab) -> Result<()> {
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
