// SPDX-License-Identifier: GPL-2.0

//! The module's tracepoints.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command::run;
use crate::family;
use crate::lab::Lab;
use crate::node::Node;
use crate::peer::{BULK_OUT, Conn, Message, request};
use crate::wait;

const FOLDER: &str = "/sys/kernel/tracing";
const SOON: Duration = Duration::from_secs(10);

/// Tracing of the module's events, from now until this is dropped.
struct Trace;

impl Trace {
    /// Switches all on.
    fn start() -> Result<Trace> {
        if !fs::exists(format!("{FOLDER}/trace"))? {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tracefs", "none", FOLDER]);
            run(&mut mount, "", SOON)?.checked("mount tracefs")?;
        }
        fs::write(format!("{FOLDER}/trace"), "")?;
        fs::write(format!("{FOLDER}/events/socklnd/enable"), "1").context("no events")?;
        Ok(Trace)
    }

    /// The lines of one event so far.
    fn lines(&self, event: &str) -> Result<Vec<String>> {
        let text = family::inward(&fs::read_to_string(format!("{FOLDER}/trace"))?);
        let event = format!(" {event}: ");
        let lines = text.lines().filter_map(|line| line.split_once(&event));
        Ok(lines.map(|(_, fields)| fields.to_owned()).collect())
    }

    /// Waits for a line of this event that has all these parts.
    fn expect(&self, event: &str, parts: &[&str]) -> Result<()> {
        wait::until(SOON, &format!("{event} {parts:?}"), || {
            let lines = self.lines(event)?;
            let has_all = |line: &String| parts.iter().all(|part| line.contains(part));
            if !lines.iter().any(has_all) {
                bail!("only {lines:#?}");
            }
            Ok(())
        })
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::write(format!("{FOLDER}/events/socklnd/enable"), "0");
        let _ = fs::write(format!("{FOLDER}/trace"), "");
    }
}

/// Tracepoints show the life of connections and their messages, if they are enabled.
pub fn tracepoints(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (one, two) = (lab.node(0), lab.node(1));
    let trace = Trace::start()?;
    one.ping(two)?;
    for (node, other) in [(one, two), (two, one)] {
        let ends = [
            format!("nid={} peer={}", node.nid(), other.nid()),
            format!("local={}:", node.addr),
            format!("remote={}:", other.addr),
        ];
        let expect = |event: &str, parts: &[&str]| -> Result<()> {
            let ends = ends.iter().map(String::as_str);
            let parts: Vec<&str> = ends.chain(parts.iter().copied()).collect();
            trace.expect(event, &parts)
        };
        for kind in ["type=control", "type=bulk_in", "type=bulk_out"] {
            expect("socklnd_connect", &[kind, "error=0"])?;
        }
        // A ping is a GET without payload, only headers; its answer has some.
        let (_, headers) = family::newest();
        let bytes = format!("bytes={headers} ");
        let event = if node.nid() == one.nid() {
            ["socklnd_send", "socklnd_receive"]
        } else {
            ["socklnd_receive", "socklnd_send"]
        };
        expect(event[0], &["type=control", &bytes, "error=0"])?;
        expect(event[1], &["type=control", "error=0"])?;
    }

    one.close_conns()?;
    // ESHUTDOWN here; there it is the connection that was closed.
    trace.expect(
        "socklnd_close",
        &[&format!("nid={}", one.nid()), "error=-108"],
    )?;
    trace.expect(
        "socklnd_close",
        &[&format!("nid={}", two.nid()), "error=-104"],
    )?;

    refused(&trace, one, two)?;
    broken(&trace, one, two)?;
    timed_out(&trace, lab)?;

    // Switched off, nothing is recorded, and nothing is lost.
    drop(trace);
    one.ping(two)?;
    let text = fs::read_to_string(format!("{FOLDER}/trace"))?;
    ensure!(!text.contains("socklnd_"), "still recorded: {text}");
    Ok(())
}

/// A handshake that comes to nothing.
fn refused(trace: &Trace, node: &Node, stranger: &Node) -> Result<()> {
    let mut conn = Conn::dial(&stranger.space, stranger.addr, node.addr)?;
    conn.send(&request(0xdead_beef, 1, 0))?;
    trace.expect(
        "socklnd_handshake_fail",
        &[
            &format!("nid={} ", node.nid()),
            &format!("remote={}:", stranger.addr),
            "active=0 error=-71 reason=\"",
            "magic 0xdeadbeef",
        ],
    )
}

/// A connection whose peer breaks the protocol: the event names the field and its value.
fn broken(trace: &Trace, node: &Node, stranger: &Node) -> Result<()> {
    let addr = Ipv4Addr::new(10, 0, 0, 77);
    stranger.space.ip(&family::addr_add(addr, 24))?;
    let mut conn = Conn::greeted(&stranger.space, addr, node, BULK_OUT)?;
    let mut message = Message::put(addr, node.addr, 0, 0, Vec::new());
    message.length = 0x0020_0000;
    conn.send(&message.bytes())?;
    trace.expect(
        "socklnd_conn_fail",
        &[
            &format!("nid={} ", node.nid()),
            &format!("remote={addr}:"),
            "error=-71 reason=\"bad payload length 2097152\"",
        ],
    )
}

/// A connection whose other end is gone.
fn timed_out(trace: &Trace, lab: &Lab) -> Result<()> {
    const TIMEOUT: &str = "/proc/sys/socknal/timeout";
    let (one, two) = (lab.node(0), lab.node(1));
    wait::until(SOON, "connections", || one.ping(two).map(drop))?;
    fs::write(TIMEOUT, "3")?;
    lab.cable(1, false)?;
    let _ = one.try_ping(two, Duration::from_secs(1))?;
    let whose = format!("nid={} peer={} ", one.nid(), two.nid());
    for event in ["socklnd_timeout", "socklnd_close"] {
        trace.expect(event, &[&whose, "error=-110"])?;
    }
    lab.cable(1, true)?;
    fs::write(TIMEOUT, "50")?;
    wait::until(Duration::from_secs(30), "ping succeeds again", || {
        one.ping(two).map(drop)
    })
}
