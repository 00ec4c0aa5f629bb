/*
 * The processes of disks.
 */
#include "cli/disk_process.h"

#include "base/time.h"
#include "base/util.h"
#include "blk/isolated/isolated.h"
#include "cli/cli.h"
#include "vm/description.h"
#include "vm/disk.h"

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
/* For all to close their images after the VM process is gone. */
#define END_NS (20 * NS_PER_S)

struct disk_process {
    struct blk_options options;
    int link[2]; /* 0: the VM process's end; 1: the disk's process's. -1: closed */
    pid_t pid;   /* 0: it does not run */
    bool over;   /* and is not started any more */
    uint64_t started, start_at, delay;
};

struct disk_processes {
    struct journal *journal;
    unsigned count;
    struct disk_process disk[];
};

/* ---- Links ---- */

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Takes over OPTIONS. */
static int add(struct disk_processes *disks, const struct blk_options *options, struct error *err)
{
    struct disk_process *d = &disks->disk[disks->count];

    *d = (struct disk_process){.options = *options, .link = {-1, -1}};
    disks->count++;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, d->link) < 0)
        return error_set(err, errno, "cannot make a pair of sockets: %s", strerror(errno));
    return 0;
}

/* Whether TEXT describes a disk with isolate, whose options these are then. */
static bool is_isolated(const char *text, struct blk_options *options)
{
    if (!description_is(text, "disk") || disk_options(text, options, NULL) < 0)
        return false;
    if (options->isolate)
        return true;
    blk_options_free(options);
    return false;
}

int disk_processes_create(const char *const *devices, struct disk_processes **disks,
                          struct error *err)
{
    unsigned count = 0;
    int ret = 0;

    *disks = NULL;
    while (devices && devices[count])
        count++;
    for (unsigned i = 0; i < count && ret == 0; i++) {
        struct blk_options options;

        if (!is_isolated(devices[i], &options))
            continue;
        if (!*disks)
            *disks = calloc(1, sizeof(**disks) + count * sizeof((*disks)->disk[0]));
        if (!*disks) {
            blk_options_free(&options);
            return error_set(err, ENOMEM, "out of memory");
        }
        ret = add(*disks, &options, err);
    }
    return ret;
}

void disk_processes_free(struct disk_processes *disks)
{
    for (unsigned i = 0; disks && i < disks->count; i++) {
        struct disk_process *d = &disks->disk[i];

        close_end(&d->link[0]);
        close_end(&d->link[1]);
        blk_options_free(&d->options);
    }
    free(disks);
}

int disk_processes_link(void *opaque, const char *file)
{
    struct disk_processes *disks = opaque;

    for (unsigned i = 0; disks && i < disks->count; i++) {
        struct disk_process *d = &disks->disk[i];
        int fd = d->link[0];

        /* Only the supervisor and the disk's process have the other end from now on. */
        close_end(&d->link[1]);
        if (fd < 0 || strcmp(d->options.file, file) != 0)
            continue;
        d->link[0] = -1;
        return fd;
    }
    return -ENOENT;
}

/* ---- In a disk's process ---- */

static void complain_line(void *opaque, enum log_level level, const char *text)
{
    complain("%s", text);
}

/* Leaves this process with LINK, the standard streams and no signals but those that end it for
 * good: what the user sends to all processes of the terminal is for the virtual machine, which must
 * be able to write to its disk until its end. */
static void become_disk(int link, pid_t supervisor)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
    sigset_t none;

    prctl(PR_SET_NAME, "doppel-disk");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != supervisor)
        _exit(STATUS_ERROR);
    for (unsigned i = 0; i < ARRAY_SIZE(ignored); i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (link > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, (unsigned)link - 1, 0);
    close_range((unsigned)link + 1, UINT_MAX, 0);
}

static void serve(const struct disk_process *d)
{
    const struct log log = {.most = LOG_LEVEL_WARNING, .line = complain_line};
    const struct blk_host host = {.log = &log};

    _exit(isolated_serve(d->link[1], &d->options, &host, NULL) < 0 ? STATUS_ERROR : 0);
}

/* ---- In the supervisor ---- */

static void start(struct disk_processes *disks, struct disk_process *d)
{
    pid_t supervisor = getpid();

    d->started = time_now_ns();
    d->start_at = 0;
    d->pid = fork();
    if (d->pid == 0) {
        become_disk(d->link[1], supervisor);
        serve(d);
    }
    if (d->pid < 0) {
        d->pid = 0;
        d->delay = LAST_DELAY_NS;
        d->start_at = d->started + d->delay;
        journal_line(disks->journal, LOG_LEVEL_ERROR, "cannot start the process of a disk");
    }
}

void disk_processes_start(struct disk_processes *disks, struct journal *journal)
{
    if (!disks)
        return;
    disks->journal = journal;
    for (unsigned i = 0; i < disks->count; i++) {
        close_end(&disks->disk[i].link[0]);
        start(disks, &disks->disk[i]);
    }
}

/* The process has ended as INFO says. It has done so by itself when the VM process is gone. */
static void has_ended(struct disk_processes *disks, struct disk_process *d, const siginfo_t *info)
{
    uint64_t now = time_now_ns();
    char text[LOG_TEXT];

    d->pid = 0;
    d->over = info->si_code == CLD_EXITED && info->si_status == 0;
    if (d->over)
        return;
    d->delay =
        now - d->started > SOON_NS ? 0 : MIN(MAX(2 * d->delay, FIRST_DELAY_NS), LAST_DELAY_NS);
    d->start_at = now + d->delay;
    if (info->si_code == CLD_EXITED)
        snprintf(text, sizeof(text), "the process of disk '%.300s' ended with status %d",
                 d->options.file, info->si_status);
    else
        snprintf(text, sizeof(text), "the process of disk '%.300s' was killed by SIG%s",
                 d->options.file, sigabbrev_np(info->si_status));
    journal_line(disks->journal, LOG_LEVEL_WARNING, text);
}

/* Takes those that have ended. Returns how many run. */
static unsigned reap(struct disk_processes *disks)
{
    unsigned running = 0;

    for (unsigned i = 0; i < disks->count; i++) {
        struct disk_process *d = &disks->disk[i];
        siginfo_t info = {0};

        if (d->pid && waitid(P_PID, (id_t)d->pid, &info, WEXITED | WNOHANG) == 0 && info.si_pid)
            has_ended(disks, d, &info);
        running += d->pid != 0;
    }
    return running;
}

void disk_processes_look_after(struct disk_processes *disks)
{
    uint64_t now = time_now_ns();

    if (!disks)
        return;
    reap(disks);
    for (unsigned i = 0; i < disks->count; i++) {
        struct disk_process *d = &disks->disk[i];

        if (!d->pid && !d->over && now >= d->start_at)
            start(disks, d);
    }
}

uint64_t disk_processes_deadline(const struct disk_processes *disks)
{
    uint64_t first = UINT64_MAX;

    for (unsigned i = 0; disks && i < disks->count; i++)
        if (!disks->disk[i].pid && !disks->disk[i].over)
            first = MIN(first, disks->disk[i].start_at);
    return first;
}

void disk_processes_end(struct disk_processes *disks)
{
    uint64_t end = time_now_ns() + END_NS;
    bool killed = false;

    while (disks && reap(disks) > 0) {
        time_sleep_ns(2 * NS_PER_MS);
        for (unsigned i = 0; !killed && time_now_ns() > end && i < disks->count; i++)
            if (disks->disk[i].pid)
                kill(disks->disk[i].pid, SIGKILL);
        killed = time_now_ns() > end;
    }
}
