/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads: headers that the kernel crate's own bindings leave out, our helpers, and the
 * facts about C's layout that lib_linux/sys.rs compares with Rust's.
 */
#include <linux/hrtimer_types.h>

#include <linux/bvec.h>
#include <linux/crc32.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/inetdevice.h>
#include <linux/moduleparam.h>
#include <linux/net.h>
#include <linux/seq_file.h>
#include <linux/skbuff.h>
#include <linux/socket.h>
#include <linux/stddef.h>
#include <linux/sysctl.h>
#include <linux/uio.h>
#include <linux/xxhash.h>
#include <net/addrconf.h>
#include <net/ip.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "helpers/helpers.h"

const gfp_t RUST_CONST_HELPER_GFP_NOFS = GFP_NOFS;
const unsigned long RUST_CONST_HELPER_NETDEV_DOWN = NETDEV_DOWN;

/*
 * Clang computes these while bindgen reads the header; bindgen's own idea of the same structs is
 * not involved.
 */
#define LAYOUT_SIZE(type) \
	const size_t RUST_CONST_HELPER_SIZEOF_##type = sizeof(struct type)
#define LAYOUT_FIELD(type, field) \
	const size_t RUST_CONST_HELPER_OFFSETOF_##type##_##field = offsetof(struct type, field)

LAYOUT_SIZE(bio_vec);
LAYOUT_FIELD(bio_vec, bv_page);
LAYOUT_FIELD(bio_vec, bv_len);
LAYOUT_FIELD(bio_vec, bv_offset);
LAYOUT_SIZE(completion);
LAYOUT_SIZE(ctl_table);
LAYOUT_FIELD(ctl_table, procname);
LAYOUT_FIELD(ctl_table, data);
LAYOUT_FIELD(ctl_table, maxlen);
LAYOUT_FIELD(ctl_table, mode);
LAYOUT_FIELD(ctl_table, proc_handler);
LAYOUT_FIELD(ctl_table, extra1);
LAYOUT_FIELD(ctl_table, extra2);
LAYOUT_FIELD(file, private_data);
LAYOUT_SIZE(file_operations);
LAYOUT_FIELD(file_operations, owner);
LAYOUT_FIELD(file_operations, llseek);
LAYOUT_FIELD(file_operations, read);
LAYOUT_FIELD(file_operations, write);
LAYOUT_FIELD(file_operations, open);
LAYOUT_FIELD(file_operations, release);
LAYOUT_FIELD(inode, i_private);
LAYOUT_SIZE(iov_iter);
LAYOUT_SIZE(kernel_param);
LAYOUT_FIELD(kernel_param, arg);
LAYOUT_SIZE(kvec);
LAYOUT_FIELD(kvec, iov_base);
LAYOUT_FIELD(kvec, iov_len);
LAYOUT_SIZE(msghdr);
LAYOUT_FIELD(msghdr, msg_iter);
LAYOUT_FIELD(msghdr, msg_flags);
LAYOUT_FIELD(msghdr, msg_ubuf);
LAYOUT_SIZE(notifier_block);
LAYOUT_FIELD(notifier_block, notifier_call);
LAYOUT_SIZE(pernet_operations);
LAYOUT_FIELD(pernet_operations, init);
LAYOUT_FIELD(pernet_operations, exit);
LAYOUT_FIELD(pernet_operations, id);
LAYOUT_FIELD(pernet_operations, size);
LAYOUT_SIZE(sockaddr_in);
LAYOUT_FIELD(sockaddr_in, sin_family);
LAYOUT_FIELD(sockaddr_in, sin_port);
LAYOUT_FIELD(sockaddr_in, sin_addr);
LAYOUT_SIZE(sockaddr_in6);
LAYOUT_FIELD(sockaddr_in6, sin6_family);
LAYOUT_FIELD(sockaddr_in6, sin6_port);
LAYOUT_FIELD(sockaddr_in6, sin6_flowinfo);
LAYOUT_FIELD(sockaddr_in6, sin6_addr);
LAYOUT_FIELD(sockaddr_in6, sin6_scope_id);
LAYOUT_FIELD(seq_file, private);
LAYOUT_SIZE(ubuf_info);
LAYOUT_SIZE(ubuf_info_msgzc);
LAYOUT_FIELD(ubuf_info, ops);
LAYOUT_FIELD(ubuf_info, refcnt);
LAYOUT_FIELD(ubuf_info, flags);
LAYOUT_SIZE(ubuf_info_ops);
LAYOUT_FIELD(ubuf_info_ops, complete);
LAYOUT_FIELD(ubuf_info_ops, link_skb);
const size_t RUST_CONST_HELPER_SIZEOF_sockaddr_storage = sizeof(struct __kernel_sockaddr_storage);
