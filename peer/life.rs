// SPDX-License-Identifier: GPL-2.0

//! A peer's connected life: what holds from its first connection to its last.
//!
//! A peer has a [`Life`] exactly while it has connections. Which version they speak, which start of
//! the node they belong to, how many there are to be, and the acknowledgements that none of them could
//! carry yet are part of it; so all of that ends with the last connection, whichever way that goes.
//!
//! Part of a peer, and protected with it by its lock. The connections' references in the list are
//! given to the reaper when they are taken out, so that none is dropped under the lock.

use super::{
    conns_per_peer::Agreement, //
    select_conn,
};
use crate::{
    conn::Conn,
    tunables,
    tx::Tx,
    wire::{
        Acks,
        ConnType,
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

/// What holds as long as the peer has connections.
///
/// # Invariants
///
/// `conns` is not empty, except inside of [`Life::take`], whose caller drops a life without any.
pub(super) struct Life {
    conns: KVec<Arc<Conn>>,
    /// Tells this start of the peer's node from others.
    incarnation: u64,
    /// The version of the protocol that all of its connections speak.
    proto: Proto,
    /// How many connections the peer takes.
    pub(super) agreement: Agreement,
    /// Of the peer's messages that have arrived, those that no connection could tell it of yet.
    pub(super) acks: Acks,
}

impl Life {
    /// A life that begins with `conn`. Any context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn begin(conn: &Arc<Conn>) -> Result<Self> {
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

    /// Adds a connection of this life, for which there is room.
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

    /// Which start of the peer's node it belongs to.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The version of the protocol that its connections speak.
    pub(super) fn proto(&self) -> Proto {
        self.proto
    }

    /// Whether there is a connection that can carry messages. In later versions the one for bulk that
    /// comes in can't.
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

    /// The peer, at `addr`, has refused one connection more.
    pub(super) fn refused(&mut self, addr: IpAddr, is_typed: bool) {
        let conns = &self.conns;
        let count = |kind| count_to(conns, addr, kind);
        self.agreement.refused(is_typed, count);
    }

    /// Connections between the same two addresses as `conn`, for the same purpose.
    pub(super) fn twins_of<'a>(&'a self, conn: &'a Conn) -> impl Iterator<Item = &'a Arc<Conn>> {
        self.conns.iter().filter(move |c| c.is_twin_of(conn))
    }

    /// Of several connections like `conn`, which is one more than there may be, one of which the peer
    /// has lost its side: it would not connect again if it knew of it. Unless it sent this HELLO
    /// before that one stood, or wants more connections than this node; so what is still of use is
    /// not given up, but tried: a peer that has lost it says so.
    ///
    /// Nothing was heard of the peer for `silent_ms`.
    pub(super) fn stale_duplicate(
        &self,
        conn: &Conn,
        now: u64,
        silent_ms: u64,
    ) -> Option<Arc<Conn>> {
        let settled_ms = tunables::handshake_timeout_ms();
        let oldest = self.twins_of(conn).min_by_key(|c| c.born_ms())?;
        if now.saturating_sub(oldest.born_ms()) <= settled_ms {
            return None;
        }
        if oldest.proto().has_pings() && (oldest.load() == 0 || silent_ms <= settled_ms) {
            let addr = conn.remote().ip();
            for old in self.conns.iter().filter(|c| c.remote().ip() == addr) {
                old.queue_ping();
            }
            return None;
        }
        Some(oldest.clone())
    }

    /// Whether an attempt of ours has succeeded so lately that one of the peer's may have crossed it.
    pub(super) fn has_just_connected(&self, now: u64) -> bool {
        let fresh = |since: u64| now.saturating_sub(since) <= tunables::handshake_timeout_ms();
        self.conns
            .iter()
            .any(|c| c.is_active() && fresh(c.born_ms()))
    }
}

/// How many connections of type `kind` there are to `addr`.
pub(super) fn count_to(conns: &[Arc<Conn>], addr: IpAddr, kind: ConnType) -> usize {
    let there = conns.iter().filter(|c| c.remote().ip() == addr);
    there.filter(|c| c.kind() == kind).count()
}
