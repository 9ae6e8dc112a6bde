// SPDX-License-Identifier: GPL-2.0

//! Each allocation of a transfer fails once.
//!
//! Connections are there. A transfer of a few messages is repeated with the first allocation of one
//! thread failing that is made by the module or on its behalf, then with the second, until the thread
//! does not come as far; and so for the thread that asks for the transfer and for each thread of the
//! module. What soft interrupts allocate is no thread's: there only the rate of failures in
//! [`super::in_transfer`] strikes.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;

use super::code;
use crate::debugfs::sections;
use crate::faults::{Faults, Thread, threads};
use crate::ioctl::{self, Moved};
use crate::lab::Lab;
use crate::node::{Bench, Node, Op};
use crate::pace;
use crate::port::note;
use crate::scenarios::gateway::Crossing;
use crate::scenarios::versions::set;
use crate::wait;

/// Messages of a transfer.
const COUNT: usize = 2;
/// Bytes of those that are bulk: some pages.
const BULK: usize = 6000;
/// More allocations than a thread makes in a transfer.
const MOST: u32 = 500;
/// After this time a message is given up that the other side had no memory to take or to answer.
const GIVEN_UP: Duration = Duration::from_millis(300);
/// The same where that is too little.
const LONGER: Duration = Duration::from_secs(1);
/// The same where that is too little, too; and in this time all is well if there is memory.
const LIMIT: Duration = Duration::from_secs(30);
/// More than the largest message: every payload is copied.
const NEVER: usize = 2 << 20;
/// Of an interface: messages that were dropped without their sender being told.
const UNTOLD: [&str; 4] = ["drops", "unanswered", "fwd_failed", "fwd_no_route"];

/// A way to transfer.
#[derive(Clone, Copy)]
struct Kind {
    op: Op,
    size: usize,
    /// The module's parameters for it.
    zc_min_payload: usize,
    zc_acks: u32,
}

const fn kind(op: Op, size: usize, zc_min_payload: usize, zc_acks: u32) -> Kind {
    Kind {
        op,
        size,
        zc_min_payload,
        zc_acks,
    }
}

/// Between two nodes: small messages; bulk that is copied, that is sent without a copy, and that the peer
/// acknowledges as well.
pub fn between_two(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    Trial::new(lab.node(0), lab.node(1))?.all(&[
        kind(Op::Put, 100, NEVER, 0),
        kind(Op::Get, BULK, NEVER, 0),
        kind(Op::Get, BULK, 2048, 0),
        kind(Op::Put, BULK, 2048, 1),
    ])
}

/// Through the forwarding buffers of a node between them.
pub fn across_gateway(lab: &mut Lab) -> Result<()> {
    let crossing = Crossing::new(lab, 1, 1, 1)?;
    let (client, server) = (&crossing.clients[0], &crossing.servers[0]);
    Trial::new(client, server)?.all(&[kind(Op::Put, BULK, 2048, 0)])
}

/// How a transfer went in which an allocation was to fail.
struct Outcome {
    moved: Result<Moved, Errno>,
    /// Whether it came to that.
    fired: bool,
    /// So many messages were dropped without their sender being told.
    untold: u64,
}

impl Outcome {
    /// What the asker was told, if not that all is well.
    fn error(&self) -> Option<Errno> {
        match &self.moved {
            Ok(moved) => moved.first_error,
            Err(why) => Some(*why),
        }
    }

    /// Whether the asker waited in vain, and nobody has counted why.
    fn is_silent(&self) -> bool {
        self.error() == Some(Errno::TIMEDOUT) && self.untold == 0
    }
}

/// Transfers between these nodes.
struct Trial<'a> {
    from: &'a Node,
    to: &'a Node,
    /// How many have failed, by thread.
    failed: BTreeMap<String, u32>,
    /// How many transfers went how.
    told: BTreeMap<String, u32>,
}

impl<'a> Trial<'a> {
    fn new(from: &'a Node, to: &'a Node) -> Result<Trial<'a>> {
        from.ping(to)?;
        to.ping(from)?;
        Ok(Trial {
            from,
            to,
            failed: BTreeMap::new(),
            told: BTreeMap::new(),
        })
    }

    fn all(&mut self, kinds: &[Kind]) -> Result<()> {
        let _faults = Faults::aim(&code()?)?;
        // Connections for bulk come with the first of it.
        for kind in kinds {
            self.undisturbed(*kind)?;
        }
        let before = count(&["disconnects"])?;
        for kind in kinds {
            self.each_allocation(*kind, None)?;
            for thread in threads("socklnd_")? {
                self.each_allocation(*kind, Some(&thread))?;
            }
        }
        note(&format!("allocations that failed: {:?}", self.failed));
        note(&format!("of the transfers then: {:?}", self.told));
        let ended = count(&["disconnects"])? - before;
        ensure!(ended == 0, "{ended} connections ended for want of memory");
        Ok(())
    }

    /// Each allocation of this thread of the module, or of the one that asks for the transfer.
    fn each_allocation(&mut self, kind: Kind, thread: Option<&Thread>) -> Result<()> {
        let asker = Thread::this();
        let thread = thread.unwrap_or(&asker);
        for nth in 1..MOST {
            let what = || {
                let (op, size, name) = (kind.op, kind.size, &thread.name);
                format!("{op} of {size} bytes, allocation {nth} of {name}")
            };
            if !self.nth(kind, thread, nth).with_context(what)? {
                return Ok(());
            }
            *self.failed.entry(thread.name.clone()).or_default() += 1;
        }
        bail!("there is no end of allocations of {}", thread.name);
    }

    /// A transfer with this allocation failing: each message has arrived once, as it should, or its
    /// sender was told that it has not, or a counter says that there was no memory to take it or to
    /// answer it. Returns whether it came to that; if not, all went well.
    fn nth(&mut self, kind: Kind, thread: &Thread, nth: u32) -> Result<bool> {
        let mut outcome = self.disturbed(kind, thread, nth, GIVEN_UP)?;
        for limit in [LONGER, LIMIT] {
            if outcome.is_silent() || !outcome.fired && outcome.error().is_some() {
                // On a slow machine there may have been too little time.
                outcome = self.disturbed(kind, thread, nth, pace::stretched(limit))?;
            }
        }
        ensure!(!outcome.is_silent(), "a message is lost, and nobody knows");
        self.nothing_left()?;
        if !outcome.fired {
            return all_is_well(&outcome.moved?).map(|()| false);
        }
        if let Ok(moved) = &outcome.moved {
            // The question for the count at the end is a message as well.
            let all = moved.messages + moved.errors >= COUNT as u64;
            ensure!(all && moved.wrong == 0, "{moved:?}");
        }
        let told = outcome.error().map_or("well".to_owned(), |e| e.to_string());
        *self.told.entry(told).or_default() += 1;
        for (from, to) in [(self.from, self.to), (self.to, self.from)] {
            from.space
                .within(|| Ok(ioctl::ping(&ioctl::open()?, to, pace::stretched(LIMIT))?))
                .context("ping afterwards")?;
        }
        Ok(true)
    }

    fn disturbed(&self, kind: Kind, thread: &Thread, nth: u32, limit: Duration) -> Result<Outcome> {
        let before = count(&UNTOLD)?;
        let (moved, fired) = self.prepared(kind, |device| {
            thread.with_nth(nth, || self.transfer(device, kind, limit))
        })?;
        Ok(Outcome {
            moved,
            fired,
            untold: count(&UNTOLD)? - before,
        })
    }

    fn undisturbed(&self, kind: Kind) -> Result<()> {
        let limit = pace::stretched(LIMIT);
        let moved = self.prepared(kind, |device| Ok(self.transfer(device, kind, limit)))?;
        all_is_well(&moved?)?;
        self.nothing_left()
    }

    /// Runs `work` in the namespace of who asks, with the service there. It is a new one each time:
    /// if a message is lost that should have closed a session, that would be in the way for a while.
    fn prepared<T: Send>(
        &self,
        kind: Kind,
        work: impl FnOnce(&File) -> Result<T> + Send,
    ) -> Result<T> {
        set("zc_min_payload", kind.zc_min_payload)?;
        set("zc_acks", kind.zc_acks)?;
        let _service = self.to.space.within(|| {
            let device = ioctl::open()?;
            ioctl::serve(&device)?;
            Ok(device)
        })?;
        self.from.space.within(|| work(&ioctl::open()?))
    }

    fn transfer(&self, device: &File, kind: Kind, limit: Duration) -> Result<Moved, Errno> {
        let bench = Bench {
            op: kind.op,
            size: kind.size,
            count: COUNT,
            in_flight: 2,
            limit,
        };
        ioctl::transfer(device, self.to, &bench)
    }

    /// All that was to be sent has ended.
    fn nothing_left(&self) -> Result<()> {
        wait::until(LIMIT, "all transmits ended", || {
            let live = count(&["txs"])?;
            ensure!(live == 0, "{live} have not");
            Ok(())
        })
    }
}

/// All messages have arrived as they should.
fn all_is_well(moved: &Moved) -> Result<()> {
    let all = moved.messages == COUNT as u64 && moved.errors == 0 && moved.wrong == 0;
    ensure!(all, "{moved:?}");
    Ok(())
}

/// The sum of these numbers, of all interfaces.
fn count(names: &[&str]) -> Result<u64> {
    let mut sum = 0;
    for section in sections("ni ")? {
        for name in names {
            sum += section.get(name)?;
        }
    }
    Ok(sum)
}
