// SPDX-License-Identifier: GPL-2.0

//! Interfaces: the addresses of this node that an interface instance publishes and listens on.
//!
//! The first is that of the NID and lives as long as its [`Ni`]; administrators add others. An
//! [`Interface`] is shared by [`Arc`] between the list of its [`Ni`], and the peers and routes that
//! use it, which it counts. The list has a spinlock, taken inside a peer's; the rest is constant or
//! atomic. Taking an interface out of the list closes its listener; the last user frees it.

mod select;

use crate::{
    acceptor::Listener,
    lib_linux::inetaddr,
    ni::Ni, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
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
    /// Leading bits of the address that it has in common with its neighbours.
    prefix_len: u8,
    listener: Arc<Listener>,
    npeers: Atomic<i32>,
    nroutes: Atomic<i32>,
    /// The kernel has taken the address away, and that has not been dealt with.
    lost: Atomic<bool>,
}

/// What an administrator is told about an interface.
pub(crate) struct InterfaceInfo {
    pub(crate) addr: IpAddr,
    pub(crate) prefix_len: u8,
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

    /// Whether `addr` is in its subnet.
    fn is_near(&self, addr: IpAddr) -> bool {
        select::same_subnet(self.addr, addr, self.prefix_len)
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

struct Inner {
    list: KVec<Arc<Interface>>,
    /// The [`Ni`] goes: none is added any more.
    closed: bool,
}

/// The interfaces of an [`Ni`]; the first is that of its NID.
#[pin_data]
pub(crate) struct Interfaces {
    #[pin]
    inner: SpinLock<Inner>,
}

impl Interfaces {
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

    /// Listens on `addr` and adds it. Without a prefix length the kernel's own is taken. May sleep.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOSPC` if there are as many as a HELLO can name, `EINVAL` for an impossible
    /// prefix length, `ESHUTDOWN`, and those of [`Listener::new`].
    pub(crate) fn add(&self, ni: &Arc<Ni>, addr: IpAddr, prefix_len: Option<u8>) -> Result {
        let longest = if addr.is_ipv4() { 32 } else { 128 };
        if prefix_len.is_some_and(|len| len > longest) {
            return Err(EINVAL);
        }
        self.check(addr)?;
        let prefix_len = prefix_len.or_else(|| inetaddr::prefix_len(ni.net(), addr));
        let new = Interface {
            addr,
            prefix_len: prefix_len.unwrap_or(longest),
            listener: Listener::new(ni, addr)?,
            npeers: Atomic::new(0),
            nroutes: Atomic::new(0),
            lost: Atomic::new(false),
        };
        let listener = new.listener.clone();
        let added = Arc::new(new, GFP_KERNEL)
            .map_err(Error::from)
            .and_then(|new| self.insert(new));
        match added {
            // What was changed meanwhile passed it by.
            Ok(()) => listener.apply_tunables(),
            Err(_) => listener.close(),
        }
        added
    }

    fn insert(&self, new: Arc<Interface>) -> Result {
        let mut inner = self.inner.lock();
        inner.check(new.addr)?;
        Ok(inner.list.push(new, GFP_ATOMIC)?)
    }

    /// Whether `addr` could be added.
    fn check(&self, addr: IpAddr) -> Result {
        self.inner.lock().check(addr)
    }

    /// Applies the tunables that may change during a listener's life. May sleep.
    pub(crate) fn apply_tunables(&self) -> Result {
        let mut listeners = KVec::with_capacity(MAX_INTERFACES, GFP_KERNEL)?;
        self.for_each(|interface| {
            // There is room for as many as there can be.
            let _ = listeners.push_within_capacity(interface.listener.clone());
        });
        for listener in listeners.iter() {
            listener.apply_tunables();
        }
        Ok(())
    }

    /// Takes one out that matches, but for that of the NID, and stops listening there. May sleep.
    pub(crate) fn take(&self, matching: impl Fn(&Interface) -> bool) -> Option<Arc<Interface>> {
        let taken = {
            let mut inner = self.inner.lock();
            let at = inner.list.iter().skip(1).position(|i| matching(i))?;
            inner.list.remove(at + 1).ok()?
        };
        taken.listener.close();
        Some(taken)
    }

    /// Takes all out, stops listening, and lets none be added any more. May sleep.
    pub(crate) fn close(&self) {
        let list = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            core::mem::replace(&mut inner.list, KVec::new())
        };
        for interface in list.iter() {
            interface.listener.close();
        }
    }

    /// The one with this address. Thread context, a peer's lock may be held.
    pub(crate) fn find(&self, addr: IpAddr) -> Option<Arc<Interface>> {
        self.position(|i| i.addr == addr)
    }

    /// The one to connect from to `addr`: in whose subnet that is, or else the first one of its
    /// family. Thread context, a peer's lock may be held.
    pub(crate) fn toward(&self, addr: IpAddr) -> Option<Arc<Interface>> {
        self.position(|i| i.is_near(addr))
            .or_else(|| self.position(|i| i.addr.is_ipv6() == addr.is_ipv6()))
    }

    fn position(&self, matching: impl Fn(&Interface) -> bool) -> Option<Arc<Interface>> {
        let inner = self.inner.lock();
        inner.list.iter().find(|i| matching(i)).cloned()
    }

    /// Notes that the kernel has taken `addr` away. Returns whether it is one of these. Thread
    /// context; does not sleep.
    pub(crate) fn lose(&self, addr: IpAddr) -> bool {
        let inner = self.inner.lock();
        // No reference is taken: giving it back might sleep.
        let mut gone = inner.list.iter().filter(|i| i.addr == addr);
        gone.next().is_some_and(|interface| {
            interface.lost.store(true, Relaxed);
            true
        })
    }

    /// The next one that the kernel has taken away; that is forgotten with this. Thread context.
    pub(crate) fn next_lost(&self) -> Option<Arc<Interface>> {
        self.position(|i| i.lost.xchg(false, Relaxed))
    }

    /// Calls `f` for each, under the list's lock.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Arc<Interface>)) {
        for interface in self.inner.lock().list.iter() {
            f(interface);
        }
    }

    /// What an administrator is told. May sleep.
    pub(crate) fn info(&self) -> Result<KVec<InterfaceInfo>> {
        let mut all = KVec::with_capacity(MAX_INTERFACES, GFP_KERNEL)?;
        self.for_each(|interface| {
            let count = |n: &Atomic<i32>| u32::try_from(n.load(Relaxed)).unwrap_or(0);
            // There is room for as many as there can be.
            let _ = all.push_within_capacity(InterfaceInfo {
                addr: interface.addr,
                prefix_len: interface.prefix_len,
                npeers: count(&interface.npeers),
                nroutes: count(&interface.nroutes),
            });
        });
        Ok(all)
    }

    /// For the choice among them: their IPv4 addresses, with what `users` says of each.
    pub(crate) fn candidates(&self, users: impl Fn(&Interface) -> Option<i32>) -> Candidates {
        let mut candidates = Candidates::new();
        self.for_each(|interface| {
            if let (IpAddr::V4(addr), Some(users)) = (interface.addr, users(interface)) {
                candidates.push(Candidate {
                    addr,
                    prefix_len: interface.prefix_len,
                    users,
                });
            }
        });
        candidates
    }
}

impl Inner {
    fn check(&self, addr: IpAddr) -> Result {
        if self.closed {
            Err(ESHUTDOWN)
        } else if self.list.iter().any(|i| i.addr == addr) {
            Err(EEXIST)
        } else if self.list.len() >= MAX_INTERFACES {
            Err(ENOSPC)
        } else {
            Ok(())
        }
    }
}
