// SPDX-License-Identifier: GPL-2.0

//! Nodes: the NIs of one network namespace, and what they share. Commands enter the message layer here.
//!
//! There is one [`Layer`] for the module, which [`LAYER`] refers to while the module is in use. It lists the
//! nodes. A node is listed from its first NI on until its namespace is deleted. A [`Node`] lists
//! its NIs while they work, each as a [`LocalNi`], which commands use. Each list has a
//! spinlock, taken in thread context; the two are not held together, and nothing is freed while one is held.
//!
//! A node refers to its NIs, whose message layers refer to the node. This cycle ends when an NI is shut
//! down and removed from the list.

use super::{
    bulk::{
        self,
        BulkMemory,
        BulkResult,
        BulkSpec,
        Service, //
    },
    ping::{
        self,
        PingNi,
        PingReport,
        Routing, //
    },
    router::{
        Liveness,
        Router, //
    },
    Counters,
    Portals,
    PortalsInner, //
};
use crate::{
    fwd::Forwarder,
    lib_linux::{
        global::Instance,
        misc,
        netns::Net,
        ratelimit::pr_info_ratelimited, //
    },
    tunables,
    upper::{
        LndNi,
        MessageLayer,
        MessageLayers,
        NiRef,
        PeerState, //
    },
    wire::Nid, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
    time::Delta, //
};

/// The embedded message layer, for its commands.
pub(crate) static LAYER: Instance<Layer> = Instance::new();

/// What the message layers of all NIs share.
#[pin_data]
pub(crate) struct Layer {
    memory: Arc<BulkMemory>,
    #[pin]
    nodes: SpinLock<KVec<Arc<Node>>>,
}

impl Layer {
    /// A layer without nodes. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if LNet is loaded, which is logged: it wants the driver in its other flavour; `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        if misc::is_module_loaded(c"lnet") {
            pr_err!(
                "lnet is loaded, and this is the standalone flavour: build the driver with 'make LUSTRE=/path/to/lustre', \
                 or unload lnet\n"
            );
            return Err(EBUSY);
        }
        pr_info!("the standalone flavour\n");
        let memory = BulkMemory::new()?;
        Arc::pin_init(
            pin_init!(Self {
                memory,
                nodes <- new_spinlock!(KVec::new(), "socklnd_portals_nodes"),
            }),
            GFP_KERNEL,
        )
    }

    /// The node of the namespace `net`, if it is listed. Thread context.
    pub(crate) fn find_node(&self, net: &Net) -> Option<Arc<Node>> {
        let nodes = self.nodes.lock();
        nodes.iter().find(|node| node.net() == net).cloned()
    }

    /// The node of the namespace `net`. If it is not listed, a new one is, which forwards if the module's parameter
    /// says so. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also for its forwarding buffers.
    pub(crate) fn find_or_add_node(&self, net: &Net) -> Result<Arc<Node>> {
        if let Some(node) = self.find_node(net) {
            return Ok(node);
        }
        let new = Node::new(net.clone())?;
        if tunables::forwarding_at_first() {
            new.forwarder.enable()?;
        }
        let mut nodes = self.nodes.lock();
        // Another thread may have added it.
        if let Some(node) = nodes.iter().find(|node| node.net() == net) {
            return Ok(node.clone());
        }
        nodes.push(new.clone(), GFP_ATOMIC)?;
        Ok(new)
    }
}

impl MessageLayers for Layer {
    fn startup(&self, net: &Net, _nid: Nid) -> Result<Arc<dyn MessageLayer>> {
        let portals = Portals::new(&self.memory, &self.find_or_add_node(net)?)?;
        Ok(portals)
    }

    fn tick(&self, now_ms: u64) {
        // Without memory, this is done at the next tick.
        let Ok(nodes) = misc::cloned_where(&self.nodes, |_| true) else {
            return;
        };
        for node in nodes.iter() {
            node.probe_gateways(now_ms);
            node.free_stuck_buffers();
        }
    }

    fn namespace_gone(&self, net: &Net) {
        let removed = {
            let mut nodes = self.nodes.lock();
            let at = nodes.iter().position(|node| node.net() == net);
            at.and_then(|at| nodes.remove(at).ok())
        };
        // After the lock was released, as it frees its buffers.
        drop(removed);
    }
}

/// One node: a network namespace.
#[pin_data]
pub(crate) struct Node {
    forwarder: Arc<Forwarder>,
    #[pin]
    nis: SpinLock<KVec<LocalNi>>,
}

impl Node {
    /// A node without NIs, which does not forward. May sleep.
    pub(super) fn new(net: Net) -> Result<Arc<Self>> {
        let forwarder = Forwarder::new(net)?;
        Arc::pin_init(
            pin_init!(Self {
                forwarder,
                nis <- new_spinlock!(KVec::new(), "socklnd_portals_nis"),
            }),
            GFP_KERNEL,
        )
    }

    /// The namespace.
    pub(crate) fn net(&self) -> &Net {
        self.forwarder.net()
    }

    /// Its forwarding buffers.
    pub(crate) fn forwarder(&self) -> &Arc<Forwarder> {
        &self.forwarder
    }

    /// Adds an NI, which works now.
    pub(super) fn add_ni(&self, ni: NiRef<'_>, portals: &Arc<PortalsInner>) -> Result {
        let local = LocalNi {
            ni: ni.into(),
            portals: portals.clone(),
        };
        Ok(self.nis.lock().push(local, GFP_ATOMIC)?)
    }

    /// Removes an NI, which was shut down.
    pub(super) fn remove_ni(&self, nid: Nid) {
        let removed = {
            let mut nis = self.nis.lock();
            let at = nis.iter().position(|local| local.nid() == nid);
            at.and_then(|at| nis.remove(at).ok())
        };
        drop(removed);
    }

    /// The first NI that `matches`, oldest first. Thread context; the list is locked.
    pub(super) fn find_ni(&self, matches: impl Fn(&LocalNi) -> bool) -> Option<LocalNi> {
        let nis = self.nis.lock();
        let mut nis = nis.iter();
        nis.find(|local| matches(local)).cloned()
    }

    /// Its NIs, oldest first. May sleep.
    pub(super) fn nis(&self) -> Result<KVec<LocalNi>> {
        misc::cloned_where(&self.nis, |_| true)
    }

    /// Its NIs for a ping that `ni` has received. May sleep.
    pub(super) fn ping_nis(&self, ni: NiRef<'_>) -> Result<KVec<PingNi>> {
        let nis = self.nis()?;
        let mut pinged = KVec::with_capacity(nis.len().saturating_add(1), GFP_KERNEL)?;
        if !nis.iter().any(|local| local.nid() == ni.nid()) {
            // It is not listed yet, or no longer.
            pinged.push(PingNi::of(&*ni), GFP_KERNEL)?;
        }
        for local in nis.iter() {
            pinged.push(PingNi::of(&*local.ni), GFP_KERNEL)?;
        }
        Ok(pinged)
    }

    /// Whether it forwards. Thread context.
    pub(super) fn routing(&self) -> Routing {
        if self.forwarder.is_enabled() {
            Routing::Enabled
        } else {
            Routing::Disabled
        }
    }

    /// Connects to gateways that are down. Without memory, this is done at the next tick. May sleep.
    fn probe_gateways(&self, now_ms: u64) {
        let Ok(nis) = self.nis() else { return };
        for LocalNi { ni, portals } in nis.iter() {
            let mut at = 0;
            while let Some(gateway) = portals.router.next_down(&mut at) {
                if ni.as_arc_borrow().probe(gateway, now_ms) {
                    portals.set_gateway_state(ni.nid(), gateway, PeerState::Up);
                }
            }
        }
    }

    /// Frees forwarding buffers that messages wait for, see [`Forwarder::free_stuck`]. May sleep.
    fn free_stuck_buffers(&self) {
        self.forwarder.free_stuck(|peer| {
            if let Some(LocalNi { ni, .. }) = self.find_ni(|local| local.nid().net() == peer.net()) {
                pr_info_ratelimited!(
                    "{}: closed the connections to {peer}, which holds up messages to other nodes\n",
                    ni.nid()
                );
                ni.give_up(peer);
            }
        });
    }
}

/// An NI of this node, and its message layer.
#[derive(Clone)]
pub(crate) struct LocalNi {
    pub(super) ni: Arc<dyn LndNi>,
    pub(super) portals: Arc<PortalsInner>,
}

impl LocalNi {
    /// The NI with this NID in the namespace `net`, if it works. Thread context.
    pub(crate) fn find(net: &Net, nid: Nid) -> Option<Self> {
        let node = LAYER.get()?.find_node(net)?;
        node.find_ni(|local| local.nid() == nid)
    }

    /// Its NID.
    pub(crate) fn nid(&self) -> Nid {
        self.ni.nid()
    }

    /// The counters of its message layer.
    pub(crate) fn counters(&self) -> &Counters {
        &self.portals.counters
    }

    /// Its routes to other networks.
    pub(crate) fn router(&self) -> &Router {
        &self.portals.router
    }

    /// Adds a route to network `target` through `gateway`. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the target is the NI's own network, or the gateway is not in that; `EPROTONOSUPPORT` if
    /// the gateway has an IPv6 address and no protocol version that is enabled supports that; those of
    /// [`Router::add`].
    pub(crate) fn add_route(&self, target: u16, gateway: Nid, priority: u32) -> Result {
        if target == self.nid().net() {
            return Err(EINVAL);
        }
        self.ni.check_peer(gateway)?;
        self.portals.router.add(target, gateway, priority)
    }

    /// Sets a gateway up or down for an administrator. If it is set down, its connections are closed, and
    /// operations that were sent by them end with an error. Thread context, may sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is no gateway.
    pub(crate) fn notify_gateway(&self, gateway: Nid, liveness: Liveness) -> Result {
        self.portals.router.notify(gateway, liveness)?;
        if liveness == Liveness::Dead {
            self.ni.close_peer(gateway, ECONNRESET);
        }
        Ok(())
    }

    /// Pings `to`. Sleeps at most for `timeout`.
    ///
    /// # Errors
    ///
    /// - `ETIMEDOUT` if there was no response in time.
    /// - `EINTR` if a signal is pending.
    /// - `EPROTO` if the response is malformed.
    /// - Those of [`LndNi::send`]: `EHOSTUNREACH`, `ECONNREFUSED`, `ESHUTDOWN`, ...
    pub(crate) fn ping(&self, to: Nid, timeout: Delta) -> Result<PingReport> {
        ping::ping(&self.portals, self.ni.as_arc_borrow(), to, timeout)
    }

    /// Moves bulk data to or from a node that offers the service, see [`bulk`]. Sleeps at most for the timeout
    /// in `spec`.
    ///
    /// # Errors
    ///
    /// After the session was opened, only `EINTR`: messages that fail are counted in the result. Before:
    ///
    /// - `EINVAL` if `spec` is invalid, `EMSGSIZE` if its messages are too long.
    /// - `EBUSY` if the server has no room for a session.
    /// - `EPROTO` if its response is malformed.
    /// - Those of [`LocalNi::ping`]. A node that does not offer the service does not respond.
    pub(crate) fn run_bulk(&self, spec: &BulkSpec) -> Result<BulkResult> {
        bulk::run(&self.portals, self.ni.as_arc_borrow(), spec)
    }

    /// Offers the bulk service until the guard is dropped. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is offered already, `ESHUTDOWN`, `ENOMEM`, `ENOSPC`.
    pub(crate) fn start_service(&self) -> Result<Service> {
        Service::start(&self.portals)
    }
}
