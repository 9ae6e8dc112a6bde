// SPDX-License-Identifier: GPL-2.0

//! Acknowledgements of messages, both ways: those that the peer asks for, and those that it was asked for.
//!
//! What the peer asks for is part of its connected life, behind the peer's lock. What it was asked for is
//! in [`Unacked`](super::unacked::Unacked), behind a lock of its own.

use super::{
    unacked::Reservation,
    Peer, //
};
use crate::{
    conn::Conn,
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
    /// Tells the peer that its message with this cookie has arrived by the connection `by`, which it
    /// may have passed on for another node: then that must not wait behind messages in any case. If
    /// there is no room for it, `by` is looked at again when there may be. Thread context, no spinlock
    /// held; a connection's I/O mutex may be.
    ///
    /// A connection that is out of the list may belong to an earlier life of the peer, and its messages
    /// have failed with it: to the peer their cookies mean nothing any more, or something else.
    ///
    /// # Errors
    ///
    /// [`WireError::Cookie`] if no message can have that cookie, or had it shortly before.
    pub(crate) fn queue_zc_ack(
        self: &Arc<Self>,
        by: &Arc<Conn>,
        cookie: u64,
        routed: bool,
    ) -> core::result::Result<Added, WireError> {
        let class = if routed {
            MsgClass::Ack
        } else {
            tunables::ack_class()
        };
        let mut inner = self.inner.lock();
        let Some(life) = &mut inner.life else {
            return Ok(Added::Yes);
        };
        if !life.conns().iter().any(|conn| Arc::ptr_eq(conn, by)) {
            return Ok(Added::Yes);
        }
        if let Some(conn) = life.choose_for(class).cloned() {
            if !life.acks.is_empty() {
                conn.queue_acks(&mut life.acks);
            }
            return conn.queue_ack(cookie);
        }
        // The connection for that is missing: it will come, or all will go.
        if life.acks.add(cookie)? == Added::Full {
            // In its place any that there is.
            return by.queue_ack(cookie);
        }
        drop(inner);
        self.ni.context().queue_connect_wait(self.clone());
        Ok(Added::Yes)
    }

    /// A message is about to go by the connection `conn`, and the peer is to say when it has arrived.
    /// Returns the cookie for it; 0, which is none, if there is no memory for that. May sleep.
    pub(crate) fn zc_req_add(self: &Arc<Self>, conn: ConnId) -> u64 {
        let Ok(room) = Reservation::new() else {
            return 0;
        };
        let more = || self.ni.cookies().take();
        let cookie = self.unacked.lock().add(conn, room, more);
        self.mark_busy();
        cookie
    }

    /// The message with this cookie will not be sent after all. Thread context.
    pub(crate) fn zc_req_cancel(&self, cookie: u64) {
        self.unacked.lock().forget(cookie);
    }

    /// TCP has let go of `tx`, which the peer was asked to acknowledge. Gives it back if that is not
    /// waited for: it has been, or the connection has ended. Thread context.
    pub(crate) fn zc_req_released(&self, tx: KBox<Tx>) -> Option<KBox<Tx>> {
        self.unacked.lock().released(tx, time::monotonic_ms())
    }

    /// The peer says that messages with cookies in these ranges have arrived: those that have ended with
    /// that come to `done`. Thread context, no spinlock held; a connection's I/O mutex may be.
    ///
    /// # Errors
    ///
    /// [`WireError::Cookie`] if it was not asked for one of them, or has said so before.
    pub(crate) fn handle_zc_ack(
        &self,
        ranges: [Option<(u64, u64)>; 2],
        done: &mut Fifo<Tx>,
    ) -> core::result::Result<(), WireError> {
        let mut unacked = self.unacked.lock();
        let mut ranges = ranges.into_iter().flatten();
        ranges.try_for_each(|range| unacked.acknowledged(range, done))
    }

    /// The connection `conn` has ended because of `why`: so do the messages that went by it and were
    /// to be acknowledged. Thread context, no spinlock held.
    pub(crate) fn abandon(&self, conn: ConnId, why: Failure) {
        misc::assert_may_sleep();
        let txs = self.unacked.lock().abandon(conn, time::monotonic_ms());
        self.fail_txs(txs, why);
    }

    /// How many messages the peer has yet to acknowledge, and how many it has. Thread context.
    pub(crate) fn zc_req_counts(&self) -> (u64, u64) {
        self.unacked.lock().counts()
    }
}
