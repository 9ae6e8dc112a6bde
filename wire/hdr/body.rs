// SPDX-License-Identifier: GPL-2.0

//! The part of an LNet header that depends on the type of the message.
//!
//! Plain values: nothing protects them and nothing has to be freed.

use super::{
    super::{
        Reader,
        WireError,
        Writer, //
    },
    MAX_PAYLOAD, //
};

pub(in super::super) const TYPE_ACK: u32 = 0;
pub(super) const TYPE_PUT: u32 = 1;
pub(super) const TYPE_GET: u32 = 2;
pub(in super::super) const TYPE_REPLY: u32 = 3;

/// The handle of a memory descriptor at the node that has it; opaque to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireHandle {
    /// Incarnation of the NI that the object belongs to.
    pub(crate) interface_cookie: u64,
    /// The object.
    pub(crate) object: u64,
}

impl WireHandle {
    /// No object: in a PUT, no ACK is wanted.
    pub(crate) const NONE: Self = Self {
        interface_cookie: u64::MAX,
        object: u64::MAX,
    };
}

/// The type of a message, with the fields of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// A PUT has arrived.
    Ack {
        /// The `ack_wmd` of the PUT.
        dst_wmd: WireHandle,
        /// The match bits of the PUT.
        match_bits: u64,
        /// Bytes of the PUT that were kept.
        mlength: u32,
    },
    /// The payload is to be stored at the target.
    Put {
        /// For the ACK; [`WireHandle::NONE`] if none is wanted.
        ack_wmd: WireHandle,
        /// The match bits, which select the memory at the target.
        match_bits: u64,
        /// For the receiver's event; opaque.
        hdr_data: u64,
        /// Portal index at the target.
        portal: u32,
        /// Byte offset in the memory of the target.
        offset: u32,
    },
    /// Memory of the target is to be sent back.
    Get {
        /// For the REPLY.
        return_wmd: WireHandle,
        /// The match bits, which select the memory at the target.
        match_bits: u64,
        /// Portal index at the target.
        portal: u32,
        /// Byte offset in the memory of the target.
        src_offset: u32,
        /// Bytes that the sender has room for.
        sink_len: u32,
    },
    /// The payload is what a GET asked for.
    Reply {
        /// The `return_wmd` of the GET.
        dst_wmd: WireHandle,
    },
}

impl Body {
    /// Checks that a message of this type can have a payload of `len` bytes.
    pub(super) fn check_payload(&self, len: u32) -> Result<(), WireError> {
        let max = match self {
            Self::Ack { .. } | Self::Get { .. } => 0,
            Self::Put { .. } | Self::Reply { .. } => MAX_PAYLOAD,
        };
        if len > max {
            return Err(WireError::Length(len));
        }
        Ok(())
    }

    /// The type's number.
    #[inline]
    pub(super) fn number(&self) -> u32 {
        match self {
            Self::Ack { .. } => TYPE_ACK,
            Self::Put { .. } => TYPE_PUT,
            Self::Get { .. } => TYPE_GET,
            Self::Reply { .. } => TYPE_REPLY,
        }
    }

    /// Reads the fields of a message of type `kind`.
    ///
    /// # Errors
    ///
    /// - [`WireError::Type`] if the type is unknown.
    /// - [`WireError::Truncated`] if there are fewer bytes.
    #[inline]
    pub(super) fn parse(kind: u32, from: &mut Reader<'_>) -> Result<Self, WireError> {
        let wmd = WireHandle {
            interface_cookie: from.u64()?,
            object: from.u64()?,
        };
        Ok(match kind {
            TYPE_ACK => Self::Ack {
                dst_wmd: wmd,
                match_bits: from.u64()?,
                mlength: from.u32()?,
            },
            TYPE_PUT => Self::Put {
                ack_wmd: wmd,
                match_bits: from.u64()?,
                hdr_data: from.u64()?,
                portal: from.u32()?,
                offset: from.u32()?,
            },
            TYPE_GET => Self::Get {
                return_wmd: wmd,
                match_bits: from.u64()?,
                portal: from.u32()?,
                src_offset: from.u32()?,
                sink_len: from.u32()?,
            },
            TYPE_REPLY => Self::Reply { dst_wmd: wmd },
            _ => return Err(WireError::Type(kind)),
        })
    }

    /// Writes the fields.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`] if there is no room.
    #[inline]
    pub(super) fn build(&self, mut to: Writer<'_>) -> Result<(), WireError> {
        let (Self::Ack { dst_wmd: wmd, .. }
        | Self::Put { ack_wmd: wmd, .. }
        | Self::Get {
            return_wmd: wmd, ..
        }
        | Self::Reply { dst_wmd: wmd }) = self;
        to.u64(wmd.interface_cookie)?;
        to.u64(wmd.object)?;
        match *self {
            Self::Ack {
                match_bits,
                mlength,
                ..
            } => {
                to.u64(match_bits)?;
                to.u32(mlength)?;
            }
            Self::Put {
                match_bits,
                hdr_data,
                portal,
                offset,
                ..
            } => {
                to.u64(match_bits)?;
                to.u64(hdr_data)?;
                to.u32(portal)?;
                to.u32(offset)?;
            }
            Self::Get {
                match_bits,
                portal,
                src_offset,
                sink_len,
                ..
            } => {
                to.u64(match_bits)?;
                to.u32(portal)?;
                to.u32(src_offset)?;
                to.u32(sink_len)?;
            }
            Self::Reply { .. } => {}
        }
        Ok(())
    }
}
