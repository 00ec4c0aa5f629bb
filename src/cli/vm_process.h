/*
 * The VM process of `doppel run`: what its options ask for, and doing it.
 */
#ifndef DOPPEL_CLI_VM_PROCESS_H
#define DOPPEL_CLI_VM_PROCESS_H

#include "cli/channel.h"
#include "cli/engine_turns.h"
#include "ctl/doppel.h"

#include <stdbool.h>

#define RUN_MAX_ENV      256
#define RUN_MAX_DEVICES  64
#define RUN_MAX_FORWARDS 64

/* The options of `doppel run`. Strings are the command line's. */
struct run_options {
    struct doppel_config config; /* kernel NULL: the default guest's */
    const char *append, *debug_path, *log_path;
    const char *initrd_option; /* as given; NULL: not given */
    const char *env[RUN_MAX_ENV + 1];
    unsigned env_count;
    const char *devices[RUN_MAX_DEVICES + 1]; /* descriptions, for the library */
    unsigned device_count;
    char *made[RUN_MAX_DEVICES]; /* those that are not the command line's own, at the same places */
    const char *forwards[RUN_MAX_FORWARDS];
    unsigned forward_count;
    char *mounts[RUN_MAX_DEVICES + 1]; /* shared folders that our init mounts: see con/session.h */
    unsigned mount_count, share_count;
    char **command; /* up to a NULL; NULL: none, that is, a shell */
    bool stats, json, verbose;
    bool background;          /* nobody is at the standard streams */
    const char *console_path; /* then: the console's socket */
    const char *restart;      /* as given; NULL: not given */
    bool remove;              /* the machine, when it has ended */
    struct engine_turns_plan turns;
    bool traced;
    const char *trace_path; /* NULL: standard error */
    unsigned trace_lines;
};

/* Runs a virtual machine as the struct run_options OPTIONS says, until its end. Messages are
 * printed, and are in the supervisor's log, too. Returns the exit status. */
int vm_process(void *options, const struct channel *channel);

#endif
