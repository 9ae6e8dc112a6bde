// SPDX-License-Identifier: GPL-2.0

//! The module's threads, as NIs and their peers, connections and handshakes use them.
//!
//! No state of its own: each request is passed to the thread that it is for.

use crate::{
    conn::{
        Conn,
        Handshake,
        Sched, //
    },
    ni::Context,
    peer::{
        Peer,
        PeerList, //
    },
    Lnd, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Context for Lnd {
    fn choose_sched(
        &self,
        cpu: Option<u32>,
        is_wanted: &dyn Fn(u32) -> bool,
    ) -> Result<Arc<Sched>> {
        Lnd::choose_sched(self, cpu, is_wanted)
    }

    fn run_handshake(&self, handshake: Arc<Handshake>) {
        self.autoconnect().post(handshake);
    }

    fn poll_handover(&self, handshake: Arc<Handshake>) {
        self.reaper().poll_handover(handshake);
    }

    fn queue_deathrow(&self, conn: Arc<Conn>) {
        self.reaper().queue_deathrow(conn);
    }

    fn retry(&self, conn: Arc<Conn>) {
        self.reaper().retry(conn);
    }

    fn wake_later(&self) {
        self.reaper().wake_later();
    }

    fn queue_connect_wait(&self, peer: Arc<Peer>) {
        self.reaper().queue_connect_wait(peer);
    }

    fn queue_busy(&self, peer: Arc<Peer>) {
        self.reaper().queue_busy(peer);
    }

    fn queue_idle(&self, peer: Arc<Peer>) {
        self.reaper().queue_idle(peer);
    }

    fn purge_soon(&self, list: PeerList) {
        self.reaper().purge_soon(list);
    }

    fn purge(&self, now: u64) {
        self.reaper().purge(now);
    }

    fn check_addresses(&self) {
        self.reaper().check_addresses();
    }
}
