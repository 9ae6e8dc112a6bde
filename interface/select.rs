// SPDX-License-Identifier: GPL-2.0

//! Which interfaces are used for which addresses of a peer.
//!
//! The rules are those of the C driver of 2005, whose HELLOs name IPv4 addresses. Later ones name none, so
//! there are no rules for IPv6 addresses. Plain functions on values, `core` only: the same file is built in
//! user space for property tests. Nothing is protected or freed here.

use core::{
    cmp::Reverse,
    net::{
        IpAddr,
        Ipv4Addr, //
    },
    ops::Deref, //
};

/// The most interfaces that an NI can have: the number of addresses that fit into a HELLO.
pub(crate) const MAX_INTERFACES: usize = 16;

/// An interface among which there is a choice.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) addr: Ipv4Addr,
    pub(crate) prefix_len: u8,
    /// Peers or routes that use it.
    pub(crate) users: i32,
}

/// Whether the first `prefix_len` bits of two addresses of the same family are equal.
pub(super) fn same_subnet(a: IpAddr, b: IpAddr, prefix_len: u8) -> bool {
    let (differing, bits) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(distance(a, b)), 32u32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    let rest = bits.saturating_sub(u32::from(prefix_len));
    // A shift by all 128 bits leaves nothing to differ.
    differing.checked_shr(rest).unwrap_or(0) == 0
}

/// How far two addresses are apart: the higher the first bit that differs, the farther.
fn distance(a: Ipv4Addr, b: Ipv4Addr) -> u32 {
    a.to_bits() ^ b.to_bits()
}

impl Candidate {
    fn is_in_subnet(&self, ip: Ipv4Addr) -> bool {
        same_subnet(self.addr.into(), ip.into(), self.prefix_len)
    }

    /// The address that fits best: in the same subnet if there is one, and then the closest.
    fn best_of(&self, ips: &Slots<Ipv4Addr>) -> Option<Ipv4Addr> {
        ips.iter()
            .min_by_key(|ip| (!self.is_in_subnet(*ip), distance(self.addr, *ip)))
    }
}

/// Up to [`MAX_INTERFACES`] values, from which some are taken.
struct Slots<T>([Option<T>; MAX_INTERFACES]);

impl<T: Copy> Slots<T> {
    /// The first of `values`, as many as there is room for.
    fn new(values: &[T]) -> Self {
        let mut slots = [None; MAX_INTERFACES];
        for (slot, value) in slots.iter_mut().zip(values) {
            *slot = Some(*value);
        }
        Self(slots)
    }

    fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.0.iter().copied().flatten()
    }

    /// Takes out one that matches.
    fn take(&mut self, matching: impl Fn(&T) -> bool) {
        if let Some(slot) = self
            .0
            .iter_mut()
            .find(|s| s.as_ref().is_some_and(&matching))
        {
            *slot = None;
        }
    }
}

/// The candidates for a choice.
///
/// # Invariants
///
/// `len` is at most [`MAX_INTERFACES`].
pub(crate) struct Candidates {
    list: [Candidate; MAX_INTERFACES],
    len: usize,
}

impl Candidates {
    /// No candidates.
    pub(crate) fn new() -> Self {
        let none = Candidate {
            addr: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
            users: 0,
        };
        // INVARIANT: 0 is not more.
        Self {
            list: [none; MAX_INTERFACES],
            len: 0,
        }
    }

    /// Adds one, if there is room.
    pub(crate) fn push(&mut self, new: Candidate) {
        if let Some(free) = self.list.get_mut(self.len) {
            *free = new;
            // INVARIANT: There was room, so `len` was less.
            self.len = self.len.saturating_add(1);
        }
    }
}

impl Deref for Candidates {
    type Target = [Candidate];

    fn deref(&self) -> &[Candidate] {
        self.list.get(..self.len).unwrap_or_default()
    }
}

/// The passive side's choice: the addresses for its HELLO to a peer that has named `theirs`.
///
/// There are as many as the peer has named, if there are so many. Addresses that the peer was sent before,
/// `known`, come first. Then come interfaces that share a subnet with an address of the peer, and then those
/// that the fewest peers use. Each takes the address of the peer that fits it best out of the choice, so that
/// both sides pair their addresses in the same way. `choose` is called for each, in order.
pub(crate) fn select_ips(
    candidates: &Candidates,
    known: &[Ipv4Addr],
    theirs: &[Ipv4Addr],
    mut choose: impl FnMut(Ipv4Addr),
) {
    let mut free = Slots::new(candidates);
    let mut left = Slots::new(theirs);
    let mut known = known.iter();
    for _ in 0..candidates.len().min(theirs.len()) {
        let before = known
            .by_ref()
            .find_map(|addr| candidates.iter().find(|c| c.addr == *addr).copied());
        let best = before.or_else(|| {
            free.iter().min_by_key(|candidate| {
                let near = candidate
                    .best_of(&left)
                    .is_some_and(|ip| candidate.is_in_subnet(ip));
                (Reverse(near), candidate.users)
            })
        });
        let Some(best) = best else { return };
        free.take(|candidate| candidate.addr == best.addr);
        if let Some(ip) = best.best_of(&left) {
            left.take(|other| *other == ip);
        }
        choose(best.addr);
    }
}

/// The active side's choice: the address from which to connect to `ip`.
///
/// A candidate in the same subnet if there is one, and then the one that the fewest routes use.
pub(crate) fn select_local(candidates: &Candidates, ip: Ipv4Addr) -> Option<Ipv4Addr> {
    candidates
        .iter()
        .min_by_key(|candidate| (!candidate.is_in_subnet(ip), candidate.users))
        .map(|candidate| candidate.addr)
}

#[cfg_attr(
    CONFIG_KUNIT = "y",
    kernel::macros::kunit_tests(socklnd_interface_select)
)]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    const fn ip(net: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, net, host)
    }

    fn of(list: &[(Ipv4Addr, i32)]) -> Candidates {
        let mut candidates = Candidates::new();
        for (addr, users) in list {
            candidates.push(Candidate {
                addr: *addr,
                prefix_len: 24,
                users: *users,
            });
        }
        candidates
    }

    fn chosen(
        candidates: &Candidates,
        known: &[Ipv4Addr],
        theirs: &[Ipv4Addr],
        expected: &[Ipv4Addr],
    ) -> bool {
        let mut expected = expected.iter();
        let mut equal = true;
        select_ips(candidates, known, theirs, |addr| {
            equal &= expected.next() == Some(&addr);
        });
        equal && expected.next().is_none()
    }

    #[test]
    fn no_more_than_the_peer_has() {
        let ours = of(&[(ip(1, 1), 0), (ip(2, 1), 0)]);
        assert!(chosen(&ours, &[], &[], &[]));
        assert!(chosen(&ours, &[], &[ip(1, 2)], &[ip(1, 1)]));
        assert!(chosen(&of(&[]), &[], &[ip(1, 2)], &[]));
    }

    #[test]
    fn subnet_before_load() {
        let ours = of(&[(ip(1, 1), 0), (ip(2, 1), 9)]);
        assert!(chosen(&ours, &[], &[ip(2, 2)], &[ip(2, 1)]));
    }

    #[test]
    fn load_without_a_subnet() {
        let ours = of(&[(ip(1, 1), 3), (ip(2, 1), 2)]);
        assert!(chosen(&ours, &[], &[ip(7, 2)], &[ip(2, 1)]));
    }

    #[test]
    fn what_was_told_before_is_told_again() {
        let ours = of(&[(ip(1, 1), 0), (ip(2, 1), 0)]);
        let theirs = [ip(1, 2), ip(2, 2)];
        assert!(chosen(&ours, &[ip(2, 1)], &theirs, &[ip(2, 1), ip(1, 1)]));
        // An interface that was removed is not.
        assert!(chosen(&ours, &[ip(5, 1)], &theirs, &[ip(1, 1), ip(2, 1)]));
    }

    #[test]
    fn each_address_of_the_peer_is_matched_once() {
        // The second of ours is as near to the first of theirs, but that one is taken.
        let ours = of(&[(ip(1, 1), 0), (ip(1, 9), 0), (ip(2, 1), 5)]);
        let theirs = [ip(1, 2), ip(2, 2)];
        assert!(chosen(&ours, &[], &theirs, &[ip(1, 1), ip(2, 1)]));
    }

    #[test]
    fn active_side_by_subnet_then_load() {
        let ours = of(&[(ip(1, 1), 9), (ip(2, 1), 4), (ip(3, 1), 5)]);
        assert!(select_local(&ours, ip(1, 2)) == Some(ip(1, 1)));
        assert!(select_local(&ours, ip(7, 2)) == Some(ip(2, 1)));
        assert!(select_local(&of(&[]), ip(7, 2)).is_none());
    }

    #[test]
    fn prefixes_of_any_length() {
        let (a, b) = (IpAddr::from([1, 2, 3, 4]), IpAddr::from([200, 2, 3, 4]));
        let next = IpAddr::from([1, 2, 3, 5]);
        assert!(same_subnet(a, b, 0));
        assert!(!same_subnet(a, b, 1));
        assert!(same_subnet(a, a, 32));
        assert!(!same_subnet(a, next, 32));
        assert!(same_subnet(a, next, 31));
        assert!(!same_subnet(a, next, 255));
    }

    #[test]
    fn prefixes_of_ipv6() {
        let at = |first, last| IpAddr::from([first, 0u16, 0, 0, 0, 0, 0, last]);
        let (a, b) = (at(0xfd00, 2), at(0xfd00, 3));
        for len in 0..=127 {
            assert!(same_subnet(a, b, len));
        }
        for len in 128..=255 {
            assert!(!same_subnet(a, b, len));
            assert!(same_subnet(a, a, len));
        }
        assert!(same_subnet(a, at(0x7d00, 2), 0));
        assert!(!same_subnet(a, at(0x7d00, 2), 1));
        // Addresses of the other family are in no common subnet, not even with prefix length 0.
        let v4 = IpAddr::from([10, 0, 0, 1]);
        assert!(!same_subnet(a, v4, 0));
        assert!(!same_subnet(v4, a, 0));
    }
}
