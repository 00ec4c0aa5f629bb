/*
 * Machines in the background.
 */
#include "cli/background.h"

#include "base/util.h"
#include "base/write_all.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Bytes of standard error that are taken in a turn. */
#define RELAY_MOST 16384

/* ---- In the background ---- */

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int background_begin(struct background *b, struct error *err)
{
    int ends[2];

    if (b->lines >= 0) /* the machine was started anew */
        return 0;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
    b->lines = ends[0];
    fcntl(b->text, F_SETFL, O_NONBLOCK); /* a user who does not read misses something */
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    return 0;
}

static void take_line(struct background *b, struct journal *journal)
{
    static const char prefix[] = "doppel: ";
    const char *text = b->line;

    b->line[b->length] = '\0';
    if (!strncmp(text, prefix, strlen(prefix)))
        text += strlen(prefix);
    journal_line(journal, LOG_LEVEL_ERROR, text);
    b->line[b->length++] = '\n';
    if (b->text >= 0)
        write_all(b->text, b->line, b->length);
    b->length = 0;
}

void background_relay(struct background *b, struct journal *journal)
{
    char bytes[1024];
    ssize_t n;

    for (unsigned taken = 0; taken < RELAY_MOST; taken += (unsigned)n) {
        n = read(b->lines, bytes, sizeof(bytes));
        if (n <= 0)
            return;
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i] != '\n')
                b->line[b->length++] = bytes[i];
            if (bytes[i] == '\n' || b->length == BACKGROUND_LINE - 1)
                take_line(b, journal);
        }
    }
}

void background_ready(struct background *b)
{
    if (b->ready >= 0)
        write_all(b->ready, "", 1);
    close_end(&b->ready);
    close_end(&b->text);
}

bool background_left(const struct background *b)
{
    struct pollfd pfd = {b->ready, 0, 0};

    return b->ready >= 0 && poll(&pfd, 1, 0) > 0;
}

void background_forget(struct background *b)
{
    close_end(&b->ready);
    close_end(&b->text);
    close_end(&b->lines);
}

/* ---- In the foreground ---- */

/* Leaves the session, the terminal and the standard streams. */
static bool leave(const int text[2], const int ready[2], struct background *b)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0 || setsid() < 0)
        return false;
    close(text[0]);
    close(ready[0]);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(text[1], STDERR_FILENO);
    close(null);
    *b = (struct background){.ready = ready[1], .text = text[1], .lines = -1};
    return true;
}

/* Prints what text there is. Returns false at its end. */
static bool print(int text)
{
    char bytes[4096];
    ssize_t n = read(text, bytes, sizeof(bytes));

    if (n > 0)
        write_all(STDERR_FILENO, bytes, (size_t)n);
    return n > 0 || (n < 0 && errno == EINTR);
}

/* Prints what comes until the guest runs, or never will. Returns whether it does. */
static bool attend(int text, int ready)
{
    struct pollfd pfd[] = {{text, POLLIN, 0}, {ready, POLLIN, 0}};
    char byte;

    do {
        if (poll(pfd, ARRAY_SIZE(pfd), -1) < 0)
            continue;
        if (pfd[0].revents && !print(text))
            pfd[0].fd = -1;
    } while (!pfd[1].revents);
    while (pfd[0].fd >= 0 && poll(pfd, 1, 0) > 0 && print(text))
        ;
    return read(ready, &byte, 1) == 1;
}

/* The status of PID, which has ended or is about to. */
static int status_of(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return STATUS_ERROR;
    return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNAL + WTERMSIG(status);
}

int background_start(int (*run)(void *opaque, struct background *background), void *opaque)
{
    int text[2] = {-1, -1}, ready[2] = {-1, -1}, status = STATUS_ERROR;
    struct background background;
    pid_t pid = -1;

    if (pipe2(text, O_CLOEXEC) == 0 && pipe2(ready, O_CLOEXEC) == 0)
        pid = fork();
    if (pid == 0) {
        if (leave(text, ready, &background))
            status = run(opaque, &background);
        _exit(status);
    }
    if (pid < 0)
        complain("cannot start a process: %s", strerror(errno));
    close_end(&text[1]);
    close_end(&ready[1]);
    if (pid > 0)
        status = attend(text[0], ready[0]) ? 0 : status_of(pid);
    close_end(&text[0]);
    close_end(&ready[0]);
    return status;
}
