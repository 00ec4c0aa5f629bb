/*
 * Virtio socket devices as they are described: vsock,socket=PATH[,cid=N][,slot=N].
 */
#ifndef DOPPEL_VM_VSOCK_H
#define DOPPEL_VM_VSOCK_H

#include "dev/virtio/vsock.h"

/* Plugs in what TEXT describes; the board has checked its keys. NULL on failure. */
struct dev *vsock_create(const struct virtio_slot *slot, const char *text, const struct log *log,
                         struct error *err);

#endif
