// SPDX-License-Identifier: GPL-2.0

//! The addresses that a network namespace has.
//!
//! An [`AddressWatch`] registers a handler for changes of addresses; dropping it waits until the
//! handler is not running any more. It owns the notifier blocks; the locks of the kernel's notifier
//! chains protect the blocks' places in the chains.
//!
//! A kernel without IPv6 has the chain for IPv6 all the same, and never calls it.
//!
//! C headers: [`include/linux/inetdevice.h`](srctree/include/linux/inetdevice.h),
//! [`include/net/addrconf.h`](srctree/include/net/addrconf.h)

use super::{
    netns::Net,
    sys, //
};
use core::{
    marker::PhantomData,
    net::{
        IpAddr,
        Ipv4Addr,
        Ipv6Addr, //
    }, //
};
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// Whether `addr` is a unicast address of the namespace, so that a socket can be bound to it.
///
/// False for broadcast, multicast and anycast addresses, for a tentative address of IPv6 (duplicate
/// address detection has not ended), and in a dying namespace. Sysctls such as `ip_nonlocal_bind`
/// change nothing. Thread context.
///
/// # Examples
///
/// ```
/// use core::net::{IpAddr, Ipv4Addr};
/// use crate::lib_linux::netns::Net;
///
/// let net = Net::current();
/// assert!(is_local(&net, IpAddr::V4(Ipv4Addr::LOCALHOST)));
/// assert!(!is_local(&net, IpAddr::V4(Ipv4Addr::BROADCAST)));
/// ```
pub(crate) fn is_local(net: &Net, addr: IpAddr) -> bool {
    let Some(_alive) = net.get_alive() else {
        return false;
    };
    match addr {
        IpAddr::V4(addr) => {
            let addr = addr.to_bits().to_be();
            // SAFETY: The namespace is alive, so it has its routing tables.
            unsafe { sys::socklnd_helper_inet_is_local(net.as_ptr(), addr) }
        }
        IpAddr::V6(addr) => {
            let addr = addr.octets();
            // SAFETY: The namespace is alive; the address is read during the call.
            unsafe { sys::socklnd_helper_inet6_is_local(net.as_ptr(), addr.as_ptr()) }
        }
    }
}

/// The length in bits of the network prefix of `addr`, if a device of the namespace has that address.
/// Thread context.
///
/// # Examples
///
/// ```
/// use core::net::{IpAddr, Ipv4Addr};
/// use crate::lib_linux::netns::Net;
///
/// let net = Net::current();
/// assert_eq!(prefix_len(&net, IpAddr::V4(Ipv4Addr::LOCALHOST)), Some(8));
/// assert_eq!(prefix_len(&net, IpAddr::V4(Ipv4Addr::BROADCAST)), None);
/// ```
pub(crate) fn prefix_len(net: &Net, addr: IpAddr) -> Option<u8> {
    let len = match addr {
        IpAddr::V4(addr) => {
            let addr = addr.to_bits().to_be();
            // SAFETY: `net` has the object allocated; its list of devices is there, perhaps empty,
            // for as long.
            unsafe { sys::socklnd_helper_inet_prefix_len(net.as_ptr(), addr) }
        }
        IpAddr::V6(addr) => {
            let addr = addr.octets();
            // SAFETY: As above; the address is read during the call.
            unsafe { sys::socklnd_helper_inet6_prefix_len(net.as_ptr(), addr.as_ptr()) }
        }
    };
    u8::try_from(len).ok()
}

/// What is called when addresses come and go, see [`AddressWatch`].
///
/// # Examples
///
/// ```
/// use core::net::{IpAddr, Ipv4Addr};
/// use crate::lib_linux::netns::Net;
/// use kernel::sync::atomic::{Atomic, Relaxed};
///
/// static LOST: Atomic<u32> = Atomic::new(0);
///
/// struct Lost;
///
/// impl AddressHandler for Lost {
///     fn address_changed(net: &Net, addr: IpAddr) {
///         if !is_local(net, addr) {
///             LOST.add(1, Relaxed);
///         }
///     }
/// }
///
/// // As if one of several devices had lost it.
/// Lost::address_changed(&Net::current(), Ipv4Addr::LOCALHOST.into());
/// assert_eq!(LOST.load(Relaxed), 0);
/// ```
pub(crate) trait AddressHandler: 'static {
    /// A device of `net` gets or loses `addr`. The event is only a hint: another device may have the
    /// same address, so the handler asks [`is_local`].
    ///
    /// There is no event for a new address of IPv6: it is tentative at first, and the kernel does not
    /// notify anybody when it becomes usable.
    ///
    /// Thread context, under the kernel's configuration lock (RTNL). Must not sleep, nor drop
    /// anything whose destructor may sleep.
    fn address_changed(net: &Net, addr: IpAddr);
}

/// A notifier block in one of the kernel's chains.
///
/// # Invariants
///
/// `block` is registered, and `unregister` is for its chain.
struct Watch {
    block: Pin<KBox<Opaque<bindings::notifier_block>>>,
    unregister: Chain,
}

/// The kernel's function that adds a block to a chain, or the one that removes it.
type Chain = unsafe extern "C" fn(*mut bindings::notifier_block) -> c_int;

/// The function that a chain calls.
type Notify = unsafe extern "C" fn(*mut bindings::notifier_block, c_ulong, *mut c_void) -> c_int;

impl Watch {
    /// Registers `call` with a chain.
    ///
    /// # Safety
    ///
    /// `register` and `unregister` must be those of one of the kernel's chains, whose events meet the
    /// requirements of `call`.
    unsafe fn new(call: Notify, register: Chain, unregister: Chain) -> Result<Self> {
        let block = bindings::notifier_block {
            notifier_call: Some(call),
            ..Default::default()
        };
        let block = KBox::pin(Opaque::new(block), GFP_KERNEL)?;
        // SAFETY: `block` stays where it is until it is unregistered. By our requirement the chain
        // may call it.
        to_result(unsafe { register(block.get()) })?;
        // INVARIANT: Registered above; the rest is our requirement.
        Ok(Self { block, unregister })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is registered there. This waits for handlers that run.
        unsafe { (self.unregister)(self.block.get()) };
    }
}

/// A registration of an [`AddressHandler`]. Dropping it ends the callbacks, and waits for those that
/// are running; may sleep.
///
/// # Examples
///
/// ```
/// use core::net::IpAddr;
/// use crate::lib_linux::netns::Net;
/// use kernel::sync::atomic::{Atomic, Relaxed};
///
/// static CHANGES: Atomic<u32> = Atomic::new(0);
///
/// struct Count;
///
/// impl AddressHandler for Count {
///     fn address_changed(_net: &Net, _addr: IpAddr) {
///         CHANGES.add(1, Relaxed);
///     }
/// }
///
/// let watch = AddressWatch::<Count>::new()?;
/// // There may be several.
/// assert!(AddressWatch::<Count>::new().is_ok());
/// drop(watch);
/// # Ok::<(), Error>(())
/// ```
#[must_use]
pub(crate) struct AddressWatch<H> {
    _ipv4: Watch,
    _ipv6: Watch,
    _handler: PhantomData<fn(H)>,
}

// SAFETY: Any thread may end the registrations.
unsafe impl<H> Send for AddressWatch<H> {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl<H> Sync for AddressWatch<H> {}

impl<H: AddressHandler> AddressWatch<H> {
    /// Registers the handler. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: That chain passes a `struct in_ifaddr` of a device.
        let ipv4 = unsafe {
            Watch::new(
                notify::<H>,
                sys::register_inetaddr_notifier,
                sys::unregister_inetaddr_notifier,
            )
        }?;
        // SAFETY: That chain passes a `struct inet6_ifaddr` of a device.
        let ipv6 = unsafe {
            Watch::new(
                notify6::<H>,
                sys::register_inet6addr_notifier,
                sys::unregister_inet6addr_notifier,
            )
        }?;
        Ok(Self {
            _ipv4: ipv4,
            _ipv6: ipv6,
            _handler: PhantomData,
        })
    }
}

/// `notifier_call` for addresses of IPv4.
///
/// # Safety
///
/// Called by the kernel, with `data` pointing to a `struct in_ifaddr` that belongs to a device.
unsafe extern "C" fn notify<H: AddressHandler>(
    _block: *mut bindings::notifier_block,
    _event: c_ulong,
    data: *mut c_void,
) -> c_int {
    // SAFETY: By this function's requirement.
    let net = unsafe { sys::socklnd_helper_ifaddr_net(data) };
    // SAFETY: The device that has the address holds on to its namespace.
    let net = unsafe { Net::from_raw(net) };
    // SAFETY: By this function's requirement.
    let addr = unsafe { sys::socklnd_helper_ifaddr_local(data) };
    H::address_changed(&net, Ipv4Addr::from_bits(u32::from_be(addr)).into());
    // NOTIFY_DONE: not of interest to the chain's caller.
    0
}

/// `notifier_call` for addresses of IPv6. It must not sleep: the chain is an atomic one.
///
/// # Safety
///
/// Called by the kernel, with `data` pointing to a `struct inet6_ifaddr` that belongs to a device.
unsafe extern "C" fn notify6<H: AddressHandler>(
    _block: *mut bindings::notifier_block,
    event: c_ulong,
    data: *mut c_void,
) -> c_int {
    // The kernel also reports other events in softirqs, where the handler must not be called.
    if event == sys::NETDEV_DOWN {
        // SAFETY: By this function's requirement.
        let net = unsafe { sys::socklnd_helper_ifaddr6_net(data) };
        // SAFETY: The device that has the address holds on to its namespace.
        let net = unsafe { Net::from_raw(net) };
        let mut addr = [0; 16];
        // SAFETY: By this function's requirement; `addr` may be written to.
        unsafe { sys::socklnd_helper_ifaddr6_get(data, addr.as_mut_ptr()) };
        H::address_changed(&net, Ipv6Addr::from(addr).into());
    }
    // NOTIFY_DONE, as above.
    0
}

#[kunit_tests(socklnd_lib_linux_inetaddr)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_loopback() {
        let net = Net::current();
        for (addr, expected) in [
            ([127, 0, 0, 1], true),
            ([127, 0, 0, 2], true),
            ([127, 255, 255, 255], false),
            ([255; 4], false),
            ([224, 0, 0, 1], false),
            ([0; 4], false),
            // For documents: nobody has it.
            ([192, 0, 2, 1], false),
        ] {
            assert_eq!(is_local(&net, addr.into()), expected);
        }
        let there = cfg!(CONFIG_IPV6 = "y");
        assert_eq!(is_local(&net, Ipv6Addr::LOCALHOST.into()), there);
        for first in [0, 0xff02, 0x2001] {
            assert_eq!(
                is_local(&net, [first, 0u16, 0, 0, 0, 0, 0, 2].into()),
                false
            );
        }
    }

    #[test]
    fn prefix_of_loopback() {
        // The suites run with the loopback device up.
        let net = Net::current();
        assert_eq!(prefix_len(&net, Ipv4Addr::LOCALHOST.into()), Some(8));
        assert_eq!(prefix_len(&net, [127, 0, 0, 2].into()), None);
        let expected = cfg!(CONFIG_IPV6 = "y").then_some(128);
        assert_eq!(prefix_len(&net, Ipv6Addr::LOCALHOST.into()), expected);
        let other = [0u16, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(prefix_len(&net, other.into()), None);
    }
}
