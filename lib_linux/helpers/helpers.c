// SPDX-License-Identifier: GPL-2.0
/*
 * Functions for Rust to call where the kernel has only macros, inline functions or fields, in the
 * manner of rust/helpers. None decides anything: what they need from their callers, such as which
 * lock is held, is what the wrapped operation needs.
 */
#include "net.c"
#include "inetaddr.c"
#include "socket.c"
#include "hook.c"
#include "handover.c"
#include "lockdep.c"
#include "zerocopy.c"
#include "page.c"
#include "debugfs.c"
#include "misc.c"
