// SPDX-License-Identifier: GPL-2.0

//! What an interface instance asks of the module's threads. No state.

use crate::{
    conn::{
        Conn,
        Handshake,
        Sched, //
    },
    peer::Peer, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What an interface instance, and all that belongs to it, asks of the module's threads. Who asks
/// knows no more of them than this.
pub(crate) trait Context: Send + Sync {
    /// The scheduler for a new connection, whose packets arrive on `cpu`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if none has a thread.
    fn choose_sched(&self, cpu: Option<u32>) -> Result<Arc<Sched>>;

    /// Has a daemon go on with a handshake. Any context.
    fn run_handshake(&self, handshake: Arc<Handshake>);

    /// Has `handshake` looked at again after a while, of which no event will tell anything: mostly because
    /// of a socket that is handed over. Thread context.
    fn poll_handover(&self, handshake: Arc<Handshake>);

    /// Has the reaper terminate a connection that was closed. Any context.
    fn bury(&self, conn: Arc<Conn>);

    /// Has `conn` try again after a tick, which had no memory. Thread context.
    fn retry(&self, conn: Arc<Conn>);

    /// Fault injection holds a connection back: all of them are woken at the reaper's next look. Any
    /// context.
    fn wake_later(&self);

    /// Has the reaper look after the transmits that wait for a connection to `peer`. Any context.
    fn queue_connect_wait(&self, peer: Arc<Peer>);

    /// Has the reaper look for deadlines of what is under way with `peer`. For [`Peer::queue_busy`]. Any
    /// context.
    fn queue_busy(&self, peer: Arc<Peer>);

    /// Has the reaper look at `peer` when it has been silent for long. For [`Peer`] itself. Any context.
    fn queue_idle(&self, peer: Arc<Peer>);

    /// A peer was deleted that is among the busy ones, or the idle ones: the reaper lets go of it
    /// soon. Any context.
    fn purge_soon(&self, busy: bool, idle: bool);

    /// Takes all peers that were deleted out of the reaper's lists, now. Thread context, may sleep.
    fn purge(&self, now: u64);

    /// Has the reaper look soon at addresses that something may have happened to. Any context.
    fn look_at_addresses(&self);
}
