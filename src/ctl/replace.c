/*
 * Small files that are replaced in whole or not at all.
 */
#include "ctl/replace.h"

#include "base/regular.h"
#include "base/write_all.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

/* Fills the new file, which is open as FD and called NAME, and has it take the place of FILE. */
static int fill(int fd, const char *name, const char *file, const void *data, size_t size,
                mode_t mode)
{
    int ret = write_all(fd, data, size);

    if (!ret && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
        ret = -errno;
    if (close(fd) < 0 && !ret)
        ret = -errno;
    if (!ret && rename(name, file) < 0)
        ret = -errno;
    if (ret)
        unlink(name);
    return ret;
}

int replace_file(const char *file, const void *data, size_t size, mode_t mode, struct error *err)
{
    char folder[PATH_MAX], name[PATH_MAX];
    const char *slash = strrchr(file, '/');
    int fd, ret;

    snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash + 1 - file) : 2,
             slash ? file : "./");
    if (snprintf(name, sizeof(name), "%s" REPLACE_PREFIX "XXXXXX", folder) >= PATH_MAX)
        return error_set(err, ENAMETOOLONG, "the path %s is too long", file);
    fd = mkostemp(name, O_CLOEXEC);
    ret = fd < 0 ? -errno : fill(fd, name, file, data, size, mode);
    if (ret)
        return error_set(err, -ret, "cannot write %s: %s", file, strerror(-ret));
    sync_folder(folder);
    return 0;
}

/* Reads what is open as FD into memory that the caller frees. */
static int read_all(int fd, size_t most, char **data, size_t *size)
{
    size_t room = most + 1; /* one more than it may be */
    ssize_t n = 1;

    *data = malloc(room + 1);
    if (!*data)
        return -ENOMEM;
    for (*size = 0; n > 0 && *size < room; *size += (size_t)n) {
        n = read(fd, *data + *size, room - *size);
        if (n < 0)
            return -errno;
    }
    (*data)[*size] = '\0';
    return *size > most ? -EFBIG : 0;
}

char *read_small_file(const char *file, size_t most, size_t *size, struct error *err)
{
    int fd = regular_open(AT_FDCWD, file, 0);
    char *data = NULL;
    int ret = fd < 0 ? fd : read_all(fd, most, &data, size);

    if (fd >= 0)
        close(fd);
    if (!ret)
        return data;
    free(data);
    if (ret == -EINVAL)
        error_set(err, EINVAL, "%s is not a regular file", file);
    else if (ret == -EFBIG)
        error_set(err, EFBIG, "%s is larger than %zu bytes", file, most);
    else
        error_set(err, -ret, "cannot read %s: %s", file, strerror(-ret));
    return NULL;
}
