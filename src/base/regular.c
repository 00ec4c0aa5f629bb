/*
 * Opens files that may be anything.
 */
#include "base/regular.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int regular_open(int at, const char *name, int flags)
{
    int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);
    struct stat st;
    int code;

    if (fd < 0)
        return -errno;
    code = fstat(fd, &st) < 0 ? errno : S_ISREG(st.st_mode) ? 0 : EINVAL;
    if (!code)
        return fd;
    close(fd);
    return -code;
}
