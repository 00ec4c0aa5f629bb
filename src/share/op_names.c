/*
 * Operations on names: finding, making, removing and changing them.
 */
#include "share/operation.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- Finding ---- */

int share_op_found(struct share_op *op, struct share_node *parent, const char *name,
                   const struct statx *stx, struct share_node **found)
{
    int ret = share_node_found(op->share, parent, name, stx, found);

    if (ret == 0)
        share_op_change(op, CHANGE_FOUND, 1, (*found)->number, 0);
    return ret;
}

void share_unfind(struct share_op *op, struct share_node *node)
{
    if (!node)
        return;
    share_changes_drop(op->request->changes, CHANGE_FOUND);
    share_node_forget(op->share, node->number, 1);
    share_node_drop(op->share, node);
}

int share_find(struct share_op *op, struct share_node *parent, const struct share_place *place,
               const char *name, struct fuse_entry_out *entry, struct share_node **found)
{
    struct share *s = op->share;
    char path[SHARE_LINK_SIZE];
    struct statx stx;
    int ret = share_look(s, place, name, &stx);

    *found = NULL;
    if (ret == 0)
        ret = share_op_found(op, parent, name, &stx, found);
    if (ret < 0)
        return ret;
    share_link(place->fd, path);
    share_fill_entry(s, *found, path, name, &stx, stx.stx_mnt_id != place->stx.stx_mnt_id, entry);
    return 0;
}

/* Answers for NAME in the directory that was reached, which is the operation's node. */
static int answer_entry(struct share_op *op, const struct share_place *place, const char *name)
{
    struct fuse_entry_out entry;
    struct share_node *found;
    int ret = share_find(op, op->node, place, name, &entry, &found);

    if (ret < 0)
        return ret;
    ret = share_within(op->share, place->fd);
    if (ret < 0) {
        share_unfind(op, found);
        return ret;
    }
    share_node_drop(op->share, found);
    return share_op_answer(op, &entry, sizeof(entry));
}

/* There is no such name, which the guest may believe for a while. */
static int answer_none(struct share_op *op)
{
    struct fuse_entry_out entry = {0};

    share_fill_timeout(op->share, &entry.entry_valid, &entry.entry_valid_nsec);
    return share_op_answer(op, &entry, sizeof(entry));
}

int share_op_lookup(struct share_op *op)
{
    struct share_place place;
    const char *name;
    int ret = share_op_name(op, 0, &name, NULL);

    if (ret == 0)
        ret = share_reach(op->share, op->node, &place);
    if (ret < 0)
        return ret;
    ret = answer_entry(op, &place, name);
    share_leave(op->share, &place);
    return ret == -ENOENT ? answer_none(op) : ret;
}

/* ---- Making ---- */

/* Begins with making NAME, in a folder's own process. -EEXIST: it is there. */
static int begin_making(const struct share_op *op, const struct share_place *place,
                        const char *name, const struct share_plan *plan)
{
    struct share_plan was;
    struct statx stx;
    int ret;

    if (!op->request->intent || share_begun(op->request, &was))
        return 0;
    ret = share_look(op->share, place, name, &stx);
    if (ret == -ENOENT)
        share_begin(op->request, plan);
    return ret == 0 ? -EEXIST : 0;
}

/* What has come of making NAME, which is to be of TYPE: RET, or 0 if a process that has died had
 * made it. */
static int end_making(const struct share_op *op, const struct share_place *place, const char *name,
                      uint32_t type, int ret)
{
    struct share_plan was;
    struct statx stx;

    if (ret == -EEXIST && share_begun(op->request, &was) &&
        share_look(op->share, place, name, &stx) == 0 && (stx.stx_mode & S_IFMT) == type)
        return 0;
    return ret;
}

/* Something was made as NAME: it gets its owner and mode, and the guest an answer. */
static int answer_made(struct share_op *op, const struct share_place *place, const char *name,
                       uint32_t mode)
{
    struct share *s = op->share;
    char path[SHARE_LINK_SIZE];
    struct share_place made = {.owned = true};
    int ret;

    made.fd = share_open_in(s, place, name, O_PATH, 0);
    if (made.fd < 0)
        return made.fd;
    share_link(made.fd, path);
    ret = statx(made.fd, "", AT_EMPTY_PATH, SHARE_STATX, &made.stx) < 0 ? -errno : 0;
    if (ret == 0)
        ret = share_owner_new(s, path, &made.stx, mode, op->header.uid, op->header.gid);
    share_leave(s, &made);
    return ret < 0 ? ret : answer_entry(op, place, name);
}

int share_op_mkdir(struct share_op *op)
{
    const struct fuse_mkdir_in *in = SHARE_ARGUMENT(op, fuse_mkdir_in);
    struct share *s = op->share;
    struct share_place place;
    const char *name;
    int ret = share_op_name(op, sizeof(*in), &name, NULL);

    if (ret == 0)
        ret = share_reach(s, op->node, &place);
    if (ret < 0)
        return ret;
    ret = begin_making(op, &place, name, &(struct share_plan){.size = 0});
    if (ret == 0 && mkdirat(place.fd, name, share_owner_mode(s, in->mode | S_IFDIR)) < 0)
        ret = -errno;
    ret = end_making(op, &place, name, S_IFDIR, ret);
    if (ret == 0)
        ret = answer_made(op, &place, name, in->mode);
    share_leave(s, &place);
    return ret;
}

int share_op_mknod(struct share_op *op)
{
    const struct fuse_mknod_in *in = SHARE_ARGUMENT(op, fuse_mknod_in);
    uint32_t type = in->mode & S_IFMT ? in->mode & S_IFMT : S_IFREG;
    struct share *s = op->share;
    struct share_place place;
    const char *name;
    int ret = share_op_name(op, sizeof(*in), &name, NULL);

    /* A device on the host would be the host's device. */
    if (ret == 0 && type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
        ret = -EPERM;
    if (ret == 0)
        ret = share_reach(s, op->node, &place);
    if (ret < 0)
        return ret;
    ret = begin_making(op, &place, name, &(struct share_plan){.size = 0});
    if (ret == 0 && mknodat(place.fd, name, type | share_owner_mode(s, in->mode), 0) < 0)
        ret = -errno;
    ret = end_making(op, &place, name, type, ret);
    if (ret == 0)
        ret = answer_made(op, &place, name, in->mode);
    share_leave(s, &place);
    return ret;
}

int share_op_symlink(struct share_op *op)
{
    struct share_place place;
    const char *name, *target;
    size_t next, end;
    int ret = share_op_name(op, 0, &name, &next);

    if (ret < 0)
        return ret;
    target = share_op_text(op, next, &end);
    if (!target)
        return -EINVAL;
    ret = share_reach(op->share, op->node, &place);
    if (ret < 0)
        return ret;
    ret = begin_making(op, &place, name, &(struct share_plan){.size = 0});
    if (ret == 0 && symlinkat(target, place.fd, name) < 0)
        ret = -errno;
    ret = end_making(op, &place, name, S_IFLNK, ret);
    if (ret == 0)
        ret = answer_entry(op, &place, name);
    share_leave(op->share, &place);
    return ret;
}

int share_op_readlink(struct share_op *op)
{
    struct share_place place;
    ssize_t length;
    int ret = share_reach(op->share, op->node, &place);

    if (ret < 0)
        return ret;
    ret = share_op_reserve(op, PATH_MAX);
    if (ret == 0) {
        length = readlinkat(place.fd, "", (char *)op->answer, PATH_MAX);
        ret = length < 0 ? -errno : 0;
        op->answered = length < 0 ? 0 : (size_t)length;
    }
    share_leave(op->share, &place);
    return ret;
}

/* Gives the file of NODE the name NAME in the directory PLACE. */
static int give_name(struct share *s, struct share_node *node, const struct share_place *place,
                     const char *name)
{
    struct share_place old;
    char path[SHARE_LINK_SIZE];
    int ret = share_reach(s, node, &old);

    if (ret < 0)
        return ret;
    share_link(old.fd, path);
    if (old.handle && old.stx.stx_nlink) /* it was moved out, and stays there */
        ret = -ESTALE;
    else if (linkat(AT_FDCWD, path, place->fd, name, AT_SYMLINK_FOLLOW) < 0)
        ret = -errno;
    share_leave(s, &old);
    return ret;
}

int share_op_link(struct share_op *op)
{
    const struct fuse_link_in *in = SHARE_ARGUMENT(op, fuse_link_in);
    struct share *s = op->share;
    struct share_node *node;
    struct share_place place;
    const char *name;
    int ret = share_op_name(op, sizeof(*in), &name, NULL);

    if (ret < 0)
        return ret;
    node = share_node_hold(s, in->oldnodeid);
    if (!node)
        return -ESTALE;
    ret = share_reach(s, op->node, &place);
    if (ret == 0) {
        ret = begin_making(op, &place, name, &(struct share_plan){.key = node->key});
        if (ret == 0)
            ret = give_name(s, node, &place, name);
        ret = end_making(op, &place, name, node->key.type, ret);
        if (ret == 0)
            ret = answer_entry(op, &place, name);
        share_leave(s, &place);
    }
    share_node_drop(s, node);
    return ret;
}

/* ---- Removing ---- */

/* Removes NAME from the host's directory. *PLAN: what it was. A process that has died may have done
 * so already. */
static int remove_in(const struct share_op *op, const struct share_place *place, const char *name,
                     int flags, struct share_plan *plan)
{
    struct share *s = op->share;
    struct share_plan was;
    struct statx stx;
    int ret = share_look(s, place, name, &stx);

    if (share_begun(op->request, &was) &&
        (ret == -ENOENT || (ret == 0 && !share_key_is(&was.key, &stx)))) {
        *plan = was;
        return 0;
    }
    if (ret < 0)
        return ret;
    *plan = (struct share_plan){.key = share_key_of(&stx),
                                .last = flags == AT_REMOVEDIR || stx.stx_nlink <= 1};
    share_begin(op->request, plan);
    return unlinkat(place->fd, name, flags) < 0 ? -errno : 0;
}

static int remove_name(struct share_op *op, int flags)
{
    struct share *s = op->share;
    struct share_place place;
    struct share_plan plan;
    const char *name;
    int ret = share_op_name(op, 0, &name, NULL);

    if (ret == 0)
        ret = share_reach(s, op->node, &place);
    if (ret < 0)
        return ret;
    ret = remove_in(op, &place, name, flags, &plan);
    share_leave(s, &place);
    if (ret == 0)
        share_node_gone(s, &plan.key, op->node, name, plan.last);
    return ret;
}

int share_op_unlink(struct share_op *op)
{
    return remove_name(op, 0);
}

int share_op_rmdir(struct share_op *op)
{
    return remove_name(op, AT_REMOVEDIR);
}

/* ---- Renaming ---- */

/* What lay at both names before the change: KEY at the first, and REPLACED, if REPLACES, at the
 * second. */
struct rename {
    const char *from_name, *to_name;
    struct share_place from, to;
    struct share_plan plan;
    unsigned flags;
};

/* Whether a process that has died had begun with R and was done. Then *R is as it was for it. */
static bool was_renamed(const struct share_op *op, struct rename *r)
{
    struct share *s = op->share;
    struct share_plan was;
    struct statx stx;

    if (!share_begun(op->request, &was) ||
        (share_look(s, &r->from, r->from_name, &stx) == 0 && share_key_is(&was.key, &stx)) ||
        share_look(s, &r->to, r->to_name, &stx) < 0 || !share_key_is(&was.key, &stx))
        return false;
    r->plan = was;
    return true;
}

/* Changes the names on the host. */
static int change_names(const struct share_op *op, struct rename *r)
{
    struct share *s = op->share;
    struct share_plan *plan = &r->plan;
    struct statx old, replaced;
    int ret;

    if (was_renamed(op, r))
        return 0;
    ret = share_look(s, &r->from, r->from_name, &old);
    if (ret < 0)
        return ret;
    ret = share_look(s, &r->to, r->to_name, &replaced);
    if (ret < 0 && ret != -ENOENT)
        return ret;
    *plan = (struct share_plan){.key = share_key_of(&old), .replaces = ret == 0};
    if (plan->replaces) {
        plan->replaced = share_key_of(&replaced);
        plan->last = S_ISDIR(replaced.stx_mode) || replaced.stx_nlink <= 1;
    }
    share_begin(op->request, plan);
    return renameat2(r->from.fd, r->from_name, r->to.fd, r->to_name, r->flags) < 0 ? -errno : 0;
}

/* Notes them for the nodes. */
static void note_names(struct share *s, const struct rename *r, struct share_node *from,
                       struct share_node *to)
{
    const struct share_plan *plan = &r->plan;

    if (plan->replaces && share_same_key(&plan->key, &plan->replaced))
        return; /* two names of one file: rename(2) leaves both */
    if (plan->replaces && r->flags & RENAME_EXCHANGE)
        share_node_moved(s, &plan->replaced, from, r->from_name);
    else if (plan->replaces)
        share_node_gone(s, &plan->replaced, to, r->to_name, plan->last);
    share_node_moved(s, &plan->key, to, r->to_name);
}

static int rename_in(struct share_op *op, struct share_node *to, struct rename *r)
{
    struct share *s = op->share;
    int ret = share_reach(s, op->node, &r->from);

    if (ret < 0)
        return ret;
    ret = share_reach(s, to, &r->to);
    if (ret == 0) {
        ret = change_names(op, r);
        share_leave(s, &r->to);
    }
    share_leave(s, &r->from);
    if (ret == 0)
        note_names(s, r, op->node, to);
    return ret;
}

/* The names stand at OFFSET of the argument. */
static int rename_to(struct share_op *op, uint64_t newdir, unsigned flags, size_t offset)
{
    struct rename r = {.flags = flags};
    struct share_node *to;
    size_t next;
    int ret = share_op_name(op, offset, &r.from_name, &next);

    if (ret == 0)
        ret = share_op_name(op, next, &r.to_name, NULL);
    /* RENAME_WHITEOUT makes a device. */
    if (ret == 0 && (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)))
        ret = -EINVAL;
    if (ret < 0)
        return ret;
    to = share_node_hold(op->share, newdir);
    if (!to)
        return -ESTALE;
    ret = rename_in(op, to, &r);
    share_node_drop(op->share, to);
    return ret;
}

int share_op_rename(struct share_op *op)
{
    const struct fuse_rename_in *in = SHARE_ARGUMENT(op, fuse_rename_in);

    return rename_to(op, in->newdir, 0, sizeof(*in));
}

int share_op_rename2(struct share_op *op)
{
    const struct fuse_rename2_in *in = SHARE_ARGUMENT(op, fuse_rename2_in);

    return rename_to(op, in->newdir, in->flags, sizeof(*in));
}
