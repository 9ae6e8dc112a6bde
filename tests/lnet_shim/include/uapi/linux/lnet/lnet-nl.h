/* SPDX-License-Identifier: GPL-2.0 */
/* What netlink messages are made of. */
#ifndef SHIM_LNET_NL_H
#define SHIM_LNET_NL_H

#include <linux/types.h>

enum lnet_nl_key_format {
	LNKF_FLOW = 1,
	LNKF_MAPPING = 2,
	LNKF_SEQUENCE = 4,
};

enum lnet_nl_scalar_attrs {
	LN_SCALAR_ATTR_UNSPEC = 0,
	LN_SCALAR_ATTR_PAD = LN_SCALAR_ATTR_UNSPEC,
	LN_SCALAR_ATTR_LIST,
	LN_SCALAR_ATTR_LIST_SIZE,
	LN_SCALAR_ATTR_INDEX,
	LN_SCALAR_ATTR_NLA_TYPE,
	LN_SCALAR_ATTR_VALUE,
	LN_SCALAR_ATTR_INT_VALUE,
	LN_SCALAR_ATTR_KEY_FORMAT,
};

struct ln_key_props {
	__u16 lkp_data_type;
	__u16 lkp_key_format;
	char *lkp_value;
};

struct ln_key_list {
	__u16 lkl_maxattr;
	struct ln_key_props lkl_list[];
};

#endif
