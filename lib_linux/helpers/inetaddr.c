// SPDX-License-Identifier: GPL-2.0
/* Addresses of network devices. */
#include <linux/ethtool.h>
#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <linux/rcupdate.h>
#include <linux/rtnetlink.h>
#include <net/addrconf.h>
#include <net/route.h>

#include "helpers.h"

/*
 * Whether it is a unicast address of the namespace, to which a socket can be bound. Does not heed sysctls
 * that allow to bind to other addresses.
 */
bool socklnd_helper_inet_is_local(struct net *net, __be32 addr)
{
	return inet_addr_type(net, addr) == RTN_LOCAL;
}

/* The same for IPv6. False for a tentative address. */
bool socklnd_helper_inet6_is_local(struct net *net, const u8 addr[16])
{
#if IS_ENABLED(CONFIG_IPV6)
	struct in6_addr copy;

	memcpy(&copy, addr, sizeof(copy));
	return ipv6_chk_addr(net, &copy, NULL, 0);
#else
	return false;
#endif
}

/* -1 if no device has the address. */
int socklnd_helper_inet_prefix_len(struct net *net, __be32 addr)
{
	const struct in_ifaddr *ifa;
	const struct in_device *in_dev;
	struct net_device *dev;
	int len = -1;

	rcu_read_lock();
	for_each_netdev_rcu(net, dev) {
		in_dev = __in_dev_get_rcu(dev);
		if (!in_dev)
			continue;
		in_dev_for_each_ifa_rcu(ifa, in_dev)
			if (ifa->ifa_local == addr)
				len = ifa->ifa_prefixlen;
	}
	rcu_read_unlock();
	return len;
}

/* The same for IPv6. A tentative address counts. */
int socklnd_helper_inet6_prefix_len(struct net *net, const u8 addr[16])
{
	int len = -1;
#if IS_ENABLED(CONFIG_IPV6)
	const struct inet6_ifaddr *ifa;
	const struct inet6_dev *idev;
	struct net_device *dev;

	rcu_read_lock();
	for_each_netdev_rcu(net, dev) {
		idev = __in6_dev_get(dev);
		if (!idev)
			continue;
		list_for_each_entry_rcu(ifa, &idev->addr_list, if_list)
			if (!memcmp(&ifa->addr, addr, sizeof(ifa->addr)))
				len = ifa->prefix_len;
	}
	rcu_read_unlock();
#endif
	return len;
}

/*
 * The device that has the address, in network order, or NULL. The namespace is alive; RCU, or RTNL as
 * well, keeps the device.
 */
static struct net_device *socklnd_dev_of(struct net *net, bool is_ipv6, const u8 addr[16])
{
	struct in6_addr in6;
	__be32 in;

	if (!is_ipv6) {
		memcpy(&in, addr, sizeof(in));
		return __ip_dev_find(net, in, false);
	}
	memcpy(&in6, addr, sizeof(in6));
#if IS_ENABLED(CONFIG_IPV6)
	return ipv6_dev_find(net, &in6, NULL);
#else
	return NULL;
#endif
}

/* Whether the device that has the address can send; -1 if none has it. An unknown state counts as up. */
int socklnd_helper_link_is_up(struct net *net, bool is_ipv6, const u8 addr[16])
{
	struct net_device *dev;
	int up = -1;

	rcu_read_lock();
	dev = socklnd_dev_of(net, is_ipv6, addr);
	if (dev)
		up = netif_running(dev) && netif_carrier_ok(dev);
	rcu_read_unlock();
	return up;
}

/*
 * The speed, in megabits per second, of the device that has the address, which is in network order; 0 if
 * it is unknown. Takes RTNL, which the drivers' function for it requires.
 */
unsigned int socklnd_helper_link_speed(struct net *net, bool is_ipv6, const u8 addr[16])
{
	struct ethtool_link_ksettings settings;
	struct net_device *dev;
	unsigned int speed = 0;

	rtnl_lock();
	rcu_read_lock();
	dev = socklnd_dev_of(net, is_ipv6, addr);
	rcu_read_unlock();
	/* RTNL keeps the device. */
	if (dev && !__ethtool_get_link_ksettings(dev, &settings) &&
	    settings.base.speed != (__u32)SPEED_UNKNOWN)
		speed = settings.base.speed;
	rtnl_unlock();
	return speed;
}

struct net *socklnd_helper_ifaddr_net(const void *ifaddr)
{
	const struct in_ifaddr *ifa = ifaddr;

	return dev_net(ifa->ifa_dev->dev);
}

__be32 socklnd_helper_ifaddr_local(const void *ifaddr)
{
	const struct in_ifaddr *ifa = ifaddr;

	return ifa->ifa_local;
}

struct net *socklnd_helper_ifaddr6_net(const void *ifaddr6)
{
	const struct inet6_ifaddr *ifa = ifaddr6;

	return dev_net(ifa->idev->dev);
}

void socklnd_helper_ifaddr6_get(const void *ifaddr6, u8 addr[16])
{
	const struct inet6_ifaddr *ifa = ifaddr6;

	memcpy(addr, &ifa->addr, sizeof(ifa->addr));
}
