/* SPDX-License-Identifier: GPL-2.0 */
/* What users of LNet call. The shim has no users but itself. */
