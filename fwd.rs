// SPDX-License-Identifier: GPL-2.0

//! Forwarding: messages that are for another node, read into a buffer and sent on.
//!
//! A network namespace, which is a node, has one [`Forwarder`] for all of its interfaces. It is made
//! with the first of them, and goes with the namespace; its memory is there only while an
//! administrator wants the node to forward. It is shared by [`Arc`]; what changes is in its pools,
//! see [`pool`], which have locks of their own.
//!
//! A message that is to go on is a [`FwdMsg`]. It is first what its connection is parked with: until the
//! payload is there, in the transport's own memory of that connection, so that no buffer is held by what
//! has not come; then until there is a buffer. With one it is the completion first of the payload that is
//! being received, then of the transmit that sends it on from the very same pages. However that ends, it
//! is dropped then, and with it the buffer goes back to its pool. Nobody tells the sender when a message
//! could not be passed on: it gets no answer. Nor does anything count how often a message was passed on:
//! gateways whose routes lead round in a circle send it round for ever.

mod pool;

use crate::{
    lib_linux::{
        netns::Net,
        page::PageRange,
        ratelimit::pr_info_ratelimited, //
    },
    ni::Ni,
    stats::{
        Counter,
        Events, //
    },
    tunables,
    upper::{
        Answer,
        Arrived,
        Completion,
        Delivery,
        Receiving,
        RecvToken,
        Sink,
        Status,
        Until,
        Waiter, //
    },
    wire::{
        End,
        Foreign,
        Header,
        Nid,
        MAX_PAYLOAD, //
    },
    Lnd, //
};
use core::net::{
    IpAddr,
    Ipv6Addr, //
};
use kernel::{
    new_mutex,
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        Arc,
        Mutex,
        SpinLock, //
    }, //
};

use self::pool::{
    Place,
    Stuck,
    Take,
    Way, //
};

pub(crate) use self::pool::{
    PoolInfo,
    Share, //
};

type Pool = pool::Pool<dyn Receiving>;
type Fmb = pool::Fmb<dyn Receiving>;

/// So many nodes may an interface know before it makes no more friends for strangers' sake: a
/// message may name any address as its target, and each gets a peer.
pub(crate) const MAX_PEERS: i64 = 8192;

/// The addresses from which messages come.
struct Origins {
    /// Each with its share, and how many connections know it. One that no connection knows stays while
    /// something from it is in a buffer.
    shares: RBTree<IpAddr, (Arc<Share>, u32)>,
    count: usize,
    /// When there are so many, it is looked for some that can go.
    sweep_at: usize,
}

/// There are hardly ever more.
const SWEEP_AT: usize = 64;

impl Origins {
    fn sweep(&mut self) {
        let mut cursor = self.shares.cursor_front_mut();
        while let Some(at) = cursor {
            let (_, (share, users)) = at.current();
            if *users > 0 || !share.is_idle() {
                cursor = at.move_next();
                continue;
            }
            (cursor, _) = at.remove_current();
            self.count = self.count.saturating_sub(1);
        }
        self.sweep_at = self.count.saturating_mul(2).max(SWEEP_AT);
    }
}

/// The share of the address that a connection comes from, known to it. Dropped in thread context, no
/// spinlock held.
pub(crate) struct Origin {
    forwarder: Arc<Forwarder>,
    addr: IpAddr,
    share: Arc<Share>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        let mut origins = self.forwarder.origins.lock();
        if let Some((_, users)) = origins.shares.get_mut(&self.addr) {
            *users = users.saturating_sub(1);
        }
    }
}

/// The addresses that one machine can have: an IPv6 one has a whole /64 to choose from.
fn site(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => addr,
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64).into(),
    }
}

/// The forwarding of one node.
#[pin_data]
pub(crate) struct Forwarder {
    net: Net,
    small: Arc<Pool>,
    large: Arc<Pool>,
    /// Innermost.
    #[pin]
    origins: SpinLock<Origins>,
    /// Held while it is switched on or off. Says which.
    #[pin]
    switch: Mutex<bool>,
}

/// What an administrator is told.
pub(crate) struct ForwarderInfo {
    pub(crate) on: bool,
    pub(crate) small: PoolInfo,
    pub(crate) large: PoolInfo,
}

impl Forwarder {
    /// The forwarder of the node `net`: switched off. May sleep.
    pub(crate) fn new(net: Net) -> Result<Arc<Self>> {
        let small = Pool::new(0, PAGE_SIZE)?;
        let large = Pool::new(1, MAX_PAYLOAD as usize)?;
        Arc::pin_init(
            pin_init!(Self {
                net,
                small,
                large,
                origins <- new_spinlock!(
                    Origins {
                        shares: RBTree::new(),
                        count: 0,
                        sweep_at: SWEEP_AT,
                    },
                    "socklnd_fwd_origins"
                ),
                switch <- new_mutex!(false, "socklnd_fwd_switch"),
            }),
            GFP_KERNEL,
        )
    }

    /// The node.
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Switches it on, which takes the memory, or off, which gives it back: at once what nothing is
    /// in, and the rest message by message. Nothing happens if that is so already. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; then it is off.
    pub(crate) fn set(&self, on: bool) -> Result {
        let mut is_on = self.switch.lock();
        if *is_on == on {
            return Ok(());
        }
        *is_on = false;
        if on {
            let (small, large) = tunables::forwarding_buffers();
            self.small.open(small)?;
            self.large.open(large).inspect_err(|_| self.small.close())?;
            *is_on = true;
        } else {
            self.small.close();
            self.large.close();
        }
        Ok(())
    }

    /// Whether it is on. Thread context.
    pub(crate) fn is_on(&self) -> bool {
        self.small.is_open()
    }

    /// What a connection from `addr` has to know. May sleep. `ENOMEM`.
    fn origin(self: &Arc<Self>, addr: IpAddr) -> Result<Origin> {
        let addr = site(addr);
        let new = Share::new()?;
        let room = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut origins = self.origins.lock();
        let share = match origins.shares.get_mut(&addr) {
            Some((share, users)) => {
                *users = users.saturating_add(1);
                share.clone()
            }
            None => {
                if origins.count >= origins.sweep_at {
                    origins.sweep();
                }
                origins.count = origins.count.saturating_add(1);
                let _ = origins
                    .shares
                    .insert(room.into_node(addr, (new.clone(), 1)));
                new
            }
        };
        drop(origins);
        Ok(Origin {
            forwarder: self.clone(),
            addr,
            share,
        })
    }

    /// If messages wait, and no buffer comes back, has one node give up those that it holds: who sends
    /// too slowly into one, or to whom messages can't be sent on. Thread context, may sleep.
    pub(crate) fn tend(&self, lnd: &Lnd, now_ms: u64) {
        for pool in [&self.small, &self.large] {
            match pool.stuck(now_ms) {
                Some(Stuck::Receiving(conn)) => conn.give_up(),
                Some(Stuck::Sending(to)) => self.give_up(lnd, &to),
                None => {}
            }
        }
    }

    /// Ends what is under way to the node with this share.
    fn give_up(&self, lnd: &Lnd, to: &Arc<Share>) {
        let Ok(nis) = lnd.nis_in(&self.net) else {
            return;
        };
        for ni in nis.iter() {
            ni.peers().walk(|peer| {
                if Arc::ptr_eq(peer.share(), to) {
                    pr_info_ratelimited!(
                        "{}: {} holds up messages to others, and is given up\n",
                        ni.nid(),
                        peer.nid()
                    );
                    peer.give_up();
                }
            });
        }
    }

    /// What there is to tell. May sleep.
    pub(crate) fn info(&self) -> ForwarderInfo {
        let is_on = self.switch.lock();
        ForwarderInfo {
            on: *is_on,
            small: self.small.info(),
            large: self.large.info(),
        }
    }

    /// The pool for a payload of `len` bytes.
    fn pool(&self, len: usize) -> &Arc<Pool> {
        if len <= self.small.bytes() {
            &self.small
        } else {
            &self.large
        }
    }
}

/// Why a message that is not for the interface goes nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misrouted {
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
    pub(crate) fn counter(self, events: &Events) -> &Counter {
        match self {
            Self::Forged => &events.fwd_forged,
            Self::Direct => &events.fwd_direct,
            Self::Off => &events.fwd_off,
            Self::NoRoute => &events.fwd_no_route,
            Self::Back => &events.fwd_back,
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

    /// Says so in the log, if there is not too much already.
    #[inline(never)]
    pub(crate) fn log(self, ni: &Ni, via: Nid, header: &Header) {
        pr_info_ratelimited!(
            "{}: dropped a message from {} for {}, sent by {}: {}\n",
            ni.nid(),
            header.src,
            header.dest,
            via,
            self.text()
        );
    }
}

/// Why a message that `via` has sent goes nowhere whose target or source is on a network of another
/// kind, of which this driver knows no NIDs: says so in the log, too. Thread context.
#[inline(never)]
pub(crate) fn refuse(ni: &Ni, via: Nid, foreign: &Foreign) -> Misrouted {
    let why = match foreign.end {
        // No route here leads to such a network, so nobody is a gateway to it.
        End::Source => Misrouted::Forged,
        End::Target if ni.forwarder().is_on() => Misrouted::NoRoute,
        End::Target => Misrouted::Off,
    };
    pr_info_ratelimited!(
        "{}: dropped a message {}, sent by {}: {}\n",
        ni.nid(),
        foreign,
        via,
        why.text()
    );
    why
}

/// Where a message that `via` has sent from `addr` is to go: `None` is to the interface itself. Thread
/// context, may sleep for memory.
pub(crate) fn dispatch(
    ni: &Arc<Ni>,
    via: Nid,
    addr: IpAddr,
    header: &Header,
) -> core::result::Result<Option<KBox<FwdMsg>>, Misrouted> {
    if header.src != via {
        // A gateway speaks for the networks that it leads to; but nobody for one that this node is
        // in itself.
        let source = header.src.net();
        if !ni.upper().is_gateway(via, source) || is_local(ni, source) {
            return Err(Misrouted::Forged);
        }
    }
    if header.dest == ni.nid() {
        return Ok(None);
    }
    let lnd = ni.lnd();
    if header.dest.net() == ni.nid().net() || lnd.find_ni(ni.net(), Some(header.dest)).is_some() {
        return Err(Misrouted::Direct);
    }
    if !ni.forwarder().is_on() {
        return Err(Misrouted::Off);
    }
    let (out, hop) = next_hop(ni, header.dest)?;
    let origin = ni.forwarder().origin(addr);
    let origin = origin.map_err(|_| Misrouted::NoRoute)?;
    let way = Way {
        origin: origin.share.clone(),
        from: ni.share_of(via).map_err(|_| Misrouted::NoRoute)?,
        to: out.share_of(hop).map_err(|_| Misrouted::NoRoute)?,
    };
    let len = header.payload_len as usize;
    let msg = FwdMsg {
        _origin: origin,
        pool: ni.forwarder().pool(len).clone(),
        way,
        place: None,
        buffer: None,
        from: ni.clone(),
        out,
        hop,
        header: *header,
        received: false,
    };
    let msg = KBox::new(msg, GFP_KERNEL);
    Ok(Some(msg.map_err(|_| Misrouted::NoRoute)?))
}

/// Whether this node is in a network. Thread context.
fn is_local(ni: &Ni, network: u16) -> bool {
    network == ni.nid().net() || ni.lnd().ni_in_network(ni.net(), network).is_some()
}

/// Through which other interface a message that came in by `ni` goes on, and to whom there.
fn next_hop(ni: &Ni, dest: Nid) -> core::result::Result<(Arc<Ni>, Nid), Misrouted> {
    let lnd = ni.lnd();
    if let Some(out) = lnd.ni_in_network(ni.net(), dest.net()) {
        return Ok((out, dest));
    }
    let mut last = 0;
    let mut only_back = false;
    while let Some(out) = lnd.ni_after(last) {
        last = out.serial();
        if out.net() != ni.net() {
            continue;
        }
        if out.nid().net() == ni.nid().net() {
            only_back |= out.upper().gateway(dest.net()).is_some();
        } else if let Some(gateway) = out.upper().gateway(dest.net()) {
            return Ok((out, gateway));
        }
    }
    Err(if only_back {
        Misrouted::Back
    } else {
        Misrouted::NoRoute
    })
}

/// A message that is to be sent on: what waits for its payload, and then for a buffer; then what is completed
/// when it was received into that, and at last when it was sent from there.
pub(crate) struct FwdMsg {
    _origin: Origin,
    pool: Arc<Pool>,
    way: Way,
    /// Where it waits, once it has asked for a buffer.
    place: Option<Place>,
    /// Goes back to its pool with this.
    buffer: Option<(Fmb, PageRange)>,
    /// By which interface it came.
    from: Arc<Ni>,
    /// By which it goes on, and to whom there.
    out: Arc<Ni>,
    hop: Nid,
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
                Ok(range) => token.deliver(Delivery::Accept(Sink { range, done: self })),
                Err(_) => {
                    self.from.events().fwd_failed.add(1);
                    token.deliver(Delivery::Discard)
                }
            },
            Take::TooMany => {
                self.from.events().fwd_failed.add(1);
                token.deliver(Delivery::Discard)
            }
            Take::Closed => {
                // Forwarding was switched off meanwhile.
                self.from.events().fwd_off.add(1);
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
        let events = self.from.events();
        if self.received {
            fmb.target().set_reached(status.is_ok());
        }
        if let Err(why) = status {
            events.fwd_failed.add(1);
            pr_info_ratelimited!(
                "could not pass on a message from {} for {}: {:?}\n",
                self.header.src,
                self.header.dest,
                why.error
            );
        } else if self.received {
            events.fwd_msgs.add(1);
            events.fwd_bytes.add(self.header.payload_len.into());
        } else {
            fmb.received();
            let payload = Some(range.clone()).filter(|range| range.len() > 0);
            let (out, hop, header) = (self.out.clone(), self.hop, self.header);
            self.received = true;
            out.send(hop, &header, payload, self);
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

impl pool::Waiter for dyn Receiving {
    fn wake(self: Arc<Self>) {
        Receiving::wake(self);
    }
}
