/*
 * What a user says of a disk, as text: F[,KEY=VALUE]...
 *
 *      F, file=F             a file, a block device, nbd:... or nbd+unix:///..., vhost-user=SOCKET
 *      format=raw|qcow2      else qcow2 if F ends in .qcow2, and raw if not; never guessed
 *      readonly[=on|off]     it cannot be written to
 *      snapshot[=on|off]     what is written is forgotten at the end
 *      cache=writeback|none  through the host's page cache, or past it
 *      discard=unmap|ignore  what the guest discards is given back to the host, or not
 *      serial=S              what the guest sees as the disk's serial number, up to 20 characters
 *      offset=N, size=N      only this part of F, in bytes
 *      iops=N, bps=N         at most so many requests and so many bytes a second
 *      isolate[=on|off]      in a process of its own
 *      queues=N              of the device, 1 to 32
 *      backing=F             the image's backing file, which is opened only if it is named here.
 *                            Its settings may follow, with two commas for one, as in
 *                            backing=F,,backing=F2
 *
 * In F, S and SOCKET a comma is written as two. N is a decimal number, as blk_parse_number reads
 * it.
 */
#ifndef DOPPEL_BLK_OPTIONS_H
#define DOPPEL_BLK_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define BLK_SERIAL_MOST 20 /* bytes: what virtio-blk tells a guest */
#define BLK_QUEUES_MOST 32

enum blk_source { BLK_FILE, BLK_NBD, BLK_VHOST_USER };
enum blk_format { BLK_RAW, BLK_QCOW2 };
enum blk_cache { BLK_CACHE_WRITEBACK, BLK_CACHE_NONE };

struct blk_options {
    enum blk_source source;
    char *file; /* the path, the URI, or the path of vhost-user's socket */
    enum blk_format format;
    bool readonly, snapshot, isolate;
    bool keep; /* discard=ignore */
    enum blk_cache cache;
    char *serial;          /* NULL: none given */
    char *backing;         /* NULL: none given */
    uint64_t offset, size; /* SIZE 0: to the end */
    uint64_t iops, bps;    /* 0: no limit */
    unsigned queues;       /* 0: not said */
};

/* Reads TEXT. On failure *OPTIONS needs no freeing. */
int blk_options_parse(const char *text, struct blk_options *options, struct error *err);
/* Frees what *OPTIONS holds, and clears it. */
void blk_options_free(struct blk_options *options);

/* The format of a file of this NAME for which none is given. */
enum blk_format blk_format_of(const char *name);
const char *blk_format_name(enum blk_format format);
/* Sets *FORMAT to the one called NAME, which FILE is said to have. */
int blk_format_parse(const char *file, const char *name, enum blk_format *format,
                     struct error *err);

/* Reads all of TEXT as a number of bytes or requests: decimal, perhaps with K, M, G or T behind it,
 * or KB, KiB and so on, which are the same powers of 1024. Returns false if it is none, or does not
 * fit. */
bool blk_parse_number(const char *text, uint64_t *number);

#endif
