/*
 * The processes of disks with isolate. The process and the VM process find each other by
 * blk/isolated/isolated_link.h.
 */
#include "cli/disk_process.h"

#include "blk/isolated/isolated.h"
#include "cli/cli.h"
#include "vm/description.h"
#include "vm/disk.h"

#include <errno.h>
#include <stdlib.h>

static int serve(void *opaque, const char *name, int link)
{
    const struct blk_host host = {.log = &kept_process_log};

    return isolated_serve(link, opaque, &host, NULL) < 0 ? STATUS_ERROR : 0;
}

static void free_options(void *opaque)
{
    blk_options_free(opaque);
    free(opaque);
}

static const struct kept_kind kind = {
    .title = "doppel-disk", .what = "disk", .run = serve, .free = free_options};

int disk_processes_add(struct kept_processes *kept, const char *const *devices, struct error *err)
{
    int ret = 0;

    for (; devices && *devices && ret == 0; devices++) {
        struct blk_options *options = malloc(sizeof(*options));

        if (!options)
            return error_set(err, ENOMEM, "out of memory");
        if (!description_is(*devices, "disk") || disk_options(*devices, options, NULL) < 0)
            free(options);
        else if (!options->isolate)
            free_options(options);
        else
            ret = kept_processes_add(kept, &kind, options->file, options, err);
    }
    return ret;
}

int disk_processes_link(void *opaque, const char *file)
{
    return kept_processes_link(opaque, &kind, file);
}
