/*
 * Opening a disk: puts together what its options name.
 */
#include "blk/blk.h"

#include "blk/driver.h"
#include "blk/file/file.h"
#include "blk/isolated/isolated.h"
#include "blk/nbd/nbd.h"
#include "blk/options.h"
#include "blk/qcow2/qcow2.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* ---- Formats ---- */

/* Opens what is in the file of OPTIONS, which DEPTH images stand on. BACKING, or NULL, becomes the
 * image's on success. */
static struct blk *open_format(const struct blk_options *options, const struct blk_host *host,
                               struct blk *backing, unsigned depth, struct error *err)
{
    struct qcow2_how how = {.backing = backing, .readonly = options->readonly, .depth = depth};
    struct blk *file = open_source(options, host, err), *image;

    if (!file || options->format == BLK_RAW)
        return file;
    how.settled = options->isolate;
    image = qcow2_open(file, &how, err);
    if (!image)
        blk_close(file);
    return image;
}

/* Opens the backing file that OPTIONS name, a text of options itself: its own backing file may
 * follow in it. DEPTH images stand on it. */
static struct blk *open_backing(const struct blk_options *options, const struct blk_host *host,
                                unsigned depth, struct error *err)
{
    struct blk_options backing;
    struct blk *blk, *below = NULL;

    if (blk_options_parse(options->backing, &backing, err) < 0)
        return NULL;
    backing.readonly = true;
    backing.cache = options->cache;
    if (backing.backing)
        below = open_backing(&backing, host, depth + 1, err);
    blk = !backing.backing || below ? open_format(&backing, host, below, depth, err) : NULL;
    if (!blk)
        blk_close(below);
    blk_options_free(&backing);
    return blk;
}

static struct blk *open_image(const struct blk_options *options, const struct blk_host *host,
                              struct error *err)
{
    struct blk *blk, *backing = NULL;

    if (options->backing) {
        backing = open_backing(options, host, 1, err);
        if (!backing)
            return NULL;
    }
    blk = open_format(options, host, backing, 0, err);
    if (!blk)
        blk_close(backing);
    return blk;
}

/* ---- snapshot: what is written is forgotten at the end ---- */

/* Makes a file without a name in FOLDER. Returns its descriptor, or -1 and sets errno. */
static int make_nameless(const char *folder)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char path[4096];

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
        return fd;
    /* Some file systems can only take the name away again. */
    if (snprintf(path, sizeof(path), "%s/doppel-XXXXXX", folder) >= (int)sizeof(path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static const char *temporary_folder(void)
{
    const char *folder = getenv("TMPDIR");

    return folder ? folder : "/var/tmp";
}

static struct blk *open_temporary(const struct blk_host *host, struct error *err)
{
    const char *folder = temporary_folder();
    struct blk_options options = {0};
    struct blk *blk;
    char path[32];
    int fd;

    fd = make_nameless(folder);
    if (fd < 0) {
        error_set(err, errno, "snapshot: cannot make a file in '%s' (TMPDIR): %s", folder,
                  strerror(errno));
        return NULL;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    options.file = path;
    blk = file_open(&options, host, err);
    close(fd);
    return blk;
}

/* Makes a disk that reads BASE until it is written to. Takes BASE. */
static struct blk *open_overlay(struct blk *base, const struct blk_options *options,
                                const struct blk_host *host, struct error *err)
{
    struct qcow2_how how = {.backing = base, .temporary = true, .name = options->file};
    struct qcow2_create what = {.size = blk_info(base).size, .backing = "base"};
    struct blk *file = open_temporary(host, err), *blk = NULL;

    if (file && qcow2_create(file, &what, err) == 0)
        blk = qcow2_open(file, &how, err);
    if (!blk) {
        blk_close(file);
        blk_close(base);
        return NULL;
    }
    blk->folder = strdup(temporary_folder());
    blk->info.folder = blk->folder;
    if (!blk->folder) {
        error_set(err, ENOMEM, "snapshot: out of memory");
        blk_close(blk);
        return NULL;
    }
    return blk;
}

/* Opens the disk without limits of its rates. */
static struct blk *open_unlimited(const struct blk_options *options, const struct blk_host *host,
                                  struct error *err)
{
    struct blk_options base = *options;
    struct blk *blk;

    if (options->isolate && !host->isolated)
        return isolated_open(options, host, err);
    if (!options->snapshot || options->readonly)
        return open_image(options, host, err);
    base.readonly = true;
    blk = open_image(&base, host, err);
    return blk ? open_overlay(blk, options, host, err) : NULL;
}

struct blk *blk_open(const struct blk_options *options, const struct blk_host *host,
                     struct error *err)
{
    static const struct blk_host plain = {0};
    struct blk *blk;

    host = host ? host : &plain;
    blk = open_unlimited(options, host, err);
    /* The limits of an isolated disk are on its user's side, who can take back what waits. */
    if (blk && !host->isolated && blk_limit(blk, options->iops, options->bps, err) < 0) {
        blk_close(blk);
        return NULL;
    }
    return blk;
}
