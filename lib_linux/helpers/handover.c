// SPDX-License-Identifier: GPL-2.0
/* Sockets that programs hand over. Uses hook.c. */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <net/ipv6.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "helpers.h"

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

/* As getpeername(), but without the socket lock, which a program may hold for long. */
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
 * Whether the caller has the only reference to the file of the socket, and no new one can be taken. A
 * system call on the socket holds a reference, or uses a descriptor that holds one. epoll holds none,
 * but takes one from time to time as long as it watches the file.
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
	/* Pairs with file_ref_put(): makes visible what the former holders of references did to the socket. */
	smp_mb();
	return true;
}

/* Drops a reference to the file of the socket unless it is the last one. Returns whether it did. */
bool socklnd_helper_sock_put_unless_last(struct socket *sock)
{
	file_ref_t *ref = &sock->file->f_ref;
	long old = atomic_long_read(&ref->refcnt);

	/* A count of 0 is one reference; a negative count is a saturated one. */
	while (old > 0) {
		if (atomic_long_try_cmpxchg_release(&ref->refcnt, &old, old - 1))
			return true;
	}
	return false;
}

/* Makes a socket without a connection, of the family and type of @like; see kernel_accept(). */
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
 * Moves the connection from a program's socket, which is claimed and to whose file there is no other
 * reference, to a new socket. Resets options of the program's: SO_RCVLOWAT and TCP_CORK hold data back,
 * SO_TIMESTAMPING fills the receive buffer with an error queue that is never read, and IP_RECVERR makes
 * soft errors fatal.
 */
int socklnd_helper_sock_take(struct socket *from, struct socket *to)
{
	struct inode *inode = SOCK_INODE(from);
	struct file *file = from->file;
	struct sock *sk = from->sk;
	int err = 0;

	/* As the close of the file does, which will find no connection. */
	if (file->f_flags & FASYNC)
		file->f_op->fasync(-1, file, 0);
	/* As in __sock_release(): serialises with changes of the owner of the inode. */
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
