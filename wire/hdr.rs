// SPDX-License-Identifier: GPL-2.0

//! The LNet header in front of every message's payload.
//!
//! Always little-endian, except NIDs of 20 bytes. The first 32 bytes, or 56 with such NIDs, are common to
//! all messages. The other 40 depend on the type; bytes that a type does not use are sent as 0 and ignored
//! when received.
//!
//! Headers are plain values: nothing protects them and nothing has to be freed.

mod body;

pub(crate) use self::body::{
    Body,
    WireHandle, //
};
pub(super) use self::body::{
    TYPE_ACK,
    TYPE_REPLY, //
};
use super::{
    ByteOrder,
    Nid,
    Reader,
    WireError,
    Writer, //
};
use core::fmt;

/// Bytes of a header with NIDs of 8 bytes.
pub(crate) const HEADER_LEN: usize = 72;

/// Bytes of a header with NIDs of 20 bytes.
pub(crate) const LONG_HEADER_LEN: usize = 96;

/// The most bytes of payload that one message may carry.
pub(crate) const MAX_PAYLOAD: u32 = 1 << 20;

/// The process ID of all kernel services of Lustre.
pub(crate) const PID_LUSTRE: u32 = 12345;

/// A message's header.
///
/// A parsed header has a known type, two TCP NIDs, and a payload of at most [`MAX_PAYLOAD`] bytes, or none if
/// it is an ACK or a GET. All other fields may have any value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The receiver.
    pub(crate) dest: Nid,
    /// The sender, as the header claims.
    pub(crate) src: Nid,
    /// The process at the receiver.
    pub(crate) dest_pid: u32,
    /// The process at the sender.
    pub(crate) src_pid: u32,
    /// Bytes that follow the header.
    pub(crate) payload_len: u32,
    /// The type and its own fields.
    pub(crate) body: Body,
}

/// One of the two nodes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The sender.
    Source,
    /// The receiver.
    Target,
}

/// A message from or to a network of another type. Its header is valid otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// Which of its nodes is on that network; the source, if both are.
    pub(crate) end: End,
    /// The LND type of that network.
    pub(crate) kind: u8,
    /// Bytes that follow the header.
    pub(crate) payload_len: u32,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.end {
            End::Source => "from",
            End::Target => "to",
        };
        write!(f, "{end} a network of type {}", self.kind)
    }
}

/// The NID, or the LND type of the other network that it is on. Other errors are returned.
fn if_tcp(nid: Result<Nid, WireError>) -> Result<Result<Nid, u8>, WireError> {
    match nid {
        Ok(nid) => Ok(Ok(nid)),
        Err(WireError::NetType(kind)) => Ok(Err(kind)),
        Err(e) => Err(e),
    }
}

impl Header {
    /// Parses a received header.
    ///
    /// # Errors
    ///
    /// - [`WireError::Foreign`] if a NID is on a network of another type. The error has
    ///   the length of the payload.
    /// - [`WireError::Nid`] if a NID is not a host's.
    /// - [`WireError::Type`] if the type is unknown.
    /// - [`WireError::Length`] if the payload is longer than this type may have.
    ///
    /// After any of the last three it is unknown where the next message starts.
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let mut from = Reader::new(bytes, ByteOrder::Little);
        let (dest, src) = (from.nid(), from.nid());
        Self::parse_rest(dest, src, from)
    }

    /// Parses a received header with NIDs of 20 bytes; as [`Header::parse`].
    pub(crate) fn parse_long(bytes: &[u8; LONG_HEADER_LEN]) -> Result<Self, WireError> {
        let mut from = Reader::new(bytes, ByteOrder::Little);
        let (dest, src) = (from.long_nid(), from.long_nid());
        Self::parse_rest(dest, src, from)
    }

    #[inline]
    fn parse_rest(
        dest: Result<Nid, WireError>,
        src: Result<Nid, WireError>,
        mut from: Reader<'_>,
    ) -> Result<Self, WireError> {
        let (dest, src) = (if_tcp(dest)?, if_tcp(src)?);
        let dest_pid = from.u32()?;
        let src_pid = from.u32()?;
        let kind = from.u32()?;
        let payload_len = from.u32()?;
        let body = Body::parse(kind, &mut from)?;
        body.check_payload(payload_len)?;
        let foreign = |end, kind| {
            Err(WireError::Foreign(Foreign {
                end,
                kind,
                payload_len,
            }))
        };
        let (dest, src) = match (dest, src) {
            (Ok(dest), Ok(src)) => (dest, src),
            (_, Err(kind)) => return foreign(End::Source, kind),
            (Err(kind), Ok(_)) => return foreign(End::Target, kind),
        };
        Ok(Self {
            dest,
            src,
            dest_pid,
            src_pid,
            payload_len,
            body,
        })
    }

    /// Builds the bytes to send.
    ///
    /// # Errors
    ///
    /// - [`WireError::Nid`] if a NID has no 64-bit form.
    /// - [`WireError::Length`] if the payload is longer than this type may have.
    pub(crate) fn build(&self) -> Result<[u8; HEADER_LEN], WireError> {
        let mut bytes = [0; HEADER_LEN];
        let mut to = Writer::new(&mut bytes, ByteOrder::Little);
        to.nid(self.dest)?;
        to.nid(self.src)?;
        self.build_rest(to)?;
        Ok(bytes)
    }

    /// Builds the bytes to send with NIDs of 20 bytes.
    ///
    /// # Errors
    ///
    /// - [`WireError::Nid`] if an address is 0.
    /// - [`WireError::Length`] if the payload is longer than this type may have.
    pub(crate) fn build_long(&self) -> Result<[u8; LONG_HEADER_LEN], WireError> {
        let mut bytes = [0; LONG_HEADER_LEN];
        let mut to = Writer::new(&mut bytes, ByteOrder::Little);
        to.long_nid(self.dest)?;
        to.long_nid(self.src)?;
        self.build_rest(to)?;
        Ok(bytes)
    }

    #[inline]
    fn build_rest(&self, mut to: Writer<'_>) -> Result<(), WireError> {
        self.body.check_payload(self.payload_len)?;
        to.u32(self.dest_pid)?;
        to.u32(self.src_pid)?;
        to.u32(self.body.number())?;
        to.u32(self.payload_len)?;
        self.body.build(to)
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_wire_hdr))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::{
        body::{
            TYPE_GET,
            TYPE_PUT, //
        },
        *, //
    };

    /// A ping of Lustre 2.17 and its answer, and a discovery PUT, its ACK, and a PUT that wants
    /// none; a GET of 1 MiB, its REPLY, and a PUT of as much, as captured between 192.168.77.1 and .2.
    const CAPTURED: [[u8; HEADER_LEN]; 8] = [
        *b"\x02\x4d\xa8\xc0\0\0\x02\0\x01\x4d\xa8\xc0\0\0\x02\0\x39\x30\0\0\x39\x30\0\0\
           \x02\0\0\0\0\0\0\0\x6b\x32\xb3\xed\x4c\x60\xea\x18\x09\x1c\0\0\0\0\0\0\
           \0\0\0\0\0\0\0\x80\0\0\0\0\0\0\0\0\x78\x0f\0\0\0\0\0\0",
        *b"\x01\x4d\xa8\xc0\0\0\x02\0\x02\x4d\xa8\xc0\0\0\x02\0\x39\x30\0\0\x39\x30\0\0\
           \x03\0\0\0\x30\0\0\0\x6b\x32\xb3\xed\x4c\x60\xea\x18\x09\x1c\0\0\0\0\0\0\
           \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        *b"\x02\x4d\xa8\xc0\0\0\x02\0\x01\x4d\xa8\xc0\0\0\x02\0\x39\x30\0\0\x39\x30\0\0\
           \x01\0\0\0\x30\0\0\0\x6b\x32\xb3\xed\x4c\x60\xea\x18\x39\x1c\0\0\0\0\0\0\
           \0\0\0\0\0\0\0\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        *b"\x01\x4d\xa8\xc0\0\0\x02\0\x02\x4d\xa8\xc0\0\0\x02\0\x39\x30\0\0\x39\x30\0\0\
           \0\0\0\0\0\0\0\0\x6b\x32\xb3\xed\x4c\x60\xea\x18\x39\x1c\0\0\0\0\0\0\
           \0\0\0\0\0\0\0\x80\x30\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        *b"\x01\x4d\xa8\xc0\0\0\x02\0\x02\x4d\xa8\xc0\0\0\x02\0\x39\x30\0\0\x39\x30\0\0\
           \x01\0\0\0\xa0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
           \x02\0\0\0\0\0\xc4\xea\0\0\0\0\0\0\0\0\x34\0\0\0\0\0\0\0",
        *b"\x01\x4d\xa8\xc0\0\0\x02\0\x02\x4d\xa8\xc0\0\0\x02\0\x39\x30\0\0\x39\x30\0\0\
           \x02\0\0\0\0\0\0\0\x41\x97\xd0\x29\x4d\x60\xea\x18\x41\x24\0\0\0\0\0\0\
           \x13\0\0\0\0\0\xc4\xea\x34\0\0\0\0\0\0\0\0\0\x10\0\0\0\0\0",
        *b"\x02\x4d\xa8\xc0\0\0\x02\0\x01\x4d\xa8\xc0\0\0\x02\0\x39\x30\0\0\x39\x30\0\0\
           \x03\0\0\0\0\0\x10\0\x41\x97\xd0\x29\x4d\x60\xea\x18\x41\x24\0\0\0\0\0\0\
           \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        *b"\x01\x4d\xa8\xc0\0\0\x02\0\x02\x4d\xa8\xc0\0\0\x02\0\x39\x30\0\0\x39\x30\0\0\
           \x01\0\0\0\0\0\x10\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
           \x1f\0\0\0\0\0\xc4\xea\0\0\0\0\0\0\0\0\x34\0\0\0\0\0\0\0",
    ];

    /// What [`CAPTURED`] says.
    fn meaning() -> [Header; 8] {
        let wmd = |object| WireHandle {
            interface_cookie: 0x18ea_604c_edb3_326b,
            object,
        };
        let bulk_wmd = WireHandle {
            interface_cookie: 0x18ea_604d_29d0_9741,
            object: 0x2441,
        };
        let header = |dest, src, payload_len, body| Header {
            dest: Nid::tcp(0, [192, 168, 77, dest]),
            src: Nid::tcp(0, [192, 168, 77, src]),
            dest_pid: PID_LUSTRE,
            src_pid: PID_LUSTRE,
            payload_len,
            body,
        };
        let get = Body::Get {
            return_wmd: wmd(0x1c09),
            match_bits: 1 << 63,
            portal: 0,
            src_offset: 0,
            sink_len: 3960,
        };
        let bulk_get = Body::Get {
            return_wmd: bulk_wmd,
            match_bits: 0xeac4_0000_0000_0013,
            portal: 52,
            src_offset: 0,
            sink_len: 1 << 20,
        };
        let reply = Body::Reply {
            dst_wmd: wmd(0x1c09),
        };
        let put = Body::Put {
            ack_wmd: wmd(0x1c39),
            match_bits: 1 << 63,
            hdr_data: 0,
            portal: 0,
            offset: 0,
        };
        let ack = Body::Ack {
            dst_wmd: wmd(0x1c39),
            match_bits: 1 << 63,
            mlength: 48,
        };
        let put_without_ack = |match_bits| Body::Put {
            ack_wmd: WireHandle::NONE,
            match_bits,
            hdr_data: 0,
            portal: 52,
            offset: 0,
        };
        [
            header(2, 1, 0, get),
            header(1, 2, 48, reply),
            header(2, 1, 48, put),
            header(1, 2, 0, ack),
            header(1, 2, 160, put_without_ack(0xeac4_0000_0000_0002)),
            header(1, 2, 0, bulk_get),
            header(2, 1, 1 << 20, Body::Reply { dst_wmd: bulk_wmd }),
            header(1, 2, 1 << 20, put_without_ack(0xeac4_0000_0000_001f)),
        ]
    }

    /// Captured message `message` with the 32-bit field at byte `offset` replaced.
    fn with(message: usize, offset: usize, value: u32) -> [u8; HEADER_LEN] {
        let mut bytes = CAPTURED[message];
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    const GET: usize = 0;
    const REPLY: usize = 1;
    const PUT: usize = 2;
    const ACK: usize = 3;

    #[test]
    fn captured() {
        for (bytes, header) in CAPTURED.iter().zip(meaning()) {
            assert_eq!(Header::parse(bytes), Ok(header));
            assert_eq!(header.build(), Ok(*bytes));
        }
    }

    #[test]
    fn fields_are_where_they_belong() {
        // The captures have 0 in several fields; these values differ in every byte.
        let mut bytes = [0; HEADER_LEN];
        for (value, byte) in (0x30..).zip(&mut bytes[32..]) {
            *byte = value;
        }
        for (kind, body) in [
            (
                TYPE_PUT,
                Body::Put {
                    ack_wmd: WireHandle {
                        interface_cookie: 0x3736_3534_3332_3130,
                        object: 0x3f3e_3d3c_3b3a_3938,
                    },
                    match_bits: 0x4746_4544_4342_4140,
                    hdr_data: 0x4f4e_4d4c_4b4a_4948,
                    portal: 0x5352_5150,
                    offset: 0x5756_5554,
                },
            ),
            (
                TYPE_GET,
                Body::Get {
                    return_wmd: WireHandle {
                        interface_cookie: 0x3736_3534_3332_3130,
                        object: 0x3f3e_3d3c_3b3a_3938,
                    },
                    match_bits: 0x4746_4544_4342_4140,
                    portal: 0x4b4a_4948,
                    src_offset: 0x4f4e_4d4c,
                    sink_len: 0x5352_5150,
                },
            ),
        ] {
            bytes[..24].copy_from_slice(&CAPTURED[GET][..24]);
            bytes[24..28].copy_from_slice(&kind.to_le_bytes());
            assert_eq!(Header::parse(&bytes).map(|header| header.body), Ok(body));
        }
    }

    #[test]
    fn long_nids() -> Result<(), WireError> {
        // All that is behind the NIDs is as in the other form.
        for (bytes, header) in CAPTURED.iter().zip(meaning()) {
            let long = header.build_long()?;
            assert_eq!(long[..20], header.dest.to_bytes20());
            assert_eq!(long[20..40], header.src.to_bytes20());
            assert_eq!(long[40..], bytes[16..]);
            assert_eq!(Header::parse_long(&long), Ok(header));
            for (at, byte) in [
                (0, 1),
                (0, 11),
                (0, 255),
                (1, 0),
                (8, 1),
                (20, 12),
                (21, 255),
            ] {
                let mut bad = long;
                bad[at] = byte;
                if (at, byte) == (20, 12) {
                    bad[24..40].fill(0);
                }
                assert_eq!(Header::parse_long(&bad), Err(WireError::Nid));
            }
            for (at, end) in [(1, End::Target), (21, End::Source)] {
                let mut other = long;
                other[at] = 5;
                let foreign = Foreign {
                    end,
                    kind: 5,
                    payload_len: header.payload_len,
                };
                assert_eq!(Header::parse_long(&other), Err(WireError::Foreign(foreign)));
            }
        }
        let mut header = meaning()[PUT];
        header.dest = Nid::tcp(3, [0xfd00u16, 0, 0, 0, 0, 0, 0, 1]);
        let bytes = header.build_long()?;
        assert_eq!(bytes[..8], *b"\x0c\x02\0\x03\xfd\0\0\0");
        assert_eq!(bytes[48..52], [1, 0, 0, 0]);
        assert_eq!(bytes[52..56], [48, 0, 0, 0]);
        assert_eq!(Header::parse_long(&bytes), Ok(header));
        header.src = Nid::tcp(0, [0u16; 8]);
        assert_eq!(header.build_long(), Err(WireError::Nid));
        Ok(())
    }

    #[test]
    fn unknown_types_are_refused() {
        for kind in [4, 5, 0xc0, 0x0200_0000, 0x8000_0000, u32::MAX] {
            assert_eq!(
                Header::parse(&with(GET, 24, kind)),
                Err(WireError::Type(kind))
            );
        }
    }

    #[test]
    fn payload_length_is_bounded() {
        for (message, max) in [(GET, 0), (ACK, 0), (PUT, MAX_PAYLOAD), (REPLY, MAX_PAYLOAD)] {
            let len = |len| Header::parse(&with(message, 28, len)).map(|header| header.payload_len);
            assert_eq!(len(0), Ok(0));
            assert_eq!(len(max), Ok(max));
            for bad in [max + 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
                assert_eq!(len(bad), Err(WireError::Length(bad)));
                let mut header = meaning()[message];
                header.payload_len = bad;
                assert_eq!(header.build(), Err(WireError::Length(bad)));
            }
        }
    }

    #[test]
    fn foreign_nids_are_refused() {
        for (offset, value) in [(0, 0), (4, 0x0105_0000), (8, 0), (12, u32::MAX)] {
            assert_eq!(
                Header::parse(&with(PUT, offset, value)),
                Err(WireError::Nid)
            );
        }
        let foreign = |end, kind, payload_len| {
            Err(WireError::Foreign(Foreign {
                end,
                kind,
                payload_len,
            }))
        };
        let length = meaning()[PUT].payload_len;
        let o2ib = 0x0005_0000;
        let mut both = with(PUT, 4, o2ib);
        assert_eq!(Header::parse(&both), foreign(End::Target, 5, length));
        both[12..16].copy_from_slice(&0x000d_0000u32.to_le_bytes());
        assert_eq!(Header::parse(&both), foreign(End::Source, 13, length));
        let source = Header::parse(&with(PUT, 12, o2ib));
        assert_eq!(source, foreign(End::Source, 5, length));
        // What would end the stream still does.
        both[8..16].fill(0);
        assert_eq!(Header::parse(&both), Err(WireError::Nid));
        let mut bytes = with(PUT, 12, o2ib);
        bytes[28..32].copy_from_slice(&(MAX_PAYLOAD + 1).to_le_bytes());
        let long = Err(WireError::Length(MAX_PAYLOAD + 1));
        assert_eq!(Header::parse(&bytes), long);
        bytes[24..28].copy_from_slice(&7u32.to_le_bytes());
        assert_eq!(Header::parse(&bytes), Err(WireError::Type(7)));
        let mut header = meaning()[PUT];
        header.dest = Nid::tcp(0, [0u16, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(header.build(), Err(WireError::Nid));
    }
}
