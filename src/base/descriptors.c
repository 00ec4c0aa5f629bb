/*
 * Descriptors that a guest has this process open.
 */
#include "base/descriptors.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

/* Descriptors that guests never get; of a small limit, half. And those of the rest that are for
 * files only; of few, a quarter. */
#define SPARED    128
#define FOR_FILES 64

void descriptors_init(struct descriptors *d, enum descriptors_use use, const char *what,
                      const struct log *log)
{
    *d = (struct descriptors){.use = use, .log = log, .what = what};
}

/* Whether a guest may have the descriptor FD. The limit may change at any time (prlimit(2)). */
static bool is_for_guest(const struct descriptors *d, int fd)
{
    struct rlimit limit;
    rlim_t end;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return true;
    end = limit.rlim_cur - MIN(limit.rlim_cur / 2, (rlim_t)SPARED);
    if (d->use == DESCRIPTORS_SOCKETS)
        end -= MIN(end / 4, (rlim_t)FOR_FILES);
    return (rlim_t)fd < end;
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
    if (fd >= 0 && !is_for_guest(d, fd)) {
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
