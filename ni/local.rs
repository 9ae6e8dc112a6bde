// SPDX-License-Identifier: GPL-2.0

//! Messages of this node to itself.
//!
//! They need no connection, but are otherwise like others: the message layer says where the payload goes,
//! at once or later. A [`LocalMsg`] is shared by [`Arc`] between the sender's thread and the holder of its
//! token, and freed with the last reference. One spinlock protects the rest of the
//! work, another one the waiter; neither is held with another lock. The thread that takes the work out does it
//! after unlocking. If none does, the message fails for both sides when
//! it is freed.

use super::Ni;
use crate::{
    upper::{
        Arrived,
        Completion,
        Decision,
        Delivery,
        Failure,
        Health,
        Incoming,
        Payload,
        Receiving,
        RecvToken,
        SentHeader,
        Sink,
        Status,
        Until,
        Waiter, //
    },
    wire::WireError, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        SpinLock, //
    }, //
};

/// What is left to do.
struct Left {
    payload: Option<Payload>,
    /// `None` only while it is completed.
    done: Option<KBox<dyn Completion>>,
}

impl Left {
    fn new(payload: Option<Payload>, done: KBox<dyn Completion>) -> Self {
        Self {
            payload,
            done: Some(done),
        }
    }

    fn complete(mut self, status: Status) {
        // Before the completion, which may reuse the memory.
        self.payload = None;
        if let Some(done) = self.done.take() {
            done.complete(status);
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.payload = None;
        if let Some(done) = self.done.take() {
            done.complete(Err(Failure::dropped()));
        }
    }
}

/// What decides where a message goes.
enum Asked {
    /// Nobody who waits.
    Nobody,
    /// The waiter is to be asked when it is woken.
    Waits(KBox<dyn Waiter>),
    /// It was woken before it had begun to wait.
    Woken,
}

/// A message that has not arrived yet.
#[pin_data]
pub(super) struct LocalMsg {
    #[pin]
    left: SpinLock<Option<Left>>,
    #[pin]
    asked: SpinLock<Asked>,
}

impl LocalMsg {
    /// Has the message layer of `ni` receive a message. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and those of [`MessageLayer::parse`]: then `done` is given back.
    ///
    /// [`MessageLayer::parse`]: crate::upper::MessageLayer::parse
    pub(super) fn send(
        ni: ArcBorrow<'_, Ni>,
        header: SentHeader<'_>,
        payload: Option<Payload>,
        done: KBox<dyn Completion>,
    ) -> core::result::Result<(), (Failure, KBox<dyn Completion>)> {
        let (parsed, raw) = match header {
            SentHeader::Parsed(header) => (Ok(*header), [].as_slice()),
            SentHeader::Raw(header) => (header.parse(), header.as_long().as_slice()),
        };
        let parsed = match parsed {
            Err(WireError::Foreign(foreign)) => Err(foreign),
            Err(e) => return Err((Failure::local(e.into()), done)),
            Ok(header) => Ok(header),
        };
        let empty = pin_init!(Self {
            left <- new_spinlock!(None, "socklnd_local_msg"),
            asked <- new_spinlock!(Asked::Nobody, "socklnd_local_msg_asked"),
        });
        let this = match Arc::pin_init(empty, GFP_KERNEL) {
            Ok(this) => this,
            Err(e) => return Err((Failure::local(e), done)),
        };
        *this.left.lock() = Some(Left::new(payload, done));
        let msg = Incoming {
            via: ni.nid(),
            addr: ni.nid().addr(),
            header: parsed.as_ref(),
            raw,
        };
        let answer = ni
            .upper()
            .parse(ni, &msg, RecvToken::new(this.as_arc_borrow()));
        match answer {
            Ok(answer) => this.decided(answer.decision()),
            Err(e) => {
                let left = this.left.lock().take();
                // Without it, a token was kept and has said where the message goes.
                if let Some(done) = left.and_then(|mut left| left.done.take()) {
                    return Err((Failure::local(e), done));
                }
            }
        }
        Ok(())
    }

    fn decided(self: &Arc<Self>, decision: Decision) {
        match decision {
            Decision::Now(delivery) => self.end(delivery),
            Decision::Later => {}
            // All of it is there.
            Decision::Wait(waiter, Until::Arrived) => self.ask(waiter),
            Decision::Wait(waiter, Until::Woken) => {
                let mut asked = self.asked.lock();
                match core::mem::replace(&mut *asked, Asked::Nobody) {
                    Asked::Woken => {
                        drop(asked);
                        self.ask(waiter);
                    }
                    _ => *asked = Asked::Waits(waiter),
                }
            }
            Decision::Wait(waiter, Until::Memory) => {
                drop(waiter);
                self.fail(Failure::local(ENOMEM));
            }
        }
    }

    fn ask(self: &Arc<Self>, waiter: KBox<dyn Waiter>) {
        let token = RecvToken::new(self.as_arc_borrow());
        let answer = waiter.ask(Arrived::All, token);
        // A waiter that wants to be asked at once for ever is not helped.
        match answer.decision() {
            Decision::Wait(_, Until::Arrived) => self.fail(Failure::local(EINVAL)),
            decision => self.decided(decision),
        }
    }

    /// That is where it goes.
    fn end(&self, delivery: Delivery) {
        let left = self.left.lock().take();
        let Some(left) = left else {
            return delivery.fail(Failure::local(EINVAL));
        };
        if let Delivery::Accept(sink) = delivery {
            let Sink { memory, done } = sink;
            if let Some(payload) = &left.payload {
                payload.copy_to(&memory);
            }
            drop(memory);
            done.complete(Ok(()));
        }
        left.complete(Ok(()));
    }

    /// It never arrives.
    fn fail(&self, why: Failure) {
        let left = self.left.lock().take();
        if let Some(left) = left {
            left.complete(Err(why));
        }
    }
}

impl Receiving for LocalMsg {
    fn deliver(self: Arc<Self>, delivery: Delivery) {
        self.end(delivery);
    }

    fn wake(self: Arc<Self>) {
        let before = core::mem::replace(&mut *self.asked.lock(), Asked::Woken);
        if let Asked::Waits(waiter) = before {
            *self.asked.lock() = Asked::Nobody;
            self.ask(waiter);
        }
    }

    fn give_up(self: Arc<Self>) {
        let before = core::mem::replace(&mut *self.asked.lock(), Asked::Nobody);
        drop(before);
        self.fail(Failure::new(ETIMEDOUT, Health::LocalTimeout));
    }
}
