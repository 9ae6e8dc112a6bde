/* SPDX-License-Identifier: GPL-2.0 */
/* Types of connections, by their numbers on the wire. */
#ifndef SHIM_SOCKLND_H
#define SHIM_SOCKLND_H

#define SOCKLND_CONN_NONE (-1)
#define SOCKLND_CONN_ANY 0
#define SOCKLND_CONN_CONTROL 1
#define SOCKLND_CONN_BULK_IN 2
#define SOCKLND_CONN_BULK_OUT 3

#endif
