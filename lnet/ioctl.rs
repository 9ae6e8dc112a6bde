// SPDX-License-Identifier: GPL-2.0

//! The ioctls of `/dev/socklnd` when LNet is the message layer: those that show something. LNet's own tools
//! configure the driver.
//!
//! There is no state here.

use crate::{
    ctl::{
        ffi as uapi,
        Arg, //
    },
    lib_linux::netns::Net,
    wire::Nid, //
};
use kernel::prelude::*;

/// The part of an open file that belongs to this layer: nothing.
#[pin_data]
pub(crate) struct File {}

impl File {
    /// A file.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {})
    }

    /// Handles a request of this layer.
    ///
    /// # Errors
    ///
    /// `ENOTTY`: it has none.
    pub(crate) fn request(&self, _cmd: u32, _arg: &Arg) -> Result {
        Err(ENOTTY)
    }
}

/// Refuses requests that LNet's tools are there for.
///
/// # Errors
///
/// `EOPNOTSUPP`.
pub(crate) fn check(cmd: u32) -> Result {
    match cmd {
        uapi::SOCKLND_IOC_NI_ADD
        | uapi::SOCKLND_IOC_NI_DEL
        | uapi::SOCKLND_IOC_NI_SET
        | uapi::SOCKLND_IOC_IF_ADD
        | uapi::SOCKLND_IOC_IF_DEL
        | uapi::SOCKLND_IOC_PEER_ADD
        | uapi::SOCKLND_IOC_PEER_DEL
        | uapi::SOCKLND_IOC_CONN_REGISTER
        | uapi::SOCKLND_IOC_ROUTE_ADD
        | uapi::SOCKLND_IOC_ROUTE_DEL
        | uapi::SOCKLND_IOC_ROUTE_LIST
        | uapi::SOCKLND_IOC_ROUTE_NOTIFY
        | uapi::SOCKLND_IOC_ROUTING_SET
        | uapi::SOCKLND_IOC_ROUTING_GET
        | uapi::SOCKLND_IOC_PING
        | uapi::SOCKLND_IOC_SERVICE
        | uapi::SOCKLND_IOC_BENCH => Err(EOPNOTSUPP),
        _ => Ok(()),
    }
}

/// Fills in the counts of this layer: it has none.
pub(crate) fn fill_counts(_entry: &mut uapi::socklnd_stats_entry, _net: &Net, _nid: Nid) {}
