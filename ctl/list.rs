// SPDX-License-Identifier: GPL-2.0

//! Requests for lists, which are written to arrays of user space.
//!
//! A list is first made as a whole in memory of the request, and then copied. Nothing is shared, and no lock is
//! held while user space's memory is accessed.

use super::{
    convert::{
        check_zero,
        count,
        pattern,
        raw_addr,
        raw_conn_type,
        raw_nid,
        raw_socket, //
    },
    ffi as uapi,
    Caller, //
};
use crate::{
    conn::Conn,
    layer::ioctl,
    lib_linux::time,
    ni::Ni,
    peer::{
        Peer,
        PeerInfo,
        RouteInfo, //
    },
    stats::Gauge,
    upper::Link,
    wire::PID_LUSTRE, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    transmute::AsBytes,
    uaccess::{
        UserSlice,
        UserSliceWriter, //
    }, //
};

/// An entry of a list.
pub(crate) trait Entry: AsBytes {
    /// Its size in the first version of the interface, which is the least that a caller may use.
    const OLDEST_SIZE: usize;

    /// Adds the entries of one NI. May sleep.
    fn collect(ni: &Arc<Ni>, into: &mut KVVec<Self>) -> Result
    where
        Self: Sized;
}

/// Handles a request for a list of `T`s. May sleep.
pub(super) fn list<T: Entry>(caller: &Caller, request: &mut uapi::socklnd_list) -> Result {
    let layout = Layout::new::<T>(request)?;
    let mut entries = KVVec::new();
    for ni in caller.nis(pattern(&request.ni)?)?.iter() {
        T::collect(ni, &mut entries)?;
    }
    request.total = count(entries.len());
    request.count = request.total.min(request.capacity);
    layout.write(entries.iter().take(request.count as usize))
}

/// The array in user space.
struct Layout {
    start: usize,
    entry_size: usize,
    capacity: usize,
}

impl Layout {
    /// Checks a request, except its pattern.
    fn new<T: Entry>(request: &uapi::socklnd_list) -> Result<Self> {
        check_zero([request.flags, request.pad])?;
        let entry_size = request.entry_size as usize;
        let range = T::OLDEST_SIZE..=uapi::SOCKLND_MAX_ENTRY_SIZE as usize;
        if !range.contains(&entry_size) || entry_size % 8 != 0 {
            return Err(EINVAL);
        }
        Ok(Self {
            start: request.entries.try_into().map_err(|_| EFAULT)?,
            entry_size,
            capacity: request.capacity as usize,
        })
    }

    /// Writes entries, at most as many as there is room for.
    fn write<'a, T: Entry + 'a>(&self, entries: impl ExactSizeIterator<Item = &'a T>) -> Result {
        let len = entries
            .len()
            .min(self.capacity)
            .checked_mul(self.entry_size);
        let to = UserSlice::new(UserPtr::from_addr(self.start), len.ok_or(EFAULT)?);
        let mut to = to.writer();
        for entry in entries {
            let (known, unknown) = self.split(entry);
            to.write_slice(known)?;
            write_zeros(&mut to, unknown)?;
        }
        Ok(())
    }

    /// The part of an entry that both sides know, and the number of zeros behind it.
    fn split<'a, T: Entry>(&self, entry: &'a T) -> (&'a [u8], usize) {
        let bytes = entry.as_bytes();
        match bytes.split_at_checked(self.entry_size) {
            Some((known, _)) => (known, 0),
            None => (bytes, self.entry_size - bytes.len()),
        }
    }
}

fn write_zeros(to: &mut UserSliceWriter, mut len: usize) -> Result {
    const ZEROS: [u8; 64] = [0; 64];
    while let Some(zeros) = ZEROS.get(..len.min(ZEROS.len())).filter(|z| !z.is_empty()) {
        to.write_slice(zeros)?;
        len -= zeros.len();
    }
    Ok(())
}

/// The state of all peers of an NI. May sleep.
fn peers(ni: &Ni) -> Result<KVVec<PeerInfo>> {
    let peers = ni.peers().collect()?;
    let mut infos = KVVec::with_capacity(peers.len(), GFP_KERNEL)?;
    for peer in peers.iter() {
        infos.push(peer.snapshot()?, GFP_KERNEL)?;
    }
    Ok(infos)
}

impl Entry for uapi::socklnd_ni_entry {
    const OLDEST_SIZE: usize = uapi::SOCKLND_NI_ENTRY_SIZE_VER0 as usize;

    fn collect(ni: &Arc<Ni>, into: &mut KVVec<Self>) -> Result {
        let peers = peers(ni)?;
        let entry = Self {
            nid: raw_nid(ni.nid()),
            incarnation_us: microseconds(ni.incarnation()),
            state: match ni.link() {
                Link::Up => uapi::SOCKLND_NI_UP,
                Link::Down => uapi::SOCKLND_NI_DOWN,
            },
            pid: PID_LUSTRE,
            peers: count(peers.len()),
            conns: count(peers.iter().map(|peer| peer.conns.len()).sum()),
            conns_per_peer: ni.conns_per_peer(),
            pad: 0,
        };
        Ok(into.push(entry, GFP_KERNEL)?)
    }
}

impl Entry for uapi::socklnd_if_entry {
    const OLDEST_SIZE: usize = uapi::SOCKLND_IF_ENTRY_SIZE_VER0 as usize;

    fn collect(ni: &Arc<Ni>, into: &mut KVVec<Self>) -> Result {
        for interface in ni.interface_info()?.iter() {
            let mut flags = 0;
            if !interface.is_prefix_configured {
                flags |= uapi::SOCKLND_IF_KERNEL_PREFIX;
            }
            if interface.waits {
                flags |= uapi::SOCKLND_IF_WAITS;
            }
            let entry = Self {
                ni: raw_nid(ni.nid()),
                addr: raw_addr(interface.addr),
                prefix_len: interface.prefix_len.into(),
                peers: interface.npeers,
                routes: interface.nroutes,
                flags,
                pad: 0,
            };
            into.push(entry, GFP_KERNEL)?;
        }
        Ok(())
    }
}

impl Entry for uapi::socklnd_peer_entry {
    const OLDEST_SIZE: usize = uapi::SOCKLND_PEER_ENTRY_SIZE_VER0 as usize;

    fn collect(ni: &Arc<Ni>, into: &mut KVVec<Self>) -> Result {
        let now = time::monotonic_ms();
        for peer in peers(ni)?.iter() {
            let entry = peer_entry(ni, peer, now);
            if peer.routes.is_empty() {
                into.push(entry, GFP_KERNEL)?;
                continue;
            }
            for route in peer.routes.iter() {
                let mut entry = entry;
                add_route(&mut entry, route);
                into.push(entry, GFP_KERNEL)?;
            }
        }
        Ok(())
    }
}

/// Converts an incarnation to microseconds. Today's nodes send nanoseconds since 1970. Nodes of 2005 sent microseconds,
/// which taken for nanoseconds would be before 1975.
fn microseconds(incarnation: u64) -> u64 {
    const FIVE_YEARS_NS: u64 = 5 * 365 * 86_400 * 1_000_000_000;
    match incarnation {
        0..FIVE_YEARS_NS => incarnation,
        ns => ns / 1000,
    }
}

fn peer_entry(ni: &Ni, peer: &PeerInfo, now_ms: u64) -> uapi::socklnd_peer_entry {
    let state = if !peer.conns.is_empty() {
        uapi::SOCKLND_PEER_UP
    } else if peer.routes.iter().any(|route| route.connecting) {
        uapi::SOCKLND_PEER_CONNECTING
    } else {
        uapi::SOCKLND_PEER_IDLE
    };
    let shares = peer.routes.iter().map(|route| route.shares);
    uapi::socklnd_peer_entry {
        ni: raw_nid(ni.nid()),
        nid: raw_nid(peer.nid),
        state,
        conns: count(peer.conns.len()),
        routes: count(peer.routes.len()),
        share_count: shares.fold(0, u32::saturating_add),
        txs: count(peer.queued),
        incarnation_us: microseconds(peer.incarnation),
        idle_ms: now_ms.saturating_sub(peer.last_alive_ms),
        ..Default::default()
    }
}

fn add_route(entry: &mut uapi::socklnd_peer_entry, route: &RouteInfo) {
    entry.flags |= uapi::SOCKLND_PEER_HAS_ROUTE;
    if route.connecting {
        entry.flags |= uapi::SOCKLND_PEER_ROUTE_CONNECTING;
    }
    (entry.route_addr, entry.route_port) = raw_socket(route.addr);
    entry.route_share_count = route.shares;
    entry.route_conns = count(route.nconns);
    entry.route_opened = route.opened;
    entry.route_local = route.local.map(raw_addr).unwrap_or_default();
}

impl Entry for uapi::socklnd_conn_entry {
    const OLDEST_SIZE: usize = uapi::SOCKLND_CONN_ENTRY_SIZE_VER0 as usize;

    fn collect(ni: &Arc<Ni>, into: &mut KVVec<Self>) -> Result {
        let now = time::monotonic_ms();
        for peer in peers(ni)?.iter() {
            for conn in peer.conns.iter() {
                into.push(conn_entry(ni, peer, conn, now), GFP_KERNEL)?;
            }
        }
        Ok(())
    }
}

fn conn_entry(ni: &Ni, peer: &PeerInfo, conn: &Conn, now_ms: u64) -> uapi::socklnd_conn_entry {
    let (local_addr, local_port) = raw_socket(conn.local());
    let (peer_addr, peer_port) = raw_socket(conn.remote());
    // A connection that is being closed has no socket.
    let (tx_buffer, rx_buffer, nagle) = conn.socket_options().unwrap_or_default();
    let mut flags = 0;
    if conn.is_active() {
        flags |= uapi::SOCKLND_CONN_ACTIVE;
    }
    if nagle {
        flags |= uapi::SOCKLND_CONN_NAGLE;
    }
    let traffic = conn.traffic();
    let (sndbuf_full, err_nomem) = conn.waits();
    uapi::socklnd_conn_entry {
        ni: raw_nid(ni.nid()),
        nid: raw_nid(peer.nid),
        local_addr,
        local_port,
        peer_addr,
        peer_port,
        type_: raw_conn_type(conn.kind()),
        flags,
        cpu: conn.cpu(),
        protocol: conn.proto().number(),
        tx_buffer: count(tx_buffer),
        rx_buffer: count(rx_buffer),
        queued_bytes: conn.load(),
        tx_msgs: traffic.tx_msgs.get(),
        tx_bytes: traffic.tx_bytes.get(),
        rx_msgs: traffic.rx_msgs.get(),
        rx_bytes: traffic.rx_bytes.get(),
        age_ms: now_ms.saturating_sub(conn.born_ms()),
        zc_msgs: traffic.zc_msgs.get(),
        zc_bytes: traffic.zc_bytes.get(),
        queued_bytes_peak: conn.queued_peak(),
        sndbuf_full,
        err_nomem,
        ..Default::default()
    }
}

impl Entry for uapi::socklnd_peer_stats_entry {
    const OLDEST_SIZE: usize = uapi::SOCKLND_PEER_STATS_ENTRY_SIZE_VER0 as usize;

    fn collect(ni: &Arc<Ni>, into: &mut KVVec<Self>) -> Result {
        let now = time::monotonic_ms();
        for peer in ni.peers().collect()?.iter() {
            into.push(peer_stats_entry(peer, &peer.snapshot()?, now), GFP_KERNEL)?;
        }
        Ok(())
    }
}

fn peer_stats_entry(peer: &Peer, info: &PeerInfo, now_ms: u64) -> uapi::socklnd_peer_stats_entry {
    let traffic = peer.total_traffic();
    let events = peer.events();
    uapi::socklnd_peer_stats_entry {
        ni: raw_nid(peer.ni().nid()),
        nid: raw_nid(peer.nid()),
        tx_msgs: traffic.tx_msgs.get(),
        tx_bytes: traffic.tx_bytes.get(),
        rx_msgs: traffic.rx_msgs.get(),
        rx_bytes: traffic.rx_bytes.get(),
        zc_msgs: traffic.zc_msgs.get(),
        zc_bytes: traffic.zc_bytes.get(),
        attempts: events.connect_attempts.get(),
        connects: events.connects.get(),
        accepts: events.accepts.get(),
        misrouted: events.misrouted.get(),
        err_connect: events.connect_failures.get(),
        err_protocol: events.protocol_errors.get(),
        err_disconnect: events.disconnects.get(),
        err_timeout: events.timeouts.get(),
        err_tx: events.tx_errors.get(),
        err_nomem: events.enomem.get(),
        queued_msgs: info.queued as u64,
        queued_msgs_peak: info.queued_peak as u64,
        idle_ms: now_ms.saturating_sub(info.last_alive_ms),
    }
}

impl Entry for uapi::socklnd_stats_entry {
    const OLDEST_SIZE: usize = uapi::SOCKLND_STATS_ENTRY_SIZE_VER0 as usize;

    fn collect(ni: &Arc<Ni>, into: &mut KVVec<Self>) -> Result {
        let traffic = ni.ledger().total();
        let events = ni.events();
        let live = ni.live();
        let routes: usize = peers(ni)?.iter().map(|peer| peer.routes.len()).sum();
        let alive = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        let mut entry = Self {
            nid: raw_nid(ni.nid()),
            tx_msgs: traffic.tx_msgs.get(),
            tx_bytes: traffic.tx_bytes.get(),
            rx_msgs: traffic.rx_msgs.get(),
            rx_bytes: traffic.rx_bytes.get(),
            connects: events.connects.get(),
            accepts: events.accepts.get(),
            refusals: events.refusals.get(),
            misrouted: events.misrouted.get(),
            err_connect: events.connect_failures.get(),
            err_handshake: events.bad_handshakes.get(),
            err_protocol: events.protocol_errors.get(),
            err_disconnect: events.disconnects.get(),
            err_timeout: events.timeouts.get(),
            err_tx: events.tx_errors.get(),
            err_nomem: events.enomem.get(),
            peers: alive(live.peers()),
            routes: routes as u64,
            conns: alive(live.conns()),
            handshakes: alive(live.handshakes()),
            txs: alive(live.txs()),
            zc_msgs: traffic.zc_msgs.get(),
            zc_bytes: traffic.zc_bytes.get(),
            zc_copied: events.zc_copied.get(),
            ..Default::default()
        };
        ioctl::fill_counts(&mut entry, ni.net(), ni.nid());
        Ok(into.push(entry, GFP_KERNEL)?)
    }
}

#[kunit_tests(socklnd_ctl_list)]
mod tests {
    use super::*;

    type Small = uapi::socklnd_ni_entry;

    fn request(entry_size: u32) -> uapi::socklnd_list {
        uapi::socklnd_list {
            entry_size,
            capacity: 10,
            ..Default::default()
        }
    }

    fn refusal(request: &uapi::socklnd_list) -> Option<Error> {
        Layout::new::<Small>(request).err()
    }

    #[test]
    fn sizes_of_entries_are_checked() {
        for size in [0, 1, 40, 47, 49, 4097, 4104, u32::MAX, u32::MAX - 7] {
            assert_eq!(refusal(&request(size)), Some(EINVAL));
        }
        for size in [48, 56, 4096] {
            assert_eq!(refusal(&request(size)), None);
        }
        let mut bad = request(48);
        bad.flags = 1;
        assert_eq!(refusal(&bad), Some(EINVAL));
        bad = request(48);
        bad.pad = 1;
        assert_eq!(refusal(&bad), Some(EINVAL));
    }

    #[test]
    fn entries_are_cut_or_filled_up() -> Result {
        let entry = Small {
            state: 0x0101_0101,
            conns: 0x0202_0202,
            ..Default::default()
        };
        let layout = Layout::new::<Small>(&request(48))?;
        let (known, unknown) = layout.split(&entry);
        assert_eq!(known.len(), 48);
        assert_eq!(unknown, 0);
        assert!(known.ends_with(&[2; 4]));

        // A caller that knows a later version of the entry.
        let whole = size_of::<Small>();
        let (known, unknown) = Layout::new::<Small>(&request(64))?.split(&entry);
        assert_eq!(known.len(), whole);
        assert_eq!(unknown, 64 - whole);

        // A caller that knows an earlier version of the entry.
        let older = Layout {
            start: 0,
            entry_size: 40,
            capacity: 1,
        };
        let (known, unknown) = older.split(&entry);
        assert_eq!(known.len(), 40);
        assert_eq!(unknown, 0);
        assert!(!known.ends_with(&[2; 4]));
        Ok(())
    }
}
