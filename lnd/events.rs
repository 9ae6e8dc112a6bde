// SPDX-License-Identifier: GPL-2.0

//! What the kernel says about network namespaces and addresses, of whatever interface instance.
//!
//! No state: nothing to protect, nothing to free. Registering is left to the crate root.

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

/// A namespace goes: its interfaces go with it.
pub(crate) struct NamespaceExit;

impl PernetHandler for NamespaceExit {
    fn exit(net: &Net) {
        let Some(lnd) = LND.get() else { return };
        // A door like others: what ends here may have peers connect anew.
        misc::memalloc_nofs(|| {
            // No interface there is the normal case.
            let _ = lnd.del_ni(net, None);
            lnd.upper().namespace_gone(net);
        });
    }
}

/// An address comes or goes, or so it seems: the reaper looks.
pub(crate) struct AddressEvents;

impl AddressHandler for AddressEvents {
    fn address_changed(net: &Net, addr: IpAddr) {
        // Who has published it still holds it: what this drops is not the last reference.
        if let Some(lnd) = LND.get() {
            lnd.note_address(net, addr);
        }
    }
}
