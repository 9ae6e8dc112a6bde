// SPDX-License-Identifier: GPL-2.0

//! Connections that fail, and peers that are given up: how that is counted, and what the kernel's log says.
//!
//! No state of its own.

use super::{
    deadlines::Late,
    Conn,
    Reason, //
};
use crate::{
    lib_linux::ratelimit::pr_warn_about,
    peer::Close,
    trace,
    tunables,
    upper::{
        Failure,
        Health, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Conn {
    /// I/O has failed: counts, says so if it is not just the peer's leaving, and closes.
    pub(super) fn lost(self: &Arc<Self>, why: Reason) {
        if why.is_breach() {
            self.log_breach(why);
        }
        self.peer.count(1, |events| match why.errno() {
            EPROTO => &events.protocol_errors,
            _ => &events.disconnects,
        });
        self.peer.close_conn(self, why.failure(), Close::One);
    }

    /// The peer sends so slowly that others wait for it: closes the connection. Thread context, no
    /// spinlock held.
    pub(super) fn close_late(self: &Arc<Self>) {
        self.report_timeout(Late::Forwarding);
        self.peer.count(1, |events| &events.timeouts);
        let why = Failure::new(ETIMEDOUT, Health::RemoteTimeout);
        self.peer.close_conn(self, why, Close::One);
    }

    /// The peer has not done its part in time, and is given up.
    pub(crate) fn report_timeout(&self, with: Late) {
        self.log_giving_up(with);
        trace::timeout(|| self.traced(), self.load(), Some(ETIMEDOUT));
    }

    // What formats is apart from what others do: it takes room on the stack.
    #[inline(never)]
    fn log_breach(&self, why: Reason) {
        let (ni, nid) = (self.peer.ni().nid(), self.peer.nid());
        let remote = self.remote;
        pr_warn_about!(
            remote.ip(),
            "{ni}: {nid} at {remote:?} has broken the protocol: {why}\n"
        );
    }

    #[inline(never)]
    fn log_giving_up(&self, with: Late) {
        let what = match with {
            Late::Taking => "nothing that was sent to it arrived in time",
            Late::Sending => "the rest of a message did not come in time",
            Late::Acknowledging => "it did not acknowledge a message in time",
            Late::Forwarding => "it sends so slowly that others wait",
        };
        let (ni, nid) = (self.peer.ni().nid(), self.peer.nid());
        let remote = self.remote;
        let seconds = tunables::timeout_ms() / 1000;
        pr_warn_about!(
            remote.ip(),
            "{ni}: gave up {nid} at {remote:?}: {what} (sock_timeout={seconds})\n"
        );
    }
}
