// SPDX-License-Identifier: GPL-2.0

//! Interfaces: the addresses of this node that an NI listens on and connects from.
//!
//! The first is the address in the NID, and exists as long as its [`Ni`](crate::ni::Ni); administrators add
//! others. An interface whose address is removed from the node stays and waits for it. It is not used meanwhile,
//! and its listener can accept again when the address is back. The kernel's events about addresses are only
//! hints to check: an address may be there twice, or be back already.
//!
//! An [`Interface`] is shared by [`Arc`] between its NI's list, and the peers and routes that use it, which it
//! counts. The list has a spinlock, taken inside a peer's; the rest is constant or atomic. An interface that is
//! taken out of the list stops listening; the last reference frees it.

mod select;

use crate::{
    acceptor::{
        Acceptor,
        Listener,
        User, //
    },
    lib_linux::{
        inetaddr,
        netns::Net, //
    },
    tunables, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        new_spinlock,
        Arc,
        SpinLock,
        SpinLockGuard, //
    }, //
};

use self::select::{
    Candidate,
    Candidates, //
};

pub(crate) use self::select::{
    select_ips,
    select_local,
    MAX_INTERFACES, //
};

/// An address of this node that an NI uses.
pub(crate) struct Interface {
    addr: IpAddr,
    /// The length of its prefix, if an administrator has set it.
    configured_len: Option<u8>,
    /// The length of its prefix in the kernel, as of the last check.
    kernel_len: Atomic<u32>,
    npeers: Atomic<i32>,
    nroutes: Atomic<i32>,
    /// The node had the address at the last check. Code that begins to use an address reads this after it is
    /// found among the users; code that removes the address clears it before it looks for users.
    present: Atomic<bool>,
    /// The address may have changed since then.
    changed: Atomic<bool>,
}

/// The result of a check of an interface's address.
pub(crate) enum Change {
    /// No change.
    None,
    /// The node no longer has the address.
    Gone,
    /// The node has it again.
    Back,
}

/// An interface, as listed for administrators.
pub(crate) struct InterfaceInfo {
    pub(crate) addr: IpAddr,
    pub(crate) prefix_len: u8,
    /// An administrator has set the length of the prefix.
    pub(crate) is_prefix_configured: bool,
    /// It waits for its address.
    pub(crate) waits: bool,
    /// Peers whose HELLO from this node had this address.
    pub(crate) npeers: u32,
    /// Routes that connect from this address.
    pub(crate) nroutes: u32,
}

impl Interface {
    /// The address.
    pub(crate) fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Peers whose HELLO from this node had the address.
    pub(crate) fn npeers(&self) -> i32 {
        self.npeers.load(Relaxed)
    }

    /// Routes that connect from the address.
    pub(crate) fn nroutes(&self) -> i32 {
        self.nroutes.load(Relaxed)
    }

    /// Whether the node has the address.
    fn is_present(&self) -> bool {
        self.present.load(Relaxed)
    }

    fn prefix_len(&self) -> u8 {
        let kernel_len = || u8::try_from(self.kernel_len.load(Relaxed)).unwrap_or(u8::MAX);
        self.configured_len.unwrap_or_else(kernel_len)
    }

    /// Whether `addr` is in its subnet.
    fn is_in_subnet(&self, addr: IpAddr) -> bool {
        select::same_subnet(self.addr, addr, self.prefix_len())
    }

    /// Checks in `net` whether the address exists, if it may have changed or if the interface waits for it: no
    /// event reports when an IPv6 address has passed duplicate address detection. The reaper's thread.
    pub(crate) fn refresh(&self, net: &Net) -> Change {
        let was_present = self.is_present();
        // Before the check: changes from now on are for the next one.
        let changed = self.changed.xchg(false, Full);
        if was_present && !changed {
            return Change::None;
        }
        let kernel_len = inetaddr::prefix_len(net, self.addr);
        if let Some(len) = kernel_len {
            self.kernel_len.store(len.into(), Relaxed);
        }
        let is_local = inetaddr::is_local(net, self.addr);
        // An address in duplicate address detection can't be bound to, but it is not gone.
        let is_present = is_local || was_present && kernel_len.is_some();
        self.present.store(is_present, Relaxed);
        match (was_present, is_present) {
            (true, false) => Change::Gone,
            (false, true) => Change::Back,
            _ => Change::None,
        }
    }
}

/// A peer whose HELLO from this node had the address of this interface.
pub(crate) struct PeerUse(Arc<Interface>);

impl PeerUse {
    /// Counts one peer, until this is dropped.
    pub(crate) fn new(interface: Arc<Interface>) -> Self {
        interface.npeers.add(1, Relaxed);
        Self(interface)
    }

    /// The address.
    pub(crate) fn addr(&self) -> IpAddr {
        self.0.addr
    }
}

impl Drop for PeerUse {
    fn drop(&mut self) {
        self.0.npeers.add(-1, Relaxed);
    }
}

/// A route that connects from the address of this interface.
pub(crate) struct RouteUse(Arc<Interface>);

impl RouteUse {
    /// Counts one route, until this is dropped.
    pub(crate) fn new(interface: Arc<Interface>) -> Self {
        interface.nroutes.add(1, Relaxed);
        Self(interface)
    }

    /// The address.
    pub(crate) fn addr(&self) -> IpAddr {
        self.0.addr
    }
}

impl Drop for RouteUse {
    fn drop(&mut self) {
        self.0.nroutes.add(-1, Relaxed);
    }
}

/// Where an NI listens on one of its addresses.
struct Listeners<U: User> {
    /// For connections of all kinds.
    any: Arc<Listener<U>>,
    /// For those for bulk, if they have a port of their own.
    bulk: Option<Arc<Listener<U>>>,
}

impl<U: User> Listeners<U> {
    /// Makes `user` listen on `addr`. May sleep.
    ///
    /// # Errors
    ///
    /// Those of [`Acceptor::listen`].
    fn open(acceptor: &Arc<Acceptor<U>>, user: &Arc<U>, addr: IpAddr) -> Result<Self> {
        let any = acceptor.listen(user, addr, tunables::port())?;
        let bulk = match tunables::bulk_port() {
            None => None,
            Some(port) => match acceptor.listen(user, addr, port) {
                Ok(bulk) => Some(bulk),
                Err(e) => {
                    acceptor.stop_listening(&any, user);
                    return Err(e);
                }
            },
        };
        Ok(Self { any, bulk })
    }

    /// Ends that `user` listens there. May sleep.
    fn close(&self, acceptor: &Acceptor<U>, user: &U) {
        for listener in [Some(&self.any), self.bulk.as_ref()].into_iter().flatten() {
            acceptor.stop_listening(listener, user);
        }
    }

    /// Applies the tunables that may change during a listener's life. May sleep.
    fn apply_tunables(&self) {
        for listener in [Some(&self.any), self.bulk.as_ref()].into_iter().flatten() {
            listener.apply_tunables();
        }
    }
}

impl<U: User> Clone for Listeners<U> {
    fn clone(&self) -> Self {
        Self {
            any: self.any.clone(),
            bulk: self.bulk.clone(),
        }
    }
}

/// An interface and its listeners.
struct Entry<U: User> {
    interface: Arc<Interface>,
    listeners: Listeners<U>,
}

struct Inner<U: User> {
    list: KVec<Entry<U>>,
    /// The NI is shut down: no more can be added.
    closed: bool,
}

/// The interfaces of an NI, which is a `U`; the first is that of its NID.
#[pin_data]
pub(crate) struct Interfaces<U: User> {
    #[pin]
    inner: SpinLock<Inner<U>>,
}

impl<U: User> Interfaces<U> {
    /// An empty list.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock!(
                Inner {
                    list: KVec::new(),
                    closed: false,
                },
                "socklnd_interfaces"
            ),
        })
    }

    /// Makes `user` listen on `addr`, and adds it. Without a prefix length the kernel's current one is used. The
    /// caller makes the reaper check it soon, because a removal of the address at this moment is missed. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOSPC` if there are as many as a HELLO can name, `EINVAL` for an impossible
    /// prefix length, `ESHUTDOWN`, and those of [`Acceptor::listen`].
    ///
    /// [`Acceptor::listen`]: crate::acceptor::Acceptor::listen
    pub(crate) fn add(
        &self,
        acceptor: &Arc<Acceptor<U>>,
        user: &Arc<U>,
        addr: IpAddr,
        prefix_len: Option<u8>,
    ) -> Result {
        let longest = if addr.is_ipv4() { 32 } else { 128 };
        if prefix_len.is_some_and(|len| len > longest) {
            return Err(EINVAL);
        }
        self.check(addr)?;
        let kernel_len = inetaddr::prefix_len(user.net(), addr);
        let listeners = Listeners::open(acceptor, user, addr)?;
        let new = Interface {
            addr,
            configured_len: prefix_len,
            kernel_len: Atomic::new(kernel_len.unwrap_or(longest).into()),
            npeers: Atomic::new(0),
            nroutes: Atomic::new(0),
            present: Atomic::new(true),
            changed: Atomic::new(true),
        };
        let added = Arc::new(new, GFP_KERNEL)
            .map_err(Error::from)
            .and_then(|new| self.insert(new, listeners.clone()));
        match added {
            // Tunables may have changed meanwhile.
            Ok(()) => listeners.apply_tunables(),
            Err(_) => listeners.close(acceptor, user),
        }
        added
    }

    fn insert(&self, interface: Arc<Interface>, listeners: Listeners<U>) -> Result {
        let mut inner = self.inner.lock();
        inner.check(interface.addr)?;
        let new = Entry {
            interface,
            listeners,
        };
        Ok(inner.list.push(new, GFP_ATOMIC)?)
    }

    /// Whether `addr` could be added.
    fn check(&self, addr: IpAddr) -> Result {
        self.inner.lock().check(addr)
    }

    /// Applies the tunables that may change during a listener's life. May sleep.
    pub(crate) fn apply_tunables(&self) -> Result {
        let mut listeners = KVec::with_capacity(MAX_INTERFACES, GFP_KERNEL)?;
        for entry in self.inner.lock().list.iter() {
            // There is room: the capacity is the limit on interfaces.
            let _ = listeners.push_within_capacity(entry.listeners.clone());
        }
        for listener in listeners.iter() {
            listener.apply_tunables();
        }
        Ok(())
    }

    /// Takes out one that matches, except that of the NID, and stops listening there for `user`, its NI. May
    /// sleep.
    pub(crate) fn remove(
        &self,
        acceptor: &Acceptor<U>,
        user: &U,
        matching: impl Fn(&Interface) -> bool,
    ) -> Option<Arc<Interface>> {
        let taken = {
            let mut inner = self.inner.lock();
            let at = inner
                .list
                .iter()
                .skip(1)
                .position(|e| matching(&e.interface))?;
            inner.list.remove(at + 1).ok()?
        };
        taken.listeners.close(acceptor, user);
        Some(taken.interface)
    }

    /// Takes out all, stops listening for `user`, their NI, and lets no more be added. May sleep.
    pub(crate) fn close(&self, acceptor: &Acceptor<U>, user: &U) {
        let list = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            core::mem::replace(&mut inner.list, KVec::new())
        };
        for entry in list.iter() {
            entry.listeners.close(acceptor, user);
        }
    }

    /// The one with this address, unless it waits for the address. Thread context, a peer's lock may be held.
    pub(crate) fn find(&self, addr: IpAddr) -> Option<Arc<Interface>> {
        self.find_present(|i| i.addr == addr)
    }

    /// The first one in whose subnet `addr` is and whose address matches. Thread context, a peer's lock may be
    /// held.
    pub(crate) fn find_in_subnet(
        &self,
        addr: IpAddr,
        matching: impl Fn(IpAddr) -> bool,
    ) -> Option<Arc<Interface>> {
        self.find_present(|i| i.is_in_subnet(addr) && matching(i.addr))
    }

    /// The first one with an address of the family of `addr`. Thread context, a peer's lock may be held.
    pub(crate) fn find_of_family(&self, addr: IpAddr) -> Option<Arc<Interface>> {
        self.find_present(|i| i.addr.is_ipv6() == addr.is_ipv6())
    }

    /// Whether both addresses are in the subnet of one interface. Thread context.
    pub(crate) fn share_subnet(&self, a: IpAddr, b: IpAddr) -> bool {
        self.find_present(|i| i.is_in_subnet(a) && i.is_in_subnet(b))
            .is_some()
    }

    /// The first that matches and does not wait for its address.
    fn find_present(&self, matching: impl Fn(&Interface) -> bool) -> Option<Arc<Interface>> {
        let inner = self.inner.lock();
        let mut there = inner.interfaces().filter(|i| i.is_present());
        there.find(|i| matching(i)).cloned()
    }

    /// Records that `addr` may have changed. Returns whether it is the address of an interface. Thread context;
    /// does not sleep.
    pub(crate) fn note_change(&self, addr: IpAddr) -> bool {
        let inner = self.inner.lock();
        // No reference is taken, because dropping it might sleep.
        let mut changed = inner.interfaces().filter(|i| i.addr == addr);
        changed.next().is_some_and(|interface| {
            interface.changed.store(true, Relaxed);
            true
        })
    }

    /// The `index`-th. Thread context.
    pub(crate) fn at(&self, index: usize) -> Option<Arc<Interface>> {
        let inner = self.inner.lock();
        Some(inner.list.get(index)?.interface.clone())
    }

    /// The list with its lock held. Thread context, a peer's lock may be held.
    pub(crate) fn lock(&self) -> LockedInterfaces<'_, U> {
        LockedInterfaces(self.inner.lock())
    }

    /// All interfaces, as listed for administrators. May sleep.
    pub(crate) fn info(&self) -> Result<KVec<InterfaceInfo>> {
        let mut all = KVec::with_capacity(MAX_INTERFACES, GFP_KERNEL)?;
        for interface in self.inner.lock().interfaces() {
            let count = |n: &Atomic<i32>| u32::try_from(n.load(Relaxed)).unwrap_or(0);
            // There is room: the capacity is the limit on interfaces.
            let _ = all.push_within_capacity(InterfaceInfo {
                addr: interface.addr,
                prefix_len: interface.prefix_len(),
                is_prefix_configured: interface.configured_len.is_some(),
                waits: !interface.is_present(),
                npeers: count(&interface.npeers),
                nroutes: count(&interface.nroutes),
            });
        }
        Ok(all)
    }

    /// Their IPv4 addresses as candidates for a choice, with the number that `users` returns for each.
    pub(crate) fn candidates(&self, users: impl Fn(&Interface) -> Option<i32>) -> Candidates {
        let mut candidates = Candidates::new();
        for interface in self.lock().present() {
            if let (IpAddr::V4(addr), Some(users)) = (interface.addr, users(interface)) {
                candidates.push(Candidate {
                    addr,
                    prefix_len: interface.prefix_len(),
                    users,
                });
            }
        }
        candidates
    }
}

/// The list of an NI's interfaces, with its lock held.
pub(crate) struct LockedInterfaces<'a, U: User>(SpinLockGuard<'a, Inner<U>>);

impl<U: User> LockedInterfaces<'_, U> {
    /// Those that do not wait for their address.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<Interface>> {
        self.0.interfaces().filter(|i| i.is_present())
    }
}

impl<U: User> Inner<U> {
    fn interfaces(&self) -> impl Iterator<Item = &Arc<Interface>> {
        self.list.iter().map(|entry| &entry.interface)
    }

    fn check(&self, addr: IpAddr) -> Result {
        if self.closed {
            Err(ESHUTDOWN)
        } else if self.interfaces().any(|i| i.addr == addr) {
            Err(EEXIST)
        } else if self.list.len() >= MAX_INTERFACES {
            Err(ENOSPC)
        } else {
            Ok(())
        }
    }
}
