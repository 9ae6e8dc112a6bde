// SPDX-License-Identifier: GPL-2.0

//! The HELLO, which both nodes send on a new connection.
//!
//! This file has what all versions have in common, and version 1.0: always little-endian, 72 bytes laid
//! out like a message header, then the sender's IPv4 addresses as 32-bit numbers. Later versions are in
//! [`lnet`].
//!
//! ```text
//!  0 magic       8 source NID          24 message type (4)    40 connection type
//!  4 major (1)  16 destination's pid   28 bytes of addresses  44 unused
//!  6 minor (0)  20 source's pid        32 incarnation         72 addresses
//! ```
//!
//! HELLOs are plain values: nothing protects them and nothing has to be freed.

mod lnet;

use super::{
    ByteOrder,
    Nid,
    Proto,
    Reader,
    WireError,
    Writer,
    HELLO_MAGIC_V1, //
};
use core::{
    net::Ipv4Addr,
    ops::Deref, //
};

/// Most IP addresses in a HELLO.
const MAX_IPS: usize = 16;

/// Bytes of a HELLO v1.0 before the addresses.
pub(super) const HELLO_V1_LEN: usize = 72;

/// Bytes of the longest HELLO: one of v1.0 with all addresses.
pub(crate) const HELLO_MAX: usize = HELLO_V1_LEN + MAX_IPS * size_of::<u32>();

/// Version 1.0, major and minor read as one number.
pub(super) const HELLO_VERSION_1: u32 = 1;

const TYPE_HELLO: u32 = 4;
const CONN_TYPE_NONE: i32 = -1;

/// The type of a connection, as the sender of the HELLO sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum ConnType {
    /// Everything.
    Any = 0,
    /// Small messages, both ways.
    Control = 1,
    /// Large messages, received by this end.
    BulkIn = 2,
    /// Large messages, sent by this end.
    BulkOut = 3,
}

impl ConnType {
    /// The type of the same connection as the other end sees it.
    pub(crate) fn inverse(self) -> Self {
        match self {
            Self::BulkIn => Self::BulkOut,
            Self::BulkOut => Self::BulkIn,
            same => same,
        }
    }

    /// The type of this number, including "none".
    fn from_hello(number: i32) -> Result<Option<Self>, WireError> {
        match number {
            CONN_TYPE_NONE => Ok(None),
            number => Self::from_wire(number).map(Some),
        }
    }

    /// The type of this number.
    ///
    /// # Errors
    ///
    /// [`WireError::ConnType`] for all other numbers, including "none" (-1).
    pub(crate) fn from_wire(number: i32) -> Result<Self, WireError> {
        Ok(match number {
            0 => Self::Any,
            1 => Self::Control,
            2 => Self::BulkIn,
            3 => Self::BulkOut,
            _ => return Err(WireError::ConnType(number)),
        })
    }
}

/// Whether a peer's connections have types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnTypes {
    /// One connection, [`ConnType::Any`], carries everything.
    Untyped,
    /// Each connection is for control, or for bulk one way.
    Typed,
}

/// Up to 16 IPv4 addresses, without allocation.
///
/// # Invariants
///
/// `len` is at most `MAX_IPS`; none of the first `len` addresses is 0, all others are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpVec {
    ips: [Ipv4Addr; MAX_IPS],
    len: usize,
}

impl IpVec {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        // INVARIANT: 0 is at most `MAX_IPS`, and all addresses are 0.
        Self {
            ips: [Ipv4Addr::UNSPECIFIED; MAX_IPS],
            len: 0,
        }
    }

    /// Appends an address.
    ///
    /// # Errors
    ///
    /// - [`WireError::Ip`] if it is 0.
    /// - [`WireError::Count`] if the list is full.
    pub(crate) fn push(&mut self, ip: Ipv4Addr) -> Result<(), WireError> {
        if ip.is_unspecified() {
            return Err(WireError::Ip);
        }
        let Some(free) = self.ips.get_mut(self.len) else {
            return Err(WireError::Count(MAX_IPS as u32 + 1));
        };
        // INVARIANT: `ip` is not 0, and `len` was below `MAX_IPS`.
        *free = ip;
        self.len = self.len.saturating_add(1);
        Ok(())
    }
}

impl Deref for IpVec {
    type Target = [Ipv4Addr];

    fn deref(&self) -> &[Ipv4Addr] {
        self.ips.get(..self.len).unwrap_or_default()
    }
}

impl core::fmt::Debug for IpVec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A HELLO. Its fields are what the sender claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Its version, which its sender wants to speak.
    pub(crate) proto: Proto,
    /// The order of its bytes and of those of the message headers that follow; in v1.0 always
    /// little-endian.
    pub(crate) order: ByteOrder,
    /// The sender.
    pub(crate) src: Nid,
    /// The receiver, which v1.0 does not have. In an answer to an unknown version it is the sender.
    pub(crate) dest: Option<Nid>,
    /// The sender's process; old senders do not set it.
    pub(crate) src_pid: u32,
    /// The process at the receiver.
    pub(crate) dest_pid: u32,
    /// The sender's incarnation; it differs after a restart.
    pub(crate) incarnation: u64,
    /// The type of the connection, as the sender sees it; `None` refuses the connection.
    pub(crate) kind: Option<ConnType>,
    /// Addresses of the sender.
    pub(crate) ips: IpVec,
}

impl Hello {
    /// Bytes of a HELLO of this version without addresses.
    pub(super) fn head_len(proto: Proto) -> usize {
        match proto {
            Proto::V1 => HELLO_V1_LEN,
            Proto::V2 | Proto::V3 => lnet::HELLO_LEN,
            Proto::V4 => lnet::LONG_HELLO_LEN,
        }
    }

    /// Parses the first [`Hello::head_len`] bytes of a HELLO whose magic and version were checked before.
    /// Returns how many bytes of addresses follow, for [`Hello::parse_ips`]: together at most [`HELLO_MAX`].
    ///
    /// # Errors
    ///
    /// - [`WireError::Nid`] if the NID of the sender, or of the receiver, is not a TCP host's.
    /// - [`WireError::Type`] if the message type, which v1.0 has, is not HELLO's.
    /// - [`WireError::Length`] or [`WireError::Count`] if what follows can't be addresses, or are
    ///   too many.
    /// - [`WireError::ConnType`] if the connection's type is unknown.
    /// - [`WireError::Truncated`] if there are fewer bytes.
    pub(super) fn parse(
        bytes: &[u8],
        proto: Proto,
        order: ByteOrder,
    ) -> Result<(Self, usize), WireError> {
        match proto {
            Proto::V1 => Self::parse_v1(bytes),
            Proto::V2 | Proto::V3 | Proto::V4 => Self::parse_lnet(bytes, proto, order),
        }
    }

    fn parse_v1(bytes: &[u8]) -> Result<(Self, usize), WireError> {
        let order = ByteOrder::Little;
        let mut from = Reader::new(bytes, order);
        let _magic_and_version = from.u64()?;
        let src = from.nid()?;
        let dest_pid = from.u32()?;
        let src_pid = from.u32()?;
        let message = from.u32()?;
        if message != TYPE_HELLO {
            return Err(WireError::Type(message));
        }
        let ips_len = ips_len(from.u32()?)?;
        let incarnation = from.u64()?;
        let kind = ConnType::from_hello(from.i32()?)?;
        let hello = Self {
            proto: Proto::V1,
            order,
            src,
            dest: None,
            src_pid,
            dest_pid,
            incarnation,
            kind,
            ips: IpVec::new(),
        };
        Ok((hello, ips_len))
    }

    /// Parses the addresses behind the first bytes.
    ///
    /// # Errors
    ///
    /// - [`WireError::Ip`] if one of them is 0.
    /// - [`WireError::Count`] or [`WireError::Truncated`] if `bytes` is not as long as
    ///   [`Hello::parse`] said.
    pub(super) fn parse_ips(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut from = Reader::new(bytes, self.order);
        while !from.bytes.is_empty() {
            self.ips.push(from.u32()?.into())?;
        }
        Ok(())
    }

    /// Builds the bytes to send in `bytes`, and returns them.
    ///
    /// # Errors
    ///
    /// [`WireError::Nid`] if the version can't represent a NID, or needs a receiver and there is none.
    pub(crate) fn build<'a>(&self, bytes: &'a mut [u8; HELLO_MAX]) -> Result<&'a [u8], WireError> {
        *bytes = [0; HELLO_MAX];
        let mut to = Writer::new(bytes, self.order);
        match self.proto {
            Proto::V1 => self.build_v1(&mut to)?,
            Proto::V2 | Proto::V3 | Proto::V4 => self.build_lnet(&mut to)?,
        }
        let len = HELLO_MAX.saturating_sub(to.room.len());
        bytes.get(..len).ok_or(WireError::Truncated)
    }

    fn build_v1(&self, to: &mut Writer<'_>) -> Result<(), WireError> {
        // CAST: At most `HELLO_MAX`.
        let ips_len = size_of_val::<[Ipv4Addr]>(&self.ips) as u32;
        to.order = ByteOrder::Little;
        to.u32(HELLO_MAGIC_V1)?;
        to.u32(HELLO_VERSION_1)?;
        to.nid(self.src)?;
        to.u32(self.dest_pid)?;
        to.u32(self.src_pid)?;
        to.u32(TYPE_HELLO)?;
        to.u32(ips_len)?;
        to.u64(self.incarnation)?;
        to.i32(self.kind_number())?;
        to.put([0; 28])?;
        self.put_ips(to)
    }

    fn kind_number(&self) -> i32 {
        self.kind.map_or(CONN_TYPE_NONE, |kind| kind as i32)
    }

    fn put_ips(&self, to: &mut Writer<'_>) -> Result<(), WireError> {
        for ip in self.ips.iter() {
            to.u32(ip.to_bits())?;
        }
        Ok(())
    }
}

/// Checks the length of the addresses in a HELLO.
fn ips_len(len: u32) -> Result<usize, WireError> {
    if len % 4 != 0 {
        return Err(WireError::Length(len));
    }
    count_len(len / 4)
}

/// Checks the number of the addresses in a HELLO. Returns their length in bytes.
fn count_len(count: u32) -> Result<usize, WireError> {
    match count.checked_mul(4) {
        // CAST: At most 64.
        Some(len) if count <= MAX_IPS as u32 => Ok(len as usize),
        _ => Err(WireError::Count(count)),
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_wire_hello))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    const IPS: usize = HELLO_V1_LEN;

    /// A HELLO of 192.168.77.1@tcp with two addresses, written down from the description.
    const GOLDEN: [u8; HELLO_V1_LEN + 8] =
        *b"\xed\x0d\xbc\xee\x01\0\0\0\x01\x4d\xa8\xc0\0\0\x02\0\x39\x30\0\0\x3a\x30\0\0\
           \x04\0\0\0\x08\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x02\0\0\0\
           \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
           \x01\x4d\xa8\xc0\x01\0\0\x0a";

    /// What [`GOLDEN`] says.
    fn meaning() -> Result<Hello, WireError> {
        let mut ips = IpVec::new();
        ips.push(Ipv4Addr::new(192, 168, 77, 1))?;
        ips.push(Ipv4Addr::new(10, 0, 0, 1))?;
        Ok(Hello {
            proto: Proto::V1,
            order: ByteOrder::Little,
            src: Nid::tcp(0, [192, 168, 77, 1]),
            dest: None,
            src_pid: 12346,
            dest_pid: 12345,
            incarnation: 0x0102_0304_0506_0708,
            kind: Some(ConnType::BulkIn),
            ips,
        })
    }

    fn parse(bytes: &[u8]) -> Result<Hello, WireError> {
        let head = Hello::head_len(Proto::V1);
        let (head, ips) = bytes.split_at_checked(head).ok_or(WireError::Truncated)?;
        let (mut hello, len) = Hello::parse(head, Proto::V1, ByteOrder::Little)?;
        hello.parse_ips(ips.get(..len).ok_or(WireError::Truncated)?)?;
        Ok(hello)
    }

    /// [`GOLDEN`] with the 32-bit field at byte `offset` replaced, and room for all addresses.
    fn with(offset: usize, value: u32) -> [u8; HELLO_MAX] {
        let mut bytes = [1; HELLO_MAX];
        bytes[..GOLDEN.len()].copy_from_slice(&GOLDEN);
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    #[test]
    fn golden() -> Result<(), WireError> {
        assert_eq!(parse(&GOLDEN), meaning());
        let mut bytes = [0xff; HELLO_MAX];
        assert_eq!(meaning()?.build(&mut bytes), Ok(&GOLDEN[..]));
        // Version 1 has one byte order, whatever is set.
        let mut hello = meaning()?;
        hello.order = ByteOrder::Big;
        assert_eq!(hello.build(&mut bytes), Ok(&GOLDEN[..]));
        Ok(())
    }

    #[test]
    fn refusal() -> Result<(), WireError> {
        let mut hello = meaning()?;
        hello.kind = None;
        hello.ips = IpVec::new();
        let mut bytes = [0; HELLO_MAX];
        assert_eq!(hello.build(&mut bytes).map(<[u8]>::len), Ok(HELLO_V1_LEN));
        assert_eq!(bytes[40..44], [0xff; 4]);
        assert_eq!(parse(&bytes), Ok(hello));
        Ok(())
    }

    #[test]
    fn unused_bytes_are_ignored() {
        // The first senders left stack garbage there.
        let mut bytes = GOLDEN;
        bytes[44..IPS].fill(0xa5);
        assert_eq!(parse(&bytes), meaning());
    }

    #[test]
    fn count_of_addresses_is_bounded() {
        for len in [1, 2, 3, 63, 65, 0x8000_0001, u32::MAX] {
            assert_eq!(parse(&with(28, len)), Err(WireError::Length(len)));
        }
        for count in [17, 1 << 28, 0x3fff_ffff] {
            assert_eq!(parse(&with(28, count * 4)), Err(WireError::Count(count)));
        }
        for count in 0..=MAX_IPS {
            let hello = parse(&with(28, count as u32 * 4));
            assert_eq!(hello.map(|hello| hello.ips.len()), Ok(count));
        }
    }

    #[test]
    fn bad_fields_are_refused() {
        for (offset, value, error) in [
            (8, 0, WireError::Nid),
            (12, u32::MAX, WireError::Nid),
            (12, 0x0005_0000, WireError::NetType(5)),
            (24, 0, WireError::Type(0)),
            (24, 0x0400_0000, WireError::Type(0x0400_0000)),
            (24, u32::MAX, WireError::Type(u32::MAX)),
            (40, 4, WireError::ConnType(4)),
            (40, 0xffff_fffe, WireError::ConnType(-2)),
            (40, 0x8000_0000, WireError::ConnType(i32::MIN)),
            (IPS, 0, WireError::Ip),
            (IPS + 4, 0, WireError::Ip),
        ] {
            assert_eq!(parse(&with(offset, value)), Err(error));
        }
    }

    #[test]
    fn types_invert() {
        for (mine, yours) in [
            (ConnType::Any, ConnType::Any),
            (ConnType::Control, ConnType::Control),
            (ConnType::BulkIn, ConnType::BulkOut),
            (ConnType::BulkOut, ConnType::BulkIn),
        ] {
            assert_eq!(mine.inverse(), yours);
            assert_eq!(ConnType::from_wire(mine as i32), Ok(mine));
        }
    }

    #[test]
    fn list_of_addresses() {
        let mut ips = IpVec::new();
        assert_eq!(ips.push(Ipv4Addr::UNSPECIFIED), Err(WireError::Ip));
        for _ in 0..MAX_IPS {
            assert_eq!(ips.push(Ipv4Addr::LOCALHOST), Ok(()));
        }
        assert_eq!(ips.push(Ipv4Addr::LOCALHOST), Err(WireError::Count(17)));
        assert_eq!(*ips, [Ipv4Addr::LOCALHOST; MAX_IPS]);
    }
}
