// SPDX-License-Identifier: GPL-2.0

//! Why a connection or a handshake ends: an error number for the code, and for the kernel log the field that
//! was wrong, with its value.
//!
//! A plain value, owned by its holder.

use crate::{
    upper::{
        Failure,
        Health, //
    },
    wire::{
        ConnType,
        Nid,
        Proto,
        WireError, //
    }, //
};
use kernel::{
    fmt,
    prelude::*, //
};

/// Why the NID in a HELLO is not accepted as the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It is on another network than the NI.
    Network,
    /// It is the NID of the NI itself.
    Own,
    /// Its address is link-local, so nothing could be sent to it.
    LinkLocal,
    /// The connection comes neither from an address that is known to be this node's, nor from a subnet of an
    /// interface that the NID's own address is in as well.
    Far,
    /// The connection does not come from an address that is known to be this node's.
    Unknown,
}

impl Doubt {
    /// In words, for the kernel's log.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Network => "that is another network",
            Self::Own => "that is this node itself",
            Self::LinkLocal => "a link-local address does not identify a node",
            Self::Far => {
                "check_nid=1, and its NID and address share no subnet with an interface here"
            }
            Self::Unknown => "check_nid=2, and no route to it has this address",
        }
    }
}

/// The limit on strangers' connections that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StrangerLimit {
    /// The limit for one source address.
    Source,
    /// The limit for all.
    Total,
}

impl StrangerLimit {
    /// The module parameter that sets the limit.
    pub(crate) fn parameter(self) -> &'static str {
        match self {
            Self::Source => "max_strangers_per_source",
            Self::Total => "max_strangers",
        }
    }
}

/// Why a connection or a handshake ends.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// An operation failed; this is not a violation of the protocol, unless it is `EPROTO`.
    Error(Error),
    /// A received field has a value that the protocol does not have.
    Wire(WireError),
    /// The acceptor request is for this NID, which no NI at the address has.
    Target(Nid),
    /// The HELLO is from the first NID, and for the second, which is not this node's.
    Dest(Nid, Nid),
    /// The HELLO is from this NID, and not from the one to which this node connected.
    Source(Nid),
    /// The HELLO is from this NID, which is not accepted as the sender's.
    Claim(Nid, Doubt),
    /// This NID is a stranger's, and the limit on these is reached.
    StrangerLimit(Nid, StrangerLimit),
    /// The acceptor request has an unknown version.
    AcceptorVersion,
    /// The HELLO has this magic and this version, which is unknown or not spoken here.
    HelloVersion(u32, u32),
    /// The HELLO from this NID has a version that the NI does not speak.
    Version(Nid, Proto),
    /// The peer's HELLO has this version, and not that of ours.
    AnswerVersion(Proto),
    /// The peer's HELLO gives the connection this type, which does not match ours.
    ConnType(ConnType),
    /// The HELLO of this NID, which has connected, has no connection type.
    NoConnType(Nid),
    /// The stream ended in the middle of a message.
    Cut,
    /// A checksum in a version of the protocol that has none.
    UnexpectedChecksum(u32),
    /// The checksum in the message, and the checksum of the received bytes.
    Checksum(u32, u32),
}

impl From<Error> for Reason {
    fn from(why: Error) -> Self {
        Self::Error(why)
    }
}

impl From<WireError> for Reason {
    fn from(why: WireError) -> Self {
        Self::Wire(why)
    }
}

impl Reason {
    /// The error number for it.
    pub(crate) fn errno(self) -> Error {
        match self {
            Self::Error(why) => why,
            Self::Claim(..) => EACCES,
            Self::StrangerLimit(..) => EBUSY,
            _ => EPROTO,
        }
    }

    /// The failure of what a connection that had begun was to send.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Error(why) => Failure::of_socket(why),
            _ => Failure::new(self.errno(), Health::RemoteError),
        }
    }

    /// The failure of what a connection that did not come to be was to send.
    pub(crate) fn connect_failure(self) -> Failure {
        match self {
            Self::Error(why) => Failure::connecting(why),
            _ => Failure::new(self.errno(), Health::RemoteError),
        }
    }

    /// Whether the other node has violated the protocol, or has claimed a NID that is not accepted.
    pub(crate) fn is_breach(self) -> bool {
        match self {
            Self::Error(why) => why == EPROTO,
            Self::StrangerLimit(..) => false,
            _ => true,
        }
    }

    /// Whether this node has refused the connection, if this is the end of a passive handshake.
    pub(crate) fn is_refusal(self) -> bool {
        let by_us = [EBUSY, ETIMEDOUT, ENOMEM];
        self.is_breach() || by_us.contains(&self.errno())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Error(ETIMEDOUT) => f.write_str("timed out"),
            Self::Error(EBUSY) => f.write_str("too many handshakes under way"),
            Self::Error(ENOMEM) => f.write_str("out of memory"),
            Self::Error(why) => write!(f, "{why:?}"),
            Self::Wire(why) => write!(f, "{why}"),
            Self::Target(nid) => write!(f, "its acceptor request is for {nid}"),
            Self::Dest(src, dest) => write!(f, "the HELLO of {src} is for {dest}"),
            Self::Source(nid) => write!(f, "the HELLO is from {nid}"),
            Self::Claim(nid, why) => write!(f, "it claims the NID {nid}: {}", why.text()),
            Self::StrangerLimit(nid, limit) => {
                write!(
                    f,
                    "too many connections of strangers, with {nid} ({})",
                    limit.parameter()
                )
            }
            Self::AcceptorVersion => f.write_str("its acceptor request has an unknown version"),
            Self::HelloVersion(magic, version) => {
                write!(
                    f,
                    "its HELLO has version {version:#x} (magic {magic:#010x})"
                )
            }
            Self::Version(nid, proto) => {
                let version = proto.number();
                write!(f, "the HELLO of {nid} has version {version}")
            }
            Self::AnswerVersion(proto) => write!(f, "its HELLO has version {}", proto.number()),
            Self::ConnType(kind) => write!(f, "its HELLO has connection type {kind:?}"),
            Self::NoConnType(nid) => write!(f, "the HELLO of {nid} has connection type NONE"),
            Self::Cut => f.write_str("the stream ended in the middle of a message"),
            Self::UnexpectedChecksum(csum) => {
                write!(f, "checksum {csum:#010x} in a version without checksums")
            }
            Self::Checksum(said, real) => {
                write!(f, "checksum {said:#010x}, but the message has {real:#010x}")
            }
        }
    }
}
