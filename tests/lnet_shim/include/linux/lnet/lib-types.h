/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The structures that a driver sees. Names are LNet's, the rest is not: fields stand in another order, others
 * stand between them, so that a driver which relies on anything but the names is found out.
 */
#ifndef SHIM_LIB_TYPES_H
#define SHIM_LIB_TYPES_H

#include <linux/atomic.h>
#include <linux/bvec.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/uio.h>
#include <net/net_namespace.h>
#include <net/netlink.h>
#include <linux/lnet/lib-cpt.h>
#include <uapi/linux/lnet/lnet-dlc.h>
#include <uapi/linux/lnet/lnet-nl.h>
#include <uapi/linux/lnet/lnet-types.h>
#include <uapi/linux/lnet/nidstr.h>

/* A message has at most so many bytes of payload, in at most so many fragments. */
#define LNET_MTU (1 << 20)
#define LNET_MAX_PAYLOAD LNET_MTU
#define LNET_MAX_IOV 256

/* The payload of a message that is received may be thrown away. */
#define LNET_MD_DISCARD 0x4000

#define LNET_PROTO_PING_MATCHBITS 0x8000000000000000ULL

struct lnet_ni;
struct lnet_msg;
struct net_device;
struct sk_buff;
struct socket;
struct sockaddr;
struct shim_mem;
struct shim_op;

enum lnet_msg_hstatus {
	LNET_MSG_STATUS_OK = 0,
	LNET_MSG_STATUS_LOCAL_INTERRUPT = 1,
	LNET_MSG_STATUS_LOCAL_DROPPED = 2,
	LNET_MSG_STATUS_LOCAL_ABORTED = 3,
	LNET_MSG_STATUS_LOCAL_NO_ROUTE = 4,
	LNET_MSG_STATUS_LOCAL_ERROR = 5,
	LNET_MSG_STATUS_LOCAL_TIMEOUT = 6,
	LNET_MSG_STATUS_REMOTE_ERROR = 7,
	LNET_MSG_STATUS_REMOTE_DROPPED = 8,
	LNET_MSG_STATUS_REMOTE_TIMEOUT = 9,
	LNET_MSG_STATUS_NETWORK_TIMEOUT = 10,
	LNET_MSG_STATUS_END = 11,
};

enum lnet_ni_state {
	LNET_NI_STATE_INIT = 0,
	LNET_NI_STATE_ACTIVE = 1,
	LNET_NI_STATE_DELETING = 2,
};

enum lnet_net_local_ni_attrs {
	LNET_NET_LOCAL_NI_ATTR_UNSPEC = 0,
	LNET_NET_LOCAL_NI_ATTR_TUNABLES = 10,
	LNET_NET_LOCAL_NI_ATTR_LND_TUNABLES = 11,
};

struct lnet_libmd {
	u64 shim_front[3];
	unsigned int md_options;
};

struct lnet_nid_md_entry;

struct lnet_msg {
	/* The shim's own. */
	u64 shim_magic;
	atomic_t shim_owner;
	struct list_head shim_link; /* where it waits */
	struct list_head shim_all;
	struct lnet_ni *shim_ni;
	struct shim_peer *shim_peer;
	struct shim_mem *shim_mem;
	struct shim_op *shim_op;
	int shim_rc;
	int shim_tries;
	bool shim_has_credit;
	u64 shim_seed;
	void *shim_token;

	struct bio_vec *msg_kiov;
	struct lnet_hdr msg_hdr;
	unsigned int msg_niov;
	unsigned int msg_offset;
	unsigned int msg_len;
	unsigned int msg_wanted;
	struct lnet_libmd *msg_md;
	unsigned int msg_routing : 1;
	unsigned int msg_target_is_router : 1;
	unsigned int msg_sending : 1;
	unsigned int msg_receiving : 1;
	unsigned int msg_vmflush : 1;
	enum lnet_msg_hstatus msg_health_status;
	void *msg_private;
	u32 shim_gap;
	__u32 msg_type;
	struct lnet_nid msg_initiator;
	struct lnet_nid msg_from;
	struct lnet_ni *msg_txni;
	struct lnet_ni *msg_rxni;
	struct lnet_processid msg_target;
	struct lnet_libmd shim_md;
};

struct lnet_lnd {
	const struct ln_key_list *lnd_keys;
	int (*lnd_get_timeout)(void);
	int (*lnd_send)(struct lnet_ni *ni, void *private, struct lnet_msg *msg);
	int (*lnd_recv)(struct lnet_ni *ni, void *private, struct lnet_msg *msg, int delayed, struct iov_iter *to,
			unsigned int rlen);
	int (*lnd_eager_recv)(struct lnet_ni *ni, void *private, struct lnet_msg *msg, void **new_private);
	void (*lnd_notify_peer_down)(struct lnet_nid *peer);
	int (*lnd_accept)(struct lnet_ni *ni, struct socket *sock);
	unsigned int (*lnd_get_dev_prio)(struct lnet_ni *ni, unsigned int index);
	int (*lnd_get_nid_metadata)(struct lnet_ni *ni, struct lnet_nid_md_entry *entry);
	int (*lnd_tun_defaults)(struct lnet_lnd_tunables *tunables, struct lnet_ioctl_config_lnd_cmn_tunables *common);
	int (*lnd_nl_set)(int cmd, struct nlattr *attr, int type, void *data);
	int (*lnd_nl_get)(int cmd, struct sk_buff *msg, int type, void *data, bool export_backup);
	int (*lnd_ctl)(struct lnet_ni *ni, unsigned int cmd, void *arg);
	void (*lnd_shutdown)(struct lnet_ni *ni);
	int (*lnd_startup)(struct lnet_ni *ni);
	__u32 lnd_type;
};

struct lnet_net {
	u8 shim_front[24];
	const struct lnet_lnd *net_lnd;
	struct lnet_ioctl_config_lnd_cmn_tunables net_tunables;
	bool net_tunables_set;
	__u32 net_id;
};

struct lnet_ni {
	u8 shim_front[40];
	struct net *ni_net_ns;
	atomic_t ni_fatal_error_on;
	int ni_dev_cpt;
	char *ni_interface;
	void *ni_data;
	struct lnet_lnd_tunables ni_lnd_tunables;
	bool ni_lnd_tunables_set;
	bool ni_cpts_default;
	u8 shim_gap[13];
	struct lnet_nid ni_nid;
	struct lnet_net *ni_net;
	enum lnet_ni_state ni_state;
	__u32 *ni_cpts;
	int ni_ncpts;
};

struct lnet {
	u64 shim_front[5];
	bool ln_nis_use_large_nids;
	lnet_pid_t ln_pid;
	unsigned int ln_testprotocompat;
	struct cfs_cpt_table *ln_cpt_table;
};

#endif
