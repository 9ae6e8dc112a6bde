// SPDX-License-Identifier: GPL-2.0

//! Tunables: their ranges, and their effect on existing connections.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;

use super::admin::threads;
use crate::command::run;
use crate::debugfs::sections;
use crate::family;
use crate::lab::Lab;
use crate::module;
use crate::node::Node;
use crate::peer::{CONTROL, Conn, Message};
use crate::port::mark;
use crate::wait;

const SOON: Duration = Duration::from_secs(10);

/// An entry of `/proc/sys/socknal`.
struct Entry {
    name: &'static str,
    parameter: &'static str,
    default: i64,
    min: i64,
    max: i64,
}

const fn entry(
    name: &'static str,
    parameter: &'static str,
    default: i64,
    min: i64,
    max: i64,
) -> Entry {
    Entry {
        name,
        parameter,
        default,
        min,
        max,
    }
}

const ENTRIES: [Entry; 10] = [
    entry("timeout", "sock_timeout", 50, 0, 86_400),
    entry("eager_ack", "eager_ack", 0, 0, 1),
    entry("typed", "typed_conns", 1, 0, 1),
    entry("min_bulk", "min_bulk", 1024, 0, (1 << 31) - 1),
    entry("buffer_size", "buffer_size", 8 << 20, 0, 1_073_741_823),
    entry("nagle", "nagle", 0, 0, 1),
    entry("irq_affinity", "enable_irq_affinity", 1, 0, 1),
    entry("keepalive_idle", "keepalive_idle", 30, 0, 32_767),
    entry("keepalive_count", "keepalive_count", 10, 0, 127),
    entry("keepalive_intvl", "keepalive_intvl", 2, 0, 32_767),
];

fn parameter(name: &str) -> String {
    format!("/sys/module/ksocklnd/parameters/{name}")
}

fn set(name: &str, value: i64) -> Result<()> {
    fs::write(parameter(name), value.to_string()).with_context(|| format!("{name} = {value}"))
}

fn get(path: &str) -> Result<i64> {
    Ok(fs::read_to_string(path)?.trim().parse()?)
}

/// A tunable has the same value as module parameter and as sysctl, and the defaults of 2005. Both
/// refuse values out of range.
pub fn ranges(_lab: &mut Lab) -> Result<()> {
    for entry in ENTRIES {
        let doors = [
            format!("/proc/sys/socknal/{}", entry.name),
            parameter(entry.parameter),
        ];
        let expect = |value: i64| -> Result<()> {
            for door in &doors {
                ensure!(get(door)? == value, "{door} is not {value}");
            }
            Ok(())
        };
        expect(entry.default)?;
        for door in &doors {
            for value in [entry.min, entry.max, entry.default] {
                fs::write(door, value.to_string()).with_context(|| format!("{value} > {door}"))?;
                expect(value)?;
            }
            let outside = [entry.min - 1, entry.max + 1, i64::MAX, i64::MIN];
            let wrong = outside.iter().map(i64::to_string);
            for text in wrong.chain(["x".to_owned(), "-".to_owned()]) {
                match fs::write(door, &text) {
                    Err(why) if why.kind() == ErrorKind::InvalidInput => {}
                    other => bail!("{text} > {door}: {other:?}"),
                }
                expect(entry.default)?;
            }
        }
    }

    // Those with one door: no number is too large to be seen as too large.
    for file in fs::read_dir(parameter(""))? {
        let file = file?;
        if file.metadata()?.permissions().readonly() {
            continue;
        }
        let path = file.path();
        let before = fs::read_to_string(&path)?;
        for text in ["2147483647000", "2147483648", "-2147483649", "-2", "x", ""] {
            match fs::write(&path, text) {
                Err(why) if why.kind() == ErrorKind::InvalidInput => {}
                // Nothing written is no attempt.
                Ok(()) if text.is_empty() => {}
                other => bail!("'{text}' > {}: {other:?}", path.display()),
            }
            let now = fs::read_to_string(&path)?;
            ensure!(
                now == before,
                "{} was {before} and is {now}",
                path.display()
            );
        }
    }

    // What does not go together.
    for (name, value) in [("min_reconnectms", 60_001), ("max_reconnectms", 999)] {
        let before = get(&parameter(name))?;
        ensure!(set(name, value).is_err(), "{name} = {value} was taken");
        ensure!(get(&parameter(name))? == before, "{name} changed");
    }
    set("max_reconnectms", 60_001)?;
    set("min_reconnectms", 60_001)
}

/// Parameters of the C module of today for which there is nothing to set here.
const IGNORED: [&str; 12] = [
    "credits",
    "peer_credits",
    "peer_buffer_credits",
    "peer_timeout",
    "nconnds_max",
    "round_robin",
    "inject_csum_error",
    "zc_recv",
    "zc_recv_min_nfrags",
    "skip_mr_route_setup",
    "backoff_init",
    "backoff_max",
];

/// Module parameters at insertion: those of files for the C driver, and contradictory ones.
pub fn insertion(_lab: &mut Lab) -> Result<()> {
    module::remove()?;
    for (parameters, reason) in [
        (c"nagle=x", "`x' invalid for parameter `nagle'"),
        (c"tos=70000", "`70000' invalid for parameter `tos'"),
        (c"accept=some", "`some' invalid for parameter `accept'"),
    ] {
        let refused = module::try_insert_with(parameters);
        ensure!(refused == Err(Errno::INVAL), "{parameters:?}: {refused:?}");
        let log = run(&mut Command::new("dmesg"), "", SOON)?.stdout;
        ensure!(log.contains(reason), "no word of '{reason}' in the log");
    }
    // What the C module loads with. What is not in range here is said to be taken for something else.
    module::try_insert_with(
        c"min_reconnectms=9000 max_reconnectms=1000 sock_timeout=0 keepalive_count=0 \
          keepalive_intvl=0 keepalive_idle=-1 keepalive=-1 zc_min_payload=-1 min_bulk=2097152 \
          nconnds=100 nagle=2 conns_per_peer=200 tx_buffer_size=-7 accept=none",
    )?;
    let log = run(&mut Command::new("dmesg"), "", SOON)?.stdout;
    for line in [
        "min_reconnectms=9000 is more than max_reconnectms=1000",
        "sock_timeout=0: using 50 seconds",
        "zc_min_payload=-1: using 2048",
        "keepalive_idle=-1 is out of range: 0 is taken",
        "keepalive=-1 is out of range: 0 is taken",
        "nconnds=100 is out of range: 64 is taken",
        "nagle=2 is out of range: 1 is taken",
        "conns_per_peer=200 is out of range: 127 is taken",
        "tx_buffer_size=-7 is out of range: -1 is taken",
    ] {
        ensure!(log.contains(line), "no word of '{line}' in the log");
    }
    for (name, value) in [
        ("sock_timeout", 0),
        ("keepalive_count", 0),
        ("zc_min_payload", -1),
        ("min_bulk", 2 << 20),
        ("nagle", 1),
    ] {
        ensure!(get(&parameter(name))? == value, "{name} is not {value}");
    }
    // When it is there, nothing is guessed at any more.
    ensure!(set("nagle", 2).is_err(), "nagle = 2 was taken");
    module::remove()?;

    // The order does not matter. Every name that the C module of today has may be there, and what
    // has no meaning here does no harm.
    module::try_insert_with(
        c"min_reconnectms=90000 max_reconnectms=120000 sock_timeout=20 credits=256 \
          peer_credits=16 peer_buffer_credits=0 peer_timeout=180 nconnds=8 nconnds_max=16 nscheds=1 \
          typed_conns=1 min_bulk=2048 tx_buffer_size=65536 rx_buffer_size=0 nagle=0 eager_ack=1 \
          round_robin=1 enable_irq_affinity=0 keepalive=30 keepalive_idle=30 keepalive_count=5 \
          keepalive_intvl=5 enable_csum=0 inject_csum_error=0 nonblk_zcack=1 zc_min_payload=16384 \
          zc_recv=0 zc_recv_min_nfrags=16 conns_per_peer=0 skip_mr_route_setup=0 tos=16 \
          backoff_init=3 backoff_max=3 protocol=3",
    )?;
    let log = run(&mut Command::new("dmesg"), "", SOON)?.stdout;
    for name in IGNORED {
        let line = format!("unknown parameter '{name}' ignored");
        ensure!(log.contains(&line), "no word of {name} in the log");
    }
    for (name, value) in [
        ("min_reconnectms", 90_000),
        ("sock_timeout", 20),
        ("tx_buffer_size", 65_536),
        ("rx_buffer_size", 0),
        ("keepalive_count", 5),
        ("zc_min_payload", 16_384),
        ("conns_per_peer", 0),
        ("tos", 16),
    ] {
        ensure!(get(&parameter(name))? == value, "{name} is not {value}");
    }
    let threads = threads()?;
    for (kind, wanted) in [("socklnd_cd", 8), ("socklnd_sd", 1)] {
        let names = threads.values().map(|thread| &thread.name);
        let count = names.filter(|name| name.starts_with(kind)).count();
        ensure!(
            count == wanted,
            "{count} threads {kind} instead of {wanted}"
        );
    }
    Ok(())
}

/// All connections of all nodes have these values, read from their sockets.
fn expect(values: &[(&str, u64)]) -> Result<()> {
    let conns = sections("conn ")?;
    ensure!(conns.len() == 6, "{} connections", conns.len());
    for conn in &conns {
        for (name, value) in values {
            let now = conn.get(name)?;
            ensure!(now == *value, "{name} of '{}' is {now}", conn.heading);
        }
    }
    Ok(())
}

/// A knob, its new value, and what sockets have then.
type Step = (&'static str, i64, &'static [(&'static str, u64)]);

/// Closes all connections and opens them anew.
fn reconnect(one: &Node, two: &Node, count: usize) -> Result<()> {
    one.close_conns()?;
    two.close_conns()?;
    wait::until(SOON, "all connections closed", || {
        ensure!(one.conns_to(two)?.is_empty() && two.conns_to(one)?.is_empty());
        Ok(())
    })?;
    one.ping(two)?;
    wait::until(SOON, "all connections open", || {
        // From the moment in which it has its socket.
        let mut open = sections("conn ")?;
        open.retain(|conn| conn.get("send_buffer").is_ok());
        ensure!(open.len() == count, "{} connections", open.len());
        Ok(())
    })
}

/// Changes of tunables take effect on existing connections, and do no harm to them.
pub fn living(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    reconnect(one, two, 6)?;
    // Sizes are doubled by the kernel, for its own overhead.
    expect(&[
        ("nagle", 0),
        ("send_buffer", 16 << 20),
        ("receive_buffer", 16 << 20),
        ("keepalive_idle", 30),
        ("keepalive_intvl", 2),
        ("keepalive_count", 10),
        ("tos", 0),
    ])?;
    let steps: [Step; 17] = [
        ("nagle", 1, &[("nagle", 1)]),
        ("nagle", 0, &[("nagle", 0)]),
        ("keepalive_idle", 77, &[("keepalive_idle", 77)]),
        ("keepalive_intvl", 5, &[("keepalive_intvl", 5)]),
        ("keepalive_count", 7, &[("keepalive_count", 7)]),
        // One that is 0 is enough for there to be none, as the C driver has it.
        ("keepalive_count", 0, &[("keepalive_idle", 0)]),
        ("keepalive_count", 7, &[("keepalive_idle", 77)]),
        ("keepalive_intvl", 0, &[("keepalive_idle", 0)]),
        ("keepalive_intvl", 5, &[("keepalive_idle", 77)]),
        ("keepalive_idle", 0, &[("keepalive_idle", 0)]),
        // Of it, two bits are TCP's own.
        ("tos", 0x2b, &[("keepalive_idle", 0), ("tos", 0x28)]),
        ("tos", -1, &[("tos", 0x28)]),
        ("tos", 0x10, &[("tos", 0x10)]),
        (
            "buffer_size",
            100_000,
            &[("send_buffer", 200_000), ("receive_buffer", 200_000)],
        ),
        (
            "tx_buffer_size",
            50_000,
            &[("send_buffer", 100_000), ("receive_buffer", 200_000)],
        ),
        ("rx_buffer_size", 0, &[("send_buffer", 100_000)]),
        ("tx_buffer_size", -1, &[("send_buffer", 200_000)]),
    ];
    for (name, value, sockets) in steps {
        set(name, value)?;
        expect(sockets).with_context(|| format!("after {name} = {value}"))?;
        one.ping(two)?;
    }
    let same = |conn: &serde_json::Value| conn["age_ms"].as_u64().unwrap_or(0) > 0;
    ensure!(one.conns_to(two)?.iter().all(same), "connections were lost");

    // Buffers are there before the handshake: on both sides windows can grow to their size.
    let scale = || -> Result<Vec<u64>> {
        let conns = sections("conn ")?;
        conns.iter().map(|conn| conn.get("window_scale")).collect()
    };
    set("rx_buffer_size", -1)?;
    set("buffer_size", 30_000)?;
    reconnect(one, two, 6)?;
    ensure!(scale()?.iter().all(|s| *s == 0), "{:?}", scale()?);
    set("buffer_size", 512 << 20)?;
    reconnect(one, two, 6)?;
    ensure!(scale()?.iter().all(|s| *s >= 12), "{:?}", scale()?);

    // New connections on both sides are marked, without any probes. The last step had set 0x10.
    expect(&[("keepalive_idle", 0), ("tos", 0x10)])?;

    // New connections have the types that are wanted now: but with versions 3 and 4 always the same, which
    // the log says once.
    const NEW_TYPES: &str = "types of connections are not wanted";
    mark(NEW_TYPES);
    set("typed_conns", 0)?;
    for _ in 0..2 {
        reconnect(one, two, 6)?;
        let conns = one.conns_to(two)?;
        ensure!(conns.iter().all(|conn| conn["type"] != "any"), "{conns:?}");
    }
    let log = run(&mut Command::new("dmesg"), "", SOON)?.stdout;
    let (_, since) = log.rsplit_once(NEW_TYPES).context("no mark in the log")?;
    let told = since.matches("typed_conns=0 has no effect").count();
    ensure!(told == 1, "the log says so {told} times");
    if !family::is_ipv6() {
        set("protocol", 2)?;
        for node in [one, two] {
            node.ni_del()?;
        }
        lab.connect(2)?;
        reconnect(one, two, 2)?;
        let conns = one.conns_to(two)?;
        ensure!(conns.iter().all(|conn| conn["type"] == "any"), "{conns:?}");
    }
    set("typed_conns", 1)?;
    reconnect(one, two, 6)
}

/// With `eager_ack` no acknowledgement of a message is delayed; without it some are.
pub fn eager_ack(lab: &mut Lab) -> Result<()> {
    const ROUNDS: u64 = 10;
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let mut conn = Conn::greeted(&script.space, script.addr, node, CONTROL)?;
    // Nobody answers this one, so nothing carries its acknowledgement. After the answer to a ping
    // TCP waits for such an answer.
    let lost = Message::put(script.addr, node.addr, 7, 7, vec![7; 100]).bytes();
    let mut delayed = || -> Result<u64> {
        let before = delayed_acks(node)?;
        for handle in 1..=ROUNDS {
            conn.ping(handle)?;
            conn.send(&lost)?;
            wait::until(SOON, "acknowledgement", || unacknowledged(script))?;
        }
        Ok(delayed_acks(node)? - before)
    };
    let lazily = delayed()?;
    ensure!(
        lazily >= ROUNDS / 2,
        "acknowledgements delayed: {lazily} without eager_ack"
    );
    set("eager_ack", 1)?;
    // On a slow machine TCP's time may be up before the message is looked at, now and then.
    wait::until(SOON, "no acknowledgement delayed", || {
        let eagerly = delayed()?;
        ensure!(eagerly == 0, "{eagerly} of {ROUNDS} were, with eager_ack");
        Ok(())
    })
}

/// How many acknowledgements a node's TCP has sent because their time was up.
fn delayed_acks(node: &Node) -> Result<u64> {
    let table = node
        .space
        .within(|| Ok(fs::read_to_string("/proc/thread-self/net/netstat")?))?;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("TcpExt:"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let [names, values] = lines.as_slice() else {
        bail!("strange: {table}");
    };
    let at = names.iter().position(|name| *name == "DelayedACKs");
    let value = at.and_then(|at| values.get(at));
    Ok(value.context("no DelayedACKs")?.parse()?)
}

/// Fails while a TCP socket of this node waits for an acknowledgement.
fn unacknowledged(node: &Node) -> Result<()> {
    for line in node.tcp_sockets()? {
        let queues = line.split_whitespace().nth(4).unwrap_or_default();
        ensure!(queues.starts_with("00000000:"), "{line}");
    }
    Ok(())
}
