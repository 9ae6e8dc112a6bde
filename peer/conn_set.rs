// SPDX-License-Identifier: GPL-2.0

//! The connections of a peer, and all state that ends with the last of them.
//!
//! A peer has a [`ConnSet`] exactly while it has connections. The version of the protocol that they speak, the
//! peer's incarnation, the number of connections that it accepts, and acknowledgements that wait for a
//! connection are part of it, so they end with the last connection.
//!
//! Part of a peer, and protected with it by its lock. The list's references to connections are passed to the
//! reaper when these are taken out, so none is dropped under the lock.

use super::{
    conns_per_peer::Agreement,
    select_conn, //
};
use crate::{
    conn::Conn,
    tunables,
    tx::Tx,
    wire::{
        Acks,
        ConnType,
        ConnTypes,
        Fit,
        MsgClass,
        Proto, //
    }, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The connections of a peer, and state that is valid while it has any.
///
/// # Invariants
///
/// `conns` is not empty, except inside of [`ConnSet::take`], whose caller drops an empty set.
pub(super) struct ConnSet {
    conns: KVec<Arc<Conn>>,
    /// The peer's incarnation: it differs after a restart.
    incarnation: u64,
    /// The version of the protocol that all of its connections speak.
    proto: Proto,
    /// How many connections the peer accepts.
    pub(super) agreement: Agreement,
    /// Acknowledgements of the peer's messages that wait for a connection.
    pub(super) acks: Acks,
}

impl ConnSet {
    /// A set with `conn`. Any context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(conn: &Arc<Conn>) -> Result<Self> {
        let mut conns = KVec::with_capacity(1, GFP_ATOMIC)?;
        conns.push(conn.clone(), GFP_ATOMIC)?;
        // INVARIANT: There is one connection.
        Ok(Self {
            conns,
            incarnation: conn.incarnation(),
            proto: conn.proto(),
            agreement: Agreement::new(),
            acks: Acks::new(),
        })
    }

    /// Makes room for one connection more. Any context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn reserve(&mut self) -> Result {
        Ok(self.conns.reserve(1, GFP_ATOMIC)?)
    }

    /// Adds a connection, for which there is room.
    pub(super) fn push(&mut self, conn: &Arc<Conn>) {
        // It was reserved.
        let _ = self.conns.push_within_capacity(conn.clone());
    }

    /// Takes out a connection that matches.
    pub(super) fn take(&mut self, matching: impl Fn(&Arc<Conn>) -> bool) -> Option<Arc<Conn>> {
        let at = self.conns.iter().position(matching)?;
        self.conns.remove(at).ok()
    }

    /// Its connections.
    pub(super) fn conns(&self) -> &[Arc<Conn>] {
        &self.conns
    }

    /// The peer's incarnation.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The version of the protocol that its connections speak.
    pub(super) fn proto(&self) -> Proto {
        self.proto
    }

    /// Whether there is a connection that can carry messages. From version 3 on one for incoming bulk can't.
    pub(super) fn can_send(&self) -> bool {
        let fits = |kind| self.proto.fit(kind, MsgClass::Small) != Fit::No;
        self.conns.iter().any(|conn| fits(conn.kind()))
    }

    /// The connection for a message of this class.
    pub(super) fn choose_for(&self, class: MsgClass) -> Option<&Arc<Conn>> {
        let conns = self.conns.iter().map(|c| (c, c.kind(), c.load()));
        select_conn::choose(conns, self.proto, class)
    }

    /// The connection for a message.
    pub(super) fn choose(&self, tx: &Tx) -> Option<&Arc<Conn>> {
        let nob = self.proto.hdr_len().saturating_add(tx.payload_len());
        self.choose_for(if nob >= tunables::bulk_nob() {
            MsgClass::Bulk
        } else {
            MsgClass::Small
        })
    }

    /// The peer at `addr` has refused a connection.
    pub(super) fn note_refusal(&mut self, addr: IpAddr, types: ConnTypes) {
        let conns = &self.conns;
        let count = |kind| count_to(conns, addr, kind);
        self.agreement.note_refusal(types, count);
    }

    /// Connections of the same type as `conn` between the same two addresses.
    pub(super) fn duplicates_of<'a>(
        &'a self,
        conn: &'a Conn,
    ) -> impl Iterator<Item = &'a Arc<Conn>> {
        self.conns.iter().filter(move |c| c.is_duplicate_of(conn))
    }

    /// A connection to close in favour of `conn`, of which there would be one too many.
    ///
    /// The peer has opened `conn`, so it has probably lost its side of another one. But it may have sent its
    /// HELLO before that one was established, or want more connections than this node. So a connection that
    /// may still work is kept, and a keepalive message is sent on it: a peer that has lost it resets it.
    ///
    /// Nothing was received from the peer for `silent_ms`.
    pub(super) fn stale_duplicate(
        &self,
        conn: &Conn,
        now: u64,
        silent_ms: u64,
    ) -> Option<Arc<Conn>> {
        let settled_ms = tunables::handshake_timeout_ms();
        let oldest = self.duplicates_of(conn).min_by_key(|c| c.born_ms())?;
        if now.saturating_sub(oldest.born_ms()) <= settled_ms {
            return None;
        }
        if oldest.proto().has_pings() && (oldest.load() == 0 || silent_ms <= settled_ms) {
            for old in conns_to(&self.conns, conn.remote().ip()) {
                old.queue_ping();
            }
            return None;
        }
        Some(oldest.clone())
    }

    /// Whether an attempt of this node succeeded so recently that the peer may have sent its own HELLO before.
    pub(super) fn has_just_connected(&self, now: u64) -> bool {
        let fresh = |since: u64| now.saturating_sub(since) <= tunables::handshake_timeout_ms();
        self.conns
            .iter()
            .any(|c| c.is_active() && fresh(c.born_ms()))
    }
}

/// Those of `conns` that are to `addr`.
pub(super) fn conns_to(conns: &[Arc<Conn>], addr: IpAddr) -> impl Iterator<Item = &Arc<Conn>> {
    conns.iter().filter(move |c| c.remote().ip() == addr)
}

/// How many connections of type `kind` there are to `addr`.
pub(super) fn count_to(conns: &[Arc<Conn>], addr: IpAddr, kind: ConnType) -> usize {
    conns_to(conns, addr).filter(|c| c.kind() == kind).count()
}
