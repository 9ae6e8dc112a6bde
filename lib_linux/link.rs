// SPDX-License-Identifier: GPL-2.0

//! State and speed of network devices, which are found by their addresses.
//!
//! There is no state here: each function asks the kernel anew. It holds a reference to the namespace
//! meanwhile, because the tables of addresses are freed when the namespace dies.
//!
//! C header: [`include/linux/ethtool.h`](srctree/include/linux/ethtool.h)

use super::{
    netns::Net,
    sys, //
};
use core::net::IpAddr;

/// An address in the form of the helpers: whether it is IPv6, and its bytes in network order.
fn raw(addr: IpAddr) -> (bool, [u8; 16]) {
    match addr {
        IpAddr::V4(addr) => {
            let mut bytes = [0u8; 16];
            for (to, from) in bytes.iter_mut().zip(addr.octets()) {
                *to = from;
            }
            (false, bytes)
        }
        IpAddr::V6(addr) => (true, addr.octets()),
    }
}

/// Whether the device of the namespace that has `addr` can send: it is up, and not without a
/// carrier. `None` if no device has the address, or the namespace is dying. Thread context.
///
/// # Examples
///
/// ```
/// use core::net::{IpAddr, Ipv4Addr};
/// use crate::lib_linux::netns::Net;
///
/// let net = Net::current();
/// assert_eq!(is_up(&net, IpAddr::V4(Ipv4Addr::LOCALHOST)), Some(true));
/// assert_eq!(is_up(&net, IpAddr::V4(Ipv4Addr::BROADCAST)), None);
/// ```
pub(crate) fn is_up(net: &Net, addr: IpAddr) -> Option<bool> {
    let _alive = net.get_alive()?;
    let (is_ipv6, bytes) = raw(addr);
    // SAFETY: The namespace is alive; `bytes` is an address of that family.
    let up = unsafe { sys::socklnd_helper_link_is_up(net.as_ptr(), is_ipv6, bytes.as_ptr()) };
    (up >= 0).then_some(up != 0)
}

/// The speed, in megabits per second, of the device of the namespace that has `addr`. `None` if the
/// device does not report it, no device has the address, or the namespace is dying.
///
/// May sleep. Takes the kernel's configuration lock (RTNL), so the caller must hold no lock that is
/// taken under RTNL.
///
/// # Examples
///
/// ```
/// use core::net::{IpAddr, Ipv4Addr};
/// use crate::lib_linux::netns::Net;
///
/// // The loopback device reports none.
/// let net = Net::current();
/// assert_eq!(speed_mbps(&net, IpAddr::V4(Ipv4Addr::LOCALHOST)), None);
/// ```
pub(crate) fn speed_mbps(net: &Net, addr: IpAddr) -> Option<u32> {
    let _alive = net.get_alive()?;
    let (is_ipv6, bytes) = raw(addr);
    // SAFETY: The namespace is alive; `bytes` is an address of that family.
    let speed = unsafe { sys::socklnd_helper_link_speed(net.as_ptr(), is_ipv6, bytes.as_ptr()) };
    (speed != 0).then_some(speed)
}

#[kernel::macros::kunit_tests(socklnd_lib_linux_link)]
mod tests {
    use super::*;
    use core::net::{
        Ipv4Addr,
        Ipv6Addr, //
    };

    #[test]
    fn nobody_knows_how_fast_loopback_is() {
        let net = Net::current();
        for addr in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            assert_eq!(speed_mbps(&net, addr), None);
        }
    }

    #[test]
    fn loopback_is_up() {
        // The suites run with the loopback device up.
        let net = Net::current();
        assert_eq!(is_up(&net, Ipv4Addr::LOCALHOST.into()), Some(true));
        assert_eq!(is_up(&net, Ipv4Addr::new(192, 0, 2, 1).into()), None);
    }
}
