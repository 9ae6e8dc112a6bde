// SPDX-License-Identifier: GPL-2.0

//! The end that receives messages and answers each.
//!
//! A function without state of its own, which its thread runs once.

use crate::{
    connection::Connection,
    lib_linux::{
        iov::BvecBuf,
        page::RecvBuf, //
    },
    spec::{
        bodies,
        Spec,
        HEADER_LEN, //
    },
};
use kernel::prelude::*;

/// Pieces received into in one call: a header, and the largest payload.
const FRAGS: usize = 260;

/// Answers sent, and headers received, in one call, at most.
const BATCH: usize = 64;

/// Receives all messages and sends all answers. May sleep.
pub(crate) fn run(conn: &mut Connection, spec: &Spec) -> Result {
    let mut header = RecvBuf::alloc(HEADER_LEN)?;
    let bodies = bodies(spec)?;
    let mut frags = BvecBuf::with_capacity(FRAGS)?;
    let mut headers = KVec::from_elem(0u8, BATCH * HEADER_LEN, GFP_KERNEL)?;
    let acks = KVec::from_elem(0u8, BATCH * HEADER_LEN, GFP_KERNEL)?;
    let (mut received, mut answered) = (0, 0);

    while answered < spec.count * HEADER_LEN {
        let (message, inside) = spec.locate(received);
        let body = bodies.get(spec.body(message));
        let mut progress = conn.recv(|socket| match body {
            Some(body) if spec.size > 0 => {
                let mut bvecs = frags.start_recv();
                bvecs.push_buf(&mut header, inside, HEADER_LEN);
                bvecs.push_range(body, inside.saturating_sub(HEADER_LEN));
                socket.recv(&bvecs)
            }
            _ => socket.recv_bytes(&mut headers),
        })?;
        received += progress;
        let due = spec.locate(received).0 * HEADER_LEN - answered;
        if due > 0 {
            let acks = acks.get(..due).unwrap_or(&acks);
            let sent = conn.send(|socket| socket.send_bytes(acks))?;
            answered += sent;
            progress += sent;
        }
        if progress == 0 {
            conn.wait()?;
        }
    }
    Ok(())
}
