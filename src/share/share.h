/*
 * Shared folders: a folder of the host that a guest mounts as a file system. This is the host's
 * side, which serves the requests of the FUSE protocol (<linux/fuse.h>, version 7). How they come
 * out of the guest is the business of whoever submits them: a virtio device, or a process that
 * serves the folder for one.
 *
 *      device        share_submit --> pool of threads --> node, handle, lock --> the folder
 *        ^                                |
 *        '----------- done() <------------'      locks that must wait: a thread of their own
 *
 * The guest is not trusted. It names files by node IDs and handles that the share has given out,
 * and directory entries by single names; from these the share makes paths, which it has the kernel
 * resolve beneath the folder, without symbolic links and without mounts (reach.h).
 *
 * Threads: share_submit and share_recall may be called on any threads at once; share_reset and
 * share_state while nothing is in flight. A caller may hold locks of its own, but none that its
 * done() takes, since done() may be called inside share_submit.
 *
 * Descriptors: the share keeps one for each file or directory that the guest has open, one for
 * each process of the guest that holds locks by fcntl on a file, and few more, however many files
 * the guest knows. When the process is about to run out of them, opening fails in the guest.
 */
#ifndef DOPPEL_SHARE_SHARE_H
#define DOPPEL_SHARE_SHARE_H

#include "base/error.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/state.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct share;
struct share_changes;
struct share_intent;
struct share_options;
struct where;

/* The most that a guest reads or writes by one request, and what stands around that. */
#define SHARE_DATA_MOST  (1u << 20)
#define SHARE_EXTRA_MOST (128u << 10)
/* The most elements of IN and of OUT. */
#define SHARE_IOVS_MOST 1024u

/* One request. Embedded by the caller, who sets the first members, and alive until done() is
 * called. done() may free it or submit it again. */
struct share_request {
    /* The request as the guest has written it: a struct fuse_in_header and what belongs to it. The
     * guest may change these bytes at any time. */
    const struct iovec *in;
    unsigned ins;
    /* Where the answer goes: a struct fuse_out_header and what belongs to it. */
    const struct iovec *out;
    unsigned outs;
    /* Called once. RESULT is how many bytes were written to OUT (0: the request has no answer), or
     * -ECANCELED: nothing has been done, because share_recall was called, or -EPROTO: there is no
     * room for an answer, or what is in IN is no request. Any thread, none of the share's locks
     * held. */
    void (*done)(struct share_request *request, ssize_t result);

    /* Of a folder's own process (serve.h); else NULL and false. What the request changes in what
     * the guest knows; what it is about to do; and that a process which has died had it before. */
    struct share_changes *changes;
    struct share_intent *intent;
    bool again;

    /* The share's. */
    struct share *share;
    struct pool_job job;
    unsigned recalls; /* that there had been when it was submitted */
};

struct share_host {
    const struct log *log; /* or NULL */
    /* For folders with isolate: returns a socket at whose other end a process serves FOLDER
     * (serve.h), or a negative errno. NULL: there is nobody to start one. */
    int (*isolate)(void *opaque, const char *folder);
    void *isolate_opaque;
    uint64_t patience_ns; /* with that process, until it is killed; 0: as usual */
};

/* Opens the folder that OPTIONS name (options.h) and starts the first thread; with isolate, the
 * folder that a process of its own has opened (remote.h). HOST NULL: all is zero. */
struct share *share_open(const struct share_options *options, const struct share_host *host,
                         struct error *err);
/* Nothing is in flight. SHARE may be NULL. */
void share_close(struct share *share);

/* Takes REQUEST. Never waits for the folder. */
void share_submit(struct share *share, struct share_request *request);
/* Ends with -ECANCELED those of the requests submitted before that wait for a lock, or are about
 * to; calls their done(), on any thread. */
void share_recall(struct share *share);
/* Forgets all that the guest knows of files, and closes what it had open. */
void share_reset(struct share *share);
/* Visits that, in sections of its own with this INSTANCE. Files that cannot be opened again are
 * stale for the guest after a load. */
void share_state(struct share *share, struct state *s, uint32_t instance);

/* For asking where the threads are (base/where.h): thread N, or NULL if there are no more. */
struct where *share_where(struct share *share, unsigned n);

#endif
