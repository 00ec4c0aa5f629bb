/*
 * Engines that only tests want: see variants.c.
 */
#ifndef DOPPEL_TESTS_VARIANTS_H
#define DOPPEL_TESTS_VARIANTS_H

#include "cpu/engines.h"

/* An engine by name, or NULL; SPACE is for one that has to be made up. */
const struct engine_ops *variant_find(const char *name, struct engine_ops *space);

#endif
