/*
 * Opening a disk: puts together what its options name.
 */
#include "blk/blk.h"

#include "blk/driver.h"
#include "blk/file.h"
#include "blk/nbd.h"
#include "blk/options.h"

#include "base/util.h"

#include <errno.h>

/* Makes BLK, which is the whole of what was opened, the part that OPTIONS name. */
static int take_part(struct blk *blk, const struct blk_options *options, struct error *err)
{
    uint64_t whole = atomic_load(&blk->size);
    uint64_t size = options->size ? options->size : whole - MIN(options->offset, whole);

    if ((options->offset | options->size) % blk->info.block)
        return error_set(err, EINVAL, "disk '%s': offset= and size= must be multiples of %u bytes",
                         options->file, blk->info.block);
    if (options->offset > whole || size > whole - options->offset)
        return error_set(
            err, EINVAL,
            "disk '%s': offset= and size= name a part outside of it; it has %llu bytes",
            options->file, (unsigned long long)whole);
    blk->start = options->offset;
    blk->bounded = options->size != 0;
    atomic_store(&blk->size, size);
    return 0;
}

/* Opens the file or the server of OPTIONS as it is, without a look at the format. */
static struct blk *open_source(const struct blk_options *options, const struct blk_host *host,
                               struct error *err)
{
    struct blk *blk = NULL;

    switch (options->source) {
    case BLK_FILE: blk = file_open(options, host, err); break;
    case BLK_NBD: blk = nbd_open(options, host, err); break;
    case BLK_VHOST_USER:
        error_set(err, EINVAL, "disk '%s': a server of vhost-user is no file that can be opened",
                  options->file);
        break;
    }
    if (blk && take_part(blk, options, err) < 0) {
        blk_close(blk);
        return NULL;
    }
    return blk;
}

struct blk *blk_open(const struct blk_options *options, const struct blk_host *host,
                     struct error *err)
{
    static const struct blk_host plain = {0};
    struct blk *blk;

    host = host ? host : &plain;
    if (options->format != BLK_RAW || options->snapshot) {
        error_set(err, ENOTSUP, "disk '%s': only raw images can be opened, without snapshot",
                  options->file);
        return NULL;
    }
    blk = open_source(options, host, err);
    if (blk && blk_limit(blk, options->iops, options->bps, err) < 0) {
        blk_close(blk);
        return NULL;
    }
    return blk;
}
