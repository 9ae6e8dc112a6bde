/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * socklnd.h - how programs administer the socket network driver: the ioctls of /dev/socklnd.
 *
 * This header is the only place where the interface is written down. The kernel module and socklctl
 * both generate their types from it.
 *
 * Rules that hold for every request:
 *
 * - It acts on the network namespace that the calling process is in at the time of the call.
 *   NIs of other namespaces can be neither seen nor touched.
 * - What changes something or sends something needs CAP_NET_ADMIN in the user namespace that owns
 *   that network namespace (EPERM). VERSION, MYNID, STATS, ROUTING_GET and the lists are free for
 *   whoever may open the device.
 * - Structures have the same layout for 32-bit and 64-bit programs and no implicit padding. Members
 *   called "pad" must be zero, and so must flags without a name here: EINVAL otherwise, so that
 *   they can get a meaning one day. Members marked [out] are ignored on the way in.
 * - A request that fails has changed nothing, unless it says so, and writes no [out] member.
 * - A number carries the size of its structure, so a request that grows gets a new number and the
 *   old one goes on to work. List entries grow at their end: see struct socklnd_list.
 * - Numbers are in the byte order of the machine, addresses are bytes in network order.
 *
 * Errors that any request may return: EFAULT (bad pointer), EINVAL (see above), ENOTTY (no such
 * request), EPERM (see above), ENODEV (the module is being loaded or removed), ENOMEM,
 * EAFNOSUPPORT (an IPv6 address on a kernel without IPv6, or a link-local one, which means something
 * only together with a device), EPROTONOSUPPORT (an IPv6 address, and no version of the protocol may
 * be spoken that has a form for it).
 */
#ifndef _UAPI_SOCKLND_H
#define _UAPI_SOCKLND_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The device's name in /dev. */
#define SOCKLND_DEVICE "socklnd"

/*
 * The version of this interface, returned by SOCKLND_IOC_VERSION. MAJOR changes when a program
 * written for the old one might go wrong, MINOR when something is added.
 */
#define SOCKLND_ABI_MAJOR 1
#define SOCKLND_ABI_MINOR 6

/* ---- addresses ------------------------------------------------------------------------------- */

/* Values of socklnd_addr.family. ANY goes with sixteen zero bytes, IPV4 with twelve. */
#define SOCKLND_ADDR_ANY 0
#define SOCKLND_ADDR_IPV4 4
#define SOCKLND_ADDR_IPV6 6

/**
 * struct socklnd_addr - an IP address, or "any"
 * @family: SOCKLND_ADDR_*
 * @pad: zero
 * @addr: in network order; an IPv4 address fills the first four bytes, the others are zero; it is not
 *        written in its IPv6 form
 */
struct socklnd_addr {
	__u8 family;
	__u8 pad[3];
	__u8 addr[16];
};

/* socklnd_nid.lnd: the type of network that this driver serves, written "tcp" in a NID. */
#define SOCKLND_LND_ANY 0
#define SOCKLND_LND_TCP 2

/**
 * struct socklnd_nid - a network identifier such as 10.0.0.1@tcp7
 * @lnd: SOCKLND_LND_*
 * @net: the network's number, 7 in the example
 * @addr: the address
 *
 * Where a request takes a pattern, two more forms are allowed: the address ANY means every NID of
 * that network, and all zeros means every NID of every network.
 */
struct socklnd_nid {
	__u16 lnd;
	__u16 net;
	struct socklnd_addr addr;
};

/* ---- requests -------------------------------------------------------------------------------- */

/**
 * struct socklnd_version - SOCKLND_IOC_VERSION
 * @abi_major: [out] SOCKLND_ABI_MAJOR of the module
 * @abi_minor: [out] SOCKLND_ABI_MINOR of the module
 * @release: [out] the module's version, zero-terminated, for people
 */
struct socklnd_version {
	__u32 abi_major;
	__u32 abi_minor;
	__u8 release[32];
};

/**
 * struct socklnd_ni - SOCKLND_IOC_NI_ADD, SOCKLND_IOC_NI_DEL, SOCKLND_IOC_NI_SET, SOCKLND_IOC_MYNID
 * @nid: the NI. MYNID takes a pattern and replaces it with the NID of the first NI
 *	that matches.
 * @flags: none yet
 * @pad: zero
 *
 * NI_ADD starts an NI: the node gets this NID and listens for peers on its address.
 *	EEXIST: it is there already. EADDRNOTAVAIL: no such address in this network namespace, or one
 *	of broadcast. EINVAL: an address of loopback, to which no other node could connect.
 *	EADDRINUSE: a program listens on the acceptor's port. Several NIDs may have one address, in
 *	networks of different numbers: they listen together.
 * NI_DEL stops it. What waits on it ends with ESHUTDOWN, its peers are forgotten, and when the
 *	request returns none of its connections is left. ENOENT: no such NI.
 * NI_SET makes @nid the node's only NID: it starts the NI if there is none; if there is one,
 *	that one is replaced, and its peers are forgotten; nothing happens if it has this NID already.
 *	If the new one can't be started, the errors are those of NI_ADD and the old one stays.
 *	ENOTUNIQ: there are several.
 * MYNID: ENOENT: nothing matches.
 */
struct socklnd_ni {
	struct socklnd_nid nid;
	__u32 flags;
	__u32 pad;
};

/* socklnd_if.flags: @prefix_len counts; without it the kernel says how long the prefix is */
#define SOCKLND_IF_HAS_PREFIX (1 << 0)

/**
 * struct socklnd_if - SOCKLND_IOC_IF_ADD, SOCKLND_IOC_IF_DEL: addresses of this node that an
 *	NI uses beside that in its NID: it tells them to its peers, and listens there
 * @ni: pattern for the NI; must match only one
 * @addr: an address of this network namespace; for IF_DEL, ANY means all but that in the NID
 * @prefix_len: how many bits of it are the subnet's, 0 to 32 for IPv4, to 128 for IPv6; with IF_HAS_PREFIX
 *              only
 * @flags: SOCKLND_IF_*; none for IF_DEL
 * @pad: zero
 *
 * New connections prefer the address that shares a subnet with the peer's, else the one that is
 * used least. Those that are there stay as they are, except that deleting an address closes the
 * connections that use it. So does the kernel when it takes the address away; then the NI waits
 * until it is back, and uses it again. Several NIs may use one address.
 *
 * ENOENT: no NI matches @ni; IF_DEL: it doesn't have that address. ENOTUNIQ: several
 * NIs match. IF_ADD: EEXIST: it has the address. ENOSPC: it has SOCKLND_IF_MAX. EADDRNOTAVAIL
 * and EADDRINUSE: as for NI_ADD. IF_DEL: EBUSY: it is the address in the NID.
 */
struct socklnd_if {
	struct socklnd_nid ni;
	struct socklnd_addr addr;
	__u32 prefix_len;
	__u32 flags;
	__u32 pad;
};

/* How many addresses an NI has at most, that in its NID included. */
#define SOCKLND_IF_MAX 16

/**
 * struct socklnd_peer_add - SOCKLND_IOC_PEER_ADD: says where a peer can be reached
 * @ni: pattern for the NI that reaches it; the first that serves the peer's network is used
 * @nid: the peer
 * @addr: the address to connect to; ANY means the one in the NID
 * @port: the port to connect to; 0 means the acceptor's usual one
 * @pad: zero
 * @flags: none yet
 * @pad2: zero
 *
 * Adding what is there already counts: it takes as many deletions with SOCKLND_PEER_DEL_SINGLE to
 * remove it. An address has one port: one that the driver has assumed by itself is replaced. EEXIST:
 * the address was added with another port. ENOENT: no NI matches @ni. ENETUNREACH: none serves
 * the peer's network.
 */
struct socklnd_peer_add {
	struct socklnd_nid ni;
	struct socklnd_nid nid;
	struct socklnd_addr addr;
	__u16 port;
	__u16 pad;
	__u32 flags;
	__u32 pad2;
};

/* socklnd_peer_del.flags: take back one addition of one route of each peer, instead of all. */
#define SOCKLND_PEER_DEL_SINGLE (1 << 0)
/* With SINGLE: undo an addition. The peer keeps its connections, and what it had without it. */
#define SOCKLND_PEER_DEL_KEEP (1 << 1)

/**
 * struct socklnd_peer_del - SOCKLND_IOC_PEER_DEL: forgets peers, or some of their addresses
 * @ni: pattern for the NIs that it is about
 * @nid: pattern for the peers
 * @addr: only routes to this address, or ANY
 * @flags: SOCKLND_PEER_DEL_*
 * @count: [out] how many peers matched
 *
 * Connections of routes that go are closed, messages that wait for a peer that goes fail.
 * With PEER_DEL_KEEP no connection is closed: a peer that is connected, or that the driver has found
 * by itself, is left as if its address had never been added. EINVAL: KEEP without SINGLE.
 * ENOENT: @nid names one peer, and there is no such peer (or route, if @addr was given).
 */
struct socklnd_peer_del {
	struct socklnd_nid ni;
	struct socklnd_nid nid;
	struct socklnd_addr addr;
	__u32 flags;
	__u32 count;
	__u32 pad;
};

/**
 * struct socklnd_route - SOCKLND_IOC_ROUTE_ADD: says which node passes messages on towards another
 *	network; and SOCKLND_IOC_ROUTE_DEL: takes that back
 * @ni: pattern for the NI that reaches the gateway, for ROUTE_ADD the first that serves its
 *	network; for ROUTE_DEL, for those that it is about
 * @gateway: the gateway; for ROUTE_DEL a pattern
 * @target: the network, as a pattern for all of its NIDs; for ROUTE_DEL, all zeros means any
 * @priority: of several gateways that live, those with the lowest number are used, in turn; zero
 *	for ROUTE_DEL
 * @flags: none yet
 * @count: [out] for ROUTE_DEL, how many routes there were
 * @pad: zero
 *
 * Not to be confused with the routes of a peer, which are its addresses. EINVAL: @target is the
 * network of the gateway, or the gateway is this NI itself. ENETUNREACH: no NI serves
 * the gateway's network. EEXIST: this gateway leads there already. ENOSPC: the NI has
 * SOCKLND_ROUTE_MAX. ENOENT: no NI matches @ni; ROUTE_DEL: @gateway names one node, and no
 * route matched.
 */
struct socklnd_route {
	struct socklnd_nid ni;
	struct socklnd_nid gateway;
	struct socklnd_nid target;
	__u32 priority;
	__u32 flags;
	__u32 count;
	__u32 pad;
};

/* How many routes to other networks an NI has at most. */
#define SOCKLND_ROUTE_MAX 1024

/* socklnd_gateway.state, socklnd_route_entry.state */
#define SOCKLND_GATEWAY_UP 1		/* it is used */
#define SOCKLND_GATEWAY_DOWN 2		/* it was lost; used again when it is back */
#define SOCKLND_GATEWAY_SET_DOWN 3	/* an administrator has said so; until UP is said */

/**
 * struct socklnd_gateway - SOCKLND_IOC_ROUTE_NOTIFY: says that a gateway is to be used, or not
 * @ni: pattern for the NI that reaches the gateway; the first that serves its network is used
 * @gateway: the gateway
 * @state: SOCKLND_GATEWAY_UP or SOCKLND_GATEWAY_SET_DOWN
 * @flags: none yet
 *
 * A gateway that is set down loses its connections, and what was sent over them and not answered
 * fails. ENOENT: no NI matches @ni, or it has no route through that node. ENETUNREACH: no
 * NI serves the gateway's network.
 */
struct socklnd_gateway {
	struct socklnd_nid ni;
	struct socklnd_nid gateway;
	__u32 state;
	__u32 flags;
};

/**
 * struct socklnd_routing_set - SOCKLND_IOC_ROUTING_SET: says whether this node passes on messages that
 *	are for others, from one of its networks to another
 * @on: 1 or 0
 * @flags: none yet
 * @pad: zero
 * @pad2: zero
 *
 * The node is the network namespace. Switched on, it takes the memory for its forwarding buffers;
 * switched off, it gives back at once what nothing is in, and the rest message by message. What is
 * so already stays so. ENOMEM: there is not enough memory; then it is off.
 */
struct socklnd_routing_set {
	__u32 on;
	__u32 flags;
	__u32 pad;
	__u32 pad2;
};

/**
 * struct socklnd_fwd_pool - forwarding buffers of one size
 * @bytes: of each
 * @buffers: how many there are
 * @busy: how many of them are in use
 * @waiting: how many connections read nothing because they wait for one
 * @waits: how often one has had to wait so far
 */
struct socklnd_fwd_pool {
	__u32 bytes;
	__u32 buffers;
	__u32 busy;
	__u32 waiting;
	__aligned_u64 waits;
};

/**
 * struct socklnd_routing - SOCKLND_IOC_ROUTING_GET: how the forwarding of this node is
 * @flags: none yet
 * @on: [out] 1 or 0
 * @small: [out] buffers for messages of up to a page
 * @large: [out] buffers for others
 *
 * All zeros if there never was an NI and nothing was said about it.
 */
struct socklnd_routing {
	__u32 flags;
	__u32 on;
	struct socklnd_fwd_pool small;
	struct socklnd_fwd_pool large;
};

/**
 * struct socklnd_conn_close - SOCKLND_IOC_CONN_CLOSE: closes connections, keeps peers; and
 *	SOCKLND_IOC_CONN_PUSH: has TCP send at once what it holds back for a fuller segment
 * @ni: pattern for the NIs that it is about
 * @nid: pattern for the peers
 * @addr: only connections to or from this address, or ANY
 * @flags: none yet
 * @count: [out] how many connections were closed, or pushed
 * @pad: zero
 *
 * ENOENT: CONN_CLOSE: @nid names one peer and none of its connections matched. CONN_PUSH: no
 * connection matched.
 */
struct socklnd_conn_close {
	struct socklnd_nid ni;
	struct socklnd_nid nid;
	struct socklnd_addr addr;
	__u32 flags;
	__u32 count;
	__u32 pad;
};

/**
 * struct socklnd_register - SOCKLND_IOC_CONN_REGISTER: hands a connected socket over to the driver
 * @ni: pattern for the NI that the connection is for
 * @nid: the node at the other end; all zeros if @type is SOCKLND_CONN_NONE
 * @fd: a file descriptor of the socket
 * @type: SOCKLND_CONN_NONE if the other node has made the connection: it speaks first. Any other
 *	SOCKLND_CONN_*, as this node sees it, if this node has: the driver speaks first.
 * @flags: none yet
 * @pad: zero
 *
 * For programs that accept or make connections themselves, and close the socket afterwards. The driver
 * takes the connection when nobody has the socket any more: no descriptor of it is left in any process,
 * no call on it is under way, no other part of the kernel (io_uring, a message that carries it) has it, and
 * no epoll set watches it: EPOLL_CTL_DEL comes before close(). Until then the driver does not touch it,
 * whatever the program does with it. If that takes longer than the accept_timeout, the driver gives up:
 * whoever has the socket keeps it as it is, and a line in the kernel log says so. A connection that was
 * taken belongs to the driver alone. It keeps its network namespace alive until it ends, as sockets of
 * programs do; SO_LINGER, SO_RCVLOWAT, TCP_CORK, SO_TIMESTAMPING and IP_RECVERR are undone.
 *
 * The request waits for nothing, and what becomes of the socket later is not its result. If it is not
 * closed in time, or the exchange of greetings fails or takes too long, that is counted among the errors
 * in SOCKLND_IOC_STATS, and in the second case the connection is closed.
 *
 * EBADF: no such descriptor. ENOTSOCK: it is no socket. EPROTONOSUPPORT: it is not TCP. EXDEV: the
 * socket belongs to another network namespace. ENOTCONN: it is not connected, or not any more.
 * EBUSY: it was registered before, or somebody in the kernel uses it: it has TLS or BPF on it.
 * ENOENT: no NI matches @ni. ENOTUNIQ: several do. ENETUNREACH: none of them serves the
 * network of @nid. ESHUTDOWN: the NI is being stopped. ENOMEM: no memory. After any error the
 * program has its socket as before.
 */
struct socklnd_register {
	struct socklnd_nid ni;
	struct socklnd_nid nid;
	__s32 fd;
	__u32 type;
	__u32 flags;
	__u32 pad;
};

/**
 * struct socklnd_list - the request behind every list
 * @ni: pattern for the NIs that it is about
 * @entries: address of an array of @capacity entries
 * @entry_size: the caller's size of an entry, and the distance between two of them: at least the
 *	list's SOCKLND_*_ENTRY_SIZE_VER0, at most SOCKLND_MAX_ENTRY_SIZE, a multiple of eight
 * @capacity: how many entries there is room for; may be zero, to ask for @total
 * @count: [out] how many entries were written
 * @total: [out] how many there are; if more than @capacity, ask again with more room
 * @flags: none yet
 * @pad: zero
 *
 * What is there during the whole request is in the list once, and the entries about one peer are
 * of one moment. The module writes the beginning of an entry that both sides know, and zeros where
 * the caller's is longer.
 */
struct socklnd_list {
	struct socklnd_nid ni;
	__aligned_u64 entries;
	__u32 entry_size;
	__u32 capacity;
	__u32 count;
	__u32 total;
	__u32 flags;
	__u32 pad;
};

#define SOCKLND_MAX_ENTRY_SIZE 4096

/* Sizes of the entries in the first version of this interface. */
#define SOCKLND_NI_ENTRY_SIZE_VER0 48
#define SOCKLND_IF_ENTRY_SIZE_VER0 56
#define SOCKLND_PEER_ENTRY_SIZE_VER0 128
#define SOCKLND_CONN_ENTRY_SIZE_VER0 168
#define SOCKLND_ROUTE_ENTRY_SIZE_VER0 88
#define SOCKLND_STATS_ENTRY_SIZE_VER0 192
#define SOCKLND_PEER_STATS_ENTRY_SIZE_VER0 200

/*
 * socklnd_ni_entry.state: whether the network device with its address can send. Nothing is connected
 * from one that can't.
 */
#define SOCKLND_NI_UP 1
#define SOCKLND_NI_DOWN 2

/**
 * struct socklnd_ni_entry - one local NI, in the list SOCKLND_IOC_NI_LIST
 * @nid: its NID
 * @incarnation_us: when it was started, in microseconds since 1970; tells peers of a restart
 * @state: SOCKLND_NI_*
 * @pid: the process number in its messages
 * @peers: how many peers it knows
 * @conns: how many connections it has
 * @conns_per_peer: how many connections for bulk it wants to each peer, each way (since 1.4)
 * @pad: zero
 */
struct socklnd_ni_entry {
	struct socklnd_nid nid;
	__aligned_u64 incarnation_us;
	__u32 state;
	__u32 pid;
	__u32 peers;
	__u32 conns;
	__u32 conns_per_peer;
	__u32 pad;
};

/*
 * socklnd_if_entry.flags. IF_ADD did not say how long the prefix is: it is what the kernel says, as that
 * changes. No device has the address at present: nothing uses it until it is back.
 */
#define SOCKLND_IF_KERNEL_PREFIX (1 << 1)
#define SOCKLND_IF_WAITS (1 << 2)

/**
 * struct socklnd_if_entry - an address that an NI uses, in the list SOCKLND_IOC_IF_LIST
 * @ni: the NI
 * @addr: the address
 * @prefix_len: how many bits of it are the subnet's
 * @peers: how many peers have been told to use it
 * @routes: how many routes use it
 * @flags: SOCKLND_IF_KERNEL_PREFIX, SOCKLND_IF_WAITS; since version 1.6
 * @pad: zero
 *
 * That in the NI's NID comes first.
 */
struct socklnd_if_entry {
	struct socklnd_nid ni;
	struct socklnd_addr addr;
	__u32 prefix_len;
	__u32 peers;
	__u32 routes;
	__u32 flags;
	__u32 pad;
};

/* socklnd_peer_entry.state */
#define SOCKLND_PEER_IDLE 1		/* no connection, none being made */
#define SOCKLND_PEER_CONNECTING 2	/* no connection, one being made */
#define SOCKLND_PEER_UP 3		/* connected */

/* socklnd_peer_entry.flags */
#define SOCKLND_PEER_HAS_ROUTE (1 << 0)		/* the members route_* mean something */
#define SOCKLND_PEER_ROUTE_CONNECTING (1 << 1)	/* the route is being connected */

/**
 * struct socklnd_peer_entry - one route of one peer, in the list SOCKLND_IOC_PEER_LIST
 * @ni: the local NI
 * @nid: the peer
 * @state: SOCKLND_PEER_*
 * @flags: SOCKLND_PEER_*
 * @conns: how many connections it has
 * @routes: how many routes it has
 * @share_count: how often it was added: the sum over its routes
 * @txs: how many messages wait for a connection to it
 * @incarnation_us: when it was started, as it says, in microseconds since 1970; 0 if not connected
 * @idle_ms: how long ago it gave a sign of life, or was added
 * @route_addr: where the route leads
 * @route_port: its port
 * @pad: zero
 * @route_share_count: how often this route was added; 0 if the driver found it by itself
 * @route_conns: how many connections there are to its address
 * @route_opened: how many connections it has opened so far
 * @route_local: the address of this node that it connects from, or ANY while none was chosen
 * @pad2: zero
 *
 * A peer with several routes has as many entries, one after the other, that differ only in the
 * members route_* and in @flags. A peer without routes has one entry.
 */
struct socklnd_peer_entry {
	struct socklnd_nid ni;
	struct socklnd_nid nid;
	__u32 state;
	__u32 flags;
	__u32 conns;
	__u32 routes;
	__u32 share_count;
	__u32 txs;
	__aligned_u64 incarnation_us;
	__aligned_u64 idle_ms;
	struct socklnd_addr route_addr;
	__u16 route_port;
	__u16 pad;
	__u32 route_share_count;
	__u32 route_conns;
	__aligned_u64 route_opened;
	struct socklnd_addr route_local;
	__u32 pad2;
};

/**
 * struct socklnd_route_entry - a route to another network, in the list SOCKLND_IOC_ROUTE_LIST
 * @ni: the local NI
 * @gateway: the node that messages go to
 * @target: the network, as a pattern for all of its NIDs
 * @priority: lower numbers are preferred
 * @state: SOCKLND_GATEWAY_*: the same for all routes through one gateway
 * @chosen: how many messages were given this way so far
 */
struct socklnd_route_entry {
	struct socklnd_nid ni;
	struct socklnd_nid gateway;
	struct socklnd_nid target;
	__u32 priority;
	__u32 state;
	__aligned_u64 chosen;
};

/* socklnd_conn_entry.type: as this node sees it */
#define SOCKLND_CONN_ANY 0
#define SOCKLND_CONN_CONTROL 1
#define SOCKLND_CONN_BULK_IN 2
#define SOCKLND_CONN_BULK_OUT 3

/* socklnd_register.type: the other end says which type the connection has */
#define SOCKLND_CONN_NONE 0xffffffff

/* socklnd_conn_entry.flags */
#define SOCKLND_CONN_ACTIVE (1 << 0)	/* made by this node, not by the peer */
#define SOCKLND_CONN_NAGLE (1 << 1)	/* small segments wait for acknowledgement */

/**
 * struct socklnd_conn_entry - one connection, in the list SOCKLND_IOC_CONN_LIST
 * @ni: the local NI
 * @nid: the peer
 * @local_addr: this end's address
 * @local_port: this end's port
 * @pad: zero
 * @peer_addr: the other end's address
 * @peer_port: the other end's port
 * @pad2: zero
 * @type: SOCKLND_CONN_*
 * @flags: SOCKLND_CONN_*
 * @cpu: the processor whose scheduler serves it
 * @protocol: version of the protocol that it speaks
 * @tx_buffer: size of the socket's send buffer in bytes
 * @rx_buffer: size of the socket's receive buffer in bytes
 * @queued_bytes: bytes queued on it, and sent but not yet acknowledged
 * @tx_msgs: messages sent
 * @tx_bytes: bytes sent, headers included
 * @rx_msgs: messages received
 * @rx_bytes: bytes received, headers included
 * @age_ms: how long ago it was made
 * @zc_msgs: of the messages sent, those that were sent without a copy
 * @zc_bytes: bytes of these, headers included
 * @queued_bytes_peak: the most bytes that were queued on it at the same time
 * @sndbuf_full: times that it had to wait for room in the socket's send buffer
 * @err_nomem: times that memory for the socket ran out, and the work was put off
 */
struct socklnd_conn_entry {
	struct socklnd_nid ni;
	struct socklnd_nid nid;
	struct socklnd_addr local_addr;
	__u16 local_port;
	__u16 pad;
	struct socklnd_addr peer_addr;
	__u16 peer_port;
	__u16 pad2;
	__u32 type;
	__u32 flags;
	__u32 cpu;
	__u32 protocol;
	__u32 tx_buffer;
	__u32 rx_buffer;
	__aligned_u64 queued_bytes;
	__aligned_u64 tx_msgs;
	__aligned_u64 tx_bytes;
	__aligned_u64 rx_msgs;
	__aligned_u64 rx_bytes;
	__aligned_u64 age_ms;
	__aligned_u64 zc_msgs;
	__aligned_u64 zc_bytes;
	__aligned_u64 queued_bytes_peak;
	__aligned_u64 sndbuf_full;
	__aligned_u64 err_nomem;
};

/**
 * struct socklnd_stats_entry - counters of one NI, in the list SOCKLND_IOC_STATS
 * @nid: the NI
 * @tx_msgs: messages sent
 * @tx_bytes: bytes sent, headers included
 * @rx_msgs: messages received
 * @rx_bytes: bytes received, headers included
 * @connects: connections made by this node
 * @accepts: connections made by peers
 * @refusals: attempts of peers that the rules refused: a lost race, a duplicate, an old incarnation
 * @drops: messages received that no memory was waiting for
 * @misrouted: messages received that are for another node, or name another sender than the peer, and
 *	were not passed on
 * @err_connect: attempts of this node to connect that failed
 * @err_handshake: attempts of peers that ended in garbage, in silence, or in a full waiting room
 * @err_protocol: connections closed because the peer broke the protocol
 * @err_disconnect: connections closed or reset by the peer
 * @err_timeout: connections and queued messages ended because the peer kept silent
 * @err_tx: messages that could not be sent
 * @err_nomem: times that memory for a socket ran out, and the work was put off
 * @peers: peers that exist now, those included that are being forgotten
 * @routes: routes of peers that are not being forgotten
 * @conns: connections, those included that are being closed
 * @handshakes: connections that are not yet through the exchange of greetings
 * @txs: messages on their way out
 * @zc_msgs: messages sent without a copy
 * @zc_bytes: bytes of these, headers included
 * @zc_copied: how many of them were copied further on after all, in whole or in part: by a receiver
 *	on the same machine, or for a device that needs it
 * @fwd_msgs: messages that came in here and were passed on by another NI
 * @fwd_bytes: their payload
 * @fwd_failed: messages that were to be passed on and could not be, or were not received as a whole
 * @fwd_forged: of @misrouted, those that named a sender for which the peer can't speak
 * @fwd_direct: of @misrouted, those that should have been sent straight to their target
 * @fwd_off: of @misrouted, those that were not passed on because forwarding is off
 * @fwd_no_route: of @misrouted, those for a network to which nothing leads
 * @fwd_back: of @misrouted, those that would have gone back to the network that they came from
 */
struct socklnd_stats_entry {
	struct socklnd_nid nid;
	__aligned_u64 tx_msgs;
	__aligned_u64 tx_bytes;
	__aligned_u64 rx_msgs;
	__aligned_u64 rx_bytes;
	__aligned_u64 connects;
	__aligned_u64 accepts;
	__aligned_u64 refusals;
	__aligned_u64 drops;
	__aligned_u64 misrouted;
	__aligned_u64 err_connect;
	__aligned_u64 err_handshake;
	__aligned_u64 err_protocol;
	__aligned_u64 err_disconnect;
	__aligned_u64 err_timeout;
	__aligned_u64 err_tx;
	__aligned_u64 err_nomem;
	__aligned_u64 peers;
	__aligned_u64 routes;
	__aligned_u64 conns;
	__aligned_u64 handshakes;
	__aligned_u64 txs;
	__aligned_u64 zc_msgs;
	__aligned_u64 zc_bytes;
	__aligned_u64 zc_copied;
	__aligned_u64 fwd_msgs;
	__aligned_u64 fwd_bytes;
	__aligned_u64 fwd_failed;
	__aligned_u64 fwd_forged;
	__aligned_u64 fwd_direct;
	__aligned_u64 fwd_off;
	__aligned_u64 fwd_no_route;
	__aligned_u64 fwd_back;
};

/**
 * struct socklnd_peer_stats_entry - counters of one peer, in the list SOCKLND_IOC_PEER_STATS
 * @ni: the local NI
 * @nid: the peer
 * @tx_msgs: messages sent
 * @tx_bytes: bytes sent, headers included
 * @rx_msgs: messages received
 * @rx_bytes: bytes received, headers included
 * @zc_msgs: of the messages sent, those that were sent without a copy
 * @zc_bytes: bytes of these, headers included
 * @attempts: attempts of this node to connect
 * @connects: connections made by this node
 * @accepts: connections made by the peer
 * @misrouted: messages received that are for another node, or name another sender than the peer
 * @err_connect: attempts of this node to connect that failed
 * @err_protocol: connections closed because the peer broke the protocol
 * @err_disconnect: connections closed or reset by the peer
 * @err_timeout: connections and queued messages ended because the peer kept silent
 * @err_tx: messages that could not be sent
 * @err_nomem: times that memory for a socket ran out, and the work was put off
 * @queued_msgs: messages that wait for a connection
 * @queued_msgs_peak: the most that have waited at the same time
 * @idle_ms: how long ago the peer gave a sign of life, or was added
 *
 * Since the peer was added or first heard of; connections that have ended are included.
 */
struct socklnd_peer_stats_entry {
	struct socklnd_nid ni;
	struct socklnd_nid nid;
	__aligned_u64 tx_msgs;
	__aligned_u64 tx_bytes;
	__aligned_u64 rx_msgs;
	__aligned_u64 rx_bytes;
	__aligned_u64 zc_msgs;
	__aligned_u64 zc_bytes;
	__aligned_u64 attempts;
	__aligned_u64 connects;
	__aligned_u64 accepts;
	__aligned_u64 misrouted;
	__aligned_u64 err_connect;
	__aligned_u64 err_protocol;
	__aligned_u64 err_disconnect;
	__aligned_u64 err_timeout;
	__aligned_u64 err_tx;
	__aligned_u64 err_nomem;
	__aligned_u64 queued_msgs;
	__aligned_u64 queued_msgs_peak;
	__aligned_u64 idle_ms;
};

/* ---- trying the network ---------------------------------------------------------------------- */

/* socklnd_ping_ni.status, as nodes send it */
#define SOCKLND_PING_NI_UP 0x15aac0de
#define SOCKLND_PING_NI_DOWN 0xdeadface

#define SOCKLND_PING_MAX_NIS 16

/* The longest time that a request of this section may take: an hour. */
#define SOCKLND_MAX_TIMEOUT_MS 3600000

/**
 * struct socklnd_ping_ni - one NID of a node that answered a ping
 * @nid: the NID
 * @status: SOCKLND_PING_NI_*
 * @pad: zero
 */
struct socklnd_ping_ni {
	struct socklnd_nid nid;
	__u32 status;
	__u32 pad;
};

/**
 * struct socklnd_ping - SOCKLND_IOC_PING: asks a node who it is
 * @ni: pattern for the NI to use; the first that serves the node's network, or else that has a
 *	route there
 * @nid: the node to ask
 * @timeout_ms: how long to wait, 1 to SOCKLND_MAX_TIMEOUT_MS
 * @flags: none yet
 * @rtt_ns: [out] how long it took, connecting included where there was no connection
 * @pid: [out] its process number
 * @features: [out] its set of features, as nodes send it
 * @count: [out] how many of @nis are filled
 * @pad: zero
 * @nis: [out] its NIDs
 *
 * ETIMEDOUT: no answer in time. EHOSTUNREACH, ECONNREFUSED and so on: no connection, or no gateway
 * that lives. EPROTO: the
 * answer makes no sense. EINTR: a signal came. ENOENT, ENETUNREACH: as for PEER_ADD.
 */
struct socklnd_ping {
	struct socklnd_nid ni;
	struct socklnd_nid nid;
	__u32 timeout_ms;
	__u32 flags;
	__aligned_u64 rtt_ns;
	__u32 pid;
	__u32 features;
	__u32 count;
	__u32 pad;
	struct socklnd_ping_ni nis[SOCKLND_PING_MAX_NIS];
};

/**
 * struct socklnd_service - SOCKLND_IOC_SERVICE: starts the service that answers BENCH
 * @ni: pattern for the NIs that are to offer it
 * @flags: none yet
 * @count: [out] how many NIs offer it
 *
 * It stops when the file is closed. EBUSY: this file offers it already, or another one does for one
 * of the NIs. ENOENT: no NI matches.
 */
struct socklnd_service {
	struct socklnd_nid ni;
	__u32 flags;
	__u32 count;
};

/* socklnd_bench.op */
#define SOCKLND_BENCH_PUT 1	/* from this node's memory to the peer's, acknowledged */
#define SOCKLND_BENCH_GET 2	/* from the peer's memory to this node's */

/* socklnd_bench.flags: compare what arrived with what was sent */
#define SOCKLND_BENCH_VERIFY (1 << 0)

#define SOCKLND_BENCH_MAX_SIZE (1 << 20)
#define SOCKLND_BENCH_MAX_IN_FLIGHT 256

/**
 * struct socklnd_bench - SOCKLND_IOC_BENCH: moves data to or from a node that offers the service
 * @ni: pattern for the NI to use, as for PING
 * @nid: the node
 * @op: SOCKLND_BENCH_PUT or SOCKLND_BENCH_GET
 * @flags: SOCKLND_BENCH_*
 * @size: bytes a message, 0 to SOCKLND_BENCH_MAX_SIZE
 * @in_flight: messages under way at the same time, 1 to SOCKLND_BENCH_MAX_IN_FLIGHT; the node may
 *	allow fewer
 * @count: messages in all, at least 1
 * @timeout_ms: how long all of it may take, 1 to SOCKLND_MAX_TIMEOUT_MS
 * @error: [out] what the first message that failed failed with, a positive errno, or 0
 * @messages: [out] messages that went through
 * @bytes: [out] their payload
 * @elapsed_ns: [out] from the first message's start to the last one's end
 * @errors: [out] messages that failed
 * @verify_failures: [out] messages that went through with wrong contents
 * @latency_min_ns: [out] shortest time from a message's start to its end; 0 if none went through
 * @latency_mean_ns: [out] mean of these
 * @latency_max_ns: [out] longest of these
 *
 * Returns 0 when messages were sent, with or without errors; or EINTR if a signal came. Before that,
 * the errors of PING, and EMSGSIZE: @size is too large; EBUSY: the node can't serve this now.
 */
struct socklnd_bench {
	struct socklnd_nid ni;
	struct socklnd_nid nid;
	__u32 op;
	__u32 flags;
	__u32 size;
	__u32 in_flight;
	__aligned_u64 count;
	__u32 timeout_ms;
	__u32 error;
	__aligned_u64 messages;
	__aligned_u64 bytes;
	__aligned_u64 elapsed_ns;
	__aligned_u64 errors;
	__aligned_u64 verify_failures;
	__aligned_u64 latency_min_ns;
	__aligned_u64 latency_mean_ns;
	__aligned_u64 latency_max_ns;
};

/* ---- numbers --------------------------------------------------------------------------------- */

/* The type byte of the numbers: free in Linux 7.3's list of them. */
#define SOCKLND_IOC_TYPE 0xBB

/* Enumerators rather than macros, so that bindgen sees their values. */
enum {
	SOCKLND_IOC_VERSION = _IOR(SOCKLND_IOC_TYPE, 0x00, struct socklnd_version),
	SOCKLND_IOC_MYNID = _IOWR(SOCKLND_IOC_TYPE, 0x01, struct socklnd_ni),
	SOCKLND_IOC_STATS = _IOWR(SOCKLND_IOC_TYPE, 0x02, struct socklnd_list),

	SOCKLND_IOC_NI_ADD = _IOW(SOCKLND_IOC_TYPE, 0x10, struct socklnd_ni),
	SOCKLND_IOC_NI_DEL = _IOW(SOCKLND_IOC_TYPE, 0x11, struct socklnd_ni),
	SOCKLND_IOC_NI_LIST = _IOWR(SOCKLND_IOC_TYPE, 0x12, struct socklnd_list),
	SOCKLND_IOC_NI_SET = _IOW(SOCKLND_IOC_TYPE, 0x13, struct socklnd_ni),

	SOCKLND_IOC_IF_ADD = _IOW(SOCKLND_IOC_TYPE, 0x18, struct socklnd_if),
	SOCKLND_IOC_IF_DEL = _IOW(SOCKLND_IOC_TYPE, 0x19, struct socklnd_if),
	SOCKLND_IOC_IF_LIST = _IOWR(SOCKLND_IOC_TYPE, 0x1a, struct socklnd_list),

	SOCKLND_IOC_PEER_ADD = _IOW(SOCKLND_IOC_TYPE, 0x20, struct socklnd_peer_add),
	SOCKLND_IOC_PEER_DEL = _IOWR(SOCKLND_IOC_TYPE, 0x21, struct socklnd_peer_del),
	SOCKLND_IOC_PEER_LIST = _IOWR(SOCKLND_IOC_TYPE, 0x22, struct socklnd_list),
	SOCKLND_IOC_PEER_STATS = _IOWR(SOCKLND_IOC_TYPE, 0x23, struct socklnd_list),

	SOCKLND_IOC_ROUTE_ADD = _IOW(SOCKLND_IOC_TYPE, 0x28, struct socklnd_route),
	SOCKLND_IOC_ROUTE_DEL = _IOWR(SOCKLND_IOC_TYPE, 0x29, struct socklnd_route),
	SOCKLND_IOC_ROUTE_LIST = _IOWR(SOCKLND_IOC_TYPE, 0x2a, struct socklnd_list),
	SOCKLND_IOC_ROUTE_NOTIFY = _IOW(SOCKLND_IOC_TYPE, 0x2b, struct socklnd_gateway),
	SOCKLND_IOC_ROUTING_SET = _IOW(SOCKLND_IOC_TYPE, 0x2c, struct socklnd_routing_set),
	SOCKLND_IOC_ROUTING_GET = _IOWR(SOCKLND_IOC_TYPE, 0x2d, struct socklnd_routing),

	SOCKLND_IOC_CONN_CLOSE = _IOWR(SOCKLND_IOC_TYPE, 0x30, struct socklnd_conn_close),
	SOCKLND_IOC_CONN_LIST = _IOWR(SOCKLND_IOC_TYPE, 0x31, struct socklnd_list),
	SOCKLND_IOC_CONN_PUSH = _IOWR(SOCKLND_IOC_TYPE, 0x32, struct socklnd_conn_close),
	SOCKLND_IOC_CONN_REGISTER = _IOW(SOCKLND_IOC_TYPE, 0x33, struct socklnd_register),

	SOCKLND_IOC_PING = _IOWR(SOCKLND_IOC_TYPE, 0x40, struct socklnd_ping),
	SOCKLND_IOC_SERVICE = _IOWR(SOCKLND_IOC_TYPE, 0x41, struct socklnd_service),
	SOCKLND_IOC_BENCH = _IOWR(SOCKLND_IOC_TYPE, 0x42, struct socklnd_bench),
};

#endif /* _UAPI_SOCKLND_H */
