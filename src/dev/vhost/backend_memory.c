/*
 * The back end's view of the front end's memory.
 */
#include "dev/vhost/backend_private.h"

#include "base/util.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void backend_drop_memory(struct vhost_backend *b)
{
    while (b->regions > 0)
        mem_region_remove(b->region[--b->regions].region);
}

int backend_set_memory(struct vhost_backend *b, struct vhost_message *m, struct error *err)
{
    backend_drop_memory(b);
    for (unsigned i = 0; i < m->memory.count; i++) {
        const struct vhost_region *where = &m->memory.region[i];
        const struct mem_region_config config = {.name = "the front end's memory",
                                                 .gpa = where->gpa,
                                                 .size = where->size,
                                                 .kind = MEM_RAM};
        struct mem_region *region =
            mem_region_import(b->mem, &config, vhost_take_fd(m, i), where->offset, err);

        if (!region)
            return -EINVAL;
        b->region[b->regions++] = (struct backend_region){.where = *where, .region = region};
    }
    return 0;
}

int backend_translate(const struct vhost_backend *b, uint64_t user, uint64_t *gpa,
                      struct error *err)
{
    for (unsigned i = 0; i < b->regions; i++) {
        const struct vhost_region *where = &b->region[i].where;

        if (user - where->user < where->size) {
            *gpa = where->gpa + (user - where->user);
            return 0;
        }
    }
    return error_set(err, EFAULT, "address %#llx is in none of the front end's %u regions",
                     (unsigned long long)user, b->regions);
}

/* ---- Requests in flight ---- */

SIGNALS_SAFE static void inflight_lost(void *opaque)
{
    struct vhost_backend *b = opaque;

    atomic_store(&b->lost, true); /* seen when the session looks at it next */
}

void backend_drop_inflight(struct vhost_backend *b)
{
    if (!b->inflight)
        return;
    lost_unwatch(&b->inflight_lost);
    munmap(b->inflight, b->inflight_size);
    b->inflight = NULL;
}

static int check_inflight(const struct vhost_inflight *inflight, struct error *err)
{
    if (inflight->queues && inflight->queue_size && inflight->queue_size <= INFLIGHT_SIZE_MAX)
        return 0;
    return error_set(err, EINVAL, "a record of requests in flight for %u queues of %u entries",
                     inflight->queues, inflight->queue_size);
}

int backend_set_inflight(struct vhost_backend *b, const struct vhost_inflight *inflight, int fd,
                         struct error *err)
{
    size_t size = inflight_bytes(inflight->queues, inflight->queue_size);
    struct stat st;
    void *memory;
    int ret = check_inflight(inflight, err);

    if (ret < 0)
        return ret;
    if (inflight->size < size || inflight->offset % MEM_PAGE_SIZE || fstat(fd, &st) < 0 ||
        (uint64_t)st.st_size < size || inflight->offset > (uint64_t)st.st_size - size)
        return error_set(err, EINVAL, "the file of the record of requests in flight is too short");
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)inflight->offset);
    if (memory == MAP_FAILED)
        return error_set(err, errno, "cannot map the record of requests in flight: %s",
                         strerror(errno));
    backend_drop_inflight(b);
    b->inflight_lost = (struct lost){.on_first = inflight_lost, .opaque = b};
    ret = lost_watch(&b->inflight_lost, memory, ALIGN_UP(size, MEM_PAGE_SIZE), err);
    if (ret < 0) {
        munmap(memory, size);
        return ret;
    }
    b->inflight = memory;
    b->inflight_size = size;
    b->inflight_queues = inflight->queues;
    b->inflight_entries = inflight->queue_size;
    return 0;
}

int backend_make_inflight(struct vhost_backend *b, struct vhost_inflight *inflight, int *fd,
                          struct error *err)
{
    int ret = check_inflight(inflight, err);

    if (ret < 0)
        return ret;
    inflight->size =
        ALIGN_UP(inflight_bytes(inflight->queues, inflight->queue_size), MEM_PAGE_SIZE);
    inflight->offset = 0;
    *fd = memfd_create("vhost-inflight", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, (off_t)inflight->size) < 0)
        ret = error_set(err, errno, "cannot make a record of requests in flight: %s",
                        strerror(errno));
    if (ret == 0)
        ret = backend_set_inflight(b, inflight, *fd, err);
    if (ret < 0 && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return ret;
}
