// SPDX-License-Identifier: GPL-2.0

//! What must hold for the rules, whatever the clock, the parameters and the loads are.

use crate::module::{
    peer::{
        conns_per_peer::{
            next_missing,
            Agreement, //
        }, //
        select_conn::choose,
    },
    route::backoff::Backoff,
    wire::{
        ConnType,
        ConnTypes,
        Fit,
        MsgClass,
        Proto, //
    }, //
};
use proptest::{
    collection::vec,
    prelude::*, //
};

/// A time or a span: of the usual size, or any.
fn ms() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_000u64, any::<u64>(), Just(u64::MAX)]
}

/// When the next attempt is due, as far as that can be asked for.
fn due_ms(backoff: &Backoff) -> u64 {
    let (mut low, mut high) = (0, u64::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        if backoff.is_due(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

fn conn() -> impl Strategy<Value = (ConnType, u64)> {
    let kind = prop_oneof![
        Just(ConnType::Any),
        Just(ConnType::Control),
        Just(ConnType::BulkIn),
        Just(ConnType::BulkOut),
    ];
    (kind, prop_oneof![0..4u64, any::<u64>()])
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn waits_double_within_their_bounds(
        now in ms(),
        min in ms(),
        max in ms(),
        failures in 1..80usize,
    ) {
        let mut backoff = Backoff::new();
        prop_assert!(backoff.is_due(0));
        let mut wait = min;
        for _ in 0..failures {
            backoff.fail(now, min, max);
            prop_assert_eq!(due_ms(&backoff), now.saturating_add(wait));
            wait = wait.saturating_mul(2).min(max).max(min);
        }
    }

    #[test]
    fn waits_keep_to_bounds_that_change(changes in vec((ms(), ms(), ms()), 1..80)) {
        // An administrator may change the parameters at any time, and time may stand still.
        let mut backoff = Backoff::new();
        for (now, min, max) in changes {
            backoff.fail(now, min, max);
            let due = due_ms(&backoff);
            prop_assert!(due >= now.saturating_add(min));
            prop_assert!(due <= now.saturating_add(max.max(min)));
        }
    }

    #[test]
    fn postponing_never_hastens(now in ms(), wait in ms(), min in ms(), max in ms()) {
        let mut backoff = Backoff::new();
        backoff.fail(now, min, max);
        let before = due_ms(&backoff);
        backoff.postpone(now, wait);
        prop_assert_eq!(due_ms(&backoff), before.max(now.saturating_add(wait)));
        // Nor is it a failure: the next one costs what it would have cost.
        let mut other = Backoff::new();
        other.fail(now, min, max);
        other.fail(now, min, max);
        backoff.fail(now, min, max);
        prop_assert_eq!(due_ms(&backoff), due_ms(&other));
    }

    #[test]
    fn a_message_takes_the_least_loaded_of_its_type(
        conns in vec(conn(), 0..12),
        proto in prop_oneof![Just(Proto::V1), Just(Proto::V2), Just(Proto::V3), Just(Proto::V4)],
        class in prop_oneof![
            Just(MsgClass::Small),
            Just(MsgClass::Bulk),
            Just(MsgClass::Ack),
            Just(MsgClass::PatientAck),
        ],
    ) {
        let numbered = conns.iter().enumerate().map(|(at, (kind, load))| (at, *kind, *load));
        let fit = |kind| proto.fit(kind, class);
        let best = [Fit::Yes, Fit::May]
            .into_iter()
            .find(|wanted| conns.iter().any(|(kind, _)| fit(*kind) == *wanted));
        match (choose(numbered, proto, class), best) {
            (None, None) => {}
            (Some(at), Some(best)) => {
                let (kind, load) = conns[at];
                prop_assert_eq!(fit(kind), best);
                for (other, (kind, other_load)) in conns.iter().enumerate() {
                    if fit(*kind) == best {
                        // Of equals the first, so that the choice is the same each time.
                        prop_assert!((load, at) <= (*other_load, other));
                    }
                }
            }
            (chosen, best) => prop_assert!(false, "{chosen:?} although the best are {best:?}"),
        }
    }

    /// Two nodes that connect to each other in any order, and refuse what they don't want, end with as
    /// many connections as the one that wants fewer, and ask no more.
    #[test]
    fn connections_of_two_nodes_fit_together(
        own in [1..=127u32, 1..=127u32],
        turns in vec(0..2usize, 0..400),
    ) {
        let mut agreements = [Agreement::new(), Agreement::new()];
        // By type, as the first one sees it.
        let mut there = [0usize; 4];
        for who in turns.into_iter().chain((0..2000).map(|turn| turn % 2)) {
            let seen = |kind: ConnType| if who == 0 { kind } else { kind.inverse() } as usize;
            let bulk = agreements[who].bulk(own[who]);
            let Some(kind) = next_missing(ConnTypes::Typed, bulk, |kind| there[seen(kind)]) else {
                continue;
            };
            let most = if kind == ConnType::Control { 1 } else { own[1 - who] as usize };
            if there[seen(kind)] < most {
                there[seen(kind)] += 1;
                agreements.iter_mut().for_each(Agreement::note_admission);
            } else {
                agreements[who].note_refusal(ConnTypes::Typed, |kind| there[seen(kind)]);
            }
        }
        let least = own[0].min(own[1]) as usize;
        prop_assert_eq!(there, [0, 1, least, least]);
        for who in 0..2 {
            let bulk = agreements[who].bulk(own[who]);
            let seen = |kind: ConnType| if who == 0 { kind } else { kind.inverse() } as usize;
            prop_assert_eq!(next_missing(ConnTypes::Typed, bulk, |kind| there[seen(kind)]), None);
        }
    }
}
