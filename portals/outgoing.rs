// SPDX-License-Identifier: GPL-2.0

//! Outgoing messages: PUTs and GETs of this node, and how a message is sent to its next hop.
//!
//! What ends an operation is described in [`super::op`].

use super::{
    op::{
        EventQueue,
        Expect,
        Op,
        OpEvent,
        OpHandle, //
    },
    PortalsInner, //
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
        SentHeader,
        Status, //
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
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// A PUT of this node. It ends with the ACK of its target.
pub(crate) struct Put {
    /// The target.
    pub(crate) to: Nid,
    /// The target's portal.
    pub(crate) portal: u32,
    /// Selects the memory of the target.
    pub(crate) match_bits: u64,
    /// Eight bytes for the target's event.
    pub(crate) hdr_data: u64,
    /// The offset in the memory of the target.
    pub(crate) offset: u32,
    /// The payload. It must not change until the operation has ended, as TCP may have to send it again; and
    /// never, if the operation ends with an error. If the target sends the ACK before it has received
    /// all of it, it may receive what the memory contains later.
    pub(crate) payload: Option<PageRange>,
}

/// A GET of this node.
pub(crate) struct Get {
    /// The target.
    pub(crate) to: Nid,
    /// The target's portal.
    pub(crate) portal: u32,
    /// Selects the memory of the target.
    pub(crate) match_bits: u64,
    /// The offset in the memory of the target.
    pub(crate) offset: u32,
    /// The memory for the payload of the REPLY. If the operation ends with an error, it may still be written to
    /// later.
    pub(crate) sink: PageRange,
}

/// The node that has sent a request, and gets the response.
#[derive(Clone, Copy)]
pub(super) struct Requester {
    /// The node.
    pub(super) nid: Nid,
    /// The peer that the request was received from: that node, or a gateway.
    pub(super) via: Nid,
    /// The address that it was received from.
    pub(super) addr: IpAddr,
}

impl PortalsInner {
    /// Starts a PUT. Thread context, may sleep for memory.
    ///
    /// On success exactly one event with this `tag` is queued in `eq`, unless the operation is cancelled, see
    /// [`PortalsInner::cancel`]. On error nothing was started: `EMSGSIZE`, `ENOBUFS`, `ENOMEM`, `ESHUTDOWN`.
    pub(crate) fn put(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        put: Put,
        eq: &Arc<EventQueue>,
        tag: u32,
    ) -> Result<OpHandle> {
        let length = payload_len(put.payload.as_ref())?;
        let expect = Expect::Ack {
            match_bits: put.match_bits,
            length,
        };
        let via = self.next_hop(ni, put.to);
        let (op, ack_wmd) = self.start_op(put.to, expect, eq, tag)?;
        let body = Body::Put {
            ack_wmd,
            match_bits: put.match_bits,
            hdr_data: put.hdr_data,
            portal: put.portal,
            offset: put.offset,
        };
        self.send_op(ni, via, put.to, body, put.payload, op);
        Ok(op)
    }

    /// Starts a GET, as [`PortalsInner::put`].
    pub(crate) fn get(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        get: Get,
        eq: &Arc<EventQueue>,
        tag: u32,
    ) -> Result<OpHandle> {
        let sink_len = payload_len(Some(&get.sink))?;
        let expect = Expect::Reply {
            sink: Some(get.sink),
        };
        let via = self.next_hop(ni, get.to);
        let (op, return_wmd) = self.start_op(get.to, expect, eq, tag)?;
        let body = Body::Get {
            return_wmd,
            match_bits: get.match_bits,
            portal: get.portal,
            src_offset: get.offset,
            sink_len,
        };
        self.send_op(ni, via, get.to, body, None, op);
        Ok(op)
    }

    /// Starts a PUT and waits for its end: as [`PortalsInner::put`] and [`EventQueue::wait_one`].
    pub(super) fn put_and_wait(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        put: Put,
        deadline: Instant<Monotonic>,
    ) -> Result<OpEvent> {
        let eq = EventQueue::new(1)?;
        let op = self.put(ni, put, &eq, 0)?;
        self.wait_op(op, &eq, deadline)
    }

    /// Starts a GET and waits for its end: as [`PortalsInner::get`] and [`EventQueue::wait_one`].
    pub(super) fn get_and_wait(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        get: Get,
        deadline: Instant<Monotonic>,
    ) -> Result<OpEvent> {
        let eq = EventQueue::new(1)?;
        let op = self.get(ni, get, &eq, 0)?;
        self.wait_op(op, &eq, deadline)
    }

    fn wait_op(
        &self,
        op: OpHandle,
        eq: &EventQueue,
        deadline: Instant<Monotonic>,
    ) -> Result<OpEvent> {
        eq.wait_one(deadline).inspect_err(|_| {
            // If it has ended at this moment, its event is dropped with the queue.
            self.cancel(op);
        })
    }

    /// Ends an operation without an event. Does nothing if it has ended already: its event is queued, or about
    /// to be.
    pub(crate) fn cancel(&self, op: OpHandle) {
        // In a statement of its own, so that the lock is released first.
        let op = self.ops.lock().remove(op);
        if let Some(op) = op {
            op.eq.unreserve();
        }
    }

    /// The next hop of a message to `to`. If it is in a network to which no gateway is up, that is `to` itself,
    /// which the driver refuses with `EHOSTUNREACH`.
    fn next_hop(&self, ni: NiRef<'_>, to: Nid) -> Nid {
        if to.net() == ni.nid().net() {
            return to;
        }
        self.router.choose(to.net()).unwrap_or(to)
    }

    /// Sends a response to `requester`: the way that the request has come if it can be, so that the two nodes do not
    /// depend on one more gateway. `done` is completed exactly once, possibly before this returns.
    pub(super) fn send_response(
        &self,
        ni: NiRef<'_>,
        requester: Requester,
        body: Body,
        payload: Option<PageRange>,
        done: KBox<dyn Completion>,
    ) {
        let Requester { nid: to, via, addr } = requester;
        let hop = if via == to || self.router.is_usable(via, to.net()) {
            via
        } else {
            self.next_hop(ni, to)
        };
        let cause = if hop == to {
            Cause::Answer(addr)
        } else {
            // An administrator has named that gateway.
            Cause::Own
        };
        send_msg(ni, hop, cause, to, body, payload, done);
    }

    fn start_op(
        &self,
        target: Nid,
        expect: Expect,
        eq: &Arc<EventQueue>,
        tag: u32,
    ) -> Result<(OpHandle, WireHandle)> {
        eq.reserve()?;
        let op = Op {
            target,
            expect,
            sent_by: None,
            eq: eq.clone(),
            tag,
        };
        self.insert_op(op).map_err(|(error, op)| {
            op.eq.unreserve();
            error
        })
    }

    fn insert_op(&self, op: Op) -> core::result::Result<(OpHandle, WireHandle), (Error, Op)> {
        loop {
            let capacity = {
                let mut ops = self.ops.lock();
                match ops.needed_capacity() {
                    Some(capacity) => capacity,
                    None => {
                        let op = ops.insert(op)?;
                        return Ok((op, ops.wire_handle(op)));
                    }
                }
            };
            // Memory is allocated and freed without the lock.
            let mut room = match KVVec::with_capacity(capacity, GFP_KERNEL) {
                Ok(room) => room,
                Err(_) => return Err((ENOMEM, op)),
            };
            self.ops.lock().grow(&mut room);
        }
    }

    fn send_op(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        via: Nid,
        to: Nid,
        body: Body,
        payload: Option<PageRange>,
        op: OpHandle,
    ) {
        let done = OpSent {
            portals: self.clone(),
            op,
        };
        match KBox::new(done, GFP_KERNEL) {
            Ok(done) => send_msg(ni, via, Cause::Own, to, body, payload, done),
            Err(_) => self.complete_op(op, Err(ENOMEM)),
        }
    }

    /// Removes an operation and queues its event.
    pub(super) fn complete_op(&self, op: OpHandle, result: Result<u32>) {
        // In a statement of its own, so that the lock is released first.
        let op = self.ops.lock().remove(op);
        if let Some(op) = op {
            op.complete(result);
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

/// Sends a message to `to` through the next hop `via`, because of `cause`. `done` is completed exactly once,
/// possibly before this returns.
fn send_msg(
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

/// Completes the transmit of an operation's message.
struct OpSent {
    portals: Arc<PortalsInner>,
    op: OpHandle,
}

impl Completion for OpSent {
    fn complete(self: KBox<Self>, status: Status) {
        // A message to this node itself was sent by no connection.
        if let Err(failure) = status {
            self.portals.complete_op(self.op, Err(failure.error));
        }
    }

    fn sent(self: KBox<Self>, conn: ConnId) {
        self.portals.ops.lock().set_sent_by(self.op, conn);
    }

    fn is_wanted(&self) -> bool {
        self.portals.ops.lock().contains(self.op)
    }
}

/// Completes the payload of a REPLY.
pub(super) struct ReplyReceived {
    pub(super) portals: Arc<PortalsInner>,
    pub(super) op: OpHandle,
    pub(super) mlength: u32,
}

impl Completion for ReplyReceived {
    fn complete(self: KBox<Self>, status: Status) {
        let result = status.map(|()| self.mlength);
        self.portals
            .complete_op(self.op, result.map_err(|failure| failure.error));
    }
}
