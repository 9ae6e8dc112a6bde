// SPDX-License-Identifier: GPL-2.0

//! Handshakes: from a TCP connection to a [`super::Conn`], or to an error.
//!
//! A handshake never blocks a thread: socket callbacks post it to the autoconnect daemons, which do what the
//! received bytes allow. Its state is behind its mutex. The thread that takes the socket out of the state
//! ends the handshake, so it ends once. Until then it is in the list of its NI's
//! [`HandshakeTable`](super::HandshakeTable), which limits the number of passive handshakes, and through which
//! the reaper enforces the deadline and the NI ends it. The socket's callbacks hold one reference, until the
//! socket is unhooked.
//!
//! A socket that a program hands over can be taken only when the program has closed it; then the handshake
//! begins. The reaper makes the daemons check for that.
//!
//! Several NIs can listen on one address. The acceptor request says which of them a connection is for; without
//! a request the HELLO says it; in version 1, where the HELLO names no destination, the network of its source
//! does. Until it is known, the handshake belongs to the NI that has listened longest. If it turns out to be
//! for another NI, or if its NI ends before that is known, a new handshake of another NI continues with the
//! socket.

mod connect;
mod failure;
mod finish;
mod handover;
mod hello;

use self::hello::send_all;
use super::{
    apply_tunables,
    Reason, //
};
use crate::{
    acceptor::Listener,
    fault,
    lib_linux::{
        socket::{
            Handover,
            HookedSocket,
            Socket,
            SocketEvents,
            TcpState, //
        },
        time, //
    },
    ni::Ni,
    peer::{
        Peer,
        Route, //
    },
    stats::{
        Gauge,
        LiveGuard, //
    },
    tunables,
    wire::{
        AcceptorRequest,
        ConnType,
        Hello,
        HelloReader,
        IpVec,
        Nid,
        Progress,
        Proto,
        WireError,
        ACCEPTOR_REFUSAL, //
    }, //
};
use core::net::{
    IpAddr,
    SocketAddr, //
};
use kernel::{
    list::{
        impl_list_arc_safe,
        impl_list_item,
        AtomicTracker,
        ListLinks,
        TryNewListArc, //
    },
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow,
        Mutex,
        SetOnce, //
    }, //
};

/// The ID of a handshake's links in the daemons' mailbox.
pub(crate) const HANDSHAKE_LIST: u64 = 5;

/// The ID of a handshake's links in the reaper's list of handshakes to poll, mostly for sockets that are
/// handed over.
pub(crate) const HANDOVER_LIST: u64 = 10;

impl From<WireError> for Error {
    fn from(_: WireError) -> Self {
        EPROTO
    }
}

/// A handshake on a TCP connection, or on one that is to be made.
#[pin_data]
pub(crate) struct Handshake {
    ni: Arc<Ni>,
    role: Role,
    remote: SocketAddr,
    /// The deadline in monotonic milliseconds. Changed once, when a socket that was handed over is taken.
    deadline_ms: Atomic<u64>,
    /// The local address, once it is known. The handshake fails when the address is removed.
    bound: SetOnce<IpAddr>,
    #[pin]
    io: Mutex<Io>,
    /// INVARIANT: Only ever used for the autoconnect daemons' mailbox.
    #[pin]
    links: ListLinks<HANDSHAKE_LIST>,
    #[pin]
    tracker: AtomicTracker<HANDSHAKE_LIST>,
    /// INVARIANT: Only ever used for the reaper's list of handshakes to poll.
    #[pin]
    handover_links: ListLinks<HANDOVER_LIST>,
    #[pin]
    handover_tracker: AtomicTracker<HANDOVER_LIST>,
    _live: LiveGuard,
}

impl_list_arc_safe! {
    impl ListArcSafe<HANDSHAKE_LIST> for Handshake { tracked_by tracker: AtomicTracker<HANDSHAKE_LIST>; }
    impl ListArcSafe<HANDOVER_LIST> for Handshake { tracked_by handover_tracker: AtomicTracker<HANDOVER_LIST>; }
}
impl_list_item! {
    impl ListItem<HANDSHAKE_LIST> for Handshake { using ListLinks { self.links }; }
    impl ListItem<HANDOVER_LIST> for Handshake { using ListLinks { self.handover_links }; }
}

/// Which side opened the connection.
enum Role {
    /// This node did, on this claimed route, for a connection of this type.
    Active {
        peer: Arc<Peer>,
        route: Arc<Route>,
        kind: ConnType,
    },
    /// A program on this node did, for a connection of this type to this peer.
    Registered { nid: Nid, kind: ConnType },
    /// The other node did. It has connected to this listener; without one, a program has accepted it.
    Passive { listener: Option<Arc<Listener<Ni>>> },
}

struct Io {
    stage: Stage,
    reader: HelloReader,
    addressee: Addressee,
    /// The version of our HELLO, if this node has sent one first.
    tried: Proto,
}

/// Whether it is known which NI a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Addressee {
    /// Not yet. Until then it is the NI that has listened longest.
    Unknown,
    /// The acceptor request was for this NI.
    Known,
}

enum Stage {
    /// A program hands the socket over, and has not closed it yet.
    HandedOver(Handover),
    /// Active: there is no socket yet.
    Begin,
    /// Active: the TCP connection is being established.
    Connecting(HookedSocket<Handshake>),
    /// It waits for bytes from the other node.
    Reading(HookedSocket<Handshake>),
    /// It has failed, and the socket is closed or is being closed. [`Handshake::fail`] is yet to be called.
    Failed,
    /// It has ended: a thread has taken the socket.
    Over,
}

/// The result of a step that did not fail.
enum Step {
    /// There is nothing to do until the next event.
    Wait,
    /// It is for another NI that listens there, which is to read the HELLO.
    OtherNi(Arc<Ni>, Socket),
    /// The other node's HELLO was received. The version is that of our HELLO, if it was sent first.
    Done(Socket, Hello, Proto),
    /// The peer has connected by itself, so no attempt was begun.
    Unneeded,
}

impl Handshake {
    fn new(
        ni: &Arc<Ni>,
        role: Role,
        remote: SocketAddr,
        stage: Stage,
        deadline_ms: u64,
    ) -> Result<Arc<Self>> {
        let newest = ni.newest_proto();
        let reader = match role {
            Role::Passive { .. } => HelloReader::passive(newest),
            Role::Active { .. } | Role::Registered { .. } => HelloReader::active(newest),
        };
        let reader = reader.not_before(ni.oldest_proto());
        Arc::pin_init(
            pin_init!(Self {
                ni: ni.clone(),
                role,
                remote,
                deadline_ms: Atomic::new(deadline_ms),
                bound: SetOnce::new(),
                io <- new_mutex!(
                    Io {
                        stage,
                        reader,
                        addressee: Addressee::Unknown,
                        tried: newest,
                    },
                    "socklnd_handshake"
                ),
                links <- ListLinks::new(),
                tracker <- AtomicTracker::new(),
                handover_links <- ListLinks::new(),
                handover_tracker <- AtomicTracker::new(),
                _live: Gauge::enter(ni.live().handshakes()),
            }),
            GFP_KERNEL,
        )
    }

    /// Begins the handshake of a connection that was accepted at `listener`. It may be for another NI that
    /// listens there. May sleep.
    pub(crate) fn start_passive(
        ni: &Arc<Ni>,
        listener: &Arc<Listener<Ni>>,
        socket: Socket,
        remote: SocketAddr,
    ) -> Result {
        // Which NI it is for is not known yet, so the socket does not get the type of service of one.
        setup(&socket, tunables::type_of_service())?;
        let deadline = time::monotonic_ms().saturating_add(tunables::handshake_timeout_ms());
        Self::new_passive(ni, listener, remote, deadline)?.start_reading(socket)
    }

    /// The handshake of a connection that was accepted at `listener`, without its socket.
    fn new_passive(
        ni: &Arc<Ni>,
        listener: &Arc<Listener<Ni>>,
        remote: SocketAddr,
        deadline_ms: u64,
    ) -> Result<Arc<Self>> {
        let role = Role::Passive {
            listener: Some(listener.clone()),
        };
        let this = Self::new(ni, role, remote, Stage::Begin, deadline_ms)?;
        this.bound.populate(listener.addr());
        Ok(this)
    }

    /// Continues with the socket of this handshake in a new one of `ni`, which listens at `listener` too.
    /// `reader` has read bytes from the socket. May sleep.
    fn hand_to(
        &self,
        ni: &Arc<Ni>,
        listener: &Arc<Listener<Ni>>,
        socket: Socket,
        reader: HelloReader,
        addressee: Addressee,
    ) {
        match Self::new_passive(ni, listener, self.remote, self.deadline_ms()) {
            Ok(this) => {
                {
                    let mut io = this.io.lock();
                    io.reader = reader;
                    io.addressee = addressee;
                }
                if this.start_reading(socket).is_err() {
                    ni.events().bad_handshakes.add(1);
                }
            }
            Err(_) => ni.events().bad_handshakes.add(1),
        }
    }

    /// Whether its local address is `addr`.
    pub(super) fn is_bound_to(&self, addr: IpAddr) -> bool {
        self.bound.copy() == Some(addr)
    }

    /// Whether its local address is no longer an address of the NI. Thread context.
    fn has_lost_address(&self) -> bool {
        let interfaces = self.ni.interfaces();
        self.bound
            .copy()
            .is_some_and(|addr| interfaces.find(addr).is_none())
    }

    /// Posts it to the autoconnect daemons. Thread context.
    pub(crate) fn requeue(self: Arc<Self>) {
        let ni = self.ni.clone();
        ni.context().run_handshake(self);
    }

    /// Adds it to the table and hooks the socket. May sleep.
    fn start_reading(self: Arc<Self>, socket: Socket) -> Result {
        // Before the socket is hooked, because a handshake that has ended must not be added. If this fails,
        // nothing else has a reference, and the caller counts the failure.
        self.ni.handshakes().add(&self)?;
        {
            let mut io = self.io.lock();
            if matches!(io.stage, Stage::Over) {
                // Another thread has ended it, and left only the socket.
                return Ok(());
            }
            io.stage = Stage::Reading(socket.hook(self.clone()));
        }
        // There was no event for data that arrived before the socket was hooked.
        let ni = self.ni.clone();
        ni.context().run_handshake(self);
        Ok(())
    }

    /// Whether the other node opened the connection.
    pub(super) fn is_passive(&self) -> bool {
        matches!(self.role, Role::Passive { .. })
    }

    /// The other node's address.
    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The deadline in monotonic milliseconds.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms.load(Relaxed)
    }

    /// Whether it is for a route that was deleted. Thread context.
    pub(super) fn has_lost_route(&self) -> bool {
        match &self.role {
            Role::Active { peer, route, .. } => peer.has_lost(route),
            _ => false,
        }
    }

    /// Does what is possible now. An autoconnect daemon's thread, may sleep.
    pub(crate) fn progress(self: &Arc<Self>) {
        let step = {
            let mut io = self.io.lock();
            self.step(&mut io)
        };
        match step {
            Ok(Step::Wait) => {}
            Ok(Step::OtherNi(ni, socket)) => {
                self.ni.handshakes().remove(self);
                if let Role::Passive {
                    listener: Some(listener),
                } = &self.role
                {
                    // Only the acceptor request was read so far.
                    let reader = HelloReader::active(ni.newest_proto());
                    let reader = reader.not_before(ni.oldest_proto());
                    self.hand_to(&ni, listener, socket, reader, Addressee::Known);
                }
            }
            Ok(Step::Done(socket, hello, tried)) => {
                self.ni.handshakes().remove(self);
                match &self.role {
                    Role::Active { peer, route, kind } => {
                        let by = Some(&**route);
                        let done = self.finish_active(peer, by, *kind, socket, hello, tried);
                        self.end_active(peer, route, done);
                    }
                    Role::Registered { nid, kind } => {
                        let done = self.finish_registered(*nid, *kind, socket, hello, tried);
                        if let Err(why) = done {
                            self.ni.events().connect_failures.add(1);
                            self.report_failure(why);
                            self.warn_registered(why);
                        }
                    }
                    Role::Passive { .. } => {
                        if let Err(why) = self.finish_passive(socket, hello) {
                            self.report_failure(why);
                            self.ni.events().bad_handshakes.add(1);
                        }
                    }
                }
            }
            Ok(Step::Unneeded) => {
                self.ni.handshakes().remove(self);
                if let Role::Active { peer, route, .. } = &self.role {
                    peer.cancel_attempt(route);
                }
            }
            Err(e) => self.fail(e),
        }
    }

    /// Fails it because of `why`, unless it has ended already. Thread context, may sleep.
    pub(super) fn fail(self: &Arc<Self>, why: impl Into<Reason>) {
        let why = why.into();
        let (stage, reader, addressee) = {
            let mut io = self.io.lock();
            let stage = core::mem::replace(&mut io.stage, Stage::Over);
            let none = HelloReader::passive(self.ni.newest_proto());
            let reader = core::mem::replace(&mut io.reader, none);
            (stage, reader, io.addressee)
        };
        // Even if it has ended: a caller that fails all in the table must not find it again.
        self.ni.handshakes().remove(self);
        let stage = match (stage, &self.role) {
            (Stage::Over, _) => return,
            // If its NI ends, it may still be for another one.
            (
                Stage::Reading(socket),
                Role::Passive {
                    listener: Some(listener),
                },
            ) if why.errno() == ESHUTDOWN && addressee == Addressee::Unknown => {
                match listener.find_user(|ni| !core::ptr::eq(ni, &*self.ni)) {
                    Some(ni) => {
                        return self.hand_to(&ni, listener, socket.unhook(), reader, addressee);
                    }
                    None => Stage::Reading(socket),
                }
            }
            (stage, _) => stage,
        };
        let kept = matches!(stage, Stage::HandedOver(_));
        match stage {
            // The connection was established meanwhile.
            Stage::Connecting(socket) if socket.state() == TcpState::Established => {
                // An error does not matter: this only tells the peer who has connected.
                let _ = self.send_attempt_hello(&socket);
                socket.unhook().close_gracefully();
            }
            // Closes the socket, if there is one.
            stage => drop(stage),
        }
        if kept {
            self.trace_failure(why);
        } else {
            self.report_failure(why);
        }
        match &self.role {
            Role::Active { peer, route, .. } => {
                peer.count(1, |events| &events.connect_failures);
                if self.has_lost_address() {
                    peer.retry_route(route);
                } else {
                    peer.connect_failed(route, why.connect_failure());
                }
            }
            Role::Registered { .. } => {
                self.ni.events().connect_failures.add(1);
                if !kept {
                    self.warn_registered(why);
                }
            }
            Role::Passive { .. } => self.ni.events().bad_handshakes.add(1),
        }
        if kept && why.errno() == ETIMEDOUT {
            self.warn_not_closed();
        }
    }

    // Not inlined, and neither are the functions in `finish.rs` that [`Handshake::progress`] calls: their stack frames
    // are not needed at the same time.
    #[inline(never)]
    fn step(self: &Arc<Self>, io: &mut Io) -> core::result::Result<Step, Reason> {
        if matches!(io.stage, Stage::HandedOver(_)) && !self.take_socket(io)? {
            return Ok(Step::Wait);
        }
        if let (Stage::Begin, Role::Active { peer, route, kind }) = (&io.stage, &self.role) {
            if !peer.begin_attempt(route, *kind)? {
                io.stage = Stage::Over;
                return Ok(Step::Unneeded);
            }
            io.stage = Stage::Connecting(self.open()?);
        }
        if let Stage::Connecting(socket) = &io.stage {
            if fault::attempts_are_held() {
                self.ni.context().poll_handover(self.clone());
                return Ok(Step::Wait);
            }
            let failure = match (socket.take_error(), socket.state()) {
                (Some(e), _) => Some(e),
                (None, TcpState::SynSent | TcpState::SynReceived) => return Ok(Step::Wait),
                (None, TcpState::Established) => None,
                // It was established, and the peer has closed it.
                (None, _) => Some(socket.take_error().unwrap_or(ECONNRESET)),
            };
            if let Some(e) = failure {
                // The socket reports the error only once, and another daemon may be about to check.
                io.stage = Stage::Failed;
                return Err(e.into());
            }
            // The peer may have connected meanwhile. Then it refuses this connection.
            let Stage::Connecting(socket) = core::mem::replace(&mut io.stage, Stage::Failed) else {
                return Ok(Step::Wait);
            };
            io.tried = self.send_attempt_hello(&socket)?;
            io.stage = Stage::Reading(socket);
        }
        let Stage::Reading(socket) = &io.stage else {
            return Ok(Step::Wait);
        };
        let hello = loop {
            let nob = match socket.recv_bytes(io.reader.want()) {
                Ok(0) => return Err(ECONNRESET.into()),
                Ok(nob) => nob,
                Err(e) if e == EAGAIN => return Ok(Step::Wait),
                Err(e) => return Err(e.into()),
            };
            match io.reader.filled(nob)? {
                Progress::More => {}
                Progress::Request(AcceptorRequest { target }) if target == self.ni.nid() => {
                    io.addressee = Addressee::Known;
                }
                Progress::Request(AcceptorRequest { target }) => {
                    let found = self.find_listening_ni(|ni| ni.nid() == target);
                    let ni = found.ok_or(Reason::Target(target))?;
                    return match core::mem::replace(&mut io.stage, Stage::Over) {
                        Stage::Reading(socket) => Ok(Step::OtherNi(ni, socket.unhook())),
                        _ => Ok(Step::Wait),
                    };
                }
                Progress::Hello(hello) => break hello,
                Progress::AcceptorVersion => {
                    send_all(socket, &ACCEPTOR_REFUSAL)?;
                    return self.refuse(io, Reason::AcceptorVersion);
                }
                Progress::ForeignVersion { magic, version } => {
                    if matches!(self.role, Role::Passive { .. }) {
                        // The sender's NID can't be read. C nodes name themselves as destination then.
                        let nid = self.ni.nid();
                        let proto = self.ni.first_proto(nid, self.remote.ip());
                        self.send_hello(socket, proto, nid, None, &IpVec::new())?;
                    }
                    return self.refuse(io, Reason::HelloVersion(magic, version));
                }
            }
        };
        match core::mem::replace(&mut io.stage, Stage::Over) {
            Stage::Reading(socket) => Ok(Step::Done(socket.unhook(), hello, io.tried)),
            _ => Ok(Step::Wait),
        }
    }

    /// The first NI that matches, of those that listen where the other node has connected to.
    fn find_listening_ni(&self, matching: impl Fn(&Ni) -> bool) -> Option<Arc<Ni>> {
        match &self.role {
            Role::Passive {
                listener: Some(listener),
            } => listener.find_user(matching),
            _ => None,
        }
    }

    /// Closes the socket so that the answer just sent arrives, and returns the failure.
    fn refuse(&self, io: &mut Io, why: Reason) -> core::result::Result<Step, Reason> {
        if let Stage::Reading(socket) = core::mem::replace(&mut io.stage, Stage::Failed) {
            socket.unhook().close_gracefully();
        }
        Err(why)
    }

    fn event(this: ArcBorrow<'_, Self>) {
        this.ni.context().run_handshake(this.into());
    }
}

impl SocketEvents for Handshake {
    fn data_ready(this: ArcBorrow<'_, Self>) {
        Self::event(this);
    }

    fn write_space(_this: ArcBorrow<'_, Self>) {}

    fn state_change(this: ArcBorrow<'_, Self>) {
        Self::event(this);
    }
}

/// Sets the options that a socket must have before its first byte.
fn setup(socket: &Socket, tos: Option<u8>) -> Result {
    socket.set_kernel_defaults();
    apply_tunables(socket, tos)
}
