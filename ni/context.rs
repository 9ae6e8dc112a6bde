// SPDX-License-Identifier: GPL-2.0

//! What an NI uses of the module's threads. No state.

use crate::{
    conn::{
        Conn,
        Handshake,
        Sched, //
    },
    peer::{
        Peer,
        PeerList, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What an NI, and its peers, connections and handshakes, use of the module's threads.
pub(crate) trait Context: Send + Sync {
    /// The scheduler for a new connection, whose packets arrive on `cpu`, on a processor that `is_wanted` if
    /// there is one. May sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if none has a thread.
    fn choose_sched(&self, cpu: Option<u32>, is_wanted: &dyn Fn(u32) -> bool)
        -> Result<Arc<Sched>>;

    /// Posts a handshake to the autoconnect daemons. Any context.
    fn run_handshake(&self, handshake: Arc<Handshake>);

    /// Makes the reaper post `handshake` to the daemons after a while, because no event will: mostly for a
    /// socket that is handed over. Thread context.
    fn poll_handover(&self, handshake: Arc<Handshake>);

    /// Makes the reaper terminate a closed connection. Any context.
    fn queue_deathrow(&self, conn: Arc<Conn>);

    /// Makes the reaper retry `conn`, which had no memory, after a tick. Thread context.
    fn retry(&self, conn: Arc<Conn>);

    /// Fault injection holds a connection back: the reaper retries all connections in its next round. Any
    /// context.
    fn wake_later(&self);

    /// Makes the reaper service the transmits that wait for a connection to `peer`. Any context.
    fn queue_connect_wait(&self, peer: Arc<Peer>);

    /// Adds `peer` to the reaper's busy peers. For [`Peer::queue_busy`]. Any context.
    fn queue_busy(&self, peer: Arc<Peer>);

    /// Adds `peer` to the reaper's idle peers. For [`Peer`]. Any context.
    fn queue_idle(&self, peer: Arc<Peer>);

    /// A peer in this list was deleted: the reaper takes it out soon. Any context.
    fn purge_soon(&self, list: PeerList);

    /// Takes all peers that were deleted out of the reaper's lists, now. Thread context, may sleep.
    fn purge(&self, now: u64);

    /// Makes the reaper check the addresses that may have changed, soon. Any context.
    fn check_addresses(&self);
}
