// SPDX-License-Identifier: GPL-2.0

//! How an interface is to be, and how it is.
//!
//! Plain values: nothing protects them and nobody frees them.

/// What a message layer wants of an interface. What it leaves open is as the driver's parameters, or the
/// driver itself, say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NiTunables {
    /// Connections for bulk to each peer, each way; 0 is as many as the link is fast.
    pub(crate) conns_per_peer: Option<u32>,
    /// The type of service of packets.
    pub(crate) tos: Option<u8>,
    /// Messages that are under way at most.
    pub(crate) credits: Option<u32>,
    /// Messages that are under way to one peer at most.
    pub(crate) peer_credits: Option<u32>,
    /// Of messages of one peer that are to be passed on, those that have a buffer at most; 0 leaves it to
    /// the message layer.
    pub(crate) peer_router_credits: Option<u32>,
    /// Seconds of silence after which the message layer asks a gateway whether it is there.
    pub(crate) peer_timeout_s: Option<u32>,
}

/// How an interface is. All but the first two are for the message layer: the driver bounds nothing by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NiSettings {
    /// As in [`NiTunables`]; at least 1.
    pub(crate) conns_per_peer: u32,
    /// As in [`NiTunables`]; `None` leaves it to the kernel.
    pub(crate) tos: Option<u8>,
    /// As in [`NiTunables`]; at least 1.
    pub(crate) credits: u32,
    /// As in [`NiTunables`]; at least 1, at most `credits`.
    pub(crate) peer_credits: u32,
    /// As in [`NiTunables`].
    pub(crate) peer_router_credits: u32,
    /// As in [`NiTunables`].
    pub(crate) peer_timeout_s: u32,
}

impl NiTunables {
    /// What the C driver's parameters of these names are by default.
    const CREDITS: u32 = 256;
    const PEER_CREDITS: u32 = 8;
    const PEER_ROUTER_CREDITS: u32 = 0;
    const PEER_TIMEOUT_S: u32 = 180;

    /// With what is left open filled in; `conns_per_peer` and `tos` are what the driver has made of these.
    pub(crate) fn filled(&self, conns_per_peer: u32, tos: Option<u8>) -> NiSettings {
        let credits = self.credits.unwrap_or(Self::CREDITS).max(1);
        let peer_credits = self.peer_credits.unwrap_or(Self::PEER_CREDITS);
        NiSettings {
            conns_per_peer: conns_per_peer.max(1),
            tos,
            credits,
            peer_credits: peer_credits.clamp(1, credits),
            peer_router_credits: self
                .peer_router_credits
                .unwrap_or(Self::PEER_ROUTER_CREDITS),
            peer_timeout_s: self.peer_timeout_s.unwrap_or(Self::PEER_TIMEOUT_S),
        }
    }
}
