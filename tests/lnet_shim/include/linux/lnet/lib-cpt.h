/* SPDX-License-Identifier: GPL-2.0 */
/* Partitions of processors. */
#ifndef SHIM_LIB_CPT_H
#define SHIM_LIB_CPT_H

#include <linux/cpumask.h>

#define CFS_CPT_ANY (-1)

struct cfs_cpt_table;

int cfs_cpt_number(struct cfs_cpt_table *table);
int cfs_cpt_weight(struct cfs_cpt_table *table, int cpt);
cpumask_var_t *cfs_cpt_cpumask(struct cfs_cpt_table *table, int cpt);
int cfs_cpt_of_cpu(struct cfs_cpt_table *table, int cpu);
int cfs_cpt_of_node(struct cfs_cpt_table *table, int node);
int cfs_cpt_current(struct cfs_cpt_table *table, int remap);
int cfs_cpt_bind(struct cfs_cpt_table *table, int cpt);

#endif
