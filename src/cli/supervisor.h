/*
 * The supervisor: the small process that stands behind a VM process. It is the process that the
 * user has started, so it is what a shell, timeout(1) or a service manager sees: signals come to
 * it, and its exit status counts.
 *
 *   user, shell --- signals ---> supervisor --- orders ---> VM process (guest, vCPUs, devices)
 *                                    |    <--- notes ---       |
 *                                terminal's settings        standard streams
 *                                log, report                terminal's keys
 *
 * It has no guest memory, no threads, and parses nothing that a guest wrote: from the VM process it
 * takes messages of a fixed form (cli/channel.h). It
 * - has the terminal's settings, and gives the terminal back however the VM process ends;
 * - passes on the wish to end and sees to it that the end comes: ten seconds after the first wish,
 *   or 1.5 s after a second one, it tells where the VM process's threads are and kills it;
 * - stops and continues with the VM process (job control);
 * - keeps the log, and tells what happened when a signal killed the VM process;
 * - answers at the control socket of a machine with a name (cli/control_desk.h), also when the VM
 *   process does not.
 * When the supervisor is killed, the VM process ends at once.
 */
#ifndef DOPPEL_CLI_SUPERVISOR_H
#define DOPPEL_CLI_SUPERVISOR_H

#include "cli/channel.h"

#include <stdbool.h>

struct background;
struct control_desk;
struct kept_processes;

struct supervisor_config {
    struct kept_processes *kept;   /* which the VM process has, too (kept_process.h); or NULL */
    struct control_desk *desk;     /* or NULL */
    struct background *background; /* or NULL: it runs in the foreground */
    const char *log_path;          /* the log's file; NULL: its last lines are kept in memory */
    bool usr1; /* SIGUSR1 is for the VM process; else it does what it does to others */
};

/* Forks. The new process is the VM process: it calls RUN and returns what that returns. The calling
 * process is the supervisor: it returns the VM process's exit status, STATUS_SIGNAL and the number
 * of the signal that killed that, or the status for an end by force. Both should exit with it.
 * Called before there are threads. The VM process is left with the signals blocked that the
 * supervisor takes. */
int supervise(const struct supervisor_config *config,
              int (*run)(void *opaque, const struct channel *channel), void *opaque);

#endif
