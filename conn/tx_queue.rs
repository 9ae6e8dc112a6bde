// SPDX-License-Identifier: GPL-2.0

//! The queue of a connection: transmits, acknowledgements and keepalive messages to send.
//!
//! A [`TxQueue`] has a spinlock, taken inside the peer's.

use super::Conn;
use crate::{
    lib_linux::queue::Fifo,
    tx::Tx,
    upper::Failure,
    wire::{
        Acks,
        Added,
        WireError, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// Transmits for the scheduler, and acknowledgements and pings for which it makes transmits.
pub(super) struct TxQueue {
    pub(super) fifo: Fifo<Tx>,
    /// Acknowledgements that are due to the peer.
    pub(super) acks: Acks,
    /// A connection of the peer waits for room in `acks`.
    pub(super) acks_wanted: bool,
    /// A keepalive message is due.
    pub(super) ping: bool,
    /// The most bytes that were queued at the same time, here and in the I/O state.
    pub(super) peak: u64,
    /// The reason for which the connection is closed, if it is.
    pub(super) closed: Option<Failure>,
}

impl Conn {
    /// Queues `tx` for sending; gives it back if the connection is being closed.
    ///
    /// Thread context; the peer's lock may be held.
    pub(crate) fn queue_tx(
        self: &Arc<Self>,
        mut tx: KBox<Tx>,
    ) -> core::result::Result<(), KBox<Tx>> {
        let mut txq = self.txq.lock();
        if txq.closed.is_some() {
            return Err(tx);
        }
        tx.assign(self.proto, self.id());
        let len = tx.len() as u64;
        let queued = self.queued.fetch_add(len, Relaxed).saturating_add(len);
        txq.peak = txq.peak.max(queued);
        txq.fifo.push_back(tx);
        drop(txq);
        self.tx_queued();
        Ok(())
    }

    /// Queues the acknowledgement of the message with this cookie. If there is no room, all connections of the
    /// peer are queued to their schedulers when there is, or when this connection ends.
    ///
    /// The peer's lock is held, and this connection is in its list.
    ///
    /// # Errors
    ///
    /// Those of [`Acks::add`].
    pub(crate) fn queue_ack(
        self: &Arc<Self>,
        cookie: u64,
    ) -> core::result::Result<Added, WireError> {
        let mut txq = self.txq.lock();
        let added = txq.acks.add(cookie)?;
        txq.acks_wanted |= added == Added::Full;
        drop(txq);
        self.tx_queued();
        Ok(added)
    }

    /// Queues acknowledgements, as far as there is room. Thread context; the peer's lock may be held.
    pub(crate) fn queue_acks(self: &Arc<Self>, acks: &mut Acks) {
        self.txq.lock().acks.absorb(acks);
        self.tx_queued();
    }

    /// Queues a keepalive message, unless something else is queued or being sent.
    ///
    /// Thread context; the peer's lock may be held.
    pub(crate) fn queue_ping(self: &Arc<Self>) {
        let mut txq = self.txq.lock();
        if self.load() > 0 || !txq.acks.is_empty() {
            return;
        }
        txq.ping = true;
        drop(txq);
        self.tx_queued();
    }

    /// Makes TCP send a keepalive probe. A peer that no longer has the connection answers with a reset; if it
    /// does not answer, nothing changes.
    ///
    /// Thread context; the peer's lock may be held.
    pub(crate) fn request_probe(self: &Arc<Self>) {
        self.probe_wanted.store(true, Relaxed);
        self.clone().retry();
    }

    pub(super) fn tx_queued(self: &Arc<Self>) {
        if self.ready.tx_queued() {
            self.sched.enqueue(self.clone());
        }
    }
}
