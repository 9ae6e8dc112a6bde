// SPDX-License-Identifier: GPL-2.0

//! How the removal of the module waits for packets that refer to pages of messages.
//!
//! The batches are in the schedulers' lists, which have locks of their own: nothing to protect here, and
//! nothing to free.

use super::Lnd;
use crate::{
    conn::ZcBatch,
    stats::Waited, //
};
use kernel::{
    prelude::*,
    time::Delta, //
};

/// How long the removal waits before it says so.
const QUIET: Delta = Delta::from_secs(1);

/// The interval at which it says so again.
const INTERVAL: Delta = Delta::from_secs(10);

impl Lnd {
    /// Waits until no packet refers to a batch of transmits, because the callback for the last one is in
    /// this module. It can take as long as a queueing discipline delays packets, or as a program needs to
    /// decide about them. So the kernel log says what it waits for, and a signal ends the wait: then the
    /// batches that are left are given up for good. Sleeps.
    pub(super) fn await_zc_batches(&self) {
        let mut limit = QUIET;
        for sched in self.scheds.iter() {
            loop {
                match sched.zc_batches().try_wait_zero(limit) {
                    Waited::Zero => break,
                    Waited::TimedOut => self.warn_waiting(),
                    Waited::Interrupted => return self.give_up_zc_batches(),
                }
                limit = INTERVAL;
            }
        }
    }

    /// Says in the kernel log that the removal of the module waits. Thread context.
    fn warn_waiting(&self) {
        let mut lists = self.scheds.iter().map(|sched| sched.zc_list());
        let Some((ni, peer)) = lists.find_map(|list| list.with_first(ZcBatch::nids)) else {
            // The last ones have just completed.
            return;
        };
        pr_warn!(
            "removal waits for {} batches of messages, one of {ni} for {peer}: packets with their pages are in a \
             network device, its queueing discipline, or a netfilter queue; a signal ends the wait\n",
            self.zc_batches()
        );
    }

    /// Gives up the batches that packets refer to. Sleeps, to wait for this module's threads.
    fn give_up_zc_batches(&self) {
        let mut given_up = 0u64;
        for sched in self.scheds.iter() {
            sched.zc_list().disown(|batch: ZcBatch| {
                given_up = given_up.saturating_add(1);
                batch.give_up();
            });
        }
        // The schedulers complete the others.
        for sched in self.scheds.iter() {
            sched.zc_batches().wait_zero();
        }
        pr_warn!("removal was interrupted: {given_up} batches were given up\n");
    }
}
