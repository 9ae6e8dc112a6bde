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

/// Why a transmit was not sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The peer was deleted meanwhile: who looks its NID up again finds, or makes, another.
    Gone,
    /// It was made this moment, by another sender or by a handshake that is not over: there is neither a
    /// connection for messages nor a route to make one by.
    NoRoute,
    /// `EHOSTUNREACH` if no route may be tried now, `EPROTONOSUPPORT` if the peer speaks a version that has
    /// no form for the NIDs in the message.
    Failed(Error),
}

impl Peer {
    /// Whether there is a connection for messages, or a route to make one by. Thread context.
    pub(crate) fn is_reachable(&self) -> bool {
        let inner = self.inner.lock();
        inner.can_send() || !inner.routes.is_empty()
    }

    /// Sends `tx`, or queues it until there is a connection. On error it is given back. Thread context, no
    /// spinlock held.
    pub(crate) fn send(
        self: &Arc<Self>,
        tx: KBox<Tx>,
    ) -> core::result::Result<(), (Unsent, KBox<Tx>)> {
        misc::assert_may_sleep();
        let result = match self.try_send(tx, false) {
            // Asked only now: it takes a lock that is not the peer's own.
            Err((Unsent::Failed(EHOSTUNREACH), tx)) if self.has_passive_handshake() => {
                self.try_send(tx, true)
            }
            result => result,
        };
        if matches!(&result, Err((Unsent::Failed(_), _))) {
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
    ) -> core::result::Result<(), (Unsent, KBox<Tx>)> {
        let now = time::monotonic_ms();
        let mut inner = self.inner.lock();
        if inner.closing {
            return Err((Unsent::Gone, tx));
        }
        let launch = self.claim_route(&mut inner, now);
        let result = match inner.choose(&tx) {
            // One that comes from a network of IPv6, or goes there, by way of a gateway.
            Some(conn) if !tx.fits(conn.proto()) => Err((Unsent::Failed(EPROTONOSUPPORT), tx)),
            Some(conn) => conn.queue_tx(tx).map_err(|tx| (Unsent::Gone, tx)),
            None if inner.routes.is_empty() && !inner.can_send() => Err((Unsent::NoRoute, tx)),
            None if expect_passive || inner.may_queue() => {
                inner.queue.push_back(tx);
                inner.queue_peak = inner.queue_peak.max(inner.queue.len());
                self.ni.context().queue_connect_wait(self.clone());
                Ok(())
            }
            None => Err((Unsent::Failed(EHOSTUNREACH), tx)),
        };
        drop(inner);
        if let Some(claim) = launch {
            self.connect(claim);
        }
        result
    }
}
