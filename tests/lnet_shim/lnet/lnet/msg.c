// SPDX-License-Identifier: GPL-2.0
/*
 * Messages: credits, sending, and how they end.
 *
 * A message's owner changes hands by an atomic exchange, so that a driver which ends one twice, or one that it does
 * not have, is seen. shim.lock protects credits and who waits for them; finalizing_lock the list of who is ending
 * messages right now.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include "shim.h"

/* A thread that is ending messages, and those that it is to end when it is done with the one it is at. */
struct finalizer {
	struct list_head link, todo;
	struct task_struct *thread;
};

static DEFINE_SPINLOCK(finalizing_lock);
static LIST_HEAD(finalizing);

/* A message is sent again so often at most. */
#define TRIES 3
/* One in so many calls to lnet_finalize sleeps. */
#define SLEEPY 7

void shim_check_context(const char *call)
{
	if (in_interrupt() || irqs_disabled())
		shim_fault("%s called in atomic context", call);
	might_sleep();
}

static bool may_be_ours(const struct lnet_msg *msg, const char *call)
{
	if (msg->shim_magic == SHIM_MAGIC)
		return true;
	shim_fault("%s: that is no message: %px", call, msg);
	return false;
}

struct lnet_msg *shim_msg_new(struct shim_ni *sni, u32 type)
{
	struct lnet_msg *msg = kzalloc(sizeof(*msg), GFP_NOFS | __GFP_NOFAIL);

	msg->shim_magic = SHIM_MAGIC;
	INIT_LIST_HEAD(&msg->shim_link);
	msg->shim_ni = sni ? &sni->ni : NULL;
	msg->msg_type = type;
	shim_ni_get(sni);
	shim_count(SHIM_messages);
	return msg;
}

void shim_msg_put_mem(struct lnet_msg *msg, struct shim_mem *mem)
{
	msg->shim_mem = mem;
	msg->msg_kiov = mem ? mem->kiov : NULL;
	msg->msg_niov = mem ? mem->nr : 0;
	msg->msg_offset = mem ? mem->skip : 0;
	msg->msg_len = mem ? mem->len : 0;
}

/* Frees it with its memory, and gives up its reference to the NI. */
void shim_msg_free(struct lnet_msg *msg)
{
	struct shim_ni *sni = shim_ni(msg->shim_ni);

	shim_mem_free(msg->shim_mem);
	memset(msg, 0x6b, sizeof(*msg));
	atomic_set(&msg->shim_owner, SHIM_FREE);
	kfree(msg);
	shim_uncount(SHIM_messages);
	shim_ni_put(sni);
}

/* Takes the NI's credit, or waits for it. Under the lock; says whether the message may go. */
static bool take_ni_credit(struct shim_ni *sni, struct lnet_msg *msg)
{
	if (sni->credits <= 0) {
		list_add_tail(&msg->shim_link, &sni->waiting);
		shim_count(SHIM_waited_for_credits);
		return false;
	}
	sni->credits--;
	sni->under_way++;
	msg->shim_has_credit = true;
	return true;
}

static struct shim_peer *find_peer(struct shim_ni *sni, const struct lnet_nid *nid)
{
	struct shim_peer *peer;

	list_for_each_entry(peer, &sni->peers, link)
		if (nid_same(&peer->nid, nid))
			return peer;
	return NULL;
}

/* It stays for as long as the NI. */
static struct shim_peer *peer_of(struct shim_ni *sni, const struct lnet_nid *nid)
{
	struct shim_peer *peer, *other;

	spin_lock(&shim.lock);
	peer = find_peer(sni, nid);
	spin_unlock(&shim.lock);
	if (peer)
		return peer;
	peer = kzalloc(sizeof(*peer), GFP_NOFS | __GFP_NOFAIL);
	peer->nid = *nid;
	peer->credits = sni->peer_credits;
	INIT_LIST_HEAD(&peer->waiting);
	spin_lock(&shim.lock);
	other = find_peer(sni, nid);
	if (!other)
		list_add(&peer->link, &sni->peers);
	spin_unlock(&shim.lock);
	if (other) {
		kfree(peer);
		return other;
	}
	return peer;
}

/* Whether this node has to look `nid` up, as LNet does with the first message of one that it does not know. */
bool shim_peer_is_new(struct shim_ni *sni, const struct lnet_nid *nid)
{
	struct shim_peer *peer = peer_of(sni, nid);
	bool is_new;

	spin_lock(&shim.lock);
	is_new = !peer->seen;
	peer->seen = true;
	spin_unlock(&shim.lock);
	return is_new;
}

/* Hands a message that has its credits to the driver. */
static void launch(struct lnet_msg *msg)
{
	struct lnet_ni *ni = msg->shim_ni;
	int rc;

	shim_count(SHIM_sends);
	if (msg->msg_private)
		shim_count(SHIM_stale_tokens);
	msg->msg_health_status = LNET_MSG_STATUS_OK;
	msg->msg_vmflush = !!(current->flags & PF_MEMALLOC);
	if (msg->msg_vmflush)
		shim_count(SHIM_noreclaim_sends);
	else if (current->flags & PF_MEMALLOC_NOFS)
		shim_count(SHIM_nofs_sends);
	if (atomic_xchg(&msg->shim_owner, SHIM_DRIVERS) != SHIM_OURS)
		shim_fault("a message to be sent is not the shim's");
	rc = shim.lnd->lnd_send(ni, msg->msg_private, msg);
	/* Unless it was refused, it may be gone. */
	if (rc >= 0) {
		if (rc > 0)
			shim_fault("lnd_send returned %d", rc);
		return;
	}
	shim_count(SHIM_refused);
	if (atomic_cmpxchg(&msg->shim_owner, SHIM_DRIVERS, SHIM_OURS) != SHIM_DRIVERS)
		shim_fault("lnd_send returned %d for a message that was finalized", rc);
	shim_end(msg, rc);
}

/* Sends a message as soon as it has its credits. */
void shim_send(struct lnet_msg *msg, void *private)
{
	struct shim_ni *sni = shim_ni(msg->shim_ni);
	struct shim_peer *peer = peer_of(sni, &msg->msg_target.nid);
	bool may_go = false, too_late;

	msg->msg_sending = 1;
	msg->msg_receiving = 0;
	msg->msg_private = private;
	msg->msg_txni = msg->shim_ni;
	msg->shim_peer = peer;
	spin_lock(&shim.lock);
	/* As LNet does with each, to know until when it is of use. */
	if (shim.lnd->lnd_get_timeout() <= 0)
		shim_fault("lnd_get_timeout returned nothing above 0");
	too_late = sni->ni.ni_state != LNET_NI_STATE_ACTIVE;
	if (too_late) {
		msg->shim_peer = NULL;
	} else if (peer->credits <= 0) {
		msg->shim_peer = NULL;
		list_add_tail(&msg->shim_link, &peer->waiting);
		shim_count(SHIM_waited_for_credits);
	} else {
		peer->credits--;
		may_go = take_ni_credit(sni, msg);
	}
	spin_unlock(&shim.lock);
	if (too_late)
		shim_end(msg, -ESHUTDOWN);
	else if (may_go)
		launch(msg);
}

/* Gives a message's credits back, and collects those that may go now. */
static void return_credits(struct lnet_msg *msg, struct list_head *go)
{
	struct shim_ni *sni = shim_ni(msg->shim_ni);
	struct shim_peer *peer = msg->shim_peer;
	struct lnet_msg *next;

	spin_lock(&shim.lock);
	if (msg->shim_has_credit) {
		sni->credits++;
		sni->under_way--;
		msg->shim_has_credit = false;
		next = list_first_entry_or_null(&sni->waiting, struct lnet_msg, shim_link);
		if (next) {
			list_del_init(&next->shim_link);
			if (take_ni_credit(sni, next))
				list_add_tail(&next->shim_link, go);
		}
	}
	if (peer) {
		msg->shim_peer = NULL;
		peer->credits++;
		next = list_first_entry_or_null(&peer->waiting, struct lnet_msg, shim_link);
		if (next) {
			list_del_init(&next->shim_link);
			peer->credits--;
			next->shim_peer = peer;
			if (take_ni_credit(sni, next))
				list_add_tail(&next->shim_link, go);
		}
	}
	spin_unlock(&shim.lock);
}

/* Ends what waits for credits of an NI that goes. */
void shim_end_waiting(struct shim_ni *sni)
{
	struct lnet_msg *msg, *next;
	struct shim_peer *peer;
	LIST_HEAD(gone);

	spin_lock(&shim.lock);
	list_splice_init(&sni->waiting, &gone);
	list_for_each_entry(peer, &sni->peers, link)
		list_splice_tail_init(&peer->waiting, &gone);
	spin_unlock(&shim.lock);
	list_for_each_entry_safe(msg, next, &gone, shim_link) {
		list_del_init(&msg->shim_link);
		shim_end(msg, -ESHUTDOWN);
	}
}

/* Whether LNet sends a message again that has ended like this. */
static bool is_worth_a_try(enum lnet_msg_hstatus status)
{
	switch (status) {
	case LNET_MSG_STATUS_LOCAL_INTERRUPT:
	case LNET_MSG_STATUS_LOCAL_DROPPED:
	case LNET_MSG_STATUS_LOCAL_ABORTED:
	case LNET_MSG_STATUS_LOCAL_NO_ROUTE:
	case LNET_MSG_STATUS_LOCAL_TIMEOUT:
	case LNET_MSG_STATUS_REMOTE_DROPPED:
		return true;
	default:
		return false;
	}
}

static void sent(struct lnet_msg *msg, int rc)
{
	struct lnet_msg *other, *next;
	bool again, was_routed = msg->msg_routing;
	LIST_HEAD(go);

	return_credits(msg, &go);
	again = rc && READ_ONCE(shim.resend) && is_worth_a_try(msg->msg_health_status) && ++msg->shim_tries < TRIES;
	if (again) {
		shim_count(SHIM_resent);
		shim_send(msg, msg->msg_private);
	} else {
		shim_count(rc ? SHIM_unsent : SHIM_sent);
		if (msg->shim_op) {
			if (rc)
				shim_op_end(msg->shim_op, SHIM_FAILED);
			else if (!msg->shim_op->cookie)
				shim_op_end(msg->shim_op, SHIM_GOOD);
			shim_op_put(msg->shim_op);
		}
		shim_msg_free(msg);
		if (was_routed)
			shim_router_returned();
	}
	list_for_each_entry_safe(other, next, &go, shim_link) {
		list_del_init(&other->shim_link);
		launch(other);
	}
}

/* Ends a message that is the shim's: at once, or when this thread is done with the one that it is at. */
void shim_end(struct lnet_msg *msg, int rc)
{
	struct finalizer *other, this = { .thread = current };

	msg->shim_rc = rc;
	spin_lock(&finalizing_lock);
	list_for_each_entry(other, &finalizing, link) {
		if (other->thread == current) {
			list_add_tail(&msg->shim_link, &other->todo);
			spin_unlock(&finalizing_lock);
			shim_count(SHIM_finalized_in_callback);
			return;
		}
	}
	INIT_LIST_HEAD(&this.todo);
	list_add(&this.link, &finalizing);
	spin_unlock(&finalizing_lock);
	while (msg) {
		rc = msg->shim_rc;
		if (msg->msg_sending)
			sent(msg, rc);
		else
			shim_received(msg, rc);
		spin_lock(&finalizing_lock);
		msg = list_first_entry_or_null(&this.todo, struct lnet_msg, shim_link);
		if (msg)
			list_del_init(&msg->shim_link);
		else
			list_del(&this.link);
		spin_unlock(&finalizing_lock);
	}
}

void lnet_finalize(struct lnet_msg *msg, int rc)
{
	static atomic_t calls;
	enum lnet_msg_hstatus status;

	if (!msg)
		return;
	shim_check_context("lnet_finalize");
	if (!may_be_ours(msg, "lnet_finalize"))
		return;
	if (atomic_cmpxchg(&msg->shim_owner, SHIM_DRIVERS, SHIM_OURS) != SHIM_DRIVERS) {
		shim_fault("lnet_finalize for a message that is not the driver's");
		return;
	}
	status = msg->msg_health_status;
	if (rc > 0 || status >= LNET_MSG_STATUS_END)
		shim_fault("lnet_finalize with error %d, status %d", rc, status);
	else
		atomic64_inc(msg->msg_sending ? &shim.sent_status[status] : &shim.received_status[status]);
	if (!rc != (status == LNET_MSG_STATUS_OK))
		shim_count(SHIM_inconsistent);
	if (READ_ONCE(shim.sleepy) && atomic_inc_return(&calls) % SLEEPY == 0)
		usleep_range(500, 3000);
	shim_end(msg, rc);
}
EXPORT_SYMBOL(lnet_finalize);

bool lnet_send_error_simulation(struct lnet_msg *msg, enum lnet_msg_hstatus *status)
{
	static atomic_t calls;
	u32 every = READ_ONCE(shim.simulate_every);

	if (msg && (!may_be_ours(msg, "lnet_send_error_simulation") || atomic_read(&msg->shim_owner) != SHIM_DRIVERS))
		shim_fault("lnet_send_error_simulation for a message that is not the driver's");
	shim_count(SHIM_asked_for_simulation);
	if (!every || atomic_inc_return(&calls) % every)
		return false;
	*status = READ_ONCE(shim.simulate);
	shim_count(SHIM_simulated);
	return true;
}
EXPORT_SYMBOL(lnet_send_error_simulation);
