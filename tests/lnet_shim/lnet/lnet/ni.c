// SPDX-License-Identifier: GPL-2.0
/*
 * The driver, NIs, and what they are made of.
 *
 * See shim.h for locks and lifetimes. What a driver asks about an NI it may ask only while it has it: between
 * lnd_startup and the end of lnd_shutdown.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <net/netlink.h>
#include "shim.h"

/* lnet's parameters that a driver goes by. */
static char *accept = "secure";
module_param(accept, charp, 0444);
static int accept_port = 988;
module_param(accept_port, int, 0444);
static int accept_port_bulk = 988;
module_param(accept_port_bulk, int, 0444);
static int accept_backlog = 127;
module_param(accept_backlog, int, 0444);
static int accept_timeout = 5;
module_param(accept_timeout, int, 0644);
static uint lnet_transaction_timeout = 150;
module_param(lnet_transaction_timeout, uint, 0644);
static uint lnet_retry_count = 2;
module_param(lnet_retry_count, uint, 0644);

/* The administrator of an NI waits for its end in steps of this. */
#define STEP_MS 20

#define MOST_CPTS 8
struct cfs_cpt_table {
	int number;
	cpumask_var_t masks[MOST_CPTS];
};
static struct cfs_cpt_table table;

struct lnet the_lnet = { .ln_pid = LNET_PID_LUSTRE, .ln_cpt_table = &table };
EXPORT_SYMBOL(the_lnet);

unsigned int libcfs_debug;
EXPORT_SYMBOL(libcfs_debug);
module_param(libcfs_debug, uint, 0644);
unsigned int libcfs_subsystem_debug = ~0U;
EXPORT_SYMBOL(libcfs_subsystem_debug);

void shim_debug(unsigned int mask, const char *format, ...)
{
	struct va_format text;
	va_list arguments;

	va_start(arguments, format);
	text.fmt = format;
	text.va = &arguments;
	printk(KERN_DEBUG "lnet: %08x %pV", mask, &text);
	va_end(arguments);
}
EXPORT_SYMBOL(shim_debug);

int libcfs_setup(void)
{
	return 0;
}
EXPORT_SYMBOL(libcfs_setup);

/* Partitions of processors: two, if there are two. */

int shim_cpt_init(void)
{
	int cpu, cpt;

	table.number = min(2U, num_online_cpus());
	for (cpt = 0; cpt < table.number; cpt++)
		if (!zalloc_cpumask_var(&table.masks[cpt], GFP_KERNEL))
			return -ENOMEM;
	for_each_online_cpu(cpu)
		cpumask_set_cpu(cpu, table.masks[cpu % table.number]);
	return 0;
}

void shim_cpt_exit(void)
{
	int cpt;

	for (cpt = 0; cpt < table.number; cpt++)
		free_cpumask_var(table.masks[cpt]);
}

int cfs_cpt_number(struct cfs_cpt_table *which)
{
	return which->number;
}
EXPORT_SYMBOL(cfs_cpt_number);

int cfs_cpt_weight(struct cfs_cpt_table *which, int cpt)
{
	return cpt == CFS_CPT_ANY ? num_online_cpus() : cpumask_weight(which->masks[cpt]);
}
EXPORT_SYMBOL(cfs_cpt_weight);

cpumask_var_t *cfs_cpt_cpumask(struct cfs_cpt_table *which, int cpt)
{
	if (cpt < 0 || cpt >= which->number) {
		shim_fault("there is no partition %d", cpt);
		return NULL;
	}
	return &which->masks[cpt];
}
EXPORT_SYMBOL(cfs_cpt_cpumask);

int cfs_cpt_of_cpu(struct cfs_cpt_table *which, int cpu)
{
	return cpu < 0 ? CFS_CPT_ANY : cpu % which->number;
}
EXPORT_SYMBOL(cfs_cpt_of_cpu);

int cfs_cpt_of_node(struct cfs_cpt_table *which, int node)
{
	return node < 0 ? CFS_CPT_ANY : node % which->number;
}
EXPORT_SYMBOL(cfs_cpt_of_node);

int cfs_cpt_current(struct cfs_cpt_table *which, int remap)
{
	return raw_smp_processor_id() % which->number;
}
EXPORT_SYMBOL(cfs_cpt_current);

int cfs_cpt_bind(struct cfs_cpt_table *which, int cpt)
{
	return set_cpus_allowed_ptr(current, which->masks[cpt]);
}
EXPORT_SYMBOL(cfs_cpt_bind);

/* The driver. */

void lnet_register_lnd(const struct lnet_lnd *lnd)
{
	shim_check_context("lnet_register_lnd");
	mutex_lock(&shim.lnd_mutex);
	if (shim.lnd)
		shim_fault("a second driver registers");
	if (lnd->lnd_type != SOCKLND || !lnd->lnd_startup || !lnd->lnd_shutdown || !lnd->lnd_send || !lnd->lnd_recv ||
	    !lnd->lnd_ctl || !lnd->lnd_get_timeout || !lnd->lnd_tun_defaults || !lnd->lnd_nl_get || !lnd->lnd_nl_set ||
	    !lnd->lnd_keys)
		shim_fault("the driver lacks something");
	/* The first has no answer to give; with the second, this would have to accept connections. */
	if (lnd->lnd_eager_recv || lnd->lnd_accept)
		shim_fault("the driver has callbacks that it should not have");
	if (lnd->lnd_keys && (lnd->lnd_keys->lkl_maxattr != 3 || strcmp(lnd->lnd_keys->lkl_list[1].lkp_value, "conns_per_peer") ||
			      strcmp(lnd->lnd_keys->lkl_list[2].lkp_value, "timeout") ||
			      strcmp(lnd->lnd_keys->lkl_list[3].lkp_value, "tos")))
		shim_fault("the driver's keys are not those of a socket driver");
	shim.lnd = lnd;
	mutex_unlock(&shim.lnd_mutex);
}
EXPORT_SYMBOL(lnet_register_lnd);

void lnet_unregister_lnd(const struct lnet_lnd *lnd)
{
	shim_check_context("lnet_unregister_lnd");
	mutex_lock(&shim.lnd_mutex);
	if (shim.lnd != lnd || !list_empty(&shim.nis))
		shim_fault("a driver goes that is not there, or has NIs");
	shim.lnd = NULL;
	mutex_unlock(&shim.lnd_mutex);
}
EXPORT_SYMBOL(lnet_unregister_lnd);

/* References. */

void shim_ni_get(struct shim_ni *sni)
{
	spin_lock(&shim.lock);
	sni->refs++;
	spin_unlock(&shim.lock);
}

void shim_ni_put(struct shim_ni *sni)
{
	bool is_one_too_many;

	spin_lock(&shim.lock);
	is_one_too_many = !sni->refs;
	if (!is_one_too_many)
		sni->refs--;
	spin_unlock(&shim.lock);
	if (is_one_too_many)
		shim_fault("an NI was given back once too often");
}

void lnet_ni_addref(struct lnet_ni *ni)
{
	if (in_interrupt())
		shim_fault("lnet_ni_addref called in atomic context");
	shim_ni_get(shim_ni(ni));
}
EXPORT_SYMBOL(lnet_ni_addref);

void lnet_ni_decref(struct lnet_ni *ni)
{
	if (in_interrupt())
		shim_fault("lnet_ni_decref called in atomic context");
	shim_ni_put(shim_ni(ni));
}
EXPORT_SYMBOL(lnet_ni_decref);

/* Finds one that is published, and refers to it. LNet's own knows no namespaces: NULL means any. */
struct shim_ni *shim_ni_find(const struct lnet_nid *nid, struct net *net)
{
	struct shim_ni *sni, *found = NULL;

	spin_lock(&shim.lock);
	list_for_each_entry(sni, &shim.nis, link) {
		if (sni->published && nid_same(&sni->ni.ni_nid, nid) && (!net || sni->ni.ni_net_ns == net)) {
			found = sni;
			sni->refs++;
			break;
		}
	}
	spin_unlock(&shim.lock);
	return found;
}

struct shim_ni *shim_ni_in_net(u32 net_id, struct net *net)
{
	struct shim_ni *sni, *found = NULL;

	spin_lock(&shim.lock);
	list_for_each_entry(sni, &shim.nis, link) {
		if (sni->published && sni->net.net_id == net_id && sni->ni.ni_net_ns == net) {
			found = sni;
			sni->refs++;
			break;
		}
	}
	spin_unlock(&shim.lock);
	return found;
}

struct lnet_ni *lnet_nid_to_ni_addref(struct lnet_nid *nid)
{
	struct shim_ni *sni;

	if (in_interrupt())
		shim_fault("lnet_nid_to_ni_addref called in atomic context");
	sni = shim_ni_find(nid, NULL);
	return sni ? &sni->ni : NULL;
}
EXPORT_SYMBOL(lnet_nid_to_ni_addref);

/* What the driver asks and says about one. */

int lnet_nid2cpt(struct lnet_nid *nid, struct lnet_ni *ni)
{
	u32 hash = (__force u32)(nid->nid_addr[0] ^ nid->nid_addr[1] ^ nid->nid_addr[2] ^ nid->nid_addr[3]);

	hash ^= hash >> 16;
	hash ^= hash >> 8;
	if (ni && ni->ni_cpts)
		return ni->ni_cpts[hash % ni->ni_ncpts];
	return hash % table.number;
}
EXPORT_SYMBOL(lnet_nid2cpt);

int lnet_ni_add_interface(struct lnet_ni *ni, char *name)
{
	if (!name || !*name || ni->ni_interface)
		return -EINVAL;
	ni->ni_interface = kstrdup(name, GFP_NOFS);
	return ni->ni_interface ? 0 : -ENOMEM;
}
EXPORT_SYMBOL(lnet_ni_add_interface);

int lnet_ni_set_default_cpts(struct lnet_ni *ni)
{
	if (ni->ni_cpts || ni->ni_dev_cpt < 0 || ni->ni_dev_cpt >= table.number)
		return 0;
	ni->ni_cpts = kmalloc(sizeof(*ni->ni_cpts), GFP_NOFS);
	if (!ni->ni_cpts)
		return -ENOMEM;
	ni->ni_cpts[0] = ni->ni_dev_cpt;
	ni->ni_ncpts = 1;
	ni->ni_cpts_default = true;
	return 0;
}
EXPORT_SYMBOL(lnet_ni_set_default_cpts);

__u32 lnet_set_link_fatal_state(struct lnet_ni *ni, unsigned int fatal)
{
	shim_count(SHIM_link_changes);
	return atomic_xchg(&ni->ni_fatal_error_on, fatal);
}
EXPORT_SYMBOL(lnet_set_link_fatal_state);

int lnet_get_link_status(struct net_device *dev)
{
	return -1;
}
EXPORT_SYMBOL(lnet_get_link_status);

int lnet_get_link_status_locked(struct net_device *dev)
{
	return -1;
}
EXPORT_SYMBOL(lnet_get_link_status_locked);

void lnet_mark_ping_buffer_for_update(void)
{
	shim_count(SHIM_ping_updates);
}
EXPORT_SYMBOL(lnet_mark_ping_buffer_for_update);

int lnet_notify(struct lnet_ni *ni, struct lnet_nid *nid, bool alive, bool reset, time64_t when)
{
	shim_check_context("lnet_notify");
	if (shim_ni(ni)->magic != SHIM_MAGIC || alive || reset || LNET_NID_IS_ANY(nid) || when > ktime_get_seconds() ||
	    nid_same(nid, &ni->ni_nid))
		shim_fault("lnet_notify(alive %d, reset %d, when %lld) with strange arguments", alive, reset, when);
	shim_count(SHIM_notified);
	/* On the same stack. */
	if (!alive && shim.lnd->lnd_notify_peer_down)
		shim.lnd->lnd_notify_peer_down(nid);
	return 0;
}
EXPORT_SYMBOL(lnet_notify);

unsigned int lnet_get_lnd_timeout(void)
{
	return max(1U, (READ_ONCE(lnet_transaction_timeout) - 1) / (READ_ONCE(lnet_retry_count) + 1));
}
EXPORT_SYMBOL(lnet_get_lnd_timeout);

int lnet_acceptor_port(void)
{
	return accept_port;
}
EXPORT_SYMBOL(lnet_acceptor_port);

int lnet_acceptor_port_bulk(void)
{
	return accept_port_bulk;
}
EXPORT_SYMBOL(lnet_acceptor_port_bulk);

int lnet_acceptor_timeout(void)
{
	return READ_ONCE(accept_timeout);
}
EXPORT_SYMBOL(lnet_acceptor_timeout);

char *libcfs_nidstr_r(const struct lnet_nid *nid, char *buf, __kernel_size_t size)
{
	const char *kind = nid->nid_type == SOCKLND ? "tcp" : nid->nid_type == LOLND ? "lo" : "o2ib";
	u16 number = be16_to_cpu(nid->nid_num);
	int length;

	if (LNET_NID_IS_ANY(nid)) {
		strscpy(buf, "<?>", size);
		return buf;
	}
	if (nid_is_nid4(nid))
		length = scnprintf(buf, size, "%pI4@%s", nid->nid_addr, kind);
	else
		length = scnprintf(buf, size, "%pI6c@%s", nid->nid_addr, kind);
	if (number)
		scnprintf(buf + length, size - length, "%u", number);
	return buf;
}
EXPORT_SYMBOL(libcfs_nidstr_r);

char *libcfs_nidstr(const struct lnet_nid *nid)
{
	static char buffers[64][LNET_NIDSTR_SIZE];
	static atomic_t turn;

	return libcfs_nidstr_r(nid, buffers[(u32)atomic_inc_return(&turn) % ARRAY_SIZE(buffers)], LNET_NIDSTR_SIZE);
}
EXPORT_SYMBOL(libcfs_nidstr);

/* An administrator's work. */

/* Changes one of the driver's tunables, where nobody may sleep. */
int shim_nl_set(struct lnet_lnd_tunables *tunables, int type, s64 value, bool is_integer)
{
	struct {
		struct nlattr attr;
		s64 value;
	} __packed one = {
		.attr.nla_len = NLA_HDRLEN + sizeof(value),
		.attr.nla_type = is_integer ? LN_SCALAR_ATTR_INT_VALUE : LN_SCALAR_ATTR_VALUE,
		.value = value,
	};
	int rc;

	spin_lock(&shim.lock);
	rc = shim.lnd->lnd_nl_set(LNET_CMD_NETS, &one.attr, type, tunables);
	spin_unlock(&shim.lock);
	return rc;
}

static struct shim_ni *new_ni(const struct shim_ni_wish *wish)
{
	struct shim_ni *sni = kzalloc(sizeof(*sni), GFP_KERNEL);
	struct lnet_ioctl_config_lnd_cmn_tunables *common;
	struct lnet_ni *ni;

	if (!sni)
		return NULL;
	ni = &sni->ni;
	common = &sni->net.net_tunables;
	sni->magic = SHIM_MAGIC;
	INIT_LIST_HEAD(&sni->link);
	INIT_LIST_HEAD(&sni->waiting);
	INIT_LIST_HEAD(&sni->peers);
	sni->net.net_id = wish->net_id;
	sni->net.net_lnd = shim.lnd;
	common->lct_peer_timeout = wish->peer_timeout;
	common->lct_peer_tx_credits = wish->peer_credits;
	common->lct_max_tx_credits = wish->credits;
	common->lct_peer_rtr_credits = -1;
	ni->ni_net = &sni->net;
	ni->ni_net_ns = get_net(current->nsproxy->net_ns);
	ni->ni_dev_cpt = CFS_CPT_ANY;
	ni->ni_ncpts = table.number;
	if (wish->has_nid)
		ni->ni_nid = wish->nid;
	ni->ni_nid.nid_type = LNET_NETTYP(wish->net_id);
	ni->ni_nid.nid_num = cpu_to_be16(LNET_NETNUM(wish->net_id));
	if (wish->interface)
		lnet_ni_add_interface(ni, (char *)wish->interface);
	if (wish->has_cpt) {
		ni->ni_cpts = kmalloc(sizeof(*ni->ni_cpts), GFP_KERNEL);
		if (ni->ni_cpts) {
			ni->ni_cpts[0] = wish->cpt % table.number;
			ni->ni_ncpts = 1;
		}
	}
	return sni;
}

/* Frees it, and whatever is read of it afterwards is rubbish. */
static void free_ni(struct shim_ni *sni)
{
	struct shim_peer *peer, *next;

	list_for_each_entry_safe(peer, next, &sni->peers, link)
		kfree(peer);
	kfree(sni->ni.ni_interface);
	kfree(sni->ni.ni_cpts);
	put_net(sni->ni.ni_net_ns);
	memset(sni, 0x5a, sizeof(*sni));
	kfree(sni);
}

/* As lnetctl has it: first the defaults, then what the administrator wants. */
static int set_tunables(struct shim_ni *sni, const struct shim_ni_wish *wish)
{
	struct lnet_ioctl_config_lnd_cmn_tunables common = {
		.lct_peer_timeout = -1, .lct_peer_tx_credits = -1, .lct_peer_rtr_credits = -1, .lct_max_tx_credits = -1,
	};
	struct lnet_lnd_tunables *tunables = &sni->ni.ni_lnd_tunables;
	int rc;

	rc = shim.lnd->lnd_tun_defaults(tunables, &common);
	if (rc)
		return rc;
	if (common.lct_peer_timeout < 0 || common.lct_peer_tx_credits <= 0 || common.lct_peer_rtr_credits < 0 ||
	    common.lct_max_tx_credits <= 0 || tunables->lnd_tun_u.lnd_sock.lnd_version != 1)
		shim_fault("lnd_tun_defaults left something open");
	if (wish->conns >= 0)
		rc = shim_nl_set(tunables, 1, wish->conns, true);
	if (!rc && wish->tos >= 0)
		rc = shim_nl_set(tunables, 3, wish->tos, true);
	sni->ni.ni_lnd_tunables_set = true;
	return rc;
}

static int start(struct shim_ni *sni)
{
	struct lnet_ioctl_config_lnd_cmn_tunables *common = &sni->net.net_tunables;
	struct shim_ni *other;
	int rc;

	rc = shim.lnd->lnd_startup(&sni->ni);
	if (rc) {
		if (rc > 0)
			shim_fault("lnd_startup returned %d", rc);
		return rc;
	}
	if (!sni->ni.ni_nid.nid_addr[0] || !sni->ni.ni_interface)
		shim_fault("lnd_startup left out what it must set");
	if (common->lct_peer_tx_credits <= 0 || common->lct_max_tx_credits <= 0 || common->lct_peer_timeout < 0 ||
	    common->lct_peer_rtr_credits < 0 || common->lct_peer_tx_credits > common->lct_max_tx_credits) {
		shim_fault("lnd_startup left credits %d of %d", common->lct_peer_tx_credits, common->lct_max_tx_credits);
		rc = -EINVAL;
	}
	other = shim_ni_find(&sni->ni.ni_nid, NULL);
	if (other) {
		shim_ni_put(other);
		rc = -EEXIST;
	}
	if (rc) {
		shim.lnd->lnd_shutdown(&sni->ni);
		return rc;
	}
	sni->peer_credits = common->lct_peer_tx_credits;
	sni->max_credits = common->lct_max_tx_credits;
	sni->credits = sni->max_credits;
	spin_lock(&shim.lock);
	list_add_tail(&sni->link, &shim.nis);
	sni->refs++;
	sni->ni.ni_state = LNET_NI_STATE_ACTIVE;
	sni->published = true;
	spin_unlock(&shim.lock);
	return 0;
}

/* Starts an NI in the caller's namespace. It is referred to by what is returned. */
struct shim_ni *shim_ni_add(const struct shim_ni_wish *wish)
{
	struct shim_ni *sni;
	int rc;

	mutex_lock(&shim.api_mutex);
	mutex_lock(&shim.lnd_mutex);
	if (!shim.lnd) {
		rc = -EINVAL;
		goto unlock;
	}
	sni = new_ni(wish);
	if (!sni) {
		rc = -ENOMEM;
		goto unlock;
	}
	rc = wish->conns >= 0 || wish->tos >= 0 ? set_tunables(sni, wish) : 0;
	if (!rc)
		rc = start(sni);
	if (rc)
		free_ni(sni);
unlock:
	mutex_unlock(&shim.lnd_mutex);
	mutex_unlock(&shim.api_mutex);
	return rc ? ERR_PTR(rc) : sni;
}

/* Deletes one that the caller refers to, whose reference goes with it. */
int shim_ni_del(struct shim_ni *sni)
{
	bool is_mine;

	mutex_lock(&shim.api_mutex);
	spin_lock(&shim.lock);
	is_mine = sni->published;
	sni->published = false;
	sni->ni.ni_state = LNET_NI_STATE_DELETING;
	/* That of those that are published, and the caller's. */
	sni->refs -= is_mine ? 2 : 1;
	spin_unlock(&shim.lock);
	mutex_unlock(&shim.api_mutex);
	if (!is_mine)
		return -ENOENT;
	/* What lies around is not for anybody any more. */
	shim_release(sni, true);
	shim_end_waiting(sni);
	/* LNet waits for as long as the driver has something. */
	for (;;) {
		unsigned int refs;

		spin_lock(&shim.lock);
		refs = sni->refs;
		spin_unlock(&shim.lock);
		if (!refs)
			break;
		msleep(STEP_MS);
		shim_release(sni, true);
		shim_end_waiting(sni);
	}
	if (sni->credits != sni->max_credits || sni->under_way)
		shim_fault("%d credits of %d are back", sni->credits, sni->max_credits);
	mutex_lock(&shim.lnd_mutex);
	shim.lnd->lnd_shutdown(&sni->ni);
	if (sni->refs)
		shim_fault("the NI is referred to %u times after lnd_shutdown", sni->refs);
	spin_lock(&shim.lock);
	list_del(&sni->link);
	spin_unlock(&shim.lock);
	free_ni(sni);
	mutex_unlock(&shim.lnd_mutex);
	return 0;
}
