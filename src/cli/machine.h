/*
 * Running a machine: all that stands between a command line and the processes that make it up.
 */
#ifndef DOPPEL_CLI_MACHINE_H
#define DOPPEL_CLI_MACHINE_H

struct background;

/* Runs a machine as ARGV says, the words of `doppel run` or `doppel start`, with a supervisor
 * behind it, which the calling process becomes. BACKGROUND is NULL in the foreground. Returns the
 * exit status; messages have been printed. */
int machine_run(char **argv, struct background *background);

/* The same in a process in the background. Returns when the guest runs, 0, or with the exit status.
 */
int machine_start(char **argv);

#endif
