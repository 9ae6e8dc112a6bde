// SPDX-License-Identifier: GPL-2.0

//! Who is believed, and who is refused.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::versions::{no_conns, set};
use crate::family;
use crate::lab::Lab;
use crate::modern::{Dialect, Hello, Link, Order};
use crate::node::Node;
use crate::peer::{CONTROL, Conn, nid};
use crate::wait;

/// In this time what has ended is done with, on the slowest machine.
const SOON: Duration = Duration::from_secs(30);

fn today() -> Dialect {
    Dialect {
        version: if family::is_ipv6() { 4 } else { 3 },
        order: Order::Little,
    }
}

/// Connects from an address of the script's, by the NID that it always has.
fn dial_from(script: &Node, from: Ipv4Addr, node: &Node) -> Result<Link> {
    let dialect = today();
    let mut conn = Conn::dial(&script.space, from, node.addr)?;
    conn.send(&dialect.request(1, nid(node.addr)))?;
    conn.send(&Hello::new(dialect, script.addr, node.addr, CONTROL).bytes())?;
    Hello::receive(&mut conn)?;
    conn.from = script.addr;
    Ok(Link::greeted(conn, dialect, CONTROL))
}

/// A node with a second address in the subnet connects from that, as nodes of today do: it is believed,
/// unless an administrator wants it otherwise, and so it is not from an address that is elsewhere.
pub fn second_address(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let (second, far) = (Ipv4Addr::new(10, 0, 0, 77), Ipv4Addr::new(10, 7, 0, 2));
    let nodad = if family::is_ipv6() { "nodad" } else { "" };
    script.space.ip(&format!(
        "addr add {second}/24 dev eth0 {nodad}\naddr add {far}/24 dev eth0 {nodad}\n"
    ))?;
    node.space.ip("route add 10.7.0.0/24 dev eth0\n")?;
    let mut first = Link::dial(&script.space, script.addr, node, today(), CONTROL)?;
    first.ping(1)?;
    for (check, from, believed) in [
        (1, second, true),
        (1, far, false),
        (2, second, false),
        (2, far, false),
        (0, far, true),
        (1, second, true),
    ] {
        set("check_nid", check)?;
        let what = || format!("check_nid={check}, from {from}");
        let dialled = dial_from(script, from, node);
        ensure!(
            dialled.is_ok() == believed,
            "{}: {:?}",
            what(),
            dialled.err()
        );
        if let Ok(link) = dialled {
            let count = node.conns_to(script)?.len();
            ensure!(count == 2, "{}: {count} connections", what());
            link.conn.reset()?;
            wait::until(SOON, "one connection", || {
                ensure!(node.conns_to(script)?.len() == 1);
                Ok(())
            })?;
        }
        // It does no harm to the others.
        first.ping(3).with_context(what)?;
    }
    first.conn.reset()?;
    wait::until(SOON, "connection forgotten", || no_conns(node, script))
}
