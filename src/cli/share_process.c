/*
 * The processes of shared folders with isolate. The process and the VM process find each other by
 * base/kept_link.h.
 */
#include "cli/share_process.h"

#include "cli/cli.h"
#include "share/serve.h"
#include "vm/description.h"
#include "vm/share.h"

#include <errno.h>
#include <stdlib.h>

static int serve(void *opaque, const char *name, int link)
{
    const struct share_host host = {.log = &kept_process_log};

    return share_serve(link, opaque, &host, NULL) < 0 ? STATUS_ERROR : 0;
}

static void free_options(void *opaque)
{
    share_options_free(opaque);
    free(opaque);
}

static const struct kept_kind kind = {
    .title = "doppel-folder", .what = "shared folder", .run = serve, .free = free_options};

int share_processes_add(struct kept_processes *kept, const char *const *devices, struct error *err)
{
    int ret = 0;

    for (; devices && *devices && ret == 0; devices++) {
        struct share_options *options = malloc(sizeof(*options));

        if (!options)
            return error_set(err, ENOMEM, "out of memory");
        if (!description_is(*devices, "share") || share_description(*devices, options, NULL) < 0)
            free(options);
        else if (!options->isolate)
            free_options(options);
        else
            ret = kept_processes_add(kept, &kind, options->folder, options, err);
    }
    return ret;
}

int share_processes_link(void *opaque, const char *folder)
{
    return kept_processes_link(opaque, &kind, folder);
}
