// SPDX-License-Identifier: GPL-2.0

//! Handshakes that fail: what tracepoints and the kernel's log say.
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

// What formats is apart from what others do: it takes room on the stack.
impl Handshake {
    /// For tracepoints, and for the kernel's log, if it has to be known who the other side was, and why it
    /// could not be: it was turned away, has broken the protocol, or is not there.
    #[inline(never)]
    pub(super) fn tell_failure(&self, why: Reason) {
        self.trace_failure(why.errno());
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

    /// For tracepoints alone.
    pub(super) fn trace_failure(&self, why: Error) {
        let active = !matches!(self.role, Role::Passive { .. });
        trace::handshake_fail(self.ni.nid(), self.remote, active, why);
    }

    /// The program that handed a socket over can't be told any more what became of it.
    #[inline(never)]
    pub(super) fn warn_of_registered(&self, why: Reason) {
        if let Role::Registered { nid, .. } = &self.role {
            let (ni, remote) = (self.ni.nid(), self.remote);
            pr_warn_ratelimited!(
                "{ni}: the connection to {nid} at {remote:?} that was handed over is of no use: {why}\n"
            );
        }
    }

    /// A program has not closed the socket that it handed over, or not all that have it.
    #[inline(never)]
    pub(super) fn warn_of_kept(&self) {
        let (ni, remote) = (self.ni.nid(), self.remote);
        pr_warn_ratelimited!(
            "{ni}: the socket with {remote:?} that was handed over was not closed: a program or its epoll set still has it\n"
        );
    }
}
