// SPDX-License-Identifier: GPL-2.0

//! Transmits that TCP sends without a copy.
//!
//! A transmit with a large payload is not copied into the socket: TCP refers to its pages, those of the
//! header included. Until TCP has accepted its last byte it is in the connection's I/O state like any
//! other. Then it goes into a [`ZcBatch`], the object of the [`ZcUbuf`] for its pages. When no packet
//! refers to the ubuf any more, the batch is posted to the connection's scheduler, whose thread completes
//! the transmits: the message layer is never called from where the kernel frees packets. A transmit that
//! the peer was asked to acknowledge may have to wait for that as well, see [`crate::peer`].
//!
//! A batch has one owner at any time: the connection's I/O state as long as messages can be added, then
//! the ubuf, the scheduler's list, and the scheduler's thread. So each transmit in it is completed exactly
//! once. Nothing of it is shared, so no lock protects it.
//!
//! A device or a queueing discipline may keep packets for as long as it likes, and no connection waits for
//! that: a batch may outlive its connection's socket, its NI and its network namespace, whose objects
//! stay in memory with it, because it holds a reference to the connection. Its transmits are completed when
//! the ubuf is, with an error if the connection has ended. Only the removal of the module waits, see
//! [`crate::Lnd`]. A signal ends that wait, and then [`ZcBatch::give_up`] completes the transmits.

use super::{
    Conn,
    Ended, //
};
use crate::{
    lib_linux::{
        iov::Bvecs,
        misc,
        queue::Fifo,
        socket::{
            More,
            ZcDone,
            ZcOps,
            ZcUbuf, //
        }, //
    },
    stats::{
        Gauge,
        LiveGuard, //
    },
    tx::Tx,
    upper::Failure,
    wire::Nid, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// A batch of so many bytes takes no further message. This is what TCP puts into one packet to the
/// device at most: messages in one packet need one ubuf, because a packet refers to one only; and the
/// first message of a batch does not wait long for the last.
const ZC_BATCH_NOB: usize = 64 << 10;

/// Transmits of a connection that share a [`ZcUbuf`].
pub(crate) struct ZcBatch {
    conn: Arc<Conn>,
    /// Those of which TCP has accepted all.
    txs: Fifo<Tx>,
    /// Bytes that TCP has accepted.
    nob: usize,
    _live: LiveGuard,
}

impl ZcBatch {
    fn new(conn: &Arc<Conn>) -> Self {
        conn.zc_batches.add(1, Relaxed);
        Self {
            conn: conn.clone(),
            txs: Fifo::new(),
            nob: 0,
            _live: Gauge::enter(conn.sched.zc_batches()),
        }
    }

    /// The NIDs of the NI that sends the messages and of the peer.
    pub(crate) fn nids(&self) -> (Nid, Nid) {
        (self.conn.peer.ni().nid(), self.conn.peer.nid())
    }

    /// Fails the transmits although packets may still refer to their pages. Thread context, no lock held.
    pub(crate) fn give_up(mut self) {
        misc::assert_may_sleep();
        let mut txs = Fifo::new();
        txs.append(&mut self.txs);
        self.conn.peer.ni().fail_txs(txs, Failure::dropped());
    }

    /// TCP has accepted `nob` bytes more.
    pub(super) fn grow(&mut self, nob: usize) {
        self.nob = self.nob.saturating_add(nob);
    }

    /// Adds a transmit that TCP has accepted as a whole, or that will send no more.
    pub(super) fn push(&mut self, tx: KBox<Tx>) {
        self.txs.push_back(tx);
    }

    /// Completes the transmits: no packet refers to their pages any more. Thread context, no lock held.
    pub(crate) fn finish(this: KBox<ZcDone<Self>>) {
        misc::assert_may_sleep();
        let copied = this.was_copied();
        let mut this = ZcDone::into_object(this);
        let ni = this.conn.peer.ni();
        if copied {
            ni.events().zc_copied.add(this.txs.len() as u64);
        }
        match this.conn.failure() {
            // The peer may have received it all, or TCP may have dropped it. A sender that was told that it
            // was sent would wait for an answer.
            Some(why) => {
                let mut txs = Fifo::new();
                txs.append(&mut this.txs);
                this.conn.peer.fail_txs(txs, why);
            }
            None => {
                let mut ended = Ended::new();
                while let Some(tx) = this.txs.pop_front() {
                    this.conn.tx_released(tx, &mut ended);
                }
                ended.finish(|txs, why| this.conn.peer.fail_txs(txs, why));
                // The connection may have ended meanwhile, before the message layer knew that these
                // messages went by it.
                if let Some(why) = this.conn.close_reason() {
                    ni.upper().conn_ended(this.conn.id(), why.error);
                }
            }
        }
    }
}

impl Drop for ZcBatch {
    fn drop(&mut self) {
        self.conn.zc_batches.add(-1, Relaxed);
    }
}

impl ZcOps for ZcBatch {
    fn complete(this: KBox<ZcDone<Self>>) {
        // A reference of our own, because the thread may drop the batch and the connection before the
        // call returns. Dropping the last reference to a scheduler only frees memory, so that may
        // happen here.
        let sched = (*this.conn.sched).clone();
        sched.post_zc_done(this);
    }
}

/// Makes sure that there is a ubuf for `tx`, the next to be sent. Returns false if there is no memory for
/// one. May sleep.
pub(super) fn open(zc: &mut Option<ZcUbuf<ZcBatch>>, conn: &Arc<Conn>, tx: &Tx) -> bool {
    // All parts of a message share one ubuf.
    let goes_on = tx.is_zerocopy() || zc.as_ref().is_some_and(|zc| zc.nob < ZC_BATCH_NOB);
    if !goes_on {
        // This closes the old one.
        *zc = ZcUbuf::new(ZcBatch::new(conn), conn.sched.zc_list()).ok();
    }
    zc.is_some()
}

/// Fills `frags` for one call of TCP: with messages that are all copied, or, with `zc`, all sent without
/// a copy. The first goes in any case; others follow if they are to be sent in the same way, which is
/// without a copy if they have `min` bytes of payload. Returns whether something is left for another call.
pub(super) fn fill<'a>(
    frags: &mut Bvecs<'a>,
    txs: impl Iterator<Item = &'a Tx>,
    zc: Option<&ZcBatch>,
    min: Option<usize>,
) -> More {
    let mut nob = zc.map_or(0, |zc| zc.nob);
    let mut first = true;
    for tx in txs {
        let fits = tx.wants_zerocopy(min) == zc.is_some() && nob < ZC_BATCH_NOB;
        if !(first || fits) || !tx.add_to(frags) {
            return More::Follows;
        }
        if zc.is_some() {
            nob = nob.saturating_add(tx.remaining());
        }
        first = false;
    }
    More::None
}

#[kunit_tests(socklnd_conn_zerocopy)]
mod tests {
    use super::*;
    use crate::{
        lib_linux::{
            iov::BvecBuf,
            page::{
                PageRange,
                Pages, //
            }, //
        },
        tx::SendMode,
        upper::{
            Completion,
            Status, //
        },
        wire::Proto, //
    };
    use kernel::sync::atomic::Atomic;

    /// Counts the transmits that ended well.
    struct Done(Arc<Atomic<u32>>);

    impl Completion for Done {
        fn complete(self: KBox<Self>, status: Status) {
            if status.is_ok() {
                self.0.add(1, Relaxed);
            }
        }
    }

    const HEADER: usize = 72;

    fn txs(payloads: &[usize]) -> Result<Fifo<Tx>> {
        let done = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let mut txs = Fifo::new();
        for &len in payloads {
            let payload = if len > 0 {
                let pages = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
                Some(PageRange::new(pages, 0, len)?.into())
            } else {
                None
            };
            let done = KBox::new(Done(done.clone()), GFP_KERNEL)?;
            txs.push_back(Tx::written(payload, done, Proto::V1, 0)?);
        }
        Ok(txs)
    }

    /// How many bytes a call would be for, and whether something would be left.
    fn listed(txs: &Fifo<Tx>, zc: Option<&ZcBatch>, min: Option<usize>) -> Result<(usize, More)> {
        let mut buf = BvecBuf::with_capacity(320)?;
        let mut frags = buf.start();
        let more = fill(&mut frags, txs.iter(), zc, min);
        Ok((frags.len_bytes(), more))
    }

    #[test]
    fn small_payloads_are_copied_together() -> Result {
        let txs = txs(&[0, 100, 2047, 2048, 5])?;
        let copied = 3 * HEADER + 100 + 2047;
        assert!(listed(&txs, None, Some(2048))? == (copied, More::Follows));
        let all = 5 * HEADER + 100 + 2047 + 2048 + 5;
        assert!(listed(&txs, None, None)? == (all, More::None));
        Ok(())
    }

    #[test]
    fn the_first_goes_in_any_case() -> Result {
        // There was no memory for a ubuf.
        let txs = txs(&[4096, 4096, 10])?;
        assert!(listed(&txs, None, Some(2048))? == (HEADER + 4096, More::Follows));
        Ok(())
    }

    #[test]
    fn zero_takes_all_payloads_but_no_lone_header() -> Result {
        let txs = txs(&[0, 1])?;
        let mut iter = txs.iter();
        assert!(iter.next().is_some_and(|tx| !tx.wants_zerocopy(Some(0))));
        assert!(iter.next().is_some_and(|tx| tx.wants_zerocopy(Some(0))));
        Ok(())
    }

    #[test]
    fn a_message_stays_as_it_was_begun() -> Result {
        for mode in [SendMode::Copy, SendMode::ZeroCopy] {
            let mut txs = txs(&[4096])?;
            let Some(tx) = txs.front_mut() else {
                return Err(EINVAL);
            };
            assert!(!tx.is_zerocopy());
            assert!(tx.wants_zerocopy(Some(4096)));
            assert!(!tx.wants_zerocopy(Some(4097)));
            tx.advance(10, mode);
            let zerocopy = mode == SendMode::ZeroCopy;
            assert!(tx.is_zerocopy() == zerocopy);
            for min in [None, Some(0), Some(4096), Some(1 << 20)] {
                assert!(tx.wants_zerocopy(min) == zerocopy);
            }
        }
        Ok(())
    }
}
