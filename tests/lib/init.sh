#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A guest's first process. Its arguments, from the kernel's command line, go to the test runner.
export PATH=/bin HOME=/
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /run
mount -t tmpfs none /tmp
[ -d /sys/kernel/debug ] && mount -t debugfs none /sys/kernel/debug
while read -r module; do
	insmod "$module" || echo "init: cannot insert $module" >/dev/kmsg
done </etc/modules
ip link set lo up
# From here on every message is wanted; booting is quicker without them.
dmesg -n 8

if [ "$1" = shell ]; then
	dmesg -n 5
	hostname "node$2"
	export PS1='\h# '
	socklnd-guest shell-setup "$2"
	setsid cttyhack sh -l
else
	socklnd-guest "$@" || echo "init: the test runner failed: status $?" >/dev/kmsg
fi
# QEMU is told to end at a reset.
reboot -f
