/*
 * Other programs.
 */
#include "cli/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int cannot_start(const char *program, const char *package, int code, struct error *err)
{
    if (code == ENOENT)
        return error_set(err, ENOENT, "%s is not installed (Debian's package %s has it)", program,
                         package);
    return error_set(err, code, "cannot start %s: %s", program, strerror(code));
}

/* Starts it with the signals that this process ignores as they are by default. STREAMS: what
 * becomes its standard streams. Where one is -1 it is this process's, but that a program that is
 * APART has /dev/null for input and output. */
static int start(const char *const *argv, bool apart, const int streams[3], pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    int code = 0;

    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGXFSZ);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    for (int fd = 0; fd < 3 && !code; fd++)
        if (streams[fd] >= 0)
            code = posix_spawn_file_actions_adddup2(&files, streams[fd], fd);
        else if (apart && fd != STDERR_FILENO)
            code = posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
    if (!code)
        code =
            posix_spawnp(pid, argv[0], &files, &attributes, (char *const *)(void *)argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return code;
}

static int run(const char *const *argv, bool apart, const char *package, struct error *err)
{
    pid_t pid = 0;
    int status = 0, code = start(argv, apart, (const int[3]){-1, -1, -1}, &pid);

    if (code)
        return cannot_start(argv[0], package, code, err);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_set(err, errno, "cannot wait for %s: %s", argv[0], strerror(errno));
    if (WIFSIGNALED(status))
        return error_set(err, EIO, "%s was killed by signal %d", argv[0], WTERMSIG(status));
    if (WEXITSTATUS(status))
        return error_set(err, EIO, "%s failed (status %d)", argv[0], WEXITSTATUS(status));
    return 0;
}

int program_run(const char *const *argv, const char *package, struct error *err)
{
    return run(argv, true, package, err);
}

int program_run_here(const char *const *argv, const char *package, struct error *err)
{
    return run(argv, false, package, err);
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int program_start(const char *const *argv, const char *package, bool input, bool output,
                  struct program_child *child, struct error *err)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, errors[2] = {-1, -1}, code = 0;

    if ((input && pipe2(in, O_CLOEXEC)) || (output && pipe2(out, O_CLOEXEC)) ||
        pipe2(errors, O_CLOEXEC))
        code = errno;
    *child = (struct program_child){.in = in[1], .out = out[0], .err = errors[0]};
    if (!code)
        code = start(argv, true, (const int[3]){in[0], out[1], errors[1]}, &child->pid);
    close_one(&in[0]);
    close_one(&out[1]);
    close_one(&errors[1]);
    if (!code)
        return 0;
    close_one(&child->in);
    close_one(&child->out);
    close_one(&child->err);
    return cannot_start(argv[0], package, code, err);
}

int program_wait(struct program_child *child)
{
    int status = 0;

    close_one(&child->in);
    close_one(&child->out);
    close_one(&child->err);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int program_become(const char *const *argv, const char *package, struct error *err)
{
    int code;

    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    execvp(argv[0], (char *const *)(void *)argv);
    code = errno;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    return cannot_start(argv[0], package, code, err);
}
