// SPDX-License-Identifier: GPL-2.0

//! Incoming messages: what is done with each, and the response to it.
//!
//! A PUT or GET that has matched an entry has an [`MdUse`] until it has ended. That is owned by the completion of the
//! received payload or of the REPLY, and holds references to the memory and to the message layer.
//! Responses that wait to be sent are counted, see [`super::credits`].

use super::{
    credits::ResponseCredit,
    md::{
        Access,
        Md,
        MdEvent,
        Reuse, //
    },
    op::{
        OpHandle,
        Unwanted, //
    },
    outgoing::{
        ReplyReceived,
        Requester, //
    },
    ping,
    table::{
        Match,
        MatchInfo,
        MeHandle, //
    },
    PortalsInner, //
};
use crate::{
    lib_linux::{
        misc,
        page::PageRange,
        ratelimit::pr_info_ratelimited, //
    },
    upper::{
        Completion,
        Delivery,
        Incoming,
        LndNi,
        NiRef,
        Sink,
        Status, //
    },
    wire::{
        Body,
        Header,
        Nid,
        WireHandle, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl PortalsInner {
    /// Handles the header `hdr` of a message for this NI: says where its payload goes.
    pub(super) fn parse(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        msg: &Incoming<'_>,
        hdr: &Header,
    ) -> Delivery {
        let from = hdr.src;
        let requester = Requester {
            nid: from,
            via: msg.via,
            addr: msg.addr,
        };
        match hdr.body {
            Body::Put {
                ack_wmd,
                match_bits,
                hdr_data,
                portal,
                offset,
            } => {
                let info = MatchInfo {
                    access: Access::Put,
                    from,
                    portal,
                    match_bits,
                    offset,
                    length: hdr.payload_len,
                };
                self.parse_put(ni, requester, &info, ack_wmd, hdr_data)
            }
            Body::Get {
                return_wmd,
                match_bits,
                portal,
                src_offset,
                sink_len,
            } => {
                let info = MatchInfo {
                    access: Access::Get,
                    from,
                    portal,
                    match_bits,
                    offset: src_offset,
                    length: sink_len,
                };
                self.parse_get(ni, requester, &info, return_wmd)
            }
            Body::Ack {
                dst_wmd,
                match_bits,
                mlength,
            } => self.parse_ack(from, dst_wmd, match_bits, mlength),
            Body::Reply { dst_wmd } => self.parse_reply(from, dst_wmd, hdr.payload_len),
        }
    }

    fn match_md(&self, info: &MatchInfo) -> Option<Match> {
        self.table.lock().match_md(info)
    }

    /// Drops a PUT or GET.
    #[inline(never)]
    fn drop_msg(&self, info: &MatchInfo) -> Delivery {
        self.counters.drops.add(1);
        pr_info_ratelimited!(
            "dropped a {} of {} bytes from {} for portal {}, match bits {:#x}, offset {}\n",
            match info.access {
                Access::Put => "PUT",
                Access::Get => "GET",
            },
            info.length,
            info.from,
            info.portal,
            info.match_bits,
            info.offset
        );
        Delivery::Discard
    }

    fn parse_put(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        requester: Requester,
        info: &MatchInfo,
        ack_wmd: WireHandle,
        hdr_data: u64,
    ) -> Delivery {
        // Counted before the payload is received, so that a PUT is not received whose ACK can't be sent.
        let ack = if ack_wmd == WireHandle::NONE {
            None
        } else {
            let Some(credit) = ResponseCredit::new(self, requester.nid, requester.via) else {
                return self.drop_msg(info);
            };
            Some((credit, ack_wmd))
        };
        let Ok(room) = KBox::<PutReceived>::new_uninit(GFP_KERNEL) else {
            return self.drop_msg(info);
        };
        let Some(found) = self.match_md(info) else {
            return self.drop_msg(info);
        };
        self.counters.puts.add(1);
        let md_use = MdUse::new(self, info, found, hdr_data);
        let range = md_use.event.range.clone();
        let received = PutReceived {
            ni: ni.into(),
            requester,
            md_use,
            ack,
        };
        let done: KBox<_> = KBox::write(room, received);
        Delivery::Accept(Sink {
            memory: range.into(),
            done,
        })
    }

    fn parse_get(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        requester: Requester,
        info: &MatchInfo,
        return_wmd: WireHandle,
    ) -> Delivery {
        let Some(credit) = ResponseCredit::new(self, requester.nid, requester.via) else {
            return self.drop_msg(info);
        };
        let Ok(room) = KBox::<ResponseSent>::new_uninit(GFP_KERNEL) else {
            return self.drop_msg(info);
        };
        let (md_use, payload) = if ping::is_ping(info) {
            let Ok(range) = self.ping_reply(ni, info) else {
                return self.drop_msg(info);
            };
            (None, range)
        } else {
            let Some(found) = self.match_md(info) else {
                return self.drop_msg(info);
            };
            let range = found.range.clone();
            (Some(MdUse::new(self, info, found, 0)), range)
        };
        self.counters.gets.add(1);
        let done: KBox<_> = KBox::write(room, ResponseSent { md_use, credit });
        let body = Body::Reply {
            dst_wmd: return_wmd,
        };
        self.send_response(ni, requester, body, Some(payload), done);
        Delivery::Discard
    }

    /// The payload of the REPLY to a ping that `ni` has received. May sleep.
    fn ping_reply(&self, ni: NiRef<'_>, info: &MatchInfo) -> Result<PageRange> {
        let nis = self.node.ping_nis(ni)?;
        ping::reply(&nis, self.node.routing(), info)
    }

    fn parse_ack(&self, from: Nid, handle: WireHandle, match_bits: u64, mlength: u32) -> Delivery {
        let op = self
            .ops
            .lock()
            .remove_acked(from, handle, match_bits, mlength);
        match op {
            Ok(op) => {
                self.counters.acks.add(1);
                op.complete(Ok(mlength));
            }
            Err(why) => self.count_unwanted("ACK", from, why),
        }
        Delivery::Discard
    }

    fn parse_reply(self: &Arc<Self>, from: Nid, handle: WireHandle, length: u32) -> Delivery {
        let begun = self.ops.lock().begin_reply(from, handle);
        let (op, sink) = match begun {
            Ok(found) => found,
            Err(why) => {
                self.count_unwanted("REPLY", from, why);
                return Delivery::Discard;
            }
        };
        self.counters.replies.add(1);
        match self.receive_reply(op, sink, length) {
            Ok(sink) => Delivery::Accept(sink),
            Err(e) => {
                self.complete_op(op, Err(e));
                Delivery::Discard
            }
        }
    }

    /// Where the payload of a REPLY goes, which is truncated if it is longer than `memory`.
    fn receive_reply(
        self: &Arc<Self>,
        op: OpHandle,
        memory: PageRange,
        length: u32,
    ) -> Result<Sink> {
        let range = memory.slice(0, memory.len().min(length as usize))?;
        let done = KBox::new(
            ReplyReceived {
                portals: self.clone(),
                op,
                // CAST: at most `length`.
                mlength: range.len() as u32,
            },
            GFP_KERNEL,
        )?;
        Ok(Sink {
            memory: range.into(),
            done,
        })
    }

    #[inline(never)]
    fn count_unwanted(&self, kind: &str, from: Nid, why: Unwanted) {
        self.counters.unwanted.add(1);
        pr_info_ratelimited!(
            "dropped an unexpected {} from {}: {}\n",
            kind,
            from,
            match why {
                Unwanted::Unknown => "no operation has its handle",
                Unwanted::Mismatch => "it does not fit the operation",
                Unwanted::Duplicate => "there is one already",
            }
        );
    }
}

/// The use of a memory descriptor by a message.
pub(super) struct MdUse {
    portals: Arc<PortalsInner>,
    me: MeHandle,
    md: Arc<Md>,
    event: MdEvent,
}

impl MdUse {
    pub(super) fn new(
        portals: &Arc<PortalsInner>,
        info: &MatchInfo,
        found: Match,
        hdr_data: u64,
    ) -> Self {
        // The entry is freed if this was its last use; the descriptor lives as long as this.
        drop(found.unlinked);
        Self {
            portals: portals.clone(),
            me: found.me,
            event: MdEvent {
                access: info.access,
                from: info.from,
                match_bits: info.match_bits,
                hdr_data,
                rlength: info.length,
                // CAST: at most `info.length`.
                mlength: found.range.len() as u32,
                range: found.range,
                result: Ok(()),
            },
            md: found.md,
        }
    }

    /// Ends the use: calls the descriptor's handler. May sleep.
    pub(super) fn end(&mut self, result: Result) {
        misc::assert_may_sleep();
        self.event.result = result;
        if let Some(handler) = &self.md.handler {
            handler.event(&self.portals, &self.event);
        }
        if self.md.reuse == Reuse::OneAtATime {
            self.portals.table.lock().release(self.me);
        }
    }
}

/// Completes the payload of a PUT.
struct PutReceived {
    ni: Arc<dyn LndNi>,
    requester: Requester,
    md_use: MdUse,
    /// For the ACK, if the PUT asks for one: its credit, and the handle that it contains.
    ack: Option<(ResponseCredit, WireHandle)>,
}

impl Completion for PutReceived {
    fn complete(mut self: KBox<Self>, status: Status) {
        let result = status.map_err(|failure| failure.error);
        // Before the ACK, so that its receiver can rely on the event having been handled.
        self.md_use.end(result);
        let (Ok(()), Some((credit, dst_wmd))) = (result, self.ack.take()) else {
            return;
        };
        let MdUse { portals, event, .. } = &self.md_use;
        let sent = ResponseSent {
            md_use: None,
            credit,
        };
        let Ok(done) = KBox::new(sent, GFP_KERNEL) else {
            portals.counters.unanswered.add(1);
            return;
        };
        let body = Body::Ack {
            dst_wmd,
            match_bits: event.match_bits,
            mlength: event.mlength,
        };
        let ni = self.ni.as_arc_borrow();
        portals.send_response(ni, self.requester, body, None, done);
    }
}

/// Completes the transmit of an ACK or a REPLY.
struct ResponseSent {
    /// Of a REPLY to a GET that has matched an entry.
    md_use: Option<MdUse>,
    credit: ResponseCredit,
}

impl Completion for ResponseSent {
    fn complete(mut self: KBox<Self>, status: Status) {
        if status.is_err() {
            self.credit.portals().counters.unanswered.add(1);
        }
        if let Some(md_use) = &mut self.md_use {
            md_use.end(status.map_err(|failure| failure.error));
        }
    }
}
