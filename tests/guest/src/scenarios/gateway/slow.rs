// SPDX-License-Identifier: GPL-2.0

//! Senders that begin messages and don't finish them.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{
    LIMIT, await_large, bench, dial_across, forwarding, large, make_gateway, move_across, nid1,
    other_side,
};
use crate::lab::Lab;
use crate::node::{Node, Op};
use crate::peer::{BULK_IN, BULK_OUT, CONTROL, Conn, Message, nid};
use crate::port::note;
use crate::scenarios::versions::set;
use crate::wait;

/// Nodes of strangers, all of them on one card.
const NODES: u8 = 4;
/// A connection of each.
const TYPES: [u32; 3] = [CONTROL, BULK_IN, BULK_OUT];

/// The strangers' connections to a gateway.
fn strangers(script: &Node, gateway: &Node) -> Result<Vec<Conn>> {
    let mut conns = Vec::new();
    for last in 100..100 + NODES {
        let from = Ipv4Addr::new(10, 1, 0, last);
        let line = format!("addr add {from}/24 dev eth0\n");
        script.space.ip(&line)?;
        for conn_type in TYPES {
            conns.push(dial_across(script, from, gateway, conn_type)?);
        }
    }
    Ok(conns)
}

/// Strangers begin large messages to a server and send only a few bytes of them. Messages of others
/// are not delayed, because a buffer is only used for a message that has arrived. If a message is
/// too large for the socket buffer, a sender that is too slow loses its buffer.
pub fn held_by_few_bytes(lab: &mut Lab) -> Result<()> {
    const LENGTH: usize = 64 << 10;
    const LONG: usize = 1 << 20;
    /// What is soon more than fits, but not all.
    const PART: usize = 600_000;
    // Nobody is given up for being silent: that is not what this is about.
    set("large_router_buffers", 16)?;
    set("sock_timeout", 3600)?;
    let (server, gateway) = (lab.node(0), lab.node(1));
    make_gateway(gateway)?;
    let script = move_across(lab.node(2))?;
    let client = move_across(lab.node(3))?;
    client.ni_add()?;
    let by = format!("{}@tcp1", other_side(gateway));
    client.socklctl(&["route", "add", "tcp", &by])?;
    server.ni_add()?;
    server.socklctl(&["route", "add", "tcp1", &gateway.nid()])?;
    let _service = server.serve()?;
    let load = bench(Op::Put, 20_000, 40);
    client.bench(server, &load)?;

    let message = |conn: &Conn, length: usize| -> Vec<u8> {
        let mut put = Message::put(conn.from, server.addr, 7, 5, vec![0xa5; length]);
        (put.dest, put.src) = (nid(server.addr), nid1(conn.from));
        put.bytes()
    };
    let mut conns = strangers(&script, gateway)?;
    let header = message(&conns[0], 0).len();
    for conn in &mut conns {
        let bytes = message(conn, LENGTH);
        conn.send(&bytes[..header + 1])?;
    }
    for at in 1..=5 {
        client.bench(server, &load)?;
        for conn in &mut conns {
            let bytes = message(conn, LENGTH);
            conn.send(&bytes[header + at..header + at + 1])?;
        }
        await_large(gateway, "busy", 0)?;
    }
    // They are served as everybody is when they have sent the rest.
    let before = forwarding(gateway, "msgs")?;
    for conn in &mut conns {
        let bytes = message(conn, LENGTH);
        conn.send(&bytes[header + 6..])?;
    }
    let all = conns.len() as u64;
    wait::until(LIMIT, "messages passed on", || {
        let now = forwarding(gateway, "msgs")? - before;
        ensure!(now >= all, "{now} of {all}");
        Ok(())
    })?;
    ensure!(forwarding(gateway, "failed")? == 0, "something failed");

    // So little memory that a message can't be there before it has a buffer.
    set("rx_buffer_size", 65536)?;
    let mut holders = 0;
    for conn in &mut conns {
        let bytes = message(conn, LONG);
        // One that has no buffer takes no more.
        conn.send_some(&bytes[..PART])?;
    }
    wait::until(LIMIT, "buffers held", || {
        holders = large(gateway, "busy")?;
        ensure!(holders == 4, "{holders} buffers are held");
        Ok(())
    })?;
    let started = Instant::now();
    client.bench(server, &load)?;
    note(&format!(
        "others waited {:.1} s for {holders} slow senders",
        started.elapsed().as_secs_f64()
    ));
    ensure!(forwarding(gateway, "failed")? > 0, "nobody gave way");
    for conn in conns {
        conn.reset()?;
    }
    await_large(gateway, "busy", 0)?;
    client.bench(server, &load).map(drop)
}
