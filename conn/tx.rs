// SPDX-License-Identifier: GPL-2.0

//! The send side of a connection: as many messages as fit in each call.
//!
//! What waits to be sent is part of the connection's I/O state and protected by its mutex. Large
//! payloads are lent to TCP, see [`super::loans`]; the rest is copied, and done when TCP has it.

use super::{
    loans::{
        self,
        Batch, //
    },
    Conn,
    Io,
    Turn,
    QUANTUM, //
};
use crate::{
    hooks,
    lib_linux::{
        queue::Fifo,
        socket::Loan,
        trace, //
    },
    tunables,
    tx::Tx, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

impl Conn {
    /// Sends from the queue until it is empty, the socket full, or the quantum used up.
    pub(super) fn transmit(self: &Arc<Self>, io: &mut Io) -> Result<Turn> {
        let turn = self.transmit_some(io);
        // The loan can only be returned when it is closed.
        if !io.out.front().is_some_and(Tx::is_lent) {
            io.loan = None;
        }
        turn
    }

    fn transmit_some(self: &Arc<Self>, io: &mut Io) -> Result<Turn> {
        let Some(socket) = io.socket.as_ref() else {
            return Ok(Turn::Idle);
        };
        let min_lent = socket.can_lend().then(tunables::zero_copy_nob);
        let mut quantum = QUANTUM;
        loop {
            io.out.append(&mut self.txq.lock().fifo);
            let Some(first) = io.out.front() else {
                return Ok(Turn::Idle);
            };
            if quantum == 0 {
                return Ok(Turn::More);
            }
            let lend = first.is_to_be_lent(min_lent) && loans::open(&mut io.loan, self, first);
            let loan = io.loan.as_ref().filter(|_| lend);
            // As many messages as fit go out in one call.
            let mut frags = io.frags.start();
            let more = loans::list(
                &mut frags,
                io.out.iter(),
                loan.map(|loan| &**loan),
                min_lent,
            );
            io.deadlines.tx_seen(socket.wmem_queued());
            if hooks::send_fails() {
                return Ok(Turn::NoMemory);
            }
            let sent = match loan {
                Some(loan) => socket.send_lent(&frags, more, loan),
                None => socket.send(&frags, more),
            };
            let sent = match sent {
                Ok(sent) => sent,
                Err(e) if e == EAGAIN => {
                    // With room in the buffer it was memory that was missing, and nothing will
                    // tell when there is some.
                    return Ok(if socket.has_send_space() {
                        Turn::NoMemory
                    } else {
                        Turn::Full
                    });
                }
                Err(e) => return Err(e),
            };
            io.deadlines.wmem_mark = socket.wmem_queued();
            self.sent(&mut io.out, io.loan.as_mut().filter(|_| lend), sent);
            quantum = quantum.saturating_sub(sent);
        }
    }

    /// TCP has accepted the next `nob` bytes, under `loan` if there is one: completes what is out as
    /// a whole, or leaves it to the loan.
    fn sent(&self, out: &mut Fifo<Tx>, mut loan: Option<&mut Loan<Batch>>, nob: usize) {
        let mut nob = nob;
        self.queued.fetch_sub(nob as u64, Relaxed);
        self.traffic.tx_bytes.add(nob as u64);
        if let Some(loan) = &mut loan {
            self.traffic.zc_bytes.add(nob as u64);
            loan.grow(nob);
        }
        while nob > 0 {
            let Some(tx) = out.front_mut() else { return };
            let part = nob.min(tx.remaining());
            tx.advance(part, loan.is_some());
            nob -= part;
            if tx.remaining() > 0 {
                return;
            }
            if let Some(tx) = out.pop_front() {
                self.traffic.tx_msgs.add(1);
                trace::send(|| self.subject(), tx.len() as u64, None);
                match &mut loan {
                    Some(loan) => {
                        self.traffic.zc_msgs.add(1);
                        loan.push(tx);
                    }
                    None => tx.finish(Ok(())),
                }
            }
        }
    }
}
