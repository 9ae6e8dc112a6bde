// SPDX-License-Identifier: GPL-2.0

//! Gateways that are lost and come back under load.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Crossing, LIMIT, await_large, await_routes, bench, forwarding, routes, start_gateway,
    stop_gateway,
};
use crate::command::Output;
use crate::lab::Lab;
use crate::node::{Bench, Node, Op, answer};
use crate::pace;
use crate::port::note;
use crate::scenarios::admin::Random;
use crate::scenarios::traffic::{await_traffic, lasting};
use crate::scenarios::versions::set;
use crate::wait;

/// A gateway is lost under load: its messages fail, and all others go through the other gateway.
/// When it is back, it is used again.
pub fn lost(lab: &mut Lab) -> Result<()> {
    // What goes through takes less.
    set("sock_timeout", pace::scaled(4))?;
    set("max_reconnectms", 1000)?;
    let crossing = Crossing::new(lab, 2, 2, 2)?;
    let (one, two) = (&crossing.clients[0], &crossing.servers[0]);
    let (first, second) = (&crossing.gateways[0], &crossing.gateways[1]);
    let _service = two.serve()?;
    let up = |first: &str| {
        json!([
            ["tcp1", "10.0.0.3@tcp", 0, first],
            ["tcp1", "10.0.0.4@tcp", 0, "up"],
        ])
    };
    // Many more than are on their way at a time, and more than go through until the gateway is lost.
    let count = lasting(
        one,
        two,
        &bench(Op::Put, 20_000, 60),
        Duration::from_secs(3),
    )?;
    for killed in [true, false] {
        let load = bench(Op::Put, 20_000, count.max(200));
        let before = second.counter("/rx/msgs")?;
        let job = one.start_bench(two, &load)?;
        await_traffic(second, 20)?;
        if killed {
            stop_gateway(first)?;
        } else {
            lab.cable(2, false)?;
        }
        wait::until(LIMIT, "loss of the gateway noticed", || {
            // Who has nothing to say to it learns nothing about it.
            one.attempt(&["ping", "-W", "0.2", &two.nid()], LIMIT)?;
            let now = routes(one)?;
            ensure!(now == up("down"), "{now}");
            Ok(())
        })?;
        // No message is lost without a word, or comes twice.
        let output = job.wait(load.limit + LIMIT)?;
        let result = match answer(output) {
            Ok(result) if !result.is_null() => result,
            _ => json!({}),
        };
        let number = |name: &str| result[name].as_u64().unwrap_or(0);
        note(&format!(
            "{} went through, {} failed",
            number("messages"),
            number("errors")
        ));
        ensure!(
            number("messages") + number("errors") == load.count as u64,
            "messages are missing: {result}"
        );
        ensure!(number("verify_failures") == 0, "wrong contents: {result}");
        ensure!(
            number("messages") > load.count as u64 / 2,
            "the other gateway was not used: {result}"
        );
        one.bench(two, &bench(Op::Put, 20_000, 20))?;
        ensure!(second.counter("/rx/msgs")? > before, "not by the other");
        if killed {
            start_gateway(first)?;
        } else {
            lab.cable(2, true)?;
        }
        await_routes(one, &up("up"))?;
        let used = forwarding(first, "msgs")?;
        // The server finds it by itself too; until then it answers by the other.
        wait::until(LIMIT, "all routes of the server up", || {
            let routes = two.list(&["route", "list"])?;
            let up = routes.iter().all(|route| route["state"] == "up");
            ensure!(up, "{}", Value::from(routes));
            Ok(())
        })?;
        one.bench(two, &bench(Op::Get, 20_000, 20))?;
        ensure!(forwarding(first, "msgs")? > used, "not used again");
    }
    Ok(())
}

/// Thirty times, at random, a connection is closed, a link goes down, or a node is killed.
pub fn thirty_losses(lab: &mut Lab) -> Result<()> {
    random_losses(lab, 30)
}

/// The same, for longer.
pub fn thousand_losses(lab: &mut Lab) -> Result<()> {
    random_losses(lab, 1000)
}

/// What is broken at the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Killed,
    Unplugged,
}

/// What was sent and what came of it.
#[derive(Default)]
struct Count {
    through: u64,
    failed: u64,
    unbegun: u64,
}

impl Count {
    /// Of each message it must be known what came of it, and what went through must be as it was sent,
    /// and have arrived once.
    fn add(&mut self, output: Output, load: &Bench) -> Result<()> {
        if !output.status.success() && output.stdout.trim().is_empty() {
            // Not even the beginning went through, and that was said.
            ensure!(output.stderr.contains("errno"), "{}", output.stderr);
            self.unbegun += 1;
            return Ok(());
        }
        let result = answer(output)?;
        let number = |name: &str| {
            result[name]
                .as_u64()
                .with_context(|| format!("no {name} in {result}"))
        };
        let (through, failed) = (number("messages")?, number("errors")?);
        ensure!(number("verify_failures")? == 0, "wrong contents: {result}");
        ensure!(
            number("bytes")? == through * load.size as u64,
            "wrong number of bytes: {result}"
        );
        // That the server's own count could not be had is counted as an error too.
        ensure!(
            through + failed <= load.count as u64 + 1,
            "more than was sent: {result}"
        );
        self.through += through;
        self.failed += failed;
        Ok(())
    }
}

/// Two clients, two gateways, two servers, all of which break at random under load.
struct Fragile<'a> {
    lab: &'a Lab,
    crossing: Crossing,
    gateways: [State; 2],
    random: Random,
}

impl Fragile<'_> {
    fn node(&self, index: usize) -> &Node {
        let crossing = &self.crossing;
        let mut nodes = crossing
            .clients
            .iter()
            .chain(&crossing.gateways)
            .chain(&crossing.servers);
        nodes.nth(index).unwrap_or(&crossing.clients[0])
    }

    /// Something happens to somebody.
    fn happen(&mut self) -> Result<()> {
        let which = self.random.below(2);
        let gateway = self.crossing.gateways[which].clone();
        match (self.random.below(5), self.gateways[which]) {
            (0 | 1, State::Whole) => {
                stop_gateway(&gateway)?;
                self.gateways[which] = State::Killed;
            }
            (2, State::Whole) => {
                self.lab.cable(2 + which, false)?;
                self.gateways[which] = State::Unplugged;
            }
            (0..3, _) => self.repair(which)?,
            (3, _) => {
                // An end's own cable, for a moment.
                let end = [0, 1, 4, 5][self.random.below(4)];
                self.lab.cable(end, false)?;
                wait::quiet_time(Duration::from_millis(100 + self.random.below(400) as u64));
                self.lab.cable(end, true)?;
            }
            _ => {
                let victim = self.random.below(6);
                // A gateway may have no NI now.
                let _ = self.node(victim).close_conns();
            }
        }
        wait::quiet_time(Duration::from_millis(self.random.below(300) as u64));
        Ok(())
    }

    fn repair(&mut self, which: usize) -> Result<()> {
        match self.gateways[which] {
            State::Whole => {}
            State::Killed => start_gateway(&self.crossing.gateways[which])?,
            State::Unplugged => self.lab.cable(2 + which, true)?,
        }
        self.gateways[which] = State::Whole;
        Ok(())
    }

    /// All is as it was, and nothing was kept back.
    fn recover(&mut self) -> Result<()> {
        for which in 0..2 {
            self.repair(which)?;
        }
        let crossing = &self.crossing;
        for node in crossing.clients.iter().chain(&crossing.servers) {
            wait::until(2 * LIMIT, "all gateways found again", || {
                let routes = routes(node)?;
                let up = routes.as_array().context("no routes")?;
                ensure!(up.iter().all(|route| route[3] == "up"), "{routes}");
                Ok(())
            })?;
        }
        for gateway in &crossing.gateways {
            await_large(gateway, "busy", 0)?;
            await_large(gateway, "waiting", 0)?;
            ensure!(
                super::large(gateway, "buffers")? == 16,
                "the number of buffers changed"
            );
        }
        Ok(())
    }

    /// Transfers all ways, in which everything must go well in the end. At first there may be
    /// connections of which the other side does not know any more: only their use shows that.
    fn check(&self) -> Result<()> {
        wait::until(4 * LIMIT, "all well again", || {
            let pairs = self.crossing.clients.iter().zip(&self.crossing.servers);
            for (client, server) in pairs {
                let _service = server.serve()?;
                for op in [Op::Put, Op::Get] {
                    let load = Bench {
                        limit: LIMIT / 2,
                        ..bench(op, 20_000, 10)
                    };
                    client.bench(server, &load)?;
                }
            }
            Ok(())
        })
    }
}

/// Whatever breaks, a message arrives once, as it was sent, or its sender learns that it may not have;
/// and in the end all is well again.
fn random_losses(lab: &mut Lab, events: usize) -> Result<()> {
    for (name, value) in [
        ("sock_timeout", pace::scaled(3)),
        ("min_reconnectms", 200),
        ("max_reconnectms", 800),
    ] {
        set(name, value)?;
    }
    let crossing = Crossing::new(lab, 2, 2, 2)?;
    let mut fragile = Fragile {
        lab,
        crossing,
        gateways: [State::Whole; 2],
        random: Random(0x0123_4567_89ab_cdef),
    };
    let started = Instant::now();
    let (mut count, mut happened) = (Count::default(), 0);
    while happened < events {
        // New ones each time: what was asked of the old ones while they were cut off is forgotten.
        let services: Result<Vec<_>> = fragile.crossing.servers.iter().map(Node::serve).collect();
        let services = services?;
        let mut jobs = Vec::new();
        for client in &fragile.crossing.clients {
            for server in &fragile.crossing.servers {
                let random = &mut fragile.random;
                let load = Bench {
                    op: [Op::Put, Op::Get][random.below(2)],
                    size: [0, 500, 4000, 20_000, 200_000][random.below(5)],
                    count: 400,
                    in_flight: 8,
                    limit: Duration::from_secs(6),
                };
                jobs.push((load, client.start_bench(server, &load)?));
            }
        }
        for _ in 0..6 {
            fragile
                .happen()
                .with_context(|| format!("event {happened}"))?;
            happened += 1;
        }
        for (load, job) in jobs {
            count.add(job.wait(load.limit + LIMIT)?, &load)?;
        }
        fragile.recover()?;
        drop(services);
        fragile.check()?;
    }
    let Count {
        through,
        failed,
        unbegun,
    } = count;
    note(&format!(
        "{happened} losses in {:.0} s: {through} messages went through, {failed} failed, \
         {unbegun} transfers did not begin",
        started.elapsed().as_secs_f64()
    ));
    ensure!(through > 0, "nothing went through");
    Ok(())
}
