// SPDX-License-Identifier: GPL-2.0

//! Socket addresses as C has them.
//!
//! Plain values without state. They are composed and parsed byte by byte, at offsets that are compared
//! with those of C's types at build time.

use super::super::sys;
use core::{
    mem::offset_of,
    net::{
        IpAddr,
        Ipv4Addr,
        Ipv6Addr,
        SocketAddr,
        SocketAddrV4,
        SocketAddrV6, //
    },
};
use kernel::{
    bindings,
    prelude::*, //
};

const SIZE: usize = 128;

const FAMILY: usize = 0;
const PORT: usize = 2;
const V4_ADDR: usize = 4;
const V6_ADDR: usize = 8;
const V6_SCOPE: usize = 24;
const V4_SIZE: c_int = 16;
const V6_SIZE: c_int = 28;

static_assert!(SIZE == sys::SIZEOF_sockaddr_storage);
static_assert!(V4_SIZE as usize == sys::SIZEOF_sockaddr_in);
static_assert!(FAMILY == sys::OFFSETOF_sockaddr_in_sin_family);
static_assert!(PORT == sys::OFFSETOF_sockaddr_in_sin_port);
static_assert!(V4_ADDR == sys::OFFSETOF_sockaddr_in_sin_addr);
static_assert!(V6_SIZE as usize == sys::SIZEOF_sockaddr_in6);
static_assert!(FAMILY == sys::OFFSETOF_sockaddr_in6_sin6_family);
static_assert!(PORT == sys::OFFSETOF_sockaddr_in6_sin6_port);
static_assert!(V6_ADDR == sys::OFFSETOF_sockaddr_in6_sin6_addr);
static_assert!(V6_SCOPE == sys::OFFSETOF_sockaddr_in6_sin6_scope_id);
static_assert!(V4_ADDR == offset_of!(bindings::sockaddr_in, sin_addr));

// CAST: Small constants.
const AF_INET: u16 = bindings::AF_INET as u16;
const AF_INET6: u16 = bindings::AF_INET6 as u16;

/// The address family of a socket.
///
/// # Examples
///
/// ```
/// use core::net::{IpAddr, Ipv6Addr};
///
/// assert!(Family::of(IpAddr::V6(Ipv6Addr::LOCALHOST)) == Family::Inet6);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `AF_INET`: IPv4.
    Inet,
    /// `AF_INET6`: IPv6.
    Inet6,
}

impl Family {
    /// The family of an address.
    pub(crate) const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::Inet,
            IpAddr::V6(_) => Self::Inet6,
        }
    }

    /// The number that C has for it.
    pub(super) const fn as_raw(self) -> c_int {
        // CAST: Small constants.
        match self {
            Self::Inet => bindings::AF_INET as c_int,
            Self::Inet6 => bindings::AF_INET6 as c_int,
        }
    }
}

/// A `struct sockaddr_storage`.
///
/// # Examples
///
/// ```
/// use core::net::{Ipv4Addr, SocketAddr};
///
/// let raw = RawAddr::from(&SocketAddr::from((Ipv4Addr::LOCALHOST, 988)));
/// // In a `struct sockaddr_in`, the port is at offset 2.
/// let port = raw.as_ptr().wrapping_add(2).cast::<[u8; 2]>();
/// // SAFETY: It is within `raw`, and any bytes are valid.
/// assert_eq!(unsafe { port.read() }, 988u16.to_be_bytes());
/// ```
#[repr(C, align(8))]
pub(crate) struct RawAddr([u8; SIZE]);

impl RawAddr {
    /// An address of no family.
    pub(super) fn empty() -> Self {
        Self([0; SIZE])
    }

    fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        let bytes = self.0.get(offset..).and_then(|rest| rest.first_chunk());
        bytes.copied().unwrap_or([0; N])
    }

    fn set<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) {
        if let Some(to) = self
            .0
            .get_mut(offset..)
            .and_then(|rest| rest.first_chunk_mut())
        {
            *to = bytes;
        }
    }

    fn family(&self) -> u16 {
        u16::from_ne_bytes(self.get(FAMILY))
    }

    /// The length in bytes of the family's address structure.
    pub(super) fn len(&self) -> c_int {
        if self.family() == AF_INET6 {
            V6_SIZE
        } else {
            V4_SIZE
        }
    }

    /// The address for a function of C that only reads it. Its length is that of a `struct
    /// sockaddr_storage`.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    /// The address for a function of C that writes an address of any family.
    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// Parses the address; a mapped IPv4 address of an IPv6 socket becomes an IPv4 address.
    ///
    /// # Errors
    ///
    /// `EAFNOSUPPORT` if it is neither IPv4 nor IPv6.
    pub(super) fn parse(&self) -> Result<SocketAddr> {
        let port = u16::from_be_bytes(self.get(PORT));
        match self.family() {
            AF_INET => {
                let addr = Ipv4Addr::from(self.get::<4>(V4_ADDR));
                Ok(SocketAddrV4::new(addr, port).into())
            }
            AF_INET6 => {
                let addr = Ipv6Addr::from(self.get::<16>(V6_ADDR));
                if let Some(addr) = addr.to_ipv4_mapped() {
                    return Ok(SocketAddrV4::new(addr, port).into());
                }
                let scope = u32::from_ne_bytes(self.get(V6_SCOPE));
                Ok(SocketAddrV6::new(addr, port, 0, scope).into())
            }
            _ => Err(EAFNOSUPPORT),
        }
    }
}

impl From<&SocketAddr> for RawAddr {
    fn from(addr: &SocketAddr) -> Self {
        let mut raw = Self::empty();
        raw.set(PORT, addr.port().to_be_bytes());
        match addr {
            SocketAddr::V4(addr) => {
                raw.set(FAMILY, AF_INET.to_ne_bytes());
                raw.set(V4_ADDR, addr.ip().octets());
            }
            SocketAddr::V6(addr) => {
                raw.set(FAMILY, AF_INET6.to_ne_bytes());
                raw.set(V6_ADDR, addr.ip().octets());
                raw.set(V6_SCOPE, addr.scope_id().to_ne_bytes());
            }
        }
        raw
    }
}

#[kunit_tests(socklnd_lib_linux_addr)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive() -> Result {
        let v4 = SocketAddr::from(([192, 168, 1, 2], 988));
        let v6 = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 2, 3, 4), 65535, 0, 7);
        for addr in [v4, v6.into()] {
            assert!(RawAddr::from(&addr).parse()? == addr);
        }
        assert_eq!(
            RawAddr::from(&v4).0[..8],
            [2, 0, 988u16.to_be_bytes()[0], 220, 192, 168, 1, 2]
        );
        assert!(RawAddr::empty().parse().is_err());
        let mapped = SocketAddrV6::new(Ipv4Addr::new(192, 168, 1, 2).to_ipv6_mapped(), 988, 0, 0);
        assert!(RawAddr::from(&mapped.into()).parse()? == v4);
        Ok(())
    }
}
