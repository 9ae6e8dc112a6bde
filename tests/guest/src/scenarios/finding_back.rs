// SPDX-License-Identifier: GPL-2.0

//! How a node reconnects to a peer whose connections have ended, and what becomes of messages that were under
//! way.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::net::{bind, listen};
use serde_json::Value;

use super::attempts::introduce;
use super::connect::disconnect;
use super::versions::{no_conns, set};
use crate::debugfs::{hook, sections};
use crate::family;
use crate::lab::Lab;
use crate::modern::{Dialect, Hello, Link, Order, pong};
use crate::node::{Node, errno};
use crate::peer::{self, BULK_IN, BULK_OUT, CONTROL, Conn, Listener, NONE, nid, tcp_socket};
use crate::port::note;
use crate::wait;

/// A bound for what happens at once.
const SOON: Duration = Duration::from_secs(30);
/// Longer than any bound of a scenario.
const LONG_MS: u64 = 600_000;

fn today() -> Dialect {
    Dialect {
        version: family::newest().0,
        order: Order::Little,
    }
}

/// The connections that a peer of today makes: control, bulk in, bulk out, as the script calls them.
fn three(node: &Node, script: &Node) -> Result<[Link; 3]> {
    let dial = |kind| Link::dial(&script.space, script.addr, node, today(), kind);
    Ok([dial(CONTROL)?, dial(BULK_IN)?, dial(BULK_OUT)?])
}

fn forget(node: &Node, script: &Node) -> Result<()> {
    node.socklctl(&["peer", "del", "any"])?;
    wait::until(SOON, "connections forgotten", || no_conns(node, script))
}

type End = fn(Conn) -> Result<()>;

/// A peer closes a connection as soon as it has accepted it: the attempt fails at once, and so do
/// the messages that wait for it.
pub fn closed_after_accept(lab: &mut Lab) -> Result<()> {
    set("sock_timeout", LONG_MS / 1000)?;
    let (node, script) = (lab.node(0), lab.node(1));
    let listener = Listener::new(&script.space, script.addr)?;
    node.ni_add()?;
    let ends: [(&str, End); 2] = [
        ("end of stream", |conn| {
            drop(conn);
            Ok(())
        }),
        ("reset", Conn::reset),
    ];
    for (what, end) in ends {
        node.peer_add(script)?;
        let held = hook("hold_connect", 1)?;
        let ping = node.start_ping(script)?;
        end(listener.accept(SOON)?)?;
        wait::until(SOON, "the end at the node", || {
            let sockets = node.tcp_sockets()?;
            let state = |line: &String| line.split_whitespace().nth(3).map(str::to_owned);
            let states: Vec<_> = sockets.iter().filter_map(state).collect();
            // It listens, and has one that the other end has closed, if that is not gone.
            ensure!(states.iter().all(|s| s == "0A" || s == "08"), "{states:?}");
            Ok(())
        })?;
        drop(held);
        let name = errno(&ping.wait(SOON)?).context(what)?;
        ensure!(name == "ECONNRESET", "{what}: the ping failed with {name}");
        let left = node.counter("/live/handshakes")?;
        ensure!(left == 0, "{what}: the attempt still waits");
        node.socklctl(&["peer", "del", "any"])?;
    }
    Ok(())
}

type Reason = fn(&Node, &Node) -> Result<Option<Link>>;

/// A node that has connected sends its acceptor request, also if the connection is no longer needed
/// by then: a connection without data looks like a port scan.
pub fn unneeded_attempts(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let listener = Listener::new(&script.space, script.addr)?;
    let reasons: [(&str, Reason); 4] = [
        ("a connection of the peer's own", |node, script| {
            let own = Link::dial(&script.space, script.addr, node, today(), CONTROL);
            own.map(Some)
        }),
        ("the address was taken away", |node, script| {
            node.socklctl(&["peer", "del", &script.nid(), &script.addr.to_string()])?;
            Ok(None)
        }),
        ("the peer was deleted", |node, _| {
            node.socklctl(&["peer", "del", "any"])?;
            Ok(None)
        }),
        ("the NI was deleted", |node, _| {
            node.ni_del()?;
            Ok(None)
        }),
    ];
    for (what, reason) in reasons {
        // Otherwise it has been there since the last one.
        node.attempt(&["ni", "add", &node.nid()], SOON)?;
        node.peer_add(script)?;
        let held = hook("hold_connect", 1)?;
        let mut ping = node.start_ping(script)?;
        let mut conn = listener.accept(SOON)?;
        let own = reason(node, script)?;
        drop(held);
        let wanted = peer::request(peer::ACCEPTOR_MAGIC, 1, nid(script.addr));
        let asked = conn.receive(wanted.len());
        let asked = asked.with_context(|| format!("{what}: nothing was said"))?;
        ensure!(asked == wanted, "{what}: {asked:02x?}");
        let hello = Hello::receive(&mut conn).with_context(|| format!("{what}: no greeting"))?;
        ensure!(
            hello.conn_type == CONTROL && hello.dest == nid(script.addr),
            "{what}: {hello:x?}"
        );
        ping.kill();
        // Fails without an NI.
        node.attempt(&["peer", "del", "any"], SOON)?;
        drop(own);
    }
    Ok(())
}

type Loss = fn(&Node, &Node, Vec<Link>) -> Result<Vec<Link>>;

/// An operation that waits for an answer fails as soon as the connection of its request has ended,
/// for whatever reason.
pub fn lost_answers(lab: &mut Lab) -> Result<()> {
    const OTHER: &str = "10.0.0.9";
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    // What happens, how the ping ends, and how many connections stay.
    let losses: [(&str, Loss, &str, usize); 6] = [
        (
            "end of stream",
            |_, _, links| {
                links.iter().try_for_each(|link| link.conn.finish())?;
                Ok(links)
            },
            "ECONNRESET",
            0,
        ),
        (
            "reset of one",
            |_, _, mut links| {
                links.remove(0).conn.reset()?;
                Ok(links)
            },
            "ECONNRESET",
            2,
        ),
        (
            "restart",
            |node, script, mut links| {
                let mut hello = Hello::new(today(), script.addr, node.addr, CONTROL);
                hello.incarnation += 1;
                links.push(Link::greeted(
                    greet(node, script, &hello)?,
                    today(),
                    CONTROL,
                ));
                Ok(links)
            },
            "ECONNRESET",
            1,
        ),
        (
            "close",
            |node, _, links| {
                node.close_conns()?;
                Ok(links)
            },
            "ESHUTDOWN",
            0,
        ),
        (
            "deletion",
            |node, script, links| {
                node.socklctl(&["peer", "del", &script.nid()])?;
                Ok(links)
            },
            "ESHUTDOWN",
            0,
        ),
        (
            "deletion of one address",
            |node, script, links| {
                node.socklctl(&["peer", "del", &script.nid(), &script.addr.to_string()])?;
                let peers = node.list(&["peer", "list"])?;
                ensure!(peers.len() == 1, "{peers:?}");
                Ok(links)
            },
            "ESHUTDOWN",
            0,
        ),
    ];
    for (what, lose, told, left) in losses {
        let lost = || -> Result<()> {
            node.peer_add(script)?;
            node.socklctl(&["peer", "add", &script.nid(), OTHER])?;
            let mut links = Vec::from(three(node, script)?);
            let ping = node.start(&["ping", "-W", "300", &script.nid()])?;
            links[0].receive_message()?;
            wait::until(SOON, "all sent", || {
                ensure!(node.counter("/live/txs")? == 0);
                Ok(())
            })?;
            let kept = lose(node, script, links)?;
            let output = ping.wait(SOON)?;
            let name = errno(&output)?;
            ensure!(name == told, "{name} instead of {told}");
            wait::until(SOON, "the others' end", || {
                let conns = node.conns_to(script)?.len();
                ensure!(conns == left, "{conns} instead of {left}");
                Ok(())
            })?;
            drop(kept);
            forget(node, script)
        };
        lost().context(what)?;
    }
    Ok(())
}

/// Exchanges greetings; the node must accept.
fn greet(node: &Node, script: &Node, hello: &Hello) -> Result<Conn> {
    let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
    conn.send(&today().request(1, nid(node.addr)))?;
    conn.send(&hello.bytes())?;
    let answer = Hello::receive(&mut conn)?;
    ensure!(answer.conn_type != NONE, "not accepted: {answer:x?}");
    Ok(conn)
}

/// Whether an attempt failed because nobody listens, or soon nobody will.
fn is_away(name: &str) -> bool {
    matches!(name, "ECONNREFUSED" | "ECONNRESET")
}

/// How often a route to this address and port was tried.
fn attempts(addr: &str) -> Result<u64> {
    let routes = sections(&format!("route {addr}"))?;
    routes.first().context("no such route")?.get("attempts")
}

/// The routes of a peer: address with port, and shares.
fn routes(node: &Node, other: &Node) -> Result<Vec<(String, u64)>> {
    let mut routes = Vec::new();
    for peer in node.list(&["peer", "list"])? {
        let listed = peer["routes"].as_array().into_iter().flatten();
        for route in listed.filter(|_| peer["nid"] == other.nid().as_str()) {
            let address = route["address"].as_str().unwrap_or_default().to_owned();
            let shares = route["share_count"].as_u64().context("no number")?;
            routes.push((address, shares));
        }
    }
    Ok(routes)
}

/// A message fails when all addresses of a peer were tried, and not before. An administrator can
/// correct the port of an address that the driver had assumed.
pub fn all_addresses(lab: &mut Lab) -> Result<()> {
    const REFUSING: &str = "10.0.0.9";
    const NOWHERE: &str = "10.0.0.10";
    let (one, two) = (lab.node(0), lab.node(1));
    let peer_add = |addr: &str| one.socklctl(&["peer", "add", &two.nid(), addr]).map(drop);
    let rest = |ms: u64| -> Result<()> {
        // The one may never be more than the other.
        set("max_reconnectms", LONG_MS)?;
        set("min_reconnectms", ms)?;
        set("max_reconnectms", ms)
    };
    let usual = format!("{}:988", two.addr);
    let refusing = format!("{REFUSING}:988");
    let tried = || -> Result<[u64; 2]> { Ok([attempts(&refusing)?, attempts(&usual)?]) };
    two.space
        .ip(&format!("addr add {REFUSING}/24 dev eth0\n"))?;
    one.space.ip(&format!(
        "neigh replace {NOWHERE} lladdr 02:00:00:00:00:01 dev eth0\n"
    ))?;
    one.ni_add()?;
    two.ni_add()?;
    peer_add(REFUSING)?;
    peer_add(&two.addr.to_string())?;
    rest(50)?;
    for round in 1..=3 {
        // Time for the first to have its turn again.
        wait::quiet_time(Duration::from_millis(200));
        one.ping(two).with_context(|| format!("round {round}"))?;
        disconnect(one, two)?;
        ensure!(tried()?[0] >= round, "the first was not tried");
    }
    two.ni_del()?;
    wait::quiet_time(Duration::from_millis(200));
    let before = tried()?;
    rest(LONG_MS)?;
    let name = errno(&one.try_ping(two, SOON)?)?;
    ensure!(is_away(&name), "{name} when none is left");
    let after = tried()?;
    ensure!(
        after == before.map(|n| n + 1),
        "{after:?} attempts after {before:?}"
    );
    let name = errno(&one.try_ping(two, SOON)?)?;
    ensure!(name == "EHOSTUNREACH", "{name} while both rest");

    // Both rest. A third is tried, and taken away meanwhile.
    two.ni_add()?;
    peer_add(NOWHERE)?;
    let ping = one.start(&["ping", "-W", "300", &two.nid()])?;
    wait::until(SOON, "attempt under way", || {
        ensure!(one.counter("/live/handshakes")? == 1);
        Ok(())
    })?;
    one.socklctl(&["peer", "del", &two.nid(), NOWHERE])?;
    ping.wait(SOON)?.checked("ping by another address")?;

    // Nobody is at the usual port.
    two.ni_del()?;
    let known = format!("{}:7988", two.addr);
    let guess = || -> Result<()> {
        forget(one, two)?;
        let name = errno(&one.try_ping(two, SOON)?)?;
        ensure!(is_away(&name), "{name}");
        let routes = routes(one, two)?;
        ensure!(
            matches!(&routes[..], [(addr, 0)] if *addr == usual),
            "{routes:?}"
        );
        Ok(())
    };
    let is_known = |shares: u64| -> Result<()> {
        let routes = routes(one, two)?;
        let right = matches!(&routes[..], [(addr, n)] if *addr == known && *n == shares);
        ensure!(right, "{routes:?}");
        Ok(())
    };
    guess()?;
    let listener = two.space.within(|| {
        let socket = tcp_socket()?;
        bind(&socket, &family::real(two.addr, 7988))?;
        listen(&socket, 8)?;
        Ok(TcpListener::from(socket))
    })?;
    listener.set_nonblocking(true)?;
    let add = |port: &str| {
        let words = ["peer", "add", &two.nid(), "--port", port];
        one.attempt(&words, SOON)
    };
    add("7988")?.checked("port")?;
    is_known(1)?;
    let ping = one.start(&["ping", "-W", "300", &two.nid()])?;
    let conn = wait::until(SOON, "attempt at the port", || Ok(listener.accept()?))?;
    drop(conn);
    errno(&ping.wait(SOON)?)?;
    let name = errno(&add("7989")?)?;
    ensure!(name == "EEXIST", "{name} for another port");
    add("7988")?.checked("the same port")?;
    is_known(2)?;

    guess()?;
    const FILE: &str = "/tmp/socklnd-port.yaml";
    let peer = format!("{{nid: {}, routes: [{{port: 7988}}]}}", two.nid());
    let text = format!(
        "{{version: 1, ni: [{{nid: {}, peers: [{peer}]}}]}}\n",
        one.nid()
    );
    fs::write(FILE, family::outward(&text))?;
    one.socklctl(&["import", FILE]).context("import")?;
    fs::remove_file(FILE)?;
    is_known(1)
}

/// A peer crashes and is restarted: some of its connections end when they are used, others stay
/// half open. The node connects at once, or reports the peer as lost. Failures of long ago don't
/// count.
pub fn peer_crashes(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let failures = || node.counter("/errors/connect");
    node.ni_add()?;
    node.peer_add(script)?;
    set("max_reconnectms", LONG_MS)?;
    set("min_reconnectms", LONG_MS / 2)?;
    let name = errno(&node.try_ping(script, SOON)?)?;
    ensure!(name == "ECONNREFUSED", "{name}");
    set("min_reconnectms", 100)?;
    let [mut control, bulk_in, bulk_out] = three(node, script)?;
    control.ping(1)?;
    // Long enough to have stood.
    wait::quiet_time(Duration::from_millis(300));
    let before = failures()?;
    bulk_in.conn.reset()?;
    wait::until(SOON, "attempt that fails", || {
        ensure!(failures()? > before);
        Ok(())
    })?;
    let listener = Listener::new(&script.space, script.addr)?;
    let accept = |kind: u32| -> Result<Link> {
        let mut conn = listener.accept_request(SOON)?;
        let hello = Hello::receive(&mut conn)?;
        ensure!(hello.conn_type == kind, "not what is missing: {hello:x?}");
        Link::accept(conn, &hello, Order::Little)
    };
    let bulk_in = accept(BULK_OUT).context("after one connection's end")?;

    // All but that by which nothing can be sent.
    set("min_reconnectms", 3000)?;
    wait::quiet_time(Duration::from_millis(3500));
    control.conn.reset()?;
    bulk_in.conn.reset()?;
    wait::until(SOON, "two ends", || {
        let conns = node.conns_to(script)?.len();
        ensure!(conns == 1, "{conns} are left");
        Ok(())
    })?;
    let ping = node.start(&["ping", "-W", "300", &script.nid()])?;
    let mut control = accept(CONTROL).context("after a crash")?;
    let request = control.receive_message()?;
    control.send([0, 0], &request.reply(pong(script.addr)))?;
    ping.wait(SOON)?.checked("ping after a crash")?;
    let bulk_in = accept(BULK_OUT)?;

    // As a gateway, it is lost if it does not come back, and is found when it does.
    node.socklctl(&["route", "add", "tcp1", &script.nid()])?;
    let state = |wanted: &str| {
        wait::until(SOON, wanted, || {
            let routes = node.list(&["route", "list"])?;
            ensure!(routes[0]["state"] == wanted, "{}", Value::from(routes));
            Ok(())
        })
    };
    state("up")?;
    set("min_reconnectms", 100)?;
    drop(listener);
    control.conn.reset()?;
    bulk_in.conn.reset()?;
    state("down")?;
    let kept = node.conns_to(script)?;
    ensure!(kept.len() == 1 && kept[0]["type"] == "bulk_in", "{kept:?}");
    let name = errno(&node.try_ping(script, SOON)?)?;
    ensure!(name != "ETIMEDOUT", "what is sent to it waits");
    let listener = Listener::new(&script.space, script.addr)?;
    let mut conn = listener.accept_request(2 * SOON)?;
    let hello = Hello::receive(&mut conn)?;
    let found = Link::accept(conn, &hello, Order::Little)?;
    state("up")?;
    drop((found, bulk_out));
    Ok(())
}

/// A peer crashes and is restarted with an earlier clock. It is connected as soon as its old
/// connections were probed. A HELLO with its NID from another node does not affect them.
pub fn earlier_clock(lab: &mut Lab) -> Result<()> {
    const CLOCK: u64 = 2_000_000;
    let (node, script) = (lab.node(0), lab.node(1));
    // Nothing but a test finds out.
    set("keepalive_idle", LONG_MS / 1000)?;
    set("sock_timeout", LONG_MS / 1000)?;
    node.ni_add()?;
    let dial_today = |kind, incarnation| -> Result<(Conn, u32)> {
        let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
        conn.send(&today().request(1, nid(node.addr)))?;
        let mut hello = Hello::new(today(), script.addr, node.addr, kind);
        hello.incarnation = incarnation;
        conn.send(&hello.bytes())?;
        let answer = Hello::receive(&mut conn)?;
        Ok((conn, answer.conn_type))
    };
    let dial_old = |kind, incarnation| -> Result<(Conn, u32)> {
        let (conn, answer) = introduce(script, node, kind, incarnation)?;
        Ok((conn, answer.conn_type))
    };
    for (is_old, under_way) in [(false, false), (false, true), (true, false), (true, true)] {
        let dial = |kind, incarnation| {
            if is_old {
                dial_old(kind, incarnation)
            } else {
                dial_today(kind, incarnation)
            }
        };
        let ask = |conn: Conn, handle| -> Result<Conn> {
            if is_old {
                let mut conn = conn;
                conn.ping(handle)?;
                Ok(conn)
            } else {
                let mut link = Link::greeted(conn, today(), CONTROL);
                link.ping(handle)?;
                Ok(link.conn)
            }
        };
        let round = || -> Result<Duration> {
            let mut conns = Vec::new();
            for kind in [CONTROL, BULK_IN, BULK_OUT] {
                let (conn, answer) = dial(kind, CLOCK)?;
                ensure!(answer == peer::inverse(kind), "not accepted");
                conns.push(conn);
            }
            for handle in 1..=3 {
                let (mut forged, answer) = dial(CONTROL, CLOCK - 1)?;
                ensure!(answer == NONE, "accepted, with an earlier clock");
                forged.await_closed(SOON)?;
                let control = ask(conns.remove(0), handle)?;
                conns.insert(0, control);
            }
            let there = node.conns_to(script)?.len();
            ensure!(
                there == 3,
                "{there} connections after greetings in its name"
            );
            lab.cable(1, false)?;
            let ping = if under_way {
                let ping = node.start(&["ping", "-W", "300", &script.nid()])?;
                // TCP tries again, and less and less often.
                wait::quiet_time(Duration::from_secs(2));
                Some(ping)
            } else {
                None
            };
            for conn in conns {
                conn.reset()?;
            }
            lab.cable(1, true)?;
            let started = Instant::now();
            let conn = wait::until(SOON, "connection after a restart", || {
                let (conn, answer) = dial(CONTROL, CLOCK - 1)?;
                ensure!(answer == CONTROL, "refused");
                Ok(conn)
            })?;
            let time = started.elapsed();
            if let Some(ping) = ping {
                let name = errno(&ping.wait(SOON)?)?;
                ensure!(name == "ECONNRESET", "{name}");
            }
            let there = node.conns_to(script)?.len();
            ensure!(there == 1, "{there} connections after the restart");
            ask(conn, 9)?.reset()?;
            forget(node, script)?;
            Ok(time)
        };
        let what = format!("version of 2005: {is_old}, under way: {under_way}");
        let time = round().context(what.clone())?;
        note(&format!("{what}: after {:.2} s", time.as_secs_f64()));
    }
    Ok(())
}
