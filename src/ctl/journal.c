/*
 * The log of a virtual machine.
 */
#include "ctl/journal.h"

#include "base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

struct journal {
    char last[JOURNAL_LAST][JOURNAL_LINE];
    unsigned lines; /* ever written; the next one goes to last[lines % JOURNAL_LAST] */
    char *path;     /* without symbolic links; NULL: no file */
    int fd;
    uint64_t size, limit;
    int error;
};

/* Opens PATH, a regular file, with a lock that keeps every other journal from using it. Returns the
 * descriptor, or a negative errno. */
static int open_locked(const char *path, int flags, struct stat *st, struct error *err)
{
    int fd = open(path, O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | flags, 0600), ret = 0;

    if (fd < 0 || fstat(fd, st) < 0)
        ret = error_set(err, errno, "cannot open the log %s: %s", path, strerror(errno));
    else if (!S_ISREG(st->st_mode))
        ret = error_set(err, EINVAL, "the log %s is not a regular file", path);
    else if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        ret = error_set(err, errno, "another virtual machine writes to the log %s", path);
    if (ret < 0 && fd >= 0)
        close(fd);
    return ret < 0 ? ret : fd;
}

/* Opens the file to add to it. Where PATH is a symbolic link, the older lines go to a file beside
 * the one that it leads to. */
static int open_file(struct journal *j, const char *path, struct error *err)
{
    struct stat st;

    j->fd = open_locked(path, O_RDWR | O_APPEND, &st, err);
    if (j->fd < 0)
        return j->fd;
    j->size = (uint64_t)st.st_size;
    j->path = realpath(path, NULL);
    if (!j->path)
        return error_set(err, errno, "cannot find the log %s: %s", path, strerror(errno));
    return 0;
}

static void close_file(struct journal *j)
{
    if (j->fd >= 0)
        close(j->fd);
    j->fd = -1;
}

struct journal *journal_create(const char *path, uint64_t limit, struct error *err)
{
    struct journal *j = calloc(1, sizeof(*j));

    if (!j) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    j->fd = -1;
    j->limit = limit;
    if (path && open_file(j, path, err) < 0) {
        journal_destroy(j);
        return NULL;
    }
    return j;
}

void journal_destroy(struct journal *j)
{
    if (!j)
        return;
    close_file(j);
    free(j->path);
    free(j);
}

/* Replaces what FD, a file of its own, holds by all lines of the full file. */
static int copy_lines(const struct journal *j, int fd)
{
    off_t at = 0;
    ssize_t n = 1;

    if (ftruncate(fd, 0) < 0)
        return -errno;
    while ((uint64_t)at < j->size && n > 0)
        n = sendfile(fd, j->fd, &at, j->size - (uint64_t)at);
    return n < 0 ? -errno : 0;
}

/* Copies the full file to FILE.1 and empties it. It is not renamed, because it would be nobody's
 * for a moment: another journal could take the name, or lock a file that is no longer FILE. */
static int rotate(struct journal *j)
{
    char older[PATH_MAX];
    struct stat now, st;
    int length = snprintf(older, sizeof(older), "%s.1", j->path), fd, ret;

    if (length < 0 || (size_t)length >= sizeof(older))
        return -ENAMETOOLONG;
    fd = open_locked(older, O_WRONLY | O_NOFOLLOW, &st, NULL);
    if (fd < 0)
        return fd;
    ret = copy_lines(j, fd);
    /* Whoever may read the file may read its older lines. */
    if (ret == 0 &&
        (fstat(j->fd, &now) < 0 || fchmod(fd, now.st_mode & 0777) < 0 || ftruncate(j->fd, 0) < 0))
        ret = -errno;
    close(fd);
    if (ret == 0)
        j->size = 0;
    return ret;
}

/* A file that fails once is written no more: what follows a gap would be taken for the whole. */
static void write_line(struct journal *j, const char *line, size_t size)
{
    int ret = 0;
    ssize_t n;

    if (j->size + size > j->limit)
        ret = rotate(j);
    if (ret == 0) {
        n = write(j->fd, line, size);
        if (n < 0)
            ret = -errno;
        else if ((size_t)n < size)
            ret = -ENOSPC;
        else
            j->size += size;
    }
    if (ret < 0) {
        j->error = -ret;
        close_file(j);
    }
}

void journal_line(struct journal *j, enum log_level level, const char *text)
{
    char *line = j->last[j->lines++ % JOURNAL_LAST];
    uint64_t now = time_real_ns();
    time_t seconds = (time_t)(now / NS_PER_S);
    struct tm tm = {0};
    size_t size;

    gmtime_r(&seconds, &tm);
    size = strftime(line, JOURNAL_LINE, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(line + size, JOURNAL_LINE - size, ".%03uZ %s: %.*s",
             (unsigned)(now % NS_PER_S / NS_PER_MS), log_level_name(level), LOG_TEXT - 1, text);
    log_clean(line);
    size = strlen(line);
    if (j->fd < 0)
        return;
    line[size] = '\n';
    write_line(j, line, size + 1);
    line[size] = 0;
}

const char *journal_last(const struct journal *j, unsigned age)
{
    if (age >= JOURNAL_LAST || age >= j->lines)
        return NULL;
    return j->last[(j->lines - 1 - age) % JOURNAL_LAST];
}

int journal_error(const struct journal *j)
{
    return j->error;
}
