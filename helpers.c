// SPDX-License-Identifier: GPL-2.0
/*
 * Functions for Rust to call where the kernel has only macros, inline functions or fields, in the
 * manner of rust/helpers. None decides anything: what they need from their callers, such as which
 * lock is held, is what the wrapped operation needs.
 */
#include <linux/cpumask.h>
#include <linux/crc32.h>
#include <linux/debugfs.h>
#include <linux/ethtool.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/inetdevice.h>
#include <linux/kmemleak.h>
#include <linux/kthread.h>
#include <linux/lockdep.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/netdevice.h>
#include <linux/page_frag_cache.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/siphash.h>
#include <linux/skbuff.h>
#include <linux/topology.h>
#include <linux/wait.h>
#include <linux/xxhash.h>
#include <net/addrconf.h>
#include <net/inet_ecn.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>
#include <net/route.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "helpers.h"

/* ---- Network namespaces ---- */

/* An exiting task has none left; the initial one is what asks for the highest privilege. */
struct net *socklnd_helper_current_net(void)
{
	return current->nsproxy ? current->nsproxy->net_ns : &init_net;
}

void socklnd_helper_net_passive_inc(struct net *net)
{
	net_passive_inc(net);
}

/* net_passive_dec() is not exported; the operations that sysfs uses for the same purpose are. */
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

/* ---- Addresses of devices ---- */

/*
 * Whether a socket can be bound to the address because it is this node's own: not a broadcast, multicast
 * or anycast one, nor any other that sysctls allow besides.
 */
bool socklnd_helper_inet_is_local(struct net *net, __be32 addr)
{
	return inet_addr_type(net, addr) == RTN_LOCAL;
}

/* The same for IPv6. An address that is still being looked for elsewhere is not ours yet. */
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

/* The same for IPv6. An address that is still being looked for elsewhere counts. */
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

/* Whether the device that has the address can send; -1 if none has it. Unknown is not down. */
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
 * Megabits per second of the device that has the address, in network order; 0 if nobody knows.
 * Takes RTNL: drivers want that when they are asked.
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
	/* Under RTNL it stays. */
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

/* ---- Sockets: without the socket lock ---- */

struct sock *socklnd_helper_sock_sk(const struct socket *sock)
{
	return sock->sk;
}

int socklnd_helper_sk_state(const struct sock *sk)
{
	return inet_sk_state_load(sk);
}

int socklnd_helper_sk_take_error(struct sock *sk)
{
	return sock_error(sk);
}

int socklnd_helper_sk_err(const struct sock *sk)
{
	return READ_ONCE(sk->sk_err);
}

/*
 * Whether MSG_ZEROCOPY makes sense. Packets made to probe the MTU refer to the pages of others
 * without a reference to their ubuf_info, see tcp_clone_payload().
 */
bool socklnd_helper_sk_can_lend(const struct sock *sk)
{
	return (READ_ONCE(sk->sk_route_caps) & NETIF_F_SG) &&
	       !READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_mtu_probing) &&
	       !inet_csk(sk)->icsk_mtup.enabled;
}

/*
 * From here on the packets that refer to @ubuf, which is at the beginning of its allocation and has
 * room for a ubuf_info_msgzc, give their references back to a function of the kernel's own. It does nothing more until the last one
 * comes, and that is ours, which never does: the memory stays as it is for good. Returns false,
 * and does nothing, if no packet refers to @ubuf any more.
 */
bool socklnd_helper_ubuf_disown(struct ubuf_info *ubuf)
{
	if (!refcount_inc_not_zero(&ubuf->refcnt))
		return false;
	WRITE_ONCE(ubuf->ops, &msg_zerocopy_ubuf_ops);
	kmemleak_not_leak(ubuf);
	return true;
}

int socklnd_helper_sk_wmem_queued(const struct sock *sk)
{
	return READ_ONCE(sk->sk_wmem_queued);
}

bool socklnd_helper_sk_stream_is_writeable(const struct sock *sk)
{
	return sk_stream_is_writeable(sk);
}

bool socklnd_helper_sk_has_input(const struct sock *sk)
{
	return !skb_queue_empty_lockless(&sk->sk_receive_queue);
}

/* As SO_RCVLOWAT does it. */
void socklnd_helper_sk_set_rcvlowat(struct sock *sk, int bytes)
{
	const struct socket *sock;

	/* Nobody needs to be told that one byte is there. */
	if (bytes <= 1) {
		WRITE_ONCE(sk->sk_rcvlowat, 1);
		return;
	}
	lock_sock(sk);
	sock = sk->sk_socket;
	if (sock && READ_ONCE(sock->ops)->set_rcvlowat)
		READ_ONCE(sock->ops)->set_rcvlowat(sk, bytes);
	release_sock(sk);
}

bool socklnd_helper_tcp_is_ready(const struct sock *sk)
{
	return tcp_epollin_ready(sk, READ_ONCE(sk->sk_rcvlowat));
}

unsigned int socklnd_helper_tcp_available(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->rcv_nxt) - READ_ONCE(tcp_sk(sk)->copied_seq);
}

int socklnd_helper_sk_sndbuf(const struct sock *sk)
{
	return READ_ONCE(sk->sk_sndbuf);
}

int socklnd_helper_sk_rcvbuf(const struct sock *sk)
{
	return READ_ONCE(sk->sk_rcvbuf);
}

int socklnd_helper_sk_incoming_cpu(const struct sock *sk)
{
	return READ_ONCE(sk->sk_incoming_cpu);
}

bool socklnd_helper_tcp_nodelay(const struct sock *sk)
{
	/* A bit field; getsockopt() reads it like this too. */
	return tcp_sk(sk)->nonagle & TCP_NAGLE_OFF;
}

/* ---- Sockets: whose they are ---- */

/*
 * What sk_user_data points to while a socket is taken, and nobody is to be told of its events. While it
 * is there, or anything else, no psock can be put on the socket.
 */
static const u64 socklnd_nobody;

static void socklnd_set_user_data(struct sock *sk, const void *data)
{
	/* NOCOPY: sockets that a listener begets don't inherit it. */
	__rcu_assign_sk_user_data_with_flags(sk, (void *)data, SK_USER_DATA_NOCOPY);
}

/* sk_callback_lock is held. The one of our pointers that is there, or NULL: a psock has more flags. */
static void *socklnd_user_data(const struct sock *sk)
{
	uintptr_t data = (uintptr_t)rcu_dereference_check(__sk_user_data(sk),
							  lockdep_is_held(&sk->sk_callback_lock));

	if ((data & ~SK_USER_DATA_PTRMASK) != SK_USER_DATA_NOCOPY)
		return NULL;
	return (void *)(data & SK_USER_DATA_PTRMASK);
}

/* sk_callback_lock is held. Who has the socket, as far as one can see. */
static int socklnd_owner(const struct sock *sk)
{
	uintptr_t data = (uintptr_t)rcu_access_pointer(__sk_user_data(sk));

	if (data & SK_USER_DATA_PSOCK)
		return SOCKLND_OWNER_PSOCK;
	if (inet_csk_has_ulp(sk))
		return SOCKLND_OWNER_ULP;
	return data ? SOCKLND_OWNER_OTHER : SOCKLND_OWNER_NONE;
}

/*
 * Takes a socket unless somebody in the kernel has it: returns who. Does not take the socket lock, so
 * it is for the caller to know that nobody is putting a ULP on it meanwhile, or to look again.
 */
int socklnd_helper_sk_claim(struct sock *sk)
{
	int owner;

	write_lock_bh(&sk->sk_callback_lock);
	owner = socklnd_owner(sk);
	if (owner == SOCKLND_OWNER_NONE)
		socklnd_set_user_data(sk, &socklnd_nobody);
	write_unlock_bh(&sk->sk_callback_lock);
	return owner;
}

/* Undoes socklnd_helper_sk_claim(), unless somebody has overwritten it. */
void socklnd_helper_sk_disclaim(struct sock *sk)
{
	write_lock_bh(&sk->sk_callback_lock);
	if (socklnd_user_data(sk) == &socklnd_nobody)
		rcu_assign_sk_user_data(sk, NULL);
	write_unlock_bh(&sk->sk_callback_lock);
}

/* ---- Sockets of programs ---- */

void socklnd_helper_sockfd_put(struct socket *sock)
{
	sockfd_put(sock);
}

bool socklnd_helper_sk_is_tcp(const struct sock *sk)
{
	return sk_is_tcp(sk);
}

bool socklnd_helper_sk_in_net(const struct sock *sk, const struct net *net)
{
	return net_eq(sock_net(sk), net);
}

/* As getpeername() has it, but without the socket lock, which programs may hold for long. */
void socklnd_helper_sk_peername(const struct sock *sk, void *addr)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (READ_ONCE(sk->sk_family) == AF_INET6) {
		struct sockaddr_in6 *sin6 = addr;

		sin6->sin6_family = AF_INET6;
		sin6->sin6_port = READ_ONCE(inet_sk(sk)->inet_dport);
		sin6->sin6_addr = sk->sk_v6_daddr;
		sin6->sin6_scope_id = ipv6_iface_scope_id(&sin6->sin6_addr,
							  READ_ONCE(sk->sk_bound_dev_if));
		return;
	}
#endif
	struct sockaddr_in *sin = addr;

	sin->sin_family = AF_INET;
	sin->sin_port = READ_ONCE(inet_sk(sk)->inet_dport);
	sin->sin_addr.s_addr = READ_ONCE(inet_sk(sk)->inet_daddr);
}

/*
 * Whether nobody but the caller has a reference to the file of the socket, and nobody can get one any
 * more. A program's call on the socket has a reference, or a descriptor that has one. epoll has none,
 * but takes one now and then for as long as it watches the file.
 */
bool socklnd_helper_sock_is_unshared(const struct socket *sock)
{
	struct file *file = sock->file;

	if (file_count(file) != 1)
		return false;
#ifdef CONFIG_EPOLL
	/* Pairs with file_ref_get() in epoll, as does the barrier below. */
	smp_mb();
	if (READ_ONCE(file->f_ep))
		return false;
#endif
	smp_mb();
	if (file_count(file) != 1)
		return false;
	/* Pairs with file_ref_put(): what others have done to the socket is seen. */
	smp_mb();
	return true;
}

/* Gives up a reference to the file of the socket unless it is the last one: returns whether. */
bool socklnd_helper_sock_put_unless_last(struct socket *sock)
{
	file_ref_t *ref = &sock->file->f_ref;
	long old = atomic_long_read(&ref->refcnt);

	/* A count of 0 is one reference; what is negative is saturated. */
	while (old > 0) {
		if (atomic_long_try_cmpxchg_release(&ref->refcnt, &old, old - 1))
			return true;
	}
	return false;
}

/* A socket of ours without a connection, of the kind of @like; see kernel_accept(). */
int socklnd_helper_sock_create_like(const struct socket *like, struct socket **sock)
{
	const struct sock *sk = like->sk;
	int err;

	err = sock_create_lite(sk->sk_family, sk->sk_type, sk->sk_protocol, sock);
	if (err)
		return err;
	(*sock)->ops = READ_ONCE(like->ops);
	__module_get((*sock)->ops->owner);
	return 0;
}

/*
 * Moves the connection from a program's socket that was claimed, and whose file nobody else has, to one
 * of ours. What the program has set that would hold data back, fill the receive buffer with what nobody
 * reads, or make errors of mere advice, is undone.
 */
int socklnd_helper_sock_take(struct socket *from, struct socket *to)
{
	struct inode *inode = SOCK_INODE(from);
	struct file *file = from->file;
	struct sock *sk = from->sk;
	int err = 0;

	/* As when the file is closed: that finds no connection any more. */
	if (file->f_flags & FASYNC)
		file->f_op->fasync(-1, file, 0);
	/* As in __sock_release(), against who changes the owner of the inode. */
	inode_lock(inode);
	lock_sock(sk);
	if (sk->sk_state != TCP_ESTABLISHED) {
		err = -ENOTCONN;
		goto out;
	}
	write_lock_bh(&sk->sk_callback_lock);
	if (socklnd_user_data(sk) != &socklnd_nobody || inet_csk_has_ulp(sk) || tcp_sk(sk)->repair)
		err = -EBUSY;
	write_unlock_bh(&sk->sk_callback_lock);
	if (err)
		goto out;
	if (test_bit(SOCK_SUPPORT_ZC, &from->flags))
		set_bit(SOCK_SUPPORT_ZC, &to->flags);
	sock_graft(sk, to);
	to->state = SS_CONNECTED;
	from->sk = NULL;
	from->state = SS_UNCONNECTED;
	WRITE_ONCE(sk->sk_rcvlowat, 1);
	WRITE_ONCE(sk->sk_tsflags, 0);
	tcp_sk(sk)->nonagle &= ~TCP_NAGLE_CORK;
	inet_clear_bit(RECVERR, sk);
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6)
		inet6_clear_bit(RECVERR6, sk);
#endif
out:
	release_sock(sk);
	inode_unlock(inode);
	return err;
}

/* ---- What a socket is set to ---- */

bool socklnd_helper_sk_keepalive(const struct sock *sk)
{
	return sock_flag(sk, SOCK_KEEPOPEN);
}

/* These three in seconds, seconds and a number, as getsockopt() has them. */
int socklnd_helper_tcp_keepidle(const struct sock *sk)
{
	return keepalive_time_when(tcp_sk(sk)) / HZ;
}

int socklnd_helper_tcp_keepintvl(const struct sock *sk)
{
	return keepalive_intvl_when(tcp_sk(sk)) / HZ;
}

int socklnd_helper_tcp_keepcnt(const struct sock *sk)
{
	return keepalive_probes(tcp_sk(sk));
}

unsigned int socklnd_helper_tcp_rcv_wscale(const struct sock *sk)
{
	return tcp_sk(sk)->rx_opt.rcv_wscale;
}

gfp_t socklnd_helper_sk_allocation(const struct sock *sk)
{
	return READ_ONCE(sk->sk_allocation);
}

/* The type of service, which IPv6 calls traffic class. */
int socklnd_helper_sk_tos(const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6)
		return READ_ONCE(inet6_sk(sk)->tclass);
#endif
	return READ_ONCE(inet_sk(sk)->tos);
}

/* ---- Sockets: the socket lock is held ---- */

void socklnd_helper_sk_set_allocation(struct sock *sk, gfp_t allocation)
{
	sk->sk_allocation = allocation;
}

void socklnd_helper_sk_no_task_frag(struct sock *sk)
{
	sk->sk_use_task_frag = false;
}

void socklnd_helper_sk_no_linger(struct sock *sk)
{
	sock_reset_flag(sk, SOCK_LINGER);
}

/* sock_set_reuseaddr() can't switch it off. */
void socklnd_helper_sk_set_reuseaddr(struct sock *sk, bool on)
{
	sk->sk_reuse = on ? SK_CAN_REUSE : SK_NO_REUSE;
}

/* As SO_SNDBUFFORCE does it: doubled, because the limit counts the kernel's overhead as well. */
void socklnd_helper_sk_set_sndbuf(struct sock *sk, int bytes)
{
	bytes = clamp(bytes, 0, INT_MAX / 2);
	sk->sk_userlocks |= SOCK_SNDBUF_LOCK;
	WRITE_ONCE(sk->sk_sndbuf, max(bytes * 2, (int)SOCK_MIN_SNDBUF));
	sk->sk_write_space(sk);
}

/* As SO_BUF_LOCK does it: TCP adapts the size again. */
void socklnd_helper_sk_unlock_sndbuf(struct sock *sk)
{
	sk->sk_userlocks &= ~SOCK_SNDBUF_LOCK;
}

void socklnd_helper_sk_unlock_rcvbuf(struct sock *sk)
{
	sk->sk_userlocks &= ~SOCK_RCVBUF_LOCK;
}

/* The sizes that tcp_init_sock() begins with. */
void socklnd_helper_tcp_reset_sndbuf(struct sock *sk)
{
	WRITE_ONCE(sk->sk_sndbuf, READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_wmem[1]));
}

void socklnd_helper_tcp_reset_rcvbuf(struct sock *sk)
{
	WRITE_ONCE(sk->sk_rcvbuf, READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_rmem[1]));
}

/* sock_set_keepalive() can't switch it off. */
void socklnd_helper_sk_set_keepalive(struct sock *sk, bool on)
{
	if (sk->sk_prot->keepalive)
		sk->sk_prot->keepalive(sk, on);
	sock_valbool_flag(sk, SOCK_KEEPOPEN, on);
}

void socklnd_helper_tcp_set_linger2(struct sock *sk, int value)
{
	WRITE_ONCE(tcp_sk(sk)->linger2, value);
}

void socklnd_helper_tcp_set_user_timeout(struct sock *sk, unsigned int ms)
{
	WRITE_ONCE(inet_csk(sk)->icsk_user_timeout, ms);
}

void socklnd_helper_tcp_send_ack(struct sock *sk)
{
	__tcp_send_ack(sk, tcp_sk(sk)->rcv_nxt, 0);
}

/* tcp_sock_set_nodelay() can't switch it off. */
void socklnd_helper_tcp_clear_nodelay(struct sock *sk)
{
	tcp_sk(sk)->nonagle &= ~TCP_NAGLE_OFF;
}

/* As setsockopt() does it; two of the bits are TCP's own, for ECN. Nothing on a socket of IPv4. */
void socklnd_helper_ipv6_set_tclass(struct sock *sk, int tclass)
{
#if IS_ENABLED(CONFIG_IPV6)
	struct ipv6_pinfo *np = inet6_sk(sk);

	if (sk->sk_family != AF_INET6)
		return;
	tclass = (tclass & ~INET_ECN_MASK) | (np->tclass & INET_ECN_MASK);
	if (np->tclass != tclass) {
		WRITE_ONCE(np->tclass, tclass);
		sk_dst_reset(sk);
	}
#endif
}

/* ---- Sockets: callbacks ---- */

void socklnd_helper_sk_callback_read_lock_bh(struct sock *sk)
{
	read_lock_bh(&sk->sk_callback_lock);
}

void socklnd_helper_sk_callback_read_unlock_bh(struct sock *sk)
{
	read_unlock_bh(&sk->sk_callback_lock);
}

void socklnd_helper_sk_callback_write_lock_bh(struct sock *sk)
{
	write_lock_bh(&sk->sk_callback_lock);
}

void socklnd_helper_sk_callback_write_unlock_bh(struct sock *sk)
{
	write_unlock_bh(&sk->sk_callback_lock);
}

/* sk_callback_lock is held; what socklnd_helper_sk_set_user_data() stored, or NULL. */
void *socklnd_helper_sk_user_data(const struct sock *sk)
{
	void *data = socklnd_user_data(sk);

	return data == &socklnd_nobody ? NULL : data;
}

/* sk_callback_lock is held for writing, and the socket is claimed. NULL: nobody is to be told. */
void socklnd_helper_sk_set_user_data(struct sock *sk, void *data)
{
	socklnd_set_user_data(sk, data ?: &socklnd_nobody);
}

void socklnd_helper_sk_get_callbacks(const struct sock *sk, struct socklnd_sk_callbacks *to)
{
	to->data_ready = sk->sk_data_ready;
	to->write_space = sk->sk_write_space;
	to->state_change = sk->sk_state_change;
}

/* sk_callback_lock is held for writing; TCP reads the pointers without it. */
void socklnd_helper_sk_set_callbacks(struct sock *sk, const struct socklnd_sk_callbacks *from)
{
	WRITE_ONCE(sk->sk_data_ready, from->data_ready);
	WRITE_ONCE(sk->sk_write_space, from->write_space);
	WRITE_ONCE(sk->sk_state_change, from->state_change);
}

/* ---- Sockets: their wait queues ---- */

/* @func is called, with the queue's lock held and interrupts off, when the socket wakes who waits. */
void socklnd_helper_sk_add_wait(struct sock *sk, struct wait_queue_entry *entry,
				wait_queue_func_t func)
{
	init_waitqueue_func_entry(entry, func);
	add_wait_queue(sk_sleep(sk), entry);
}

/* When this returns, @func is not running. */
void socklnd_helper_sk_remove_wait(struct sock *sk, struct wait_queue_entry *entry)
{
	remove_wait_queue(sk_sleep(sk), entry);
}

/* ---- Sockets: lock classes ---- */

#ifdef CONFIG_LOCKDEP
/* The classes of a socket's two locks: the spinlock, and that of the owner in thread context. */
struct socklnd_lock_classes {
	struct lock_class_key *slock_key;
	struct lock_class_key *sk_lock_key;
};

static struct lock_class_key socklnd_keys[4];

static const struct socklnd_lock_classes socklnd_own_classes[2] = {
	{ &socklnd_keys[0], &socklnd_keys[1] },
	{ &socklnd_keys[2], &socklnd_keys[3] },
};

/* What all kernel sockets of a family have at first; so it may be written again and again. */
static struct socklnd_lock_classes socklnd_kernel_classes[2];

/*
 * sock_lock_init_class_and_name() initialises the lock anew, which an accepted socket, being in use
 * by TCP already, does not survive. A lock's class can be changed safely by whoever holds it, but its
 * name can't: a processor that is about to take the lock reads key and name one after the other, and
 * lockdep wants them to fit. So our classes are called like the kernel's, which lockdep numbers.
 */
static void socklnd_sk_set_lock_classes(struct sock *sk, const struct socklnd_lock_classes *to)
{
	struct lockdep_map *slock = &sk->sk_lock.slock.dep_map;
	struct lockdep_map *sk_lock = &sk->sk_lock.dep_map;

	lock_sock(sk);
	spin_lock_bh(&sk->sk_lock.slock);
	lock_set_class(slock, slock->name, to->slock_key, 0, _RET_IP_);
	spin_unlock_bh(&sk->sk_lock.slock);
	lock_set_class(sk_lock, sk_lock->name, to->sk_lock_key, 0, _RET_IP_);
	release_sock(sk);
}

/*
 * Classes of our own, apart from those of other users of TCP in the kernel, whose locks have other
 * dependencies. Once for each socket.
 */
void socklnd_helper_sk_lock_class_own(struct sock *sk)
{
	bool v6 = sk->sk_family == AF_INET6;
	struct socklnd_lock_classes *kernel = &socklnd_kernel_classes[v6];

	WRITE_ONCE(kernel->slock_key, sk->sk_lock.slock.dep_map.key);
	WRITE_ONCE(kernel->sk_lock_key, sk->sk_lock.dep_map.key);
	socklnd_sk_set_lock_classes(sk, &socklnd_own_classes[v6]);
}

/*
 * TCP may use the locks after the socket has been released, and after the module, to which our keys
 * belong, is gone.
 */
void socklnd_helper_sk_lock_class_kernel(struct sock *sk)
{
	socklnd_sk_set_lock_classes(sk, &socklnd_kernel_classes[sk->sk_family == AF_INET6]);
}
#else
void socklnd_helper_sk_lock_class_own(struct sock *sk)
{
}

void socklnd_helper_sk_lock_class_kernel(struct sock *sk)
{
}
#endif

/* ---- Memory ---- */

unsigned int socklnd_helper_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

void socklnd_helper_memalloc_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}

/*
 * Small pieces of pages. The network's own, of netdev_alloc_frag(), come from the reserves that the
 * receive path lives on.
 */
struct socklnd_frags {
	/* Protects the cache, which is used by whoever happens to run on its processor. */
	spinlock_t lock;
	struct page_frag_cache cache;
};

static DEFINE_PER_CPU(struct socklnd_frags, socklnd_frags) = {
	.lock = __SPIN_LOCK_UNLOCKED(socklnd_frags.lock),
};

/* @size is at most a page. May sleep. */
void *socklnd_helper_page_frag_alloc(unsigned int size)
{
	struct socklnd_frags *frags = raw_cpu_ptr(&socklnd_frags);
	struct page *page;
	void *start;

	spin_lock(&frags->lock);
	start = page_frag_alloc(&frags->cache, size, GFP_NOWAIT | __GFP_NOWARN);
	spin_unlock(&frags->lock);
	if (start)
		return start;
	/* A page for this one alone is worth waiting for; page_frag_free() knows no difference. */
	page = alloc_page(GFP_KERNEL);
	return page ? page_address(page) : NULL;
}

/* Gives back what is left of the caches; nobody allocates any more. */
void socklnd_helper_page_frag_drain(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		page_frag_cache_drain(&per_cpu_ptr(&socklnd_frags, cpu)->cache);
}

struct page *socklnd_helper_virt_to_page(const void *address)
{
	return virt_to_page(address);
}

void socklnd_helper_memcpy_from_page(void *to, struct page *page, size_t offset, size_t len)
{
	memcpy_from_page(to, page, offset, len);
}

void socklnd_helper_memcpy_to_page(struct page *page, size_t offset, const void *from, size_t len)
{
	memcpy_to_page(page, offset, from, len);
}

void socklnd_helper_xxh64_update_page(struct xxh64_state *state, struct page *page, size_t offset,
				      size_t len)
{
	char *address = kmap_local_page(page);

	xxh64_update(state, address + offset, len);
	kunmap_local(address);
}

u32 socklnd_helper_crc32_page(u32 crc, struct page *page, size_t offset, size_t len)
{
	char *address = kmap_local_page(page);

	crc = crc32_le(crc, address + offset, len);
	kunmap_local(address);
	return crc;
}

/* ---- Files in debugfs ---- */

struct dentry *socklnd_helper_debugfs_create_dir(const char *name)
{
	return debugfs_create_dir(name, NULL);
}

void socklnd_helper_debugfs_create_file(const char *name, umode_t mode, struct dentry *parent,
					void *data, const struct file_operations *fops)
{
	debugfs_create_file(name, mode, parent, data, fops);
}

void socklnd_helper_debugfs_remove(struct dentry *dentry)
{
	debugfs_remove(dentry);
}

/* ---- The rest ---- */

u64 socklnd_helper_siphash(const u64 *words, size_t count, u64 key0, u64 key1)
{
	const siphash_key_t key = { .key = { key0, key1 } };

	return siphash(words, count * sizeof(*words), &key);
}

bool socklnd_helper_cpu_online(unsigned int cpu)
{
	return cpu < nr_cpu_ids && cpu_online(cpu);
}

bool socklnd_helper_cpu_possible(unsigned int cpu)
{
	return cpu_possible(cpu);
}

int socklnd_helper_cpu_to_node(unsigned int cpu)
{
	return cpu_to_node(cpu);
}

int socklnd_helper_kthread_prefers(struct task_struct *task, unsigned int cpu)
{
	return kthread_affine_preferred(task, cpumask_of(cpu));
}

bool socklnd_helper_cpus_share_core(unsigned int a, unsigned int b)
{
	return a < nr_cpu_ids && b < nr_cpu_ids &&
	       cpumask_test_cpu(b, topology_sibling_cpumask(a));
}

/* The lock that module_param() files of this module are written under. */
void socklnd_helper_param_lock(void)
{
	kernel_param_lock(THIS_MODULE);
}

void socklnd_helper_param_unlock(void)
{
	kernel_param_unlock(THIS_MODULE);
}

void socklnd_helper_cond_resched(void)
{
	cond_resched();
}

void socklnd_helper_synchronize_rcu_tasks(void)
{
	synchronize_rcu_tasks();
}
