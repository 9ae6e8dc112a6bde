// SPDX-License-Identifier: GPL-2.0
/*
 * How scenarios steer the shim, and what they see: files in debugfs's lnet_shim.
 *
 * A command is written to `control`, as a verb and what goes with it, each as name=value; the same handle then has the
 * answer to be read. Nothing here is shared but with the rest of the shim; an answer belongs to its handle.
 *
 *   add net=tcp if=eth0 nid=10.0.0.1@tcp cpt=0 conns=2 tos=8 credits=64 peer_credits=8   in the caller's namespace
 *   del nid=            start deleting, until the driver has given everything back
 *   show nid=           how it is
 *   send from= to= via= op=put|get|ping ack=1 size= count= in_flight= timeout= context= kind=    answers with the job
 *   job id=             what has become of it
 *   forget              all jobs, when they have ended
 *   release             has lnd_recv called for what is held; drop=1 with nothing to receive into
 *   ctl nid= nr= peer= count= net= u0= ... u6=      an ioctl
 *   nlset nid= type= value=  |  nlget nid=          as netlink does, on a living NI
 *   conns nid= value=   behind the driver's back
 *   counters            are set to 0 but for those of what exists
 */
#include <linux/debugfs.h>
#include <linux/inet.h>
#include <linux/module.h>
#include <linux/nsproxy.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <uapi/linux/lnet/libcfs_ioctl.h>
#include "shim.h"

#define ANSWER 2048
#define MOST_WORDS 24

static struct dentry *folder;

struct command {
	char *words[MOST_WORDS];
	int count;
	char *answer;
};

static const char *value_of(struct command *command, const char *name)
{
	size_t length = strlen(name);
	int i;

	for (i = 1; i < command->count; i++)
		if (!strncmp(command->words[i], name, length) && command->words[i][length] == '=')
			return command->words[i] + length + 1;
	return NULL;
}

static s64 number_of(struct command *command, const char *name, s64 otherwise)
{
	const char *text = value_of(command, name);
	s64 value;

	return text && !kstrtos64(text, 0, &value) ? value : otherwise;
}

static int net_of(const char *text, u32 *net)
{
	u32 kind, number = 0;

	if (!strncmp(text, "tcp", 3)) {
		kind = SOCKLND;
		text += 3;
	} else if (!strncmp(text, "o2ib", 4)) {
		kind = O2IBLND;
		text += 4;
	} else {
		return -EINVAL;
	}
	if (*text && (kstrtou32(text, 10, &number) || number > 0xffff))
		return -EINVAL;
	*net = LNET_MKNET(kind, number);
	return 0;
}

static int nid_of(struct command *command, const char *name, struct lnet_nid *nid)
{
	const char *text = value_of(command, name);
	const char *at = text ? strchr(text, '@') : NULL;
	u32 net;

	memset(nid, 0, sizeof(*nid));
	if (text && !strcmp(text, "any")) {
		*nid = LNET_ANY_NID;
		return 0;
	}
	if (!at || net_of(at + 1, &net))
		return -EINVAL;
	if (in4_pton(text, at - text, (u8 *)nid->nid_addr, -1, NULL))
		nid->nid_size = 0;
	else if (in6_pton(text, at - text, (u8 *)nid->nid_addr, -1, NULL))
		nid->nid_size = 12;
	else
		return -EINVAL;
	nid->nid_type = LNET_NETTYP(net);
	nid->nid_num = cpu_to_be16(LNET_NETNUM(net));
	return 0;
}

/* The NI that a command names, which must be in the caller's namespace; referred to. */
static struct shim_ni *ni_of(struct command *command, const char *name)
{
	struct shim_ni *sni;
	struct lnet_nid nid;
	int rc = nid_of(command, name, &nid);

	if (rc)
		return ERR_PTR(rc);
	sni = shim_ni_find(&nid, current->nsproxy->net_ns);
	return sni ?: ERR_PTR(-ENOENT);
}

static int add(struct command *command)
{
	const char *net = value_of(command, "net"), *interface = value_of(command, "if");
	char name[LNET_NIDSTR_SIZE];
	struct shim_ni_wish wish = {
		.interface = interface,
		.cpt = number_of(command, "cpt", 0),
		.has_cpt = !!value_of(command, "cpt"),
		.peer_credits = number_of(command, "peer_credits", -1),
		.credits = number_of(command, "credits", -1),
		.peer_timeout = number_of(command, "peer_timeout", -1),
		.conns = number_of(command, "conns", -1),
		.tos = number_of(command, "tos", -1),
		.has_nid = !!value_of(command, "nid"),
	};
	struct shim_ni *sni;

	if (net_of(net ?: "tcp", &wish.net_id) || (wish.has_nid && nid_of(command, "nid", &wish.nid)))
		return -EINVAL;
	if (wish.has_nid)
		wish.net_id = LNET_NID_NET(&wish.nid);
	sni = shim_ni_add(&wish);
	if (IS_ERR(sni))
		return PTR_ERR(sni);
	/* The reference of those that are published stays until it is deleted. */
	scnprintf(command->answer, ANSWER, "%s\n", libcfs_nidstr_r(&sni->ni.ni_nid, name, sizeof(name)));
	return 0;
}

static int del(struct command *command)
{
	struct shim_ni *sni = ni_of(command, "nid");

	return IS_ERR(sni) ? PTR_ERR(sni) : shim_ni_del(sni);
}

static int show(struct command *command)
{
	struct shim_ni *sni = ni_of(command, "nid");
	struct lnet_ioctl_config_socklnd_tunables *own;
	struct lnet_ioctl_config_lnd_cmn_tunables *common;

	if (IS_ERR(sni))
		return PTR_ERR(sni);
	own = &sni->ni.ni_lnd_tunables.lnd_tun_u.lnd_sock;
	common = &sni->net.net_tunables;
	spin_lock(&shim.lock);
	/* Not counting this one, and that of those that are published. */
	scnprintf(command->answer, ANSWER,
		  "interface %s\nfatal %d\nreferences %u\ncredits %d\nmax_credits %d\npeer_credits %d\npeer_timeout %d\n"
		  "rtr_credits %d\nconns_per_peer %u\ntos %d\ntimeout %u\nunder_way %u\ncpts %d\ndev_cpt %d\n",
		  sni->ni.ni_interface, atomic_read(&sni->ni.ni_fatal_error_on), sni->refs - 2, sni->credits, sni->max_credits,
		  sni->peer_credits, common->lct_peer_timeout, common->lct_peer_rtr_credits, own->lnd_conns_per_peer, own->lnd_tos,
		  own->lnd_timeout, sni->under_way, sni->ni.ni_ncpts, sni->ni.ni_dev_cpt);
	spin_unlock(&shim.lock);
	shim_ni_put(sni);
	return 0;
}

static int send(struct command *command)
{
	const char *op = value_of(command, "op");
	struct shim_recipe recipe = {
		.is_ping = op && !strcmp(op, "ping"),
		.is_get = op && strcmp(op, "put"),
		.wants_ack = number_of(command, "ack", 0),
		.size = number_of(command, "size", -1),
		.count = number_of(command, "count", 1),
		.in_flight = max_t(s64, 1, number_of(command, "in_flight", 1)),
		.timeout_s = number_of(command, "timeout", 60),
		.context = number_of(command, "context", -1),
		.kind = number_of(command, "kind", -1),
	};
	struct shim_job *job;

	if (nid_of(command, "to", &recipe.to) || (recipe.size != (u32)-1 && recipe.size > LNET_MTU) || recipe.kind >= SHIM_KINDS)
		return -EINVAL;
	recipe.via = recipe.to;
	if (value_of(command, "via") && nid_of(command, "via", &recipe.via))
		return -EINVAL;
	recipe.from = ni_of(command, "from");
	if (IS_ERR(recipe.from))
		return PTR_ERR(recipe.from);
	job = shim_job_start(&recipe);
	if (IS_ERR(job)) {
		shim_ni_put(recipe.from);
		return PTR_ERR(job);
	}
	scnprintf(command->answer, ANSWER, "%u\n", job->id);
	return 0;
}

static int tell_job(struct command *command)
{
	struct shim_job *job = shim_job_find(number_of(command, "id", 0));

	if (!job)
		return -ENOENT;
	scnprintf(command->answer, ANSWER, "over %d\nbegun %d\nunder_way %d\ngood %d\nfailed %d\nlost %d\ncorrupt %d\n", job->over,
		  atomic_read(&job->begun), atomic_read(&job->under_way), atomic_read(&job->good), atomic_read(&job->failed),
		  atomic_read(&job->lost), atomic_read(&job->corrupt));
	return 0;
}

static int ctl(struct command *command)
{
	struct shim_ni *sni = ni_of(command, "nid");
	struct libcfs_ioctl_data data = {};
	struct lnet_nid peer = LNET_ANY_NID;
	char name[3] = "u0", nid[LNET_NIDSTR_SIZE];
	int i, rc;

	if (IS_ERR(sni))
		return PTR_ERR(sni);
	if (value_of(command, "peer"))
		nid_of(command, "peer", &peer);
	data.ioc_nid = lnet_nid_to_nid4(&peer);
	data.ioc_net = sni->net.net_id;
	data.ioc_count = number_of(command, "count", 0);
	data.ioc_flags = number_of(command, "flags", 0);
	for (i = 0; i < ARRAY_SIZE(data.ioc_u32); i++, name[1]++)
		data.ioc_u32[i] = number_of(command, name, 0);
	rc = shim.lnd->lnd_ctl(&sni->ni, _IOWR('e', number_of(command, "nr", 0), long), &data);
	shim_ni_put(sni);
	if (rc < 0)
		return rc;
	lnet_nid4_to_nid(data.ioc_nid, &peer);
	scnprintf(command->answer, ANSWER, "nid %s\ncount %u\nflags %u\nu0 %u\nu1 %u\nu2 %u\nu3 %u\nu4 %u\nu5 %u\nu6 %u\n",
		  libcfs_nidstr_r(&peer, nid, sizeof(nid)), data.ioc_count, data.ioc_flags, data.ioc_u32[0], data.ioc_u32[1],
		  data.ioc_u32[2], data.ioc_u32[3], data.ioc_u32[4], data.ioc_u32[5], data.ioc_u32[6]);
	return 0;
}

static int nl_set(struct command *command)
{
	struct shim_ni *sni = ni_of(command, "nid");
	int rc;

	if (IS_ERR(sni))
		return PTR_ERR(sni);
	rc = shim_nl_set(&sni->ni.ni_lnd_tunables, number_of(command, "type", 1), number_of(command, "value", 0),
			 !number_of(command, "text", 0));
	shim_ni_put(sni);
	return rc;
}

static int nl_get(struct command *command)
{
	struct shim_ni *sni = ni_of(command, "nid");
	int cmd = number_of(command, "cmd", LNET_CMD_NETS), rc, left, length = 0;
	struct nlattr *attr;
	struct sk_buff *skb;

	if (IS_ERR(sni))
		return PTR_ERR(sni);
	skb = nlmsg_new(512, GFP_KERNEL);
	if (!skb) {
		shim_ni_put(sni);
		return -ENOMEM;
	}
	spin_lock(&shim.lock);
	rc = shim.lnd->lnd_nl_get(cmd, skb, LNET_NET_LOCAL_NI_ATTR_LND_TUNABLES, &sni->ni, number_of(command, "backup", 0));
	spin_unlock(&shim.lock);
	left = skb->len;
	for (attr = (struct nlattr *)skb->data; nla_ok(attr, left); attr = nla_next(attr, &left)) {
		s64 value = nla_len(attr) == 4 ? nla_get_u32(attr) :
			    nla_type(attr) == 3 ? nla_get_s16(attr) : nla_get_u16(attr);

		length += scnprintf(command->answer + length, ANSWER - length, "attr%d %lld\n", nla_type(attr), value);
	}
	nlmsg_free(skb);
	shim_ni_put(sni);
	return rc;
}

static int set_conns(struct command *command)
{
	struct shim_ni *sni = ni_of(command, "nid");

	if (IS_ERR(sni))
		return PTR_ERR(sni);
	WRITE_ONCE(sni->ni.ni_lnd_tunables.lnd_tun_u.lnd_sock.lnd_conns_per_peer, number_of(command, "value", 1));
	shim_ni_put(sni);
	return 0;
}

static int forget(struct command *command)
{
	shim_jobs_forget();
	return 0;
}

static int release(struct command *command)
{
	shim_release(NULL, number_of(command, "drop", 0));
	return 0;
}

static int routers(struct command *command)
{
	WRITE_ONCE(shim.router_buffers, number_of(command, "buffers", 0));
	shim_router_fill();
	return 0;
}

static int clear_counters(struct command *command)
{
	int i;

	for (i = 0; i < SHIM_NR_COUNTERS; i++)
		if (i != SHIM_messages && i != SHIM_operations && i != SHIM_memories && i != SHIM_violations)
			atomic64_set(&shim.counters[i], 0);
	for (i = 0; i < LNET_MSG_STATUS_END; i++) {
		atomic64_set(&shim.sent_status[i], 0);
		atomic64_set(&shim.received_status[i], 0);
	}
	return 0;
}

static const struct {
	const char *verb;
	int (*act)(struct command *command);
} verbs[] = {
	{ "add", add }, { "del", del }, { "show", show }, { "send", send }, { "job", tell_job }, { "forget", forget },
	{ "release", release }, { "ctl", ctl }, { "nlset", nl_set }, { "nlget", nl_get }, { "conns", set_conns },
	{ "routers", routers }, { "counters", clear_counters },
};

static int open_control(struct inode *inode, struct file *file)
{
	file->private_data = kzalloc(ANSWER, GFP_KERNEL);
	return file->private_data ? 0 : -ENOMEM;
}

static int close_control(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static ssize_t write_control(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	struct command command = { .answer = file->private_data };
	char *text, *rest, *word;
	int i, rc = -EINVAL;

	if (size > ANSWER)
		return -EINVAL;
	text = memdup_user_nul(from, size);
	if (IS_ERR(text))
		return PTR_ERR(text);
	rest = strim(text);
	while ((word = strsep(&rest, " ")) && command.count < MOST_WORDS)
		if (*word)
			command.words[command.count++] = word;
	memset(command.answer, 0, ANSWER);
	for (i = 0; command.count && i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verbs[i].verb, command.words[0]))
			rc = verbs[i].act(&command);
	kfree(text);
	return rc ?: size;
}

static ssize_t read_control(struct file *file, char __user *to, size_t size, loff_t *at)
{
	loff_t start = 0;
	ssize_t length = simple_read_from_buffer(to, size, &start, file->private_data, strlen(file->private_data));

	/* It is read once. */
	if (length > 0)
		memset(file->private_data, 0, ANSWER);
	return length;
}

static const struct file_operations control_operations = {
	.owner = THIS_MODULE,
	.open = open_control,
	.read = read_control,
	.write = write_control,
	.release = close_control,
};

static const char *const names[] = {
#define X(name) #name,
	SHIM_COUNTERS(X)
#undef X
};

static int state_show(struct seq_file *file, void *context)
{
	char name[LNET_NIDSTR_SIZE];
	struct shim_ni *sni;
	int i;

	for (i = 0; i < SHIM_NR_COUNTERS; i++)
		seq_printf(file, "%s %lld\n", names[i], atomic64_read(&shim.counters[i]));
	for (i = 0; i < LNET_MSG_STATUS_END; i++)
		seq_printf(file, "sent_status_%d %lld\nreceived_status_%d %lld\n", i, atomic64_read(&shim.sent_status[i]), i,
			   atomic64_read(&shim.received_status[i]));
	seq_printf(file, "driver %d\n", !!shim.lnd);
	spin_lock(&shim.lock);
	list_for_each_entry(sni, &shim.nis, link)
		seq_printf(file, "ni %s %u\n", libcfs_nidstr_r(&sni->ni.ni_nid, name, sizeof(name)),
			   sni->ni.ni_net_ns->ns.inum);
	spin_unlock(&shim.lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(state);

int shim_control_init(void)
{
	static const struct {
		const char *name;
		u32 *value;
	} knobs[] = {
		{ "manner", &shim.manner }, { "delay_ms", &shim.delay_ms }, { "drop_every", &shim.drop_every },
		{ "refuse", &shim.refuse }, { "refuse_errno", &shim.refuse_errno }, { "simulate", &shim.simulate },
		{ "simulate_every", &shim.simulate_every }, { "resend", &shim.resend }, { "sleepy", &shim.sleepy },
	};
	int i;

	folder = debugfs_create_dir("lnet_shim", NULL);
	debugfs_create_file("control", 0600, folder, NULL, &control_operations);
	debugfs_create_file("state", 0400, folder, NULL, &state_fops);
	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		debugfs_create_u32(knobs[i].name, 0600, folder, knobs[i].value);
	return PTR_ERR_OR_ZERO(folder);
}

void shim_control_exit(void)
{
	debugfs_remove(folder);
}
