/* SPDX-License-Identifier: GPL-2.0 */
/* Kinds of networks, and NIDs as text. */
#ifndef SHIM_NIDSTR_H
#define SHIM_NIDSTR_H

#include <uapi/linux/lnet/lnet-types.h>

enum {
	SOCKLND = 2,
	O2IBLND = 5,
	LOLND = 9,
};

#define LNET_NIDSTR_SIZE 64

char *libcfs_nidstr_r(const struct lnet_nid *nid, char *buf, __kernel_size_t size);
/* In one of a few buffers that are used in turn. */
char *libcfs_nidstr(const struct lnet_nid *nid);

#endif
