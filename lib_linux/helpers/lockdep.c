// SPDX-License-Identifier: GPL-2.0
/* Sockets: classes of their locks. */
#include <linux/lockdep.h>
#include <net/sock.h>

#include "helpers.h"

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

/* The classes that all kernel sockets of a family begin with. Writing them again changes nothing. */
static struct socklnd_lock_classes socklnd_kernel_classes[2];

/*
 * sock_lock_init_class_and_name() initialises the lock again, which must not happen to an accepted
 * socket, because TCP uses it already. The holder of a lock can change its class, but not its name: a
 * processor that is about to take the lock reads key and name one after the other, and lockdep requires
 * that they match. So the classes have the names of the kernel's, and lockdep adds numbers.
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
 * Sets classes of our own, because the locks of other users of TCP in the kernel have other dependencies.
 * To be called once for each socket.
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
 * Sets the kernel's classes again: TCP may use the locks after the socket was released, and after the
 * module, which has our keys, was removed.
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
