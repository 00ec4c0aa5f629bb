/*
 * Gives a terminal back whose process dies in raw mode.
 */
#include "cli/terminal_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Ends when the other end of the pipe FD is closed, or says that there is nothing to do. */
__attribute__((noreturn)) static void keep_watch(struct tty *tty, int fd)
{
    char byte;
    ssize_t n;

    close(STDOUT_FILENO); /* who reads it waits for its end */
    close(STDERR_FILENO);
    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        tty_cooked(tty);
    _exit(0);
}

void terminal_guard_begin(struct terminal_guard *guard, struct tty *tty)
{
    int ends[2];

    *guard = (struct terminal_guard){0};
    if (pipe2(ends, O_CLOEXEC))
        return;
    guard->pid = fork();
    if (guard->pid == 0) {
        close(ends[1]);
        keep_watch(tty, ends[0]);
    }
    close(ends[0]);
    guard->pipe = ends[1];
    if (guard->pid < 0) {
        close(ends[1]);
        guard->pid = 0;
    }
}

void terminal_guard_end(struct terminal_guard *guard)
{
    if (!guard->pid)
        return;
    if (write(guard->pipe, "", 1) < 0)
        errno = 0; /* it is gone already */
    close(guard->pipe);
    while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    guard->pid = 0;
}
