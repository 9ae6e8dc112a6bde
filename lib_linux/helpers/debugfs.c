// SPDX-License-Identifier: GPL-2.0
/* Files in debugfs. */
#include <linux/debugfs.h>

#include "helpers.h"

struct dentry *socklnd_helper_debugfs_create_dir(const char *name)
{
	return debugfs_create_dir(name, NULL);
}

void socklnd_helper_debugfs_create_file(const char *name, umode_t mode, struct dentry *parent,
					void *data, const struct file_operations *fops)
{
	debugfs_create_file(name, mode, parent, data, fops);
}

void socklnd_helper_debugfs_remove(struct dentry *dentry)
{
	debugfs_remove(dentry);
}
