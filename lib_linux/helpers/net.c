// SPDX-License-Identifier: GPL-2.0
/* Network namespaces. */
#include <linux/capability.h>
#include <linux/netdevice.h>
#include <linux/nsproxy.h>
#include <linux/sched.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>

#include "helpers.h"

/* An exiting task has none; the initial namespace requires the highest privilege. */
struct net *socklnd_helper_current_net(void)
{
	return current->nsproxy ? current->nsproxy->net_ns : &init_net;
}

void socklnd_helper_net_passive_inc(struct net *net)
{
	net_passive_inc(net);
}

/* net_passive_dec() is not exported; the operations of sysfs, which do the same, are. */
void socklnd_helper_net_passive_dec(struct net *net)
{
#ifdef CONFIG_NET_NS
	net_ns_type_operations.drop_ns(to_ns_common(net));
#else
	net_passive_dec(net);
#endif
}

bool socklnd_helper_maybe_get_net(struct net *net)
{
	return maybe_get_net(net) != NULL;
}

void socklnd_helper_put_net(struct net *net)
{
	put_net(net);
}

bool socklnd_helper_net_admin_capable(struct net *net)
{
	return ns_capable(net->user_ns, CAP_NET_ADMIN);
}

unsigned int socklnd_helper_net_inum(const struct net *net)
{
	return net->ns.inum;
}

void *socklnd_helper_net_generic(const struct net *net, unsigned int id)
{
	return net_generic(net, id);
}
