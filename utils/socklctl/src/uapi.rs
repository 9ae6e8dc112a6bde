// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note
// Made by scripts/gen-uapi from include/uapi/socklnd.h. Change that one, and run it again.
pub const SOCKLND_DEVICE: &[u8; 8] = b"socklnd\0";
pub const SOCKLND_ABI_MAJOR: u32 = 1;
pub const SOCKLND_ABI_MINOR: u32 = 6;
pub const SOCKLND_ADDR_ANY: u32 = 0;
pub const SOCKLND_ADDR_IPV4: u32 = 4;
pub const SOCKLND_ADDR_IPV6: u32 = 6;
pub const SOCKLND_LND_ANY: u32 = 0;
pub const SOCKLND_LND_TCP: u32 = 2;
pub const SOCKLND_IF_HAS_PREFIX: u32 = 1;
pub const SOCKLND_IF_MAX: u32 = 16;
pub const SOCKLND_PEER_DEL_SINGLE: u32 = 1;
pub const SOCKLND_PEER_DEL_KEEP: u32 = 2;
pub const SOCKLND_ROUTE_MAX: u32 = 1024;
pub const SOCKLND_GATEWAY_UP: u32 = 1;
pub const SOCKLND_GATEWAY_DOWN: u32 = 2;
pub const SOCKLND_GATEWAY_SET_DOWN: u32 = 3;
pub const SOCKLND_MAX_ENTRY_SIZE: u32 = 4096;
pub const SOCKLND_NI_ENTRY_SIZE_VER0: u32 = 48;
pub const SOCKLND_IF_ENTRY_SIZE_VER0: u32 = 56;
pub const SOCKLND_PEER_ENTRY_SIZE_VER0: u32 = 128;
pub const SOCKLND_CONN_ENTRY_SIZE_VER0: u32 = 168;
pub const SOCKLND_ROUTE_ENTRY_SIZE_VER0: u32 = 88;
pub const SOCKLND_STATS_ENTRY_SIZE_VER0: u32 = 192;
pub const SOCKLND_PEER_STATS_ENTRY_SIZE_VER0: u32 = 200;
pub const SOCKLND_NI_UP: u32 = 1;
pub const SOCKLND_NI_DOWN: u32 = 2;
pub const SOCKLND_IF_KERNEL_PREFIX: u32 = 2;
pub const SOCKLND_IF_WAITS: u32 = 4;
pub const SOCKLND_PEER_IDLE: u32 = 1;
pub const SOCKLND_PEER_CONNECTING: u32 = 2;
pub const SOCKLND_PEER_UP: u32 = 3;
pub const SOCKLND_PEER_HAS_ROUTE: u32 = 1;
pub const SOCKLND_PEER_ROUTE_CONNECTING: u32 = 2;
pub const SOCKLND_CONN_ANY: u32 = 0;
pub const SOCKLND_CONN_CONTROL: u32 = 1;
pub const SOCKLND_CONN_BULK_IN: u32 = 2;
pub const SOCKLND_CONN_BULK_OUT: u32 = 3;
pub const SOCKLND_CONN_NONE: u32 = 4294967295;
pub const SOCKLND_CONN_ACTIVE: u32 = 1;
pub const SOCKLND_CONN_NAGLE: u32 = 2;
pub const SOCKLND_PING_NI_UP: u32 = 363512030;
pub const SOCKLND_PING_NI_DOWN: u32 = 3735943886;
pub const SOCKLND_PING_MAX_NIS: u32 = 16;
pub const SOCKLND_MAX_TIMEOUT_MS: u32 = 3600000;
pub const SOCKLND_BENCH_PUT: u32 = 1;
pub const SOCKLND_BENCH_GET: u32 = 2;
pub const SOCKLND_BENCH_VERIFY: u32 = 1;
pub const SOCKLND_BENCH_MAX_SIZE: u32 = 1048576;
pub const SOCKLND_BENCH_MAX_IN_FLIGHT: u32 = 256;
pub const SOCKLND_IOC_TYPE: u32 = 187;
pub type __u8 = ::std::os::raw::c_uchar;
pub type __u16 = ::std::os::raw::c_ushort;
pub type __s32 = ::std::os::raw::c_int;
pub type __u32 = ::std::os::raw::c_uint;
pub type __u64 = ::std::os::raw::c_ulonglong;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_addr {
    pub family: __u8,
    pub pad: [__u8; 3usize],
    pub addr: [__u8; 16usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_addr"][::std::mem::size_of::<socklnd_addr>() - 20usize];
    ["Alignment of socklnd_addr"][::std::mem::align_of::<socklnd_addr>() - 1usize];
    ["Offset of field: socklnd_addr::family"]
        [::std::mem::offset_of!(socklnd_addr, family) - 0usize];
    ["Offset of field: socklnd_addr::pad"][::std::mem::offset_of!(socklnd_addr, pad) - 1usize];
    ["Offset of field: socklnd_addr::addr"][::std::mem::offset_of!(socklnd_addr, addr) - 4usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_nid {
    pub lnd: __u16,
    pub net: __u16,
    pub addr: socklnd_addr,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_nid"][::std::mem::size_of::<socklnd_nid>() - 24usize];
    ["Alignment of socklnd_nid"][::std::mem::align_of::<socklnd_nid>() - 2usize];
    ["Offset of field: socklnd_nid::lnd"][::std::mem::offset_of!(socklnd_nid, lnd) - 0usize];
    ["Offset of field: socklnd_nid::net"][::std::mem::offset_of!(socklnd_nid, net) - 2usize];
    ["Offset of field: socklnd_nid::addr"][::std::mem::offset_of!(socklnd_nid, addr) - 4usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_version {
    pub abi_major: __u32,
    pub abi_minor: __u32,
    pub release: [__u8; 32usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_version"][::std::mem::size_of::<socklnd_version>() - 40usize];
    ["Alignment of socklnd_version"][::std::mem::align_of::<socklnd_version>() - 4usize];
    ["Offset of field: socklnd_version::abi_major"]
        [::std::mem::offset_of!(socklnd_version, abi_major) - 0usize];
    ["Offset of field: socklnd_version::abi_minor"]
        [::std::mem::offset_of!(socklnd_version, abi_minor) - 4usize];
    ["Offset of field: socklnd_version::release"]
        [::std::mem::offset_of!(socklnd_version, release) - 8usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_ni {
    pub nid: socklnd_nid,
    pub flags: __u32,
    pub pad: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_ni"][::std::mem::size_of::<socklnd_ni>() - 32usize];
    ["Alignment of socklnd_ni"][::std::mem::align_of::<socklnd_ni>() - 4usize];
    ["Offset of field: socklnd_ni::nid"][::std::mem::offset_of!(socklnd_ni, nid) - 0usize];
    ["Offset of field: socklnd_ni::flags"][::std::mem::offset_of!(socklnd_ni, flags) - 24usize];
    ["Offset of field: socklnd_ni::pad"][::std::mem::offset_of!(socklnd_ni, pad) - 28usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_if {
    pub ni: socklnd_nid,
    pub addr: socklnd_addr,
    pub prefix_len: __u32,
    pub flags: __u32,
    pub pad: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_if"][::std::mem::size_of::<socklnd_if>() - 56usize];
    ["Alignment of socklnd_if"][::std::mem::align_of::<socklnd_if>() - 4usize];
    ["Offset of field: socklnd_if::ni"][::std::mem::offset_of!(socklnd_if, ni) - 0usize];
    ["Offset of field: socklnd_if::addr"][::std::mem::offset_of!(socklnd_if, addr) - 24usize];
    ["Offset of field: socklnd_if::prefix_len"]
        [::std::mem::offset_of!(socklnd_if, prefix_len) - 44usize];
    ["Offset of field: socklnd_if::flags"][::std::mem::offset_of!(socklnd_if, flags) - 48usize];
    ["Offset of field: socklnd_if::pad"][::std::mem::offset_of!(socklnd_if, pad) - 52usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_peer_add {
    pub ni: socklnd_nid,
    pub nid: socklnd_nid,
    pub addr: socklnd_addr,
    pub port: __u16,
    pub pad: __u16,
    pub flags: __u32,
    pub pad2: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_peer_add"][::std::mem::size_of::<socklnd_peer_add>() - 80usize];
    ["Alignment of socklnd_peer_add"][::std::mem::align_of::<socklnd_peer_add>() - 4usize];
    ["Offset of field: socklnd_peer_add::ni"]
        [::std::mem::offset_of!(socklnd_peer_add, ni) - 0usize];
    ["Offset of field: socklnd_peer_add::nid"]
        [::std::mem::offset_of!(socklnd_peer_add, nid) - 24usize];
    ["Offset of field: socklnd_peer_add::addr"]
        [::std::mem::offset_of!(socklnd_peer_add, addr) - 48usize];
    ["Offset of field: socklnd_peer_add::port"]
        [::std::mem::offset_of!(socklnd_peer_add, port) - 68usize];
    ["Offset of field: socklnd_peer_add::pad"]
        [::std::mem::offset_of!(socklnd_peer_add, pad) - 70usize];
    ["Offset of field: socklnd_peer_add::flags"]
        [::std::mem::offset_of!(socklnd_peer_add, flags) - 72usize];
    ["Offset of field: socklnd_peer_add::pad2"]
        [::std::mem::offset_of!(socklnd_peer_add, pad2) - 76usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_peer_del {
    pub ni: socklnd_nid,
    pub nid: socklnd_nid,
    pub addr: socklnd_addr,
    pub flags: __u32,
    pub count: __u32,
    pub pad: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_peer_del"][::std::mem::size_of::<socklnd_peer_del>() - 80usize];
    ["Alignment of socklnd_peer_del"][::std::mem::align_of::<socklnd_peer_del>() - 4usize];
    ["Offset of field: socklnd_peer_del::ni"]
        [::std::mem::offset_of!(socklnd_peer_del, ni) - 0usize];
    ["Offset of field: socklnd_peer_del::nid"]
        [::std::mem::offset_of!(socklnd_peer_del, nid) - 24usize];
    ["Offset of field: socklnd_peer_del::addr"]
        [::std::mem::offset_of!(socklnd_peer_del, addr) - 48usize];
    ["Offset of field: socklnd_peer_del::flags"]
        [::std::mem::offset_of!(socklnd_peer_del, flags) - 68usize];
    ["Offset of field: socklnd_peer_del::count"]
        [::std::mem::offset_of!(socklnd_peer_del, count) - 72usize];
    ["Offset of field: socklnd_peer_del::pad"]
        [::std::mem::offset_of!(socklnd_peer_del, pad) - 76usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_route {
    pub ni: socklnd_nid,
    pub gateway: socklnd_nid,
    pub target: socklnd_nid,
    pub priority: __u32,
    pub flags: __u32,
    pub count: __u32,
    pub pad: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_route"][::std::mem::size_of::<socklnd_route>() - 88usize];
    ["Alignment of socklnd_route"][::std::mem::align_of::<socklnd_route>() - 4usize];
    ["Offset of field: socklnd_route::ni"][::std::mem::offset_of!(socklnd_route, ni) - 0usize];
    ["Offset of field: socklnd_route::gateway"]
        [::std::mem::offset_of!(socklnd_route, gateway) - 24usize];
    ["Offset of field: socklnd_route::target"]
        [::std::mem::offset_of!(socklnd_route, target) - 48usize];
    ["Offset of field: socklnd_route::priority"]
        [::std::mem::offset_of!(socklnd_route, priority) - 72usize];
    ["Offset of field: socklnd_route::flags"]
        [::std::mem::offset_of!(socklnd_route, flags) - 76usize];
    ["Offset of field: socklnd_route::count"]
        [::std::mem::offset_of!(socklnd_route, count) - 80usize];
    ["Offset of field: socklnd_route::pad"][::std::mem::offset_of!(socklnd_route, pad) - 84usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_gateway {
    pub ni: socklnd_nid,
    pub gateway: socklnd_nid,
    pub state: __u32,
    pub flags: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_gateway"][::std::mem::size_of::<socklnd_gateway>() - 56usize];
    ["Alignment of socklnd_gateway"][::std::mem::align_of::<socklnd_gateway>() - 4usize];
    ["Offset of field: socklnd_gateway::ni"][::std::mem::offset_of!(socklnd_gateway, ni) - 0usize];
    ["Offset of field: socklnd_gateway::gateway"]
        [::std::mem::offset_of!(socklnd_gateway, gateway) - 24usize];
    ["Offset of field: socklnd_gateway::state"]
        [::std::mem::offset_of!(socklnd_gateway, state) - 48usize];
    ["Offset of field: socklnd_gateway::flags"]
        [::std::mem::offset_of!(socklnd_gateway, flags) - 52usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_routing_set {
    pub on: __u32,
    pub flags: __u32,
    pub pad: __u32,
    pub pad2: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_routing_set"][::std::mem::size_of::<socklnd_routing_set>() - 16usize];
    ["Alignment of socklnd_routing_set"][::std::mem::align_of::<socklnd_routing_set>() - 4usize];
    ["Offset of field: socklnd_routing_set::on"]
        [::std::mem::offset_of!(socklnd_routing_set, on) - 0usize];
    ["Offset of field: socklnd_routing_set::flags"]
        [::std::mem::offset_of!(socklnd_routing_set, flags) - 4usize];
    ["Offset of field: socklnd_routing_set::pad"]
        [::std::mem::offset_of!(socklnd_routing_set, pad) - 8usize];
    ["Offset of field: socklnd_routing_set::pad2"]
        [::std::mem::offset_of!(socklnd_routing_set, pad2) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_fwd_pool {
    pub bytes: __u32,
    pub buffers: __u32,
    pub busy: __u32,
    pub waiting: __u32,
    pub waits: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_fwd_pool"][::std::mem::size_of::<socklnd_fwd_pool>() - 24usize];
    ["Alignment of socklnd_fwd_pool"][::std::mem::align_of::<socklnd_fwd_pool>() - 8usize];
    ["Offset of field: socklnd_fwd_pool::bytes"]
        [::std::mem::offset_of!(socklnd_fwd_pool, bytes) - 0usize];
    ["Offset of field: socklnd_fwd_pool::buffers"]
        [::std::mem::offset_of!(socklnd_fwd_pool, buffers) - 4usize];
    ["Offset of field: socklnd_fwd_pool::busy"]
        [::std::mem::offset_of!(socklnd_fwd_pool, busy) - 8usize];
    ["Offset of field: socklnd_fwd_pool::waiting"]
        [::std::mem::offset_of!(socklnd_fwd_pool, waiting) - 12usize];
    ["Offset of field: socklnd_fwd_pool::waits"]
        [::std::mem::offset_of!(socklnd_fwd_pool, waits) - 16usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_routing {
    pub flags: __u32,
    pub on: __u32,
    pub small: socklnd_fwd_pool,
    pub large: socklnd_fwd_pool,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_routing"][::std::mem::size_of::<socklnd_routing>() - 56usize];
    ["Alignment of socklnd_routing"][::std::mem::align_of::<socklnd_routing>() - 8usize];
    ["Offset of field: socklnd_routing::flags"]
        [::std::mem::offset_of!(socklnd_routing, flags) - 0usize];
    ["Offset of field: socklnd_routing::on"][::std::mem::offset_of!(socklnd_routing, on) - 4usize];
    ["Offset of field: socklnd_routing::small"]
        [::std::mem::offset_of!(socklnd_routing, small) - 8usize];
    ["Offset of field: socklnd_routing::large"]
        [::std::mem::offset_of!(socklnd_routing, large) - 32usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_conn_close {
    pub ni: socklnd_nid,
    pub nid: socklnd_nid,
    pub addr: socklnd_addr,
    pub flags: __u32,
    pub count: __u32,
    pub pad: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_conn_close"][::std::mem::size_of::<socklnd_conn_close>() - 80usize];
    ["Alignment of socklnd_conn_close"][::std::mem::align_of::<socklnd_conn_close>() - 4usize];
    ["Offset of field: socklnd_conn_close::ni"]
        [::std::mem::offset_of!(socklnd_conn_close, ni) - 0usize];
    ["Offset of field: socklnd_conn_close::nid"]
        [::std::mem::offset_of!(socklnd_conn_close, nid) - 24usize];
    ["Offset of field: socklnd_conn_close::addr"]
        [::std::mem::offset_of!(socklnd_conn_close, addr) - 48usize];
    ["Offset of field: socklnd_conn_close::flags"]
        [::std::mem::offset_of!(socklnd_conn_close, flags) - 68usize];
    ["Offset of field: socklnd_conn_close::count"]
        [::std::mem::offset_of!(socklnd_conn_close, count) - 72usize];
    ["Offset of field: socklnd_conn_close::pad"]
        [::std::mem::offset_of!(socklnd_conn_close, pad) - 76usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_register {
    pub ni: socklnd_nid,
    pub nid: socklnd_nid,
    pub fd: __s32,
    pub type_: __u32,
    pub flags: __u32,
    pub pad: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_register"][::std::mem::size_of::<socklnd_register>() - 64usize];
    ["Alignment of socklnd_register"][::std::mem::align_of::<socklnd_register>() - 4usize];
    ["Offset of field: socklnd_register::ni"]
        [::std::mem::offset_of!(socklnd_register, ni) - 0usize];
    ["Offset of field: socklnd_register::nid"]
        [::std::mem::offset_of!(socklnd_register, nid) - 24usize];
    ["Offset of field: socklnd_register::fd"]
        [::std::mem::offset_of!(socklnd_register, fd) - 48usize];
    ["Offset of field: socklnd_register::type_"]
        [::std::mem::offset_of!(socklnd_register, type_) - 52usize];
    ["Offset of field: socklnd_register::flags"]
        [::std::mem::offset_of!(socklnd_register, flags) - 56usize];
    ["Offset of field: socklnd_register::pad"]
        [::std::mem::offset_of!(socklnd_register, pad) - 60usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_list {
    pub ni: socklnd_nid,
    pub entries: __u64,
    pub entry_size: __u32,
    pub capacity: __u32,
    pub count: __u32,
    pub total: __u32,
    pub flags: __u32,
    pub pad: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_list"][::std::mem::size_of::<socklnd_list>() - 56usize];
    ["Alignment of socklnd_list"][::std::mem::align_of::<socklnd_list>() - 8usize];
    ["Offset of field: socklnd_list::ni"][::std::mem::offset_of!(socklnd_list, ni) - 0usize];
    ["Offset of field: socklnd_list::entries"]
        [::std::mem::offset_of!(socklnd_list, entries) - 24usize];
    ["Offset of field: socklnd_list::entry_size"]
        [::std::mem::offset_of!(socklnd_list, entry_size) - 32usize];
    ["Offset of field: socklnd_list::capacity"]
        [::std::mem::offset_of!(socklnd_list, capacity) - 36usize];
    ["Offset of field: socklnd_list::count"][::std::mem::offset_of!(socklnd_list, count) - 40usize];
    ["Offset of field: socklnd_list::total"][::std::mem::offset_of!(socklnd_list, total) - 44usize];
    ["Offset of field: socklnd_list::flags"][::std::mem::offset_of!(socklnd_list, flags) - 48usize];
    ["Offset of field: socklnd_list::pad"][::std::mem::offset_of!(socklnd_list, pad) - 52usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_ni_entry {
    pub nid: socklnd_nid,
    pub incarnation_us: __u64,
    pub state: __u32,
    pub pid: __u32,
    pub peers: __u32,
    pub conns: __u32,
    pub conns_per_peer: __u32,
    pub pad: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_ni_entry"][::std::mem::size_of::<socklnd_ni_entry>() - 56usize];
    ["Alignment of socklnd_ni_entry"][::std::mem::align_of::<socklnd_ni_entry>() - 8usize];
    ["Offset of field: socklnd_ni_entry::nid"]
        [::std::mem::offset_of!(socklnd_ni_entry, nid) - 0usize];
    ["Offset of field: socklnd_ni_entry::incarnation_us"]
        [::std::mem::offset_of!(socklnd_ni_entry, incarnation_us) - 24usize];
    ["Offset of field: socklnd_ni_entry::state"]
        [::std::mem::offset_of!(socklnd_ni_entry, state) - 32usize];
    ["Offset of field: socklnd_ni_entry::pid"]
        [::std::mem::offset_of!(socklnd_ni_entry, pid) - 36usize];
    ["Offset of field: socklnd_ni_entry::peers"]
        [::std::mem::offset_of!(socklnd_ni_entry, peers) - 40usize];
    ["Offset of field: socklnd_ni_entry::conns"]
        [::std::mem::offset_of!(socklnd_ni_entry, conns) - 44usize];
    ["Offset of field: socklnd_ni_entry::conns_per_peer"]
        [::std::mem::offset_of!(socklnd_ni_entry, conns_per_peer) - 48usize];
    ["Offset of field: socklnd_ni_entry::pad"]
        [::std::mem::offset_of!(socklnd_ni_entry, pad) - 52usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_if_entry {
    pub ni: socklnd_nid,
    pub addr: socklnd_addr,
    pub prefix_len: __u32,
    pub peers: __u32,
    pub routes: __u32,
    pub flags: __u32,
    pub pad: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_if_entry"][::std::mem::size_of::<socklnd_if_entry>() - 64usize];
    ["Alignment of socklnd_if_entry"][::std::mem::align_of::<socklnd_if_entry>() - 4usize];
    ["Offset of field: socklnd_if_entry::ni"]
        [::std::mem::offset_of!(socklnd_if_entry, ni) - 0usize];
    ["Offset of field: socklnd_if_entry::addr"]
        [::std::mem::offset_of!(socklnd_if_entry, addr) - 24usize];
    ["Offset of field: socklnd_if_entry::prefix_len"]
        [::std::mem::offset_of!(socklnd_if_entry, prefix_len) - 44usize];
    ["Offset of field: socklnd_if_entry::peers"]
        [::std::mem::offset_of!(socklnd_if_entry, peers) - 48usize];
    ["Offset of field: socklnd_if_entry::routes"]
        [::std::mem::offset_of!(socklnd_if_entry, routes) - 52usize];
    ["Offset of field: socklnd_if_entry::flags"]
        [::std::mem::offset_of!(socklnd_if_entry, flags) - 56usize];
    ["Offset of field: socklnd_if_entry::pad"]
        [::std::mem::offset_of!(socklnd_if_entry, pad) - 60usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_peer_entry {
    pub ni: socklnd_nid,
    pub nid: socklnd_nid,
    pub state: __u32,
    pub flags: __u32,
    pub conns: __u32,
    pub routes: __u32,
    pub share_count: __u32,
    pub txs: __u32,
    pub incarnation_us: __u64,
    pub idle_ms: __u64,
    pub route_addr: socklnd_addr,
    pub route_port: __u16,
    pub pad: __u16,
    pub route_share_count: __u32,
    pub route_conns: __u32,
    pub route_opened: __u64,
    pub route_local: socklnd_addr,
    pub pad2: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_peer_entry"][::std::mem::size_of::<socklnd_peer_entry>() - 152usize];
    ["Alignment of socklnd_peer_entry"][::std::mem::align_of::<socklnd_peer_entry>() - 8usize];
    ["Offset of field: socklnd_peer_entry::ni"]
        [::std::mem::offset_of!(socklnd_peer_entry, ni) - 0usize];
    ["Offset of field: socklnd_peer_entry::nid"]
        [::std::mem::offset_of!(socklnd_peer_entry, nid) - 24usize];
    ["Offset of field: socklnd_peer_entry::state"]
        [::std::mem::offset_of!(socklnd_peer_entry, state) - 48usize];
    ["Offset of field: socklnd_peer_entry::flags"]
        [::std::mem::offset_of!(socklnd_peer_entry, flags) - 52usize];
    ["Offset of field: socklnd_peer_entry::conns"]
        [::std::mem::offset_of!(socklnd_peer_entry, conns) - 56usize];
    ["Offset of field: socklnd_peer_entry::routes"]
        [::std::mem::offset_of!(socklnd_peer_entry, routes) - 60usize];
    ["Offset of field: socklnd_peer_entry::share_count"]
        [::std::mem::offset_of!(socklnd_peer_entry, share_count) - 64usize];
    ["Offset of field: socklnd_peer_entry::txs"]
        [::std::mem::offset_of!(socklnd_peer_entry, txs) - 68usize];
    ["Offset of field: socklnd_peer_entry::incarnation_us"]
        [::std::mem::offset_of!(socklnd_peer_entry, incarnation_us) - 72usize];
    ["Offset of field: socklnd_peer_entry::idle_ms"]
        [::std::mem::offset_of!(socklnd_peer_entry, idle_ms) - 80usize];
    ["Offset of field: socklnd_peer_entry::route_addr"]
        [::std::mem::offset_of!(socklnd_peer_entry, route_addr) - 88usize];
    ["Offset of field: socklnd_peer_entry::route_port"]
        [::std::mem::offset_of!(socklnd_peer_entry, route_port) - 108usize];
    ["Offset of field: socklnd_peer_entry::pad"]
        [::std::mem::offset_of!(socklnd_peer_entry, pad) - 110usize];
    ["Offset of field: socklnd_peer_entry::route_share_count"]
        [::std::mem::offset_of!(socklnd_peer_entry, route_share_count) - 112usize];
    ["Offset of field: socklnd_peer_entry::route_conns"]
        [::std::mem::offset_of!(socklnd_peer_entry, route_conns) - 116usize];
    ["Offset of field: socklnd_peer_entry::route_opened"]
        [::std::mem::offset_of!(socklnd_peer_entry, route_opened) - 120usize];
    ["Offset of field: socklnd_peer_entry::route_local"]
        [::std::mem::offset_of!(socklnd_peer_entry, route_local) - 128usize];
    ["Offset of field: socklnd_peer_entry::pad2"]
        [::std::mem::offset_of!(socklnd_peer_entry, pad2) - 148usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_route_entry {
    pub ni: socklnd_nid,
    pub gateway: socklnd_nid,
    pub target: socklnd_nid,
    pub priority: __u32,
    pub state: __u32,
    pub chosen: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_route_entry"][::std::mem::size_of::<socklnd_route_entry>() - 88usize];
    ["Alignment of socklnd_route_entry"][::std::mem::align_of::<socklnd_route_entry>() - 8usize];
    ["Offset of field: socklnd_route_entry::ni"]
        [::std::mem::offset_of!(socklnd_route_entry, ni) - 0usize];
    ["Offset of field: socklnd_route_entry::gateway"]
        [::std::mem::offset_of!(socklnd_route_entry, gateway) - 24usize];
    ["Offset of field: socklnd_route_entry::target"]
        [::std::mem::offset_of!(socklnd_route_entry, target) - 48usize];
    ["Offset of field: socklnd_route_entry::priority"]
        [::std::mem::offset_of!(socklnd_route_entry, priority) - 72usize];
    ["Offset of field: socklnd_route_entry::state"]
        [::std::mem::offset_of!(socklnd_route_entry, state) - 76usize];
    ["Offset of field: socklnd_route_entry::chosen"]
        [::std::mem::offset_of!(socklnd_route_entry, chosen) - 80usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_conn_entry {
    pub ni: socklnd_nid,
    pub nid: socklnd_nid,
    pub local_addr: socklnd_addr,
    pub local_port: __u16,
    pub pad: __u16,
    pub peer_addr: socklnd_addr,
    pub peer_port: __u16,
    pub pad2: __u16,
    pub type_: __u32,
    pub flags: __u32,
    pub cpu: __u32,
    pub protocol: __u32,
    pub tx_buffer: __u32,
    pub rx_buffer: __u32,
    pub queued_bytes: __u64,
    pub tx_msgs: __u64,
    pub tx_bytes: __u64,
    pub rx_msgs: __u64,
    pub rx_bytes: __u64,
    pub age_ms: __u64,
    pub zc_msgs: __u64,
    pub zc_bytes: __u64,
    pub queued_bytes_peak: __u64,
    pub sndbuf_full: __u64,
    pub err_nomem: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_conn_entry"][::std::mem::size_of::<socklnd_conn_entry>() - 208usize];
    ["Alignment of socklnd_conn_entry"][::std::mem::align_of::<socklnd_conn_entry>() - 8usize];
    ["Offset of field: socklnd_conn_entry::ni"]
        [::std::mem::offset_of!(socklnd_conn_entry, ni) - 0usize];
    ["Offset of field: socklnd_conn_entry::nid"]
        [::std::mem::offset_of!(socklnd_conn_entry, nid) - 24usize];
    ["Offset of field: socklnd_conn_entry::local_addr"]
        [::std::mem::offset_of!(socklnd_conn_entry, local_addr) - 48usize];
    ["Offset of field: socklnd_conn_entry::local_port"]
        [::std::mem::offset_of!(socklnd_conn_entry, local_port) - 68usize];
    ["Offset of field: socklnd_conn_entry::pad"]
        [::std::mem::offset_of!(socklnd_conn_entry, pad) - 70usize];
    ["Offset of field: socklnd_conn_entry::peer_addr"]
        [::std::mem::offset_of!(socklnd_conn_entry, peer_addr) - 72usize];
    ["Offset of field: socklnd_conn_entry::peer_port"]
        [::std::mem::offset_of!(socklnd_conn_entry, peer_port) - 92usize];
    ["Offset of field: socklnd_conn_entry::pad2"]
        [::std::mem::offset_of!(socklnd_conn_entry, pad2) - 94usize];
    ["Offset of field: socklnd_conn_entry::type_"]
        [::std::mem::offset_of!(socklnd_conn_entry, type_) - 96usize];
    ["Offset of field: socklnd_conn_entry::flags"]
        [::std::mem::offset_of!(socklnd_conn_entry, flags) - 100usize];
    ["Offset of field: socklnd_conn_entry::cpu"]
        [::std::mem::offset_of!(socklnd_conn_entry, cpu) - 104usize];
    ["Offset of field: socklnd_conn_entry::protocol"]
        [::std::mem::offset_of!(socklnd_conn_entry, protocol) - 108usize];
    ["Offset of field: socklnd_conn_entry::tx_buffer"]
        [::std::mem::offset_of!(socklnd_conn_entry, tx_buffer) - 112usize];
    ["Offset of field: socklnd_conn_entry::rx_buffer"]
        [::std::mem::offset_of!(socklnd_conn_entry, rx_buffer) - 116usize];
    ["Offset of field: socklnd_conn_entry::queued_bytes"]
        [::std::mem::offset_of!(socklnd_conn_entry, queued_bytes) - 120usize];
    ["Offset of field: socklnd_conn_entry::tx_msgs"]
        [::std::mem::offset_of!(socklnd_conn_entry, tx_msgs) - 128usize];
    ["Offset of field: socklnd_conn_entry::tx_bytes"]
        [::std::mem::offset_of!(socklnd_conn_entry, tx_bytes) - 136usize];
    ["Offset of field: socklnd_conn_entry::rx_msgs"]
        [::std::mem::offset_of!(socklnd_conn_entry, rx_msgs) - 144usize];
    ["Offset of field: socklnd_conn_entry::rx_bytes"]
        [::std::mem::offset_of!(socklnd_conn_entry, rx_bytes) - 152usize];
    ["Offset of field: socklnd_conn_entry::age_ms"]
        [::std::mem::offset_of!(socklnd_conn_entry, age_ms) - 160usize];
    ["Offset of field: socklnd_conn_entry::zc_msgs"]
        [::std::mem::offset_of!(socklnd_conn_entry, zc_msgs) - 168usize];
    ["Offset of field: socklnd_conn_entry::zc_bytes"]
        [::std::mem::offset_of!(socklnd_conn_entry, zc_bytes) - 176usize];
    ["Offset of field: socklnd_conn_entry::queued_bytes_peak"]
        [::std::mem::offset_of!(socklnd_conn_entry, queued_bytes_peak) - 184usize];
    ["Offset of field: socklnd_conn_entry::sndbuf_full"]
        [::std::mem::offset_of!(socklnd_conn_entry, sndbuf_full) - 192usize];
    ["Offset of field: socklnd_conn_entry::err_nomem"]
        [::std::mem::offset_of!(socklnd_conn_entry, err_nomem) - 200usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_stats_entry {
    pub nid: socklnd_nid,
    pub tx_msgs: __u64,
    pub tx_bytes: __u64,
    pub rx_msgs: __u64,
    pub rx_bytes: __u64,
    pub connects: __u64,
    pub accepts: __u64,
    pub refusals: __u64,
    pub drops: __u64,
    pub misrouted: __u64,
    pub err_connect: __u64,
    pub err_handshake: __u64,
    pub err_protocol: __u64,
    pub err_disconnect: __u64,
    pub err_timeout: __u64,
    pub err_tx: __u64,
    pub err_nomem: __u64,
    pub peers: __u64,
    pub routes: __u64,
    pub conns: __u64,
    pub handshakes: __u64,
    pub txs: __u64,
    pub zc_msgs: __u64,
    pub zc_bytes: __u64,
    pub zc_copied: __u64,
    pub fwd_msgs: __u64,
    pub fwd_bytes: __u64,
    pub fwd_failed: __u64,
    pub fwd_forged: __u64,
    pub fwd_direct: __u64,
    pub fwd_off: __u64,
    pub fwd_no_route: __u64,
    pub fwd_back: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_stats_entry"][::std::mem::size_of::<socklnd_stats_entry>() - 280usize];
    ["Alignment of socklnd_stats_entry"][::std::mem::align_of::<socklnd_stats_entry>() - 8usize];
    ["Offset of field: socklnd_stats_entry::nid"]
        [::std::mem::offset_of!(socklnd_stats_entry, nid) - 0usize];
    ["Offset of field: socklnd_stats_entry::tx_msgs"]
        [::std::mem::offset_of!(socklnd_stats_entry, tx_msgs) - 24usize];
    ["Offset of field: socklnd_stats_entry::tx_bytes"]
        [::std::mem::offset_of!(socklnd_stats_entry, tx_bytes) - 32usize];
    ["Offset of field: socklnd_stats_entry::rx_msgs"]
        [::std::mem::offset_of!(socklnd_stats_entry, rx_msgs) - 40usize];
    ["Offset of field: socklnd_stats_entry::rx_bytes"]
        [::std::mem::offset_of!(socklnd_stats_entry, rx_bytes) - 48usize];
    ["Offset of field: socklnd_stats_entry::connects"]
        [::std::mem::offset_of!(socklnd_stats_entry, connects) - 56usize];
    ["Offset of field: socklnd_stats_entry::accepts"]
        [::std::mem::offset_of!(socklnd_stats_entry, accepts) - 64usize];
    ["Offset of field: socklnd_stats_entry::refusals"]
        [::std::mem::offset_of!(socklnd_stats_entry, refusals) - 72usize];
    ["Offset of field: socklnd_stats_entry::drops"]
        [::std::mem::offset_of!(socklnd_stats_entry, drops) - 80usize];
    ["Offset of field: socklnd_stats_entry::misrouted"]
        [::std::mem::offset_of!(socklnd_stats_entry, misrouted) - 88usize];
    ["Offset of field: socklnd_stats_entry::err_connect"]
        [::std::mem::offset_of!(socklnd_stats_entry, err_connect) - 96usize];
    ["Offset of field: socklnd_stats_entry::err_handshake"]
        [::std::mem::offset_of!(socklnd_stats_entry, err_handshake) - 104usize];
    ["Offset of field: socklnd_stats_entry::err_protocol"]
        [::std::mem::offset_of!(socklnd_stats_entry, err_protocol) - 112usize];
    ["Offset of field: socklnd_stats_entry::err_disconnect"]
        [::std::mem::offset_of!(socklnd_stats_entry, err_disconnect) - 120usize];
    ["Offset of field: socklnd_stats_entry::err_timeout"]
        [::std::mem::offset_of!(socklnd_stats_entry, err_timeout) - 128usize];
    ["Offset of field: socklnd_stats_entry::err_tx"]
        [::std::mem::offset_of!(socklnd_stats_entry, err_tx) - 136usize];
    ["Offset of field: socklnd_stats_entry::err_nomem"]
        [::std::mem::offset_of!(socklnd_stats_entry, err_nomem) - 144usize];
    ["Offset of field: socklnd_stats_entry::peers"]
        [::std::mem::offset_of!(socklnd_stats_entry, peers) - 152usize];
    ["Offset of field: socklnd_stats_entry::routes"]
        [::std::mem::offset_of!(socklnd_stats_entry, routes) - 160usize];
    ["Offset of field: socklnd_stats_entry::conns"]
        [::std::mem::offset_of!(socklnd_stats_entry, conns) - 168usize];
    ["Offset of field: socklnd_stats_entry::handshakes"]
        [::std::mem::offset_of!(socklnd_stats_entry, handshakes) - 176usize];
    ["Offset of field: socklnd_stats_entry::txs"]
        [::std::mem::offset_of!(socklnd_stats_entry, txs) - 184usize];
    ["Offset of field: socklnd_stats_entry::zc_msgs"]
        [::std::mem::offset_of!(socklnd_stats_entry, zc_msgs) - 192usize];
    ["Offset of field: socklnd_stats_entry::zc_bytes"]
        [::std::mem::offset_of!(socklnd_stats_entry, zc_bytes) - 200usize];
    ["Offset of field: socklnd_stats_entry::zc_copied"]
        [::std::mem::offset_of!(socklnd_stats_entry, zc_copied) - 208usize];
    ["Offset of field: socklnd_stats_entry::fwd_msgs"]
        [::std::mem::offset_of!(socklnd_stats_entry, fwd_msgs) - 216usize];
    ["Offset of field: socklnd_stats_entry::fwd_bytes"]
        [::std::mem::offset_of!(socklnd_stats_entry, fwd_bytes) - 224usize];
    ["Offset of field: socklnd_stats_entry::fwd_failed"]
        [::std::mem::offset_of!(socklnd_stats_entry, fwd_failed) - 232usize];
    ["Offset of field: socklnd_stats_entry::fwd_forged"]
        [::std::mem::offset_of!(socklnd_stats_entry, fwd_forged) - 240usize];
    ["Offset of field: socklnd_stats_entry::fwd_direct"]
        [::std::mem::offset_of!(socklnd_stats_entry, fwd_direct) - 248usize];
    ["Offset of field: socklnd_stats_entry::fwd_off"]
        [::std::mem::offset_of!(socklnd_stats_entry, fwd_off) - 256usize];
    ["Offset of field: socklnd_stats_entry::fwd_no_route"]
        [::std::mem::offset_of!(socklnd_stats_entry, fwd_no_route) - 264usize];
    ["Offset of field: socklnd_stats_entry::fwd_back"]
        [::std::mem::offset_of!(socklnd_stats_entry, fwd_back) - 272usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_peer_stats_entry {
    pub ni: socklnd_nid,
    pub nid: socklnd_nid,
    pub tx_msgs: __u64,
    pub tx_bytes: __u64,
    pub rx_msgs: __u64,
    pub rx_bytes: __u64,
    pub zc_msgs: __u64,
    pub zc_bytes: __u64,
    pub attempts: __u64,
    pub connects: __u64,
    pub accepts: __u64,
    pub misrouted: __u64,
    pub err_connect: __u64,
    pub err_protocol: __u64,
    pub err_disconnect: __u64,
    pub err_timeout: __u64,
    pub err_tx: __u64,
    pub err_nomem: __u64,
    pub queued_msgs: __u64,
    pub queued_msgs_peak: __u64,
    pub idle_ms: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_peer_stats_entry"]
        [::std::mem::size_of::<socklnd_peer_stats_entry>() - 200usize];
    ["Alignment of socklnd_peer_stats_entry"]
        [::std::mem::align_of::<socklnd_peer_stats_entry>() - 8usize];
    ["Offset of field: socklnd_peer_stats_entry::ni"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, ni) - 0usize];
    ["Offset of field: socklnd_peer_stats_entry::nid"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, nid) - 24usize];
    ["Offset of field: socklnd_peer_stats_entry::tx_msgs"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, tx_msgs) - 48usize];
    ["Offset of field: socklnd_peer_stats_entry::tx_bytes"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, tx_bytes) - 56usize];
    ["Offset of field: socklnd_peer_stats_entry::rx_msgs"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, rx_msgs) - 64usize];
    ["Offset of field: socklnd_peer_stats_entry::rx_bytes"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, rx_bytes) - 72usize];
    ["Offset of field: socklnd_peer_stats_entry::zc_msgs"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, zc_msgs) - 80usize];
    ["Offset of field: socklnd_peer_stats_entry::zc_bytes"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, zc_bytes) - 88usize];
    ["Offset of field: socklnd_peer_stats_entry::attempts"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, attempts) - 96usize];
    ["Offset of field: socklnd_peer_stats_entry::connects"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, connects) - 104usize];
    ["Offset of field: socklnd_peer_stats_entry::accepts"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, accepts) - 112usize];
    ["Offset of field: socklnd_peer_stats_entry::misrouted"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, misrouted) - 120usize];
    ["Offset of field: socklnd_peer_stats_entry::err_connect"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, err_connect) - 128usize];
    ["Offset of field: socklnd_peer_stats_entry::err_protocol"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, err_protocol) - 136usize];
    ["Offset of field: socklnd_peer_stats_entry::err_disconnect"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, err_disconnect) - 144usize];
    ["Offset of field: socklnd_peer_stats_entry::err_timeout"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, err_timeout) - 152usize];
    ["Offset of field: socklnd_peer_stats_entry::err_tx"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, err_tx) - 160usize];
    ["Offset of field: socklnd_peer_stats_entry::err_nomem"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, err_nomem) - 168usize];
    ["Offset of field: socklnd_peer_stats_entry::queued_msgs"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, queued_msgs) - 176usize];
    ["Offset of field: socklnd_peer_stats_entry::queued_msgs_peak"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, queued_msgs_peak) - 184usize];
    ["Offset of field: socklnd_peer_stats_entry::idle_ms"]
        [::std::mem::offset_of!(socklnd_peer_stats_entry, idle_ms) - 192usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_ping_ni {
    pub nid: socklnd_nid,
    pub status: __u32,
    pub pad: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_ping_ni"][::std::mem::size_of::<socklnd_ping_ni>() - 32usize];
    ["Alignment of socklnd_ping_ni"][::std::mem::align_of::<socklnd_ping_ni>() - 4usize];
    ["Offset of field: socklnd_ping_ni::nid"]
        [::std::mem::offset_of!(socklnd_ping_ni, nid) - 0usize];
    ["Offset of field: socklnd_ping_ni::status"]
        [::std::mem::offset_of!(socklnd_ping_ni, status) - 24usize];
    ["Offset of field: socklnd_ping_ni::pad"]
        [::std::mem::offset_of!(socklnd_ping_ni, pad) - 28usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_ping {
    pub ni: socklnd_nid,
    pub nid: socklnd_nid,
    pub timeout_ms: __u32,
    pub flags: __u32,
    pub rtt_ns: __u64,
    pub pid: __u32,
    pub features: __u32,
    pub count: __u32,
    pub pad: __u32,
    pub nis: [socklnd_ping_ni; 16usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_ping"][::std::mem::size_of::<socklnd_ping>() - 592usize];
    ["Alignment of socklnd_ping"][::std::mem::align_of::<socklnd_ping>() - 8usize];
    ["Offset of field: socklnd_ping::ni"][::std::mem::offset_of!(socklnd_ping, ni) - 0usize];
    ["Offset of field: socklnd_ping::nid"][::std::mem::offset_of!(socklnd_ping, nid) - 24usize];
    ["Offset of field: socklnd_ping::timeout_ms"]
        [::std::mem::offset_of!(socklnd_ping, timeout_ms) - 48usize];
    ["Offset of field: socklnd_ping::flags"][::std::mem::offset_of!(socklnd_ping, flags) - 52usize];
    ["Offset of field: socklnd_ping::rtt_ns"]
        [::std::mem::offset_of!(socklnd_ping, rtt_ns) - 56usize];
    ["Offset of field: socklnd_ping::pid"][::std::mem::offset_of!(socklnd_ping, pid) - 64usize];
    ["Offset of field: socklnd_ping::features"]
        [::std::mem::offset_of!(socklnd_ping, features) - 68usize];
    ["Offset of field: socklnd_ping::count"][::std::mem::offset_of!(socklnd_ping, count) - 72usize];
    ["Offset of field: socklnd_ping::pad"][::std::mem::offset_of!(socklnd_ping, pad) - 76usize];
    ["Offset of field: socklnd_ping::nis"][::std::mem::offset_of!(socklnd_ping, nis) - 80usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_service {
    pub ni: socklnd_nid,
    pub flags: __u32,
    pub count: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_service"][::std::mem::size_of::<socklnd_service>() - 32usize];
    ["Alignment of socklnd_service"][::std::mem::align_of::<socklnd_service>() - 4usize];
    ["Offset of field: socklnd_service::ni"][::std::mem::offset_of!(socklnd_service, ni) - 0usize];
    ["Offset of field: socklnd_service::flags"]
        [::std::mem::offset_of!(socklnd_service, flags) - 24usize];
    ["Offset of field: socklnd_service::count"]
        [::std::mem::offset_of!(socklnd_service, count) - 28usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct socklnd_bench {
    pub ni: socklnd_nid,
    pub nid: socklnd_nid,
    pub op: __u32,
    pub flags: __u32,
    pub size: __u32,
    pub in_flight: __u32,
    pub count: __u64,
    pub timeout_ms: __u32,
    pub error: __u32,
    pub messages: __u64,
    pub bytes: __u64,
    pub elapsed_ns: __u64,
    pub errors: __u64,
    pub verify_failures: __u64,
    pub latency_min_ns: __u64,
    pub latency_mean_ns: __u64,
    pub latency_max_ns: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of socklnd_bench"][::std::mem::size_of::<socklnd_bench>() - 144usize];
    ["Alignment of socklnd_bench"][::std::mem::align_of::<socklnd_bench>() - 8usize];
    ["Offset of field: socklnd_bench::ni"][::std::mem::offset_of!(socklnd_bench, ni) - 0usize];
    ["Offset of field: socklnd_bench::nid"][::std::mem::offset_of!(socklnd_bench, nid) - 24usize];
    ["Offset of field: socklnd_bench::op"][::std::mem::offset_of!(socklnd_bench, op) - 48usize];
    ["Offset of field: socklnd_bench::flags"]
        [::std::mem::offset_of!(socklnd_bench, flags) - 52usize];
    ["Offset of field: socklnd_bench::size"][::std::mem::offset_of!(socklnd_bench, size) - 56usize];
    ["Offset of field: socklnd_bench::in_flight"]
        [::std::mem::offset_of!(socklnd_bench, in_flight) - 60usize];
    ["Offset of field: socklnd_bench::count"]
        [::std::mem::offset_of!(socklnd_bench, count) - 64usize];
    ["Offset of field: socklnd_bench::timeout_ms"]
        [::std::mem::offset_of!(socklnd_bench, timeout_ms) - 72usize];
    ["Offset of field: socklnd_bench::error"]
        [::std::mem::offset_of!(socklnd_bench, error) - 76usize];
    ["Offset of field: socklnd_bench::messages"]
        [::std::mem::offset_of!(socklnd_bench, messages) - 80usize];
    ["Offset of field: socklnd_bench::bytes"]
        [::std::mem::offset_of!(socklnd_bench, bytes) - 88usize];
    ["Offset of field: socklnd_bench::elapsed_ns"]
        [::std::mem::offset_of!(socklnd_bench, elapsed_ns) - 96usize];
    ["Offset of field: socklnd_bench::errors"]
        [::std::mem::offset_of!(socklnd_bench, errors) - 104usize];
    ["Offset of field: socklnd_bench::verify_failures"]
        [::std::mem::offset_of!(socklnd_bench, verify_failures) - 112usize];
    ["Offset of field: socklnd_bench::latency_min_ns"]
        [::std::mem::offset_of!(socklnd_bench, latency_min_ns) - 120usize];
    ["Offset of field: socklnd_bench::latency_mean_ns"]
        [::std::mem::offset_of!(socklnd_bench, latency_mean_ns) - 128usize];
    ["Offset of field: socklnd_bench::latency_max_ns"]
        [::std::mem::offset_of!(socklnd_bench, latency_max_ns) - 136usize];
};
pub const SOCKLND_IOC_VERSION: _bindgen_ty_1 = 2150152960;
pub const SOCKLND_IOC_MYNID: _bindgen_ty_1 = 3223370497;
pub const SOCKLND_IOC_STATS: _bindgen_ty_1 = 3224943362;
pub const SOCKLND_IOC_NI_ADD: _bindgen_ty_1 = 1075886864;
pub const SOCKLND_IOC_NI_DEL: _bindgen_ty_1 = 1075886865;
pub const SOCKLND_IOC_NI_LIST: _bindgen_ty_1 = 3224943378;
pub const SOCKLND_IOC_NI_SET: _bindgen_ty_1 = 1075886867;
pub const SOCKLND_IOC_IF_ADD: _bindgen_ty_1 = 1077459736;
pub const SOCKLND_IOC_IF_DEL: _bindgen_ty_1 = 1077459737;
pub const SOCKLND_IOC_IF_LIST: _bindgen_ty_1 = 3224943386;
pub const SOCKLND_IOC_PEER_ADD: _bindgen_ty_1 = 1079032608;
pub const SOCKLND_IOC_PEER_DEL: _bindgen_ty_1 = 3226516257;
pub const SOCKLND_IOC_PEER_LIST: _bindgen_ty_1 = 3224943394;
pub const SOCKLND_IOC_PEER_STATS: _bindgen_ty_1 = 3224943395;
pub const SOCKLND_IOC_ROUTE_ADD: _bindgen_ty_1 = 1079556904;
pub const SOCKLND_IOC_ROUTE_DEL: _bindgen_ty_1 = 3227040553;
pub const SOCKLND_IOC_ROUTE_LIST: _bindgen_ty_1 = 3224943402;
pub const SOCKLND_IOC_ROUTE_NOTIFY: _bindgen_ty_1 = 1077459755;
pub const SOCKLND_IOC_ROUTING_SET: _bindgen_ty_1 = 1074838316;
pub const SOCKLND_IOC_ROUTING_GET: _bindgen_ty_1 = 3224943405;
pub const SOCKLND_IOC_CONN_CLOSE: _bindgen_ty_1 = 3226516272;
pub const SOCKLND_IOC_CONN_LIST: _bindgen_ty_1 = 3224943409;
pub const SOCKLND_IOC_CONN_PUSH: _bindgen_ty_1 = 3226516274;
pub const SOCKLND_IOC_CONN_REGISTER: _bindgen_ty_1 = 1077984051;
pub const SOCKLND_IOC_PING: _bindgen_ty_1 = 3260070720;
pub const SOCKLND_IOC_SERVICE: _bindgen_ty_1 = 3223370561;
pub const SOCKLND_IOC_BENCH: _bindgen_ty_1 = 3230710594;
pub type _bindgen_ty_1 = ::std::os::raw::c_uint;
