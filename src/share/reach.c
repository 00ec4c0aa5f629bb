/*
 * From a node to its file, beneath the folder.
 */
#include "share/reach.h"

#include "share/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* With RESOLVE_BENEATH the kernel asks to try again if something was renamed meanwhile. */
#define TRIES 16

void share_link(int fd, char path[SHARE_LINK_SIZE])
{
    snprintf(path, SHARE_LINK_SIZE, "/proc/self/fd/%d", fd);
}

/* As of a call that has opened FD, or failed with it. */
static int take(const struct share *s, int fd)
{
    return descriptors_take((struct descriptors *)&s->limit, fd);
}

static int open_beneath(const struct share *s, int at, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)flags | O_CLOEXEC | O_NOFOLLOW,
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS |
                   (s->options.mounts ? 0 : RESOLVE_NO_XDEV),
    };

    for (unsigned i = 0; i < TRIES; i++) {
        long fd = syscall(SYS_openat2, at, path, &how, sizeof(how));

        if (fd >= 0)
            return (int)fd;
        if (errno != EAGAIN && errno != EINTR)
            break;
    }
    return -errno;
}

/* Whether what lies in another mount may be shown. Never what the kernel says of processes, by
 * which this one's memory could be written. */
static int check_mount(const struct share *s, int fd, const struct statx *stx)
{
    struct statfs fs;

    if (stx->stx_mnt_id == s->mount)
        return 0;
    if (!s->options.mounts || fstatfs(fd, &fs) < 0 || fs.f_type == PROC_SUPER_MAGIC)
        return -EXDEV;
    return 0;
}

static int look_at(int fd, struct statx *stx)
{
    return statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, SHARE_STATX, stx) < 0 ? -errno : 0;
}

/* Checks that what was opened at PLACE is the file of NODE. */
static int check(const struct share *s, const struct share_node *node, struct share_place *place)
{
    int ret = look_at(place->fd, &place->stx);

    if (ret == 0 && !share_key_is(&node->key, &place->stx))
        ret = -ESTALE;
    return ret == 0 ? check_mount(s, place->fd, &place->stx) : ret;
}

static int reach_top(struct share *s, struct share_place *place)
{
    *place = (struct share_place){.fd = s->root};
    return look_at(s->root, &place->stx);
}

int share_reach_named(struct share *s, struct share_node *node, struct share_place *place)
{
    char buffer[PATH_MAX];
    const char *path;
    int ret;

    if (node == s->top)
        return reach_top(s, place);
    ret = share_node_path(s, node, buffer, sizeof(buffer), &path);
    if (ret < 0)
        return ret;
    *place = (struct share_place){.owned = true};
    place->fd = open_beneath(s, s->root, path, O_PATH, 0);
    if (place->fd < 0) /* what stands in the way took the place of what the guest knows */
        return place->fd == -ENOENT || place->fd == -ENOTDIR || place->fd == -ELOOP ||
                       place->fd == -EXDEV
                   ? -ESTALE
                   : place->fd;
    ret = check(s, node, place);
    if (ret < 0)
        close(place->fd);
    return ret;
}

int share_reach(struct share *s, struct share_node *node, struct share_place *place)
{
    int ret = share_reach_named(s, node, place);
    struct share_handle *handle;

    if (ret != -ESTALE)
        return ret;
    handle = share_handle_any(s, node);
    if (!handle)
        return ret;
    *place = (struct share_place){.fd = handle->fd, .handle = handle};
    ret = look_at(place->fd, &place->stx);
    /* A directory that was moved out must not lead to what is in it now. */
    if (ret == 0 && S_ISDIR(place->stx.stx_mode))
        ret = share_within(s, place->fd);
    if (ret < 0)
        share_leave(s, place);
    return ret;
}

int share_may_access(struct share *s, struct share_node *node, const struct share_place *place,
                     int flags)
{
    struct share_place named;
    int ret;

    if (!place->handle || place->stx.stx_nlink == 0 || share_handle_allows(place->handle, flags))
        return 0;
    ret = share_reach_named(s, node, &named);
    if (ret == 0)
        share_leave(s, &named);
    return ret;
}

void share_leave(struct share *s, struct share_place *place)
{
    if (place->owned)
        close(place->fd);
    share_handle_drop(s, place->handle);
    *place = (struct share_place){.fd = -1};
}

int share_look(const struct share *s, const struct share_place *place, const char *name,
               struct statx *stx)
{
    if (statx(place->fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, SHARE_STATX, stx) < 0)
        return -errno;
    return stx->stx_mnt_id == s->mount || s->options.mounts ? 0 : -EXDEV;
}

int share_reopen(const struct share *s, const struct share_place *place, int flags)
{
    uint32_t type = place->stx.stx_mode & S_IFMT;
    char name[16];
    int fd;

    /* A pipe would have us wait, and a device would do what it does when it is opened. */
    if (type != S_IFREG && type != S_IFDIR)
        return -EPERM;
    snprintf(name, sizeof(name), "%d", place->fd);
    fd = openat(s->descriptors, name, flags | O_CLOEXEC | O_NOCTTY);
    return take(s, fd < 0 ? -errno : fd);
}

int share_open_in(const struct share *s, const struct share_place *place, const char *name,
                  int flags, mode_t mode)
{
    return take(s, open_beneath(s, place->fd, name, flags, mode));
}

/* ---- Whether it is inside ---- */

static ssize_t path_of(const struct share *s, int fd, char *path, size_t size)
{
    char name[16];
    ssize_t length;

    snprintf(name, sizeof(name), "%d", fd);
    length = readlinkat(s->descriptors, name, path, size - 1);
    if (length >= 0)
        path[length] = '\0';
    return length;
}

static bool begins(const char *path, const char *folder, size_t length)
{
    if (length == 1) /* the root of all */
        return *path == '/';
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

int share_within(const struct share *s, int fd)
{
    char folder[PATH_MAX], path[PATH_MAX];

    /* Twice, as the folder itself may be moved between the two calls. */
    for (unsigned i = 0; i < 2; i++) {
        ssize_t length = path_of(s, s->root, folder, sizeof(folder));

        if (length <= 0 || path_of(s, fd, path, sizeof(path)) <= 0)
            return -ESTALE;
        if (begins(path, folder, (size_t)length))
            return 0;
    }
    return -ESTALE;
}
