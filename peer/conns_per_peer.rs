// SPDX-License-Identifier: GPL-2.0

//! How many connections a peer should have, and which is to be opened next.
//!
//! Part of a peer, and protected with it by its lock. `core` only: the same file is built in user space, for
//! property tests (`tests/wire`).
//!
//! A node wants one connection for control and several for bulk each way, as many as its administrator has
//! set. A peer that wants fewer refuses the surplus ones. It does not say why, so each is tried a few times;
//! then the number that exists is taken as the peer's limit, until the last connection has closed.

use super::super::wire::{
    ConnType,
    ConnTypes, //
};

/// After how many refusals in a row no further connection is tried.
const MAX_REFUSALS: u8 = 3;

/// The number of connections for bulk, each way, for a link of this speed; the same as in Lustre's driver.
pub(crate) fn for_speed(mbps: u32) -> u32 {
    let gbps = mbps / 1000;
    gbps.checked_ilog2().unwrap_or(0) / 2 + 1
}

/// How many connections a peer accepts.
pub(crate) struct Agreement {
    /// The peer's limit for bulk, each way, if it is known.
    limit: Option<u32>,
    refusals: u8,
}

impl Agreement {
    /// Nothing is known.
    pub(crate) const fn new() -> Self {
        Self {
            limit: None,
            refusals: 0,
        }
    }

    /// How many connections for bulk there should be, each way, if this node wants `own`.
    pub(crate) fn bulk(&self, own: u32) -> u32 {
        self.limit.map_or(own, |limit| limit.min(own)).max(1)
    }

    /// A connection was admitted.
    pub(crate) fn note_admission(&mut self) {
        self.refusals = 0;
    }

    /// The peer has refused a connection, when `count` of each type existed.
    pub(crate) fn note_refusal(&mut self, types: ConnTypes, count: impl Fn(ConnType) -> usize) {
        if next_missing(types, 1, &count).is_some() {
            // The peer has to accept one of each type in the end.
            return;
        }
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals >= MAX_REFUSALS {
            let there = count(ConnType::BulkIn).min(count(ConnType::BulkOut));
            self.limit = Some(u32::try_from(there).unwrap_or(u32::MAX));
        }
    }
}

/// The type of connection to open next, if one is missing: with types, there should be one for control and
/// `bulk` each way, and there are `count`.
pub(crate) fn next_missing(
    types: ConnTypes,
    bulk: u32,
    count: impl Fn(ConnType) -> usize,
) -> Option<ConnType> {
    if types == ConnTypes::Untyped {
        return (count(ConnType::Any) == 0).then_some(ConnType::Any);
    }
    if count(ConnType::Control) == 0 {
        return Some(ConnType::Control);
    }
    let (ins, outs) = (count(ConnType::BulkIn), count(ConnType::BulkOut));
    // CAST: Never more than fit.
    let bulk = bulk as usize;
    if ins < bulk && ins <= outs {
        Some(ConnType::BulkIn)
    } else {
        (outs < bulk).then_some(ConnType::BulkOut)
    }
}

#[cfg_attr(
    CONFIG_KUNIT = "y",
    kernel::macros::kunit_tests(socklnd_peer_conns_per_peer)
)]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    /// Makes what is missing until nothing is, and returns how many there are of each type.
    fn grow(types: ConnTypes, bulk: u32) -> [usize; 4] {
        let mut there = [0; 4];
        // CAST: Their numbers are 0 to 3.
        while let Some(kind) = next_missing(types, bulk, |kind| there[kind as usize]) {
            there[kind as usize] += 1;
            assert!(there[2] <= there[3] + 1);
        }
        there
    }

    #[test]
    fn one_for_control_and_some_each_way() {
        assert_eq!(grow(ConnTypes::Typed, 1), [0, 1, 1, 1]);
        assert_eq!(grow(ConnTypes::Typed, 4), [0, 1, 4, 4]);
        assert_eq!(grow(ConnTypes::Typed, 127), [0, 1, 127, 127]);
        assert_eq!(grow(ConnTypes::Untyped, 4), [1, 0, 0, 0]);
    }

    #[test]
    fn by_the_speed_of_the_link() {
        for (mbps, bulk) in [
            (0, 1),
            (10, 1),
            (1_000, 1),
            (2_500, 1),
            (10_000, 2),
            (25_000, 3),
            (100_000, 4),
            (400_000, 5),
            (u32::MAX, 12),
        ] {
            assert_eq!(for_speed(mbps), bulk);
        }
    }

    #[test]
    fn agreed_after_three_refusals_in_a_row() {
        let there = |kind| usize::from(kind != ConnType::Any);
        let mut agreement = Agreement::new();
        assert_eq!(agreement.bulk(4), 4);
        for _ in 0..5 {
            agreement.note_refusal(ConnTypes::Typed, there);
            agreement.note_refusal(ConnTypes::Typed, there);
            agreement.note_admission();
        }
        assert_eq!(agreement.bulk(4), 4);
        for _ in 0..3 {
            agreement.note_refusal(ConnTypes::Typed, there);
        }
        assert_eq!(agreement.bulk(4), 1);
        assert_eq!(agreement.bulk(0), 1);
    }

    #[test]
    fn one_of_each_is_wanted_always() {
        let mut agreement = Agreement::new();
        for _ in 0..300 {
            agreement.note_refusal(ConnTypes::Typed, |kind| {
                usize::from(kind == ConnType::Control)
            });
        }
        assert_eq!(agreement.bulk(4), 4);
        for _ in 0..300 {
            agreement.note_refusal(ConnTypes::Typed, |_| 2);
        }
        assert_eq!(agreement.bulk(4), 2);
        assert_eq!(agreement.bulk(1), 1);
    }
}
