// SPDX-License-Identifier: GPL-2.0

//! Tunables: the module parameters and sysctls.
//!
//! Module parameters have the names of those of Lustre's C module. Values with which that one loads, this one
//! accepts too: at insertion a range with `near` takes the nearest number, and logs it. Each value is an atomic
//! number that is within its range at any time; readers see the current value. The functions below say when a
//! change takes effect: "in force at once" includes existing connections, the others keep the value with which
//! they were created.

use crate::{
    layer::CONNS_PER_PEER,
    lib_linux::{
        misc,
        param::{
            self,
            knobs,
            Knob, //
        },
        sysctl, //
    },
    wire::{
        Checksum,
        ConnType,
        ConnTypes,
        MsgClass,
        Proto, //
    },
    LND, //
};
use core::net::SocketAddr;
use kernel::{
    pr_info_once,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

knobs! {
    /// Seconds without progress until a peer is given up; 0 is [`DEFAULT_TIMEOUT_S`].
    sock_timeout: 50 near 0..=86_400, 0o644,
        "seconds without progress until a peer is given up (0: 50)";
    /// Schedulers; 0 is one per processor.
    nscheds: 0 near 0..=4_096, 0o444,
        "number of scheduler threads (0: one per CPU)";
    /// Autoconnect daemons.
    nconnds: 4 near 1..=64, 0o444,
        "number of autoconnect daemons";
    /// Milliseconds before the first retry of a failed connection.
    min_reconnectms: 1_000 near 1..=3_600_000, 0o644,
        "milliseconds before a failed connection is first retried" => check_if_loaded;
    /// Milliseconds that the wait between retries grows to.
    max_reconnectms: 60_000 near 1..=3_600_000, 0o644,
        "milliseconds that the wait between retries grows to" => check_if_loaded;
    /// Separate connections for control, bulk in and bulk out.
    typed_conns: 1 near 0..=1, 0o644,
        "separate connections by type of traffic (0: one for all, with protocol 1 and 2)";
    /// Connections for bulk to each peer, each way; 0 is as many as the link is fast.
    conns_per_peer: [CONNS_PER_PEER] near 0..=127, 0o644,
        "bulk connections to each peer, each way (protocol 3 and 4; 0: by the link's speed)";
    /// The smallest message, headers included, that counts as bulk.
    min_bulk: 1_024 near 0..=2_147_483_647, 0o644,
        "smallest message, headers included, that goes over a bulk connection (over 1 MiB: none)";
    /// The smallest payload that is sent without a copy; -1 is [`DEFAULT_ZC_MIN_PAYLOAD`].
    zc_min_payload: 2_048 near -1..=2_147_483_647, 0o644,
        "smallest payload in bytes that is sent without copying (more than 1048576: none, -1: 2048)";
    /// Bytes of socket buffer, each way; 0 leaves it to TCP.
    buffer_size: 8_388_608 in 0..=1_073_741_823, 0o644,
        "socket buffers in bytes, each way (0: tuned by TCP)" => apply;
    /// Bytes of socket send buffer; 0 leaves it to TCP, -1 is `buffer_size`.
    tx_buffer_size: -1 near -1..=1_073_741_823, 0o644,
        "socket send buffer in bytes (0: tuned by TCP, -1: buffer_size)" => apply;
    /// Bytes of socket receive buffer; 0 leaves it to TCP, -1 is `buffer_size`.
    rx_buffer_size: -1 near -1..=1_073_741_823, 0o644,
        "socket receive buffer in bytes (0: tuned by TCP, -1: buffer_size)" => apply;
    /// Acknowledge each message at once.
    eager_ack: 0 near 0..=1, 0o644,
        "have TCP acknowledge each message as soon as it was received";
    /// Nagle's algorithm.
    nagle: 0 near 0..=1, 0o644,
        "delay small segments (Nagle's algorithm)" => apply;
    /// Serve a connection where its packets arrive.
    enable_irq_affinity: 1 near 0..=1, 0o644,
        "serve a connection on the CPU where its packets arrive";
    /// Seconds of silence before TCP probes the peer; 0 is never.
    keepalive_idle: 30 near 0..=32_767, 0o644,
        "idle seconds before the first keepalive probe (0: no probes)" => apply;
    /// Probes without an answer until TCP gives up.
    keepalive_count: 10 near 0..=127, 0o644,
        "unanswered keepalive probes until the connection is given up (0: no probes)" => apply;
    /// Seconds between probes.
    keepalive_intvl: 2 near 0..=32_767, 0o644,
        "seconds between keepalive probes (0: no probes)" => apply;
    /// The type of service of all packets; -1 leaves sockets as they are.
    tos: -1 in -1..=255, 0o644,
        "type of service, or traffic class, of packets (-1: as the kernel has it)" => apply;
    /// Who may connect.
    accept: 0 of ["secure", "all", "none"], 0o644,
        "who may connect: secure (privileged ports only), all or none";
    /// Whether nodes forward messages from the start.
    forwarding: 0 of ["disabled", "enabled"], 0o444,
        "whether nodes forward messages from the start: disabled or enabled";
    /// Forwarding buffers of one page.
    small_router_buffers: 128 in 1..=65_536, 0o644,
        "forwarding buffers for messages of up to a page, for each node that forwards";
    /// Forwarding buffers of the largest message.
    large_router_buffers: 64 in 1..=4_096, 0o644,
        "forwarding buffers of 1 MiB for larger messages, for each node that forwards";
    /// MiB of memory for all sessions of the bulk service.
    bulk_memory: 128 in 0..=65_536, 0o644,
        "MiB that sessions of the bulk test service take at most, of all NIDs together (0: no sessions)";
    /// The port to listen on and to connect to.
    accept_port: 988 in 1..=65_535, 0o444,
        "port to listen on, and to connect to unless a route says otherwise";
    /// Connections that may wait to be accepted.
    accept_backlog: 127 near 1..=65_535, 0o644,
        "connections that may wait to be accepted";
    /// Seconds for a passive handshake.
    accept_timeout: 5 near 1..=3_600, 0o644,
        "seconds that a node that connects has for its whole handshake";
    /// The most passive handshakes that an NI has under way.
    max_pending: 64 in 1..=4_096, 0o644,
        "passive handshakes that an NI has under way at most";
    /// The most connections to strangers that an NI has, and strangers that it connects to; 0 is as many as fit into
    /// half of the memory.
    max_strangers: 0 in 0..=16_777_216, 0o644,
        "connections to strangers, and strangers to connect to, per NI (0: by memory)";
    /// The most of them that one source address has.
    max_strangers_per_source: 64 in 1..=65_536, 0o644,
        "of those, how many one source address may have, or be the reason for";
    /// The version of the protocol to begin with.
    protocol: 3 in 1..=4, 0o644,
        "protocol version that new NIDs begin with on IPv4 (1 and 2: they speak no newer one)";
    /// Checksums of messages.
    enable_csum: 0 near 0..=1, 0o644,
        "send checksums where the protocol has them, which is in version 2";
    /// Whether acknowledgements go out on a connection of their own.
    nonblk_zcack: 1 near 0..=1, 0o644,
        "acknowledge zero-copy messages on the bulk-in connection only (protocol 3 and 4)";
    /// Whether peers are asked to acknowledge zero-copy messages.
    zc_acks: 0 in 0..=1, 0o644,
        "count zero-copy messages as sent when the peer acknowledges them (protocol 2 and later)";
    /// Seconds of silence before a peer is sent a keepalive message; 0 is never.
    keepalive: 30 near 0..=86_400, 0o644,
        "seconds of silence before a peer is sent a keepalive message (0: never)" => remind;
    /// Whether to connect to addresses that peers name.
    learn_routes: 0 in 0..=1, 0o644,
        "connect also to the addresses that a peer names (0: only to those of its routes)";
    /// From which addresses a NID is accepted.
    check_nid: 1 in 0..=2, 0o644,
        "accept a NID from 0: any address, 1: its own, its routes', and those in a subnet with its own and us, \
         2: its own and its routes' (none of this proves who a node is)";
}

/// The names that some of them have had in `/proc/sys/socknal` since 2005.
static SYSCTLS: &[(&CStr, &Knob)] = &[
    (c"timeout", &sock_timeout),
    (c"eager_ack", &eager_ack),
    (c"zero_copy", &zc_min_payload),
    (c"typed", &typed_conns),
    (c"min_bulk", &min_bulk),
    (c"buffer_size", &buffer_size),
    (c"nagle", &nagle),
    (c"irq_affinity", &enable_irq_affinity),
    (c"keepalive_idle", &keepalive_idle),
    (c"keepalive_count", &keepalive_count),
    (c"keepalive_intvl", &keepalive_intvl),
];

/// Makes the tunables appear in `/proc/sys/socknal` while the registration exists. May sleep.
pub(crate) fn register_sysctls() -> Result<sysctl::Registration> {
    sysctl::Registration::new(c"socknal", SYSCTLS)
}

/// The meaning of `sock_timeout=0`, in seconds. The C driver uses LNet's timeout then, which is 49 by
/// default; here that is so if there is an LNet, see [`follow`].
const DEFAULT_TIMEOUT_S: u64 = 50;

/// The same now.
static DEFAULT_TIMEOUT: Atomic<u64> = Atomic::new(DEFAULT_TIMEOUT_S);

/// The port for connections for bulk; 0 is that for all others.
static BULK_PORT: Atomic<u32> = Atomic::new(0);

/// Values that the message layer has parameters of its own for.
#[allow(dead_code, reason = "for message layers that have any")]
pub(crate) struct Foreign {
    pub(crate) acceptance: Acceptance,
    pub(crate) port: u32,
    /// For connections for bulk.
    pub(crate) bulk_port: u32,
    pub(crate) backlog: u32,
    pub(crate) accept_timeout_s: u32,
    /// What `sock_timeout=0` means.
    pub(crate) timeout_s: u32,
}

/// Takes over the values of the message layer, or the nearest possible ones. In force as if the parameters were
/// changed. Any context.
#[allow(dead_code, reason = "for message layers that have any")]
pub(crate) fn follow(values: &Foreign) {
    let number = |value: u32| c_int::try_from(value).unwrap_or(c_int::MAX);
    accept.follow(match values.acceptance {
        Acceptance::Secure => 0,
        Acceptance::All => 1,
        Acceptance::Nobody => 2,
    });
    accept_port.follow(number(values.port));
    BULK_PORT.store(values.bulk_port, Relaxed);
    accept_backlog.follow(number(values.backlog));
    accept_timeout.follow(number(values.accept_timeout_s));
    DEFAULT_TIMEOUT.store(values.timeout_s.max(1).into(), Relaxed);
}

/// The meaning of `zc_min_payload=-1`: the C driver uses this for any smaller number. Here only -1 means it.
const DEFAULT_ZC_MIN_PAYLOAD: usize = 2_048;

/// Logs which values are replaced by others, because they contradict each other or have a special meaning.
///
/// Called when all module parameters have been set; later changes are checked when they are made.
pub(crate) fn inserted() {
    param::insertion_is_over();
    if check_reconnects().is_err() {
        let max = max_reconnectms.get();
        pr_warn!("using {max} for min_reconnectms, too\n");
    }
    if sock_timeout.get() == 0 {
        let seconds = DEFAULT_TIMEOUT.load(Relaxed);
        pr_info!("sock_timeout=0: using {seconds} seconds\n");
    }
    if zc_min_payload.get() < 0 {
        pr_info!("zc_min_payload=-1: using {DEFAULT_ZC_MIN_PAYLOAD}, as the C driver does\n");
    }
}

/// Refuses values that contradict each other, and logs that.
fn check_reconnects() -> Result {
    let (min, max) = (min_reconnectms.get(), max_reconnectms.get());
    if min > max {
        pr_err!("min_reconnectms={min} is more than max_reconnectms={max}\n");
        return Err(EINVAL);
    }
    Ok(())
}

/// [`check_reconnects`], once the module is loaded: while it is being inserted, parameters are set one after
/// the other, and [`inserted`] checks them.
fn check_if_loaded() -> Result {
    match LND.get() {
        Some(_) => check_reconnects(),
        None => Ok(()),
    }
}

/// Applies the values to existing sockets. May sleep.
fn apply() -> Result {
    match LND.get() {
        Some(lnd) => lnd.apply_tunables(),
        None => Ok(()),
    }
}

/// Makes the reaper check all peers, because some may be in none of its lists. May sleep.
fn remind() -> Result {
    match LND.get() {
        Some(lnd) => lnd.remind(),
        None => Ok(()),
    }
}

/// The value of a parameter whose range has no negative numbers.
fn get(knob: i32) -> u64 {
    u64::try_from(knob).unwrap_or(0)
}

/// How long a peer may make no progress, in milliseconds; a second or more. In force at once.
pub(crate) fn timeout_ms() -> u64 {
    let seconds = match get(sock_timeout.get()) {
        0 => DEFAULT_TIMEOUT.load(Relaxed),
        seconds => seconds,
    };
    seconds.saturating_mul(1000)
}

/// How long a passive handshake may take, in milliseconds.
pub(crate) fn handshake_timeout_ms() -> u64 {
    get(accept_timeout.get()).saturating_mul(1000)
}

/// The most bytes of memory for all sessions of the bulk service. For new sessions.
pub(crate) fn bulk_bytes() -> usize {
    (get(bulk_memory.get()) as usize) << 20
}

/// The wait before the first retry, in milliseconds: not more than the longest. In force at once.
pub(crate) fn min_reconnect_ms() -> u64 {
    get(min_reconnectms.get()).min(max_reconnect_ms())
}

/// The longest wait between retries, in milliseconds. In force at once.
pub(crate) fn max_reconnect_ms() -> u64 {
    get(max_reconnectms.get())
}

/// Whether new connections that speak `proto` have types.
pub(crate) fn conn_types(proto: Proto) -> ConnTypes {
    let wanted = typed_conns.get() != 0;
    if !wanted && proto.is_always_typed() {
        pr_info_once!("typed_conns=0 has no effect with protocol 3 and 4: those need types\n");
    }
    match wanted || proto.is_always_typed() {
        true => ConnTypes::Typed,
        false => ConnTypes::Untyped,
    }
}

/// How many bulk connections there should be to each peer, each way; `None` is by the speed of the link. For
/// new NIs.
pub(crate) fn bulk_conns() -> Option<u32> {
    u32::try_from(conns_per_peer.get()).ok().filter(|n| *n != 0)
}

/// The smallest message in bytes, headers included, that is bulk. In force at once.
pub(crate) fn bulk_nob() -> usize {
    get(min_bulk.get()) as usize
}

/// The smallest payload in bytes that is sent without a copy. In force at once, for messages
/// of which nothing was sent yet.
pub(crate) fn zc_min_payload_nob() -> usize {
    usize::try_from(zc_min_payload.get()).unwrap_or(DEFAULT_ZC_MIN_PAYLOAD)
}

/// The sizes of the send and the receive buffer in bytes; with 0 TCP sets them. In force at once, but the
/// window of an existing connection is limited by the scale that was negotiated when it was opened.
pub(crate) fn buffer_sizes() -> (usize, usize) {
    let size = |own: i32| match own {
        ..0 => get(buffer_size.get()) as usize,
        own => get(own) as usize,
    };
    (size(tx_buffer_size.get()), size(rx_buffer_size.get()))
}

/// Whether TCP is to acknowledge each message as soon as it was received. In force at once; existing
/// connections stop it after some time.
pub(crate) fn eager_acks() -> bool {
    eager_ack.get() != 0
}

/// Whether new connections are served where their packets arrive.
pub(crate) fn irq_affinity() -> bool {
    enable_irq_affinity.get() != 0
}

/// Whether sockets use Nagle's algorithm. In force at once.
pub(crate) fn use_nagle() -> bool {
    nagle.get() != 0
}

/// TCP keepalive: idle seconds, seconds between probes and number of probes; if one is 0, all are, and there
/// are no probes. In force at once.
pub(crate) fn tcp_keepalive() -> (i32, i32, i32) {
    let all = (
        keepalive_idle.get(),
        keepalive_intvl.get(),
        keepalive_count.get(),
    );
    match all {
        (0, _, _) | (_, 0, _) | (_, _, 0) => (0, 0, 0),
        all => all,
    }
}

/// The type of service of packets; with `None` it is not changed. In force at once.
pub(crate) fn type_of_service() -> Option<u8> {
    u8::try_from(tos.get()).ok()
}

/// Who may connect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// Nodes that connect from a privileged port.
    Secure,
    /// All.
    All,
    /// None: this node opens all connections.
    Nobody,
}

/// Who may connect. In force at once.
pub(crate) fn acceptance() -> Acceptance {
    match accept.get() {
        0 => Acceptance::Secure,
        1 => Acceptance::All,
        _ => Acceptance::Nobody,
    }
}

/// Whether a node forwards before an administrator says anything about it.
pub(crate) fn forwarding_at_first() -> bool {
    forwarding.get() != 0
}

/// The numbers of small and large buffers of a node, for when its forwarding is next enabled.
pub(crate) fn forwarding_buffers() -> (usize, usize) {
    (
        get(small_router_buffers.get()) as usize,
        get(large_router_buffers.get()) as usize,
    )
}

/// The port to listen on, and of routes without a port.
pub(crate) fn port() -> u16 {
    u16::try_from(accept_port.get()).unwrap_or(988)
}

/// The port to listen on for connections for bulk, if it is another than [`port`].
pub(crate) fn bulk_port() -> Option<u16> {
    let bulk = u16::try_from(BULK_PORT.load(Relaxed));
    bulk.ok().filter(|bulk| *bulk != 0 && *bulk != port())
}

/// The address to connect to for a connection of this type: `addr`, but if its port is that for all connections,
/// and there is another one for bulk, with that one.
pub(crate) fn with_port_for(kind: ConnType, addr: SocketAddr) -> SocketAddr {
    match (kind, bulk_port()) {
        (ConnType::BulkIn | ConnType::BulkOut, Some(bulk)) if addr.port() == port() => {
            SocketAddr::new(addr.ip(), bulk)
        }
        _ => addr,
    }
}

/// The backlog of new listening sockets.
pub(crate) fn backlog() -> i32 {
    accept_backlog.get()
}

/// How many passive handshakes an NI may have under way. In force at once.
pub(crate) fn pending_limit() -> usize {
    get(max_pending.get()) as usize
}

/// The approximate memory of a connection in bytes, its socket included.
const CONN_NOB: usize = 64 << 10;

/// The least default for the number of strangers' connections.
const FEW_STRANGERS: usize = 1024;

/// How many connections to strangers an NI may have, and how many strangers it may connect to, for one source
/// address and in total, if it wants `bulk` connections for bulk to each peer, each way. In force at once, for
/// new ones.
///
/// The limit for one address is at least twice the number of a peer's connections, because after its restart
/// the old ones exist for a while.
pub(crate) fn strangers(bulk: u32) -> (usize, usize) {
    // CAST: At most 127.
    let of_peer = 1 + 2 * bulk.min(127) as usize;
    let of_source = (get(max_strangers_per_source.get()) as usize).max(2 * of_peer);
    let of_all = match get(max_strangers.get()) as usize {
        0 => (misc::memory_nob() / 2 / CONN_NOB).max(FEW_STRANGERS),
        most => most,
    };
    (of_source, of_all)
}

/// From which addresses a NID is accepted. This proves nothing: addresses can be forged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NidCheck {
    /// From any address.
    Off,
    /// From addresses that are known to be the node's, and from the subnet of an interface that its NID's address
    /// is in as well.
    Subnet,
    /// From addresses that are known to be the node's: the one in the NID, and those of its routes.
    Strict,
}

/// From which addresses a NID is accepted. In force at once.
pub(crate) fn nid_check() -> NidCheck {
    match check_nid.get() {
        0 => NidCheck::Off,
        2 => NidCheck::Strict,
        _ => NidCheck::Subnet,
    }
}

/// The newest version of the protocol that new NIs speak, and the version to begin with on IPv4; on IPv6
/// that is at least 4, if it is spoken.
pub(crate) fn protocols() -> (Proto, Proto) {
    match protocol.get() {
        1 => (Proto::V1, Proto::V1),
        2 => (Proto::V2, Proto::V2),
        4 => (Proto::NEWEST, Proto::V4),
        _ => (Proto::NEWEST, Proto::V3),
    }
}

/// The checksum that messages are sent with where the version has one. In force at once.
pub(crate) fn checksum() -> Checksum {
    match enable_csum.get() {
        0 => Checksum::None,
        _ => Checksum::Crc32,
    }
}

/// The class of acknowledgements of zero-copy messages. In force at once.
pub(crate) fn ack_class() -> MsgClass {
    if nonblk_zcack.get() != 0 {
        MsgClass::Ack
    } else {
        MsgClass::PatientAck
    }
}

/// Whether peers are asked to acknowledge what is sent without a copy. In force at once, for messages of which
/// nothing was sent yet.
pub(crate) fn acks_wanted() -> bool {
    zc_acks.get() != 0
}

/// After how many milliseconds of silence a peer is sent a keepalive message. In force at once.
pub(crate) fn ping_after_ms() -> Option<u64> {
    match get(keepalive.get()) {
        0 => None,
        seconds => Some(seconds.saturating_mul(1000)),
    }
}

/// Whether to connect to addresses that peers name in their HELLOs. In force at once.
pub(crate) fn routes_are_learned() -> bool {
    learn_routes.get() != 0
}

/// The number of schedulers; `None` is one per processor.
pub(crate) fn schedulers() -> Option<usize> {
    match get(nscheds.get()) {
        0 => None,
        n => Some(n as usize),
    }
}

/// The number of autoconnect daemons.
pub(crate) fn daemons() -> u32 {
    u32::try_from(nconnds.get()).unwrap_or(1)
}
