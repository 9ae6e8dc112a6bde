// SPDX-License-Identifier: GPL-2.0

//! Runs scenarios one after the other, each with a time limit, and reports them.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::checks::{self, Leaks};
use crate::family;
use crate::lab::{self, Lab, panic_text};
use crate::lnet;
use crate::module::{self, Flavour, Stuck};
use crate::pace;
use crate::port::{self, mark, note, say};
use crate::scenarios::{Run, runs};
use crate::worker;

/// On top of a scenario's own limit: what setting up and clearing away may take.
const AROUND: Duration = Duration::from_secs(90);
/// No slowness of a guest stretches a limit beyond this.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Runs the scenarios that the host names, one at a time, each when it is told that this is ready for it.
///
/// After one that failed nothing is as it should be for the next: this guest ends, and the host starts
/// another one.
pub fn netns() -> Result<()> {
    port::open()?;
    prepare();
    let mut requests = port::requests()?;
    let leaks = Leaks::known();
    if leaks {
        Leaks::forget()?;
    }
    say("KTAP version 1");
    let mut number = 0;
    loop {
        say("ready");
        let name = requests.next().context("the host is gone")??;
        if name.is_empty() {
            break;
        }
        let run = runs()
            .find(|run| run.name() == name)
            .with_context(|| format!("there is no scenario {name}"))?;
        number += 1;
        pace::measure()?;
        let limit = run.scenario.limit + AROUND;
        // What hangs on a slow machine shall not take the time of all that comes after it.
        let limit = pace::stretched(limit).min(limit.max(LONGEST));
        if !report(number, &name, limit, move || one(&run))? {
            say("# retires");
            say("# end");
            return Ok(());
        }
    }
    number += 1;
    let limit = pace::stretched(AROUND);
    report(number, "no_namespaces", limit, lab::delete_pools)?;
    if leaks {
        number += 1;
        report(number, "no_leaks", limit, Leaks::none)?;
    }
    say(&format!("1..{number}"));
    say("# end");
    Ok(())
}

/// Inserts and removes the module, whose KUnit suites run meanwhile.
pub fn kunit() -> Result<()> {
    port::open()?;
    prepare();
    let leaks = Leaks::known();
    say("KTAP version 1");
    say(&format!("1..{}", 1 + usize::from(leaks)));
    if leaks {
        Leaks::forget()?;
    }
    report(1, "insert_and_remove", Duration::from_secs(300), || {
        module::insert()?;
        module::remove().map(drop)
    })?;
    if leaks {
        report(2, "no_leaks", AROUND, Leaks::none)?;
    }
    say("# end");
    Ok(())
}

/// Makes the kernel tell sooner about tasks that hang.
fn prepare() {
    // Kernels differ in which of these they have.
    let _ = fs::write("/proc/sys/kernel/hung_task_timeout_secs", "30");
    let _ = fs::write("/proc/sys/kernel/printk_ratelimit", "0");
    let _ = fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0");
}

/// Runs one piece of work with a time limit, between two marks in the kernel's log, and says how
/// it went: whether it succeeded. An error means that this guest can't go on.
fn report(
    number: usize,
    name: &str,
    limit: Duration,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<bool> {
    say(&format!("# begin {name} {}", limit.as_secs()));
    mark(&format!("begin {name}"));
    let started = Instant::now();
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        done.send(result.unwrap_or_else(|panic| Err(anyhow!("panic: {}", panic_text(&*panic)))))
    });
    let (result, lost) = match outcome.recv_timeout(limit) {
        Ok(result) => {
            let lost = matches!(&result, Err(why) if why.chain().any(|cause| cause.is::<Stuck>()));
            (result, lost)
        }
        Err(RecvTimeoutError::Timeout) => {
            (Err(anyhow!("not done within {} s", limit.as_secs())), true)
        }
        Err(RecvTimeoutError::Disconnected) => {
            (Err(anyhow!("the scenario's thread is gone")), true)
        }
    };
    if lost {
        show_blocked_tasks();
    }
    mark(&format!("end {name}"));
    let seconds = started.elapsed().as_secs_f64();
    let succeeded = result.is_ok();
    match result {
        Ok(()) => say(&format!("ok {number} {name} # {seconds:.1} s")),
        Err(why) => {
            note(&format!("{name}: {why:#}"));
            say(&format!("not ok {number} {name} # {seconds:.1} s"));
        }
    }
    if lost {
        say("Bail out! this guest is stuck");
        bail!("stuck");
    }
    Ok(succeeded)
}

/// Writes into the kernel's log what every blocked task waits for.
fn show_blocked_tasks() {
    let _ = fs::write("/proc/sys/kernel/sysrq", "1");
    let _ = fs::write("/proc/sysrq-trigger", "w");
}

/// One scenario in surroundings of its own, and what must hold afterwards.
fn one(run: &Run) -> Result<()> {
    let scenario = run.scenario;
    family::choose(run.family);
    let mut clock = Clock::start();
    let threads = worker::threads()?;
    module::insert_flavour(scenario.flavour)?;
    clock.lap("inserting");
    let mut lab = Lab::new(scenario.nodes)?;
    clock.lap("setting up");
    let result = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&mut lab)));
    let result = result.unwrap_or_else(|panic| Err(anyhow!("panic: {}", panic_text(&*panic))));
    // What it began ends with it. If it went well, it has ended that itself.
    worker::hang_up();
    let ended = worker::none_left(threads);
    clock.lap("running");
    // When the scenario failed, what is left behind is no news; but the module must still go.
    let rest = if result.is_ok() {
        clear_away(lab, scenario.flavour, &mut clock)
    } else {
        lnet::abandon(&lab).and(lab.close())
    };
    let removal = if module::is_inserted() {
        module::remove().map(drop)
    } else {
        Ok(())
    };
    let removal = removal.and_then(|()| match module::shim_is_inserted() {
        true => module::remove_shim(),
        false => Ok(()),
    });
    clock.lap("removing");
    if pace::slowness() > 1.0 {
        note(&format!("limits stretched {:.1} times", pace::slowness()));
    }
    note(&format!("times: {}", clock.laps));
    result
        .and(ended)
        .and(rest)
        .and(removal)
        .and_then(|()| lab::no_references())
}

/// Where the time goes.
struct Clock {
    last: Instant,
    laps: String,
}

impl Clock {
    fn start() -> Clock {
        Clock {
            last: Instant::now(),
            laps: String::new(),
        }
    }

    fn lap(&mut self, what: &str) {
        let comma = if self.laps.is_empty() { "" } else { ", " };
        self.laps += &format!("{comma}{what} {:.1} s", self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
    }
}

fn clear_away(lab: Lab, flavour: Flavour, clock: &mut Clock) -> Result<()> {
    match flavour {
        Flavour::Lnet => lnet::retire(&lab)?,
        Flavour::Standalone if module::is_inserted() => checks::retire(&lab)?,
        Flavour::Standalone => {}
    }
    clock.lap("retiring");
    lab.close()?;
    clock.lap("deleting");
    checks::no_sockets()?;
    clock.lap("sockets");
    Ok(())
}
