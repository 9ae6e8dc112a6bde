// SPDX-License-Identifier: GPL-2.0

//! The acceptor: accepts connections that other nodes open.
//!
//! It listens on each address of an NI, in the NI's network namespace. NIs with the same address share a
//! listener, because the handshake says which NI a connection is for. The wait queues of the listening sockets
//! post the listeners to one thread. It accepts connections, closes those that are not allowed, and passes the
//! others to the autoconnect daemons. It never reads from a connection. A connection whose socket another part
//! of the kernel has taken, such as a BPF program, is refused.
//!
//! The listeners take turns, each of a limited number of connections. A listener that could not accept, for
//! example without memory, is retried after a pause, because no event reports that it can accept again. If
//! something has destroyed its socket, it opens another, and is retried like that until it can.
//!
//! A [`Listener`] is in the acceptor's list, behind a mutex, from when the first NI listens until the last one
//! stops. It is shared by [`Arc`] with the NIs' interfaces, with handshakes, its socket's wait queue and the
//! mailboxes. Its socket is behind a mutex of its own, and closing it takes the socket out. A spinlock protects
//! the list of NIs that listen.

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
            Family,
            ListeningSocket,
            Owner,
            Socket,
            TcpState, //
        },
        thread::{
            self,
            KThread, //
        }, //
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
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// The ID of a listener's links in the acceptor's mailbox.
pub(crate) const LISTENER_LIST: u64 = 6;

/// The ID of a listener's links in the acceptor's list of listeners to retry.
pub(crate) const RETRY_LIST: u64 = 9;

/// The most connections that a listener accepts in one turn.
const TURN: usize = 16;

/// The pause before a listener that could not accept is retried.
const RETRY_PAUSE: Delta = Delta::from_millis(100);

/// The lowest port that an unprivileged program can connect from.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// The user of a listener: an NI, as far as the acceptor needs to know it.
pub(crate) trait User: Send + Sync + Sized + 'static {
    /// The network namespace that it is in.
    fn net(&self) -> &Net;

    /// Counts a refused connection. Any context.
    fn count_refused(&self);

    /// Takes a connection from `remote` that was accepted by `listener`. May sleep.
    ///
    /// # Errors
    ///
    /// The handshake could not begin: the connection is closed, and the caller counts it.
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
    /// Held while an NI begins or stops to listen.
    #[pin]
    listeners: Mutex<KVec<Arc<Listener<U>>>>,
    #[pin]
    mailbox: Mailbox<Listener<U>, LISTENER_LIST>,
    /// Listeners that are retried after a pause.
    #[pin]
    retry: Mailbox<Listener<U>, RETRY_LIST>,
}

/// How a listener's turn ended.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing is left to accept until the next event.
    Idle,
    /// There may be more.
    More,
    /// Connections can't be accepted now, and no event will report when they can.
    Later,
}

impl<U: User> Acceptor<U> {
    /// An acceptor whose thread is not started. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                listeners <- new_mutex!(KVec::new(), "socklnd_listeners"),
                mailbox <- Mailbox::new(),
                retry <- Mailbox::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts the thread. Dropping it joins it: call [`Acceptor::stop`] before. May sleep.
    pub(crate) fn start(self: &Arc<Self>) -> Result<KThread> {
        KThread::spawn(c"socklnd_acc", None, self.clone(), Self::run)
    }

    /// Makes the thread end. Any context.
    pub(crate) fn stop(&self) {
        self.mailbox.stop();
    }

    /// Makes `ni` listen on this port of `addr`, until [`Acceptor::stop_listening`]. May sleep.
    ///
    /// # Errors
    ///
    /// `EADDRNOTAVAIL` if the address is not a unicast address of the namespace; `EADDRINUSE` if a program
    /// listens there; `ENOMEM`.
    pub(crate) fn listen(
        self: &Arc<Self>,
        ni: &Arc<U>,
        addr: IpAddr,
        port: u16,
    ) -> Result<Arc<Listener<U>>> {
        let mut listeners = self.listeners.lock();
        let is_there =
            |l: &&Arc<Listener<U>>| l.net == *ni.net() && l.addr == addr && l.port == port;
        if let Some(listener) = listeners.iter().find(is_there) {
            listener.users.lock().push(ni.clone(), GFP_ATOMIC)?;
            return Ok(listener.clone());
        }
        listeners.reserve(1, GFP_KERNEL)?;
        let listener = Listener::new(self, ni, addr, port)?;
        // There is room: it was reserved.
        let _ = listeners.push_within_capacity(listener.clone());
        Ok(listener)
    }

    /// Ends that `ni` listens at `listener`, whose socket is closed with the last NI. May sleep.
    pub(crate) fn stop_listening(&self, listener: &Arc<Listener<U>>, ni: &U) {
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
            // Before the mutex is unlocked, so that another NI can listen there then.
            listener.close();
        }
        drop(listeners);
        drop(left);
    }

    fn run(this: Arc<Self>) {
        // When listeners are retried that could not accept.
        let mut retry_at: Option<Instant<Monotonic>> = None;
        loop {
            let wait = retry_at.map(|at| (at - Instant::now()).as_millis_ceil());
            // It is negative if the time has come already.
            match this
                .mailbox
                .take(wait.map(|ms| u32::try_from(ms).unwrap_or(0)))
            {
                Mail::Object(listener) => this.serve(listener),
                Mail::Tick => {}
                Mail::Stop => break,
            }
            let now = Instant::now();
            if retry_at.is_some_and(|at| !(now - at).is_negative()) {
                for listener in this.retry.drain() {
                    this.serve(listener);
                }
                retry_at = None;
            }
            if retry_at.is_none() && !this.retry.is_empty() {
                retry_at = Some(now + RETRY_PAUSE);
            }
        }
        // They are closed, and hold references to the acceptor.
        this.retry.drain().for_each(drop);
    }

    /// Gives `listener` a turn.
    fn serve(&self, listener: Arc<Listener<U>>) {
        match listener.accept_some() {
            Turn::Idle => {}
            // Behind the others.
            Turn::More => {
                self.mailbox.post(listener);
            }
            Turn::Later => {
                self.retry.post(listener);
            }
        }
    }
}

/// One turn of `accept`, which returns whether there was a connection. May sleep, if that does.
fn take_turn(mut accept: impl FnMut() -> Result<bool>) -> Turn {
    for _ in 0..TURN {
        match accept() {
            Ok(true) => {}
            Ok(false) => return Turn::Idle,
            // This connection was reset before it was accepted. There may be others.
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
    /// The socket was destroyed, and no other could be opened yet.
    Lost,
    /// No NI listens there any more.
    Closed,
}

/// A listening socket, for all NIs of a namespace that have its address.
#[pin_data]
pub(crate) struct Listener<U: User> {
    acceptor: Arc<Acceptor<U>>,
    net: Net,
    addr: IpAddr,
    port: u16,
    /// The NIs that listen, oldest first.
    #[pin]
    users: SpinLock<KVec<Arc<U>>>,
    #[pin]
    state: Mutex<ListenState<U>>,
    /// INVARIANT: Only ever used for the acceptor's mailbox.
    #[pin]
    links: ListLinks<LISTENER_LIST>,
    #[pin]
    tracker: AtomicTracker<LISTENER_LIST>,
    /// INVARIANT: Only ever used for the acceptor's list of listeners to retry.
    #[pin]
    retry_links: ListLinks<RETRY_LIST>,
    #[pin]
    retry_tracker: AtomicTracker<RETRY_LIST>,
}

impl_list_arc_safe! {
    impl{U: User} ListArcSafe<LISTENER_LIST> for Listener<U> { tracked_by tracker: AtomicTracker<LISTENER_LIST>; }
    impl{U: User} ListArcSafe<RETRY_LIST> for Listener<U> { tracked_by retry_tracker: AtomicTracker<RETRY_LIST>; }
}
impl_list_item! {
    impl{U: User} ListItem<LISTENER_LIST> for Listener<U> { using ListLinks { self.links }; }
    impl{U: User} ListItem<RETRY_LIST> for Listener<U> { using ListLinks { self.retry_links }; }
}

impl<U: User> Listener<U> {
    /// Listens on an address of `ni`. For [`Acceptor::listen`], whose errors it returns. May sleep.
    fn new(acceptor: &Arc<Acceptor<U>>, ni: &Arc<U>, addr: IpAddr, port: u16) -> Result<Arc<Self>> {
        let mut users = KVec::with_capacity(1, GFP_KERNEL)?;
        users.push(ni.clone(), GFP_KERNEL)?;
        let this = Arc::pin_init(
            pin_init!(Self {
                acceptor: acceptor.clone(),
                net: ni.net().clone(),
                addr,
                port,
                users <- new_spinlock!(users, "socklnd_listener_users"),
                state <- new_mutex!(ListenState::Closed, "socklnd_listener"),
                links <- ListLinks::new(),
                tracker <- AtomicTracker::new(),
                retry_links <- ListLinks::new(),
                retry_tracker <- AtomicTracker::new(),
            }),
            GFP_KERNEL,
        )?;
        let socket = this.open()?;
        *this.state.lock() = ListenState::Listens(socket);
        // An event may have come before the socket was stored: accept once more.
        acceptor.mailbox.post(this.clone());
        Ok(this)
    }

    /// Opens a listening socket. For [`Acceptor::listen`], whose errors it returns. May sleep.
    fn open(self: &Arc<Self>) -> Result<ListeningSocket<Self>> {
        // A socket could also be bound to a broadcast address, or with a sysctl to any address.
        if !inetaddr::is_local(&self.net, self.addr) {
            return Err(EADDRNOTAVAIL);
        }
        let socket = Socket::new_tcp(&self.net, Family::of(self.addr))?;
        // Connections inherit these. Buffer sizes have to be set here, because the window scale is fixed
        // before a connection is accepted.
        socket.set_kernel_defaults();
        set_inherited(&socket);
        // Connections of an earlier listener may still be in TIME_WAIT.
        socket.set_reuseaddr(true);
        socket.bind(&SocketAddr::new(self.addr, self.port))?;
        ListeningSocket::new(socket, tunables::backlog(), self.clone())
    }

    /// Opens another socket if the listening one was destroyed: a program with privileges in the namespace can
    /// do that (`ss --kill`), which wakes the listener like a new connection. May sleep.
    ///
    /// # Errors
    ///
    /// Those of [`Listener::open`]: there is no socket for now.
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
                "{:?}: the listening socket was destroyed: opened another\n",
                self.addr
            ),
            Err(e) if was_open => pr_warn_ratelimited!(
                "{:?}: the listening socket was destroyed, and opening another failed: {e:?}\n",
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

    /// The first NI that listens here and matches. Thread context.
    pub(crate) fn find_user(&self, matching: impl Fn(&U) -> bool) -> Option<Arc<U>> {
        let users = self.users.lock();
        users.iter().find(|ni| matching(ni)).cloned()
    }

    /// Applies the tunables that connections inherit. May sleep.
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

    /// One turn: accepts a limited number of connections.
    fn accept_some(self: &Arc<Self>) -> Turn {
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
                Ok(Some(Accepted::Socket(socket))) => self.start_handshake(socket),
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

    /// Counts and logs a connection whose socket another part of the kernel has taken.
    fn refuse(&self, by: Owner, remote: Option<SocketAddr>) {
        if let Some(ni) = self.find_user(|_| true) {
            ni.count_refused();
        }
        let (addr, port) = (self.addr, self.port);
        match remote {
            Some(remote) => pr_warn_about!(
                remote.ip(),
                "{addr:?}: refused the connection from {remote:?}: its socket was taken by {by}, which must exclude TCP port {port}\n"
            ),
            None => pr_warn_ratelimited!(
                "{addr:?}: refused a connection: its socket was taken by {by}, which must exclude TCP port {port}\n"
            ),
        }
    }

    /// Begins the handshake of a connection. Until it is known which NI it is for, it belongs to the oldest.
    fn start_handshake(self: &Arc<Self>, socket: Socket) {
        let Some(ni) = self.find_user(|_| true) else {
            return;
        };
        // An error means that the connection has ended already.
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

/// Sets the tunables that connections have before they are accepted. May sleep.
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

    /// The result of a turn in which `accept` returns these, and then that nothing is left; and how often it
    /// was called.
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
