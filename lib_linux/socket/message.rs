// SPDX-License-Identifier: GPL-2.0

//! Sending and receiving.
//!
//! No method waits for the network. TCP's own lock protects the socket.

use super::{
    super::iov::{
        Bvecs,
        RecvBvecs, //
    },
    super::sys,
    Socket,
    TcpState, //
};
use core::ptr;
use kernel::{
    bindings,
    prelude::*, //
};

/// A message for `sock_sendmsg` or `sock_recvmsg`, for no bytes yet.
fn message(flags: u32) -> bindings::msghdr {
    bindings::msghdr {
        msg_flags: flags,
        ..Default::default()
    }
}

/// Whether more data follows at once, so that the last segment may wait for it (`MSG_MORE`).
///
/// # Examples
///
/// ```
/// use crate::lib_linux::{iov::BvecBuf, page::PageFrag, socket::tests::pair};
///
/// let (one, _two) = pair()?;
/// let header = PageFrag::alloc(72)?.filled(&[0; 72])?;
/// let mut buf = BvecBuf::with_capacity(1)?;
/// let mut bvecs = buf.start();
/// assert!(bvecs.push_frag(&header, 0));
/// assert_eq!(one.send(&bvecs, More::Follows)?, 72);
/// assert_eq!(one.send(&bvecs, More::None)?, 72);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    /// It does.
    Follows,
    /// It does not.
    None,
}

/// A return value that is a number of bytes, or negative and an error.
pub(super) fn to_bytes(ret: c_int) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Error::from_errno(ret))
}

impl Socket {
    /// Copies as much as there is room for into the send buffer. Returns the number of bytes. May sleep.
    ///
    /// # Errors
    ///
    /// - `EAGAIN` if there is no room, or not enough memory. In the first case
    ///   [`SocketEvents::write_space`](super::SocketEvents::write_space) is called when there is room,
    ///   see [`Socket::has_send_space`].
    /// - `EPIPE`, `ECONNRESET`, ... if the connection has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::{iov::BvecBuf, page::PageFrag, socket::tests::pair};
    ///
    /// let (one, _two) = pair()?;
    /// let header = PageFrag::alloc(72)?.filled(&[0; 72])?;
    /// let mut buf = BvecBuf::with_capacity(1)?;
    /// let mut bvecs = buf.start();
    /// assert!(bvecs.push_frag(&header, 0));
    /// assert_eq!(one.send(&bvecs, More::None)?, 72);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn send(&self, from: &Bvecs<'_>, more: More) -> Result<usize> {
        // SAFETY: There is no `ubuf`.
        unsafe { self.send_message(from, more, ptr::null_mut()) }
    }

    /// Sends by copying, or with a `ubuf` by reference.
    ///
    /// # Safety
    ///
    /// `ubuf` must be null, or valid during the call and as long as any reference is left of those
    /// that TCP takes meanwhile; then all of `from` must be memory for sending without a copy.
    pub(super) unsafe fn send_message(
        &self,
        from: &Bvecs<'_>,
        more: More,
        ubuf: *mut bindings::ubuf_info,
    ) -> Result<usize> {
        let mut flags = Self::SEND_FLAGS;
        if more == More::Follows {
            flags |= bindings::MSG_MORE;
        }
        if !ubuf.is_null() {
            flags |= bindings::MSG_ZEROCOPY;
        }
        let mut msg = message(flags);
        msg.msg_ubuf = ubuf;
        // SAFETY: The list is valid, has `len_bytes` bytes, and can be read as long as `from` is
        // borrowed, which is longer than the message lives.
        unsafe {
            bindings::iov_iter_bvec(
                &mut msg.msg_iter,
                Self::ITER_SOURCE,
                from.as_ptr(),
                from.count() as c_ulong,
                from.len_bytes(),
            )
        };
        // SAFETY: The socket is valid, and so is the message until the call returns. Of what it
        // copies, TCP keeps no reference. Of what it does not, it keeps references that count: to
        // the pages, which are memory for that by our requirement, and to `ubuf`, whose validity
        // is our requirement, too.
        to_bytes(unsafe { bindings::sock_sendmsg(self.sock(), &mut msg) })
    }

    /// Receives data that has arrived. Returns the number of bytes; zero at the end of the stream.
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if no data has arrived; `EINVAL` if `to` is empty; `ECONNRESET`, ... if the connection
    /// has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::{iov::BvecBuf, page::RecvBuf, socket::tests::{eventually, pair, settled}};
    ///
    /// let (one, two) = pair()?;
    /// one.send_bytes(b"hello")?;
    /// let mut into = RecvBuf::alloc(8)?;
    /// let mut buf = BvecBuf::with_capacity(1)?;
    /// let mut bvecs = buf.start_recv();
    /// assert!(bvecs.push_buf(&mut into, 0, 8));
    /// assert_eq!(eventually(|| settled(two.recv(&bvecs)))??, 5);
    /// assert_eq!(into.as_slice(), b"hello\0\0\0");
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn recv(&self, to: &RecvBvecs<'_>) -> Result<usize> {
        if to.len_bytes() == 0 {
            return Err(EINVAL);
        }
        let mut msg = message(0);
        // SAFETY: The list is valid, has `len_bytes` bytes, and can be written as long as `to` is
        // borrowed, which is longer than the message lives.
        unsafe {
            bindings::iov_iter_bvec(
                &mut msg.msg_iter,
                Self::ITER_DEST,
                to.as_ptr(),
                to.count() as c_ulong,
                to.len_bytes(),
            )
        };
        // SAFETY: The message refers to the list, which can be written.
        unsafe { self.recv_message(&mut msg) }
    }

    /// Receives into a message.
    ///
    /// # Safety
    ///
    /// What the message refers to must be valid for writes.
    unsafe fn recv_message(&self, msg: &mut bindings::msghdr) -> Result<usize> {
        // SAFETY: The socket is valid, and the message by our requirement.
        to_bytes(unsafe { bindings::sock_recvmsg(self.sock(), msg, Self::RECV_FLAGS) })
    }

    /// As [`Socket::send`], from a slice.
    pub(crate) fn send_bytes(&self, from: &[u8]) -> Result<usize> {
        let kvec = bindings::kvec {
            iov_base: from.as_ptr().cast_mut().cast(),
            iov_len: from.len(),
        };
        let mut msg = message(Self::SEND_FLAGS);
        // SAFETY: `kvec` lives as long as the message, and refers to `from`, which can be read.
        unsafe {
            bindings::iov_iter_kvec(&mut msg.msg_iter, Self::ITER_SOURCE, &kvec, 1, from.len())
        };
        // SAFETY: As in `send`.
        to_bytes(unsafe { bindings::sock_sendmsg(self.sock(), &mut msg) })
    }

    /// As [`Socket::recv`], into a slice.
    pub(crate) fn recv_bytes(&self, to: &mut [u8]) -> Result<usize> {
        if to.is_empty() {
            return Err(EINVAL);
        }
        let kvec = bindings::kvec {
            iov_base: to.as_mut_ptr().cast(),
            iov_len: to.len(),
        };
        let mut msg = message(0);
        // SAFETY: `kvec` lives as long as the message, and refers to `to`, which can be written.
        unsafe { bindings::iov_iter_kvec(&mut msg.msg_iter, Self::ITER_DEST, &kvec, 1, to.len()) };
        // SAFETY: The message refers to `to`, which can be written.
        unsafe { self.recv_message(&mut msg) }
    }

    /// As [`Socket::recv`], but discards at most `len` bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::{eventually, pair};
    ///
    /// let (one, two) = pair()?;
    /// one.send_bytes(b"skip this")?;
    /// eventually(|| (two.available() == 9).then_some(()))?;
    /// assert_eq!(two.discard(5)?, 5);
    /// let mut rest = [0; 8];
    /// assert_eq!(two.recv_bytes(&mut rest)?, 4);
    /// assert_eq!(&rest, b"this\0\0\0\0");
    /// assert_eq!(two.discard(1), Err(EAGAIN));
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn discard(&self, len: usize) -> Result<usize> {
        if len == 0 {
            return Err(EINVAL);
        }
        let mut msg = message(0);
        // SAFETY: The iterator refers to nothing.
        unsafe { bindings::iov_iter_discard(&mut msg.msg_iter, Self::ITER_DEST, len) };
        // SAFETY: The message refers to nothing.
        unsafe { self.recv_message(&mut msg) }
    }

    /// Sends an acknowledgement without data. The other side ignores it, or answers with a RST if it
    /// has no such connection. Does nothing if there is no connection, or no memory. May sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::pair;
    ///
    /// let (one, two) = pair()?;
    /// one.send_ack();
    /// assert!(!two.has_input());
    /// assert!(two.is_established());
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn send_ack(&self) {
        let lock = self.lock();
        if matches!(self.state(), TcpState::Established | TcpState::CloseWait) {
            // SAFETY: The lock is held, and the TCP socket is connected.
            unsafe { sys::socklnd_helper_tcp_send_ack(lock.sk()) };
        }
    }
}
