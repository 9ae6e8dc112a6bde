// SPDX-License-Identifier: GPL-2.0

//! Peers that violate the protocol in versions 2 to 4. They are refused, and others are not affected.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::bystander::Bystander;
use super::hostile::no_deadlines;
use super::versions::set;
use crate::command::Job;
use crate::family;
use crate::lab::Lab;
use crate::modern::{self, Dialect, Frame, Hello, LNET, Link, NOOP, Order, PING, dialects, pong};
use crate::node::Node;
use crate::peer::{ACK, BULK_OUT, CONTROL, Conn, Listener, Message, NONE, nid};
use crate::wait;

/// Who sends something wrong loses the connection in this time, and not because its time is up.
const AT_ONCE: Duration = Duration::from_secs(20);
/// In this time the module has let go of a connection that has ended.
const SOON: Duration = Duration::from_secs(20);

fn no_conns(node: &Node, script: &Node) -> Result<()> {
    let conns = node.conns_to(script)?;
    ensure!(conns.is_empty(), "{} connections are left", conns.len());
    Ok(())
}

/// HELLOs with one wrong field each.
pub fn hellos(lab: &mut Lab) -> Result<()> {
    no_deadlines()?;
    // Also others in the same subnet are not believed.
    set("check_nid", 2)?;
    let bystander = Bystander::start(lab)?;
    let (node, script) = (lab.node(0), lab.node(2));
    let (me, other) = (nid(node.addr), nid(lab.node(1).addr));
    for dialect in dialects() {
        let good = Hello::new(dialect, script.addr, node.addr, CONTROL);
        let with = |change: &dyn Fn(&mut Hello)| {
            let mut hello = good.clone();
            change(&mut hello);
            hello.bytes()
        };
        let mut cases = vec![
            ("for another node", with(&|hello| hello.dest = other)),
            ("for its sender", with(&|hello| hello.dest = good.src)),
            ("for nobody", with(&|hello| hello.dest = 0)),
            ("from nobody", with(&|hello| hello.src = 0)),
            ("from any", with(&|hello| hello.src = u64::MAX)),
            ("from the node itself", with(&|hello| hello.src = me)),
            ("from another node", with(&|hello| hello.src = other)),
            (
                "from another network",
                with(&|hello| hello.src = good.src | 1 << 32),
            ),
            (
                "of another kind of network",
                with(&|hello| hello.src = good.src | 7 << 48),
            ),
            (
                "from another node, restarted",
                with(&|hello| (hello.src, hello.incarnation) = (other, u64::MAX)),
            ),
            ("of type 4", with(&|hello| hello.conn_type = 4)),
            ("of type -2", with(&|hello| hello.conn_type = NONE - 1)),
            ("a refusal", with(&|hello| hello.conn_type = NONE)),
        ];
        if dialect.version < 4 {
            for count in [17, 0xffff, 1 << 30, 0x8000_0000, u32::MAX] {
                let mut bytes = with(&|hello| hello.count = count);
                bytes.extend([1; 128]);
                cases.push(("with too many addresses", bytes));
            }
            let mut zero = with(&|hello| hello.count = 3);
            zero.extend([1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]);
            cases.push(("with an address of zero", zero));
        } else {
            // That of the other family.
            let other_size = if family::is_ipv6() { 0 } else { 12 };
            for at in [8, 28] {
                for (offset, byte) in [
                    (0, 1),
                    (0, 11),
                    (0, other_size),
                    (0, 13),
                    (0, 255),
                    (1, 0),
                    (1, 255),
                    (8, 1),
                    (19, 99),
                ] {
                    let mut bytes = good.bytes();
                    bytes[at + offset] = byte;
                    cases.push(("with a bad long NID", bytes));
                }
            }
        }
        for (what, hello) in &cases {
            let what = || format!("{dialect:?}: {what}: {hello:02x?}");
            let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
            conn.send(&[dialect.request(1, me), hello.clone()].concat())?;
            let (got, _) = conn.await_closed(AT_ONCE).with_context(what)?;
            ensure!(got.is_empty(), "{}: it answered {got:02x?}", what());
        }
        // As many addresses as may be, which nobody sends any more.
        if dialect.version < 4 {
            let mut hello = good.clone();
            hello.ips = (1..=16).collect();
            hello.count = 16;
            let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
            conn.send(&[dialect.request(1, me), hello.bytes()].concat())?;
            Hello::receive(&mut conn)?;
            conn.reset()?;
            wait::until(SOON, "connection forgotten", || no_conns(node, script))?;
        }
        // Ends where none should be.
        let opening = [dialect.request(1, me), good.bytes()].concat();
        for cut in (1..opening.len()).step_by(7) {
            let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
            conn.send(&opening[..cut])?;
            conn.finish()?;
            let (got, _) = conn.await_closed(AT_ONCE)?;
            ensure!(got.is_empty(), "after {cut} bytes it answered {got:02x?}");
        }
    }
    bystander.unharmed(lab)
}

/// Answers to the node's HELLO with one wrong field each, in one piece and byte by byte: the node
/// closes the connection, and connects again for a right answer.
pub fn answers(lab: &mut Lab) -> Result<()> {
    no_deadlines()?;
    let bystander = Bystander::start(lab)?;
    let (node, script) = (lab.node(0), lab.node(2));
    let (me, other) = (nid(node.addr), nid(lab.node(1).addr));
    set("min_reconnectms", 1)?;
    set("max_reconnectms", 1)?;
    let listener = Listener::new(&script.space, script.addr)?;
    node.peer_add(script)?;
    let mut ping = node.start_ping(script)?;
    // Its question fails with the attempt, and is asked again.
    let await_attempt = |ping: &mut Job| {
        wait::until(SOON, "attempt to connect", || {
            if !ping.running()? {
                *ping = node.start_ping(script)?;
            }
            listener.accept_request(Duration::from_millis(100))
        })
    };
    for order in [Order::Little, Order::Big] {
        // As the node begins.
        let (version, _) = family::newest();
        let dialect = Dialect { version, order };
        let good = Hello::new(dialect, script.addr, node.addr, CONTROL);
        let with = |change: &dyn Fn(&mut Hello)| {
            let mut hello = good.clone();
            change(&mut hello);
            hello.bytes()
        };
        let cases = [
            ("for another node", with(&|hello| hello.dest = other)),
            ("for its sender", with(&|hello| hello.dest = good.src)),
            ("for nobody", with(&|hello| hello.dest = 0)),
            ("from nobody", with(&|hello| hello.src = 0)),
            ("from the node itself", with(&|hello| hello.src = me)),
            ("from another node", with(&|hello| hello.src = other)),
            ("of another type", with(&|hello| hello.conn_type = BULK_OUT)),
            ("of no type", with(&|hello| hello.conn_type = 4)),
            ("with another magic", with(&|hello| hello.magic ^= 1)),
            (
                "in another version",
                with(&|hello| hello.dialect.version = 2),
            ),
            ("a refusal", with(&|hello| hello.conn_type = NONE)),
            ("nothing", Vec::new()),
            ("half of one", good.bytes()[..40].to_vec()),
        ];
        for (index, (what, answer)) in cases.iter().enumerate() {
            // Some of them in pieces, too.
            let slowly = (index % 4 == 0).then_some(Some(Duration::from_millis(1)));
            for pause in [None].into_iter().chain(slowly) {
                let what = || format!("{dialect:?}: {what}, pause {pause:?}");
                let mut conn = await_attempt(&mut ping).with_context(what)?;
                let hello = Hello::receive(&mut conn).with_context(what)?;
                ensure!(
                    hello.conn_type == CONTROL && hello.dialect.version == version,
                    "{}: {hello:x?}",
                    what()
                );
                // It may have gone before all of it is out.
                let _ = match pause {
                    Some(pause) => conn.dribble(answer, pause),
                    None => conn.send(answer),
                };
                conn.finish().ok();
                let (got, _) = conn.await_closed(AT_ONCE).with_context(what)?;
                ensure!(got.is_empty(), "{}: it said {got:02x?}", what());
            }
        }
    }
    // After all that the right answer is as good as before.
    let mut links = Vec::new();
    while links.len() < 3 {
        // Once it has its answer, nobody asks again.
        let mut conn = match links.is_empty() {
            true => await_attempt(&mut ping)?,
            false => listener.accept_request(SOON)?,
        };
        let hello = Hello::receive(&mut conn)?;
        let mut link = Link::accept(conn, &hello, Order::Big)?;
        if link.conn_type == CONTROL {
            let request = link.receive_message()?;
            link.send([0, 0], &request.reply(pong(script.addr)))?;
        }
        links.push(link);
    }
    ping.wait(SOON)?.checked("ping")?;
    bystander.unharmed(lab)
}

/// Messages that can't be valid close the connection, and are not answered.
pub fn messages(lab: &mut Lab) -> Result<()> {
    no_deadlines()?;
    let bystander = Bystander::start(lab)?;
    let (node, script) = (lab.node(0), lab.node(2));
    let ping = Message::ping(script.addr, node.addr, 9);
    let put = Message::put(script.addr, node.addr, 1, 1, vec![0x5a; 64]);
    for dialect in dialects() {
        let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
        for kind in [0, 1, 0xbf, 0xc2, 0xc100, 0xc0_0000, 0xc100_0000, u32::MAX] {
            // Just that: it is known to be wrong before the rest comes.
            let bytes = dialect.header(kind, 0, [0, 0]);
            cases.push((format!("type {kind:#x}"), bytes));
        }
        // Nothing was sent that could be acknowledged.
        for cookies in [
            [0, 2],
            [3, 2],
            [2, 3],
            [1, 1],
            [2, 1],
            [0, u64::MAX],
            [1, u64::MAX],
        ] {
            let bytes = dialect.noop(cookies);
            cases.push((format!("acknowledgement {cookies:x?}"), bytes));
            let bytes = dialect.message(cookies, &ping);
            cases.push((format!("message with cookies {cookies:x?}"), bytes));
        }
        if dialect.version == 2 {
            let bytes = dialect.noop([0, PING]);
            cases.push(("a ping before there were such".to_owned(), bytes));
        } else {
            for kind in [NOOP, LNET] {
                let mut bytes = dialect.header(kind, 1, [0, 0]);
                bytes.extend(&dialect.message([0, 0], &ping)[24..]);
                cases.push(("a checksum where there are none".to_owned(), bytes));
            }
        }
        // A message that can't ask to be told of.
        let bytes = dialect.message([PING, 0], &put);
        cases.push(("a cookie that stands for a ping".to_owned(), bytes));
        // The header of the message is in order, what it says is not.
        for (what, kind, length) in [
            ("an unknown message", 4, 0),
            ("a greeting", 4, 4),
            ("an acknowledgement with a payload", ACK, 1),
            ("too long a message", 1, (1 << 20) + 1),
            ("an endless message", 1, u32::MAX),
        ] {
            let mut message = put.clone();
            (message.kind, message.length) = (kind, length);
            message.payload.clear();
            cases.push((what.to_owned(), dialect.message([0, 0], &message)));
        }
        if dialect.version == 4 {
            // A type of network that is not spoken here is no error: a gateway may have to pass it on.
            let mut garbage = vec![(0, 1), (0, 13), (0, 255)];
            if !family::is_ipv6() {
                // Where a NID of IPv4 ends, and one of IPv6 has its address.
                garbage.push((12, 9));
            }
            for at in [24, 44] {
                for &(offset, byte) in &garbage {
                    let mut bytes = dialect.message([0, 0], &ping);
                    bytes[at + offset] = byte;
                    cases.push((format!("a bad long NID at {at} + {offset}"), bytes));
                }
            }
        }
        for (what, bytes) in &cases {
            let what = || format!("{dialect:?}: {what}");
            let mut link = Link::dial(&script.space, script.addr, node, dialect, CONTROL)
                .with_context(|| format!("before {}", what()))?;
            link.conn.send(bytes).with_context(what)?;
            let (got, _) = link.conn.await_closed(AT_ONCE).with_context(what)?;
            ensure!(got.is_empty(), "{}: it answered {got:02x?}", what());
            wait::until(SOON, "connection forgotten", || no_conns(node, script))?;
        }
        unacknowledgeable(node, script, dialect).with_context(|| format!("{dialect:?}"))?;
    }
    // What no header of version 1.0 may be is the same in the versions that have another before it.
    bystander.unharmed(lab)
}

/// The same cookie twice, and more gaps than can be remembered, while no connection is there that is
/// meant for telling of them.
fn unacknowledgeable(node: &Node, script: &Node, dialect: Dialect) -> Result<()> {
    if dialect.version < 3 {
        return Ok(());
    }
    let send = |cookies: &[u64]| -> Result<Link> {
        let mut link = Link::dial(&script.space, script.addr, node, dialect, CONTROL)?;
        let mut stream = Vec::new();
        for cookie in cookies {
            stream.extend(dialect.message([*cookie, 0], &link.new_put(10)));
        }
        link.conn.send(&stream)?;
        Ok(link)
    };
    let mut link = send(&[7, 8, 7])?;
    let (got, _) = link.conn.await_closed(AT_ONCE).context("a cookie twice")?;
    ensure!(got.is_empty(), "it answered {got:02x?}");
    wait::until(SOON, "connection forgotten", || no_conns(node, script))?;
    // How many gaps a node remembers is its own matter: it tells of the others on the connection that
    // there is, which goes on.
    let gaps: Vec<u64> = (1..=40).map(|n| 2 * n).collect();
    let mut link = send(&gaps)?;
    link.send([0, 0], &link.new_ping(1))?;
    let mut told = Vec::new();
    loop {
        let frame = link.receive().with_context(|| format!("after {told:?}"))?;
        told.extend(frame.acknowledges());
        if let Frame::Message { .. } = frame {
            break;
        }
    }
    ensure!(
        !told.is_empty() && told.iter().all(|cookie| gaps.contains(cookie)),
        "{told:?} were acknowledged"
    );
    link.conn.reset()?;
    wait::until(SOON, "connection forgotten", || no_conns(node, script))?;
    if family::is_ipv6() {
        return Ok(());
    }
    // Another version on the next connection: both ends begin anew, and come to an end with that.
    let mut first = Link::dial(&script.space, script.addr, node, dialect, CONTROL)?;
    let other = Dialect {
        version: 2,
        ..dialect
    };
    let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
    conn.send(&other.request(1, nid(node.addr)))?;
    conn.send(&Hello::new(other, script.addr, node.addr, BULK_OUT).bytes())?;
    let refusal = modern::Hello::receive(&mut conn)?;
    ensure!(
        refusal.conn_type == NONE && refusal.dialect.version == 2,
        "no refusal: {refusal:x?}"
    );
    first.conn.await_closed(AT_ONCE)?;
    wait::until(SOON, "connections forgotten", || no_conns(node, script))?;
    let mut link = Link::dial(&script.space, script.addr, node, other, CONTROL)?;
    link.ping(1)?;
    link.conn.reset()?;
    wait::until(SOON, "connection forgotten", || no_conns(node, script))
}
