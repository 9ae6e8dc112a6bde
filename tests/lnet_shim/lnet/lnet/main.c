// SPDX-License-Identifier: GPL-2.0
/* The module: what there is one of, and in which order it comes and goes. */
#include <linux/module.h>
#include <linux/sched/mm.h>
#include "shim.h"

struct shim shim = {
	.delay_ms = 30,
	.refuse_errno = EPROTO,
	.simulate = LNET_MSG_STATUS_LOCAL_ERROR,
	.sleepy = 1,
};

/* What a file system takes when it writes pages out, also for somebody who waits for memory. */
DEFINE_MUTEX(shim_fs_mutex);

static int __init shim_init(void)
{
	int rc;

	mutex_init(&shim.api_mutex);
	mutex_init(&shim.lnd_mutex);
	spin_lock_init(&shim.lock);
	INIT_LIST_HEAD(&shim.nis);
	INIT_LIST_HEAD(&shim.pending);
	INIT_LIST_HEAD(&shim.held);
	INIT_LIST_HEAD(&shim.unrouted);
	INIT_LIST_HEAD(&shim.jobs);
	/* So that lockdep knows. */
	fs_reclaim_acquire(GFP_KERNEL);
	mutex_lock(&shim_fs_mutex);
	mutex_unlock(&shim_fs_mutex);
	fs_reclaim_release(GFP_KERNEL);
	rc = shim_cpt_init();
	if (rc)
		goto no_cpts;
	rc = shim_pattern_init();
	if (rc)
		goto no_cpts;
	shim.wq = alloc_workqueue("lnet_shim", WQ_UNBOUND, 0);
	if (!shim.wq) {
		rc = -ENOMEM;
		goto no_queue;
	}
	rc = shim_control_init();
	if (rc)
		goto no_control;
	shim_monitor_start();
	return 0;
no_control:
	shim_control_exit();
	destroy_workqueue(shim.wq);
no_queue:
	shim_pattern_exit();
no_cpts:
	shim_cpt_exit();
	return rc;
}

static void __exit shim_exit(void)
{
	enum shim_counter left[] = { SHIM_messages, SHIM_operations, SHIM_memories };
	int i;

	shim_control_exit();
	shim_jobs_forget();
	shim_monitor_stop();
	destroy_workqueue(shim.wq);
	for (i = 0; i < ARRAY_SIZE(left); i++)
		if (atomic64_read(&shim.counters[left[i]]))
			shim_fault("%lld of kind %d are left", atomic64_read(&shim.counters[left[i]]), i);
	if (shim.lnd || !list_empty(&shim.nis))
		shim_fault("a driver or NIs are left");
	shim_pattern_exit();
	shim_cpt_exit();
}

module_init(shim_init);
module_exit(shim_exit);
MODULE_DESCRIPTION("Plays the part of Lustre's LNet in tests of a socket driver");
MODULE_VERSION("2.17.57_shim");
MODULE_LICENSE("GPL");
