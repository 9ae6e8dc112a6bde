/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What lib_linux needs from C: functions for what the kernel only offers as macros and inline
 * functions, and for every field of struct sock and its derivatives, whose layout bindgen gets
 * wrong in some configurations. Read by the C compiler and by bindgen.
 */
#ifndef _SOCKLND_HELPERS_H
#define _SOCKLND_HELPERS_H

#include <linux/types.h>
#include <linux/wait.h>

struct dentry;
struct file_operations;
struct net;
struct page;
struct sock;
struct socket;
struct ubuf_info;
struct xxh64_state;

/* The functions that TCP calls when something happens to a socket, but for sk_error_report. */
struct socklnd_sk_callbacks {
	void (*data_ready)(struct sock *sk);
	void (*write_space)(struct sock *sk);
	void (*state_change)(struct sock *sk);
};

/* Who in the kernel has a socket. */
enum socklnd_owner {
	SOCKLND_OWNER_NONE,
	/* The sockmap of a BPF program. */
	SOCKLND_OWNER_PSOCK,
	/* A protocol on top of TCP, such as TLS. */
	SOCKLND_OWNER_ULP,
	/* Another module, or we. */
	SOCKLND_OWNER_OTHER,
};

/* Network namespaces. */
struct net *socklnd_helper_current_net(void);
void socklnd_helper_net_passive_inc(struct net *net);
void socklnd_helper_net_passive_dec(struct net *net);
bool socklnd_helper_maybe_get_net(struct net *net);
void socklnd_helper_put_net(struct net *net);
bool socklnd_helper_net_admin_capable(struct net *net);
unsigned int socklnd_helper_net_inum(const struct net *net);
void *socklnd_helper_net_generic(const struct net *net, unsigned int id);

/* Addresses of devices; @ifaddr is a struct in_ifaddr, @ifaddr6 a struct inet6_ifaddr. */
bool socklnd_helper_inet_is_local(struct net *net, __be32 addr);
bool socklnd_helper_inet6_is_local(struct net *net, const u8 addr[16]);
int socklnd_helper_inet_prefix_len(struct net *net, __be32 addr);
int socklnd_helper_inet6_prefix_len(struct net *net, const u8 addr[16]);
int socklnd_helper_link_is_up(struct net *net, bool is_ipv6, const u8 addr[16]);
unsigned int socklnd_helper_link_speed(struct net *net, bool is_ipv6, const u8 addr[16]);
struct net *socklnd_helper_ifaddr_net(const void *ifaddr);
__be32 socklnd_helper_ifaddr_local(const void *ifaddr);
struct net *socklnd_helper_ifaddr6_net(const void *ifaddr6);
void socklnd_helper_ifaddr6_get(const void *ifaddr6, u8 addr[16]);

/* Sockets: without the socket lock. */
struct sock *socklnd_helper_sock_sk(const struct socket *sock);
int socklnd_helper_sk_state(const struct sock *sk);
int socklnd_helper_sk_take_error(struct sock *sk);
int socklnd_helper_sk_err(const struct sock *sk);
bool socklnd_helper_sk_can_zerocopy(const struct sock *sk);
bool socklnd_helper_ubuf_disown(struct ubuf_info *ubuf);
int socklnd_helper_sk_wmem_queued(const struct sock *sk);
bool socklnd_helper_sk_stream_is_writeable(const struct sock *sk);
bool socklnd_helper_sk_has_input(const struct sock *sk);
void socklnd_helper_sk_set_rcvlowat(struct sock *sk, int bytes);
bool socklnd_helper_tcp_is_ready(const struct sock *sk);
unsigned int socklnd_helper_tcp_available(const struct sock *sk);
int socklnd_helper_sk_sndbuf(const struct sock *sk);
int socklnd_helper_sk_rcvbuf(const struct sock *sk);
int socklnd_helper_sk_incoming_cpu(const struct sock *sk);
bool socklnd_helper_tcp_nodelay(const struct sock *sk);
bool socklnd_helper_sk_keepalive(const struct sock *sk);
int socklnd_helper_tcp_keepidle(const struct sock *sk);
int socklnd_helper_tcp_keepintvl(const struct sock *sk);
int socklnd_helper_tcp_keepcnt(const struct sock *sk);
unsigned int socklnd_helper_tcp_rcv_wscale(const struct sock *sk);
int socklnd_helper_sk_tos(const struct sock *sk);
gfp_t socklnd_helper_sk_allocation(const struct sock *sk);

/* Sockets: whose they are. */
int socklnd_helper_sk_claim(struct sock *sk);
void socklnd_helper_sk_disclaim(struct sock *sk);

/* Sockets of programs. */
void socklnd_helper_sockfd_put(struct socket *sock);
bool socklnd_helper_sk_is_tcp(const struct sock *sk);
bool socklnd_helper_sk_in_net(const struct sock *sk, const struct net *net);
void socklnd_helper_sk_peername(const struct sock *sk, void *addr);
bool socklnd_helper_sock_is_unshared(const struct socket *sock);
bool socklnd_helper_sock_put_unless_last(struct socket *sock);
int socklnd_helper_sock_create_like(const struct socket *like, struct socket **sock);
int socklnd_helper_sock_take(struct socket *from, struct socket *to);

/* Sockets: the socket lock is held. */
void socklnd_helper_sk_set_allocation(struct sock *sk, gfp_t allocation);
void socklnd_helper_sk_no_task_frag(struct sock *sk);
void socklnd_helper_sk_no_linger(struct sock *sk);
void socklnd_helper_sk_set_reuseaddr(struct sock *sk, bool on);
void socklnd_helper_sk_set_sndbuf(struct sock *sk, int bytes);
void socklnd_helper_sk_unlock_sndbuf(struct sock *sk);
void socklnd_helper_sk_unlock_rcvbuf(struct sock *sk);
void socklnd_helper_tcp_reset_sndbuf(struct sock *sk);
void socklnd_helper_tcp_reset_rcvbuf(struct sock *sk);
void socklnd_helper_sk_set_keepalive(struct sock *sk, bool on);
void socklnd_helper_tcp_set_linger2(struct sock *sk, int value);
void socklnd_helper_tcp_set_user_timeout(struct sock *sk, unsigned int ms);
void socklnd_helper_tcp_send_ack(struct sock *sk);
void socklnd_helper_tcp_clear_nodelay(struct sock *sk);
void socklnd_helper_ipv6_set_tclass(struct sock *sk, int tclass);

/* Sockets: callbacks. */
void socklnd_helper_sk_callback_read_lock_bh(struct sock *sk);
void socklnd_helper_sk_callback_read_unlock_bh(struct sock *sk);
void socklnd_helper_sk_callback_write_lock_bh(struct sock *sk);
void socklnd_helper_sk_callback_write_unlock_bh(struct sock *sk);
void *socklnd_helper_sk_user_data(const struct sock *sk);
void socklnd_helper_sk_set_user_data(struct sock *sk, void *data);
void socklnd_helper_sk_get_callbacks(const struct sock *sk, struct socklnd_sk_callbacks *to);
void socklnd_helper_sk_set_callbacks(struct sock *sk, const struct socklnd_sk_callbacks *from);

/* Sockets: their wait queues. */
void socklnd_helper_sk_add_wait(struct sock *sk, struct wait_queue_entry *entry,
				wait_queue_func_t func);
void socklnd_helper_sk_remove_wait(struct sock *sk, struct wait_queue_entry *entry);

/* Sockets: lock classes. */
void socklnd_helper_sk_lock_class_own(struct sock *sk);
void socklnd_helper_sk_lock_class_kernel(struct sock *sk);

/* Memory. */
unsigned int socklnd_helper_memalloc_nofs_save(void);
void socklnd_helper_memalloc_nofs_restore(unsigned int flags);
void *socklnd_helper_page_frag_alloc(unsigned int size);
void socklnd_helper_page_frag_drain(void);
struct page *socklnd_helper_virt_to_page(const void *address);
void socklnd_helper_memcpy_from_page(void *to, struct page *page, size_t offset, size_t len);
void socklnd_helper_memcpy_to_page(struct page *page, size_t offset, const void *from, size_t len);
void socklnd_helper_xxh64_update_page(struct xxh64_state *state, struct page *page, size_t offset,
				      size_t len);
u32 socklnd_helper_crc32_page(u32 crc, struct page *page, size_t offset, size_t len);
void socklnd_helper_memmove_page(struct page *to, size_t to_offset, struct page *from,
				 size_t from_offset, size_t len);
bool socklnd_helper_sendpage_ok(struct page *page);

/* Files in debugfs. */
struct dentry *socklnd_helper_debugfs_create_dir(const char *name);
void socklnd_helper_debugfs_create_file(const char *name, umode_t mode, struct dentry *parent,
					void *data, const struct file_operations *fops);
void socklnd_helper_debugfs_remove(struct dentry *dentry);

/* The rest. */
u64 socklnd_helper_siphash(const u64 *words, size_t count, u64 key0, u64 key1);
bool socklnd_helper_cpu_online(unsigned int cpu);
bool socklnd_helper_cpu_possible(unsigned int cpu);
int socklnd_helper_cpu_to_node(unsigned int cpu);
unsigned long socklnd_helper_totalram_pages(void);
int socklnd_helper_kthread_prefers(struct task_struct *task, unsigned int cpu);
bool socklnd_helper_cpus_share_core(unsigned int a, unsigned int b);
void socklnd_helper_param_lock(void);
void socklnd_helper_param_unlock(void);
bool socklnd_helper_is_module_loaded(const char *name);
void socklnd_helper_cond_resched(void);
void socklnd_helper_synchronize_rcu_tasks(void);

#endif /* _SOCKLND_HELPERS_H */
