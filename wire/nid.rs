// SPDX-License-Identifier: GPL-2.0

//! NIDs: the identifiers of nodes on a network.
//!
//! A NID has the type of the network (the LND type), the network's number and the address on it. The only
//! type here is TCP. Two forms are on the wire: `nid4`, a 64-bit number in the byte order of the message, and
//! the 20-byte form, always in network order.
//!
//! A NID is a plain value: nothing protects it and nothing has to be freed.

use super::WireError;
use core::{
    cmp::Ordering,
    fmt,
    net::{
        IpAddr,
        Ipv4Addr,
        Ipv6Addr, //
    }, //
};

/// LND type of TCP networks.
const SOCKLND: u8 = 2;
/// LND type in "any", which is all ones.
const ANY: u8 = 0xff;

/// The most bytes that an address in the 20-byte form can have beyond 4.
const MAX_LONGER: u8 = 12;

/// The error for a NID that is well-formed but for its LND type, `kind`.
fn other_type(kind: u8) -> WireError {
    match kind {
        0 | SOCKLND | ANY => WireError::Nid,
        _ => WireError::NetType(kind),
    }
}

/// The identifier of a node on a TCP network.
///
/// NIDs are ordered as their 20-byte forms, byte by byte. By this order two nodes that connect to each other at
/// once agree on which connection stays. A received NID is what the sender claims, and proves nothing.
///
/// # Invariants
///
/// `addr` is not an IPv4-mapped IPv6 address, so that each node has one NID for an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Nid {
    net: u16,
    addr: IpAddr,
}

impl Nid {
    /// The NID of `addr` on TCP network number `net`.
    pub(crate) fn tcp(net: u16, addr: impl Into<IpAddr>) -> Self {
        // INVARIANT: `to_canonical` turns IPv4-mapped addresses into IPv4 ones.
        Self {
            net,
            addr: addr.into().to_canonical(),
        }
    }

    /// Number of the TCP network.
    #[inline]
    pub(crate) fn net(self) -> u16 {
        self.net
    }

    /// Address on that network.
    #[inline]
    pub(crate) fn addr(self) -> IpAddr {
        self.addr
    }

    /// Whether a node can have this NID: its address is a unicast address that other nodes can reach, so not a
    /// loopback, multicast or broadcast address, nor an IPv6 link-local one, which needs a device that a NID
    /// does not have.
    pub(crate) fn is_of_a_node(self) -> bool {
        let addr = self.addr;
        let of_one = !addr.is_unspecified() && !addr.is_multicast() && !addr.is_loopback();
        of_one
            && match addr {
                IpAddr::V4(addr) => !addr.is_broadcast(),
                IpAddr::V6(addr) => !addr.is_unicast_link_local(),
            }
    }

    /// The 64-bit form, or `None` for an IPv6 address, which has none, and for the address 0,
    /// which [`Nid::from_nid4`] would refuse.
    #[inline]
    pub(crate) fn to_nid4(self) -> Option<u64> {
        let IpAddr::V4(addr) = self.addr else {
            return None;
        };
        let nid = u64::from(SOCKLND) << 48 | u64::from(self.net) << 32 | u64::from(addr.to_bits());
        (!addr.is_unspecified()).then_some(nid)
    }

    /// Parses the 64-bit form.
    ///
    /// # Errors
    ///
    /// - [`WireError::NetType`] if the LND type is another than TCP's.
    /// - [`WireError::Nid`] if there is no such type (so for "any", which is all ones), or the
    ///   address is 0.
    #[inline]
    pub(crate) fn from_nid4(nid: u64) -> Result<Self, WireError> {
        let [0, kind, net1, net0, a, b, c, d] = nid.to_be_bytes() else {
            return Err(WireError::Nid);
        };
        if kind != SOCKLND {
            return Err(other_type(kind));
        }
        let addr = Ipv4Addr::new(a, b, c, d);
        if addr.is_unspecified() {
            return Err(WireError::Nid);
        }
        // INVARIANT: This is an IPv4 address.
        Ok(Self {
            net: u16::from_be_bytes([net1, net0]),
            addr: addr.into(),
        })
    }

    /// Parses the 20-byte form.
    ///
    /// # Errors
    ///
    /// - [`WireError::NetType`] if the LND type is another than TCP's.
    /// - [`WireError::Nid`] if there is no such type (so for "any") or the length can't be; of TCP's,
    ///   if the length is not that of an IPv4 or an IPv6 address, if what pads an IPv4 address is not
    ///   0, or if the address is 0 or an IPv4 address in its IPv6 form.
    #[inline]
    pub(crate) fn from_bytes20(bytes: &[u8; 20]) -> Result<Self, WireError> {
        let [longer, kind, net1, net0, addr @ ..] = *bytes;
        if kind != SOCKLND {
            return Err(match longer {
                0..=MAX_LONGER => other_type(kind),
                _ => WireError::Nid,
            });
        }
        let bits = u128::from_be_bytes(addr);
        let addr: IpAddr = match longer {
            // CAST: The other bits are 0.
            0 if bits << 32 == 0 => Ipv4Addr::from_bits((bits >> 96) as u32).into(),
            12 => Ipv6Addr::from_bits(bits).into(),
            _ => return Err(WireError::Nid),
        };
        if addr.is_unspecified() || addr.to_canonical() != addr {
            return Err(WireError::Nid);
        }
        // INVARIANT: Just checked.
        Ok(Self {
            net: u16::from_be_bytes([net1, net0]),
            addr,
        })
    }

    /// The 20-byte form: length of the address beyond 4 bytes, LND type, network number, and the
    /// address, padded with 0 at the end.
    pub(crate) fn to_bytes20(self) -> [u8; 20] {
        let (longer, addr) = match self.addr {
            IpAddr::V4(addr) => (0, u128::from(addr.to_bits()) << 96),
            IpAddr::V6(addr) => (12, addr.to_bits()),
        };
        let [net1, net0] = self.net.to_be_bytes();
        let head = [longer, SOCKLND, net1, net0];
        let whole = head.into_iter().chain(addr.to_be_bytes());

        let mut bytes = [0; 20];
        for (to, from) in bytes.iter_mut().zip(whole) {
            *to = from;
        }
        bytes
    }
}

impl Ord for Nid {
    fn cmp(&self, other: &Self) -> Ordering {
        // That of the 20-byte forms, without making them: the length of the address comes first there.
        let key = |nid: &Self| (nid.addr.is_ipv6(), nid.net, nid.addr);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Nid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As administrators write it: `10.0.0.1@tcp` on network 0, `10.0.0.1@tcp7` on network 7.
impl fmt::Display for Nid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.net {
            0 => write!(f, "{}@tcp", self.addr),
            net => write!(f, "{}@tcp{net}", self.addr),
        }
    }
}

impl fmt::Debug for Nid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads what `Display` writes, and `tcp0` for `tcp`; nothing looser than that.
///
/// For the tools: the kernel is given numbers. So the module needs none of `core`'s text search,
/// and no code that could panic.
#[cfg(not(MODULE))]
impl core::str::FromStr for Nid {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let (addr, net) = text.split_once("@tcp").ok_or(WireError::Nid)?;
        let addr: IpAddr = addr.parse().map_err(|_| WireError::Nid)?;
        let net = match net {
            "" | "0" => 0,
            // `u16::from_str` would also take a sign and leading zeros.
            _ if !net.starts_with(|c| matches!(c, '1'..='9')) => return Err(WireError::Nid),
            _ => net.parse().map_err(|_| WireError::Nid)?,
        };
        let nid = Self::tcp(net, addr);
        // Only now: 0 in its IPv6 form is 0 as well.
        if nid.addr.is_unspecified() {
            return Err(WireError::Nid);
        }
        Ok(nid)
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_wire_nid))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::{
        super::shows,
        *, //
    };

    #[test]
    fn nid4() -> Result<(), WireError> {
        let nid = Nid::tcp(7, Ipv4Addr::new(192, 168, 77, 2));
        assert_eq!(nid.to_nid4(), Some(0x0002_0007_c0a8_4d02));
        assert_eq!(Nid::from_nid4(0x0002_0007_c0a8_4d02)?, nid);
        assert_eq!(nid.net(), 7);
        assert_eq!(nid.addr(), IpAddr::from([192, 168, 77, 2]));
        Ok(())
    }

    #[test]
    fn nid4_of_others_is_refused() {
        for nid in [
            u64::MAX,
            0,
            0x0002_0000_0000_0000, // address 0
            0x0000_0000_c0a8_4d02, // no LND type
            0x0102_0000_c0a8_4d02, // a type above 255 that ends like TCP's
            0x024d_a8c0_0000_0200, // TCP's, but in the wrong byte order
        ] {
            assert_eq!(Nid::from_nid4(nid), Err(WireError::Nid));
        }
        for (nid, kind) in [
            (0x0005_0000_c0a8_4d02, 5), // InfiniBand
            (0x0009_0000_0000_0000, 9), // loopback
            (0x000d_0007_0000_0003, 13),
        ] {
            assert_eq!(Nid::from_nid4(nid), Err(WireError::NetType(kind)));
        }
        assert_eq!(Nid::tcp(0, Ipv4Addr::UNSPECIFIED).to_nid4(), None);
        assert_eq!(Nid::tcp(0, [0u16, 0, 0, 0, 0, 0, 0, 1]).to_nid4(), None);
    }

    #[test]
    fn addresses_of_nodes() {
        for addr in [
            [10, 0, 0, 1],
            [10, 0, 0, 255],
            [169, 254, 0, 1],
            [240, 0, 0, 1],
        ] {
            assert!(Nid::tcp(0, addr).is_of_a_node());
        }
        for addr in [
            [0; 4],
            [127, 0, 0, 1],
            [127, 9, 9, 9],
            [224, 0, 0, 1],
            [255; 4],
        ] {
            assert!(!Nid::tcp(0, addr).is_of_a_node());
        }
        for (first, last, expected) in [
            (0xfd00, 1, true),
            (0xfec0, 3, true),
            (0xfe80, 3, false),
            (0xff02, 1, false),
            (0, 1, false),
            (0, 0, false),
        ] {
            let nid = Nid::tcp(0, [first, 0u16, 0, 0, 0, 0, 0, last]);
            assert_eq!(nid.is_of_a_node(), expected);
        }
    }

    #[test]
    fn bytes20() {
        let v4 = Nid::tcp(0x102, [10, 0, 0, 9]);
        let v6 = Nid::tcp(1, [0xfe80u16, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(
            v4.to_bytes20(),
            [0, 2, 1, 2, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            v6.to_bytes20(),
            [12, 2, 0, 1, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]
        );
        assert!(v4 < v6);
        assert!(v4 < Nid::tcp(0x102, [10, 0, 1, 0]));
        assert!(v4 > Nid::tcp(0x101, [11, 0, 0, 0]));
        // An IPv4-mapped address is the same NID.
        assert_eq!(v4, Nid::tcp(0x102, [0u16, 0, 0, 0, 0, 0xffff, 0x0a00, 9]));
        for nid in [v4, v6] {
            assert_eq!(Nid::from_bytes20(&nid.to_bytes20()), Ok(nid));
        }
    }

    #[test]
    fn bytes20_of_others_are_refused() {
        let v4 = Nid::tcp(0, [10, 0, 0, 9]).to_bytes20();
        let v6 = Nid::tcp(0, [0xfe80u16, 0, 0, 0, 0, 0, 0, 3]).to_bytes20();
        let with = |of: [u8; 20], at: usize, byte| {
            let mut bytes = of;
            bytes[at] = byte;
            Nid::from_bytes20(&bytes)
        };
        for longer in [1, 4, 8, 11, 13, 16, 252, 255] {
            assert_eq!(with(v4, 0, longer), Err(WireError::Nid));
            assert_eq!(with(v6, 0, longer), Err(WireError::Nid));
        }
        for kind in [0, 255] {
            assert_eq!(with(v4, 1, kind), Err(WireError::Nid));
            assert_eq!(with(v6, 1, kind), Err(WireError::Nid));
        }
        for kind in [1, 5, 9, 254] {
            assert_eq!(with(v4, 1, kind), Err(WireError::NetType(kind)));
            assert_eq!(with(v6, 1, kind), Err(WireError::NetType(kind)));
        }
        // Longer than the form.
        let mut long = v6;
        long[..2].copy_from_slice(&[13, 5]);
        assert_eq!(Nid::from_bytes20(&long), Err(WireError::Nid));
        // An IPv6 address that claims to be a shorter one, and garbage behind an IPv4 address.
        assert_eq!(with(v6, 0, 0), Err(WireError::Nid));
        for at in 8..20 {
            assert_eq!(with(v4, at, 1), Err(WireError::Nid));
        }
        // 0, "any", and a second name for an IPv4 address.
        for addr in [0, 0xffff_0a00_0009] {
            for longer in [0, 12] {
                let mut bytes = [longer, SOCKLND, 0, 0]
                    .into_iter()
                    .chain(u128::to_be_bytes(addr));
                let bytes = [(); 20].map(|()| bytes.next().unwrap_or(0));
                assert_eq!(Nid::from_bytes20(&bytes), Err(WireError::Nid));
            }
        }
        assert_eq!(Nid::from_bytes20(&[0xff; 20]), Err(WireError::Nid));
    }

    #[test]
    fn text() {
        let v4 = [10, 0, 0, 1];
        let v6 = [0xfe80u16, 0, 0, 0, 0, 0, 0, 3];
        assert!(shows(Nid::tcp(0, v4), "10.0.0.1@tcp"));
        assert!(shows(Nid::tcp(65535, v4), "10.0.0.1@tcp65535"));
        assert!(shows(Nid::tcp(7, v6), "fe80::3@tcp7"));
    }
}

/// What only user space has.
#[cfg(test)]
mod parsing {
    use super::*;

    #[test]
    fn text() {
        let v4 = [10, 0, 0, 1];
        let v6 = [0xfe80u16, 0, 0, 0, 0, 0, 0, 3];
        assert_eq!("10.0.0.1@tcp".parse(), Ok(Nid::tcp(0, v4)));
        assert_eq!("10.0.0.1@tcp0".parse(), Ok(Nid::tcp(0, v4)));
        assert_eq!("10.0.0.1@tcp65535".parse(), Ok(Nid::tcp(65535, v4)));
        assert_eq!("fe80::3@tcp7".parse(), Ok(Nid::tcp(7, v6)));
        for bad in [
            "",
            "10.0.0.1",
            "@tcp",
            "10.0.0.1@",
            "10.0.0.1@TCP",
            "10.0.0.1@o2ib",
            "10.0.0.1@tcp65536",
            "10.0.0.1@tcp00",
            "10.0.0.1@tcp07",
            "10.0.0.1@tcp+7",
            "10.0.0.1@tcp-1",
            "10.0.0.1@tcp 7",
            "10.0.0.1@tcp7 ",
            " 10.0.0.1@tcp7",
            "10.0.0.1@tcp@tcp",
            "10.0.0@tcp",
            "010.0.0.1@tcp",
            "0.0.0.0@tcp",
            "::@tcp",
            "::ffff:0.0.0.0@tcp",
        ] {
            assert_eq!(bad.parse::<Nid>(), Err(WireError::Nid));
        }
    }
}
