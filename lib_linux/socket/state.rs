// SPDX-License-Identifier: GPL-2.0

//! State of a socket.
//!
//! It is read without the socket's lock, and may have changed by the time the caller gets it.

use super::{
    super::sys,
    to_usize,
    Socket, //
};
use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

/// The states of a TCP socket, as in RFC 9293.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::{netns::Net, socket::Family};
/// let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
/// assert!(matches!(socket.state(), TcpState::Close));
/// assert!(!socket.is_established());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpState {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
}

impl TcpState {
    /// The state of a socket at this moment. Any context.
    ///
    /// # Safety
    ///
    /// `sk` must be a valid TCP socket.
    pub(super) unsafe fn of(sk: *const bindings::sock) -> Self {
        // SAFETY: By our requirement.
        match unsafe { sys::socklnd_helper_sk_state(sk) } {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            // The kernel's other states are not those of a `struct sock`.
            _ => Self::Close,
        }
    }
}

impl Socket {
    /// The state at this moment. Any context.
    pub(crate) fn state(&self) -> TcpState {
        // SAFETY: By the type invariants `sk` is valid.
        unsafe { TcpState::of(self.sk()) }
    }

    /// Whether data can be sent and received at this moment. For tests and measurements. Any context.
    #[cfg_attr(not(CONFIG_KUNIT = "y"), allow(dead_code))]
    pub(crate) fn is_established(&self) -> bool {
        self.state() == TcpState::Established
    }

    /// Returns and clears the pending error, as `SO_ERROR` does: `ECONNREFUSED`, `ETIMEDOUT`, ... Any
    /// context.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::{eventually, pair};
    ///
    /// let (one, two) = pair()?;
    /// one.abort();
    /// assert_eq!(eventually(|| two.take_error())?, ECONNRESET);
    /// assert!(two.take_error().is_none());
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn take_error(&self) -> Option<Error> {
        // SAFETY: By the type invariants `sk` is valid.
        to_result(unsafe { sys::socklnd_helper_sk_take_error(self.sk()) }).err()
    }

    /// Why the connection is over, if it is; unlike [`Socket::take_error`], however often it is
    /// asked. If TCP gave up what was sent, for another reason than being told to, this says so
    /// before any [`ZcUbuf`](super::ZcUbuf) of it is complete. Any context.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::{eventually, pair};
    ///
    /// let (one, two) = pair()?;
    /// assert!(two.failure().is_none());
    /// one.abort();
    /// assert_eq!(eventually(|| two.failure())?, ECONNRESET);
    /// assert_eq!(two.failure(), Some(ECONNRESET));
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn failure(&self) -> Option<Error> {
        // SAFETY: By the type invariants `sk` is valid.
        match unsafe { sys::socklnd_helper_sk_err(self.sk()) } {
            0 => (self.state() == TcpState::Close).then_some(ECONNRESET),
            errno => Some(Error::from_errno(-errno)),
        }
    }

    /// Bytes of memory of data that was sent, or queued, and not acknowledged. Any context.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::{drain, eventually, pair};
    ///
    /// let (one, two) = pair()?;
    /// one.send_bytes(b"hello")?;
    /// drain(&two, 5)?;
    /// eventually(|| (one.wmem_queued() == 0).then_some(()))?;
    /// assert!(one.has_send_space());
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn wmem_queued(&self) -> usize {
        // SAFETY: By the type invariants `sk` is valid.
        to_usize(unsafe { sys::socklnd_helper_sk_wmem_queued(self.sk()) })
    }

    /// Whether there is room in the send buffer. Any context.
    ///
    /// After an `EAGAIN` of [`Socket::send`]: if there is none,
    /// [`SocketEvents::write_space`](super::SocketEvents::write_space) is called when there is; if there
    /// is, the machine had no memory, and the callback is not called.
    pub(crate) fn has_send_space(&self) -> bool {
        // SAFETY: By the type invariants `sk` is valid.
        unsafe { sys::socklnd_helper_sk_stream_is_writeable(self.sk()) }
    }

    /// Whether there is received data that was not read. Any context.
    pub(crate) fn has_input(&self) -> bool {
        // SAFETY: By the type invariants `sk` is valid.
        unsafe { sys::socklnd_helper_sk_has_input(self.sk()) }
    }

    /// Sets `SO_RCVLOWAT`: TCP calls [`SocketEvents::data_ready`](super::SocketEvents::data_ready) only
    /// when `bytes` have arrived, or as many as it has room for, see [`Socket::is_ready`]; and enlarges
    /// the receive buffer to `bytes`, unless its size is fixed. TCP acknowledges data in any case. A new
    /// socket has 1. The end of the stream and errors are reported at once. May sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::socket::tests::{eventually, pair};
    ///
    /// let (one, two) = pair()?;
    /// two.wait_for(10);
    /// one.send_bytes(b"hello")?;
    /// eventually(|| two.has_input().then_some(()))?;
    /// assert!(!two.is_ready());
    /// one.send_bytes(b"world")?;
    /// eventually(|| two.is_ready().then_some(()))?;
    /// assert_eq!(two.available(), 10);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn wait_for(&self, bytes: usize) {
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        // SAFETY: By the type invariants `sk` is valid, and this context may sleep.
        unsafe { sys::socklnd_helper_sk_set_rcvlowat(self.sk(), bytes) };
    }

    /// Whether as much has arrived as [`Socket::wait_for`] has set, or the receive buffer is full. Any
    /// context.
    pub(crate) fn is_ready(&self) -> bool {
        // SAFETY: By the type invariants `sk` is valid, and that of a TCP socket.
        unsafe { sys::socklnd_helper_tcp_is_ready(self.sk()) }
    }

    /// Bytes that were received and not read; the end of the stream counts as one byte. Any context.
    pub(crate) fn available(&self) -> usize {
        // SAFETY: By the type invariants `sk` is valid, and that of a TCP socket.
        let available = unsafe { sys::socklnd_helper_tcp_available(self.sk()) };
        available as usize
    }

    /// The processor that handled the last received packet, if there was one (`SO_INCOMING_CPU`). Any
    /// context.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::lib_linux::{misc::possible_cpus, socket::tests::pair};
    ///
    /// let (one, _two) = pair()?;
    /// let cpu = one.incoming_cpu().ok_or(ENODATA)?;
    /// assert!(possible_cpus().any(|possible| possible == cpu));
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn incoming_cpu(&self) -> Option<u32> {
        // SAFETY: By the type invariants `sk` is valid.
        u32::try_from(unsafe { sys::socklnd_helper_sk_incoming_cpu(self.sk()) }).ok()
    }
}
