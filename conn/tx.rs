// SPDX-License-Identifier: GPL-2.0

//! The send side of a connection: as many messages as fit in each call of TCP.
//!
//! Transmits that wait to be sent are in the connection's I/O state and protected by its mutex. The header
//! of a message, in the form of the connection's version of the protocol, is written when the message is taken
//! out of the queue. Acknowledgements are sent with messages, and those that are left over in NOOPs. Large
//! payloads are sent without a copy, see [`super::zerocopy`]; the rest is copied, and complete when TCP has
//! accepted it.

use super::{
    zerocopy::{
        self,
        ZcBatch, //
    },
    Conn,
    Ended,
    Io,
    Turn,
    QUANTUM, //
};
use crate::{
    fault,
    lib_linux::{
        iov::BvecBuf,
        queue::Fifo,
        socket::ZcUbuf, //
    },
    trace,
    tunables,
    tx::{
        SendMode,
        Tx, //
    },
    upper::Failure,
    wire::{
        Acks,
        COOKIE_PING, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// The most NOOPs that wait to be sent: as many as the ranges of full [`Acks`]. Other acknowledgements stay in the
/// queue, and when there is no room in that, nothing more is received.
const MAX_NOOPS: usize = 32;

impl Conn {
    /// Sends from the queue until it is empty, the send buffer is full, the quantum is used up, or the
    /// connection is closed. `list` is memory for what TCP is called with.
    pub(super) fn transmit(self: &Arc<Self>, io: &mut Io, list: &mut BvecBuf) -> Result<Turn> {
        let turn = self.transmit_some(io, list);
        // It can only complete once it is closed.
        if !io.out.front().is_some_and(Tx::is_zerocopy) {
            io.zc = None;
        }
        turn
    }

    fn transmit_some(self: &Arc<Self>, io: &mut Io, list: &mut BvecBuf) -> Result<Turn> {
        let Some(socket) = io.socket.as_ref() else {
            return Ok(Turn::Idle);
        };
        let zc_min = socket.can_zerocopy().then(tunables::zc_min_payload_nob);
        let mut quantum = QUANTUM;
        loop {
            if self.is_closing() {
                return Ok(Turn::Idle);
            }
            let complete = self.take_queued(&mut io.out, &mut io.ended, zc_min)?;
            let Some(first) = io.out.front() else {
                return Ok(if complete { Turn::Idle } else { Turn::NoMemory });
            };
            if quantum == 0 {
                return Ok(Turn::More);
            }
            let zerocopy = first.wants_zerocopy(zc_min) && zerocopy::open(&mut io.zc, self, first);
            let zc = io.zc.as_ref().filter(|_| zerocopy);
            // One call sends as many messages as fit.
            let mut frags = list.start();
            let more = zerocopy::fill(&mut frags, io.out.iter(), zc.map(|zc| &**zc), zc_min);
            io.deadlines.note_tx_progress(socket.wmem_queued());
            let sent = match zc {
                // The error of TCP if it has room in the send buffer but no memory.
                _ if socket.has_send_space() && fault::send_fails() => Err(EAGAIN),
                Some(zc) => socket.send_zerocopy(&frags, more, zc),
                None => socket.send(&frags, more),
            };
            let sent = match sent {
                Ok(sent) => sent,
                Err(e) if e == EAGAIN => {
                    // If there is room in the buffer there was no memory, and no event reports when
                    // there is.
                    return Ok(if socket.has_send_space() {
                        Turn::NoMemory
                    } else {
                        Turn::Full
                    });
                }
                Err(e) => return Err(e),
            };
            io.deadlines.wmem_mark = socket.wmem_queued();
            let zc = io.zc.as_mut().filter(|_| zerocopy);
            self.note_sent(&mut io.out, &mut io.ended, zc, sent);
            quantum = quantum.saturating_sub(sent);
        }
    }

    /// Takes messages, acknowledgements and a keepalive message out of the queue. Returns false if there was
    /// no memory for some of them, which stay queued. Payloads of `zc_min` bytes or more are sent without a copy.
    fn take_queued(
        &self,
        out: &mut Fifo<Tx>,
        ended: &mut Ended,
        zc_min: Option<usize>,
    ) -> Result<bool> {
        let mut queued = Fifo::new();
        let (ping, tells) = {
            let mut txq = self.txq.lock();
            queued.append(&mut txq.fifo);
            let ping = core::mem::replace(&mut txq.ping, false);
            (ping, !txq.acks.is_empty())
        };
        let checksum = tunables::checksum();
        let asks = tunables::acks_wanted() && self.proto.has_msg_header();
        while let Some(mut tx) = queued.pop_front() {
            let mut cookie = 0;
            // It may have waited for a connection when the version was not yet known.
            let written = if tx.fits(self.proto) {
                let ack = if tells { self.pop_ack(Acks::pop) } else { None };
                if asks && tx.wants_zerocopy(zc_min) {
                    cookie = self.peer.zc_req_add(self.id());
                }
                tx.write_hdr(self.proto, [cookie, ack.unwrap_or(0)], checksum)
            } else {
                Err(EPROTONOSUPPORT)
            };
            match written {
                Ok(()) => out.push_back(tx),
                Err(e) => {
                    self.peer.zc_req_cancel(cookie);
                    self.queued.fetch_sub(tx.len() as u64, Relaxed);
                    ended.fail(tx, Failure::local(e));
                }
            }
        }
        if tells {
            let waiting = out.iter().filter(|tx| !tx.is_lnet()).count();
            for _ in waiting..MAX_NOOPS {
                // Only this thread takes them out, so they are still there when there is memory.
                if self.txq.lock().acks.is_empty() {
                    break;
                }
                let Ok(noop) = Tx::noop(self.peer.ni().live().txs()) else {
                    return Ok(false);
                };
                let cookies = self.pop_ack(|acks| acks.pop_noop(self.proto));
                self.push_noop(out, noop, cookies.unwrap_or_default())?;
            }
        } else if ping && out.is_empty() {
            // Without memory for it, leave it to the next one.
            if let Ok(noop) = Tx::noop(self.peer.ni().live().txs()) {
                self.push_noop(out, noop, [0, COOKIE_PING])?;
            }
        }
        Ok(true)
    }

    /// Takes acknowledgements out, and queues connections that wait for room.
    fn pop_ack<R>(&self, pop: impl FnOnce(&mut Acks) -> Option<R>) -> Option<R> {
        let (popped, wanted) = {
            let mut txq = self.txq.lock();
            let popped = pop(&mut txq.acks);
            (popped, core::mem::replace(&mut txq.acks_wanted, false))
        };
        if wanted {
            self.peer.retry_conns();
        }
        popped
    }

    /// Adds a NOOP to the transmits to send.
    fn push_noop(&self, out: &mut Fifo<Tx>, mut noop: KBox<Tx>, cookies: [u64; 2]) -> Result {
        noop.write_hdr(self.proto, cookies, tunables::checksum())?;
        self.queued.add(noop.len() as u64, Relaxed);
        out.push_back(noop);
        Ok(())
    }

    /// TCP has accepted the next `nob` bytes, without a copy if there is a `zc`: completes messages of which
    /// it has all, or leaves them to `zc`.
    fn note_sent(
        &self,
        out: &mut Fifo<Tx>,
        ended: &mut Ended,
        mut zc: Option<&mut ZcUbuf<ZcBatch>>,
        nob: usize,
    ) {
        let mut nob = nob;
        self.queued.fetch_sub(nob as u64, Relaxed);
        self.traffic.tx_bytes.add(nob as u64);
        if let Some(zc) = &mut zc {
            self.traffic.zc_bytes.add(nob as u64);
            zc.grow(nob);
        }
        let mode = match zc {
            Some(_) => SendMode::ZeroCopy,
            None => SendMode::Copy,
        };
        while nob > 0 {
            let Some(tx) = out.front_mut() else { return };
            let part = nob.min(tx.remaining());
            tx.advance(part, mode);
            nob -= part;
            if tx.remaining() > 0 {
                return;
            }
            if let Some(tx) = out.pop_front() {
                if tx.is_lnet() {
                    self.traffic.tx_msgs.add(1);
                    trace::send(|| self.traced(), tx.len() as u64, None);
                }
                match &mut zc {
                    Some(zc) => {
                        self.traffic.zc_msgs.add(1);
                        zc.push(tx);
                    }
                    None => self.tx_released(tx, ended),
                }
            }
        }
    }
}
