// SPDX-License-Identifier: GPL-2.0

//! Which of a peer's connections a message takes.
//!
//! A rule without state: nothing to protect and nothing to free. The very same file is built in
//! user space, for property tests (`tests/wire`).

use super::super::wire::{
    ConnType,
    Fit,
    MsgClass,
    Proto, //
};

/// Of connections with their types and loads, the least loaded one of those that are for messages
/// of this class; if there is none, the least loaded one of those that may carry them.
pub(crate) fn choose<T>(
    conns: impl Iterator<Item = (T, ConnType, u64)> + Clone,
    proto: Proto,
    class: MsgClass,
) -> Option<T> {
    let least_loaded = |wanted: Fit| {
        let fitting = conns
            .clone()
            .filter(|(_, kind, _)| proto.fit(*kind, class) == wanted);
        fitting.min_by_key(|conn| conn.2).map(|(conn, _, _)| conn)
    };
    least_loaded(Fit::Yes).or_else(|| least_loaded(Fit::May))
}

#[cfg_attr(
    CONFIG_KUNIT = "y",
    kernel::macros::kunit_tests(socklnd_peer_select_conn)
)]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    const TYPED: [(u32, ConnType, u64); 3] = [
        (1, ConnType::Control, 500),
        (2, ConnType::BulkIn, 0),
        (3, ConnType::BulkOut, 9000),
    ];

    fn of_typed(proto: Proto, class: MsgClass, missing: u32) -> Option<u32> {
        let rest = TYPED.into_iter().filter(|(name, _, _)| *name != missing);
        choose(rest, proto, class)
    }

    #[test]
    fn by_type() {
        for proto in [Proto::V1, Proto::V2, Proto::V3, Proto::V4] {
            assert_eq!(of_typed(proto, MsgClass::Small, 0), Some(1));
            assert_eq!(of_typed(proto, MsgClass::Bulk, 0), Some(3));
        }
        assert_eq!(of_typed(Proto::V2, MsgClass::Ack, 0), Some(1));
        assert_eq!(of_typed(Proto::V3, MsgClass::Ack, 0), Some(2));
    }

    #[test]
    fn any_rather_than_none() {
        assert_eq!(of_typed(Proto::V1, MsgClass::Bulk, 3), Some(2));
        assert_eq!(of_typed(Proto::V1, MsgClass::Small, 1), Some(2));
        assert_eq!(
            choose(TYPED.into_iter().take(0), Proto::V1, MsgClass::Small),
            None
        );
    }

    #[test]
    fn but_never_in_the_way_of_acknowledgements() {
        assert_eq!(of_typed(Proto::V3, MsgClass::Bulk, 3), Some(1));
        assert_eq!(of_typed(Proto::V3, MsgClass::Small, 1), Some(3));
        assert_eq!(of_typed(Proto::V3, MsgClass::Ack, 2), None);
        let only = TYPED.into_iter().filter(|(name, _, _)| *name == 2);
        assert_eq!(choose(only, Proto::V3, MsgClass::Small), None);
    }

    #[test]
    fn the_least_loaded() {
        let conns = [
            (1, ConnType::Any, 7),
            (2, ConnType::Any, 5),
            (3, ConnType::Any, 5),
        ];
        let bulk = |n| choose(conns.into_iter().take(n), Proto::V3, MsgClass::Bulk);
        assert_eq!(bulk(3), Some(2));
        assert_eq!(bulk(1), Some(1));
    }
}
