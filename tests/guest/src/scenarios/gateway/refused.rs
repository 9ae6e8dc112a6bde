// SPDX-License-Identifier: GPL-2.0

//! Messages that gateways don't forward.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};

use super::{
    LIMIT, await_large, dial_across, forwarding, make_gateway, move_across, nid1, other_side,
};
use crate::lab::Lab;
use crate::peer::{CONTROL, Conn, Message, nid};

/// Messages that a gateway does not forward, one for each cause. The stream stays in step.
pub fn refused(lab: &mut Lab) -> Result<()> {
    let (node, gateway, script) = (lab.node(0), lab.node(1), lab.node(2));
    make_gateway(gateway)?;
    node.ni_add()?;
    let here = other_side(gateway);
    node.socklctl(&["route", "add", "tcp1", &gateway.nid()])?;
    let script = move_across(script)?;
    // A way to a third network that leads back over the second, and one by a dead node.
    let neighbour = Ipv4Addr::new(10, 1, 0, 77);
    gateway.socklctl(&["route", "add", "tcp2", &format!("{neighbour}@tcp1")])?;
    let mut conn = dial_across(&script, script.addr, gateway, CONTROL)?;
    let mut handle = 0;
    let mut expect = |conn: &mut Conn, dest: u64, src: u64, cause: &str| -> Result<()> {
        let before = (forwarding(gateway, cause)?, forwarding(gateway, "msgs")?);
        let mut message = Message::put(script.addr, node.addr, 7, 5, vec![0xa5; 5000]);
        (message.dest, message.src) = (dest, src);
        conn.send(&message.bytes())?;
        // What follows is still understood.
        handle += 1;
        let mut ping = Message::ping(script.addr, here, handle);
        (ping.dest, ping.src) = (nid1(here), nid1(script.addr));
        conn.send(&ping.bytes())?;
        conn.receive_message()
            .context("no answer to the ping")?
            .check_pong(&ping)?;
        ensure!(
            forwarding(gateway, cause)? == before.0 + 1,
            "{cause}: not counted"
        );
        ensure!(
            forwarding(gateway, "msgs")? == before.1,
            "{cause}: it was passed on"
        );
        Ok(())
    };
    let me = nid1(script.addr);
    let third = |last| nid(Ipv4Addr::new(10, 2, 0, last)) | 2 << 32;
    // To a neighbour of the sender's own, and to the gateway by the NID that it has elsewhere.
    expect(&mut conn, nid1(neighbour), me, "direct")?;
    expect(&mut conn, nid(gateway.addr), me, "direct")?;
    // Under a name of the other side, of a neighbour, of a network that it is no gateway to, and of
    // the gateway.
    for forged in [nid(node.addr), nid1(neighbour), third(1), nid1(here)] {
        expect(&mut conn, nid(node.addr), forged, "forged")?;
        expect(&mut conn, nid1(here), forged, "forged")?;
    }
    expect(&mut conn, third(1), me, "back")?;
    expect(&mut conn, third(1) + (1 << 32), me, "no_route")?;
    gateway.socklctl(&["set", "routing", "off"])?;
    expect(&mut conn, nid(node.addr), me, "off")?;
    gateway.socklctl(&["set", "routing", "on"])?;

    // To a node that is not there: it is received, and goes nowhere.
    let mut lost = Message::put(script.addr, node.addr, 7, 5, vec![0xa5; 5000]);
    (lost.dest, lost.src) = (nid(Ipv4Addr::new(10, 0, 0, 99)), me);
    gateway
        .space
        .ip("neigh replace 10.0.0.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent\n")?;
    conn.send(&lost.bytes())?;
    // To one that is, and may be spoken to.
    let mut ping = Message::ping(script.addr, node.addr, 99);
    (ping.dest, ping.src) = (nid(node.addr), me);
    conn.send(&ping.bytes())?;
    conn.receive_message()
        .context("no answer through the gateway")?
        .check_pong(&ping)?;
    await_large(gateway, "busy", 1)?;
    // Who deletes the peer gives up what waits for it.
    gateway.socklctl(&["peer", "del", "10.0.0.99@tcp"])?;
    await_large(gateway, "busy", 0)?;
    ensure!(forwarding(gateway, "failed")? == 1, "not counted as failed");

    // Longer than any message is.
    let mut long = Message::put(script.addr, node.addr, 7, 5, Vec::new());
    (long.dest, long.src, long.length) = (nid(node.addr), me, (1 << 20) + 1);
    conn.send(&long.bytes())?;
    conn.await_closed(LIMIT)?;
    ensure!(forwarding(gateway, "failed")? == 1, "more failed");
    Ok(())
}
