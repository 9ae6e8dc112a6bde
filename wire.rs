// SPDX-License-Identifier: GPL-2.0

//! The formats on the wire: NIDs, the acceptor request, HELLOs and message headers.
//!
//! Plain values and functions on them: `core` only, no I/O, no allocation, no `unsafe`, no kernel
//! types. So the same files are built in user space, for property tests, fuzzing and the tools
//! (`tests/wire`). No lock protects anything here and nothing has to be freed: the holder of a value
//! owns it.
//!
//! Every received byte passes through a `parse` function of this module before other code uses it. No
//! input makes these functions panic, and their results are within the ranges that the documentation
//! of the types states.

use core::{
    fmt,
    mem, //
};

mod acceptor;
mod acks;
mod handshake;
mod hdr;
mod hello;
mod msg;
mod nid;
mod proto;
mod raw;

pub(crate) use acceptor::{
    AcceptorRequest,
    ACCEPTOR_REFUSAL,
    REQUEST_MAX, //
};
pub(crate) use acks::{
    acked_ranges,
    Acks,
    Added, //
};
pub(crate) use handshake::{
    HelloReader,
    Progress, //
};
pub(crate) use hdr::{
    Body,
    End,
    Foreign,
    Header,
    WireHandle,
    HEADER_LEN,
    LONG_HEADER_LEN,
    MAX_PAYLOAD,
    PID_LUSTRE, //
};
pub(crate) use hello::{
    ConnType,
    ConnTypes,
    Hello,
    IpVec,
    HELLO_MAX, //
};
pub(crate) use msg::{
    Checksum,
    Msg,
    MsgKind,
    COOKIE_PING,
    MSG_LEN, //
};
pub(crate) use nid::Nid;
pub(crate) use proto::{
    Fit,
    MsgClass,
    Proto,
    MAX_HDR, //
};
pub(crate) use raw::RawHeader;

/// Magic of a HELLO of version 1, as a number; always sent in little-endian order.
const HELLO_MAGIC_V1: u32 = 0xeebc_0ded;
/// Magic of a HELLO of version 2 and later, and of a future acceptor; in the sender's byte order.
const LNET_MAGIC: u32 = 0x4572_6963;
/// Magic of an acceptor request and of the refusal; in the sender's byte order.
const ACCEPTOR_MAGIC: u32 = 0xacce_7100;

/// An error in received bytes, or in a value that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// Fewer bytes than the format has.
    Truncated,
    /// Not the magic of a format that is allowed here.
    Magic(u32),
    /// The right magic, but a version that this parser does not know.
    Version(u32),
    /// Not a message type, or not the type that is required here.
    Type(u32),
    /// Not the NID of a host on a TCP network, or one that the format can't represent.
    Nid,
    /// A NID on a network of this other LND type.
    NetType(u8),
    /// A message whose target or source is on a network of another type.
    Foreign(Foreign),
    /// 0 in a list of IP addresses.
    Ip,
    /// A payload length that is too large, or not allowed for this type of message.
    Length(u32),
    /// Not a type of connection.
    ConnType(i32),
    /// More IP addresses than a HELLO can have.
    Count(u32),
    /// Not the cookie of a zero-copy message, or one that was acknowledged before.
    Cookie(u64),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated => f.write_str("truncated"),
            Self::Magic(magic) => write!(f, "unknown magic {magic:#010x}"),
            Self::Version(version) => write!(f, "unknown version {version:#x}"),
            Self::Type(kind) => write!(f, "unexpected message type {kind:#x}"),
            Self::Nid => f.write_str("not a TCP NID"),
            Self::NetType(kind) => write!(f, "a NID of network type {kind}"),
            Self::Foreign(foreign) => write!(f, "a message {foreign}"),
            Self::Ip => f.write_str("IP address 0"),
            Self::Length(len) => write!(f, "bad payload length {len}"),
            Self::ConnType(kind) => write!(f, "unknown connection type {kind}"),
            Self::Count(count) => write!(f, "{count} IP addresses are too many"),
            Self::Cookie(cookie) => write!(f, "bad zero-copy cookie {cookie:#x}"),
        }
    }
}

/// The byte order of a sender's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    /// The lowest byte first.
    Little,
    /// The highest byte first.
    Big,
}

impl ByteOrder {
    /// The byte order of this machine.
    pub(crate) const NATIVE: Self = if cfg!(target_endian = "big") {
        Self::Big
    } else {
        Self::Little
    };
}

/// Reads values from the front of received bytes.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
}

impl<'a> Reader<'a> {
    /// Of `bytes`, with numbers in this `order`.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], order: ByteOrder) -> Self {
        Self { bytes, order }
    }

    /// The bytes that are left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next `N` bytes.
    #[inline]
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.bytes.split_first_chunk().ok_or(WireError::Truncated)?;
        self.bytes = tail;
        Ok(*head)
    }

    /// The next 4 bytes, a number.
    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        let bytes = self.take()?;
        Ok(match self.order {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        })
    }

    #[inline]
    fn i32(&mut self) -> Result<i32, WireError> {
        // CAST: The same bits.
        self.u32().map(|value| value as i32)
    }

    /// The next 8 bytes, a number.
    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        let bytes = self.take()?;
        Ok(match self.order {
            ByteOrder::Little => u64::from_le_bytes(bytes),
            ByteOrder::Big => u64::from_be_bytes(bytes),
        })
    }

    /// A NID of 64 bits.
    #[inline]
    fn nid(&mut self) -> Result<Nid, WireError> {
        Nid::from_nid4(self.u64()?)
    }

    /// A NID of 20 bytes, which are in network order everywhere.
    #[inline]
    fn long_nid(&mut self) -> Result<Nid, WireError> {
        Nid::from_bytes20(&self.take()?)
    }
}

/// Writes values to the front of a buffer.
pub(crate) struct Writer<'a> {
    room: &'a mut [u8],
    order: ByteOrder,
}

impl<'a> Writer<'a> {
    /// Into `room`, with numbers in this `order`.
    #[inline]
    pub(crate) fn new(room: &'a mut [u8], order: ByteOrder) -> Self {
        Self { room, order }
    }

    /// Puts `N` bytes there. `Truncated` if there is no room for them.
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, value: [u8; N]) -> Result<(), WireError> {
        let (head, tail) = mem::take(&mut self.room)
            .split_first_chunk_mut()
            .ok_or(WireError::Truncated)?;
        *head = value;
        self.room = tail;
        Ok(())
    }

    /// Puts a number of 4 bytes there.
    #[inline]
    pub(crate) fn u32(&mut self, value: u32) -> Result<(), WireError> {
        self.put(match self.order {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        })
    }

    #[inline]
    fn i32(&mut self, value: i32) -> Result<(), WireError> {
        // CAST: The same bits.
        self.u32(value as u32)
    }

    /// Puts a number of 8 bytes there.
    #[inline]
    pub(crate) fn u64(&mut self, value: u64) -> Result<(), WireError> {
        self.put(match self.order {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        })
    }

    /// A NID of 64 bits.
    #[inline]
    fn nid(&mut self, nid: Nid) -> Result<(), WireError> {
        self.u64(nid.to_nid4().ok_or(WireError::Nid)?)
    }

    /// A NID of 20 bytes.
    #[inline]
    fn long_nid(&mut self, nid: Nid) -> Result<(), WireError> {
        if nid.addr().is_unspecified() {
            return Err(WireError::Nid);
        }
        self.put(nid.to_bytes20())
    }
}

/// The kernel's printing macros ask for the kernel's own `Display`.
#[cfg(MODULE)]
mod print {
    use super::{
        fmt,
        Foreign,
        Nid,
        WireError, //
    };

    macro_rules! forward_display {
        ($($type:ty),+) => {$(
            impl kernel::fmt::Display for $type {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    fmt::Display::fmt(self, f)
                }
            }
        )+};
    }

    forward_display!(Foreign, Nid, WireError);
}

/// Whether `value` is displayed as `text`; for tests, which can't allocate in the kernel.
#[cfg(any(test, CONFIG_KUNIT = "y"))]
fn shows(value: impl fmt::Display, text: &str) -> bool {
    struct Rest<'a>(&'a str);

    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }

    let mut rest = Rest(text);
    fmt::write(&mut rest, format_args!("{value}")).is_ok() && rest.0.is_empty()
}
