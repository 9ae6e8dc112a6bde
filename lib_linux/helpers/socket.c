// SPDX-License-Identifier: GPL-2.0
/* Sockets: their state and their options. */
#include <linux/skbuff.h>
#include <linux/wait.h>
#include <net/inet_ecn.h>
#include <net/ipv6.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "helpers.h"

/* ---- Without the socket lock ---- */

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

/* As setsockopt(SO_RCVLOWAT). */
void socklnd_helper_sk_set_rcvlowat(struct sock *sk, int bytes)
{
	const struct socket *sock;

	/* Does not call data_ready for data that has arrived: the caller checks for it. */
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
	/* A bit field, which getsockopt() also reads without a lock. */
	return tcp_sk(sk)->nonagle & TCP_NAGLE_OFF;
}

bool socklnd_helper_sk_keepalive(const struct sock *sk)
{
	return sock_flag(sk, SOCK_KEEPOPEN);
}

/* These three are in seconds, in seconds, and a count, as getsockopt() returns them. */
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

/* ---- The socket lock is held ---- */

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

/* sock_set_reuseaddr() can only set it. */
void socklnd_helper_sk_set_reuseaddr(struct sock *sk, bool on)
{
	sk->sk_reuse = on ? SK_CAN_REUSE : SK_NO_REUSE;
}

/* As setsockopt(SO_SNDBUFFORCE): doubled, because the limit includes the kernel's overhead. */
void socklnd_helper_sk_set_sndbuf(struct sock *sk, int bytes)
{
	bytes = clamp(bytes, 0, INT_MAX / 2);
	sk->sk_userlocks |= SOCK_SNDBUF_LOCK;
	WRITE_ONCE(sk->sk_sndbuf, max(bytes * 2, (int)SOCK_MIN_SNDBUF));
	sk->sk_write_space(sk);
}

/* As setsockopt(SO_BUF_LOCK): TCP tunes the size again. */
void socklnd_helper_sk_unlock_sndbuf(struct sock *sk)
{
	sk->sk_userlocks &= ~SOCK_SNDBUF_LOCK;
}

void socklnd_helper_sk_unlock_rcvbuf(struct sock *sk)
{
	sk->sk_userlocks &= ~SOCK_RCVBUF_LOCK;
}

/* As tcp_init_sock(). */
void socklnd_helper_tcp_reset_sndbuf(struct sock *sk)
{
	WRITE_ONCE(sk->sk_sndbuf, READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_wmem[1]));
}

void socklnd_helper_tcp_reset_rcvbuf(struct sock *sk)
{
	WRITE_ONCE(sk->sk_rcvbuf, READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_rmem[1]));
}

/* sock_set_keepalive() can only set it. */
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

/* tcp_sock_set_nodelay() can only set it. */
void socklnd_helper_tcp_clear_nodelay(struct sock *sk)
{
	tcp_sk(sk)->nonagle &= ~TCP_NAGLE_OFF;
}

/* As setsockopt(IPV6_TCLASS); two of the bits are TCP's own, for ECN. Does nothing to an IPv4 socket. */
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

/* ---- Wait queues ---- */

/* @func is called, with the queue's lock held and interrupts off, when the socket wakes its waiters. */
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
