// SPDX-License-Identifier: GPL-2.0

//! The acceptor: takes connections that other nodes open.
//!
//! Each address of an interface instance is listened on, in the instance's network namespace. The
//! listeners' wait queues post them to one thread, which accepts what is there, turns away who may
//! not connect, and leaves the rest to the autoconnect daemons. It never reads from a connection.
//! A connection that somebody else in the kernel has taken, such as a BPF program, is turned away.
//!
//! A [`Listener`] is shared by [`Arc`] between its interface, its socket's wait queue and the
//! mailbox. Its socket is behind a mutex; closing it takes the socket out.

use crate::{
    conn::Handshake,
    lib_linux::{
        inetaddr,
        ratelimit::pr_warn_ratelimited,
        socket::{
            Accepted,
            Arrivals,
            ListeningSocket,
            Owner,
            Socket, //
        },
        thread::{
            self,
            KThread, //
        },
    },
    mailbox::{
        Mail,
        Mailbox, //
    },
    ni::Ni,
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
        Arc,
        ArcBorrow,
        Mutex, //
    }, //
};

/// Which list of a listener is the acceptor's.
pub(crate) const LISTENER_LIST: u64 = 6;

/// The lowest port that any program may connect from.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// The acceptor's queue.
#[pin_data]
pub(crate) struct Acceptor {
    #[pin]
    mailbox: Mailbox<Listener, LISTENER_LIST>,
}

impl Acceptor {
    /// A queue without its thread. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                mailbox <- Mailbox::new(),
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

    fn run(this: Arc<Self>) {
        loop {
            match this.mailbox.take(None) {
                Mail::Object(listener) => listener.accept_all(),
                Mail::Tick => {}
                Mail::Stop => return,
            }
        }
    }
}

/// A listening socket of an interface.
#[pin_data]
pub(crate) struct Listener {
    ni: Arc<Ni>,
    #[pin]
    socket: Mutex<Option<ListeningSocket<Listener>>>,
    /// INVARIANT: Only ever used for the acceptor's mailbox.
    #[pin]
    links: ListLinks<LISTENER_LIST>,
    #[pin]
    tracker: AtomicTracker<LISTENER_LIST>,
}

impl_list_arc_safe! {
    impl ListArcSafe<6> for Listener { tracked_by tracker: AtomicTracker<6>; }
}
impl_list_item! {
    impl ListItem<6> for Listener { using ListLinks { self.links }; }
}

impl Listener {
    /// Listens on an address of `ni`. May sleep.
    ///
    /// # Errors
    ///
    /// `EADDRNOTAVAIL` if the address is no host's, or not local to the namespace; `EADDRINUSE` if
    /// somebody else listens there.
    pub(crate) fn new(ni: &Arc<Ni>, addr: IpAddr) -> Result<Arc<Self>> {
        // Sockets can also be bound to addresses of broadcast, and to any if a sysctl says so.
        if !inetaddr::is_local(ni.net(), addr) {
            return Err(EADDRNOTAVAIL);
        }
        let socket = Socket::new_tcp(ni.net(), addr.is_ipv6())?;
        // Inherited by the connections. Buffers have to be set here: the window scale is settled
        // before a connection is accepted.
        socket.set_kernel_defaults();
        set_inherited(&socket);
        // Connections of an earlier listener may still be in TIME_WAIT.
        socket.set_reuseaddr(true);
        socket.bind(&SocketAddr::new(addr, tunables::port()))?;
        let this = Arc::pin_init(
            pin_init!(Self {
                ni: ni.clone(),
                socket <- new_mutex!(None, "socklnd_listener"),
                links <- ListLinks::new(),
                tracker <- AtomicTracker::new(),
            }),
            GFP_KERNEL,
        )?;
        let listening = ListeningSocket::new(socket, tunables::backlog(), this.clone())?;
        *this.socket.lock() = Some(listening);
        // Who was faster than the line above left an event that found no socket.
        ni.lnd().acceptor().mailbox.post(this.clone());
        Ok(this)
    }

    /// Brings what connections inherit up to date. May sleep.
    pub(crate) fn apply_tunables(&self) {
        if let Some(socket) = self.socket.lock().as_ref() {
            set_inherited(socket);
        }
    }

    /// Stops listening. Thread context, may sleep.
    pub(crate) fn close(&self) {
        let socket = self.socket.lock().take();
        drop(socket);
    }

    /// Accepts all connections that are there.
    fn accept_all(&self) {
        loop {
            let accepted = match self.socket.lock().as_ref() {
                Some(socket) => socket.accept(),
                None => return,
            };
            match accepted {
                Ok(Some(Accepted::Socket(socket))) => self.take(socket),
                Ok(Some(Accepted::Owned { by, remote })) => self.refuse(by, remote),
                Ok(None) => return,
                Err(e) => {
                    // It was reset while it waited, or there is no memory. The others are still
                    // there, and so is this loop's work: a new connection posts the listener anew.
                    pr_warn_ratelimited!("{}: cannot accept: {e:?}\n", self.ni.nid());
                    if e != ECONNABORTED {
                        return;
                    }
                }
            }
            thread::cond_resched();
        }
    }

    /// A connection is useless, because somebody else in the kernel has its socket.
    fn refuse(&self, by: Owner, remote: Option<SocketAddr>) {
        self.ni.events().bad_handshakes.add(1);
        let nid = self.ni.nid();
        let port = tunables::port();
        match remote {
            Some(remote) => pr_warn_ratelimited!(
                "{nid}: refused the connection from {remote:?}: {by} has taken its socket, and must leave out TCP port {port}\n"
            ),
            None => pr_warn_ratelimited!(
                "{nid}: refused a connection: {by} has taken its socket, and must leave out TCP port {port}\n"
            ),
        }
    }

    /// Begins the handshake with whoever connected.
    fn take(&self, socket: Socket) {
        // An error means that the connection is gone already.
        let Ok(remote) = socket.peer_addr() else {
            self.ni.events().bad_handshakes.add(1);
            return;
        };
        let refused = match tunables::acceptance() {
            Acceptance::All => false,
            Acceptance::Secure => remote.port() >= FIRST_UNPRIVILEGED_PORT,
            Acceptance::Nobody => true,
        };
        if refused {
            self.ni.events().bad_handshakes.add(1);
            pr_warn_ratelimited!(
                "{}: refused a connection from port {}: see the parameter 'accept'\n",
                self.ni.nid(),
                remote.port()
            );
            return;
        }
        if Handshake::accepted(&self.ni, socket, remote).is_err() {
            self.ni.events().bad_handshakes.add(1);
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

impl Arrivals for Listener {
    fn arrived(this: ArcBorrow<'_, Self>) {
        let acceptor = this.ni.lnd().acceptor();
        acceptor.mailbox.post(this.into());
    }
}
