// SPDX-License-Identifier: GPL-2.0

//! Connections that fail: how failures are counted and logged.
//!
//! No state of its own.

use super::{
    deadlines::TimeoutKind,
    Conn,
    Reason, //
};
use crate::{
    lib_linux::{
        misc,
        ratelimit::pr_warn_about, //
    },
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
    /// I/O has failed with `why`: counts it, logs a violation of the protocol, and closes the connection.
    pub(super) fn fail(self: &Arc<Self>, why: Reason) {
        trace::conn_fail(|| self.traced(), why.errno(), why);
        if why.is_breach() {
            self.log_breach(why);
        }
        self.peer.count(1, |events| match why.errno() {
            EPROTO => &events.protocol_errors,
            _ => &events.disconnects,
        });
        self.peer.close_conn(self, why.failure(), Close::One);
    }

    /// The peer sends too slowly into a forwarding buffer: closes the connection. Thread context, no
    /// spinlock held.
    pub(super) fn close_slow_sender(self: &Arc<Self>) {
        misc::assert_may_sleep();
        self.report_timeout(TimeoutKind::Forward);
        self.peer.count(1, |events| &events.timeouts);
        let why = Failure::new(ETIMEDOUT, Health::RemoteTimeout);
        self.peer.close_conn(self, why, Close::One);
    }

    /// Logs and traces that the peer is too late.
    pub(crate) fn report_timeout(&self, with: TimeoutKind) {
        self.log_giving_up(with);
        trace::timeout(|| self.traced(), self.load(), Some(ETIMEDOUT));
    }

    // Formatting needs much stack, so it is in functions of its own.
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
    fn log_giving_up(&self, with: TimeoutKind) {
        let what = match with {
            TimeoutKind::Tx => "it did not acknowledge any data in time",
            TimeoutKind::Rx => "it did not send the rest of a message in time",
            TimeoutKind::ZcAck => "it did not acknowledge a message in time",
            TimeoutKind::Forward => "it sends too slowly into a buffer that others wait for",
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
