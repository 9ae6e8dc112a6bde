/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The shim: a module that plays LNet's part above a socket driver, as nastily as LNet may.
 *
 * Locks, outermost first: api_mutex, lnd_mutex, lock. The first two are held as LNet holds its own: both over
 * lnd_startup, the second over lnd_shutdown, the first now and then in lnet_parse. The third is a plain spinlock,
 * for all lists and counts that are not atomic; the driver's atomic callbacks are called under it, everything else
 * of the driver's with no lock.
 *
 * An NI is freed by who deletes it, when nobody refers to it. A message belongs to the shim or to the driver,
 * as its owner says; whoever ends it frees it. An operation is counted: by the list of those that wait for an answer,
 * and by the messages that belong to it. A job, and its thread, lasts until it is forgotten.
 */
#ifndef LNET_SHIM_H
#define LNET_SHIM_H

#include <linux/completion.h>
#include <linux/mutex.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/lnet/lib-lnet.h>

#define SHIM_MAGIC 0x74656e6c6d696873ULL

/* Whose a message is. */
enum shim_owner { SHIM_OURS, SHIM_DRIVERS, SHIM_FREE };

/* When lnd_recv is called for a message that has come. */
enum shim_manner {
	SHIM_MIXED, /* in each of the next three ways in turn */
	SHIM_INSIDE, /* from lnet_parse */
	SHIM_BESIDE, /* by another thread, while lnet_parse sleeps */
	SHIM_LATER, /* by another thread after a while */
	SHIM_HELD, /* when the scenario says so */
};

/* Kinds of memory for payloads. */
enum shim_kind { SHIM_PAGES, SHIM_SLAB, SHIM_VMALLOC, SHIM_KINDS };

/* From what context messages are sent. */
enum shim_context { SHIM_PLAIN, SHIM_NOFS, SHIM_MEMALLOC, SHIM_CONTEXTS };

/* Counters, of all NIs together. */
#define SHIM_COUNTERS(X)                                                                                     \
	X(violations) /* of the driver, against the interface */                                             \
	X(messages) /* that exist */                                                                         \
	X(operations) /* that exist */                                                                       \
	X(memories) /* that exist */                                                                         \
	X(sends) X(refused) X(sent) X(unsent) X(resent)                                                      \
	X(parsed) X(turned_away) X(dropped) X(late_answers) X(held) X(inside) X(beside) X(later)             \
	X(received) X(cut_off) X(intact) X(corrupt) X(truncated) X(acks) X(replies) X(pings) X(forwarded)    \
	X(inconsistent) /* finalized with an error and no status, or the other way round */                 \
	X(finalized_in_callback) /* within lnd_send or lnd_recv, or while finalizing another one */          \
	X(simulated) X(asked_for_simulation) X(notified) X(link_changes) X(ping_updates) X(stale_tokens)     \
	X(waited_for_credits) X(noreclaim_sends) X(nofs_sends)

enum shim_counter {
#define X(name) SHIM_##name,
	SHIM_COUNTERS(X)
#undef X
	SHIM_NR_COUNTERS
};

struct shim_ni {
	u64 magic;
	struct list_head link;
	unsigned int refs;
	bool published;
	int credits, max_credits, peer_credits;
	unsigned int under_way;
	struct list_head waiting; /* messages that have a peer's credit and none of the NI's */
	struct list_head peers;
	struct lnet_net net;
	struct lnet_ni ni;
};

struct shim_peer {
	struct list_head link;
	struct lnet_nid nid;
	int credits;
	bool seen;
	struct list_head waiting;
};

struct shim_mem {
	enum shim_kind kind;
	void *base;
	unsigned int total, skip, len, nr;
	struct bio_vec *kiov;
};

/* What a job does again and again. */
struct shim_recipe {
	struct shim_ni *from; /* referred to */
	struct lnet_nid to;
	struct lnet_nid via; /* the gateway, or the same as `to` */
	bool is_get, is_ping, wants_ack;
	u32 size; /* -1 is one size after the other */
	u32 count, in_flight, timeout_s;
	int context; /* -1 is each in turn */
	int kind; /* -1 is each in turn */
};

struct shim_job {
	struct list_head link;
	u32 id;
	struct shim_recipe recipe;
	struct task_struct *thread;
	wait_queue_head_t ended_one;
	atomic_t begun, under_way, good, failed, lost, corrupt;
	bool over;
};

enum shim_result { SHIM_GOOD, SHIM_FAILED, SHIM_LOST, SHIM_CORRUPT };

struct shim_op {
	struct list_head link; /* in shim.pending */
	refcount_t refs;
	u64 cookie, seed;
	struct shim_job *job;
	struct shim_mem *mem; /* where a GET's answer goes */
	unsigned long deadline;
	bool ended, claimed, is_ping;
};

struct shim {
	struct mutex api_mutex, lnd_mutex;
	spinlock_t lock;
	const struct lnet_lnd *lnd;
	struct list_head nis;
	struct list_head pending; /* operations */
	struct list_head held; /* receives that wait for the scenario */
	struct list_head unrouted; /* receives that wait for a router's buffer */
	struct list_head jobs;
	int router_free;
	u64 cookies;
	struct workqueue_struct *wq;
	atomic64_t counters[SHIM_NR_COUNTERS];
	atomic64_t sent_status[LNET_MSG_STATUS_END], received_status[LNET_MSG_STATUS_END];
	/* Knobs. */
	u32 manner, delay_ms, drop_every, refuse, refuse_errno, simulate, simulate_every, resend, sleepy, router_buffers;
};

extern struct shim shim;

/* The driver has done what it must not. */
#define shim_fault(format, ...)                                              \
	do {                                                                 \
		shim_count(SHIM_violations);                                 \
		WARN(1, "lnet shim: " format "\n", ##__VA_ARGS__);           \
	} while (0)

static inline void shim_count(enum shim_counter which)
{
	atomic64_inc(&shim.counters[which]);
}

static inline void shim_uncount(enum shim_counter which)
{
	atomic64_dec(&shim.counters[which]);
}

static inline struct shim_ni *shim_ni(struct lnet_ni *ni)
{
	return container_of(ni, struct shim_ni, ni);
}

void shim_check_context(const char *call);

/* ni.c */
struct shim_ni *shim_ni_find(const struct lnet_nid *nid, struct net *net);
struct shim_ni *shim_ni_in_net(u32 net_id, struct net *net);
void shim_ni_get(struct shim_ni *sni);
void shim_ni_put(struct shim_ni *sni);
int shim_cpt_init(void);
void shim_cpt_exit(void);

/* What an administrator may say of an NI; -1 where he does not. */
struct shim_ni_wish {
	u32 net_id;
	const char *interface;
	struct lnet_nid nid;
	bool has_nid, has_cpt;
	u32 cpt;
	int peer_credits, credits, peer_timeout, conns, tos;
};

struct shim_ni *shim_ni_add(const struct shim_ni_wish *wish);
int shim_ni_del(struct shim_ni *sni);
int shim_nl_set(struct lnet_lnd_tunables *tunables, int type, s64 value, bool is_integer);

/* mem.c */
int shim_pattern_init(void);
void shim_pattern_exit(void);
struct shim_mem *shim_mem_new(int kind, u32 len, u64 seed, gfp_t gfp);
void shim_mem_fill(struct shim_mem *mem, u64 seed);
void shim_mem_write(struct shim_mem *mem, const void *bytes, u32 len);
void shim_mem_read(struct shim_mem *mem, void *bytes, u32 len);
bool shim_mem_is_intact(struct shim_mem *mem, u64 seed, u32 len);
void shim_mem_free(struct shim_mem *mem);

/* msg.c */
struct lnet_msg *shim_msg_new(struct shim_ni *sni, u32 type);
void shim_msg_free(struct lnet_msg *msg);
void shim_msg_put_mem(struct lnet_msg *msg, struct shim_mem *mem);
void shim_send(struct lnet_msg *msg, void *private);
void shim_end(struct lnet_msg *msg, int rc);
void shim_received(struct lnet_msg *msg, int rc);
bool shim_peer_is_new(struct shim_ni *sni, const struct lnet_nid *nid);
void shim_end_waiting(struct shim_ni *sni);

/* parse.c */
void shim_release(struct shim_ni *only, bool drop);
void shim_router_fill(void);
void shim_router_returned(void);

/* op.c */
struct shim_job *shim_job_start(const struct shim_recipe *recipe);
struct shim_job *shim_job_find(u32 id);
void shim_jobs_forget(void);
struct shim_op *shim_op_claim(u64 cookie, bool for_good);
void shim_op_end(struct shim_op *op, enum shim_result result);
void shim_op_put(struct shim_op *op);
void shim_monitor_start(void);
void shim_monitor_stop(void);
u32 shim_ping_info(struct shim_ni *sni, void *buffer, u32 room);

/* main.c */
extern struct mutex shim_fs_mutex;

/* control.c */
int shim_control_init(void);
void shim_control_exit(void);

#endif
