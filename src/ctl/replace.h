/*
 * Small files that are replaced in whole or not at all: by rename(2), after the new content has
 * reached the disk. A process that is killed leaves at most a file behind whose name begins with
 * REPLACE_PREFIX (ctl/registry.h removes such files). A file must not be a link.
 */
#ifndef DOPPEL_CTL_REPLACE_H
#define DOPPEL_CTL_REPLACE_H

#include "base/error.h"

#include <stddef.h>
#include <sys/types.h>

#define REPLACE_PREFIX ".doppel-new-"

/* Writes the SIZE bytes at DATA to FILE, with MODE. */
int replace_file(const char *file, const void *data, size_t size, mode_t mode, struct error *err);

/* Reads all of FILE, a regular file of at most MOST bytes, and a 0 behind it. Returns memory that
 * the caller frees, or NULL. */
char *read_small_file(const char *file, size_t most, size_t *size, struct error *err);

/* Has the names in FOLDER reach the disk. */
void sync_folder(const char *folder);

#endif
