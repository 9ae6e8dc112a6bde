// SPDX-License-Identifier: GPL-2.0

//! Two real nodes that go on working while something happens beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::connect::one_of_each;
use crate::command::Job;
use crate::lab::Lab;
use crate::node::{Bench, Node, Op};
use crate::port::note;
use crate::wait;

const BENCH: Bench = Bench {
    op: Op::Put,
    size: 3000,
    count: 100,
    in_flight: 4,
    limit: Duration::from_secs(30),
};

/// Traffic between nodes 0 and 1, from the start until `unharmed`.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    transfers: Option<JoinHandle<Result<usize>>>,
    conns: Vec<String>,
    _service: Job,
}

impl Bystander {
    /// Connects the first two nodes and lets them transfer.
    pub fn start(lab: &Lab) -> Result<Bystander> {
        lab.connect(2)?;
        let (from, to) = (lab.node(1).clone(), lab.node(0).clone());
        let service = to.serve()?;
        from.bench(&to, &BENCH)?;
        // The last of them may come only now.
        wait::until(BENCH.limit, "one connection of each type", || {
            one_of_each(&from, &to)
        })?;
        let conns = ends(&from, &to)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let transfers = thread::spawn(move || {
            let mut rounds = 0;
            // Once at least, however soon the scenario is over.
            while rounds == 0 || !stopping.load(Ordering::Relaxed) {
                from.bench(&to, &BENCH)?;
                rounds += 1;
            }
            Ok(rounds)
        });
        Ok(Bystander {
            stop,
            transfers: Some(transfers),
            conns,
            _service: service,
        })
    }

    /// All went well, over the same connections as at the beginning.
    pub fn unharmed(mut self, lab: &Lab) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let transfers = self.transfers.take().context("joined once only")?;
        let rounds = transfers
            .join()
            .map_err(|_| anyhow!("the thread panicked"))?
            .context("a bystander was harmed")?;
        note(&format!(
            "bystanders: {} messages meanwhile",
            rounds * BENCH.count
        ));
        ensure!(rounds > 0, "the bystanders got nothing through");
        let conns = ends(lab.node(1), lab.node(0))?;
        ensure!(
            conns == self.conns,
            "the bystanders had to connect anew: {:?}, now {conns:?}",
            self.conns
        );
        Ok(())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(transfers) = self.transfers.take() {
            let _ = transfers.join();
        }
    }
}

/// Both ends of every connection.
fn ends(from: &Node, to: &Node) -> Result<Vec<String>> {
    let conns = from.conns_to(to)?;
    let mut ends: Vec<String> = conns
        .iter()
        .map(|conn| format!("{} {}", conn["local"], conn["peer"]))
        .collect();
    ends.sort();
    Ok(ends)
}
