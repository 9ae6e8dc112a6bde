// SPDX-License-Identifier: GPL-2.0

//! The embedded message layer's own door: its requests of `/dev/socklnd`, see [`crate::ctl`], and what it shows
//! in debugfs.
//!
//! A [`File`] belongs to an open file of the device, and keeps the bulk services that were started by it. They
//! are behind a mutex that is taken outside everything else.

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
    Counters,
    Local,
    LAYER, //
};
use crate::{
    ctl::{
        convert::Pattern,
        ffi as uapi,
        Arg,
        Caller, //
    },
    debugfs::{
        count,
        lines, //
    },
    fwd::Forwarder,
    lib_linux::netns::Net,
    stats::Counter,
    wire::Nid, //
};
use kernel::{
    new_mutex,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::Mutex, //
};

/// What an open file has of this layer.
#[pin_data]
pub(crate) struct File {
    /// The bulk services that it keeps up.
    #[pin]
    services: Mutex<KVec<Service>>,
}

impl File {
    /// Without services.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            services <- new_mutex!(KVec::new(), "socklnd_ctl_services"),
        })
    }

    /// A request of this layer's. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOTTY` if it is none; `EPERM`, `EFAULT`, and those of the request.
    pub(crate) fn request(&self, cmd: u32, arg: &Arg) -> Result {
        match cmd {
            uapi::SOCKLND_IOC_ROUTE_ADD => arg.obey(route_add),
            uapi::SOCKLND_IOC_ROUTE_DEL => {
                let caller = Caller::admin()?;
                arg.change(|request| route_del(&caller, request))
            }
            uapi::SOCKLND_IOC_ROUTE_LIST => arg.list::<uapi::socklnd_route_entry>(),
            uapi::SOCKLND_IOC_ROUTE_NOTIFY => arg.obey(route_notify),
            uapi::SOCKLND_IOC_ROUTING_SET => arg.obey(routing_set),
            uapi::SOCKLND_IOC_ROUTING_GET => {
                arg.update(|request| routing_get(&Caller::anyone()?, request))
            }
            uapi::SOCKLND_IOC_PING => {
                let caller = Caller::admin()?;
                arg.change(|request| ping(&caller, request))
            }
            uapi::SOCKLND_IOC_SERVICE => {
                let caller = Caller::admin()?;
                arg.change(|request| self.start_services(&caller, request))
            }
            uapi::SOCKLND_IOC_BENCH => {
                let caller = Caller::admin()?;
                arg.change(|request| bench(&caller, request))
            }
            _ => Err(ENOTTY),
        }
    }
}

/// What this layer has of an interface. `ENOENT` if that is no longer there. Thread context.
fn local(caller: &Caller, nid: Nid) -> Result<Local> {
    Local::find(&caller.net, nid).ok_or(ENOENT)
}

/// The first interface that matches and from which messages get to `target`: in its network, or with a
/// route there. May sleep.
///
/// # Errors
///
/// As [`Caller::interface_for`].
fn local_towards(caller: &Caller, pattern: Pattern, target: Nid) -> Result<Local> {
    match caller.interface_for(pattern, target) {
        Err(e) if e == ENETUNREACH => {}
        direct => return local(caller, direct?.nid()),
    }
    let leads_there = |route: &NetRoute| route.target == target.net();
    for ni in caller.interfaces(pattern)?.iter() {
        match local(caller, ni.nid()) {
            Ok(local) if local.router().any(leads_there) => return Ok(local),
            _ => {}
        }
    }
    Err(ENETUNREACH)
}

/// What became of an interface's messages so far.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) drops: u64,
    pub(crate) unanswered: u64,
    pub(crate) fwd_msgs: u64,
    pub(crate) fwd_bytes: u64,
    pub(crate) fwd_failed: u64,
    pub(crate) fwd_forged: u64,
    pub(crate) fwd_direct: u64,
    pub(crate) fwd_off: u64,
    pub(crate) fwd_no_route: u64,
    pub(crate) fwd_back: u64,
}

/// Those of the interface with this NID in `net`; 0 if there is none. Thread context.
pub(crate) fn counts(net: &Net, nid: Nid) -> Counts {
    let Some(local) = Local::find(net, nid) else {
        return Counts::default();
    };
    let counters = local.counters();
    let get = |which: fn(&Counters) -> &Counter| which(counters).get();
    Counts {
        drops: get(|c| &c.drops),
        unanswered: get(|c| &c.unanswered),
        fwd_msgs: get(|c| &c.fwd_msgs),
        fwd_bytes: get(|c| &c.fwd_bytes),
        fwd_failed: get(|c| &c.fwd_failed),
        fwd_forged: get(|c| &c.fwd_forged),
        fwd_direct: get(|c| &c.fwd_direct),
        fwd_off: get(|c| &c.fwd_off),
        fwd_no_route: get(|c| &c.fwd_no_route),
        fwd_back: get(|c| &c.fwd_back),
    }
}

/// Writes them as debugfs has them. Thread context.
pub(crate) fn show_interface(out: &SeqFile, net: &Net, nid: Nid) {
    let counts = counts(net, nid);
    lines(
        out,
        "  ",
        &[
            ("fwd_msgs", counts.fwd_msgs),
            ("fwd_bytes", counts.fwd_bytes),
            ("fwd_failed", counts.fwd_failed),
            ("fwd_forged", counts.fwd_forged),
            ("fwd_direct", counts.fwd_direct),
            ("fwd_off", counts.fwd_off),
            ("fwd_no_route", counts.fwd_no_route),
            ("fwd_back", counts.fwd_back),
            ("drops", counts.drops),
            ("unanswered", counts.unanswered),
        ],
    );
}

/// Writes what belongs to the node `net` as a whole. Thread context.
pub(crate) fn show_node(out: &SeqFile, net: &Net) {
    if let Some(node) = LAYER.get().and_then(|layer| layer.find(net)) {
        show_forwarder(out, node.forwarder());
    }
}

/// The forwarding of one node.
fn show_forwarder(out: &SeqFile, forwarder: &Forwarder) {
    let info = forwarder.info();
    seq_print!(out, "forwarding namespace {}\n", forwarder.net().inode());
    lines(out, "  ", &[("on", info.on.into())]);
    for (name, pool) in [("small", &info.small), ("large", &info.large)] {
        seq_print!(out, "  pool {name}\n");
        lines(
            out,
            "    ",
            &[
                ("bytes", count(pool.bytes)),
                ("buffers", count(pool.buffers)),
                ("busy", count(pool.busy)),
                ("waiting", count(pool.waiting)),
                ("waits", pool.waits),
            ],
        );
    }
}
