// SPDX-License-Identifier: GPL-2.0

//! Connections: how they are opened and how they end.

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::versions::set;
use crate::debugfs::sections;
use crate::lab::Lab;
use crate::module;
use crate::node::{Node, errno};
use crate::pace;
use crate::peer::{self, Hello, Listener};
use crate::port::note;
use crate::wait;

const ROUNDS: usize = 40;
/// In this time both sides must agree on which connections live.
const SETTLED: Duration = Duration::from_secs(20);
/// Addresses where nobody is.
const DEAD: u64 = 64;
/// Of three connections each.
const RECONNECTS: usize = 3334;
const TYPES: [&str; 3] = ["bulk_in", "bulk_out", "control"];

/// Both nodes connect at the same moment, many times: no ping fails, and one connection of each
/// type remains.
pub fn simultaneous(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    for round in 0..ROUNDS {
        // Sometimes with a long way between them, which makes it likelier that greetings cross.
        if round == ROUNDS / 2 {
            lab.netem(0, "delay 20ms")?;
            lab.netem(1, "delay 20ms")?;
        }
        disconnect(one, two)?;
        let started = Instant::now();
        both_ping(one, two).with_context(|| format!("round {round}"))?;
        wait::until(SETTLED, "one connection of each type", || {
            one_of_each(one, two)
        })
        .with_context(|| format!("round {round}"))?;
        let time = started.elapsed();
        ensure!(
            time < pace::stretched(SETTLED),
            "round {round}: agreed only after {time:?}"
        );
    }
    Ok(())
}

/// Closes all connections of both and waits until each has seen it.
pub fn disconnect(one: &Node, two: &Node) -> Result<()> {
    wait::until(Duration::from_secs(30), "all connections closed", || {
        // One that was being made when the others were closed may come after them.
        one.close_conns()?;
        two.close_conns()?;
        let left = one.conns_to(two)?.len() + two.conns_to(one)?.len();
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
}

pub fn both_ping(one: &Node, two: &Node) -> Result<()> {
    both_ping_within(one, two, SETTLED)
}

/// Each must have an answer in this time.
pub fn both_ping_within(one: &Node, two: &Node, limit: Duration) -> Result<()> {
    let barrier = Barrier::new(2);
    let ping = |from: &Node, to: &Node| -> Result<()> {
        barrier.wait();
        from.ping_within(to, limit)?
            .checked(&format!("ping from {}", from.nid()))?;
        Ok(())
    };
    thread::scope(|scope| {
        let first = scope.spawn(|| ping(one, two));
        let second = ping(two, one);
        first
            .join()
            .map_err(|_| anyhow!("the thread panicked"))?
            .and(second)
    })
}

/// Both sides have the same connections, one of each type.
pub fn one_of_each(one: &Node, two: &Node) -> Result<()> {
    let (here, there) = (one.conns_to(two)?, two.conns_to(one)?);
    for (whose, conns) in [(one, &here), (two, &there)] {
        let mut types: Vec<&str> = conns
            .iter()
            .filter_map(|conn| conn["type"].as_str())
            .collect();
        types.sort_unstable();
        ensure!(types == TYPES, "{} has connections {types:?}", whose.nid());
    }
    for conn in &here {
        let other = there
            .iter()
            .find(|other| other["local"] == conn["peer"] && other["peer"] == conn["local"]);
        let other = other.with_context(|| format!("the other side does not have {conn}"))?;
        let kind = |conn: &serde_json::Value| conn["type"].as_str().unwrap_or_default().to_owned();
        ensure!(
            kind(other) == inverse(&kind(conn)),
            "{conn} is {other} on the other side"
        );
        ensure!(
            conn["active"] != other["active"],
            "both made, or both accepted {conn}"
        );
    }
    Ok(())
}

fn inverse(kind: &str) -> &str {
    match kind {
        "bulk_in" => "bulk_out",
        "bulk_out" => "bulk_in",
        other => other,
    }
}

/// The first messages to a node that was not configured are sent at the same time: none fails, and
/// there is one peer.
pub fn first_messages(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    one.ni_add()?;
    two.ni_add()?;
    for round in 0..10 {
        let pings = (0..6).map(|_| one.start_ping(two));
        for ping in pings.collect::<Result<Vec<_>>>()? {
            ping.wait(Duration::from_secs(20))?
                .checked("ping")
                .with_context(|| format!("round {round}"))?;
        }
        let peers = one.list(&["peer", "list"])?;
        ensure!(peers.len() == 1, "not one peer: {peers:?}");
        // Nobody has added it. An address that is not its own takes nothing away.
        let wrong = ["peer", "del", &two.nid(), "10.9.9.9"];
        let told = errno(&one.attempt(&wrong, Duration::from_secs(20))?)?;
        ensure!(told == "ENOENT", "{told} for a wrong address");
        let left = one.list(&["peer", "list"])?;
        ensure!(left.len() == 1, "the wrong address took the peer away");
        one.ping(two)?;
        for node in [one, two] {
            node.socklctl(&["peer", "del", "any"])?;
        }
        wait::until(Duration::from_secs(10), "nothing left of the peer", || {
            for node in [one, two] {
                let left = node.counter("/live/peers")?;
                ensure!(left == 0, "{} still has {left}", node.nid());
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A node that is restarted has a new incarnation: its old connections are closed and new ones are
/// opened.
pub fn peer_restarts(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    one.ping(two)?;
    two.space.within(|| {
        fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "1").context("tcp_orphan_retries")
    })?;
    for round in 0..2 {
        // The other end does not see the end of the connections: the cable is out until nobody is left
        // to tell.
        lab.cable(1, false)?;
        two.ni_del()?;
        wait::until(Duration::from_secs(60), "TCP gives up", || {
            let left = two.space.within(|| {
                let tables = ["tcp", "tcp6"].map(|name| format!("/proc/thread-self/net/{name}"));
                let mut left = 0;
                for table in tables {
                    left += fs::read_to_string(table)?.lines().skip(1).count();
                }
                Ok(left)
            })?;
            ensure!(left == 0, "{left} sockets are left");
            Ok(())
        })?;
        lab.cable(1, true)?;
        two.ni_add()?;
        two.peer_add(one)?;
        // Whoever begins must succeed: the restarted node, whose answer must not go by a stale
        // connection; or the node that has those, once it has found out.
        if round == 0 {
            two.ping_within(one, Duration::from_secs(30))?
                .checked("ping of the restarted node")?;
        } else {
            wait::until(Duration::from_secs(20), "ping after a restart", || {
                one.ping(two).map(drop)
            })?;
        }
        wait::until(Duration::from_secs(10), "no stale connections", || {
            one_of_each(one, two)
        })
        .with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

/// A node's address is removed while its link is down: the node closes its connections and the
/// other one does not notice. When the address is back, the node can connect again soon.
pub fn half_open(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    // Only a refused connection may end the old ones.
    set("keepalive", 0)?;
    set("keepalive_idle", 0)?;
    one.ni_add()?;
    two.ni_add()?;
    // Without a route the second node opens no connection in the first round, so its later attempts do not come
    // from the port of an old one, whose socket TCP would reset.
    one.peer_add(two)?;
    let address = format!("{}/24 dev eth0\n", two.addr);
    one.ping(two)?;
    for round in 0..3 {
        wait::until(
            Duration::from_secs(10),
            "one connection of each type",
            || one_of_each(one, two),
        )
        .with_context(|| format!("round {round}"))?;
        let opened = one.conns_to(two)?;
        ensure!(
            round > 0 || opened.iter().all(|conn| conn["active"] == true),
            "the other side has opened some: {opened:?}"
        );
        lab.cable(1, false)?;
        two.space.ip(&format!("addr del {address}"))?;
        wait::until(Duration::from_secs(20), "connections closed", || {
            let left = two.conns_to(one)?.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })?;
        ensure!(
            one.conns_to(two)?.len() == TYPES.len(),
            "the other side has noticed"
        );
        two.space.ip(&format!("addr add {address}"))?;
        lab.cable(1, true)?;
        wait::until(Duration::from_secs(20), "ping over new connections", || {
            two.ping(one).map(drop)
        })
        .with_context(|| format!("round {round}"))?;
    }
    wait::until(
        Duration::from_secs(10),
        "one connection of each type",
        || one_of_each(one, two),
    )
}

/// A peer refuses all connections: the interval between attempts grows.
pub fn refusing_peer(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let listener = Listener::new(&script.space, script.addr)?;
    // What waits for a connection is given up after this time, so the end can be seen.
    fs::write("/sys/module/ksocklnd/parameters/sock_timeout", "10")?;
    node.ni_add()?;
    node.peer_add(script)?;
    let started = Instant::now();
    let mut ping = node.start(&["ping", "-W", "8", &script.nid()])?;
    let mut attempts: u64 = 0;
    let mut asking = Vec::new();
    let limit = pace::stretched(Duration::from_secs(20));
    while ping.running()? && started.elapsed() < limit {
        // Whoever asks meanwhile waits with the others.
        if asking.len() < 40 {
            asking.push(node.start(&["ping", "-W", "2", &script.nid()])?);
        }
        attempts += u64::from(refuse(&listener)?);
    }
    let time = started.elapsed().as_secs();
    let name = errno(&ping.wait(Duration::from_secs(20))?)?;
    note(&format!(
        "{attempts} attempts in {:.1} s, then {name}",
        started.elapsed().as_secs_f64()
    ));
    ensure!(attempts > 0, "it never tried");
    // With waits of one second, eight of them have room for few.
    ensure!(attempts <= time + 7, "{attempts} attempts in {time} s");
    // Nothing is tried without something to send. What the last to ask have queued waits a while yet.
    wait::until(Duration::from_secs(40), "nothing queued", || {
        refuse(&listener)?;
        let queued = node.counter("/live/txs")?;
        ensure!(queued == 0, "{queued} messages still wait");
        Ok(())
    })?;
    let idle = listener.accept(Duration::from_secs(5));
    ensure!(
        idle.is_err(),
        "it goes on trying although nothing is to be sent"
    );
    Ok(())
}

/// Refuses the next connection, if one comes soon. Says whether one came.
fn refuse(listener: &Listener) -> Result<bool> {
    let Ok((mut conn, _)) = listener.accept_greeting(Duration::from_millis(100)) else {
        return Ok(false);
    };
    conn.send(&Hello::new(conn.from, conn.to, peer::NONE).bytes())?;
    let _ = conn.await_closed(Duration::from_secs(20))?;
    Ok(true)
}

/// Messages wait for many unreachable peers, more than there are daemons: another peer is connected
/// at once all the same.
pub fn dead_peers(lab: &mut Lab) -> Result<()> {
    // None of them is given up before the end.
    set("sock_timeout", 3600)?;
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let mut neighbours = String::new();
    let mut pings = Vec::new();
    let dead: Vec<_> = (0..DEAD).map(|n| format!("10.0.0.{}", 100 + n)).collect();
    for addr in &dead {
        // Frames to an address that no card has: not even the switch says that nobody is there. The node may
        // have found a neighbour of that address in a scenario before.
        neighbours += &format!("neigh replace {addr} lladdr 02:00:00:00:00:01 dev eth0\n");
    }
    one.space.ip(&neighbours)?;
    for addr in &dead {
        pings.push(one.start(&["ping", "-W", "3600", &format!("{addr}@tcp")])?);
    }
    let under_way = || {
        let count = one.counter("/live/handshakes")?;
        ensure!(count >= DEAD, "only {count}");
        Ok(())
    };
    wait::until(Duration::from_secs(60), "attempts under way", under_way)?;
    let output = one.ping_within(two, Duration::from_secs(20))?;
    let time = output.time;
    output.checked("ping of the living one")?;
    note(&format!(
        "reached in {:.2} s among {DEAD} dead ones",
        time.as_secs_f64()
    ));
    // None of them had to be given up for it.
    under_way()?;
    let limit = pace::stretched(Duration::from_secs(10));
    ensure!(time < limit, "reached only after {time:?}");
    for ping in &mut pings {
        ping.kill();
    }
    Ok(())
}

/// Many nodes connect to each other at the same moment, with one daemon each: a node that was
/// refused because of a race does not try again at once. In the end one of them connects to
/// addresses that do not answer: the others are not refused because of these attempts.
pub fn mutual_connects(lab: &mut Lab) -> Result<()> {
    const NODES: usize = 6;
    const CONNS: u64 = (NODES * (NODES - 1) / 2 * TYPES.len()) as u64;
    module::remove()?;
    module::try_insert_with(c"nconnds=1")?;
    let handshake = pace::scaled(5);
    set("accept_timeout", handshake)?;
    lab.connect(NODES)?;
    for round in 0..3 {
        // Each side tries once; the one that has lost a race tries once more, a second later.
        crowd_pings(lab, CONNS, 4 * CONNS).with_context(|| format!("round {round}"))?;
        wait::until(Duration::from_secs(30), "all closed", || {
            for node in lab.nodes() {
                node.close_conns()?;
            }
            for node in lab.nodes() {
                let left = node.list(&["conn", "list"])?.len();
                ensure!(left == 0, "{left} are left");
            }
            Ok(())
        })?;
    }
    // That with the highest NID, whose attempts go before those of the others.
    let lost = lab.node(NODES - 1);
    lost.socklctl(&["peer", "del", "any"])?;
    for index in 0..NODES - 1 {
        let nowhere = format!("10.0.0.{}", 200 + index);
        let neighbour = format!("{nowhere} lladdr 02:00:00:00:00:01 dev eth0\n");
        lost.space.ip(&format!("neigh replace {neighbour}"))?;
        lost.socklctl(&["peer", "add", &lab.node(index).nid(), &nowhere])?;
    }
    // The others may come in vain for as long as a handshake may take, about twice a second.
    crowd_pings(lab, CONNS, 4 * CONNS + 2 * handshake * NODES as u64)
        .context("one looks for the others where nobody is")
}

/// Each node of a crowd asks each of the others. All must be answered, and so many connections come about,
/// in no more attempts than this.
fn crowd_pings(lab: &Lab, conns: u64, most: u64) -> Result<()> {
    let attempts = || -> Result<u64> {
        let nis = sections("ni ")?;
        nis.iter().map(|ni| ni.get("connect_attempts")).sum()
    };
    let before = attempts()?;
    let mut pings = Vec::new();
    for from in lab.nodes() {
        for to in lab.nodes().filter(|to| to.addr != from.addr) {
            pings.push(from.start_ping(to)?);
        }
    }
    let asked: Vec<_> = pings
        .into_iter()
        .map(|ping| ping.wait(Duration::from_secs(60))?.checked("ping"))
        .collect();
    let tried = attempts()? - before;
    note(&format!("{tried} attempts for {conns} connections"));
    ensure!(tried <= most, "{tried} attempts for {conns} connections");
    asked.into_iter().collect::<Result<Vec<_>>>()?;
    wait::until(Duration::from_secs(60), "all connections", || {
        let mut there = 0;
        for node in lab.nodes() {
            there += node.list(&["conn", "list"])?.len() as u64;
        }
        ensure!(there == 2 * conns, "{there} ends of {conns}");
        Ok(())
    })?;
    let tried = attempts()? - before;
    ensure!(tried <= most, "{tried} attempts for {conns} connections");
    Ok(())
}

/// Ten thousand connections are opened and closed: each of them works.
pub fn reconnects(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    for round in 0..RECONNECTS {
        one.ping(two).with_context(|| format!("round {round}"))?;
        wait::until(
            Duration::from_secs(10),
            "one connection of each type",
            || one_of_each(one, two),
        )
        .with_context(|| format!("round {round}"))?;
        // Who accepted closes, so that the ports of who connected are free again at once.
        two.close_conns()?;
        wait::until(Duration::from_secs(10), "all connections closed", || {
            let left = one.conns_to(two)?.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
        .with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

/// A peer accepts connections and sends nothing: messages to it fail in time, and it can be deleted
/// at once.
pub fn silent_listener(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let listener = Listener::new(&script.space, script.addr)?;
    node.ni_add()?;
    node.peer_add(script)?;
    let ping = node.start(&["ping", "-W", "3", &script.nid()])?;
    let mut conn = listener.accept(Duration::from_secs(20))?;
    let output = ping.wait(Duration::from_secs(10))?;
    ensure!(
        errno(&output)? == "ETIMEDOUT",
        "wrong error: {}",
        output.stderr
    );

    let mut second = node.start_ping(script)?;
    wait::until(Duration::from_secs(10), "ping under way", || {
        let queued = node.counter("/live/txs")?;
        ensure!(queued > 0, "nothing waits");
        Ok(())
    })?;
    let started = Instant::now();
    node.socklctl(&["peer", "del", &script.nid()])?;
    ensure!(
        started.elapsed() < pace::stretched(Duration::from_secs(20)),
        "forgetting took {:?}",
        started.elapsed()
    );
    // The ping need not end with the peer's removal, but what it had queued and the connection must.
    wait::until(Duration::from_secs(20), "nothing queued", || {
        let queued = node.counter("/live/txs")?;
        ensure!(queued == 0, "{queued} messages still wait");
        Ok(())
    })?;
    let _ = conn
        .await_closed(Duration::from_secs(20))
        .context("the connection of a peer that was forgotten")?;
    if second.running()? {
        second.interrupt()?;
    }
    if second.wait(Duration::from_secs(10))?.status.success() {
        bail!("a ping that nobody answered succeeded");
    }
    Ok(())
}
