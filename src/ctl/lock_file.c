/*
 * Files whose locks say that a process uses what they stand for.
 */
#include "ctl/lock_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRIES 100 /* times that the file is removed or replaced while it is being locked */

static bool is_at(int fd, const char *path)
{
    struct stat open_file, named;

    return fstat(fd, &open_file) == 0 && lstat(path, &named) == 0 &&
           open_file.st_dev == named.st_dev && open_file.st_ino == named.st_ino;
}

/* Locks the file that is PATH at present, and stays so as long as only those remove it who have
 * locked it. -EAGAIN: it has been replaced meanwhile. */
static int lock_present(const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    int ret = 0;

    if (fd < 0)
        return -errno;
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
        ret = errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
    else if (!is_at(fd, path))
        ret = -EAGAIN;
    if (!ret)
        return fd;
    close(fd);
    return ret;
}

int lock_file_take(const char *path, const char *use)
{
    int fd = -EAGAIN;

    for (unsigned i = 0; i < TRIES && fd == -EAGAIN; i++)
        fd = lock_present(path);
    /* What it says is for messages only. */
    if (fd >= 0 && ftruncate(fd, 0) == 0)
        dprintf(fd, "%ld %s\n", (long)getpid(), use);
    return fd == -EAGAIN ? -EBUSY : fd;
}

/* Reads what the holder has written: a number, and words. */
static void read_holder(int fd, struct lock_holder *holder)
{
    char text[64], *end;
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    long pid;
    size_t length;

    text[n > 0 ? n : 0] = '\0';
    if (text[0] < '0' || text[0] > '9')
        return;
    pid = strtol(text, &end, 10);
    if (pid <= 0 || pid > 1 << 22 || *end != ' ') /* Linux has no greater ones: PID_MAX_LIMIT */
        return;
    holder->pid = (pid_t)pid;
    length = strspn(++end, "abcdefghijklmnopqrstuvwxyz ");
    if (length <= LOCK_FILE_USE_MOST && end[length] == '\n')
        snprintf(holder->use, sizeof(holder->use), "%.*s", (int)length, end);
}

void lock_file_look(const char *path, struct lock_holder *holder)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    *holder = (struct lock_holder){0};
    if (fd < 0)
        return;
    if (fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) {
        holder->held = true;
        read_holder(fd, holder);
    }
    close(fd);
}

/* Who has the lock before and after is who had the number in between. */
int lock_file_pidfd(const char *path, struct lock_holder *holder)
{
    struct lock_holder again;
    int fd;

    lock_file_look(path, holder);
    if (!holder->held || !holder->pid)
        return -ESRCH;
    fd = (int)syscall(SYS_pidfd_open, holder->pid, 0);
    if (fd < 0)
        return -errno;
    lock_file_look(path, &again);
    if (again.held && again.pid == holder->pid)
        return fd;
    close(fd);
    return -ESRCH;
}
