// SPDX-License-Identifier: GPL-2.0

//! Does what the host asks for, when several virtual machines make one scenario.
//!
//! The host sends a line of JSON for each program to run, `{"id": 1, "argv": [...], "limit": 10}`,
//! and gets one when it has ended, `{"id": 1, "status": 0, "stdout": "...", "stderr": "..."}`.
//! Programs run side by side. `{"id": 2, "kill": 1}` ends one of them. With `"until": "text"` the
//! answer comes as soon as the program has written that, and the program stays.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::command::{Job, describe};
use crate::module;
use crate::port::{self, mark, say};

/// What the agent has started.
#[derive(Default)]
struct Started {
    /// Programs whose end is waited for, by the number of the request.
    running: Mutex<HashMap<u64, Pid>>,
    /// Programs that stay.
    staying: Mutex<Vec<Job>>,
}

/// Serves the host until it asks for the end.
pub fn serve() -> Result<()> {
    port::open()?;
    say("ready");
    let started = Arc::<Started>::default();
    for line in port::requests()? {
        let request: Value = serde_json::from_str(&line?)?;
        if request["end"] == true {
            return Ok(());
        }
        let started = Arc::clone(&started);
        thread::spawn(move || {
            let reply = handle(&request, &started).unwrap_or_else(|why| Reply {
                status: -1,
                stderr: format!("{why:#}"),
                ..Reply::default()
            });
            let Reply {
                status,
                stdout,
                stderr,
            } = reply;
            let id = &request["id"];
            say(
                &json!({"id": id, "status": status, "stdout": stdout, "stderr": stderr})
                    .to_string(),
            );
        });
    }
    Ok(())
}

/// What the host gets for a request.
#[derive(Default)]
struct Reply {
    status: i32,
    stdout: String,
    stderr: String,
}

fn handle(request: &Value, started: &Started) -> Result<Reply> {
    if let Some(text) = request["mark"].as_str() {
        mark(text);
        return Ok(Reply::default());
    }
    if let Some(id) = request["kill"].as_u64() {
        let known = lock(&started.running).get(&id).copied();
        kill_process(known.context("no such program")?, Signal::KILL)?;
        return Ok(Reply::default());
    }
    match request["module"].as_str() {
        Some("insert") => module::insert().map(|()| Reply::default()),
        Some("remove") => {
            let time = module::remove()?.as_secs_f64();
            Ok(Reply {
                stdout: time.to_string(),
                ..Reply::default()
            })
        }
        _ => program(request, started),
    }
}

fn program(request: &Value, started: &Started) -> Result<Reply> {
    let words = request["argv"].as_array().context("no argv")?;
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let Some((program, arguments)) = words.split_first() else {
        bail!("an empty argv")
    };
    let limit = Duration::from_secs_f64(request["limit"].as_f64().context("no limit")?);
    let mut command = Command::new(program);
    command.args(arguments);
    let mut job = Job::start(&mut command, "")?;
    if let Some(sign) = request["until"].as_str() {
        job.await_output(sign, limit)?;
        lock(&started.staying).push(job);
        return Ok(Reply::default());
    }
    let id = request["id"].as_u64().context("no id")?;
    lock(&started.running).insert(id, job.pid());
    let result = job.wait(limit);
    lock(&started.running).remove(&id);
    let output = result.with_context(|| describe(&command))?;
    Ok(Reply {
        status: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: output.stderr,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For a node that a person uses: the module, and an address for the network card.
pub fn shell_setup(node: u8) -> Result<()> {
    let script = format!("addr add 10.0.0.{node}/24 dev eth0\nlink set eth0 up\n");
    let limit = Duration::from_secs(10);
    crate::command::run(Command::new("ip").args(["-batch", "-"]), &script, limit)?.checked("ip")?;
    module::insert()
}
