// SPDX-License-Identifier: GPL-2.0

//! Callbacks of a socket.
//!
//! While a socket is hooked, its `sk_user_data` points to its [`Hook`], which holds one reference
//! to the object whose callbacks are called; while it is not, to a marker that says that it is claimed,
//! see `socklnd_helper_sk_claim` in `helpers/hook.c`. `sk_callback_lock` protects the pointer and the
//! hook: every callback runs with the lock held for reading, and hooking and unhooking take it for
//! writing. So when unhooking has taken the lock, no callback for the object is running, and later
//! callbacks don't find the object.
//!
//! A callback that was entered before, and gets the lock only afterwards, finds no object and does
//! nothing. But it executes the module's code, see
//! [`wait_for_callbacks`](crate::lib_linux::wait_for_callbacks).
//!
//! Listeners are not hooked, because their connections would inherit the callbacks, and would keep them
//! if another part of the kernel claims a connection before it is accepted: see
//! [`ListeningSocket`](super::ListeningSocket). `sk_error_report` remains TCP's own: it may be called in
//! a hard interrupt, and TCP calls `sk_state_change` whenever an error ends a connection.

use super::{
    super::sys,
    Socket, //
};
use core::{
    any::TypeId,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr, //
};
use kernel::{
    bindings,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// The callbacks of a socket, see [`Socket::hook`].
///
/// All functions are called with bottom halves off and the socket's callback lock held, usually in
/// a softirq, usually with the socket's own lock held as well. They must not sleep, must use no
/// method of the socket that may, must take no lock that is ever taken with bottom halves on, and
/// must not drop the last reference to anything whose destructor may do these things. They may be
/// called on several processors at once, and without a new event.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::socket::tests::{eventually, pair};
/// use kernel::sync::{atomic::{Atomic, Relaxed}, Arc, ArcBorrow};
///
/// struct Ready(Atomic<bool>);
///
/// impl SocketEvents for Ready {
///     fn data_ready(this: ArcBorrow<'_, Self>) {
///         this.0.store(true, Relaxed);
///     }
///     fn write_space(_this: ArcBorrow<'_, Self>) {}
///     fn state_change(_this: ArcBorrow<'_, Self>) {}
/// }
///
/// let (one, two) = pair()?;
/// let ready = Arc::new(Ready(Atomic::new(false)), GFP_KERNEL)?;
/// let two = two.hook(ready.clone());
/// one.send_bytes(b"hello")?;
/// eventually(|| ready.0.load(Relaxed).then_some(()))?;
/// assert!(two.has_input());
/// # Ok::<(), Error>(())
/// ```
pub(crate) trait SocketEvents: Send + Sync + 'static {
    /// There may be something to receive: data, the end of the stream, an error.
    fn data_ready(this: ArcBorrow<'_, Self>);

    /// There is room to send again, after [`Socket::send`] had found none.
    fn write_space(this: ArcBorrow<'_, Self>);

    /// The connection's state has changed, or an error has ended it.
    fn state_change(this: ArcBorrow<'_, Self>);
}

/// The data of a socket's callbacks.
///
/// # Invariants
///
/// - `originals` are TCP's own callbacks.
/// - `target` is `Some` exactly while the socket is hooked.
// The lowest three bits of `sk_user_data` are flags.
#[repr(align(8))]
pub(super) struct Hook {
    originals: sys::socklnd_sk_callbacks,
    target: Option<Target>,
}

/// The object whose callbacks are called.
///
/// # Invariants
///
/// `events` comes from [`Arc::into_raw`] of an `Arc<T>`, whose reference belongs to the target;
/// `type_id` is that of `T`.
struct Target {
    events: *const c_void,
    type_id: TypeId,
}

impl Target {
    fn new<T: SocketEvents>(events: Arc<T>) -> Self {
        // INVARIANT: Both are of `T`, and the reference is kept.
        Self {
            events: Arc::into_raw(events).cast(),
            type_id: TypeId::of::<T>(),
        }
    }

    /// The object, if it is a `T`.
    fn get<T: SocketEvents>(&self) -> Option<ArcBorrow<'_, T>> {
        if self.type_id != TypeId::of::<T>() {
            return None;
        }
        // SAFETY: By the type invariants this comes from `into_raw` of an `Arc<T>`, whose reference
        // is held as long as `self` is borrowed.
        Some(unsafe { ArcBorrow::from_raw(self.events.cast::<T>()) })
    }

    /// Gives the reference back, which must be for a `T`.
    ///
    /// # Safety
    ///
    /// `self` must have been made for a `T`.
    unsafe fn into_events<T: SocketEvents>(self) -> Arc<T> {
        // SAFETY: By the type invariants, and this function's requirement, this comes from
        // `into_raw` of an `Arc<T>`; the reference was ours, and `self` is gone.
        unsafe { Arc::from_raw(self.events.cast::<T>()) }
    }
}

impl Hook {
    /// A hook for a socket that was claimed.
    ///
    /// # Safety
    ///
    /// `sk` must be a valid socket that belongs to the caller alone, with TCP's own callbacks.
    pub(super) unsafe fn new(sk: *mut bindings::sock) -> Self {
        let mut originals = sys::socklnd_sk_callbacks::default();
        // SAFETY: By our requirement the socket is valid, and nobody changes its callbacks.
        unsafe { sys::socklnd_helper_sk_get_callbacks(sk, &mut originals) };
        // INVARIANT: TCP's own callbacks, by our requirement. Not hooked.
        Self {
            originals,
            target: None,
        }
    }
}

/// Replaces callbacks and user data of a socket, waiting until no callback with user data is
/// running.
///
/// # Safety
///
/// - `sk` must be a valid socket that is claimed.
/// - Either `hook` is null; or it stays valid as long as it is the socket's user data, and the new
///   callbacks are fit for it.
unsafe fn set_callbacks(
    sk: *mut bindings::sock,
    callbacks: &sys::socklnd_sk_callbacks,
    hook: *const Hook,
) {
    // SAFETY: The socket is valid, by our requirement.
    unsafe { sys::socklnd_helper_sk_callback_write_lock_bh(sk) };
    // SAFETY: The lock is held.
    unsafe { sys::socklnd_helper_sk_set_user_data(sk, hook.cast_mut().cast()) };
    // SAFETY: The lock is held. Callbacks that find no hook do nothing, so those that wait for the lock
    // are harmless.
    unsafe { sys::socklnd_helper_sk_set_callbacks(sk, callbacks) };
    // SAFETY: The lock is held.
    unsafe { sys::socklnd_helper_sk_callback_write_unlock_bh(sk) };
}

/// A socket whose events call the callbacks of a `T`. Dropping it unhooks the socket and aborts the
/// connection; may sleep.
///
/// # Invariants
///
/// The socket is hooked for `T`.
///
/// # Examples
///
/// ```
/// use kernel::sync::{Arc, ArcBorrow};
/// use crate::lib_linux::{netns::Net, socket::Family};
///
/// struct Ignore;
///
/// impl SocketEvents for Ignore {
///     fn data_ready(_this: ArcBorrow<'_, Self>) {}
///     fn write_space(_this: ArcBorrow<'_, Self>) {}
///     fn state_change(_this: ArcBorrow<'_, Self>) {}
/// }
///
/// let socket = Socket::new_tcp(&Net::current(), Family::Inet)?;
/// let hooked = socket.hook(Arc::new(Ignore, GFP_KERNEL)?);
/// hooked.set_nodelay(true);
/// let socket = hooked.unhook();
/// assert!(socket.nodelay());
/// # Ok::<(), Error>(())
/// ```
pub(crate) struct HookedSocket<T: SocketEvents> {
    socket: ManuallyDrop<Socket>,
    _events: PhantomData<Arc<T>>,
}

impl Socket {
    /// Calls the callbacks of `events` from now on. Thread context.
    ///
    /// Earlier events are not repeated, so the caller has to check the socket's state afterwards.
    pub(crate) fn hook<T: SocketEvents>(mut self, events: Arc<T>) -> HookedSocket<T> {
        let callbacks = sys::socklnd_sk_callbacks {
            data_ready: Some(data_ready::<T>),
            write_space: Some(write_space::<T>),
            state_change: Some(state_change::<T>),
        };
        // INVARIANT: From here on the socket is hooked for `T`.
        self.hook.target = Some(Target::new(events));
        // SAFETY: By the type invariants the socket is valid. The hook is boxed, and lives until
        // after `unhook_in_place`; the callbacks are those for `T`.
        unsafe { set_callbacks(self.sk(), &callbacks, &raw const *self.hook) };
        // INVARIANT: Hooked above.
        HookedSocket {
            socket: ManuallyDrop::new(self),
            _events: PhantomData,
        }
    }
}

impl<T: SocketEvents> HookedSocket<T> {
    /// Ends the callbacks. When this returns, none for the `T` is running, and none will run for
    /// it. May drop the last reference to the `T`. Thread context, and not from a callback.
    pub(crate) fn unhook(self) -> Socket {
        let mut this = ManuallyDrop::new(self);
        this.unhook_in_place();
        // SAFETY: The field is not used after this.
        unsafe { ManuallyDrop::take(&mut this.socket) }
    }

    /// To be called once; afterwards only the field `socket` may be used.
    fn unhook_in_place(&mut self) {
        let socket = &mut *self.socket;
        // SAFETY: By the type invariants the socket is valid and claimed, and the originals are TCP's.
        unsafe { set_callbacks(socket.sk(), &socket.hook.originals, ptr::null()) };
        // INVARIANT: From here on the socket is not hooked.
        if let Some(target) = socket.hook.target.take() {
            // SAFETY: By the type invariants the socket was hooked for `T`.
            drop(unsafe { target.into_events::<T>() });
        }
    }
}

impl<T: SocketEvents> Deref for HookedSocket<T> {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl<T: SocketEvents> Drop for HookedSocket<T> {
    fn drop(&mut self) {
        self.unhook_in_place();
        // SAFETY: The field is not used after this.
        unsafe { ManuallyDrop::drop(&mut self.socket) };
    }
}

/// Calls `f` with the socket's hook and the `T` that it is for.
///
/// Does nothing if the socket is not hooked; or not for a `T`, which happens if it was unhooked and
/// hooked again after the callback was entered. Such an event is not lost: after [`Socket::hook`] the
/// caller checks the socket's state.
///
/// # Safety
///
/// Called by a callback of `sk`.
unsafe fn with_hook<T: SocketEvents>(
    sk: *mut bindings::sock,
    f: impl FnOnce(&Hook, ArcBorrow<'_, T>),
) {
    // SAFETY: A socket whose callback runs is valid.
    unsafe { sys::socklnd_helper_sk_callback_read_lock_bh(sk) };
    // SAFETY: The lock is held.
    let hook = unsafe { sys::socklnd_helper_sk_user_data(sk) }.cast::<Hook>();
    // SAFETY: Null, or put there by `Socket::hook`: what others put there, who take a socket that was
    // released, has other flags. In that case the hook is neither changed nor freed before the lock has
    // been held for writing, to unhook.
    if let Some(hook) = unsafe { hook.as_ref() } {
        if let Some(events) = hook.target.as_ref().and_then(Target::get::<T>) {
            f(hook, events);
        }
    }
    // SAFETY: The lock is held.
    unsafe { sys::socklnd_helper_sk_callback_read_unlock_bh(sk) };
}

/// `sk_data_ready`.
///
/// # Safety
///
/// Called by TCP for a socket that [`Socket::hook`] has given this callback.
unsafe extern "C" fn data_ready<T: SocketEvents>(sk: *mut bindings::sock) {
    // SAFETY: We are a callback of `sk`.
    unsafe { with_hook::<T>(sk, |_, events| T::data_ready(events)) };
}

/// `sk_write_space`.
///
/// # Safety
///
/// As [`data_ready`].
unsafe extern "C" fn write_space<T: SocketEvents>(sk: *mut bindings::sock) {
    let f = |hook: &Hook, events: ArcBorrow<'_, T>| {
        // TCP's own callback clears `SOCK_NOSPACE` if there is room.
        if let Some(original) = hook.originals.write_space {
            // SAFETY: This is what TCP would have called.
            unsafe { original(sk) };
        }
        // SAFETY: A socket whose callback runs is valid.
        if unsafe { sys::socklnd_helper_sk_stream_is_writeable(sk) } {
            T::write_space(events);
        }
    };
    // SAFETY: We are a callback of `sk`.
    unsafe { with_hook::<T>(sk, f) };
}

/// `sk_state_change`.
///
/// # Safety
///
/// As [`data_ready`].
unsafe extern "C" fn state_change<T: SocketEvents>(sk: *mut bindings::sock) {
    // SAFETY: We are a callback of `sk`.
    unsafe { with_hook::<T>(sk, |_, events| T::state_change(events)) };
}
