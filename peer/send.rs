// SPDX-License-Identifier: GPL-2.0

//! How a transmit is queued to a connection of a peer.
//!
//! With the peer's lock held, the connection is chosen and the transmit queued to it; or the transmit is
//! queued to the peer if there is no connection yet.

use super::{
    connect::PassiveHandshake,
    Peer, //
};
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
    /// The peer was deleted meanwhile: a new look-up of its NID finds, or creates, another.
    Gone,
    /// It was just created, by another sender or by a handshake that has not ended: there is neither a connection
    /// for messages nor a route.
    NoRoute,
    /// `EHOSTUNREACH` if no route may be tried now, `EPROTONOSUPPORT` if the version that the peer speaks can't
    /// represent the NIDs in the message.
    Failed(Error),
}

impl Peer {
    /// Whether there is a connection for messages, or a route. Thread context.
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
        let result = match self.try_send(tx, PassiveHandshake::None) {
            // Last, because it takes the lock of the table of handshakes.
            Err((Unsent::Failed(EHOSTUNREACH), tx)) => match self.passive_handshake() {
                PassiveHandshake::UnderWay => self.try_send(tx, PassiveHandshake::UnderWay),
                PassiveHandshake::None => Err((Unsent::Failed(EHOSTUNREACH), tx)),
            },
            result => result,
        };
        if matches!(&result, Err((Unsent::Failed(_), _))) {
            // The caller counts it for the NI.
            self.events.tx_errors.add(1);
        }
        result
    }

    /// As [`Peer::send`]; `tx` may wait for the connection of a passive handshake.
    pub(super) fn try_send(
        self: &Arc<Self>,
        tx: KBox<Tx>,
        passive: PassiveHandshake,
    ) -> core::result::Result<(), (Unsent, KBox<Tx>)> {
        let now = time::monotonic_ms();
        let mut inner = self.inner.lock();
        if inner.closing {
            return Err((Unsent::Gone, tx));
        }
        let launch = self.claim_route(&mut inner, now);
        let result = match inner.choose(&tx) {
            // A message from or to an IPv6 network through a router.
            Some(conn) if !tx.fits(conn.proto()) => Err((Unsent::Failed(EPROTONOSUPPORT), tx)),
            Some(conn) => conn.queue_tx(tx).map_err(|tx| (Unsent::Gone, tx)),
            None if inner.routes.is_empty() && !inner.can_send() => Err((Unsent::NoRoute, tx)),
            None if passive == PassiveHandshake::UnderWay || inner.may_queue() => {
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
