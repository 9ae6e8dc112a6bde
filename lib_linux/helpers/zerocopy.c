// SPDX-License-Identifier: GPL-2.0
/* Sending pages without a copy. */
#include <linux/kmemleak.h>
#include <linux/skbuff.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "helpers.h"

/*
 * Whether MSG_ZEROCOPY makes sense. Packets made to probe the MTU refer to the pages of others
 * without a reference to their ubuf_info, see tcp_clone_payload().
 */
bool socklnd_helper_sk_can_zerocopy(const struct sock *sk)
{
	return (READ_ONCE(sk->sk_route_caps) & NETIF_F_SG) &&
	       !READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_mtu_probing) &&
	       !inet_csk(sk)->icsk_mtup.enabled;
}

/*
 * Makes a callback of the kernel's own that of @ubuf, which is at the beginning of its allocation and has
 * room for a ubuf_info_msgzc. That callback only does something when the last reference is dropped,
 * which never happens, because this function takes one: the memory stays allocated for good. Returns
 * false, and does nothing, if no packet refers to @ubuf any more.
 */
bool socklnd_helper_ubuf_disown(struct ubuf_info *ubuf)
{
	if (!refcount_inc_not_zero(&ubuf->refcnt))
		return false;
	WRITE_ONCE(ubuf->ops, &msg_zerocopy_ubuf_ops);
	kmemleak_not_leak(ubuf);
	return true;
}
