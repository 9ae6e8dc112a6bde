// SPDX-License-Identifier: GPL-2.0

//! Calls of the message layer while a connection receives.
//!
//! A [`Call`] is made by the connection's scheduler with no lock held, see [`super::receive`]. It belongs to that
//! thread, and so does what it has [`Returned`].

use super::{
    rx::Progress,
    Conn, //
};
use crate::{
    lib_linux::{
        misc,
        page::RecvBuf, //
    },
    upper::{
        Answer,
        Arrived,
        Completion,
        Decision,
        Delivery,
        Failure,
        Incoming,
        RecvToken,
        Sink,
        Waiter, //
    },
    wire::{
        Foreign,
        Header, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A call of the message layer.
pub(super) enum Call {
    /// A message has begun.
    Parse {
        header: core::result::Result<Header, Foreign>,
        payload: usize,
        /// The bytes that were read, and where in them the header begins.
        frame: RecvBuf,
        start: usize,
    },
    /// A waiter is to be asked: this much of the payload has arrived.
    Ask {
        waiter: KBox<dyn Waiter>,
        payload: usize,
        arrived: Arrived,
    },
    /// A message has ended.
    Complete {
        done: KBox<dyn Completion>,
        result: Progress,
    },
}

/// The result of a call of the message layer.
pub(super) enum Returned {
    /// Where the payload goes.
    Decision {
        result: Result<Decision>,
        payload: usize,
        arrived: Option<Arrived>,
        frame: Option<RecvBuf>,
    },
    /// The message has ended.
    Completed(Progress, Option<RecvBuf>),
}

impl Call {
    /// Calls the message layer. Thread context, no lock held.
    pub(super) fn make(self, conn: &Arc<Conn>) -> Returned {
        misc::assert_may_sleep();
        match self {
            Self::Parse {
                header,
                payload,
                frame,
                start,
            } => {
                let raw = frame.as_slice().get(start..).unwrap_or_default();
                let result = conn.parse(header.as_ref(), raw).map(Answer::decision);
                if let (0, Ok(Decision::Now(Delivery::Accept(_)))) = (payload, &result) {
                    // There is no payload, so the message is complete.
                    return Returned::of_nothing(result, frame);
                }
                Returned::Decision {
                    result,
                    payload,
                    arrived: None,
                    frame: Some(frame),
                }
            }
            Self::Ask {
                waiter,
                payload,
                arrived,
            } => Returned::Decision {
                result: Ok(waiter
                    .ask(arrived, RecvToken::new(conn.as_arc_borrow()))
                    .decision()),
                payload,
                arrived: Some(arrived),
                frame: None,
            },
            Self::Complete { done, result } => {
                done.complete(result.map_err(|why| why.failure().receiving()));
                Returned::Completed(result, None)
            }
        }
    }
}

impl Returned {
    /// The result for a message without a payload, whose header was in `frame`: completes it. Thread context,
    /// no lock held.
    fn of_nothing(result: Result<Decision>, frame: RecvBuf) -> Self {
        let result = match result {
            Ok(Decision::Now(Delivery::Accept(sink))) if sink.memory.len() == 0 => {
                let Sink { memory, done } = sink;
                drop(memory);
                done.complete(Ok(()));
                Ok(())
            }
            Ok(Decision::Now(delivery)) => {
                // An error of the message layer: the sink is longer than the payload.
                delivery.fail(Failure::local(EIO));
                Err(EIO.into())
            }
            _ => Ok(()),
        };
        Self::Completed(result, Some(frame))
    }

    /// The connection has ended: fails the delivery. Thread context, no lock held.
    pub(super) fn fail(self, why: Failure) {
        if let Self::Decision {
            result: Ok(Decision::Now(delivery)),
            ..
        } = self
        {
            delivery.fail(why);
        }
    }
}

impl Conn {
    /// Asks the message layer where the payload of a message goes. The header is `raw` on the wire.
    fn parse(
        self: &Arc<Self>,
        header: core::result::Result<&Header, &Foreign>,
        raw: &[u8],
    ) -> Result<Answer> {
        let peer = &self.peer;
        let token = RecvToken::new(self.as_arc_borrow());
        let msg = Incoming {
            via: peer.nid(),
            addr: self.remote.ip(),
            header,
            raw,
        };
        let ni = peer.ni();
        ni.upper().parse(ni.as_arc_borrow(), &msg, token)
    }
}
