// SPDX-License-Identifier: GPL-2.0

//! Interfaces: the addresses of this node that an interface instance publishes and listens on.
//!
//! The first is that of the NID and lives as long as its [`Ni`](crate::ni::Ni); administrators add others. One whose
//! address the kernel takes away stays, and waits for it: nothing uses it meanwhile, and its listener
//! is heard of again when the address is back. What the kernel says of addresses is only a reason to
//! look: one may be there twice, or be back already.
//!
//! An [`Interface`] is shared by [`Arc`] between the list of its interface instance, and the peers and routes that
//! use it, which it counts. The list has a spinlock, taken inside a peer's; the rest is constant or
//! atomic. Who is taken out of the list leaves its listener; the last user frees it.

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
    }, //
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
        SpinLock, //
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

/// An address of this node.
pub(crate) struct Interface {
    addr: IpAddr,
    /// Leading bits of the address that it has in common with its neighbours, if an administrator has
    /// said that.
    configured_len: Option<u8>,
    /// The same, as the kernel said when it was last asked.
    kernel_len: Atomic<u32>,
    npeers: Atomic<i32>,
    nroutes: Atomic<i32>,
    /// The node had the address when it was last looked for. Who uses an address looks at this after
    /// he is found among its users; who takes it away clears it before he looks for them.
    there: Atomic<bool>,
    /// Something may have happened to the address since then.
    changed: Atomic<bool>,
}

/// What a look at an interface's address found.
pub(crate) enum Change {
    /// What was known before.
    None,
    /// The node does not have the address any more.
    Gone,
    /// The node has it again.
    Back,
}

/// What an administrator is told about an interface.
pub(crate) struct InterfaceInfo {
    pub(crate) addr: IpAddr,
    pub(crate) prefix_len: u8,
    /// An administrator has said how long the prefix is.
    pub(crate) is_prefix_configured: bool,
    /// It waits for its address.
    pub(crate) waits: bool,
    /// Peers that were told this address.
    pub(crate) npeers: u32,
    /// Routes that connect from this address.
    pub(crate) nroutes: u32,
}

impl Interface {
    /// The address.
    pub(crate) fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Peers that were told the address.
    pub(crate) fn npeers(&self) -> i32 {
        self.npeers.load(Relaxed)
    }

    /// Routes that connect from the address.
    pub(crate) fn nroutes(&self) -> i32 {
        self.nroutes.load(Relaxed)
    }

    /// Whether the node has the address.
    fn is_there(&self) -> bool {
        self.there.load(Relaxed)
    }

    fn prefix_len(&self) -> u8 {
        let kernel_len = || u8::try_from(self.kernel_len.load(Relaxed)).unwrap_or(u8::MAX);
        self.configured_len.unwrap_or_else(kernel_len)
    }

    /// Whether `addr` is in its subnet.
    fn is_near(&self, addr: IpAddr) -> bool {
        select::same_subnet(self.addr, addr, self.prefix_len())
    }

    /// Looks in `net` what has become of the address, if something may have happened to it, or if it
    /// is waited for: of an IPv6 address that has to be looked for elsewhere first, no event says that
    /// it can be used. The reaper's thread.
    pub(crate) fn refresh(&self, net: &Net) -> Change {
        let was_there = self.is_there();
        // Before the look: what happens from now on is for the next.
        let changed = self.changed.xchg(false, Full);
        if was_there && !changed {
            return Change::None;
        }
        let kernel_len = inetaddr::prefix_len(net, self.addr);
        if let Some(len) = kernel_len {
            self.kernel_len.store(len.into(), Relaxed);
        }
        let is_local = inetaddr::is_local(net, self.addr);
        // One that is still being looked for elsewhere can't be bound to, and yet it is not gone.
        let is_there = is_local || was_there && kernel_len.is_some();
        self.there.store(is_there, Relaxed);
        match (was_there, is_there) {
            (true, false) => Change::Gone,
            (false, true) => Change::Back,
            _ => Change::None,
        }
    }
}

/// A peer was told the address of this interface.
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

/// A route connects from the address of this interface.
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

/// An interface, and where its connections come in.
struct Entry<U: User> {
    interface: Arc<Interface>,
    listener: Arc<Listener<U>>,
}

struct Inner<U: User> {
    list: KVec<Entry<U>>,
    /// The interface instance goes: none is added any more.
    closed: bool,
}

/// The interfaces of an interface instance, which is a `U`; the first is that of its NID.
#[pin_data]
pub(crate) struct Interfaces<U: User> {
    #[pin]
    inner: SpinLock<Inner<U>>,
}

impl<U: User> Interfaces<U> {
    /// None.
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

    /// Has `user` listen on `addr`, and adds it. Without a prefix length the kernel's own counts, as it changes.
    /// The reaper is to look at it soon: who takes the address away at this moment is not heard. May
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
        let listener = acceptor.listen(user, addr)?;
        let new = Interface {
            addr,
            configured_len: prefix_len,
            kernel_len: Atomic::new(kernel_len.unwrap_or(longest).into()),
            npeers: Atomic::new(0),
            nroutes: Atomic::new(0),
            there: Atomic::new(true),
            changed: Atomic::new(true),
        };
        let added = Arc::new(new, GFP_KERNEL)
            .map_err(Error::from)
            .and_then(|new| self.insert(new, listener.clone()));
        match added {
            // What was changed meanwhile passed it by.
            Ok(()) => listener.apply_tunables(),
            Err(_) => acceptor.leave(&listener, user),
        }
        added
    }

    fn insert(&self, interface: Arc<Interface>, listener: Arc<Listener<U>>) -> Result {
        let mut inner = self.inner.lock();
        inner.check(interface.addr)?;
        let new = Entry {
            interface,
            listener,
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
            // There is room for as many as there can be.
            let _ = listeners.push_within_capacity(entry.listener.clone());
        }
        for listener in listeners.iter() {
            listener.apply_tunables();
        }
        Ok(())
    }

    /// Takes one out that matches, but for that of the NID, and stops listening there for `user`, whose
    /// it is. May sleep.
    pub(crate) fn take(
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
        acceptor.leave(&taken.listener, user);
        Some(taken.interface)
    }

    /// Takes all out, stops listening for `user`, whose they are, and lets none be added any more. May
    /// sleep.
    pub(crate) fn close(&self, acceptor: &Acceptor<U>, user: &U) {
        let list = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            core::mem::replace(&mut inner.list, KVec::new())
        };
        for entry in list.iter() {
            acceptor.leave(&entry.listener, user);
        }
    }

    /// The one with this address, unless it waits for it. Thread context, a peer's lock may be held.
    pub(crate) fn find(&self, addr: IpAddr) -> Option<Arc<Interface>> {
        self.position(|i| i.addr == addr)
    }

    /// The first one in whose subnet `addr` is, and whose own address matches. Thread context, a peer's lock
    /// may be held.
    pub(crate) fn near(
        &self,
        addr: IpAddr,
        matching: impl Fn(IpAddr) -> bool,
    ) -> Option<Arc<Interface>> {
        self.position(|i| i.is_near(addr) && matching(i.addr))
    }

    /// The first one of the family of `addr`. Thread context, a peer's lock may be held.
    pub(crate) fn of_family(&self, addr: IpAddr) -> Option<Arc<Interface>> {
        self.position(|i| i.addr.is_ipv6() == addr.is_ipv6())
    }

    /// Whether both addresses are in the subnet of one of them. Thread context.
    pub(crate) fn join(&self, a: IpAddr, b: IpAddr) -> bool {
        self.position(|i| i.is_near(a) && i.is_near(b)).is_some()
    }

    /// The first that matches, of those that don't wait for their address.
    fn position(&self, matching: impl Fn(&Interface) -> bool) -> Option<Arc<Interface>> {
        let inner = self.inner.lock();
        let mut there = inner.interfaces().filter(|i| i.is_there());
        there.find(|i| matching(i)).cloned()
    }

    /// Notes that something may have happened to `addr`. Returns whether it is one of these. Thread
    /// context; does not sleep.
    pub(crate) fn note_change(&self, addr: IpAddr) -> bool {
        let inner = self.inner.lock();
        // No reference is taken: giving it back might sleep.
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

    /// Calls `f` for each that does not wait for its address, under the list's lock.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Arc<Interface>)) {
        let inner = self.inner.lock();
        for interface in inner.interfaces().filter(|i| i.is_there()) {
            f(interface);
        }
    }

    /// What an administrator is told. May sleep.
    pub(crate) fn info(&self) -> Result<KVec<InterfaceInfo>> {
        let mut all = KVec::with_capacity(MAX_INTERFACES, GFP_KERNEL)?;
        for interface in self.inner.lock().interfaces() {
            let count = |n: &Atomic<i32>| u32::try_from(n.load(Relaxed)).unwrap_or(0);
            // There is room for as many as there can be.
            let _ = all.push_within_capacity(InterfaceInfo {
                addr: interface.addr,
                prefix_len: interface.prefix_len(),
                is_prefix_configured: interface.configured_len.is_some(),
                waits: !interface.is_there(),
                npeers: count(&interface.npeers),
                nroutes: count(&interface.nroutes),
            });
        }
        Ok(all)
    }

    /// For the choice among them: their IPv4 addresses, with what `users` says of each.
    pub(crate) fn candidates(&self, users: impl Fn(&Interface) -> Option<i32>) -> Candidates {
        let mut candidates = Candidates::new();
        self.for_each(|interface| {
            if let (IpAddr::V4(addr), Some(users)) = (interface.addr, users(interface)) {
                candidates.push(Candidate {
                    addr,
                    prefix_len: interface.prefix_len(),
                    users,
                });
            }
        });
        candidates
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
