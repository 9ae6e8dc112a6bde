/* SPDX-License-Identifier: GPL-2.0 */
/* Commands that reach a driver, and what goes with them. */
#ifndef SHIM_LIBCFS_IOCTL_H
#define SHIM_LIBCFS_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define IOC_LIBCFS_REGISTER_MYNID _IOWR('e', 70, long)
#define IOC_LIBCFS_CLOSE_CONNECTION _IOWR('e', 71, long)
#define IOC_LIBCFS_PUSH_CONNECTION _IOWR('e', 72, long)
#define IOC_LIBCFS_GET_CONN _IOWR('e', 73, long)
#define IOC_LIBCFS_DEL_PEER _IOWR('e', 74, long)
#define IOC_LIBCFS_ADD_PEER _IOWR('e', 75, long)
#define IOC_LIBCFS_GET_PEER _IOWR('e', 76, long)
#define IOC_LIBCFS_ADD_INTERFACE _IOWR('e', 78, long)
#define IOC_LIBCFS_DEL_INTERFACE _IOWR('e', 79, long)
#define IOC_LIBCFS_GET_INTERFACE _IOWR('e', 80, long)

struct libcfs_ioctl_data {
	__u32 ioc_u32[7];
	__u32 ioc_flags;
	__u64 shim_gap;
	__u32 ioc_net;
	__u32 ioc_count;
	__u64 ioc_nid;
	__u64 ioc_u64[1];
};

#endif
