// SPDX-License-Identifier: GPL-2.0

//! The shim, a kernel module that plays LNet's part above the driver: `tests/lnet_shim`.
//!
//! It is controlled by commands that are written to a file in debugfs. An NI is searched in the namespace of the
//! writer.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::io::Errno;

use crate::lab::{Lab, Namespace};
use crate::module::Stuck;
use crate::node::Node;
use crate::pace;
use crate::wait;

const FOLDER: &str = "/sys/kernel/debug/lnet_shim";

/// What an NI's end may take: LNet waits for as long as the driver has anything of it.
const END: Duration = Duration::from_secs(60);

/// Values by their names.
pub type Values = BTreeMap<String, i64>;

/// When the driver is told where a payload goes.
#[derive(Clone, Copy)]
pub enum Manner {
    /// In each of these ways in turn but the last one: while the message is parsed, by the same thread or by
    /// another one, or afterwards.
    Mixed = 0,
    /// Not before the scenario says so.
    Held = 4,
}

/// Writes a command, and reads the answer.
pub fn command(space: &Namespace, text: &str) -> Result<String, Errno> {
    let act = || -> io::Result<String> {
        let path = format!("{FOLDER}/control");
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        file.write_all(text.as_bytes())?;
        let mut answer = vec![0; 4096];
        let count = file.read(&mut answer)?;
        answer.truncate(count);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let result = space.within(|| Ok(act())).map_err(|_| Errno::SRCH)?;
    result.map_err(|why| Errno::from_io_error(&why).unwrap_or(Errno::IO))
}

/// The same for one that has to succeed.
pub fn ask(node: &Node, text: &str) -> Result<String> {
    command(&node.space, text).with_context(|| format!("{text} on {}", node.nid()))
}

/// One that answers with a list of values.
pub fn values(node: &Node, text: &str) -> Result<Values> {
    Ok(parse(&ask(node, text)?))
}

fn parse(text: &str) -> Values {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// Sets a knob.
pub fn set(name: &str, value: u32) -> Result<()> {
    fs::write(format!("{FOLDER}/{name}"), value.to_string())
        .with_context(|| format!("{name}={value}"))
}

/// How lnd_recv is called from now on.
pub fn set_manner(manner: Manner) -> Result<()> {
    set("manner", manner as u32)
}

/// What has happened so far.
pub fn state() -> Result<Values> {
    Ok(parse(&fs::read_to_string(format!("{FOLDER}/state"))?))
}

/// One counter of it.
pub fn counter(name: &str) -> Result<i64> {
    value(&state()?, name)
}

/// One value of several.
pub fn value(values: &Values, name: &str) -> Result<i64> {
    let value = values.get(name).copied();
    value.with_context(|| format!("no {name} in {values:?}"))
}

/// Some of several values are these.
pub fn expect(values: &Values, expected: &[(&str, i64)]) -> Result<()> {
    for (name, expected) in expected {
        ensure!(value(values, name)? == *expected, "{name}: {values:?}");
    }
    Ok(())
}

/// The NIDs of the shim's NIs in a namespace.
fn nis(space: &Namespace) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("{FOLDER}/state"))?;
    let inode = space.inode()?.to_string();
    let lines = text.lines().filter_map(|line| line.strip_prefix("ni "));
    Ok(lines
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, place)| *place == inode)
        .map(|(nid, _)| nid.to_owned())
        .collect())
}

/// Starts a node's NI; says more of it than its NID.
pub fn add_with(node: &Node, more: &str) -> Result<()> {
    ask(node, &format!("add nid={} {more}", node.nid())).map(drop)
}

/// Starts a node's NI.
pub fn add(node: &Node) -> Result<()> {
    add_with(node, "")
}

/// Deletes a node's NI: that ends when the driver has given all back. Says how long it took.
pub fn del(node: &Node) -> Result<Duration> {
    del_nid(&node.space, &node.nid())
}

fn del_nid(space: &Namespace, nid: &str) -> Result<Duration> {
    let started = std::time::Instant::now();
    let (done, ended) = mpsc::channel();
    let (space, text) = (space.clone(), format!("del nid={nid}"));
    thread::spawn(move || done.send(command(&space, &text)));
    match ended.recv_timeout(pace::stretched(END)) {
        Ok(result) => result.with_context(|| format!("deleting {nid}"))?,
        Err(_) => Err(anyhow!(Stuck).context(format!("the driver keeps something of {nid}")))?,
    };
    Ok(started.elapsed())
}

/// Messages that one node sends again and again.
pub struct Job {
    node: Node,
    id: u32,
}

impl Job {
    /// Begins: `what` says what to send, and how many.
    pub fn start(node: &Node, to: &str, what: &str) -> Result<Job> {
        let text = format!("send from={} to={to} {what}", node.nid());
        let id = ask(node, &text)?.trim().parse().context("no number")?;
        Ok(Job {
            node: node.clone(),
            id,
        })
    }

    /// What has become of it so far.
    pub fn values(&self) -> Result<Values> {
        values(&self.node, &format!("job id={}", self.id))
    }

    /// Waits until so many have begun, or more.
    pub fn await_begun(&self, count: i64, limit: Duration) -> Result<()> {
        wait::until(limit, "messages under way", || {
            let begun = value(&self.values()?, "begun")?;
            ensure!(begun >= count, "{begun} so far");
            Ok(())
        })
    }

    /// Waits until all has ended, however it did.
    pub fn wait(&self, limit: Duration) -> Result<Values> {
        wait::until(
            limit,
            &format!("end of a job of {}", self.node.nid()),
            || {
                let values = self.values()?;
                ensure!(value(&values, "over")? == 1, "{values:?}, {:?}", state()?);
                Ok(values)
            },
        )
    }

    /// Waits until all has ended well.
    pub fn succeed(&self, limit: Duration) -> Result<()> {
        let values = self.wait(limit)?;
        let begun = value(&values, "begun")?;
        ensure!(
            value(&values, "good")? == begun,
            "not all went well: {values:?}, {:?}",
            state()?
        );
        Ok(())
    }
}

/// Nothing of this may be, whatever happens to messages.
pub fn no_faults() -> Result<()> {
    expect(
        &state()?,
        &[("violations", 0), ("corrupt", 0), ("inconsistent", 0)],
    )
}

/// Takes all NIs down; nothing of them may stay, and the driver may have done nothing wrong.
pub fn retire(lab: &Lab) -> Result<()> {
    if !crate::module::shim_is_inserted() {
        return Ok(());
    }
    take_down(lab)?;
    wait::until(END, "nothing of LNet's left", || {
        expect(
            &state()?,
            &[("messages", 0), ("operations", 0), ("memories", 0)],
        )
    })?;
    no_faults()
}

/// Takes down what a scenario that has failed has left.
pub fn abandon(lab: &Lab) -> Result<()> {
    if !crate::module::shim_is_inserted() {
        return Ok(());
    }
    take_down(lab)
}

fn take_down(lab: &Lab) -> Result<()> {
    set_manner(Manner::Mixed)?;
    for (knob, value) in [
        ("simulate_every", 0),
        ("drop_every", 0),
        ("refuse", 0),
        ("resend", 0),
    ] {
        set(knob, value)?;
    }
    let first = lab.nodes().next().context("no node")?;
    ask(first, "release drop=1")?;
    ask(first, "forget")?;
    // Their ends wait for messages to each other.
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for node in lab.nodes() {
            for nid in nis(&node.space)? {
                threads.push(scope.spawn(move || del_nid(&node.space, &nid).map(drop)));
            }
        }
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}
