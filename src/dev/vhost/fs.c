/*
 * The virtio file system device whose folder a back end of vhost-user serves (virtio 1.2, 5.11).
 */
#include "dev/vhost/fs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#define OTHER_QUEUES 1u /* beside those for requests: one for what must not wait */

/* The device configuration (5.11.4). */
struct config {
    char tag[VHOST_FS_TAG_MOST];
    uint32_t queues;
};

/* Fails it, if it has an answer at all. */
static void refuse(struct virtio_request *r)
{
    struct fuse_out_header answer = {.len = sizeof(answer), .error = -ENOTCONN};
    struct fuse_in_header request;

    if (r->chain.writable_bytes < sizeof(answer) ||
        virtio_read_at(r, 0, &request, sizeof(request)) < 0) {
        virtio_complete(r, 0);
        return;
    }
    answer.unique = request.unique;
    virtio_complete(r, virtio_write_at(r, 0, &answer, sizeof(answer)) < 0 ? 0 : sizeof(answer));
}

static const struct vhost_kind kind = {
    .name = "vhost-user-fs",
    .thing = "shared folder",
    .id = 26,
    .config_size = sizeof(struct config),
    .queues_default = 1 + OTHER_QUEUES,
    .queues_each = 1,
    .refuse = refuse,
};

struct dev *vhost_fs_create(const struct virtio_slot *slot, const char *path, const char *tag,
                            unsigned queues, const struct log *log, struct error *err)
{
    struct config image = {.queues = queues ? queues : 1};
    const struct vhost_device_config config = {.kind = &kind,
                                               .path = path,
                                               .queues = image.queues + OTHER_QUEUES,
                                               .config = &image,
                                               .log = log};
    size_t length = strlen(tag);

    if (!length || length > sizeof(image.tag)) {
        error_set(err, EINVAL, "vhost-user=%s: a tag has 1 to %d bytes", path, VHOST_FS_TAG_MOST);
        return NULL;
    }
    memcpy(image.tag, tag, length);
    return vhost_device_create(slot, &config, err);
}
