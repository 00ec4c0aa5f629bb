/*
 * What the supervisor tells the user.
 */
#include "cli/report.h"

#include "cli/crash.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/* For one line. */
#define PATIENCE_US 200000

static void interrupt(int number)
{
    (void)number;
}

/* Writes all of it, or false. A timer that goes off again and again interrupts a write that does
 * not get on: with poll(2) alone, a terminal might take a part and then block. */
static bool write_in_time(const char *text, size_t size)
{
    const struct itimerval soon = {{0, PATIENCE_US / 4}, {0, PATIENCE_US}},
                           never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = interrupt}, before;
    sigset_t alarm, mask;
    ssize_t n = 1;

    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    sigaction(SIGALRM, &action, &before);
    sigprocmask(SIG_UNBLOCK, &alarm, &mask);
    setitimer(ITIMER_REAL, &soon, NULL);
    while (size > 0 && (n = write(STDERR_FILENO, text, size)) > 0) {
        text += n;
        size -= (size_t)n;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    sigaction(SIGALRM, &before, NULL);
    return size == 0;
}

void report_line(struct report *r, const char *format, ...)
{
    char line[CHANNEL_TEXT + 16] = "doppel: ";
    size_t start = strlen(line), size;
    va_list ap;

    va_start(ap, format);
    vsnprintf(line + start, sizeof(line) - start - 1, format, ap);
    va_end(ap);
    log_clean(line);
    if (!r->relayed)
        journal_line(r->journal, LOG_LEVEL_ERROR, line + start);
    size = strlen(line);
    line[size] = '\n';
    if (!r->mute)
        r->mute = !write_in_time(line, size + 1);
}

/* The log's last lines, oldest first, as they were before there was a death to tell. */
struct last {
    char line[JOURNAL_LAST][JOURNAL_LINE];
    unsigned lines;
};

static void keep_last(const struct report *r, struct last *last)
{
    const char *line;

    while (last->lines < JOURNAL_LAST && journal_last(r->journal, last->lines))
        last->lines++;
    for (unsigned i = 0; i < last->lines; i++)
        if ((line = journal_last(r->journal, last->lines - 1 - i)))
            snprintf(last->line[i], sizeof(last->line[i]), "%s", line);
}

static void tell_last(struct report *r, const struct last *last)
{
    if (last->lines > 0)
        report_line(r, "  its log ended with:");
    for (unsigned i = 0; i < last->lines; i++)
        report_line(r, "    %s", last->line[i]);
}

void report_death(struct report *r, const struct report_death *death)
{
    const char *name = sigabbrev_np(death->signal);
    char where[CHANNEL_TEXT];
    struct last last = {0};
    bool own_fault =
        death->note && (death->note->crash.code > 0 || death->note->crash.sender == death->vm);

    keep_last(r, &last);
    if (death->in_line)
        r->mute = !write_in_time("\n", 1);
    report_line(r, "the VM process (%d) was killed by signal %d (SIG%s, %s) after %.1f s%s",
                death->vm, death->signal, name ? name : "?", strsignal(death->signal),
                death->seconds, death->core ? "; core dumped" : "");
    if (death->note) {
        crash_describe(death->note, death->vm, where, sizeof(where));
        report_line(r, "  %s", where);
    }
    if (own_fault)
        report_line(r, "  this is a fault of doppel's; please report it with these lines");
    else if (death->signal == SIGKILL)
        report_line(r, "  somebody sent it, or the kernel for want of memory (dmesg tells)");
    tell_last(r, &last);
    if (death->log_path)
        report_line(r, "  all of it is in %s", death->log_path);
}
