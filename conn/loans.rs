// SPDX-License-Identifier: GPL-2.0

//! Transmits whose pages TCP has: zero copy.
//!
//! A transmit with a payload of some size is not copied into the socket, but lent to TCP, header
//! and all. Until TCP has accepted its last byte it is in the connection's I/O state like any other.
//! Then it goes into a [`Batch`], the object of the [`Loan`] that covers its pages. When everybody
//! has let go of the loan, the batch is posted to the connection's scheduler, whose thread ends the
//! transmits: nothing of the message layer runs where the kernel frees packets. A transmit that the peer
//! was asked to acknowledge may have to wait for that still, see [`crate::peer`].
//!
//! A batch has one owner at any time: the connection's I/O state as long as the loan is open, then
//! the loan itself, the scheduler's list, and the scheduler's thread. So each transmit in it ends
//! exactly once. Nothing of it is shared, so no lock protects it.
//!
//! A device or a queueing discipline may keep a loan for as long as it likes. Nobody waits for that:
//! the loan outlives its connection's socket, its interface and its network namespace, and the objects
//! of these stay in memory with it, because it holds the connection. Its transmits end when it comes
//! back, with an error if the connection has ended. Only the module's end waits, see
//! [`crate::Lnd`], and gives up what is still out if a signal says so: then [`Batch::give_up`] ends the
//! transmits.

use super::{
    Conn,
    Ended, //
};
use crate::{
    lib_linux::{
        iov::Bvecs,
        queue::Fifo,
        socket::{
            Lender,
            Lent,
            Loan, //
        }, //
    },
    stats::{
        Gauge,
        LiveGuard, //
    },
    tx::Tx,
    wire::Nid, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// A loan of so many bytes takes no further message. As much as TCP puts into one packet to the
/// device: messages that share a packet share a loan, because a packet can't belong to two; and the
/// first of them need not wait long for the last.
const LOAN_NOB: usize = 64 << 10;

/// Transmits of a connection that are lent to TCP together.
pub(crate) struct Batch {
    conn: Arc<Conn>,
    /// Those of which TCP has accepted all.
    txs: Fifo<Tx>,
    /// Bytes that TCP has accepted.
    nob: usize,
    _live: LiveGuard,
}

impl Batch {
    fn new(conn: &Arc<Conn>) -> Self {
        conn.loans.add(1, Relaxed);
        Self {
            conn: conn.clone(),
            txs: Fifo::new(),
            nob: 0,
            _live: Gauge::enter(conn.sched.loans()),
        }
    }

    /// Whose messages these are, and whom they are for.
    pub(crate) fn nids(&self) -> (Nid, Nid) {
        (self.conn.peer.ni().nid(), self.conn.peer.nid())
    }

    /// Ends the transmits although somebody may still have their pages. Thread context, no lock held.
    pub(crate) fn give_up(mut self) {
        let mut txs = Fifo::new();
        txs.append(&mut self.txs);
        self.conn.peer.ni().fail_txs(txs, ESHUTDOWN);
    }

    /// TCP has accepted `nob` bytes more.
    pub(super) fn grow(&mut self, nob: usize) {
        self.nob = self.nob.saturating_add(nob);
    }

    /// Takes over a transmit that will send no more.
    pub(super) fn push(&mut self, tx: KBox<Tx>) {
        self.txs.push_back(tx);
    }

    /// Ends the transmits: nobody has their pages any more. Thread context, no lock held.
    pub(crate) fn finish(this: KBox<Lent<Self>>) {
        let copied = this.was_copied();
        let mut this = Lent::into_object(this);
        let ni = this.conn.peer.ni();
        if copied {
            ni.events().zc_copied.add(this.txs.len() as u64);
        }
        match this.conn.failure() {
            // Perhaps the peer has got it all, perhaps TCP gave it up. Who was told that it was
            // sent would wait for an answer.
            Some(why) => {
                let mut txs = Fifo::new();
                txs.append(&mut this.txs);
                this.conn.peer.fail_txs(txs, why);
            }
            None => {
                let mut ended = Ended::new();
                while let Some(tx) = this.txs.pop_front() {
                    this.conn.released(tx, &mut ended);
                }
                ended.finish(|txs, why| this.conn.peer.fail_txs(txs, why));
                // Who was told that these were sent may have missed the connection's end, if that
                // came meanwhile.
                if let Some(why) = this.conn.closed() {
                    ni.upper().conn_ended(this.conn.id(), why);
                }
            }
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.conn.loans.add(-1, Relaxed);
    }
}

impl Lender for Batch {
    fn returned(this: KBox<Lent<Self>>) {
        // A reference of our own, because the thread may be done with the batch, and with the
        // connection, before the call is over. Giving up the last one to a scheduler frees memory
        // and does nothing else, so it may happen here.
        let sched = (*this.conn.sched).clone();
        sched.post_returned(this);
    }
}

/// Sees to it that there is a loan that `tx`, the next to be sent, can go under. Returns false if
/// there is none, for want of memory. May sleep.
pub(super) fn open(loan: &mut Option<Loan<Batch>>, conn: &Arc<Conn>, tx: &Tx) -> bool {
    // All parts of a message go under one loan.
    let goes_on = tx.is_lent() || loan.as_ref().is_some_and(|loan| loan.nob < LOAN_NOB);
    if !goes_on {
        // The old one is closed.
        *loan = Loan::new(Batch::new(conn), conn.sched.book()).ok();
    }
    loan.is_some()
}

/// Lists what to hand to TCP in one call: messages that are all copied, or all lent under `loan`.
/// The first is copied or lent as the caller says; of others, those with a payload of `min` bytes
/// are lent. Returns whether something was left for another call.
pub(super) fn list<'a>(
    frags: &mut Bvecs<'a>,
    txs: impl Iterator<Item = &'a Tx>,
    loan: Option<&Batch>,
    min: Option<usize>,
) -> bool {
    let mut nob = loan.map_or(0, |loan| loan.nob);
    let mut first = true;
    for tx in txs {
        let fits = tx.is_to_be_lent(min) == loan.is_some() && nob < LOAN_NOB;
        if !(first || fits) || !tx.add_to(frags) {
            return true;
        }
        if loan.is_some() {
            nob = nob.saturating_add(tx.remaining());
        }
        first = false;
    }
    false
}

#[kunit_tests(socklnd_conn_loans)]
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
    fn listed(txs: &Fifo<Tx>, loan: Option<&Batch>, min: Option<usize>) -> Result<(usize, bool)> {
        let mut buf = BvecBuf::with_capacity(320)?;
        let mut frags = buf.start();
        let more = list(&mut frags, txs.iter(), loan, min);
        Ok((frags.len_bytes(), more))
    }

    #[test]
    fn small_payloads_are_copied_together() -> Result {
        let txs = txs(&[0, 100, 2047, 2048, 5])?;
        let copied = 3 * HEADER + 100 + 2047;
        assert!(listed(&txs, None, Some(2048))? == (copied, true));
        let all = 5 * HEADER + 100 + 2047 + 2048 + 5;
        assert!(listed(&txs, None, None)? == (all, false));
        Ok(())
    }

    #[test]
    fn the_first_goes_in_any_case() -> Result {
        // There was no memory for a loan.
        let txs = txs(&[4096, 4096, 10])?;
        assert!(listed(&txs, None, Some(2048))? == (HEADER + 4096, true));
        Ok(())
    }

    #[test]
    fn zero_lends_all_payloads_but_no_lone_header() -> Result {
        let txs = txs(&[0, 1])?;
        let mut iter = txs.iter();
        assert!(iter.next().is_some_and(|tx| !tx.is_to_be_lent(Some(0))));
        assert!(iter.next().is_some_and(|tx| tx.is_to_be_lent(Some(0))));
        Ok(())
    }

    #[test]
    fn a_message_stays_as_it_was_begun() -> Result {
        for lent in [false, true] {
            let mut txs = txs(&[4096])?;
            let Some(tx) = txs.front_mut() else {
                return Err(EINVAL);
            };
            assert!(!tx.is_lent());
            assert!(tx.is_to_be_lent(Some(4096)));
            assert!(!tx.is_to_be_lent(Some(4097)));
            tx.advance(10, lent);
            assert!(tx.is_lent() == lent);
            for min in [None, Some(0), Some(4096), Some(1 << 20)] {
                assert!(tx.is_to_be_lent(min) == lent);
            }
        }
        Ok(())
    }
}
