// SPDX-License-Identifier: GPL-2.0
/*
 * The only file that sees Lustre's headers: the driver as LNet's struct lnet_lnd, and the functions
 * of LNet that the driver calls, by the narrow interface of lnet/glue.h.
 *
 * scripts/check-lustre looks into the headers of the tree that this is compiled for and says by
 * LNET_HAS_... what they have.
 *
 * Lifetime: LNet's NI is valid from glue_startup() until glue_shutdown() returns, a message from
 * glue_send() or glue_recv() until slg_finalize(). There is no state here but the operations, which
 * are set before LNet knows of them. Each NI holds a reference to the module.
 */
#define DEBUG_SUBSYSTEM S_LND

#ifdef LNET_HAS_NEW_FOLDERS
#include <linux/lnet/lib-lnet.h>
#else
#include <lnet/lib-lnet.h>
#endif

#include <uapi/linux/lnet/libcfs_ioctl.h>

#include <linux/bvec.h>
#include <linux/if_vlan.h>
#include <linux/inetdevice.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/rtnetlink.h>
#include <linux/sched/mm.h>
#include <linux/uio.h>
#include <net/addrconf.h>
#include <net/if_inet6.h>
#include <net/netlink.h>

#include "lnet/glue.h"

/* Of the tree's lnet.ko; see check-lustre. */
#ifndef LNET_BUILT_VERSION
#define LNET_BUILT_VERSION ""
#endif
#ifndef LNET_BUILT_SRCVERSION
#define LNET_BUILT_SRCVERSION ""
#endif

/* The keys of the tunables that tools see, by their numbers. */
enum {
	KEY_CONNS_PER_PEER = 1,
	KEY_TIMEOUT,
	KEY_TOS,
	KEY_MAX = KEY_TOS,
};

/* The version of struct lnet_ioctl_config_socklnd_tunables. */
#define TUNABLES_VERSION 1
#define MOST_CONNS_PER_PEER 127

/* Parameters that only LNet uses, with the names, meanings and defaults of the C driver's. */
static int credits = 256;
module_param(credits, int, 0444);
MODULE_PARM_DESC(credits, "messages that an NI has under way at most");
static int peer_credits = 8;
module_param(peer_credits, int, 0444);
MODULE_PARM_DESC(peer_credits, "messages to one peer that are under way at most");
static int peer_buffer_credits;
module_param(peer_buffer_credits, int, 0444);
MODULE_PARM_DESC(peer_buffer_credits, "router buffers that one peer has at most (0: as LNet says)");
static int peer_timeout = 180;
module_param(peer_timeout, int, 0444);
MODULE_PARM_DESC(peer_timeout, "seconds of silence after which LNet takes a peer for dead (0 and less: never)");

static const struct slg_ops *ops;

static struct lnet_ni *to_ni(struct slg_ni *ni)
{
	return (struct lnet_ni *)ni;
}

static struct slg_ni *from_ni(struct lnet_ni *ni)
{
	return (struct slg_ni *)ni;
}

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

static const char *or_empty(const char *text)
{
	return text ?: "";
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

static struct lnet_ioctl_config_socklnd_tunables *tunables_of(struct lnet_ni *ni)
{
	return &ni->ni_lnd_tunables.lnd_tun_u.lnd_sock;
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

u32 slg_conns_per_peer(const struct slg_ni *ni)
{
	return READ_ONCE(tunables_of(to_ni((struct slg_ni *)ni))->lnd_conns_per_peer);
}

s32 slg_tos(const struct slg_ni *ni)
{
#ifdef LNET_HAS_TOS
	return READ_ONCE(tunables_of(to_ni((struct slg_ni *)ni))->lnd_tos);
#else
	return -1;
#endif
}

/* ---- Startup and shutdown -------------------------------------------------------------------- */

/* An address for a new NI. */
struct choice {
	struct lnet_nid nid;
	char name[IFNAMSIZ];
	int node;
};

static bool is_set(const struct lnet_nid *nid)
{
	return nid->nid_addr[0] || nid->nid_addr[1] || nid->nid_addr[2] || nid->nid_addr[3];
}

/*
 * Takes the address if the NI wants it: it is the one of its NID, if that has one, and of the interface
 * that it names, if it does.
 */
static bool take_address(const struct lnet_ni *ni, struct choice *choice, const char *name,
			 const void *addr, size_t len)
{
	struct lnet_nid nid = ni->ni_nid;

	if (ni->ni_interface && *ni->ni_interface && strcmp(ni->ni_interface, name))
		return false;
	nid.nid_size = len - sizeof(nid.nid_addr[0]);
	memset(nid.nid_addr, 0, sizeof(nid.nid_addr));
	memcpy(nid.nid_addr, addr, len);
	if (is_set(&ni->ni_nid) &&
	    (nid.nid_size != ni->ni_nid.nid_size ||
	     memcmp(nid.nid_addr, ni->ni_nid.nid_addr, sizeof(nid.nid_addr))))
		return false;
	choice->nid = nid;
	strscpy(choice->name, name, sizeof(choice->name));
	return true;
}

static bool take_ipv4(const struct lnet_ni *ni, struct choice *choice, struct net_device *dev)
{
	struct in_device *in_dev = __in_dev_get_rtnl(dev);
	const struct in_ifaddr *ifa;

	if (!in_dev)
		return false;
	/* The label can be that of an alias. */
	in_dev_for_each_ifa_rtnl(ifa, in_dev) {
		if (take_address(ni, choice, ifa->ifa_label, &ifa->ifa_local, sizeof(ifa->ifa_local)))
			return true;
	}
	return false;
}

static bool take_ipv6(const struct lnet_ni *ni, struct choice *choice, struct net_device *dev)
{
	bool taken = false;
#if IS_ENABLED(CONFIG_IPV6)
	struct inet6_dev *in6_dev = __in6_dev_get(dev);
	struct inet6_ifaddr *ifa;

	if (!in6_dev)
		return false;
	read_lock_bh(&in6_dev->lock);
	list_for_each_entry(ifa, &in6_dev->addr_list, if_list) {
		if (ifa->flags & IFA_F_TEMPORARY || ipv6_addr_type(&ifa->addr) & IPV6_ADDR_LINKLOCAL)
			continue;
		taken = take_address(ni, choice, dev->name, &ifa->addr, sizeof(ifa->addr));
		if (taken)
			break;
	}
	read_unlock_bh(&in6_dev->lock);
#endif
	return taken;
}

static bool choose_in(const struct lnet_ni *ni, struct choice *choice, struct net *net, bool ipv6)
{
	struct net_device *dev;

	for_each_netdev(net, dev) {
		if (dev->flags & IFF_LOOPBACK || !(dev->flags & IFF_UP))
			continue;
		if (!(ipv6 ? take_ipv6(ni, choice, dev) : take_ipv4(ni, choice, dev)))
			continue;
		/* The processors near a VLAN are those near the device that it is on. */
		if (is_vlan_dev(dev))
			dev = vlan_dev_real_dev(dev);
		choice->node = dev_to_node(&dev->dev);
		return true;
	}
	return false;
}

/* Chooses the address of a new NI, by the rules of lnet_inet_select(). */
static int choose_address(const struct lnet_ni *ni, struct choice *choice)
{
	struct net *net = ni->ni_net_ns ?: &init_net;
	bool ipv6_first = the_lnet.ln_nis_use_large_nids;
	bool chosen;

	rtnl_lock();
	chosen = choose_in(ni, choice, net, ipv6_first) || choose_in(ni, choice, net, !ipv6_first);
	rtnl_unlock();
	if (!chosen) {
		pr_err("ksocklnd: no device that is up has %s%s%s\n",
		       is_set(&ni->ni_nid) ? libcfs_nidstr(&ni->ni_nid) : "an address",
		       ni->ni_interface ? " and is called " : "", or_empty(ni->ni_interface));
		return -EINVAL;
	}
	return 0;
}

/* Replaces what is left open by the module's parameters. */
static void fill_common(struct lnet_ioctl_config_lnd_cmn_tunables *common)
{
	if (common->lct_peer_timeout == -1)
		common->lct_peer_timeout = peer_timeout;
	if (common->lct_max_tx_credits == -1)
		common->lct_max_tx_credits = max(credits, 1);
	if (common->lct_peer_tx_credits == -1)
		common->lct_peer_tx_credits = max(peer_credits, 1);
	common->lct_peer_tx_credits = min(common->lct_peer_tx_credits, common->lct_max_tx_credits);
	if (common->lct_peer_rtr_credits == -1)
		common->lct_peer_rtr_credits = peer_buffer_credits;
}

static void fill_own(struct lnet_ioctl_config_socklnd_tunables *own)
{
	own->lnd_version = TUNABLES_VERSION;
	own->lnd_conns_per_peer = ops->conns_per_peer();
#ifdef LNET_HAS_TOS
	own->lnd_tos = ops->tos();
#endif
}

static int start(struct lnet_ni *ni)
{
	struct choice choice = { .node = NUMA_NO_NODE };
	struct slg_started started = {};
	int rc;

	rc = choose_address(ni, &choice);
	if (rc)
		return rc;
	if (!ni->ni_interface || !*ni->ni_interface) {
		rc = lnet_ni_add_interface(ni, choice.name);
		if (rc < 0)
			return rc;
	}
	if (!ni->ni_lnd_tunables_set)
		fill_own(tunables_of(ni));
	tunables_of(ni)->lnd_version = TUNABLES_VERSION;
#ifdef LNET_HAS_TOS
	if (tunables_of(ni)->lnd_tos < 0)
		tunables_of(ni)->lnd_tos = ops->tos();
	tunables_of(ni)->lnd_timeout = ops->timeout();
#endif
	fill_common(&ni->ni_net->net_tunables);
	ni->ni_nid = choice.nid;
	ni->ni_dev_cpt = cfs_cpt_of_node(the_lnet.ln_cpt_table, choice.node);
#ifdef LNET_HAS_DEFAULT_CPTS
	rc = lnet_ni_set_default_cpts(ni);
	if (rc)
		return rc;
#endif
	rc = ops->startup(from_ni(ni), ni->ni_net_ns ?: &init_net, (const u8 *)&ni->ni_nid, &started);
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

	ops->shutdown(ni->ni_data);
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
	/* The message may be gone when ops->send() returns. */
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
	rc = ops->send(ni->ni_data, from_msg(msg), (const u8 *)header, (const u8 *)&to, &memory);
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
	rc = ops->recv(token, from_msg(msg), memory);
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

	ops->peer_down((const u8 *)peer);
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
	rc = ops->ctl(ni->ni_data, own, &ctl);
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
	return ops->timeout();
}

#ifdef LNET_HAS_TUN_DEFAULTS
static int glue_tun_defaults(struct lnet_lnd_tunables *tunables,
			     struct lnet_ioctl_config_lnd_cmn_tunables *common)
{
	fill_common(common);
	fill_own(&tunables->lnd_tun_u.lnd_sock);
	return 0;
}
#endif

#ifdef LNET_HAS_NETLINK
/* Atomic: LNet holds a spinlock. */
static int put_tunables(int cmd, struct sk_buff *skb, int type, struct lnet_ni *ni, bool timeout)
{
	const struct lnet_ioctl_config_socklnd_tunables *own;
	int rc;

	if (!ni || !skb)
		return -EINVAL;
	if (cmd != LNET_CMD_NETS || type != LNET_NET_LOCAL_NI_ATTR_LND_TUNABLES)
		return -EOPNOTSUPP;
	own = tunables_of(ni);
	rc = nla_put_u16(skb, KEY_CONNS_PER_PEER, READ_ONCE(own->lnd_conns_per_peer));
	if (!rc && timeout)
		rc = nla_put_u32(skb, KEY_TIMEOUT, ops->timeout());
#ifdef LNET_HAS_TOS
	if (!rc)
		rc = nla_put_s16(skb, KEY_TOS, READ_ONCE(own->lnd_tos));
#endif
	return rc;
}

#ifdef LNET_HAS_EXPORT_BACKUP
static int glue_nl_get(int cmd, struct sk_buff *skb, int type, void *data, bool export_backup)
{
	return put_tunables(cmd, skb, type, data, !export_backup);
}
#else
static int glue_nl_get(int cmd, struct sk_buff *skb, int type, void *data)
{
	return put_tunables(cmd, skb, type, data, true);
}
#endif

/* Atomic: the tunables may be those of an NI that is up. */
static int glue_nl_set(int cmd, struct nlattr *attr, int type, void *data)
{
	struct lnet_lnd_tunables *tunables = data;
	struct lnet_ioctl_config_socklnd_tunables *own;
	s64 value;

	if (cmd != LNET_CMD_NETS)
		return -EOPNOTSUPP;
	if (!tunables)
		return -EINVAL;
	own = &tunables->lnd_tun_u.lnd_sock;
#ifndef LNET_HAS_TUN_DEFAULTS
	/* What is not given is to have its default. */
	if (!attr) {
		if (type == KEY_CONNS_PER_PEER)
			WRITE_ONCE(own->lnd_conns_per_peer, ops->conns_per_peer());
#ifdef LNET_HAS_TOS
		if (type == KEY_TOS)
			WRITE_ONCE(own->lnd_tos, ops->tos());
#endif
		return 0;
	}
#endif
	if (!attr || nla_type(attr) != LN_SCALAR_ATTR_INT_VALUE)
		return -EINVAL;
	value = nla_get_s64(attr);
	switch (type) {
	case KEY_CONNS_PER_PEER:
		if (value < 0 || value > MOST_CONNS_PER_PEER)
			return -ERANGE;
		WRITE_ONCE(own->lnd_conns_per_peer, value);
		break;
#ifdef LNET_HAS_TOS
	case KEY_TOS:
		if (value < -1 || value > 0xff)
			return -ERANGE;
		WRITE_ONCE(own->lnd_tos, value);
		break;
#endif
	}
	return 0;
}

static const struct ln_key_list glue_keys = {
	.lkl_maxattr = KEY_MAX,
	.lkl_list = {
		[KEY_CONNS_PER_PEER] = { .lkp_value = "conns_per_peer", .lkp_data_type = NLA_U16 },
		[KEY_TIMEOUT] = { .lkp_value = "timeout", .lkp_data_type = NLA_U32 },
		[KEY_TOS] = { .lkp_value = "tos", .lkp_data_type = NLA_S16 },
	},
};
#endif

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
	.lnd_tun_defaults = glue_tun_defaults,
#endif
#ifdef LNET_HAS_NETLINK
	.lnd_nl_get = glue_nl_get,
	.lnd_nl_set = glue_nl_set,
	.lnd_keys = &glue_keys,
#endif
};

void slg_register(const struct slg_ops *new_ops)
{
	ops = new_ops;
	lnet_register_lnd(&glue_lnd);
}

void slg_unregister(void)
{
	lnet_unregister_lnd(&glue_lnd);
}
