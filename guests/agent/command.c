/*
 * A command that the agent runs for a client.
 */
#include "command.h"
#include "user.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* What the agent's own environment says and commands are told, too. */
static const char *const kept_env[] = {"LANG", "PS1", "TZ"};

enum stage { STAGE_USER, STAGE_FOLDER, STAGE_PROGRAM };

/* What a child that cannot become its command says. */
struct report {
    enum stage stage;
    int error;
};

struct start {
    const struct agent_request *request;
    struct agent_user user;
    int pipes[3][2]; /* of each standard stream, without a terminal */
    int master, slave;
    int report[2];
};

void agent_command_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_pair(int pair[2])
{
    agent_command_close(&pair[0]);
    agent_command_close(&pair[1]);
}

static void close_all(struct start *start)
{
    for (unsigned i = 0; i < 3; i++)
        close_pair(start->pipes[i]);
    agent_command_close(&start->master);
    agent_command_close(&start->slave);
    close_pair(start->report);
}

/* ---- In the child ---- */

static void reset_signals(void)
{
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The agent is spared when memory runs out, commands are not. */
static void allow_oom_kill(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd >= 0 && write(fd, "0", 1) < 0)
        errno = 0; /* it is spared, too */
    if (fd >= 0)
        close(fd);
}

static void take_streams(const struct start *start)
{
    setsid();
    if (start->slave >= 0)
        ioctl(start->slave, TIOCSCTTY, 0);
    dup2(start->slave >= 0 ? start->slave : start->pipes[0][0], 0);
    dup2(start->slave >= 0 ? start->slave : start->pipes[1][1], 1);
    dup2(start->slave >= 0 ? start->slave : start->pipes[2][1], 2);
}

static bool become_user(const struct start *start)
{
    const struct agent_user *user = &start->user;

    if (user->uid == geteuid() && user->gid == getegid() && !start->request->user)
        return true;
    if (start->slave >= 0 && fchown(start->slave, user->uid, user->gid))
        return false;
    return !setgroups(user->group_count, user->groups) &&
           !setresgid(user->gid, user->gid, user->gid) &&
           !setresuid(user->uid, user->uid, user->uid);
}

static void set_environment(const struct start *start)
{
    char *kept[sizeof(kept_env) / sizeof(kept_env[0])];

    for (unsigned i = 0; i < sizeof(kept_env) / sizeof(kept_env[0]); i++)
        kept[i] = getenv(kept_env[i]); /* clearenv() leaves the texts alone */
    clearenv();
    for (unsigned i = 0; i < sizeof(kept_env) / sizeof(kept_env[0]); i++)
        if (kept[i])
            setenv(kept_env[i], kept[i], 1);
    setenv("PATH", PATH_DEFAULT, 1);
    setenv("HOME", start->user.home, 1);
    setenv("SHELL", start->user.shell, 1);
    if (*start->user.name) {
        setenv("USER", start->user.name, 1);
        setenv("LOGNAME", start->user.name, 1);
    }
    for (char **each = start->request->env; *each; each++)
        putenv(*each);
}

/* A home that is not there is no reason to refuse; a folder that was asked for is. */
static bool enter_folder(const struct start *start)
{
    if (start->request->folder)
        return chdir(start->request->folder) == 0;
    return chdir(start->user.home) == 0 || chdir("/") == 0;
}

static void execute(const struct start *start)
{
    const char *shell = start->user.shell, *name = strrchr(shell, '/');
    char login[264];

    if (start->request->argv[0]) {
        execvp(start->request->argv[0], start->request->argv);
        return;
    }
    snprintf(login, sizeof(login), "-%s", name ? name + 1 : shell);
    execl(shell, login, (char *)NULL);
}

__attribute__((noreturn)) static void become_command(const struct start *start)
{
    struct report report = {STAGE_USER, 0};

    reset_signals();
    allow_oom_kill();
    take_streams(start);
    set_environment(start);
    if (become_user(start)) {
        report.stage = STAGE_FOLDER;
        if (enter_folder(start)) {
            report.stage = STAGE_PROGRAM;
            execute(start);
        }
    }
    report.error = errno;
    if (write(start->report[1], &report, sizeof(report)) < 0)
        _exit(126);
    _exit(127);
}

/* ---- In the agent ---- */

static bool refuse(struct agent_failure *failure, int status, const char *what, int error)
{
    failure->status = (uint8_t)status;
    snprintf(failure->text, sizeof(failure->text), "%.120s: %s", what, strerror(error));
    return false;
}

static bool open_streams(struct start *start)
{
    const struct agent_request *request = start->request;
    struct winsize size = {.ws_row = (unsigned short)request->rows,
                           .ws_col = (unsigned short)request->columns};

    if (pipe2(start->report, O_CLOEXEC))
        return false;
    if (request->terminal) {
        if (openpty(&start->master, &start->slave, NULL, NULL, &size))
            return false;
        fcntl(start->master, F_SETFD, FD_CLOEXEC);
        fcntl(start->slave, F_SETFD, FD_CLOEXEC);
        return true;
    }
    for (unsigned i = 0; i < 3; i++)
        if (pipe2(start->pipes[i], O_CLOEXEC))
            return false;
    return true;
}

static bool explain(const struct start *start, const struct report *report,
                    struct agent_failure *failure)
{
    const struct agent_request *request = start->request;

    if (report->stage == STAGE_USER)
        return refuse(failure, 126, request->user ? request->user : "root", report->error);
    if (report->stage == STAGE_FOLDER)
        return refuse(failure, 126, request->folder ? request->folder : "/", report->error);
    return refuse(failure, report->error == ENOENT ? 127 : 126,
                  request->argv[0] ? request->argv[0] : start->user.shell, report->error);
}

/* Hands the agent's side of the streams over to COMMAND. */
static void keep_streams(struct start *start, struct agent_command *command)
{
    command->terminal = start->master >= 0;
    command->in = command->terminal ? start->master : start->pipes[0][1];
    command->out = command->terminal ? start->master : start->pipes[1][0];
    command->err = start->pipes[2][0];
    start->master = start->pipes[0][1] = start->pipes[1][0] = start->pipes[2][0] = -1;
    fcntl(command->in, F_SETFL, O_NONBLOCK);
    fcntl(command->out, F_SETFL, O_NONBLOCK);
    if (command->err >= 0)
        fcntl(command->err, F_SETFL, O_NONBLOCK);
}

/* Forks, and waits until the child is the command, or has said why not. */
static bool fork_command(struct start *start, struct agent_command *command,
                         struct agent_failure *failure)
{
    struct report report;
    ssize_t n;

    command->pid = fork();
    if (command->pid < 0)
        return refuse(failure, 126, "fork", errno);
    if (command->pid == 0)
        become_command(start);
    agent_command_close(&start->report[1]);
    do
        n = read(start->report[0], &report, sizeof(report));
    while (n < 0 && errno == EINTR);
    return n == sizeof(report) ? explain(start, &report, failure) : true;
}

bool agent_command_start(const struct agent_request *request, struct agent_command *command,
                         struct agent_failure *failure)
{
    struct start start = {.request = request,
                          .pipes = {{-1, -1}, {-1, -1}, {-1, -1}},
                          .master = -1,
                          .slave = -1,
                          .report = {-1, -1}};
    bool started;

    if (!agent_user_look_up(request->user ? request->user : "0", &start.user)) {
        failure->status = 126;
        snprintf(failure->text, sizeof(failure->text), "the guest has no user '%.100s'",
                 request->user ? request->user : "root");
        return false;
    }
    started = open_streams(&start) ? fork_command(&start, command, failure)
                                   : refuse(failure, 126, "streams for the command", errno);
    if (started)
        keep_streams(&start, command);
    close_all(&start);
    return started;
}

void agent_command_resize(const struct agent_command *command, unsigned rows, unsigned columns)
{
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};

    if (command->terminal && command->in >= 0)
        ioctl(command->in, TIOCSWINSZ, &size);
}

void agent_command_signal(const struct agent_command *command, int number)
{
    pid_t group = 0;

    if (!command->terminal || ioctl(command->in, TIOCGPGRP, &group) || group <= 0)
        group = command->pid;
    kill(-group, number);
}

/* The session of process PID, or 0 (proc(5)). */
static pid_t session_of(const char *pid)
{
    char path[64], text[512];
    ssize_t n;
    int fd, session = 0;
    const char *name_end;

    snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    name_end = strrchr(text, ')');
    return name_end && sscanf(name_end + 1, " %*c %*d %*d %d", &session) == 1 ? session : 0;
}

void agent_command_hang_up(struct agent_command *command)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;

    while (proc && (entry = readdir(proc)))
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
            session_of(entry->d_name) == command->pid) {
            kill((pid_t)atoi(entry->d_name), SIGHUP);
            kill((pid_t)atoi(entry->d_name), SIGCONT);
        }
    if (proc)
        closedir(proc);
    if (command->out == command->in)
        command->out = -1;
    agent_command_close(&command->in);
    agent_command_close(&command->out);
    agent_command_close(&command->err);
}
