// SPDX-License-Identifier: GPL-2.0

//! Acknowledgements of zero-copy messages: those that are due to a peer, and those from a peer.
//!
//! One acknowledgement is sent in the second cookie of a message. From version 3 on the two cookies of a NOOP
//! can acknowledge more:
//!
//! - if the first is 0: the second;
//! - if the first is greater: both;
//! - if the first is less: all from the first to the second.
//!
//! A sender uses its cookies in order, so those that are due form few ranges. The number of ranges is fixed:
//! nothing is allocated, and a peer can't make this node use memory without limit. If there is no room for a
//! cookie the caller is told, because that is no violation of the protocol.
//!
//! A plain value, owned by its holder.

use super::{
    Msg,
    MsgKind,
    Proto,
    WireError,
    COOKIE_PING, //
};

/// The most ranges. Messages are reordered only between connections, so most peers need far fewer.
const MAX_RANGES: usize = 32;

/// Cookies from the first to the last, both included.
type Range = (u64, u64);

/// The messages that `msg` acknowledges: one or two ranges of cookies. The ranges are not empty, and have only
/// valid cookies; whether there are such messages is not checked.
///
/// # Errors
///
/// [`WireError::Cookie`] if no message can have it, or if the version has no such form.
pub(crate) fn acked_ranges(proto: Proto, msg: &Msg) -> Result<[Option<Range>; 2], WireError> {
    let ranges = match (msg.kind, msg.cookies) {
        (_, [_, 0]) => return Ok([None; 2]),
        (MsgKind::Noop, [0, COOKIE_PING]) if proto.has_pings() => return Ok([None; 2]),
        (MsgKind::Lnet, [_, cookie]) | (MsgKind::Noop, [0, cookie]) => {
            [Some((cookie, cookie)), None]
        }
        (MsgKind::Noop, [first, _]) if !proto.has_wide_acks() => {
            return Err(WireError::Cookie(first));
        }
        (MsgKind::Noop, [one, other]) if one > other => [Some((one, one)), Some((other, other))],
        (MsgKind::Noop, range) => [Some(range.into()), None],
    };
    match ranges.iter().flatten().find(|range| range.0 <= COOKIE_PING) {
        Some((first, _)) => Err(WireError::Cookie(*first)),
        None => Ok(ranges),
    }
}

/// The result of adding a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Added {
    /// It was added.
    Yes,
    /// There is no room for another range; nothing was changed.
    Full,
}

/// Cookies of received messages whose acknowledgements are due.
///
/// # Invariants
///
/// The first `len` ranges hold the cookies, each of them once, and none begins where another ends;
/// `len` is at most `MAX_RANGES`.
pub(crate) struct Acks {
    ranges: [Range; MAX_RANGES],
    len: usize,
}

impl Acks {
    /// No cookies.
    pub(crate) const fn new() -> Self {
        // INVARIANT: There are no ranges.
        Self {
            ranges: [(0, 0); MAX_RANGES],
            len: 0,
        }
    }

    /// Whether none are due.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn ranges(&self) -> &[Range] {
        self.ranges.get(..self.len).unwrap_or_default()
    }

    fn take(&mut self, at: usize) -> Option<Range> {
        let last = self.len.checked_sub(1)?;
        let taken = *self.ranges.get(at)?;
        // INVARIANT: The last takes the place of the one that goes.
        *self.ranges.get_mut(at)? = *self.ranges.get(last)?;
        self.len = last;
        Some(taken)
    }

    fn position(&self, condition: impl Fn(Range) -> bool) -> Option<usize> {
        self.ranges().iter().position(|range| condition(*range))
    }

    /// Adds all cookies of a range. Those that are there already are so once.
    fn merge(&mut self, mut new: Range) -> Added {
        let touches = |range: Range, new: Range| {
            range.0 <= new.1.saturating_add(1) && new.0 <= range.1.saturating_add(1)
        };
        while let Some(at) = self.position(|range| touches(range, new)) {
            if let Some((first, last)) = self.take(at) {
                new = (new.0.min(first), new.1.max(last));
            }
        }
        // If one was taken, there is room.
        let Some(free) = self.ranges.get_mut(self.len) else {
            return Added::Full;
        };
        // INVARIANT: What overlapped the new range, ended before it or began behind it, has become
        // part of it.
        *free = new;
        self.len = self.len.saturating_add(1);
        Added::Yes
    }

    /// Adds the cookie of a received message.
    ///
    /// # Errors
    ///
    /// [`WireError::Cookie`] if it is not valid, or is there already.
    pub(crate) fn add(&mut self, cookie: u64) -> Result<Added, WireError> {
        let is_due = |(first, last): Range| (first..=last).contains(&cookie);
        if cookie <= COOKIE_PING || self.position(is_due).is_some() {
            return Err(WireError::Cookie(cookie));
        }
        Ok(self.merge((cookie, cookie)))
    }

    /// Takes out one cookie, to send with a message.
    pub(crate) fn pop(&mut self) -> Option<u64> {
        let free = self.len.checked_sub(1)?;
        let last = self.ranges.get_mut(free)?;
        let cookie = last.0;
        if last.0 == last.1 {
            // INVARIANT: Nothing is left of the last range.
            self.len = free;
        } else {
            // INVARIANT: It is not empty.
            last.0 = cookie.saturating_add(1);
        }
        Some(cookie)
    }

    /// Takes out as many cookies as a NOOP can acknowledge. Returns its two cookies.
    pub(crate) fn pop_noop(&mut self, proto: Proto) -> Option<[u64; 2]> {
        if !proto.has_wide_acks() {
            return self.pop().map(|cookie| [0, cookie]);
        }
        let (first, last) = self.take(self.len.checked_sub(1)?)?;
        if first != last {
            return Some([first, last]);
        }
        let Some(at) = self.position(|(first, last)| first == last) else {
            return Some([0, first]);
        };
        let other = self.take(at).map_or(0, |(other, _)| other);
        Some([first.max(other), first.min(other)])
    }

    /// Moves the cookies of `other` here, as far as there is room.
    pub(crate) fn absorb(&mut self, other: &mut Self) {
        while let Some(at) = other.len.checked_sub(1) {
            let Some(range) = other.ranges.get(at).copied() else {
                return;
            };
            if self.merge(range) == Added::Full {
                return;
            }
            // INVARIANT: The last range is gone.
            other.len = at;
        }
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(socklnd_wire_acks))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    fn said(
        proto: Proto,
        kind: MsgKind,
        cookies: [u64; 2],
    ) -> Result<[Option<Range>; 2], WireError> {
        let msg = Msg {
            cookies,
            ..Msg::new(kind)
        };
        acked_ranges(proto, &msg)
    }

    #[test]
    fn what_a_peer_says_has_arrived() {
        let one = |cookie| Ok([Some((cookie, cookie)), None]);
        let wrong = |cookie| Err(WireError::Cookie(cookie));
        for proto in [Proto::V2, Proto::V3, Proto::V4] {
            let noop = |cookies| said(proto, MsgKind::Noop, cookies);
            for first in [0, 1, 2, u64::MAX] {
                assert_eq!(noop([first, 0]), Ok([None; 2]));
                assert_eq!(said(proto, MsgKind::Lnet, [first, 0]), Ok([None; 2]));
                // That one is a request.
                assert_eq!(said(proto, MsgKind::Lnet, [first, 9]), one(9));
                assert_eq!(said(proto, MsgKind::Lnet, [first, 1]), wrong(1));
            }
            for cookie in [2, 3, u64::MAX] {
                assert_eq!(noop([0, cookie]), one(cookie));
            }
        }
        for proto in [Proto::V3, Proto::V4] {
            let noop = |cookies| said(proto, MsgKind::Noop, cookies);
            assert_eq!(noop([0, 1]), Ok([None; 2]));
            assert_eq!(noop([5, 2]), Ok([Some((5, 5)), Some((2, 2))]));
            assert_eq!(noop([2, 5]), Ok([Some((2, 5)), None]));
            assert_eq!(noop([5, 5]), one(5));
            assert_eq!(noop([2, u64::MAX]), Ok([Some((2, u64::MAX)), None]));
            assert_eq!(noop([1, 1]), wrong(1));
            assert_eq!(noop([1, 5]), wrong(1));
            assert_eq!(noop([5, 1]), wrong(1));
        }
        assert_eq!(said(Proto::V2, MsgKind::Noop, [0, 1]), wrong(1));
        for cookies in [[5, 2], [2, 5], [5, 5], [1, 1]] {
            assert_eq!(said(Proto::V2, MsgKind::Noop, cookies), wrong(cookies[0]));
        }
    }

    fn due(cookies: &[u64]) -> Result<Acks, WireError> {
        let mut acks = Acks::new();
        for cookie in cookies {
            assert_eq!(acks.add(*cookie)?, Added::Yes);
        }
        Ok(acks)
    }

    #[test]
    fn forms_of_a_noop() -> Result<(), WireError> {
        for (cookies, noop) in [
            (&[5][..], [0, 5]),
            (&[5, 9], [9, 5]),
            (&[9, 5], [9, 5]),
            (&[5, 6], [5, 6]),
            (&[6, 5], [5, 6]),
            (&[7, 5, 6], [5, 7]),
            (&[2, 3, 4, 5], [2, 5]),
            (&[u64::MAX, u64::MAX - 1], [u64::MAX - 1, u64::MAX]),
        ] {
            for proto in [Proto::V3, Proto::V4] {
                let mut acks = due(cookies)?;
                assert_eq!(acks.pop_noop(proto), Some(noop));
                assert_eq!(acks.pop_noop(proto), None);
                assert!(acks.is_empty());
            }
        }
        Ok(())
    }

    #[test]
    fn version_2_knows_one_at_a_time() -> Result<(), WireError> {
        let mut acks = due(&[5, 6, 9])?;
        let mut seen = [0; 3];
        for seen in &mut seen {
            let noop = acks.pop_noop(Proto::V2);
            *seen = noop.map_or(0, |[first, second]| if first == 0 { second } else { 0 });
        }
        seen.sort_unstable();
        assert_eq!(seen, [5, 6, 9]);
        assert_eq!(acks.pop_noop(Proto::V2), None);
        Ok(())
    }

    #[test]
    fn one_by_one() -> Result<(), WireError> {
        let mut acks = due(&[3, 4])?;
        assert_eq!(acks.pop(), Some(3));
        assert_eq!(acks.pop_noop(Proto::V3), Some([0, 4]));
        assert_eq!(acks.pop(), None);
        Ok(())
    }

    #[test]
    fn bad_cookies_are_refused() -> Result<(), WireError> {
        let mut acks = due(&[4, 5, 6, 9])?;
        for cookie in [0, 1, 4, 5, 6, 9] {
            assert_eq!(acks.add(cookie), Err(WireError::Cookie(cookie)));
        }
        // Not for ever: once it is acknowledged it may come again.
        assert_eq!(acks.pop_noop(Proto::V3), Some([0, 9]));
        assert_eq!(acks.add(9), Ok(Added::Yes));
        Ok(())
    }

    #[test]
    fn gaps_are_bounded() {
        let mut acks = Acks::new();
        for at in 0..MAX_RANGES as u64 {
            assert_eq!(acks.add(10 + 2 * at), Ok(Added::Yes));
        }
        // That is not the peer's fault.
        assert_eq!(acks.add(5), Ok(Added::Full));
        assert_eq!(acks.add(10), Err(WireError::Cookie(10)));
        // What closes a gap needs no room.
        assert_eq!(acks.add(11), Ok(Added::Yes));
        assert_eq!(acks.add(5), Ok(Added::Yes));
        assert_eq!(acks.add(7), Ok(Added::Full));
    }

    #[test]
    fn moved_as_a_whole() -> Result<(), WireError> {
        let (mut to, mut from) = (due(&[3, 8])?, due(&[4, 5])?);
        to.absorb(&mut from);
        assert!(from.is_empty());
        assert_eq!(to.pop_noop(Proto::V3), Some([3, 5]));
        assert_eq!(to.pop_noop(Proto::V3), Some([0, 8]));
        assert!(to.is_empty());
        // What both have is told once.
        let (mut to, mut from) = (due(&[3, 4, 5, u64::MAX])?, due(&[5, 6, u64::MAX])?);
        to.absorb(&mut from);
        assert_eq!(to.pop_noop(Proto::V3), Some([3, 6]));
        assert_eq!(to.pop_noop(Proto::V3), Some([0, u64::MAX]));
        assert!(to.is_empty());
        Ok(())
    }

    #[test]
    fn moved_as_far_as_there_is_room() -> Result<(), WireError> {
        let (mut to, mut from) = (Acks::new(), due(&[3, 500, 700])?);
        for at in 1..MAX_RANGES as u64 {
            assert_eq!(to.add(10 + 2 * at)?, Added::Yes);
        }
        to.absorb(&mut from);
        assert_eq!(from.ranges(), [(3, 3), (500, 500)]);
        assert_eq!(to.add(9)?, Added::Full);
        Ok(())
    }
}
