// SPDX-License-Identifier: GPL-2.0

//! How messages end, and whose fault it is if they fail.
//!
//! Plain values, which need no protection.

use kernel::prelude::*;

/// Whose fault it is that a message has failed. The names are those of LNet's `enum lnet_msg_hstatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// This node has dropped it: its NI was shut down, or an administrator has closed the
    /// connection.
    LocalDropped,
    /// Nothing leads from this node to the peer.
    LocalNoRoute,
    /// This node could not do it, by want of memory for example.
    LocalError,
    /// This node did not come to it in time.
    LocalTimeout,
    /// The peer could not be reached, or has closed the connection.
    RemoteDropped,
    /// The peer has broken the protocol, or has ended in the middle of a message.
    RemoteError,
    /// The peer has not sent all of a message in time.
    RemoteTimeout,
    /// A message did not reach the peer in time: it may be the peer, or what is between.
    NetworkTimeout,
}

/// Why a message has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The error.
    pub(crate) error: Error,
    /// Whose fault it is.
    pub(crate) health: Health,
}

/// How a message has ended.
pub(crate) type Status = core::result::Result<(), Failure>;

impl Failure {
    /// A failure with this error and this health.
    pub(crate) const fn new(error: Error, health: Health) -> Self {
        Self { error, health }
    }

    /// Something here could not do it.
    pub(crate) const fn local(error: Error) -> Self {
        Self::new(error, Health::LocalError)
    }

    /// This node does not want it any more: an NI or a peer goes, or an administrator said so.
    pub(crate) const fn dropped() -> Self {
        Self::new(ESHUTDOWN, Health::LocalDropped)
    }

    /// The peer does not know the connection any more: it was started anew.
    pub(crate) const fn restarted() -> Self {
        Self::new(ESTALE, Health::RemoteDropped)
    }

    /// Of a socket that was connected.
    pub(crate) fn of_socket(error: Error) -> Self {
        let health = match error {
            ETIMEDOUT => Health::NetworkTimeout,
            ECONNREFUSED | ECONNRESET | EHOSTUNREACH | ENETDOWN | ENETUNREACH | EPIPE => {
                Health::RemoteDropped
            }
            EPROTO => Health::RemoteError,
            _ => Health::LocalError,
        };
        Self::new(error, health)
    }

    /// Of a socket that was to be connected, or of what has to be said before messages can be sent.
    pub(crate) fn connecting(error: Error) -> Self {
        let health = match error {
            ESHUTDOWN => Health::LocalDropped,
            ETIMEDOUT => Health::NetworkTimeout,
            // No address here, or nothing leads away from it.
            ENETDOWN | ENETUNREACH | EADDRNOTAVAIL => Health::LocalNoRoute,
            ECONNREFUSED | ECONNRESET | EHOSTUNREACH | EPIPE => Health::RemoteDropped,
            EPROTO => Health::RemoteError,
            _ => Health::LocalError,
        };
        Self::new(error, health)
    }

    /// The same failure, for a message that was being received and did not arrive completely.
    pub(crate) fn receiving(self) -> Self {
        let health = match self.health {
            Health::RemoteDropped => Health::RemoteError,
            Health::NetworkTimeout => Health::RemoteTimeout,
            other => other,
        };
        Self::new(self.error, health)
    }
}
