// SPDX-License-Identifier: GPL-2.0
/*
 * Operations, the jobs that begin them, and who watches that they end.
 *
 * shim.lock protects the list of operations that wait for an answer and whether one has ended. A job's thread begins
 * its operations and waits until all of them have ended; nobody else sleeps for it.
 */
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include "shim.h"

/* Payloads when they are of one size after the other. */
static const u32 sizes[] = { 0, 1, 71, 4096, 2047, 16384, 5003, 66000, 4095, 300000, 9001, 1048576, 4097 };

#define WATCH_MS 100

static void watch(struct work_struct *work);
static DECLARE_DELAYED_WORK(watcher, watch);
static u32 last_job;

void shim_op_put(struct shim_op *op)
{
	if (!refcount_dec_and_test(&op->refs))
		return;
	shim_mem_free(op->mem);
	memset(op, 0x6b, sizeof(*op));
	kfree(op);
	shim_uncount(SHIM_operations);
}

/* The first result counts. */
void shim_op_end(struct shim_op *op, enum shim_result result)
{
	struct shim_job *job = op->job;
	bool was_pending, is_first;

	spin_lock(&shim.lock);
	is_first = !op->ended;
	op->ended = true;
	was_pending = !list_empty(&op->link);
	list_del_init(&op->link);
	if (is_first) {
		atomic_inc(result == SHIM_GOOD ? &job->good : result == SHIM_FAILED ? &job->failed :
			   result == SHIM_LOST ? &job->lost : &job->corrupt);
		/* The job may go as soon as this is 0 and the lock is free. */
		atomic_dec(&job->under_way);
		wake_up(&job->ended_one);
	}
	spin_unlock(&shim.lock);
	if (was_pending)
		shim_op_put(op);
}

/* Finds the operation that an answer is for; it does not wait any more, and is referred to. */
struct shim_op *shim_op_claim(u64 cookie, bool for_good)
{
	struct shim_op *op, *found = NULL;

	spin_lock(&shim.lock);
	list_for_each_entry(op, &shim.pending, link) {
		if (op->cookie == cookie && !op->claimed) {
			found = op;
			op->claimed = for_good;
			refcount_inc(&op->refs);
			break;
		}
	}
	spin_unlock(&shim.lock);
	return found;
}

/* Ends operations whose answer has not come in time. */
static void watch(struct work_struct *work)
{
	struct shim_op *op, *next;
	LIST_HEAD(late);

	spin_lock(&shim.lock);
	list_for_each_entry_safe(op, next, &shim.pending, link) {
		if (!op->claimed && time_after(jiffies, op->deadline)) {
			op->claimed = true;
			refcount_inc(&op->refs);
			list_move_tail(&op->link, &late);
		}
	}
	/* They are still in a list under the lock, as shim_op_end expects. */
	while (!list_empty(&late)) {
		op = list_first_entry(&late, struct shim_op, link);
		spin_unlock(&shim.lock);
		shim_op_end(op, SHIM_LOST);
		shim_op_put(op);
		spin_lock(&shim.lock);
	}
	spin_unlock(&shim.lock);
	queue_delayed_work(shim.wq, &watcher, msecs_to_jiffies(WATCH_MS));
}

void shim_monitor_start(void)
{
	queue_delayed_work(shim.wq, &watcher, 0);
}

void shim_monitor_stop(void)
{
	cancel_delayed_work_sync(&watcher);
}

/* What answers a ping: the node's NIs. Returns how long it is, or as much of it as there is room for. */
u32 shim_ping_info(struct shim_ni *sni, void *buffer, u32 room)
{
	struct {
		u32 magic, features, pid, number;
		struct {
			lnet_nid_t nid;
			u32 status, size;
		} __packed nis[8];
	} __packed info = { .magic = 0x70696e67, .features = 7, .pid = the_lnet.ln_pid };
	struct shim_ni *other;
	u32 len;

	spin_lock(&shim.lock);
	list_for_each_entry(other, &shim.nis, link) {
		if (other->ni.ni_net_ns == sni->ni.ni_net_ns && other->published && info.number < ARRAY_SIZE(info.nis)) {
			info.nis[info.number].nid = lnet_nid_to_nid4(&other->ni.ni_nid);
			info.nis[info.number].status = atomic_read(&other->ni.ni_fatal_error_on) ? 0xdeadface : 0x15aac0de;
			info.number++;
		}
	}
	spin_unlock(&shim.lock);
	len = min_t(u32, room, 16 + info.number * sizeof(info.nis[0]));
	memcpy(buffer, &info, len);
	return len;
}

/* Begins one. Returns whether it could. */
static bool begin(struct shim_job *job, u32 number)
{
	struct shim_recipe *recipe = &job->recipe;
	struct shim_ni *sni = recipe->from;
	u32 size = recipe->size == (u32)-1 ? sizes[number % ARRAY_SIZE(sizes)] : recipe->size;
	int context = recipe->context < 0 ? number % SHIM_CONTEXTS : recipe->context;
	struct lnet_hdr hdr = {};
	struct lnet_msg *msg;
	struct shim_mem *mem;
	struct shim_op *op;
	unsigned int flags;
	u64 seed;

	if (recipe->is_ping)
		size = 256;
	spin_lock(&shim.lock);
	seed = ++shim.cookies;
	spin_unlock(&shim.lock);
	mem = shim_mem_new(recipe->kind, size, seed, GFP_KERNEL);
	if (!mem)
		return false;
	op = kzalloc(sizeof(*op), GFP_KERNEL | __GFP_NOFAIL);
	INIT_LIST_HEAD(&op->link);
	/* The message's. */
	refcount_set(&op->refs, 1);
	op->seed = seed * 0x9e3779b97f4a7c15ULL;
	op->job = job;
	op->is_ping = recipe->is_ping;
	op->deadline = jiffies + recipe->timeout_s * HZ;
	if (recipe->is_ping)
		op->seed = LNET_PROTO_PING_MATCHBITS;
	if (recipe->is_get || recipe->wants_ack)
		op->cookie = seed;
	shim_count(SHIM_operations);
	msg = shim_msg_new(sni, recipe->is_get ? LNET_MSG_GET : LNET_MSG_PUT);
	msg->shim_op = op;
	msg->shim_seed = seed;
	msg->msg_target.nid = recipe->via;
	msg->msg_target.pid = LNET_PID_LUSTRE;
	msg->msg_target_is_router = !nid_same(&recipe->via, &recipe->to);
	hdr.dest_nid = recipe->to;
	hdr.src_nid = sni->ni.ni_nid;
	hdr.dest_pid = LNET_PID_LUSTRE;
	hdr.src_pid = the_lnet.ln_pid;
	hdr.type = msg->msg_type;
	if (recipe->is_get) {
		op->mem = mem;
		hdr.msg.get.return_wmd.wh_interface_cookie = 1;
		hdr.msg.get.return_wmd.wh_object_cookie = op->cookie;
		hdr.msg.get.match_bits = (__force u64)cpu_to_le64(op->seed);
		hdr.msg.get.ptl_index = (__force u32)cpu_to_le32(recipe->is_ping ? 0 : 7);
		hdr.msg.get.sink_length = (__force u32)cpu_to_le32(size);
	} else {
		u64 ack = op->cookie ?: LNET_WIRE_HANDLE_COOKIE_NONE;

		shim_mem_fill(mem, op->seed);
		shim_msg_put_mem(msg, mem);
		hdr.payload_length = size;
		hdr.msg.put.ack_wmd.wh_interface_cookie = op->cookie ? 1 : ack;
		hdr.msg.put.ack_wmd.wh_object_cookie = ack;
		hdr.msg.put.match_bits = (__force u64)cpu_to_le64(number);
		hdr.msg.put.hdr_data = (__force u64)cpu_to_le64(op->seed);
		hdr.msg.put.ptl_index = (__force u32)cpu_to_le32(7);
	}
	msg->msg_hdr = hdr;
	if (op->cookie) {
		spin_lock(&shim.lock);
		refcount_inc(&op->refs);
		list_add_tail(&op->link, &shim.pending);
		spin_unlock(&shim.lock);
	}
	switch (context) {
	case SHIM_NOFS:
		mutex_lock(&shim_fs_mutex);
		flags = memalloc_nofs_save();
		shim_send(msg, NULL);
		memalloc_nofs_restore(flags);
		mutex_unlock(&shim_fs_mutex);
		break;
	case SHIM_MEMALLOC:
		flags = memalloc_noreclaim_save();
		shim_send(msg, NULL);
		memalloc_noreclaim_restore(flags);
		break;
	default:
		shim_send(msg, NULL);
	}
	return true;
}

static int run(void *context)
{
	struct shim_job *job = context;
	u32 number;

	for (number = 0; number < job->recipe.count && !kthread_should_stop(); number++) {
		wait_event_idle(job->ended_one, atomic_read(&job->under_way) < job->recipe.in_flight || kthread_should_stop());
		atomic_inc(&job->under_way);
		atomic_inc(&job->begun);
		if (!begin(job, number)) {
			atomic_dec(&job->under_way);
			atomic_inc(&job->failed);
		}
	}
	wait_event_idle(job->ended_one, !atomic_read(&job->under_way));
	/* Who has counted the last one down is out of it. */
	spin_lock(&shim.lock);
	job->over = true;
	spin_unlock(&shim.lock);
	shim_ni_put(job->recipe.from);
	wait_event_idle(job->ended_one, kthread_should_stop());
	return 0;
}

struct shim_job *shim_job_start(const struct shim_recipe *recipe)
{
	struct shim_job *job = kzalloc(sizeof(*job), GFP_KERNEL);

	if (!job)
		return ERR_PTR(-ENOMEM);
	job->recipe = *recipe;
	init_waitqueue_head(&job->ended_one);
	spin_lock(&shim.lock);
	job->id = ++last_job;
	spin_unlock(&shim.lock);
	job->thread = kthread_create(run, job, "lnet_job_%u", job->id);
	if (IS_ERR(job->thread)) {
		int rc = PTR_ERR(job->thread);

		kfree(job);
		return ERR_PTR(rc);
	}
	get_task_struct(job->thread);
	spin_lock(&shim.lock);
	list_add_tail(&job->link, &shim.jobs);
	spin_unlock(&shim.lock);
	wake_up_process(job->thread);
	return job;
}

/* Valid until jobs are forgotten. */
struct shim_job *shim_job_find(u32 id)
{
	struct shim_job *job, *found = NULL;

	spin_lock(&shim.lock);
	list_for_each_entry(job, &shim.jobs, link)
		if (job->id == id)
			found = job;
	spin_unlock(&shim.lock);
	return found;
}

/* Ends all jobs: begins nothing more, and waits until all that was begun has ended. */
void shim_jobs_forget(void)
{
	struct shim_job *job, *next;
	LIST_HEAD(gone);

	spin_lock(&shim.lock);
	list_splice_init(&shim.jobs, &gone);
	spin_unlock(&shim.lock);
	list_for_each_entry_safe(job, next, &gone, link) {
		kthread_stop(job->thread);
		put_task_struct(job->thread);
		kfree(job);
	}
}
