/*
 * A disk whose blk layer runs in a process of its own: what parses an image of unknown origin has
 * neither guest memory nor the guest's other devices within reach.
 *
 *      VM process                    memory that both have             the disk's process
 *      struct blk (isolated.c) ----> requests, data, results <----> isolated_serve: struct blk of
 *                                    (ring.h)                       the image
 *
 * The command's supervisor starts the disk's process, and starts it anew when it has died
 * (cli/disk_process.h). Meanwhile requests wait. When it is back, those that were in
 * flight are submitted again: changes that overlap are never in flight together, so they are done
 * in the order in which they came; and a flush is answered by a process that has done it.
 *
 * A process that lives and gives no result for 60 s, while requests are in flight, is killed by the
 * process that uses the disk, which knows it by the kernel's word (SCM_CREDENTIALS). Requests are
 * then sent to the next one. When there was no result for 120 s, all requests fail for good, so
 * that pauses and the end of the machine do not wait for ever.
 *
 * What was answered before is not lost with the process: a raw file is in the host's page cache,
 * and images are opened so that they keep nothing in the process's memory that is not in the file,
 * too (qcow2.h: settled).
 *
 * The lock is a leaf.
 */
#ifndef DOPPEL_BLK_ISOLATED_ISOLATED_H
#define DOPPEL_BLK_ISOLATED_ISOLATED_H

#include "blk/blk.h"
#include "blk/options.h"

/* Opens the disk that a process serves at the other end of the socket that HOST->isolate gives. */
struct blk *isolated_open(const struct blk_options *options, const struct blk_host *host,
                          struct error *err);

/* Opens what OPTIONS name and serves it at LINK (base/kept_link.h), which stays the caller's, until
 * the other end is closed. In a process of its own. Returns 0 then, or a negative errno
 * and ERR: the disk cannot be opened, which the other end has been told, or the other end breaks
 * the rules. */
int isolated_serve(int link, const struct blk_options *options, const struct blk_host *host,
                   struct error *err);

#endif
