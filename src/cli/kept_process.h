/*
 * Processes that the supervisor keeps running behind the VM process: one for each disk with
 * isolate, and one for each network that another process serves.
 *
 *      supervisor                       VM process
 *         |-- fork -----------------------> | kept_processes_link: the socket's end
 *         |-- fork --> kept process  <==='   the other end, which outlives the process
 *
 * Such a process gets what it opens from the command line, and not from the VM process. It is
 * started anew when it has died: at once, and later and later if it dies soon. It ends when the VM
 * process is gone, and at the latest together with the supervisor.
 */
#ifndef DOPPEL_CLI_KEPT_PROCESS_H
#define DOPPEL_CLI_KEPT_PROCESS_H

#include "base/error.h"
#include "base/log.h"
#include "ctl/journal.h"

#include <stdbool.h>
#include <stdint.h>

struct kept_processes;

struct kept_kind {
    const char *title; /* what debuggers and top(1) show */
    const char *what;  /* for the log: "disk" */
    /* In the process, which has LINK, the standard streams, and no signals but those that end it
     * for good. Returns its exit status; 0: it is over, since the VM process is gone. */
    int (*run)(void *opaque, const char *name, int link);
    void (*free)(void *opaque);
};

struct kept_processes *kept_processes_create(struct error *err);
/* Closes what this process has of them. KEPT may be NULL. */
void kept_processes_free(struct kept_processes *kept);
/* Adds one, called NAME (copied). OPAQUE is freed by KIND in any case. */
int kept_processes_add(struct kept_processes *kept, const struct kept_kind *kind, const char *name,
                       void *opaque, struct error *err);

/* In such a process: what it complains of goes to standard error. */
extern const struct log kept_process_log;

/* In the VM process: the socket of the next one of KIND that is called NAME, or -ENOENT. */
int kept_processes_link(struct kept_processes *kept, const struct kept_kind *kind,
                        const char *name);

/* In the supervisor. */

/* Starts all. The VM process has been started. */
void kept_processes_start(struct kept_processes *kept, struct journal *journal);
/* Sees which have ended, and starts anew what must be and when it is time. */
void kept_processes_look_after(struct kept_processes *kept);
/* When to look next, if nothing ends before: CLOCK_MONOTONIC, or UINT64_MAX. */
uint64_t kept_processes_deadline(const struct kept_processes *kept);
/* Waits until all have ended, as they do when the VM process is gone; kills those that do not.
 * Meanwhile calls MEANWHILE again and again. */
void kept_processes_end(struct kept_processes *kept, void (*meanwhile)(void *opaque), void *opaque);

#endif
