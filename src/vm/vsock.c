/*
 * Virtio socket devices: from a description to a device whose socket listens.
 */
#include "vm/vsock.h"

#include "vm/description.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int find_path(void *opaque, const char *key, const char *value, struct error *err)
{
    char **path = opaque;

    if (strcmp(key, "socket") != 0)
        return 0;
    *path = strdup(value);
    return *path ? 0 : error_set(err, ENOMEM, "out of memory");
}

struct dev *vsock_create(const struct virtio_slot *slot, const char *text, const struct log *log,
                         struct error *err)
{
    struct virtio_vsock_config config = {.cid = VIRTIO_VSOCK_CID_DEFAULT, .log = log};
    struct dev *dev = NULL;
    char *path = NULL;

    if (description_number(text, "cid", VIRTIO_VSOCK_CID_LEAST, VIRTIO_VSOCK_CID_MOST, &config.cid,
                           err) < 0 ||
        description_each(text, find_path, &path, err) < 0)
        return NULL;
    config.path = path;
    if (path && *path)
        dev = virtio_vsock_create(slot, &config, err);
    else
        error_set(err, EINVAL, "device %s: no socket is given (vsock,socket=PATH)", text);
    free(path);
    return dev;
}
