/*
 * Makes files in a folder of the host whose names somebody hostile has chosen.
 */
#include "image/extract.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_ROOM 256 /* NAME_MAX and the 0 */

static int cannot(const char *path, int code, struct error *err)
{
    return error_set(err, code, "cannot make '%.200s': %s", path, strerror(code));
}

bool extract_clean(const char *name, char *path, size_t room)
{
    size_t size = 0;

    while (*name) {
        size_t length = strcspn(name, "/");
        bool dot = length == 1 && name[0] == '.';

        if (length == 2 && name[0] == '.' && name[1] == '.')
            return false;
        if (length >= NAME_ROOM || size + length + 2 > room)
            return false;
        if (length > 0 && !dot) {
            if (size > 0)
                path[size++] = '/';
            memcpy(path + size, name, length);
            size += length;
        }
        name += length + (name[length] == '/');
    }
    path[size] = '\0';
    return true;
}

/* ---- Where it stands ---- */

void extract_begin(struct extract *x, int folder)
{
    x->level[0] = (struct extract_level){.fd = folder};
    x->depth = 1;
    x->path[0] = '\0';
}

static struct extract_level *last(struct extract *x)
{
    return &x->level[x->depth - 1];
}

/* Leaves the last level, which gets its mode and times. */
static int leave(struct extract *x, struct error *err)
{
    struct extract_level *level = last(x);
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, level->time};
    int result = 0;

    if (level->made && (fchmod(level->fd, level->mode) || futimens(level->fd, times)))
        result = error_set(err, errno, "cannot set mode and time of '%.200s': %s", x->path,
                           strerror(errno));
    close(level->fd);
    x->depth--;
    x->path[x->depth ? last(x)->length : 0] = '\0';
    return result;
}

int extract_end(struct extract *x, struct error *err)
{
    int result = 0;

    while (x->depth > 0) {
        int ret = leave(x, result ? NULL : err);

        result = result ? result : ret;
    }
    return result;
}

void extract_free(struct extract *x)
{
    while (x->depth > 0)
        close(x->level[--x->depth].fd);
}

/* Whether the last level leads to the first LENGTH bytes of PATH, or is that. */
static bool leads_to(const struct extract *x, const char *path, size_t length)
{
    size_t have = x->level[x->depth - 1].length;

    return have == 0 || (have <= length && !memcmp(x->path, path, have) &&
                         (have == length || path[have] == '/'));
}

/* Opens the folder NAME, which is in the last level, or makes it: then it gets MODE and TIME. */
static int step(struct extract *x, const char *name, mode_t mode, const struct timespec *time,
                struct error *err)
{
    struct extract_level *from = last(x), *to = from + 1;
    size_t length = from->length + (from->length > 0) + strlen(name);
    bool made;

    if (x->depth == EXTRACT_DEPTH || length >= sizeof(x->path))
        return error_set(err, ENAMETOOLONG, "'%.200s' has too many folders in folders", x->path);
    made = mkdirat(from->fd, name, 0700) == 0;
    if (!made && errno != EEXIST)
        return cannot(name, errno, err);
    to->fd = openat(from->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (to->fd < 0)
        return cannot(name, errno, err);
    if (from->length > 0)
        x->path[from->length] = '/';
    memcpy(x->path + length - strlen(name), name, strlen(name) + 1);
    to->length = length;
    to->made = made;
    to->mode = mode & 0777;
    to->time = *time;
    x->depth++;
    return 0;
}

/* Goes to the folder that is the first LENGTH bytes of PATH. What is missing of it is made. */
static int go_to(struct extract *x, const char *path, size_t length, struct error *err)
{
    static const struct timespec now = {.tv_nsec = UTIME_NOW};
    int result = 0;

    while (!leads_to(x, path, length) && !result)
        result = leave(x, err);
    while (!result && last(x)->length < length) {
        size_t at = last(x)->length + (last(x)->length > 0);
        size_t size = strcspn(path + at, "/");
        char name[NAME_ROOM];

        size = size < length - at ? size : length - at;
        if (size >= sizeof(name))
            return cannot(path, ENAMETOOLONG, err);
        memcpy(name, path + at, size);
        name[size] = '\0';
        result = step(x, name, 0755, &now, err);
    }
    return result;
}

/* Goes to the folder that PATH is in. Sets *NAME to the rest, of which there is to be some. */
static int go_above(struct extract *x, const char *path, const char **name, struct error *err)
{
    const char *slash = strrchr(path, '/');

    *name = slash ? slash + 1 : path;
    if (!**name)
        return error_set(err, EEXIST, "the folder itself cannot become something else");
    return go_to(x, path, slash ? (size_t)(slash - path) : 0, err);
}

/* The same; a file of that name is removed. A folder is not, so what follows fails. */
static int make_room(struct extract *x, const char *path, const char **name, struct error *err)
{
    int result = go_above(x, path, name, err);

    if (!result && unlinkat(last(x)->fd, *name, 0) && errno != ENOENT && errno != EISDIR &&
        errno != EPERM)
        result = error_set(err, errno, "cannot replace '%.200s': %s", path, strerror(errno));
    return result;
}

/* ---- What is made ---- */

int extract_folder(struct extract *x, const char *path, mode_t mode, struct timespec time,
                   struct error *err)
{
    const char *name;
    int result;

    if (!*path)
        return 0;
    result = go_above(x, path, &name, err);
    return result ? result : step(x, name, mode, &time, err);
}

int extract_file(struct extract *x, const char *path, struct error *err)
{
    const char *name;
    int result = make_room(x, path, &name, err), fd;

    if (result)
        return result;
    fd = openat(last(x)->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd >= 0 ? fd : cannot(path, errno, err);
}

int extract_symlink(struct extract *x, const char *path, const char *target, struct timespec time,
                    struct error *err)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time};
    const char *name;
    int result = make_room(x, path, &name, err);

    if (result)
        return result;
    if (symlinkat(target, last(x)->fd, name))
        return cannot(path, errno, err);
    utimensat(last(x)->fd, name, times, AT_SYMLINK_NOFOLLOW); /* not all file systems know it */
    return 0;
}

/* Opens the folder that PATH is in, through no link; what is missing is not made. */
static int open_above(const struct extract *x, const char *path, const char **name,
                      struct error *err)
{
    int fd = fcntl(x->level[0].fd, F_DUPFD_CLOEXEC, 0), next;
    char part[NAME_ROOM];
    const char *slash;

    for (; fd >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
        memcpy(part, path, (size_t)(slash - path)); /* extract_clean has looked at its length */
        part[slash - path] = '\0';
        next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(fd);
        fd = next;
    }
    *name = path;
    return fd >= 0 ? fd : cannot(path, errno, err);
}

int extract_link(struct extract *x, const char *path, const char *existing, struct error *err)
{
    const char *name, *other;
    int above = open_above(x, existing, &other, err), result;

    if (above < 0)
        return above;
    /* A file that is another name of itself already stays. */
    result = strcmp(path, existing) ? make_room(x, path, &name, err) : 0;
    if (!result && strcmp(path, existing) != 0 && linkat(above, other, last(x)->fd, name, 0))
        result = cannot(path, errno, err);
    close(above);
    return result;
}
