/*
 * Another program whose standard output is read.
 */
#include "cli/producer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define DRAIN_MS 200
#define LOG_MOST (64 * 1024) /* bytes at the end of the error output in which the reason is */

/* In the new process. */
__attribute__((noreturn)) static void become(const struct producer *producer, int out, pid_t parent,
                                             const char *const *argv, const char *package,
                                             const sigset_t *signals)
{
    int null = open("/dev/null", O_RDONLY);

    setpgid(0, 0);
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != parent || null < 0 ||
        dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(producer->log, 2) < 0)
        _exit(127);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    pthread_sigmask(SIG_SETMASK, signals, NULL);
    execvp(argv[0], (char *const *)argv);
    if (errno == ENOENT)
        dprintf(2, "! %s is not installed (Debian's package %s has it)\n", argv[0], package);
    else
        dprintf(2, "! cannot start %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

int producer_start(struct producer *producer, const char *const *argv, const char *package,
                   const sigset_t *signals, struct error *err)
{
    int pipes[2];
    pid_t parent = getpid();

    *producer = (struct producer){.out = -1, .log = memfd_create("log", MFD_CLOEXEC)};
    if (producer->log < 0)
        return error_set(err, errno, "cannot start %s: %s", argv[0], strerror(errno));
    fcntl(producer->log, F_SETFL, O_APPEND);
    if (pipe2(pipes, O_CLOEXEC) < 0) {
        close(producer->log);
        return error_set(err, errno, "cannot start %s: %s", argv[0], strerror(errno));
    }
    producer->out = pipes[0];
    producer->pid = fork();
    if (producer->pid == 0)
        become(producer, pipes[1], parent, argv, package, signals);
    close(pipes[1]);
    if (producer->pid > 0) {
        setpgid(producer->pid, producer->pid);
        return 0;
    }
    close(pipes[0]);
    close(producer->log);
    return error_set(err, errno, "cannot start %s: %s", argv[0], strerror(errno));
}

/* A line is complete. */
static void take_line(struct producer *producer, struct progress *progress)
{
    producer->line[producer->line_size] = '\0';
    if (!strncmp(producer->line, "@ ", 2))
        progress_tick(progress, producer->line + 2, -1);
    producer->line_size = 0;
}

void producer_show(struct producer *producer, struct progress *progress)
{
    char piece[1024];
    ssize_t n;

    while ((n = pread(producer->log, piece, sizeof(piece), producer->seen)) > 0) {
        producer->seen += n;
        for (ssize_t i = 0; i < n; i++) {
            if (piece[i] == '\n')
                take_line(producer, progress);
            else if (producer->line_size < sizeof(producer->line) - 1)
                producer->line[producer->line_size++] = piece[i];
        }
    }
    progress_tick(progress, NULL, -1);
}

int producer_wait(const struct producer *producer, int ms)
{
    struct pollfd pollfd = {.fd = producer->out, .events = POLLIN};

    return poll(&pollfd, 1, ms) > 0;
}

static bool has_ended(const struct producer *producer)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)producer->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
           info.si_pid;
}

bool producer_drain(const struct producer *producer, bool (*tick)(void *opaque), void *opaque)
{
    char piece[4096];
    ssize_t n = 1;

    while (!has_ended(producer) && (n > 0 || (n < 0 && errno == EINTR))) {
        if (tick(opaque))
            return false;
        n = producer_wait(producer, DRAIN_MS) ? read(producer->out, piece, sizeof(piece)) : 1;
    }
    return true;
}

/* The line that says why, or the last one. */
static void explain(const struct producer *producer, struct error *err)
{
    off_t size = lseek(producer->log, 0, SEEK_END), start = size > LOG_MOST ? size - LOG_MOST : 0;
    char *text = calloc(1, LOG_MOST + 1), *why = NULL, *save;

    if (text && pread(producer->log, text, LOG_MOST, start) < 0)
        text[0] = '\0';
    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "@ ", 2) != 0)
            why = line;
        if (!strncmp(line, "! ", 2))
            break;
    }
    error_set(err, EIO, "%.450s",
              !why                     ? "no reason is given"
              : !strncmp(why, "! ", 2) ? why + 2
                                       : why);
    free(text);
}

int producer_end(struct producer *producer, bool killed, struct error *err)
{
    int status = 0, result = 0;

    close(producer->out);
    if (killed)
        kill(-producer->pid, SIGTERM);
    while (waitpid(producer->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!killed && status != 0) {
        explain(producer, err);
        result = -EIO;
    }
    close(producer->log);
    return result;
}
