// SPDX-License-Identifier: GPL-2.0

//! Which of a peer's connections a message takes.
//!
//! A rule without state: nothing to protect and nothing to free. The very same file is built in
//! user space, for property tests (`tests/wire`).

use super::super::wire::ConnType;

/// Of connections with their types and loads, the least loaded one of those that messages of this
/// size go by; if there is none, the least loaded one of all.
pub(crate) fn choose<T>(
    conns: impl Iterator<Item = (T, ConnType, u64)> + Clone,
    bulk: bool,
) -> Option<T> {
    let load = |conn: &(T, ConnType, u64)| conn.2;
    conns
        .clone()
        .filter(|(_, kind, _)| carries(*kind, bulk))
        .min_by_key(load)
        .or_else(|| conns.min_by_key(load))
        .map(|(conn, _, _)| conn)
}

/// Whether messages of this size go by connections of this type.
fn carries(kind: ConnType, bulk: bool) -> bool {
    match kind {
        ConnType::Any => true,
        ConnType::Control => !bulk,
        ConnType::BulkOut => bulk,
        ConnType::BulkIn => false,
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_peer_choice))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    const TYPED: [(u32, ConnType, u64); 3] = [
        (1, ConnType::Control, 500),
        (2, ConnType::BulkIn, 0),
        (3, ConnType::BulkOut, 9000),
    ];

    #[test]
    fn by_type() {
        assert_eq!(choose(TYPED.into_iter(), false), Some(1));
        assert_eq!(choose(TYPED.into_iter(), true), Some(3));
    }

    #[test]
    fn any_rather_than_none() {
        assert_eq!(choose(TYPED.into_iter().take(2), true), Some(2));
        assert_eq!(choose(TYPED.into_iter().skip(1), false), Some(2));
        assert_eq!(choose(TYPED.into_iter().take(0), false), None);
    }

    #[test]
    fn the_least_loaded() {
        let conns = [
            (1, ConnType::Any, 7),
            (2, ConnType::Any, 5),
            (3, ConnType::Any, 5),
        ];
        assert_eq!(choose(conns.into_iter(), true), Some(2));
        assert_eq!(choose(conns.into_iter().take(1), false), Some(1));
    }
}
