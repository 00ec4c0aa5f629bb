/*
 * Engines that only tests want: see variants.c.
 */
#ifndef DOPPEL_TESTS_VARIANTS_H
#define DOPPEL_TESTS_VARIANTS_H

#include "cpu/engines.h"

/* An engine by name, or NULL; SPACE is for one that has to be made up. */
const struct engine_ops *variant_find(const char *name, struct engine_ops *space);

/* Finds the engines NAMES, with commas in between, which become zeros. Returns how many they are; 0
 * if there are more than MOST, or none, or one is not known. */
unsigned variants_find(char *names, struct engine_ops *engines, unsigned most);

#endif
