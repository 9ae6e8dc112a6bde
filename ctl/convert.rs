// SPDX-License-Identifier: GPL-2.0

//! Converts between the structures of the ioctl interface and the driver's types.
//!
//! All values from user space are checked here, before a request has any effect. Plain functions on values:
//! there is nothing to protect or to free.

use super::ffi as uapi;
use crate::wire::{
    ConnType,
    Nid, //
};
use core::net::{
    IpAddr,
    Ipv4Addr,
    Ipv6Addr,
    SocketAddr, //
};
use kernel::{
    prelude::*,
    time::Delta, //
};

/// The LND type of all NIDs here, as wide as in the structures.
const LND_TCP: u16 = uapi::SOCKLND_LND_TCP as u16;
const LND_ANY: u16 = uapi::SOCKLND_LND_ANY as u16;

const FAMILY_ANY: u8 = uapi::SOCKLND_ADDR_ANY as u8;
const FAMILY_IPV4: u8 = uapi::SOCKLND_ADDR_IPV4 as u8;
const FAMILY_IPV6: u8 = uapi::SOCKLND_ADDR_IPV6 as u8;

/// Which NIDs a request applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// All.
    Any,
    /// All of the network with this number.
    Net(u16),
    /// This one.
    One(Nid),
}

impl Pattern {
    /// Whether the request applies to `nid`.
    pub(crate) fn matches(self, nid: Nid) -> bool {
        match self {
            Self::Any => true,
            Self::Net(net) => nid.net() == net,
            Self::One(one) => nid == one,
        }
    }

    /// The result of a request that has found nothing: `ENOENT` if it was for one NID.
    pub(crate) fn check_none_found(self) -> Result {
        match self {
            Self::One(_) => Err(ENOENT),
            Self::Any | Self::Net(_) => Ok(()),
        }
    }
}

/// Refuses a request unless all of `values`, which are reserved members, are zero.
pub(crate) fn check_zero<const N: usize>(values: [u32; N]) -> Result {
    if values == [0; N] {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// Refuses flags other than those `known`.
pub(crate) fn check_flags(flags: u32, known: u32) -> Result {
    check_zero([flags & !known])
}

/// Converts a timeout in milliseconds. `EINVAL` if it is zero or too long.
pub(crate) fn timeout(ms: u32) -> Result<Delta> {
    if (1..=uapi::SOCKLND_MAX_TIMEOUT_MS).contains(&ms) {
        Ok(Delta::from_millis(ms.into()))
    } else {
        Err(EINVAL)
    }
}

/// Whether one host can have this address.
pub(crate) fn is_of_a_host(addr: Ipv4Addr) -> bool {
    !addr.is_unspecified() && !addr.is_multicast() && !addr.is_broadcast()
}

/// Converts an address; `None` is "any".
///
/// # Errors
///
/// - `EINVAL` if it is malformed, or not the address of a host.
/// - `EAFNOSUPPORT` if it is a link-local IPv6 address: the structure has no device for its scope.
pub(crate) fn addr(raw: &uapi::socklnd_addr) -> Result<Option<IpAddr>> {
    if raw.pad != [0; 3] {
        return Err(EINVAL);
    }
    let [a, b, c, d, rest @ ..] = raw.addr;
    match raw.family {
        FAMILY_ANY if raw.addr == [0; 16] => Ok(None),
        FAMILY_IPV4 if rest == [0; 12] => {
            let addr = Ipv4Addr::new(a, b, c, d);
            if !is_of_a_host(addr) {
                return Err(EINVAL);
            }
            Ok(Some(addr.into()))
        }
        FAMILY_IPV6 => {
            let addr = Ipv6Addr::from(raw.addr);
            // An IPv4 address has its own form.
            if addr.is_unspecified() || addr.is_multicast() || addr.to_ipv4_mapped().is_some() {
                return Err(EINVAL);
            }
            if addr.is_unicast_link_local() {
                return Err(EAFNOSUPPORT);
            }
            Ok(Some(addr.into()))
        }
        _ => Err(EINVAL),
    }
}

/// Converts a pattern of NIDs. The errors are those of [`addr`].
pub(crate) fn pattern(raw: &uapi::socklnd_nid) -> Result<Pattern> {
    match (raw.lnd, raw.net, addr(&raw.addr)?) {
        (LND_ANY, 0, None) => Ok(Pattern::Any),
        (LND_TCP, net, None) => Ok(Pattern::Net(net)),
        (LND_TCP, net, Some(addr)) => Ok(Pattern::One(Nid::tcp(net, addr))),
        _ => Err(EINVAL),
    }
}

/// Converts a NID. The errors are those of [`addr`]; `EINVAL` too if no other node could reach it.
pub(crate) fn nid(raw: &uapi::socklnd_nid) -> Result<Nid> {
    match pattern(raw)? {
        Pattern::One(nid) if nid.is_of_a_node() => Ok(nid),
        Pattern::One(_) | Pattern::Any | Pattern::Net(_) => Err(EINVAL),
    }
}

/// Converts a network; `None` is any. `EINVAL` for a NID.
pub(crate) fn network(raw: &uapi::socklnd_nid) -> Result<Option<u16>> {
    match pattern(raw)? {
        Pattern::Any => Ok(None),
        Pattern::Net(net) => Ok(Some(net)),
        Pattern::One(_) => Err(EINVAL),
    }
}

/// A network for user space.
pub(crate) fn raw_network(net: u16) -> uapi::socklnd_nid {
    uapi::socklnd_nid {
        lnd: LND_TCP,
        net,
        ..Default::default()
    }
}

/// An address for user space.
pub(crate) fn raw_addr(addr: IpAddr) -> uapi::socklnd_addr {
    let mut raw = uapi::socklnd_addr::default();
    match addr {
        IpAddr::V4(addr) => {
            raw.family = FAMILY_IPV4;
            for (to, from) in raw.addr.iter_mut().zip(addr.octets()) {
                *to = from;
            }
        }
        IpAddr::V6(addr) => {
            raw.family = FAMILY_IPV6;
            raw.addr = addr.octets();
        }
    }
    raw
}

/// An address and a port for user space. An IPv4 address of an IPv6 socket is converted to IPv4.
pub(crate) fn raw_socket(addr: SocketAddr) -> (uapi::socklnd_addr, u16) {
    (raw_addr(addr.ip().to_canonical()), addr.port())
}

/// A NID for user space.
pub(crate) fn raw_nid(nid: Nid) -> uapi::socklnd_nid {
    uapi::socklnd_nid {
        lnd: LND_TCP,
        net: nid.net(),
        addr: raw_addr(nid.addr()),
    }
}

/// Converts the length of the subnet prefix of `addr`.
pub(crate) fn prefix_len(addr: IpAddr, raw: u32) -> Result<u8> {
    let most = if addr.is_ipv4() { 32 } else { 128 };
    u8::try_from(raw)
        .ok()
        .filter(|len| *len <= most)
        .ok_or(EINVAL)
}

/// Converts a type of connections; `None` is for one that the peer will choose.
pub(crate) fn conn_type(raw: u32) -> Result<Option<ConnType>> {
    Ok(Some(match raw {
        uapi::SOCKLND_CONN_NONE => return Ok(None),
        uapi::SOCKLND_CONN_ANY => ConnType::Any,
        uapi::SOCKLND_CONN_CONTROL => ConnType::Control,
        uapi::SOCKLND_CONN_BULK_IN => ConnType::BulkIn,
        uapi::SOCKLND_CONN_BULK_OUT => ConnType::BulkOut,
        _ => return Err(EINVAL),
    }))
}

/// A type of connections for user space.
pub(crate) fn raw_conn_type(kind: ConnType) -> u32 {
    match kind {
        ConnType::Any => uapi::SOCKLND_CONN_ANY,
        ConnType::Control => uapi::SOCKLND_CONN_CONTROL,
        ConnType::BulkIn => uapi::SOCKLND_CONN_BULK_IN,
        ConnType::BulkOut => uapi::SOCKLND_CONN_BULK_OUT,
    }
}

/// A count for user space. Saturates; larger ones do not occur.
pub(crate) fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The number of an error, for user space.
pub(crate) fn errno(error: Error) -> u32 {
    error.to_errno().unsigned_abs()
}

#[kunit_tests(socklnd_ctl_convert)]
mod tests {
    use super::*;

    fn ipv4(octets: [u8; 4]) -> uapi::socklnd_addr {
        raw_addr(octets.into())
    }

    fn tcp(net: u16, addr: uapi::socklnd_addr) -> uapi::socklnd_nid {
        uapi::socklnd_nid {
            lnd: LND_TCP,
            net,
            addr,
        }
    }

    #[test]
    fn addresses_go_there_and_back() {
        assert_eq!(addr(&ipv4([10, 0, 0, 1])), Ok(Some([10, 0, 0, 1].into())));
        assert_eq!(addr(&uapi::socklnd_addr::default()), Ok(None));
        let raw = ipv4([10, 0, 0, 1]);
        assert_eq!(raw.family, 4);
        assert!(raw.addr == [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let (raw, port) = raw_socket(SocketAddr::new(
            [0u16, 0, 0, 0, 0, 0xffff, 0x0a00, 9].into(),
            988,
        ));
        assert_eq!(port, 988);
        assert_eq!(addr(&raw), Ok(Some([10, 0, 0, 9].into())));
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for index in 0..3 {
            let mut raw = ipv4([10, 0, 0, 1]);
            raw.pad[index] = 1;
            assert_eq!(addr(&raw), Err(EINVAL));
        }
        for index in 4..16 {
            let mut raw = ipv4([10, 0, 0, 1]);
            raw.addr[index] = 1;
            assert_eq!(addr(&raw), Err(EINVAL));
        }
        for index in 0..16 {
            let mut raw = uapi::socklnd_addr::default();
            raw.addr[index] = 1;
            assert_eq!(addr(&raw), Err(EINVAL));
        }
        for family in (0..=255).filter(|f| ![0, 4, 6].contains(f)) {
            let mut raw = ipv4([10, 0, 0, 1]);
            raw.family = family;
            assert_eq!(addr(&raw), Err(EINVAL));
        }
        for octets in [[0; 4], [255; 4], [224, 0, 0, 1], [239, 255, 255, 255]] {
            assert_eq!(addr(&ipv4(octets)), Err(EINVAL));
        }
    }

    #[test]
    fn addresses_of_ipv6() {
        let good = [0xfd00u16, 0, 0, 0, 0, 0, 0, 3];
        let mut raw = raw_addr(good.into());
        assert_eq!(raw.family, 6);
        assert_eq!(addr(&raw), Ok(Some(good.into())));
        assert_eq!(nid(&tcp(7, raw)), Ok(Nid::tcp(7, good)));
        assert!(raw_nid(Nid::tcp(7, good)).addr.addr == raw.addr);
        raw.pad[0] = 1;
        assert_eq!(addr(&raw), Err(EINVAL));
        for (bad, why) in [
            ([0u16; 8], EINVAL),
            ([0xff02, 0, 0, 0, 0, 0, 0, 1], EINVAL),
            ([0, 0, 0, 0, 0, 0xffff, 0x0a00, 9], EINVAL),
            ([0xfe80, 0, 0, 0, 0, 0, 0, 3], EAFNOSUPPORT),
            ([0xfebf, 0, 0, 0, 0, 0, 0, 3], EAFNOSUPPORT),
        ] {
            let raw = raw_addr(bad.into());
            assert_eq!(addr(&raw), Err(why));
            assert_eq!(nid(&tcp(0, raw)), Err(why));
        }
        // Of a route it may be the address, where a program of this node's takes it from there.
        for host in [[127, 0, 0, 1].into(), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            assert_eq!(addr(&raw_addr(host)), Ok(Some(host)));
            assert_eq!(nid(&tcp(0, raw_addr(host))), Err(EINVAL));
        }
    }

    #[test]
    fn patterns() {
        let any = uapi::socklnd_addr::default();
        let one = Nid::tcp(7, [10, 0, 0, 1]);
        assert_eq!(pattern(&uapi::socklnd_nid::default()), Ok(Pattern::Any));
        assert_eq!(pattern(&tcp(7, any)), Ok(Pattern::Net(7)));
        assert_eq!(pattern(&raw_nid(one)), Ok(Pattern::One(one)));
        assert_eq!(nid(&raw_nid(one)), Ok(one));
        assert_eq!(nid(&tcp(7, any)), Err(EINVAL));
        assert_eq!(nid(&uapi::socklnd_nid::default()), Err(EINVAL));

        assert!(Pattern::Any.matches(one));
        assert!(Pattern::Net(7).matches(one));
        assert!(!Pattern::Net(0).matches(one));
        assert!(Pattern::One(one).matches(one));
        assert!(!Pattern::One(one).matches(Nid::tcp(7, [10, 0, 0, 2])));
        assert_eq!(Pattern::One(one).check_none_found(), Err(ENOENT));
        assert_eq!(Pattern::Net(7).check_none_found(), Ok(()));
    }

    #[test]
    fn malformed_nids_are_refused() {
        let addr = ipv4([10, 0, 0, 1]);
        // A network without its type, and types of other networks.
        for lnd in [0, 1, 3, 5, 9, 0x0200, 0xffff] {
            assert_eq!(
                pattern(&uapi::socklnd_nid { lnd, net: 7, addr }),
                Err(EINVAL)
            );
            let any = uapi::socklnd_addr::default();
            let raw = uapi::socklnd_nid {
                lnd,
                net: 7,
                addr: any,
            };
            assert_eq!(pattern(&raw), Err(EINVAL));
        }
        let raw = uapi::socklnd_nid {
            lnd: 0,
            net: 0,
            addr,
        };
        assert_eq!(pattern(&raw), Err(EINVAL));
    }

    #[test]
    fn prefixes_fit_their_addresses() {
        let addr = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(prefix_len(addr, 0), Ok(0));
        assert_eq!(prefix_len(addr, 32), Ok(32));
        for raw in [33, 256, 256 + 24, u32::MAX] {
            assert_eq!(prefix_len(addr, raw), Err(EINVAL));
        }
        let addr = IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(prefix_len(addr, 128), Ok(128));
        assert_eq!(prefix_len(addr, 129), Err(EINVAL));
    }

    #[test]
    fn types_go_there_and_back() {
        for raw in 0..4 {
            let kind = conn_type(raw).ok().flatten();
            assert_eq!(kind.map(raw_conn_type), Some(raw));
        }
        assert_eq!(conn_type(u32::MAX), Ok(None));
        for raw in [4, 5, u32::MAX - 1] {
            assert_eq!(conn_type(raw), Err(EINVAL));
        }
    }

    #[test]
    fn reserved_members_flags_and_times() {
        assert_eq!(check_zero([0, 0]), Ok(()));
        assert_eq!(check_zero([0, 1]), Err(EINVAL));
        assert_eq!(check_flags(1, 1), Ok(()));
        assert_eq!(check_flags(3, 1), Err(EINVAL));
        assert_eq!(check_flags(1 << 31, 1), Err(EINVAL));
        assert_eq!(timeout(0), Err(EINVAL));
        assert_eq!(timeout(1), Ok(Delta::from_millis(1)));
        assert!(timeout(uapi::SOCKLND_MAX_TIMEOUT_MS).is_ok());
        assert_eq!(timeout(uapi::SOCKLND_MAX_TIMEOUT_MS + 1), Err(EINVAL));
        assert_eq!(errno(ETIMEDOUT), 110);
        assert_eq!(count(usize::MAX), u32::MAX);
    }
}
