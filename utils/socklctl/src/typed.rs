// SPDX-License-Identifier: GPL-2.0

//! NIDs and addresses in arguments: as numbers, or by the name of a host or of a network device.
//!
//! Files contain only numeric addresses, as the result of a name look-up at boot may differ.

use crate::{
    address::{Pattern, Prefix, parse_nid},
    netdev::NetDevices,
    repo::wire::Nid,
};
use std::{
    fmt, io,
    net::{IpAddr, ToSocketAddrs},
    str::FromStr,
};

/// Why an argument is of no use.
#[derive(Debug)]
pub(crate) enum TypedError {
    /// It is malformed: the command line is wrong.
    Wrong(String),
    /// A name that could not be resolved. It may be valid elsewhere, or at another time.
    Unknown(String),
}

impl fmt::Display for TypedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(why) | Self::Unknown(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for TypedError {}

impl From<String> for TypedError {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

/// Whether this can be the name of a host: of letters, digits, hyphens and dots, and no number.
fn is_host_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= 253
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.contains(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(inner)
        // Hexadecimal numbers are numbers for C's resolver, which would take them for addresses.
        && !text.starts_with("0x")
}

/// The address of a host by its name. Asks the system's resolver, which may take long.
fn look_up(name: &str) -> Result<IpAddr, TypedError> {
    let unknown = |why: &dyn fmt::Display| TypedError::Unknown(format!("host {name}: {why}"));
    let found: io::Result<Vec<_>> = (name, 0).to_socket_addrs().map(Iterator::collect);
    let found = found.map_err(|e| unknown(&e))?;
    let addresses = found.iter().map(|socket| socket.ip());
    choose(addresses).ok_or_else(|| unknown(&"it has no address"))
}

/// Chooses one of the addresses of a name: the first of IPv4, which most NIDs have, else the first of IPv6. One
/// that other nodes can reach is preferred: many hosts have their own name for a loopback address.
fn choose(addresses: impl Iterator<Item = IpAddr> + Clone) -> Option<IpAddr> {
    addresses.min_by_key(|addr| (addr.is_loopback(), addr.is_ipv6()))
}

/// Reads an address.
pub(crate) fn address(text: &str) -> Result<IpAddr, TypedError> {
    match text.parse() {
        Ok(addr) => Ok(addr),
        Err(_) if is_host_name(text) => look_up(text),
        Err(_) => Err("neither an IP address nor the name of a host"
            .to_string()
            .into()),
    }
}

/// Reads an address of this node, or the name of a network device that has it.
pub(crate) fn local_address(text: &str) -> Result<IpAddr, TypedError> {
    match text.parse() {
        Ok(addr) => Ok(addr),
        Err(_) => match device(text) {
            Some(found) => found,
            None => address(text),
        },
    }
}

/// The address of the network device of this name, if there is one.
fn device(name: &str) -> Option<Result<IpAddr, TypedError>> {
    let netdevs = NetDevices::read()
        .ok()
        .filter(|netdevs| netdevs.has(name))?;
    let found = netdevs.address_of(name);
    Some(found.map_err(|e| TypedError::Unknown(e.to_string())))
}

/// Splits `eth0@tcp7` into what is before the network and the network; `None` if that is none.
fn split(text: &str) -> Option<(&str, u16)> {
    let (name, network) = text.rsplit_once('@')?;
    match Pattern::network(network)? {
        Pattern::Net(net) => Some((name, net)),
        _ => None,
    }
}

fn nid_of(
    text: &str,
    find: impl FnOnce(&str) -> Result<IpAddr, TypedError>,
) -> Result<Nid, TypedError> {
    let wrong = match parse_nid(text) {
        Ok(nid) => return Ok(nid),
        Err(wrong) => wrong,
    };
    match split(text) {
        Some((name, net)) if is_host_name(name.split(':').next().unwrap_or_default()) => {
            Ok(Nid::tcp(net, find(name)?))
        }
        _ => Err(wrong.into()),
    }
}

/// Reads a NID.
pub(crate) fn nid(text: &str) -> Result<Nid, TypedError> {
    nid_of(text, address)
}

/// Reads a NID of this node, also with the name of a network device.
pub(crate) fn local_nid(text: &str) -> Result<Nid, TypedError> {
    nid_of(text, local_address)
}

/// A NID for this node, or a network in which a network device gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NidOrNet {
    Nid(Nid),
    Net(u16),
}

impl FromStr for NidOrNet {
    type Err = TypedError;

    fn from_str(text: &str) -> Result<Self, TypedError> {
        match Pattern::network(text) {
            Some(Pattern::Net(net)) => Ok(Self::Net(net)),
            _ => local_nid(text).map(Self::Nid),
        }
    }
}

/// Reads a pattern.
impl FromStr for Pattern {
    type Err = TypedError;

    fn from_str(text: &str) -> Result<Self, TypedError> {
        match Self::several(text) {
            Some(pattern) => Ok(pattern),
            None => nid(text).map(Self::One),
        }
    }
}

/// Reads a pattern for NIDs of this node.
pub(crate) fn local_pattern(text: &str) -> Result<Pattern, TypedError> {
    match Pattern::several(text) {
        Some(pattern) => Ok(pattern),
        None => local_nid(text).map(Pattern::One),
    }
}

/// Reads an address of this node, with the length of its prefix or without.
pub(crate) fn prefix(text: &str) -> Result<Prefix, TypedError> {
    match text.split_once('/') {
        Some(_) => Ok(text.parse::<Prefix>()?),
        None => Ok(Prefix {
            addr: local_address(text)?,
            len: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_wrong<T>(result: Result<T, TypedError>) -> bool {
        matches!(result, Err(TypedError::Wrong(_)))
    }

    #[test]
    fn numbers_are_never_looked_up() {
        assert_eq!(address("10.0.0.1").unwrap().to_string(), "10.0.0.1");
        assert_eq!(address("fd00::1").unwrap().to_string(), "fd00::1");
        for text in [
            "",
            "10.0.0.300",
            "10.0.1",
            "1",
            "0x7f",
            "-a",
            "a b",
            "fe80::x",
            "a/b",
            "*",
        ] {
            assert!(is_wrong(address(text)), "{text}");
        }
        assert_eq!(nid("10.0.0.1@tcp7").unwrap().to_string(), "10.0.0.1@tcp7");
        for text in [
            "10.0.0.1",
            "10.0.0@tcp",
            "@tcp",
            "a@b@tcp",
            "localhost@o2ib",
            "localhost",
        ] {
            assert!(is_wrong(nid(text)), "{text}");
        }
    }

    #[test]
    fn names_of_hosts_and_devices_stand_for_addresses() {
        assert!(nid("localhost@tcp7").unwrap().addr().is_loopback());
        assert_eq!(nid("localhost@tcp7").unwrap().net(), 7);
        let unknown = nid("no-such-host.invalid@tcp");
        assert!(
            matches!(unknown, Err(TypedError::Unknown(why)) if why.contains("no-such-host.invalid"))
        );
        let lo = local_nid("lo@tcp").unwrap();
        assert_eq!(lo.to_string(), "127.0.0.1@tcp");
        assert_eq!("tcp3".parse::<NidOrNet>().unwrap(), NidOrNet::Net(3));
        assert_eq!("lo@tcp".parse::<NidOrNet>().unwrap(), NidOrNet::Nid(lo));
        assert_eq!(local_pattern("lo@tcp").unwrap(), Pattern::One(lo));
        assert_eq!(local_pattern("any").unwrap(), Pattern::Any);
        assert_eq!(prefix("lo").unwrap().to_string(), "127.0.0.1");
        assert_eq!(prefix("10.0.0.1/8").unwrap().to_string(), "10.0.0.1/8");
    }

    #[test]
    fn of_several_addresses_one_that_others_reach() {
        let choose = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|addr| addr.parse().unwrap());
            super::choose(addresses).map(|addr| addr.to_string())
        };
        let some = |addr: &str| Some(addr.to_string());
        assert_eq!(
            choose(&["127.0.1.1", "10.0.0.1", "10.0.0.2"]),
            some("10.0.0.1")
        );
        assert_eq!(choose(&["::1", "fd00::1", "127.0.0.1"]), some("fd00::1"));
        assert_eq!(choose(&["fd00::1", "10.0.0.1"]), some("10.0.0.1"));
        assert_eq!(choose(&["127.0.1.1"]), some("127.0.1.1"));
        assert_eq!(choose(&[]), None);
    }
}
