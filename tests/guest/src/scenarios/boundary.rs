// SPDX-License-Identifier: GPL-2.0

//! The message layer for tests: it keeps receive tokens, answers late and from a thread of its own, and its
//! payloads are in memory of all kinds, in pieces at odd offsets.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::connect::disconnect;
use super::versions::set;
use crate::debugfs;
use crate::lab::Lab;
use crate::node::Node;
use crate::wait;

/// Where kernels with KUnit have it.
const FOLDER: &str = "/sys/kernel/debug/socklnd_test_layer";

/// For what is under way at the same time, however slow the machine is.
const LIMIT: Duration = Duration::from_secs(120);

/// Messages from each node to each other one: more than there are kinds of them.
const MESSAGES: u64 = 36;

/// What has become of messages, by name.
type Stats = BTreeMap<String, u64>;

/// The layer, for NIs that are started while this is there.
struct Layer;

impl Layer {
    fn enable() -> Result<Layer> {
        fs::write(format!("{FOLDER}/enabled"), "1")?;
        Ok(Layer)
    }

    fn stats(&self) -> Result<Stats> {
        let text = fs::read_to_string(format!("{FOLDER}/stats"))?;
        let parse = |line: &str| -> Result<(String, u64)> {
            let (name, value) = line.split_once(' ').context("no value")?;
            Ok((name.to_owned(), value.parse()?))
        };
        text.lines().map(parse).collect()
    }

    fn get(&self, name: &str) -> Result<u64> {
        let stats = self.stats()?;
        stats
            .get(name)
            .copied()
            .with_context(|| format!("no {name}"))
    }

    /// Has each NI send so many messages to each other one.
    fn send(&self, count: u64) -> Result<()> {
        Ok(fs::write(format!("{FOLDER}/send"), count.to_string())?)
    }

    /// Waits until `count` more messages than those in `before` have ended, on both sides. Returns what has
    /// become of them.
    fn await_end(&self, before: &Stats, count: u64) -> Result<Stats> {
        wait::until(LIMIT, "end of all messages", || {
            let stats = self.stats()?;
            let got = |name: &str| stats[name] - before[name];
            let ended = got("sent") + got("unsent");
            let arrived = got("intact") + got("corrupt") + got("discarded") + got("cut_off");
            ensure!(
                got("begun") == count && ended == count && arrived == got("arriving"),
                "{stats:?}"
            );
            // What was sent may still be on its way, unless it was lost with its connection.
            Ok(stats
                .iter()
                .map(|(name, value)| (name.clone(), value - before[name]))
                .collect())
        })
    }

    /// Has two nodes send each other `count` messages, all of which must arrive intact.
    fn exchange(&self, count: u64) -> Result<()> {
        let before = self.stats()?;
        self.send(count)?;
        wait::until(LIMIT, "verified messages both ways", || {
            let stats = self.stats()?;
            let intact = stats["intact"] - before["intact"];
            ensure!(intact == 2 * count, "{stats:?}");
            Ok(())
        })?;
        let ended = self.await_end(&before, 2 * count)?;
        for name in ["unsent", "corrupt", "discarded", "cut_off"] {
            ensure!(ended[name] == 0, "{ended:?}");
        }
        Ok(())
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        let _ = fs::write(format!("{FOLDER}/enabled"), "0");
    }
}

/// Messages while connections are closed by one side and the other: none is told of twice or never, and
/// none arrives changed.
fn lose_connections(layer: &Layer, nodes: [&Node; 2]) -> Result<()> {
    let before = layer.stats()?;
    let lost = layer.get("peers_lost")?;
    layer.send(MESSAGES)?;
    for round in 0.. {
        nodes[round % 2].close_conns()?;
        let begun = layer.get("begun")? - before["begun"];
        if begun == 2 * MESSAGES {
            break;
        }
        // So that some are sent between.
        wait::until(LIMIT, "more messages", || {
            let now = layer.get("begun")? - before["begun"];
            ensure!(now > begun, "{now} so far");
            Ok(())
        })?;
    }
    layer.await_end(&before, 2 * MESSAGES)?;
    // What was sent and is still on its way ends with its connection, and does not arrive later.
    disconnect(nodes[0], nodes[1])?;
    for node in nodes {
        wait::until(LIMIT, "end of all connections", || {
            let left = node.counter("/live/conns")?;
            ensure!(left == 0, "{left} are left");
            Ok(())
        })?;
    }
    let ended = layer.await_end(&before, 2 * MESSAGES)?;
    ensure!(ended["corrupt"] == 0, "{ended:?}");
    ensure!(layer.get("peers_lost")? > lost, "nobody was told of a loss");
    Ok(())
}

/// Two nodes with the message layer for tests, in each version with another form of headers or
/// checksums: they exchange verified data, also after connections were closed during transfers.
pub fn test_layer(lab: &mut Lab) -> Result<()> {
    let layer = Layer::enable()?;
    for (protocol, csum, acks) in [("3", "0", "1"), ("2", "1", "0"), ("4", "0", "0")] {
        set("protocol", protocol)?;
        set("enable_csum", csum)?;
        set("zc_acks", acks)?;
        let round = || -> Result<()> {
            lab.connect(2)?;
            let (one, two) = (lab.node(0), lab.node(1));
            layer.exchange(MESSAGES)?;
            lose_connections(&layer, [one, two])?;
            layer.exchange(MESSAGES)?;
            let errors = debugfs::sum(&debugfs::sections("ni ")?, "protocol_errors")?;
            ensure!(errors == 0, "{errors} protocol errors");
            // With messages under way: they end with their NI.
            let before = layer.stats()?;
            layer.send(MESSAGES)?;
            wait::until(LIMIT, "messages under way", || {
                ensure!(layer.get("begun")? > before["begun"]);
                Ok(())
            })?;
            one.ni_del()?;
            two.ni_del()
        };
        round().with_context(|| format!("protocol {protocol}, enable_csum={csum}"))?;
        wait::until(LIMIT, "end of what was under way", || {
            let stats = layer.stats()?;
            ensure!(
                stats["begun"] == stats["sent"] + stats["unsent"]
                    && stats["arriving"]
                        == stats["intact"]
                            + stats["corrupt"]
                            + stats["discarded"]
                            + stats["cut_off"],
                "{stats:?}"
            );
            Ok(())
        })?;
        ensure!(layer.get("corrupt")? == 0, "{:?}", layer.stats()?);
    }
    Ok(())
}
