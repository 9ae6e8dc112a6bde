// SPDX-License-Identifier: GPL-2.0

//! Handshakes that fail: tracepoints and log messages.
//!
//! No lock is held.

use super::{
    Handshake,
    Reason,
    Role, //
};
use crate::{
    lib_linux::ratelimit::{
        pr_warn_about,
        pr_warn_ratelimited, //
    },
    trace, //
};
use kernel::prelude::*;

// Formatting needs much stack, so it is in functions of its own.
impl Handshake {
    /// Fires the tracepoint. Logs it too if this node has refused the connection, the other node has violated
    /// the protocol, or it did not answer.
    #[inline(never)]
    pub(super) fn report_failure(&self, why: Reason) {
        self.trace_failure(why);
        let (ni, remote) = (self.ni.nid(), self.remote);
        match &self.role {
            Role::Passive { .. } if why.is_refusal() => {
                pr_warn_about!(
                    remote.ip(),
                    "{ni}: refused a connection from {remote:?}: {why}\n"
                );
            }
            Role::Active { peer, .. }
                if why.is_breach() || [ETIMEDOUT, EBUSY].contains(&why.errno()) =>
            {
                let nid = peer.nid();
                pr_warn_about!(
                    remote.ip(),
                    "{ni}: no connection to {nid} at {remote:?}: {why}\n"
                );
            }
            Role::Active { .. } | Role::Passive { .. } | Role::Registered { .. } => {}
        }
    }

    /// Fires the tracepoint.
    pub(super) fn trace_failure(&self, why: Reason) {
        trace::handshake_fail(self.ni.nid(), self.remote, self.side(), why.errno(), why);
    }

    /// Logs why a socket that was handed over is of no use: the program can no longer be told.
    #[inline(never)]
    pub(super) fn warn_registered(&self, why: Reason) {
        if let Role::Registered { nid, .. } = &self.role {
            let (ni, remote) = (self.ni.nid(), self.remote);
            pr_warn_ratelimited!(
                "{ni}: the connection to {nid} at {remote:?} that was handed over failed: {why}\n"
            );
        }
    }

    /// Logs that a program, or another one that has it too, has not closed a socket that was handed over.
    #[inline(never)]
    pub(super) fn warn_not_closed(&self) {
        let (ni, remote) = (self.ni.nid(), self.remote);
        pr_warn_ratelimited!(
            "{ni}: the socket with {remote:?} that was handed over was not closed: a program or its epoll set still has it\n"
        );
    }
}
