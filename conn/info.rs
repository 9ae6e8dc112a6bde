// SPDX-License-Identifier: GPL-2.0

//! The properties and statistics of a connection. They are constant or atomic, or read from its socket.

use super::Conn;
use crate::{
    stats::Traffic,
    trace::Side,
    upper::ConnId,
    wire::{
        ConnType,
        Proto, //
    }, //
};
use core::net::SocketAddr;
use kernel::sync::atomic::Relaxed;

impl Conn {
    /// The type, as this side sees it.
    pub(crate) fn kind(&self) -> ConnType {
        self.kind
    }

    /// Its ID: no other connection has it while this one exists.
    pub(crate) fn id(&self) -> ConnId {
        core::ptr::from_ref(self).addr()
    }

    /// The version of the protocol that it speaks.
    pub(crate) fn proto(&self) -> Proto {
        self.proto
    }

    /// Whether this node opened it, and not the peer.
    pub(crate) fn is_active(&self) -> bool {
        self.side == Side::Active
    }

    /// This side's address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The peer's address.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The peer's incarnation.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// When it was created, in monotonic milliseconds.
    pub(crate) fn born_ms(&self) -> u64 {
        self.born_ms
    }

    /// The processor of its scheduler.
    pub(crate) fn cpu(&self) -> u32 {
        self.sched.cpu()
    }

    /// What was sent and received on it.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Bytes queued in the driver.
    pub(crate) fn queued(&self) -> u64 {
        self.queued.load(Relaxed)
    }

    /// The most bytes that were queued in the driver at the same time. Thread context.
    pub(crate) fn queued_peak(&self) -> u64 {
        self.txq.lock().peak
    }

    /// How often its scheduler waited for room in the send buffer, and for memory.
    pub(crate) fn waits(&self) -> (u64, u64) {
        (self.full.get(), self.enomem.get())
    }

    /// Bytes queued in the driver and in TCP's send buffer.
    pub(crate) fn load(&self) -> u64 {
        self.queued().saturating_add(self.wmem.load(Relaxed))
    }

    /// Whether both have the same type and connect the same two addresses.
    pub(crate) fn is_duplicate_of(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.remote.ip() == other.remote.ip()
            && self.local.ip() == other.local.ip()
    }

    /// Send buffer, receive buffer and Nagle's algorithm of the socket. May sleep.
    pub(crate) fn socket_options(&self) -> Option<(usize, usize, bool)> {
        self.with_socket(|socket| (socket.sndbuf(), socket.rcvbuf(), !socket.nodelay()))
    }
}
