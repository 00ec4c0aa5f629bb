/*
 * Copies a disk, with several threads.
 */
#ifndef DOPPEL_CLI_IMAGE_COPY_H
#define DOPPEL_CLI_IMAGE_COPY_H

#include "base/error.h"
#include "blk/blk.h"
#include "blk/options.h"

struct target;

struct image_copy {
    struct blk *from, *to; /* TO is at least as large, and reads as zeros unless OVER */
    bool over;             /* TO may hold anything: what is to read as zeros is made so */
    const struct blk_options *from_options;
    const char *to_name; /* for messages */
    bool compress;       /* TO is a qcow2 image */
    unsigned unit;       /* so many bytes, a power of two, that are all zeros take no room */
    unsigned threads;
    const struct target *target; /* whether a signal came; NULL: signals end the process */
};

/* Copies what does not read as zeros, or all of it, and has it reach the disk. Shows a line of
 * progress. */
int image_copy(const struct image_copy *how, struct error *err);

#endif
