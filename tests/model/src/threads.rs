// SPDX-License-Identifier: GPL-2.0

//! Threads that sleep on one mailbox.
//!
//! Checked by all scenarios: nobody sleeps for ever, which loom calls a deadlock.

use super::mailbox::{Mail, Mailbox};
use crate::explore::explore;
use kernel::{
    list::{AtomicTracker, ListArcSafe, ListItem, TryNewListArc},
    sync::{woken, Arc},
    PinInit,
};
use loom::{
    sync::{
        atomic::{AtomicU32, Ordering::Relaxed},
        Condvar, Mutex,
    },
    thread,
};

struct Letter(AtomicTracker<1>);

impl ListArcSafe<1> for Letter {
    fn tracker(&self) -> &AtomicTracker<1> {
        &self.0
    }
}
impl ListItem<1> for Letter {}
impl TryNewListArc<1> for Letter {}

fn letter() -> Arc<Letter> {
    Arc::new(Letter(AtomicTracker::new()))
}

/// A number that threads await.
struct Count {
    value: Mutex<u32>,
    changed: Condvar,
}

impl Count {
    fn new() -> Self {
        Self {
            value: Mutex::new(0),
            changed: Condvar::new(),
        }
    }

    fn add(&self) {
        *self.value.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    fn wait_for(&self, value: u32) {
        let mut now = self.value.lock().unwrap();
        while *now < value {
            now = self.changed.wait(now).unwrap();
        }
    }
}

struct World {
    mailbox: Mailbox<Letter, 1>,
    taken: AtomicU32,
    ticks: AtomicU32,
    busy: Count,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mailbox: Mailbox::new().init(),
            taken: AtomicU32::new(0),
            ticks: AtomicU32::new(0),
            busy: Count::new(),
        })
    }

    fn spawn(self: &Arc<Self>, job: fn(&Self)) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || job(&world))
    }

    fn post(&self) {
        assert!(self.mailbox.post(letter()));
    }

    /// Takes until told to stop.
    fn serve(&self) {
        while self.serve_one() {}
    }

    /// The same, and is as long busy with a letter as another one is there.
    fn serve_two_at_once(&self) {
        while self.serve_one() {
            self.busy.add();
            self.busy.wait_for(2);
        }
    }

    /// The reaper's way: waits for some time first.
    fn serve_after_a_timed_wait(&self) {
        for jiffies in [1, 2] {
            match self.mailbox.take(Some(jiffies)) {
                Mail::Object(_) => {
                    self.taken.fetch_add(1, Relaxed);
                }
                Mail::Tick => {}
                Mail::Stop => return,
            }
        }
        self.serve();
    }

    fn serve_one(&self) -> bool {
        match self.mailbox.take(None) {
            Mail::Object(_) => self.taken.fetch_add(1, Relaxed),
            Mail::Tick => self.ticks.fetch_add(1, Relaxed),
            Mail::Stop => return false,
        };
        true
    }

    fn taken(&self) -> u32 {
        self.taken.load(Relaxed)
    }
}

/// What is posted is taken, before the threads end.
pub(crate) fn posts_are_taken() {
    explore(|| {
        let world = World::new();
        let server = world.spawn(World::serve);
        let poster = world.spawn(World::post);
        world.post();
        poster.join().unwrap();
        world.mailbox.stop();
        server.join().unwrap();
        assert_eq!(world.taken(), 2);
        assert!(world.mailbox.is_empty());
    });
}

/// The last words before nothing more comes: nobody says stop to wake a thread that slept through.
pub(crate) fn a_post_wakes() {
    explore(|| {
        let world = World::new();
        let server = world.spawn(|world| while world.taken() < 2 && world.serve_one() {});
        world.post();
        world.post();
        server.join().unwrap();
    });
}

/// Of two threads that sleep, two posts wake both.
pub(crate) fn two_posts_wake_two() {
    explore(|| {
        let world = World::new();
        let servers = [0; 2].map(|_| world.spawn(World::serve_two_at_once));
        world.post();
        world.post();
        world.busy.wait_for(2);
        world.mailbox.stop();
        for server in servers {
            server.join().unwrap();
        }
        assert_eq!(world.taken(), 2);
    });
}

/// Of two threads that sleep, one post wakes no more than one.
pub(crate) fn a_post_wakes_one() {
    explore(|| {
        woken();
        let world = World::new();
        let servers = [0; 2].map(|_| world.spawn(World::serve));
        world.post();
        assert!(woken() <= 1, "all are woken for one letter");
        world.mailbox.stop();
        for server in servers {
            server.join().unwrap();
        }
    });
}

/// A kick is not lost, with or without a letter.
pub(crate) fn a_kick_wakes() {
    explore(|| {
        let world = World::new();
        let server =
            world.spawn(|world| while world.ticks.load(Relaxed) == 0 && world.serve_one() {});
        world.post();
        world.mailbox.kick();
        server.join().unwrap();
    });
}

/// All threads hear that it is over.
pub(crate) fn stop_reaches_all() {
    explore(|| {
        let world = World::new();
        let servers = [0; 2].map(|_| world.spawn(World::serve));
        world.mailbox.stop();
        for server in servers {
            server.join().unwrap();
        }
    });
}

/// Waiting with a limit leaves the count of sleepers such that the next wait is ended by a post.
pub(crate) fn timed_waits() {
    explore(|| {
        let world = World::new();
        let server = world.spawn(World::serve_after_a_timed_wait);
        world.post();
        world.post();
        world.mailbox.stop();
        server.join().unwrap();
        assert_eq!(world.taken(), 2);
    });
}
