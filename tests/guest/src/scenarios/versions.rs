// SPDX-License-Identifier: GPL-2.0

//! The versions of the protocol: newest and older ones, with scripts and between nodes.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::connect::{both_ping, disconnect, one_of_each};
use crate::family;
use crate::lab::Lab;
use crate::modern::{self, Dialect, Frame, Link, Order, PING, dialects, pong};
use crate::node::{Bench, Node, Op};
use crate::pace;
use crate::peer::{
    self, ANY, BULK_IN, BULK_OUT, CONTROL, GET, Hello, Listener, Message, NONE, nid,
};
use crate::port::note;
use crate::wait;

const LIMIT: Duration = Duration::from_secs(20);
/// Connections of these types, in the order in which a node of today makes them.
const TYPES: [u32; 3] = [CONTROL, BULK_IN, BULK_OUT];
/// The least that a wait takes where it must be seen that there was none.
const LONG_WAIT: Duration = Duration::from_secs(3600);
/// What counts as without a wait.
const WITHOUT_WAIT: Duration = Duration::from_secs(8);
/// Between two signs of life that a silent peer is sent at least, and a little less.
const PAUSE: Duration = Duration::from_secs(9);

/// Sets a module parameter.
pub fn set(name: &str, value: impl ToString) -> Result<()> {
    let path = format!("/sys/module/ksocklnd/parameters/{name}");
    fs::write(path, value.to_string()).with_context(|| format!("{name}={}", value.to_string()))
}

pub fn no_conns(node: &Node, script: &Node) -> Result<()> {
    let conns = node.conns_to(script)?;
    ensure!(conns.is_empty(), "{} connections are left", conns.len());
    Ok(())
}

/// All connections of a node to another speak this version.
pub fn all_speak(node: &Node, other: &Node, version: u32) -> Result<()> {
    for conn in node.conns_to(other)? {
        ensure!(
            conn["protocol"] == version,
            "not of version {version}: {conn}"
        );
    }
    Ok(())
}

/// A script connects as a node of Lustre does, in either byte order and in pieces of any size: it
/// gets the expected bytes.
pub fn active(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    for dialect in dialects() {
        for pause in [None, Some(Duration::from_millis(1))] {
            speak(node, script, dialect, pause)
                .with_context(|| format!("{dialect:?}, pause {pause:?}"))?;
            node.close_conns()?;
            wait::until(LIMIT, "connections forgotten", || no_conns(node, script))?;
        }
    }
    // Without types, and with the request of version 2.
    for dialect in dialects() {
        let mut conn = peer::Conn::dial(&script.space, script.addr, node.addr)?;
        conn.send(&dialect.request(2, nid(node.addr)))?;
        conn.send(&modern::Hello::new(dialect, script.addr, node.addr, ANY).bytes())?;
        let hello = modern::Hello::receive(&mut conn)?;
        ensure!(hello.conn_type == ANY, "wrong type in {hello:x?}");
        conn.reset()?;
        wait::until(LIMIT, "connection forgotten", || no_conns(node, script))?;
        let mut link = Link::dial(&script.space, script.addr, node, dialect, ANY)?;
        link.ping(1)?;
        link.conn.reset()?;
        wait::until(LIMIT, "connection forgotten", || no_conns(node, script))?;
    }
    Ok(())
}

/// A whole conversation over connections of all types.
fn speak(node: &Node, script: &Node, dialect: Dialect, pause: Option<Duration>) -> Result<()> {
    let mut links = Vec::new();
    for conn_type in TYPES {
        let link =
            Link::dial_in_pieces(&script.space, script.addr, node, dialect, conn_type, pause)?;
        links.push(link);
    }
    all_speak(node, script, dialect.version)?;
    let [control, bulk_in, bulk_out] = &mut links[..] else {
        unreachable!("there are three types");
    };

    // Messages that nobody wants, NOOPs and a ping, all in one stream: nothing gets out of step.
    let mut stream = dialect.noop([0, 0]);
    stream.extend(dialect.message([0, 0], &control.new_put(100)));
    if dialect.version >= 3 {
        stream.extend(dialect.noop([0, PING]));
        stream.extend(dialect.noop([0, PING]));
    }
    let ping = control.new_ping(0x0123_4567_89ab_cdef);
    stream.extend(dialect.message([0, 0], &ping));
    stream.extend(dialect.noop([0, 0]));
    match pause {
        Some(pause) => control.conn.dribble(&stream, pause)?,
        None => control.conn.send(&stream)?,
    }
    control
        .receive_message()
        .context("no answer to the ping")?
        .check_pong(&ping)?;
    let burst: Vec<u8> = (1..=50)
        .flat_map(|handle| dialect.message([0, 0], &control.new_ping(handle)))
        .collect();
    control.conn.send(&burst)?;
    for handle in 1..=50 {
        let pong = control.receive_message()?;
        pong.check_pong(&control.new_ping(handle))?;
    }

    // A message that the script must keep until it is told that it has arrived: on the connection
    // by which it came, which is the node's for that; in version 2, anywhere.
    let put = bulk_out.new_put(16384);
    bulk_out.send([2, 0], &put)?;
    let told = if dialect.version >= 3 {
        &mut *bulk_out
    } else {
        &mut *control
    };
    match told.receive()? {
        Frame::Noop([0, 2]) => {}
        other => anyhow::bail!("not told that it has arrived: {other:x?}"),
    }
    // And the other way a NOOP is nothing but a NOOP.
    bulk_in.conn.send(&dialect.noop([0, 0]))?;
    control.ping(9)
}

/// The next connection, and the greeting on it.
fn accept(listener: &Listener, limit: Duration) -> Result<(peer::Conn, modern::Hello)> {
    let mut conn = listener.accept_request(limit)?;
    let hello = modern::Hello::receive(&mut conn)?;
    Ok((conn, hello))
}

/// The node connects to a script that answers as a node of Lustre does, in either byte order: the
/// script compares each byte.
pub fn passive(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let listener = Listener::new(&script.space, script.addr)?;
    // So long what it has made counts as just made.
    set("accept_timeout", 3600)?;
    for dialect in dialects() {
        set("protocol", dialect.version)?;
        node.ni_add()?;
        node.peer_add(script)?;
        for pause in [None, Some(Duration::from_millis(1))] {
            listen(node, script, &listener, dialect, pause)
                .with_context(|| format!("{dialect:?}, pause {pause:?}"))?;
        }
        node.ni_del()?;
    }
    Ok(())
}

/// A whole conversation over connections that the node makes; what the script says comes in pieces, if
/// there is a pause.
fn listen(
    node: &Node,
    script: &Node,
    listener: &Listener,
    dialect: Dialect,
    pause: Option<Duration>,
) -> Result<()> {
    let ping = node.start_ping(script)?;
    let mut links = Vec::new();
    for conn_type in TYPES {
        let (conn, hello) = accept(listener, LIMIT)?;
        ensure!(
            hello.dialect.version == dialect.version && hello.conn_type == conn_type,
            "not what comes now: {hello:x?}"
        );
        ensure!(
            hello.dest == nid(script.addr),
            "not for the script: {hello:x?}"
        );
        let mut link = Link::accept_in_pieces(conn, &hello, dialect.order, pause)?;
        if conn_type == CONTROL {
            let request = link.receive_message()?;
            ensure!(
                request.kind == GET && request.length == 0,
                "no ping: {request:x?}"
            );
            ensure!(
                (request.dest, request.src) == (nid(script.addr), nid(node.addr)),
                "wrong NIDs: {request:x?}"
            );
            let mut reply = dialect.noop([0, 0]);
            reply.extend(dialect.message([0, 0], &request.reply(pong(script.addr))));
            match pause {
                Some(pause) => link.conn.dribble(&reply, pause)?,
                None => link.conn.send(&reply)?,
            }
        }
        links.push(link);
    }
    ping.wait(LIMIT)?.checked("ping")?;
    crossing(node, script, dialect)?;
    all_speak(node, script, dialect.version)?;
    // The other way, over the connections that it has made.
    links[0].ping(77)?;
    let put = links[1].new_put(20_000);
    // In the script's view the second one is for what it sends.
    ensure!(links[1].conn_type == BULK_OUT, "types are not inverted");
    links[1].send([2, 0], &put)?;
    let told = links[usize::from(dialect.version >= 3)].receive()?;
    ensure!(told.acknowledges() == [2], "not told: {told:x?}");
    node.close_conns()?;
    for link in &mut links {
        link.conn.await_closed(LIMIT)?;
    }
    Ok(())
}

/// An attempt in another version than that of the connections which the node has just made is one that
/// they have crossed: it is refused, and they stay.
fn crossing(node: &Node, script: &Node, dialect: Dialect) -> Result<()> {
    // Who knows versions 3 and 4 takes both.
    let newest = if dialect.version >= 3 {
        4
    } else {
        dialect.version
    };
    let oldest = if family::is_ipv6() { 4 } else { 2 };
    for version in oldest..=newest {
        if version == dialect.version {
            continue;
        }
        let other = Dialect { version, ..dialect };
        let mut conn = peer::Conn::dial(&script.space, script.addr, node.addr)?;
        conn.send(&other.request(1, nid(node.addr)))?;
        conn.send(&modern::Hello::new(other, script.addr, node.addr, CONTROL).bytes())?;
        let refusal = modern::Hello::receive(&mut conn)?;
        ensure!(
            refusal.conn_type == NONE && refusal.dialect.version == version,
            "no refusal: {refusal:x?}"
        );
        conn.await_closed(LIMIT)?;
    }
    let there = node.conns_to(script)?.len();
    ensure!(there == TYPES.len(), "{there} connections are left");
    Ok(())
}

/// A peer that only speaks an older version, or prefers another one, refuses with that version: the
/// node connects again at once in that version, uses it as long as there are connections, and then
/// begins with its own.
pub fn older_peers(lab: &mut Lab) -> Result<()> {
    for name in ["max_reconnectms", "min_reconnectms"] {
        set(name, LONG_WAIT.as_millis())?;
    }
    let (node, script) = (lab.node(0), lab.node(1));
    let listener = Listener::new(&script.space, script.addr)?;
    node.ni_add()?;
    node.peer_add(script)?;
    for version in [2, 4, 1, 2] {
        let mut conns = older_peer(node, script, &listener, version)
            .with_context(|| format!("version {version}"))?;
        // One that can send is lost last. Before that it does not connect again, and then not by itself.
        for index in [1, 0, 0] {
            drop(conns.remove(index));
            wait::until(LIMIT, "one connection less", || {
                let left = node.conns_to(script)?.len();
                ensure!(left == conns.len(), "{left} are left");
                Ok(())
            })?;
        }
    }
    let failures = node.counter("/errors/connect")?;
    ensure!(failures == 0, "{failures} failures were counted");
    Ok(())
}

/// The peer refuses the first attempt, and names a version. Returns the connections that are made then.
fn older_peer(
    node: &Node,
    script: &Node,
    listener: &Listener,
    version: u32,
) -> Result<Vec<peer::Conn>> {
    let ping = node.start_ping(script)?;
    let (mut conn, hello) = accept(listener, LIMIT).context("the first attempt")?;
    ensure!(
        hello.dialect.version == 3 && hello.conn_type == CONTROL,
        "not a fresh start: {hello:x?}"
    );
    let dialect = Dialect {
        version,
        order: Order::Little,
    };
    if version == 1 {
        conn.send(&Hello::new(script.addr, node.addr, NONE).bytes())?;
    } else {
        // By custom it is addressed to its sender.
        conn.send(&modern::Hello::new(dialect, script.addr, script.addr, NONE).bytes())?;
    }
    let refused = Instant::now();
    drop(conn);
    let mut conns = Vec::new();
    for conn_type in TYPES {
        if version == 1 {
            let mut conn = listener.accept_request(LIMIT)?;
            let hello = conn.receive_hello()?;
            ensure!(hello.conn_type == conn_type, "wrong type: {hello:x?}");
            conn.send(&Hello::new(script.addr, node.addr, peer::inverse(conn_type)).bytes())?;
            if conn_type == CONTROL {
                let request = conn.receive_message()?;
                conn.send(&request.reply(pong(script.addr)).bytes())?;
            }
            conns.push(conn);
        } else {
            let (conn, hello) = accept(listener, LIMIT)?;
            ensure!(
                hello.dialect.version == version && hello.conn_type == conn_type,
                "not what comes now: {hello:x?}"
            );
            let mut link = Link::accept(conn, &hello, Order::Little)?;
            if conn_type == CONTROL {
                let request = link.receive_message()?;
                link.send([0, 0], &request.reply(pong(script.addr)))?;
            }
            conns.push(link.conn);
        }
        if conn_type == CONTROL {
            let took = refused.elapsed();
            let limit = pace::stretched(WITHOUT_WAIT);
            ensure!(took < limit, "came back only after {took:?}");
        }
    }
    ping.wait(LIMIT)?.checked("ping")?;
    all_speak(node, script, version)?;
    Ok(conns)
}

/// A peer that always asks for another version than the one offered, or for an unknown one: the
/// interval between attempts grows.
pub fn changing_versions(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let listener = Listener::new(&script.space, script.addr)?;
    node.ni_add()?;
    node.peer_add(script)?;
    for unknown in [false, true] {
        let started = Instant::now();
        let mut attempts: u64 = 0;
        // Somebody who wants something of it all the time.
        let mut ping = node.start(&["ping", "-W", "2", &script.nid()])?;
        while started.elapsed() < Duration::from_secs(5) || attempts < 2 {
            let limit = pace::stretched(LIMIT);
            ensure!(started.elapsed() < limit, "{attempts} attempts only");
            if !ping.running()? {
                let output = ping.wait(LIMIT)?;
                ensure!(!output.status.success(), "it succeeded: {}", output.stdout);
                ping = node.start(&["ping", "-W", "2", &script.nid()])?;
            }
            let Ok((mut conn, hello)) = accept(&listener, Duration::from_millis(200)) else {
                continue;
            };
            attempts += 1;
            let version = match hello.dialect.version {
                _ if unknown => 5,
                2 => 3,
                _ => 2,
            };
            let dialect = Dialect {
                version,
                order: Order::Little,
            };
            conn.send(&modern::Hello::new(dialect, script.addr, node.addr, NONE).bytes())?;
            conn.await_closed(LIMIT)?;
        }
        ping.kill();
        note(&format!("unknown: {unknown}: {attempts} attempts"));
        let time = started.elapsed().as_secs();
        ensure!(attempts <= time + 2, "{attempts} attempts in {time} s");
        node.socklctl(&["peer", "del", "any"])?;
        node.peer_add(script)?;
    }
    Ok(())
}

/// Many messages wait to be acknowledged: each is acknowledged exactly once, in the forms of the
/// version and on its connection for acknowledgements, also if that is opened only later.
pub fn acknowledgements(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    for dialect in dialects() {
        told_of_all(node, script, dialect).with_context(|| format!("{dialect:?}"))?;
        node.close_conns()?;
        wait::until(LIMIT, "connections forgotten", || no_conns(node, script))?;
    }
    // If it may wait behind messages, it goes with one that goes anyway.
    set("nonblk_zcack", 0)?;
    for dialect in dialects() {
        let mut control = Link::dial(&script.space, script.addr, node, dialect, CONTROL)?;
        let ping = control.new_ping(5);
        control.send([40, 0], &ping)?;
        let (mut pong, mut told) = (false, false);
        while !(pong && told) {
            let frame = control.receive()?;
            for cookie in frame.acknowledges() {
                ensure!(cookie == 40 && !told, "told of {cookie}");
                told = true;
            }
            if let Frame::Message { message, .. } = frame {
                message.check_pong(&ping)?;
                pong = true;
            }
        }
        control.ping(6)?;
        if dialect.version >= 3 {
            // But not what the peer has passed on for another: that waits for its own connection.
            let mut put = control.new_put(10);
            put.src |= 9 << 32;
            control.send([41, 0], &put)?;
            control.ping(7)?;
            let mut link = Link::dial(&script.space, script.addr, node, dialect, BULK_OUT)?;
            let told = link.receive()?;
            ensure!(told.acknowledges() == [41], "not told: {told:x?}");
        }
        node.close_conns()?;
        wait::until(LIMIT, "connections forgotten", || no_conns(node, script))?;
    }
    Ok(())
}

fn told_of_all(node: &Node, script: &Node, dialect: Dialect) -> Result<()> {
    let dial = |conn_type| Link::dial(&script.space, script.addr, node, dialect, conn_type);
    let mut control = dial(CONTROL)?;
    // Of every size, wanted and unwanted, with gaps and, on one connection, out of order.
    let cookies = [2, 3, 4, 8, 7, 12, 11, 10, 20, u64::MAX - 1, u64::MAX];
    let mut due: BTreeSet<u64> = BTreeSet::new();
    let mut stream = Vec::new();
    for (length, cookie) in cookies.into_iter().enumerate() {
        due.insert(cookie);
        stream.extend(dialect.message([cookie, 0], &control.new_put(length * 100)));
    }
    stream.extend(dialect.message([50, 0], &control.new_ping(1)));
    due.insert(50);
    control.conn.send(&stream)?;
    let mut pong = false;
    let mut link = control;
    if dialect.version >= 3 {
        // Nothing but the answer comes here: there is no connection for the rest yet.
        link.receive_message()?.check_pong(&link.new_ping(1))?;
        pong = true;
        link.ping(2)?;
        link = dial(BULK_OUT)?;
    }
    let mut frames = 0;
    while !due.is_empty() || !pong {
        let frame = link.receive().with_context(|| format!("left: {due:x?}"))?;
        frames += 1;
        for cookie in frame.acknowledges() {
            ensure!(due.remove(&cookie), "told of {cookie:#x} for no reason");
        }
        match frame {
            Frame::Noop([first, _]) => ensure!(
                dialect.version >= 3 || first == 0,
                "a form that version 2 has not: {frame:x?}"
            ),
            Frame::Message { message, .. } => {
                ensure!(!pong, "a second answer: {message:x?}");
                message.check_pong(&link.new_ping(1))?;
                pong = true;
            }
        }
    }
    // They went together where that is possible: 2 to 4, 7 and 8, 10 to 12, the last two, 20 and 50.
    if dialect.version >= 3 {
        ensure!(frames <= 6, "{frames} messages for what fits into five");
    }
    // Afterwards a cookie may come again, and more of them than can be remembered, one at a time.
    for cookie in (2..200).step_by(2) {
        link.send([cookie, 0], &link.new_put(10))?;
        let frame = link.receive()?;
        ensure!(frame.acknowledges() == [cookie], "told of {frame:x?}");
    }
    Ok(())
}

/// Version 2 has checksums: those of the peer are verified, in pieces of any size, and ours are
/// right.
pub fn checksums(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let pause = Duration::from_millis(1);
    for order in [Order::Little, Order::Big] {
        let dialect = Dialect { version: 2, order };
        let dial = || Link::dial(&script.space, script.addr, node, dialect, CONTROL);
        let mut link = dial()?;
        for handle in 1..4 {
            let ping = link.new_ping(handle);
            let mut stream = dialect.summed([0, 0], &link.new_put(3000 + handle as usize));
            let noop = dialect.noop([0, 0]);
            stream.extend(dialect.header(modern::NOOP, modern::crc32(&noop), [0, 0]));
            stream.extend(dialect.summed([0, 0], &ping));
            if handle == 2 {
                link.conn.dribble(&stream[..200], pause)?;
                link.conn.send(&stream[200..stream.len() - 130])?;
                link.conn.dribble(&stream[stream.len() - 130..], pause)?;
            } else {
                link.conn.send(&stream)?;
            }
            link.receive_message()?.check_pong(&ping)?;
        }
        set("enable_csum", 1)?;
        let ping = link.new_ping(9);
        link.send([0, 0], &ping)?;
        let (frame, summed) = link.receive_summed()?;
        ensure!(summed, "no checksum in {frame:x?}");
        link.send([2, 0], &link.new_put(5))?;
        let (frame, summed) = link.receive_summed()?;
        ensure!(
            summed && frame.acknowledges() == [2],
            "no checksum in {frame:x?}"
        );
        set("enable_csum", 0)?;
        link.conn.reset()?;
        wait::until(LIMIT, "connection forgotten", || no_conns(node, script))?;

        // One bit anywhere, and the connection is closed, with nothing answered.
        let good = dialect.summed([0, 0], &Message::ping(script.addr, node.addr, 1));
        for at in [4, 8, 16, 24, 60, 72, 95] {
            let mut link = dial()?;
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            link.conn.send(&bytes)?;
            let (got, _) = link
                .conn
                .await_closed(LIMIT)
                .with_context(|| format!("byte {at}"))?;
            ensure!(got.is_empty(), "byte {at}: it answered {got:02x?}");
            wait::until(LIMIT, "connection forgotten", || no_conns(node, script))?;
        }
        let mut link = dial()?;
        link.conn.send(&dialect.header(modern::NOOP, 1, [0, 0]))?;
        link.conn.await_closed(LIMIT).context("a NOOP")?;
        wait::until(LIMIT, "connection forgotten", || no_conns(node, script))?;
    }

    // Between real nodes, with large messages both ways.
    set("enable_csum", 1)?;
    set("protocol", 2)?;
    node.ni_del()?;
    lab.connect(2)?;
    let _service = script.serve()?;
    for op in [Op::Put, Op::Get] {
        let bench = Bench {
            op,
            size: 200_000,
            count: 50,
            in_flight: 4,
            limit: LIMIT,
        };
        node.bench(script, &bench)?;
    }
    all_speak(node, script, 2)
}

/// A peer that has been silent for some time is sent a keepalive message, on the connection for
/// acknowledgements and not too often. One whose version has none gets none.
pub fn keepalive_messages(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    set("keepalive", 1)?;
    // So that the node looks at each of its busy peers once a second.
    set("sock_timeout", 4)?;
    node.ni_add()?;
    for dialect in dialects() {
        let dial = |conn_type| Link::dial(&script.space, script.addr, node, dialect, conn_type);
        let mut control = dial(CONTROL)?;
        let mut bulk_out = dial(BULK_OUT)?;
        control.ping(1)?;
        let started = Instant::now();
        if dialect.version >= 3 {
            bulk_out.receive_sign_of_life()?;
            note(&format!(
                "{dialect:?}: after {:.1} s",
                started.elapsed().as_secs_f64()
            ));
        }
        // Nothing else, and no second one soon.
        let told = Instant::now();
        wait::quiet_time(Duration::from_secs(3));
        control.ping(2)?;
        bulk_out.send([0, 0], &bulk_out.new_put(10))?;
        node.close_conns()?;
        for link in [&mut control, &mut bulk_out] {
            let (got, _) = link.conn.await_closed(LIMIT)?;
            let is_late = dialect.version >= 3 && told.elapsed() >= PAUSE;
            ensure!(
                got.is_empty() || is_late,
                "{dialect:?}: it also said {got:02x?}"
            );
        }
        wait::until(LIMIT, "connections forgotten", || no_conns(node, script))?;
    }
    Ok(())
}

/// Two real nodes of different versions, each of which is restarted with another version: they
/// agree on the newest version that both speak, or on the one of the node that connects.
pub fn mixed(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    let bench = |op| Bench {
        op,
        size: 40_000,
        count: 20,
        in_flight: 4,
        limit: LIMIT,
    };
    let start = |node: &Node, other: &Node, version: u32| -> Result<()> {
        if node.stats()?.is_some() {
            node.ni_del()?;
        }
        set("protocol", version)?;
        node.ni_add()?;
        node.peer_add(other)
    };
    start(two, one, 3)?;
    for (here, there) in [
        (3, 3),
        (1, 3),
        (1, 1),
        (3, 1),
        (2, 1),
        (2, 2),
        (2, 3),
        (3, 3),
        (3, 2),
        (1, 2),
        (4, 2),
        (4, 4),
        (4, 1),
        (3, 1),
        (3, 4),
        (4, 3),
    ] {
        // Connections of before are lost, and the other side has to notice that by itself.
        start(one, two, here)?;
        start(two, one, there)?;
        let what = format!("versions {here} and {there}");
        for (from, to, first) in [(one, two, here), (two, one, there)] {
            disconnect(one, two)?;
            wait::until(LIMIT, "ping", || from.ping(to).map(drop)).context(what.clone())?;
            wait::until(LIMIT, "one connection of each type", || {
                one_of_each(one, two)
            })
            .context(what.clone())?;
            // Who knows versions 3 and 4 takes both.
            let limit = |version| if version >= 3 { 4 } else { version };
            let spoken = first.min(limit(here)).min(limit(there));
            all_speak(from, to, spoken).context(what.clone())?;
            let service = to.serve()?;
            for op in [Op::Put, Op::Get] {
                from.bench(to, &bench(op)).context(what.clone())?;
            }
            drop(service);
        }
        // Both at once.
        for round in 0..3 {
            disconnect(one, two)?;
            both_ping(one, two).with_context(|| format!("{what}, round {round}"))?;
            wait::until(LIMIT, "one connection of each type", || {
                one_of_each(one, two)
            })
            .with_context(|| format!("{what}, round {round}"))?;
        }
    }
    Ok(())
}
