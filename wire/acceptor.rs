// SPDX-License-Identifier: GPL-2.0

//! The acceptor request: what the connecting node sends before its HELLO, to name the NID it connects to.
//!
//! Magic, version and the target's NID, in the sender's byte order. Version 1 has the NID's 64-bit
//! form; version 2, for NIDs that have none, the 20-byte form, which is in network order. The
//! acceptor answers only to refuse a version.
//!
//! Requests are plain values: nothing protects them and nothing has to be freed.

use super::{
    ByteOrder,
    Nid,
    Reader,
    WireError,
    Writer,
    ACCEPTOR_MAGIC, //
};

/// Bytes of an acceptor request of version 1, and of the refusal.
const REQUEST_LEN: usize = 16;

/// Bytes of the longest request, that of version 2.
pub(crate) const REQUEST_MAX: usize = 28;

/// With a NID of 64 bits.
const VERSION_1: u32 = 1;
/// With a NID of 20 bytes.
const VERSION_2: u32 = 2;

/// The answer to a request of an unknown version: the magic, the version that all nodes know, and no NID.
pub(crate) const ACCEPTOR_REFUSAL: [u8; REQUEST_LEN] =
    *b"\x00\x71\xce\xac\x01\0\0\0\0\0\0\0\0\0\0\0";

/// A request to be connected to `target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AcceptorRequest {
    /// The NID that the sender connects to; not necessarily one of this node.
    pub(crate) target: Nid,
}

impl AcceptorRequest {
    /// Bytes of a request of this version, or `None` if it is unknown.
    pub(super) fn len(version: u32) -> Option<usize> {
        match version {
            VERSION_1 => Some(REQUEST_LEN),
            VERSION_2 => Some(REQUEST_MAX),
            _ => None,
        }
    }

    /// Parses a request whose magic was checked before.
    ///
    /// # Errors
    ///
    /// - [`WireError::Version`] if it is of an unknown version.
    /// - [`WireError::Nid`] if the target is not a TCP host's NID.
    /// - [`WireError::Truncated`] if there are fewer bytes.
    pub(super) fn parse(bytes: &[u8], order: ByteOrder) -> Result<Self, WireError> {
        let mut from = Reader::new(bytes, order);
        let _magic = from.u32()?;
        let target = match from.u32()? {
            VERSION_1 => from.nid()?,
            VERSION_2 => from.long_nid()?,
            version => return Err(WireError::Version(version)),
        };
        Ok(Self { target })
    }

    /// Builds the bytes to send in `bytes`, and returns them: of version 1 if that can represent the target,
    /// because old acceptors know no other.
    ///
    /// # Errors
    ///
    /// [`WireError::Nid`] if the target's address is 0.
    pub(crate) fn build<'a>(
        &self,
        bytes: &'a mut [u8; REQUEST_MAX],
    ) -> Result<&'a [u8], WireError> {
        let mut to = Writer::new(bytes, ByteOrder::NATIVE);
        to.u32(ACCEPTOR_MAGIC)?;
        if self.target.addr().is_ipv4() {
            to.u32(VERSION_1)?;
            to.nid(self.target)?;
        } else {
            to.u32(VERSION_2)?;
            to.long_nid(self.target)?;
        }
        let len = REQUEST_MAX.saturating_sub(to.room.len());
        bytes.get(..len).ok_or(WireError::Truncated)
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_wire_acceptor))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    /// Captured from Lustre 2.17: a request for 192.168.77.2@tcp.
    const CAPTURED: [u8; REQUEST_LEN] = *b"\x00\x71\xce\xac\x01\0\0\0\x02\x4d\xa8\xc0\0\0\x02\0";

    /// The same from a big-endian machine.
    const BIG_ENDIAN: [u8; REQUEST_LEN] = *b"\xac\xce\x71\x00\0\0\0\x01\0\x02\0\0\xc0\xa8\x4d\x02";

    /// A request of version 2 for fd00::1@tcp7, written down from the description.
    const LONG: [u8; REQUEST_MAX] = *b"\x00\x71\xce\xac\x02\0\0\0\
        \x0c\x02\0\x07\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";

    /// The same from a big-endian machine: the NID's order is the same everywhere.
    const LONG_BIG_ENDIAN: [u8; REQUEST_MAX] = *b"\xac\xce\x71\x00\0\0\0\x02\
        \x0c\x02\0\x07\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";

    const LITTLE: ByteOrder = ByteOrder::Little;
    const BIG: ByteOrder = ByteOrder::Big;

    fn meaning() -> AcceptorRequest {
        AcceptorRequest {
            target: Nid::tcp(0, [192, 168, 77, 2]),
        }
    }

    fn long_meaning() -> AcceptorRequest {
        AcceptorRequest {
            target: Nid::tcp(7, [0xfd00u16, 0, 0, 0, 0, 0, 0, 1]),
        }
    }

    #[test]
    fn captured() {
        assert_eq!(AcceptorRequest::parse(&CAPTURED, LITTLE), Ok(meaning()));
        assert_eq!(AcceptorRequest::parse(&BIG_ENDIAN, BIG), Ok(meaning()));
        let mut bytes = [0xff; REQUEST_MAX];
        if ByteOrder::NATIVE == LITTLE {
            assert_eq!(meaning().build(&mut bytes), Ok(&CAPTURED[..]));
        } else {
            assert_eq!(meaning().build(&mut bytes), Ok(&BIG_ENDIAN[..]));
        }
    }

    #[test]
    fn long_nids() {
        assert_eq!(AcceptorRequest::parse(&LONG, LITTLE), Ok(long_meaning()));
        assert_eq!(
            AcceptorRequest::parse(&LONG_BIG_ENDIAN, BIG),
            Ok(long_meaning())
        );
        let mut bytes = [0xff; REQUEST_MAX];
        let long = match ByteOrder::NATIVE {
            ByteOrder::Little => LONG,
            ByteOrder::Big => LONG_BIG_ENDIAN,
        };
        assert_eq!(long_meaning().build(&mut bytes), Ok(&long[..]));
        // A NID of 20 bytes may be one that fits into 8.
        let mut short = LONG;
        short[8..].copy_from_slice(&meaning().target.to_bytes20());
        assert_eq!(AcceptorRequest::parse(&short, LITTLE), Ok(meaning()));
        for (at, byte) in [(8, 0), (8, 11), (8, 255), (9, 0), (9, 255)] {
            let mut bad = LONG;
            bad[at] = byte;
            assert_eq!(AcceptorRequest::parse(&bad, LITTLE), Err(WireError::Nid));
        }
    }

    #[test]
    fn bad_fields_are_refused() {
        let with = |at: usize, byte| {
            let mut bytes = CAPTURED;
            bytes[at] = byte;
            AcceptorRequest::parse(&bytes, LITTLE)
        };
        assert_eq!(with(4, 2), Err(WireError::Truncated));
        assert_eq!(with(4, 3), Err(WireError::Version(3)));
        assert_eq!(with(7, 1), Err(WireError::Version(0x0100_0001)));
        assert_eq!(with(14, 5), Err(WireError::NetType(5)));
        assert_eq!(
            AcceptorRequest::parse(&ACCEPTOR_REFUSAL, LITTLE),
            Err(WireError::Nid)
        );
        assert_eq!(
            AcceptorRequest::parse(&CAPTURED, BIG),
            Err(WireError::Version(0x0100_0000))
        );
        let mut bytes = [0; REQUEST_MAX];
        for nobody in [Nid::tcp(0, [0u8; 4]), Nid::tcp(0, [0u16; 8])] {
            let request = AcceptorRequest { target: nobody };
            assert_eq!(request.build(&mut bytes), Err(WireError::Nid));
        }
    }
}
