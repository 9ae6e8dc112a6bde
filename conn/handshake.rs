// SPDX-License-Identifier: GPL-2.0

//! Handshakes: from a TCP connection to a [`super::Conn`], or to nothing.
//!
//! A handshake never blocks a thread: socket callbacks post it to the autoconnect daemons, who do
//! what the bytes at hand allow. Its state is behind its mutex; whoever takes the socket out of it
//! ends it, so it ends once. Until then it is in its interface's [`HandshakeTable`](super::HandshakeTable) list,
//! which bounds how many strangers may be half-way in, and through which the reaper enforces the
//! deadline and the interface's end. The socket's callbacks hold one reference, and go with the
//! socket.
//!
//! A socket that a program hands over can only be taken when the program has closed it, and the
//! handshake begins then. The reaper has the daemons look for that.
//!
//! Several interfaces may listen on one address. Whose a connection is, is said by the acceptor
//! request; without one by the HELLO; and where that names no destination, in version 1, by the network
//! of its source. Until then it is that of the one that has listened longest. A handshake whose interface
//! turns out to be another one, or ends, goes on as a new handshake of another one.

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

/// Which list of a handshake is that of the daemons.
pub(crate) const HANDSHAKE_LIST: u64 = 5;

/// Which list of a handshake is that of those that are looked at again, mostly for sockets that are
/// handed over.
pub(crate) const HANDOVER_LIST: u64 = 10;

impl From<WireError> for Error {
    fn from(_: WireError) -> Self {
        EPROTO
    }
}

/// A connection on its way to be one.
#[pin_data]
pub(crate) struct Handshake {
    ni: Arc<Ni>,
    role: Role,
    remote: SocketAddr,
    /// In monotonic milliseconds. Moved once, when a socket that was handed over is taken.
    deadline_ms: Atomic<u64>,
    /// The address of one of the interface's that it uses, once that is settled: with it, it ends.
    bound: SetOnce<IpAddr>,
    #[pin]
    io: Mutex<Io>,
    /// INVARIANT: Only ever used for the autoconnect daemons' mailbox.
    #[pin]
    links: ListLinks<HANDSHAKE_LIST>,
    #[pin]
    tracker: AtomicTracker<HANDSHAKE_LIST>,
    /// INVARIANT: Only ever used for the reaper's list of those that are looked at again.
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

/// Who began it.
enum Role {
    /// This node did, by this claimed route, for a connection of this type.
    Active {
        peer: Arc<Peer>,
        route: Arc<Route>,
        kind: ConnType,
    },
    /// A program on this node did, for a connection of this type to this peer.
    Registered { nid: Nid, kind: ConnType },
    /// The other node did, and connected to this listener; or else a program has accepted it.
    Passive { door: Option<Arc<Listener<Ni>>> },
}

struct Io {
    stage: Stage,
    reader: HelloReader,
    addressee: Addressee,
    /// The version of our HELLO, if we have sent one first.
    tried: Proto,
}

/// Whether it has been said for which interface a connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Addressee {
    /// Not yet. For the time being it is the one that has listened longest.
    Unknown,
    /// By the acceptor request: for this one.
    Known,
}

enum Stage {
    /// A program has not closed its socket yet.
    HandedOver(Handover),
    /// Active: no socket yet.
    Begin,
    /// Active: the connection request is out.
    Connecting(HookedSocket<Handshake>),
    /// The other side's bytes are awaited.
    Reading(HookedSocket<Handshake>),
    /// It leads nowhere, and the socket is gone or going; the failure is not dealt with yet.
    Parted,
    /// Succeeded or failed; somebody has taken the socket.
    Over,
}

/// How a step ended that did not fail.
enum Step {
    /// Nothing to do until the next event.
    Wait,
    /// It is for another interface that listens there, which is to read the HELLO.
    For(Arc<Ni>, Socket),
    /// The other side's HELLO is here; ours, if it was the first, was of this version.
    Done(Socket, Hello, Proto),
    /// The peer's own connection has come, so that no attempt was begun.
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

    /// Begins the handshake of a connection that was accepted at `door`, perhaps for another interface
    /// that listens there. May sleep.
    pub(crate) fn accepted(
        ni: &Arc<Ni>,
        door: &Arc<Listener<Ni>>,
        socket: Socket,
        remote: SocketAddr,
    ) -> Result {
        setup(&socket)?;
        let role = Role::Passive {
            door: Some(door.clone()),
        };
        let deadline = time::monotonic_ms().saturating_add(tunables::handshake_timeout_ms());
        let this = Self::new(ni, role, remote, Stage::Begin, deadline)?;
        this.bound.populate(door.addr());
        this.read_from(socket)
    }

    /// Has `ni`, which listens at `door` too, go on with the socket of this one, from which `reader`
    /// has read something. May sleep.
    fn pass_on(
        &self,
        ni: &Arc<Ni>,
        door: &Arc<Listener<Ni>>,
        socket: Socket,
        reader: HelloReader,
        addressee: Addressee,
    ) {
        let role = Role::Passive {
            door: Some(door.clone()),
        };
        match Self::new(ni, role, self.remote, Stage::Begin, self.deadline_ms()) {
            Ok(this) => {
                this.bound.populate(door.addr());
                {
                    let mut io = this.io.lock();
                    io.reader = reader;
                    io.addressee = addressee;
                }
                if this.read_from(socket).is_err() {
                    ni.events().bad_handshakes.add(1);
                }
            }
            Err(_) => ni.events().bad_handshakes.add(1),
        }
    }

    /// Whether it uses `addr`, one of the interface's.
    pub(super) fn uses(&self, addr: IpAddr) -> bool {
        self.bound.copy() == Some(addr)
    }

    /// Whether the address that it uses is not one of the interface's any more. Thread context.
    fn has_lost_address(&self) -> bool {
        let interfaces = self.ni.interfaces();
        self.bound
            .copy()
            .is_some_and(|addr| interfaces.find(addr).is_none())
    }

    /// Has the autoconnect daemons look at it again. Thread context.
    pub(crate) fn look_again(self: Arc<Self>) {
        let ni = self.ni.clone();
        ni.context().run_handshake(self);
    }

    /// Waits for the other side's bytes. May sleep.
    fn read_from(self: Arc<Self>, socket: Socket) -> Result {
        // Listed before anything can happen: what is over must not get into the list. If it can't be
        // listed, nobody else has it, and the caller counts that.
        self.ni.handshakes().add(&self)?;
        {
            let mut io = self.io.lock();
            if matches!(io.stage, Stage::Over) {
                // Whoever was faster has dealt with all but the socket.
                return Ok(());
            }
            io.stage = Stage::Reading(socket.hook(self.clone()));
        }
        // What came before the callbacks were in place left no event.
        let ni = self.ni.clone();
        ni.context().run_handshake(self);
        Ok(())
    }

    /// Whether the other node began it.
    pub(super) fn is_passive(&self) -> bool {
        matches!(self.role, Role::Passive { .. })
    }

    /// The other side's address.
    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// When its time is up, in monotonic milliseconds.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms.load(Relaxed)
    }

    /// Whether it is for a route that was taken away. Thread context.
    pub(super) fn has_lost_route(&self) -> bool {
        match &self.role {
            Role::Active { peer, route, .. } => peer.has_lost(route),
            _ => false,
        }
    }

    /// Does what can be done now. An autoconnect daemon's thread, may sleep.
    pub(crate) fn progress(self: &Arc<Self>) {
        let step = {
            let mut io = self.io.lock();
            self.step(&mut io)
        };
        match step {
            Ok(Step::Wait) => {}
            Ok(Step::For(ni, socket)) => {
                self.ni.handshakes().remove(self);
                if let Role::Passive { door: Some(door) } = &self.role {
                    // The request was all that came so far.
                    let reader = HelloReader::active(ni.newest_proto());
                    let reader = reader.not_before(ni.oldest_proto());
                    self.pass_on(&ni, door, socket, reader, Addressee::Known);
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
                            self.tell_failure(why);
                            self.warn_of_registered(why);
                        }
                    }
                    Role::Passive { .. } => {
                        if let Err(why) = self.finish_passive(socket, hello) {
                            self.tell_failure(why);
                            self.ni.events().bad_handshakes.add(1);
                        }
                    }
                }
            }
            Ok(Step::Unneeded) => {
                self.ni.handshakes().remove(self);
                if let Role::Active { peer, route, .. } = &self.role {
                    peer.attempt_unneeded(route);
                }
            }
            Err(e) => self.fail(e),
        }
    }

    /// Ends it for `why` if it has not ended yet. Thread context, may sleep.
    pub(super) fn fail(self: &Arc<Self>, why: impl Into<Reason>) {
        let why = why.into();
        let (stage, reader, addressee) = {
            let mut io = self.io.lock();
            let stage = core::mem::replace(&mut io.stage, Stage::Over);
            let none = HelloReader::passive(self.ni.newest_proto());
            let reader = core::mem::replace(&mut io.reader, none);
            (stage, reader, io.addressee)
        };
        // Whoever ends all that are listed must not meet it again and again.
        self.ni.handshakes().remove(self);
        let stage = match (stage, &self.role) {
            (Stage::Over, _) => return,
            // With an interface end no connections that may be for others.
            (Stage::Reading(socket), Role::Passive { door: Some(door) })
                if why.errno() == ESHUTDOWN && addressee == Addressee::Unknown =>
            {
                match door.find_user(|ni| !core::ptr::eq(ni, &*self.ni)) {
                    Some(ni) => {
                        return self.pass_on(&ni, door, socket.unhook(), reader, addressee);
                    }
                    None => Stage::Reading(socket),
                }
            }
            (stage, _) => stage,
        };
        let kept = matches!(stage, Stage::HandedOver(_));
        match stage {
            // It was accepted meanwhile.
            Stage::Connecting(socket) if socket.state() == TcpState::Established => {
                // If that fails, there is nobody who would wonder.
                let _ = self.introduce_attempt(&socket);
                socket.unhook().close_gracefully();
            }
            // Closes the socket, if there is one.
            stage => drop(stage),
        }
        if kept {
            self.trace_failure(why.errno());
        } else {
            self.tell_failure(why);
        }
        match &self.role {
            Role::Active { peer, route, .. } => {
                peer.count(1, |events| &events.connect_failures);
                if self.has_lost_address() {
                    peer.try_again(route);
                } else {
                    peer.connect_failed(route, why.connect_failure());
                }
            }
            Role::Registered { .. } => {
                self.ni.events().connect_failures.add(1);
                if !kept {
                    self.warn_of_registered(why);
                }
            }
            Role::Passive { .. } => self.ni.events().bad_handshakes.add(1),
        }
        if kept && why.errno() == ETIMEDOUT {
            self.warn_of_kept();
        }
    }

    // Not inlined, as [`finish`] is not: what either needs of the stack the other needs, too.
    #[inline(never)]
    fn step(self: &Arc<Self>, io: &mut Io) -> core::result::Result<Step, Reason> {
        if matches!(io.stage, Stage::HandedOver(_)) && !self.take_over(io)? {
            return Ok(Step::Wait);
        }
        if let (Stage::Begin, Role::Active { peer, route, kind }) = (&io.stage, &self.role) {
            if !peer.connect_begins(route, *kind)? {
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
                // It was, and the peer has ended it since.
                (None, _) => Some(socket.take_error().unwrap_or(ECONNRESET)),
            };
            if let Some(e) = failure {
                // The error is told once, and another daemon may wait to look for it.
                io.stage = Stage::Parted;
                return Err(e.into());
            }
            // The peer's own connection may have come while the request was under way. It says so
            // itself.
            let Stage::Connecting(socket) = core::mem::replace(&mut io.stage, Stage::Parted) else {
                return Ok(Step::Wait);
            };
            io.tried = self.introduce_attempt(&socket)?;
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
                    let found = self.neighbour(|ni| ni.nid() == target);
                    let ni = found.ok_or(Reason::Target(target))?;
                    return match core::mem::replace(&mut io.stage, Stage::Over) {
                        Stage::Reading(socket) => Ok(Step::For(ni, socket.unhook())),
                        _ => Ok(Step::Wait),
                    };
                }
                Progress::Hello(hello) => break hello,
                Progress::AcceptorVersion => {
                    send_all(socket, &ACCEPTOR_REFUSAL)?;
                    return self.part(io, Reason::AcceptorVersion);
                }
                Progress::ForeignVersion { magic, version } => {
                    if matches!(self.role, Role::Passive { .. }) {
                        // Who it is can't be read: by custom, the answer is then to ourselves.
                        let nid = self.ni.nid();
                        let proto = self.ni.first_proto(nid, self.remote.ip());
                        self.send_hello(socket, proto, nid, None, &IpVec::new())?;
                    }
                    return self.part(io, Reason::HelloVersion(magic, version));
                }
            }
        };
        match core::mem::replace(&mut io.stage, Stage::Over) {
            Stage::Reading(socket) => Ok(Step::Done(socket.unhook(), hello, io.tried)),
            _ => Ok(Step::Wait),
        }
    }

    /// The first interface that matches, of those that listen where the other node has connected to.
    fn neighbour(&self, matching: impl Fn(&Ni) -> bool) -> Option<Arc<Ni>> {
        match &self.role {
            Role::Passive { door: Some(door) } => door.find_user(matching),
            _ => None,
        }
    }

    /// Closes the socket so that the answer just sent arrives, and fails.
    fn part(&self, io: &mut Io, why: Reason) -> core::result::Result<Step, Reason> {
        if let Stage::Reading(socket) = core::mem::replace(&mut io.stage, Stage::Parted) {
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

/// Sets what must be in force before the first byte.
fn setup(socket: &Socket) -> Result {
    socket.set_kernel_defaults();
    apply_tunables(socket, tunables::type_of_service())
}
