// SPDX-License-Identifier: GPL-2.0

//! Whether a connection makes progress.
//!
//! [`Deadlines`] are part of the I/O state, behind its mutex. The reaper checks them.

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

/// The time of the last progress each way, in monotonic milliseconds. When it is a timeout ago, the
/// connection is closed. Queueing a transmit is not progress.
pub(super) struct Deadlines {
    pub(super) tx_ms: u64,
    pub(super) rx_ms: u64,
    /// Bytes in TCP's send buffer at the last check.
    pub(super) wmem_mark: usize,
}

/// What a peer did not do in time.
#[derive(Clone, Copy)]
pub(crate) enum TimeoutKind {
    /// Acknowledge data at the TCP level.
    Tx,
    /// Send the rest of a message.
    Rx,
    /// Acknowledge a message that was sent without a copy.
    ZcAck,
    /// Send the payload for a forwarding buffer that other messages wait for.
    Forward,
}

/// The result of a check of a connection.
pub(crate) enum DeadlineCheck {
    /// Nothing is under way.
    Idle,
    /// Something is under way, and makes progress.
    Busy,
    /// The connection has to be closed: it has failed, or the peer is too late.
    Failed(Failure),
}

impl Deadlines {
    /// Records that TCP's send buffer has `wmem` bytes. Returns whether the peer has acknowledged some since
    /// the last call. That is progress, and so is an empty send buffer; more bytes in it are not.
    pub(super) fn note_tx_progress(&mut self, wmem: usize) -> bool {
        let acked = wmem < self.wmem_mark;
        if acked || wmem == 0 {
            self.tx_ms = time::monotonic_ms();
        }
        self.wmem_mark = wmem;
        acked
    }

    /// Records that bytes were received.
    pub(super) fn note_rx_progress(&mut self, now: u64) {
        self.rx_ms = now;
    }
}

impl Conn {
    /// Checks whether a deadline has passed, or the socket has failed. Thread context, may sleep.
    pub(crate) fn check_deadlines(self: &Arc<Self>, now: u64) -> DeadlineCheck {
        let Some(mut io) = self.io.try_lock() else {
            // The thread that holds it makes progress at this moment.
            return DeadlineCheck::Busy;
        };
        let io = &mut *io;
        let Some(socket) = io.socket.as_ref() else {
            return DeadlineCheck::Idle;
        };
        // The error stays set: it decides later how batches complete that TCP has dropped.
        if let Some(e) = socket.failure() {
            return DeadlineCheck::Failed(Failure::of_socket(e));
        }
        let wmem = socket.wmem_queued();
        self.wmem.store(wmem as u64, Relaxed);
        let busy = io.is_busy(wmem) || !self.txq.lock().fifo.is_empty();
        if io.deadlines.note_tx_progress(wmem) {
            self.peer.set_last_alive(now);
        }
        let late = |since| now.saturating_sub(since) >= tunables::timeout_ms();
        let tx_late = busy && late(io.deadlines.tx_ms);
        let short = io.rx.awaits_payload(socket);
        if short {
            self.note_gather_progress(&mut io.rx, &mut io.deadlines, socket);
        }
        // The peer is not late while this node waits for something of its own.
        let owes = io.rx.is_started() && !io.rx.is_parked();
        let mut rx_late = owes && late(io.deadlines.rx_ms);
        if rx_late && !short && socket.has_input() {
            // The peer has sent more: the scheduler has not yet read it.
            rx_late = false;
            self.clone().retry();
        }
        if tx_late || rx_late {
            let (what, health) = if tx_late {
                (TimeoutKind::Tx, Health::NetworkTimeout)
            } else {
                (TimeoutKind::Rx, Health::RemoteTimeout)
            };
            self.report_timeout(what);
            return DeadlineCheck::Failed(Failure::new(ETIMEDOUT, health));
        }
        if busy {
            DeadlineCheck::Busy
        } else {
            DeadlineCheck::Idle
        }
    }
}
