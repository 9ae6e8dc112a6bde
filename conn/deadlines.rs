// SPDX-License-Identifier: GPL-2.0

//! Whether a connection makes progress.
//!
//! [`Deadlines`] are part of the I/O state, behind its mutex; the reaper looks at them.

use super::Conn;
use crate::{
    lib_linux::time,
    tunables,
    upper::{
        Failure,
        Health, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// When there was progress, each way: a timeout later the peer is given up. In monotonic milliseconds;
/// queueing is no progress.
pub(super) struct Deadlines {
    pub(super) tx_ms: u64,
    pub(super) rx_ms: u64,
    /// What TCP held for sending at the last look.
    pub(super) wmem_mark: usize,
}

/// What a peer has not done in time.
#[derive(Clone, Copy)]
pub(crate) enum Late {
    /// Nothing that is sent to it arrives.
    Taking,
    /// The rest of a message has not come.
    Sending,
    /// It has not said that a message has arrived.
    Acknowledging,
    /// It sends so slowly into a buffer that others wait for that.
    Forwarding,
}

/// What the reaper finds when it looks at a connection.
pub(crate) enum Look {
    /// Nothing is under way.
    Idle,
    /// Something is, and not late.
    Busy,
    /// It has to be closed: it has failed, or the peer has not done its part in time.
    Over(Failure),
}

impl Deadlines {
    /// TCP holds `wmem` bytes for sending. Returns whether the peer has acknowledged some since
    /// the last look; that is progress, as is having nothing to acknowledge. That TCP has taken
    /// more bytes is not.
    pub(super) fn tx_seen(&mut self, wmem: usize) -> bool {
        let acked = wmem < self.wmem_mark;
        if acked || wmem == 0 {
            self.tx_ms = time::monotonic_ms();
        }
        self.wmem_mark = wmem;
        acked
    }

    /// Bytes have come in.
    pub(super) fn rx_progress(&mut self, now: u64) {
        self.rx_ms = now;
    }
}

impl Conn {
    /// Looks for a deadline that has passed, and whether the socket has failed. Thread context, may
    /// sleep.
    pub(crate) fn check_deadlines(self: &Arc<Self>, now: u64) -> Look {
        let Some(mut io) = self.io.try_lock() else {
            // Whoever holds it makes progress this very moment.
            return Look::Busy;
        };
        let io = &mut *io;
        let Some(socket) = io.socket.as_ref() else {
            return Look::Idle;
        };
        // The error stays with the socket: what TCP has dropped is judged by it.
        if let Some(e) = socket.failure() {
            return Look::Over(Failure::of_socket(e));
        }
        let wmem = socket.wmem_queued();
        self.wmem.store(wmem as u64, Relaxed);
        let busy = io.is_busy(wmem) || !self.txq.lock().fifo.is_empty();
        if io.deadlines.tx_seen(wmem) {
            self.peer.set_last_alive(now);
        }
        let late = |since| now.saturating_sub(since) >= tunables::timeout_ms();
        let tx_late = busy && late(io.deadlines.tx_ms);
        let short = io.rx.is_short(socket);
        if short {
            self.gathers(&mut io.rx, &mut io.deadlines, socket);
        }
        // What this side waits for is not counted against the peer.
        let owes = io.rx.is_started() && !io.rx.is_waiting();
        let mut rx_late = owes && late(io.deadlines.rx_ms);
        if rx_late && !short && socket.has_input() {
            // The peer has done its part: it is this side that has not come to it.
            rx_late = false;
            self.clone().retry();
        }
        if tx_late || rx_late {
            let (what, health) = if tx_late {
                (Late::Taking, Health::NetworkTimeout)
            } else {
                (Late::Sending, Health::RemoteTimeout)
            };
            self.report_timeout(what);
            return Look::Over(Failure::new(ETIMEDOUT, health));
        }
        if busy {
            Look::Busy
        } else {
            Look::Idle
        }
    }
}
