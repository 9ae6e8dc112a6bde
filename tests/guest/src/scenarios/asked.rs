// SPDX-License-Identifier: GPL-2.0

//! Zero-copy messages that complete when the peer has acknowledged them (`zc_acks=1`).

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::bystander::Bystander;
use super::hostile::no_deadlines;
use super::traffic::four_ways;
use super::versions::{all_speak, no_conns, set};
use crate::debugfs::sections;
use crate::family;
use crate::lab::Lab;
use crate::modern::{Dialect, Frame, Link, Order, PING, dialects};
use crate::node::Node;
use crate::pace;
use crate::peer::{BULK_IN, BULK_OUT, CONTROL};
use crate::port::note;
use crate::wait;

/// Who sends something wrong loses the connection in this time.
const AT_ONCE: Duration = Duration::from_secs(20);
/// In this time what has ended is done with.
const SOON: Duration = Duration::from_secs(30);

/// The driver's default.
const SOCK_TIMEOUT: Duration = Duration::from_secs(50);

/// A number about a node's only peer.
fn of_peer(node: &Node, name: &str) -> Result<u64> {
    let ending = format!(" of {}", node.nid());
    let mut peers = sections("peer ")?;
    peers.retain(|peer| peer.heading.ends_with(&ending));
    peers.first().context("there is no peer")?.get(name)
}

/// Nothing is on its way out of the node any more.
fn await_done(node: &Node) -> Result<()> {
    await_live(node, 0)
}

fn await_live(node: &Node, wanted: u64) -> Result<()> {
    await_live_within(SOON, node, wanted)
}

fn await_live_within(limit: Duration, node: &Node, wanted: u64) -> Result<()> {
    wait::until(limit, "messages that have not ended", || {
        let live = node.counter("/live/txs")?;
        ensure!(live == wanted, "{live}, not {wanted}");
        Ok(())
    })
}

/// As [`await_done`] when connections were closed: acknowledgements that were under way on one of them are lost,
/// and messages that went by another one end when the peer is given up for that.
fn await_lost(node: &Node) -> Result<()> {
    await_live_within(SOCK_TIMEOUT + SOON, node, 0)
}

/// Between real nodes of each version, large messages are acknowledged and small ones are not; with
/// one connection for bulk each way and with several, also over a lossy network.
pub fn real_nodes(lab: &mut Lab) -> Result<()> {
    set("zc_acks", 1)?;
    let (one, two) = (lab.node(0), lab.node(1));
    for (version, bulk) in [(1, 1), (2, 1), (3, 1), (3, 4), (4, 1), (4, 4)] {
        if family::is_ipv6() && version < 4 {
            continue;
        }
        let what = || format!("version {version}, {bulk} connections");
        set("protocol", version)?;
        set("conns_per_peer", bulk)?;
        lab.connect(2)?;
        let services = [one.serve()?, two.serve()?];
        one.ping(two)?;
        for (size, count) in [(2047, 3), (2048, 10), (150_000, 2)] {
            let before = of_peer(one, "acked_msgs")?;
            four_ways(one, two, size, count).with_context(what)?;
            await_done(one).with_context(what)?;
            let acked = of_peer(one, "acked_msgs")? - before;
            // PUTs from here, and REPLYs to the GETs from there.
            let expected = match (version, size) {
                (1, _) | (_, ..2048) => 0,
                _ => 2 * count as u64,
            };
            ensure!(
                acked == expected,
                "{}: {acked} of {expected} messages of {size} bytes were acknowledged",
                what()
            );
        }
        if bulk == 4 {
            let weather = "delay 3ms 2ms loss 2% reorder 10% duplicate 1%";
            lab.netem(0, weather)?;
            lab.netem(1, weather)?;
            four_ways(one, two, 20_000, 8).with_context(what)?;
            await_done(one).with_context(what)?;
            for index in 0..2 {
                lab.netem(index, "delay 0ms")?;
            }
        }
        all_speak(one, two, version)?;
        for counter in ["protocol", "timeout"] {
            let errors = one.counter(&format!("/errors/{counter}"))?;
            ensure!(errors == 0, "{}: {errors} errors: {counter}", what());
        }
        drop(services);
        // While some are on their way or wait: all end, and once.
        let service = two.serve()?;
        let bench = crate::node::Bench {
            op: crate::node::Op::Put,
            size: 20_000,
            count: 1_000_000,
            in_flight: 8,
            limit: Duration::from_secs(60),
        };
        let mut job = one.start_bench(two, &bench)?;
        super::traffic::await_traffic(two, 10)?;
        match bulk {
            1 => one.close_conns()?,
            _ => two.close_conns()?,
        }
        job.kill();
        await_lost(one).with_context(what)?;
        drop(service);
        for node in [one, two] {
            node.ni_del()?;
        }
    }
    Ok(())
}

/// A script with a connection of each type.
struct Script {
    control: Link,
    /// By which its acknowledgements go.
    bulk_in: Link,
    bulk_out: Link,
    asked: u64,
}

impl Script {
    fn dial(node: &Node, script: &Node, dialect: Dialect) -> Result<Script> {
        let dial = |conn_type| Link::dial(&script.space, script.addr, node, dialect, conn_type);
        Ok(Script {
            control: dial(CONTROL)?,
            bulk_in: dial(BULK_IN)?,
            bulk_out: dial(BULK_OUT)?,
            asked: 0,
        })
    }

    /// Has the node send so many messages that it wants to be told of, and receives them. Returns
    /// their cookies, which must be one more each time.
    fn ask(&mut self, count: u64) -> Result<Vec<u64>> {
        ask(&mut self.control, &mut self.asked, count)
    }
}

fn ask(link: &mut Link, asked: &mut u64, count: u64) -> Result<Vec<u64>> {
    let mut cookies: Vec<u64> = Vec::new();
    for _ in 0..count {
        *asked += 1;
        let ping = link.new_ping(*asked);
        link.send([0, 0], &ping)?;
        match link.receive()? {
            Frame::Message {
                cookies: [cookie, 0],
                message,
            } if cookie > PING => {
                message.check_pong(&ping)?;
                let next = cookies.last().is_none_or(|last| last + 1 == cookie);
                ensure!(next, "{cookie:#x} after {cookies:x?}");
                cookies.push(cookie);
            }
            other => bail!("not a message that asks to be acknowledged: {other:x?}"),
        }
    }
    Ok(cookies)
}

/// So that each answer to a ping asks to be acknowledged.
fn ask_always() -> Result<()> {
    set("zc_min_payload", 0)?;
    set("zc_acks", 1)
}

/// Acknowledgements in all forms, on any connection, early and late: a message completes only when
/// its own acknowledgement has arrived.
pub fn forms(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    ask_always()?;
    node.ni_add()?;
    let mut latest = PING;
    for dialect in dialects() {
        told_in_all_forms(node, script, dialect, &mut latest)
            .with_context(|| format!("{dialect:?}"))?;
        // The peer goes with its connections.
        node.close_conns()?;
        await_done(node)?;
        wait::until(SOON, "connections forgotten", || no_conns(node, script))?;
    }
    Ok(())
}

/// `latest` is the last cookie that the node has used.
fn told_in_all_forms(node: &Node, script: &Node, dialect: Dialect, latest: &mut u64) -> Result<()> {
    let mut conn = Script::dial(node, script, dialect)?;
    let first = conn.ask(1)?[0];
    // Nobody else is asked, so they grow. For the script nothing has changed but that it had no
    // connection: what it says late must not be taken for something else.
    ensure!(
        if *latest == PING {
            first == 2
        } else {
            first > *latest
        },
        "the first cookie is {first:#x}, and the last one was {latest:#x}"
    );
    if *latest > PING {
        // Late: it is ignored.
        conn.control.conn.send(&dialect.noop([0, *latest]))?;
        conn.ask(1)?;
        await_live(node, 2)?;
        conn.control.conn.send(&dialect.noop([0, first + 1]))?;
    }
    conn.control.conn.send(&dialect.noop([0, first]))?;
    await_done(node)?;
    let wide = dialect.version >= 3;
    for on_control in [false, true] {
        let cookies = conn.ask(8)?;
        await_live(node, 8)?;
        let [a, b, c, d, e, f, g, h] = cookies[..] else {
            unreachable!("there are eight");
        };
        let link = if on_control {
            &mut conn.control
        } else {
            &mut conn.bulk_in
        };
        // One, out of order.
        link.conn.send(&dialect.noop([0, c]))?;
        await_live(node, 7)?;
        if wide {
            // Two that are no range, and a range; one that is a range by itself.
            link.conn.send(&dialect.noop([e, a]))?;
            await_live(node, 5)?;
            link.conn.send(&dialect.noop([f, g]))?;
            await_live(node, 3)?;
            link.conn.send(&dialect.noop([d, d]))?;
            await_live(node, 2)?;
        } else {
            let noops: Vec<u8> = [e, a, f, g, d]
                .into_iter()
                .flat_map(|cookie| dialect.noop([0, cookie]))
                .collect();
            link.conn.send(&noops)?;
            await_live(node, 2)?;
        }
        // Along with messages; the second one, which asks for one itself, has a payload.
        let put = conn.bulk_out.new_put(10);
        conn.bulk_out.send([0, h], &put)?;
        await_live(node, 1)?;
        conn.bulk_out.send([70, b], &put)?;
        await_done(node)?;
        let told = match wide {
            true => conn.bulk_out.receive()?,
            false => conn.control.receive()?,
        };
        ensure!(told.acknowledges() == [70], "not told: {told:x?}");
    }
    // Without delay, in whatever pieces, many at once.
    let cookies = conn.ask(40)?;
    let (first, last) = (cookies[0], cookies[39]);
    let noops: Vec<u8> = if wide {
        dialect.noop([first, last])
    } else {
        let noop = |cookie: &u64| dialect.noop([0, *cookie]);
        cookies.iter().flat_map(noop).collect()
    };
    conn.bulk_in
        .conn
        .dribble(&noops, Duration::from_micros(100))?;
    await_done(node)?;
    // A connection is lost. What went by it has failed, but the peer, which does not know, may say
    // that it has arrived.
    let cookies = conn.ask(3)?;
    conn.control.conn.reset()?;
    await_done(node)?;
    let mut control = Link::dial(&script.space, script.addr, node, dialect, CONTROL)?;
    let mut more = ask(&mut control, &mut conn.asked, 2)?;
    more.extend(cookies);
    for cookie in more {
        conn.bulk_in.conn.send(&dialect.noop([0, cookie]))?;
    }
    await_done(node)?;
    control.conn.send(&dialect.noop([0, 0]))?;
    let cookie = ask(&mut control, &mut conn.asked, 1)?[0];
    conn.bulk_in.conn.send(&dialect.noop([0, cookie]))?;
    await_done(node)?;
    *latest = cookie;
    ensure!(of_peer(node, "unacked_msgs")? == 0, "some are remembered");
    let conns = node.conns_to(script)?.len();
    ensure!(conns == 3, "{conns} connections are left");
    Ok(())
}

/// An acknowledgement that was not asked for ends its connection, and no other.
pub fn wrong_forms(lab: &mut Lab) -> Result<()> {
    no_deadlines()?;
    let (node, script) = (lab.node(0), lab.node(2));
    let bystander = Bystander::start(lab)?;
    // Also those of the bystanders ask from now on.
    ask_always()?;
    for dialect in dialects() {
        // Of three that have asked, the last.
        type Case = (&'static str, fn(u64) -> [u64; 2]);
        let mut cases: Vec<Case> = vec![
            ("the next", |last| [0, last + 1]),
            ("one of before", |last| [0, last - 3]),
            ("the largest", |_| [0, u64::MAX]),
            ("two of which one is unknown", |last| [last + 1, last]),
            ("two of which one is 1", |last| [last, 1]),
            ("a range that goes too far", |last| [last - 2, last + 1]),
            ("a range that begins too early", |last| [last - 3, last]),
            ("a range without an end", |last| [last - 2, u64::MAX]),
            ("all that there are", |_| [2, u64::MAX]),
            ("all, and 1", |_| [1, u64::MAX]),
            ("one range that is unknown", |last| [last + 5, last + 5]),
        ];
        if dialect.version == 2 {
            cases.extend([
                ("two at once", (|last| [last, last - 1]) as fn(u64) -> _),
                ("a range", |last| [last - 1, last]),
                ("a ping", |_| [0, PING]),
            ]);
        }
        // This one, after which one of the three has been acknowledged, is the last.
        cases.push(("two of which one is of before", |last| [last, last - 3]));
        let mut conn = Script::dial(node, script, dialect)?;
        let asked = conn.ask(6)?;
        let last = asked[5];
        for cookie in &asked[..3] {
            conn.bulk_in.conn.send(&dialect.noop([0, *cookie]))?;
        }
        let unacked = |wanted| {
            wait::until(SOON, "acknowledged", || {
                let left = of_script(node, script, "unacked_msgs")?;
                ensure!(left == wanted, "{left} are left");
                Ok(())
            })
        };
        unacked(3)?;
        for (what, cookies) in cases {
            let cookies = cookies(last);
            for with_message in [false, true] {
                // There only the second one is an acknowledgement.
                if with_message && cookies[1] > last - 3 && cookies[1] <= last {
                    continue;
                }
                let what = || format!("{dialect:?}: {what}, with a message: {with_message}");
                let link = &mut conn.bulk_in;
                let bytes = if with_message {
                    dialect.message(cookies, &link.new_put(10))
                } else {
                    dialect.noop(cookies)
                };
                link.conn.send(&bytes)?;
                let (got, _) = link.conn.await_closed(AT_ONCE).with_context(what)?;
                ensure!(got.is_empty(), "{}: it answered {got:02x?}", what());
                // The other connections go on, and so does what waits.
                wait::until(SOON, "connection forgotten", || {
                    let left = node.conns_to(script)?.len();
                    ensure!(left == 2, "{left} connections are left");
                    Ok(())
                })
                .with_context(what)?;
                conn.bulk_in = Link::dial(&script.space, script.addr, node, dialect, BULK_IN)
                    .with_context(what)?;
            }
        }
        // Version 2 knows no such pair, and so takes nothing of it.
        unacked(if dialect.version == 2 { 3 } else { 2 })?;
        conn.ask(1)?;
        close(node, script, conn)?;
        // Twice, and a range of which one is acknowledged already.
        for cookies in [|last| [0, last], |last| [last - 2, last]] {
            let mut conn = Script::dial(node, script, dialect)?;
            let last = conn.ask(3)?[2];
            conn.bulk_in.conn.send(&dialect.noop([0, last]))?;
            wait::until(SOON, "acknowledged", || {
                let left = of_script(node, script, "unacked_msgs")?;
                ensure!(left == 2, "{left} are left");
                Ok(())
            })?;
            conn.bulk_in.conn.send(&dialect.noop(cookies(last)))?;
            conn.bulk_in
                .conn
                .await_closed(AT_ONCE)
                .with_context(|| format!("{dialect:?}: twice"))?;
            close(node, script, conn)?;
        }
    }
    set("zc_acks", 0)?;
    bystander.unharmed(lab)
}

/// A number about the script as a peer.
fn of_script(node: &Node, script: &Node, name: &str) -> Result<u64> {
    let peers = sections(&format!("peer {} of {}", script.nid(), node.nid()))?;
    peers.first().context("there is no such peer")?.get(name)
}

/// What the script has not acknowledged ends with its connections.
fn close(node: &Node, script: &Node, conn: Script) -> Result<()> {
    drop(conn);
    wait::until(SOON, "connections forgotten", || no_conns(node, script))?;
    wait::until(SOON, "peer forgotten", || {
        let heading = format!("peer {} of {}", script.nid(), node.nid());
        ensure!(sections(&heading)?.is_empty(), "it is still there");
        Ok(())
    })
}

/// A peer that receives messages and does not acknowledge them is given up in time, on any of its
/// connections, even if other traffic makes progress. Messages that are not acknowledged end with
/// their NI.
pub fn missing(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    ask_always()?;
    // More than what comes before takes.
    set("sock_timeout", pace::scaled(4))?;
    node.ni_add()?;
    // What follows is the same in either byte order.
    let little = dialects().filter(|dialect| dialect.order == Order::Little);
    for (round, dialect) in little.enumerate() {
        let timeouts = node.counter("/errors/timeout")?;
        let mut conn = Script::dial(node, script, dialect)?;
        conn.ask(3)?;
        if round % 2 == 0 {
            // Also by the other one, which is looked at only when the first is gone.
            set("min_bulk", 0)?;
            conn.bulk_in.send([0, 0], &conn.control.new_ping(99))?;
            conn.bulk_in.receive()?;
            set("min_bulk", 1024)?;
        }
        // Life goes on meanwhile.
        wait::until(SOON, "connection given up", || {
            let alive = conn.control.conn.send(&dialect.noop([0, 0])).is_ok();
            wait::quiet_time(Duration::from_millis(100));
            ensure!(!alive, "it is still open");
            Ok(())
        })
        .with_context(|| format!("{dialect:?}"))?;
        await_done(node)?;
        let more = node.counter("/errors/timeout")? - timeouts;
        ensure!(more >= 1, "{dialect:?}: {more} were late");
        drop(conn);
        wait::until(SOON, "connections forgotten", || no_conns(node, script))?;
    }
    no_deadlines()?;
    for dialect in dialects() {
        let mut conn = Script::dial(node, script, dialect)?;
        conn.ask(5)?;
        await_live(node, 5)?;
        node.ni_del()?;
        for link in [&mut conn.control, &mut conn.bulk_in, &mut conn.bulk_out] {
            link.conn.await_closed(AT_ONCE)?;
        }
        node.ni_add()?;
    }
    Ok(())
}

/// A peer acknowledges messages before it can have received them: the pages are not released before
/// TCP has released them.
pub fn too_early(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    no_deadlines()?;
    ask_always()?;
    node.ni_add()?;
    let card = |arguments: &[&str]| {
        let words = [arguments, &["dev", "eth0", "root"]].concat();
        let netem = ["netem", "delay", "300s"];
        let netem = if arguments[1] == "replace" {
            &netem[..]
        } else {
            &[]
        };
        let words = [words, netem.to_vec()].concat();
        node.space.tool("tc", &words, "").map(drop)
    };
    for dialect in dialects() {
        let mut conn = Script::dial(node, script, dialect)?;
        let known = conn.ask(1)?[0];
        conn.bulk_in.conn.send(&dialect.noop([0, known]))?;
        await_done(node)?;
        let acked = of_peer(node, "acked_msgs")?;
        // What the node sends is stuck in its card from now on.
        card(&["qdisc", "replace"])?;
        let ping = conn.control.new_ping(100);
        conn.control.send([0, 0], &ping)?;
        await_live(node, 1)?;
        wait::until(SOON, "message handed to TCP", || {
            ensure!(of_peer(node, "unacked_msgs")? == 1);
            Ok(())
        })?;
        conn.bulk_in.conn.send(&dialect.noop([0, known + 1]))?;
        wait::until(SOON, "acknowledgement taken", || {
            ensure!(of_peer(node, "acked_msgs")? == acked + 1);
            Ok(())
        })?;
        let live = node.counter("/live/txs")?;
        ensure!(live == 1, "{dialect:?}: {live} messages are not done");
        card(&["qdisc", "del"])?;
        await_done(node)?;
        note(&format!("{dialect:?}: done when it had gone out"));
        conn.control.conn.reset()?;
        node.close_conns()?;
        wait::until(SOON, "connections forgotten", || no_conns(node, script))?;
    }
    Ok(())
}

/// The node's connection for bulk is full, because the peer does not read it: the peer's messages
/// are acknowledged on the control connection all the same.
pub fn past_stuck_bulk(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    // Nobody is given up for what is stuck.
    no_deadlines()?;
    set("buffer_size", 4096)?;
    set("min_bulk", 0)?;
    node.ni_add()?;
    for dialect in dialects().filter(|dialect| dialect.version >= 3) {
        let what = || format!("{dialect:?}");
        let mut conn = Script::dial(node, script, dialect)?;
        let bulk_out = format!("conn bulk_out {}:", node.addr);
        let stuck = || -> Result<u64> {
            let conns = sections(&bulk_out)?;
            conns.first().context("no connection")?.get("queued_bytes")
        };
        // Answers to pings, all of which are bulk now, and of which none is read. Not more than the node
        // is ready to keep.
        conn.bulk_in.conn.narrow(2048)?;
        let mut handle = 0;
        wait::until(SOON, "full", || {
            let mut pings = Vec::new();
            for _ in 0..100.min(1000 - handle) {
                handle += 1;
                pings.extend(dialect.message([0, 0], &conn.control.new_ping(handle)));
            }
            conn.control.conn.send(&pings)?;
            let queued = stuck()?;
            // So much that it is not just on its way.
            ensure!(queued > 20_000, "only {queued} bytes are stuck");
            Ok(())
        })
        .with_context(what)?;
        for cookie in 2..50 {
            let put = conn.control.new_put(20_000);
            conn.bulk_out.send([cookie, 0], &put).with_context(what)?;
            let told = conn.bulk_out.receive().with_context(what)?;
            ensure!(told.acknowledges() == [cookie], "not told: {told:x?}");
        }
        ensure!(stuck()? > 0, "it was not stuck");
        // And then all comes.
        for expected in 1..=handle {
            let pong = conn.bulk_in.receive_message().with_context(what)?;
            pong.check_pong(&conn.control.new_ping(expected))?;
        }
        node.close_conns()?;
        wait::until(SOON, "connections forgotten", || no_conns(node, script))?;
    }
    Ok(())
}
