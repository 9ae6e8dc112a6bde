// SPDX-License-Identifier: GPL-2.0

//! One connection, its scheduler, and what happens to it from other threads.
//!
//! Checked everywhere: the connection is in its scheduler's queue at most once, is run by one
//! thread at a time, each run sees all that the one before did, and in the end nothing that could
//! be received or sent is left.

use super::{
    mailbox::{Mail, Mailbox},
    readiness::Readiness,
};
use crate::explore::explore;
use kernel::{
    list::{AtomicTracker, ListArcSafe, ListItem, TryNewListArc},
    sync::Arc,
    PinInit,
};
use loom::{
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
        Mutex,
    },
    thread,
};

const SCHED_LIST: u64 = 1;
const DEATHROW_LIST: u64 = 2;
const ENOMEM_LIST: u64 = 3;

/// What the socket's lock protects.
#[derive(Default)]
struct Socket {
    /// Messages that have arrived.
    arrived: u32,
    /// Messages that were read.
    received: u32,
    /// Messages that the send buffer has room for.
    room: u32,
    /// Messages that were written.
    sent: u32,
    /// A write found no room: `write_space` is to be called.
    nospace: bool,
    /// Writes that will fail for want of memory.
    enomem: u32,
}

struct Conn {
    ready: Readiness,
    socket: Mutex<Socket>,
    /// Messages queued and not written.
    txq: Mutex<u32>,
    /// Whether a thread is in `run`.
    running: AtomicBool,
    /// Runs so far. Each adds to what the one before left, and nothing but the protocol orders them.
    turns: AtomicU32,
    sched_tracker: AtomicTracker<SCHED_LIST>,
    deathrow_tracker: AtomicTracker<DEATHROW_LIST>,
    enomem_tracker: AtomicTracker<ENOMEM_LIST>,
}

macro_rules! in_lists {
    ($($id:ident by $tracker:ident),*) => {$(
        impl ListArcSafe<$id> for Conn {
            fn tracker(&self) -> &AtomicTracker<$id> {
                &self.$tracker
            }
        }
        impl ListItem<$id> for Conn {}
        impl TryNewListArc<$id> for Conn {}
    )*};
}
in_lists!(SCHED_LIST by sched_tracker, DEATHROW_LIST by deathrow_tracker, ENOMEM_LIST by enomem_tracker);

/// How a turn of I/O ended.
enum Turn {
    Idle,
    More,
    Full,
    NoMemory,
}

struct World {
    conn: Arc<Conn>,
    sched: Mailbox<Conn, SCHED_LIST>,
    deathrow: Mailbox<Conn, DEATHROW_LIST>,
    enomem: Mailbox<Conn, ENOMEM_LIST>,
    /// Runs that have ended.
    ended: AtomicU32,
}

impl World {
    /// A connection that is held.
    fn held(socket: Socket) -> Arc<Self> {
        let conn = Conn {
            ready: Readiness::new_held(),
            socket: Mutex::new(socket),
            txq: Mutex::new(0),
            running: AtomicBool::new(false),
            turns: AtomicU32::new(0),
            sched_tracker: AtomicTracker::new(),
            deathrow_tracker: AtomicTracker::new(),
            enomem_tracker: AtomicTracker::new(),
        };
        Arc::new(Self {
            conn: Arc::new(conn),
            sched: Mailbox::new().init(),
            deathrow: Mailbox::new().init(),
            enomem: Mailbox::new().init(),
            ended: AtomicU32::new(0),
        })
    }

    /// A connection that waits for events.
    fn idle(socket: Socket) -> Arc<Self> {
        let world = Self::held(socket);
        assert!(world.conn.ready.release());
        let _ = world.conn.ready.take();
        assert!(!world.conn.ready.finish(0));
        world
    }

    /// What the module does with the result of a [`Readiness`]'s function.
    fn enqueue_if(&self, due: bool) {
        if due {
            assert!(self.sched.post(self.conn.clone()), "queued twice");
        }
    }

    /// A message arrives: the socket's `data_ready`.
    fn arrive(&self) {
        let mut socket = self.conn.socket.lock().unwrap();
        socket.arrived += 1;
        self.enqueue_if(self.conn.ready.event(Readiness::RX));
    }

    /// The peer has acknowledged a message: the socket's `write_space`, if anybody waits for it.
    fn acknowledge(&self) {
        let mut socket = self.conn.socket.lock().unwrap();
        socket.room += 1;
        if socket.nospace {
            socket.nospace = false;
            self.enqueue_if(self.conn.ready.event(Readiness::TX));
        }
    }

    /// The message layer sends: `Conn::queue_tx`.
    fn send(&self) {
        *self.conn.txq.lock().unwrap() += 1;
        self.enqueue_if(self.conn.ready.tx_queued());
    }

    /// The handshake is over: `Conn::start`.
    fn release(&self) {
        self.enqueue_if(self.conn.ready.release());
    }

    /// The scheduler's thread: `Sched::run`.
    fn schedule(&self) {
        loop {
            match self.sched.take(None) {
                Mail::Object(_) => self.run(),
                Mail::Tick => {}
                Mail::Stop => return,
            }
        }
    }

    /// One turn: `Conn::run`.
    fn run(&self) {
        let conn = &self.conn;
        assert!(!conn.running.swap(true, Relaxed), "run by two threads");
        let turns = conn.turns.load(Relaxed);
        let events = conn.ready.take();
        let mut again = 0;
        if events & Readiness::TX != 0 {
            match self.transmit() {
                Turn::Idle => {}
                Turn::More => again |= Readiness::TX,
                Turn::Full => again |= Readiness::FULL,
                Turn::NoMemory => {
                    // `Reaper::retry`.
                    if self.enomem.post(conn.clone()) {
                        self.deathrow.kick();
                    }
                }
            }
        }
        if events & Readiness::RX != 0 {
            if let Turn::More = self.receive() {
                again |= Readiness::RX;
            }
        }
        conn.turns.store(turns + 1, Relaxed);
        self.ended.fetch_add(1, Relaxed);
        conn.running.store(false, Relaxed);
        self.enqueue_if(conn.ready.finish(again));
    }

    /// Writes one message, and looks whether there is another one.
    fn transmit(&self) -> Turn {
        if *self.conn.txq.lock().unwrap() == 0 {
            return Turn::Idle;
        }
        let mut socket = self.conn.socket.lock().unwrap();
        if let Some(left) = socket.enomem.checked_sub(1) {
            socket.enomem = left;
            return Turn::NoMemory;
        }
        let Some(room) = socket.room.checked_sub(1) else {
            socket.nospace = true;
            return Turn::Full;
        };
        socket.room = room;
        socket.sent += 1;
        drop(socket);
        *self.conn.txq.lock().unwrap() -= 1;
        Turn::More
    }

    /// Reads one message.
    fn receive(&self) -> Turn {
        let mut socket = self.conn.socket.lock().unwrap();
        if socket.received == socket.arrived {
            return Turn::Idle;
        }
        socket.received += 1;
        Turn::More
    }

    /// The reaper's thread: `Reaper::run`, until stopped.
    fn reap(&self, retry: fn(&Readiness) -> bool) {
        loop {
            match self.deathrow.take(None) {
                Mail::Stop => return,
                _ => {
                    for conn in self.enomem.drain() {
                        self.enqueue_if(retry(&conn.ready));
                    }
                }
            }
        }
    }

    /// What must be true when everything has come to rest.
    fn check(&self) {
        let turns = self.conn.turns.load(Relaxed);
        assert_eq!(turns, self.ended.load(Relaxed), "a run did not see another");
        let socket = self.conn.socket.lock().unwrap();
        assert_eq!(socket.received, socket.arrived, "an event was lost");
        let left = *self.conn.txq.lock().unwrap();
        assert!(left == 0 || socket.room == 0, "a transmit was forgotten");
    }
}

/// Runs these steps, each in a thread of its own, beside `schedulers` threads that run the
/// connection, until all is done.
fn together(world: &Arc<World>, schedulers: usize, steps: &[fn(&World)]) {
    let spawn = |step: fn(&World)| {
        let world = world.clone();
        thread::spawn(move || step(&world))
    };
    let schedulers: Vec<_> = (0..schedulers).map(|_| spawn(World::schedule)).collect();
    // This thread is one of them.
    let (first, others) = steps.split_first().unwrap();
    let others: Vec<_> = others.iter().map(|step| spawn(*step)).collect();
    first(world);
    for thread in others {
        thread.join().unwrap();
    }
    world.sched.stop();
    for thread in schedulers {
        thread.join().unwrap();
    }
    world.check();
}

/// Messages arrive while others are being read.
pub(crate) fn arrivals() {
    explore(|| {
        let world = World::idle(Socket::default());
        together(
            &world,
            1,
            &[|world| {
                world.arrive();
                world.arrive();
            }],
        );
    });
}

/// Messages arrive by two processors.
pub(crate) fn arrivals_from_two_sides() {
    explore(|| {
        let world = World::idle(Socket::default());
        together(&world, 1, &[World::arrive, World::arrive]);
    });
}

/// Messages arrive and are sent.
pub(crate) fn both_ways() {
    explore(|| {
        let world = World::idle(Socket {
            room: 1,
            ..Socket::default()
        });
        together(&world, 1, &[World::arrive, World::send]);
    });
}

/// Were there two threads, the connection would still be run by one at a time. There is one, but
/// what makes the connection's data safe to use should not depend on that.
pub(crate) fn two_schedulers() {
    explore(|| {
        let world = World::idle(Socket::default());
        together(
            &world,
            2,
            &[|world| {
                world.arrive();
                world.arrive();
            }],
        );
    });
}

/// Room comes while the send buffer is being found full, and while more is queued.
pub(crate) fn full() {
    explore(|| {
        let world = World::idle(Socket {
            room: 1,
            ..Socket::default()
        });
        together(
            &world,
            1,
            &[
                |world| {
                    world.send();
                    world.send();
                },
                World::acknowledge,
            ],
        );
        assert_eq!(world.conn.socket.lock().unwrap().sent, 2);
    });
}

/// Having been full does not outlast the room that comes: what is sent afterwards goes out.
pub(crate) fn full_again() {
    explore(|| {
        let world = World::idle(Socket::default());
        together(
            &world,
            1,
            &[|world| {
                world.send();
                world.acknowledge();
                world.acknowledge();
                world.send();
            }],
        );
        assert_eq!(world.conn.socket.lock().unwrap().sent, 2);
    });
}

/// All happens while the handshake ends.
pub(crate) fn release() {
    explore(|| {
        let world = World::held(Socket {
            room: 1,
            ..Socket::default()
        });
        together(
            &world,
            1,
            &[World::release, |world| {
                world.send();
                world.arrive();
            }],
        );
        assert_eq!(world.conn.socket.lock().unwrap().sent, 1);
    });
}

/// Nothing is run before the handshake is over.
pub(crate) fn held() {
    explore(|| {
        let world = World::held(Socket::default());
        let other = {
            let world = world.clone();
            thread::spawn(move || world.send())
        };
        world.arrive();
        other.join().unwrap();
        world.sched.stop();
        assert!(
            matches!(world.sched.take(None), Mail::Stop),
            "run too early"
        );
    });
}

/// What came before the end of the handshake, when there were no callbacks, is found.
pub(crate) fn arrival_before_release() {
    explore(|| {
        let world = World::held(Socket {
            arrived: 1,
            ..Socket::default()
        });
        together(&world, 1, &[World::release]);
    });
}

/// The kernel has no memory for the socket, for as long as two attempts take. `retry` is what makes
/// the connection try again.
fn want_of_memory_then(retry: fn(&Readiness) -> bool) {
    explore(move || {
        let world = World::idle(Socket {
            room: 2,
            enomem: 2,
            ..Socket::default()
        });
        // Ends when all is sent, and then the reaper does.
        let scheduler = {
            let world = world.clone();
            thread::spawn(move || {
                while world.conn.socket.lock().unwrap().sent < 2 {
                    match world.sched.take(None) {
                        Mail::Object(_) => world.run(),
                        _ => unreachable!(),
                    }
                }
                world.deathrow.stop();
            })
        };
        let sender = {
            let world = world.clone();
            thread::spawn(move || {
                world.send();
                world.send();
            })
        };
        world.reap(retry);
        sender.join().unwrap();
        scheduler.join().unwrap();
    });
}

/// As `Conn::retry` does it.
pub(crate) fn want_of_memory() {
    want_of_memory_then(Readiness::request_retry);
}

/// An event may take no notice of a run that has just begun, unless the socket's lock orders the
/// two; the reaper does not hold that lock.
pub(crate) fn want_of_memory_as_event() {
    want_of_memory_then(|ready| ready.event(Readiness::TX));
}
