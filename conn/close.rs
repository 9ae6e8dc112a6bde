// SPDX-License-Identifier: GPL-2.0

//! The end of a connection: first [`Conn::begin_close`], then [`Conn::terminate`].
//!
//! The reaper's thread takes everything out of the connection's I/O state and its queue, under their
//! locks, and completes it with no lock held.

use super::{
    rx::Remains,
    Conn, //
};
use crate::{
    lib_linux::queue::Fifo,
    trace,
    tx::Tx,
    upper::Failure, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

impl Conn {
    /// The first step of closing. The caller holds the peer's lock, and has taken the connection out of the
    /// peer's list.
    pub(crate) fn begin_close(self: Arc<Self>, why: Failure) {
        {
            let mut txq = self.txq.lock();
            txq.closed = Some(why);
            self.closing.store(true, Relaxed);
        }
        let context = self.peer.ni().context().clone();
        context.queue_deathrow(self);
    }

    /// Whether it is closed. Then no byte is sent or received any more, even if it still has its socket: the
    /// message layer may know already that the connection has ended. Any context.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// The second step of closing. The reaper's thread, may sleep.
    pub(crate) fn terminate(self: &Arc<Self>) {
        let mut doomed = Fifo::new();
        let (why, acks_wanted) = {
            let mut txq = self.txq.lock();
            doomed.append(&mut txq.fifo);
            (txq.closed.unwrap_or(Failure::dropped()), txq.acks_wanted)
        };
        let mut io = self.io.lock();
        let socket = io.socket.take();
        let partly = io.out.front().is_some_and(Tx::is_started);
        // A message of which TCP has a part completes with the batch, like those of which it has all.
        let mut zc = io.zc.take();
        if let Some(zc) = &mut zc {
            if io.out.front().is_some_and(Tx::is_zerocopy) {
                if let Some(tx) = io.out.pop_front() {
                    zc.push(tx);
                }
            }
        }
        drop(zc);
        let mut unsent = Fifo::new();
        unsent.append(&mut io.out);
        unsent.append(&mut doomed);
        let incoming = io.rx.abandon();
        let account = io.account.take();
        let live = io.live.take();
        drop(io);

        // Close the socket first: when the message layer is told that a buffer is free, nothing may write
        // to it any more.
        if let Some(socket) = socket {
            let socket = socket.unhook();
            if why.error == ESHUTDOWN && !partly && self.zc_batches.load(Relaxed) == 0 {
                // Copied messages were reported as sent when TCP accepted them, so they should arrive. With
                // messages sent without a copy this would wait until the peer has acknowledged them.
                socket.close_gracefully();
            } else {
                socket.abort();
            }
        }
        match incoming {
            Remains::Nothing => {}
            Remains::Payload(done) => done.complete(Err(why.receiving())),
            Remains::Waiter(waiter) => drop(waiter),
        }
        self.end_parked(why);
        let traffic = &self.traffic;
        let bytes = traffic
            .tx_bytes
            .get()
            .saturating_add(traffic.rx_bytes.get());
        trace::close(|| self.traced(), bytes, Some(why.error));
        self.peer.fail_txs(unsent, why);
        self.peer.fail_zc_reqs(self.id(), why);
        self.peer.ni().upper().conn_ended(self.id(), why.error);
        if acks_wanted {
            // Other connections of the peer waited for room in the queue of this one.
            self.peer.retry_conns();
        }
        drop(account);
        // Threads that wait for the connection's end go on: only batches may be left of it.
        drop(live);
    }
}
