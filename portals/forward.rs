// SPDX-License-Identifier: GPL-2.0

//! Forwarding: which messages are passed on, by which interface, and to whom.
//!
//! A message that is to go on is a [`FwdMsg`]. It is first what its connection is parked with: until the
//! payload is there, in the transport's own memory of that connection, so that no buffer is held by what
//! has not come; then until there is a buffer, see [`crate::fwd`]. With one it is the completion first of the
//! payload that is being received, then of the transmit that sends it on from the very same pages. However
//! that ends, it is dropped then, and with it the buffer goes back to its pool. Nobody tells the sender when
//! a message could not be passed on: it gets no answer. Nor does anything count how often a message was
//! passed on: gateways whose routes lead round in a circle send it round for ever.
//!
//! A [`FwdMsg`] has one owner at a time, so nothing protects it.

use super::{
    node::Local,
    router::NetRoute,
    Core,
    Counters, //
};
use crate::{
    fwd::{
        Fmb,
        Place,
        Pool,
        Take,
        Way, //
    },
    lib_linux::{
        page::PageRange,
        ratelimit::pr_info_ratelimited, //
    },
    stats::Counter,
    upper::{
        Answer,
        Arrived,
        Cause,
        Completion,
        Delivery,
        Incoming,
        LndNi,
        NiRef,
        Payload,
        RecvToken,
        SentHeader,
        Sink,
        Status,
        Until,
        Waiter, //
    },
    wire::{
        End,
        Foreign,
        Header,
        Nid, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Why a message that is not for the interface goes nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Misrouted {
    /// It says that it is from a node that the peer can't speak for.
    Forged,
    /// The sender could have sent it to its target directly, or by this node's NID in the sender's
    /// own network.
    Direct,
    /// This node does not forward.
    Off,
    /// Nothing leads there.
    NoRoute,
    /// It would go back to the network that it came from.
    Back,
}

impl Misrouted {
    /// Where it is counted.
    fn counter(self, counters: &Counters) -> &Counter {
        match self {
            Self::Forged => &counters.fwd_forged,
            Self::Direct => &counters.fwd_direct,
            Self::Off => &counters.fwd_off,
            Self::NoRoute => &counters.fwd_no_route,
            Self::Back => &counters.fwd_back,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Forged => "the peer can't speak for its sender",
            Self::Direct => "its sender should have sent it straight there",
            Self::Off => "forwarding is off",
            Self::NoRoute => "no gateway leads there",
            Self::Back => "it would go back where it came from",
        }
    }
}

impl Core {
    /// A message that a gateway has passed on, or that is for another node. Not inlined: what is neither
    /// needs less of the stack.
    #[inline(never)]
    pub(super) fn parse_routed(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        msg: &Incoming<'_>,
        header: &Header,
        token: RecvToken<'_>,
    ) -> Answer {
        match self.route(ni, msg, header) {
            Ok(None) => token.deliver(self.parse(ni, msg, header)),
            Ok(Some(onwards)) => token.wait(onwards, Until::Arrived),
            Err(why) => {
                why.counter(&self.counters).add(1);
                pr_info_ratelimited!(
                    "{}: dropped a message from {} for {}, sent by {}: {}\n",
                    ni.nid(),
                    header.src,
                    header.dest,
                    msg.via,
                    why.text()
                );
                token.deliver(Delivery::Misrouted)
            }
        }
    }

    /// Drops a message that `via` has sent, and whose target or source is on a network of another kind, of
    /// which nothing here knows NIDs. Thread context.
    #[inline(never)]
    pub(super) fn refuse(
        &self,
        ni: NiRef<'_>,
        via: Nid,
        foreign: &Foreign,
        token: RecvToken<'_>,
    ) -> Answer {
        let why = match foreign.end {
            // No route here leads to such a network, so nobody is a gateway to it.
            End::Source => Misrouted::Forged,
            End::Target if self.node.forwarder().is_on() => Misrouted::NoRoute,
            End::Target => Misrouted::Off,
        };
        why.counter(&self.counters).add(1);
        pr_info_ratelimited!(
            "{}: dropped a message {}, sent by {}: {}\n",
            ni.nid(),
            foreign,
            via,
            why.text()
        );
        token.deliver(Delivery::Misrouted)
    }

    /// Where a message is to go: `None` is to this interface. Thread context, may sleep for memory.
    fn route(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        msg: &Incoming<'_>,
        header: &Header,
    ) -> core::result::Result<Option<KBox<FwdMsg>>, Misrouted> {
        let own = ni.nid();
        if header.src != msg.via {
            // A gateway speaks for the networks that it leads to; but nobody for one that this node is
            // in itself.
            let source = header.src.net();
            let leads_there = |route: &NetRoute| route.gateway == msg.via && route.target == source;
            if !self.router.any(leads_there) || self.is_local(own, source) {
                return Err(Misrouted::Forged);
            }
        }
        if header.dest == own {
            return Ok(None);
        }
        let node = &self.node;
        if header.dest.net() == own.net() || node.local(header.dest).is_some() {
            return Err(Misrouted::Direct);
        }
        let forwarder = node.forwarder();
        if !forwarder.is_on() {
            return Err(Misrouted::Off);
        }
        let (out, hop) = self.next_hop(own, header.dest)?;
        let way = forwarder.way(msg.addr, msg.via, hop);
        let onwards = FwdMsg {
            pool: forwarder.pool(header.payload_len as usize).clone(),
            way: way.map_err(|_| Misrouted::NoRoute)?,
            place: None,
            buffer: None,
            from: self.clone(),
            out,
            hop,
            cause: if hop == header.dest {
                Cause::Forward(msg.addr)
            } else {
                // An administrator has named that gateway.
                Cause::Own
            },
            header: *header,
            received: false,
        };
        let onwards = KBox::new(onwards, GFP_KERNEL);
        Ok(Some(onwards.map_err(|_| Misrouted::NoRoute)?))
    }

    /// Whether the node of the interface `own` is in a network. Thread context.
    fn is_local(&self, own: Nid, network: u16) -> bool {
        network == own.net() || self.node.first(|l| l.nid().net() == network).is_some()
    }

    /// Through which other interface a message that came in by `own` goes on, and to whom there.
    fn next_hop(
        &self,
        own: Nid,
        dest: Nid,
    ) -> core::result::Result<(Arc<dyn LndNi>, Nid), Misrouted> {
        if let Some(out) = self.node.first(|l| l.nid().net() == dest.net()) {
            return Ok((out.ni, dest));
        }
        let locals = self.node.locals().map_err(|_| Misrouted::NoRoute)?;
        let mut only_back = false;
        for Local { ni, core } in locals.iter() {
            if ni.nid().net() == own.net() {
                only_back |= core.router.choose(dest.net()).is_some();
            } else if let Some(gateway) = core.router.choose(dest.net()) {
                return Ok((ni.clone(), gateway));
            }
        }
        Err(if only_back {
            Misrouted::Back
        } else {
            Misrouted::NoRoute
        })
    }
}

/// A message that is to be sent on: what waits for its payload, and then for a buffer; then what is completed
/// when it was received into that, and at last when it was sent from there.
struct FwdMsg {
    pool: Arc<Pool>,
    way: Way,
    /// Where it waits, once it has asked for a buffer.
    place: Option<Place>,
    /// Goes back to its pool with this.
    buffer: Option<(Fmb, PageRange)>,
    /// The message layer of the interface by which it came.
    from: Arc<Core>,
    /// By which interface it goes on, and to whom there.
    out: Arc<dyn LndNi>,
    hop: Nid,
    cause: Cause,
    header: Header,
    received: bool,
}

impl FwdMsg {
    /// It has a buffer. `EINVAL` if that is too small.
    fn give(&mut self, fmb: Fmb) -> Result<PageRange> {
        let range = fmb.range(self.header.payload_len as usize)?;
        self.buffer = Some((fmb, range.clone()));
        Ok(range)
    }
}

impl Waiter for FwdMsg {
    fn ask(mut self: KBox<Self>, arrived: Arrived, token: RecvToken<'_>) -> Answer {
        let this = &mut *self;
        let taken = this
            .pool
            .take(token.conn(), &this.way, arrived, &mut this.place);
        match taken {
            Take::Wait => token.wait(self, Until::Woken),
            Take::NoMemory => token.wait(self, Until::Memory),
            Take::Got(fmb) => match self.give(fmb) {
                Ok(range) => token.deliver(Delivery::Accept(Sink {
                    memory: range.into(),
                    done: self,
                })),
                Err(_) => {
                    self.from.counters.fwd_failed.add(1);
                    token.deliver(Delivery::Discard)
                }
            },
            Take::TooMany => {
                self.from.counters.fwd_failed.add(1);
                token.deliver(Delivery::Discard)
            }
            Take::Closed => {
                // Forwarding was switched off meanwhile.
                self.from.counters.fwd_off.add(1);
                token.deliver(Delivery::Misrouted)
            }
        }
    }
}

impl Completion for FwdMsg {
    fn complete(mut self: KBox<Self>, status: Status) {
        let Some((fmb, range)) = &self.buffer else {
            return;
        };
        let counters = &self.from.counters;
        if self.received {
            fmb.target().set_reached(status.is_ok());
        }
        if let Err(why) = status {
            counters.fwd_failed.add(1);
            pr_info_ratelimited!(
                "could not pass on a message from {} for {}: {:?}\n",
                self.header.src,
                self.header.dest,
                why.error
            );
        } else if self.received {
            counters.fwd_msgs.add(1);
            counters.fwd_bytes.add(self.header.payload_len.into());
        } else {
            fmb.received();
            let payload = Some(range.clone()).filter(|range| range.len() > 0);
            let payload = payload.map(Payload::from);
            let (out, hop, cause, header) = (self.out.clone(), self.hop, self.cause, self.header);
            self.received = true;
            let out = out.as_arc_borrow();
            out.send(hop, cause, SentHeader::Parsed(&header), payload, self);
        }
    }
}

impl Drop for FwdMsg {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.pool.cancel(place);
        }
    }
}
