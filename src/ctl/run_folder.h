/*
 * The run folders of virtual machines that run under a name:
 *
 *      RUNTIME/NAME/           (ctl/home.h)
 *          lock                held as long as the machine runs, by its processes
 *          vsock.sock, ...     sockets
 *
 * A folder whose lock nobody holds is stale: whoever had it was killed. The next run of the machine
 * takes it over, without what is in it.
 */
#ifndef DOPPEL_CTL_RUN_FOLDER_H
#define DOPPEL_CTL_RUN_FOLDER_H

#include "base/error.h"
#include "ctl/lock_file.h"

#include <limits.h>
#include <stdbool.h>

#define RUN_VSOCK   "vsock.sock"
#define RUN_CONTROL "control.sock" /* ctl/control.h */
#define RUN_CONSOLE "console.sock" /* of a machine in the background */
#define RUN_LOG     "log"          /* of a machine that has no folder of its own */

/* One that this process, and those that it forks, have. All zero: none. */
struct run_folder {
    bool held;
    pid_t owner; /* the process that took it */
    int lock;
    char path[PATH_MAX];
};

/* Takes that of the machine NAME, empty but for its lock. -EBUSY: the machine runs, and the message
 * says in which process. */
int run_folder_take(const char *name, struct run_folder *folder, struct error *err);
/* Removes it; a process that was forked since merely lets it go. Does nothing if it was never
 * taken.
 */
void run_folder_remove(struct run_folder *folder);

/* Lets go of it, with what is in it: it is stale from now on. */
void run_folder_leave(struct run_folder *folder);

/* Sets PATH to FILE in the run folder of the machine NAME, and *HOLDER to whether that runs. */
int run_folder_find(const char *name, const char *file, char path[PATH_MAX],
                    struct lock_holder *holder, struct error *err);

/* Adds the names of machines that run to NAMES. */
struct registry_names;
int run_folder_names(struct registry_names *names, struct error *err);

/* Fails with -ESRCH: the machine NAME does not run. */
int run_folder_not_running(const char *name, struct error *err);
/* Returns a descriptor for the process behind the machine NAME, which runs (lock_file_pidfd).
 * -ESRCH: it does not run. */
int run_folder_pidfd(const char *name, struct error *err);

/* Removes the stale ones, and tells SWEPT of each path. With DRY it only tells. */
int run_folder_sweep(bool dry, void (*swept)(void *opaque, const char *path), void *opaque,
                     struct error *err);

#endif
