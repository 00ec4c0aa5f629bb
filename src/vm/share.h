/*
 * Shared folders as they are described: share,folder=F[,tag=T][,slot=N][,...], where the rest is
 * what share/options.h says of F.
 */
#ifndef DOPPEL_VM_SHARE_H
#define DOPPEL_VM_SHARE_H

#include "dev/virtio/fs.h"

struct board_config;

/* Opens what TEXT describes and plugs it in as a virtio file system device. NULL on failure. */
struct virtio_fs *share_create(const struct virtio_slot *slot, const char *text,
                               const struct board_config *config, struct error *err);

#endif
