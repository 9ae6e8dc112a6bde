/* SPDX-License-Identifier: GPL-2.0 */
/* The debug log: here it is the kernel's. */
#ifndef SHIM_LIBCFS_DEBUG_H
#define SHIM_LIBCFS_DEBUG_H

#include <linux/bug.h>
#include <linux/printk.h>

#define S_UNDEFINED 0x00000001
#define S_LND 0x00000800
#ifndef DEBUG_SUBSYSTEM
#define DEBUG_SUBSYSTEM S_UNDEFINED
#endif

#define D_TRACE 0x00000001
#define D_INODE 0x00000002
#define D_SUPER 0x00000004
#define D_IOCTL 0x00000080
#define D_INFO 0x00000400
#define D_NET 0x00000200
#define D_WARNING 0x00000400
#define D_NETERROR 0x00000100
#define D_ERROR 0x00020000
#define D_EMERG 0x00040000
#define D_CONSOLE 0x02000000
#define D_CONFIG 0x01000000

extern unsigned int libcfs_debug;
extern unsigned int libcfs_subsystem_debug;

__printf(2, 3) void shim_debug(unsigned int mask, const char *format, ...);

#define CDEBUG(mask, format, ...)                                                   \
	do {                                                                        \
		if (libcfs_debug & (mask) && libcfs_subsystem_debug & DEBUG_SUBSYSTEM) \
			shim_debug(mask, format, ##__VA_ARGS__);                    \
	} while (0)
#define CDEBUG_LIMIT(mask, format, ...) CDEBUG(mask, format, ##__VA_ARGS__)
#define CWARN(format, ...) CDEBUG(D_WARNING, format, ##__VA_ARGS__)
#define CERROR(format, ...) CDEBUG(D_ERROR, format, ##__VA_ARGS__)
#define CNETERR(format, ...) CDEBUG(D_NETERROR, format, ##__VA_ARGS__)
#define LCONSOLE_INFO(format, ...) CDEBUG(D_CONSOLE, format, ##__VA_ARGS__)
#define LCONSOLE_WARN(format, ...) CDEBUG(D_CONSOLE | D_WARNING, format, ##__VA_ARGS__)
#define LCONSOLE_ERROR(format, ...) CDEBUG(D_CONSOLE | D_ERROR, format, ##__VA_ARGS__)

#define LASSERT(condition) BUG_ON(!(condition))
#define LASSERTF(condition, format, ...) BUG_ON(!(condition))

#endif
