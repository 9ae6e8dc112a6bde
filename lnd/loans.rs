// SPDX-License-Identifier: GPL-2.0

//! The end of the module, as far as pages are concerned that were lent to TCP.
//!
//! What is out is in the schedulers' books, which have locks of their own: nothing to protect here, and
//! nothing to free.

use super::Lnd;
use crate::{
    conn::Batch,
    stats::Waited, //
};
use kernel::prelude::*;

/// How long the module's end waits for network devices before it says so, in milliseconds.
const LOANS_QUIET_MS: u32 = 1000;

/// How often it says so then, in milliseconds.
const LOANS_NAG_MS: u32 = 10_000;

impl Lnd {
    /// Waits until everybody has let go of the pages that were lent to TCP: whoever does calls this
    /// module's code. It can take as long as a queueing discipline delays packets, or as a program
    /// takes to say what is to become of them. So it says what it waits for, and a signal ends it: then
    /// what is still out is given up for good. Sleeps.
    pub(super) fn await_loans(&self) {
        let mut limit_ms = LOANS_QUIET_MS;
        for sched in self.scheds.iter() {
            loop {
                match sched.loans().try_wait_zero(limit_ms) {
                    Waited::Zero => break,
                    Waited::InVain => self.tell_of_loans(),
                    Waited::Interrupted => return self.give_up_loans(),
                }
                limit_ms = LOANS_NAG_MS;
            }
        }
    }

    /// Says that the module's end waits for loans. Thread context.
    fn tell_of_loans(&self) {
        let mut books = self.scheds.iter().map(|sched| sched.book());
        let Some((ni, peer)) = books.find_map(|book| book.with_one(Batch::nids)) else {
            // The last ones are just coming back.
            return;
        };
        pr_warn!(
            "removal waits for {} loans of pages, one of {ni} for {peer}: packets with these are in a \
             network device, its queueing discipline, or a netfilter queue; a signal ends the wait\n",
            self.loans()
        );
    }

    /// Gives up the loans that are out. Sleeps, for this module's threads.
    fn give_up_loans(&self) {
        let mut given_up = 0u64;
        for sched in self.scheds.iter() {
            sched.book().disown(|batch: Batch| {
                given_up = given_up.saturating_add(1);
                batch.give_up();
            });
        }
        // The schedulers finish what came back meanwhile.
        for sched in self.scheds.iter() {
            sched.loans().wait_zero();
        }
        pr_warn!("removal was interrupted: {given_up} loans were given up\n");
    }
}
