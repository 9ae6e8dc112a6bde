// SPDX-License-Identifier: GPL-2.0

//! Network namespaces.
//!
//! A [`Net`] keeps the C object allocated, but not the namespace alive: it holds a *passive*
//! reference, as kernel sockets do. When the namespace dies, [`PernetHandler::exit`] is called.
//!
//! An object that must not outlive the namespace holds a [`NetUser`]. Each namespace counts them:
//! after the handler has returned, the end of the namespace waits until the count is zero. The count
//! is in the memory that the kernel allocates for us with each namespace (`net_generic`), and frees
//! after that; RCU protects the access to it against the end of the [`PernetRegistration`].
//!
//! C header: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h)

use super::sys;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        rcu, //
    },
    time::msecs_to_jiffies,
    types::Opaque, //
};

/// Milliseconds between two log lines that say that the end of a namespace waits for its users.
const NAG_MS: u32 = 10_000;

/// A reference to a network namespace, which may be dead.
///
/// # Invariants
///
/// Points to a `struct net`, of which we hold a passive reference.
///
/// # Examples
///
/// ```
/// let net = Net::current();
/// assert!(net == net.clone());
/// assert!(net.capable_net_admin());
/// assert!(net.inode() != 0);
/// ```
pub(crate) struct Net(NonNull<bindings::net>);

// SAFETY: The reference count is atomic, and the pointer is valid in every thread.
unsafe impl Send for Net {}

// SAFETY: All methods may be called by several threads at once.
unsafe impl Sync for Net {}

impl Net {
    /// The namespace of the current thread. Thread context.
    pub(crate) fn current() -> Self {
        // SAFETY: Thread context, so there is a current task.
        let net = unsafe { sys::socklnd_helper_current_net() };
        // SAFETY: The current thread keeps its own namespace alive. A thread that has none gets the
        // initial namespace, which always exists.
        unsafe { Self::from_raw(net) }
    }

    /// Takes a passive reference to a namespace. Any context.
    ///
    /// # Examples
    ///
    /// ```
    /// let net = Net::current();
    /// // SAFETY: `net` is a reference.
    /// let again = unsafe { Net::from_raw(net.as_ptr()) };
    /// assert!(again == net);
    /// ```
    ///
    /// # Safety
    ///
    /// `net` must point to a `struct net` to which there is a reference, passive or not, during the
    /// call.
    pub(crate) unsafe fn from_raw(net: *mut bindings::net) -> Self {
        // SAFETY: As this function's own requirement.
        unsafe { sys::socklnd_helper_net_passive_inc(net) };
        // INVARIANT: The reference was taken above.
        // SAFETY: Not null, by this function's requirement.
        Self(unsafe { NonNull::new_unchecked(net) })
    }

    /// The C object.
    pub(super) fn as_ptr(&self) -> *mut bindings::net {
        self.0.as_ptr()
    }

    /// Whether the current thread has `CAP_NET_ADMIN` in the user namespace that owns this one. False
    /// if the namespace is dead. Thread context.
    pub(crate) fn capable_net_admin(&self) -> bool {
        // A dead namespace has dropped its reference to the user namespace.
        self.get_alive().is_some_and(|alive| {
            // SAFETY: The namespace is alive, and so is the user namespace that it belongs to.
            unsafe { sys::socklnd_helper_net_admin_capable(alive.0.as_ptr()) }
        })
    }

    /// The number by which user space knows the namespace, as in `/proc/self/ns/net`. Any context.
    pub(crate) fn inode(&self) -> u32 {
        // SAFETY: By the type invariants the object is there; the number never changes.
        unsafe { sys::socklnd_helper_net_inum(self.as_ptr()) }
    }

    /// Takes a counting reference for as long as the result exists; `None` if the namespace is dying or
    /// dead. Any context.
    pub(super) fn get_alive(&self) -> Option<AliveNet<'_>> {
        // SAFETY: By the type invariants the object is there.
        let alive = unsafe { sys::socklnd_helper_maybe_get_net(self.as_ptr()) };
        // Not `then_some`, which would make an `AliveNet` in any case, and drop a reference that was
        // not taken.
        // INVARIANT: The reference was taken if the result is true.
        alive.then(|| AliveNet(self))
    }
}

impl Clone for Net {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariants we have a reference.
        unsafe { Self::from_raw(self.as_ptr()) }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours.
        unsafe { sys::socklnd_helper_net_passive_dec(self.as_ptr()) };
    }
}

impl PartialEq for Net {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Net {}

/// A namespace that can't die while this exists.
///
/// # Invariants
///
/// We hold a reference to the namespace.
pub(super) struct AliveNet<'a>(&'a Net);

impl Drop for AliveNet<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours.
        unsafe { sys::socklnd_helper_put_net(self.0.as_ptr()) };
    }
}

/// The data that this module has with each namespace.
#[repr(C)]
struct PerNet {
    /// The [`NetUser`]s, and one more until [`PernetHandler::exit`] has returned.
    users: Atomic<i64>,
    /// Completed when `users` has become zero.
    unused: Opaque<bindings::completion>,
}

impl PerNet {
    fn put(&self) {
        // `Full`: whatever the users did happens before the namespace's end goes on.
        if self.users.fetch_sub(1, Full) == 1 {
            // SAFETY: Initialised by `init_net`, and there until the one that waits has seen this.
            unsafe { bindings::complete(self.unused.get()) };
        }
    }
}

/// Whether there is a [`PernetRegistration`], or one is being made.
static TAKEN: Atomic<bool> = Atomic::new(false);

/// Whether namespaces have their [`PerNet`], and its number is in [`ID`].
static REGISTERED: Atomic<bool> = Atomic::new(false);

/// The number under which a namespace finds its [`PerNet`].
static ID: Atomic<u32> = Atomic::new(0);

/// A reference that the end of the namespace waits for.
///
/// # Invariants
///
/// `per_net` is that of `net`. We are counted in it, so it is there.
pub(super) struct NetUser {
    net: Net,
    per_net: NonNull<PerNet>,
}

// SAFETY: `PerNet` consists of an atomic and of what C may use from any thread.
unsafe impl Send for NetUser {}

// SAFETY: As above.
unsafe impl Sync for NetUser {}

impl NetUser {
    /// Becomes a user of the namespace. Any context.
    ///
    /// # Errors
    ///
    /// - `ESHUTDOWN` if there is no [`PernetRegistration`].
    /// - `ENETDOWN` if the namespace is dying or dead.
    pub(super) fn new(net: &Net) -> Result<Self> {
        let _guard = rcu::read_lock();
        // Pairs with the `Release` in `PernetRegistration::new`: if the flag is seen, so is the number.
        if !REGISTERED.load(Acquire) {
            return Err(ESHUTDOWN);
        }
        let alive = net.get_alive().ok_or(ENETDOWN)?;
        let id = ID.load(Relaxed);
        // SAFETY: The namespace is alive, and the number is registered: `PernetRegistration::drop`
        // waits, between clearing the flag and giving up the number, until nobody is in here.
        let per_net = unsafe { sys::socklnd_helper_net_generic(net.as_ptr(), id) };
        let per_net = NonNull::new(per_net.cast::<PerNet>()).ok_or(ESHUTDOWN)?;
        // SAFETY: Allocated and initialised with the namespace, which is alive.
        let users = unsafe { &per_net.as_ref().users };
        // Not zero before: the namespace is alive, so the handler has not even been called; or the
        // registration ends, but that waits for us first.
        users.add(1, Relaxed);
        drop(alive);
        // INVARIANT: Counted above.
        Ok(Self {
            net: net.clone(),
            per_net,
        })
    }

    /// The namespace.
    pub(super) fn net(&self) -> &Net {
        &self.net
    }
}

impl Clone for NetUser {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariants it is there.
        unsafe { self.per_net.as_ref() }.users.add(1, Relaxed);
        // INVARIANT: Counted above.
        Self {
            net: self.net.clone(),
            per_net: self.per_net,
        }
    }
}

impl Drop for NetUser {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is there.
        unsafe { self.per_net.as_ref() }.put();
    }
}

/// What is called when a namespace dies, see [`PernetRegistration`].
///
/// # Examples
///
/// ```
/// use kernel::sync::atomic::{Atomic, Relaxed};
///
/// static ENDED: Atomic<u32> = Atomic::new(0);
///
/// struct Ended;
///
/// impl PernetHandler for Ended {
///     fn exit(net: &Net) {
///         ENDED.store(net.inode(), Relaxed);
///     }
/// }
///
/// let net = Net::current();
/// Ended::exit(&net);
/// assert_eq!(ENDED.load(Relaxed), net.inode());
/// ```
pub(crate) trait PernetHandler: 'static {
    /// The namespace dies, or the registration ends, or fails for lack of memory after it has begun.
    ///
    /// All sockets in the namespace have to be closed, by this function or by others after it: the end
    /// of the namespace waits for that. Its devices and addresses still exist. May sleep; the ends of
    /// other namespaces wait meanwhile.
    fn exit(net: &Net);
}

/// A registration of a [`PernetHandler`]. Sockets can only be made while there is one.
///
/// Dropping it calls the handler for every namespace, and waits until there are no sockets in any of
/// them; may sleep.
///
/// # Invariants
///
/// `ops` is registered.
///
/// # Examples
///
/// ```
/// struct CloseSockets;
///
/// impl PernetHandler for CloseSockets {
///     fn exit(_net: &Net) {}
/// }
///
/// // There can be only one, and the driver has it.
/// assert_eq!(PernetRegistration::<CloseSockets>::new().err(), Some(EBUSY));
/// ```
#[must_use]
pub(crate) struct PernetRegistration<H> {
    ops: Pin<KBox<Opaque<bindings::pernet_operations>>>,
    _handler: PhantomData<fn(H)>,
}

// SAFETY: Any thread may end the registration.
unsafe impl<H> Send for PernetRegistration<H> {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl<H> Sync for PernetRegistration<H> {}

impl<H: PernetHandler> PernetRegistration<H> {
    /// Registers the handler. May sleep.
    ///
    /// # Errors
    ///
    /// - `EBUSY` if there is a registration already.
    /// - `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        if TAKEN.cmpxchg(false, true, Acquire).is_err() {
            return Err(EBUSY);
        }
        Self::register().inspect_err(|_| TAKEN.store(false, Release))
    }

    fn register() -> Result<Self> {
        let ops = bindings::pernet_operations {
            init: Some(init_net),
            exit: Some(exit_net::<H>),
            id: ID.as_ptr().cast(),
            size: size_of::<PerNet>(),
            ..Default::default()
        };
        let ops = KBox::pin(Opaque::new(ops), GFP_KERNEL)?;
        // SAFETY: `ops` stays where it is until it is unregistered. Only we, being the only ones,
        // have the kernel write to `ID`.
        to_result(unsafe { bindings::register_pernet_device(ops.get()) })?;
        // Pairs with the `Acquire` in `NetUser::new`.
        REGISTERED.store(true, Release);
        // INVARIANT: Registered above.
        Ok(Self {
            ops,
            _handler: PhantomData,
        })
    }
}

impl<H> Drop for PernetRegistration<H> {
    fn drop(&mut self) {
        REGISTERED.store(false, Relaxed);
        // Waits for `NetUser::new`, if it has seen the flag.
        rcu::synchronize_rcu();
        // SAFETY: By the type invariants it is registered.
        unsafe { bindings::unregister_pernet_device(self.ops.get()) };
        TAKEN.store(false, Release);
    }
}

/// `pernet_operations.init`: a namespace is made, or the registration begins.
///
/// # Safety
///
/// Called by the kernel, with the `PerNet` of `net` allocated and zeroed.
unsafe extern "C" fn init_net(net: *mut bindings::net) -> c_int {
    // SAFETY: By this function's requirement `net` is a namespace which has our data; the kernel
    // has written its number to `ID` before.
    let per_net = unsafe { sys::socklnd_helper_net_generic(net, ID.load(Relaxed)) };
    let Some(per_net) = NonNull::new(per_net.cast::<PerNet>()) else {
        return ENOMEM.to_errno();
    };
    // SAFETY: By this function's requirement it is allocated and zeroed, which both fields allow.
    let per_net = unsafe { per_net.as_ref() };
    // SAFETY: Nobody uses it yet.
    unsafe { bindings::init_completion(per_net.unused.get()) };
    per_net.users.store(1, Relaxed);
    0
}

/// `pernet_operations.exit`: a namespace dies, or the registration ends.
///
/// # Safety
///
/// Called by the kernel, once after each successful [`init_net`].
unsafe extern "C" fn exit_net<H: PernetHandler>(net: *mut bindings::net) {
    // SAFETY: The kernel holds a passive reference at least until we return.
    let net = unsafe { Net::from_raw(net) };
    // SAFETY: By this function's requirement the namespace has our data.
    let per_net = unsafe { sys::socklnd_helper_net_generic(net.as_ptr(), ID.load(Relaxed)) };
    let Some(per_net) = NonNull::new(per_net.cast::<PerNet>()) else {
        return;
    };
    // SAFETY: Initialised by `init_net`, and freed after we have returned.
    let per_net = unsafe { per_net.as_ref() };
    H::exit(&net);
    per_net.put();
    // SAFETY: Initialised by `init_net`.
    while unsafe {
        bindings::wait_for_completion_timeout(per_net.unused.get(), msecs_to_jiffies(NAG_MS))
    } == 0
    {
        super::ratelimit::pr_warn_ratelimited!(
            "network namespace {} waits for {} of its sockets\n",
            net.inode(),
            per_net.users.load(Relaxed)
        );
    }
}

#[kunit_tests(socklnd_lib_linux_netns)]
mod tests {
    use super::*;

    #[test]
    fn the_current_namespace() {
        let net = Net::current();
        assert!(net == Net::current().clone());
        assert!(net.inode() != 0);
        // Modules are inserted, and suites run, by root.
        assert!(net.capable_net_admin());
    }

    #[test]
    fn users_are_counted() -> Result {
        let user = NetUser::new(&Net::current())?;
        // SAFETY: We are counted.
        let users = unsafe { &user.per_net.as_ref().users };
        let before = users.load(Relaxed);
        let second = user.clone();
        assert_eq!(users.load(Relaxed), before + 1);
        drop(second);
        assert_eq!(users.load(Relaxed), before);
        Ok(())
    }

    #[test]
    fn one_registration_at_a_time() {
        struct Nobody;
        impl PernetHandler for Nobody {
            fn exit(_net: &Net) {}
        }
        assert!(matches!(PernetRegistration::<Nobody>::new(), Err(e) if e == EBUSY));
    }
}
