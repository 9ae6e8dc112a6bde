/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The interface between lnet/ffi.rs and the files in C that know LNet's structures: lnet_glue.c and
 * those in lnet/glue. Read by the C compiler and by bindgen; nothing of Lustre's is needed to read it.
 *
 * A NID is 20 bytes as on the wire. A header is 96 bytes, in the form on the wire that has NIDs of
 * that length. struct slg_ni and struct slg_msg are LNet's struct lnet_ni and struct lnet_msg.
 */
#ifndef _SOCKLND_LNET_GLUE_H
#define _SOCKLND_LNET_GLUE_H

#include <linux/types.h>

struct bio_vec;
struct net;
struct slg_ni;
struct slg_msg;

#define SLG_NID_LEN 20
#define SLG_HEADER_LEN 96

/* Whose fault it is that a message has failed: enum lnet_msg_hstatus, without its numbers. */
enum slg_health {
	SLG_HEALTH_OK,
	SLG_HEALTH_LOCAL_DROPPED,
	SLG_HEALTH_LOCAL_NO_ROUTE,
	SLG_HEALTH_LOCAL_ERROR,
	SLG_HEALTH_LOCAL_TIMEOUT,
	SLG_HEALTH_REMOTE_ERROR,
	SLG_HEALTH_REMOTE_DROPPED,
	SLG_HEALTH_REMOTE_TIMEOUT,
	SLG_HEALTH_NETWORK_TIMEOUT,
};

/* The @len bytes behind the first @skip of a list, which stay valid until the message is finalized. */
struct slg_memory {
	struct bio_vec *bvecs;
	u32 count;
	u32 skip;
	u32 len;
};

/* How an NI is after its startup. */
struct slg_started {
	/* What the other callbacks are given. */
	void *ctx;
	u32 conns_per_peer;
	bool link_is_down;
};

/* Who may connect, as LNet's parameter "accept" says. */
enum slg_accept {
	SLG_ACCEPT_SECURE,
	SLG_ACCEPT_ALL,
	SLG_ACCEPT_NONE,
};

/* LNet's parameters for those who listen, and the time that it gives an LND by default. */
struct slg_settings {
	u32 accept;
	u32 port;
	/* For connections for bulk. */
	u32 bulk_port;
	u32 backlog;
	u32 accept_timeout_s;
	u32 lnd_timeout_s;
};

/* What an administrator wants by an ioctl. */
enum slg_ctl_cmd {
	SLG_CTL_GET_INTERFACE,
	SLG_CTL_GET_PEER,
	SLG_CTL_ADD_PEER,
	SLG_CTL_DEL_PEER,
	SLG_CTL_GET_CONN,
	SLG_CTL_CLOSE_CONN,
	SLG_CTL_PUSH_CONN,
};

struct slg_ctl {
	u8 nid[SLG_NID_LEN];
	u32 count;
	u32 flags;
	u32 words[7];
};

/*
 * What LNet asks of the driver. All but timeout(), conns_per_peer() and tos() are called in thread
 * context, may sleep, and are in a scope in which allocations do not enter a file system. Those three
 * may be called in any context.
 *
 * @startup:	brings an NI up. 0, or an error.
 * @shutdown:	when this returns, no thread uses the NI any more.
 * @send:	0: the message is the driver's, which finalizes it once. An error: it is LNet's.
 * @recv:	says where the payload goes whose token this is; @msg may be NULL. The token is used up.
 *		0: the message is the driver's. An error: it is LNet's.
 * @peer_down:	a peer was reported to be down: closes the connections to it.
 * @ctl:	a request of an administrator.
 * @timeout:	how long a peer may leave this node waiting, in seconds; more than 0.
 * @conns_per_peer: the module's parameter of this name.
 * @tos:	the module's parameter of this name.
 */
struct slg_ops {
	int (*startup)(struct slg_ni *ni, struct net *net, const u8 *nid, struct slg_started *started);
	void (*shutdown)(void *ctx);
	int (*send)(void *ctx, struct slg_msg *msg, const u8 *header, const u8 *to,
		    const struct slg_memory *memory);
	int (*recv)(void *token, struct slg_msg *msg, const struct slg_memory *memory);
	void (*peer_down)(const u8 *nid);
	int (*ctl)(void *ctx, u32 cmd, struct slg_ctl *ctl);
	u32 (*timeout)(void);
	u32 (*conns_per_peer)(void);
	s32 (*tos)(void);
};

/*
 * What the driver asks of LNet. All may sleep, and must be called without locks that sending or
 * receiving takes, but for slg_uses_cpu(), slg_conns_per_peer() and slg_tos(), which may be called in any
 * context.
 */

/* Whether the lnet.ko that is loaded is the one that this was built for; logs it if not. */
int slg_check(void);
/* From now on LNet calls @ops, which stays where it is until slg_unregister(). */
void slg_register(const struct slg_ops *ops);
/* No NI is up. When this returns, LNet calls nothing any more. */
void slg_unregister(void);
void slg_settings(struct slg_settings *settings);

/*
 * A message has begun to come in from the node with the NID @from. 0: recv() was called with the
 * token, or will be, once. An error: it was not, and will not be.
 */
int slg_parse(struct slg_ni *ni, const u8 *header, const u8 *from, void *token);
/* A message has ended. It is LNet's again. */
void slg_finalize(struct slg_msg *msg, int rc, enum slg_health health);
/* The last connection to a peer was lost, which was alive at this time (ktime_get_seconds()). */
void slg_peer_lost(struct slg_ni *ni, const u8 *nid, s64 last_alive_s);
/* The link of the NI has gone or come. */
void slg_link(struct slg_ni *ni, bool is_down);
/* Whether LNet has the NI among those that are up. */
bool slg_is_published(struct slg_ni *ni);
/* Whether the NI is bound to a CPU partition with this processor, or to none. */
bool slg_uses_cpu(const struct slg_ni *ni, unsigned int cpu);
/* How the NI is to be; 0 and -1 leave it to the driver. An administrator may change them. */
u32 slg_conns_per_peer(const struct slg_ni *ni);
s32 slg_tos(const struct slg_ni *ni);

#endif
