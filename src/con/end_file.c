/*
 * The host end that is a regular file, to which output is appended.
 */
#include "base/util.h"
#include "con/end_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
    struct con_end end;
    int fd;
};

static size_t file_write(struct con_end *end, const void *data, size_t size)
{
    const struct file *f = container_of(end, struct file, end);
    size_t done = 0;

    while (done < size) {
        ssize_t n = write(f->fd, (const char *)data + done, size - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return size;
}

static void file_close(struct con_end *end)
{
    struct file *f = container_of(end, struct file, end);

    close(f->fd);
    free(f);
}

static const struct con_end_ops ops = {.close = file_close, .write = file_write};

/* Opens PATH, which must be a regular file or not exist. A FIFO or a device could hold up a worker:
 * without O_NONBLOCK even the open. */
static int open_regular(const char *path, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    struct stat status;

    if (fd < 0)
        return error_set(err, errno, "cannot open '%s': %s", path, strerror(errno));
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        return fd;
    close(fd);
    return error_set(err, EINVAL, "'%s' is not a regular file; use unix:PATH to talk to a program",
                     path);
}

struct con_end *con_end_file_open(const char *path, struct error *err)
{
    struct file *f = calloc(1, sizeof(*f));

    if (!f) {
        error_set(err, ENOMEM, "no memory for a port");
        return NULL;
    }
    f->end.ops = &ops;
    f->fd = open_regular(path, err);
    if (f->fd >= 0)
        return &f->end;
    free(f);
    return NULL;
}
