// SPDX-License-Identifier: GPL-2.0

//! The network devices of this namespace and their addresses, from rtnetlink.
//!
//! Formats: `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_addr.h`, `linux/if_link.h`.

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket},
};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_FLAGS: u16 = 8;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const RT_SCOPE_UNIVERSE: u8 = 0;
/// A second IPv4 address of a subnet, or a temporary IPv6 one.
const IFA_F_SECONDARY: u32 = 0x01;
/// Of IPv6: a duplicate, a deprecated and a tentative address.
const IFA_F_UNFIT: u32 = 0x08 | 0x20 | 0x40;

/// An address of a network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The device's name.
    pub(crate) device: String,
    /// The label of an IPv4 address, like `eth0:1`; mostly the device's name.
    label: String,
    pub(crate) addr: IpAddr,
    /// Whether others are preferred: it is a secondary or a temporary address.
    second: bool,
    up: bool,
    loopback: bool,
}

/// The network devices of this namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetDevices {
    /// Their names.
    names: Vec<String>,
    /// Their addresses that a NID can have, preferred ones first.
    addresses: Vec<Address>,
}

/// Why a device can't be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NetDeviceError {
    Missing(String),
    NoAddress(String),
    None,
}

impl fmt::Display for NetDeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "there is no network device {name} here"),
            Self::NoAddress(name) => write!(f, "{name} has no IP address that a NID can have"),
            Self::None => f.write_str("no network device here is up and has an IP address"),
        }
    }
}

impl NetDevices {
    /// Asks the kernel.
    pub(crate) fn read() -> Result<Self, Errno> {
        Ok(Self::new(&links(&dump(RTM_GETLINK)?), &dump(RTM_GETADDR)?))
    }

    fn new(links: &[Link], addresses: &[Message]) -> Self {
        let mut addresses: Vec<_> = addresses
            .iter()
            .filter_map(|message| address(message, links))
            .collect();
        // In the kernel's order, but preferred ones first.
        addresses.sort_by_key(|address| (address.addr.is_ipv6(), address.second));
        Self {
            names: links.iter().map(|link| link.name.clone()).collect(),
            addresses,
        }
    }

    /// The address for a NID of this device: its first IPv4 address, else its first IPv6 address.
    pub(crate) fn address_of(&self, name: &str) -> Result<IpAddr, NetDeviceError> {
        if !self.has(name) {
            return Err(NetDeviceError::Missing(name.to_string()));
        }
        let mut of_name = self.addresses.iter().filter(|it| it.is_called(name));
        let found = of_name.next().map(|address| address.addr);
        found.ok_or_else(|| NetDeviceError::NoAddress(name.to_string()))
    }

    /// The address of the first device that is up and is no loopback device.
    pub(crate) fn first(&self) -> Result<IpAddr, NetDeviceError> {
        let mut usable = self.usable();
        usable
            .next()
            .map(|found| found.addr)
            .ok_or(NetDeviceError::None)
    }

    /// The addresses of devices that are up and are no loopback devices.
    pub(crate) fn usable(&self) -> impl Iterator<Item = &Address> {
        let addresses = self.addresses.iter();
        addresses.filter(|address| address.up && !address.loopback)
    }

    /// Whether there is a device, or a label of an address, of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
            || self.addresses.iter().any(|it| it.is_called(name))
    }
}

impl Address {
    /// Whether this is the name of its device, or its own.
    fn is_called(&self, name: &str) -> bool {
        self.device == name || self.label == name
    }
}

/// A message of the kernel's: its type and what follows the header.
struct Message {
    kind: u16,
    body: Vec<u8>,
}

/// A network device.
struct Link {
    index: u32,
    name: String,
    flags: u32,
}

fn links(messages: &[Message]) -> Vec<Link> {
    let link = |message: &Message| {
        // struct ifinfomsg
        let (head, rest) = message.body.split_at_checked(16)?;
        let name = attribute(rest, IFLA_IFNAME)?;
        Some(Link {
            index: number(head, 4)?,
            name: text(name),
            flags: number(head, 8)?,
        })
    };
    let new = messages
        .iter()
        .filter(|message| message.kind == RTM_NEWLINK);
    new.filter_map(link).collect()
}

fn address(message: &Message, links: &[Link]) -> Option<Address> {
    if message.kind != RTM_NEWADDR {
        return None;
    }
    // struct ifaddrmsg
    let (head, rest) = message.body.split_at_checked(8)?;
    let (flags, scope, index) = (*head.get(2)?, *head.get(3)?, number(head, 4)?);
    let flags = attribute(rest, IFA_FLAGS)
        .and_then(|flags| number(flags, 0))
        .unwrap_or(flags.into());
    // Of a point-to-point device, the other one is the peer's.
    let bytes = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS))?;
    let addr = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    if addr.is_ipv6() && (scope != RT_SCOPE_UNIVERSE || flags & IFA_F_UNFIT != 0) {
        return None;
    }
    let link = links.iter().find(|link| link.index == index)?;
    Some(Address {
        device: link.name.clone(),
        label: attribute(rest, IFA_LABEL).map_or_else(|| link.name.clone(), text),
        addr,
        second: flags & IFA_F_SECONDARY != 0,
        up: link.flags & IFF_UP != 0,
        loopback: link.flags & IFF_LOOPBACK != 0 || addr.is_loopback(),
    })
}

/// The number of four bytes at `at`, in the machine's order.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// Text that ends at its first zero.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Each attribute begins at a multiple of four, as does each message.
fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// What the attribute of this type holds, from a row of them.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(short(bytes, 0)?);
        let value = bytes.get(4..len)?;
        if short(bytes, 2)? == kind {
            return Some(value);
        }
        bytes = bytes.get(aligned(len)..)?;
    }
}

/// Cuts what was received into messages. Returns whether more is to come.
fn cut(mut bytes: &[u8], into: &mut Vec<Message>) -> Result<bool, Errno> {
    while let Some(len) = number(bytes, 0) {
        let len = len as usize;
        let body = bytes.get(16..len).ok_or(Errno::BADMSG)?;
        match short(bytes, 4).ok_or(Errno::BADMSG)? {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let errno = body.first_chunk::<4>().ok_or(Errno::BADMSG)?;
                let errno = i32::from_ne_bytes(*errno).saturating_neg();
                return Err(Errno::from_raw_os_error(errno));
            }
            kind => into.push(Message {
                kind,
                body: body.to_vec(),
            }),
        }
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
    }
    Ok(true)
}

/// Asks for all there is of one kind.
fn dump(kind: u16) -> Result<Vec<Message>, Errno> {
    // The protocol 0 is rtnetlink.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    // struct nlmsghdr, and a structure of one byte for the family, 0: all.
    let mut request = [0; 20];
    request[0..4].copy_from_slice(&17_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    send(&socket, &request, SendFlags::empty())?;
    let mut messages = Vec::new();
    // The kernel fills 32 KiB at most.
    let mut room = vec![0; 64 << 10];
    loop {
        let (len, _) = recv(&socket, &mut room[..], RecvFlags::empty())?;
        if !cut(room.get(..len).unwrap_or_default(), &mut messages)? {
            return Ok(messages);
        }
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    impl NetDevices {
        /// Devices that are up, from `eth0 10.0.0.1`, one in each.
        pub(crate) fn of(lines: &[&str]) -> Self {
            let address = |line: &&str| {
                let (device, addr) = line.split_once(' ').unwrap();
                Address {
                    device: device.to_string(),
                    label: device.to_string(),
                    addr: addr.parse().unwrap(),
                    second: false,
                    up: true,
                    loopback: device == "lo",
                }
            };
            let addresses: Vec<_> = lines.iter().map(address).collect();
            Self {
                names: addresses.iter().map(|it| it.device.clone()).collect(),
                addresses,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn new_address(index: u32, addr: &str, flags: u32, scope: u8, label: &str) -> Message {
        let mut body = vec![0, 24, flags as u8, scope];
        body.extend(index.to_ne_bytes());
        let bytes = match addr.parse().unwrap() {
            IpAddr::V4(addr) => addr.octets().to_vec(),
            IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        body.extend(attr(IFA_ADDRESS, &bytes));
        if !label.is_empty() {
            body.extend(attr(IFA_LABEL, &[label.as_bytes(), &[0]].concat()));
        }
        body.extend(attr(IFA_FLAGS, &flags.to_ne_bytes()));
        Message {
            kind: RTM_NEWADDR,
            body,
        }
    }

    fn netdevs() -> NetDevices {
        let link = |index, name: &str, flags| Link {
            index,
            name: name.to_string(),
            flags,
        };
        let links = [
            link(1, "lo", IFF_UP | IFF_LOOPBACK),
            link(2, "eth0", IFF_UP),
            link(3, "eth1", 0),
            link(4, "eth2", IFF_UP),
            link(5, "eth3", IFF_UP),
        ];
        NetDevices::new(
            &links,
            &[
                new_address(1, "127.0.0.1", 0, 254, "lo"),
                new_address(4, "fd00::7", IFA_F_SECONDARY, 0, ""),
                new_address(4, "fd00::8", 0x40, 0, ""),
                new_address(4, "fe80::9", 0, 253, ""),
                new_address(4, "fd00::9", 0x80, 0, ""),
                new_address(3, "10.1.0.1", 0, 0, "eth1"),
                new_address(2, "10.0.0.9", IFA_F_SECONDARY, 0, "eth0:1"),
                new_address(2, "10.0.0.1", 0, 0, "eth0"),
                new_address(2, "fd00::1", 0, 0, ""),
            ],
        )
    }

    #[test]
    fn a_device_stands_for_its_first_lasting_address() {
        let netdevs = netdevs();
        for (name, addr) in [
            ("eth0", "10.0.0.1"),
            ("eth0:1", "10.0.0.9"),
            ("eth1", "10.1.0.1"),
            ("eth2", "fd00::9"),
        ] {
            assert_eq!(
                netdevs.address_of(name),
                Ok(addr.parse().unwrap()),
                "{name}"
            );
        }
        let none = NetDeviceError::NoAddress("eth3".to_string());
        assert_eq!(netdevs.address_of("eth3"), Err(none));
        assert!(netdevs.address_of("eth9").is_err());
        assert!(netdevs.has("eth3") && !netdevs.has("eth9"));
        assert_eq!(netdevs.first(), Ok([10, 0, 0, 1].into()));
        assert_eq!(NetDevices::default().first(), Err(NetDeviceError::None));
    }

    #[test]
    fn messages_are_cut_where_they_end() {
        let mut bytes = Vec::new();
        for (kind, body) in [
            (RTM_NEWADDR, &[1, 2, 3][..]),
            (RTM_NEWLINK, &[]),
            (NLMSG_DONE, &[0; 4]),
        ] {
            let start = bytes.len();
            bytes.extend((16 + body.len() as u32).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.resize(start + 16, 0);
            bytes.extend(body);
            bytes.resize(aligned(bytes.len()), 0);
        }
        let mut messages = Vec::new();
        assert_eq!(cut(&bytes, &mut messages), Ok(false));
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0].body, [1, 2, 3]);
        assert_eq!(cut(&bytes[..36], &mut messages), Ok(true));
        assert_eq!(cut(&bytes[..18], &mut messages), Err(Errno::BADMSG));
        let mut refused = bytes.clone();
        refused[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert!(cut(&refused, &mut messages).is_err());
        for len in 0..bytes.len() {
            assert!(attribute(&bytes[..len], 77).is_none());
        }
    }

    #[test]
    fn the_kernel_knows_the_loopback_device() {
        assert!(NetDevices::read().unwrap().has("lo"));
    }
}
