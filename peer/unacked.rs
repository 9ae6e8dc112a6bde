// SPDX-License-Identifier: GPL-2.0

//! Messages that the peer was asked to acknowledge, and has not yet.
//!
//! Nothing of ours needs that: the kernel says when pages are free. But a tunable has large messages
//! count as sent only when the peer says that they have arrived. An [`Unacked`] is part of a peer,
//! behind a lock of its own, inside of which no other is taken.
//!
//! A message has an entry from before its first byte is sent, because the peer may answer, by another
//! connection, before the one who sends is done. Whatever comes first, the entry or the transmit
//! waits for the other:
//!
//! - When TCP has let go of the transmit, it is kept by the entry. If there is none any more, the
//!   peer has acknowledged it: it is done.
//! - When the peer acknowledges it, the entry goes. If it keeps the transmit, that is done; else TCP
//!   still has it, and it ends like any other.
//!
//! So a peer can't have pages freed that TCP still reads. With a connection end all transmits that
//! went by it. Their entries stay for a while without them, because the peer, which can't know which
//! of them were counted as lost, may acknowledge them by another connection.

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

/// How many cookies a peer is given at a time: so many that it hardly ever needs more.
const COOKIES_AT_ONCE: u64 = 1 << 32;

/// Cookies that nobody was given yet.
///
/// They belong to an interface, as its incarnation does: to the other side, nothing has changed when a
/// peer is deleted and made again, and it may still acknowledge, late, what was sent before. After all
/// of them were given to somebody, they begin anew.
pub(crate) struct Cookies(Atomic<u64>);

impl Cookies {
    /// All of them.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(COOKIE_PING + 1))
    }

    /// All that were given to somebody so far are less than this. Any context.
    pub(super) fn peek(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// The first one of the next ones for a peer. Any context.
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
    /// The connection by which it goes; none if that has ended.
    conn: Option<ConnId>,
    /// Since when it is up to the peer to acknowledge it, in monotonic milliseconds; as long as TCP has
    /// it, that is not settled.
    since_ms: u64,
    /// TCP has let go of it.
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
    /// How many were acknowledged so far.
    acked: u64,
    /// Less than this are cookies of messages to other peers, of which one may have been this one.
    begin: u64,
    /// The next cookie, if there are any left of those that were given to the peer.
    next: u64,
    left: u64,
}

impl Unacked {
    /// None, and of those that come each cookie is `begin` or greater.
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

    /// How many there are, and how many the peer has acknowledged so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.len, self.acked)
    }

    /// A message is to go by `conn`: returns its cookie, one of those that `more` has given.
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
            // After all of them were used, one of the first may still be.
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

    /// The message will not be sent.
    pub(super) fn forget(&mut self, cookie: u64) {
        if self.entries.remove(&cookie).is_some() {
            // INVARIANT: One less.
            self.len = self.len.saturating_sub(1);
        }
    }

    /// TCP has let go of `tx` at `now`: from then on the peer has a timeout to acknowledge it. Gives it
    /// back if there is nothing to wait for: it was acknowledged, or its connection has ended.
    pub(super) fn released(&mut self, tx: KBox<Tx>, now: u64) -> Option<KBox<Tx>> {
        match self.entries.get_mut(&tx.cookie()) {
            Some(entry) if entry.conn.is_some() => {
                entry.since_ms = now;
                // It was empty: a transmit is released once.
                entry.tx.replace(tx)
            }
            _ => Some(tx),
        }
    }

    /// The peer says that the messages from `first` to `last` have arrived. Adds those to `done` that
    /// TCP has let go of.
    ///
    /// # Errors
    ///
    /// [`WireError::Cookie`] if one of them was not asked for, or was acknowledged before. Those in
    /// front of it count. But what was asked for before this peer was made says nothing, and is no error:
    /// it is late.
    pub(super) fn acknowledged(
        &mut self,
        (first, last): (u64, u64),
        done: &mut Fifo<Tx>,
    ) -> Result<(), WireError> {
        let wrong = |cookie| Err(WireError::Cookie(cookie));
        let is_older = first > COOKIE_PING && (first..self.begin).contains(&last);
        if is_older && self.entries.get(&first).is_none() {
            return Ok(());
        }
        // No more than there are: the number may be anything.
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
            // The cursor may have gone back, if that was the last entry.
            cursor = next;
        }
    }

    /// `conn` has ended. Returns those of its transmits that TCP has let go of. The others end as TCP
    /// lets go of them. The peer may acknowledge all of them for a timeout from `now` on.
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

    /// Forgets those of connections that ended at `begun`, which is a timeout ago, or before.
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

    /// A connection, other than `but`, with a message from cookie `from` on that the peer was to
    /// acknowledge from `begun`, a timeout ago, on, or before; and the cookie behind that.
    pub(super) fn late(
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

    /// Of an interface that has only this peer.
    fn add(unacked: &mut Unacked, conn: ConnId) -> Result<u64> {
        Ok(unacked.add(conn, Reservation::new()?, || COOKIE_PING + 1))
    }

    /// So many messages by one connection, the first by cookie 2; of all, or of none, TCP has let go.
    fn asked(count: u64, released: bool) -> Result<(Unacked, Arc<Atomic<u32>>)> {
        let ended = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let mut unacked = Unacked::new(0);
        for _ in 0..count {
            let cookie = add(&mut unacked, CONN)?;
            if released {
                assert!(unacked.released(tx(cookie, &ended)?, 100).is_none());
            }
        }
        Ok((unacked, ended))
    }

    /// How many transmits an acknowledgement sets free, and whether it was right.
    fn told(unacked: &mut Unacked, range: (u64, u64)) -> (usize, bool) {
        let mut done = Fifo::new();
        let right = unacked.acknowledged(range, &mut done).is_ok();
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
        unacked.forget(4);
        unacked.forget(4);
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
        let (mut unacked, ended) = asked(1, false)?;
        // Acknowledged first: TCP still has it, and nothing comes out.
        assert!(told(&mut unacked, (2, 2)) == (0, true));
        assert!(unacked.released(tx(2, &ended)?, 100).is_some());
        // Released first.
        let (mut unacked, ended) = asked(3, true)?;
        assert_eq!(ended.load(Relaxed), 0);
        assert!(told(&mut unacked, (3, 3)) == (1, true));
        assert!(told(&mut unacked, (2, 2)) == (1, true));
        assert!(told(&mut unacked, (4, 4)) == (1, true));
        assert_eq!(ended.load(Relaxed), 3);
        Ok(())
    }

    #[test]
    fn what_was_not_asked_for_is_refused() -> Result {
        for released in [false, true] {
            let (mut unacked, _) = asked(5, released)?;
            let free = |n| if released { n } else { 0 };
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
        let (mut unacked, ended) = asked(2, true)?;
        let half = add(&mut unacked, CONN)?;
        let other = add(&mut unacked, OTHER)?;
        assert_eq!(unacked.abandon(CONN, 200).len(), 2);
        assert_eq!(unacked.abandon(CONN, 200).len(), 0);
        // What TCP lets go of only now is not kept.
        assert!(unacked.released(tx(half, &ended)?, 300).is_some());
        assert!(unacked.released(tx(other, &ended)?, 300).is_none());
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
        let (mut unacked, ended) = asked(3, true)?;
        let other = add(&mut unacked, OTHER)?;
        assert!(unacked.late(0, None, 99).is_none());
        assert!(unacked.late(0, None, 100) == Some((CONN, 3)));
        // That of the other has not been let go of.
        assert!(unacked.late(3, Some(CONN), u64::MAX - 1).is_none());
        assert!(unacked.released(tx(other, &ended)?, 120).is_none());
        assert!(unacked.late(3, Some(CONN), 119).is_none());
        assert!(unacked.late(3, Some(CONN), 120) == Some((OTHER, 6)));
        assert!(unacked.late(6, Some(OTHER), 120).is_none());
        drop(unacked.abandon(CONN, 150));
        assert!(unacked.late(0, None, 119).is_none());
        Ok(())
    }
}
