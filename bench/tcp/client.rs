// SPDX-License-Identifier: GPL-2.0

//! The end that sends messages and counts the answers.
//!
//! A function without state of its own, which its thread runs once.

use crate::{
    connection::Connection,
    lib_linux::{
        iov::{
            BvecBuf,
            Bvecs, //
        },
        page::{
            FrozenFrag,
            PageFrag,
            PageRange, //
        },
        socket::More, //
    },
    spec::{
        bodies,
        Spec,
        HEADER_LEN, //
    },
};
use kernel::{
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// Pieces handed to TCP in one call, as many as the driver hands over.
const FRAGS: usize = 320;

/// Answers received in one call, at most.
const ACKS: usize = 64;

/// Lists what is to be sent from byte `from` of the stream up to message `end`, as far as there is room
/// for it. Returns whether there was room for all of it.
fn list<'a>(
    frags: &mut Bvecs<'a>,
    header: &'a FrozenFrag,
    bodies: &'a [PageRange],
    spec: &Spec,
    (from, end): (usize, usize),
) -> bool {
    let (first, mut inside) = spec.locate(from);
    for message in first..end {
        let Some(body) = bodies.get(spec.body(message)) else {
            return true;
        };
        if !frags.push_frag(header, inside.min(HEADER_LEN))
            || !frags.push_range(body, inside.saturating_sub(HEADER_LEN))
        {
            return false;
        }
        inside = 0;
    }
    true
}

/// Sends all messages and receives all answers; returns how many nanoseconds that took. May sleep.
pub(crate) fn run(conn: &mut Connection, spec: &Spec) -> Result<u64> {
    let header = PageFrag::alloc(HEADER_LEN)?.filled(&[0; HEADER_LEN])?;
    let bodies = bodies(spec)?;
    let mut frags = BvecBuf::with_capacity(FRAGS)?;
    let mut acks = KVec::from_elem(0u8, ACKS * HEADER_LEN, GFP_KERNEL)?;
    let (mut sent, mut answered) = (0, 0);

    let began = Instant::<Monotonic>::now();
    while answered < spec.count * HEADER_LEN {
        let end = spec.count.min(answered / HEADER_LEN + spec.in_flight.get());
        let mut progress = 0;
        if sent < spec.bytes(end) {
            progress = conn.send(|socket| {
                let mut bvecs = frags.start();
                let whole = list(&mut bvecs, &header, &bodies, spec, (sent, end));
                socket.send(&bvecs, if whole { More::None } else { More::Follows })
            })?;
            sent += progress;
        }
        let received = conn.recv(|socket| socket.recv_bytes(&mut acks))?;
        answered += received;
        progress += received;
        if progress == 0 {
            conn.wait()?;
        }
    }
    Ok(u64::try_from(began.elapsed().as_nanos()).unwrap_or(0))
}
