/* SPDX-License-Identifier: GPL-2.0 */
/* What goes over the wire, as the protocol has it. */
#ifndef SHIM_LNET_IDL_H
#define SHIM_LNET_IDL_H

#include <linux/types.h>

typedef __u64 lnet_nid_t;
typedef __u32 lnet_pid_t;

/* Bytes 0 to 7 are common to all networks, an address of 4 to 16 bytes follows. Network order. */
struct lnet_nid {
	__u8 nid_size; /* of the address, less 4 */
	__u8 nid_type;
	__be16 nid_num;
	__be32 nid_addr[4];
} __packed;

#define NID_BYTES(nid) (8 + (nid)->nid_size)
#define NID_ADDR_BYTES(nid) (4 + (nid)->nid_size)

enum lnet_msg_type {
	LNET_MSG_ACK = 0,
	LNET_MSG_PUT = 1,
	LNET_MSG_GET = 2,
	LNET_MSG_REPLY = 3,
	LNET_MSG_HELLO = 4,
};

struct lnet_handle_wire {
	__u64 wh_interface_cookie;
	__u64 wh_object_cookie;
} __packed;

struct lnet_ack {
	struct lnet_handle_wire dst_wmd;
	__u64 match_bits;
	__u32 mlength;
} __packed;

struct lnet_put {
	struct lnet_handle_wire ack_wmd;
	__u64 match_bits;
	__u64 hdr_data;
	__u32 ptl_index;
	__u32 offset;
} __packed;

struct lnet_get {
	struct lnet_handle_wire return_wmd;
	__u64 match_bits;
	__u32 ptl_index;
	__u32 src_offset;
	__u32 sink_length;
} __packed;

struct lnet_reply {
	struct lnet_handle_wire dst_wmd;
} __packed;

struct lnet_hello {
	__u64 incarnation;
	__u32 type;
} __packed;

union lnet_cmd_hdr {
	struct lnet_hello hello;
	struct lnet_reply reply;
	struct lnet_get get;
	struct lnet_put put;
	struct lnet_ack ack;
} __packed;

/* In memory: all before the union is in the processor's order, the union as on the wire. */
struct lnet_hdr {
	struct lnet_nid dest_nid;
	struct lnet_nid src_nid;
	lnet_pid_t dest_pid;
	lnet_pid_t src_pid;
	__u32 type;
	__u32 payload_length;
	union lnet_cmd_hdr msg;
} __packed;

/* On the wire. */
struct lnet_hdr_nid16 {
	char _bytes[96];
} __packed;

struct lnet_hdr_nid4 {
	char _bytes[72];
} __packed;

#endif
