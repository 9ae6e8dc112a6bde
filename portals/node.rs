// SPDX-License-Identifier: GPL-2.0

//! Nodes: the interfaces of one network namespace, and what they have in common. The door for commands.
//!
//! The [`Layer`] is one for the module, published in [`LAYER`] as long as there are interfaces. It lists the
//! nodes, each from its first interface to the end of its namespace. A [`Node`] lists its interfaces while they
//! work; each entry is a [`Local`], by which commands get at an interface and its message layer. The two lists
//! have a spinlock each, taken in thread context and never together, under which nothing is freed.
//!
//! A node's entries refer to interfaces, whose message layers refer to the node: that circle ends when the
//! interface is shut down and its entry goes.

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
        PingReport, //
    },
    router::Router,
    Core,
    Counters,
    Portals, //
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
    }, //
};

/// The embedded message layer, for its own commands.
pub(crate) static LAYER: Instance<Layer> = Instance::new();

/// The embedded message layer of the module.
#[pin_data]
pub(crate) struct Layer {
    memory: Arc<BulkMemory>,
    #[pin]
    nodes: SpinLock<KVec<Arc<Node>>>,
}

impl Layer {
    /// Without nodes. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let memory = BulkMemory::new()?;
        Arc::pin_init(
            pin_init!(Self {
                memory,
                nodes <- new_spinlock!(KVec::new(), "socklnd_portals_nodes"),
            }),
            GFP_KERNEL,
        )
    }

    /// The node `net`, if it is known. Thread context.
    pub(crate) fn find(&self, net: &Net) -> Option<Arc<Node>> {
        let nodes = self.nodes.lock();
        nodes.iter().find(|node| node.net() == net).cloned()
    }

    /// The node `net`, made if it is not known: it forwards or not, as the module was told. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also for its buffers.
    pub(crate) fn node(&self, net: &Net) -> Result<Arc<Node>> {
        if let Some(node) = self.find(net) {
            return Ok(node);
        }
        let new = Node::new(net.clone())?;
        new.forwarder.set(tunables::forwarding_at_first())?;
        let mut nodes = self.nodes.lock();
        // Somebody else may have been faster.
        if let Some(node) = nodes.iter().find(|node| node.net() == net) {
            return Ok(node.clone());
        }
        nodes.push(new.clone(), GFP_ATOMIC)?;
        Ok(new)
    }
}

impl MessageLayers for Layer {
    fn startup(&self, net: &Net, _nid: Nid) -> Result<Arc<dyn MessageLayer>> {
        let portals = Portals::new(&self.memory, &self.node(net)?)?;
        Ok(portals)
    }

    fn tick(&self, now_ms: u64) {
        // Without memory, the next time may have more luck.
        let Ok(nodes) = misc::cloned_where(&self.nodes, |_| true) else {
            return;
        };
        for node in nodes.iter() {
            node.probe_gateways(now_ms);
            node.relieve(now_ms);
        }
    }

    fn namespace_gone(&self, net: &Net) {
        let gone = {
            let mut nodes = self.nodes.lock();
            let at = nodes.iter().position(|node| node.net() == net);
            at.and_then(|at| nodes.remove(at).ok())
        };
        // With no lock held: it may have much to free.
        drop(gone);
    }
}

/// One node: a network namespace.
#[pin_data]
pub(crate) struct Node {
    forwarder: Arc<Forwarder>,
    #[pin]
    locals: SpinLock<KVec<Local>>,
}

impl Node {
    /// Without interfaces; it does not forward. May sleep.
    pub(super) fn new(net: Net) -> Result<Arc<Self>> {
        let forwarder = Forwarder::new(net)?;
        Arc::pin_init(
            pin_init!(Self {
                forwarder,
                locals <- new_spinlock!(KVec::new(), "socklnd_portals_locals"),
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

    /// An interface works.
    pub(super) fn add(&self, ni: NiRef<'_>, core: &Arc<Core>) -> Result {
        let local = Local {
            ni: ni.into(),
            core: core.clone(),
        };
        Ok(self.locals.lock().push(local, GFP_ATOMIC)?)
    }

    /// An interface was shut down.
    pub(super) fn remove(&self, nid: Nid) {
        let gone = {
            let mut locals = self.locals.lock();
            let at = locals.iter().position(|local| local.nid() == nid);
            at.and_then(|at| locals.remove(at).ok())
        };
        drop(gone);
    }

    /// The interface with this NID, if it works. Thread context.
    pub(crate) fn local(&self, nid: Nid) -> Option<Local> {
        self.first(|local| local.nid() == nid)
    }

    /// The first interface that matches. Thread context; the list is locked.
    pub(super) fn first(&self, matching: impl Fn(&Local) -> bool) -> Option<Local> {
        let locals = self.locals.lock();
        let mut locals = locals.iter();
        locals.find(|local| matching(local)).cloned()
    }

    /// Its interfaces, oldest first. May sleep.
    pub(super) fn locals(&self) -> Result<KVec<Local>> {
        misc::cloned_where(&self.locals, |_| true)
    }

    /// Looks for gateways that were lost. Without memory, the next time may have more luck. May sleep.
    fn probe_gateways(&self, now_ms: u64) {
        let Ok(locals) = self.locals() else { return };
        for Local { ni, core } in locals.iter() {
            let mut at = 0;
            while let Some(gateway) = core.router.next_down(&mut at) {
                if ni.as_arc_borrow().probe(gateway, now_ms) {
                    core.peer_found(ni.nid(), gateway, PeerState::Up);
                }
            }
        }
    }

    /// If messages wait for buffers and none comes back, has one node give up those that it holds. May
    /// sleep.
    fn relieve(&self, now_ms: u64) {
        self.forwarder.relieve(now_ms, |peer| {
            if let Some(Local { ni, .. }) = self.first(|local| local.nid().net() == peer.net()) {
                pr_info_ratelimited!(
                    "{}: {peer} holds up messages to others, and is given up\n",
                    ni.nid()
                );
                ni.give_up(peer);
            }
        });
    }
}

/// An interface of this node, and its message layer.
#[derive(Clone)]
pub(crate) struct Local {
    pub(super) ni: Arc<dyn LndNi>,
    pub(super) core: Arc<Core>,
}

impl Local {
    /// The one with this NID in `net`, if it works. Thread context.
    pub(crate) fn find(net: &Net, nid: Nid) -> Option<Self> {
        LAYER.get()?.find(net)?.local(nid)
    }

    /// Its NID.
    pub(crate) fn nid(&self) -> Nid {
        self.ni.nid()
    }

    /// What became of its messages so far.
    pub(crate) fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Its routes to other networks.
    pub(crate) fn router(&self) -> &Router {
        &self.core.router
    }

    /// Adds a route to network `target` through `gateway`. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that makes no sense; `EPROTONOSUPPORT` for a gateway with an IPv6 address, if the
    /// version is not to be spoken that it takes; those of [`Router::add`].
    pub(crate) fn add_route(&self, target: u16, gateway: Nid, priority: u32) -> Result {
        if target == self.nid().net() {
            return Err(EINVAL);
        }
        self.ni.check_peer(gateway)?;
        self.core.router.add(target, gateway, priority)
    }

    /// An administrator says that `gateway` is to be used, or not: then its connections are closed,
    /// and what was sent over them and not answered ends with an error. Thread context, may sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is no gateway.
    pub(crate) fn notify_gateway(&self, gateway: Nid, alive: bool) -> Result {
        self.core.router.notify(gateway, alive)?;
        if !alive {
            self.ni.close_peer(gateway, ECONNRESET);
        }
        Ok(())
    }

    /// Asks `to` who it is. Sleeps, but not longer than `timeout_ms`.
    ///
    /// # Errors
    ///
    /// - `ETIMEDOUT` if there was no answer in time.
    /// - `EINTR` if a signal came.
    /// - `EPROTO` if the answer makes no sense.
    /// - What [`LndNi::send`] says: `EHOSTUNREACH`, `ECONNREFUSED`, `ESHUTDOWN`, ...
    pub(crate) fn ping(&self, to: Nid, timeout_ms: u32) -> Result<PingReport> {
        ping::ping(&self.core, self.ni.as_arc_borrow(), to, timeout_ms)
    }

    /// Moves bulk data to or from a node that offers the service. Sleeps, but not longer than the
    /// time in `spec`. See [`bulk`].
    ///
    /// # Errors
    ///
    /// None once messages were sent: those that failed are in the result; except `EINTR`. Else:
    ///
    /// - `EINVAL` if `spec` makes no sense, `EMSGSIZE` if its messages are too long.
    /// - `EBUSY` if the peer can't serve this now.
    /// - `EPROTO` if its answer makes no sense.
    /// - The errors of [`Local::ping`]. A node that does not offer the service does not answer.
    pub(crate) fn run_bulk(&self, spec: &BulkSpec) -> Result<BulkResult> {
        bulk::run(&self.core, self.ni.as_arc_borrow(), spec)
    }

    /// Offers the bulk service until the guard is dropped. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is offered already, `ESHUTDOWN`, `ENOMEM`, `ENOSPC`.
    pub(crate) fn start_service(&self) -> Result<Service> {
        Service::start(&self.core)
    }
}
