// SPDX-License-Identifier: GPL-2.0

//! Messages that the peer was asked to acknowledge and has not yet.
//!
//! The driver itself does not need acknowledgements: the kernel reports when pages are no longer used. But with
//! the tunable `zc_acks` a zero-copy message counts as sent only when the peer has acknowledged it. An
//! [`Unacked`] is part of a peer, behind a lock of its own, inside of which no other lock is taken.
//!
//! An entry for a message exists before its first byte is sent, because the peer may acknowledge it, on another
//! connection, before the sending thread continues. The entry and the transmit can end in either order:
//!
//! - When TCP does not need the transmit any more, the entry keeps it. If there is no entry, the peer has
//!   acknowledged the message, and the transmit is complete.
//! - When the peer acknowledges the message, the entry is removed. If it keeps the transmit, that is complete;
//!   else TCP still needs the transmit, which completes like any other.
//!
//! So a peer can't cause pages to be given back that TCP still reads. When a connection ends, all transmits that
//! were sent on it fail. Their entries stay for a while without the transmits, because the peer may acknowledge
//! them on another connection: it does not know which of them have failed.

use crate::{
    lib_linux::queue::Fifo,
    tx::Tx,
    upper::ConnId,
    wire::{
        WireError,
        COOKIE_PING, //
    }, //
};
use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// How many cookies a peer reserves at a time: so many that it hardly ever needs more.
const COOKIES_AT_ONCE: u64 = 1 << 32;

/// The cookies of an NI that no peer has reserved yet.
///
/// They belong to the NI, like the incarnation, because the other node does not notice when a peer is
/// deleted and added again, and may acknowledge late what was sent before. They wrap around after the last.
pub(crate) struct Cookies(Atomic<u64>);

impl Cookies {
    /// All of them.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(COOKIE_PING + 1))
    }

    /// All cookies that were reserved so far are less than this. Any context.
    pub(super) fn peek(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Reserves cookies for a peer; returns the first of them. Any context.
    pub(crate) fn take(&self) -> u64 {
        // It wraps around.
        self.0.fetch_add(COOKIES_AT_ONCE, Relaxed)
    }
}

/// Memory for an entry.
pub(super) struct Reservation(RBTreeNodeReservation<u64, Entry>);

impl Reservation {
    /// May sleep.
    pub(super) fn new() -> Result<Self> {
        Ok(Self(RBTreeNodeReservation::new(GFP_KERNEL)?))
    }
}

struct Entry {
    /// The connection on which it is sent; `None` if that has ended.
    conn: Option<ConnId>,
    /// When TCP no longer needed it, so that the peer could acknowledge it, in monotonic milliseconds;
    /// `u64::MAX` before that.
    since_ms: u64,
    /// The transmit, once TCP does not need it any more.
    tx: Option<KBox<Tx>>,
}

/// Messages by their cookies.
///
/// # Invariants
///
/// `len` is the number of entries.
pub(super) struct Unacked {
    entries: RBTree<u64, Entry>,
    len: u64,
    /// How many the peer has acknowledged so far.
    acked: u64,
    /// Lower cookies are of messages to other peers, or to this one before it was deleted and added again.
    begin: u64,
    /// The next cookie of those reserved, if `left` is not 0.
    next: u64,
    left: u64,
}

impl Unacked {
    /// No messages. Their cookies will be `begin` or greater.
    pub(super) fn new(begin: u64) -> Self {
        // INVARIANT: There are none.
        Self {
            entries: RBTree::new(),
            len: 0,
            acked: 0,
            begin,
            next: begin,
            left: 0,
        }
    }

    /// How many messages there are, and how many the peer has acknowledged so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.len, self.acked)
    }

    /// Adds a message that is to be sent on `conn`, and returns its cookie. `more` reserves cookies.
    pub(super) fn add(
        &mut self,
        conn: ConnId,
        Reservation(room): Reservation,
        more: impl Fn() -> u64,
    ) -> u64 {
        let mut cookie;
        loop {
            if self.left == 0 {
                self.begin = more();
                self.next = self.begin;
                self.left = COOKIES_AT_ONCE;
            }
            cookie = self.next;
            self.next = cookie.wrapping_add(1);
            self.left = self.left.saturating_sub(1);
            // After they have wrapped around, it may still be in use.
            if cookie > COOKIE_PING && self.entries.get(&cookie).is_none() {
                break;
            }
        }
        let entry = Entry {
            conn: Some(conn),
            since_ms: u64::MAX,
            tx: None,
        };
        // There is none with this cookie, so nothing comes out.
        self.entries.insert(room.into_node(cookie, entry));
        // INVARIANT: One more.
        self.len = self.len.saturating_add(1);
        cookie
    }

    /// Removes a message that will not be sent.
    pub(super) fn remove(&mut self, cookie: u64) {
        if self.entries.remove(&cookie).is_some() {
            // INVARIANT: One less.
            self.len = self.len.saturating_sub(1);
        }
    }

    /// TCP does not need `tx` any more since `now`, when the peer's timeout to acknowledge it begins. Gives `tx`
    /// back if it was acknowledged already, or its connection has ended.
    pub(super) fn set_released(&mut self, tx: KBox<Tx>, now: u64) -> Option<KBox<Tx>> {
        match self.entries.get_mut(&tx.cookie()) {
            Some(entry) if entry.conn.is_some() => {
                entry.since_ms = now;
                // It was `None`: this is called once for each transmit.
                entry.tx.replace(tx)
            }
            _ => Some(tx),
        }
    }

    /// The peer has acknowledged the messages from `first` to `last`. Adds the transmits to `done` that TCP does
    /// not need any more.
    ///
    /// # Errors
    ///
    /// [`WireError::Cookie`] if one of them was not to be acknowledged, or was before; those in front of it
    /// count. An acknowledgement of messages from before this peer was created is late, and is ignored.
    pub(super) fn acknowledge(
        &mut self,
        (first, last): (u64, u64),
        done: &mut Fifo<Tx>,
    ) -> Result<(), WireError> {
        let wrong = |cookie| Err(WireError::Cookie(cookie));
        let is_older = first > COOKIE_PING && (first..self.begin).contains(&last);
        if is_older && self.entries.get(&first).is_none() {
            return Ok(());
        }
        // Check the length of the range, which may be any number.
        if last.checked_sub(first).is_none_or(|more| more >= self.len) {
            return wrong(first);
        }
        let mut expected = first;
        let mut cursor = self.entries.cursor_lower_bound_mut(&first);
        loop {
            let found = cursor.filter(|cursor| *cursor.current().0 == expected);
            let Some(found) = found else {
                return wrong(expected);
            };
            let (next, node) = found.remove_current();
            // INVARIANT: One less.
            self.len = self.len.saturating_sub(1);
            self.acked = self.acked.saturating_add(1);
            if let (_, Entry { tx: Some(tx), .. }) = node.to_key_value() {
                done.push_back(tx);
            }
            if expected >= last {
                return Ok(());
            }
            expected = expected.saturating_add(1);
            // The cursor moves backwards if the last entry was removed.
            cursor = next;
        }
    }

    /// `conn` has ended at `now`. Returns those of its transmits that TCP does not need any more; the others
    /// complete later. The peer may still acknowledge all of them for the length of a timeout.
    pub(super) fn abandon(&mut self, conn: ConnId, now: u64) -> Fifo<Tx> {
        let mut txs = Fifo::new();
        for entry in self.entries.values_mut() {
            if entry.conn == Some(conn) {
                entry.conn = None;
                entry.since_ms = now;
                if let Some(tx) = entry.tx.take() {
                    txs.push_back(tx);
                }
            }
        }
        txs
    }

    /// Removes messages of connections that ended at `begun`, which is a timeout ago, or before.
    pub(super) fn expire(&mut self, begun: u64) {
        let mut cursor = self.entries.cursor_front_mut();
        while let Some(at) = cursor {
            let (_, entry) = at.current();
            cursor = if entry.conn.is_none() && begun >= entry.since_ms {
                // INVARIANT: One less.
                self.len = self.len.saturating_sub(1);
                at.remove_current().0
            } else {
                at.move_next()
            };
        }
    }

    /// A connection, other than `but`, with a message of cookie `from` or greater whose timeout began at
    /// `begun`, a timeout ago, or before; and the cookie behind it.
    pub(super) fn next_late(
        &mut self,
        from: u64,
        but: Option<ConnId>,
        begun: u64,
    ) -> Option<(ConnId, u64)> {
        let mut cursor = self.entries.cursor_lower_bound_mut(&from);
        while let Some(at) = cursor {
            let (cookie, entry) = at.current();
            if let Some(conn) = entry.conn {
                if entry.conn != but && begun >= entry.since_ms {
                    return Some((conn, cookie.saturating_add(1)));
                }
            }
            cursor = at.move_next();
        }
        None
    }
}

#[kunit_tests(socklnd_peer_unacked)]
mod tests {
    use super::*;
    use crate::{
        upper::{
            Completion,
            Status, //
        },
        wire::Proto, //
    };
    use kernel::sync::Arc;

    const CONN: ConnId = 16;
    const OTHER: ConnId = 32;
    const FOREVER: (u64, u64) = (2, u64::MAX);

    /// Counts the transmits that ended, in any way.
    struct Ended(Arc<Atomic<u32>>);

    impl Completion for Ended {
        fn complete(self: KBox<Self>, _status: Status) {
            self.0.add(1, Relaxed);
        }
    }

    /// A transmit that asks by this cookie.
    fn tx(cookie: u64, ended: &Arc<Atomic<u32>>) -> Result<KBox<Tx>> {
        let done = KBox::new(Ended(ended.clone()), GFP_KERNEL)?;
        Tx::written(None, done, Proto::V3, cookie)
    }

    /// Of an NI that has only this peer.
    fn add(unacked: &mut Unacked, conn: ConnId) -> Result<u64> {
        Ok(unacked.add(conn, Reservation::new()?, || COOKIE_PING + 1))
    }

    /// Whether TCP has released the pages of a message.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Pages {
        /// TCP may still send them.
        InUse,
        /// TCP has released them.
        Released,
    }

    /// `count` messages that were sent by one connection, the first with cookie 2.
    fn asked(count: u64, pages: Pages) -> Result<(Unacked, Arc<Atomic<u32>>)> {
        let ended = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let mut unacked = Unacked::new(0);
        for _ in 0..count {
            let cookie = add(&mut unacked, CONN)?;
            if pages == Pages::Released {
                assert!(unacked.set_released(tx(cookie, &ended)?, 100).is_none());
            }
        }
        Ok((unacked, ended))
    }

    /// How many transmits an acknowledgement completes, and whether it was valid.
    fn told(unacked: &mut Unacked, range: (u64, u64)) -> (usize, bool) {
        let mut done = Fifo::new();
        let right = unacked.acknowledge(range, &mut done).is_ok();
        (done.len(), right)
    }

    #[test]
    fn cookies_begin_at_2_and_after_the_last() -> Result {
        let mut unacked = Unacked::new(0);
        assert_eq!(add(&mut unacked, CONN)?, 2);
        assert_eq!(add(&mut unacked, CONN)?, 3);
        (unacked.next, unacked.left) = (u64::MAX, 3);
        assert_eq!(add(&mut unacked, CONN)?, u64::MAX);
        // Neither 0 nor 1, nor one that is still waited for.
        assert_eq!(add(&mut unacked, CONN)?, 4);
        assert_eq!(unacked.len, 4);
        unacked.remove(4);
        unacked.remove(4);
        assert_eq!(unacked.len, 3);
        assert!(told(&mut unacked, (2, 3)) == (0, true));
        assert!(told(&mut unacked, (u64::MAX, u64::MAX)) == (0, true));
        assert_eq!(unacked.len, 0);
        Ok(())
    }

    #[test]
    fn each_peer_has_its_own_cookies() -> Result {
        let cookies = Cookies::new();
        let new = || Unacked::new(cookies.peek());
        let (mut one, mut other) = (new(), new());
        let add = |unacked: &mut Unacked| -> Result<u64> {
            Ok(unacked.add(CONN, Reservation::new()?, || cookies.take()))
        };
        assert_eq!(add(&mut one)?, 2);
        assert_eq!(add(&mut other)?, 2 + COOKIES_AT_ONCE);
        assert_eq!(add(&mut one)?, 3);
        assert_eq!(add(&mut other)?, 3 + COOKIES_AT_ONCE);
        // One that is made later hears, late, what was sent to an earlier one, but only that.
        let mut later = new();
        for range in [(2, 2), (2, 3), (2 + COOKIES_AT_ONCE, 3 + COOKIES_AT_ONCE)] {
            assert!(told(&mut later, range) == (0, true));
        }
        let first = cookies.peek();
        for range in [(first, first), (2, first), FOREVER, (3, 2)] {
            assert!(told(&mut later, range) == (0, false));
        }
        assert_eq!(add(&mut later)?, first);
        assert!(told(&mut later, (3, 3)) == (0, true));
        assert!(told(&mut later, (first, first)) == (0, true));
        assert!(told(&mut later, (first, first)) == (0, false));
        assert!(told(&mut one, (2, 2)) == (0, true));
        assert!(told(&mut one, (2, 2)) == (0, false));
        // One of them needs more, and the last ones of all are among them.
        cookies.0.store(u64::MAX - 2, Relaxed);
        one.left = 0;
        // 3 is still waited for.
        for expected in [u64::MAX - 2, u64::MAX - 1, u64::MAX, 2, 4] {
            assert_eq!(add(&mut one)?, expected);
        }
        Ok(())
    }

    #[test]
    fn done_when_acknowledged_and_released() -> Result {
        let (mut unacked, ended) = asked(1, Pages::InUse)?;
        // Acknowledged first: TCP still has it, and nothing comes out.
        assert!(told(&mut unacked, (2, 2)) == (0, true));
        assert!(unacked.set_released(tx(2, &ended)?, 100).is_some());
        // Released first.
        let (mut unacked, ended) = asked(3, Pages::Released)?;
        assert_eq!(ended.load(Relaxed), 0);
        assert!(told(&mut unacked, (3, 3)) == (1, true));
        assert!(told(&mut unacked, (2, 2)) == (1, true));
        assert!(told(&mut unacked, (4, 4)) == (1, true));
        assert_eq!(ended.load(Relaxed), 3);
        Ok(())
    }

    #[test]
    fn what_was_not_asked_for_is_refused() -> Result {
        for pages in [Pages::InUse, Pages::Released] {
            let (mut unacked, _) = asked(5, pages)?;
            let free = |n| if pages == Pages::Released { n } else { 0 };
            for range in [
                (1, 1),
                (7, 7),
                (1, 3),
                (7, 9),
                (4, 3),
                (0, 0),
                (0, u64::MAX),
                FOREVER,
            ] {
                assert!(told(&mut unacked, range) == (0, false));
            }
            assert_eq!(unacked.len, 5);
            // Twice.
            assert!(told(&mut unacked, (4, 4)) == (free(1), true));
            assert!(told(&mut unacked, (4, 4)) == (0, false));
            // With a gap, and beyond the last: what is in front counts.
            assert!(told(&mut unacked, (2, 5)) == (free(2), false));
            assert!(told(&mut unacked, (5, 6)) == (free(2), true));
            assert!(told(&mut unacked, (6, 6)) == (0, false));
            assert_eq!(unacked.len, 0);
        }
        Ok(())
    }

    #[test]
    fn a_connection_ends() -> Result {
        let (mut unacked, ended) = asked(2, Pages::Released)?;
        let half = add(&mut unacked, CONN)?;
        let other = add(&mut unacked, OTHER)?;
        assert_eq!(unacked.abandon(CONN, 200).len(), 2);
        assert_eq!(unacked.abandon(CONN, 200).len(), 0);
        // What TCP lets go of only now is not kept.
        assert!(unacked.set_released(tx(half, &ended)?, 300).is_some());
        assert!(unacked.set_released(tx(other, &ended)?, 300).is_none());
        assert_eq!(ended.load(Relaxed), 3);
        // The peer may still say that it has come, once; for a time.
        assert!(told(&mut unacked, (2, 2)) == (0, true));
        assert!(told(&mut unacked, (2, 2)) == (0, false));
        unacked.expire(199);
        assert_eq!(unacked.len, 3);
        unacked.expire(200);
        assert_eq!(unacked.len, 1);
        assert!(told(&mut unacked, (3, 3)) == (0, false));
        assert!(told(&mut unacked, (other, other)) == (1, true));
        unacked.expire(u64::MAX);
        Ok(())
    }

    #[test]
    fn each_late_connection_once() -> Result {
        let (mut unacked, ended) = asked(3, Pages::Released)?;
        let other = add(&mut unacked, OTHER)?;
        assert!(unacked.next_late(0, None, 99).is_none());
        assert!(unacked.next_late(0, None, 100) == Some((CONN, 3)));
        // That of the other has not been let go of.
        assert!(unacked.next_late(3, Some(CONN), u64::MAX - 1).is_none());
        assert!(unacked.set_released(tx(other, &ended)?, 120).is_none());
        assert!(unacked.next_late(3, Some(CONN), 119).is_none());
        assert!(unacked.next_late(3, Some(CONN), 120) == Some((OTHER, 6)));
        assert!(unacked.next_late(6, Some(OTHER), 120).is_none());
        drop(unacked.abandon(CONN, 150));
        assert!(unacked.next_late(0, None, 119).is_none());
        Ok(())
    }
}
