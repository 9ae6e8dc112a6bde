// SPDX-License-Identifier: GPL-2.0

//! Which nodes are accepted and which are refused, and what the kernel log says about that.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::versions::{no_conns, set};
use crate::command::run;
use crate::debugfs::sections;
use crate::family;
use crate::lab::Lab;
use crate::modern::{Dialect, Hello, Link, Order};
use crate::node::Node;
use crate::peer::{BULK_OUT, CONTROL, Conn, Listener, Message, NONE, nid};
use crate::port::{mark, note};
use crate::wait;

/// In this time what has ended is done with, on the slowest machine.
const SOON: Duration = Duration::from_secs(30);
/// Strangers from one address that are refused one after the other.
const FLOOD: usize = 100;
/// About one address the most lines of a kind in an interval of so many seconds.
const BURST: u64 = 3;
const INTERVAL: u64 = 5;

fn today() -> Dialect {
    Dialect {
        version: if family::is_ipv6() { 4 } else { 3 },
        order: Order::Little,
    }
}

/// The module's lines in the kernel's log since the last [`mark`] of this text.
fn logged_since(text: &str) -> Result<Vec<String>> {
    let log = run(&mut Command::new("dmesg"), "", SOON)?.stdout;
    let (_, since) = log.rsplit_once(text).context("the mark is not there")?;
    let lines = since.lines().filter(|line| line.contains("ksocklnd: "));
    Ok(lines.map(family::inward).collect())
}

/// Waits for a line with all of these words.
fn await_line(since: &str, words: &[&str]) -> Result<()> {
    wait::until(SOON, "line in the log", || find_line(since, words))
}

/// Fails if there is no line with all of these words.
fn find_line(since: &str, words: &[&str]) -> Result<()> {
    let lines = logged_since(since)?;
    let mut said = lines.iter();
    let found = said.any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(found, "nothing of {words:?} in {lines:#?}");
    Ok(())
}

/// Gives the script so many more addresses, from 10.0.0.100 on.
fn more_addresses(script: &Node, count: usize) -> Result<Vec<Ipv4Addr>> {
    let addrs: Vec<_> = (100..)
        .map(|last| Ipv4Addr::new(10, 0, 0, last))
        .take(count)
        .collect();
    let lines = addrs.iter().map(|addr| family::addr_add(*addr, 24));
    script.space.ip(&lines.collect::<String>())?;
    Ok(addrs)
}

/// What somebody says who is to be refused, and what the log has to say of that.
fn refused_greetings(node: &Node, script: &Node) -> Vec<(Vec<u8>, &'static str)> {
    let dialect = today();
    let (me, elsewhere) = (nid(node.addr), nid([10, 9, 0, 9].into()));
    let good = Hello::new(dialect, script.addr, node.addr, CONTROL);
    let with = |change: &dyn Fn(&mut Hello)| {
        let mut hello = good.clone();
        change(&mut hello);
        [dialect.request(1, me), hello.bytes()].concat()
    };
    let magic = [dialect.request(1, me), vec![0x11; 60]].concat();
    let mut version = dialect.request(1, me);
    version[4] = 9;
    vec![
        (magic, "unknown magic 0x11111111"),
        (version, "its acceptor request has an unknown version"),
        (
            dialect.request(1, elsewhere),
            "its acceptor request is for 10.9.0.9@tcp",
        ),
        (
            with(&|hello| hello.dest = elsewhere),
            "the HELLO of 10.0.0.2@tcp is for 10.9.0.9@tcp",
        ),
        (
            with(&|hello| hello.src = elsewhere),
            "it claims the NID 10.9.0.9@tcp: check_nid=1",
        ),
        (
            with(&|hello| hello.src = me),
            "it claims the NID 10.0.0.1@tcp: that is this node itself",
        ),
        (
            with(&|hello| hello.src |= 7 << 32),
            "it claims the NID 10.0.0.2@tcp7: that is another network",
        ),
        (
            with(&|hello| hello.conn_type = 77),
            "unknown connection type 77",
        ),
        (
            with(&|hello| hello.conn_type = NONE),
            "the HELLO of 10.0.0.2@tcp has connection type NONE",
        ),
        (
            with(&|hello| hello.dialect.version = 9),
            "its HELLO has version 0x9",
        ),
        (Vec::new(), "timed out"),
    ]
}

/// Those who connect and are refused.
fn log_of_refusals(node: &Node, script: &Node) -> Result<()> {
    let cases = refused_greetings(node, script);
    // There are more cases than lines about one address at a time.
    let addrs = more_addresses(script, cases.len())?;
    for ((bytes, reason), from) in cases.iter().zip(addrs) {
        let step = format!("refusal of {from}");
        mark(&step);
        set("accept_timeout", if bytes.is_empty() { 1 } else { 60 })?;
        let words = format!("{}: refused a connection from {from}:", node.nid());
        wait::until(SOON, &step, || {
            let mut conn = Conn::dial(&script.space, from, node.addr)?;
            conn.send(bytes)?;
            conn.await_closed(SOON)?;
            find_line(&step, &[&words, reason])
        })?;
    }
    set("accept_timeout", 60)
}

/// Those who are connected, and say what they may not.
fn log_of_breaches(node: &Node, script: &Node) -> Result<()> {
    type Spoil<'a> = &'a dyn Fn(&Link) -> Vec<u8>;
    let dialect = today();
    let cases: [(Spoil<'_>, &str); 5] = [
        (
            &|_| dialect.header(0x77, 0, [0, 0]),
            "unexpected message type 0x77",
        ),
        (&|_| dialect.noop([0, 0x4d]), "bad zero-copy cookie 0x4d"),
        (
            &|link| {
                let mut put = link.new_put(0);
                put.length = 0x0020_0000;
                dialect.message([0, 0], &put)
            },
            "bad payload length 2097152",
        ),
        (
            &|link| dialect.summed([0, 0], &link.new_put(10)),
            "in a version without checksums",
        ),
        (
            &|link| {
                let half = dialect.message([0, 0], &link.new_put(10));
                half[..half.len() - 1].to_vec()
            },
            "the stream ended in the middle of a message",
        ),
    ];
    for (spoil, reason) in cases {
        let step = format!("breach with {reason}");
        mark(&step);
        let words = "10.0.0.1@tcp: 10.0.0.2@tcp at 10.0.0.2:";
        wait::until(SOON, &step, || {
            let mut link = Link::dial(&script.space, script.addr, node, dialect, BULK_OUT)?;
            link.conn.send(&spoil(&link))?;
            link.conn.finish()?;
            link.conn.await_closed(SOON)?;
            find_line(&step, &[words, "has broken the protocol", reason])
        })?;
    }
    wait::until(SOON, "connection forgotten", || no_conns(node, script))
}

/// Those who don't do their part in time, and whom this node can't connect to.
fn log_of_failures(node: &Node, script: &Node) -> Result<()> {
    let dialect = today();
    set("sock_timeout", 2)?;
    mark("half a message");
    let mut link = Link::dial(&script.space, script.addr, node, dialect, BULK_OUT)?;
    let bytes = dialect.message([0, 0], &link.new_put(100));
    link.conn.send(&bytes[..bytes.len() - 1])?;
    link.conn.await_closed(SOON)?;
    await_line(
        "half a message",
        &[
            "10.0.0.1@tcp: gave up 10.0.0.2@tcp at 10.0.0.2:",
            "the rest of a message",
            "sock_timeout=2",
        ],
    )?;
    let listener = Listener::new(&script.space, script.addr)?;
    mark("no answer");
    let ping = node.start_ping(script)?;
    let silent = listener.accept(SOON)?;
    let nowhere = "10.0.0.1@tcp: no connection to 10.0.0.2@tcp at 10.0.0.2:988: ";
    await_line("no answer", &[nowhere, "timed out"])?;
    await_line(
        "no answer",
        &["10.0.0.1@tcp: gave up 1 messages for 10.0.0.2@tcp"],
    )?;
    drop((silent, ping));
    set("sock_timeout", 50)?;
    mark("wrong answer");
    wait::until(SOON, "line about a wrong answer", || {
        // So that it does not rest after what went before.
        node.socklctl(&["peer", "del", "any"])?;
        let ping = node.start_ping(script)?;
        let mut conn = listener.accept(SOON)?;
        conn.send(&Hello::new(dialect, [10, 9, 0, 9].into(), node.addr, CONTROL).bytes())?;
        conn.await_closed(SOON)?;
        drop(ping);
        find_line("wrong answer", &[nowhere, "the HELLO is from 10.9.0.9@tcp"])
    })
}

/// A flood of strangers does not flood the log, and does not keep others out of it.
fn log_of_a_flood(node: &Node, script: &Node) -> Result<()> {
    let request = today().request(1, nid([10, 9, 0, 9].into()));
    let refused = |from| {
        let mut conn = Conn::dial(&script.space, from, node.addr)?;
        conn.send(&request)?;
        conn.await_closed(SOON).map(drop)
    };
    let other = Ipv4Addr::new(10, 0, 0, 100);
    mark("flood");
    let started = Instant::now();
    wait::until(SOON, "line about the other one", || {
        (0..FLOOD).try_for_each(|_| refused(script.addr))?;
        refused(other)?;
        // IPv6 addresses of one /64 are one source for the limit.
        let shown = if family::is_ipv6() {
            script.addr
        } else {
            other
        };
        find_line("flood", &[&format!("refused a connection from {shown}:")])
    })?;
    wait::until(SOON, "lines that are left out", || {
        refused(other)?;
        find_line("flood", &["lines like the next one were not logged"])
    })?;
    let about = format!("refused a connection from {}:", script.addr);
    let lines = logged_since("flood")?;
    let count = lines.iter().filter(|line| line.contains(&about)).count() as u64;
    let intervals = started.elapsed().as_secs() / INTERVAL + 2;
    note(&format!("{count} lines about {FLOOD} strangers or more"));
    ensure!(
        count <= intervals * BURST,
        "{count} lines about one address"
    );
    Ok(())
}

/// The log names each node that is refused, violates the protocol, or does nothing for too long:
/// its NID and address, and the field with its value. The number of lines is limited.
pub fn in_the_log(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    log_of_refusals(node, script)?;
    log_of_breaches(node, script)?;
    log_of_failures(node, script)?;
    log_of_a_flood(node, script)
}

/// Connects from an address of the script's as the node that has the address `name`.
fn dial_as(script: &Node, from: Ipv4Addr, name: Ipv4Addr, node: &Node) -> Result<Link> {
    dial_typed(script, from, name, node, CONTROL)
}

/// The same with a connection of this type.
fn dial_typed(
    script: &Node,
    from: Ipv4Addr,
    name: Ipv4Addr,
    node: &Node,
    conn_type: u32,
) -> Result<Link> {
    let dialect = today();
    let mut conn = Conn::dial(&script.space, from, node.addr)?;
    conn.send(&dialect.request(1, nid(node.addr)))?;
    conn.send(&Hello::new(dialect, name, node.addr, conn_type).bytes())?;
    Hello::receive(&mut conn)?;
    conn.from = name;
    Ok(Link::greeted(conn, dialect, conn_type))
}

/// A node connects from a second address in the same subnet, as nodes of Lustre do: it is accepted,
/// unless an administrator has forbidden it. From an address elsewhere it is refused.
pub fn second_address(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let (second, far) = (Ipv4Addr::new(10, 0, 0, 77), Ipv4Addr::new(10, 7, 0, 2));
    let add = |addr| family::addr_add(addr, 24);
    script.space.ip(&(add(second) + &add(far)))?;
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
        let step = format!("check_nid {check} from {from}");
        mark(&step);
        let what = || format!("check_nid={check}, from {from}");
        let dialled = dial_as(script, from, script.addr, node);
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
        } else {
            let said = format!("it claims the NID 10.0.0.2@tcp: check_nid={check}");
            await_line(&step, &[&format!("from {from}:"), &said])?;
        }
        // It does no harm to the others.
        first.ping(3).with_context(what)?;
    }
    first.conn.reset()?;
    wait::until(SOON, "connection forgotten", || no_conns(node, script))
}

/// The number of connections to strangers is limited, for each source address and in total. At the
/// limit, a new one is refused unless another stranger is idle. Strangers that are not idle are not
/// affected.
pub fn strangers(lab: &mut Lab) -> Result<()> {
    const OF_SOURCE: u8 = 6;
    let (node, script) = (lab.node(0), lab.node(1));
    // As many as a peer may have at the same time, before and after it was started anew.
    set("max_strangers_per_source", OF_SOURCE)?;
    // So long nobody counts as idle.
    set("accept_timeout", 3600)?;
    set("check_nid", 0)?;
    node.ni_add()?;
    let second = Ipv4Addr::new(10, 0, 0, 77);
    script.space.ip(&family::addr_add(second, 24))?;
    let name = |last: u8| Ipv4Addr::new(10, 9, 0, last);
    let dial = |from, last| dial_as(script, from, name(last), node);
    let counter = |name: &str| -> Result<u64> {
        let found = sections(&format!("ni {}", node.nid()))?;
        found.first().context("no NI")?.get(name)
    };
    let count = |wanted: usize| {
        wait::until(SOON, "connections", || {
            let conns = node.list(&["conn", "list"])?.len();
            ensure!(conns == wanted, "{conns}, not {wanted}");
            Ok(())
        })
    };

    // One who talks, and some who only come.
    let mut talker = dial(script.addr, 1)?;
    talker.ping(1)?;
    let mut idle = (2..=OF_SOURCE)
        .map(|last| dial(script.addr, last))
        .collect::<Result<Vec<_>>>()?;
    mark("step of one source");
    ensure!(
        dial(script.addr, 50).is_err(),
        "there is no bound for an address"
    );
    await_line(
        "step of one source",
        &["10.9.0.50@tcp", "max_strangers_per_source"],
    )?;
    ensure!(counter("strangers_refused")? == 1 && counter("strangers_closed")? == 0);
    // Another address has places of its own.
    let mut other = dial(second, 60)?;
    count(usize::from(OF_SOURCE) + 1)?;
    for link in &mut idle {
        link.ping(1)?;
    }
    drop(idle);
    count(2)?;

    // In all.
    let mut idle = vec![dial(second, 61)?, dial(script.addr, 2)?];
    set("max_strangers", 4)?;
    mark("step of all");
    ensure!(dial(second, 51).is_err(), "there is no bound for all");
    await_line("step of all", &["10.9.0.51@tcp", "(max_strangers)"])?;
    // Who was added is no stranger.
    let added = format!("{}@tcp", name(52));
    node.socklctl(&["peer", "add", &added, &second.to_string()])?;
    let mut wanted = dial(second, 52)?;
    wanted.ping(1)?;
    count(5)?;
    talker.ping(2)?;
    other.ping(1)?;

    // Those from whom no message has come have to go first, and then those who were silent for longest.
    set("accept_timeout", 3)?;
    for last in [53, 54] {
        let closed = counter("strangers_closed")?;
        idle.push(wait::until(SOON, "a place", || dial(script.addr, last))?);
        ensure!(counter("strangers_closed")? == closed + 1);
        count(5)?;
        for link in [&mut talker, &mut other, &mut wanted] {
            link.ping(3)?;
        }
    }
    for (number, link) in idle.iter_mut().enumerate() {
        if number < 2 {
            link.conn.await_closed(SOON)?;
        } else {
            link.ping(9)?;
        }
    }
    Ok(())
}

/// Addresses that the script has, where it may listen, in a subnet of its own.
fn call_addresses(node: &Node, script: &Node, subnet: u8, count: u8) -> Result<Vec<Ipv4Addr>> {
    let addrs: Vec<_> = (1..=count)
        .map(|last| Ipv4Addr::new(10, 9, subnet, last))
        .collect();
    let lines = addrs.iter().map(|addr| family::addr_add(*addr, 24));
    script.space.ip(&lines.collect::<String>())?;
    node.space
        .ip(&format!("route add 10.9.{subnet}.0/24 dev eth0\n"))?;
    Ok(addrs)
}

/// Asks the node for something as the node with the address `name`, by a connection that it can't answer by:
/// so it has to call that address. Returns the question, and the connection.
fn ask_for_a_call(
    script: &Node,
    from: Ipv4Addr,
    name: Ipv4Addr,
    node: &Node,
) -> Result<(Message, Link)> {
    let mut link = dial_typed(script, from, name, node, BULK_OUT)?;
    let ping = link.new_ping(7);
    link.send([0, 0], &ping)?;
    Ok((ping, link))
}

/// Takes the call that comes, and the answer by it; further ones are refused.
fn take_call(listener: Listener, ping: &Message) -> Result<Link> {
    let mut conn = listener.accept_request(SOON)?;
    let hello = Hello::receive(&mut conn)?;
    ensure!(hello.conn_type == CONTROL, "not for control: {hello:x?}");
    drop(listener);
    let mut link = Link::accept(conn, &hello, Order::Little)?;
    link.receive_message()?.check_pong(ping)?;
    Ok(link)
}

/// The number of strangers that the node connects to because of other nodes' messages is limited,
/// for each source address and in total: to answer them, and to forward messages. A stranger to
/// which no connection was made loses its slot. Otherwise a new one is not connected, and the
/// others are not affected.
pub fn called_back(lab: &mut Lab) -> Result<()> {
    const OF_SOURCE: u8 = 6;
    let (node, script) = (lab.node(0), lab.node(1));
    set("max_strangers_per_source", OF_SOURCE)?;
    // For so long nobody counts as idle, and attempts last and are not repeated.
    for name in ["accept_timeout", "sock_timeout"] {
        set(name, 3600)?;
    }
    set("max_reconnectms", 3_600_000)?;
    set("min_reconnectms", 3_600_000)?;
    set("check_nid", 0)?;
    node.ni_add()?;
    let names = call_addresses(node, script, 0, 8)?;
    let second = more_addresses(script, 1)?[0];
    let listen = |addr| Listener::new(&script.space, addr);
    let ask = |from, name| ask_for_a_call(script, from, name, node);
    let counter = |nid: &str, name: &str| -> Result<u64> {
        let found = sections(&format!("ni {nid}"))?;
        found.first().context("no NI")?.get(name)
    };
    let own = node.nid();
    let is_peer = |name: Ipv4Addr| -> Result<bool> {
        let peers = node.list(&["peer", "list"])?;
        let nid = format!("{name}@tcp");
        Ok(peers.iter().any(|peer| peer["nid"] == nid.as_str()))
    };

    // Some are there and get their answers, the calls of others are under way; who has asked has gone.
    let mut called = Vec::new();
    for name in &names[..4] {
        let listener = listen(*name)?;
        let (ping, link) = ask(script.addr, *name)?;
        called.push(take_call(listener, &ping)?);
        link.conn.reset()?;
    }
    let mut under_way = Vec::new();
    for name in &names[4..6] {
        let listener = listen(*name)?;
        let (_, link) = ask(script.addr, *name)?;
        under_way.push((listener.accept_request(SOON)?, listener));
        link.conn.reset()?;
    }
    let refused = |step: &str, from, name: Ipv4Addr, limit: &str, count: u64| -> Result<()> {
        let listener = listen(name)?;
        mark(step);
        let (_, link) = ask(from, name)?;
        await_line(step, &[&format!("connect to {name}@tcp"), limit])?;
        ensure!(listener.accept(Duration::ZERO).is_err(), "{name} is called");
        ensure!(counter(&own, "calls_refused")? == count);
        wait::until(SOON, "answer given up", || {
            let unanswered = counter(&own, "unanswered")?;
            ensure!(unanswered == count, "{unanswered}, not {count}");
            Ok(())
        })?;
        link.conn.reset()?;
        wait::until(SOON, "peer forgotten", || {
            ensure!(!is_peer(name)?);
            Ok(())
        })
    };
    refused(
        "step of one source",
        script.addr,
        names[6],
        "(max_strangers_per_source)",
        1,
    )?;
    set("max_strangers", OF_SOURCE)?;
    refused("step of all", second, names[6], "(max_strangers)", 2)?;
    for link in &mut called {
        link.ping(8)?;
    }
    // Who was added is called all the same.
    node.socklctl(&[
        "peer",
        "add",
        &format!("{}@tcp", names[7]),
        &names[7].to_string(),
    ])?;
    let listener = listen(names[7])?;
    let (ping, link) = ask(script.addr, names[7])?;
    let mut wanted = take_call(listener, &ping)?;
    wanted.ping(8)?;
    link.conn.reset()?;

    // One who has gone makes room.
    called.pop().context("nobody was called")?.conn.reset()?;
    wait::until(SOON, "end of the connection", || {
        let conns = node.list(&["conn", "list"])?.len();
        ensure!(conns == 4, "{conns} connections");
        Ok(())
    })?;
    ensure!(is_peer(names[3])? && counter(&own, "strangers_closed")? == 0);
    let listener = listen(names[6])?;
    let (ping, link) = ask(second, names[6])?;
    called.push(take_call(listener, &ping)?);
    link.conn.reset()?;
    ensure!(!is_peer(names[3])? && counter(&own, "strangers_closed")? == 1);
    for link in &mut called {
        link.ping(9)?;
    }
    passed_on(node, script, &mut called, u64::from(OF_SOURCE))
}

/// The same for messages to be passed on, for which one sender may cause as many connections as half of
/// `max_strangers`. `senders` are connections of different senders.
fn passed_on(node: &Node, script: &Node, senders: &mut [Link], most: u64) -> Result<()> {
    let across = node.in_network(1, [10, 0, 0, 11].into());
    let addr = across.addr;
    node.space.ip(&family::addr_add(addr, 24))?;
    across.ni_add()?;
    node.socklctl(&["set", "routing", "on"])?;
    set("max_strangers", 2 * most)?;
    let names = call_addresses(node, script, 1, most as u8 + 1)?;
    let counter = |name: &str| -> Result<u64> {
        let found = sections(&format!("ni {}", across.nid()))?;
        found.first().context("no NI")?.get(name)
    };
    let listeners = names
        .iter()
        .map(|name| Listener::new(&script.space, *name))
        .collect::<Result<Vec<_>>>()?;
    let send = |link: &mut Link, name: Ipv4Addr| {
        let mut put = link.new_put(10);
        put.dest = nid(name) | 1 << 32;
        link.send([0, 0], &put)
    };
    let mut under_way = Vec::new();
    let (last, first) = names.split_last().context("no names")?;
    for (name, listener) in first.iter().zip(&listeners) {
        send(&mut senders[0], *name)?;
        under_way.push(listener.accept(SOON)?);
    }
    let step = "step of one sender";
    mark(step);
    send(&mut senders[0], *last)?;
    await_line(step, &[&format!("connect to {last}@tcp1"), "per_source"])?;
    ensure!(counter("calls_refused")? == 1);
    senders[0].ping(10)?;
    send(&mut senders[1], *last)?;
    let listener = listeners.last().context("nobody listens")?;
    under_way.push(listener.accept(SOON)?);
    ensure!(counter("calls_refused")? == 1);
    // The reaper may still refer to the peer that was not connected to.
    wait::until(SOON, "end of a peer", || {
        let peers = counter("peers")?;
        ensure!(peers == most + 1, "{peers} peers");
        Ok(())
    })
}
