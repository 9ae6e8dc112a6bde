// SPDX-License-Identifier: GPL-2.0

//! A gateway's answer to pings, and messages to and from networks of other kinds.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::versions::no_conns;
use super::{LIMIT, forwarding, make_gateway, other_side};
use crate::lab::Lab;
use crate::modern::{Dialect, Link, dialects};
use crate::node::Node;
use crate::peer::{CONTROL, Message};
use crate::wait;

/// What somebody who asks is told: features and NIDs.
fn described(node: &Node, by: &Node) -> Result<Value> {
    let answer = by.ping(node)?;
    let told = &answer["node"];
    let nids = told["nis"].as_array().context("no NIDs")?.iter();
    let nids: Value = nids.map(|ni| json!([ni["nid"], ni["status"]])).collect();
    Ok(json!([told["features"], nids]))
}

/// A ping's answer says of a node what is so at that moment: whether it forwards, which NIDs it has,
/// and which of them have a link.
fn describes_itself(gateway: &Node, asker: &Node) -> Result<()> {
    let across = gateway.in_network(1, other_side(gateway));
    let expect = |features: u32, nis: &[(&Node, &str)]| -> Result<()> {
        let nis: Value = nis.iter().map(|(ni, up)| json!([ni.nid(), up])).collect();
        let (expected, told) = (json!([features, nis]), described(gateway, asker)?);
        ensure!(told == expected, "{told} instead of {expected}");
        Ok(())
    };
    expect(0x1a, &[(gateway, "up"), (&across, "up")])?;
    gateway.socklctl(&["set", "routing", "off"])?;
    expect(0x1e, &[(gateway, "up"), (&across, "up")])?;
    across.ni_del()?;
    expect(0x1e, &[(gateway, "up")])?;
    gateway.socklctl(&["set", "routing", "on"])?;
    across.ni_add()?;
    expect(0x1a, &[(gateway, "up"), (&across, "up")])
}

/// A message from or to a network of another kind is dropped like any other that can't be
/// forwarded. The connection stays, in every version and with every type of message.
pub fn foreign_networks(lab: &mut Lab) -> Result<()> {
    const O2IB: u64 = 5 << 48 | 0x0a00_0909;
    let (gateway, script, asker) = (lab.node(0), lab.node(1), lab.node(2));
    make_gateway(gateway)?;
    asker.ni_add()?;
    describes_itself(gateway, asker)?;

    type Spoil = fn(&mut Message);
    let cases: [(Spoil, &str); 3] = [
        (|message| message.src = O2IB, "forged"),
        (|message| message.dest = O2IB, "no_route"),
        (
            |message| (message.src, message.dest) = (O2IB, O2IB + 1),
            "forged",
        ),
    ];
    for dialect in dialects() {
        let Dialect { version, .. } = dialect;
        let mut link = Link::dial(&script.space, script.addr, gateway, dialect, CONTROL)?;
        let mut handle = 0;
        for (spoil, cause) in &cases {
            for length in [0, 5000] {
                let before = forwarding(gateway, cause)?;
                let mut put = link.new_put(length);
                spoil(&mut put);
                link.send([0, 0], &put)?;
                handle += 1;
                link.ping(handle).with_context(|| {
                    format!("version {version}, {length} bytes: ended as {cause}")
                })?;
                let now = forwarding(gateway, cause)?;
                ensure!(now == before + 1, "{cause}: {before}, then {now}");
            }
        }
        link.conn.finish()?;
        wait::until(LIMIT, "connection forgotten", || no_conns(gateway, script))?;
    }
    gateway.socklctl(&["set", "routing", "off"])?;
    let dialect = dialects().last().context("no dialects")?;
    let mut link = Link::dial(&script.space, script.addr, gateway, dialect, CONTROL)?;
    let mut put = link.new_put(1);
    put.dest = O2IB;
    link.send([0, 0], &put)?;
    link.ping(1)?;
    ensure!(forwarding(gateway, "off")? == 1, "not counted");
    ensure!(forwarding(gateway, "msgs")? == 0, "something was passed on");
    ensure!(
        gateway.counter("/errors/protocol")? == 0,
        "taken for a breach of the protocol"
    );
    Ok(())
}
