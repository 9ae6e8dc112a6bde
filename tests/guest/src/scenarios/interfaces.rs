// SPDX-License-Identifier: GPL-2.0

//! Nodes with several addresses.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::connect::one_of_each;
use crate::lab::Lab;
use crate::node::{Node, errno};
use crate::wait;

const LIMIT: Duration = Duration::from_secs(10);

/// A second address of a node.
fn second(node: &Node) -> Ipv4Addr {
    let [a, b, _, d] = node.addr.octets();
    Ipv4Addr::new(a, b, 1, d)
}

fn expect(node: &Node, arguments: &[&str], name: &str) -> Result<()> {
    let told = errno(&node.attempt(arguments, LIMIT)?)?;
    ensure!(
        told == name,
        "{}: {told} instead of {name}",
        arguments.join(" ")
    );
    Ok(())
}

/// The addresses that the node's interfaces have, with their prefixes.
fn addresses(node: &Node) -> Result<Vec<String>> {
    let list = node.list(&["interface", "list"])?;
    Ok(list
        .iter()
        .filter_map(|entry| entry["address"].as_str().map(str::to_owned))
        .collect())
}

/// Connections of a node from this address of its own.
fn conns_from(node: &Node, addr: Ipv4Addr) -> Result<usize> {
    let from = |conn: &&Value| {
        conn["local"]
            .as_str()
            .is_some_and(|local| local.starts_with(&format!("{addr}:")))
    };
    Ok(node.list(&["conn", "list"])?.iter().filter(from).count())
}

/// Interfaces are added, listed and taken away, and what can't be done is refused by its name.
pub fn administration(lab: &mut Lab) -> Result<()> {
    let node = lab.node(0);
    let other = second(node).to_string();
    node.space.ip(&format!("addr add {other}/28 dev eth0\n"))?;
    node.ni_add()?;
    let own = format!("{}/24", node.addr);
    ensure!(addresses(node)? == [own.as_str()], "not just the NID's own");
    node.socklctl(&["interface", "add", &other])?;
    // The prefix is the kernel's, unless one is said.
    ensure!(
        addresses(node)? == [own.as_str(), &format!("{other}/28")],
        "wrong list: {:?}",
        addresses(node)?
    );
    expect(node, &["interface", "add", &other], "EEXIST")?;
    expect(node, &["interface", "add", "10.77.0.1"], "EADDRNOTAVAIL")?;
    expect(node, &["interface", "del", "10.77.0.1"], "ENOENT")?;
    expect(node, &["interface", "del", &node.addr.to_string()], "EBUSY")?;
    // As many as a HELLO can name, and not one more.
    for last in 1..=15 {
        node.space
            .ip(&format!("addr add 10.0.2.{last}/32 dev eth0\n"))?;
        let arguments = ["interface", "add", &format!("10.0.2.{last}")];
        if last < 15 {
            node.socklctl(&arguments)?;
        } else {
            expect(node, &arguments, "ENOSPC")?;
        }
    }
    node.socklctl(&["interface", "del", &other])?;
    node.socklctl(&["interface", "add", &format!("{other}/16")])?;
    ensure!(
        addresses(node)?.contains(&format!("{other}/16")),
        "the prefix that was said does not count"
    );
    // What all of them listen on is free again afterwards.
    node.ni_del()?;
    node.ni_add()?;
    ensure!(addresses(node)? == [own.as_str()], "one has survived");
    Ok(())
}

/// Two nodes with two addresses each: the active one learns the other's second address and uses it,
/// until either side takes its second interface away, or the kernel does.
pub fn learned_routes(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    // Nodes of today name no addresses.
    fs::write("/sys/module/ksocklnd/parameters/protocol", "1")?;
    for node in [one, two] {
        node.space
            .ip(&format!("addr add {}/24 dev eth0\n", second(node)))?;
        node.ni_add()?;
        node.socklctl(&["interface", "add", &second(node).to_string()])?;
    }
    one.peer_add(two)?;
    // The other side believes the NID only from addresses that it was told.
    two.socklctl(&["peer", "add", &one.nid(), &one.addr.to_string()])?;
    two.socklctl(&["peer", "add", &one.nid(), &second(one).to_string()])?;

    // By default nobody connects to where a peer says.
    one.ping(two)?;
    wait::until(LIMIT, "one connection of each type", || {
        one_of_each(one, two)
    })?;
    one.ping(two)?;
    ensure!(
        conns_from(one, second(one))? == 0,
        "a stranger was believed"
    );
    let peers = one.list(&["peer", "list"])?;
    let routes = peers.iter().filter_map(|peer| peer["routes"].as_array());
    let routes: usize = routes.map(Vec::len).sum();
    ensure!(
        routes == 1,
        "routes came from nowhere: {}",
        Value::from(peers)
    );

    fs::write("/sys/module/ksocklnd/parameters/learn_routes", "1")?;
    for round in 0..3 {
        one.close_conns()?;
        two_paths(one, two).with_context(|| format!("round {round}"))?;
        // Each route connects from an interface of its own, and each interface of the other side was
        // told to this peer.
        let used = (uses(one, "routes")?, uses(two, "peers")?);
        ensure!(used == (vec![1, 1], vec![1, 1]), "uses: {used:?}");
        match round {
            0 => two
                .socklctl(&["interface", "del", &second(two).to_string()])
                .map(drop)?,
            1 => one
                .socklctl(&["interface", "del", &second(one).to_string()])
                .map(drop)?,
            _ => {
                let gone = format!("addr del {}/24 dev eth0\n", second(one));
                one.space.ip(&gone)?;
            }
        }
        wait::until(LIMIT, "one path left", || {
            for node in [one, two] {
                let left = conns_from(node, second(node))?;
                // Nothing can be said any more from an address that is gone, not even the end.
                let unheard = round == 2 && node.nid() == two.nid();
                ensure!(
                    left == 0 || unheard,
                    "{} still has {left} connections",
                    node.nid()
                );
            }
            Ok(())
        })
        .with_context(|| format!("round {round}"))?;
        if round == 2 {
            // Until it hears of it, the answer might take the way that is gone.
            two.close_conns()?;
        }
        one.ping(two)?;
        match round {
            0 => two
                .socklctl(&["interface", "add", &second(two).to_string()])
                .map(drop)?,
            1 => one
                .socklctl(&["interface", "add", &second(one).to_string()])
                .map(drop)?,
            _ => ensure!(
                addresses(one)? == [format!("{}/24", one.addr)],
                "an interface without its address is still there"
            ),
        }
    }
    // With the peers go their uses.
    for (node, what) in [(one, "routes"), (two, "peers")] {
        node.socklctl(&["peer", "del", "any"])?;
        wait::until(LIMIT, "interfaces without users", || {
            let left = uses(node, what)?;
            ensure!(left.iter().all(|count| *count == 0), "{what}: {left:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// How many peers, or routes, use each of a node's interfaces.
fn uses(node: &Node, what: &str) -> Result<Vec<u64>> {
    let list = node.list(&["interface", "list"])?;
    let count = |entry: &Value| entry[what].as_u64().with_context(|| format!("{entry}"));
    list.iter().map(count).collect()
}

/// Waits until there are connections of all types on both paths, which takes messages to send.
fn two_paths(one: &Node, two: &Node) -> Result<()> {
    wait::until(Duration::from_secs(30), "connections on both paths", || {
        one.ping(two)?;
        for node in [one, two] {
            let count = conns_from(node, second(node))?;
            ensure!(count == 3, "{} has {count} on the second", node.nid());
        }
        Ok(())
    })
}
