/*
 * Shared folders as they are described: share,folder=F[,tag=T][,slot=N][,...], where the rest is
 * what share/options.h says of F.
 */
#ifndef DOPPEL_VM_SHARE_H
#define DOPPEL_VM_SHARE_H

#include "dev/virtio/fs.h"
#include "share/options.h"

struct board_config;

struct shared_folder {
    struct dev *dev;
    struct virtio_fs *fs; /* NULL: another process serves the folder (vhost-user=SOCKET) */
    char tag[VIRTIO_FS_TAG_MOST + 1];
};

/* Reads the description TEXT. */
int share_description(const char *text, struct share_options *options, struct error *err);

/* Opens what TEXT describes and plugs it in as a virtio file system device: FOLDER->dev, which is
 * returned. NULL on failure. */
struct dev *share_create(const struct virtio_slot *slot, const char *text,
                         const struct board_config *config, struct shared_folder *folder,
                         struct error *err);

#endif
