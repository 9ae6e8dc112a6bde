// SPDX-License-Identifier: GPL-2.0

//! NIDs, patterns of NIDs and IP addresses: conversions between text, the uapi structures and Rust's types.

use crate::{
    repo::wire::{Nid, WireError},
    uapi,
};
use serde::{Serialize, Serializer};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

/// Which NIDs a request is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Every NID.
    #[default]
    Any,
    /// Every NID of one network.
    Net(u16),
    One(Nid),
}

impl Pattern {
    /// Reads the name of a network, `tcp7`.
    pub(crate) fn network(text: &str) -> Option<Self> {
        // It is read by the NID's parser, which knows the rules for its number.
        let nid = format!("127.0.0.1@{text}").parse::<Nid>();
        let nid = nid.ok().filter(|_| text.starts_with("tcp"))?;
        Some(Self::Net(nid.net()))
    }

    /// Reads `any`, or the name of a network.
    pub(crate) fn several(text: &str) -> Option<Self> {
        match text {
            "any" => Some(Self::Any),
            _ => Self::network(text),
        }
    }

    /// The pattern as the module wants it.
    pub(crate) fn to_uapi(self) -> uapi::socklnd_nid {
        match self {
            Self::Any => Default::default(),
            Self::Net(net) => uapi::socklnd_nid {
                lnd: uapi::SOCKLND_LND_TCP as u16,
                net,
                addr: address_to_uapi(None),
            },
            Self::One(nid) => nid_to_uapi(nid),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Net(0) => f.write_str("tcp"),
            Self::Net(net) => write!(f, "tcp{net}"),
            Self::One(nid) => nid.fmt(f),
        }
    }
}

/// Reads the name of a network, `tcp7`, for clap.
pub(crate) fn parse_network(text: &str) -> Result<u16, String> {
    match Pattern::network(text) {
        Some(Pattern::Net(net)) => Ok(net),
        _ => Err("not the name of a network, like tcp or tcp7".to_string()),
    }
}

/// One network, or `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Networks(pub(crate) Option<u16>);

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" {
            return Ok(Self(None));
        }
        parse_network(text).map(|net| Self(Some(net)))
    }
}

/// Reads a NID, for clap.
pub(crate) fn parse_nid(text: &str) -> Result<Nid, String> {
    text.parse().map_err(|_: WireError| {
        "not a NID: an IP address and a network, like 10.0.0.1@tcp or 10.0.0.1@tcp7".to_string()
    })
}

/// An address of this node, with the length of its subnet's prefix if that is given: `10.0.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    pub(crate) addr: IpAddr,
    pub(crate) len: Option<u8>,
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| "not an IP address".to_string())?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let read = |len: &str| {
            len.parse()
                .ok()
                .filter(|bits: &u8| *bits <= most && len.starts_with(|c: char| c.is_ascii_digit()))
                .ok_or_else(|| format!("not a number of bits, 0 to {most}: '{len}'"))
        };
        let len = len.map(read).transpose()?;
        Ok(Self { addr, len })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len {
            Some(len) => write!(f, "{}/{len}", self.addr),
            None => self.addr.fmt(f),
        }
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the mask of a subnet, `255.255.255.0`, as the number of bits that it has.
pub(crate) fn parse_mask(text: &str) -> Result<u8, String> {
    let mask: Ipv4Addr = text
        .parse()
        .map_err(|_| "not a mask like 255.255.255.0".to_string())?;
    let bits = mask.to_bits();
    if bits.leading_ones() == bits.count_ones() {
        Ok(bits.count_ones() as u8)
    } else {
        Err("not a netmask like 255.255.255.0".to_string())
    }
}

/// The NID as the module wants it.
pub(crate) fn nid_to_uapi(nid: Nid) -> uapi::socklnd_nid {
    uapi::socklnd_nid {
        lnd: uapi::SOCKLND_LND_TCP as u16,
        net: nid.net(),
        addr: address_to_uapi(Some(nid.addr())),
    }
}

/// The address as the module wants it; `None` is "any".
pub(crate) fn address_to_uapi(addr: Option<IpAddr>) -> uapi::socklnd_addr {
    let mut raw = uapi::socklnd_addr::default();
    match addr {
        None => raw.family = uapi::SOCKLND_ADDR_ANY as u8,
        Some(IpAddr::V4(addr)) => {
            raw.family = uapi::SOCKLND_ADDR_IPV4 as u8;
            raw.addr[..4].copy_from_slice(&addr.octets());
        }
        Some(IpAddr::V6(addr)) => {
            raw.family = uapi::SOCKLND_ADDR_IPV6 as u8;
            raw.addr = addr.octets();
        }
    }
    raw
}

/// The address that the module wrote; `None` if it is none.
pub(crate) fn address_from_uapi(raw: &uapi::socklnd_addr) -> Option<IpAddr> {
    match u32::from(raw.family) {
        uapi::SOCKLND_ADDR_IPV4 => raw.addr.first_chunk::<4>().map(|octets| (*octets).into()),
        uapi::SOCKLND_ADDR_IPV6 => Some(raw.addr.into()),
        _ => None,
    }
}

/// The address and port that the module wrote.
pub(crate) fn socket_from_uapi(raw: &uapi::socklnd_addr, port: u16) -> Option<SocketAddr> {
    address_from_uapi(raw).map(|addr| SocketAddr::new(addr, port))
}

/// A NID that the module wrote, for printing.
///
/// The module may write one that this tool can't read, for instance from a node that answered a
/// ping with NIDs of another kind of network.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Ord, Eq)]
pub(crate) struct Shown(Result<Nid, (u16, u16)>);

impl From<&uapi::socklnd_nid> for Shown {
    fn from(raw: &uapi::socklnd_nid) -> Self {
        let tcp = u32::from(raw.lnd) == uapi::SOCKLND_LND_TCP;
        let addr = address_from_uapi(&raw.addr).filter(|_| tcp);
        Self(
            addr.map(|addr| Nid::tcp(raw.net, addr))
                .ok_or((raw.lnd, raw.net)),
        )
    }
}

impl Shown {
    /// The NID, if it is one that this tool can read.
    pub(crate) fn nid(self) -> Option<Nid> {
        self.0.ok()
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(nid) => nid.fmt(f),
            Err((lnd, net)) => write!(f, "?@lnd{lnd}:{net}"),
        }
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nid(text: &str) -> Nid {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_are_read_and_printed() {
        for (text, pattern) in [
            ("any", Pattern::Any),
            ("tcp", Pattern::Net(0)),
            ("tcp7", Pattern::Net(7)),
            ("10.0.0.1@tcp", Pattern::One(nid("10.0.0.1@tcp"))),
            ("fe80::3@tcp65535", Pattern::One(nid("fe80::3@tcp65535"))),
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap(), pattern);
            assert_eq!(pattern.to_string(), text);
        }
        assert_eq!("tcp0".parse::<Pattern>().unwrap(), Pattern::Net(0));
        for text in [
            "",
            "*",
            "tcp65536",
            "tcp07",
            "tcp 7",
            "@tcp",
            "10.0.0.1",
            "10.0.0.1@o2ib",
            "ANY",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn prefixes_and_masks() {
        for text in ["10.0.0.1", "10.0.0.1/0", "10.0.0.1/32", "fe80::1/64"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "10.0.0.1/",
            "10.0.0.1/33",
            "10.0.0.1/-1",
            "10.0.0.1/+8",
            "10.0.0/8",
            "10.0.0.1/8/8",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        assert_eq!(parse_mask("255.255.255.0"), Ok(24));
        assert_eq!(parse_mask("0.0.0.0"), Ok(0));
        assert_eq!(parse_mask("255.255.255.255"), Ok(32));
        for text in ["", "24", "255.0.255.0", "0.0.0.1", "255.255.255"] {
            assert!(parse_mask(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_fill_the_structure() {
        let raw = Pattern::Any.to_uapi();
        assert_eq!(
            (raw.lnd, raw.net, raw.addr.family, raw.addr.addr),
            (0, 0, 0, [0; 16])
        );
        let raw = Pattern::Net(7).to_uapi();
        assert_eq!(
            (raw.lnd, raw.net, raw.addr.family, raw.addr.addr),
            (2, 7, 0, [0; 16])
        );
        let raw = Pattern::One(nid("10.0.0.1@tcp7")).to_uapi();
        assert_eq!((raw.lnd, raw.net, raw.addr.family), (2, 7, 4));
        assert_eq!(
            raw.addr.addr,
            [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn nids_go_there_and_back() {
        for text in ["10.0.0.1@tcp", "192.168.77.2@tcp65535", "fe80::3@tcp7"] {
            let raw = nid_to_uapi(nid(text));
            assert_eq!(Shown::from(&raw).to_string(), text);
            assert_eq!(serde_json::to_value(Shown::from(&raw)).unwrap(), text);
        }
    }

    #[test]
    fn foreign_nids_are_still_shown() {
        let mut raw = nid_to_uapi(nid("10.0.0.1@tcp3"));
        raw.lnd = 5;
        assert_eq!(Shown::from(&raw).to_string(), "?@lnd5:3");
        raw.lnd = 2;
        raw.addr.family = 9;
        assert_eq!(Shown::from(&raw).to_string(), "?@lnd2:3");
        assert_eq!(address_from_uapi(&raw.addr), None);
        assert_eq!(socket_from_uapi(&raw.addr, 988), None);
    }

    #[test]
    fn sockets_are_shown_with_brackets_where_needed() {
        let socket = |text: &str| {
            let raw = address_to_uapi(Some(text.parse().unwrap()));
            socket_from_uapi(&raw, 988).unwrap().to_string()
        };
        assert_eq!(socket("10.0.0.1"), "10.0.0.1:988");
        assert_eq!(socket("fe80::3"), "[fe80::3]:988");
    }
}
