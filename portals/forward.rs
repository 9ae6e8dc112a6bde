// SPDX-License-Identifier: GPL-2.0

//! Forwarding: which messages are forwarded, by which NI, and to which node.
//!
//! A message to be forwarded is a [`FwdMsg`]. Its connection is parked with it, first until the payload has
//! arrived in TCP's receive queue, so that no buffer is held for a payload that has not been sent; then until
//! there is a buffer, see [`crate::fwd`]. With a buffer, the [`FwdMsg`] is the completion of the payload that is
//! received into it, and then of the transmit that sends it from the same pages. When that has ended, well or
//! not, it is dropped, and the buffer goes back to its pool. The sender of a message that could not be
//! forwarded is not told: it gets no answer. No field of a message counts its hops: gateways whose routes form
//! a loop forward it for ever.
//!
//! A [`FwdMsg`] has one owner at a time, so no lock protects it.

use super::{
    node::LocalNi,
    router::{
        GatewayState,
        NetRoute, //
    },
    Counters,
    PortalsInner, //
};
use crate::{
    fwd::{
        Fmb,
        FmbRequest,
        FwdPath,
        Grant,
        Pool, //
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

/// Why a message is neither for this NI nor forwarded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Misrouted {
    /// Its source is a node that the peer is no gateway for.
    Forged,
    /// The sender should have sent it to its target directly, or by this node's NID in the sender's network.
    Direct,
    /// Forwarding is disabled.
    Off,
    /// No route leads to its target.
    NoRoute,
    /// The only routes to its target lead back to the network that it came from.
    Back,
}

impl Misrouted {
    /// The counter of such messages.
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
            Self::Forged => "the peer is no gateway for its source",
            Self::Direct => "its source should have sent it directly",
            Self::Off => "forwarding is disabled",
            Self::NoRoute => "there is no route to its target",
            Self::Back => "it would go back to the network that it came from",
        }
    }
}

impl PortalsInner {
    /// Handles the header of a message that was received through a gateway, or that is for another node. Not
    /// inlined, so that other messages use less of the stack.
    #[inline(never)]
    pub(super) fn parse_routed(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        msg: &Incoming<'_>,
        header: &Header,
        token: RecvToken<'_>,
    ) -> Answer {
        match self.route_msg(ni, msg, header) {
            Ok(None) => token.deliver(self.parse(ni, msg, header)),
            // Nothing has to arrive, so it needs no turn of its own.
            Ok(Some(msg)) if header.payload_len == 0 => msg.ask(Arrived::All, token),
            Ok(Some(msg)) => token.wait(msg, Until::Arrived),
            Err(why) => {
                why.counter(&self.counters).add(1);
                pr_info_ratelimited!(
                    "{}: dropped a message from {} to {}, received from {}: {}\n",
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

    /// Drops a message whose target or source is not on a TCP network, and that was received from `via`. Thread
    /// context.
    #[inline(never)]
    pub(super) fn drop_foreign(
        &self,
        ni: NiRef<'_>,
        via: Nid,
        foreign: &Foreign,
        token: RecvToken<'_>,
    ) -> Answer {
        let why = match foreign.end {
            // This node has no routes to such networks, so it knows no gateway to them.
            End::Source => Misrouted::Forged,
            End::Target if self.node.forwarder().is_enabled() => Misrouted::NoRoute,
            End::Target => Misrouted::Off,
        };
        why.counter(&self.counters).add(1);
        pr_info_ratelimited!(
            "{}: dropped a message {}, received from {}: {}\n",
            ni.nid(),
            foreign,
            via,
            why.text()
        );
        token.deliver(Delivery::Misrouted)
    }

    /// Decides what is done with a message: `None` if it is for this NI, else what forwards it. Thread
    /// context, may sleep for memory.
    fn route_msg(
        self: &Arc<Self>,
        ni: NiRef<'_>,
        msg: &Incoming<'_>,
        header: &Header,
    ) -> core::result::Result<Option<KBox<FwdMsg>>, Misrouted> {
        let own = ni.nid();
        if header.src != msg.via {
            // A gateway forwards messages from the networks that it leads to; but not from one that this node is
            // connected to itself.
            let source = header.src.net();
            let leads_there = |route: &NetRoute| route.gateway == msg.via && route.target == source;
            if !self.router.has_route(leads_there) || self.is_local(own, source) {
                return Err(Misrouted::Forged);
            }
        }
        if header.dest == own {
            return Ok(None);
        }
        let node = &self.node;
        if header.dest.net() == own.net() || node.find_ni(|l| l.nid() == header.dest).is_some() {
            return Err(Misrouted::Direct);
        }
        let forwarder = node.forwarder();
        if !forwarder.is_enabled() {
            return Err(Misrouted::Off);
        }
        let (out, hop) = self.choose_egress(own, header.dest)?;
        let path = forwarder.path(msg.addr, msg.via, hop);
        let msg = FwdMsg {
            pool: forwarder.pool(header.payload_len as usize).clone(),
            path: path.map_err(|_| Misrouted::NoRoute)?,
            request: FmbRequest::default(),
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
            is_received: false,
        };
        let msg = KBox::new(msg, GFP_KERNEL);
        Ok(Some(msg.map_err(|_| Misrouted::NoRoute)?))
    }

    /// Whether the node, of which `own` is an NI, is connected to a network. Thread context.
    fn is_local(&self, own: Nid, network: u16) -> bool {
        network == own.net() || self.node.find_ni(|l| l.nid().net() == network).is_some()
    }

    /// Chooses the NI by which a message to `dest` is forwarded, which is not in the network of `own`, and
    /// the next hop there.
    fn choose_egress(
        &self,
        own: Nid,
        dest: Nid,
    ) -> core::result::Result<(Arc<dyn LndNi>, Nid), Misrouted> {
        if let Some(out) = self.node.find_ni(|l| l.nid().net() == dest.net()) {
            return Ok((out.ni, dest));
        }
        let nis = self.node.nis().map_err(|_| Misrouted::NoRoute)?;
        let leads_there =
            |route: &NetRoute| route.target == dest.net() && route.state == GatewayState::Up;
        let mut only_back = false;
        for LocalNi { ni, portals } in nis.iter() {
            if ni.nid().net() == own.net() {
                only_back |= portals.router.has_route(leads_there);
            } else if let Some(gateway) = portals.router.choose(dest.net()) {
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

/// A message that is forwarded: first the waiter, until its payload has arrived and there is a buffer; then the
/// completion of the payload that is received into the buffer, and last of the message that is sent from it.
struct FwdMsg {
    pool: Arc<Pool>,
    path: FwdPath,
    /// Its request for a buffer.
    request: FmbRequest,
    /// The buffer that it was granted, and the part of it that has the payload.
    buffer: Option<(Fmb, PageRange)>,
    /// The message layer of the NI that received it.
    from: Arc<PortalsInner>,
    /// The NI that sends it.
    out: Arc<dyn LndNi>,
    /// The node that it is sent to.
    hop: Nid,
    cause: Cause,
    header: Header,
    /// Whether its payload was received, so that what is completed next is the transmit.
    is_received: bool,
}

impl FwdMsg {
    /// Stores the buffer that it was granted. `EINVAL` if that is too small.
    fn set_buffer(&mut self, fmb: Fmb) -> Result<PageRange> {
        let range = fmb.range(self.header.payload_len as usize)?;
        self.buffer = Some((fmb, range.clone()));
        Ok(range)
    }
}

impl Waiter for FwdMsg {
    fn ask(mut self: KBox<Self>, arrived: Arrived, token: RecvToken<'_>) -> Answer {
        let this = &mut *self;
        let grant = this
            .pool
            .request(token.conn(), &this.path, arrived, &mut this.request);
        match grant {
            Grant::Queued => token.wait(self, Until::Woken),
            Grant::NoMemory => token.wait(self, Until::Memory),
            Grant::Granted(fmb) => match self.set_buffer(fmb) {
                Ok(range) => token.deliver(Delivery::Accept(Sink {
                    memory: range.into(),
                    done: self,
                })),
                Err(_) => {
                    self.from.counters.fwd_failed.add(1);
                    token.deliver(Delivery::Discard)
                }
            },
            Grant::QueueFull => {
                self.from.counters.fwd_failed.add(1);
                token.deliver(Delivery::Discard)
            }
            Grant::Closed => {
                // Forwarding was disabled meanwhile.
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
        if self.is_received {
            fmb.next_hop().set_reached(status.is_ok());
        }
        if let Err(why) = status {
            counters.fwd_failed.add(1);
            pr_info_ratelimited!(
                "could not forward a message from {} to {}: {:?}\n",
                self.header.src,
                self.header.dest,
                why.error
            );
        } else if self.is_received {
            counters.fwd_msgs.add(1);
            counters.fwd_bytes.add(self.header.payload_len.into());
        } else {
            fmb.set_received();
            let payload = Some(range.clone()).filter(|range| range.len() > 0);
            let payload = payload.map(Payload::from);
            let (out, hop, cause, header) = (self.out.clone(), self.hop, self.cause, self.header);
            self.is_received = true;
            let out = out.as_arc_borrow();
            out.send(hop, cause, SentHeader::Parsed(&header), payload, self);
        }
    }
}

impl Drop for FwdMsg {
    fn drop(&mut self) {
        self.pool.cancel(&mut self.request);
    }
}
