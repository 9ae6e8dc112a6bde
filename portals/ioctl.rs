// SPDX-License-Identifier: GPL-2.0

//! The embedded message layer's ioctls of `/dev/socklnd`, see [`crate::ctl`].
//!
//! A [`File`] belongs to an open file of the device. Its mutex protects the bulk services that were started by that
//! file, and is taken outside all other locks of the module. They end when the file is closed.

mod routing;
mod transfer;

use self::{
    routing::{
        route_add,
        route_del,
        route_notify,
        routing_get,
        routing_set, //
    },
    transfer::{
        bench,
        ping, //
    }, //
};
use super::{
    bulk::Service,
    router::NetRoute,
    LocalNi, //
};
use crate::{
    ctl::{
        convert::Pattern,
        ffi as uapi,
        Arg,
        Caller, //
    },
    lib_linux::netns::Net,
    wire::Nid, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// Refuses requests for which this layer has no use: none.
pub(crate) fn check(_cmd: u32) -> Result {
    Ok(())
}

/// The part of an open file that belongs to this layer.
#[pin_data]
pub(crate) struct File {
    /// The bulk services that were started by the file.
    #[pin]
    services: Mutex<KVec<Service>>,
}

impl File {
    /// A file without services.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            services <- new_mutex!(KVec::new(), "socklnd_ctl_services"),
        })
    }

    /// Handles a request of this layer. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOTTY` if it is not a request of this layer; `EPERM`, `EFAULT`, and those of the request.
    pub(crate) fn request(&self, cmd: u32, arg: &Arg) -> Result {
        match cmd {
            uapi::SOCKLND_IOC_ROUTE_ADD => arg.command(route_add),
            uapi::SOCKLND_IOC_ROUTE_DEL => arg.command_and_reply(route_del),
            uapi::SOCKLND_IOC_ROUTE_LIST => arg.list::<uapi::socklnd_route_entry>(),
            uapi::SOCKLND_IOC_ROUTE_NOTIFY => arg.command(route_notify),
            uapi::SOCKLND_IOC_ROUTING_SET => arg.command(routing_set),
            uapi::SOCKLND_IOC_ROUTING_GET => {
                arg.query(|request| routing_get(&Caller::any()?, request))
            }
            uapi::SOCKLND_IOC_PING => arg.command_and_reply(ping),
            uapi::SOCKLND_IOC_SERVICE => {
                arg.command_and_reply(|caller, request| self.start_services(caller, request))
            }
            uapi::SOCKLND_IOC_BENCH => arg.command_and_reply(bench),
            _ => Err(ENOTTY),
        }
    }
}

/// An NI's part in this layer. `ENOENT` if it was shut down. Thread context.
fn local_ni(caller: &Caller, nid: Nid) -> Result<LocalNi> {
    LocalNi::find(&caller.net, nid).ok_or(ENOENT)
}

/// The first NI that matches and is in the network of `target`, or has a route there. May sleep.
///
/// # Errors
///
/// As [`Caller::ni_for`].
fn local_ni_towards(caller: &Caller, pattern: Pattern, target: Nid) -> Result<LocalNi> {
    match caller.ni_for(pattern, target) {
        Err(e) if e == ENETUNREACH => {}
        direct => return local_ni(caller, direct?.nid()),
    }
    let leads_there = |route: &NetRoute| route.target == target.net();
    for ni in caller.nis(pattern)?.iter() {
        match local_ni(caller, ni.nid()) {
            Ok(local) if local.router().has_route(leads_there) => return Ok(local),
            _ => {}
        }
    }
    Err(ENETUNREACH)
}

/// Fills in the counts of the NI with this NID in `net`, if it is there. Thread context.
pub(crate) fn fill_counts(entry: &mut uapi::socklnd_stats_entry, net: &Net, nid: Nid) {
    let Some(local) = LocalNi::find(net, nid) else {
        return;
    };
    let counters = local.counters();
    entry.drops = counters.drops.get();
    entry.fwd_msgs = counters.fwd_msgs.get();
    entry.fwd_bytes = counters.fwd_bytes.get();
    entry.fwd_failed = counters.fwd_failed.get();
    entry.fwd_forged = counters.fwd_forged.get();
    entry.fwd_direct = counters.fwd_direct.get();
    entry.fwd_off = counters.fwd_off.get();
    entry.fwd_no_route = counters.fwd_no_route.get();
    entry.fwd_back = counters.fwd_back.get();
}
