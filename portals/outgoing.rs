// SPDX-License-Identifier: GPL-2.0

//! Messages that go out: PUTs and GETs of this node, and how any message is sent.
//!
//! See [`super::op`] for who ends an operation.

use super::{
    completion,
    incoming::Asker,
    op::{
        Expect,
        Inbox,
        Op,
        OpHandle,
        Outcome, //
    },
    Core,
    Finish, //
};
use crate::{
    lib_linux::page::PageRange,
    upper::{
        Cause,
        Completion,
        ConnId,
        Failure,
        NiRef,
        Payload,
        SentHeader, //
    },
    wire::{
        Body,
        Header,
        Nid,
        WireHandle,
        MAX_PAYLOAD,
        PID_LUSTRE, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A PUT of ours.
pub(crate) struct Put {
    /// Whom it is for.
    pub(crate) to: Nid,
    /// The portal there.
    pub(crate) portal: u32,
    /// What selects the memory there.
    pub(crate) match_bits: u64,
    /// Eight bytes for the event there.
    pub(crate) hdr_data: u64,
    /// Where in the memory there.
    pub(crate) offset: u32,
    /// What is put. Must not change until the operation has ended: TCP may have to send it again.
    /// If it ends with an error, it must never change. A peer that sends the ACK before it has
    /// received everything gets of the rest what is there later.
    pub(crate) payload: Option<PageRange>,
    /// Whether it ends with the ACK, and not already when it is sent.
    pub(crate) ack: bool,
}

/// A GET of ours.
pub(crate) struct Get {
    /// Whom it is for.
    pub(crate) to: Nid,
    /// The portal there.
    pub(crate) portal: u32,
    /// What selects the memory there.
    pub(crate) match_bits: u64,
    /// Where in the memory there.
    pub(crate) offset: u32,
    /// Where what is got goes. If the operation ends with an error, the memory may still be written
    /// for a while.
    pub(crate) sink: PageRange,
}

impl Core {
    /// Starts a PUT. Thread context, may sleep for memory.
    ///
    /// On success `inbox` will get exactly one outcome with this `tag`, unless [`Core::cancel`] says
    /// that it won't. On error nothing was started: `EMSGSIZE`, `ENOBUFS`, `ENOMEM`, `ESHUTDOWN`.
    pub(crate) fn put(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        put: Put,
        inbox: &Arc<Inbox>,
        tag: u32,
    ) -> Result<OpHandle> {
        let length = payload_len(put.payload.as_ref())?;
        let expect = if put.ack {
            Expect::Ack {
                match_bits: put.match_bits,
                length,
            }
        } else {
            Expect::Sent { length }
        };
        let via = self.hop(ni, put.to);
        let (op, handle) = self.start(put.to, expect, inbox, tag)?;
        let body = Body::Put {
            ack_wmd: if put.ack { handle } else { WireHandle::NONE },
            match_bits: put.match_bits,
            hdr_data: put.hdr_data,
            portal: put.portal,
            offset: put.offset,
        };
        self.send(ni, via, put.to, body, put.payload, op);
        Ok(op)
    }

    /// Starts a GET, as [`Core::put`].
    pub(crate) fn get(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        get: Get,
        inbox: &Arc<Inbox>,
        tag: u32,
    ) -> Result<OpHandle> {
        let sink_len = payload_len(Some(&get.sink))?;
        let expect = Expect::Reply {
            sink: Some(get.sink),
        };
        let via = self.hop(ni, get.to);
        let (op, return_wmd) = self.start(get.to, expect, inbox, tag)?;
        let body = Body::Get {
            return_wmd,
            match_bits: get.match_bits,
            portal: get.portal,
            src_offset: get.offset,
            sink_len,
        };
        self.send(ni, via, get.to, body, None, op);
        Ok(op)
    }

    /// A PUT, and the wait for its end: as [`Core::put`] and [`Inbox::wait_one`].
    pub(super) fn put_and_wait(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        put: Put,
        deadline_ms: u64,
    ) -> Result<Outcome> {
        let inbox = Inbox::new(1)?;
        let op = self.put(ni, put, &inbox, 0)?;
        self.wait(op, &inbox, deadline_ms)
    }

    /// A GET, and the wait for its end: as [`Core::get`] and [`Inbox::wait_one`].
    pub(super) fn get_and_wait(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        get: Get,
        deadline_ms: u64,
    ) -> Result<Outcome> {
        let inbox = Inbox::new(1)?;
        let op = self.get(ni, get, &inbox, 0)?;
        self.wait(op, &inbox, deadline_ms)
    }

    fn wait(&self, op: OpHandle, inbox: &Inbox, deadline_ms: u64) -> Result<Outcome> {
        inbox.wait_one(deadline_ms).inspect_err(|_| {
            // If it has ended this very moment, nobody looks at how.
            self.cancel(op);
        })
    }

    /// Ends an operation without an outcome. `false`: there is one, or it is about to arrive.
    pub(crate) fn cancel(&self, op: OpHandle) -> bool {
        let Some(op) = self.ops.lock().remove(op) else {
            return false;
        };
        op.inbox.unreserve();
        true
    }

    /// Where a message to `to` goes first. To a network without a gateway that lives it goes
    /// directly, which is refused with `EHOSTUNREACH` when it is sent.
    fn hop(&self, ni: NiRef<'_>, to: Nid) -> Nid {
        if to.net() == ni.nid().net() {
            return to;
        }
        self.router.choose(to.net()).unwrap_or(to)
    }

    /// Sends an answer to `asker`: by the way that the question came if it can be, so that the two nodes don't
    /// depend on a third more than they have to. `done` is completed exactly once, possibly before this
    /// returns.
    pub(super) fn answer(
        &self,
        ni: NiRef<'_>,
        asker: Asker,
        body: Body,
        payload: Option<PageRange>,
        done: KBox<dyn Completion>,
    ) {
        let Asker { nid: to, via, addr } = asker;
        let hop = if via == to || self.router.is_usable(via, to.net()) {
            via
        } else {
            self.hop(ni, to)
        };
        let cause = if hop == to {
            Cause::Answer(addr)
        } else {
            // An administrator has named that gateway.
            Cause::Own
        };
        send(ni, hop, cause, to, body, payload, done);
    }

    fn start(
        &self,
        peer: Nid,
        expect: Expect,
        inbox: &Arc<Inbox>,
        tag: u32,
    ) -> Result<(OpHandle, WireHandle)> {
        inbox.reserve()?;
        let op = Op {
            peer,
            expect,
            sent_by: None,
            inbox: inbox.clone(),
            tag,
        };
        self.insert_op(op).map_err(|(error, op)| {
            op.inbox.unreserve();
            error
        })
    }

    fn insert_op(&self, op: Op) -> core::result::Result<(OpHandle, WireHandle), (Error, Op)> {
        loop {
            let wants_room = {
                let mut ops = self.ops.lock();
                match ops.wants_room() {
                    Some(wants_room) => wants_room,
                    None => {
                        let op = ops.insert(op)?;
                        return Ok((op, ops.wire_handle(op)));
                    }
                }
            };
            // Memory is got and given back without the lock.
            let mut room = match KVVec::with_capacity(wants_room, GFP_KERNEL) {
                Ok(room) => room,
                Err(_) => return Err((ENOMEM, op)),
            };
            self.ops.lock().enlarge(&mut room);
        }
    }

    fn send(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        via: Nid,
        to: Nid,
        body: Body,
        payload: Option<PageRange>,
        op: OpHandle,
    ) {
        let sent = Sent {
            core: self.clone(),
            op,
        };
        // Without memory for it, the operation has its outcome already.
        if let Ok(done) = completion(sent) {
            send(ni, via, Cause::Own, to, body, payload, done);
        }
    }

    /// Takes an operation out and tells its owner how it ended.
    pub(super) fn finish_op(&self, op: OpHandle, result: Result<u32>) {
        // In a statement of its own: the lock is free again when the owner is told.
        let op = self.ops.lock().remove(op);
        if let Some(op) = op {
            op.finish(result);
        }
    }
}

/// The length of a message's payload; `EMSGSIZE` if it is too long.
fn payload_len(payload: Option<&PageRange>) -> Result<u32> {
    let length = payload.map_or(0, PageRange::len);
    u32::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_PAYLOAD)
        .ok_or(EMSGSIZE)
}

/// Sends a message to `to` by way of `via`, for the sake of `cause`. `done` is completed exactly once,
/// possibly before this returns.
fn send(
    ni: NiRef<'_>,
    via: Nid,
    cause: Cause,
    to: Nid,
    body: Body,
    payload: Option<PageRange>,
    done: KBox<dyn Completion>,
) {
    let payload = payload.filter(|range| range.len() > 0);
    let payload_len = match payload_len(payload.as_ref()) {
        Ok(payload_len) => payload_len,
        Err(e) => return done.complete(Err(Failure::local(e))),
    };
    let header = Header {
        dest: to,
        src: ni.nid(),
        dest_pid: PID_LUSTRE,
        src_pid: PID_LUSTRE,
        payload_len,
        body,
    };
    let header = SentHeader::Parsed(&header);
    ni.send(via, cause, header, payload.map(Payload::from), done);
}

/// When the message of an operation of ours was sent.
struct Sent {
    core: Arc<Core>,
    op: OpHandle,
}

impl Sent {
    fn sent_by(self, conn: Option<ConnId>) {
        let ended = self.core.ops.lock().sent(self.op, conn);
        if let Some((op, length)) = ended {
            op.finish(Ok(length));
        }
    }
}

impl Finish for Sent {
    fn finish(self, result: Result) {
        match result {
            Ok(()) => self.sent_by(None),
            Err(e) => self.core.finish_op(self.op, Err(e)),
        }
    }

    fn sent(self, conn: ConnId) {
        self.sent_by(Some(conn));
    }

    fn is_wanted(&self) -> bool {
        self.core.ops.lock().contains(self.op)
    }
}

/// When the REPLY to a GET of ours was received.
pub(super) struct Got {
    pub(super) core: Arc<Core>,
    pub(super) op: OpHandle,
    pub(super) mlength: u32,
}

impl Finish for Got {
    fn finish(self, result: Result) {
        self.core.finish_op(self.op, result.map(|()| self.mlength));
    }
}
