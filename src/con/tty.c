/*
 * The host's terminal in raw mode, and the keeper that gives it back.
 */
#include "con/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

struct tty {
    int fd;
    struct termios user, raw;
    pid_t keeper;
    int keeper_fd; /* closed by the kernel when this process dies, however it dies */
};

/* The keeper: waits until the other end of the pipe is closed. A byte means that the terminal has
 * been given back in good order. */
__attribute__((noreturn)) static void keep(const struct tty *tty, int pipe_fd)
{
    sigset_t all;
    char byte;
    ssize_t n;

    /* No key and no hangup may end it early, and as a background process it may still write. */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    setpgid(0, 0);
    dup2(pipe_fd, 0);
    dup2(tty->fd, 1);
    close_range(2, ~0u, 0);
    do {
        n = read(0, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n == 0)
        tcsetattr(1, TCSANOW, &tty->user);
    _exit(0);
}

struct tty *tty_borrow(int fd, struct error *err)
{
    struct tty *tty = calloc(1, sizeof(*tty));
    int ends[2];

    if (!tty) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    tty->fd = fd;
    if (tcgetattr(fd, &tty->user)) {
        error_set(err, errno, "cannot read the terminal's settings: %s", strerror(errno));
        goto fail;
    }
    tty->raw = tty->user;
    cfmakeraw(&tty->raw);
    tty->raw.c_cc[VMIN] = 0; /* reading never waits: who reads has other things to listen to */
    if (pipe2(ends, O_CLOEXEC)) {
        error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
        goto fail;
    }
    tty->keeper = fork();
    if (tty->keeper < 0) {
        error_set(err, errno, "cannot start a process: %s", strerror(errno));
        close(ends[0]);
        close(ends[1]);
        goto fail;
    }
    if (tty->keeper == 0) {
        if (fd == 0) /* out of the way of what keep() puts there */
            tty->fd = fcntl(fd, F_DUPFD, 3);
        keep(tty, ends[0]);
    }
    close(ends[0]);
    tty->keeper_fd = ends[1];
    tty_raw(tty);
    return tty;
fail:
    free(tty);
    return NULL;
}

void tty_return(struct tty *tty)
{
    if (!tty)
        return;
    tty_cooked(tty);
    if (write(tty->keeper_fd, "", 1) < 0)
        errno = 0; /* the keeper was killed; it is not needed any more */
    close(tty->keeper_fd);
    while (waitpid(tty->keeper, NULL, 0) < 0 && errno == EINTR)
        ;
    free(tty);
}

void tty_cooked(struct tty *tty)
{
    tcsetattr(tty->fd, TCSANOW, &tty->user);
}

void tty_raw(struct tty *tty)
{
    tcsetattr(tty->fd, TCSANOW, &tty->raw);
}

void tty_size(int fd, unsigned *rows, unsigned *columns)
{
    struct winsize size = {0};

    ioctl(fd, TIOCGWINSZ, &size);
    *rows = size.ws_row;
    *columns = size.ws_col;
}
