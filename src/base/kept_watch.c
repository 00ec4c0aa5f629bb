/*
 * Watching over a kept process.
 */
#include "base/kept_watch.h"

#include "base/time.h"
#include "base/util.h"

#include <limits.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

/* It is given up when there was no result for so many times the patience. */
#define LAST_PATIENCE 2u
/* Looks in the time of a patience. */
#define LOOKS 8u

void kept_watch_begin(struct kept_watch *w, const char *name, const struct log *log,
                      uint64_t patience)
{
    *w = (struct kept_watch){
        .name = name, .log = log, .patience = patience, .looked = time_now_ns(), .process = -1};
}

void kept_watch_end(struct kept_watch *w)
{
    if (w->process >= 0)
        close(w->process);
    w->process = -1;
}

void kept_watch_process(struct kept_watch *w, pid_t pid)
{
    kept_watch_end(w);
    if (pid > 0 && pid != getpid())
        w->process = (int)syscall(SYS_pidfd_open, pid, 0);
    w->answered = w->killed = false;
}

/* Kills the process, if it is certain which one it is. */
static void kill_process(struct kept_watch *w)
{
    w->killed = true;
    if (w->process < 0 || !w->answered)
        return;
    log_line(w->log, LOG_LEVEL_WARNING, "%s: its process has not answered for %llu s and is killed",
             w->name, (unsigned long long)(w->patience / NS_PER_S));
    syscall(SYS_pidfd_send_signal, w->process, SIGKILL, NULL, 0);
}

const char *kept_watch_look(struct kept_watch *w, bool progress, bool waits)
{
    uint64_t now = time_now_ns(), step = MIN(now - w->looked, 2 * w->patience / LOOKS);

    w->looked = now;
    w->answered |= progress;
    if (progress || !waits) {
        w->waited = 0;
        w->killed = false;
        return NULL;
    }
    w->waited += step;
    if (w->waited >= LAST_PATIENCE * w->patience)
        return "its process does not answer";
    if (w->waited >= w->patience && !w->killed)
        kill_process(w);
    return NULL;
}

int kept_watch_pause(const struct kept_watch *w)
{
    return (int)MIN(w->patience / LOOKS / NS_PER_MS, (uint64_t)INT_MAX - 1) + 1;
}
