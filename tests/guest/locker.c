/*
 * Runs a command with a lock of a file: locker flock|fcntl try|wait FILE COMMAND [ARGUMENT...]
 * Exits with 1 if somebody else has the lock and it is only tried. For guests: busybox has nothing
 * like it.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    bool waits;
    int fd, ret;

    if (argc < 5)
        return 2;
    waits = !strcmp(argv[2], "wait");
    fd = open(argv[3], O_RDWR);
    if (fd < 0)
        return 2;
    ret = !strcmp(argv[1], "flock") ? flock(fd, waits ? LOCK_EX : LOCK_EX | LOCK_NB)
                                    : fcntl(fd, waits ? F_SETLKW : F_SETLK, &all);
    if (ret < 0)
        return 1;
    execvp(argv[4], argv + 4);
    return 2;
}
