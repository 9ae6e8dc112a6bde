/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files share that see Lustre's headers: lnet_glue.c and those of this folder.
 */
#ifndef SOCKLND_LNET_GLUE_INTERNAL_H
#define SOCKLND_LNET_GLUE_INTERNAL_H

#define DEBUG_SUBSYSTEM S_LND

#ifdef LNET_HAS_NEW_FOLDERS
#include <linux/lnet/lib-lnet.h>
#else
#include <lnet/lib-lnet.h>
#endif

#include "../glue.h"

/* The driver's functions. Set before LNet knows of the driver. */
extern const struct slg_ops *slg_ops;

static inline struct lnet_ni *to_ni(struct slg_ni *ni)
{
	return (struct lnet_ni *)ni;
}

static inline struct slg_ni *from_ni(struct lnet_ni *ni)
{
	return (struct slg_ni *)ni;
}

static inline const char *or_empty(const char *text)
{
	return text ?: "";
}

static inline struct lnet_ioctl_config_socklnd_tunables *tunables_of(struct lnet_ni *ni)
{
	return &ni->ni_lnd_tunables.lnd_tun_u.lnd_sock;
}

/* ---- address.c ------------------------------------------------------------------------------- */

/* An address for a new NI. */
struct slg_address {
	struct lnet_nid nid;
	char name[IFNAMSIZ];
	int node;
};

/*
 * Chooses the address of a new NI, by the rules of lnet_inet_select(). Takes RTNL. -EINVAL, and a line in the
 * log, if no device has one that the NI wants.
 */
int slg_choose_address(const struct lnet_ni *ni, struct slg_address *address);

/* ---- tunables.c ------------------------------------------------------------------------------ */

/* The version of struct lnet_ioctl_config_socklnd_tunables. */
#define SLG_TUNABLES_VERSION 1

/* Replaces what is left open by the module's parameters. */
void slg_fill_common(struct lnet_ioctl_config_lnd_cmn_tunables *common);

/* Sets the driver's own tunables to the module's parameters. */
void slg_fill_own(struct lnet_ioctl_config_socklnd_tunables *own);

/* For struct lnet_lnd. */
#ifdef LNET_HAS_TUN_DEFAULTS
int slg_tun_defaults(struct lnet_lnd_tunables *tunables,
		     struct lnet_ioctl_config_lnd_cmn_tunables *common);
#endif
#ifdef LNET_HAS_NETLINK
#ifdef LNET_HAS_EXPORT_BACKUP
int slg_nl_get(int cmd, struct sk_buff *skb, int type, void *data, bool export_backup);
#else
int slg_nl_get(int cmd, struct sk_buff *skb, int type, void *data);
#endif
int slg_nl_set(int cmd, struct nlattr *attr, int type, void *data);
extern const struct ln_key_list slg_keys;
#endif

#endif
