// SPDX-License-Identifier: GPL-2.0
/* Sockets: claims by sk_user_data, and callbacks. */
#include <linux/rcupdate.h>
#include <net/inet_connection_sock.h>
#include <net/sock.h>

#include "helpers.h"

/* ---- Owners ---- */

/*
 * sk_user_data points to this while a socket is claimed and not hooked. As long as sk_user_data is not
 * NULL, no psock can be attached to the socket.
 */
static const u64 socklnd_nobody;

static void socklnd_set_user_data(struct sock *sk, const void *data)
{
	/* NOCOPY: the connections of a listener don't inherit it. */
	__rcu_assign_sk_user_data_with_flags(sk, (void *)data, SK_USER_DATA_NOCOPY);
}

/* sk_callback_lock is held. The pointer if it is this module's, or NULL: a psock has more flags. */
static void *socklnd_user_data(const struct sock *sk)
{
	uintptr_t data = (uintptr_t)rcu_dereference_check(__sk_user_data(sk),
							  lockdep_is_held(&sk->sk_callback_lock));

	if ((data & ~SK_USER_DATA_PTRMASK) != SK_USER_DATA_NOCOPY)
		return NULL;
	return (void *)(data & SK_USER_DATA_PTRMASK);
}

/* sk_callback_lock is held. Which part of the kernel has claimed the socket. */
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
 * Claims a socket, unless another part of the kernel has: returns which. Does not take the socket lock,
 * so the caller has to know that no ULP is being attached meanwhile, or to check again.
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

/* Undoes socklnd_helper_sk_claim(), unless sk_user_data was overwritten. */
void socklnd_helper_sk_disclaim(struct sock *sk)
{
	write_lock_bh(&sk->sk_callback_lock);
	if (socklnd_user_data(sk) == &socklnd_nobody)
		rcu_assign_sk_user_data(sk, NULL);
	write_unlock_bh(&sk->sk_callback_lock);
}

/* ---- Callbacks ---- */

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

/* sk_callback_lock is held for writing, and the socket is claimed. NULL: it is not hooked. */
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
