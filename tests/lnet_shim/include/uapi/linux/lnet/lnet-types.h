/* SPDX-License-Identifier: GPL-2.0 */
/* Identifiers of nodes. */
#ifndef SHIM_LNET_TYPES_H
#define SHIM_LNET_TYPES_H

#include <linux/string.h>
#include <linux/types.h>
#include <asm/byteorder.h>
#include <uapi/linux/lnet/lnet-idl.h>

#define LNET_PID_LUSTRE 12345
#define LNET_PID_RESERVED 0xf0000000
#define LNET_PID_USERFLAG 0x80000000
#define LNET_PID_ANY ((lnet_pid_t)-1)
#define LNET_NID_ANY ((lnet_nid_t)-1)
#define LNET_NET_ANY ((__u32)-1)
#define LNET_RESERVED_PORTAL 0
#define LNET_WIRE_HANDLE_COOKIE_NONE (-1ULL)
#define LNET_ANY_NID ((struct lnet_nid){ 0xff, 0xff, (__be16)~0, { ~0, ~0, ~0, ~0 } })

struct lnet_processid {
	lnet_pid_t pid;
	struct lnet_nid nid;
};

static inline __u32 LNET_MKNET(__u32 type, __u32 num)
{
	return type << 16 | num;
}

static inline __u32 LNET_NETTYP(__u32 net)
{
	return net >> 16 & 0xff;
}

static inline __u32 LNET_NETNUM(__u32 net)
{
	return net & 0xffff;
}

static inline __u32 LNET_NIDNET(lnet_nid_t nid)
{
	return nid >> 32;
}

static inline __u32 LNET_NIDADDR(lnet_nid_t nid)
{
	return (__u32)nid;
}

static inline lnet_nid_t LNET_MKNID(__u32 net, __u32 addr)
{
	return (__u64)net << 32 | addr;
}

static inline int LNET_NID_IS_ANY(const struct lnet_nid *nid)
{
	return !nid || nid->nid_type == 0xff;
}

static inline bool nid_is_nid4(const struct lnet_nid *nid)
{
	return !nid->nid_size;
}

static inline __u32 LNET_NID_NET(const struct lnet_nid *nid)
{
	return LNET_NID_IS_ANY(nid) ? LNET_NET_ANY : LNET_MKNET(nid->nid_type, __be16_to_cpu(nid->nid_num));
}

static inline int nid_same(const struct lnet_nid *one, const struct lnet_nid *two)
{
	return !memcmp(one, two, sizeof(*one));
}

static inline void lnet_nid4_to_nid(lnet_nid_t short_form, struct lnet_nid *nid)
{
	if (short_form == LNET_NID_ANY) {
		*nid = LNET_ANY_NID;
		return;
	}
	memset(nid, 0, sizeof(*nid));
	nid->nid_type = LNET_NETTYP(LNET_NIDNET(short_form));
	nid->nid_num = __cpu_to_be16(LNET_NETNUM(LNET_NIDNET(short_form)));
	nid->nid_addr[0] = __cpu_to_be32(LNET_NIDADDR(short_form));
}

static inline lnet_nid_t lnet_nid_to_nid4(const struct lnet_nid *nid)
{
	return LNET_NID_IS_ANY(nid) ? LNET_NID_ANY : LNET_MKNID(LNET_NID_NET(nid), __be32_to_cpu(nid->nid_addr[0]));
}

#endif
