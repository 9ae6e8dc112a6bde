/* SPDX-License-Identifier: GPL-2.0 */
/* A Lustre tree has its configuration here, which the driver's glue is compiled with. The shim has none. */
#define LNET_SHIM 1
