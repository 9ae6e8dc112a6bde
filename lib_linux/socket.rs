// SPDX-License-Identifier: GPL-2.0

//! TCP sockets of the kernel's own.
//!
//! A [`Socket`] owns a `struct socket`, and releases it when it is dropped. TCP protects the socket
//! by its own lock, which the methods take where it is needed, so a [`Socket`] may be shared
//! between threads. No method waits for the network; some wait for the socket's lock ("may sleep"),
//! which is never held for long, because no program can use the socket.
//!
//! Other parts of the kernel can: a BPF program may add any socket to a sockmap when its connection is
//! established. So each socket is claimed, by its `sk_user_data`, before anything else is done with
//! it, and until it is released; a socket that is claimed already is refused, see [`Owner`].
//!
//! A socket that was made here holds a passive reference to its network namespace, so that sockets
//! don't keep a namespace alive. One that a program has handed over, by a [`Handover`], holds a
//! counting reference. In both cases the end of the namespace waits for the socket, see [`NetUser`].
//!
//! [`HookedSocket`] adds callbacks, see [`SocketEvents`], and [`ListeningSocket`] tells of
//! connections to accept; a [`ZcUbuf`] is for sending pages without copying them.
//!
//! C headers: [`include/linux/net.h`](srctree/include/linux/net.h),
//! [`include/net/sock.h`](srctree/include/net/sock.h)

mod addr;
mod handover;
mod hook;
mod listening;
mod message;
mod options;
mod owner;
mod state;
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod tests;
mod zerocopy;

pub(crate) use self::handover::{
    Handover,
    Taken, //
};
pub(crate) use self::hook::{
    HookedSocket,
    SocketEvents, //
};
pub(crate) use self::listening::{
    Arrivals,
    ListeningSocket, //
};
pub(crate) use self::zerocopy::{
    ZcDone,
    ZcList,
    ZcOps,
    ZcUbuf, //
};

pub(crate) use self::{
    addr::{
        Family,
        RawAddr, //
    },
    message::More,
    owner::Owner,
    state::TcpState, //
};

use self::{
    hook::Hook,
    message::to_bytes, //
};
use super::{
    netns::{
        Net,
        NetUser, //
    },
    sys, //
};
use core::{
    mem::ManuallyDrop,
    net::SocketAddr,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

/// The result of [`Socket::accept`].
///
/// # Examples
///
/// ```
/// use crate::lib_linux::{netns::Net, socket::tests::{eventually, listener}};
///
/// let listener = listener(Family::Inet)?;
/// let client = Socket::new_tcp(&Net::current(), Family::Inet)?;
/// client.connect(&listener.local_addr()?)?;
/// match eventually(|| listener.accept().transpose())?? {
///     Accepted::Socket(server) => assert!(server.peer_addr()? == client.local_addr()?),
///     Accepted::Owned { by, .. } => pr_info!("a connection was taken by {}\n", by),
/// }
/// # Ok::<(), Error>(())
/// ```
pub(crate) enum Accepted {
    /// It is ours.
    Socket(Socket),
    /// Another part of the kernel has claimed the socket. The connection was aborted.
    Owned {
        /// Which part.
        by: Owner,
        /// The other side's address, if the connection was still there.
        remote: Option<SocketAddr>,
    },
}

/// Where a socket comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It was made here, or accepted by one that was.
    Kernel,
    /// A program has made it: it holds a counting reference to its network namespace, and its locks are
    /// of the classes of programs' sockets.
    Program,
}

/// How long TCP tries, without an answer from the other side, to deliver the remaining data of a
/// connection that was closed gracefully, in milliseconds.
const ORPHAN_MS: c_uint = 10_000;

/// A TCP socket. Dropping it aborts the connection, as [`Socket::abort`]; may sleep.
///
/// # Invariants
///
/// - `sock` is a TCP socket that belongs to this value alone, and `sk` its `struct sock`.
/// - The socket is claimed: its user data is what [`hook`] has put there.
/// - The socket is in the namespace that `net` is a user of, and does not count as a reference to it
///   unless `origin` says so.
/// - The socket's callbacks are TCP's own, which `hook` has recorded; in a [`HookedSocket`] they are
///   what its invariants say.
///
/// # Examples
///
/// ```
/// use core::net::{Ipv4Addr, SocketAddr};
/// use crate::lib_linux::{netns::Net, socket::tests::{eventually, listener}};
///
/// let listener = listener(Family::Inet)?;
/// let client = Socket::new_tcp(&Net::current(), Family::Inet)?;
/// client.set_kernel_defaults();
/// client.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
/// if !client.connect(&listener.local_addr()?)? {
///     eventually(|| client.is_established().then_some(()))?;
/// }
/// assert_eq!(client.send_bytes(b"hello")?, 5);
/// assert!(client.peer_addr()? == listener.local_addr()?);
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct Socket {
    sock: NonNull<bindings::socket>,
    sk: NonNull<bindings::sock>,
    hook: KBox<Hook>,
    origin: Origin,
    net: NetUser,
}

// SAFETY: A kernel socket may be used, and released, by any thread.
unsafe impl Send for Socket {}

// SAFETY: TCP serialises by means of the socket's lock what is done to a socket.
unsafe impl Sync for Socket {}

/// The lock of a socket.
///
/// # Invariants
///
/// The lock is held by the current thread.
struct LockGuard<'a>(&'a Socket);

impl LockGuard<'_> {
    /// The locked `struct sock`.
    fn sk(&self) -> *mut bindings::sock {
        self.0.sk()
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is held.
        unsafe { sys::release_sock(self.sk()) };
    }
}

/// Converts an `int` of C that is never negative, such as a number of bytes.
fn to_usize(value: c_int) -> usize {
    usize::try_from(value).unwrap_or(0)
}

impl Socket {
    /// Flags for sending: never wait, and no signal if the connection is gone.
    const SEND_FLAGS: u32 = bindings::MSG_DONTWAIT | bindings::MSG_NOSIGNAL;
    // CAST: Small constants.
    const RECV_FLAGS: c_int = bindings::MSG_DONTWAIT as c_int;
    const NONBLOCK: c_int = bindings::O_NONBLOCK as c_int;
    const ITER_SOURCE: c_uint = bindings::ITER_SOURCE;
    const ITER_DEST: c_uint = bindings::ITER_DEST;

    /// Makes a TCP socket of this family in `net`. May sleep.
    ///
    /// # Errors
    ///
    /// - `ENETDOWN` if the namespace is dying.
    /// - `ESHUTDOWN` if there is no [`PernetRegistration`](super::netns::PernetRegistration).
    /// - `EAFNOSUPPORT` if the kernel has no IPv6.
    /// - `EBUSY` if another part of the kernel claims new sockets.
    /// - `ENOMEM`, `ENFILE`.
    pub(crate) fn new_tcp(net: &Net, family: Family) -> Result<Self> {
        let net = NetUser::new(net)?;
        let mut sock = ptr::null_mut();
        // CAST: Small constants.
        // SAFETY: The namespace's end waits for `net`, so none of the namespace's data is freed. `sock`
        // may be written to.
        to_result(unsafe {
            bindings::sock_create_kern(
                net.net().as_ptr(),
                family.as_raw(),
                bindings::sock_type_SOCK_STREAM as c_int,
                bindings::IPPROTO_TCP as c_int,
                &mut sock,
            )
        })?;
        // SAFETY: The socket was just made.
        let sk = unsafe { sys::socklnd_helper_sock_sk(sock) };
        // SAFETY: The socket is valid.
        if unsafe { sys::socklnd_helper_sk_claim(sk) } != 0 {
            // SAFETY: The socket is ours.
            unsafe { bindings::sock_release(sock) };
            return Err(EBUSY);
        }
        // SAFETY: The socket was just made, in the namespace of `net`, by a function that makes no
        // counting references, and was claimed.
        unsafe { Self::from_claimed(sock, net, Origin::Kernel) }
    }

    /// Makes a [`Socket`] of a socket that was claimed. Releases it on failure. May sleep.
    ///
    /// # Safety
    ///
    /// `sock` must be a TCP socket that belongs to the caller alone, was claimed, has TCP's own
    /// callbacks, is in the namespace of `net`, and refers to it as `origin` says.
    unsafe fn from_claimed(
        sock: *mut bindings::socket,
        net: NetUser,
        origin: Origin,
    ) -> Result<Self> {
        // SAFETY: By this function's requirement.
        let sk = unsafe { sys::socklnd_helper_sock_sk(sock) };
        // SAFETY: By this function's requirement.
        let hook = match KBox::new(unsafe { Hook::new(sk) }, GFP_KERNEL) {
            Ok(hook) => hook,
            Err(e) => {
                // SAFETY: The socket is valid, and was claimed.
                unsafe { sys::socklnd_helper_sk_disclaim(sk) };
                // SAFETY: The socket is ours.
                unsafe { Self::abort_raw(sock, sk) };
                return Err(e.into());
            }
        };
        if origin == Origin::Kernel {
            // SAFETY: The socket is valid, we don't hold its lock, and this is done once.
            unsafe { sys::socklnd_helper_sk_lock_class_own(sk) };
        }
        // INVARIANT: As required of our caller; `hook` has TCP's callbacks.
        Ok(Self {
            // SAFETY: A socket is not null.
            sock: unsafe { NonNull::new_unchecked(sock) },
            // SAFETY: A socket that was not released has a `struct sock`.
            sk: unsafe { NonNull::new_unchecked(sk) },
            hook,
            origin,
            net,
        })
    }

    /// Releases a socket, with a RST if there is a connection. May sleep.
    ///
    /// # Safety
    ///
    /// `sock` must belong to the caller, and must not be used afterwards; `sk` is its `struct sock`.
    unsafe fn abort_raw(sock: *mut bindings::socket, sk: *mut bindings::sock) {
        // SAFETY: The socket is valid; the function takes the lock.
        unsafe { sys::sock_no_linger(sk) };
        // SAFETY: The socket is the caller's to release.
        unsafe { bindings::sock_release(sock) };
    }

    fn sock(&self) -> *mut bindings::socket {
        self.sock.as_ptr()
    }

    fn sk(&self) -> *mut bindings::sock {
        self.sk.as_ptr()
    }

    /// Takes the socket's lock. May sleep.
    fn lock(&self) -> LockGuard<'_> {
        // SAFETY: By the type invariants `sk` is valid.
        unsafe { sys::lock_sock_nested(self.sk(), 0) };
        // INVARIANT: Just taken.
        LockGuard(self)
    }

    /// Binds to a local address. May sleep. Privileged ports need the capability of the current thread.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES`; `EINVAL` if the socket is bound already, or of another
    /// address family.
    pub(crate) fn bind(&self, addr: &SocketAddr) -> Result {
        let mut addr = RawAddr::from(addr);
        let len = addr.len();
        // SAFETY: The socket is valid, and `addr` an address of `len` bytes.
        to_result(unsafe { bindings::kernel_bind(self.sock(), addr.as_mut_ptr().cast(), len) })
    }

    /// Begins to connect. Returns whether the connection is established already; if not,
    /// [`SocketEvents::state_change`] is called when it is, or has failed. May sleep.
    ///
    /// # Errors
    ///
    /// `ENETUNREACH`, `EHOSTUNREACH`, `EADDRNOTAVAIL`, `EISCONN`, `EALREADY`, ... Later errors, such as
    /// `ECONNREFUSED`, are returned by [`Socket::take_error`].
    pub(crate) fn connect(&self, addr: &SocketAddr) -> Result<bool> {
        let mut addr = RawAddr::from(addr);
        let len = addr.len();
        // SAFETY: The socket is valid, and `addr` an address of `len` bytes.
        let ret = unsafe {
            bindings::kernel_connect(self.sock(), addr.as_mut_ptr().cast(), len, Self::NONBLOCK)
        };
        match to_result(ret) {
            Ok(()) => Ok(true),
            Err(e) if e == EINPROGRESS => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Begins to listen, with a backlog of at most `backlog` connections. May sleep.
    fn listen(&self, backlog: c_int) -> Result {
        // SAFETY: The socket is valid.
        to_result(unsafe { bindings::kernel_listen(self.sock(), backlog) })
    }

    /// Accepts a connection, if there is one. May sleep.
    ///
    /// The new socket has TCP's own callbacks. What is set on the listener (buffers,
    /// [`Socket::set_kernel_defaults`]) is inherited.
    ///
    /// # Errors
    ///
    /// - `ECONNABORTED`, `EPROTO`: this connection has failed; others may be accepted.
    /// - `ENFILE`, `ENOMEM`: the machine lacks resources.
    /// - `EINVAL`: the socket does not listen.
    pub(crate) fn accept(&self) -> Result<Option<Accepted>> {
        let mut sock = ptr::null_mut();
        // SAFETY: The socket is valid, and `sock` may be written to.
        let ret = unsafe { bindings::kernel_accept(self.sock(), &mut sock, Self::NONBLOCK) };
        match to_result(ret) {
            Ok(()) => {}
            Err(e) if e == EAGAIN => return Ok(None),
            Err(e) => return Err(e),
        }
        // SAFETY: The socket was just made.
        let sk = unsafe { sys::socklnd_helper_sock_sk(sock) };
        // SAFETY: The socket is valid.
        let owner = unsafe { sys::socklnd_helper_sk_claim(sk) };
        if let Some(by) = Owner::from_raw(owner) {
            // SAFETY: The socket is valid.
            let remote = unsafe { Self::peer_addr_of(sock) }.ok();
            // The owner has replaced the protocol of the socket, and learns by it of the release.
            // SAFETY: The `struct socket` is ours.
            unsafe { Self::abort_raw(sock, sk) };
            return Ok(Some(Accepted::Owned { by, remote }));
        }
        // SAFETY: The new socket belongs to us alone and was claimed. It inherits its namespace, the kind
        // of its reference to it, and its callbacks from the listener. These are TCP's own, because a
        // listener is never hooked.
        let socket = unsafe { Self::from_claimed(sock, self.net.clone(), self.origin) }?;
        Ok(Some(Accepted::Socket(socket)))
    }

    /// The local address and port. May sleep.
    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        let mut addr = RawAddr::empty();
        // SAFETY: The socket is valid; there is room for an address of any family.
        to_bytes(unsafe { bindings::kernel_getsockname(self.sock(), addr.as_mut_ptr().cast()) })?;
        addr.parse()
    }

    /// The other side's address and port. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if the socket is not connected.
    pub(crate) fn peer_addr(&self) -> Result<SocketAddr> {
        // SAFETY: By the type invariants.
        unsafe { Self::peer_addr_of(self.sock()) }
    }

    /// As [`Socket::peer_addr`].
    ///
    /// # Safety
    ///
    /// `sock` must be a valid socket.
    unsafe fn peer_addr_of(sock: *mut bindings::socket) -> Result<SocketAddr> {
        let mut addr = RawAddr::empty();
        // SAFETY: The socket is valid; there is room for an address of any family.
        to_bytes(unsafe { bindings::kernel_getpeername(sock, addr.as_mut_ptr().cast()) })?;
        addr.parse()
    }

    /// Closes the socket, and lets TCP deliver what was sent. May sleep, but does not wait for the
    /// delivery.
    ///
    /// TCP continues with the connection on its own, and keeps the namespace alive meanwhile: no longer
    /// than [`ORPHAN_MS`] if the other side does not answer. If the namespace is dying already, or
    /// received data was not read, the connection is aborted.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::{eventually, pair, settled};
    ///
    /// let (one, two) = pair()?;
    /// one.send_bytes(b"bye")?;
    /// one.close_gracefully();
    /// let mut buf = [0; 8];
    /// assert_eq!(eventually(|| settled(two.recv_bytes(&mut buf)))??, 3);
    /// // The end of the stream.
    /// assert_eq!(eventually(|| settled(two.recv_bytes(&mut buf)))??, 0);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn close_gracefully(self) {
        // Not to be dropped as a whole, which would abort.
        let mut this = ManuallyDrop::new(self);
        let may_outlive = match this.origin {
            Origin::Program => true,
            Origin::Kernel => match this.net.net().get_alive() {
                Some(_alive) => {
                    let lock = this.lock();
                    // SAFETY: The socket does not count as a reference to its namespace. The namespace
                    // is alive, so it can be made to.
                    unsafe { sys::sk_net_refcnt_upgrade(lock.sk()) };
                    true
                }
                None => false,
            },
        };
        if may_outlive {
            let lock = this.lock();
            // SAFETY: `lock` holds the lock of a TCP socket.
            unsafe { sys::socklnd_helper_tcp_set_user_timeout(lock.sk(), ORPHAN_MS) };
            drop(lock);
            // SAFETY: The socket is not used after this.
            unsafe { this.release() };
        } else {
            // SAFETY: The socket is not used after this.
            unsafe { this.reset() };
        }
        // SAFETY: The field is not used after this.
        unsafe { ptr::drop_in_place(&mut this.hook) };
        // The end of the namespace does not wait for this socket any more.
        // SAFETY: The field is not used after this.
        unsafe { ptr::drop_in_place(&mut this.net) };
    }

    /// Closes the socket at once, with a RST. Data that was sent may be lost. May sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::{eventually, pair};
    ///
    /// let (one, two) = pair()?;
    /// one.abort();
    /// assert_eq!(eventually(|| two.take_error())?, ECONNRESET);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn abort(self) {}

    /// Releases the socket, with a RST if there is a connection.
    ///
    /// # Safety
    ///
    /// The socket must not be used afterwards.
    unsafe fn reset(&self) {
        // SAFETY: By the type invariants `sk` is valid; the function takes the lock.
        unsafe { sys::sock_no_linger(self.sk()) };
        // SAFETY: As this function's own requirement.
        unsafe { self.release() };
    }

    /// Releases the socket.
    ///
    /// # Safety
    ///
    /// The socket must not be used afterwards.
    unsafe fn release(&self) {
        if self.origin == Origin::Kernel {
            // SAFETY: By the type invariants `sk` is valid; it was given our lock class when it was
            // taken over, and we don't hold its lock.
            unsafe { sys::socklnd_helper_sk_lock_class_kernel(self.sk()) };
        }
        // SAFETY: By the type invariants `sk` is valid and claimed. It is not hooked, because a
        // `HookedSocket` unhooks first.
        unsafe { sys::socklnd_helper_sk_disclaim(self.sk()) };
        // SAFETY: By the type invariants the socket is ours to release.
        unsafe { bindings::sock_release(self.sock()) };
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: The socket is not used after this. The field `net` is dropped later: until then
        // the namespace's end waits.
        unsafe { self.reset() };
    }
}
