/*
 * Shared folders: from a description to a device with an open folder behind it.
 */
#include "vm/share.h"

#include "dev/vhost/fs.h"
#include "vm/board.h"
#include "vm/description.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(SHARE_TAG_MOST == VIRTIO_FS_TAG_MOST, "one limit");
_Static_assert(SHARE_TAG_MOST == VHOST_FS_TAG_MOST, "one limit, for vhost-user too");
_Static_assert(SHARE_QUEUES_MOST <= VIRTIO_FS_QUEUES_MAX, "there are so many");

int share_description(const char *text, struct share_options *options, struct error *err)
{
    static const char *const boards[] = {"slot", NULL}; /* read by the board */
    char *rest = description_rest(text, boards, err);
    int ret;

    if (!rest)
        return -ENOMEM;
    ret =
        !strncmp(rest, "folder=", strlen("folder="))
            ? share_options_parse(rest, options, err)
            : error_set(err, EINVAL, "device %s: no folder is given first (share,folder=F)", text);
    free(rest);
    return ret;
}

/* Opens the folder here. */
static struct virtio_fs *open_folder(const struct virtio_slot *slot,
                                     const struct share_options *options,
                                     const struct board_config *board, struct error *err)
{
    const struct board_devices *devices = board->devices;
    const struct share_host host = {.log = board->log,
                                    .isolate = devices ? devices->isolate : NULL,
                                    .isolate_opaque = devices ? devices->isolate_opaque : NULL};
    struct virtio_fs_config config = {.tag = options->tag,
                                      .queues = options->queues ? options->queues : 1,
                                      .instance = slot->number};
    struct virtio_fs *fs;

    config.share = share_open(options, &host, err);
    if (!config.share)
        return NULL;
    fs = virtio_fs_create(slot, &config, err);
    if (!fs)
        share_close(config.share);
    return fs;
}

struct dev *share_create(const struct virtio_slot *slot, const char *text,
                         const struct board_config *config, struct shared_folder *folder,
                         struct error *err)
{
    struct share_options options;

    *folder = (struct shared_folder){.dev = NULL};
    if (share_description(text, &options, err) < 0)
        return NULL;
    if (options.vhost_user) {
        folder->dev =
            vhost_fs_create(slot, options.folder, options.tag, options.queues, config->log, err);
    } else {
        folder->fs = open_folder(slot, &options, config, err);
        folder->dev = folder->fs ? virtio_fs_dev(folder->fs) : NULL;
    }
    strcpy(folder->tag, options.tag);
    share_options_free(&options);
    return folder->dev;
}
