/* SPDX-License-Identifier: GPL-2.0 */
/* Nothing of this is needed: a driver allocates by itself. */
