// SPDX-License-Identifier: GPL-2.0
/*
 * The driver as LNet's struct lnet_lnd, and the functions of LNet that the driver calls, by the narrow
 * interface of lnet/glue.h. Only this file and those in lnet/glue see Lustre's headers.
 *
 * scripts/check-lustre looks into the headers of the tree that this is compiled for and says by
 * LNET_HAS_... what they have.
 *
 * Lifetime: LNet's NI is valid from glue_startup() until glue_shutdown() returns, a message from
 * glue_send() or glue_recv() until slg_finalize(). There is no state here but the operations, which
 * are set before LNet knows of them. Each NI holds a reference to the module.
 */
#include "lnet/glue/internal.h"

#include <uapi/linux/lnet/libcfs_ioctl.h>

#include <linux/bvec.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sched/mm.h>
#include <linux/uio.h>

/* Of the tree's lnet.ko; see check-lustre. */
#ifndef LNET_BUILT_VERSION
#define LNET_BUILT_VERSION ""
#endif
#ifndef LNET_BUILT_SRCVERSION
#define LNET_BUILT_SRCVERSION ""
#endif

const struct slg_ops *slg_ops;

static struct lnet_msg *to_msg(struct slg_msg *msg)
{
	return (struct lnet_msg *)msg;
}

static struct slg_msg *from_msg(struct lnet_msg *msg)
{
	return (struct slg_msg *)msg;
}

/* ---- lnet.ko --------------------------------------------------------------------------------- */

/*
 * The module lnet, which can't be unloaded: we use its symbols. It is a neighbour of this module in
 * the set of all modules.
 */
static struct module *lnet_module(void)
{
	struct kobject *kobj = kset_find_obj(THIS_MODULE->mkobj.kobj.kset, "lnet");
	struct module *mod;

	if (!kobj)
		return NULL;
	mod = container_of(kobj, struct module_kobject, kobj)->mod;
	kobject_put(kobj);
	return mod;
}

int slg_check(void)
{
	struct module *lnet = lnet_module();
	const char *version, *srcversion;

	if (!lnet) {
		pr_err("ksocklnd: there is no module lnet\n");
		return -ENODEV;
	}
	version = or_empty(lnet->version);
	srcversion = or_empty(lnet->srcversion);
	/* Its structures may be others, and the kernel does not check that. */
	if (strcmp(version, LNET_BUILT_VERSION) || strcmp(srcversion, LNET_BUILT_SRCVERSION)) {
		pr_err("ksocklnd: this was built for lnet %s (srcversion %s), and lnet %s (srcversion %s) is loaded: build it again, with LUSTRE= naming the tree of the latter\n",
		       LNET_BUILT_VERSION, LNET_BUILT_SRCVERSION, version, srcversion);
		return -EINVAL;
	}
	pr_info("ksocklnd: the flavour for LNet, built for lnet %s (srcversion %s)\n", version,
		srcversion);
	return 0;
}

static const struct kernel_param *find_param(const struct module *mod, const char *name,
					     const struct kernel_param_ops *type)
{
	unsigned int i;

	for (i = 0; i < mod->num_kp; i++) {
		if (!strcmp(mod->kp[i].name, name))
			return mod->kp[i].ops == type ? &mod->kp[i] : NULL;
	}
	return NULL;
}

/*
 * LNet exports no function that says these two. They can't be changed, so this takes no lock: that of LNet's
 * parameters is taken outside of the mutex that LNet holds when it calls for a startup.
 */
static void read_params(struct slg_settings *settings)
{
	struct module *lnet = lnet_module();
	const struct kernel_param *param;

	if (!lnet)
		return;
	param = find_param(lnet, "accept", &param_ops_charp);
	if (param) {
		const char *accept = or_empty(*(char **)param->arg);

		if (sysfs_streq(accept, "all"))
			settings->accept = SLG_ACCEPT_ALL;
		else if (sysfs_streq(accept, "none"))
			settings->accept = SLG_ACCEPT_NONE;
	}
	param = find_param(lnet, "accept_backlog", &param_ops_int);
	if (param && *(int *)param->arg > 0)
		settings->backlog = *(int *)param->arg;
}

void slg_settings(struct slg_settings *settings)
{
	*settings = (struct slg_settings){
		.accept = SLG_ACCEPT_SECURE,
		.port = lnet_acceptor_port(),
#ifdef LNET_HAS_BULK_PORT
		.bulk_port = lnet_acceptor_port_bulk(),
#endif
		.backlog = 127,
		.accept_timeout_s = lnet_acceptor_timeout(),
		.lnd_timeout_s = lnet_get_lnd_timeout(),
	};
	read_params(settings);
}

/* ---- Calls of LNet --------------------------------------------------------------------------- */

int slg_parse(struct slg_ni *ni, const u8 *header, const u8 *from, void *token)
{
	u64 aligned[SLG_HEADER_LEN / sizeof(u64)];
	struct lnet_hdr hdr;
	struct lnet_nid nid;

	BUILD_BUG_ON(sizeof(struct lnet_hdr_nid16) != SLG_HEADER_LEN);
	BUILD_BUG_ON(sizeof(struct lnet_nid) != SLG_NID_LEN);
	memcpy(aligned, header, sizeof(aligned));
	lnet_hdr_from_nid16(&hdr, (const struct lnet_hdr_nid16 *)aligned);
	memcpy(&nid, from, sizeof(nid));
	CDEBUG(D_NET, "%u bytes from %s for %s\n", hdr.payload_length, libcfs_nidstr(&nid),
	       libcfs_nidstr(&to_ni(ni)->ni_nid));
	return lnet_parse(to_ni(ni), &hdr, &nid, token, 0);
}

static enum lnet_msg_hstatus to_hstatus(enum slg_health health)
{
	switch (health) {
	case SLG_HEALTH_OK:
		return LNET_MSG_STATUS_OK;
	case SLG_HEALTH_LOCAL_DROPPED:
		return LNET_MSG_STATUS_LOCAL_DROPPED;
	case SLG_HEALTH_LOCAL_NO_ROUTE:
		return LNET_MSG_STATUS_LOCAL_NO_ROUTE;
	case SLG_HEALTH_LOCAL_TIMEOUT:
		return LNET_MSG_STATUS_LOCAL_TIMEOUT;
	case SLG_HEALTH_REMOTE_ERROR:
		return LNET_MSG_STATUS_REMOTE_ERROR;
	case SLG_HEALTH_REMOTE_DROPPED:
		return LNET_MSG_STATUS_REMOTE_DROPPED;
	case SLG_HEALTH_REMOTE_TIMEOUT:
		return LNET_MSG_STATUS_REMOTE_TIMEOUT;
	case SLG_HEALTH_NETWORK_TIMEOUT:
		return LNET_MSG_STATUS_NETWORK_TIMEOUT;
	case SLG_HEALTH_LOCAL_ERROR:
		break;
	}
	return LNET_MSG_STATUS_LOCAL_ERROR;
}

void slg_finalize(struct slg_msg *msg, int rc, enum slg_health health)
{
	if (rc)
		CDEBUG(D_NETERROR, "message %p has failed: %d, health %d\n", msg, rc, health);
	to_msg(msg)->msg_health_status = to_hstatus(health);
	lnet_finalize(to_msg(msg), rc);
}

void slg_peer_lost(struct slg_ni *ni, const u8 *nid, s64 last_alive_s)
{
	struct lnet_nid peer;

	memcpy(&peer, nid, sizeof(peer));
	lnet_notify(to_ni(ni), &peer, false, false, min_t(s64, last_alive_s, ktime_get_seconds()));
}

void slg_link(struct slg_ni *ni, bool is_down)
{
	if (lnet_set_link_fatal_state(to_ni(ni), is_down) != is_down &&
	    to_ni(ni)->ni_state == LNET_NI_STATE_ACTIVE)
		lnet_mark_ping_buffer_for_update();
}

bool slg_is_published(struct slg_ni *ni)
{
	struct lnet_ni *found = lnet_nid_to_ni_addref(&to_ni(ni)->ni_nid);

	if (found)
		lnet_ni_decref(found);
	return found == to_ni(ni);
}

bool slg_uses_cpu(const struct slg_ni *slg_ni, unsigned int cpu)
{
	const struct lnet_ni *ni = to_ni((struct slg_ni *)slg_ni);
	int i, cpt = cfs_cpt_of_cpu(the_lnet.ln_cpt_table, cpu);

	if (!ni->ni_cpts)
		return true;
	for (i = 0; i < ni->ni_ncpts; i++) {
		if (ni->ni_cpts[i] == cpt)
			return true;
	}
	return false;
}

/* ---- Startup and shutdown -------------------------------------------------------------------- */

static int start(struct lnet_ni *ni)
{
	struct slg_address address = { .node = NUMA_NO_NODE };
	struct slg_started started = {};
	int rc;

	rc = slg_choose_address(ni, &address);
	if (rc)
		return rc;
	if (!ni->ni_interface || !*ni->ni_interface) {
		rc = lnet_ni_add_interface(ni, address.name);
		if (rc < 0)
			return rc;
	}
	if (!ni->ni_lnd_tunables_set)
		slg_fill_own(tunables_of(ni));
	tunables_of(ni)->lnd_version = SLG_TUNABLES_VERSION;
#ifdef LNET_HAS_TOS
	if (tunables_of(ni)->lnd_tos < 0)
		tunables_of(ni)->lnd_tos = slg_ops->tos();
	tunables_of(ni)->lnd_timeout = slg_ops->timeout();
#endif
	slg_fill_common(&ni->ni_net->net_tunables);
	ni->ni_nid = address.nid;
	ni->ni_dev_cpt = cfs_cpt_of_node(the_lnet.ln_cpt_table, address.node);
#ifdef LNET_HAS_DEFAULT_CPTS
	rc = lnet_ni_set_default_cpts(ni);
	if (rc)
		return rc;
#endif
	rc = slg_ops->startup(from_ni(ni), ni->ni_net_ns ?: &init_net, (const u8 *)&ni->ni_nid, &started);
	if (rc)
		return rc;
	ni->ni_data = started.ctx;
	tunables_of(ni)->lnd_conns_per_peer = started.conns_per_peer;
	if (started.link_is_down)
		slg_link(from_ni(ni), true);
	return 0;
}

static int glue_startup(struct lnet_ni *ni)
{
	unsigned int nofs;
	int rc;

	/* So that the module is in use as long as the NI is up. */
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	nofs = memalloc_nofs_save();
	rc = start(ni);
	memalloc_nofs_restore(nofs);
	if (rc)
		module_put(THIS_MODULE);
	return rc;
}

static void glue_shutdown(struct lnet_ni *ni)
{
	unsigned int nofs = memalloc_nofs_save();

	slg_ops->shutdown(ni->ni_data);
	ni->ni_data = NULL;
	memalloc_nofs_restore(nofs);
	/* Unregistering needs the mutex that LNet holds now, so this code stays. */
	module_put(THIS_MODULE);
}

/* ---- Messages -------------------------------------------------------------------------------- */

/* Leaves out entries of which nothing is used, so that nobody has to look at them again. */
static void skip_unused(struct slg_memory *memory)
{
	while (memory->count && memory->skip >= memory->bvecs->bv_len) {
		memory->skip -= memory->bvecs->bv_len;
		memory->bvecs++;
		memory->count--;
	}
}

/* @private is NULL or stale. */
static int glue_send(struct lnet_ni *ni, void *private, struct lnet_msg *msg)
{
	u64 header[SLG_HEADER_LEN / sizeof(u64)];
	struct slg_memory memory = {
		.bvecs = msg->msg_kiov,
		.count = msg->msg_niov,
		.skip = msg->msg_offset,
		.len = msg->msg_len,
	};
	/* The message may be gone when slg_ops->send() returns. */
	bool reclaims = msg->msg_vmflush;
	enum lnet_msg_hstatus status;
	unsigned int nofs, noreclaim;
	struct lnet_nid to = msg->msg_target.nid;
	int rc;

	CDEBUG(D_NET, "%u bytes in %u pieces to %s\n", msg->msg_len, msg->msg_niov,
	       libcfs_nidstr(&to));
	if (lnet_send_error_simulation(msg, &status)) {
		msg->msg_health_status = status;
		lnet_finalize(msg, -EIO);
		return 0;
	}
	/* A node that is no kernel, and is not here: nobody could connect to it. */
	if (msg->msg_target.pid & LNET_PID_USERFLAG)
		return -EHOSTUNREACH;
	if (memory.len)
		skip_unused(&memory);
	lnet_hdr_to_nid16(&msg->msg_hdr, (struct lnet_hdr_nid16 *)header);
	nofs = memalloc_nofs_save();
	if (reclaims)
		noreclaim = memalloc_noreclaim_save();
	rc = slg_ops->send(ni->ni_data, from_msg(msg), (const u8 *)header, (const u8 *)&to, &memory);
	if (reclaims)
		memalloc_noreclaim_restore(noreclaim);
	memalloc_nofs_restore(nofs);
	return rc;
}

static int receive(void *token, struct lnet_msg *msg, struct slg_memory *memory)
{
	unsigned int nofs = memalloc_nofs_save();
	int rc;

	if (memory->len)
		skip_unused(memory);
	rc = slg_ops->recv(token, from_msg(msg), memory);
	memalloc_nofs_restore(nofs);
	return rc;
}

#ifdef LNET_HAS_RECV_ITER
static int glue_recv(struct lnet_ni *ni, void *private, struct lnet_msg *msg, int delayed,
		     struct iov_iter *to, unsigned int rlen)
{
	struct slg_memory memory = {};

	/* The iterator is on its owner's stack; the list is there until the message is finalized. */
	if (msg && iov_iter_count(to) && iov_iter_is_bvec(to)) {
		memory.bvecs = (struct bio_vec *)to->bvec;
		memory.count = to->nr_segs;
		memory.skip = to->iov_offset;
		memory.len = iov_iter_count(to);
	}
	return receive(private, msg, &memory);
}
#else
static int glue_recv(struct lnet_ni *ni, void *private, struct lnet_msg *msg, int delayed,
		     unsigned int niov, struct bio_vec *kiov, unsigned int offset, unsigned int mlen,
		     unsigned int rlen)
{
	struct slg_memory memory = {};

	if (msg && mlen) {
		memory.bvecs = kiov;
		memory.count = niov;
		memory.skip = offset;
		memory.len = mlen;
	}
	return receive(private, msg, &memory);
}
#endif

static void glue_notify_peer_down(struct lnet_nid *peer)
{
	unsigned int nofs = memalloc_nofs_save();

	slg_ops->peer_down((const u8 *)peer);
	memalloc_nofs_restore(nofs);
}

/* ---- Administration -------------------------------------------------------------------------- */

static int to_ctl_cmd(unsigned int cmd)
{
	switch (cmd) {
	case IOC_LIBCFS_GET_INTERFACE:
		return SLG_CTL_GET_INTERFACE;
	case IOC_LIBCFS_GET_PEER:
		return SLG_CTL_GET_PEER;
	case IOC_LIBCFS_ADD_PEER:
		return SLG_CTL_ADD_PEER;
	case IOC_LIBCFS_DEL_PEER:
		return SLG_CTL_DEL_PEER;
	case IOC_LIBCFS_GET_CONN:
		return SLG_CTL_GET_CONN;
	case IOC_LIBCFS_CLOSE_CONNECTION:
		return SLG_CTL_CLOSE_CONN;
	case IOC_LIBCFS_PUSH_CONNECTION:
		return SLG_CTL_PUSH_CONN;
	}
	return -EINVAL;
}

static int glue_ctl(struct lnet_ni *ni, unsigned int cmd, void *arg)
{
	struct libcfs_ioctl_data *data = arg;
	int own = to_ctl_cmd(cmd);
	struct slg_ctl ctl = {};
	struct lnet_nid nid;
	unsigned int nofs;
	int rc;

	if (cmd == IOC_LIBCFS_REGISTER_MYNID) {
		lnet_nid4_to_nid(data->ioc_nid, &nid);
		return memcmp(&nid, &ni->ni_nid, sizeof(nid)) ? -EINVAL : 0;
	}
	if (own < 0)
		return own;
	lnet_nid4_to_nid(data->ioc_nid, &nid);
	memcpy(ctl.nid, &nid, sizeof(ctl.nid));
	ctl.count = data->ioc_count;
	ctl.flags = data->ioc_flags;
	memcpy(ctl.words, data->ioc_u32, sizeof(ctl.words));
	nofs = memalloc_nofs_save();
	rc = slg_ops->ctl(ni->ni_data, own, &ctl);
	memalloc_nofs_restore(nofs);
	if (rc)
		return rc;
	switch (own) {
	case SLG_CTL_GET_CONN:
		/* The driver says on which processor. */
		ctl.words[4] = cfs_cpt_of_cpu(the_lnet.ln_cpt_table, ctl.words[4]);
		fallthrough;
	case SLG_CTL_GET_PEER:
		memcpy(&nid, ctl.nid, sizeof(nid));
		if (nid.nid_size)
			return -EINVAL;
		data->ioc_nid = lnet_nid_to_nid4(&nid);
		break;
	}
	data->ioc_count = ctl.count;
	data->ioc_flags = ctl.flags;
	memcpy(data->ioc_u32, ctl.words, sizeof(ctl.words));
	return 0;
}

static int glue_get_timeout(void)
{
	return slg_ops->timeout();
}

/*
 * No lnd_accept: LNet runs no acceptor for this driver, which has its own. No lnd_eager_recv: a message
 * that has to wait waits in the socket.
 */
static const struct lnet_lnd glue_lnd = {
	.lnd_type = SOCKLND,
	.lnd_startup = glue_startup,
	.lnd_shutdown = glue_shutdown,
	.lnd_ctl = glue_ctl,
	.lnd_send = glue_send,
	.lnd_recv = glue_recv,
	.lnd_notify_peer_down = glue_notify_peer_down,
#ifdef LNET_HAS_GET_TIMEOUT
	.lnd_get_timeout = glue_get_timeout,
#endif
#ifdef LNET_HAS_TUN_DEFAULTS
	.lnd_tun_defaults = slg_tun_defaults,
#endif
#ifdef LNET_HAS_NETLINK
	.lnd_nl_get = slg_nl_get,
	.lnd_nl_set = slg_nl_set,
	.lnd_keys = &slg_keys,
#endif
};

void slg_register(const struct slg_ops *new_ops)
{
	slg_ops = new_ops;
	lnet_register_lnd(&glue_lnd);
}

void slg_unregister(void)
{
	lnet_unregister_lnd(&glue_lnd);
}
