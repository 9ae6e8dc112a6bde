// SPDX-License-Identifier: GPL-2.0
/* Sockets: who in the kernel has one, and whom TCP calls. */
#include <linux/rcupdate.h>
#include <net/inet_connection_sock.h>
#include <net/sock.h>

#include "helpers.h"

/* ---- Owners ---- */

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
