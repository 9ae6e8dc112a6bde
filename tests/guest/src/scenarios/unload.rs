// SPDX-License-Identifier: GPL-2.0

//! The module, an NI or a namespace is removed during transfers and handshakes.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;

use super::bystander::Bystander;
use super::hooks::set_timeout;
use super::traffic::await_traffic;
use super::versions::set;
use crate::command::Job;
use crate::lab::Lab;
use crate::module;
use crate::node::{Bench, Node, Op, answer};
use crate::pace;
use crate::peer::{
    ACCEPTOR_MAGIC, BULK_OUT, CONTROL, Conn, Hello, Listener, Message, nid, request,
};
use crate::port::note;
use crate::wait;
use crate::worker::Worker;

/// In this time a transfer must end whose NI is gone.
const ENDED: Duration = Duration::from_secs(20);
/// More than can be moved while the scenario lasts.
const ENDLESS: Bench = Bench {
    op: Op::Put,
    size: 100_000,
    count: 1_000_000,
    in_flight: 16,
    limit: Duration::from_secs(600),
};

/// The module is removed during transfers, in three ways, many times.
pub fn in_transfer(lab: &mut Lab) -> Result<()> {
    repeated(lab, 9)
}

/// The same, for longer.
pub fn two_hundred_times(lab: &mut Lab) -> Result<()> {
    repeated(lab, 200)
}

fn repeated(lab: &Lab, rounds: usize) -> Result<()> {
    let mut slowest = Duration::ZERO;
    let started = Instant::now();
    for round in 0..rounds {
        if !module::is_inserted() {
            module::insert()?;
        }
        lab.connect(2)?;
        let time = match round % 3 {
            0 => interface_first(lab),
            1 => programs_first(lab),
            _ => from_strangers(lab),
        };
        slowest = slowest.max(time.with_context(|| format!("round {round}"))?);
        note(&format!("round {round} over after {:?}", started.elapsed()));
        ensure!(!module::is_inserted(), "the module is still there");
    }
    note(&format!(
        "{rounds} times, the slowest took {:.2} s",
        slowest.as_secs_f64()
    ));
    module::insert()
}

/// Transfers in both directions.
fn transfers(lab: &Lab) -> Result<(Vec<Job>, Vec<Job>)> {
    let (one, two) = (lab.node(0), lab.node(1));
    let services = vec![one.serve()?, two.serve()?];
    let put = one.start_bench(two, &ENDLESS)?;
    let get = two.start_bench(
        one,
        &Bench {
            op: Op::Get,
            ..ENDLESS
        },
    )?;
    await_traffic(two, 5)?;
    await_traffic(one, 5)?;
    Ok((services, vec![put, get]))
}

/// While programs use the module it can't go, and they don't notice the attempt. The NI can
/// go; then the transfers end.
fn interface_first(lab: &Lab) -> Result<Duration> {
    let (services, benches) = transfers(lab)?;
    let attempt = module::try_remove(module::REMOVAL_LIMIT)?;
    ensure!(attempt == Err(Errno::AGAIN), "a module in use: {attempt:?}");
    await_traffic(lab.node(1), 5)?;
    let started = Instant::now();
    lab.node(0).ni_del()?;
    ensure!(
        started.elapsed() < pace::stretched(ENDED),
        "removing the NI took {:?}",
        started.elapsed()
    );
    for bench in benches {
        let output = bench.wait(ENDED).context("a transfer whose NI is gone")?;
        ensure!(
            !output.status.success(),
            "it claims success: {}",
            output.stdout
        );
    }
    drop(services);
    module::remove()
}

/// The programs are killed in the middle; the module is removed with NIs, connections and
/// half-sent messages.
fn programs_first(lab: &Lab) -> Result<Duration> {
    let (mut services, mut benches) = transfers(lab)?;
    for job in benches.iter_mut().chain(&mut services) {
        job.kill();
    }
    module::remove()
}

/// Nobody here uses the module, but others send to it, and want answers, without a pause.
fn from_strangers(lab: &Lab) -> Result<Duration> {
    // Less room for answers that nobody reads, so that the other messages get their share sooner.
    fs::write("/proc/sys/socknal/buffer_size", "300000")?;
    let node = lab.node(0);
    let mut floods = Vec::new();
    for script in [lab.node(2), lab.node(3)] {
        let put = Message::put(script.addr, node.addr, 5, 5, vec![0xee; 64 * 1024]).bytes();
        floods.push(Flood::start(script, node, BULK_OUT, put)?);
        floods.push(Flood::start(
            script,
            node,
            CONTROL,
            Message::ping(script.addr, node.addr, 1).bytes(),
        )?);
    }
    for flood in &floods {
        flood.await_under_way()?;
    }
    let time = module::remove()?;
    for flood in floods {
        flood.ended()?;
    }
    Ok(time)
}

/// A peer that sends the same message again and again and never reads an answer.
pub struct Flood {
    sent: Arc<AtomicUsize>,
    thread: Worker<bool>,
}

impl Flood {
    /// Connects, and begins at once.
    pub fn start(script: &Node, node: &Node, conn_type: u32, message: Vec<u8>) -> Result<Flood> {
        let conn = Conn::greeted(&script.space, script.addr, node, conn_type)?;
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let thread = Worker::start(conn, move |mut conn| {
            loop {
                match conn.send(&message) {
                    Ok(()) => count.fetch_add(1, Ordering::Relaxed),
                    // Both sides' buffers are full of pings and answers. That's how it should be;
                    // but nothing more can be learnt by sending.
                    Err(why) if would_block(&why) => return conn.await_closed(ENDED).is_ok(),
                    Err(_) => return true,
                };
            }
        });
        Ok(Flood { sent, thread })
    }

    /// Waits until some of it was sent.
    pub fn await_under_way(&self) -> Result<()> {
        wait::until(Duration::from_secs(60), "flood under way", || {
            let sent = self.sent();
            ensure!(sent > 20, "{sent} messages were sent");
            Ok(())
        })
    }

    /// How many messages were sent.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// The connection must have been closed.
    pub fn ended(self) -> Result<()> {
        wait::until(
            ENDED + Duration::from_secs(12),
            "flood's connection closed",
            || {
                ensure!(self.thread.is_finished(), "it goes on");
                Ok(())
            },
        )?;
        ensure!(self.thread.join()?, "the connection was never closed");
        Ok(())
    }
}

fn would_block(why: &anyhow::Error) -> bool {
    let why = why.root_cause().downcast_ref::<std::io::Error>();
    why.is_some_and(|why| {
        matches!(
            why.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        )
    })
}

/// The module is removed during handshakes, at every stage.
pub fn in_handshake(lab: &mut Lab) -> Result<()> {
    for round in 0..6 {
        if !module::is_inserted() {
            module::insert()?;
        }
        // None of them is over before the module goes.
        set("accept_timeout", 3600)?;
        let (node, script, dark) = (lab.node(0), lab.node(1), lab.node(2));
        node.ni_add()?;
        node.peer_add(script)?;
        node.peer_add(dark)?;
        lab.cable(2, false)?;
        // Outwards: to one who accepts and says nothing, and to one who does not even answer.
        let listener = Listener::new(&script.space, script.addr)?;
        let mut pings = vec![node.start_ping(script)?, node.start_ping(dark)?];
        let mut outward = listener.accept(Duration::from_secs(10))?;
        // Inwards: silent, in the middle of the request, in the middle of the greeting.
        let opening = [
            request(ACCEPTOR_MAGIC, 1, nid(node.addr)),
            Hello::new(script.addr, node.addr, CONTROL).bytes(),
        ]
        .concat();
        let mut inward = Vec::new();
        for cut in [0, 5, 20, 80] {
            let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
            conn.send(&opening[..cut])?;
            inward.push(conn);
        }
        if round % 2 == 0 {
            wait::until(Duration::from_secs(10), "handshakes under way", || {
                let count = node.counter("/live/handshakes")?;
                ensure!(count >= 5, "only {count}");
                Ok(())
            })?;
        }
        for ping in &mut pings {
            ping.kill();
        }
        module::remove()?;
        outward
            .await_closed(ENDED)
            .context("a connection that was being made")?;
        for mut conn in inward {
            conn.await_closed(ENDED)
                .context("a connection that was being accepted")?;
        }
        lab.cable(2, true)?;
    }
    module::insert()
}

/// A namespace deleted in mid-transfer: others go on, its transfers end, all of it is freed.
///
/// Its last packets may go down with its network card: what the node that stays then goes by is time.
pub fn namespace_deleted(lab: &mut Lab) -> Result<()> {
    // What the bystanders have on its way takes less.
    set_timeout(pace::scaled(5))?;
    for (name, value) in [("idle", 2), ("count", 3), ("intvl", 1)] {
        let path = format!("/proc/sys/socknal/keepalive_{name}");
        fs::write(&path, value.to_string()).with_context(|| path)?;
    }
    let bystander = Bystander::start(lab)?;
    let (stays, goes) = (lab.node(2).clone(), lab.node(3).clone());
    for node in [&stays, &goes] {
        node.ni_add()?;
    }
    stays.peer_add(&goes)?;
    goes.peer_add(&stays)?;
    stays.peer_add(lab.node(0))?;
    let mut ends_with_it = vec![goes.serve()?];
    let _service = stays.serve()?;
    let mut outward = stays.start_bench(
        &goes,
        &Bench {
            limit: Duration::from_secs(30),
            ..ENDLESS
        },
    )?;
    ends_with_it.push(goes.start_bench(
        &stays,
        &Bench {
            op: Op::Get,
            ..ENDLESS
        },
    )?);
    await_traffic(&goes, 10)?;
    ensure!(
        outward.running()?,
        "the transfer ended early: {}",
        outward.stderr()
    );

    for job in &mut ends_with_it {
        job.kill();
    }
    drop(goes);
    let started = Instant::now();
    lab.delete(3)?;
    note(&format!(
        "deleted in {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    // It either fails at once, because the connections were reset, or when its own time is over.
    let output = outward
        .wait(Duration::from_secs(60))
        .context("the other end of the transfer")?;
    ensure!(
        !output.status.success(),
        "the transfer claims success: {}",
        output.stdout
    );
    wait::until(ENDED, "connections closed", || {
        let conns = stays.list(&["conn", "list"])?;
        ensure!(conns.is_empty(), "left: {conns:?}");
        Ok(())
    })?;
    // The node whose partner is gone has others.
    answer(
        stays
            .attempt(&["ping", &lab.node(0).nid()], ENDED)?
            .checked("ping")?,
    )?;
    bystander.unharmed(lab)
}
