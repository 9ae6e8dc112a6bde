// SPDX-License-Identifier: GPL-2.0

//! The driver under LNet. A module implements LNet's side, and does all that LNet may do: see `tests/lnet_shim`.
//!
//! Traps are numbered as in `tests/COVERAGE.md`. After each scenario, the driver must have violated no requirement
//! of LNet, and each message must have been finalized.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::cstr;
use rustix::io::Errno;

use super::versions::set as set_parameter;
use crate::debugfs::hook;
use crate::lab::Lab;
use crate::lnet::{self, Job, Manner, ask, counter, value, values};
use crate::module::{self, Flavour};
use crate::node::{Node, errno};
use crate::pace;
use crate::wait;
use crate::worker::Over;

/// For what ends soon, on any machine.
const LIMIT: Duration = Duration::from_secs(60);
/// For jobs among losses.
const LONG: Duration = Duration::from_secs(150);

/// The numbers of commands that reach a driver.
const GET_INTERFACE: u32 = 80;
const GET_PEER: u32 = 76;
const GET_CONN: u32 = 73;
const CLOSE_CONNECTION: u32 = 71;
const PUSH_CONNECTION: u32 = 72;
const REGISTER_MYNID: u32 = 70;

/// How LNet's status of a message is numbered that the peer, or the way to it, has lost.
const REMOTE_ERROR: &str = "received_status_7";

fn both(lab: &Lab) -> Result<[&Node; 2]> {
    let nodes = [lab.node(0), lab.node(1)];
    for node in nodes {
        lnet::add(node)?;
    }
    Ok(nodes)
}

/// Every kind of message, of every length, from everything to everything; all must arrive.
fn exchange(nodes: &[&Node], count: u32) -> Result<()> {
    let mut jobs = Vec::new();
    for node in nodes {
        for other in nodes.iter().filter(|other| other.nid() != node.nid()) {
            for what in ["op=put ack=1", "op=put", "op=get"] {
                let what = format!("{what} count={count} in_flight=12");
                jobs.push(Job::start(node, &other.nid(), &what)?);
            }
        }
    }
    jobs.iter().try_for_each(|job| job.succeed(LIMIT))
}

/// A few messages each way.
fn still_work(nodes: &[&Node; 2]) -> Result<()> {
    let [one, two] = nodes;
    for (from, to) in [(one, two), (two, one)] {
        for op in ["put ack=1", "get"] {
            Job::start(from, &to.nid(), &format!("op={op} count=4 in_flight=4"))?.succeed(LIMIT)?;
        }
    }
    Ok(())
}

/// Nobody refers to an NI, and it has all its credits.
fn at_rest(node: &Node) -> Result<()> {
    wait::until(LIMIT, "an NI at rest", || {
        let now = values(node, &format!("show nid={}", node.nid()))?;
        ensure!(
            value(&now, "references")? == 0
                && value(&now, "under_way")? == 0
                && value(&now, "credits")? == value(&now, "max_credits")?,
            "{now:?}"
        );
        Ok(())
    })
}

fn close_conns(node: &Node) -> Result<()> {
    let nid = node.nid();
    ask(
        node,
        &format!("ctl nid={nid} nr={CLOSE_CONNECTION} peer=any"),
    )
    .map(drop)
}

/// Two nodes: pings, data both ways and to oneself, verified, in memory of every kind and cut to any pieces;
/// lnd_recv inside of lnet_parse, beside it, after it; messages' memory reused at once; credits.
///
/// Traps 2 (lnd_send from within lnet_parse and lnet_finalize), 3 (pointers reused, stale tokens), 6 (one's
/// own NID), 7 (the HELLO), 9 (pages overwritten as soon as a message has ended), 10, 15 (portal 0), 17.
pub fn traffic(lab: &mut Lab) -> Result<()> {
    let nodes = both(lab)?;
    let [one, two] = nodes;
    for (from, to) in [(one, two), (two, one), (one, one)] {
        Job::start(from, &to.nid(), "op=ping count=3")?.succeed(LIMIT)?;
    }
    exchange(&nodes, 52)?;
    // To oneself.
    for what in ["op=put ack=1", "op=get"] {
        let what = format!("{what} count=39 in_flight=12");
        Job::start(one, &one.nid(), &what)?.succeed(LIMIT)?;
    }
    // One after the other, as a driver may send those itself that nobody else waits for.
    for context in 0..3 {
        let what = format!("op=put ack=1 count=30 size=64 context={context}");
        Job::start(one, &two.nid(), &what)?.succeed(LIMIT)?;
    }
    nodes.into_iter().try_for_each(at_rest)?;
    let state = lnet::state()?;
    for name in [
        "inside",
        "beside",
        "later",
        "acks",
        "replies",
        "pings",
        "truncated",
        "stale_tokens",
        "waited_for_credits",
    ] {
        ensure!(value(&state, name)? > 0, "no {name}: {state:?}");
    }
    let nothing =
        ["unsent", "cut_off", "late_answers", "notified", "refused"].map(|name| (name, 0));
    lnet::expect(&state, &nothing)?;
    ensure!(
        value(&state, "asked_for_simulation")? > 0,
        "errors can't be simulated: {state:?}"
    );
    lnet::no_faults()
}

/// The module with no LNet or, which nothing else would notice, with another one than it was built for.
///
/// Trap 16.
pub fn other_modules(_: &mut Lab) -> Result<()> {
    module::remove()?;
    module::remove_shim()?;
    ensure!(module::try_insert_lnet().is_err(), "there is no LNet");
    let mut other = fs::read(module::SHIM_FILE)?;
    let sign = b"srcversion=";
    let at = other.windows(sign.len()).position(|window| window == sign);
    let digit = at.and_then(|at| other.get_mut(at + sign.len()));
    let digit = digit.context("LNet has no version")?;
    *digit = if *digit == b'0' { b'1' } else { b'0' };
    let path = "/tmp/other-lnet.ko";
    fs::write(path, other)?;
    module::insert_shim_file(path)?;
    let refused = module::try_insert_lnet();
    ensure!(
        refused == Err(Errno::INVAL),
        "it runs with another LNet: {refused:?}"
    );
    module::remove_shim()?;
    fs::remove_file(path)?;
    module::insert_flavour(Flavour::Lnet)
}

/// The contexts that a driver is called in: with a spinlock, with a file system's lock, from memory reclaim.
/// Lockdep and the check for sleeping in atomic context find errors.
///
/// Traps 1 (no call upwards in atomic context), 5 (atomic callbacks), 8 (memory without file systems).
pub fn contexts(lab: &mut Lab) -> Result<()> {
    let nodes = both(lab)?;
    let [one, two] = nodes;
    let mut jobs = Vec::new();
    for (context, kind) in [(1, 0), (1, 2), (2, 0), (2, 1)] {
        for op in ["put ack=1", "get"] {
            let what = format!("op={op} count=13 in_flight=8 context={context} kind={kind}");
            jobs.push(Job::start(one, &two.nid(), &what)?);
        }
    }
    for value in [2, 4, 1] {
        ask(
            one,
            &format!("nlset nid={} type=1 value={value}", one.nid()),
        )?;
        ask(one, &format!("nlget nid={}", one.nid()))?;
        close_conns(two)?;
    }
    jobs.iter().try_for_each(|job| job.wait(LIMIT).map(drop))?;
    exchange(&nodes, 13)?;
    lnet::del(one)?;
    lnet::no_faults()
}

/// Administration of NIs: started with tunables and without, twice, on a device that does not exist, two on one
/// device; tunables are read and changed; peers and connections listed; the link goes down.
///
/// Traps 4 (unloading is refused while an NI is there), 5 (nl_get, nl_set), 13 (two on one device,
/// links).
pub fn administration(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    let start = |node: &Node, more: &str| lnet::command(&node.space, &format!("add {more}"));
    for wrong in [
        "if=eth7",
        "nid=10.0.9.9@tcp",
        "if=lo nid=10.0.0.1@tcp",
        "nid=10.0.0.1@tcp tos=256",
    ] {
        ensure!(start(one, wrong).is_err(), "{wrong} was accepted");
    }
    // By the card, and with values of its own.
    let nid = start(one, "if=eth0 conns=2 tos=8 credits=64 peer_credits=16")?;
    ensure!(nid.trim() == one.nid(), "it is {nid}");
    let shown = values(one, &format!("show nid={}", one.nid()))?;
    let expected = [
        ("conns_per_peer", 2),
        ("tos", 8),
        ("max_credits", 64),
        ("peer_credits", 16),
        ("fatal", 0),
    ];
    lnet::expect(&shown, &expected)?;
    let again = start(one, &format!("nid={}", one.nid()));
    ensure!(again == Err(Errno::EXIST), "{again:?}");
    // Neither a card nor an address: the only one that there is.
    let nid = start(two, "net=tcp")?;
    ensure!(nid.trim() == two.nid(), "it is {nid}");
    let shown = values(two, &format!("show nid={}", two.nid()))?;
    let expected = [
        ("max_credits", 256),
        ("peer_credits", 8),
        ("peer_timeout", 180),
    ];
    lnet::expect(&shown, &expected)?;
    ensure!(value(&shown, "conns_per_peer")? >= 1, "{shown:?}");
    // Another network on the same card.
    let second = [one.in_network(1, one.addr), two.in_network(1, two.addr)];
    for node in &second {
        lnet::add(node)?;
    }
    exchange(&[one, two], 13)?;
    exchange(&[&second[0], &second[1]], 13)?;

    tunables(one)?;
    questions(one, two)?;

    let removed = module::try_remove(module::REMOVAL_LIMIT)?;
    ensure!(removed.is_err(), "the module goes while NIs are there");

    // The cable.
    let updates = counter("ping_updates")?;
    for (there, fatal) in [(false, 1), (true, 0)] {
        lab.carrier(0, there)?;
        wait::until(LIMIT, "a link that is known", || {
            for node in [one, &second[0]] {
                let shown = values(one, &format!("show nid={}", node.nid()))?;
                ensure!(value(&shown, "fatal")? == fatal, "{shown:?}");
            }
            ensure!(counter("ping_updates")? > updates, "peers are not told");
            Ok(())
        })?;
    }
    exchange(&[one, two], 13)?;
    for node in &second {
        lnet::del(node)?;
    }
    exchange(&[one, two], 13)?;
    lnet::no_faults()
}

/// Tunables of an NI that lives.
fn tunables(node: &Node) -> Result<()> {
    let nid = node.nid();
    let get = |more: &str| values(node, &format!("nlget nid={nid} {more}"));
    let set = |kind: u32, number: i64| {
        lnet::command(
            &node.space,
            &format!("nlset nid={nid} type={kind} value={number}"),
        )
    };
    let now = get("")?;
    ensure!(
        value(&now, "attr1")? == 2 && value(&now, "attr2")? > 0 && value(&now, "attr3")? == 8,
        "{now:?}"
    );
    ensure!(
        !get("backup=1")?.contains_key("attr2"),
        "a backup has the timeout"
    );
    let other = lnet::command(&node.space, &format!("nlget nid={nid} cmd=3"));
    ensure!(other == Err(Errno::OPNOTSUPP), "{other:?}");
    for wrong in [-1, 128] {
        ensure!(set(1, wrong) == Err(Errno::RANGE), "conns_per_peer {wrong}");
    }
    for wrong in [-2, 256] {
        ensure!(set(3, wrong).is_err(), "tos {wrong}");
    }
    let text = lnet::command(
        &node.space,
        &format!("nlset nid={nid} type=1 value=3 text=1"),
    );
    ensure!(text.is_err(), "text was taken for a number");
    set(1, 3)?;
    set(3, 16)?;
    set(2, 77)?;
    let now = get("")?;
    ensure!(
        value(&now, "attr1")? == 3 && value(&now, "attr3")? == 16,
        "{now:?}"
    );
    // LNet does this by itself.
    ask(node, &format!("conns nid={nid} value=1"))?;
    ensure!(value(&get("")?, "attr1")? == 1, "an old value is told");
    Ok(())
}

/// What lctl asks.
fn questions(one: &Node, two: &Node) -> Result<()> {
    let ctl = |nr: u32, more: &str| {
        let nid = one.nid();
        lnet::command(&one.space, &format!("ctl nid={nid} nr={nr} {more}"))
    };
    let interface = ctl(GET_INTERFACE, "count=0")?;
    let address = format!("u0 {}\n", u32::from(one.addr));
    ensure!(interface.contains(&address), "{interface}");
    ensure!(
        ctl(GET_INTERFACE, "count=1") == Err(Errno::NOENT),
        "a second interface"
    );
    let peer = ctl(GET_PEER, "count=0")?;
    ensure!(peer.contains(&format!("nid {}\n", two.nid())), "{peer}");
    ensure!(
        ctl(GET_PEER, "count=99") == Err(Errno::NOENT),
        "a hundredth peer"
    );
    let conn = ctl(GET_CONN, "count=0")?;
    let address = format!("u0 {}\n", u32::from(two.addr));
    ensure!(
        conn.contains(&format!("nid {}\n", two.nid())) && conn.contains(&address),
        "{conn}"
    );
    ensure!(
        ctl(GET_CONN, "count=999") == Err(Errno::NOENT),
        "a thousandth connection"
    );
    ctl(PUSH_CONNECTION, &format!("peer={}", two.nid()))?;
    ensure!(
        ctl(PUSH_CONNECTION, "peer=10.0.0.77@tcp") == Err(Errno::NOENT),
        "a stranger was pushed"
    );
    ctl(REGISTER_MYNID, &format!("peer={}", one.nid()))?;
    let other = ctl(REGISTER_MYNID, &format!("peer={}", two.nid()));
    ensure!(other == Err(Errno::INVAL), "{other:?}");
    let unknown = ctl(99, "");
    ensure!(unknown == Err(Errno::INVAL), "{unknown:?}");
    ctl(CLOSE_CONNECTION, &format!("peer={}", two.nid()))?;
    ctl(CLOSE_CONNECTION, "peer=any").map(drop)?;
    exchange(&[one, two], 13)
}

/// Waits until messages that have begun to come in are held.
fn await_held(before: i64) -> Result<()> {
    wait::until(LIMIT, "a message that is held", || {
        ensure!(counter("held")? > before, "{:?}", lnet::state()?);
        Ok(())
    })
}

/// lnd_recv is called late: when the connection has ended, when the NI is shut down, or to discard the payload.
/// And LNet refuses messages.
///
/// Trap 2 (lnd_recv after the connection has died), 4 (what waits when an NI goes), 9.
pub fn late_receives(lab: &mut Lab) -> Result<()> {
    // So that much of a message is still with the sender when its receiver waits.
    for name in ["rx_buffer_size", "tx_buffer_size"] {
        set_parameter(name, 65536)?;
    }
    let nodes = both(lab)?;
    let [one, two] = nodes;
    exchange(&nodes, 13)?;
    let hold = |op: &str| -> Result<Job> {
        lnet::set_manner(Manner::Held)?;
        let before = counter("held")?;
        let job = Job::start(
            one,
            &two.nid(),
            &format!("op={op} count=6 in_flight=6 size=1048576 timeout=2"),
        )?;
        await_held(before)?;
        Ok(job)
    };
    let release = |more: &str| -> Result<()> {
        lnet::set_manner(Manner::Mixed)?;
        ask(two, &format!("release {more}")).map(drop)
    };

    // An attempt to connect that was refused meanwhile takes all with it that waits for it.
    let work_again = || wait::until(LIMIT, "a way between them", || still_work(&nodes));

    // As if nothing had happened.
    let job = hold("put ack=1")?;
    release("")?;
    job.wait(LIMIT)?;
    // The sender's end is gone meanwhile.
    let job = hold("put ack=1")?;
    close_conns(one)?;
    wait::until(LIMIT, "a message that can't be sent", || {
        ensure!(counter("unsent")? > 0, "{:?}", lnet::state()?);
        Ok(())
    })?;
    release("")?;
    wait::until(LIMIT, "a payload that is cut off", || {
        let state = lnet::state()?;
        ensure!(
            value(&state, "cut_off")? > 0 && value(&state, REMOTE_ERROR)? > 0,
            "{state:?}"
        );
        Ok(())
    })?;
    job.wait(LIMIT)?;
    work_again()?;
    // The receiver's own end is.
    let job = hold("put")?;
    close_conns(two)?;
    release("")?;
    job.wait(LIMIT)?;
    work_again()?;
    // What was held is thrown away; what comes next on the same connection is not.
    let job = hold("put")?;
    release("drop=1")?;
    job.wait(LIMIT)?;
    work_again()?;
    // The NI goes.
    let job = hold("put ack=1")?;
    lnet::del(two)?;
    lnet::set_manner(Manner::Mixed)?;
    job.wait(LIMIT)?;
    lnet::add(two)?;
    work_again()?;
    let job = hold("get")?;
    lnet::del(one).context("the one that asks goes")?;
    lnet::set_manner(Manner::Mixed)?;
    ask(two, "release drop=1")?;
    job.wait(LIMIT)?;
    lnet::add(one)?;
    work_again()?;

    // Dropped by a rule.
    lnet::set("drop_every", 3)?;
    let what = "op=put ack=1 count=26 in_flight=8 timeout=2";
    let values = Job::start(one, &two.nid(), what)?.wait(LIMIT)?;
    lnet::set("drop_every", 0)?;
    ensure!(
        value(&values, "good")? > 0 && value(&values, "lost")? > 0,
        "{values:?}"
    );
    ensure!(value(&values, "corrupt")? == 0, "{values:?}");
    // Refused: the peer's connections are closed, and it may come again.
    for errno in [Errno::PROTO, Errno::SHUTDOWN] {
        let before = counter("turned_away")?;
        lnet::set("refuse_errno", errno.raw_os_error().unsigned_abs())?;
        lnet::set("refuse", 1)?;
        Job::start(
            one,
            &two.nid(),
            "op=put ack=1 count=13 in_flight=4 timeout=2",
        )?
        .wait(LIMIT)?;
        ensure!(counter("turned_away")? > before, "nothing was refused");
        work_again()?;
    }
    lnet::no_faults()
}

/// Loss, no memory for sockets and handshakes, connections that are closed again and again, simulated errors, messages
/// that are sent again with the same pointer, an NI that is restarted meanwhile: every message ends once, and all
/// data is intact.
///
/// Traps 3 (a pointer that is reused at once), 4, 9 (pages reused while TCP may send them again), 10 (status
/// of every completion), 11.
pub fn losses(lab: &mut Lab) -> Result<()> {
    let nodes: Vec<&Node> = lab.nodes().collect();
    nodes.iter().try_for_each(|node| lnet::add(node))?;
    exchange(&nodes, 13)?;
    lab.netem(0, "loss 2% delay 2ms")?;
    lab.netem(1, "loss 1% reorder 10% delay 3ms")?;
    lnet::set("resend", 1)?;
    lnet::set("simulate_every", 11)?;
    let mut jobs = Vec::new();
    for node in &nodes {
        for other in nodes.iter().filter(|other| other.nid() != node.nid()) {
            for what in ["op=put ack=1", "op=put", "op=get"] {
                let what = format!("{what} count=20 in_flight=6 timeout=10");
                jobs.push(Job::start(node, &other.nid(), &what)?);
            }
        }
    }
    // Statuses after which LNet tries again, and those after which it does not.
    let over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let changing = scope.spawn(|| -> Result<()> {
            for round in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                lnet::set("simulate", [2, 5, 8, 10][round % 4])?;
                close_conns(lab.node(2 - round % 2 * 2))?;
                // For what is sent next, and for who connects again.
                let _no_memory = [
                    hook("enomem_tx", 15)?,
                    hook("enomem_accept", 1)?,
                    hook("enomem_handshake", 1)?,
                ];
                wait::quiet_time(Duration::from_millis(150));
            }
            Ok(())
        });
        let ended = Over(&over);
        for _ in 0..2 {
            let begun = value(&jobs[0].values()?, "begun")?;
            jobs[0].await_begun((begun + 6).min(20), LONG)?;
            lnet::del(lab.node(1))?;
            lnet::add(lab.node(1))?;
        }
        for job in &jobs {
            job.wait(LONG)?;
        }
        drop(ended);
        changing
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })?;
    lnet::no_faults()?;
    lnet::set("simulate_every", 0)?;
    lnet::set("resend", 0)?;
    lab.netem(0, "delay 0ms")?;
    lab.netem(1, "delay 0ms")?;
    // An attempt to connect that had no memory takes all with it that waits for it, and the next one is not made at once.
    wait::until(LIMIT, "a way between all", || exchange(&nodes, 13))?;
    exchange(&nodes, 26)?;
    simulated_errors(&nodes)?;
    nodes.iter().try_for_each(|node| at_rest(node))
}

/// Each message fails as LNet has it: with this status, and is sent again if LNet thinks that worth a try.
fn simulated_errors(nodes: &[&Node]) -> Result<()> {
    lnet::set("resend", 1)?;
    for status in 1..=10 {
        let name = format!("sent_status_{status}");
        let (before, resent) = (counter(&name)?, counter("resent")?);
        lnet::set("simulate", status)?;
        lnet::set("simulate_every", 1)?;
        let values = Job::start(nodes[0], &nodes[1].nid(), "op=put count=2")?.wait(LIMIT)?;
        ensure!(value(&values, "failed")? == 2, "{values:?}");
        let tries = if matches!(status, 5 | 7 | 9 | 10) {
            1
        } else {
            3
        };
        let failed = counter(&name)? - before;
        ensure!(failed == 2 * tries, "status {status}: {failed} failed");
        let resent = counter("resent")? - resent;
        ensure!(
            resent == 2 * (tries - 1),
            "status {status}: {resent} sent again"
        );
    }
    lnet::set("simulate_every", 0)?;
    lnet::set("resend", 0)?;
    lnet::no_faults()
}

/// Two networks on one device, and LNet forwards messages between them with very few buffers: a message without a
/// buffer waits, and so does its connection.
///
/// Traps 2 (lnd_send from within lnet_finalize, of the message that was received), 12 and 13.
pub fn routers(lab: &mut Lab) -> Result<()> {
    let (one, gateway) = (lab.node(0), lab.node(1));
    let inner = gateway.in_network(1, gateway.addr);
    let two = lab.node(2).in_network(1, lab.node(2).addr);
    for node in [one, gateway, &inner, &two] {
        lnet::add(node)?;
    }
    // Without buffers this is no router: such messages are against the protocol.
    let via = format!("via={} timeout=3", gateway.nid());
    Job::start(one, &two.nid(), &format!("op=put ack=1 count=1 {via}"))?.wait(LIMIT)?;
    ensure!(counter("turned_away")? > 0, "{:?}", lnet::state()?);
    ask(gateway, "routers buffers=2")?;
    let pass = || -> Result<()> {
        let mut jobs = Vec::new();
        for (from, to, by) in [(one, &two, gateway), (&two, one, &inner)] {
            for what in ["op=put ack=1", "op=get"] {
                let what = format!("{what} count=39 in_flight=8 via={}", by.nid());
                jobs.push(Job::start(from, &to.nid(), &what)?);
            }
        }
        jobs.iter().try_for_each(|job| job.succeed(LIMIT))
    };
    pass()?;
    ensure!(counter("forwarded")? >= 4 * 39, "{:?}", lnet::state()?);
    // An attempt to connect that was refused meanwhile takes all with it that waits for it.
    let reached = || -> Result<()> {
        for (from, to, by) in [(one, &two, gateway), (&two, one, &inner)] {
            let what = format!("op=put ack=1 count=1 via={} timeout=3", by.nid());
            wait::until(LIMIT, "a way through the router", || {
                Job::start(from, &to.nid(), &what)?.succeed(LIMIT)
            })?;
        }
        Ok(())
    };
    // The one behind it goes and comes back.
    let what = format!(
        "op=put count=39 in_flight=8 via={} timeout=10",
        gateway.nid()
    );
    let job = Job::start(one, &two.nid(), &what)?;
    lnet::del(&two)?;
    lnet::add(&two)?;
    job.wait(LIMIT)?;
    reached()?;
    pass()?;
    // So do both NIs of the router.
    let job = Job::start(one, &two.nid(), &what)?;
    for node in [&inner, gateway] {
        lnet::del(node)?;
        lnet::add(node)?;
    }
    job.wait(LIMIT)?;
    reached()?;
    pass()?;
    ask(gateway, "routers buffers=0")?;
    lnet::no_faults()
}

/// A peer stops answering while as many messages as LNet allows are under way: NIs can be deleted within the
/// driver's own timeout. LNet does not call for their shutdown before all messages are finalized.
///
/// Trap 4 (only timeouts end what is under way).
pub fn hung_peer(lab: &mut Lab) -> Result<()> {
    let nodes = both(lab)?;
    let [one, two] = nodes;
    let timeout = pace::stretched(Duration::from_secs(4));
    set_parameter("sock_timeout", timeout.as_secs())?;
    exchange(&nodes, 13)?;
    let what = "op=put count=40 in_flight=40 size=262144 timeout=60";
    let jobs = [
        Job::start(one, &two.nid(), what)?,
        Job::start(two, &one.nid(), what)?,
    ];
    lab.cable(1, false)?;
    let took = lnet::del(one)?;
    ensure!(
        took < timeout * 4 + pace::stretched(Duration::from_secs(10)),
        "it took {took:?}, and the timeout is {timeout:?}"
    );
    lab.cable(1, true)?;
    for job in &jobs {
        job.wait(LIMIT)?;
    }
    lnet::add(one)?;
    exchange(&nodes, 13)?;
    lnet::no_faults()
}

/// socklctl refuses to change what LNet configures, and names LNet's command; its lists work. The flavour without
/// LNet refuses to load where LNet is loaded.
///
/// Traps 15 (the module's own message layer is off) and 16 (two modules of one name).
pub fn flavours(lab: &mut Lab) -> Result<()> {
    let nodes = both(lab)?;
    let [one, two] = nodes;
    let (own, other) = (one.nid(), two.nid());
    let route = ["route", "add", "tcp9", &other];
    let commands: [(&[&str], &str); 9] = [
        (&["ni", "add", "10.0.0.9@tcp"], "lnetctl net add"),
        (&["ni", "set", "10.0.0.9@tcp"], "lnetctl net add"),
        (&["ni", "del", &own], "lnetctl net del"),
        (&["interface", "add", "10.0.0.9"], "lnetctl net add"),
        (&["peer", "add", &other], "lctl --net tcp add_peer"),
        (&["peer", "del", &other], "lctl --net tcp del_peer"),
        (&route, "lnetctl route"),
        (&["ping", &other], "lnetctl ping"),
        (&["bench", &other], "lst"),
    ];
    for (arguments, instead) in commands {
        let refused = one.attempt(arguments, LIMIT)?;
        let said = &refused.stderr;
        ensure!(
            errno(&refused)? == "EOPNOTSUPP" && said.contains(instead),
            "{arguments:?}: {said}"
        );
    }
    exchange(&nodes, 13)?;
    for what in [["ni", "list"], ["peer", "list"], ["conn", "list"]] {
        let shown = one.socklctl(&what)?;
        ensure!(
            shown.as_array().is_some_and(|all| !all.is_empty()),
            "{what:?}: {shown}"
        );
    }
    let version = one.socklctl(&["version"])?.to_string();
    ensure!(version.contains("for LNet"), "{version}");

    for node in nodes {
        lnet::del(node)?;
    }
    module::remove()?;
    let refused = module::try_insert();
    ensure!(refused == Err(Errno::BUSY), "beside LNet: {refused:?}");
    module::insert_flavour(Flavour::Lnet)?;
    exchange(&both(lab)?, 13)
}

/// LNet's parameters for acceptors are in force: the ports, one of which is for bulk only, which nodes may
/// connect, and the time for a handshake.
pub fn acceptor(lab: &mut Lab) -> Result<()> {
    module::remove()?;
    module::remove_shim()?;
    module::insert_shim(cstr!(
        "accept_port=1986 accept_port_bulk=1987 accept=all accept_timeout=7"
    ))?;
    module::insert_flavour(Flavour::Lnet)?;
    for (name, expected) in [
        ("accept_port", "1986"),
        ("accept", "all"),
        ("accept_timeout", "7"),
    ] {
        let file = format!("/sys/module/ksocklnd/parameters/{name}");
        let value = fs::read_to_string(&file).context(file)?;
        ensure!(value.trim() == expected, "{name}: {value}");
    }
    let nodes = both(lab)?;
    exchange(&nodes, 26)?;
    let mut ports = BTreeSet::new();
    for conn in nodes[0].list(&["conn", "list"])? {
        let listens = if conn["active"] == true {
            "peer"
        } else {
            "local"
        };
        let port = if conn["type"] == "control" {
            ":1986"
        } else {
            ":1987"
        };
        let at = conn[listens].as_str().unwrap_or_default();
        ensure!(at.ends_with(port), "{conn}");
        ports.insert(port);
    }
    ensure!(ports.len() == 2, "connections of one kind: {ports:?}");
    Ok(())
}
