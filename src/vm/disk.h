/*
 * Disks as they are described: disk,file=F[,slot=N][,...], where the rest is what blk/options.h
 * says of F.
 */
#ifndef DOPPEL_VM_DISK_H
#define DOPPEL_VM_DISK_H

#include "dev/virtio/block.h"

struct board_config;

/* Opens what TEXT describes and plugs it in as a virtio block device. HOST outlives it. *BLOCK is
 * the device, or NULL if another process serves the disk (vhost-user=SOCKET). */
struct dev *disk_create(const struct virtio_slot *slot, const char *text,
                        const struct board_config *config, const struct blk_host *host,
                        struct virtio_block **block, struct error *err);

#endif
