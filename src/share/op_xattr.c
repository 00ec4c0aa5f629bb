/*
 * Operations on extended attributes: those of users, which are called user.* in the guest and on
 * the host. Others mean something to the host's kernel.
 */
#include "share/operation.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define OWN_PREFIX "user.doppel."

static bool begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Whether the guest may see and change the attribute NAME. */
static bool is_guests(const char *name)
{
    return begins(name, "user.") && !begins(name, OWN_PREFIX);
}

/* Answers with what stands in OP->answer, or with how much it is. */
static int answer_size(struct share_op *op, uint32_t asked, size_t size)
{
    struct fuse_getxattr_out out = {.size = (uint32_t)size};

    if (!asked)
        return share_op_answer(op, &out, sizeof(out));
    op->answered = size;
    return size > asked ? -ERANGE : 0;
}

int share_op_getxattr(struct share_op *op)
{
    const struct fuse_getxattr_in *in = SHARE_ARGUMENT(op, fuse_getxattr_in);
    struct share_place place;
    char path[SHARE_LINK_SIZE];
    size_t end, room = MIN(in->size, SHARE_ANSWER_MOST);
    const char *name = share_op_text(op, sizeof(*in), &end);
    ssize_t size;
    int ret;

    if (!name || !*name)
        return -EINVAL;
    if (!is_guests(name))
        return -ENODATA;
    ret = share_op_reserve(op, room);
    if (ret == 0)
        ret = share_reach(op->share, op->node, &place);
    if (ret < 0)
        return ret;
    share_link(place.fd, path);
    size = getxattr(path, name, op->answer, room);
    ret = size < 0 ? -errno : 0;
    share_leave(op->share, &place);
    /* What cannot have any has none: links, pipes. */
    return ret < 0 ? ret == -EPERM ? -ENODATA : ret : answer_size(op, in->size, (size_t)size);
}

/* Keeps of LIST, of SIZE bytes, what the guest may see. Returns the size of that. */
static size_t filter(char *list, size_t size)
{
    size_t kept = 0;

    for (size_t at = 0, length; at < size; at += length) {
        length = strnlen(list + at, size - at) + 1;
        if (at + length > size || !is_guests(list + at))
            continue;
        memmove(list + kept, list + at, length);
        kept += length;
    }
    return kept;
}

int share_op_listxattr(struct share_op *op)
{
    const struct fuse_getxattr_in *in = SHARE_ARGUMENT(op, fuse_getxattr_in);
    struct share_place place;
    char path[SHARE_LINK_SIZE];
    ssize_t size;
    int ret = share_op_reserve(op, SHARE_ANSWER_MOST);

    if (ret == 0)
        ret = share_reach(op->share, op->node, &place);
    if (ret < 0)
        return ret;
    share_link(place.fd, path);
    size = listxattr(path, (char *)op->answer, SHARE_ANSWER_MOST);
    ret = size < 0 ? -errno : 0;
    share_leave(op->share, &place);
    if (ret < 0)
        return ret;
    size = (ssize_t)filter((char *)op->answer, (size_t)size);
    return answer_size(op, in->size, (size_t)size);
}

/* Calls CHANGE with a path to the operation's node. */
static int change(struct share_op *op, int (*call)(const char *path, const void *opaque),
                  const void *opaque)
{
    struct share_place place;
    char path[SHARE_LINK_SIZE];
    int ret = share_reach(op->share, op->node, &place);

    if (ret < 0)
        return ret;
    share_link(place.fd, path);
    ret = share_may_access(op->share, op->node, &place, O_WRONLY);
    if (ret == 0)
        ret = call(path, opaque);
    share_leave(op->share, &place);
    return ret;
}

struct attribute {
    const struct share_request *request;
    const char *name;
    const void *value;
    size_t size;
    int flags;
};

/* Begins with a change that depends on whether the attribute is THERE. Returns whether a process
 * that has died had begun with it. 0, 1, or a negative errno. */
static int begin(const struct attribute *a, const char *path, bool there)
{
    struct share_plan plan = {.size = 0};
    bool is_there;

    if (!a->request->intent)
        return 0;
    if (share_begun(a->request, &plan))
        return 1;
    is_there = getxattr(path, a->name, NULL, 0) >= 0;
    if (is_there != there)
        return is_there ? -EEXIST : -ENODATA;
    share_begin(a->request, &plan);
    return 0;
}

static int set(const char *path, const void *opaque)
{
    const struct attribute *a = opaque;
    int flags = a->flags, begun = flags & XATTR_CREATE ? begin(a, path, false) : 0;

    if (begun < 0)
        return begun;
    if (begun)
        flags &= ~XATTR_CREATE;
    return setxattr(path, a->name, a->value, a->size, flags) < 0 ? -errno : 0;
}

static int delete(const char *path, const void *opaque)
{
    const struct attribute *a = opaque;
    int begun = begin(a, path, true);

    if (begun < 0 || removexattr(path, a->name) == 0)
        return MIN(begun, 0);
    return begun && errno == ENODATA ? 0 : -errno;
}

int share_op_setxattr(struct share_op *op)
{
    const struct fuse_setxattr_in *in = SHARE_ARGUMENT(op, fuse_setxattr_in);
    struct attribute a = {.request = op->request, .size = in->size, .flags = (int)in->flags};
    size_t next;

    a.name = share_op_text(op, FUSE_COMPAT_SETXATTR_IN_SIZE, &next);
    if (!a.name || !*a.name || in->size > op->size - next)
        return -EINVAL;
    if (!is_guests(a.name))
        return -EOPNOTSUPP;
    a.value = op->argument + next;
    return change(op, set, &a);
}

int share_op_removexattr(struct share_op *op)
{
    struct attribute a = {.request = op->request};
    size_t next;

    a.name = share_op_text(op, 0, &next);
    if (!a.name || !*a.name)
        return -EINVAL;
    return is_guests(a.name) ? change(op, delete, &a) : -ENODATA;
}
