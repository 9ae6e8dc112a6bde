// SPDX-License-Identifier: GPL-2.0

//! The addresses that a network namespace has.
//!
//! [`AddressWatch`] registers a handler that is told when an IPv4 address goes away; dropping it
//! waits until the handler is not running any more. It owns the notifier block, whose place in the
//! kernel's chain the chain's own lock protects.
//!
//! C header: [`include/linux/inetdevice.h`](srctree/include/linux/inetdevice.h)

use super::{
    netns::Net,
    sys, //
};
use core::{
    marker::PhantomData,
    net::Ipv4Addr, //
};
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// How many leading bits of the subnet's addresses are those of `addr`, if some device of the
/// namespace has that address. Thread context.
pub(crate) fn prefix_len(net: &Net, addr: Ipv4Addr) -> Option<u8> {
    // SAFETY: `net` has the object allocated; its list of devices is there, perhaps empty, for as
    // long.
    let len = unsafe { sys::socklnd_helper_inet_prefix_len(net.as_ptr(), addr.to_bits().to_be()) };
    u8::try_from(len).ok()
}

/// Whoever wants to be told that an address is going away.
pub(crate) trait AddressHandler: 'static {
    /// A device of `net` loses `addr`, or the device goes with it.
    ///
    /// May sleep, but the kernel's configuration lock (RTNL) is held: only for short work that
    /// waits for nobody.
    fn address_gone(net: &Net, addr: Ipv4Addr);
}

/// Lets [`AddressHandler::address_gone`] be called.
///
/// # Invariants
///
/// `block` is registered.
#[must_use]
pub(crate) struct AddressWatch<H> {
    block: Pin<KBox<Opaque<bindings::notifier_block>>>,
    _handler: PhantomData<fn(H)>,
}

// SAFETY: Any thread may end the registration.
unsafe impl<H> Send for AddressWatch<H> {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl<H> Sync for AddressWatch<H> {}

impl<H: AddressHandler> AddressWatch<H> {
    /// Registers. May sleep.
    ///
    /// # Errors
    ///
    /// - `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let block = bindings::notifier_block {
            notifier_call: Some(notify::<H>),
            ..Default::default()
        };
        let block = KBox::pin(Opaque::new(block), GFP_KERNEL)?;
        // SAFETY: `block` stays where it is until it is unregistered.
        to_result(unsafe { sys::register_inetaddr_notifier(block.get()) })?;
        // INVARIANT: Registered above.
        Ok(Self {
            block,
            _handler: PhantomData,
        })
    }
}

impl<H> Drop for AddressWatch<H> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is registered. This waits for handlers that run.
        unsafe { sys::unregister_inetaddr_notifier(self.block.get()) };
    }
}

/// Something happened to an address.
///
/// # Safety
///
/// Called by the kernel, with `data` pointing to a `struct in_ifaddr` that belongs to a device.
unsafe extern "C" fn notify<H: AddressHandler>(
    _block: *mut bindings::notifier_block,
    event: c_ulong,
    data: *mut c_void,
) -> c_int {
    if event == sys::NETDEV_DOWN {
        // SAFETY: By this function's requirement.
        let net = unsafe { sys::socklnd_helper_ifaddr_net(data) };
        // SAFETY: The device that has the address holds on to its namespace.
        let net = unsafe { Net::from_raw(net) };
        // SAFETY: By this function's requirement.
        let addr = unsafe { sys::socklnd_helper_ifaddr_local(data) };
        H::address_gone(&net, Ipv4Addr::from_bits(u32::from_be(addr)));
    }
    // NOTIFY_DONE: not of interest to the chain's caller.
    0
}

#[kunit_tests(socklnd_lib_linux_inetaddr)]
mod tests {
    use super::*;

    #[test]
    fn prefix_of_loopback() {
        // The suites run with the loopback device up.
        let net = Net::current();
        assert_eq!(prefix_len(&net, Ipv4Addr::LOCALHOST), Some(8));
        assert_eq!(prefix_len(&net, Ipv4Addr::new(127, 0, 0, 2)), None);
    }
}
