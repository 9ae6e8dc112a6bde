// SPDX-License-Identifier: GPL-2.0

//! How many objects of an NI there are. Gauges have their own protection.

use crate::stats::Gauge;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// How many objects of an NI are alive.
pub(crate) struct Live {
    pub(super) peers: Arc<Gauge>,
    pub(super) conns: Arc<Gauge>,
    pub(super) handshakes: Arc<Gauge>,
    pub(super) txs: Arc<Gauge>,
}

impl Live {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            peers: Gauge::new()?,
            conns: Gauge::new()?,
            handshakes: Gauge::new()?,
            txs: Gauge::new()?,
        })
    }

    /// Peers, unlinked ones included.
    pub(crate) fn peers(&self) -> &Arc<Gauge> {
        &self.peers
    }

    /// Connections, those included whose sockets the reaper has yet to close.
    pub(crate) fn conns(&self) -> &Arc<Gauge> {
        &self.conns
    }

    /// Handshakes.
    pub(crate) fn handshakes(&self) -> &Arc<Gauge> {
        &self.handshakes
    }

    /// Transmits.
    pub(crate) fn txs(&self) -> &Arc<Gauge> {
        &self.txs
    }
}
