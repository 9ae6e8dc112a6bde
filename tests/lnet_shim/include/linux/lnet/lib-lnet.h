/* SPDX-License-Identifier: GPL-2.0 */
/* What a driver calls. */
#ifndef SHIM_LIB_LNET_H
#define SHIM_LIB_LNET_H

#include <linux/libcfs/libcfs.h>
#include <linux/lnet/api.h>
#include <linux/lnet/lib-cpt.h>
#include <linux/lnet/lib-types.h>
#include <uapi/linux/lnet/libcfs_ioctl.h>
#include <uapi/linux/lnet/lnet-dlc.h>
#include <uapi/linux/lnet/lnet-types.h>
#include <uapi/linux/lnet/nidstr.h>

extern struct lnet the_lnet;

void lnet_register_lnd(const struct lnet_lnd *lnd);
void lnet_unregister_lnd(const struct lnet_lnd *lnd);

int lnet_parse(struct lnet_ni *ni, struct lnet_hdr *hdr, struct lnet_nid *from, void *private, int rdma_req);
void lnet_finalize(struct lnet_msg *msg, int rc);
int lnet_notify(struct lnet_ni *ni, struct lnet_nid *nid, bool alive, bool reset, time64_t when);
bool lnet_send_error_simulation(struct lnet_msg *msg, enum lnet_msg_hstatus *status);

void lnet_ni_addref(struct lnet_ni *ni);
void lnet_ni_decref(struct lnet_ni *ni);
struct lnet_ni *lnet_nid_to_ni_addref(struct lnet_nid *nid);
int lnet_nid2cpt(struct lnet_nid *nid, struct lnet_ni *ni);
int lnet_ni_add_interface(struct lnet_ni *ni, char *name);
int lnet_ni_set_default_cpts(struct lnet_ni *ni);
__u32 lnet_set_link_fatal_state(struct lnet_ni *ni, unsigned int fatal);
int lnet_get_link_status(struct net_device *dev);
int lnet_get_link_status_locked(struct net_device *dev);
void lnet_mark_ping_buffer_for_update(void);

unsigned int lnet_get_lnd_timeout(void);
int lnet_acceptor_port(void);
int lnet_acceptor_port_bulk(void);
int lnet_acceptor_timeout(void);

static inline struct cfs_cpt_table *lnet_cpt_table(void)
{
	return the_lnet.ln_cpt_table;
}

#define LNET_CPT_NUMBER cfs_cpt_number(the_lnet.ln_cpt_table)

static inline void lnet_hdr_to_nid16(const struct lnet_hdr *hdr, struct lnet_hdr_nid16 *wire)
{
	struct lnet_hdr *to = (struct lnet_hdr *)wire;

	*to = *hdr;
	to->dest_pid = (__force u32)cpu_to_le32(hdr->dest_pid);
	to->src_pid = (__force u32)cpu_to_le32(hdr->src_pid);
	to->type = (__force u32)cpu_to_le32(hdr->type);
	to->payload_length = (__force u32)cpu_to_le32(hdr->payload_length);
}

static inline void lnet_hdr_from_nid16(struct lnet_hdr *hdr, const struct lnet_hdr_nid16 *wire)
{
	/* Changing the order of bytes is its own inverse. */
	lnet_hdr_to_nid16((const struct lnet_hdr *)wire, (struct lnet_hdr_nid16 *)hdr);
}

#endif
