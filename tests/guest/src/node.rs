// SPDX-License-Identifier: GPL-2.0

//! A node: a namespace in which `socklctl` is used as an administrator would.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::command::{Job, Output};
use crate::family::{self, Family};
use crate::lab::Namespace;
use crate::pace;

/// The longest that any administrative command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
/// How long an answer to a ping is waited for.
const PING_LIMIT: Duration = Duration::from_secs(10);

/// Which way a transfer goes, seen from who asks for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// To the other.
    Put,
    /// From the other.
    Get,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Op::Put { "put" } else { "get" })
    }
}

/// A transfer to ask for.
#[derive(Clone, Copy)]
pub struct Bench {
    /// Which way.
    pub op: Op,
    /// Bytes a message.
    pub size: usize,
    /// How many messages.
    pub count: usize,
    /// How many of them at the same time.
    pub in_flight: usize,
    /// How long all of it may take, on the reference: see [`crate::pace`].
    pub limit: Duration,
}

/// One node.
#[derive(Clone)]
pub struct Node {
    /// Where it lives.
    pub space: Namespace,
    /// The address of its network card.
    pub addr: Ipv4Addr,
    /// The number of the network that it is in.
    pub network: u16,
}

impl Node {
    /// A node in this namespace, which has this address.
    pub fn new(space: Namespace, addr: Ipv4Addr) -> Node {
        Node {
            space,
            addr,
            network: 0,
        }
    }

    /// The same machine as a node of another network, in which it has this address.
    pub fn in_network(&self, network: u16, addr: Ipv4Addr) -> Node {
        Node {
            space: self.space.clone(),
            addr,
            network,
        }
    }

    /// Its NID.
    pub fn nid(&self) -> String {
        match self.network {
            0 => format!("{}@tcp", self.addr),
            number => format!("{}@tcp{number}", self.addr),
        }
    }

    /// Starts socklctl here.
    pub fn start(&self, arguments: &[&str]) -> Result<Job> {
        self.space
            .start(Command::new("socklctl").arg("--json").args(arguments), "")
    }

    /// Runs socklctl here, whatever comes of it.
    pub fn attempt(&self, arguments: &[&str], limit: Duration) -> Result<Output> {
        self.start(arguments)?.wait(limit)
    }

    /// Runs socklctl here; it must succeed, and says its answer.
    pub fn socklctl(&self, arguments: &[&str]) -> Result<Value> {
        answer(self.attempt(arguments, COMMAND_LIMIT)?.checked(&format!(
            "{} on {}",
            arguments.join(" "),
            self.nid()
        ))?)
    }

    /// Gives the node its NI.
    pub fn ni_add(&self) -> Result<()> {
        self.socklctl(&["ni", "add", &self.nid()]).map(drop)
    }

    /// Takes it away again.
    pub fn ni_del(&self) -> Result<()> {
        self.socklctl(&["ni", "del", &self.nid()]).map(drop)
    }

    /// Says where another node is.
    pub fn peer_add(&self, other: &Node) -> Result<()> {
        self.socklctl(&["peer", "add", &other.nid(), &other.addr.to_string()])
            .map(drop)
    }

    /// Pings another node.
    pub fn ping(&self, other: &Node) -> Result<Value> {
        answer(self.ping_within(other, PING_LIMIT)?.checked(&format!(
            "ping from {} to {}",
            self.nid(),
            other.nid()
        ))?)
    }

    /// Pings another node, which has so long to answer, by the pace of this guest: what came of it, and
    /// how long it took.
    pub fn ping_within(&self, other: &Node, limit: Duration) -> Result<Output> {
        self.try_ping(other, pace::stretched(limit))
    }

    /// Starts a ping of another node that waits for the answer as long as it is wanted.
    pub fn start_ping(&self, other: &Node) -> Result<Job> {
        self.start(&["ping", "-W", "3600", &other.nid()])
    }

    /// Pings another node and gives up after just `limit`: what came of it, and how long it took.
    pub fn try_ping(&self, other: &Node, limit: Duration) -> Result<Output> {
        let limit_text = limit.as_secs_f64().to_string();
        self.attempt(
            &["ping", "-W", &limit_text, &other.nid()],
            limit + COMMAND_LIMIT,
        )
    }

    /// Closes all connections.
    pub fn close_conns(&self) -> Result<()> {
        self.socklctl(&["conn", "close", "any"]).map(drop)
    }

    /// Offers the service that transfers go to, until the job ends.
    pub fn serve(&self) -> Result<Job> {
        let mut job = self.start(&["serve"])?;
        job.await_output("ready", COMMAND_LIMIT)
            .with_context(|| format!("on {}", self.nid()))?;
        Ok(job)
    }

    /// Starts a transfer with another node.
    pub fn start_bench(&self, other: &Node, bench: &Bench) -> Result<Job> {
        self.start(&[
            "bench",
            "--op",
            &bench.op.to_string(),
            "--size",
            &bench.size.to_string(),
            "--count",
            &bench.count.to_string(),
            "--in-flight",
            &bench.in_flight.to_string(),
            "--timeout",
            &pace::stretched(bench.limit).as_secs_f64().to_string(),
            &other.nid(),
        ])
    }

    /// Transfers with another node; all messages must go through with the right contents.
    pub fn bench(&self, other: &Node, bench: &Bench) -> Result<Value> {
        let what = format!("{} {} times {} bytes", bench.op, bench.count, bench.size);
        check_bench(
            self.start_bench(other, bench)?
                .wait(bench.limit + COMMAND_LIMIT)?,
            bench,
        )
        .context(what)
    }

    /// What one of the lists of socklctl holds.
    pub fn list(&self, what: &[&str]) -> Result<Vec<Value>> {
        match self.socklctl(what)? {
            Value::Array(entries) => Ok(entries),
            other => bail!("{} gave no list: {other}", what.join(" ")),
        }
    }

    /// Its connections to another node.
    pub fn conns_to(&self, other: &Node) -> Result<Vec<Value>> {
        let mut conns = self.list(&["conn", "list"])?;
        conns.retain(|conn| conn["nid"] == other.nid().as_str());
        Ok(conns)
    }

    /// The lines of the kernel's table of its TCP sockets.
    pub fn tcp_sockets(&self) -> Result<Vec<String>> {
        let table = match family::current() {
            Family::V4 => "/proc/thread-self/net/tcp",
            Family::V6 => "/proc/thread-self/net/tcp6",
        };
        let text = self.space.within(|| Ok(fs::read_to_string(table)?))?;
        let lines = text.lines().skip(1).map(str::trim);
        Ok(lines.map(str::to_owned).collect())
    }

    /// The counters of its NI, or nothing if it has none.
    pub fn stats(&self) -> Result<Option<Value>> {
        Ok(self.list(&["stats"])?.into_iter().next())
    }

    /// One counter of its NI, by its path in the JSON text.
    pub fn counter(&self, path: &str) -> Result<u64> {
        let stats = self.stats()?.context("the node has no NI")?;
        stats
            .pointer(path)
            .and_then(Value::as_u64)
            .with_context(|| format!("no counter {path} in {stats}"))
    }
}

/// Reads the answer of a socklctl that succeeded.
pub fn answer(output: Output) -> Result<Value> {
    if output.stdout.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&output.stdout).with_context(|| format!("no JSON: {}", output.stdout))
}

/// The error number's name that a failed socklctl told.
pub fn errno(output: &Output) -> Result<String> {
    ensure!(!output.status.success(), "it succeeded: {}", output.stdout);
    let told: Value = serde_json::from_str(output.stderr.trim())
        .with_context(|| format!("no JSON: {}", output.stderr))?;
    Ok(told["errno"].as_str().unwrap_or_default().to_owned())
}

/// A finished transfer in which every message must have gone through unharmed.
pub fn check_bench(output: Output, bench: &Bench) -> Result<Value> {
    let result = answer(output.checked("bench")?)?;
    let number = |name: &str| {
        result[name]
            .as_u64()
            .with_context(|| format!("no {name} in {result}"))
    };
    ensure!(number("errors")? == 0, "messages failed: {result}");
    ensure!(
        number("verify_failures")? == 0,
        "wrong contents arrived: {result}"
    );
    ensure!(
        number("messages")? == bench.count as u64,
        "not all messages went through: {result}"
    );
    ensure!(
        number("bytes")? == (bench.count * bench.size) as u64,
        "wrong number of bytes: {result}"
    );
    Ok(result)
}
