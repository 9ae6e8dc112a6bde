// SPDX-License-Identifier: GPL-2.0
/* Hashing, processors, threads, parameters. */
#include <linux/cpumask.h>
#include <linux/kobject.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/siphash.h>
#include <linux/topology.h>

#include "helpers.h"

u64 socklnd_helper_siphash(const u64 *words, size_t count, u64 key0, u64 key1)
{
	const siphash_key_t key = { .key = { key0, key1 } };

	/* siphash() does this itself only for a count that is known at build time. */
	if (count == 1)
		return siphash_1u64(le64_to_cpup((const __le64 *)words), &key);
	return siphash(words, count * sizeof(*words), &key);
}

bool socklnd_helper_cpu_online(unsigned int cpu)
{
	return cpu < nr_cpu_ids && cpu_online(cpu);
}

bool socklnd_helper_cpu_possible(unsigned int cpu)
{
	return cpu_possible(cpu);
}

int socklnd_helper_cpu_to_node(unsigned int cpu)
{
	return cpu_to_node(cpu);
}

unsigned long socklnd_helper_totalram_pages(void)
{
	return totalram_pages();
}

int socklnd_helper_kthread_prefers(struct task_struct *task, unsigned int cpu)
{
	return kthread_affine_preferred(task, cpumask_of(cpu));
}

bool socklnd_helper_cpus_share_core(unsigned int a, unsigned int b)
{
	return a < nr_cpu_ids && b < nr_cpu_ids &&
	       cpumask_test_cpu(b, topology_sibling_cpumask(a));
}

/* The lock of this module's parameters, which the kernel holds while it sets one. */
void socklnd_helper_param_lock(void)
{
	kernel_param_lock(THIS_MODULE);
}

void socklnd_helper_param_unlock(void)
{
	kernel_param_unlock(THIS_MODULE);
}

/* Modules are in the set that this one is in. */
bool socklnd_helper_is_module_loaded(const char *name)
{
	struct kobject *kobj = kset_find_obj(THIS_MODULE->mkobj.kobj.kset, name);
	bool loaded;

	if (!kobj)
		return false;
	/* Those that are built in are there for their parameters alone. */
	loaded = container_of(kobj, struct module_kobject, kobj)->mod;
	kobject_put(kobj);
	return loaded;
}

void socklnd_helper_cond_resched(void)
{
	cond_resched();
}

void socklnd_helper_synchronize_rcu_tasks(void)
{
	synchronize_rcu_tasks();
}
