/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SHIM_LIBCFS_H
#define SHIM_LIBCFS_H

#include <linux/libcfs/libcfs_debug.h>
#include <linux/libcfs/libcfs_private.h>

/* May be called again and again. */
int libcfs_setup(void);

#endif
