/*
 * qemu-img, as a second opinion.
 */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKING_FD 900
#define IMAGE_FD   901
#define OTHER_FD   902

extern char **environ;

static void die(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    fflush(stdout);
    abort();
}

int peer_file(const void *data, uint64_t size)
{
    int fd = memfd_create("image", MFD_CLOEXEC);

    if (fd < 0)
        die("memfd_create");
    for (uint64_t at = 0; at < size;) {
        ssize_t wrote = pwrite(fd, (const char *)data + at, size - at, (off_t)at);

        if (wrote <= 0)
            die("pwrite");
        at += (uint64_t)wrote;
    }
    return fd;
}

static void hand_over(posix_spawn_file_actions_t *actions, int fd, int as)
{
    if (fd >= 0 && posix_spawn_file_actions_adddup2(actions, fd, as))
        die("posix_spawn");
}

/* Runs qemu-img with WORDS. Returns its exit status. QUIET: what it says is not shown. */
static int run(const char *const words[], int image, int backing, int other, bool quiet)
{
    posix_spawn_file_actions_t actions;
    int status, result;
    pid_t pid;

    fflush(stdout);
    posix_spawn_file_actions_init(&actions);
    hand_over(&actions, backing, BACKING_FD);
    hand_over(&actions, image, IMAGE_FD);
    hand_over(&actions, other, OTHER_FD);
    if (quiet && (posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0) ||
                  posix_spawn_file_actions_adddup2(&actions, 1, 2)))
        die("posix_spawn");
    result = posix_spawnp(&pid, "qemu-img", &actions, NULL, (char *const *)words, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (result) {
        errno = result;
        die("qemu-img (install qemu-utils)");
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            die("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int peer_check(int image, int backing)
{
    const char *words[] = {"qemu-img", "check", "-q", "-f", "qcow2", "/dev/fd/901", NULL};

    int status = run(words, image, backing, -1, true);

    if (status != 0 && status != 3)
        run(words, image, backing, -1, false);
    return status;
}

bool peer_compare(int image, int backing, const void *data, uint64_t size)
{
    const char *words[] = {"qemu-img", "compare", "-q",          "-f",          "qcow2",
                           "-F",       "raw",     "/dev/fd/901", "/dev/fd/902", NULL};
    int other = peer_file(data, size), status = run(words, image, backing, other, false);

    close(other);
    return status == 0;
}
