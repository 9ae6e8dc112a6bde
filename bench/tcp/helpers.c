// SPDX-License-Identifier: GPL-2.0
/* The driver's helpers once more, as an object of this module's own. */
#include "../../lib_linux/helpers/helpers.c"
