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
#include <sys/stat.h>
#include <unistd.h>

struct journal {
    char last[JOURNAL_LAST][JOURNAL_LINE];
    unsigned lines; /* ever written; the next one goes to last[lines % JOURNAL_LAST] */
    char *path;     /* NULL: no file */
    int fd;
    uint64_t size, limit;
    int error;
};

/* Opens the file to add to it. The lock keeps another journal from renaming it. */
static int open_file(struct journal *j, int flags, struct error *err)
{
    struct stat st;

    j->fd = open(j->path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | flags,
                 0600);
    if (j->fd < 0 || fstat(j->fd, &st) < 0)
        return error_set(err, errno, "cannot open the log %s: %s", j->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "the log %s is not a regular file", j->path);
    if (flock(j->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return error_set(err, errno, "another virtual machine writes to the log %s", j->path);
    j->size = (uint64_t)st.st_size;
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

    if (!j || (path && !(j->path = strdup(path)))) {
        free(j);
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    j->fd = -1;
    j->limit = limit;
    if (path && open_file(j, 0, err) < 0) {
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

/* Gives the full file its other name and begins a new one. */
static int rotate(struct journal *j)
{
    struct error err = {0};
    char older[PATH_MAX];
    int length = snprintf(older, sizeof(older), "%s.1", j->path);

    if (length < 0 || (size_t)length >= sizeof(older))
        return -ENAMETOOLONG;
    if (rename(j->path, older) < 0)
        return -errno;
    close_file(j);
    return open_file(j, O_EXCL, &err);
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
