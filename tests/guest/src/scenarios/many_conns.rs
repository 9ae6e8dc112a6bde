// SPDX-License-Identifier: GPL-2.0

//! Several connections of a type to a peer.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::connect::disconnect;
use crate::debugfs::sections;
use crate::family;
use crate::lab::Lab;
use crate::modern::{self, Dialect, Hello, Link, Order};
use crate::module;
use crate::node::{Bench, Node, Op};
use crate::peer::{self, ANY, BULK_IN, BULK_OUT, CONTROL, Listener, NONE, nid};
use crate::proxy::Proxy;
use crate::wait;

const SOON: Duration = Duration::from_secs(20);
/// A peer that wants fewer is asked three times more, with a second between them: in this time it would be
/// asked once more.
const AGREED: Duration = Duration::from_secs(4);

fn parameter(name: &str) -> String {
    format!("/sys/module/ksocklnd/parameters/{name}")
}

fn set(name: &str, value: impl ToString) -> Result<()> {
    let value = value.to_string();
    fs::write(parameter(name), &value).with_context(|| format!("{name} = {value}"))
}

/// Gives a node its NI, which wants so many connections for bulk, each way.
fn add_wanting(node: &Node, bulk: u32) -> Result<()> {
    set("conns_per_peer", bulk)?;
    node.ni_add()
}

/// How many a node says that it wants.
fn wanted(node: &Node) -> Result<u64> {
    let nis = node.list(&["ni", "list"])?;
    let wanted = nis.first().and_then(|ni| ni["conns_per_peer"].as_u64());
    wanted.with_context(|| format!("not in {nis:?}"))
}

fn count(node: &Node, other: &Node, kind: &str) -> Result<usize> {
    let conns = node.conns_to(other)?;
    Ok(conns.iter().filter(|conn| conn["type"] == kind).count())
}

/// One connection for control and so many for bulk, each way, on both sides.
fn await_conns(one: &Node, two: &Node, bulk: usize) -> Result<()> {
    wait::until(SOON, "as many connections as were agreed upon", || {
        for (node, other) in [(one, two), (two, one)] {
            for (kind, right) in [("control", 1), ("bulk_in", bulk), ("bulk_out", bulk)] {
                let there = count(node, other, kind)?;
                ensure!(there == right, "{}: {there} {kind}", node.nid());
            }
        }
        Ok(())
    })
}

/// No further attempts to connect are made.
fn await_quiet(node: &Node) -> Result<()> {
    let attempts = || {
        let sections = sections(&format!("ni {} ", node.nid()))?;
        sections.first().context("no NI")?.get("connect_attempts")
    };
    let mut last = attempts()?;
    wait::until(AGREED + SOON, "attempts end", || {
        wait::quiet_time(Duration::from_millis(1800));
        let before = std::mem::replace(&mut last, attempts()?);
        ensure!(before == last, "{} attempts more", last - before);
        Ok(())
    })
}

/// Nodes with different `conns_per_peer` agree on the lower number, whichever connects, and open no
/// more. All of the connections are used.
pub fn agreed(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    for (here, there) in [(1, 4), (4, 1), (3, 3), (2, 16), (127, 2)] {
        let what = format!("{here} and {there}");
        add_wanting(one, here)?;
        add_wanting(two, there)?;
        ensure!(
            wanted(one)? == u64::from(here) && wanted(two)? == u64::from(there),
            "{what}"
        );
        one.peer_add(two)?;
        two.peer_add(one)?;
        let bulk = here.min(there) as usize;
        let service = two.serve()?;
        one.ping(two)?;
        await_conns(one, two, bulk).with_context(|| what.clone())?;
        // Who wants more finds out that it can't have them.
        await_quiet(if here > there { one } else { two }).with_context(|| what.clone())?;
        await_conns(one, two, bulk).with_context(|| what.clone())?;
        one.ping(one).context("to itself")?;
        let bench = Bench {
            op: Op::Put,
            size: 1 << 20,
            // What is on its way at the same time takes different ways.
            count: 24,
            in_flight: 16,
            limit: Duration::from_secs(60),
        };
        one.bench(two, &bench)?;
        let mut used = 0;
        for conn in sections(&format!("conn bulk_out {}:", one.addr))? {
            used += usize::from(conn.get("tx_msgs")? > 0);
        }
        ensure!(used >= bulk.min(2), "{what}: {used} connections were used");
        // What was agreed upon is forgotten with the connections, and found out anew.
        if here == 2 {
            disconnect(one, two)?;
            two.ping(one)?;
            await_conns(one, two, bulk).with_context(|| what.clone())?;
        }
        service.interrupt()?;
        service.wait(SOON)?;
        for node in [one, two] {
            node.ni_del()?;
        }
    }
    if family::is_ipv6() {
        return Ok(());
    }
    // Where the version has only one, that is all.
    set("protocol", 2)?;
    for node in [one, two] {
        add_wanting(node, 4)?;
    }
    one.peer_add(two)?;
    one.ping(two)?;
    await_conns(one, two, 1)?;
    await_quiet(one)
}

/// Single connections are closed at random between nodes with different `conns_per_peer`: missing
/// ones are opened again, no more than these, and the counts stay right.
pub fn cut_at_random(lab: &mut Lab) -> Result<()> {
    const ROUNDS: usize = 4;
    let (one, two, between) = (lab.node(0), lab.node(1), lab.node(2));
    set("min_reconnectms", 20)?;
    let mut random: u64 = 0x2545_f491_4f6c_dd1d;
    for (here, there) in [(1, 16), (16, 1), (4, 4)] {
        let what = |round: usize| format!("{here} and {there}, round {round}");
        let proxy = Proxy::new(&between.space, between.addr, one, two)?;
        add_wanting(one, here)?;
        add_wanting(two, there)?;
        for (node, other) in [(one, two), (two, one)] {
            node.socklctl(&["peer", "add", &other.nid(), &between.addr.to_string()])?;
        }
        let bulk = here.min(there) as usize;
        one.ping(two)?;
        await_conns(one, two, bulk)?;
        for round in 0..ROUNDS {
            // One, or some at once, also while others are being made; with messages on their way.
            let asking = (0..4).map(|_| one.start(&["ping", "-W", "1", &two.nid()]));
            let asking = asking.collect::<Result<Vec<_>>>()?;
            for _ in 0..=round % 3 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let _ = proxy.cut((random >> 33) as usize);
            }
            // Some of them may be lost on the way, with their connection.
            for ping in asking {
                ping.wait(SOON)?;
            }
            let ping = || {
                one.ping_within(two, Duration::from_secs(2))?
                    .checked("ping")
            };
            wait::until(SOON, "ping", || ping().map(drop)).with_context(|| what(round))?;
            await_conns(one, two, bulk).with_context(|| what(round))?;
        }
        one.ping(one).context("to itself")?;
        two.ping(two).context("to itself")?;
        await_quiet(one)?;
        await_quiet(two)?;
        await_conns(one, two, bulk)?;
        for node in [one, two] {
            node.ni_del()?;
        }
    }
    Ok(())
}

/// Values of `conns_per_peer` out of range are refused; at insertion the nearest one is taken. 0
/// asks the network device for its speed.
pub fn numbers(lab: &mut Lab) -> Result<()> {
    for wrong in [
        "-1",
        "128",
        "255",
        "256",
        "300",
        "2147483648",
        "-2147483649",
        "x",
        "",
    ] {
        ensure!(
            fs::write(parameter("conns_per_peer"), wrong).is_err() || wrong.is_empty(),
            "'{wrong}' was taken"
        );
        let now = fs::read_to_string(parameter("conns_per_peer"))?;
        ensure!(now.trim() == "1", "'{wrong}' made it {now}");
    }
    module::remove()?;
    for (wrong, nearest) in [(c"conns_per_peer=300", "127"), (c"conns_per_peer=-1", "0")] {
        module::try_insert_with(wrong).with_context(|| format!("{wrong:?}"))?;
        let now = fs::read_to_string(parameter("conns_per_peer"))?;
        ensure!(now.trim() == nearest, "{wrong:?} made it {now}");
        module::remove()?;
    }
    module::try_insert_with(c"conns_per_peer=0 enable_irq_affinity=0")?;
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    // A virtual card says that it is one of 10 Gbit/s.
    ensure!(wanted(one)? == 2, "not by the card's speed");
    one.ping(two)?;
    await_conns(one, two, 2)?;
    for node in [one, two] {
        node.ni_del()?;
        add_wanting(node, 8)?;
    }
    one.peer_add(two)?;
    one.ping(two)?;
    await_conns(one, two, 8)?;
    let mut loads = Vec::new();
    for scheduler in sections("scheduler ")? {
        loads.push(scheduler.get("conns")?);
    }
    // Twice 17 connections, shared out among the processors.
    let (least, most) = (loads.iter().min(), loads.iter().max());
    let (least, most) = (least.context("none")?, most.context("none")?);
    ensure!(
        loads.len() > 1 && loads.iter().sum::<u64>() == 34 && most - least <= 1,
        "connections of schedulers: {loads:?}"
    );
    Ok(())
}

/// A peer that wants more connections than the node, and one that accepts fewer.
pub fn scripted(lab: &mut Lab) -> Result<()> {
    let dialect = Dialect {
        version: family::newest().0,
        order: Order::Little,
    };
    let (node, script) = (lab.node(0), lab.node(1));
    add_wanting(node, 2)?;
    let mut links = Vec::new();
    for conn_type in [CONTROL, BULK_IN, BULK_OUT, BULK_IN, BULK_OUT] {
        links.push(Link::dial(
            &script.space,
            script.addr,
            node,
            dialect,
            conn_type,
        )?);
    }
    for round in 0..20 {
        for conn_type in [BULK_IN, BULK_OUT, CONTROL] {
            let mut conn = peer::Conn::dial(&script.space, script.addr, node.addr)?;
            conn.send(&dialect.request(1, nid(node.addr)))?;
            conn.send(&Hello::new(dialect, script.addr, node.addr, conn_type).bytes())?;
            let hello = Hello::receive(&mut conn)?;
            ensure!(
                hello.conn_type == NONE && hello.dialect == dialect,
                "one too many was taken in round {round}: {hello:x?}"
            );
            conn.await_closed(SOON)?;
        }
    }
    // None of those that are there was harmed.
    for (handle, link) in (1..).zip(&mut links) {
        match link.conn_type {
            CONTROL => link.ping(handle)?,
            _ => link.expect_nothing()?,
        }
    }
    drop(links);
    wait::until(SOON, "connections forgotten", || {
        ensure!(node.conns_to(script)?.is_empty());
        Ok(())
    })?;

    // The other way: it takes one of each, and says no to the rest.
    let listener = Listener::new(&script.space, script.addr)?;
    node.peer_add(script)?;
    let ping = node.start_ping(script)?;
    let mut links = Vec::new();
    for conn_type in [CONTROL, BULK_IN, BULK_OUT] {
        let mut conn = listener.accept_request(SOON)?;
        let hello = Hello::receive(&mut conn)?;
        ensure!(
            hello.conn_type == conn_type,
            "not what comes now: {hello:x?}"
        );
        links.push(Link::accept(conn, &hello, Order::Little)?);
    }
    for refused in 0..3 {
        let conn = listener.accept_request(SOON);
        let mut conn = conn.with_context(|| format!("it asked {refused} times"))?;
        let hello = Hello::receive(&mut conn)?;
        ensure!(hello.conn_type == BULK_IN, "not what comes now: {hello:x?}");
        conn.send(&Hello::new(dialect, script.addr, node.addr, NONE).bytes())?;
        conn.await_closed(SOON)?;
    }
    let more = listener.accept(AGREED);
    ensure!(more.is_err(), "it asks again and again");
    let request = links[0].receive_message()?;
    links[0].send([0, 0], &request.reply(modern::pong(script.addr)))?;
    ping.wait(SOON)?.checked("ping")?;
    ensure!(links.iter().all(|link| link.conn_type != ANY));
    Ok(())
}
