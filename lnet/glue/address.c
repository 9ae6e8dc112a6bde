// SPDX-License-Identifier: GPL-2.0
/*
 * Chooses the address of a new NI among those of the node's network devices.
 *
 * There is no state here. The devices and their addresses are protected by RTNL while they are searched.
 */
#include "internal.h"

#include <linux/if_vlan.h>
#include <linux/inetdevice.h>
#include <linux/rtnetlink.h>
#include <net/addrconf.h>
#include <net/if_inet6.h>

static bool is_set(const struct lnet_nid *nid)
{
	return nid->nid_addr[0] || nid->nid_addr[1] || nid->nid_addr[2] || nid->nid_addr[3];
}

/*
 * Takes the address if the NI wants it: it is the one of its NID, if that has one, and of the device
 * that it names, if it does.
 */
static bool take_address(const struct lnet_ni *ni, struct slg_address *address, const char *name,
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
	address->nid = nid;
	strscpy(address->name, name, sizeof(address->name));
	return true;
}

static bool take_ipv4(const struct lnet_ni *ni, struct slg_address *address, struct net_device *dev)
{
	struct in_device *in_dev = __in_dev_get_rtnl(dev);
	const struct in_ifaddr *ifa;

	if (!in_dev)
		return false;
	/* The label can be that of an alias. */
	in_dev_for_each_ifa_rtnl(ifa, in_dev) {
		if (take_address(ni, address, ifa->ifa_label, &ifa->ifa_local, sizeof(ifa->ifa_local)))
			return true;
	}
	return false;
}

static bool take_ipv6(const struct lnet_ni *ni, struct slg_address *address, struct net_device *dev)
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
		taken = take_address(ni, address, dev->name, &ifa->addr, sizeof(ifa->addr));
		if (taken)
			break;
	}
	read_unlock_bh(&in6_dev->lock);
#endif
	return taken;
}

static bool choose_in(const struct lnet_ni *ni, struct slg_address *address, struct net *net, bool ipv6)
{
	struct net_device *dev;

	for_each_netdev(net, dev) {
		if (dev->flags & IFF_LOOPBACK || !(dev->flags & IFF_UP))
			continue;
		if (!(ipv6 ? take_ipv6(ni, address, dev) : take_ipv4(ni, address, dev)))
			continue;
		/* The processors near a VLAN are those near the device that it is on. */
		if (is_vlan_dev(dev))
			dev = vlan_dev_real_dev(dev);
		address->node = dev_to_node(&dev->dev);
		return true;
	}
	return false;
}

int slg_choose_address(const struct lnet_ni *ni, struct slg_address *address)
{
	struct net *net = ni->ni_net_ns ?: &init_net;
	bool ipv6_first = the_lnet.ln_nis_use_large_nids;
	bool chosen;

	rtnl_lock();
	chosen = choose_in(ni, address, net, ipv6_first) || choose_in(ni, address, net, !ipv6_first);
	rtnl_unlock();
	if (!chosen) {
		pr_err("ksocklnd: no device that is up has %s%s%s\n",
		       is_set(&ni->ni_nid) ? libcfs_nidstr(&ni->ni_nid) : "an address",
		       ni->ni_interface ? " and is called " : "", or_empty(ni->ni_interface));
		return -EINVAL;
	}
	return 0;
}
