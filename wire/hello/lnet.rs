// SPDX-License-Identifier: GPL-2.0

//! HELLOs of LNet: versions 2 to 4, in the sender's byte order, which the magic shows.
//!
//! ```text
//!                       2 and 3            4
//!  magic                 0                  0
//!  version               4                  4
//!  source NID            8   8 bytes        8  20 bytes
//!  target's NID         16   8 bytes       28  20 bytes
//!  source's pid         24                 48
//!  target's pid         28                 52
//!  source's incarnation 32                 56
//!  target's incarnation 40                 64
//!  connection type      48                 72
//!  number of addresses  52                 76  ignored
//!  addresses            56                 80  none
//! ```
//!
//! The target's incarnation is sent as 0 and ignored.

use super::{
    super::LNET_MAGIC,
    count_len,
    ByteOrder,
    ConnType,
    Hello,
    IpVec,
    Proto,
    Reader,
    WireError,
    Writer, //
};

/// Bytes of a HELLO of version 2 or 3 without addresses.
pub(super) const HELLO_LEN: usize = 56;

/// Bytes of a HELLO of version 4.
pub(super) const LONG_HELLO_LEN: usize = 80;

impl Hello {
    pub(super) fn parse_lnet(
        bytes: &[u8],
        proto: Proto,
        order: ByteOrder,
    ) -> Result<(Self, usize), WireError> {
        let mut from = Reader::new(bytes, order);
        let _magic = from.u32()?;
        let _version = from.u32()?;
        let (src, dest) = if proto.has_long_nids() {
            (from.long_nid()?, from.long_nid()?)
        } else {
            (from.nid()?, from.nid()?)
        };
        let src_pid = from.u32()?;
        let dest_pid = from.u32()?;
        let incarnation = from.u64()?;
        let _dest_incarnation = from.u64()?;
        let kind = ConnType::from_hello(from.i32()?)?;
        let count = from.u32()?;
        let ips_len = if proto.has_long_nids() {
            0
        } else {
            count_len(count)?
        };
        let hello = Self {
            proto,
            order,
            src,
            dest: Some(dest),
            src_pid,
            dest_pid,
            incarnation,
            kind,
            ips: IpVec::new(),
        };
        Ok((hello, ips_len))
    }

    pub(super) fn build_lnet(&self, to: &mut Writer<'_>) -> Result<(), WireError> {
        let dest = self.dest.ok_or(WireError::Nid)?;
        let long = self.proto.has_long_nids();
        to.u32(LNET_MAGIC)?;
        to.u32(self.proto.number())?;
        for nid in [self.src, dest] {
            if long {
                to.long_nid(nid)?;
            } else {
                to.nid(nid)?;
            }
        }
        to.u32(self.src_pid)?;
        to.u32(self.dest_pid)?;
        to.u64(self.incarnation)?;
        to.u64(0)?;
        to.i32(self.kind_number())?;
        if long {
            return to.u32(0);
        }
        // CAST: At most `MAX_IPS`.
        to.u32(self.ips.len() as u32)?;
        self.put_ips(to)
    }
}

#[cfg_attr(
    CONFIG_KUNIT = "y",
    kernel::macros::kunit_tests(socklnd_wire_hello_lnet)
)]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::{
        super::{
            super::Nid,
            HELLO_MAX,
            MAX_IPS, //
        },
        *,
    };
    use core::net::Ipv4Addr;

    /// Captured from Lustre 2.17: the HELLO for a control connection, and the answer.
    const CAPTURED: [[u8; HELLO_LEN]; 2] = [
        *b"\x63\x69\x72\x45\x03\0\0\0\x01\x4d\xa8\xc0\0\0\x02\0\x02\x4d\xa8\xc0\0\0\x02\0\
           \x39\x30\0\0\0\0\0\0\xa3\x3c\x25\xee\x4c\x60\xea\x18\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0",
        *b"\x63\x69\x72\x45\x03\0\0\0\x02\x4d\xa8\xc0\0\0\x02\0\x01\x4d\xa8\xc0\0\0\x02\0\
           \x39\x30\0\0\0\0\0\0\xa2\x4f\x59\x2a\x4d\x60\xea\x18\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0",
    ];

    /// The first one from a big-endian machine: NIDs are swapped, too.
    const BIG_ENDIAN: [u8; HELLO_LEN] =
        *b"\x45\x72\x69\x63\0\0\0\x03\0\x02\0\0\xc0\xa8\x4d\x01\0\x02\0\0\xc0\xa8\x4d\x02\
           \0\0\x30\x39\0\0\0\0\x18\xea\x60\x4c\xee\x25\x3c\xa3\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0";

    /// The first one in version 4, written down from the description, and with addresses announced
    /// that are not there.
    const LONG: [u8; LONG_HELLO_LEN] =
        *b"\x63\x69\x72\x45\x04\0\0\0\0\x02\0\0\xc0\xa8\x4d\x01\0\0\0\0\0\0\0\0\0\0\0\0\
           \0\x02\0\0\xc0\xa8\x4d\x02\0\0\0\0\0\0\0\0\0\0\0\0\x39\x30\0\0\0\0\0\0\
           \xa3\x3c\x25\xee\x4c\x60\xea\x18\0\0\0\0\0\0\0\0\x01\0\0\0\xff\xff\xff\xff";

    const LITTLE: ByteOrder = ByteOrder::Little;

    fn meaning() -> Hello {
        Hello {
            proto: Proto::V3,
            order: LITTLE,
            src: Nid::tcp(0, [192, 168, 77, 1]),
            dest: Some(Nid::tcp(0, [192, 168, 77, 2])),
            src_pid: 12345,
            dest_pid: 0,
            incarnation: 0x18ea_604c_ee25_3ca3,
            kind: Some(ConnType::Control),
            ips: IpVec::new(),
        }
    }

    fn parse(bytes: &[u8], proto: Proto, order: ByteOrder) -> Result<Hello, WireError> {
        let head = Hello::head_len(proto);
        let (head, ips) = bytes.split_at_checked(head).ok_or(WireError::Truncated)?;
        let (mut hello, len) = Hello::parse(head, proto, order)?;
        hello.parse_ips(ips.get(..len).ok_or(WireError::Truncated)?)?;
        Ok(hello)
    }

    /// The first captured one with the 32-bit field at byte `offset` replaced, and room behind it.
    fn with(offset: usize, value: u32) -> [u8; HELLO_MAX] {
        let mut bytes = [1; HELLO_MAX];
        bytes[..HELLO_LEN].copy_from_slice(&CAPTURED[0]);
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    #[test]
    fn captured() {
        let answer = Hello {
            src: Nid::tcp(0, [192, 168, 77, 2]),
            dest: Some(Nid::tcp(0, [192, 168, 77, 1])),
            incarnation: 0x18ea_604d_2a59_4fa2,
            ..meaning()
        };
        for (bytes, hello) in CAPTURED.iter().zip([meaning(), answer]) {
            assert_eq!(parse(bytes, Proto::V3, LITTLE), Ok(hello));
            assert_eq!(hello.build(&mut [0xff; HELLO_MAX]), Ok(&bytes[..]));
        }
    }

    #[test]
    fn types_as_captured() {
        for (number, kind) in [
            (1, Some(ConnType::Control)),
            (2, Some(ConnType::BulkIn)),
            (3, Some(ConnType::BulkOut)),
            (u32::MAX, None),
        ] {
            let hello = Hello { kind, ..meaning() };
            let bytes = with(48, number);
            assert_eq!(parse(&bytes, Proto::V3, LITTLE), Ok(hello));
            assert_eq!(hello.build(&mut [0xff; HELLO_MAX]), Ok(&bytes[..HELLO_LEN]));
        }
    }

    #[test]
    fn the_other_byte_order() {
        let hello = Hello {
            order: ByteOrder::Big,
            ..meaning()
        };
        assert_eq!(parse(&BIG_ENDIAN, Proto::V3, ByteOrder::Big), Ok(hello));
        assert_eq!(hello.build(&mut [0xff; HELLO_MAX]), Ok(&BIG_ENDIAN[..]));
    }

    #[test]
    fn version_2_differs_in_its_number() {
        let hello = Hello {
            proto: Proto::V2,
            ..meaning()
        };
        let bytes = with(4, 2);
        assert_eq!(parse(&bytes, Proto::V2, LITTLE), Ok(hello));
        assert_eq!(hello.build(&mut [0xff; HELLO_MAX]), Ok(&bytes[..HELLO_LEN]));
    }

    #[test]
    fn version_4() {
        let hello = Hello {
            proto: Proto::V4,
            ..meaning()
        };
        assert_eq!(parse(&LONG, Proto::V4, LITTLE), Ok(hello));
        let mut bytes = LONG;
        bytes[76..].fill(0);
        assert_eq!(hello.build(&mut [0xff; HELLO_MAX]), Ok(&bytes[..]));
        for (at, byte) in [
            (8, 1),
            (8, 12),
            (8, 255),
            (9, 0),
            (16, 1),
            (28, 11),
            (29, 255),
        ] {
            let mut bad = LONG;
            bad[at] = byte;
            if byte == 12 {
                bad[12..28].fill(0);
            }
            assert_eq!(parse(&bad, Proto::V4, LITTLE), Err(WireError::Nid));
        }
    }

    #[test]
    fn addresses() -> Result<(), WireError> {
        for order in [LITTLE, ByteOrder::Big] {
            let mut hello = Hello { order, ..meaning() };
            for last in 1..=MAX_IPS as u8 {
                hello.ips.push(Ipv4Addr::new(10, 0, 0, last))?;
                let mut bytes = [0xff; HELLO_MAX];
                let len = hello.build(&mut bytes)?.len();
                assert_eq!(len, HELLO_LEN + 4 * usize::from(last));
                assert_eq!(parse(&bytes, Proto::V3, order), Ok(hello));
            }
        }
        Ok(())
    }

    #[test]
    fn bad_fields_are_refused() {
        for (offset, value, error) in [
            (8, 0, WireError::Nid),
            (12, u32::MAX, WireError::Nid),
            (12, 0x0005_0000, WireError::NetType(5)),
            (16, 0, WireError::Nid),
            (20, 0x0100_0200, WireError::Nid),
            (48, 4, WireError::ConnType(4)),
            (48, 0xffff_fffe, WireError::ConnType(-2)),
            (48, 0x0100_0000, WireError::ConnType(0x0100_0000)),
            (52, 17, WireError::Count(17)),
            (52, 1 << 30, WireError::Count(1 << 30)),
            (52, 0x4000_0001, WireError::Count(0x4000_0001)),
            (52, u32::MAX, WireError::Count(u32::MAX)),
        ] {
            for proto in [Proto::V2, Proto::V3] {
                assert_eq!(parse(&with(offset, value), proto, LITTLE), Err(error));
            }
        }
        let mut zero = with(52, 2);
        zero[60..64].fill(0);
        assert_eq!(parse(&zero, Proto::V3, LITTLE), Err(WireError::Ip));
    }

    #[test]
    fn what_can_not_be_said() {
        let mut bytes = [0; HELLO_MAX];
        let v6 = Nid::tcp(0, [0xfd00u16, 0, 0, 0, 0, 0, 0, 1]);
        for proto in [Proto::V2, Proto::V3, Proto::V4] {
            let hello = Hello { proto, ..meaning() };
            let nobody = Hello {
                dest: None,
                ..hello
            };
            assert_eq!(nobody.build(&mut bytes), Err(WireError::Nid));
            let long = Hello { src: v6, ..hello };
            assert_eq!(long.build(&mut bytes).is_ok(), proto == Proto::V4);
        }
    }
}
