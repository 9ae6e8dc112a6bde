// SPDX-License-Identifier: GPL-2.0

//! Network devices: without a link, two of them, and some that are added and removed.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::connect::disconnect;
use crate::debugfs;
use crate::lab::Lab;
use crate::node::{Bench, Node, Op, errno};
use crate::port::note;
use crate::wait;
use crate::worker::Over;

const LIMIT: Duration = Duration::from_secs(30);

/// Waits until the node says this of the link of its NI.
fn await_link(node: &Node, state: &str) -> Result<()> {
    wait::until(LIMIT, &format!("link {state}"), || {
        let list = node.list(&["ni", "list"])?;
        ensure!(list.len() == 1 && list[0]["state"] == state, "{list:?}");
        Ok(())
    })
}

/// How often the message layer of a node was told that its link has come or gone.
fn told(node: &Node) -> Result<u64> {
    let sections = debugfs::sections(&format!("ni {} ", node.nid()))?;
    sections.first().context("no NI")?.get("link_changes")
}

/// Waits until it was told so often.
fn await_told(node: &Node, times: u64) -> Result<()> {
    wait::until(LIMIT, &format!("{times} changes of a link"), || {
        let told = told(node)?;
        ensure!(told == times, "told {told} times");
        Ok(())
    })
}

/// How many connections the TCP of a node has begun so far.
fn begun(node: &Node) -> Result<u64> {
    let table = node
        .space
        .within(|| Ok(fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    let mut lines = table.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next(), lines.next());
    let at = names.and_then(|names| names.split_whitespace().position(|n| n == "ActiveOpens"));
    let value = values
        .zip(at)
        .and_then(|(v, at)| v.split_whitespace().nth(at));
    Ok(value
        .with_context(|| format!("strange: {table}"))?
        .parse()?)
}

/// A node whose device has no link, or is down, shows that and does not try to connect. When the
/// link is back, everything works as before. A device without link detection counts as up.
pub fn state(lab: &mut Lab) -> Result<()> {
    for (name, value) in [("min_reconnectms", "100"), ("max_reconnectms", "200")] {
        fs::write(format!("/sys/module/ksocklnd/parameters/{name}"), value)?;
    }
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    one.ping(two)?;
    await_link(one, "up")?;
    let (mut changes, others) = (told(one)?, told(two)?);
    ensure!(changes % 2 == 0, "a link that is there was told of as gone");
    for round in ["carrier", "card"] {
        disconnect(one, two)?;
        match round {
            "carrier" => lab.carrier(0, false)?,
            _ => one.space.ip("link set eth0 down\n").map(drop)?,
        }
        await_link(one, "down")?;
        await_told(one, changes + 1)?;
        await_link(two, "up")?;
        let before = begun(one)?;
        let name = errno(&one.try_ping(two, LIMIT)?)?;
        ensure!(name == "ENETDOWN", "without a {round}: {name}");
        let tried = begun(one)? - before;
        ensure!(tried == 0, "{tried} attempts without a {round}");
        // However often it has been looked at meanwhile.
        ensure!(told(one)? == changes + 1, "told again of the same change");
        match round {
            "carrier" => lab.carrier(0, true)?,
            // It comes back with another name.
            _ => one
                .space
                .ip("link set eth0 name lan0\nlink set lan0 up\n")
                .map(drop)?,
        }
        await_link(one, "up")?;
        wait::until(LIMIT, "ping with a link", || one.ping(two).map(drop))
            .with_context(|| round.to_owned())?;
        changes += 2;
        await_told(one, changes)?;
    }
    ensure!(told(two)? == others, "told of a link that did not change");
    // An address that no card has any more, and one of a device that has no idea of carriers.
    one.ni_del()?;
    let lonely = one.in_network(7, Ipv4Addr::new(10, 9, 9, 9));
    let address = format!("{}/32 dev lo\n", lonely.addr);
    lonely.space.ip(&format!("addr add {address}"))?;
    lonely.ni_add()?;
    await_link(&lonely, "up")?;
    lonely.space.ip(&format!("addr del {address}"))?;
    await_link(&lonely, "down")?;
    lonely.ni_del()
}

/// Bytes that a card of a node has sent.
fn sent_by(node: &Node, card: &str) -> Result<u64> {
    let table = node
        .space
        .within(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let mut lines = table.lines().filter_map(|line| line.split_once(':'));
    let line = lines.find(|(name, _)| name.trim() == card);
    let value = line.and_then(|(_, values)| values.split_whitespace().nth(8));
    Ok(value.with_context(|| format!("no {card}"))?.parse()?)
}

/// Two devices on networks of their own, and a node on each of them: messages and answers use the
/// right device and address, and the other device is idle. The same for one node with both
/// addresses.
pub fn two_devices(lab: &mut Lab) -> Result<()> {
    const BENCH: Bench = Bench {
        op: Op::Put,
        size: 50_000,
        count: 40,
        in_flight: 4,
        limit: Duration::from_secs(60),
    };
    const ALL: u64 = (BENCH.size * BENCH.count) as u64;
    lab.connect(2)?;
    lab.second_cards(2, 1)?;
    let second = |node: &Node| {
        let [a, b, _, d] = node.addr.octets();
        node.in_network(1, Ipv4Addr::new(a, b, 1, d))
    };
    let nodes = [lab.node(0).clone(), lab.node(1).clone()];
    let others = [second(&nodes[0]), second(&nodes[1])];
    for other in &others {
        other.ni_add()?;
    }
    let _service = nodes[1].serve()?;
    let check = |from: &Node, to: &Node, bench: &Bench, own: Ipv4Addr, cards: [&str; 2]| {
        let sent = || -> Result<Vec<u64>> {
            let mut sent = Vec::new();
            for node in [from, to] {
                for card in cards {
                    sent.push(sent_by(node, card)?);
                }
            }
            Ok(sent)
        };
        let before = sent()?;
        from.bench(to, bench)?;
        let after = sent()?;
        let delta: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        note(&format!(
            "{} to {}: bytes by card {delta:?}",
            from.nid(),
            to.nid()
        ));
        let [busy, idle, busy_there, idle_there] = delta[..] else {
            return Err(anyhow!("{delta:?}"));
        };
        // Something of the kernel's own may go by the other: neighbours are looked for.
        ensure!(
            busy > ALL && busy_there > 0 && idle < ALL / 100 && idle_there < ALL / 100,
            "bytes by card: {delta:?}"
        );
        for conn in from.conns_to(to)? {
            let local = conn["local"].as_str().unwrap_or_default();
            ensure!(local.starts_with(&format!("{own}:")), "{conn}");
        }
        Ok(())
    };
    check(
        &nodes[0],
        &nodes[1],
        &BENCH,
        nodes[0].addr,
        ["eth0", "eth1"],
    )?;
    check(
        &others[0],
        &others[1],
        &BENCH,
        others[0].addr,
        ["eth1", "eth0"],
    )?;

    // One node with an address on each card, whose peer is on the second one's network.
    for other in &others {
        other.ni_del()?;
    }
    for node in &nodes {
        node.socklctl(&["peer", "del", "any"])?;
    }
    for (node, other) in nodes.iter().zip(&others) {
        node.socklctl(&["interface", "add", &other.addr.to_string()])?;
    }
    let (from, to) = (&nodes[0], &nodes[1]);
    from.socklctl(&["peer", "add", &to.nid(), &others[1].addr.to_string()])?;
    to.socklctl(&["peer", "add", &from.nid(), &others[0].addr.to_string()])?;
    check(from, to, &BENCH, others[0].addr, ["eth1", "eth0"])
}

/// NIs, addresses and links are added and removed at the same time, while others list and send. In
/// the end everything works.
pub fn nis_come_and_go(lab: &mut Lab) -> Result<()> {
    const ROUNDS: usize = 15;
    // How fast a link is, is asked whenever an NI is added: under the kernel's configuration
    // lock, which those hold who change links and addresses.
    fs::write("/sys/module/ksocklnd/parameters/conns_per_peer", "0")?;
    let (one, two) = (lab.node(0).clone(), lab.node(1).clone());
    let own = format!("{}/24 dev eth0\n", one.addr);
    let other = "10.0.1.1";
    // In a row, so that one goes at whatever moment: also while an NI is being added.
    let often = format!("addr add {other}/24 dev eth0\naddr del {other}/24 dev eth0\n").repeat(40);
    two.ni_add()?;
    two.peer_add(&one)?;
    let over = AtomicBool::new(false);
    // Almost anything may fail here, but nothing may hang.
    let repeat = |work: &(dyn Fn() -> Result<()> + Sync)| -> Result<usize> {
        let mut rounds = 0;
        while !over.load(Ordering::Relaxed) {
            work()?;
            rounds += 1;
        }
        Ok(rounds)
    };
    let addresses = || {
        let _ = one.space.ip(&format!("addr del {own}"));
        let _ = one.space.ip(&format!("addr add {own}"));
        let _ = one.space.ip(&often);
        Ok(())
    };
    let cards = || {
        one.space.ip("link set eth0 down\n")?;
        one.space.ip("link set eth0 up\n")?;
        lab.carrier(1, false)?;
        lab.carrier(1, true)
    };
    let lists = || {
        for what in ["ni", "interface", "peer", "conn"] {
            one.attempt(&[what, "list"], LIMIT)?;
        }
        Ok(())
    };
    let pings = || {
        two.try_ping(&one, Duration::from_millis(200))?;
        one.try_ping(&two, Duration::from_millis(200))?;
        Ok(())
    };
    let counts = thread::scope(|scope| -> Result<Vec<usize>> {
        let all_over = Over(&over);
        let works: [&(dyn Fn() -> Result<()> + Sync); 4] = [&addresses, &cards, &lists, &pings];
        let others = works.map(|work| scope.spawn(move || repeat(work)));
        let mut added = 0;
        let mut instances = || -> Result<()> {
            for _ in 0..ROUNDS {
                let output = one.attempt(&["ni", "add", &one.nid()], LIMIT)?;
                added += usize::from(output.status.success());
                one.attempt(&["interface", "add", other], LIMIT)?;
                one.attempt(&["ni", "del", &one.nid()], LIMIT)?;
            }
            Ok(())
        };
        let done = instances();
        drop(all_over);
        let mut counts = vec![added];
        for other in others {
            let rounds = other.join().map_err(|_| anyhow!("the thread panicked"))??;
            counts.push(rounds);
        }
        done.map(|()| counts)
    })?;
    note(&format!(
        "of {ROUNDS} additions, and changes of addresses, of links, lists and pings: {counts:?}"
    ));
    ensure!(counts[0] > 0, "the NI was never there");
    // The address may have been taken away last.
    let _ = one.space.ip(&format!("addr add {own}"));
    one.ni_add()?;
    one.peer_add(&two)?;
    wait::until(LIMIT, "ping both ways", || {
        one.ping(&two)?;
        two.ping(&one).map(drop)
    })
}
