/*
 * The processes of disks with isolate: the supervisor starts one for each, and starts it anew when
 * it has died.
 *
 *      supervisor                       VM process
 *         |-- fork -----------------------> | disk_processes_link: the socket's end of a disk
 *         |-- fork --> process of a disk <==' blk/isolated/link.h
 *                      isolated_serve
 *
 * A disk's process gets what it opens from the command line, and not from the VM process. It ends
 * when the VM process is gone, and at the latest together with the supervisor.
 */
#ifndef DOPPEL_CLI_DISK_PROCESS_H
#define DOPPEL_CLI_DISK_PROCESS_H

#include "base/error.h"
#include "ctl/journal.h"

#include <stdint.h>

struct disk_processes;

/* Makes sockets for those of the descriptions DEVICES (up to a NULL, which live longer) that are
 * disks with isolate. *DISKS is NULL if there are none. What is wrong with a description is for who
 * makes the device to say. */
int disk_processes_create(const char *const *devices, struct disk_processes **disks,
                          struct error *err);
/* Closes what this process has of them. DISKS may be NULL, here and below. */
void disk_processes_free(struct disk_processes *disks);

/* In the VM process: the socket of a disk, for the library (doppel_config.isolate). OPAQUE is the
 * struct disk_processes. */
int disk_processes_link(void *opaque, const char *file);

/* In the supervisor. */

/* Starts all. The VM process has been started. */
void disk_processes_start(struct disk_processes *disks, struct journal *journal);
/* Sees which have ended, and starts anew what must be and when it is time. */
void disk_processes_look_after(struct disk_processes *disks);
/* When to look next, if nothing ends before: CLOCK_MONOTONIC, or UINT64_MAX. */
uint64_t disk_processes_deadline(const struct disk_processes *disks);
/* Waits until all have ended, as they do when the VM process is gone; kills those that do not. */
void disk_processes_end(struct disk_processes *disks);

#endif
