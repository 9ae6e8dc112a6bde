/* SPDX-License-Identifier: GPL-2.0 */
/* What can be tuned. The order is not Lustre's, and there are fields between. */
#ifndef SHIM_LNET_DLC_H
#define SHIM_LNET_DLC_H

#include <uapi/linux/lnet/lnet-types.h>

enum lnet_commands {
	LNET_CMD_UNSPEC = 0,
	LNET_CMD_CONFIGURE = 1,
	LNET_CMD_NETS = 2,
};

struct lnet_ioctl_config_lnd_cmn_tunables {
	__u64 shim_front;
	__s32 lct_max_tx_credits;
	__s32 lct_peer_rtr_credits;
	__s32 lct_peer_tx_credits;
	__s32 lct_peer_timeout;
	__u32 lct_version;
};

struct lnet_ioctl_config_socklnd_tunables {
	__s16 lnd_tos;
	__u16 lnd_conns_per_peer;
	__u64 shim_gap;
	__u32 lnd_timeout;
	__u32 lnd_version;
};

struct lnet_lnd_tunables {
	__u32 shim_front;
	union {
		struct lnet_ioctl_config_socklnd_tunables lnd_sock;
		__u8 shim_room[96];
	} lnd_tun_u;
};

struct lnet_ioctl_config_lnd_tunables {
	struct lnet_lnd_tunables lt_tun;
	struct lnet_ioctl_config_lnd_cmn_tunables lt_cmn;
};

#endif
