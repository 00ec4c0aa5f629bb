/*
 * Descriptors that a guest has this process open.
 */
#include "base/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

/* Descriptors that guests never get; of a small limit, half. */
#define SPARED 128

void descriptors_init(struct descriptors *d, const char *what, const struct log *log)
{
    *d = (struct descriptors){.log = log, .what = what};
}

/* Whether a guest may have the descriptor FD. The limit may change at any time (prlimit(2)). */
static bool is_for_guest(int fd)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return true;
    return (rlim_t)fd <
           (limit.rlim_cur > 2 * SPARED ? limit.rlim_cur - SPARED : limit.rlim_cur / 2);
}

static void tell(struct descriptors *d)
{
    if (!atomic_exchange(&d->told, true))
        log_tell(d->log, LOG_LEVEL_WARNING,
                 "%s: so much is open for the guest that the process runs out of file descriptors; "
                 "what else it opens fails (ulimit -n shows and sets how many there are)",
                 d->what);
}

int descriptors_take(struct descriptors *d, int fd)
{
    if (fd >= 0 && !is_for_guest(fd)) {
        close(fd);
        fd = -ENFILE;
    }
    if (fd == -ENFILE || fd == -EMFILE)
        tell(d);
    return fd;
}

bool descriptors_left(struct descriptors *d, int any)
{
    int fd = fcntl(any, F_DUPFD_CLOEXEC, 0);

    fd = descriptors_take(d, fd < 0 ? -errno : fd);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}
