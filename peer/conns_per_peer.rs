// SPDX-License-Identifier: GPL-2.0

//! How many connections there are to be to a peer, and which is to be made next.
//!
//! Part of a peer, and protected with it by its lock. `core` only: the very same file is built in
//! user space, for property tests (`tests/wire`).
//!
//! A node wants one connection for control and several for bulk each way, as many as its
//! administrator says. A peer that wants fewer refuses those that are too many. It doesn't say why, and
//! so is asked a few times more; then what there is counts as agreed upon, until the last connection
//! has closed.

use super::super::wire::ConnType;

/// How often in a row a peer has to refuse one more connection until it is asked no more.
const MAX_REFUSALS: u8 = 3;

/// Connections for bulk, each way, over a link of that speed, as nodes of today reckon.
pub(crate) fn for_speed(mbps: u32) -> u32 {
    let gbps = mbps / 1000;
    gbps.checked_ilog2().unwrap_or(0) / 2 + 1
}

/// What is agreed upon with a peer.
pub(crate) struct Agreement {
    /// As many for bulk, each way, as it takes; without one, nobody has found out.
    limit: Option<u32>,
    refusals: u8,
}

impl Agreement {
    /// Nothing.
    pub(crate) const fn new() -> Self {
        Self {
            limit: None,
            refusals: 0,
        }
    }

    /// How many connections for bulk there are to be, each way, if this side wants `own`.
    pub(crate) fn bulk(&self, own: u32) -> u32 {
        self.limit.map_or(own, |limit| limit.min(own)).max(1)
    }

    /// A connection has come about.
    pub(crate) fn admitted(&mut self) {
        self.refusals = 0;
    }

    /// The peer has refused one more, with so many of each type there.
    pub(crate) fn refused(&mut self, typed: bool, count: impl Fn(ConnType) -> usize) {
        if next_missing(typed, 1, &count).is_some() {
            // That one it must take in the end.
            return;
        }
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals >= MAX_REFUSALS {
            let there = count(ConnType::BulkIn).min(count(ConnType::BulkOut));
            self.limit = Some(u32::try_from(there).unwrap_or(u32::MAX));
        }
    }
}

/// The type of connection that is to be made next, if one is missing: with types, one for control and
/// `bulk` each way, of which there are `count`.
pub(crate) fn next_missing(
    typed: bool,
    bulk: u32,
    count: impl Fn(ConnType) -> usize,
) -> Option<ConnType> {
    if !typed {
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
    fn grow(typed: bool, bulk: u32) -> [usize; 4] {
        let mut there = [0; 4];
        // CAST: Their numbers are 0 to 3.
        while let Some(kind) = next_missing(typed, bulk, |kind| there[kind as usize]) {
            there[kind as usize] += 1;
            assert!(there[2] <= there[3] + 1);
        }
        there
    }

    #[test]
    fn one_for_control_and_some_each_way() {
        assert_eq!(grow(true, 1), [0, 1, 1, 1]);
        assert_eq!(grow(true, 4), [0, 1, 4, 4]);
        assert_eq!(grow(true, 127), [0, 1, 127, 127]);
        assert_eq!(grow(false, 4), [1, 0, 0, 0]);
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
            agreement.refused(true, there);
            agreement.refused(true, there);
            agreement.admitted();
        }
        assert_eq!(agreement.bulk(4), 4);
        for _ in 0..3 {
            agreement.refused(true, there);
        }
        assert_eq!(agreement.bulk(4), 1);
        assert_eq!(agreement.bulk(0), 1);
    }

    #[test]
    fn one_of_each_is_wanted_always() {
        let mut agreement = Agreement::new();
        for _ in 0..300 {
            agreement.refused(true, |kind| usize::from(kind == ConnType::Control));
        }
        assert_eq!(agreement.bulk(4), 4);
        for _ in 0..300 {
            agreement.refused(true, |_| 2);
        }
        assert_eq!(agreement.bulk(4), 2);
        assert_eq!(agreement.bulk(1), 1);
    }
}
