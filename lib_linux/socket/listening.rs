// SPDX-License-Identifier: GPL-2.0

//! Listeners with a callback for connections to accept.
//!
//! A [`ListeningSocket`] owns the socket, and an entry in the socket's wait queue, which holds one
//! reference to the object whose callback is called. The queue's own lock protects the entry: it is held
//! during the callback, and taken to remove the entry, so that there are no callbacks afterwards.
//!
//! The callbacks of a listener's `struct sock` would be inherited by its connections; wait queues
//! belong to the `struct socket`, which a connection gets when it is accepted.

use super::{
    super::sys,
    Socket, //
};
use core::ops::Deref;
use kernel::{
    bindings,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

/// The callback of a socket that listens, see [`ListeningSocket`].
///
/// # Examples
///
/// ```
/// use core::net::{Ipv4Addr, SocketAddr};
/// use crate::lib_linux::{netns::Net, socket::{tests::eventually, Family}};
/// use kernel::sync::{atomic::{Atomic, Relaxed}, Arc, ArcBorrow};
///
/// struct Arrived(Atomic<bool>);
///
/// impl Arrivals for Arrived {
///     fn arrived(this: ArcBorrow<'_, Self>) {
///         this.0.store(true, Relaxed);
///     }
/// }
///
/// let arrived = Arc::new(Arrived(Atomic::new(false)), GFP_KERNEL)?;
/// let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
/// socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
/// let listener = ListeningSocket::new(socket, 1, arrived.clone())?;
/// let client = Socket::new_tcp(&Net::current(), Family::Inet)?;
/// client.connect(&listener.local_addr()?)?;
/// assert!(eventually(|| listener.accept().transpose())?.is_ok());
/// assert!(arrived.0.load(Relaxed));
/// # Ok::<(), Error>(())
/// ```
pub(crate) trait Arrivals: Send + Sync + 'static {
    /// There may be a connection to accept. Called with interrupts off and a spinlock held, usually
    /// in a softirq: must not sleep, must take no lock that is ever taken with interrupts on, and
    /// must not drop the last reference to anything. May be called on several processors, and
    /// without a new connection.
    fn arrived(this: ArcBorrow<'_, Self>);
}

/// An entry in a wait queue. `entry` is at the beginning.
#[repr(C)]
struct Entry<T> {
    entry: Opaque<bindings::wait_queue_entry>,
    events: Arc<T>,
}

/// A listening socket that calls the callback of a `T` for each connection. Dropping it ends the
/// callbacks and closes the socket; may sleep.
///
/// # Invariants
///
/// `entry` is in the wait queue of `socket`, and is not moved while it is.
///
/// # Examples
///
/// ```
/// use core::net::{Ipv4Addr, SocketAddr};
/// use kernel::sync::{Arc, ArcBorrow};
/// use crate::lib_linux::{netns::Net, socket::Family};
///
/// struct Nobody;
///
/// impl Arrivals for Nobody {
///     fn arrived(_this: ArcBorrow<'_, Self>) {}
/// }
///
/// let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
/// socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
/// let listening = ListeningSocket::new(socket, 1, Arc::new(Nobody, GFP_KERNEL)?)?;
/// assert!(listening.accept()?.is_none());
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct ListeningSocket<T: Arrivals> {
    entry: KBox<Entry<T>>,
    socket: Socket,
}

// SAFETY: The entry may be removed by any thread.
unsafe impl<T: Arrivals> Send for ListeningSocket<T> {}

// SAFETY: The wait queue's lock protects the entry.
unsafe impl<T: Arrivals> Sync for ListeningSocket<T> {}

impl<T: Arrivals> ListeningSocket<T> {
    /// Begins to listen with `socket`, which must be bound, with a backlog of at most `backlog`
    /// connections. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and those of `listen(2)`.
    pub(crate) fn new(socket: Socket, backlog: c_int, events: Arc<T>) -> Result<Self> {
        let entry = KBox::new(
            Entry {
                entry: Opaque::uninit(),
                events,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The socket is valid, and was not released, so it has a wait queue. The entry is boxed
        // and lives until it is removed in `drop`; the function fits its type.
        unsafe {
            sys::socklnd_helper_sk_add_wait(socket.sk(), entry.entry.get(), Some(wake::<T>));
        }
        // INVARIANT: Just added.
        let this = Self { entry, socket };
        this.socket.listen(backlog)?;
        Ok(this)
    }
}

impl<T: Arrivals> Deref for ListeningSocket<T> {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl<T: Arrivals> Drop for ListeningSocket<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the entry is in the socket's wait queue.
        unsafe {
            sys::socklnd_helper_sk_remove_wait(self.socket.sk(), self.entry.entry.get());
        }
    }
}

/// `wait_queue_entry.func`.
///
/// # Safety
///
/// Called by a wait queue, with its lock held, for an [`Entry<T>`].
unsafe extern "C" fn wake<T: Arrivals>(
    entry: *mut bindings::wait_queue_entry,
    _mode: c_uint,
    _flags: c_int,
    _key: *mut c_void,
) -> c_int {
    // SAFETY: By our requirement this is the first field of an `Entry<T>`, which is not freed before it
    // has been removed, under the lock that is held here.
    let entry = unsafe { &*entry.cast::<Entry<T>>() };
    T::arrived(entry.events.as_arc_borrow());
    // Not counted as an exclusive waiter, so that other waiters are woken, too.
    0
}
