// SPDX-License-Identifier: GPL-2.0

//! Gateways that come and go under load.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    Crossing, LIMIT, await_routes, bench, forwarding, routes, start_gateway, stop_gateway,
};
use crate::lab::Lab;
use crate::node::{Op, answer};
use crate::port::note;
use crate::scenarios::traffic::await_traffic;
use crate::wait;

/// A gateway lost under load: its messages end with an error, the others and all that come later go
/// by the other gateway. It comes back, and is used again.
pub fn lost(lab: &mut Lab) -> Result<()> {
    fs::write("/sys/module/ksocklnd/parameters/sock_timeout", "4")?;
    fs::write("/sys/module/ksocklnd/parameters/max_reconnectms", "1000")?;
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
    one.bench(two, &bench(Op::Put, 20_000, 20))?;
    for killed in [true, false] {
        let load = bench(Op::Put, 20_000, 1500);
        let before = second.counter("/rx/msgs")?;
        let job = one.start_bench(two, &load)?;
        await_traffic(second, 50)?;
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
