// SPDX-License-Identifier: GPL-2.0

//! Options of a socket.
//!
//! TCP keeps them, and the socket's lock protects them.

use super::{
    super::sys,
    to_usize,
    Socket,
    TcpState, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

impl Socket {
    /// Sets options for a socket that a file system may wait for: allocations don't enter file
    /// systems, and don't use the page fragment of the thread that sends. Closing never waits
    /// (`SO_LINGER` is off), and leaves no socket in `FIN_WAIT2` (`TCP_LINGER2` is negative). May sleep.
    pub(crate) fn set_kernel_defaults(&self) {
        let lock = self.lock();
        // SAFETY: The lock is held.
        unsafe { sys::socklnd_helper_sk_set_allocation(lock.sk(), sys::GFP_NOFS) };
        // SAFETY: The lock is held.
        unsafe { sys::socklnd_helper_sk_no_task_frag(lock.sk()) };
        // SAFETY: The lock is held.
        unsafe { sys::socklnd_helper_sk_no_linger(lock.sk()) };
        // SAFETY: The lock is held, and this is a TCP socket.
        unsafe { sys::socklnd_helper_tcp_set_linger2(lock.sk(), -1) };
    }

    /// Sets `TCP_NODELAY`: whether small segments are sent at once, or wait for an acknowledgement
    /// (Nagle's algorithm). May sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::{netns::Net, socket::Family};
    /// let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
    /// socket.set_nodelay(true);
    /// assert!(socket.nodelay());
    /// socket.set_nodelay(false);
    /// assert!(!socket.nodelay());
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn set_nodelay(&self, on: bool) {
        if on {
            // SAFETY: This is a TCP socket; the function takes the lock.
            unsafe { sys::tcp_sock_set_nodelay(self.sk()) };
        } else {
            let lock = self.lock();
            // SAFETY: The lock is held, and this is a TCP socket.
            unsafe { sys::socklnd_helper_tcp_clear_nodelay(lock.sk()) };
        }
    }

    /// Sends data that TCP holds back to fill a segment. May sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::{eventually, pair};
    ///
    /// let (one, two) = pair()?;
    /// one.send_bytes(b"1")?;
    /// // Waits until the other side has acknowledged the byte before.
    /// one.send_bytes(b"2")?;
    /// one.push();
    /// eventually(|| (two.available() == 2).then_some(()))?;
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn push(&self) {
        let nodelay = self.nodelay();
        // Setting `TCP_NODELAY` pushes, also if it is set already.
        self.set_nodelay(true);
        if !nodelay {
            self.set_nodelay(false);
        }
    }

    /// Sets `SO_REUSEADDR`: whether the socket may be bound to an address of connections that are in
    /// `TIME_WAIT`. May sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use core::net::{Ipv4Addr, SocketAddr};
    /// use crate::lib_linux::{netns::Net, socket::Family};
    ///
    /// let net = Net::current();
    /// let (one, two) = (Socket::new_tcp(&net, Family::Inet)?, Socket::new_tcp(&net, Family::Inet)?);
    /// one.set_reuseaddr(true);
    /// one.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    /// assert_eq!(two.bind(&one.local_addr()?), Err(EADDRINUSE));
    /// two.set_reuseaddr(true);
    /// two.bind(&one.local_addr()?)?;
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn set_reuseaddr(&self, on: bool) {
        let lock = self.lock();
        // SAFETY: The lock is held.
        unsafe { sys::socklnd_helper_sk_set_reuseaddr(lock.sk(), on) };
    }

    /// Sets `SO_SNDBUF` and `SO_RCVBUF`, in bytes of payload; with zero, TCP tunes the size itself. To
    /// be called before connecting or listening, because the window scale depends on it. May sleep.
    ///
    /// With zero, a connection keeps the size that was set before until TCP changes it.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::{netns::Net, socket::Family};
    ///
    /// let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
    /// let default = socket.rcvbuf();
    /// socket.set_buffers(100_000, 0);
    /// // The kernel doubles the size, because packets take more memory than their payload.
    /// assert_eq!((socket.sndbuf(), socket.rcvbuf()), (200_000, default));
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn set_buffers(&self, send: usize, receive: usize) {
        let limited = |size| c_int::try_from(size).unwrap_or(c_int::MAX);
        let unused = matches!(self.state(), TcpState::Close | TcpState::Listen);
        let lock = self.lock();
        if send > 0 {
            // SAFETY: The lock is held.
            unsafe { sys::socklnd_helper_sk_set_sndbuf(lock.sk(), limited(send)) };
        } else {
            // SAFETY: The lock is held.
            unsafe { sys::socklnd_helper_sk_unlock_sndbuf(lock.sk()) };
            if unused {
                // SAFETY: The lock is held, and this is a TCP socket.
                unsafe { sys::socklnd_helper_tcp_reset_sndbuf(lock.sk()) };
            }
        }
        if receive == 0 {
            // SAFETY: The lock is held.
            unsafe { sys::socklnd_helper_sk_unlock_rcvbuf(lock.sk()) };
            if unused {
                // SAFETY: The lock is held, and this is a TCP socket.
                unsafe { sys::socklnd_helper_tcp_reset_rcvbuf(lock.sk()) };
            }
        }
        drop(lock);
        if receive > 0 {
            // SAFETY: The function takes the lock.
            unsafe { sys::sock_set_rcvbuf(self.sk(), limited(receive)) };
        }
    }

    /// Sets `TCP_QUICKACK`: TCP acknowledges received data at once, until it finds that this side sends
    /// data as answers, with which acknowledgements go. May sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::{drain, eventually, pair};
    ///
    /// let (one, two) = pair()?;
    /// one.send_bytes(b"hello")?;
    /// drain(&two, 5)?;
    /// two.acknowledge_now();
    /// eventually(|| (one.wmem_queued() == 0).then_some(()))?;
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn acknowledge_now(&self) {
        // SAFETY: This is a TCP socket; the function takes the lock.
        unsafe { sys::tcp_sock_set_quickack(self.sk(), 1) };
    }

    /// Sets `SO_KEEPALIVE`: TCP probes the other side after `idle` seconds without a segment, then every
    /// `interval` seconds, and ends the connection after `count` probes without an answer. There are no
    /// probes if `idle` is zero. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` unless `idle` is in 0..=32767, `interval` in 1..=32767 and `count` in 1..=127.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::{netns::Net, socket::Family};
    /// let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
    /// socket.set_keepalive(30, 10, 3)?;
    /// assert_eq!(socket.keepalive(), (30, 10, 3));
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn set_keepalive(&self, idle: c_int, interval: c_int, count: c_int) -> Result {
        if idle != 0 {
            // SAFETY: This is a TCP socket; the function takes the lock.
            to_result(unsafe { sys::tcp_sock_set_keepidle(self.sk(), idle) })?;
            // SAFETY: As above.
            to_result(unsafe { sys::tcp_sock_set_keepintvl(self.sk(), interval) })?;
            // SAFETY: As above.
            to_result(unsafe { sys::tcp_sock_set_keepcnt(self.sk(), count) })?;
        }
        let lock = self.lock();
        // SAFETY: The lock is held.
        unsafe { sys::socklnd_helper_sk_set_keepalive(lock.sk(), idle != 0) };
        Ok(())
    }

    /// The values of [`Socket::set_keepalive`]: idle seconds, seconds between probes, number of probes.
    /// Any context.
    pub(crate) fn keepalive(&self) -> (c_int, c_int, c_int) {
        // SAFETY: By the type invariants `sk` is valid.
        let idle = if unsafe { sys::socklnd_helper_sk_keepalive(self.sk()) } {
            // SAFETY: By the type invariants `sk` is valid, and a TCP socket's.
            unsafe { sys::socklnd_helper_tcp_keepidle(self.sk()) }
        } else {
            0
        };
        // SAFETY: As above.
        let interval = unsafe { sys::socklnd_helper_tcp_keepintvl(self.sk()) };
        // SAFETY: As above.
        let count = unsafe { sys::socklnd_helper_tcp_keepcnt(self.sk()) };
        (idle, interval, count)
    }

    /// Sets `IP_TOS`, or `IPV6_TCLASS`: the type of service, or traffic class, of packets. The two lowest
    /// bits are TCP's own (ECN) and remain. May sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::{netns::Net, socket::Family};
    /// let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
    /// socket.set_tos(0x28);
    /// assert_eq!(socket.tos(), 0x28);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn set_tos(&self, tos: u8) {
        // SAFETY: This is a socket of IP; the function takes the lock.
        unsafe { sys::ip_sock_set_tos(self.sk(), tos.into()) };
        let lock = self.lock();
        // SAFETY: The lock is held.
        unsafe { sys::socklnd_helper_ipv6_set_tclass(lock.sk(), tos.into()) };
    }

    /// The type of service, or traffic class, of packets. Any context.
    pub(crate) fn tos(&self) -> c_int {
        // SAFETY: By the type invariants `sk` is valid, and a socket of IP.
        unsafe { sys::socklnd_helper_sk_tos(self.sk()) }
    }

    /// How memory for the socket is allocated. Any context.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(super) fn allocation(&self) -> c_uint {
        // SAFETY: By the type invariants `sk` is valid.
        unsafe { sys::socklnd_helper_sk_allocation(self.sk()) }
    }

    /// The window scale of this side (RFC 7323), as a shift count. Any context.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::pair;
    ///
    /// let (one, _two) = pair()?;
    /// // The largest one that RFC 7323 allows.
    /// assert!(one.window_scale() <= 14);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn window_scale(&self) -> u32 {
        // SAFETY: By the type invariants `sk` is valid, and a TCP socket's.
        unsafe { sys::socklnd_helper_tcp_rcv_wscale(self.sk()) }
    }

    /// The send buffer's limit, in bytes of memory. Any context.
    pub(crate) fn sndbuf(&self) -> usize {
        // SAFETY: By the type invariants `sk` is valid.
        to_usize(unsafe { sys::socklnd_helper_sk_sndbuf(self.sk()) })
    }

    /// The receive buffer's limit, in bytes of memory. Any context.
    pub(crate) fn rcvbuf(&self) -> usize {
        // SAFETY: By the type invariants `sk` is valid.
        to_usize(unsafe { sys::socklnd_helper_sk_rcvbuf(self.sk()) })
    }

    /// Whether [`Socket::set_nodelay`] is on. Any context.
    pub(crate) fn nodelay(&self) -> bool {
        // SAFETY: By the type invariants `sk` is valid, and a TCP socket's.
        unsafe { sys::socklnd_helper_tcp_nodelay(self.sk()) }
    }
}
