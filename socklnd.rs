// SPDX-License-Identifier: GPL-2.0

//! `ksocklnd`: Lustre's socket network driver.
//!
//! Moves LNet messages between nodes over TCP, from kernel to kernel. `README.md` has a picture of
//! the parts; each file says at its top what it is and who protects and frees what is in it.
//!
//! # Locks
//!
//! Every lock class of the module by the name that lockdep shows, outermost first: a lock is taken only
//! while locks further up are held, of those that its last column names. `scripts/check-locks` fails if
//! one is missing here. "Any of the above" includes none.
//!
//! No thread sleeps or does socket I/O while it holds a spinlock. Functions that must not be called with one held
//! check that by `lib_linux::misc::assert_may_sleep`. Allocations with a mutex held must not enter a file system,
//! see `lib_linux::misc::memalloc_nofs`; where it matters, `assert_memalloc_nofs` checks that.
//!
//! ## The kernel's own
//!
//! | lock | held when the kernel calls | taken by us inside |
//! |---|---|---|
//! | `pernet_ops_rwsem` | `NamespaceExit`, which takes `socklnd_config` | nothing, to register |
//! | `rtnl_mutex` | `AddressEvents`, which takes `socklnd_nis`, then `socklnd_interfaces` | `socklnd_config`, to ask for a link's speed |
//! | `param_lock` of the module | a parameter's handler, which takes `socklnd_nis`, peers' and sockets' locks | nothing, for sysctl and debugfs |
//! | a socket's lock | nothing | `socklnd_listener`, `socklnd_conn_io`, `socklnd_handshake` |
//! | `sk_callback_lock`, a socket's wait queue | the socket's callbacks, which take `socklnd_mailbox` | a socket's lock |
//!
//! ## Mutexes
//!
//! | class | in | protects | inside |
//! |---|---|---|---|
//! | `socklnd_ctl_services` | `portals::ioctl::File` | the bulk services of an open device file | nothing |
//! | `socklnd_config` | `Lnd` | that one NI at a time comes or goes; nobody waits under it until one has ended | nothing |
//! | `socklnd_fwd_enabled` | `fwd::Forwarder` | whether the node forwards | `socklnd_config` |
//! | `socklnd_listeners` | `acceptor::Acceptor` | the list of listeners | `socklnd_config` |
//! | `socklnd_listener` | `acceptor::Listener` | its socket | `socklnd_listeners` |
//! | `socklnd_conn_io` | `conn::Conn` | what the thread that does its I/O uses; given up while the message layer is called | nothing |
//! | `socklnd_handshake` | `conn::Handshake` | its socket and its stage | nothing |
//! | `socklnd_handshakes` | `conn::HandshakeTable` | an NI's list of handshakes | `socklnd_conn_io` |
//! | `socklnd_strangers` | `peer::Strangers` | which strangers an NI has, or connects to; two of these, never one inside the other | any of the above |
//! | `socklnd_sched_thread` | `sched::Sched` | the handle of its thread | nothing |
//! | `socklnd_portals_service` | `portals::PortalsInner` | the bulk service that is offered | `socklnd_ctl_services` |
//! | `socklnd_bulk_service` | `portals::bulk` | a bulk service's sessions; of another service only by `try_lock` | `socklnd_portals_service` |
//! | `socklnd_test_layers` | `test_layer::State` | NIs under the message layer for tests | `socklnd_config` |
//! | `socklnd_test_jobs` | `test_layer::State` | its answers that are due | nothing |
//! | `socklnd_ledger` | `stats::Ledger` | an NI's sums of traffic | `socklnd_config` |
//! | `socklnd_gauge` | `stats::Gauge` | nothing; who waits for zero sleeps on it | any of the above |
//!
//! ## Spinlocks
//!
//! | class | in | protects | inside |
//! |---|---|---|---|
//! | `socklnd_nis` | `Lnd` | the list of NIs | `socklnd_config`, `rtnl_mutex`, `param_lock` |
//! | `socklnd_lnet_receive` | `lnet::Receive` | where a payload goes | any mutex |
//! | `socklnd_portals_nodes` | `portals::Layer` | the list of nodes | `socklnd_config` |
//! | `socklnd_portals_nis` | `portals::Node` | a node's NIs | any mutex |
//! | `socklnd_listener_users` | `acceptor::Listener` | who listens there | `socklnd_listeners` |
//! | `socklnd_peer_table` | `peer::PeerTable` | a bucket of an NI's peers | any mutex |
//! | `socklnd_peer` | `peer::Peer` | its routes, connections and queue | any mutex, `socklnd_peer_table` |
//! | `socklnd_conn_txq` | `conn::Conn` | its queues of transmits and acknowledgements | any mutex, `socklnd_peer` |
//! | `socklnd_conn_parked` | `conn::Conn` | what was said later about a payload | `socklnd_conn_io` |
//! | `socklnd_local_msg` | `ni::LocalMsg` | what is left to do of a message to this node itself | nothing |
//! | `socklnd_local_msg_asked` | `ni::LocalMsg` | who says where it goes | nothing |
//! | `socklnd_interfaces` | `interface::Interfaces` | an NI's addresses | any mutex, `socklnd_peer`, `socklnd_nis` |
//! | `socklnd_peer_unacked` | `peer::Peer` | messages that it has yet to acknowledge | any mutex, `socklnd_peer` |
//! | `socklnd_portals_ops` | `portals::PortalsInner` | operations that wait for a response | any mutex, `socklnd_peer` |
//! | `socklnd_portals_table` | `portals::PortalsInner` | match entries | any mutex |
//! | `socklnd_portals_credits` | `portals::ResponseCredits` | how many responses wait to be sent | any mutex |
//! | `socklnd_router` | `portals::Router` | routes to other networks | any mutex |
//! | `socklnd_portals_eq` | `portals::EventQueue` | events of operations | any mutex |
//! | `socklnd_bulk_state` | `portals::bulk` | a session's state | any mutex |
//! | `socklnd_bulk_memory` | `portals::bulk` | how much memory sessions have | any mutex |
//! | `socklnd_fwd_credits` | `fwd::Forwarder` | how many buffers addresses and nodes hold | any mutex |
//! | `socklnd_fwd_pool` | `fwd::Pool` | forwarding buffers and messages that wait for one | any mutex |
//! | `socklnd_frags` | `lib_linux` | a processor's page for small pieces | any mutex |
//!
//! ## Spinlocks with interrupts off
//!
//! The only locks of ours that callbacks of sockets and of `ubuf_info` take; never two of them. They are inside
//! any of the above.
//!
//! | class | in | protects |
//! |---|---|---|
//! | `socklnd_mailbox` | `mailbox::Mailbox` | a thread's queue |
//! | `socklnd_sched_zc_done` | `sched::Sched` | zero-copy batches that are complete |
//! | `socklnd_zc_list` | `lib_linux::socket::ZcList` | zero-copy ubufs that packets refer to |

#![deny(unsafe_code)]
// What only the embedded message layer needs of the driver.
#![cfg_attr(socklnd_lnet, allow(dead_code, unused_imports, unused_macros))]

mod acceptor;
mod autoconnect;
mod conn;
mod context;
mod ctl;
mod debugfs;
mod fault;
#[cfg(not(socklnd_lnet))]
mod fwd;
mod interface;
#[allow(unsafe_code)]
mod lib_linux;
mod lnd;
#[cfg(socklnd_lnet)]
#[warn(dead_code, unused_imports, unused_macros)]
mod lnet;
mod mailbox;
mod ni;
mod peer;
#[cfg(not(socklnd_lnet))]
mod portals;
mod reaper;
mod route;
mod sched;
mod stats;
#[cfg(CONFIG_KUNIT = "y")]
mod test_layer;
mod trace;
mod tunables;
mod tx;
#[allow(
    dead_code,
    reason = "each message layer uses what it needs of the boundary"
)]
mod upper;
mod wire;

pub(crate) use self::lnd::{
    Lnd,
    LND, //
};
/// The message layer: the rest of the driver does not know which one that is.
#[cfg(socklnd_lnet)]
use self::lnet as layer;
#[cfg(not(socklnd_lnet))]
use self::portals as layer;
use crate::{
    lib_linux::{
        debugfs::Dir,
        global::Published,
        inetaddr::AddressWatch,
        misc,
        netns::PernetRegistration,
        page::FragCaches,
        sysctl, //
    },
    lnd::{
        AddressEvents,
        NamespaceExit,
        Threads, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

module! {
    type: Ksocklnd,
    name: "ksocklnd",
    authors: ["The socklnd developers"],
    description: "Lustre socket network driver",
    license: "GPL",
}

/// Shuts all NIs down when dropped.
struct RunningNis(Arc<Lnd>);

impl Drop for RunningNis {
    fn drop(&mut self) {
        misc::memalloc_nofs(|| self.0.close());
    }
}

#[cfg(CONFIG_KUNIT = "y")]
use self::test_layer::TestLayer;

/// Where there are no unit tests, there is no message layer for tests either.
#[cfg(not(CONFIG_KUNIT = "y"))]
struct TestLayer;

#[cfg(not(CONFIG_KUNIT = "y"))]
impl TestLayer {
    fn new(_real: Arc<dyn upper::MessageLayers>) -> Result<Self> {
        Ok(Self)
    }

    fn layers(real: Arc<dyn upper::MessageLayers>) -> Arc<dyn upper::MessageLayers> {
        real
    }
}

/// When dropped, waits for callbacks on other processors to return: the module's code goes next.
struct Callbacks;

impl Drop for Callbacks {
    fn drop(&mut self) {
        lib_linux::wait_for_callbacks();
    }
}

/// The module. Its fields are dropped in this order: first the interfaces to user space, then the NIs, then the
/// threads, and last what all of these use.
#[pin_data]
struct Ksocklnd {
    _registration: layer::Registration,
    #[pin]
    device: ctl::Device,
    _debugfs: Dir,
    _sysctls: sysctl::Registration,
    _addresses: AddressWatch<AddressEvents>,
    _nis: RunningNis,
    _test_layer: TestLayer,
    _threads: Threads,
    _published: Published<Lnd>,
    _layer: Published<layer::Layer>,
    _namespaces: PernetRegistration<NamespaceExit>,
    _callbacks: Callbacks,
    _frags: FragCaches,
}

impl kernel::InPlaceModule for Ksocklnd {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _frags: FragCaches::new(),
            _callbacks: Callbacks,
            _namespaces: PernetRegistration::new()?,
            _layer: layer::LAYER.publish(layer::Layer::new()?)?,
            _test_layer: TestLayer::new(layer::LAYER.get().ok_or(ENODEV)?)?,
            _published: {
                let layers = TestLayer::layers(layer::LAYER.get().ok_or(ENODEV)?);
                LND.publish(Lnd::new(layers)?)?
            },
            // From now on the tunables are checked as they change.
            _threads: {
                tunables::inserted();
                Threads::start(&LND.get().ok_or(ENODEV)?)?
            },
            _nis: RunningNis(LND.get().ok_or(ENODEV)?),
            _addresses: AddressWatch::new()?,
            _sysctls: tunables::register_sysctls()?,
            // From here on the module is in use, and nothing may fail any more.
            device <- ctl::Device::new(),
            _debugfs: debugfs::register(),
            _registration: layer::Registration::new(),
        })
    }
}
