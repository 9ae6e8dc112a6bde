// SPDX-License-Identifier: GPL-2.0
/*
 * What comes in: where it goes, and when the driver is told that.
 *
 * A receive belongs to lnet_parse, to the list or the work that it waits in, or to the thread that calls lnd_recv for
 * it; shim.lock protects the lists. It refers to its NI until lnd_recv has returned, its message does so too.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/slab.h>
#include "shim.h"

struct shim_rx {
	struct list_head link;
	struct delayed_work work;
	struct shim_ni *sni;
	void *token;
	struct lnet_nid from;
	struct lnet_msg *msg; /* NULL if the payload is to be thrown away */
	struct lnet_msg *reply; /* sent then */
	u32 wanted, rlen;
	struct completion *called;
};

/* LNet has its iterator on the stack, where something else is as soon as lnd_recv has returned. */
static noinline int call_lnd_recv(struct shim_rx *rx, struct lnet_msg *msg, int delayed)
{
	struct {
		u64 before[4];
		struct iov_iter to;
		u64 after[4];
	} frame;
	u32 offset = msg ? msg->msg_offset : 0;
	int rc;

	memset(&frame, 0x5a, sizeof(frame));
	iov_iter_bvec(&frame.to, ITER_DEST, msg ? msg->msg_kiov : NULL, msg ? msg->msg_niov : 0, offset + rx->wanted);
	iov_iter_advance(&frame.to, offset);
	rc = shim.lnd->lnd_recv(&rx->sni->ni, rx->token, msg, delayed, &frame.to, rx->rlen);
	memset(&frame, 0xa5, sizeof(frame));
	OPTIMIZER_HIDE_VAR(rc);
	barrier_data(&frame);
	return rc;
}

/* Calls lnd_recv, and frees the receive. */
static void receive(struct shim_rx *rx, int delayed)
{
	struct lnet_msg *msg = rx->msg, *reply = rx->reply;
	struct completion *called = rx->called;
	int rc;

	if (msg) {
		msg->msg_health_status = LNET_MSG_STATUS_OK;
		if (atomic_xchg(&msg->shim_owner, SHIM_DRIVERS) != SHIM_OURS)
			shim_fault("a message to be received is not the shim's");
	}
	rc = call_lnd_recv(rx, msg, delayed);
	/* Unless it was refused, the message may be gone. */
	if (rc > 0)
		shim_fault("lnd_recv returned %d", rc);
	if (rc < 0 && msg) {
		if (atomic_cmpxchg(&msg->shim_owner, SHIM_DRIVERS, SHIM_OURS) != SHIM_DRIVERS)
			shim_fault("lnd_recv returned %d for a message that was finalized", rc);
		shim_end(msg, rc);
	}
	/* With the token that is no longer one. */
	if (reply)
		shim_send(reply, rx->token);
	shim_ni_put(rx->sni);
	memset(rx, 0x6b, sizeof(*rx));
	kfree(rx);
	if (called)
		complete(called);
}

static void receive_later(struct work_struct *work)
{
	struct shim_rx *rx = container_of(to_delayed_work(work), struct shim_rx, work);

	receive(rx, 1);
}

/* Whatever this was to be, the payload is thrown away, and nothing is answered. */
static void throw_away(struct shim_rx *rx)
{
	if (rx->msg) {
		if (rx->msg->shim_op) {
			shim_op_end(rx->msg->shim_op, SHIM_LOST);
			shim_op_put(rx->msg->shim_op);
		}
		shim_msg_free(rx->msg);
	}
	if (rx->reply)
		shim_msg_free(rx->reply);
	rx->msg = NULL;
	rx->reply = NULL;
	rx->wanted = 0;
	shim_count(SHIM_dropped);
}

/* Calls lnd_recv now, or sees that it is called. */
static void deliver(struct shim_rx *rx)
{
	static atomic_t turn;
	DECLARE_COMPLETION_ONSTACK(called);
	u32 manner = READ_ONCE(shim.manner);

	if (manner == SHIM_MIXED)
		manner = SHIM_INSIDE + atomic_inc_return(&turn) % 3;
	switch (manner) {
	case SHIM_BESIDE:
		shim_count(SHIM_beside);
		rx->called = &called;
		queue_delayed_work(shim.wq, &rx->work, 0);
		wait_for_completion(&called);
		usleep_range(200, 3000);
		break;
	case SHIM_LATER:
		shim_count(SHIM_later);
		queue_delayed_work(shim.wq, &rx->work, msecs_to_jiffies(READ_ONCE(shim.delay_ms)));
		break;
	case SHIM_HELD:
		shim_count(SHIM_held);
		spin_lock(&shim.lock);
		list_add_tail(&rx->link, &shim.held);
		spin_unlock(&shim.lock);
		break;
	default:
		shim_count(SHIM_inside);
		receive(rx, 0);
	}
}

/* Calls lnd_recv for what is held; also for what waits for a router's buffer, if it is to be thrown away. */
void shim_release(struct shim_ni *only, bool drop)
{
	struct shim_rx *rx, *next;
	LIST_HEAD(mine);

	spin_lock(&shim.lock);
	list_for_each_entry_safe(rx, next, &shim.held, link)
		if (!only || rx->sni == only)
			list_move_tail(&rx->link, &mine);
	if (drop)
		list_for_each_entry_safe(rx, next, &shim.unrouted, link)
			if (!only || rx->sni == only)
				list_move_tail(&rx->link, &mine);
	spin_unlock(&shim.lock);
	list_for_each_entry_safe(rx, next, &mine, link) {
		list_del_init(&rx->link);
		if (drop)
			throw_away(rx);
		receive(rx, 1);
	}
}

/* A router's buffer is free, and goes to who has waited longest. */
void shim_router_returned(void)
{
	struct shim_rx *rx;

	spin_lock(&shim.lock);
	rx = list_first_entry_or_null(&shim.unrouted, struct shim_rx, link);
	if (rx)
		list_del_init(&rx->link);
	else
		shim.router_free++;
	spin_unlock(&shim.lock);
	if (rx)
		receive(rx, 1);
}

/* The scenario has said how many buffers there are; none is in use. */
void shim_router_fill(void)
{
	spin_lock(&shim.lock);
	shim.router_free = READ_ONCE(shim.router_buffers);
	spin_unlock(&shim.lock);
}

/* How much of a payload is wanted: mostly all, now and then a part, or nothing. */
static u32 wanted_of(u64 seed, u32 rlen)
{
	if (seed % 11 == 5)
		return 0;
	return seed % 7 == 3 ? rlen - rlen / 3 : rlen;
}

static void expect(struct shim_rx *rx, struct lnet_msg *msg, u32 wanted)
{
	rx->msg = msg;
	rx->wanted = wanted;
	msg->shim_token = rx->token;
	msg->msg_from = rx->from;
	msg->msg_rxni = &rx->sni->ni;
	msg->msg_wanted = wanted;
	/* LNet has one for most messages. */
	if (msg->shim_seed % 2)
		msg->msg_md = &msg->shim_md;
	if (wanted < rx->rlen)
		shim_count(SHIM_truncated);
}

static void begin_put(struct shim_rx *rx, const struct lnet_hdr *hdr)
{
	u64 seed = le64_to_cpu((__force __le64)hdr->msg.put.hdr_data);
	u32 wanted = wanted_of(seed, rx->rlen);
	struct shim_mem *mem = shim_mem_new(-1, wanted, seed / 7, GFP_NOFS);
	struct lnet_msg *msg;

	if (!mem)
		return;
	msg = shim_msg_new(rx->sni, LNET_MSG_PUT);
	msg->shim_seed = seed;
	msg->msg_hdr = *hdr;
	shim_msg_put_mem(msg, mem);
	expect(rx, msg, wanted);
}

static void begin_get(struct shim_rx *rx, const struct lnet_hdr *hdr)
{
	const struct lnet_get *get = &hdr->msg.get;
	u64 seed = le64_to_cpu((__force __le64)get->match_bits);
	u32 len = min(le32_to_cpu((__force __le32)get->sink_length), (u32)LNET_MTU);
	bool is_ping = !get->ptl_index && seed == LNET_PROTO_PING_MATCHBITS;
	struct lnet_msg *msg;
	struct shim_mem *mem;
	u8 info[256];

	if (is_ping)
		len = shim_ping_info(rx->sni, info, min(len, (u32)sizeof(info)));
	mem = shim_mem_new(-1, len, seed / 5, GFP_NOFS);
	if (!mem)
		return;
	if (is_ping)
		shim_mem_write(mem, info, len);
	else
		shim_mem_fill(mem, seed);
	msg = shim_msg_new(rx->sni, LNET_MSG_REPLY);
	shim_msg_put_mem(msg, mem);
	/* The way that the question has come. */
	msg->msg_target.nid = rx->from;
	msg->msg_target.pid = hdr->src_pid;
	msg->msg_hdr.dest_nid = hdr->src_nid;
	msg->msg_hdr.dest_pid = hdr->src_pid;
	msg->msg_hdr.src_nid = rx->sni->ni.ni_nid;
	msg->msg_hdr.src_pid = the_lnet.ln_pid;
	msg->msg_hdr.type = LNET_MSG_REPLY;
	msg->msg_hdr.payload_length = len;
	msg->msg_hdr.msg.reply.dst_wmd = get->return_wmd;
	rx->reply = msg;
}

static void begin_reply(struct shim_rx *rx, const struct lnet_hdr *hdr)
{
	struct shim_op *op = shim_op_claim(hdr->msg.reply.dst_wmd.wh_object_cookie, true);
	struct lnet_msg *msg;

	if (!op || !op->mem) {
		shim_count(SHIM_late_answers);
		if (op)
			shim_op_put(op);
		return;
	}
	msg = shim_msg_new(rx->sni, LNET_MSG_REPLY);
	msg->shim_op = op;
	msg->shim_seed = op->seed;
	/* The memory is the operation's. */
	msg->msg_kiov = op->mem->kiov;
	msg->msg_niov = op->mem->nr;
	msg->msg_offset = op->mem->skip;
	msg->msg_len = op->mem->len;
	msg->msg_hdr = *hdr;
	expect(rx, msg, min(rx->rlen, op->mem->len));
}

static void begin_ack(struct shim_rx *rx, const struct lnet_hdr *hdr)
{
	struct shim_op *op = shim_op_claim(hdr->msg.ack.dst_wmd.wh_object_cookie, true);
	struct lnet_msg *msg;

	if (!op) {
		shim_count(SHIM_late_answers);
		return;
	}
	msg = shim_msg_new(rx->sni, LNET_MSG_ACK);
	msg->shim_op = op;
	msg->msg_hdr = *hdr;
	expect(rx, msg, 0);
}

/* A message for another node. Returns whether it may be received now. */
static bool begin_routed(struct shim_rx *rx, const struct lnet_hdr *hdr)
{
	struct shim_ni *out = shim_ni_in_net(LNET_NID_NET(&hdr->dest_nid), rx->sni->ni.ni_net_ns);
	struct shim_mem *mem = out ? shim_mem_new(SHIM_PAGES, rx->rlen, 0, GFP_NOFS) : NULL;
	struct lnet_msg *msg;
	bool has_buffer;

	if (!mem) {
		if (out)
			shim_ni_put(out);
		return true;
	}
	shim_ni_put(out);
	msg = shim_msg_new(rx->sni, hdr->type);
	msg->msg_routing = 1;
	msg->msg_hdr = *hdr;
	shim_msg_put_mem(msg, mem);
	expect(rx, msg, rx->rlen);
	spin_lock(&shim.lock);
	has_buffer = shim.router_free > 0;
	if (has_buffer)
		shim.router_free--;
	else
		list_add_tail(&rx->link, &shim.unrouted);
	spin_unlock(&shim.lock);
	return has_buffer;
}

/* Whether to refuse the next one, as the scenario said. */
static bool is_refused(void)
{
	bool is_so;

	spin_lock(&shim.lock);
	is_so = shim.refuse > 0;
	if (is_so)
		shim.refuse--;
	spin_unlock(&shim.lock);
	return is_so;
}

int lnet_parse(struct lnet_ni *ni, struct lnet_hdr *hdr, struct lnet_nid *from, void *private, int rdma_req)
{
	struct shim_ni *sni = shim_ni(ni);
	static atomic_t drops;
	struct lnet_hdr copy;
	struct shim_rx *rx;
	bool is_here;
	u32 every;

	shim_check_context("lnet_parse");
	if (sni->magic != SHIM_MAGIC) {
		shim_fault("lnet_parse for no NI: %px", ni);
		return -EPROTO;
	}
	shim_count(SHIM_parsed);
	copy = *hdr;
	if (ni->ni_state == LNET_NI_STATE_INIT)
		shim_fault("lnet_parse for an NI that was not published");
	if (rdma_req || LNET_NID_IS_ANY(from) || !private)
		shim_fault("lnet_parse with strange arguments");
	is_here = nid_same(&copy.dest_nid, &ni->ni_nid);
	if (copy.type > LNET_MSG_REPLY || copy.payload_length > LNET_MTU ||
	    (copy.payload_length && (copy.type == LNET_MSG_ACK || copy.type == LNET_MSG_GET)) ||
	    (!is_here && !READ_ONCE(shim.router_buffers))) {
		shim_count(SHIM_turned_away);
		return -EPROTO;
	}
	if (is_refused()) {
		shim_count(SHIM_turned_away);
		return -(int)READ_ONCE(shim.refuse_errno);
	}
	shim_ni_get(sni);
	/* LNet asks about those that it does not know, with the mutex that an NI is started under. */
	if (shim_peer_is_new(sni, from)) {
		mutex_lock(&shim.api_mutex);
		mutex_unlock(&shim.api_mutex);
	}
	rx = kzalloc(sizeof(*rx), GFP_NOFS | __GFP_NOFAIL);
	INIT_LIST_HEAD(&rx->link);
	INIT_DELAYED_WORK(&rx->work, receive_later);
	rx->sni = sni;
	rx->token = private;
	rx->from = *from;
	rx->rlen = copy.payload_length;
	every = READ_ONCE(shim.drop_every);
	if (every && atomic_inc_return(&drops) % every == 0) {
		shim_count(SHIM_dropped);
	} else if (!is_here) {
		if (!begin_routed(rx, &copy))
			return 0;
	} else if (copy.type == LNET_MSG_PUT) {
		begin_put(rx, &copy);
	} else if (copy.type == LNET_MSG_GET) {
		begin_get(rx, &copy);
	} else if (copy.type == LNET_MSG_REPLY) {
		begin_reply(rx, &copy);
	} else {
		begin_ack(rx, &copy);
	}
	deliver(rx);
	return 0;
}
EXPORT_SYMBOL(lnet_parse);

/* Makes the answer to a PUT of the message that this came in. */
static void acknowledge(struct lnet_msg *msg)
{
	struct lnet_hdr hdr = { .type = LNET_MSG_ACK };
	void *token = msg->shim_token;

	shim_mem_free(msg->shim_mem);
	shim_msg_put_mem(msg, NULL);
	hdr.dest_nid = msg->msg_hdr.src_nid;
	hdr.dest_pid = msg->msg_hdr.src_pid;
	hdr.src_nid = msg->shim_ni->ni_nid;
	hdr.src_pid = the_lnet.ln_pid;
	hdr.msg.ack.dst_wmd = msg->msg_hdr.msg.put.ack_wmd;
	hdr.msg.ack.match_bits = msg->msg_hdr.msg.put.match_bits;
	hdr.msg.ack.mlength = (__force u32)cpu_to_le32(msg->msg_wanted);
	msg->msg_md = NULL;
	msg->msg_type = LNET_MSG_ACK;
	msg->msg_hdr = hdr;
	msg->msg_target.nid = msg->msg_from;
	msg->msg_target.pid = hdr.dest_pid;
	shim_count(SHIM_acks);
	shim_send(msg, token);
}

/* Passes a message on that has come whole. */
static void pass_on(struct lnet_msg *msg)
{
	struct shim_ni *in = shim_ni(msg->shim_ni);
	struct shim_ni *out = shim_ni_in_net(LNET_NID_NET(&msg->msg_hdr.dest_nid), in->ni.ni_net_ns);

	if (!out) {
		shim_msg_free(msg);
		shim_router_returned();
		return;
	}
	msg->shim_ni = &out->ni;
	msg->msg_md = NULL;
	msg->msg_target.nid = msg->msg_hdr.dest_nid;
	msg->msg_target.pid = msg->msg_hdr.dest_pid;
	shim_ni_put(in);
	shim_count(SHIM_forwarded);
	shim_send(msg, msg->shim_token);
}

/* A message that came in has ended. */
void shim_received(struct lnet_msg *msg, int rc)
{
	struct shim_op *op = msg->shim_op;
	bool is_intact = true;

	shim_count(rc ? SHIM_cut_off : SHIM_received);
	if (msg->msg_routing) {
		if (!rc) {
			pass_on(msg);
			return;
		}
		shim_msg_free(msg);
		shim_router_returned();
		return;
	}
	if (msg->msg_type == LNET_MSG_PUT) {
		if (rc) {
			shim_msg_free(msg);
			return;
		}
		is_intact = shim_mem_is_intact(msg->shim_mem, msg->shim_seed, msg->msg_wanted);
		shim_count(is_intact ? SHIM_intact : SHIM_corrupt);
		if (msg->msg_hdr.msg.put.ack_wmd.wh_object_cookie != LNET_WIRE_HANDLE_COOKIE_NONE)
			acknowledge(msg);
		else
			shim_msg_free(msg);
		return;
	}
	if (msg->msg_type == LNET_MSG_REPLY && !rc) {
		if (op->is_ping) {
			__le32 magic = 0;

			shim_mem_read(op->mem, &magic, sizeof(magic));
			is_intact = le32_to_cpu(magic) == 0x70696e67;
			shim_count(SHIM_pings);
		} else {
			is_intact = shim_mem_is_intact(op->mem, op->seed, msg->msg_wanted) &&
				    msg->msg_wanted == op->mem->len;
		}
		shim_count(is_intact ? SHIM_intact : SHIM_corrupt);
		shim_count(SHIM_replies);
	}
	shim_op_end(op, rc ? SHIM_FAILED : is_intact ? SHIM_GOOD : SHIM_CORRUPT);
	shim_op_put(op);
	shim_msg_free(msg);
}
