// SPDX-License-Identifier: GPL-2.0

//! LNet headers as bytes, of messages that the message layer has built itself or forwards.
//!
//! Such a message may be from or to a network of another type, whose NIDs this module can't interpret. A
//! [`RawHeader`] keeps all fields of both forms on the wire unchanged.
//!
//! A plain value: nothing protects it and nothing has to be freed.

use super::{
    hdr::{
        TYPE_ACK,
        TYPE_REPLY, //
    },
    Header,
    Nid,
    Proto,
    WireError,
    HEADER_LEN,
    LONG_HEADER_LEN, //
};

/// Bytes of the two NIDs in the short form.
const SHORT_NIDS: usize = 16;
/// Bytes of the two NIDs in the long form.
const LONG_NIDS: usize = 40;

/// A header in the form with NIDs of 20 bytes.
///
/// # Invariants
///
/// [`Header::parse_long`] takes it, or says that it is [`WireError::Foreign`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawHeader([u8; LONG_HEADER_LEN]);

/// A NID of 8 bytes in the form of 20.
fn lengthen(nid: [u8; 8]) -> [u8; 20] {
    let [a0, a1, a2, a3, net0, net1, kind, _] = nid;
    let mut long = [0; 20];
    let head = [0, kind, net1, net0, a3, a2, a1, a0];
    for (to, from) in long.iter_mut().zip(head) {
        *to = from;
    }
    long
}

/// A NID of 20 bytes in the form of 8, if it has one.
fn shorten(nid: [u8; 20]) -> Option<[u8; 8]> {
    let [0, kind, net1, net0, a3, a2, a1, a0, rest @ ..] = nid else {
        return None;
    };
    (rest == [0; 12]).then_some([a0, a1, a2, a3, net0, net1, kind, 0])
}

impl RawHeader {
    /// Checks and copies a header with NIDs of 20 bytes.
    ///
    /// # Errors
    ///
    /// Those of [`Header::parse_long`] but [`WireError::Foreign`].
    pub(crate) fn from_long(bytes: &[u8; LONG_HEADER_LEN]) -> Result<Self, WireError> {
        match Header::parse_long(bytes) {
            // INVARIANT: Just checked.
            Ok(_) | Err(WireError::Foreign(_)) => Ok(Self(*bytes)),
            Err(e) => Err(e),
        }
    }

    /// Checks and converts a header with NIDs of 8 bytes.
    ///
    /// # Errors
    ///
    /// As [`RawHeader::from_long`].
    pub(crate) fn from_short(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let (nids, rest) = bytes.split_at(SHORT_NIDS);
        let (dest, src) = nids.split_first_chunk().ok_or(WireError::Truncated)?;
        let src = src.first_chunk().ok_or(WireError::Truncated)?;
        let mut long = [0; LONG_HEADER_LEN];
        let parts = lengthen(*dest).into_iter().chain(lengthen(*src));
        for (to, from) in long.iter_mut().zip(parts.chain(rest.iter().copied())) {
            *to = from;
        }
        Self::from_long(&long)
    }

    /// Builds the bytes of a parsed header.
    ///
    /// # Errors
    ///
    /// Those of [`Header::build_long`].
    pub(crate) fn from_header(header: &Header) -> Result<Self, WireError> {
        Self::from_long(&header.build_long()?)
    }

    /// The bytes, with NIDs of 20 bytes.
    pub(crate) fn as_long(&self) -> &[u8; LONG_HEADER_LEN] {
        &self.0
    }

    /// The form with NIDs of 8 bytes, if both have it.
    pub(crate) fn to_short(self) -> Option<[u8; HEADER_LEN]> {
        let (dest, rest) = self.0.split_first_chunk()?;
        let (src, rest) = rest.split_first_chunk()?;
        let parts = shorten(*dest)?.into_iter().chain(shorten(*src)?);
        let mut short = [0; HEADER_LEN];
        for (to, from) in short.iter_mut().zip(parts.chain(rest.iter().copied())) {
            *to = from;
        }
        Some(short)
    }

    /// Parses it.
    ///
    /// # Errors
    ///
    /// [`WireError::Foreign`].
    pub(crate) fn parse(&self) -> Result<Header, WireError> {
        Header::parse_long(&self.0)
    }

    /// The 32-bit field at `offset` behind the NIDs.
    fn field(&self, offset: usize) -> u32 {
        let bytes = self.0.get(LONG_NIDS.wrapping_add(offset)..);
        bytes
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// The sender, as the header claims, if it is a TCP NID.
    pub(crate) fn src(&self) -> Option<Nid> {
        let (_, rest) = self.0.split_first_chunk::<20>()?;
        Nid::from_bytes20(rest.first_chunk()?).ok()
    }

    /// Whether it is an ACK or a REPLY.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self.field(8), TYPE_ACK | TYPE_REPLY)
    }

    /// Bytes that follow the header.
    pub(crate) fn payload_len(&self) -> u32 {
        self.field(12)
    }

    /// The oldest version that can represent it.
    pub(crate) fn oldest_proto(&self) -> Proto {
        match self.to_short() {
            Some(_) => Proto::V1,
            None => Proto::V4,
        }
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_wire_raw))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::{
        super::{
            Body,
            End,
            Foreign,
            WireHandle,
            PID_LUSTRE, //
        },
        *, //
    };

    fn header(kind: impl Fn(u32) -> Body) -> Header {
        Header {
            dest: Nid::tcp(7, [10, 0, 0, 2]),
            src: Nid::tcp(0x1234, [192, 168, 77, 1]),
            dest_pid: PID_LUSTRE,
            src_pid: 4,
            payload_len: 0x1234,
            body: kind(1),
        }
    }

    fn put(portal: u32) -> Body {
        Body::Put {
            ack_wmd: WireHandle::NONE,
            match_bits: 0x0102_0304_0506_0708,
            hdr_data: 5,
            portal,
            offset: 9,
        }
    }

    fn reply(_: u32) -> Body {
        Body::Reply {
            dst_wmd: WireHandle::NONE,
        }
    }

    #[test]
    fn both_forms_are_kept() -> Result<(), WireError> {
        for (header, is_answer) in [(header(put), false), (header(reply), true)] {
            let raw = RawHeader::from_header(&header)?;
            assert_eq!(raw, RawHeader::from_short(&header.build()?)?);
            assert_eq!(*raw.as_long(), header.build_long()?);
            assert_eq!(raw.to_short(), Some(header.build()?));
            assert_eq!(raw.parse(), Ok(header));
            assert_eq!(raw.src(), Some(header.src));
            assert_eq!(raw.payload_len(), 0x1234);
            assert_eq!(raw.is_answer(), is_answer);
            assert_eq!(raw.oldest_proto(), Proto::V1);
        }
        Ok(())
    }

    #[test]
    fn networks_of_other_kinds() -> Result<(), WireError> {
        // From an InfiniBand node, as a gateway passes it on.
        let mut short = header(put).build()?;
        short[14] = 5;
        let raw = RawHeader::from_short(&short)?;
        assert_eq!(raw.to_short(), Some(short));
        let foreign = Foreign {
            end: End::Source,
            kind: 5,
            payload_len: 0x1234,
        };
        assert_eq!(raw.parse(), Err(WireError::Foreign(foreign)));
        assert_eq!(raw.src(), None);
        // And one with an address that has no short form.
        let mut long = *raw.as_long();
        long[20] = 12;
        long[39] = 1;
        let raw = RawHeader::from_long(&long)?;
        assert_eq!(*raw.as_long(), long);
        assert_eq!(raw.to_short(), None);
        assert_eq!(raw.oldest_proto(), Proto::V4);
        Ok(())
    }

    #[test]
    fn what_could_not_be_sent_is_refused() -> Result<(), WireError> {
        let long = header(put).build_long()?;
        for (at, byte, why) in [
            (0, 13, WireError::Nid),
            (20, 1, WireError::Nid),
            (48, 9, WireError::Type(9)),
            (55, 1, WireError::Length(0x0100_1234)),
        ] {
            let mut bad = long;
            bad[at] = byte;
            assert_eq!(RawHeader::from_long(&bad), Err(why));
        }
        Ok(())
    }
}
