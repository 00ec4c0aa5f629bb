/*
 * A client of a shared folder, for tests: what the kernel of a guest sends, request by request, and
 * what a hostile one may send in its place.
 *
 *      outside/            what no guest may reach; its files hold SECRET
 *      outside/folder/     what is shared
 */
#ifndef DOPPEL_TESTS_UNIT_SHARE_RIG_H
#define DOPPEL_TESTS_UNIT_SHARE_RIG_H

#include "share/options.h"
#include "share/share.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fuse.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RIG_SECRET "what no guest may read"
#define RIG_ROOM   (1u << 20)

struct share_rig {
    char outside[64], folder[80];
    const struct share_host *host; /* or NULL */
    struct share *share;
    _Atomic uint64_t unique;
};

/* A request under way. */
struct rig_request {
    struct share_request request;
    struct iovec in[3], out[2];
    struct fuse_in_header header;
    struct fuse_out_header answer;
    sem_t done;
    ssize_t result;
};

/* ---- The folder ---- */

static inline int rig_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static inline void rig_write_file(const char *folder, const char *name, const char *text)
{
    char path[1024];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static inline struct share *rig_open(const struct share_rig *rig, const char *settings,
                                     struct error *err)
{
    struct share_options options;
    struct share *share;
    char text[256];

    snprintf(text, sizeof(text), "%s%s", rig->folder, settings);
    if (share_options_parse(text, &options, err) < 0)
        return NULL;
    share = share_open(&options, rig->host, err);
    share_options_free(&options);
    return share;
}

/* ---- Requests ---- */

static inline void rig_done(struct share_request *request, ssize_t result)
{
    struct rig_request *r = (struct rig_request *)request;

    r->result = result;
    sem_post(&r->done);
}

/* Begins a request: ARGUMENT, and DATA behind it. What it answers goes to ROOM. */
static inline void rig_begin(struct share_rig *rig, struct rig_request *r, uint32_t opcode,
                             uint64_t node, const void *argument, size_t size, const void *data,
                             size_t data_size, void *room, size_t room_size)
{
    memset(r, 0, sizeof(*r));
    sem_init(&r->done, 0, 0);
    r->header = (struct fuse_in_header){.len = (uint32_t)(sizeof(r->header) + size + data_size),
                                        .opcode = opcode,
                                        .unique = ++rig->unique,
                                        .nodeid = node,
                                        .uid = 1000,
                                        .gid = 1001};
    r->in[0] = (struct iovec){&r->header, sizeof(r->header)};
    r->in[1] = (struct iovec){(void *)(uintptr_t)argument, size};
    r->in[2] = (struct iovec){(void *)(uintptr_t)data, data_size};
    r->out[0] = (struct iovec){&r->answer, sizeof(r->answer)};
    r->out[1] = (struct iovec){room, room_size};
    r->request =
        (struct share_request){.in = r->in, .ins = 3, .out = r->out, .outs = 2, .done = rig_done};
    share_submit(rig->share, &r->request);
}

/* Waits for its end. Returns the answer's error, or its size. */
static inline ssize_t rig_end(struct rig_request *r)
{
    while (sem_wait(&r->done) < 0)
        ;
    sem_destroy(&r->done);
    if (r->result < 0)
        return r->result;
    assert_int_equal(r->result, r->answer.len);
    assert_int_equal(r->answer.unique, r->header.unique);
    return r->answer.error ? r->answer.error : (ssize_t)(r->answer.len - sizeof(r->answer));
}

static inline ssize_t rig_call(struct share_rig *rig, uint32_t opcode, uint64_t node,
                               const void *argument, size_t size, const void *data,
                               size_t data_size, void *room, size_t room_size)
{
    struct rig_request r;

    rig_begin(rig, &r, opcode, node, argument, size, data, data_size, room, room_size);
    return rig_end(&r);
}

static inline void rig_init(struct share_rig *rig)
{
    const struct fuse_init_in in = {.major = 7, .minor = 38, .flags = UINT32_MAX & ~(1u << 31)};
    struct fuse_init_out out;

    assert_int_equal(rig_call(rig, FUSE_INIT, 0, &in, sizeof(in), NULL, 0, &out, sizeof(out)),
                     sizeof(out));
    assert_int_equal(out.major, 7);
}

/* A folder that nobody has opened yet. */
static inline struct share_rig *rig_make_folder(void)
{
    const char *place = getenv("TMPDIR");
    struct share_rig *rig = calloc(1, sizeof(*rig));

    snprintf(rig->outside, sizeof(rig->outside), "%.40s/doppel-share.XXXXXX",
             place ? place : "/tmp");
    assert_non_null(mkdtemp(rig->outside));
    snprintf(rig->folder, sizeof(rig->folder), "%s/folder", rig->outside);
    assert_int_equal(mkdir(rig->folder, 0755), 0);
    rig_write_file(rig->outside, "secret", RIG_SECRET);
    return rig;
}

static inline struct share_rig *rig_make(const char *settings)
{
    struct share_rig *rig = rig_make_folder();
    struct error err = {0};

    rig->share = rig_open(rig, settings, &err);
    if (!rig->share)
        fail_msg("%s", err.text);
    rig_init(rig);
    return rig;
}

static inline void rig_free(struct share_rig *rig)
{
    share_close(rig->share);
    nftw(rig->outside, rig_remove, 16, FTW_DEPTH | FTW_PHYS);
    free(rig);
}

/* ---- What a kernel does ---- */

static inline ssize_t rig_lookup(struct share_rig *rig, uint64_t parent, const char *name,
                                 struct fuse_entry_out *entry)
{
    return rig_call(rig, FUSE_LOOKUP, parent, name, strlen(name) + 1, NULL, 0, entry,
                    sizeof(*entry));
}

/* The node of a file that is there. */
static inline uint64_t rig_node(struct share_rig *rig, uint64_t parent, const char *name)
{
    struct fuse_entry_out entry;

    assert_int_equal(rig_lookup(rig, parent, name, &entry), sizeof(entry));
    assert_true(entry.nodeid > 0);
    return entry.nodeid;
}

static inline ssize_t rig_getattr(struct share_rig *rig, uint64_t node, struct fuse_attr *attr)
{
    const struct fuse_getattr_in in = {0};
    struct fuse_attr_out out;
    ssize_t ret = rig_call(rig, FUSE_GETATTR, node, &in, sizeof(in), NULL, 0, &out, sizeof(out));

    *attr = out.attr;
    return ret < 0 ? ret : 0;
}

/* Returns a negative errno, or 0 with a handle. */
static inline ssize_t rig_open_node(struct share_rig *rig, uint32_t opcode, uint64_t node,
                                    uint32_t flags, struct fuse_open_out *out)
{
    const struct fuse_open_in in = {.flags = flags};
    ssize_t ret = rig_call(rig, opcode, node, &in, sizeof(in), NULL, 0, out, sizeof(*out));

    return ret < 0 ? ret : 0;
}

static inline uint64_t rig_handle(struct share_rig *rig, uint64_t node, uint32_t flags)
{
    struct fuse_open_out out;

    assert_int_equal(rig_open_node(rig, FUSE_OPEN, node, flags, &out), 0);
    return out.fh;
}

static inline ssize_t rig_release(struct share_rig *rig, uint32_t opcode, uint64_t node,
                                  uint64_t handle)
{
    const struct fuse_release_in in = {.fh = handle};

    return rig_call(rig, opcode, node, &in, sizeof(in), NULL, 0, NULL, 0);
}

static inline ssize_t rig_read(struct share_rig *rig, uint64_t node, uint64_t handle,
                               uint64_t offset, void *data, uint32_t size)
{
    const struct fuse_read_in in = {.fh = handle, .offset = offset, .size = size};

    return rig_call(rig, FUSE_READ, node, &in, sizeof(in), NULL, 0, data, size);
}

/* Returns how many bytes were written. */
static inline ssize_t rig_write(struct share_rig *rig, uint64_t node, uint64_t handle,
                                uint64_t offset, const void *data, uint32_t size, uint32_t flags)
{
    const struct fuse_write_in in = {.fh = handle, .offset = offset, .size = size, .flags = flags};
    struct fuse_write_out out;
    ssize_t ret = rig_call(rig, FUSE_WRITE, node, &in, sizeof(in), data, size, &out, sizeof(out));

    return ret < 0 ? ret : (ssize_t)out.size;
}

struct rig_created {
    struct fuse_entry_out entry;
    struct fuse_open_out open;
};

/* Returns a negative errno, or 0. */
static inline ssize_t rig_create_file(struct share_rig *rig, uint64_t parent, const char *name,
                                      uint32_t flags, uint32_t mode, struct rig_created *created)
{
    const struct fuse_create_in in = {.flags = flags, .mode = S_IFREG | mode};
    ssize_t ret = rig_call(rig, FUSE_CREATE, parent, &in, sizeof(in), name, strlen(name) + 1,
                           created, sizeof(*created));

    return ret < 0 ? ret : 0;
}

static inline ssize_t rig_mkdir(struct share_rig *rig, uint64_t parent, const char *name,
                                struct fuse_entry_out *entry)
{
    const struct fuse_mkdir_in in = {.mode = 0755};
    ssize_t ret = rig_call(rig, FUSE_MKDIR, parent, &in, sizeof(in), name, strlen(name) + 1, entry,
                           sizeof(*entry));

    return ret < 0 ? ret : 0;
}

static inline ssize_t rig_symlink(struct share_rig *rig, uint64_t parent, const char *name,
                                  const char *target)
{
    struct fuse_entry_out entry;
    ssize_t ret = rig_call(rig, FUSE_SYMLINK, parent, name, strlen(name) + 1, target,
                           strlen(target) + 1, &entry, sizeof(entry));

    return ret < 0 ? ret : 0;
}

static inline ssize_t rig_rename(struct share_rig *rig, uint64_t from, const char *name,
                                 uint64_t to, const char *new_name, uint32_t flags)
{
    const struct fuse_rename2_in in = {.newdir = to, .flags = flags};
    char names[600];
    int size = snprintf(names, sizeof(names), "%s%c%s", name, 0, new_name) + 1;

    return rig_call(rig, FUSE_RENAME2, from, &in, sizeof(in), names, (size_t)size, NULL, 0);
}

static inline ssize_t rig_unlink(struct share_rig *rig, uint32_t opcode, uint64_t parent,
                                 const char *name)
{
    return rig_call(rig, opcode, parent, name, strlen(name) + 1, NULL, 0, NULL, 0);
}

static inline void rig_forget(struct share_rig *rig, uint64_t node, uint64_t count)
{
    const struct fuse_forget_in in = {.nlookup = count};
    struct rig_request r;

    rig_begin(rig, &r, FUSE_FORGET, node, &in, sizeof(in), NULL, 0, NULL, 0);
    while (sem_wait(&r.done) < 0)
        ;
    sem_destroy(&r.done);
    assert_int_equal(r.result, 0);
}

/* Path of NAME in the folder, on the host. */
static inline const char *rig_path(const struct share_rig *rig, const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", rig->folder, name);
    return path;
}

#endif
