// SPDX-License-Identifier: GPL-2.0

//! The address family that the scenario is run over.
//!
//! Scenarios are written with IPv4 addresses, and know of nothing else. Over IPv6 each of them stands
//! for an IPv6 address that ends in it: 10.0.0.2 for fd00::a00:2, and a prefix of 24 bits for one of
//! 120 bits. So what was equal, near or less is that still. One is put in the place of the other
//! here, on the way to programs, sockets and the wire, and on the way back from there. Scenarios run
//! one at a time, so there is one family for the whole program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

/// What comes before the 32 bits of the IPv4 address.
const PREFIX: u128 = 0xfd00 << 112;
const PREFIX_LEN: u8 = 96;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

static IPV6: AtomicBool = AtomicBool::new(false);

/// What is run from now on is run over this one.
pub fn choose(family: Family) {
    IPV6.store(family == Family::V6, Ordering::Relaxed);
}

/// The one that is run over.
pub fn current() -> Family {
    if IPV6.load(Ordering::Relaxed) {
        Family::V6
    } else {
        Family::V4
    }
}

/// Whether that is IPv6.
pub fn is_ipv6() -> bool {
    current() == Family::V6
}

/// A line for `ip` that gives a node's card an address, which can be used at once.
pub fn addr_add(addr: Ipv4Addr, len: u8) -> String {
    // Nobody else has an address of IPv6, and that need not be found out first.
    let nodad = if is_ipv6() { "nodad" } else { "" };
    format!("addr add {addr}/{len} dev eth0 {nodad}\n")
}

/// The newest version of the protocol that a node begins with, and the bytes that it has in front
/// of a payload.
pub fn newest() -> (u32, usize) {
    match current() {
        Family::V4 => (3, 24 + 72),
        Family::V6 => (4, 24 + 96),
    }
}

/// The IPv6 address that ends in this one.
pub fn embed(addr: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from(PREFIX | u128::from(u32::from(addr)))
}

/// The IPv4 address that this one ends in, if it is one of those.
pub fn extract(addr: Ipv6Addr) -> Option<Ipv4Addr> {
    let low = u32::try_from(u128::from(addr).checked_sub(PREFIX)?).ok()?;
    Some(Ipv4Addr::from(low))
}

/// The real address for one that a scenario names.
pub fn real(addr: Ipv4Addr, port: u16) -> SocketAddr {
    match current() {
        Family::V4 => SocketAddr::new(addr.into(), port),
        Family::V6 => SocketAddr::new(embed(addr).into(), port),
    }
}

/// What a scenario calls this address.
pub fn named(addr: IpAddr) -> Result<Ipv4Addr> {
    match (current(), addr) {
        (Family::V4, IpAddr::V4(addr)) => Ok(addr),
        (Family::V6, IpAddr::V6(addr)) if extract(addr).is_some() => {
            Ok(extract(addr).unwrap_or(Ipv4Addr::UNSPECIFIED))
        }
        _ => bail!("{addr} is no address of a scenario"),
    }
}

/// A scenario's text for a program: arguments, or a file.
pub fn outward(text: &str) -> String {
    match current() {
        Family::V4 => text.to_owned(),
        Family::V6 => replace(text, |c| c.is_ascii_digit() || ".:/".contains(c), to_ipv6),
    }
}

/// The text of a program, or of a file of the kernel's, for a scenario.
pub fn inward(text: &str) -> String {
    match current() {
        Family::V4 => text.to_owned(),
        Family::V6 => replace(
            text,
            |c| c.is_ascii_hexdigit() || "[]:/".contains(c),
            to_ipv4,
        ),
    }
}

/// Replaces words of such characters, if there is something to put in their place.
fn replace(
    text: &str,
    belongs: impl Fn(char) -> bool,
    change: impl Fn(&str) -> Option<String>,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out += &change(word).unwrap_or_else(|| word.to_owned());
        let next = after.find(&belongs).unwrap_or(after.len());
        out += &after[..next];
        rest = &after[next..];
    }
    out
}

/// `10.0.0.2`, `10.0.0.2:988` and `10.0.0.0/24`.
fn to_ipv6(word: &str) -> Option<String> {
    if let Some((addr, port)) = word.split_once(':') {
        let addr = embed(addr.parse().ok()?);
        return Some(format!("[{addr}]:{port}"));
    }
    let (addr, len) = split_prefix(word)?;
    let addr = embed(addr.parse().ok()?);
    Some(match len {
        Some(len) => format!("{addr}/{}", len.checked_add(PREFIX_LEN)?),
        None => addr.to_string(),
    })
}

/// The other way round, and only what is written as it should be. Brackets and colons around it
/// may be the text's.
fn to_ipv4(word: &str) -> Option<String> {
    if let Some((addr, port)) = word
        .strip_prefix('[')
        .and_then(|word| word.split_once("]:"))
    {
        return Some(format!("{}:{port}", written(addr)?));
    }
    let bare = word.trim_start_matches('[').trim_end_matches([']', ':']);
    let (before, after) = word.split_once(bare).filter(|_| !bare.is_empty())?;
    let (addr, len) = split_prefix(bare)?;
    let addr = written(addr)?;
    let len = match len {
        Some(len) => format!("/{}", len.checked_sub(PREFIX_LEN)?),
        None => String::new(),
    };
    Some(format!("{before}{addr}{len}{after}"))
}

fn written(text: &str) -> Option<Ipv4Addr> {
    let addr: Ipv6Addr = text.parse().ok()?;
    extract(addr).filter(|_| addr.to_string() == text)
}

fn split_prefix(word: &str) -> Option<(&str, Option<u8>)> {
    Some(match word.split_once('/') {
        Some((addr, len)) => (addr, Some(len.parse().ok()?)),
        None => (word, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [(&str, &str); 7] = [
        ("10.0.0.2", "fd00::a00:2"),
        ("ping 10.0.0.2@tcp7", "ping fd00::a00:2@tcp7"),
        (
            "addr add 192.168.7.1/20 dev",
            "addr add fd00::c0a8:701/116 dev",
        ),
        (
            "{\"local\": \"10.0.0.1:988\"}",
            "{\"local\": \"[fd00::a00:1]:988\"}",
        ),
        ("[10.1.0.0/24, 10.0.0.3]", "[fd00::a01:0/120, fd00::a00:3]"),
        ("10.0.0.99@tcp: no route", "fd00::a00:63@tcp: no route"),
        ("5:3 ab:cd 1.5 [12] face", "5:3 ab:cd 1.5 [12] face"),
    ];

    #[test]
    fn there_and_back() {
        let there = |text| replace(text, |c| c.is_ascii_digit() || ".:/".contains(c), to_ipv6);
        let back = |text| {
            replace(
                text,
                |c| c.is_ascii_hexdigit() || "[]:/".contains(c),
                to_ipv4,
            )
        };
        for (scenario, real) in PAIRS {
            assert_eq!(there(scenario), real);
            assert_eq!(back(real), scenario);
        }
        assert_eq!(back("cannot reach fd00::a00:2:"), "cannot reach 10.0.0.2:");
    }

    #[test]
    fn others_stay() {
        for text in ["FD00::A00:2", "fd00:0::a00:2", "fd01::a00:2", "fe80::1"] {
            assert_eq!(to_ipv4(text), None, "{text}");
        }
        assert_eq!(to_ipv4("fd00::a00:2/64"), None);
        assert_eq!(to_ipv6("10.0.0"), None);
    }
}
