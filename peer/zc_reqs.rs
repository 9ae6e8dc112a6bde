// SPDX-License-Identifier: GPL-2.0

//! Acknowledgements of zero-copy messages, in both directions.
//!
//! Acknowledgements that are due to the peer are in its [`ConnSet`](super::conn_set::ConnSet), behind the peer's
//! lock. Messages that the peer is to acknowledge are in [`Unacked`](super::unacked::Unacked), behind a lock of
//! its own.

use super::{
    unacked::Reservation,
    Peer, //
};
use crate::{
    conn::{
        Conn,
        MsgOrigin, //
    },
    lib_linux::{
        misc,
        queue::Fifo,
        time, //
    },
    tunables,
    tx::Tx,
    upper::{
        ConnId,
        Failure, //
    },
    wire::{
        Added,
        MsgClass,
        WireError, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Peer {
    /// Queues the acknowledgement of the peer's message with this cookie, which was received on `by`. That of a
    /// routed message never waits behind messages. If there is no room for it, `by` is queued to its
    /// scheduler when there is. Thread context, no spinlock held; a connection's I/O mutex may be.
    ///
    /// Nothing is queued if `by` is no longer one of the peer's connections: its messages have failed with it,
    /// and after a restart the peer may use their cookies for others.
    ///
    /// # Errors
    ///
    /// [`WireError::Cookie`] if no message can have that cookie, or had it shortly before.
    pub(crate) fn queue_zc_ack(
        self: &Arc<Self>,
        by: &Arc<Conn>,
        cookie: u64,
        origin: MsgOrigin,
    ) -> core::result::Result<Added, WireError> {
        misc::assert_may_sleep();
        let class = match origin {
            MsgOrigin::Routed => MsgClass::Ack,
            MsgOrigin::Peer => tunables::ack_class(),
        };
        let mut inner = self.inner.lock();
        let Some(conn_set) = &mut inner.conn_set else {
            return Ok(Added::Yes);
        };
        if !conn_set.conns().iter().any(|conn| Arc::ptr_eq(conn, by)) {
            return Ok(Added::Yes);
        }
        if let Some(conn) = conn_set.choose_for(class).cloned() {
            if !conn_set.acks.is_empty() {
                conn.queue_acks(&mut conn_set.acks);
            }
            return conn.queue_ack(cookie);
        }
        // The connection for acknowledgements is missing; it will be opened.
        if conn_set.acks.add(cookie)? == Added::Full {
            // There is no room: use the connection that there is.
            return by.queue_ack(cookie);
        }
        drop(inner);
        self.ni.context().queue_connect_wait(self.clone());
        Ok(Added::Yes)
    }

    /// Returns a cookie for a message that is about to be sent on `conn`, so that the peer acknowledges it; 0,
    /// which asks for nothing, if there is no memory. May sleep.
    pub(crate) fn zc_req_add(self: &Arc<Self>, conn: ConnId) -> u64 {
        let Ok(room) = Reservation::new() else {
            return 0;
        };
        let more = || self.ni.cookies().take();
        let cookie = self.unacked.lock().add(conn, room, more);
        self.mark_busy();
        cookie
    }

    /// Takes back a cookie: its message will not be sent. Thread context.
    pub(crate) fn zc_req_cancel(&self, cookie: u64) {
        self.unacked.lock().remove(cookie);
    }

    /// TCP does not need `tx` any more, which the peer was asked to acknowledge. Gives it back if the peer has
    /// done so, or the connection has ended. Thread context.
    pub(crate) fn zc_req_released(&self, tx: KBox<Tx>) -> Option<KBox<Tx>> {
        self.unacked.lock().set_released(tx, time::monotonic_ms())
    }

    /// The peer has acknowledged the messages with cookies in these ranges. Adds the transmits to `done` that are
    /// complete now. Thread context, no spinlock held; a connection's I/O mutex may be.
    ///
    /// # Errors
    ///
    /// [`WireError::Cookie`] if it was not asked to acknowledge one of them, or has done so before.
    pub(crate) fn handle_zc_ack(
        &self,
        ranges: [Option<(u64, u64)>; 2],
        done: &mut Fifo<Tx>,
    ) -> core::result::Result<(), WireError> {
        misc::assert_may_sleep();
        let mut unacked = self.unacked.lock();
        let mut ranges = ranges.into_iter().flatten();
        ranges.try_for_each(|range| unacked.acknowledge(range, done))
    }

    /// The connection `conn` has ended because of `why`: fails the messages that were sent on it and not
    /// acknowledged. Thread context, no spinlock held.
    pub(crate) fn fail_zc_reqs(&self, conn: ConnId, why: Failure) {
        misc::assert_may_sleep();
        let txs = self.unacked.lock().abandon(conn, time::monotonic_ms());
        self.fail_txs(txs, why);
    }

    /// How many messages the peer has yet to acknowledge, and how many it has. Thread context.
    pub(crate) fn zc_req_counts(&self) -> (u64, u64) {
        self.unacked.lock().counts()
    }
}
