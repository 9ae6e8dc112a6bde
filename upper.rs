// SPDX-License-Identifier: GPL-2.0

//! The boundary between the driver and the message layer above it.
//!
//! The driver moves messages between this node and its peers. A [`MessageLayer`] says what is sent, and
//! where the payload of what comes in goes. This module is all that the two know of each other; it knows
//! neither of them, nor the transport.
//!
//! # Lifetime and locks
//!
//! Nothing here is shared or has a lock. What crosses the boundary has one owner at a time: a payload and
//! its [`Completion`] belong to the driver from the call that hands them over until it completes them.

mod failure;
mod memory;

pub(crate) use self::{
    failure::{
        Failure,
        Health,
        Status, //
    },
    memory::{
        Memory,
        Payload, //
    }, //
};
use crate::{
    lib_linux::{
        misc,
        netns::Net,
        page::Dest, //
    },
    wire::{
        Body,
        Foreign,
        Header,
        Nid,
        RawHeader, //
    }, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// The ID of a connection, unique while the connection exists.
pub(crate) type ConnId = usize;

/// How the last connection for messages to a peer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It has failed, or the peer has closed it: the peer may be down.
    Failed,
    /// This node has closed it for an administrator. The peer may be up.
    Closed,
    /// The peer was restarted, and is up.
    Restarted,
}

/// Whether a peer can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// There is a connection for messages.
    Up,
    /// There is none, and none could be made.
    Down,
}

/// Whether the device that has an NI's address can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// It can.
    Up,
    /// It is down or has no carrier, or no device has the address.
    Down,
}

/// What a message layer wants of an NI. `None` leaves a value to the driver, and its parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NiTunables {
    /// Connections for bulk to each peer, each way; 0: by the speed of the link.
    pub(crate) conns_per_peer: Option<u32>,
    /// The type of service of packets.
    pub(crate) tos: Option<u8>,
}

/// Why a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// This node has begun an operation, or an administrator has configured the gateway to the target.
    Own,
    /// A node at this address has sent a request, and this is the answer.
    Answer(IpAddr),
    /// A node at this address has sent it, and it is forwarded.
    Forward(IpAddr),
}

impl Cause {
    /// The cause of a message with this `header` that the node `own` sends to `to`, if the message layer does
    /// not know on whose behalf: the address in `to` stands for that of the node that has asked for it, or
    /// sent it.
    pub(crate) fn of_header(own: Nid, to: Nid, header: SentHeader<'_>) -> Self {
        match header.src() {
            Some(src) if src == own && header.is_answer() => Self::Answer(to.addr()),
            Some(src) if src == own => Self::Own,
            _ => Self::Forward(to.addr()),
        }
    }
}

/// What to do when a message that the message layer sends, or a payload that it receives, has ended. Completed
/// exactly once.
pub(crate) trait Completion: Send {
    /// The message has ended with this `status`.
    ///
    /// Thread context, may sleep and may send. None of the driver's locks is held that sending or
    /// receiving takes.
    fn complete(self: KBox<Self>, status: Status);

    /// The message was sent, and went by this connection. As [`Completion::complete`].
    fn sent(self: KBox<Self>, _conn: ConnId) {
        self.complete(Ok(()));
    }

    /// Whether the message is still needed. If not, and it could not be sent so far, it is dropped. Thread
    /// context, the peer's lock is held.
    fn is_wanted(&self) -> bool {
        true
    }
}

/// Where a payload goes.
pub(crate) struct Sink {
    /// Not longer than the payload.
    pub(crate) memory: Memory<Dest>,
    /// Completed when all of the payload was read, or when it is known that it never will be.
    pub(crate) done: KBox<dyn Completion>,
}

/// The header of a message that is sent.
#[derive(Clone, Copy)]
pub(crate) enum SentHeader<'a> {
    /// One that was put together here.
    Parsed(&'a Header),
    /// As bytes; the message may be from or for a network of another kind.
    Raw(&'a RawHeader),
}

impl SentHeader<'_> {
    /// Bytes that follow the header.
    pub(crate) fn payload_len(self) -> u32 {
        match self {
            Self::Parsed(header) => header.payload_len,
            Self::Raw(header) => header.payload_len(),
        }
    }

    /// The NID of the sender, if that is a TCP NID.
    pub(crate) fn src(self) -> Option<Nid> {
        match self {
            Self::Parsed(header) => Some(header.src),
            Self::Raw(header) => header.src(),
        }
    }

    /// Whether it is an ACK or a REPLY.
    pub(crate) fn is_answer(self) -> bool {
        match self {
            Self::Parsed(header) => matches!(header.body, Body::Ack { .. } | Body::Reply { .. }),
            Self::Raw(header) => header.is_answer(),
        }
    }
}

/// A message that has begun to come in.
pub(crate) struct Incoming<'a> {
    /// The peer that has sent it or, as a gateway, passed it on; or this node itself.
    pub(crate) via: Nid,
    /// The address that it has come from.
    pub(crate) addr: IpAddr,
    /// What it says; or, if it is from or for a network of another kind, what is known of that.
    pub(crate) header: core::result::Result<&'a Header, &'a Foreign>,
    /// The header as received, in the form of the connection's version; empty if this node itself has sent the
    /// message with a [`SentHeader::Parsed`].
    pub(crate) raw: &'a [u8],
}

impl Incoming<'_> {
    /// All of the header, in the form that does not depend on how it came.
    ///
    /// # Errors
    ///
    /// `EPROTO`; none that the driver itself has read.
    pub(crate) fn raw_header(&self) -> Result<RawHeader> {
        if let Ok(long) = self.raw.try_into() {
            return Ok(RawHeader::from_long(long)?);
        }
        if let Ok(short) = self.raw.try_into() {
            return Ok(RawHeader::from_short(short)?);
        }
        Ok(RawHeader::from_header(self.header.map_err(|_| EPROTO)?)?)
    }
}

/// What becomes of the payload of a message.
pub(crate) enum Delivery {
    /// It is read and thrown away.
    Discard,
    /// The same; the peer should not have sent it to this node, which is counted.
    Misrouted,
    /// It goes into memory, or as much of it as there is room; the rest is thrown away.
    Accept(Sink),
}

impl Delivery {
    /// The payload can't be received because of `why`: completes the sink, if there is one. Thread context, no
    /// lock held.
    pub(crate) fn fail(self, why: Failure) {
        misc::assert_may_sleep();
        if let Self::Accept(Sink { memory, done }) = self {
            drop(memory);
            done.complete(Err(why.receiving()));
        }
    }
}

/// How much of a payload is there when a [`Waiter`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Nothing is missing.
    All,
    /// No more of it than the transport has room for.
    Part,
}

/// When a [`Waiter`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// As soon as the payload waits in the transport's own memory, or as much of it as there is room
    /// for there. That is for the peer to do, in time.
    Arrived,
    /// After [`Receiving::wake`]; it may be asked more often.
    Woken,
    /// After a while, when there may be memory.
    Memory,
}

/// Decides about a payload when it has waited. Belongs to the connection that is parked, and is dropped
/// when that ends.
pub(crate) trait Waiter: Send {
    /// Says where the payload goes, of which `arrived` is there. Called as [`MessageLayer::parse`].
    fn ask(self: KBox<Self>, arrived: Arrived, token: RecvToken<'_>) -> Answer;
}

/// A connection on which a message is being received, as the message layer sees it.
pub(crate) trait Receiving: Send + Sync {
    /// The delivery of the message whose token was kept. As [`KeptToken::deliver`], which is to be used.
    fn deliver(self: Arc<Self>, delivery: Delivery);

    /// Asks the [`Waiter`] of the connection again, if there is one. Thread context, no spinlock held.
    fn wake(self: Arc<Self>);

    /// The peer sends too slowly while other messages wait: closes the connection. Thread context, no
    /// spinlock held.
    fn give_up(self: Arc<Self>);
}

/// The right, and the duty, to say once where the payload of a message goes: at once, or later. Until then
/// nothing more is read from the connection.
pub(crate) struct RecvToken<'a>(ArcBorrow<'a, dyn Receiving + 'static>);

impl<'a> RecvToken<'a> {
    /// For the message that `conn` has begun to receive. Made by the driver alone.
    pub(crate) fn new(conn: ArcBorrow<'a, dyn Receiving + 'static>) -> Self {
        Self(conn)
    }

    /// The connection.
    pub(crate) fn conn(&self) -> ArcBorrow<'a, dyn Receiving + 'static> {
        self.0
    }

    /// Answers at once.
    pub(crate) fn deliver(self, delivery: Delivery) -> Answer {
        Answer(Decision::Now(delivery))
    }

    /// Answers later, by the [`KeptToken`]. Until then the connection is parked, and no timeout runs.
    pub(crate) fn keep(self) -> (Answer, KeptToken) {
        (Answer(Decision::Later), KeptToken(Some(self.0.into())))
    }

    /// Lets `waiter` answer, which is asked `until` the time to do so. The connection is parked, as with
    /// [`RecvToken::keep`]; if it ends, the waiter is dropped.
    pub(crate) fn wait(self, waiter: KBox<dyn Waiter>, until: Until) -> Answer {
        Answer(Decision::Wait(waiter, until))
    }
}

/// A [`RecvToken`] for later. If it is dropped, the payload is thrown away.
pub(crate) struct KeptToken(Option<Arc<dyn Receiving>>);

impl KeptToken {
    /// Says where the payload goes. If the connection has ended meanwhile, the completion in `delivery` is
    /// called with an error before this returns. Thread context, no lock held that a completion takes.
    pub(crate) fn deliver(mut self, delivery: Delivery) {
        misc::assert_may_sleep();
        if let Some(conn) = self.0.take() {
            conn.deliver(delivery);
        }
    }
}

impl Drop for KeptToken {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            conn.deliver(Delivery::Discard);
        }
    }
}

/// What is decided about a payload, for the driver.
pub(crate) enum Decision {
    /// Where it goes.
    Now(Delivery),
    /// A [`KeptToken`] will say it.
    Later,
    /// A waiter will say it.
    Wait(KBox<dyn Waiter>, Until),
}

/// What is decided about a payload. Only a [`RecvToken`] makes one, once.
pub(crate) struct Answer(Decision);

impl Answer {
    /// For the driver.
    pub(crate) fn decision(self) -> Decision {
        self.0
    }
}

/// An NI that is borrowed for the time of a call.
pub(crate) type NiRef<'a> = ArcBorrow<'a, dyn LndNi + 'static>;

/// What the message layer asks of the driver about one NI: one NID in one network
/// namespace.
pub(crate) trait LndNi: Send + Sync {
    /// Its NID.
    fn nid(&self) -> Nid;

    /// The network namespace that it is in; this is the node.
    fn net(&self) -> &Net;

    /// Sends a message to `to`, which is its target or a gateway on the way to it.
    ///
    /// A payload is as long as the header says.
    ///
    /// `done` is completed once, with the error if there was one, possibly before this returns:
    /// `EMSGSIZE` (more than the protocol carries), `EHOSTUNREACH` (no way to that NID), `EBUSY` (this
    /// node would have to connect to one stranger too many), `ESHUTDOWN`, `ENOMEM`, `ETIMEDOUT`, or what
    /// the connection failed with.
    ///
    /// Thread context, no spinlock held. Does not wait for the network, nor, for memory, for a file
    /// system: the caller may be one.
    fn send(
        self: ArcBorrow<'_, Self>,
        to: Nid,
        cause: Cause,
        header: SentHeader<'_>,
        payload: Option<Payload>,
        done: KBox<dyn Completion>,
    );

    /// Its link. Thread context.
    fn link(&self) -> Link;

    /// Connections for bulk to each peer, each way: what [`MessageLayer::tunables`] wants, or what the driver has
    /// settled. At least 1. Any context.
    fn conns_per_peer(&self) -> u32;

    /// Refuses a peer with a NID that no message could be sent to. Any context.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is in another network, or this NI itself; `EPROTONOSUPPORT` if no version
    /// that is spoken has a form for it.
    fn check_peer(&self, peer: Nid) -> Result;

    /// Connects to a peer that was lost, if its route may be tried now. Returns whether the peer is connected.
    /// Thread context, may sleep.
    fn probe(self: ArcBorrow<'_, Self>, peer: Nid, now_ms: u64) -> bool;

    /// Closes the connections to a peer; what was sent over them and not answered ends with `why`. Thread
    /// context, may sleep.
    fn close_peer(&self, peer: Nid, why: Error);

    /// Messages to `peer` make no progress, and other messages wait for their buffers: closes its connections,
    /// and fails the messages that wait for one. Thread context, no spinlock held.
    fn give_up(&self, peer: Nid);
}

/// What a message layer that starts NIs itself asks of the driver, as LNet does.
pub(crate) trait Driver: Send + Sync {
    /// Brings up `nid` in `net` under `layer`, whose [`MessageLayer::started`] is called before this
    /// returns. Thread context, may sleep; waits for none who is in [`MessageLayer::parse`].
    ///
    /// # Errors
    ///
    /// `EEXIST` if it is up, `ESHUTDOWN` while the module goes, `EADDRNOTAVAIL` if the address is not this
    /// node's, `EADDRINUSE` if a program listens there, `ENOMEM`, and those of `layer`.
    fn start(
        self: ArcBorrow<'_, Self>,
        net: &Net,
        nid: Nid,
        layer: Arc<dyn MessageLayer>,
    ) -> Result<Arc<dyn LndNi>>;

    /// Shuts `nid` in `net` down. When this returns it has no connection, and no message that it was given
    /// is left to be completed but those whose memory a device still has. Thread context, may sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none.
    fn stop(&self, net: &Net, nid: Nid) -> Result;

    /// Closes the connections of all NIs to `peer`, as [`LndNi::close_peer`]. Without memory for that they stay
    /// until they are found to have failed.
    fn close_peer(&self, peer: Nid, why: Error);
}

/// What the driver asks of the message layer about one NI.
///
/// All are called in thread context, with no lock held that sending or receiving takes, and in a scope
/// in which no memory is waited for by way of file systems.
pub(crate) trait MessageLayer: Send + Sync {
    /// The NI works. Called once, and nothing else before but [`MessageLayer::parse`]. May sleep.
    ///
    /// # Errors
    ///
    /// Those of the layer; the NI ends then.
    fn started(&self, ni: NiRef<'_>) -> Result;

    /// Whether peers may connect to the NI now. May sleep.
    fn admits_peers(&self) -> bool {
        true
    }

    /// Whether connections of the NI are to be served on this processor. May sleep.
    fn uses_cpu(&self, _cpu: u32) -> bool {
        true
    }

    /// A message has begun to come in: says where its payload goes, or keeps the token and says it later.
    ///
    /// May sleep and send; but the connection's scheduler waits. An error closes the connection.
    fn parse(&self, ni: NiRef<'_>, msg: &Incoming<'_>, token: RecvToken<'_>) -> Result<Answer>;

    /// The last connection of `peer` that could carry messages has ended. Data was last received from the peer at
    /// `last_alive_ms`, in monotonic milliseconds. Called exactly once for each such loss.
    fn peer_down(&self, ni: NiRef<'_>, peer: Nid, loss: Loss, last_alive_ms: u64);

    /// The connection `conn` has ended because of `why`; all messages that went by it were completed
    /// before. Answers to them are unlikely to come. Called at least once for each connection.
    fn conn_ended(&self, conn: ConnId, why: Error);

    /// Whether `peer` can be reached. May be called repeatedly with the same state.
    fn peer_found(&self, ni: NiRef<'_>, peer: Nid, state: PeerState);

    /// The NI's link has changed. Called once for each change, within about a second; changes that are undone
    /// before that are not reported. An NI is taken to start with a link; if it has none, this is
    /// called soon after [`MessageLayer::started`]. The result of [`LndNi::link`] may be newer.
    fn link_changed(&self, _ni: NiRef<'_>, _link: Link) {}

    /// The NI's tunables. Called when the NI starts, and again when a peer is created: an administrator may
    /// have changed them meanwhile. May sleep.
    fn tunables(&self) -> NiTunables {
        NiTunables::default()
    }

    /// The NI is shut down: all operations on it end with `ESHUTDOWN`, and no new ones begin.
    fn shutdown(&self, ni: NiRef<'_>);
}

/// What the driver asks of the message layer as a whole. Called in thread context, may sleep.
pub(crate) trait MessageLayers: Send + Sync {
    /// An NI with this NID is about to start in `net`: makes its message layer.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and those of the layer.
    fn startup(&self, net: &Net, nid: Nid) -> Result<Arc<dyn MessageLayer>>;

    /// Called about once a second, by the reaper's thread.
    fn tick(&self, now_ms: u64);

    /// The namespace is being deleted; all of its NIs were shut down.
    fn namespace_gone(&self, net: &Net);
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
