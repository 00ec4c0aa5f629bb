/*
 * The kinds of disks that the tests of cuts go through: raw, and qcow2 of several makes.
 */
#ifndef DOPPEL_TESTS_BLK_FORMATS_H
#define DOPPEL_TESTS_BLK_FORMATS_H

#include "album.h"
#include "blk/qcow2/qcow2.h"
#include "medium.h"
#include "memory.h"

struct format {
    const char *name;
    bool raw, backing;
    struct qcow2_create what;
};

/* Up to one without a name. */
extern const struct format formats[];

/* The backing image of those that have one: a disk that cannot be written. */
struct blk *backing_open(void);
/* The version that a sector of it has. */
uint32_t backing_version(uint64_t sector);
/* A file without a name that holds it, for peers. */
int backing_file(void);

/* Makes an image on FILE, which is empty and stays the caller's. BASE gets the versions
 * that it then holds. */
void format_create(const struct format *format, struct blk *file, uint32_t *base);
/* Opens the image on FILE, which becomes the image's. What cannot be opened ends the process. */
struct blk *format_open(const struct format *format, struct blk *file, bool settled);

/* How to look at what a cut has left. */
struct inspection {
    const struct format *format;
    const struct album *album; /* the snapshots; NULL: there are none */
    uint64_t cut;              /* the moment */
    bool busy;                 /* a snapshot was being made, applied or deleted */
    uint64_t *random;
    bool peer;  /* have qemu-img look at it, too */
    bool quiet; /* no messages */
};

/* Checks the metadata, repairs it as opening the image does, checks the snapshots, and reads the
 * whole disk, which the caller frees. NULL: it is corrupt, or a snapshot is wrong. */
uint8_t *format_inspect(const struct inspection *how, const struct medium_image *image);

#endif
