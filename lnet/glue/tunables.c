// SPDX-License-Identifier: GPL-2.0
/*
 * The tunables of an NI of LNet's: their defaults, and what tools read and write by netlink.
 *
 * LNet owns them, in its NI. They may be read and written at any time, each at once.
 */
#include "internal.h"

#include <linux/moduleparam.h>
#include <net/netlink.h>

/* The keys of the tunables that tools see, by their numbers. */
enum {
	KEY_CONNS_PER_PEER = 1,
	KEY_TIMEOUT,
	KEY_TOS,
	KEY_MAX = KEY_TOS,
};

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

void slg_fill_common(struct lnet_ioctl_config_lnd_cmn_tunables *common)
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

void slg_fill_own(struct lnet_ioctl_config_socklnd_tunables *own)
{
	own->lnd_version = SLG_TUNABLES_VERSION;
	own->lnd_conns_per_peer = slg_ops->conns_per_peer();
#ifdef LNET_HAS_TOS
	own->lnd_tos = slg_ops->tos();
#endif
}

#ifdef LNET_HAS_TUN_DEFAULTS
int slg_tun_defaults(struct lnet_lnd_tunables *tunables,
			     struct lnet_ioctl_config_lnd_cmn_tunables *common)
{
	slg_fill_common(common);
	slg_fill_own(&tunables->lnd_tun_u.lnd_sock);
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
		rc = nla_put_u32(skb, KEY_TIMEOUT, slg_ops->timeout());
#ifdef LNET_HAS_TOS
	if (!rc)
		rc = nla_put_s16(skb, KEY_TOS, READ_ONCE(own->lnd_tos));
#endif
	return rc;
}

#ifdef LNET_HAS_EXPORT_BACKUP
int slg_nl_get(int cmd, struct sk_buff *skb, int type, void *data, bool export_backup)
{
	return put_tunables(cmd, skb, type, data, !export_backup);
}
#else
int slg_nl_get(int cmd, struct sk_buff *skb, int type, void *data)
{
	return put_tunables(cmd, skb, type, data, true);
}
#endif

/* Atomic: the tunables may be those of an NI that is up. */
int slg_nl_set(int cmd, struct nlattr *attr, int type, void *data)
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
			WRITE_ONCE(own->lnd_conns_per_peer, slg_ops->conns_per_peer());
#ifdef LNET_HAS_TOS
		if (type == KEY_TOS)
			WRITE_ONCE(own->lnd_tos, slg_ops->tos());
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

const struct ln_key_list slg_keys = {
	.lkl_maxattr = KEY_MAX,
	.lkl_list = {
		[KEY_CONNS_PER_PEER] = { .lkp_value = "conns_per_peer", .lkp_data_type = NLA_U16 },
		[KEY_TIMEOUT] = { .lkp_value = "timeout", .lkp_data_type = NLA_U32 },
		[KEY_TOS] = { .lkp_value = "tos", .lkp_data_type = NLA_S16 },
	},
};
#endif
