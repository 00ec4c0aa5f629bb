/*
 * Processes that the supervisor keeps running behind the VM process.
 */
#include "cli/kept_process.h"

#include "base/time.h"
#include "base/util.h"
#include "cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* A process that dies soon after its start is started anew later and later. */
#define SOON_NS        (10 * NS_PER_S)
#define FIRST_DELAY_NS (100 * NS_PER_MS)
#define LAST_DELAY_NS  (5 * NS_PER_S)
/* For all to bring to an end what they do, after the VM process is gone. */
#define END_NS (20 * NS_PER_S)

struct kept {
    const struct kept_kind *kind;
    char *name;
    void *opaque;
    int link[2]; /* 0: the VM process's end; 1: the process's own. -1: closed */
    pid_t pid;   /* 0: it does not run */
    bool over;   /* and is not started any more */
    uint64_t started, start_at, delay;
};

struct kept_processes {
    struct journal *journal;
    unsigned count;
    struct kept *kept;
};

/* ---- Links ---- */

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

struct kept_processes *kept_processes_create(struct error *err)
{
    struct kept_processes *all = calloc(1, sizeof(*all));

    if (!all)
        error_set(err, ENOMEM, "out of memory");
    return all;
}

int kept_processes_add(struct kept_processes *all, const struct kept_kind *kind, const char *name,
                       void *opaque, struct error *err)
{
    struct kept *grown = reallocarray(all->kept, all->count + 1, sizeof(*grown)), *k;

    if (grown)
        all->kept = grown;
    k = grown ? &grown[all->count] : NULL;
    if (k)
        *k = (struct kept){.kind = kind, .name = strdup(name), .opaque = opaque, .link = {-1, -1}};
    if (!k || !k->name) {
        kind->free(opaque);
        return error_set(err, ENOMEM, "out of memory");
    }
    all->count++;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, k->link) < 0)
        return error_set(err, errno, "cannot make a pair of sockets: %s", strerror(errno));
    return 0;
}

void kept_processes_free(struct kept_processes *all)
{
    for (unsigned i = 0; all && i < all->count; i++) {
        struct kept *k = &all->kept[i];

        close_end(&k->link[0]);
        close_end(&k->link[1]);
        k->kind->free(k->opaque);
        free(k->name);
    }
    if (all)
        free(all->kept);
    free(all);
}

int kept_processes_link(struct kept_processes *all, const struct kept_kind *kind, const char *name)
{
    for (unsigned i = 0; i < all->count; i++) {
        struct kept *k = &all->kept[i];
        int fd = k->link[0];

        /* Only the supervisor and the process itself have the other end from now on. */
        close_end(&k->link[1]);
        if (fd < 0 || k->kind != kind || strcmp(k->name, name) != 0)
            continue;
        k->link[0] = -1;
        return fd;
    }
    return -ENOENT;
}

/* ---- In the process ---- */

static void complain_line(void *opaque, enum log_level level, const char *text)
{
    complain("%s", text);
}

const struct log kept_process_log = {.most = LOG_LEVEL_WARNING, .line = complain_line};

/* What the user sends to all processes of the terminal is for the virtual machine, which must have
 * its disks and networks until its end. */
static void become(const struct kept *k, pid_t supervisor)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
    unsigned link = (unsigned)k->link[1];
    sigset_t none;

    prctl(PR_SET_NAME, k->kind->title);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != supervisor)
        _exit(STATUS_ERROR);
    for (unsigned i = 0; i < ARRAY_SIZE(ignored); i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (link > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, link - 1, 0);
    close_range(link + 1, UINT_MAX, 0);
}

/* ---- In the supervisor ---- */

static void start(struct kept_processes *all, struct kept *k)
{
    pid_t supervisor = getpid();
    char text[LOG_TEXT];

    k->started = time_now_ns();
    k->start_at = 0;
    k->pid = fork();
    if (k->pid == 0) {
        become(k, supervisor);
        _exit(k->kind->run(k->opaque, k->name, k->link[1]));
    }
    if (k->pid < 0) {
        k->pid = 0;
        k->delay = LAST_DELAY_NS;
        k->start_at = k->started + k->delay;
        snprintf(text, sizeof(text), "cannot start the process of a %s", k->kind->what);
        journal_line(all->journal, LOG_LEVEL_ERROR, text);
    }
}

void kept_processes_start(struct kept_processes *all, struct journal *journal)
{
    if (!all)
        return;
    all->journal = journal;
    for (unsigned i = 0; i < all->count; i++) {
        close_end(&all->kept[i].link[0]);
        start(all, &all->kept[i]);
    }
}

/* The process has ended as INFO says. It has done so by itself when the VM process is gone. */
static void has_ended(struct kept_processes *all, struct kept *k, const siginfo_t *info)
{
    uint64_t now = time_now_ns();
    char text[LOG_TEXT];

    k->pid = 0;
    k->over = info->si_code == CLD_EXITED && info->si_status == 0;
    if (k->over)
        return;
    k->delay =
        now - k->started > SOON_NS ? 0 : MIN(MAX(2 * k->delay, FIRST_DELAY_NS), LAST_DELAY_NS);
    k->start_at = now + k->delay;
    if (info->si_code == CLD_EXITED)
        snprintf(text, sizeof(text), "the process of %s '%.300s' ended with status %d",
                 k->kind->what, k->name, info->si_status);
    else
        snprintf(text, sizeof(text), "the process of %s '%.300s' was killed by SIG%s",
                 k->kind->what, k->name, sigabbrev_np(info->si_status));
    journal_line(all->journal, LOG_LEVEL_WARNING, text);
}

/* Takes those that have ended. Returns how many run. */
static unsigned reap(struct kept_processes *all)
{
    unsigned running = 0;

    for (unsigned i = 0; i < all->count; i++) {
        struct kept *k = &all->kept[i];
        siginfo_t info = {0};

        if (k->pid && waitid(P_PID, (id_t)k->pid, &info, WEXITED | WNOHANG) == 0 && info.si_pid)
            has_ended(all, k, &info);
        running += k->pid != 0;
    }
    return running;
}

void kept_processes_look_after(struct kept_processes *all)
{
    uint64_t now = time_now_ns();

    if (!all)
        return;
    reap(all);
    for (unsigned i = 0; i < all->count; i++) {
        struct kept *k = &all->kept[i];

        if (!k->pid && !k->over && now >= k->start_at)
            start(all, k);
    }
}

uint64_t kept_processes_deadline(const struct kept_processes *all)
{
    uint64_t first = UINT64_MAX;

    for (unsigned i = 0; all && i < all->count; i++)
        if (!all->kept[i].pid && !all->kept[i].over)
            first = MIN(first, all->kept[i].start_at);
    return first;
}

void kept_processes_end(struct kept_processes *all, void (*meanwhile)(void *opaque), void *opaque)
{
    uint64_t end = time_now_ns() + END_NS;
    bool killed = false;

    while (all && reap(all) > 0) {
        time_sleep_ns(2 * NS_PER_MS);
        meanwhile(opaque);
        for (unsigned i = 0; !killed && time_now_ns() > end && i < all->count; i++)
            if (all->kept[i].pid)
                kill(all->kept[i].pid, SIGKILL);
        killed = time_now_ns() > end;
    }
}
