// SPDX-License-Identifier: GPL-2.0

//! What Lustre's nodes send to a new peer, in the order of captures: a request for its NIDs, and their own NIDs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::versions::no_conns;
use crate::debugfs::sections;
use crate::lab::Lab;
use crate::modern::{Dialect, Link, dialects};
use crate::node::Node;
use crate::peer::{ACK, CONTROL, Message, nid};
use crate::wait;

const SOON: Duration = Duration::from_secs(20);
/// Where a node is asked who it is, and told who others are.
const PORTAL: u32 = 0;
const MATCH: u64 = 1 << 63;

/// The description of a node that has this NID and does not forward.
fn description(node: &Node) -> Vec<u8> {
    let mut out = Vec::new();
    for field in [0x7069_6e67_u32, 0x1e, 12345, 2] {
        out.extend(field.to_le_bytes());
    }
    for (nid, status) in [(9 << 48, 1_u32), (nid(node.addr), 0x15aa_c0de)] {
        out.extend(nid.to_le_bytes());
        out.extend(status.to_le_bytes());
        out.extend([0; 4]);
    }
    out
}

/// A PUT that wants an acknowledgement.
fn put(node: &Node, script: &Node, portal: u32, handle: u64, payload: Vec<u8>) -> Message {
    let mut put = Message::put(script.addr, node.addr, portal, MATCH, payload);
    put.body[..8].copy_from_slice(&handle.to_le_bytes());
    put.body[8..16].copy_from_slice(&(!handle).to_le_bytes());
    put
}

/// The acknowledgement of a PUT, of which so much was taken.
fn check_ack(ack: &Message, put: &Message, taken: u32) -> Result<()> {
    let mut body = [0; 40];
    body[..24].copy_from_slice(&put.body[..24]);
    body[24..28].copy_from_slice(&taken.to_le_bytes());
    let addressed = (ack.src, ack.dest) == (put.dest, put.src)
        && (ack.src_pid, ack.dest_pid) == (put.dest_pid, put.src_pid);
    ensure!(
        ack.kind == ACK && ack.length == 0 && ack.body == body && addressed,
        "not an acknowledgement of {taken} bytes: {ack:x?}"
    );
    Ok(())
}

/// A node of Lustre 2.x discovers the node. Requests that the node does not support are dropped
/// silently, as Lustre does, and the connection stays.
pub fn discovery(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    for dialect in dialects() {
        discover(node, script, dialect).with_context(|| format!("{dialect:?}"))?;
        node.close_conns()?;
        wait::until(SOON, "connections forgotten", || no_conns(node, script))?;
    }
    Ok(())
}

fn discover(node: &Node, script: &Node, dialect: Dialect) -> Result<()> {
    let mut link = Link::dial(&script.space, script.addr, node, dialect, CONTROL)?;
    let get = |portal, handle, length| {
        Message::get(script.addr, node.addr, portal, MATCH, handle, length)
    };
    // With as much room as nodes of today offer, first and later, and with too little.
    for (handle, room) in [(1, 3960), (2, 272), (3, 47), (4, 16), (5, 0)] {
        let question = get(PORTAL, handle, room);
        link.send([0, 0], &question)?;
        let answer = link.receive_message()?;
        let mut wanted = description(node);
        wanted.truncate(room as usize);
        ensure!(
            answer.payload == wanted,
            "{:02x?}, not {wanted:02x?}",
            answer.payload
        );
        let expected = question.reply(wanted);
        ensure!(
            answer.bytes() == expected.bytes(),
            "not as it must be: {answer:x?}"
        );
    }
    // Its own description, of itself and of many NIDs more; and of more than anybody has.
    for (handle, length) in [
        (10, 48),
        (11, 0),
        (12, 272),
        (13, 4096),
        (14, 4097),
        (15, 70_000),
    ] {
        let mut payload = description(script);
        payload.resize(length, 0x5a);
        let push = put(node, script, PORTAL, handle, payload);
        link.send([0, 0], &push)?;
        check_ack(&link.receive_message()?, &push, length.min(4096) as u32)
            .with_context(|| format!("of {length} bytes"))?;
    }
    // Several at once, and with nothing wanted in return.
    let pushes: Vec<_> = (20..30)
        .map(|handle| put(node, script, PORTAL, handle, description(script)))
        .collect();
    let mut stream = Vec::new();
    for push in &pushes {
        let silent = Message::put(script.addr, node.addr, PORTAL, MATCH, description(script));
        stream.extend(dialect.message([0, 0], &silent));
        stream.extend(dialect.message([0, 0], push));
    }
    link.conn.send(&stream)?;
    for push in &pushes {
        check_ack(&link.receive_message()?, push, 48)?;
    }
    // Services that are not here: of file servers and clients, of an unknown portal, of other bits.
    let before = drops(node)?;
    let mut stream = Vec::new();
    for (handle, portal) in [
        (40, 51),
        (41, 52),
        (42, 50),
        (43, 63),
        (44, 64),
        (45, u32::MAX),
    ] {
        let put = put(node, script, portal, handle, vec![0x5a; 160]);
        stream.extend(dialect.message([0, 0], &put));
        stream.extend(dialect.message([0, 0], &get(portal, handle, 1 << 20)));
    }
    let mut other = put(node, script, PORTAL, 46, description(script));
    other.body[16..24].copy_from_slice(&1_u64.to_le_bytes());
    stream.extend(dialect.message([0, 0], &other));
    link.conn.send(&stream)?;
    // The answer to this is the first.
    link.ping(50)?;
    let more = drops(node)? - before;
    ensure!(more == 13, "{more} messages were dropped");
    Ok(())
}

/// How many messages the node had no use for.
fn drops(node: &Node) -> Result<u64> {
    let sections = sections(&format!("ni {} ", node.nid()))?;
    sections.first().context("no NI")?.get("drops")
}
