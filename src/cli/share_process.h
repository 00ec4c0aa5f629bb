/*
 * The processes of shared folders with isolate, which the supervisor keeps running
 * (kept_process.h).
 */
#ifndef DOPPEL_CLI_SHARE_PROCESS_H
#define DOPPEL_CLI_SHARE_PROCESS_H

#include "cli/kept_process.h"

/* Adds one for each of the descriptions DEVICES (up to a NULL) that is a folder with isolate. What
 * is wrong with a description is for who makes the device to say. */
int share_processes_add(struct kept_processes *kept, const char *const *devices, struct error *err);

/* In the VM process: the socket of a folder, for the library (doppel_config.isolate). OPAQUE is the
 * struct kept_processes. */
int share_processes_link(void *opaque, const char *folder);

#endif
