/*
 * Folders with all that is in them.
 */
#ifndef DOPPEL_CTL_TREE_H
#define DOPPEL_CTL_TREE_H

#include "base/error.h"

#include <stdint.h>

/* Removes PATH, a file, a link or a folder with all that is in it. Links are not followed, and what
 * is mounted in it is not touched. What is gone already is no error. */
int tree_remove(const char *path, struct error *err);

/* The bytes that PATH and what is in it take on the disk; 0 if that cannot be told. */
uint64_t tree_size(const char *path);

#endif
