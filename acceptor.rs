// SPDX-License-Identifier: GPL-2.0

//! The acceptor: takes connections that other nodes open.
//!
//! Each address of an interface instance is listened on, in the instance's network namespace; once,
//! however many instances have it: whom a connection is for is said by its handshake. The
//! listeners' wait queues post them to one thread, which accepts what is there, turns away who may
//! not connect, and leaves the rest to the autoconnect daemons. It never reads from a connection.
//! A connection that somebody else in the kernel has taken, such as a BPF program, is turned away.
//! The listeners take turns, each of a bounded number of connections. One that could not accept,
//! for want of memory, is tried again after a pause: no event would say that it can. One whose socket
//! somebody has destroyed opens another, and is tried again like that until it can.
//!
//! A [`Listener`] is in the acceptor's list, behind a mutex, from when the first instance listens
//! until the last one leaves. It is shared by [`Arc`] with the instances' interfaces, with
//! handshakes, its socket's wait queue and the mailboxes. Its socket is behind a mutex of its own, and
//! closing it takes the socket out; who listens is behind a spinlock.

use crate::{
    fault,
    lib_linux::{
        inetaddr,
        netns::Net,
        ratelimit::{
            pr_warn_about,
            pr_warn_ratelimited, //
        },
        socket::{
            Accepted,
            Arrivals,
            ListeningSocket,
            Owner,
            Socket,
            TcpState, //
        },
        thread::{
            self,
            KThread, //
        },
        time, //
    },
    mailbox::{
        Mail,
        Mailbox, //
    },
    tunables::{
        self,
        Acceptance, //
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
        new_spinlock,
        Arc,
        ArcBorrow,
        Mutex,
        SpinLock, //
    }, //
};

/// Which list of a listener is the acceptor's.
pub(crate) const LISTENER_LIST: u64 = 6;

/// Which list of a listener is that of those that are tried again after a pause.
pub(crate) const AGAIN_LIST: u64 = 9;

/// Connections that a listener accepts before the others get their turn.
const TURN: usize = 16;

/// Before a listener is tried again that could not accept, in milliseconds.
const RETRY_MS: u64 = 100;

/// The lowest port that any program may connect from.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// Who listens. Of an interface instance the acceptor knows no more than this.
pub(crate) trait User: Send + Sync + Sized + 'static {
    /// The network namespace that it is in.
    fn net(&self) -> &Net;

    /// Counts a connection that was turned away. Any context.
    fn count_refused(&self);

    /// Takes over a connection that has come by `listener` from `remote`. May sleep.
    ///
    /// # Errors
    ///
    /// Why it can't; the connection is closed, and the caller counts it.
    fn accepted(
        self: &Arc<Self>,
        listener: &Arc<Listener<Self>>,
        socket: Socket,
        remote: SocketAddr,
    ) -> Result;
}

/// The acceptor's listeners and queues.
#[pin_data]
pub(crate) struct Acceptor<U: User> {
    /// Held while one begins or ends to listen.
    #[pin]
    listeners: Mutex<KVec<Arc<Listener<U>>>>,
    #[pin]
    mailbox: Mailbox<Listener<U>, LISTENER_LIST>,
    /// Listeners that are tried again after a pause.
    #[pin]
    again: Mailbox<Listener<U>, AGAIN_LIST>,
}

/// How a listener's turn ended.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing is left to accept until the next event.
    Idle,
    /// There may be more.
    More,
    /// The connections that are there can't be accepted now, and no event will tell when they can.
    Later,
}

impl<U: User> Acceptor<U> {
    /// A queue without its thread. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                listeners <- new_mutex!(KVec::new(), "socklnd_listeners"),
                mailbox <- Mailbox::new(),
                again <- Mailbox::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts the thread. Dropping it joins it: call [`Acceptor::stop`] before. May sleep.
    pub(crate) fn start(self: &Arc<Self>) -> Result<KThread> {
        KThread::spawn(c"socklnd_acc", None, self.clone(), Self::run)
    }

    /// Lets the thread end. Any context.
    pub(crate) fn stop(&self) {
        self.mailbox.stop();
    }

    /// Has `ni` listen on `addr`, until [`Acceptor::leave`]. May sleep.
    ///
    /// # Errors
    ///
    /// `EADDRNOTAVAIL` if the address is no host's, or not local to the namespace; `EADDRINUSE` if
    /// a program listens there; `ENOMEM`.
    pub(crate) fn listen(self: &Arc<Self>, ni: &Arc<U>, addr: IpAddr) -> Result<Arc<Listener<U>>> {
        let mut listeners = self.listeners.lock();
        let is_there = |l: &&Arc<Listener<U>>| l.net == *ni.net() && l.addr == addr;
        if let Some(listener) = listeners.iter().find(is_there) {
            listener.users.lock().push(ni.clone(), GFP_ATOMIC)?;
            return Ok(listener.clone());
        }
        listeners.reserve(1, GFP_KERNEL)?;
        let listener = Listener::new(self, ni, addr)?;
        // There is room: it was reserved.
        let _ = listeners.push_within_capacity(listener.clone());
        Ok(listener)
    }

    /// `ni` does not listen there any more; the last one closes the socket. May sleep.
    pub(crate) fn leave(&self, listener: &Arc<Listener<U>>, ni: &U) {
        let mut listeners = self.listeners.lock();
        let (left, is_last) = {
            let mut users = listener.users.lock();
            let at = users.iter().position(|user| core::ptr::eq(&**user, ni));
            let left = at.and_then(|at| users.remove(at).ok());
            (left, users.is_empty())
        };
        if is_last {
            let at = listeners.iter().position(|l| Arc::ptr_eq(l, listener));
            let _ = at.and_then(|at| listeners.remove(at).ok());
            // Before anybody else can listen there.
            listener.close();
        }
        drop(listeners);
        drop(left);
    }

    fn run(this: Arc<Self>) {
        // When those that could not accept are tried again, in monotonic milliseconds.
        let mut retry_ms = None;
        loop {
            let wait = retry_ms.map(|at: u64| at.saturating_sub(time::monotonic_ms()));
            match this
                .mailbox
                .take(wait.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)))
            {
                Mail::Object(listener) => this.serve(listener),
                Mail::Tick => {}
                Mail::Stop => break,
            }
            let now = time::monotonic_ms();
            if retry_ms.is_some_and(|at| now >= at) {
                for listener in this.again.drain() {
                    this.serve(listener);
                }
                retry_ms = None;
            }
            if retry_ms.is_none() && !this.again.is_empty() {
                retry_ms = Some(now.saturating_add(RETRY_MS));
            }
        }
        // They are closed by now, and hold on to what this queue belongs to.
        this.again.drain().for_each(drop);
    }

    /// Gives `listener` a turn.
    fn serve(&self, listener: Arc<Listener<U>>) {
        match listener.turn() {
            Turn::Idle => {}
            // Behind the others.
            Turn::More => {
                self.mailbox.post(listener);
            }
            Turn::Later => {
                self.again.post(listener);
            }
        }
    }
}

/// One turn of `accept`, which says whether there was a connection. May sleep, if that does.
fn take_turn(mut accept: impl FnMut() -> Result<bool>) -> Turn {
    for _ in 0..TURN {
        match accept() {
            Ok(true) => {}
            Ok(false) => return Turn::Idle,
            // That one was reset while it waited. The others are still there.
            Err(e) if e == ECONNABORTED || e == EPROTO => {}
            Err(_) => return Turn::Later,
        }
        thread::cond_resched();
    }
    Turn::More
}

/// Whether there is a socket to accept from.
enum ListenState<U: User> {
    Listens(ListeningSocket<Listener<U>>),
    /// Somebody has destroyed the socket, and no other could be opened yet.
    Lost,
    /// Nobody listens there any more.
    Closed,
}

/// A listening socket, for all interface instances of a namespace that have its address.
#[pin_data]
pub(crate) struct Listener<U: User> {
    acceptor: Arc<Acceptor<U>>,
    net: Net,
    addr: IpAddr,
    /// Who listens, oldest first.
    #[pin]
    users: SpinLock<KVec<Arc<U>>>,
    #[pin]
    state: Mutex<ListenState<U>>,
    /// INVARIANT: Only ever used for the acceptor's mailbox.
    #[pin]
    links: ListLinks<LISTENER_LIST>,
    #[pin]
    tracker: AtomicTracker<LISTENER_LIST>,
    /// INVARIANT: Only ever used for the acceptor's mailbox of those that are tried again.
    #[pin]
    again_links: ListLinks<AGAIN_LIST>,
    #[pin]
    again_tracker: AtomicTracker<AGAIN_LIST>,
}

impl_list_arc_safe! {
    impl{U: User} ListArcSafe<LISTENER_LIST> for Listener<U> { tracked_by tracker: AtomicTracker<LISTENER_LIST>; }
    impl{U: User} ListArcSafe<AGAIN_LIST> for Listener<U> { tracked_by again_tracker: AtomicTracker<AGAIN_LIST>; }
}
impl_list_item! {
    impl{U: User} ListItem<LISTENER_LIST> for Listener<U> { using ListLinks { self.links }; }
    impl{U: User} ListItem<AGAIN_LIST> for Listener<U> { using ListLinks { self.again_links }; }
}

impl<U: User> Listener<U> {
    /// Listens on an address of `ni`. For [`Acceptor::listen`], whose errors it has. May sleep.
    fn new(acceptor: &Arc<Acceptor<U>>, ni: &Arc<U>, addr: IpAddr) -> Result<Arc<Self>> {
        let mut users = KVec::with_capacity(1, GFP_KERNEL)?;
        users.push(ni.clone(), GFP_KERNEL)?;
        let this = Arc::pin_init(
            pin_init!(Self {
                acceptor: acceptor.clone(),
                net: ni.net().clone(),
                addr,
                users <- new_spinlock!(users, "socklnd_listener_users"),
                state <- new_mutex!(ListenState::Closed, "socklnd_listener"),
                links <- ListLinks::new(),
                tracker <- AtomicTracker::new(),
                again_links <- ListLinks::new(),
                again_tracker <- AtomicTracker::new(),
            }),
            GFP_KERNEL,
        )?;
        let socket = this.open()?;
        *this.state.lock() = ListenState::Listens(socket);
        // Who was faster than the line above left an event that found no socket.
        acceptor.mailbox.post(this.clone());
        Ok(this)
    }

    /// A socket that listens. For [`Acceptor::listen`], whose errors it has. May sleep.
    fn open(self: &Arc<Self>) -> Result<ListeningSocket<Self>> {
        // Sockets can also be bound to addresses of broadcast, and to any if a sysctl says so.
        if !inetaddr::is_local(&self.net, self.addr) {
            return Err(EADDRNOTAVAIL);
        }
        let socket = Socket::new_tcp(&self.net, self.addr.is_ipv6())?;
        // Inherited by the connections. Buffers have to be set here: the window scale is settled
        // before a connection is accepted.
        socket.set_kernel_defaults();
        set_inherited(&socket);
        // Connections of an earlier listener may still be in TIME_WAIT.
        socket.set_reuseaddr(true);
        socket.bind(&SocketAddr::new(self.addr, tunables::port()))?;
        ListeningSocket::new(socket, tunables::backlog(), self.clone())
    }

    /// Sees that there is a socket to accept from, if anybody listens: who is privileged in the namespace
    /// can destroy any (`ss --kill`), which wakes as an arrival does. May sleep.
    ///
    /// # Errors
    ///
    /// Those of [`Listener::open`]: it is lost for now.
    fn reopen_if_lost(self: &Arc<Self>, state: &mut ListenState<U>) -> Result {
        let was_open = match state {
            ListenState::Listens(socket) if socket.state() == TcpState::Listen => return Ok(()),
            ListenState::Listens(_) => true,
            ListenState::Lost => false,
            ListenState::Closed => return Ok(()),
        };
        // The old socket goes first.
        *state = ListenState::Lost;
        let opened = self.open();
        match &opened {
            Ok(_) => pr_warn_ratelimited!(
                "{:?}: somebody has destroyed the listening socket: listens on another\n",
                self.addr
            ),
            Err(e) if was_open => pr_warn_ratelimited!(
                "{:?}: somebody has destroyed the listening socket, and there can't be another yet: {e:?}\n",
                self.addr
            ),
            Err(_) => {}
        }
        *state = ListenState::Listens(opened?);
        Ok(())
    }

    /// The address that it listens on.
    pub(crate) fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The first one that listens here and matches. Thread context.
    pub(crate) fn find_user(&self, matching: impl Fn(&U) -> bool) -> Option<Arc<U>> {
        let users = self.users.lock();
        users.iter().find(|ni| matching(ni)).cloned()
    }

    /// Brings what connections inherit up to date. May sleep.
    pub(crate) fn apply_tunables(&self) {
        if let ListenState::Listens(socket) = &*self.state.lock() {
            set_inherited(socket);
        }
    }

    /// Stops listening. Thread context, may sleep.
    fn close(&self) {
        let old = core::mem::replace(&mut *self.state.lock(), ListenState::Closed);
        drop(old);
    }

    /// Accepts some of the connections that are there.
    fn turn(self: &Arc<Self>) -> Turn {
        take_turn(|| {
            let accepted = {
                let mut state = self.state.lock();
                self.reopen_if_lost(&mut state)?;
                match &*state {
                    ListenState::Listens(_) if fault::accept_fails() => Err(ENOMEM),
                    ListenState::Listens(socket) => socket.accept(),
                    ListenState::Lost | ListenState::Closed => return Ok(false),
                }
            };
            match accepted {
                Ok(Some(Accepted::Socket(socket))) => self.take(socket),
                Ok(Some(Accepted::Owned { by, remote })) => self.refuse(by, remote),
                Ok(None) => return Ok(false),
                Err(e) => {
                    pr_warn_ratelimited!("{:?}: cannot accept: {e:?}\n", self.addr);
                    return Err(e);
                }
            }
            Ok(true)
        })
    }

    /// A connection is useless, because somebody else in the kernel has its socket.
    fn refuse(&self, by: Owner, remote: Option<SocketAddr>) {
        if let Some(ni) = self.find_user(|_| true) {
            ni.count_refused();
        }
        let (addr, port) = (self.addr, tunables::port());
        match remote {
            Some(remote) => pr_warn_about!(
                remote.ip(),
                "{addr:?}: refused the connection from {remote:?}: {by} has taken its socket, and must leave out TCP port {port}\n"
            ),
            None => pr_warn_ratelimited!(
                "{addr:?}: refused a connection: {by} has taken its socket, and must leave out TCP port {port}\n"
            ),
        }
    }

    /// Begins the handshake with whoever connected. Before it says for whom the connection is, it is
    /// the oldest one's.
    fn take(self: &Arc<Self>, socket: Socket) {
        let Some(ni) = self.find_user(|_| true) else {
            return;
        };
        // An error means that the connection is gone already.
        let Ok(remote) = socket.peer_addr() else {
            ni.count_refused();
            return;
        };
        let refused = match tunables::acceptance() {
            Acceptance::All => false,
            Acceptance::Secure => remote.port() >= FIRST_UNPRIVILEGED_PORT,
            Acceptance::Nobody => true,
        };
        if refused {
            ni.count_refused();
            let addr = self.addr;
            pr_warn_about!(
                remote.ip(),
                "{addr:?}: refused a connection from {remote:?}: its port (see the parameter 'accept')\n"
            );
            return;
        }
        if let Err(e) = ni.accepted(self, socket, remote) {
            ni.count_refused();
            if e != ESHUTDOWN {
                let addr = self.addr;
                pr_warn_about!(
                    remote.ip(),
                    "{addr:?}: refused a connection from {remote:?}: {e:?}\n"
                );
            }
        }
    }
}

/// Sets what connections have before they are accepted. May sleep.
fn set_inherited(socket: &Socket) {
    let (tx, rx) = tunables::buffer_sizes();
    socket.set_buffers(tx, rx);
    if let Some(tos) = tunables::type_of_service() {
        socket.set_tos(tos);
    }
}

impl<U: User> Arrivals for Listener<U> {
    fn arrived(this: ArcBorrow<'_, Self>) {
        this.acceptor.mailbox.post(this.into());
    }
}

#[kunit_tests(socklnd_acceptor)]
mod tests {
    use super::*;

    /// What comes of a turn in which `accept` says these, and then that nothing is left; and how
    /// often it was asked.
    fn turn(says: &[Result<bool>]) -> (Turn, usize) {
        let mut asked = 0;
        let mut says = says.iter().copied();
        let turn = take_turn(|| {
            asked += 1;
            says.next().unwrap_or(Ok(false))
        });
        (turn, asked)
    }

    #[test]
    fn a_turn_is_bounded() {
        assert_eq!(turn(&[Ok(true); 10 * TURN]), (Turn::More, TURN));
        assert_eq!(turn(&[Err(ECONNABORTED); 10 * TURN]), (Turn::More, TURN));
        assert_eq!(turn(&[Ok(true), Ok(true)]), (Turn::Idle, 3));
        assert_eq!(turn(&[]), (Turn::Idle, 1));
    }

    #[test]
    fn what_concerns_one_connection_is_passed_over() {
        let says = [Err(EPROTO), Ok(true), Err(ECONNABORTED), Ok(true)];
        assert_eq!(turn(&says), (Turn::Idle, 5));
    }

    #[test]
    fn what_concerns_the_machine_is_tried_again() {
        for e in [ENOMEM, ENFILE, ENOBUFS, EPERM, EADDRINUSE] {
            assert_eq!(turn(&[Ok(true), Err(e), Ok(true)]), (Turn::Later, 2));
        }
    }
}
