// SPDX-License-Identifier: GPL-2.0

//! The message header (`struct ksock_msg_hdr`): 24 bytes in front of each message after a HELLO of version 2
//! or later.
//!
//! In the byte order of the sender's HELLO. It is followed by an LNet header with its payload, or, in a
//! NOOP, by nothing.
//!
//! ```text
//!  0 type        8 first cookie
//!  4 checksum   16 second cookie
//! ```
//!
//! Cookies identify zero-copy messages, whose sender keeps the pages until the receiver has acknowledged
//! them. The first cookie of an LNet message requests an acknowledgement; the second cookie of any message
//! is an acknowledgement. The meaning of two cookies in a NOOP depends on the version: see
//! [`super::Acks`].
//!
//! Headers are plain values: nothing protects them and nothing has to be freed.

use super::{
    ByteOrder,
    Reader,
    WireError,
    Writer, //
};

/// Bytes of the header.
pub(crate) const MSG_LEN: usize = 24;

/// The second cookie of a NOOP that is a keepalive message, and no acknowledgement. No message has this
/// cookie.
pub(crate) const COOKIE_PING: u64 = 1;

const TYPE_NOOP: u32 = 0xc0;
const TYPE_LNET: u32 = 0xc1;

/// What follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MsgKind {
    /// Nothing.
    Noop,
    /// An LNet header.
    Lnet,
}

/// The checksum of a message that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// None.
    None,
    /// Of the header and all that follows.
    Crc32,
}

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Msg {
    /// What follows.
    pub(crate) kind: MsgKind,
    /// The checksum of this header, with 0 in this field, and of all that follows; 0 is none.
    pub(crate) csum: u32,
    /// See above; 0 is none.
    pub(crate) cookies: [u64; 2],
}

impl Msg {
    /// A header without cookies and checksum.
    pub(crate) const fn new(kind: MsgKind) -> Self {
        Self {
            kind,
            csum: 0,
            cookies: [0; 2],
        }
    }

    /// Parses a received header.
    ///
    /// # Errors
    ///
    /// [`WireError::Type`] if the type is unknown: then it is unknown where the next one starts.
    #[inline]
    pub(crate) fn parse(bytes: &[u8; MSG_LEN], order: ByteOrder) -> Result<Self, WireError> {
        let mut from = Reader::new(bytes, order);
        let kind = match from.u32()? {
            TYPE_NOOP => MsgKind::Noop,
            TYPE_LNET => MsgKind::Lnet,
            other => return Err(WireError::Type(other)),
        };
        Ok(Self {
            kind,
            csum: from.u32()?,
            cookies: [from.u64()?, from.u64()?],
        })
    }

    /// Builds the bytes to send.
    #[inline]
    pub(crate) fn build(&self, order: ByteOrder) -> Result<[u8; MSG_LEN], WireError> {
        let mut bytes = [0; MSG_LEN];
        let mut to = Writer::new(&mut bytes, order);
        to.u32(match self.kind {
            MsgKind::Noop => TYPE_NOOP,
            MsgKind::Lnet => TYPE_LNET,
        })?;
        to.u32(self.csum)?;
        for cookie in self.cookies {
            to.u64(cookie)?;
        }
        Ok(bytes)
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_wire_msg))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    /// Captured from Lustre 2.17: in front of a ping, of a 1 MiB REPLY, and its acknowledgement.
    const CAPTURED: [[u8; MSG_LEN]; 3] = [
        *b"\xc1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        *b"\xc1\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        *b"\xc0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
    ];

    const MEANING: [Msg; 3] = [
        Msg::new(MsgKind::Lnet),
        Msg {
            cookies: [2, 0],
            ..Msg::new(MsgKind::Lnet)
        },
        Msg {
            cookies: [0, 2],
            ..Msg::new(MsgKind::Noop)
        },
    ];

    #[test]
    fn captured() {
        for (bytes, msg) in CAPTURED.iter().zip(MEANING) {
            assert_eq!(Msg::parse(bytes, ByteOrder::Little), Ok(msg));
            assert_eq!(msg.build(ByteOrder::Little), Ok(*bytes));
        }
    }

    #[test]
    fn fields_are_where_they_belong() {
        let little = *b"\xc0\0\0\0\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\
                        \x10\x11\x12\x13\x14\x15\x16\x17";
        let big = *b"\0\0\0\xc0\x07\x06\x05\x04\x0f\x0e\x0d\x0c\x0b\x0a\x09\x08\
                     \x17\x16\x15\x14\x13\x12\x11\x10";
        let msg = Msg {
            kind: MsgKind::Noop,
            csum: 0x0706_0504,
            cookies: [0x0f0e_0d0c_0b0a_0908, 0x1716_1514_1312_1110],
        };
        for (bytes, order) in [(little, ByteOrder::Little), (big, ByteOrder::Big)] {
            assert_eq!(Msg::parse(&bytes, order), Ok(msg));
            assert_eq!(msg.build(order), Ok(bytes));
        }
    }

    #[test]
    fn unknown_types_are_refused() {
        for kind in [0, 1, 0xbf, 0xc2, 0xc100, 0xc000_0000, u32::MAX] {
            let mut bytes = CAPTURED[0];
            bytes[..4].copy_from_slice(&kind.to_le_bytes());
            let refused = Err(WireError::Type(kind));
            assert_eq!(Msg::parse(&bytes, ByteOrder::Little), refused);
        }
        // The right one in the wrong order.
        let swapped = Err(WireError::Type(0xc100_0000));
        assert_eq!(Msg::parse(&CAPTURED[0], ByteOrder::Big), swapped);
    }
}
