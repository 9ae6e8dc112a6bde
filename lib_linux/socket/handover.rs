// SPDX-License-Identifier: GPL-2.0

//! Sockets that programs hand over.
//!
//! TCP holds a socket's lock while it copies to or from a program's memory, which can take any time: so
//! a thread that must not wait can't use a socket as long as a program has its file, or is in a system
//! call on it. A [`Handover`] holds one reference to the file, and does nothing that needs the socket's
//! lock. When all other references are dropped, [`Handover::take`] moves the connection to a new socket,
//! which is like any other from then on. Until then the connection is unchanged, and dropping the
//! [`Handover`] leaves it to the programs that have the file.
//!
//! There is no event for the close of a file, so the owner of a [`Handover`] has to poll.
//!
//! The file's reference count says whether there are other references. `sk_callback_lock` protects the
//! claim on the socket, which keeps other parts of the kernel from claiming it meanwhile.

use super::{
    super::{
        netns::{
            Net,
            NetUser, //
        },
        sys, //
    },
    addr::RawAddr,
    Origin,
    Socket,
    TcpState, //
};
use core::{
    mem::ManuallyDrop,
    net::SocketAddr,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

/// A reference to the file of a socket.
///
/// # Invariants
///
/// The reference is ours, and the file is that of a `struct socket`.
struct SocketFile(NonNull<bindings::socket>);

impl SocketFile {
    /// The socket behind a file descriptor of the current process. Thread context.
    fn get(fd: c_int) -> Result<Self> {
        let mut err = 0;
        // SAFETY: `err` may be written to.
        let sock = unsafe { bindings::sockfd_lookup(fd, &mut err) };
        match NonNull::new(sock) {
            // INVARIANT: The function has taken the reference.
            Some(sock) => Ok(Self(sock)),
            None => Err(to_result(err).err().unwrap_or(EBADF)),
        }
    }

    fn sock(&self) -> *mut bindings::socket {
        self.0.as_ptr()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours.
        unsafe { sys::socklnd_helper_sockfd_put(self.sock()) };
    }
}

/// A connected TCP socket that a program is handing over. Dropping it leaves the socket to the programs
/// that have its file, or aborts the connection if there are none; may sleep.
///
/// # Invariants
///
/// - `sk` is the `struct sock` of `file`'s socket, a TCP socket in the namespace of `net`.
/// - The socket is claimed.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::netns::Net;
///
/// /// Takes over the connection of a file descriptor, if only this process has the socket.
/// fn take(fd: c_int) -> Result<Option<Socket>> {
///     let handover = Handover::from_fd(fd, &Net::current())?;
///     kernel::pr_info!("connected: {}\n", handover.peer_addr().is_ok());
///     match handover.take()? {
///         Taken::Socket(socket) => Ok(Some(socket)),
///         Taken::NotYet(_handover) => Ok(None),
///     }
/// }
///
/// assert_eq!(take(-1).err(), Some(EBADF));
/// ```
pub(crate) struct Handover {
    file: ManuallyDrop<SocketFile>,
    sk: NonNull<bindings::sock>,
    net: NetUser,
}

// SAFETY: The file may be used, and released, by any thread.
unsafe impl Send for Handover {}

// SAFETY: The only method that takes a shared reference reads fields that don't change.
unsafe impl Sync for Handover {}

/// The result of [`Handover::take`].
///
/// # Examples
///
/// ```
/// use crate::lib_linux::netns::Net;
///
/// /// The state of a hand-over, of which a program waits for the end.
/// fn is_taken(handover: Handover) -> Result<bool> {
///     Ok(matches!(handover.take()?, Taken::Socket(_)))
/// }
///
/// // A file descriptor that does not exist.
/// assert!(Handover::from_fd(-1, &Net::current()).and_then(is_taken).is_err());
/// ```
pub(crate) enum Taken {
    /// It is ours.
    Socket(Socket),
    /// Another process, or thread, still has its file: try again later.
    NotYet(Handover),
}

impl Handover {
    /// Begins to take over the connected socket behind a file descriptor of the current process, which
    /// must be of `net`. Does not wait for the socket's lock. May sleep.
    ///
    /// # Errors
    ///
    /// - `EBADF`, `ENOTSOCK`: there is no such descriptor, or it is no socket.
    /// - `EPROTONOSUPPORT`: it is not TCP.
    /// - `EXDEV`: it is of another namespace.
    /// - `ENOTCONN`: it is not connected, or not both ways any more.
    /// - `EBUSY`: another part of the kernel has claimed it, or it is being handed over already.
    /// - `ENETDOWN`, `ESHUTDOWN`: as for [`Socket::new_tcp`].
    pub(crate) fn from_fd(fd: c_int, net: &Net) -> Result<Self> {
        let file = SocketFile::get(fd)?;
        let net = NetUser::new(net)?;
        // SAFETY: The socket is valid as long as we have its file.
        let sk = unsafe { sys::socklnd_helper_sock_sk(file.sock()) };
        // A socket has none only while it is being closed, which our reference prevents.
        let sk = NonNull::new(sk).ok_or(ENOTCONN)?;
        // SAFETY: The socket is valid.
        if !unsafe { sys::socklnd_helper_sk_is_tcp(sk.as_ptr()) } {
            return Err(EPROTONOSUPPORT);
        }
        // SAFETY: The socket is valid, and so is the namespace.
        if !unsafe { sys::socklnd_helper_sk_in_net(sk.as_ptr(), net.net().as_ptr()) } {
            return Err(EXDEV);
        }
        // SAFETY: The socket is valid.
        if unsafe { TcpState::of(sk.as_ptr()) } != TcpState::Established {
            return Err(ENOTCONN);
        }
        // SAFETY: The socket is valid.
        if unsafe { sys::socklnd_helper_sk_claim(sk.as_ptr()) } != 0 {
            return Err(EBUSY);
        }
        // INVARIANT: Checked and claimed above.
        Ok(Self {
            file: ManuallyDrop::new(file),
            sk,
            net,
        })
    }

    /// The other side's address and port. Any context.
    pub(crate) fn peer_addr(&self) -> Result<SocketAddr> {
        let mut addr = RawAddr::empty();
        // SAFETY: By the type invariants this is a TCP socket; there is room for an address of any
        // family.
        unsafe { sys::socklnd_helper_sk_peername(self.sk.as_ptr(), addr.as_mut_ptr().cast()) };
        addr.parse()
    }

    /// Takes the socket, if there is no other reference to its file, and resets those options of the
    /// program's that would hold data back. May sleep, but not for long.
    ///
    /// # Errors
    ///
    /// - `ENOTCONN`: it is not connected any more.
    /// - `EBUSY`: the program has attached something to it, such as TLS, or has it in repair mode.
    /// - `ENOMEM`.
    pub(crate) fn take(self) -> Result<Taken> {
        // SAFETY: By the type invariants we have a reference to the socket's file.
        if !unsafe { sys::socklnd_helper_sock_is_unshared(self.file.sock()) } {
            return Ok(Taken::NotYet(self));
        }
        let mut sock = ptr::null_mut();
        // SAFETY: The socket is valid, and has a connection; `sock` may be written to.
        to_result(unsafe { sys::socklnd_helper_sock_create_like(self.file.sock(), &mut sock) })?;
        // SAFETY: By the type invariants this is a claimed TCP socket. We have the only reference to its
        // file, so nobody else uses the socket or can begin to; and `sock` is a new one of the same kind.
        let moved = unsafe { sys::socklnd_helper_sock_take(self.file.sock(), sock) };
        if let Err(e) = to_result(moved) {
            // SAFETY: The new socket is ours alone.
            unsafe { bindings::sock_release(sock) };
            return Err(e);
        }
        // Its `drop` must not run: the connection has moved from the file to `sock`.
        let mut this = ManuallyDrop::new(self);
        // SAFETY: The field is not used after this.
        unsafe { ManuallyDrop::drop(&mut this.file) };
        // SAFETY: The field is not used after this.
        let net = unsafe { ptr::read(&this.net) };
        // SAFETY: `sock` belongs to us alone, has a connection, is claimed, in the namespace of `net`, and
        // a program's sockets are counting references to theirs.
        unsafe { Socket::from_claimed(sock, net, Origin::Program) }.map(Taken::Socket)
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the socket is valid.
        unsafe { sys::socklnd_helper_sk_disclaim(self.sk.as_ptr()) };
        // SAFETY: By the type invariants the reference is ours; if it is given up, it is not used after
        // this.
        if unsafe { sys::socklnd_helper_sock_put_unless_last(self.file.sock()) } {
            return;
        }
        // This is the last reference, so nobody holds the lock. The kernel closes other files after
        // this one in the same thread, so it must not linger.
        // SAFETY: The socket is valid; the function takes the lock.
        unsafe { sys::sock_no_linger(self.sk.as_ptr()) };
        // SAFETY: The field is not used after this.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}
