// SPDX-License-Identifier: GPL-2.0

//! Who owns a transmit while its connection is closed, and who closes the socket.
//!
//! The steps are those of `Peer::{send, admit, close_conn, close}` and of `Conn::{queue_tx, start,
//! run, begin_close, terminate}`, with the same locks in the same order; a socket takes one message a turn.
//! Change it with them.
//!
//! Checked: when all is at rest each transmit has been completed, once, by somebody who meant to;
//! none is told that it failed while the socket can still read its pages; the socket is closed, once.

use crate::explore::{explore, must_fail};
use loom::{
    sync::{Condvar, Mutex},
    thread,
};
use std::{
    collections::VecDeque,
    mem,
    sync::{
        atomic::{AtomicU32, Ordering::Relaxed},
        Arc,
    },
};

/// What a broken variant does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Queues on a connection that is being closed: neither holds the peer's lock nor asks. Either
    /// would do.
    QueueOnClosed,
    /// Hands the connection to the reaper, and refuses further transmits only then.
    QueueFirst,
    /// Gives the socket to a connection that is being closed.
    StartOnClosed,
    /// Tells that transmits failed, and closes the socket only then.
    FailFirst,
}

/// What the message layer was told. Nobody decides anything by it.
#[derive(Default)]
struct Ledger {
    finished: AtomicU32,
    dropped: AtomicU32,
}

/// A transmit: finished by whoever has it, at the latest when it is dropped.
struct Tx(Option<Arc<Ledger>>);

impl Tx {
    fn finish(mut self) {
        if let Some(ledger) = self.0.take() {
            ledger.finished.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(ledger) = self.0.take() {
            ledger.dropped.fetch_add(1, Relaxed);
        }
    }
}

type Fifo = VecDeque<Tx>;

/// A socket with its callbacks in place. Transmits go to it once the connection has it.
struct Socket {
    open: Arc<AtomicU32>,
    in_use: Arc<AtomicU32>,
    fails: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.in_use.store(0, Relaxed);
        self.open.fetch_sub(1, Relaxed);
    }
}

#[derive(Default)]
struct TxQueue {
    fifo: Fifo,
    closed: bool,
}

#[derive(Default)]
struct Io {
    socket: Option<Socket>,
    out: Fifo,
}

#[derive(Default)]
struct PeerInner {
    closing: bool,
    /// Whether the connection is in the peer's list.
    has_conn: bool,
    queue: Fifo,
}

/// A peer with one connection at most, and the reaper's list.
struct World {
    flaw: Flaw,
    socket_fails: bool,
    ledger: Arc<Ledger>,
    posted: AtomicU32,
    /// Sockets.
    open: Arc<AtomicU32>,
    /// Of these, those that TCP may send from.
    in_use: Arc<AtomicU32>,
    peer: Mutex<PeerInner>,
    txq: Mutex<TxQueue>,
    io: Mutex<Io>,
    deathrow: Mutex<u32>,
    closing: Condvar,
}

impl World {
    fn new(flaw: Flaw) -> Self {
        Self {
            flaw,
            socket_fails: false,
            ledger: Arc::default(),
            posted: AtomicU32::new(0),
            open: Arc::default(),
            in_use: Arc::default(),
            peer: Mutex::new(PeerInner::default()),
            txq: Mutex::new(TxQueue::default()),
            io: Mutex::new(Io::default()),
            deathrow: Mutex::new(0),
            closing: Condvar::new(),
        }
    }

    /// With its connection in use.
    fn connected(flaw: Flaw, socket_fails: bool) -> Arc<Self> {
        let mut world = Self::new(flaw);
        world.socket_fails = socket_fails;
        world.admit();
        world.start();
        Arc::new(world)
    }

    fn tx(&self) -> Tx {
        self.posted.fetch_add(1, Relaxed);
        Tx(Some(self.ledger.clone()))
    }

    /// `Peer::send`, and what `Ni` does with a transmit that it gets back.
    fn send(&self) {
        let tx = self.tx();
        let mut inner = self.peer.lock().unwrap();
        let result = if inner.closing {
            Err(tx)
        } else if inner.has_conn {
            if self.flaw == Flaw::QueueOnClosed {
                drop(inner);
            }
            self.queue_tx(tx)
        } else {
            inner.queue.push_back(tx);
            Ok(())
        };
        if let Err(tx) = result {
            tx.finish();
        }
    }

    /// `Peer::admit`.
    fn admit(&self) -> bool {
        let mut inner = self.peer.lock().unwrap();
        if inner.closing {
            return false;
        }
        inner.has_conn = true;
        while let Some(tx) = inner.queue.pop_front() {
            if let Err(tx) = self.queue_tx(tx) {
                inner.queue.push_front(tx);
                break;
            }
        }
        true
    }

    /// `Peer::close_conn`.
    fn close_conn(&self) {
        let mut inner = self.peer.lock().unwrap();
        if mem::take(&mut inner.has_conn) {
            self.begin_close();
        }
    }

    /// `Peer::close`.
    fn close(&self) {
        let mut inner = self.peer.lock().unwrap();
        inner.closing = true;
        if mem::take(&mut inner.has_conn) {
            self.begin_close();
        }
        let failed = mem::take(&mut inner.queue);
        drop(inner);
        failed.into_iter().for_each(Tx::finish);
    }

    /// `Conn::queue_tx`.
    fn queue_tx(&self, tx: Tx) -> Result<(), Tx> {
        let mut txq = self.txq.lock().unwrap();
        if txq.closed && self.flaw != Flaw::QueueOnClosed {
            return Err(tx);
        }
        txq.fifo.push_back(tx);
        Ok(())
    }

    /// `Conn::start`.
    fn start(&self) {
        self.open.fetch_add(1, Relaxed);
        let hooked = Socket {
            open: self.open.clone(),
            in_use: self.in_use.clone(),
            fails: self.socket_fails,
        };
        let mut io = self.io.lock().unwrap();
        let closed = self.txq.lock().unwrap().closed;
        if !closed || self.flaw == Flaw::StartOnClosed {
            io.socket = Some(hooked);
            self.in_use.store(1, Relaxed);
        }
    }

    /// `Conn::begin_close`.
    fn begin_close(&self) {
        let refuse = || self.txq.lock().unwrap().closed = true;
        if self.flaw != Flaw::QueueFirst {
            refuse();
        }
        *self.deathrow.lock().unwrap() += 1;
        self.closing.notify_one();
        if self.flaw == Flaw::QueueFirst {
            refuse();
        }
    }

    /// `Conn::run`, without its events.
    fn run(&self) {
        let mut io = self.io.lock().unwrap();
        let failed = self.transmit(&mut io);
        drop(io);
        if failed {
            self.close_conn();
        }
    }

    /// `Conn::transmit`. Returns whether the socket failed.
    fn transmit(&self, io: &mut Io) -> bool {
        let Some(socket) = &io.socket else {
            return false;
        };
        io.out.append(&mut self.txq.lock().unwrap().fifo);
        if !io.out.is_empty() && socket.fails {
            return true;
        }
        if let Some(tx) = io.out.pop_front() {
            tx.finish();
        }
        false
    }

    /// The reaper's thread: waits for the connection, then `Conn::terminate`.
    fn reap(&self) {
        let mut deathrow = self.deathrow.lock().unwrap();
        while *deathrow == 0 {
            deathrow = self.closing.wait(deathrow).unwrap();
        }
        drop(deathrow);

        let mut doomed = mem::take(&mut self.txq.lock().unwrap().fifo);
        let mut io = self.io.lock().unwrap();
        let socket = io.socket.take();
        let mut unsent = mem::take(&mut io.out);
        unsent.append(&mut doomed);
        drop(io);
        if self.flaw != Flaw::FailFirst {
            drop(socket);
            self.fail(unsent);
        } else {
            self.fail(unsent);
        }
    }

    fn fail(&self, txs: Fifo) {
        for tx in txs {
            assert_eq!(self.in_use.load(Relaxed), 0, "TCP may still read it");
            tx.finish();
        }
    }

    /// What must be true when all threads have ended.
    fn check(&self) {
        assert_eq!(*self.deathrow.lock().unwrap(), 1, "closed twice or never");
        assert_eq!(self.open.load(Relaxed), 0, "a socket stayed open");
        let told = (
            self.ledger.finished.load(Relaxed),
            self.ledger.dropped.load(Relaxed),
        );
        assert_eq!(told, (self.posted.load(Relaxed), 0), "completed, dropped");
    }
}

/// Runs these threads, and the reaper, until all have ended.
fn together(world: &Arc<World>, jobs: &[fn(&World)]) {
    let spawn = |job: fn(&World)| {
        let world = world.clone();
        thread::spawn(move || job(&world))
    };
    let threads: Vec<_> = jobs.iter().map(|job| spawn(*job)).collect();
    world.reap();
    for thread in threads {
        thread.join().unwrap();
    }
    world.check();
}

/// A connection is closed while others send and it is being run.
fn closed_in_use(flaw: Flaw) {
    explore(move || {
        let world = World::connected(flaw, false);
        world.send();
        together(&world, &[World::send, World::run, World::close]);
    });
}

/// The socket fails under a transmit, while others send and the peer is deleted.
fn failing_socket(flaw: Flaw) {
    explore(move || {
        let world = World::connected(flaw, true);
        world.send();
        together(
            &world,
            &[
                |world| {
                    world.run();
                    world.run();
                },
                |world| {
                    world.send();
                    world.close();
                },
            ],
        );
    });
}

/// A connection is closed while the handshake hands it over.
fn closed_at_start(flaw: Flaw) {
    explore(move || {
        let world = Arc::new(World::new(flaw));
        world.send();
        assert!(world.admit());
        together(
            &world,
            &[
                |world| {
                    world.start();
                    world.run();
                },
                |world| {
                    world.send();
                    world.close_conn();
                },
            ],
        );
    });
}

/// A connection is admitted to a peer that is being deleted, with transmits that wait.
fn admitted_to_a_closing_peer(flaw: Flaw) {
    explore(move || {
        let world = Arc::new(World::new(flaw));
        let handshake = {
            let world = world.clone();
            thread::spawn(move || {
                let admitted = world.admit();
                if admitted {
                    world.start();
                }
                admitted
            })
        };
        let sender = {
            let world = world.clone();
            thread::spawn(move || world.send())
        };
        world.close();
        if handshake.join().unwrap() {
            world.reap();
        } else {
            *world.deathrow.lock().unwrap() = 1;
        }
        sender.join().unwrap();
        world.check();
    });
}

#[test]
fn every_transmit_ends_once_when_closed_in_use() {
    closed_in_use(Flaw::None);
}

#[test]
fn every_transmit_ends_once_when_the_socket_fails() {
    failing_socket(Flaw::None);
}

#[test]
fn every_transmit_ends_once_when_closed_at_start() {
    closed_at_start(Flaw::None);
}

#[test]
fn every_transmit_ends_once_when_admitted_too_late() {
    admitted_to_a_closing_peer(Flaw::None);
}

#[test]
fn flaws_are_found() {
    must_fail(|| failing_socket(Flaw::QueueOnClosed));
    must_fail(|| closed_at_start(Flaw::QueueFirst));
    must_fail(|| closed_at_start(Flaw::StartOnClosed));
    must_fail(|| closed_in_use(Flaw::FailFirst));
}
