// SPDX-License-Identifier: GPL-2.0

//! The addresses of an NI: added, taken away, and looked at when the kernel says that they
//! have changed.
//!
//! The list of them has a lock of its own, see [`Interfaces`](crate::interface::Interfaces).

use super::Ni;
use crate::{
    interface::{
        Change,
        InterfaceInfo, //
    },
    upper::{
        Failure,
        Health, //
    }, //
};
use core::net::IpAddr;
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Ni {
    /// Publishes `addr` to peers that connect from now on, and listens there. Without a prefix
    /// length, the kernel's own says which addresses are its neighbours, as it changes. May sleep.
    ///
    /// # Errors
    ///
    /// Those of [`Interfaces::add`](crate::interface::Interfaces::add).
    pub(crate) fn add_interface(self: &Arc<Self>, addr: IpAddr, prefix_len: Option<u8>) -> Result {
        self.interfaces
            .add(&self.acceptor, self, addr, prefix_len)?;
        self.context.check_addresses();
        Ok(())
    }

    /// Takes away the interface with this address; without one, all but that of the NID. Routes
    /// that were not added by an administrator, and connections, that use it are removed too. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none, `EBUSY` for the address of the NID.
    pub(crate) fn del_interface(self: &Arc<Self>, addr: Option<IpAddr>) -> Result {
        if addr == Some(self.nid.addr()) {
            return Err(EBUSY);
        }
        let mut any = addr.is_none();
        while let Some(gone) = self.interfaces.remove(&self.acceptor, self, |i| {
            addr.is_none_or(|addr| i.addr() == addr)
        }) {
            self.leave(gone.addr(), Failure::dropped());
            any = true;
        }
        if any {
            Ok(())
        } else {
            Err(ENOENT)
        }
    }

    /// What an administrator is told about the interfaces. May sleep.
    pub(crate) fn interface_info(&self) -> Result<KVec<InterfaceInfo>> {
        self.interfaces.info()
    }

    /// Looks what has become of addresses that something may have happened to. What uses one that is
    /// gone ends; its interface waits for it, and can be used again when it is back. The reaper's
    /// thread, may sleep.
    pub(crate) fn check_addresses(self: &Arc<Self>) {
        let mut index = 0;
        // An interface that is skipped, because one before it is removed meanwhile, is checked next time.
        while let Some(interface) = self.interfaces.at(index) {
            let addr = interface.addr();
            match interface.refresh(&self.net) {
                Change::None => {}
                Change::Gone => {
                    pr_info!(
                        "{}: waits for its address {addr:?}, which is gone\n",
                        self.nid
                    );
                    self.leave(addr, Failure::new(ENETDOWN, Health::LocalNoRoute));
                }
                Change::Back => pr_info!("{}: its address {addr:?} is back\n", self.nid),
            }
            index += 1;
        }
    }

    /// Ends what uses `addr`, an address of this node, which is not to be used any more.
    fn leave(self: &Arc<Self>, addr: IpAddr, why: Failure) {
        self.handshakes.fail_bound_to(addr, why.error);
        self.peers.walk(|peer| peer.drop_local_addr(addr, why));
        self.handshakes.cancel_deleted_routes();
    }
}
