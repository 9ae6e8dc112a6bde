// SPDX-License-Identifier: GPL-2.0

//! The kernel's events about network namespaces and addresses.
//!
//! No state: nothing to protect, nothing to free. The crate root registers the handlers.

use super::LND;
use crate::lib_linux::{
    inetaddr::AddressHandler,
    misc,
    netns::{
        Net,
        PernetHandler, //
    }, //
};
use core::net::IpAddr;

/// A network namespace is removed: its NIs are shut down.
pub(crate) struct NamespaceExit;

impl PernetHandler for NamespaceExit {
    fn exit(net: &Net) {
        let Some(lnd) = LND.get() else { return };
        // Like the ioctl: closing connections may make peers connect again.
        misc::memalloc_nofs(|| {
            // An error is normal: most namespaces have no NI.
            let _ = lnd.del_ni(net, None);
            lnd.upper().namespace_gone(net);
        });
    }
}

/// An address was added or removed: the reaper checks.
pub(crate) struct AddressEvents;

impl AddressHandler for AddressEvents {
    fn address_changed(net: &Net, addr: IpAddr) {
        // The publisher still has a reference, so this does not drop the last one.
        if let Some(lnd) = LND.get() {
            lnd.note_address(net, addr);
        }
    }
}
