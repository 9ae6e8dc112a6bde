// SPDX-License-Identifier: GPL-2.0

//! Both sides connect at the same moment, in every version: two nodes, and a node and a script that follows
//! Lustre's rule.
//!
//! The rule: a node that is connecting itself and has the higher NID refuses; the other one accepts and, if
//! it is refused, waits before it tries again. A node does not connect while a HELLO of the other one is being
//! handled, and does not accept a second connection of a type.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::connect::{both_ping_within, disconnect, one_of_each};
use super::versions::{no_conns, set};
use crate::family;
use crate::lab::Lab;
use crate::modern::{self, Dialect, Link, Order, pong};
use crate::node::Node;
use crate::pace;
use crate::peer::{BULK_IN, BULK_OUT, CONTROL, Conn, GET, Hello, Listener, NONE, inverse, nid};
use crate::port::note;
use crate::wait;

/// More than enough.
const LIMIT: Duration = Duration::from_secs(30);
/// Between an attempt that was refused and the next.
const REFUSED: Duration = Duration::from_secs(1);
const TYPES: [u32; 3] = [CONTROL, BULK_IN, BULK_OUT];

/// All that the family has.
fn versions() -> std::ops::RangeInclusive<u32> {
    if family::is_ipv6() { 4..=4 } else { 1..=4 }
}

/// A few times in each version, with a short and with a long delay between the nodes.
pub fn in_all_versions(lab: &mut Lab) -> Result<()> {
    real(lab, 4)?;
    scripted(lab, 3)
}

/// Ten thousand times in all.
pub fn very_often(lab: &mut Lab) -> Result<()> {
    real(lab, 1250)?;
    scripted(lab, 625)
}

/// Tells how long it took until both sides agreed.
fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (Some(worst), Some(middle)) = (times.last(), times.get(times.len() / 2)) else {
        return;
    };
    note(&format!(
        "{what}: {} times, half of them within {:.3} s, all within {:.3} s",
        times.len(),
        middle.as_secs_f64(),
        worst.as_secs_f64()
    ));
}

/// A long way for every second half of the rounds.
fn distance(lab: &Lab, far: bool) -> Result<()> {
    let delay = if far { "delay 10ms" } else { "delay 0ms" };
    lab.netem(0, delay)?;
    lab.netem(1, delay)
}

/// Two real nodes.
fn real(lab: &Lab, rounds: usize) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    for version in versions() {
        set("protocol", version)?;
        lab.connect(2)?;
        let mut times = Vec::new();
        for round in 0..rounds {
            if round % rounds.div_ceil(2) == 0 {
                distance(lab, round > 0)?;
            }
            let what = || format!("version {version}, round {round}");
            disconnect(one, two)?;
            let started = Instant::now();
            both_ping_within(one, two, LIMIT).with_context(what)?;
            wait::until(LIMIT, "one connection of each type", || {
                one_of_each(one, two)
            })
            .with_context(what)?;
            times.push(started.elapsed());
        }
        tell(&format!("two nodes, version {version}"), times);
        distance(lab, false)?;
        for node in [one, two] {
            node.ni_del()?;
        }
    }
    Ok(())
}

/// A node and a script, which has the higher or the lower NID.
fn scripted(lab: &Lab, rounds: usize) -> Result<()> {
    for version in versions() {
        set("protocol", version)?;
        for (here, there) in [(0, 1), (1, 0)] {
            let (node, script) = (lab.node(here), lab.node(there));
            let listener = Listener::new(&script.space, script.addr)?;
            node.ni_add()?;
            node.peer_add(script)?;
            let higher = if there > here { "higher" } else { "lower" };
            let mut times = Vec::new();
            for round in 0..rounds {
                if round % rounds.div_ceil(2) == 0 {
                    distance(lab, round > 0)?;
                }
                let order = match round % 2 {
                    1 if version > 1 => Order::Big,
                    _ => Order::Little,
                };
                let dialect = Dialect { version, order };
                let party = Party::new(node, script, dialect);
                let time = party.round(&listener).with_context(|| {
                    format!("{dialect:?}, the script's NID is {higher}, round {round}")
                })?;
                times.push(time);
            }
            tell(
                &format!("version {version}, the script's NID is {higher}"),
                times,
            );
            distance(lab, false)?;
            node.ni_del()?;
        }
    }
    Ok(())
}

/// What the script knows of its connections.
#[derive(Default)]
struct State {
    /// An attempt is out.
    connecting: bool,
    /// Greetings that are being looked at.
    accepting: usize,
    /// By type; one that is promised, and not there yet, is `None`.
    conns: Vec<(u32, Option<Conn>)>,
    refused: usize,
    lost: usize,
}

impl State {
    fn has(&self, conn_type: u32) -> bool {
        self.conns.iter().any(|(there, _)| *there == conn_type)
    }

    fn missing(&self) -> Option<u32> {
        TYPES.into_iter().find(|conn_type| !self.has(*conn_type))
    }

    fn is_whole(&self) -> bool {
        self.missing().is_none() && self.conns.iter().all(|(_, conn)| conn.is_some())
    }
}

/// A node of today, as a script.
struct Party<'a> {
    node: &'a Node,
    script: &'a Node,
    dialect: Dialect,
    state: Mutex<State>,
    changed: Condvar,
    over: AtomicBool,
}

/// Ends what a party does when it is dropped.
struct Ended<'a>(&'a Party<'a>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<'a> Party<'a> {
    fn new(node: &'a Node, script: &'a Node, dialect: Dialect) -> Self {
        Party {
            node,
            script,
            dialect,
            state: Mutex::default(),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Has everybody come to an end.
    fn end(&self) {
        // With the lock, so that nobody is just about to wait.
        let state = self.lock();
        self.over.store(true, Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }

    fn hello(&self, conn_type: u32) -> Vec<u8> {
        match self.dialect.version {
            1 => Hello::new(self.script.addr, self.node.addr, conn_type).bytes(),
            _ => modern::Hello::new(self.dialect, self.script.addr, self.node.addr, conn_type)
                .bytes(),
        }
    }

    /// The type that the node's greeting names, in its own view.
    fn read_hello(&self, conn: &mut Conn) -> Result<u32> {
        if self.dialect.version == 1 {
            return Ok(conn.receive_hello()?.conn_type);
        }
        let hello = modern::Hello::receive(conn)?;
        ensure!(
            hello.dialect.version == self.dialect.version,
            "another version: {hello:x?}"
        );
        Ok(hello.conn_type)
    }

    /// Connects until there is one of each type.
    fn connect(&self) {
        loop {
            let state = self.lock();
            let busy = |state: &mut State| !self.is_over() && state.accepting > 0;
            let mut state = self
                .changed
                .wait_while(state, busy)
                .unwrap_or_else(PoisonError::into_inner);
            let Some(conn_type) = state.missing().filter(|_| !self.is_over()) else {
                return;
            };
            state.connecting = true;
            drop(state);
            let dialled = self.dial(conn_type);
            let mut state = self.lock();
            state.connecting = false;
            if let Ok(Some(conn)) = dialled {
                // Of two of a type the second goes without a word.
                if !state.has(conn_type) {
                    state.conns.push((conn_type, Some(conn)));
                }
                continue;
            }
            state.lost += 1;
            let until = Instant::now() + REFUSED;
            while !self.is_over() && Instant::now() < until {
                let left = until.saturating_duration_since(Instant::now());
                let woken = self.changed.wait_timeout(state, left);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Nothing if it is refused.
    fn dial(&self, conn_type: u32) -> Result<Option<Conn>> {
        let mut conn = Conn::dial(&self.script.space, self.script.addr, self.node.addr)?;
        let request = Dialect {
            version: 3,
            order: self.dialect.order,
        };
        let opening = [
            request.request(1, nid(self.node.addr)),
            self.hello(conn_type),
        ];
        conn.send(&opening.concat())?;
        let answer = self.read_hello(&mut conn)?;
        if answer == NONE {
            return Ok(None);
        }
        ensure!(answer == inverse(conn_type), "wrong type {answer}");
        Ok(Some(conn))
    }

    /// Looks at who connects.
    fn accept(&self, listener: &Listener) -> Result<()> {
        while !self.is_over() {
            let Ok(conn) = listener.accept_request(Duration::from_millis(20)) else {
                continue;
            };
            self.lock().accepting += 1;
            let looked = self.look_at(conn);
            self.lock().accepting -= 1;
            self.changed.notify_all();
            looked?;
        }
        Ok(())
    }

    fn look_at(&self, mut conn: Conn) -> Result<()> {
        // One of the round before may be at its end.
        let Ok(theirs) = self.read_hello(&mut conn) else {
            return Ok(());
        };
        let conn_type = inverse(theirs);
        let mut state = self.lock();
        let higher = nid(self.script.addr) > nid(self.node.addr);
        if (higher && state.connecting) || state.has(conn_type) {
            state.refused += 1;
            drop(state);
            let _ = conn.send(&self.hello(NONE));
            return Ok(());
        }
        state.conns.push((conn_type, None));
        drop(state);
        let sent = conn.send(&self.hello(conn_type));
        let mut state = self.lock();
        match sent {
            Ok(()) => {
                let promised = state
                    .conns
                    .iter_mut()
                    .find(|(there, _)| *there == conn_type);
                promised.context("a promised connection is gone")?.1 = Some(conn);
            }
            Err(_) => state.conns.retain(|(there, _)| *there != conn_type),
        }
        Ok(())
    }

    /// Both begin; says how long it took until they agreed.
    fn round(&self, listener: &Listener) -> Result<Duration> {
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            // Also if what follows fails.
            let _over = Ended(self);
            let connecting = scope.spawn(|| {
                barrier.wait();
                self.connect();
            });
            let accepting = scope.spawn(|| self.accept(listener));
            barrier.wait();
            let result = self.agree();
            self.end();
            connecting.join().map_err(|_| anyhow!("a panic"))?;
            accepting.join().map_err(|_| anyhow!("a panic"))??;
            let time = result?;
            self.node.close_conns()?;
            self.lock().conns.clear();
            wait::until(LIMIT, "connections closed", || {
                no_conns(self.node, self.script)
            })?;
            Ok(time)
        })
    }

    fn agree(&self) -> Result<Duration> {
        let started = Instant::now();
        let ping = self.node.start_ping(self.script)?;
        wait::until(LIMIT, "one connection of each type", || {
            let state = self.lock();
            let types: Vec<_> = state.conns.iter().map(|(there, _)| there).collect();
            ensure!(
                state.is_whole(),
                "the script has {types:?}, has refused {} and was refused {} times",
                state.refused,
                state.lost
            );
            drop(state);
            let mut there: Vec<_> = self.node.conns_to(self.script)?;
            there.retain(|conn| conn["protocol"] == self.dialect.version);
            let mut types: Vec<_> = there
                .iter()
                .filter_map(|conn| conn["type"].as_str())
                .collect();
            types.sort_unstable();
            ensure!(
                types == ["bulk_in", "bulk_out", "control"],
                "the node has {types:?}"
            );
            Ok(())
        })?;
        let time = started.elapsed();
        // They are the same ones: the question comes by one of them, and the script's by its own.
        let mut state = self.lock();
        let mut answered = false;
        let asked = Instant::now();
        while !answered {
            let limit = pace::stretched(LIMIT);
            ensure!(asked.elapsed() < limit, "the question did not come");
            for (conn_type, slot) in &mut state.conns {
                let mut conn = slot.take().context("it is not there")?;
                if !answered && conn.has_input(Duration::from_millis(2))? {
                    conn = self.answer(conn, *conn_type)?;
                    answered = true;
                }
                *slot = Some(conn);
            }
        }
        ping.wait(LIMIT)?.checked("ping")?;
        for (conn_type, slot) in &mut state.conns {
            let mut conn = slot.take().context("it is not there")?;
            if *conn_type == CONTROL {
                conn = self.ping(conn)?;
            }
            ensure!(!conn.has_end()?, "that of type {conn_type} is closed");
            *slot = Some(conn);
        }
        Ok(time)
    }

    fn answer(&self, mut conn: Conn, conn_type: u32) -> Result<Conn> {
        if self.dialect.version == 1 {
            let request = conn.receive_message()?;
            ensure!(request.kind == GET, "no question: {request:x?}");
            conn.send(&request.reply(pong(self.script.addr)).bytes())?;
            return Ok(conn);
        }
        let mut link = Link::greeted(conn, self.dialect, conn_type);
        let request = link.receive_message()?;
        ensure!(request.kind == GET, "no question: {request:x?}");
        link.send([0, 0], &request.reply(pong(self.script.addr)))?;
        Ok(link.conn)
    }

    fn ping(&self, mut conn: Conn) -> Result<Conn> {
        if self.dialect.version == 1 {
            conn.ping(7)?;
            return Ok(conn);
        }
        let mut link = Link::greeted(conn, self.dialect, CONTROL);
        link.ping(7)?;
        Ok(link.conn)
    }
}
