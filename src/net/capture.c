/*
 * A file of captured frames.
 */
#include "net/capture.h"

#include "base/time.h"
#include "base/util.h"
#include "net/net.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC_NS 0xa1b23c4du
#define ETHERNET 1u
/* Pieces that are written at once; a frame in more of them is rare, and captured up to there. */
#define PIECES_MOST 64u

struct file_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, precision, longest, link;
};

struct record {
    uint32_t seconds, nanoseconds, size, whole_size;
};

struct capture {
    pthread_mutex_t lock;
    int fd;
    bool over;
    uint64_t written;
    const struct log *log;
    char *path;
};

static bool write_header(int fd)
{
    const struct file_header header = {
        .magic = MAGIC_NS, .major = 2, .minor = 4, .longest = 262144, .link = ETHERNET};

    return write(fd, &header, sizeof(header)) == sizeof(header);
}

static int open_file(const char *path, struct error *err)
{
    /* Not waiting: a FIFO without a reader is refused. */
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    struct stat status;

    if (fd < 0)
        return error_set(err, errno, "network: cannot make the capture '%s': %s", path,
                         strerror(errno));
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        close(fd);
        return error_set(err, EINVAL, "network: the capture '%s' is no regular file", path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return error_set(err, EBUSY, "network: somebody else captures to '%s'; choose another file",
                         path);
    }
    if (ftruncate(fd, 0) < 0 || !write_header(fd)) {
        close(fd);
        return error_set(err, EIO, "network: cannot write the capture '%s'", path);
    }
    return fd;
}

struct capture *capture_create(const char *path, const struct log *log, struct error *err)
{
    struct capture *capture = calloc(1, sizeof(*capture));

    if (capture)
        capture->path = strdup(path);
    if (!capture || !capture->path) {
        error_set(err, ENOMEM, "network: out of memory");
        free(capture);
        return NULL;
    }
    capture->log = log;
    capture->fd = open_file(path, err);
    if (capture->fd < 0) {
        free(capture->path);
        free(capture);
        return NULL;
    }
    pthread_mutex_init(&capture->lock, NULL);
    return capture;
}

void capture_destroy(struct capture *capture)
{
    if (!capture)
        return;
    close(capture->fd);
    pthread_mutex_destroy(&capture->lock);
    free(capture->path);
    free(capture);
}

static void end(struct capture *capture, const char *why)
{
    capture->over = true;
    log_tell(capture->log, LOG_LEVEL_WARNING, "network: the capture '%s' ends: %s", capture->path,
             why);
}

/* Takes back what was written of a record that is not whole. */
static void take_back(struct capture *capture)
{
    if (ftruncate(capture->fd, (off_t)(sizeof(struct file_header) + capture->written)) < 0)
        log_line(capture->log, LOG_LEVEL_WARNING, "network: the last frame in '%s' is cut off",
                 capture->path);
}

void capture_frame(struct capture *capture, const struct iovec *iov, unsigned iovs, size_t size)
{
    uint64_t now = time_real_ns();
    struct record record = {.seconds = (uint32_t)(now / NS_PER_S),
                            .nanoseconds = (uint32_t)(now % NS_PER_S),
                            .whole_size = (uint32_t)size};
    struct iovec all[PIECES_MOST + 1] = {{&record, sizeof(record)}};
    unsigned count = 1;
    ssize_t n;

    for (; count <= MIN(iovs, PIECES_MOST) && record.size < size; count++) {
        all[count] = iov[count - 1];
        all[count].iov_len = MIN(all[count].iov_len, size - record.size);
        record.size += (uint32_t)all[count].iov_len;
    }
    pthread_mutex_lock(&capture->lock);
    if (!capture->over && capture->written + sizeof(record) + record.size > CAPTURE_MOST)
        end(capture, "it is 1 GiB large");
    if (!capture->over) {
        n = writev(capture->fd, all, (int)count);
        if (n == (ssize_t)(sizeof(record) + record.size)) {
            capture->written += (uint64_t)n;
        } else {
            end(capture, n < 0 ? strerror(errno) : "there is no room");
            take_back(capture);
        }
    }
    pthread_mutex_unlock(&capture->lock);
}
