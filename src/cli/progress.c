/*
 * A line on the terminal for what takes more than two seconds, or lines where there is none.
 */
#include "cli/progress.h"

#include "cli/cli.h"

#include "base/time.h"

#include <stdio.h>
#include <unistd.h>

#define QUIET_SECONDS 2

void progress_begin(struct progress *progress, const char *what)
{
    progress->terminal = isatty(STDERR_FILENO);
    progress->lines = progress->shown = progress->done = false;
    progress->since_ns = time_now_ns();
    snprintf(progress->what, sizeof(progress->what), "%s", what);
}

static void put_line(const struct progress *progress)
{
    complain("%s ...", progress->what);
}

void progress_begin_lines(struct progress *progress, const char *what)
{
    progress_begin(progress, what);
    progress->lines = !progress->terminal;
    if (progress->lines)
        put_line(progress);
}

void progress_tick(struct progress *progress, const char *what, int percent)
{
    uint64_t seconds;

    if ((!progress->terminal && !progress->lines) || progress->done)
        return;
    if (what) {
        snprintf(progress->what, sizeof(progress->what), "%s", what);
        if (progress->lines)
            put_line(progress);
    }
    if (progress->lines)
        return;
    seconds = (time_now_ns() - progress->since_ns) / NS_PER_S;
    if (seconds < QUIET_SECONDS)
        return;
    if (percent >= 0)
        fprintf(stderr, "\r\033[K%s: %d %%", progress->what, percent);
    else
        fprintf(stderr, "\r\033[K%s ... %llu s", progress->what, (unsigned long long)seconds);
    fflush(stderr);
    progress->shown = true;
}

void progress_end(struct progress *progress)
{
    if (progress->shown && !progress->done)
        fputs("\r\033[K", stderr);
    progress->done = true;
}

int progress_timeout(const struct progress *progress)
{
    return progress->terminal && !progress->done ? 500 : -1;
}
