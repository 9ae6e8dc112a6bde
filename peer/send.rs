// SPDX-License-Identifier: GPL-2.0

//! How a transmit comes to a connection of a peer.
//!
//! The connection is chosen, and given the transmit, under the peer's lock; so is the transmit queued if
//! it has to wait for one.

use super::Peer;
use crate::{
    lib_linux::{
        misc,
        time, //
    },
    tx::Tx, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Peer {
    /// Whether there is a connection for messages, or a route to make one by. Thread context.
    pub(crate) fn is_reachable(&self) -> bool {
        let inner = self.inner.lock();
        inner.can_send() || !inner.routes.is_empty()
    }

    /// Sends `tx`, or queues it until there is a connection. On error it is given back.
    ///
    /// `ESTALE` means that the peer was deleted meanwhile, `EPROTONOSUPPORT` that it speaks a version
    /// that has no form for the NIDs in the message. Thread context, no spinlock held.
    pub(crate) fn send(
        self: &Arc<Self>,
        tx: KBox<Tx>,
    ) -> core::result::Result<(), (Error, KBox<Tx>)> {
        misc::assert_may_sleep();
        let result = match self.try_send(tx, false) {
            // Asked only now: it takes a lock that is not the peer's own.
            Err((e, tx)) if e == EHOSTUNREACH && self.has_passive_handshake() => {
                self.try_send(tx, true)
            }
            result => result,
        };
        if matches!(&result, Err((e, _)) if *e != ESTALE) {
            // The interface counts it itself.
            self.events.tx_errors.add(1);
        }
        result
    }

    /// As [`Peer::send`]; if `expect_passive`, there will be a connection.
    pub(super) fn try_send(
        self: &Arc<Self>,
        tx: KBox<Tx>,
        expect_passive: bool,
    ) -> core::result::Result<(), (Error, KBox<Tx>)> {
        let now = time::monotonic_ms();
        let mut inner = self.inner.lock();
        if inner.closing {
            return Err((ESTALE, tx));
        }
        let launch = self.claim_route(&mut inner, now);
        let result = match inner.choose(&tx) {
            // One that comes from a network of IPv6, or goes there, by way of a gateway.
            Some(conn) if !tx.fits(conn.proto()) => Err((EPROTONOSUPPORT, tx)),
            Some(conn) => conn.queue_tx(tx).map_err(|tx| (ESTALE, tx)),
            None if expect_passive || inner.may_queue() => {
                inner.queue.push_back(tx);
                inner.queue_peak = inner.queue_peak.max(inner.queue.len());
                self.ni.context().queue_connect_wait(self.clone());
                Ok(())
            }
            None => Err((EHOSTUNREACH, tx)),
        };
        drop(inner);
        if let Some(claim) = launch {
            self.connect(claim);
        }
        result
    }
}
