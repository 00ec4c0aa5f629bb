/*
 * Disks as they are described: disk,file=F[,slot=N][,...], where the rest is what blk/options.h
 * says of F.
 */
#ifndef DOPPEL_VM_DISK_H
#define DOPPEL_VM_DISK_H

#include "blk/options.h"
#include "dev/virtio/block.h"

struct board_config;

/* Reads the options of the disk that TEXT describes, a description for the board. On failure
 * *OPTIONS needs no freeing. */
int disk_options(const char *text, struct blk_options *options, struct error *err);

/* What OPTIONS say of the device of BLK, an open disk. QUEUES: how many it has unless they say.
 * Lives no longer than OPTIONS. */
struct virtio_block_config disk_device(const struct blk_options *options, struct blk *blk,
                                       unsigned queues);

/* Opens what TEXT describes and plugs it in as a virtio block device. HOST outlives it. *BLOCK is
 * the device, or NULL if another process serves the disk (vhost-user=SOCKET). */
struct dev *disk_create(const struct virtio_slot *slot, const char *text,
                        const struct board_config *config, const struct blk_host *host,
                        struct virtio_block **block, struct error *err);

#endif
