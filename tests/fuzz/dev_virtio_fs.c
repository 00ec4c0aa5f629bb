/*
 * Fuzz target: the virtio file system device with a folder behind it: chains of any form, and in
 * them requests that mean something. The folder has no threads here, so that an input does the same
 * each time: requests are carried out at once, and locks that would have to be waited for are
 * refused (the linker's --wrap).
 */
#include "virtio.h"

#include "base/pool.h"
#include "base/util.h"
#include "dev/virtio/fs.h"
#include "share/options.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "folder.h"

#define ANSWER (FUZZ_VIRTIO_DATA + 0x1000)
enum { HIGH_PRIORITY, REQUESTS, QUEUES };

static struct folder world;

/* ---- In the place of base/pool.c ---- */

struct pool {
    int unused;
};

struct pool *pool_create(const char *name, unsigned most, struct error *err)
{
    return calloc(1, sizeof(struct pool));
}

void pool_destroy(struct pool *pool)
{
    free(pool);
}

void pool_post(struct pool *pool, struct pool_job *job)
{
    job->run(job);
}

struct where *pool_where(struct pool *pool, unsigned n)
{
    return NULL;
}

/* Of share/wait.c. */
int __wrap_share_wait(void);

int __wrap_share_wait(void)
{
    return -ENOLCK;
}

/* ---- The folder ---- */

static void end_world(void)
{
    folder_end(&world);
}

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    struct virtio_fs_config config = {.tag = "fuzz", .queues = QUEUES - 1, .instance = 1};
    struct share_options options;

    if (!*world.outside) {
        folder_make(&world, 1 << 20);
        atexit(end_world);
    }
    folder_fill(&world);
    fuzz_check(share_options_parse(world.folder, &options, err) == 0);
    config.share = share_open(&options, NULL, err);
    share_options_free(&options);
    fuzz_check(config.share);
    return virtio_fs_dev(virtio_fs_create(slot, &config, err));
}

static void calm(struct fuzz_virtio_machine *m)
{
    folder_fill(&world);
}

/* ---- Requests ---- */

/* What the guest may then send: a request that means something, on the folder or on what the guest
 * knows first, by the first handle that there is. */
static void write_request(struct fuzz_virtio_machine *m, unsigned n, bool level)
{
    static const struct {
        uint32_t opcode, size;
        char names[12];
    } kinds[] = {
        {FUSE_INIT, 64, ""},
        {FUSE_LOOKUP, 0, "a"},
        {FUSE_LOOKUP, 0, "d"},
        {FUSE_OPEN, 8, ""},
        {FUSE_OPENDIR, 8, ""},
        {FUSE_READ, 40, ""},
        {FUSE_WRITE, 40, "text"},
        {FUSE_READDIRPLUS, 40, ""},
        {FUSE_GETATTR, 16, ""},
        {FUSE_SETATTR, 88, ""},
        {FUSE_CREATE, 16, "c"},
        {FUSE_MKDIR, 8, "e"},
        {FUSE_UNLINK, 0, "a"},
        {FUSE_RENAME, 8, "a\0b"},
        {FUSE_SETLK, 48, ""},
        {FUSE_SETLKW, 48, ""},
        {FUSE_FLUSH, 24, ""},
        {FUSE_RELEASE, 24, ""},
        {FUSE_FORGET, 8, ""},
        {FUSE_BATCH_FORGET, 24, ""},
        {FUSE_SYMLINK, 0, "s\0a"},
        {FUSE_LINK, 8, "n"},
        {FUSE_READLINK, 0, ""},
        {FUSE_STATFS, 0, ""},
        {FUSE_SETXATTR, 8, "user.x\0v"},
        {FUSE_GETXATTR, 8, "user.x"},
        {FUSE_FALLOCATE, 32, ""},
        {FUSE_DESTROY, 0, ""},
    };
    unsigned which = n % ARRAY_SIZE(kinds);
    uint8_t bytes[256] = {0};
    struct fuse_in_header header = {
        .opcode = kinds[which].opcode, .unique = n, .nodeid = level ? 2 : 1};
    size_t size = sizeof(header) + kinds[which].size;

    if (header.opcode == FUSE_INIT) {
        bytes[sizeof(header)] = 7;
        bytes[sizeof(header) + 4] = 38;
    } else {
        bytes[sizeof(header)] = 1; /* a handle, a count, a node or a bit of flags */
        bytes[sizeof(header) + 16] = (uint8_t)(4 * (n % 5));
    }
    memcpy(bytes + size, kinds[which].names, 8);
    size += header.opcode == FUSE_LOOKUP || header.opcode == FUSE_UNLINK ? 2
            : *kinds[which].names                                        ? 8
                                                                         : 0;
    header.len = (uint32_t)size;
    memcpy(bytes, &header, sizeof(header));
    fuzz_check(!mem_write(m->mem, FUZZ_VIRTIO_DATA + 512 * (n % 4), bytes, sizeof(bytes)));
}

static void host(struct fuzz_virtio_machine *m, unsigned n, bool level)
{
    char a[128], b[128];

    if (n < 112) {
        write_request(m, n, level);
        return;
    }
    snprintf(a, sizeof(a), "%s/%c", world.folder, "abcdelns"[n % 8]);
    snprintf(b, sizeof(b), "%s/moved", world.outside);
    if (level && rename(a, b) < 0)
        return;
    if (!level && rename(b, a) < 0)
        return;
}

static int32_t ask(struct fuzz_virtio_machine *m, unsigned number, uint32_t opcode,
                   const void *argument, size_t size, uint32_t room)
{
    const struct fuse_in_header header = {
        .len = (uint32_t)(sizeof(header) + size), .opcode = opcode, .unique = 7, .nodeid = 1};
    struct fuse_out_header answer;
    uint32_t written = 0;

    fuzz_check(!mem_write(m->mem, FUZZ_VIRTIO_DATA, &header, sizeof(header)));
    fuzz_check(!mem_write(m->mem, FUZZ_VIRTIO_DATA + sizeof(header), argument, size));
    fuzz_virtio_descriptor(m, 0, FUZZ_VIRTIO_DATA, header.len, 1);
    fuzz_virtio_descriptor(m, 1, ANSWER, room, 2);
    fuzz_virtio_publish(m, REQUESTS, number, 0);
    fuzz_check(fuzz_virtio_used(m, REQUESTS, &written) == number + 1);
    fuzz_check(!mem_read(m->mem, ANSWER, &answer, sizeof(answer)));
    fuzz_check(written == answer.len && answer.unique == 7);
    return answer.error ? answer.error : (int32_t)(written - sizeof(answer));
}

/* The guest mounts the folder, and looks a file up. */
static void request(struct fuzz_virtio_machine *m)
{
    const struct fuse_init_in in = {.major = 7, .minor = 36};
    int32_t got = ask(m, 0, FUSE_INIT, &in, sizeof(in), 256);

    fuzz_check(got == sizeof(struct fuse_init_out));
    got = ask(m, 1, FUSE_LOOKUP, "d", 2, 256);
    fuzz_check(got == sizeof(struct fuse_entry_out));
    fuzz_check(fuzz_virtio_status(m) == 15);
}

const struct fuzz_virtio fuzz_virtio = {
    .create = create, .queues = QUEUES, .request = request, .host = host, .calm = calm};
