// SPDX-License-Identifier: GPL-2.0

//! Messages that come in: what is done with each, and what is answered.
//!
//! A PUT or GET that has found memory is a [`Usage`] until it has ended; that belongs to the
//! completion of the received payload or of the REPLY, and keeps memory and message layer alive.
//! Answers that wait to be sent are counted, see [`super::owed`].

use super::{
    completion,
    md::{
        Access,
        Event,
        Md,
        Reuse, //
    },
    op::Unwanted,
    outgoing::Got,
    owed::Debt,
    ping,
    table::{
        Match,
        Request, //
    },
    Core,
    Finish, //
};
use crate::{
    lib_linux::ratelimit::pr_info_ratelimited,
    upper::{
        Delivery,
        Incoming,
        LndNi,
        NiRef,
        Sink, //
    },
    wire::{
        Body,
        Header,
        Nid,
        WireHandle, //
    }, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Who has sent a message, and may want an answer.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    /// The node that it is from.
    pub(super) nid: Nid,
    /// The peer that it came from: that node, or a gateway.
    pub(super) via: Nid,
    /// The address that it came from.
    pub(super) addr: IpAddr,
}

impl Core {
    /// Says what becomes of a message for this interface, whose header is `hdr`.
    pub(super) fn parse(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        msg: &Incoming<'_>,
        hdr: &Header,
    ) -> Delivery {
        let from = hdr.src;
        let asker = Asker {
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
                let request = Request {
                    access: Access::Put,
                    from,
                    portal,
                    match_bits,
                    offset,
                    length: hdr.payload_len,
                };
                self.parse_put(ni, asker, &request, ack_wmd, hdr_data)
            }
            Body::Get {
                return_wmd,
                match_bits,
                portal,
                src_offset,
                sink_len,
            } => {
                let request = Request {
                    access: Access::Get,
                    from,
                    portal,
                    match_bits,
                    offset: src_offset,
                    length: sink_len,
                };
                self.parse_get(ni, asker, &request, return_wmd)
            }
            Body::Ack {
                dst_wmd,
                match_bits,
                mlength,
            } => self.parse_ack(from, dst_wmd, match_bits, mlength),
            Body::Reply { dst_wmd } => self.parse_reply(from, dst_wmd, hdr.payload_len),
        }
    }

    fn find(&self, request: &Request) -> Option<Match> {
        self.table.lock().find(request)
    }

    /// A message can't be taken.
    #[inline(never)]
    fn dropped(&self, request: &Request) -> Delivery {
        self.counters.drops.add(1);
        pr_info_ratelimited!(
            "dropped a {} of {} bytes from {} for portal {}, match bits {:#x}, offset {}\n",
            match request.access {
                Access::Put => "PUT",
                Access::Get => "GET",
            },
            request.length,
            request.from,
            request.portal,
            request.match_bits,
            request.offset
        );
        Delivery::Discard
    }

    fn parse_put(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        asker: Asker,
        request: &Request,
        ack_wmd: WireHandle,
        hdr_data: u64,
    ) -> Delivery {
        // The ACK is counted before it is due, so that there is no payload that it then lacks.
        let debt = if ack_wmd == WireHandle::NONE {
            None
        } else {
            let Some(debt) = Debt::new(self, asker.nid, asker.via) else {
                return self.dropped(request);
            };
            Some((debt, ack_wmd))
        };
        let Some(found) = self.find(request) else {
            return self.dropped(request);
        };
        self.counters.puts.add(1);
        let arrival = Arrival {
            ni: ni.into(),
            asker,
            usage: Usage::new(self, request, found, hdr_data),
            debt,
        };
        let range = arrival.usage.event.range.clone();
        match completion(arrival) {
            Ok(done) => Delivery::Accept(Sink {
                memory: range.into(),
                done,
            }),
            Err(_) => self.dropped(request),
        }
    }

    fn parse_get(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        asker: Asker,
        request: &Request,
        return_wmd: WireHandle,
    ) -> Delivery {
        let Some(debt) = Debt::new(self, asker.nid, asker.via) else {
            return self.dropped(request);
        };
        let (usage, payload) = if ping::is_question(request) {
            let Ok(description) = ping::answer(&self.node, ni, request) else {
                return self.dropped(request);
            };
            (None, description)
        } else {
            let Some(found) = self.find(request) else {
                return self.dropped(request);
            };
            let range = found.range.clone();
            (Some(Usage::new(self, request, found, 0)), range)
        };
        self.counters.gets.add(1);
        let answer = Answer { usage, debt };
        if let Ok(done) = completion(answer) {
            let body = Body::Reply {
                dst_wmd: return_wmd,
            };
            self.answer(ni, asker, body, Some(payload), done);
        }
        Delivery::Discard
    }

    fn parse_ack(&self, from: Nid, handle: WireHandle, match_bits: u64, mlength: u32) -> Delivery {
        let op = self.ops.lock().ack(from, handle, match_bits, mlength);
        match op {
            Ok(op) => {
                self.counters.acks.add(1);
                op.finish(Ok(mlength));
            }
            Err(why) => self.unwanted("ACK", from, why),
        }
        Delivery::Discard
    }

    fn parse_reply(self: &Arc<Self>, from: Nid, handle: WireHandle, length: u32) -> Delivery {
        let op = self.ops.lock().reply(from, handle);
        let (op, sink) = match op {
            Ok(found) => found,
            Err(why) => {
                self.unwanted("REPLY", from, why);
                return Delivery::Discard;
            }
        };
        self.counters.replies.add(1);
        // What is longer than was asked for is cut off.
        let range = match sink.slice(0, sink.len().min(length as usize)) {
            Ok(range) => range,
            Err(e) => {
                self.finish_op(op, Err(e));
                return Delivery::Discard;
            }
        };
        let got = Got {
            core: self.clone(),
            op,
            // CAST: at most `length`.
            mlength: range.len() as u32,
        };
        match completion(got) {
            Ok(done) => Delivery::Accept(Sink {
                memory: range.into(),
                done,
            }),
            Err(_) => Delivery::Discard,
        }
    }

    #[inline(never)]
    fn unwanted(&self, what: &str, from: Nid, why: Unwanted) {
        self.counters.unwanted.add(1);
        pr_info_ratelimited!(
            "dropped an unwanted {} from {}: {}\n",
            what,
            from,
            match why {
                Unwanted::Unknown => "nobody waits for it",
                Unwanted::Wrong => "it does not fit the question",
                Unwanted::Twice => "it is there already",
            }
        );
    }
}

/// The use of a memory descriptor of ours by somebody's message.
pub(super) struct Usage {
    core: Arc<Core>,
    md: Arc<Md>,
    event: Event,
}

impl Usage {
    pub(super) fn new(core: &Arc<Core>, request: &Request, found: Match, hdr_data: u64) -> Self {
        // The entry goes if this was its last use; the descriptor stays for as long as it takes.
        drop(found.unlinked);
        Self {
            core: core.clone(),
            event: Event {
                me: found.me,
                access: request.access,
                from: request.from,
                match_bits: request.match_bits,
                hdr_data,
                rlength: request.length,
                // CAST: at most the length of the request.
                mlength: found.range.len() as u32,
                range: found.range,
                result: Ok(()),
            },
            md: found.md,
        }
    }

    /// The message has ended.
    pub(super) fn end(mut self, result: Result) {
        self.event.result = result;
        if let Some(handler) = &self.md.handler {
            handler.event(&self.core, &self.event);
        }
        if self.md.reuse == Reuse::OneAtATime {
            self.core.table.lock().release(self.event.me);
        }
    }
}

/// When a PUT was received.
struct Arrival {
    ni: Arc<dyn LndNi>,
    asker: Asker,
    usage: Usage,
    /// The ACK that is due, and what it has to name.
    debt: Option<(Debt, WireHandle)>,
}

impl Finish for Arrival {
    fn finish(self, result: Result) {
        let Event {
            match_bits,
            mlength,
            ..
        } = self.usage.event;
        let core = self.usage.core.clone();
        // Before the ACK: who gets it may count on the event having been handled.
        self.usage.end(result);
        let (Ok(()), Some((debt, dst_wmd))) = (result, self.debt) else {
            return;
        };
        if let Ok(done) = completion(Answer { usage: None, debt }) {
            let body = Body::Ack {
                dst_wmd,
                match_bits,
                mlength,
            };
            core.answer(self.ni.as_arc_borrow(), self.asker, body, None, done);
        }
    }
}

/// When an ACK or a REPLY was sent.
struct Answer {
    /// Of a REPLY: the descriptor that it was read from, if it was from one.
    usage: Option<Usage>,
    debt: Debt,
}

impl Finish for Answer {
    fn finish(self, result: Result) {
        if result.is_err() {
            self.debt.core().counters.unanswered.add(1);
        }
        if let Some(usage) = self.usage {
            usage.end(result);
        }
    }
}
