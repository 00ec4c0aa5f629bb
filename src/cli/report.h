/*
 * What the supervisor tells the user: lines on standard error that are in the log as well. Standard
 * error that takes nothing does not keep the supervisor for long.
 */
#ifndef DOPPEL_CLI_REPORT_H
#define DOPPEL_CLI_REPORT_H

#include "cli/channel.h"
#include "ctl/journal.h"

#include <stdbool.h>
#include <sys/types.h>

struct report {
    struct journal *journal;
    bool relayed; /* standard error goes to the log, too */
    bool mute;    /* standard error took nothing for a while: nothing more is written there */
};

/* Tells a line: "doppel: " and the text. */
void report_line(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* How the VM process came to an end that was not its own. */
struct report_death {
    pid_t vm;
    int signal;
    bool core;                  /* the kernel wrote a core dump */
    double seconds;             /* after its start */
    const struct message *note; /* its NOTE_CRASH, or NULL */
    const char *log_path;       /* or NULL */
    bool in_line;               /* the guest's last line on the terminal may not have ended */
};

/* Tells of it: the signal, where the process was, and the last lines of the log. */
void report_death(struct report *report, const struct report_death *death);

#endif
