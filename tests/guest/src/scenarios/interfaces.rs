// SPDX-License-Identifier: GPL-2.0

//! Nodes with several addresses.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::connect::one_of_each;
use crate::family;
use crate::lab::Lab;
use crate::modern::{self, Dialect, Order, dialects};
use crate::node::{Node, errno};
use crate::peer::{ACCEPTOR_MAGIC, CONTROL, Conn, Hello, Listener, nid, request};
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

/// Waits until this is said of the node's interfaces.
fn await_states(node: &Node, states: &[&str]) -> Result<()> {
    wait::until(LIMIT, &format!("interfaces {states:?}"), || {
        let list = node.list(&["interface", "list"])?;
        let told: Vec<_> = list.iter().map(|entry| &entry["state"]).collect();
        ensure!(told == states, "{told:?}");
        Ok(())
    })
}

/// Waits until the node's interfaces have these addresses and prefixes.
fn await_addresses(node: &Node, expected: &[&str]) -> Result<()> {
    wait::until(LIMIT, &format!("addresses {expected:?}"), || {
        let told = addresses(node)?;
        ensure!(told == expected, "{told:?}");
        Ok(())
    })
}

/// The addresses beside that of the NID that an export has.
fn exported(node: &Node) -> Result<Value> {
    Ok(node.socklctl(&["export"])?["ni"][0]["addresses"].clone())
}

/// Both ends of a node's connections.
fn ends(node: &Node) -> Result<Vec<(String, String)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conns = node.list(&["conn", "list"])?;
    let ends = conns.iter().map(|c| (text(&c["local"]), text(&c["peer"])));
    let mut ends: Vec<_> = ends.collect();
    ends.sort();
    Ok(ends)
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

/// Interfaces are added, listed and deleted. Wrong requests are refused, each with its own error.
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
/// until either side deletes its second interface, or the kernel its address.
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
            _ => await_states(one, &["up", "waiting"])?,
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

/// An address's event is not its state: an address that the node has twice and loses once is still
/// there, and its connections stay. If it is gone, its interface stays configured, and is used
/// again when the address is back, also with another prefix.
pub fn addresses_come_and_go(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    one.ping(two)?;
    wait::until(LIMIT, "one connection of each type", || {
        one_of_each(one, two)
    })?;
    let own = one.addr;
    let before = ends(one)?;
    if family::is_ipv6() {
        // No device has an address twice, but two may have the same.
        one.space.ip(&format!(
            "addr add {own}/32 dev lo\naddr del {own}/32 dev lo\n"
        ))?;
    } else {
        one.space.ip(&format!(
            "addr add {own}/16 dev eth0\naddr del {own}/24 dev eth0\n"
        ))?;
        await_addresses(one, &[&format!("{own}/16")])?;
        one.space.ip(&format!(
            "addr add {own}/24 dev eth0\naddr del {own}/16 dev eth0\n"
        ))?;
    }

    // Two more, one of them with a prefix that was said.
    let (other, third) = (second(one), Ipv4Addr::new(10, 0, 2, 1));
    let add = family::addr_add;
    let del = |addr: Ipv4Addr, len: u8| format!("addr del {addr}/{len} dev eth0\n");
    one.space.ip(&(add(other, 24) + &add(third, 24)))?;
    one.socklctl(&["interface", "add", &other.to_string()])?;
    one.socklctl(&["interface", "add", &format!("{third}/28")])?;
    let configured = json!([other.to_string(), format!("{third}/28")]);
    let listed = |other_len: u8| {
        [
            format!("{own}/24"),
            format!("{other}/{other_len}"),
            format!("{third}/28"),
        ]
    };
    let expect = |other_len: u8| {
        let listed = listed(other_len);
        await_addresses(one, &listed.each_ref().map(String::as_str))
    };
    expect(24)?;
    ensure!(exported(one)? == configured, "{}", exported(one)?);
    // Gone and back before anybody could look, and with another prefix.
    one.space.ip(&(del(other, 24) + &add(other, 25)))?;
    expect(25)?;
    await_states(one, &["up"; 3])?;

    // Gone for longer.
    one.space.ip(&(del(other, 25) + &del(third, 24)))?;
    await_states(one, &["up", "waiting", "waiting"])?;
    ensure!(exported(one)? == configured, "{}", exported(one)?);
    expect(25)?;
    one.space.ip(&(add(other, 24) + &add(third, 24)))?;
    await_states(one, &["up"; 3])?;
    expect(24)?;
    ensure!(exported(one)? == configured, "{}", exported(one)?);
    for addr in [other, third] {
        // Somebody else than the peer, in the same subnet.
        let script = Ipv4Addr::from(u32::from(addr) + 100);
        two.space.ip(&add(script, 24))?;
        let mut conn = Conn::dial(&two.space, script, addr)?;
        conn.send(&request(ACCEPTOR_MAGIC, 1, nid(own)))?;
        conn.send(&Hello::new(script, addr, CONTROL).to(own).bytes())?;
        let answer = conn.receive_hello().with_context(|| addr.to_string())?;
        ensure!(answer.src == nid(own), "{answer:x?}");
        conn.reset()?;
    }
    // All this time the others were there.
    let after = ends(one)?;
    ensure!(
        before.iter().all(|conn| after.contains(conn)),
        "{before:?} became {after:?}"
    );
    one.ping(two)?;

    // With the address of the NID its connections end; then all is as before.
    one.space.ip(&del(own, 24))?;
    await_states(one, &["waiting", "up", "up"])?;
    wait::until(LIMIT, "connections closed", || {
        let left = ends(one)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    one.space.ip(&add(own, 24))?;
    await_states(one, &["up"; 3])?;
    // The other side has not heard of the end.
    two.close_conns()?;
    wait::until(LIMIT, "ping both ways", || {
        one.ping(two)?;
        two.ping(one).map(drop)
    })
}

/// When an address is deleted, by an administrator or by the kernel, all handshakes that use it
/// end. An attempt of the node's own is made again from another address.
pub fn address_lost_in_handshake(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    // Nobody is given up meanwhile.
    fs::write("/sys/module/ksocklnd/parameters/accept_timeout", "60")?;
    let (ours, theirs) = (second(node), second(script));
    let line = family::addr_add(ours, 24);
    node.space.ip(&line)?;
    script.space.ip(&family::addr_add(theirs, 24))?;
    node.ni_add()?;
    let add = || {
        node.socklctl(&["interface", "add", &ours.to_string()])
            .map(drop)
    };
    add()?;
    let under_way = |count: u64| {
        wait::until(LIMIT, &format!("{count} handshakes"), || {
            let now = node.counter("/live/handshakes")?;
            ensure!(now == count, "{now}");
            Ok(())
        })
    };
    let begin = || -> Result<Conn> {
        let mut conn = Conn::dial(&script.space, theirs, ours)?;
        conn.send(&request(ACCEPTOR_MAGIC, 1, nid(node.addr)))?;
        under_way(1)?;
        Ok(conn)
    };
    let conns = || -> Result<usize> { Ok(node.list(&["conn", "list"])?.len()) };

    // Begun by the other side.
    let mut conn = begin()?;
    node.socklctl(&["interface", "del", &ours.to_string()])?;
    conn.await_closed(LIMIT)
        .context("deleted by an administrator")?;
    under_way(0)?;
    add()?;
    let mut conn = begin()?;
    node.space.ip(&format!("addr del {ours}/24 dev eth0\n"))?;
    await_states(node, &["up", "waiting"])?;
    under_way(0).context("taken away by the kernel")?;
    node.space.ip(&line)?;
    await_states(node, &["up", "up"])?;
    // Until now nothing could be said from that address.
    let _ = conn.send(&Hello::new(theirs, ours, CONTROL).to(node.addr).bytes());
    conn.await_closed(LIMIT).context("back again")?;
    ensure!(conns()? == 0, "admitted on an address that was gone");

    // Begun by the node: it comes again at once, from the address that is left.
    let listener = Listener::new(&script.space, theirs)?;
    let peer = format!("{theirs}@tcp");
    node.socklctl(&["peer", "add", &peer])?;
    let ping = node.start(&["ping", "-W", "30", &peer])?;
    let mut first = listener.accept(LIMIT)?;
    ensure!(first.to == ours, "from {}", first.to);
    node.socklctl(&["interface", "del", &ours.to_string()])?;
    let again = listener.accept(LIMIT)?;
    ensure!(again.to == node.addr, "again from {}", again.to);
    // What it said before is still there to be read.
    first.await_closed(LIMIT)?;
    drop((again, listener, ping));
    node.socklctl(&["peer", "del", &peer])?;
    under_way(0)
}

/// Two networks on one address: there is one listener. A connection is for the NI that its acceptor
/// request names; without a request, the one that its HELLO names; in a version without a
/// destination in the HELLO, the one in the network of the sender.
pub fn two_networks(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let nodes = [node.clone(), node.in_network(1, node.addr)];
    let others = [script.clone(), script.in_network(1, script.addr)];
    for node in nodes.iter().chain(&others) {
        node.ni_add()?;
    }
    for (node, other) in nodes.iter().zip(&others) {
        for _ in 0..2 {
            node.ping(other)?;
            other.ping(node)?;
        }
        wait::until(LIMIT, "one connection of each type", || {
            one_of_each(node, other)
        })?;
        expect(node, &["ni", "add", &node.nid()], "EEXIST")?;
    }
    // One ends, the other goes on; its listener, too.
    let before = nodes[1].conns_to(&others[1])?.len();
    nodes[0].ni_del()?;
    ensure!(nodes[1].conns_to(&others[1])?.len() == before, "closed");
    others[1].close_conns()?;
    wait::until(LIMIT, "all of them closed", || {
        ensure!(nodes[1].conns_to(&others[1])?.is_empty());
        Ok(())
    })?;
    others[1].ping(&nodes[1])?;
    for other in &others {
        other.ni_del()?;
    }
    nodes[0].ni_add()?;

    // By the request, with or without a word in the greeting.
    let (own, theirs) = (nid(node.addr), nid(script.addr));
    let talk = |request: Option<Vec<u8>>, hello: Vec<u8>| -> Result<Conn> {
        let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
        if let Some(request) = request {
            // What comes with it is for whoever reads on.
            conn.send(&[request, hello].concat())?;
        } else {
            conn.send(&hello)?;
        }
        Ok(conn)
    };
    let in_network = |nid: u64, network: u64| nid | network << 32;
    for network in [1, 0] {
        let (to, from) = (in_network(own, network), in_network(theirs, network));
        let plain = Hello {
            src: from,
            dest: to,
            ..Hello::new(script.addr, node.addr, CONTROL)
        };
        let asked = Some(request(ACCEPTOR_MAGIC, 1, to));
        let mut said: Vec<(Option<Vec<u8>>, Option<Dialect>)> = vec![(asked, None), (None, None)];
        for dialect in dialects() {
            said.push((Some(dialect.request(1, to)), Some(dialect)));
            said.push((None, Some(dialect)));
        }
        for (asked, dialect) in said {
            let what = format!("network {network}, {dialect:?}, asked {}", asked.is_some());
            let hello = match dialect {
                None => plain.bytes(),
                Some(dialect) => modern::Hello {
                    src: from,
                    dest: to,
                    ..modern::Hello::new(dialect, script.addr, node.addr, CONTROL)
                }
                .bytes(),
            };
            let mut conn = talk(asked, hello)?;
            let answer = match dialect {
                None => conn.receive_hello().with_context(|| what.clone())?.src,
                Some(_) => {
                    let hello = modern::Hello::read(&mut conn).with_context(|| what.clone())?;
                    hello.src
                }
            };
            ensure!(answer == to, "{what}: {answer:x}");
            conn.reset()?;
            // Its place is free again for the next.
            wait::until(LIMIT, "connection gone", || {
                let left = node.list(&["conn", "list"])?;
                ensure!(left.is_empty(), "{left:?}");
                Ok(())
            })?;
        }
    }

    // For nobody, and for two at once.
    let today = Dialect {
        version: family::newest().0,
        order: Order::Little,
    };
    let stranger = in_network(own, 2);
    let hello = |dest: u64, src: u64| {
        modern::Hello {
            src,
            dest,
            ..modern::Hello::new(today, script.addr, node.addr, CONTROL)
        }
        .bytes()
    };
    let other = (in_network(own, 1), in_network(theirs, 1));
    let before = node.list(&["peer", "list"])?.len();
    for (asked, hello) in [
        (Some(stranger), hello(stranger, in_network(theirs, 2))),
        (None, hello(stranger, in_network(theirs, 2))),
        (Some(other.0), hello(own, theirs)),
        (Some(own), hello(other.0, other.1)),
        (Some(other.0), hello(other.0, theirs)),
        (None, hello(other.0, theirs)),
    ] {
        let asked = asked.map(|to| today.request(1, to));
        let mut conn = talk(asked, hello)?;
        let (got, _) = conn.await_closed(LIMIT)?;
        ensure!(got.is_empty(), "answered with {got:02x?}");
    }
    let peers = node.list(&["peer", "list"])?.len();
    // One of before may have been forgotten.
    ensure!(peers <= before, "{peers} peers instead of {before}");

    // With the last of them the listener goes.
    for node in &nodes {
        node.ni_del()?;
    }
    drop(Listener::new(&node.space, node.addr)?);
    nodes[1].ni_add()
}

/// How many sockets of a node listen.
fn listening(node: &Node) -> Result<usize> {
    let sockets = node.tcp_sockets()?;
    let listens = |line: &&String| line.split_whitespace().nth(3) == Some("0A");
    Ok(sockets.iter().filter(listens).count())
}

/// The sockets that a node listens on are destroyed (`ss --kill`): it listens again as soon as
/// possible.
pub fn destroyed_listeners(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let other = second(one);
    let add = family::addr_add(other, 24);
    let del = format!("addr del {other}/24 dev eth0\n");
    one.space.ip(&add)?;
    one.socklctl(&["interface", "add", &other.to_string()])?;
    let neighbour = second(two);
    two.space.ip(&family::addr_add(neighbour, 24))?;
    let destroy = || {
        let kill = ["--kill", "--tcp", "state", "listening"];
        one.space.tool("ss", &kill, "")
    };
    let await_listening = |wanted: usize| {
        wait::until(LIMIT, &format!("{wanted} listeners"), || {
            let count = listening(one)?;
            ensure!(count == wanted, "{count} listen");
            Ok(())
        })
    };
    let reachable = || -> Result<()> {
        for (from, to) in [(two.addr, one.addr), (neighbour, other)] {
            let mut conn = Conn::dial(&two.space, from, to).with_context(|| to.to_string())?;
            conn.send(&request(ACCEPTOR_MAGIC, 1, nid(one.addr)))?;
            conn.send(&Hello::new(from, to, CONTROL).to(one.addr).bytes())?;
            conn.receive_hello().with_context(|| to.to_string())?;
            conn.reset()?;
        }
        Ok(())
    };
    await_listening(2)?;
    for _ in 0..2 {
        destroy()?;
        await_listening(2)?;
        reachable()?;
    }
    // One of them can't while its address is gone.
    one.space.ip(&del)?;
    await_states(one, &["up", "waiting"])?;
    destroy()?;
    await_listening(1)?;
    one.space.ip(&add)?;
    await_listening(2)?;
    await_states(one, &["up", "up"])?;
    reachable()?;
    one.close_conns()?;
    two.ping(one).map(drop)
}

/// Two routes of a peer connect from two addresses of the node where both addresses are possible,
/// also if neither route has a connection yet.
pub fn own_addresses(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let neighbour = |node: &Node| Ipv4Addr::from(u32::from(node.addr) + 100);
    for node in [node, script] {
        let addr = neighbour(node);
        node.space.ip(&family::addr_add(addr, 24))?;
    }
    node.ni_add()?;
    node.socklctl(&["interface", "add", &neighbour(node).to_string()])?;
    let mut sources = Vec::new();
    let mut open = Vec::new();
    for addr in [script.addr, neighbour(script)] {
        node.socklctl(&["peer", "add", &script.nid(), &addr.to_string()])?;
    }
    for addr in [script.addr, neighbour(script)] {
        let listener = Listener::new(&script.space, addr)?;
        // The first is under way when the second message calls for another.
        let mut ping = node.start_ping(script)?;
        let conn = listener.accept(LIMIT).with_context(|| addr.to_string())?;
        sources.push(conn.to);
        open.push((listener, conn));
        ping.kill();
    }
    ensure!(sources == [node.addr, neighbour(node)], "{sources:?}");
    Ok(())
}
