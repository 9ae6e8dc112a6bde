// SPDX-License-Identifier: GPL-2.0

//! Why a connection, or a handshake, can't go on: for the code an error number, and for administrators,
//! who look for it in the kernel's log, which field of what was received has which value.
//!
//! A plain value: whoever holds it owns it.

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

/// Why a NID that somebody claims is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It is of another network than the interface.
    Network,
    /// It is that of the interface.
    Own,
    /// Nothing could be sent to its address.
    LinkLocal,
    /// The claim comes neither from an address that is known to be its own, nor from the subnet of an
    /// interface in which the NID's own address is, too.
    Far,
    /// The claim does not come from an address that is known to be its own.
    Unknown,
}

impl Doubt {
    /// In words, for the kernel's log.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Network => "that is another network",
            Self::Own => "that is this node itself",
            Self::LinkLocal => "a link-local address names nobody",
            Self::Far => "check_nid=1, and not both are in the subnet of an interface here",
            Self::Unknown => "check_nid=2, and no route to it has this address",
        }
    }
}

/// Which bound a newcomer has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StrangerLimit {
    /// That for its source address.
    Source,
    /// That for all.
    Total,
}

impl StrangerLimit {
    /// The parameter that sets the bound.
    pub(crate) fn parameter(self) -> &'static str {
        match self {
            Self::Source => "max_strangers_per_source",
            Self::Total => "max_strangers",
        }
    }
}

/// Why it can't go on.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// Something failed; most of these are nobody's fault.
    Error(Error),
    /// What was received has a field that is not in the protocol.
    Wire(WireError),
    /// The connection is requested for this NID, which is another one than that of the address.
    Target(Nid),
    /// The HELLO is from the first NID, and for the second one, which is another one than ours.
    Dest(Nid, Nid),
    /// The HELLO is from this NID, and not from the one that was called.
    Source(Nid),
    /// The HELLO is from this NID, of which that is not believed.
    Claim(Nid, Doubt),
    /// This NID is a stranger's, of whom there are too many.
    StrangerLimit(Nid, StrangerLimit),
    /// The acceptor request has a version that is not spoken.
    AcceptorVersion,
    /// The HELLO has this magic and this version, which is not spoken.
    HelloVersion(u32, u32),
    /// The HELLO is from this NID, and of a version that the interface does not speak.
    Version(Nid, Proto),
    /// The answer is of this version, and not of the one that was tried.
    AnswerVersion(Proto),
    /// The answer gives the connection this type, which does not go with ours.
    ConnType(ConnType),
    /// The HELLO of the side that connects, this NID, has no type of connection.
    NoConnType(Nid),
    /// The end came in the middle of a message.
    Cut,
    /// A checksum in a version that has none.
    Unsummed(u32),
    /// The checksum that was sent, and that of what was received.
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

    /// Whether the other side has broken the protocol, or has said that it is who it can't be.
    pub(crate) fn is_breach(self) -> bool {
        match self {
            Self::Error(why) => why == EPROTO,
            Self::StrangerLimit(..) => false,
            _ => true,
        }
    }

    /// Whether a stranger for whose handshake this is the end was turned away, and has not left.
    pub(crate) fn is_refusal(self) -> bool {
        let by_us = [EBUSY, ETIMEDOUT, ENOMEM];
        self.is_breach() || by_us.contains(&self.errno())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Error(ETIMEDOUT) => f.write_str("its time is up"),
            Self::Error(EBUSY) => f.write_str("too many handshakes are under way"),
            Self::Error(ENOMEM) => f.write_str("no memory"),
            Self::Error(why) => write!(f, "{why:?}"),
            Self::Wire(why) => write!(f, "{why}"),
            Self::Target(nid) => write!(f, "its request is for {nid}"),
            Self::Dest(src, dest) => write!(f, "the HELLO of {src} is for {dest}"),
            Self::Source(nid) => write!(f, "the HELLO is from {nid}"),
            Self::Claim(nid, why) => write!(f, "it says that it is {nid}: {}", why.text()),
            Self::StrangerLimit(nid, limit) => {
                write!(f, "{nid} is one too many ({})", limit.parameter())
            }
            Self::AcceptorVersion => f.write_str("unknown version of its request"),
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
            Self::AnswerVersion(proto) => write!(f, "it answers in version {}", proto.number()),
            Self::ConnType(kind) => write!(f, "it answers with connection type {kind:?}"),
            Self::NoConnType(nid) => write!(f, "the HELLO of {nid} has connection type NONE"),
            Self::Cut => f.write_str("it ended in the middle of a message"),
            Self::Unsummed(csum) => write!(f, "checksum {csum:#010x} in a version that has none"),
            Self::Checksum(said, real) => {
                write!(f, "checksum {said:#010x} of what has {real:#010x}")
            }
        }
    }
}
