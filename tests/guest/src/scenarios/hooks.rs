// SPDX-License-Identifier: GPL-2.0

//! Faults by the module's own fault injection, and the statistics.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use serde_json::Value;

use super::connect::one_of_each;
use crate::debugfs::{FOLDER, hook, hook_value, sections, sum};
use crate::lab::Lab;
use crate::module;
use crate::node::{Bench, Node, Op, errno};
use crate::pace;
use crate::peer::{
    ACCEPTOR_MAGIC, ACK, ANY, BULK_IN, BULK_OUT, CONTROL, Conn, Hello, Message, inverse, nid,
    request,
};
use crate::port::note;
use crate::scenarios::traffic::await_traffic;
use crate::wait;

/// What may come on top of what the clock says.
const SLACK: Duration = Duration::from_secs(30);

pub fn set_timeout(seconds: u64) -> Result<()> {
    Ok(fs::write(
        "/sys/module/ksocklnd/parameters/sock_timeout",
        seconds.to_string(),
    )?)
}

/// Sends that fail for want of memory are retried, and nothing is lost or out of order.
pub fn no_memory(lab: &mut Lab) -> Result<()> {
    const FAILURES: u32 = 300;
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _services = [one.serve()?, two.serve()?];
    for op in [Op::Put, Op::Get] {
        let before = sum(&sections("ni ")?, "enomem")?;
        let _fault = hook("enomem_tx", FAILURES)?;
        let bench = Bench {
            op,
            size: 20_000,
            count: 200,
            in_flight: 8,
            limit: Duration::from_secs(60),
        };
        one.bench(two, &bench)?;
        wait::until(SLACK, "all failures used up", || {
            one.ping(two)?;
            ensure!(hook_value("enomem_tx")? == 0);
            Ok(())
        })?;
        let failures = sum(&sections("ni ")?, "enomem")? - before;
        ensure!(
            failures >= u64::from(FAILURES),
            "only {failures} failures were counted"
        );
    }
    let conns = sum(&sections("conn ")?, "enomem")?;
    ensure!(conns >= 2 * u64::from(FAILURES), "connections say {conns}");
    Ok(())
}

/// A connection that can't be accepted for want of memory is accepted a little later, without
/// another connection as the trigger. One for whose handshake there is no memory is refused, and
/// counts once.
pub fn no_memory_to_accept(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let _fault = hook("enomem_accept", 5)?;
    let mut conns = Vec::new();
    for kind in [CONTROL, BULK_IN] {
        let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
        conn.send(&request(ACCEPTOR_MAGIC, 1, nid(node.addr)))?;
        conn.send(&Hello::new(script.addr, node.addr, kind).bytes())?;
        conns.push((conn, kind));
    }
    for (conn, kind) in &mut conns {
        ensure!(conn.has_input(SLACK)?, "not accepted");
        conn.expect_hello(inverse(*kind))?;
    }
    ensure!(hook_value("enomem_accept")? == 0, "nothing failed");
    let refused = || node.counter("/errors/handshake");
    ensure!(refused()? == 0, "who was accepted counts as refused");

    // When one is accepted it is known that all of the one before was counted.
    for (kind, count) in [BULK_OUT, ANY].into_iter().zip(1..) {
        let _fault = hook("enomem_handshake", 1)?;
        // The end may come before the dialling is over.
        if let Ok(mut conn) = Conn::dial(&script.space, script.addr, node.addr) {
            conn.await_closed(SLACK)?;
        }
        wait::until(SLACK, "refusal", || {
            ensure!(hook_value("enomem_handshake")? == 0);
            Ok(())
        })?;
        Conn::greeted(&script.space, script.addr, node, kind)?;
        let now = refused()?;
        ensure!(now == count, "{count} refused, and {now} counted");
    }
    ensure!(node.counter("/refusals")? == 0);
    Ok(())
}

/// A peer that stops reading is given up in time, and works again when it reads.
pub fn stalled_peer(lab: &mut Lab) -> Result<()> {
    let timeout = pace::scaled(5);
    // Less room on the way than what is in flight, so that it is full at once.
    fs::write("/proc/sys/socknal/buffer_size", "300000")?;
    set_timeout(timeout)?;
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _service = two.serve()?;
    let mut bench = Bench {
        op: Op::Put,
        size: 1 << 20,
        count: 100_000,
        // So many that they can't all have arrived when it begins.
        in_flight: 16,
        limit: Duration::from_secs(15),
    };
    let job = one.start_bench(two, &bench)?;
    await_traffic(two, 5)?;
    let stall = hook("stall_rx", 3600)?;
    let started = Instant::now();
    let peer = format!("peer {} of {}", two.nid(), one.nid());
    let limit = Duration::from_secs(timeout + timeout / 4);
    wait::until(limit + SLACK, "timeout", || {
        ensure!(sum(&sections(&peer)?, "timeouts")? > 0);
        Ok(())
    })?;
    let time = started.elapsed();
    note(&format!("given up after {:.1} s", time.as_secs_f64()));
    ensure!(
        time >= Duration::from_secs(timeout - timeout.div_ceil(4)),
        "given up too soon"
    );
    let output = job.wait(bench.limit + SLACK)?;
    ensure!(!output.status.success(), "the transfer claims success");
    drop(stall);
    wait::until(Duration::from_secs(30), "ping succeeds again", || {
        one.ping(two).map(drop)
    })?;
    bench.count = 10;
    one.bench(two, &bench).map(drop)
}

/// A peer is not given up because of a message that has arrived and was not read yet, but because
/// of one that does not arrive.
pub fn stalled_reader(lab: &mut Lab) -> Result<()> {
    let timeout = pace::scaled(4);
    let limit = Duration::from_secs(timeout + timeout / 4);
    set_timeout(timeout)?;
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let mut conn = Conn::greeted(&script.space, script.addr, node, CONTROL)?;
    let message = Message::put(script.addr, node.addr, 7, 7, vec![7; 5000]).bytes();
    let (begin, end) = message.split_at(1000);
    conn.send(begin)?;
    let peer = format!("peer {} of {}", script.nid(), node.nid());
    wait::until(SLACK, "beginning of a message", || {
        ensure!(sum(&sections(&peer)?, "rx_bytes")? == begin.len() as u64);
        Ok(())
    })?;
    let stall = hook("stall_rx", 3600)?;
    conn.send(end)?;
    wait::quiet_time(limit + Duration::from_secs(2));
    ensure!(
        node.conns_to(script)?.len() == 1,
        "given up for what was there"
    );
    ensure!(
        sum(&sections(&peer)?, "rx_bytes")? == begin.len() as u64,
        "it was not held back"
    );
    drop(stall);
    conn.ping(1)?;

    conn.send(begin)?;
    let (_, time) = conn.await_closed(limit + SLACK)?;
    ensure!(
        time >= Duration::from_secs(timeout - 1),
        "given up too soon"
    );
    Ok(())
}

/// Acknowledgements that wait when their connection is lost end with an error, once each, and are
/// counted as errors.
pub fn unsent_acks(lab: &mut Lab) -> Result<()> {
    const PUTS: u64 = 5;
    /// A request of the service that opens no session and needs none: its portal and match bits.
    const PORTAL: u32 = 50;
    const CLOSE: u64 = 2 << 56;
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let _service = node.serve()?;
    let mut conn = Conn::greeted(&script.space, script.addr, node, CONTROL)?;
    let mut put = Message::put(script.addr, node.addr, PORTAL, CLOSE, Vec::new());
    put.body[0..16].copy_from_slice(&[7; 16]);
    // As long as nothing is lost they come.
    conn.send(&put.bytes())?;
    let ack = conn.receive_message()?;
    ensure!(ack.kind == ACK && ack.length == 0, "no ACK: {ack:x?}");
    let count = || sum(&sections("ni ")?, "tx_errors");
    let sent = node.counter("/tx/msgs")?;
    let before = count()?;
    let stall = hook("stall_tx", 3600)?;
    for _ in 0..PUTS {
        conn.send(&put.bytes())?;
    }
    wait::until(SLACK, "ACKs that wait", || {
        ensure!(node.counter("/live/txs")? == PUTS);
        Ok(())
    })?;
    conn.reset()?;
    wait::until(SLACK, "end of the ACKs", || {
        ensure!(node.counter("/live/txs")? == 0);
        Ok(())
    })?;
    drop(stall);
    let failed = count()? - before;
    ensure!(failed == PUTS, "{failed} of {PUTS} were counted as errors");
    let more = node.counter("/tx/msgs")? - sent;
    ensure!(more == 0, "{more} were counted as sent");
    Ok(())
}

/// With delayed sends, all messages are sent, later.
pub fn stalled_sender(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    one.ping(two)?;
    // Much longer than a ping takes on this machine.
    let seconds = pace::scaled(3);
    let stall = hook("stall_tx", seconds as u32)?;
    let output = one
        .ping_within(two, Duration::from_secs(20))?
        .checked("ping")?;
    // At least the question. For the answer it may be over already: a turn of that connection with
    // nothing to send begins the delay as well.
    ensure!(
        output.time >= Duration::from_secs(seconds),
        "it took only {:.1} s",
        output.time.as_secs_f64()
    );
    drop(stall);
    let output = one
        .ping_within(two, Duration::from_secs(20))?
        .checked("ping")?;
    ensure!(
        output.time < Duration::from_secs(seconds),
        "it still took {:.1} s",
        output.time.as_secs_f64()
    );

    // What is held back when its connection is closed ends with that.
    let _stall = hook("stall_tx", 3600)?;
    let ping = one.start_ping(two)?;
    wait::until(SLACK, "message held back", || {
        ensure!(one.counter("/live/txs")? > 0);
        Ok(())
    })?;
    one.close_conns()?;
    wait::until(SLACK, "end of what was held back", || {
        let left = one.counter("/live/txs")?;
        ensure!(left == 0, "{left} messages");
        Ok(())
    })?;
    let name = errno(&ping.wait(SLACK)?)?;
    ensure!(name == "ESHUTDOWN", "the ping failed with {name}");
    Ok(())
}

/// The statistics add up, and the module can't be removed while a program reads them.
pub fn statistics(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let _services = [one.serve()?, two.serve()?];
    let bench = Bench {
        op: Op::Put,
        size: 5000,
        count: 100,
        in_flight: 8,
        limit: Duration::from_secs(30),
    };
    one.bench(two, &bench)?;
    one.close_conns()?;
    // On a quick machine all would have gone before there is a connection for bulk.
    one.ping(two)?;
    wait::until(SLACK, "one connection of each type", || {
        one_of_each(one, two)
    })?;
    one.bench(two, &bench)?;
    agree(one, two)?;

    let peer = sections(&format!("peer {} of {}", two.nid(), one.nid()))?;
    ensure!(peer.len() == 1, "{} peers", peer.len());
    ensure!(sum(&peer, "connects")? + sum(&peer, "accepts")? >= 6);
    ensure!(sum(&peer, "connect_attempts")? > 0);
    ensure!(sum(&peer, "queued_msgs_peak")? > 0, "nothing ever waited");
    let peaks = sum(&sections("conn bulk_out")?, "queued_bytes_peak")?;
    ensure!(peaks >= 5072, "no queue was ever longer than {peaks} bytes");
    let conns = one.conns_to(two)?;
    let peak = |conn: &Value| conn["queued_bytes_peak"].as_u64();
    ensure!(
        conns.iter().filter_map(peak).any(|bytes| bytes >= 5072),
        "no long queue: {conns:?}"
    );
    let schedulers = sections("scheduler ")?;
    ensure!(sum(&schedulers, "conns")? == 6 && sum(&schedulers, "queue_peak")? > 0);

    // An attempt that fails is counted at its route.
    two.ni_del()?;
    let _ = one.ping_within(two, Duration::from_secs(2))?;
    wait::until(SLACK, "failure at the route", || {
        ensure!(sum(&sections(&format!("route {}", two.addr))?, "failures")? > 0);
        Ok(())
    })?;

    let reader = File::open(format!("{FOLDER}/stats"))?;
    drop(_services);
    let refused = wait::until(SLACK, "only the reader is left", || {
        let users = fs::read_to_string("/sys/module/ksocklnd/refcnt")?;
        ensure!(users.trim() == "1", "{users} users");
        module::try_remove(module::REMOVAL_LIMIT)
    })?;
    ensure!(
        refused == Err(Errno::AGAIN),
        "removed under a reader: {refused:?}"
    );
    drop(reader);
    module::remove()?;
    ensure!(!fs::exists(FOLDER)?, "the folder is left");
    Ok(())
}

/// What the NIs say is what `socklctl stats` says, and what their peers say.
fn agree(one: &Node, two: &Node) -> Result<()> {
    for (node, other) in [(one, two), (two, one)] {
        wait::until(SLACK, "numbers agree", || {
            let interface = sections(&format!("ni {} ", node.nid()))?;
            let peer = sections(&format!("peer {} of {}", other.nid(), node.nid()))?;
            let told = node.list(&["stats", "--peers"])?;
            ensure!(told.len() == 1, "peers: {told:?}");
            let of_peer = |path: &str| {
                let value = told.first().and_then(|peer| peer.pointer(path));
                let value = value.and_then(Value::as_u64);
                value.with_context(|| format!("no {path} in {told:?}"))
            };
            for (path, name) in [
                ("/tx/msgs", "tx_msgs"),
                ("/tx/bytes", "tx_bytes"),
                ("/rx/msgs", "rx_msgs"),
                ("/rx/bytes", "rx_bytes"),
            ] {
                let count = node.counter(path)?;
                let of_peer = of_peer(path)?;
                let shown = (sum(&interface, name)?, sum(&peer, name)?, of_peer);
                ensure!(
                    shown == (count, count, count) && count > 0,
                    "{name}: {shown:?} and {count}"
                );
            }
            for (path, name) in [
                ("/attempts", "connect_attempts"),
                ("/connects", "connects"),
                ("/accepts", "accepts"),
                ("/errors/disconnect", "disconnects"),
                ("/queued_msgs_peak", "queued_msgs_peak"),
            ] {
                let shown = (sum(&peer, name)?, of_peer(path)?);
                ensure!(shown.0 == shown.1, "{name}: {shown:?}");
            }
            Ok(())
        })?;
    }
    Ok(())
}
