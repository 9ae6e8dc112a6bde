// SPDX-License-Identifier: GPL-2.0

//! Connections that were closed, and zero-copy pages that are never released.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::bystander::Bystander;
use super::traffic::await_traffic;
use super::versions::{no_conns, set};
use crate::command::Job;
use crate::debugfs::{hook, sections};
use crate::lab::{Lab, Namespace};
use crate::modern::{Link, PLAIN};
use crate::module;
use crate::node::{Bench, Node, Op};
use crate::peer::CONTROL;
use crate::port::note;
use crate::wait;

/// More than anything takes that does not wait for what never comes.
const LIMIT: Duration = Duration::from_secs(30);
/// Longer than the scenario.
const FOR_EVER: u32 = 3600;

/// What the statistics say went over the connections between a node and a peer, both ways: of the
/// interface, and of the peer.
fn traffic(node: &Node) -> Result<[u64; 4]> {
    let of = |stats: &Value, path: &str| {
        let value = stats.pointer(path).and_then(Value::as_u64);
        value.with_context(|| format!("no {path} in {stats}"))
    };
    let (nis, peers) = (node.list(&["stats"])?, node.list(&["stats", "--peers"])?);
    ensure!(nis.len() == 1 && peers.len() == 1, "{nis:?}, {peers:?}");
    Ok([
        of(&nis[0], "/tx/bytes")?,
        of(&nis[0], "/rx/bytes")?,
        of(&peers[0], "/tx/bytes")?,
        of(&peers[0], "/rx/bytes")?,
    ])
}

/// A connection that was closed sends and receives nothing from then on, although its socket still
/// exists, and its counters don't change.
pub fn closed_at_once(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    set("tx_buffer_size", 4096)?;
    node.ni_add()?;
    // It outlives its connections.
    node.peer_add(script)?;
    let mut link = Link::dial(&script.space, script.addr, node, PLAIN, CONTROL)?;
    link.ping(1)?;
    link.conn.narrow(2048)?;
    // Answers that nobody reads, until the node has some that TCP does not take.
    let ping = link.new_ping(2);
    wait::until(LIMIT, "answers that wait", || {
        for _ in 0..20 {
            link.send([0, 0], &ping)?;
        }
        wait::quiet_time(Duration::from_millis(50));
        let conns = sections("conn control")?;
        let queued = conns
            .first()
            .context("no connection")?
            .get("queued_bytes")?;
        ensure!(queued > 0, "all was taken");
        Ok(())
    })?;
    let before = wait::until(LIMIT, "all requests read", || {
        let before = traffic(node)?;
        wait::quiet_time(Duration::from_millis(200));
        ensure!(traffic(node)? == before);
        Ok(before)
    })?;
    ensure!(
        before[..2] == before[2..],
        "the peer's sums are not the NI's: {before:?}"
    );
    let stall = hook("stall_reaper", FOR_EVER)?;
    node.close_conns()?;
    let closed = traffic(node)?;
    ensure!(
        closed == before,
        "{before:?} before the connection was closed, {closed:?} then"
    );
    // Now TCP gets room for more, and there are more requests. What it had already still comes.
    let mut answers = 0;
    while link.conn.has_input(Duration::from_secs(1))? {
        // The last one may be there in part, because the connection was closed in the middle of it.
        if link.receive().is_err() {
            break;
        }
        answers += 1;
    }
    note(&format!("{answers} answers were with TCP"));
    for _ in 0..20 {
        link.send([0, 0], &ping)?;
    }
    wait::quiet_time(Duration::from_secs(1));
    let later = traffic(node)?;
    ensure!(
        later == before,
        "{before:?} when the connection was closed, {later:?} later"
    );
    drop(stall);
    link.conn.await_closed(LIMIT)?;
    wait::until(LIMIT, "connection forgotten", || {
        no_conns(node, script)?;
        ensure!(node.counter("/live/conns")? == 0);
        Ok(())
    })?;
    let last = traffic(node)?;
    ensure!(last == before, "{before:?}, and {last:?} in the end");
    Ok(())
}

/// A message sent without a copy that TCP has dropped counts as not sent, also if the connection is
/// closed before its error was read.
pub fn dropped_zero_copy(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    set("zc_min_payload", 0)?;
    let mut link = Link::dial(&script.space, script.addr, node, PLAIN, CONTROL)?;
    link.ping(1)?;
    let before = node.counter("/errors/tx")?;
    lab.netem(1, "loss 100%")?;
    let ping = link.new_ping(2);
    link.send([0, 0], &ping)?;
    wait::until(LIMIT, "answer sent without a copy", || {
        ensure!(sections("node")?[0].get("zc_batches")? == 1);
        Ok(())
    })?;
    // The receiving side must not be the one that finds out.
    let _stall = hook("stall_rx", 77)?;
    link.conn.reset()?;
    node.close_conns()?;
    wait::until(LIMIT, "end of the answer", || {
        ensure!(node.counter("/live/txs")? == 0);
        Ok(())
    })?;
    lab.netem(1, "delay 0ms")?;
    let errors = node.counter("/errors/tx")? - before;
    ensure!(errors == 1, "{errors} messages count as not sent");
    wait::until(LIMIT, "connection forgotten", || no_conns(node, script))
}

/// Has the node's own card keep what it is to send.
fn keep(node: &Node) -> Result<()> {
    node.space.tool(
        "tc",
        &[
            "qdisc", "replace", "dev", "eth0", "root", "netem", "delay", "3600s",
        ],
        "",
    )?;
    Ok(())
}

/// Has it let go of that.
fn let_go(node: &Node) -> Result<()> {
    let arguments = ["qdisc", "del", "dev", "eth0", "root"];
    node.space.tool("tc", &arguments, "").map(drop)
}

/// A transfer to `to`, of which some messages are sent without a copy and stay in the card's queue.
fn send_zero_copy(from: &Node, to: &Node) -> Result<Job> {
    let bench = Bench {
        op: Op::Put,
        size: 20_000,
        count: 1_000_000,
        in_flight: 8,
        limit: Duration::from_secs(300),
    };
    from.peer_add(to)?;
    let job = from.start_bench(to, &bench)?;
    await_traffic(from, 10)?;
    keep(from)?;
    wait::until(LIMIT, "messages sent without a copy", || {
        ensure!(from.counter("/live/txs")? > 0, "none at this moment");
        ensure!(zc_batches()? > 0);
        Ok(())
    })?;
    // What was sent before has arrived, and its acknowledgements are here.
    wait::quiet_time(Duration::from_millis(300));
    ensure!(zc_batches()? > 0, "no packet refers to pages any more");
    Ok(job)
}

fn zc_batches() -> Result<u64> {
    sections("node")?[0].get("zc_batches")
}

/// Begins to remove the module, which must wait, and say for what.
fn removal(lab: &Lab) -> Result<Job> {
    let log = || lab.node(0).space.tool("dmesg", &[], "");
    let said = |log: &str| log.matches("removal waits for").count();
    let before = said(&log()?);
    let mut job = Job::start(Command::new("rmmod").arg("ksocklnd"), "")?;
    wait::until(LIMIT, "removal that says what it waits for", || {
        ensure!(job.running()?, "it does not wait: {}", job.stderr());
        ensure!(said(&log()?) > before, "it says nothing");
        Ok(())
    })?;
    ensure!(module::is_inserted(), "it did not wait");
    Ok(job)
}

/// Zero-copy packets that are never sent delay neither the end of their NI, nor that of their
/// namespace, nor other NIs. Only the removal of the module waits for them, logs that, and can be
/// interrupted.
pub fn zero_copy_never_freed(lab: &mut Lab) -> Result<()> {
    let bystander = Bystander::start(lab)?;
    let (first, sink) = (lab.node(2).clone(), lab.node(3).clone());
    for index in 2..5 {
        lab.node(index).ni_add()?;
    }
    let service = sink.serve()?;
    let mut jobs = vec![
        send_zero_copy(&first, &sink)?,
        send_zero_copy(lab.node(4), &sink)?,
    ];
    for job in &mut jobs {
        job.kill();
    }
    drop(jobs);

    let ended = |node: &Node| -> Result<()> {
        let what = ["ni", "del", &node.nid()];
        let output = node.attempt(&what, LIMIT)?.checked("ni del")?;
        note(&format!("ni del: {:.1} s", output.time.as_secs_f64()));
        ensure!(node.list(&["ni", "list"])?.is_empty(), "it is still listed");
        Ok(())
    };
    ended(&first)?;
    let left = zc_batches()?;
    ensure!(left > 0, "it was all given back: nothing was shown");
    note(&format!("{left} batches are left"));
    // The same once more, and others.
    first.ni_add()?;
    ended(&first)?;
    lab.node(0).ping(lab.node(1))?;
    ensure!(!sink.list(&["stats"])?.is_empty());
    set("sock_timeout", 40)?;

    // Its packets go with its card, which comes after.
    lab.delete(4)?;
    drop(Namespace::new()?);
    ensure!(
        zc_batches()? > 0,
        "it was all given back: nothing was shown"
    );
    bystander.unharmed(lab)?;
    drop(service);

    let job = removal(lab)?;
    let_go(&first)?;
    job.wait(LIMIT)?.checked("rmmod")?;
    module::insert()?;

    first.ni_add()?;
    sink.ni_add()?;
    let service = sink.serve()?;
    let mut transfer = send_zero_copy(&first, &sink)?;
    transfer.kill();
    drop(transfer);
    drop(service);
    let mut job = removal(lab)?;
    job.kill();
    wait::until(LIMIT, "the module gone", || {
        ensure!(!module::is_inserted());
        Ok(())
    })?;
    // Whose code these packets would have called is not there any more.
    let_go(&first)?;
    module::insert()
}
