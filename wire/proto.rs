// SPDX-License-Identifier: GPL-2.0

//! Versions of the protocol, and the differences between them.
//!
//! The handshake fixes the version of a connection: that of the HELLO that was accepted. [`Proto`] has a
//! method for everything that depends on the version; other code does not compare versions.
//!
//! | version | HELLO | in front of a payload | acknowledgements |
//! |---|---|---|---|
//! | 1.0 | magic of 2005, little-endian | 72 bytes | none |
//! | 2 | LNet's magic, sender's byte order | 24 + 72 | one by one, on any connection |
//! | 3 | the same | 24 + 72 | several at once, on bulk-in connections, of which there can be more |
//! | 4 | the same, NIDs of 20 bytes | 24 + 96 | as 3 |
//!
//! A plain value: nothing protects it and nothing has to be freed.

use super::{
    ByteOrder,
    ConnType,
    Header,
    Msg,
    Nid,
    RawHeader,
    WireError,
    Writer,
    HEADER_LEN,
    LONG_HEADER_LEN,
    MSG_LEN, //
};
use core::net::IpAddr;

/// The most bytes in front of a payload.
pub(crate) const MAX_HDR: usize = MSG_LEN + LONG_HEADER_LEN;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proto {
    /// 1.0, of 2005.
    V1 = 1,
    /// Message headers, checksums, acknowledgements.
    V2,
    /// Acknowledgements on a connection of their own, and pings.
    V3,
    /// NIDs of 20 bytes.
    V4,
}

/// The class of something to send, on which the choice of a connection depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MsgClass {
    /// A message of fewer bytes than a bulk one.
    Small,
    /// A message of many bytes.
    Bulk,
    /// An acknowledgement that must not wait behind messages.
    Ack,
    /// An acknowledgement that may wait behind messages.
    PatientAck,
}

/// How suitable a connection is for a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is for this class.
    Yes,
    /// It can be used if there is no better one.
    May,
    /// It can't be used.
    No,
}

impl Proto {
    /// The newest version.
    pub(crate) const NEWEST: Self = Self::V4;

    /// The version of this number, if there is one.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::V1,
            2 => Self::V2,
            3 => Self::V3,
            4 => Self::V4,
            _ => return None,
        })
    }

    /// Its number: in a HELLO, or in 1.0 the major one.
    pub(crate) fn number(self) -> u32 {
        // CAST: The numbers above.
        self as u32
    }

    /// The version to begin with if nothing is known about a peer, and these addresses are those of both
    /// nodes: what every current node speaks.
    pub(crate) fn first_try(addrs: &[IpAddr]) -> Self {
        if addrs.iter().any(IpAddr::is_ipv6) {
            Self::V4
        } else {
            Self::V3
        }
    }

    /// The oldest version that can represent `nid`.
    pub(crate) fn oldest_for(nid: Nid) -> Self {
        if nid.addr().is_ipv6() {
            Self::V4
        } else {
            Self::V1
        }
    }

    /// Whether each message begins with a message header.
    pub(crate) fn has_msg_header(self) -> bool {
        self >= Self::V2
    }

    /// Whether NIDs have 20 bytes, and not 8.
    pub(crate) fn has_long_nids(self) -> bool {
        self >= Self::V4
    }

    /// Whether HELLOs have the addresses of their sender's interfaces. Later versions have room for them that is
    /// not used.
    pub(crate) fn names_addresses(self) -> bool {
        self == Self::V1
    }

    /// Whether messages can have a checksum.
    pub(crate) fn has_checksums(self) -> bool {
        self == Self::V2
    }

    /// Whether a NOOP can be a keepalive message.
    pub(crate) fn has_pings(self) -> bool {
        self >= Self::V3
    }

    /// Whether a NOOP can acknowledge several messages.
    pub(crate) fn has_wide_acks(self) -> bool {
        self >= Self::V3
    }

    /// Whether there can be several connections for bulk, each way.
    pub(crate) fn has_many_conns(self) -> bool {
        self >= Self::V3
    }

    /// Bytes of the LNet header.
    pub(crate) fn header_len(self) -> usize {
        if self.has_long_nids() {
            LONG_HEADER_LEN
        } else {
            HEADER_LEN
        }
    }

    /// Bytes in front of a payload.
    pub(crate) fn hdr_len(self) -> usize {
        if self.has_msg_header() {
            MSG_LEN.wrapping_add(self.header_len())
        } else {
            self.header_len()
        }
    }

    /// Builds the bytes in front of a payload in `bytes`, and returns them: `msg`, if the version has message
    /// headers, and what `put_header` writes.
    #[inline]
    fn frame<'a>(
        self,
        msg: &Msg,
        bytes: &'a mut [u8; MAX_HDR],
        put_header: impl FnOnce(&mut Writer<'_>) -> Result<(), WireError>,
    ) -> Result<&'a [u8], WireError> {
        // In the order that our HELLO has.
        let mut to = Writer::new(bytes, ByteOrder::NATIVE);
        if self.has_msg_header() {
            to.put(msg.build(to.order)?)?;
        }
        put_header(&mut to)?;
        let len = MAX_HDR.saturating_sub(to.room.len());
        bytes.get(..len).ok_or(WireError::Truncated)
    }

    /// Builds the bytes in front of a payload in `bytes`, and returns them: `msg`, if the version has message
    /// headers, and `header`, which a NOOP does not have.
    ///
    /// # Errors
    ///
    /// Those of [`Header::build`].
    pub(crate) fn hdr<'a>(
        self,
        msg: &Msg,
        header: Option<&Header>,
        bytes: &'a mut [u8; MAX_HDR],
    ) -> Result<&'a [u8], WireError> {
        self.frame(msg, bytes, |to| match header {
            Some(header) if self.has_long_nids() => to.put(header.build_long()?),
            Some(header) => to.put(header.build()?),
            None => Ok(()),
        })
    }

    /// As [`Proto::hdr`], with a header that is given as bytes.
    ///
    /// # Errors
    ///
    /// [`WireError::Nid`] if a NID has no form in this version.
    pub(crate) fn raw_hdr<'a>(
        self,
        msg: &Msg,
        header: &RawHeader,
        bytes: &'a mut [u8; MAX_HDR],
    ) -> Result<&'a [u8], WireError> {
        self.frame(msg, bytes, |to| {
            if self.has_long_nids() {
                to.put(*header.as_long())
            } else {
                to.put(header.to_short().ok_or(WireError::Nid)?)
            }
        })
    }

    /// Parses the LNet header at the front of `bytes`.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`], and those of [`Header::parse`].
    pub(crate) fn parse_header(self, bytes: &[u8]) -> Result<Header, WireError> {
        if self.has_long_nids() {
            Header::parse_long(bytes.first_chunk().ok_or(WireError::Truncated)?)
        } else {
            Header::parse(bytes.first_chunk().ok_or(WireError::Truncated)?)
        }
    }

    /// Whether connections need types: in these versions current nodes send nothing on a connection without a
    /// type. This node uses one if a peer opens it.
    pub(crate) fn is_always_typed(self) -> bool {
        self >= Self::V3
    }

    /// Whether something of this class can be sent on a connection of type `kind`, as the sender sees it.
    pub(crate) fn fit(self, kind: ConnType, class: MsgClass) -> Fit {
        let has_ack_conn = self.has_wide_acks();
        match (kind, class) {
            (ConnType::Any, _) => Fit::Yes,
            (ConnType::BulkIn, MsgClass::Ack) if has_ack_conn => Fit::Yes,
            (_, MsgClass::Ack) if has_ack_conn => Fit::No,
            // It is reserved for acknowledgements.
            (ConnType::BulkIn, MsgClass::Small | MsgClass::Bulk) if has_ack_conn => Fit::No,
            (ConnType::Control, MsgClass::Bulk) => Fit::May,
            (ConnType::Control, _) | (ConnType::BulkOut, MsgClass::Bulk) => Fit::Yes,
            (ConnType::BulkIn | ConnType::BulkOut, _) => Fit::May,
        }
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_wire_proto))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::{
        super::MsgKind,
        *, //
    };

    const ALL: [Proto; 4] = [Proto::V1, Proto::V2, Proto::V3, Proto::V4];

    #[test]
    fn numbers() {
        for (number, proto) in (1..).zip(ALL) {
            assert_eq!(Proto::from_number(number), Some(proto));
            assert_eq!(proto.number(), number);
        }
        for number in [0, 5, 0x0300_0000, u32::MAX] {
            assert_eq!(Proto::from_number(number), None);
        }
        assert_eq!(Proto::NEWEST, Proto::V4);
        let (v4, v6) = (
            IpAddr::from([10, 0, 0, 1]),
            IpAddr::from([0xfd00u16, 0, 0, 0, 0, 0, 0, 1]),
        );
        assert_eq!(Proto::first_try(&[v4, v4]), Proto::V3);
        assert_eq!(Proto::first_try(&[v4, v6]), Proto::V4);
        assert_eq!(Proto::oldest_for(Nid::tcp(0, [10, 0, 0, 1])), Proto::V1);
        let long = Nid::tcp(0, [0xfd00u16, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Proto::oldest_for(long), Proto::V4);
    }

    #[test]
    fn where_the_payload_begins() {
        assert_eq!(ALL.map(Proto::hdr_len), [72, 96, 96, 120]);
        assert_eq!(ALL.map(Proto::hdr_len).into_iter().max(), Some(MAX_HDR));
    }

    #[test]
    fn what_versions_have() {
        assert_eq!(ALL.map(Proto::names_addresses), [true, false, false, false]);
        assert_eq!(ALL.map(Proto::has_msg_header), [false, true, true, true]);
        assert_eq!(ALL.map(Proto::has_checksums), [false, true, false, false]);
        assert_eq!(ALL.map(Proto::has_pings), [false, false, true, true]);
        assert_eq!(ALL.map(Proto::has_wide_acks), [false, false, true, true]);
        assert_eq!(ALL.map(Proto::has_many_conns), [false, false, true, true]);
        assert_eq!(ALL.map(Proto::has_long_nids), [false, false, false, true]);
    }

    /// Captured from Lustre 2.17: in front of a payload of 1 MiB.
    const CAPTURED: [u8; 96] = *b"\xc1\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
           \x01\x4d\xa8\xc0\0\0\x02\0\x02\x4d\xa8\xc0\0\0\x02\0\x39\x30\0\0\x39\x30\0\0\
           \x01\0\0\0\0\0\x10\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
           \x1f\0\0\0\0\0\xc4\xea\0\0\0\0\0\0\0\0\x34\0\0\0\0\0\0\0";

    #[test]
    fn whole_frames() -> Result<(), WireError> {
        let (msg, header) = CAPTURED.split_at(MSG_LEN);
        let msg = Msg::parse(
            msg.first_chunk().ok_or(WireError::Truncated)?,
            ByteOrder::Little,
        )?;
        let header = Proto::V3.parse_header(header)?;
        assert_eq!((msg.cookies, header.payload_len), ([2, 0], 1 << 20));
        let mut bytes = [0xff; MAX_HDR];
        if ByteOrder::NATIVE == ByteOrder::Little {
            for proto in [Proto::V2, Proto::V3] {
                assert_eq!(
                    proto.hdr(&msg, Some(&header), &mut bytes),
                    Ok(&CAPTURED[..])
                );
            }
        }
        for proto in ALL {
            let frame = proto.hdr(&msg, Some(&header), &mut bytes)?;
            assert_eq!(frame.len(), proto.hdr_len());
            let behind = if proto.has_msg_header() { MSG_LEN } else { 0 };
            assert_eq!(proto.parse_header(&frame[behind..]), Ok(header));
            assert_eq!(proto.parse_header(&frame[behind + 1..]).ok(), None);
        }
        let raw = RawHeader::from_header(&header)?;
        for proto in ALL {
            let mut again = [0xff; MAX_HDR];
            let frame = proto.raw_hdr(&msg, &raw, &mut again)?;
            assert_eq!(proto.hdr(&msg, Some(&header), &mut bytes), Ok(frame));
        }
        let noop = Msg::new(MsgKind::Noop);
        assert_eq!(
            Proto::V3.hdr(&noop, None, &mut bytes).map(<[u8]>::len),
            Ok(MSG_LEN)
        );
        Ok(())
    }

    #[test]
    fn what_goes_where() {
        use Fit::{
            May,
            No,
            Yes, //
        };
        let kinds = [
            ConnType::Any,
            ConnType::Control,
            ConnType::BulkIn,
            ConnType::BulkOut,
        ];
        for (protos, class, fits) in [
            (
                [Proto::V1, Proto::V2],
                MsgClass::Small,
                [Yes, Yes, May, May],
            ),
            ([Proto::V1, Proto::V2], MsgClass::Bulk, [Yes, May, May, Yes]),
            ([Proto::V2, Proto::V2], MsgClass::Ack, [Yes, Yes, May, May]),
            ([Proto::V3, Proto::V4], MsgClass::Small, [Yes, Yes, No, May]),
            ([Proto::V3, Proto::V4], MsgClass::Bulk, [Yes, May, No, Yes]),
            ([Proto::V3, Proto::V4], MsgClass::Ack, [Yes, No, Yes, No]),
            (
                [Proto::V3, Proto::V4],
                MsgClass::PatientAck,
                [Yes, Yes, May, May],
            ),
        ] {
            for proto in protos {
                assert_eq!(kinds.map(|kind| proto.fit(kind, class)), fits);
            }
        }
    }
}
