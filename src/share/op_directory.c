/*
 * Reading directories, with the attributes of what is in them or without.
 */
#include "share/operation.h"

#include "base/util.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes that are read of the host's directory at once. An entry with attributes takes about four
 * times as much in the answer. */
#define READ_LEAST 1024u
#define READ_MOST  (32u << 10)
#define PLUS       4u

struct reader {
    struct share_op *op;
    struct share_handle *handle;
    struct share_place place; /* with attributes: the directory, reached by its name */
    bool plus;
    size_t size;       /* room of the answer */
    uint64_t stood_at; /* where the last entry that was taken ends */
    unsigned taken;
};

static bool is_dots(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

/* Attributes and node of an entry; or none, if they cannot be had: then the guest asks for them
 * when it needs them, and hears why not. */
static struct share_node *find_entry(const struct reader *r, const char *name,
                                     struct fuse_entry_out *entry)
{
    struct share_node *found = NULL;

    if (is_dots(name) || share_find(r->op, r->op->node, &r->place, name, entry, &found) < 0)
        *entry = (struct fuse_entry_out){0};
    return found;
}

/* Appends an entry to the answer. Returns false if there is no room. */
static bool add_entry(struct reader *r, const struct dirent64 *from)
{
    struct share_op *op = r->op;
    size_t length = strlen(from->d_name), head = r->plus ? sizeof(struct fuse_entry_out) : 0;
    size_t whole = FUSE_REC_ALIGN(head + FUSE_NAME_OFFSET + length);
    bool parent = !strcmp(from->d_name, "..");
    const struct fuse_dirent entry = {
        /* What is above the folder is not the guest's business. */
        .ino = parent && op->node == op->share->top ? op->node->key.inode : from->d_ino,
        .off = (uint64_t)from->d_off,
        .namelen = (uint32_t)length,
        .type = from->d_type,
    };
    uint8_t *to = op->answer + op->answered;

    if (whole > r->size - op->answered)
        return false;
    memset(to, 0, whole);
    if (r->plus) {
        struct fuse_entry_out plus;

        share_node_drop(op->share, find_entry(r, from->d_name, &plus));
        memcpy(to, &plus, sizeof(plus));
    }
    memcpy(to + head, &entry, FUSE_NAME_OFFSET);
    memcpy(to + head + FUSE_NAME_OFFSET, from->d_name, length);
    op->answered += whole;
    r->stood_at = entry.off;
    r->taken++;
    return true;
}

/* Fills the answer from the host's directory, which stands at OFFSET. */
static int fill(struct reader *r)
{
    _Alignas(struct dirent64) char buffer[READ_MOST];
    size_t most = r->plus ? r->size / PLUS : r->size;
    struct share_handle *handle = r->handle;
    ssize_t got = getdents64(handle->fd, buffer, MIN(MAX(most, READ_LEAST), READ_MOST));

    if (got < 0)
        return -errno;
    for (ssize_t at = 0; at < got;) {
        const struct dirent64 *entry = (const void *)(buffer + at);

        if (!add_entry(r, entry)) {
            handle->at = UINT64_MAX; /* it stands further on */
            return r->taken ? 0 : -EINVAL;
        }
        at += entry->d_reclen;
        handle->at = r->stood_at;
    }
    return 0;
}

static int read_at(struct reader *r, uint64_t offset)
{
    struct share_handle *handle = r->handle;
    int ret = 0;

    pthread_mutex_lock(&handle->reading);
    if (handle->at != offset && lseek(handle->fd, (off_t)offset, SEEK_SET) < 0)
        ret = -errno;
    else
        handle->at = offset;
    if (ret == 0)
        ret = fill(r);
    pthread_mutex_unlock(&handle->reading);
    return ret;
}

/* Attributes are those of what lies in the directory that has its name now. */
static int read_plus(struct reader *r, uint64_t offset)
{
    struct share *s = r->op->share;
    int ret = share_reach(s, r->op->node, &r->place);

    if (ret < 0)
        return ret;
    ret = read_at(r, offset);
    share_leave(s, &r->place);
    return ret;
}

int share_op_readdir(struct share_op *op)
{
    const struct fuse_read_in *in = SHARE_ARGUMENT(op, fuse_read_in);
    struct reader r = {.op = op,
                       .plus = op->header.opcode == FUSE_READDIRPLUS,
                       .size = MIN(MIN(in->size, op->room), SHARE_ANSWER_MOST)};
    int ret;

    if (op->node->key.type != S_IFDIR)
        return -ENOTDIR;
    r.handle = share_handle_hold(op->share, op->node, in->fh);
    if (!r.handle)
        return -EBADF;
    ret = r.handle->fd < 0 ? -ESTALE : share_within(op->share, r.handle->fd);
    if (ret == 0)
        ret = share_op_reserve(op, r.size);
    if (ret == 0)
        ret = r.plus ? read_plus(&r, in->offset) : read_at(&r, in->offset);
    share_handle_drop(op->share, r.handle);
    return ret;
}
