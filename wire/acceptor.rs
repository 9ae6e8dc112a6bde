// SPDX-License-Identifier: GPL-2.0

//! The acceptor request: what the connecting side sends before its HELLO, to say whom it wants.
//!
//! Version 1: magic, version and the target's NID in 64-bit form, in the sender's byte order. The
//! acceptor answers only to refuse a version.
//!
//! Requests are plain values: nothing protects them and nobody frees them.

use super::{
    Nid,
    Reader,
    WireError,
    Writer,
    ACCEPTOR_MAGIC, //
};

/// Bytes of an acceptor request of version 1, and of the refusal.
pub(super) const ACCEPTOR_LEN: usize = 16;

/// The only version so far.
pub(super) const ACCEPTOR_VERSION: u32 = 1;

/// Answer to a request of an unknown version: the magic, the version that we speak, and no NID.
pub(crate) const ACCEPTOR_REFUSAL: [u8; ACCEPTOR_LEN] =
    *b"\x00\x71\xce\xac\x01\0\0\0\0\0\0\0\0\0\0\0";

/// A request to be connected to `target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AcceptorRequest {
    /// Whom the sender means; not necessarily one of our NIDs.
    pub(crate) target: Nid,
}

impl AcceptorRequest {
    /// Reads a request, in either byte order.
    ///
    /// # Errors
    ///
    /// - [`WireError::Magic`] and [`WireError::Version`] if this is something else.
    /// - [`WireError::Nid`] if the target is not a TCP host's NID.
    pub(super) fn parse(bytes: &[u8; ACCEPTOR_LEN]) -> Result<Self, WireError> {
        let mut from = Reader(bytes);
        let magic = from.u32()?;
        let version = from.u32()?;
        let nid = from.u64()?;
        let (version, nid) = if magic == ACCEPTOR_MAGIC {
            (version, nid)
        } else if magic.swap_bytes() == ACCEPTOR_MAGIC {
            (version.swap_bytes(), nid.swap_bytes())
        } else {
            return Err(WireError::Magic(magic));
        };
        if version != ACCEPTOR_VERSION {
            return Err(WireError::Version(version));
        }
        Ok(Self {
            target: Nid::from_nid4(nid)?,
        })
    }

    /// Makes the bytes to send.
    ///
    /// # Errors
    ///
    /// [`WireError::Nid`] if the target has no 64-bit form.
    pub(crate) fn build(&self) -> Result<[u8; ACCEPTOR_LEN], WireError> {
        let mut bytes = [0; ACCEPTOR_LEN];
        let mut to = Writer(&mut bytes);
        to.u32(ACCEPTOR_MAGIC)?;
        to.u32(ACCEPTOR_VERSION)?;
        to.nid(self.target)?;
        Ok(bytes)
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_wire_acceptor))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    /// Captured from Lustre 2.17: a request for 192.168.77.2@tcp.
    const CAPTURED: [u8; ACCEPTOR_LEN] = *b"\x00\x71\xce\xac\x01\0\0\0\x02\x4d\xa8\xc0\0\0\x02\0";

    /// The same from a big-endian machine.
    const BIG_ENDIAN: [u8; ACCEPTOR_LEN] = *b"\xac\xce\x71\x00\0\0\0\x01\0\x02\0\0\xc0\xa8\x4d\x02";

    fn meaning() -> AcceptorRequest {
        AcceptorRequest {
            target: Nid::tcp(0, [192, 168, 77, 2]),
        }
    }

    #[test]
    fn captured() {
        assert_eq!(AcceptorRequest::parse(&CAPTURED), Ok(meaning()));
        assert_eq!(AcceptorRequest::parse(&BIG_ENDIAN), Ok(meaning()));
        assert_eq!(meaning().build(), Ok(CAPTURED));
    }

    #[test]
    fn bad_fields_are_refused() {
        let with = |at: usize, byte| {
            let mut bytes = CAPTURED;
            bytes[at] = byte;
            AcceptorRequest::parse(&bytes)
        };
        assert_eq!(with(0, 1), Err(WireError::Magic(0xacce_7101)));
        assert_eq!(with(4, 2), Err(WireError::Version(2)));
        assert_eq!(with(7, 1), Err(WireError::Version(0x0100_0001)));
        assert_eq!(with(14, 5), Err(WireError::Nid));
        assert_eq!(
            AcceptorRequest::parse(&ACCEPTOR_REFUSAL),
            Err(WireError::Nid)
        );
        // Magic in one byte order, the rest in the other.
        let mut mixed = BIG_ENDIAN;
        mixed[..4].copy_from_slice(&CAPTURED[..4]);
        assert_eq!(
            AcceptorRequest::parse(&mixed),
            Err(WireError::Version(0x0100_0000))
        );
    }
}
