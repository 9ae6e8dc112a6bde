// SPDX-License-Identifier: GPL-2.0

//! The module's threads, as interface instances and their peers, connections and handshakes see them.
//!
//! Nothing of its own: each request goes on to the thread that it is for.

use crate::{
    conn::{
        Conn,
        Handshake,
        Sched, //
    },
    ni::Context,
    peer::Peer,
    Lnd, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Context for Lnd {
    fn choose_sched(&self, cpu: Option<u32>) -> Result<Arc<Sched>> {
        Lnd::choose_sched(self, cpu)
    }

    fn run_handshake(&self, handshake: Arc<Handshake>) {
        self.autoconnect().post(handshake);
    }

    fn poll_handover(&self, handshake: Arc<Handshake>) {
        self.reaper().look_again(handshake);
    }

    fn bury(&self, conn: Arc<Conn>) {
        self.reaper().bury(conn);
    }

    fn retry(&self, conn: Arc<Conn>) {
        self.reaper().retry(conn);
    }

    fn wake_later(&self) {
        self.reaper().wake_later();
    }

    fn watch(&self, peer: Arc<Peer>) {
        self.reaper().watch(peer);
    }

    fn attend(&self, peer: Arc<Peer>) {
        self.reaper().attend(peer);
    }

    fn rest(&self, peer: Arc<Peer>) {
        self.reaper().rest(peer);
    }

    fn sort_out(&self, busy: bool, resting: bool) {
        self.reaper().sort_out(busy, resting);
    }

    fn let_go(&self, now: u64) {
        self.reaper().let_go(now);
    }

    fn look_at_addresses(&self) {
        self.reaper().look_at_addresses();
    }
}
