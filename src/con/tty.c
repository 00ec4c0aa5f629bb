/*
 * The host's terminal: the user's settings and raw mode.
 */
#include "con/tty.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

struct tty {
    int fd;
    struct termios user, raw;
};

struct tty *tty_open(int fd, struct error *err)
{
    struct tty *tty = calloc(1, sizeof(*tty));

    if (!tty) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    tty->fd = fd;
    if (tcgetattr(fd, &tty->user)) {
        error_set(err, errno, "cannot read the terminal's settings: %s", strerror(errno));
        free(tty);
        return NULL;
    }
    tty->raw = tty->user;
    cfmakeraw(&tty->raw);
    tty->raw.c_cc[VMIN] = 0; /* reading never waits: who reads has other things to listen to */
    return tty;
}

void tty_close(struct tty *tty)
{
    free(tty);
}

void tty_raw(struct tty *tty)
{
    tcsetattr(tty->fd, TCSANOW, &tty->raw);
}

void tty_cooked(struct tty *tty)
{
    sigset_t output, before;

    sigemptyset(&output);
    sigaddset(&output, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &output, &before);
    tcsetattr(tty->fd, TCSANOW, &tty->user);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

bool tty_foreground(const struct tty *tty)
{
    pid_t group = tcgetpgrp(tty->fd);

    return group < 0 || group == getpgrp();
}

void tty_size(int fd, unsigned *rows, unsigned *columns)
{
    struct winsize size = {0};

    ioctl(fd, TIOCGWINSZ, &size);
    *rows = size.ws_row;
    *columns = size.ws_col;
}
