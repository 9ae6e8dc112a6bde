// SPDX-License-Identifier: GPL-2.0

//! Peers that violate the protocol are refused, and others are not affected.

use std::fs;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::bystander::Bystander;
use super::versions::set;
use crate::family;
use crate::lab::Lab;
use crate::modern::{self, Dialect, Order};
use crate::node::Node;
use crate::pace;
use crate::peer::{
    self, ACCEPTOR_MAGIC, ACK, ANY, CONTROL, Conn, GET, HELLO_MAGIC, Hello, LNET_MAGIC, Message,
    NONE, PUT, REPLY, nid, request, short_request,
};
use crate::port::note;
use crate::wait;

/// Who sends something wrong loses the connection at once, that is, in this time. Nothing is closed
/// because its time is up: see [`no_deadlines`].
const AT_ONCE: Duration = Duration::from_secs(20);
/// In this time the module has let go of a connection that has ended.
const SOON: Duration = Duration::from_secs(20);
/// What the module gives a stranger for its whole handshake, in seconds.
const HANDSHAKE: u64 = 5;
/// What may come on top of that.
const SLACK: Duration = Duration::from_secs(12);
/// Handshakes of strangers that an NI has under way at most.
const MAX_PENDING: u64 = 64;

const LITTLE: Dialect = Dialect {
    version: 3,
    order: Order::Little,
};

/// What must come back before the connection is closed.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    /// Not a byte.
    Nothing,
    /// The request's magic, the version that is named whatever is spoken, and zeros.
    OtherRequest,
    /// A greeting of the newest version that refuses, and is addressed to its sender.
    RefusingHello,
}

/// Sends bytes over a new connection and checks the answer and the end.
fn expect_closed(node: &Node, script: &Node, bytes: &[u8], answer: Answer) -> Result<()> {
    let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
    conn.send(bytes)?;
    let (got, _) = conn.await_closed(AT_ONCE)?;
    match answer {
        Answer::Nothing => ensure!(got.is_empty(), "it answered {got:02x?}"),
        Answer::OtherRequest => ensure!(
            got == short_request(ACCEPTOR_MAGIC, 1, 0),
            "it answered {got:02x?}"
        ),
        Answer::RefusingHello => {
            let (newest, _) = family::newest();
            let length = if newest == 4 { 80 } else { 56 };
            ensure!(got.len() == length, "no greeting: {got:02x?}");
            let hello = modern::Hello::parse(&got)?;
            let me = nid(node.addr);
            ensure!(
                (hello.dialect.version, hello.conn_type) == (newest, NONE)
                    && (hello.src, hello.dest) == (me, me),
                "no refusal: {hello:x?}"
            );
        }
    }
    Ok(())
}

/// Has no connection closed because its time is up, neither in its handshake nor in a message, so that it
/// must be for what was sent.
pub fn no_deadlines() -> Result<()> {
    set("accept_timeout", 3600)?;
    set("sock_timeout", 86_400)
}

/// Sets how long a handshake may take, by the pace of this guest; gives that time.
fn limit_handshakes() -> Result<Duration> {
    let seconds = pace::scaled(HANDSHAKE);
    set("accept_timeout", seconds)?;
    Ok(Duration::from_secs(seconds))
}

fn good_request(node: &Node) -> Vec<u8> {
    request(ACCEPTOR_MAGIC, 1, nid(node.addr))
}

/// A conversation with each byte in a segment of its own has the same result.
pub fn byte_by_byte(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let pause = Duration::from_millis(2);
    for (conn_type, ips) in [
        (CONTROL, &[][..]),
        (ANY, &[u32::from(script.addr), 0x0a00_0163]),
    ] {
        let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
        conn.dribble(&good_request(node), pause)?;
        conn.dribble(
            &Hello::new(script.addr, node.addr, conn_type)
                .with_ips(ips)
                .bytes(),
            pause,
        )?;
        conn.expect_hello(conn_type)?;
        // A message that nobody wants: its payload is skipped, and what follows is still understood.
        conn.dribble(
            &Message::put(script.addr, node.addr, 7, 0x1234, vec![0xa5; 100]).bytes(),
            pause,
        )?;
        let ping = Message::ping(script.addr, node.addr, 0x0123_4567_89ab_cdef);
        conn.dribble(&ping.bytes(), pause)?;
        conn.receive_message()
            .context("no answer to the ping")?
            .check_pong(&ping)?;
        // And everything at once.
        let burst: Vec<u8> = (1..=50)
            .flat_map(|handle| Message::ping(script.addr, node.addr, handle).bytes())
            .collect();
        conn.send(&burst)?;
        for handle in 1..=50 {
            let pong = conn.receive_message()?;
            pong.check_pong(&Message::ping(script.addr, node.addr, handle))?;
        }
        // The same connection type again from the same place would be a duplicate.
        conn.reset()?;
        wait::until(SOON, "reset noticed", || no_conns(node, script))?;
    }
    Ok(())
}

fn no_conns(node: &Node, script: &Node) -> Result<()> {
    let conns = node.conns_to(script)?;
    ensure!(conns.is_empty(), "{} connections are left", conns.len());
    Ok(())
}

/// HELLOs and requests of other versions are answered with the version that this node speaks.
pub fn foreign_versions(lab: &mut Lab) -> Result<()> {
    no_deadlines()?;
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    for order in [Order::Little, Order::Big] {
        for version in [0, 1, 5, 0x100, u32::MAX] {
            let dialect = Dialect { version, order };
            let hello = modern::Hello::new(dialect, script.addr, node.addr, CONTROL).bytes();
            let what = format!("greeting of version {version:#x}, {order:?}");
            expect_closed(
                node,
                script,
                &[good_request(node), hello.clone()].concat(),
                Answer::RefusingHello,
            )
            .context(what.clone())?;
            // Without a request before it, it may be a future acceptor's.
            expect_closed(node, script, &hello, Answer::OtherRequest)
                .with_context(|| format!("{what}, no request"))?;
        }
    }
    for version in [0, 3, 4, 0x100, u32::MAX] {
        expect_closed(
            node,
            script,
            &short_request(ACCEPTOR_MAGIC, version, nid(node.addr)),
            Answer::OtherRequest,
        )
        .with_context(|| format!("request of version {version:#x}"))?;
    }
    expect_closed(
        node,
        script,
        &short_request(LNET_MAGIC, 1, nid(node.addr)),
        Answer::OtherRequest,
    )
    .context("request with the common magic")?;
    if family::is_ipv6() {
        return Ok(());
    }
    for (major, minor) in [(2, 0), (1, 1), (0, 0), (u16::MAX, u16::MAX)] {
        let hello = Hello {
            major,
            minor,
            ..Hello::new(script.addr, node.addr, CONTROL)
        };
        expect_closed(
            node,
            script,
            &[good_request(node), hello.bytes()].concat(),
            Answer::RefusingHello,
        )
        .with_context(|| format!("greeting of version {major}.{minor}"))?;
    }
    // A request from a machine of the other byte order is none of these.
    let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
    let mut swapped = Vec::new();
    swapped.extend(ACCEPTOR_MAGIC.to_be_bytes());
    swapped.extend(1_u32.to_be_bytes());
    swapped.extend(nid(node.addr).to_be_bytes());
    conn.send(&swapped)?;
    conn.send(&Hello::new(script.addr, node.addr, CONTROL).bytes())?;
    conn.expect_hello(CONTROL)?;
    conn.ping(5)
}

/// Acceptor requests that are malformed or name another node.
pub fn wrong_requests(lab: &mut Lab) -> Result<()> {
    no_deadlines()?;
    let bystander = Bystander::start(lab)?;
    let (node, script) = (lab.node(0), lab.node(2));
    let me = nid(node.addr);
    let mut cases = vec![
        ("no magic", request(0, 1, me)),
        ("all ones", vec![0xff; 16]),
        ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        (
            "tls",
            [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0].to_vec(),
        ),
        (
            "another node's NID",
            request(ACCEPTOR_MAGIC, 1, nid(lab.node(1).addr)),
        ),
        (
            "another network's NID",
            request(ACCEPTOR_MAGIC, 1, me | 1 << 32),
        ),
        (
            "a NID of another kind of network",
            request(ACCEPTOR_MAGIC, 1, me & 0xffff_ffff | 5 << 48),
        ),
        ("no NID", request(ACCEPTOR_MAGIC, 1, 0)),
        ("any NID", request(ACCEPTOR_MAGIC, 1, u64::MAX)),
        ("swapped NID", request(ACCEPTOR_MAGIC, 1, me.swap_bytes())),
    ];
    let long = |target: u64| Dialect::request(LITTLE, 2, target);
    let spoilt = |at: usize, byte: u8| {
        let mut bytes = long(me);
        bytes[at] = byte;
        bytes
    };
    let other_size = if family::is_ipv6() { 0 } else { 12 };
    cases.extend([
        ("another node's long NID", long(nid(lab.node(1).addr))),
        ("a long NID of no size", spoilt(8, 255)),
        ("a long NID of an odd size", spoilt(8, 11)),
        ("a long NID of the other family", spoilt(8, other_size)),
        ("any long NID", spoilt(9, 255)),
        ("a long NID with garbage", spoilt(27, 99)),
    ]);
    if family::is_ipv6() {
        let short = short_request(ACCEPTOR_MAGIC, 1, me);
        cases.push(("a NID of IPv4", short));
    }
    let twice = [good_request(node), good_request(node)].concat();
    cases.push(("two requests", twice));
    for (what, bytes) in &cases {
        expect_closed(node, script, bytes, Answer::Nothing).context(*what)?;
    }
    bystander.unharmed(lab)
}

/// HELLOs with one wrong field each.
pub fn wrong_hellos(lab: &mut Lab) -> Result<()> {
    no_deadlines()?;
    // Also others in the same subnet are not believed.
    set("check_nid", 2)?;
    let bystander = Bystander::start(lab)?;
    let (node, script) = (lab.node(0), lab.node(2));
    let good = Hello::new(script.addr, node.addr, CONTROL);
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for magic in [
        0,
        1,
        u32::MAX,
        HELLO_MAGIC ^ 1,
        HELLO_MAGIC.swap_bytes(),
        ACCEPTOR_MAGIC,
    ] {
        cases.push((
            format!("magic {magic:#x}"),
            Hello {
                magic,
                ..good.clone()
            }
            .bytes(),
        ));
    }
    for kind in [0, 1, 2, 3, 5, 0x0400_0000, u32::MAX] {
        cases.push((
            format!("type {kind:#x}"),
            Hello {
                kind,
                ..good.clone()
            }
            .bytes(),
        ));
    }
    for length in [
        1,
        2,
        3,
        5,
        63,
        65,
        68,
        0x44,
        0x1000,
        0x7fff_fffc,
        0x8000_0000,
        0xffff_fffc,
        u32::MAX,
    ] {
        let mut bytes = Hello {
            length,
            ..good.clone()
        }
        .bytes();
        bytes.extend([1; 128]);
        cases.push((format!("length {length:#x}"), bytes));
    }
    cases.push((
        "an address of zero".to_owned(),
        good.clone().with_ips(&[1, 2, 0, 4]).bytes(),
    ));
    for conn_type in [4, 5, 0x0100_0000, 0x7fff_ffff, u32::MAX - 1, NONE] {
        cases.push((
            format!("type of connection {conn_type:#x}"),
            Hello {
                conn_type,
                ..good.clone()
            }
            .bytes(),
        ));
    }
    let other = nid(lab.node(1).addr);
    let wrong_nids = [
        ("no NID", 0),
        ("any NID", u64::MAX),
        ("the node's own NID", nid(node.addr)),
        ("a real peer's NID", other),
        ("a NID of another network", good.src | 9 << 32),
        (
            "a NID of another kind of network",
            good.src & 0xffff_ffff | 7 << 48,
        ),
        ("a NID with address zero", 2 << 48),
        ("a NID with the broadcast address", 2 << 48 | 0xffff_ffff),
    ];
    for (what, src) in wrong_nids {
        cases.push((
            what.to_owned(),
            Hello {
                src,
                ..good.clone()
            }
            .bytes(),
        ));
        // With a newer incarnation a forged greeting would close a real peer's connections.
        cases.push((
            format!("{what}, restarted"),
            Hello {
                src,
                incarnation: u64::MAX,
                ..good.clone()
            }
            .bytes(),
        ));
    }
    for (what, hello) in &cases {
        let answered = hello_refused(node, script, hello).with_context(|| what.clone())?;
        if answered {
            note(&format!("{what}: refused by a greeting"));
        }
    }
    bystander.unharmed(lab)
}

/// A wrong greeting may be answered by nothing or by a refusal. Says whether it was the latter.
fn hello_refused(node: &Node, script: &Node, hello: &[u8]) -> Result<bool> {
    let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
    conn.send(&[good_request(node), hello.to_vec()].concat())?;
    let (got, _) = conn.await_closed(AT_ONCE)?;
    if got.is_empty() {
        return Ok(false);
    }
    let bytes = got
        .as_slice()
        .try_into()
        .with_context(|| format!("no greeting: {got:02x?}"))?;
    let answer = Hello::parse(bytes)?;
    ensure!(answer.conn_type == NONE, "it was accepted: {answer:x?}");
    Ok(true)
}

/// Messages with one wrong field each, over a valid connection.
pub fn wrong_messages(lab: &mut Lab) -> Result<()> {
    no_deadlines()?;
    let bystander = Bystander::start(lab)?;
    let (node, script) = (lab.node(0), lab.node(2));
    let (from, to) = (script.addr, node.addr);
    let put = Message::put(from, to, 1, 1, vec![0x5a; 64]);
    let ping = Message::ping(from, to, 9);
    let spoil = |message: &Message, change: &dyn Fn(&mut Message)| {
        let mut spoilt = message.clone();
        change(&mut spoilt);
        spoilt.bytes()
    };

    // These can't be anything but wrong: the connection must be closed.
    let mut fatal: Vec<(String, Vec<u8>)> = Vec::new();
    for kind in [4, 5, 0xc0, 0xc1, 0x0100_0000, u32::MAX] {
        fatal.push((
            format!("type {kind:#x}"),
            spoil(&put, &|message| message.kind = kind),
        ));
    }
    for length in [
        (1 << 20) + 1,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ff00,
        u32::MAX,
    ] {
        for kind in [PUT, REPLY] {
            let what = format!("type {kind} with length {length:#x}");
            fatal.push((
                what,
                spoil(&put, &|message| {
                    (message.kind, message.length) = (kind, length)
                }),
            ));
        }
    }
    for kind in [ACK, GET] {
        for length in [1, 64, 1 << 20, u32::MAX] {
            let what = format!("type {kind} with a payload of {length:#x}");
            fatal.push((
                what,
                spoil(&put, &|message| {
                    (message.kind, message.length) = (kind, length)
                }),
            ));
        }
    }
    fatal.push((
        "a greeting as a message".to_owned(),
        Hello::new(from, to, CONTROL).bytes(),
    ));
    for (what, bytes) in &fatal {
        let mut conn = Conn::greeted(&script.space, from, node, CONTROL)
            .with_context(|| format!("before {what}"))?;
        conn.send(bytes).context(what.clone())?;
        let (got, _) = conn.await_closed(AT_ONCE).context(what.clone())?;
        ensure!(got.is_empty(), "{what}: it answered {got:02x?}");
        wait::until(SOON, "connection forgotten", || no_conns(node, script))?;
    }

    // These are odd. If what they carry is only unwanted, the connection goes on to work. Else it may
    // be closed as well.
    let elsewhere = nid(lab.node(1).addr);
    let odd: Vec<(String, Vec<u8>)> = vec![
        (
            "for another node".to_owned(),
            spoil(&put, &|message| message.dest = elsewhere),
        ),
        (
            "for nobody".to_owned(),
            spoil(&put, &|message| message.dest = 0),
        ),
        (
            "for anybody".to_owned(),
            spoil(&put, &|message| message.dest = u64::MAX),
        ),
        (
            "from another node".to_owned(),
            spoil(&ping, &|message| message.src = elsewhere),
        ),
        (
            "from the node itself".to_owned(),
            spoil(&ping, &|message| message.src = nid(to)),
        ),
        (
            "from nobody".to_owned(),
            spoil(&ping, &|message| message.src = 0),
        ),
        (
            "for another process".to_owned(),
            spoil(&put, &|message| message.dest_pid = 1),
        ),
        (
            "an answer that nobody asked for".to_owned(),
            spoil(&put, &|message| message.kind = REPLY),
        ),
        (
            "an acknowledgement of nothing".to_owned(),
            spoil(&ping, &|message| {
                (message.kind, message.body) = (ACK, [0x77; 40])
            }),
        ),
        (
            "for the last portal".to_owned(),
            Message::put(from, to, u32::MAX, 0, vec![1; 10]).bytes(),
        ),
        (
            "a GET of nothing from the last portal".to_owned(),
            Message::get(from, to, u32::MAX, 0, 3, 0).bytes(),
        ),
        (
            "a ping for an endless answer".to_owned(),
            spoil(&ping, &|message| message.body[32..36].fill(0xff)),
        ),
        (
            "a ping for an answer of one byte".to_owned(),
            spoil(&ping, &|message| {
                message.body[32..36].copy_from_slice(&[1, 0, 0, 0])
            }),
        ),
        (
            "a ping from far inside".to_owned(),
            spoil(&ping, &|message| message.body[28..32].fill(0xff)),
        ),
        (
            "the longest message, unwanted".to_owned(),
            Message::put(from, to, 3, 3, vec![7; 1 << 20]).bytes(),
        ),
        (
            "an empty message, unwanted".to_owned(),
            Message::put(from, to, 3, 3, Vec::new()).bytes(),
        ),
        (
            "an odd length, unwanted".to_owned(),
            Message::put(from, to, 3, 3, vec![7; 4097]).bytes(),
        ),
    ];
    for (what, bytes) in &odd {
        let mut conn = Conn::greeted(&script.space, from, node, CONTROL)
            .with_context(|| format!("before {what}"))?;
        let survived = works_on(&mut conn, bytes).with_context(|| what.clone())?;
        ensure!(
            survived || !what.ends_with("unwanted"),
            "{what}: the connection was closed"
        );
        note(&format!(
            "{what}: {}",
            if survived {
                "ignored or answered"
            } else {
                "closed"
            }
        ));
        conn.reset()?;
        wait::until(SOON, "connection forgotten", || no_conns(node, script))?;
    }
    bystander.unharmed(lab)
}

/// Sends something odd, then a ping: true if it is answered, false if the connection is closed
/// instead. That nothing happens is an error.
fn works_on(conn: &mut Conn, bytes: &[u8]) -> Result<bool> {
    const HANDLE: u64 = 0xfeed;
    let ping = Message::ping(conn.from, conn.to, HANDLE);
    if conn
        .send(bytes)
        .and_then(|()| conn.send(&ping.bytes()))
        .is_err()
    {
        return Ok(false);
    }
    // The odd message may have had an answer of its own.
    for _ in 0..3 {
        match conn.receive_message() {
            Ok(message) if message.body[0..8] == HANDLE.to_le_bytes() => {
                message.check_pong(&ping)?;
                return Ok(true);
            }
            Ok(_) => {}
            Err(why) if conn.is_closed(&why) => return Ok(false),
            Err(why) => return Err(why.context("neither closed nor answered")),
        }
    }
    bail!("three answers, none to the ping")
}

/// A connection from an unprivileged port is refused unless an administrator allows it. With
/// `accept=none` each connection is refused.
pub fn unprivileged_port(lab: &mut Lab) -> Result<()> {
    no_deadlines()?;
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let policy = "/sys/module/ksocklnd/parameters/accept";
    let refused = |port: u16| -> Result<()> {
        // It may be closed before this is sent, and even before the connection is seen to stand.
        let dialled = Conn::dial_from(
            &script.space,
            SocketAddrV4::new(script.addr, port),
            node.addr,
        );
        let Ok(mut conn) = dialled else {
            return Ok(());
        };
        let _ = conn.send(
            &[
                good_request(node),
                Hello::new(script.addr, node.addr, CONTROL).bytes(),
            ]
            .concat(),
        );
        let (got, _) = conn
            .await_closed(AT_ONCE)
            .with_context(|| format!("port {port}"))?;
        ensure!(got.is_empty(), "port {port}: it answered {got:02x?}");
        Ok(())
    };
    for port in [1024, 40000, 65535] {
        refused(port)?;
    }
    fs::write(policy, "none")?;
    for port in [1023, 40000] {
        refused(port)?;
    }
    ensure!(
        fs::read_to_string(policy)?.trim() == "none",
        "accept is not none"
    );
    fs::write(policy, "all")?;
    let mut conn = Conn::dial_from(
        &script.space,
        SocketAddrV4::new(script.addr, 40001),
        node.addr,
    )?;
    conn.send(
        &[
            good_request(node),
            Hello::new(script.addr, node.addr, CONTROL).bytes(),
        ]
        .concat(),
    )?;
    conn.expect_hello(CONTROL)?;
    conn.ping(1)
}

/// Connections that end in the middle of a message: after each byte, by FIN and by RST.
pub fn cut_off(lab: &mut Lab) -> Result<()> {
    no_deadlines()?;
    let bystander = Bystander::start(lab)?;
    let (node, script) = (lab.node(0), lab.node(2));
    let opening = [
        good_request(node),
        Hello::new(script.addr, node.addr, CONTROL)
            .with_ips(&[7, 8])
            .bytes(),
    ]
    .concat();
    for cut in (0..opening.len()).step_by(3) {
        for polite in [true, false] {
            let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
            conn.send(&opening[..cut])?;
            if polite {
                conn.finish()?;
                let (got, _) = conn
                    .await_closed(AT_ONCE)
                    .with_context(|| format!("end after {cut} bytes"))?;
                ensure!(
                    got.is_empty(),
                    "end after {cut} bytes: it answered {got:02x?}"
                );
            } else {
                conn.reset()?;
            }
        }
    }
    // Whole, and gone before the answer: nothing stays that was made for it.
    for _ in 0..100 {
        let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
        conn.send(&opening)?;
        conn.reset()?;
    }
    wait::until(SOON, "no handshakes left", || no_handshakes(node))?;
    wait::until(SOON, "peer forgotten", || {
        no_conns(node, script)?;
        let peers = node.list(&["peer", "list"])?;
        ensure!(peers.iter().all(|peer| peer["nid"] != script.nid()));
        Ok(())
    })?;

    // After the greeting: in the header, and in the payload.
    let message = Message::put(script.addr, node.addr, 1, 1, vec![3; 5000]).bytes();
    for cut in [1, 8, 71, 72, 73, 1000, 5071] {
        for polite in [true, false] {
            let mut conn = Conn::greeted(&script.space, script.addr, node, CONTROL)?;
            conn.send(&message[..cut])?;
            if polite {
                conn.finish()?;
                conn.await_closed(AT_ONCE)
                    .with_context(|| format!("end after {cut} bytes of a message"))?;
            } else {
                conn.reset()?;
            }
            wait::until(SOON, "connection forgotten", || no_conns(node, script))?;
        }
    }

    // Connections that are gone before anybody looks at them.
    for _ in 0..200 {
        Conn::dial(&script.space, script.addr, node.addr)?.reset()?;
    }
    wait::until(SOON, "no handshakes left", || no_handshakes(node))?;
    bystander.unharmed(lab)
}

fn no_handshakes(node: &Node) -> Result<()> {
    let left = node.counter("/live/handshakes")?;
    ensure!(left == 0, "{left} handshakes are left");
    Ok(())
}

/// Many connections that send nothing are limited in number and time, and a real node connects at
/// once.
pub fn slow_loris(lab: &mut Lab) -> Result<()> {
    let handshake = limit_handshakes()?;
    lab.connect(2)?;
    let (node, real, script) = (lab.node(0), lab.node(1), lab.node(2));
    // Less than what the silent ones have.
    let at_once = handshake * 4 / 5;

    // One attacker.
    let started = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Conn::dial(&script.space, script.addr, node.addr)?);
    }
    real.try_ping(node, at_once)?
        .checked("ping while silent connections are open")?;
    let pending = node.counter("/live/handshakes")?;
    ensure!(pending <= MAX_PENDING, "{pending} handshakes under way");
    await_all_closed(&mut silent, handshake, started)?;
    wait::until(SLACK, "no handshakes left", || no_handshakes(node))?;

    // Attackers with many addresses: the sum is bounded, too.
    let more = lab.node(3);
    let mut sources = vec![(more, more.addr)];
    for last in 100..120_u8 {
        let addr = std::net::Ipv4Addr::new(10, 0, 0, last);
        more.space.ip(&format!("addr add {addr}/24 dev eth0\n"))?;
        sources.push((more, addr));
    }
    let started = Instant::now();
    let mut silent = Vec::new();
    let mut most = 0;
    for round in 0..8 {
        for (owner, addr) in &sources {
            silent.push(Conn::dial(&owner.space, *addr, node.addr)?);
        }
        most = most.max(node.counter("/live/handshakes")?);
        ensure!(
            most <= MAX_PENDING,
            "{most} handshakes under way in round {round}"
        );
    }
    real.close_conns()?;
    let pings = Instant::now();
    let result = wait::until(handshake + SLACK, "a real node gets through", || {
        real.try_ping(node, at_once)?.checked("ping").map(drop)
    });
    note(&format!(
        "at most {most} handshakes; a real node got through after {:.1} s",
        pings.elapsed().as_secs_f64()
    ));
    result?;
    await_all_closed(&mut silent, handshake, started)?;
    wait::until(SLACK, "no handshakes left", || no_handshakes(node))
}

/// Each of them must be closed in time, counted from when the first was opened: those that were
/// accepted later were opened later.
fn await_all_closed(conns: &mut [Conn], handshake: Duration, started: Instant) -> Result<()> {
    let opening = started.elapsed();
    let limit = handshake + SLACK + opening;
    for conn in conns.iter_mut() {
        let left = limit
            .saturating_sub(started.elapsed())
            .max(Duration::from_millis(10));
        let (got, _) = conn.await_closed(left).context("a silent connection")?;
        ensure!(got.is_empty(), "it got {got:02x?}");
    }
    Ok(())
}

/// A handshake of which one byte is sent at a time is ended: the time of the whole handshake is
/// limited.
pub fn dribbling_handshake(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let handshake = limit_handshakes()?;
    node.ni_add()?;
    let started = Instant::now();
    let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
    let bytes = [
        good_request(node),
        Hello::new(script.addr, node.addr, peer::CONTROL).bytes(),
    ]
    .concat();
    let mut sent = 0;
    for byte in &bytes {
        if conn.send(&[*byte]).is_err() {
            break;
        }
        sent += 1;
        wait::quiet_time(handshake / 10);
        ensure!(
            started.elapsed() < handshake + pace::stretched(SLACK),
            "still open after {sent} bytes"
        );
    }
    let took = started.elapsed();
    note(&format!(
        "closed after {sent} bytes and {:.1} s",
        took.as_secs_f64()
    ));
    ensure!(sent < bytes.len(), "it got through");
    ensure!(took > handshake * 4 / 5, "closed too early");
    Ok(())
}
