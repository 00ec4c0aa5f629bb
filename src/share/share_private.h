/*
 * Inside a shared folder: what its files share.
 *
 *      share.c       requests: from the queue to an operation and its answer
 *      operation.h   one operation, and the table of all of them (op_*.c)
 *      node.h        the files that the guest knows, and where they were last seen
 *      reach.h       from a node to a descriptor of the file, beneath the folder
 *      handle.h      what the guest has open
 *      lock.h        locks of files
 *      owner.h       whom a file belongs to in the guest's eyes
 *      tables.h      nodes, handles and locks as a whole
 *
 * and of a folder in a process of its own:
 *
 *      remote.h      the side that uses it        ring.h      the memory that both have
 *      serve.h       the process                  notes.h     what the process tells
 *      mirror.h      what is known from that      intent.h    what cannot be done twice
 *
 * One lock, LOCK, guards nodes, handles and lists of locks. It is held for moments: nobody waits
 * for the folder with it held.
 */
#ifndef DOPPEL_SHARE_SHARE_PRIVATE_H
#define DOPPEL_SHARE_SHARE_PRIVATE_H

#include "base/descriptors.h"
#include "share/options.h"
#include "share/share.h"
#include "share/slots.h"

#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>

struct share_lent;
struct share_node;
struct share_notes;
struct share_remote;
struct share_waits;

/* The most files that a guest may know at once, and that it may have open. */
#define SHARE_NODES_MOST   (4u << 20)
#define SHARE_HANDLES_MOST (1u << 20)
/* Bytes of the names of these files, all together. */
#define SHARE_NAMES_MOST (128u << 20)
/* Processes of the guest that have locks by fcntl on files, each counted for each file; and the
 * ranges that they have locked, all together, for each of which the host's kernel has memory. */
#define SHARE_HOLDERS_MOST (1u << 20)
#define SHARE_LOCKS_MOST   (1u << 20)

struct share {
    struct share_options options;
    struct share_host host;
    struct pool *pool;
    int root;          /* the folder, O_PATH */
    int descriptors;   /* /proc/self/fd */
    uint64_t mount;    /* the folder's, as statx numbers it */
    uint32_t uid, gid; /* of this process */
    unsigned umask;    /* of this process */
    struct descriptors limit;

    pthread_mutex_t lock;
    struct slots nodes, handles;
    struct share_node *top; /* the folder's node */
    struct share_node **table;
    uint32_t buckets; /* of TABLE: a power of two */
    uint64_t names;   /* bytes that nodes have of them */
    uint32_t holders; /* of locks, that are in lists */
    uint64_t ranges;  /* that they have at most */
    struct share_waits *waits;
    struct share_remote *remote; /* NULL, or who serves the folder; this is a mirror then */
    struct share_notes *notes;   /* NULL; or where a folder's own process tells of nodes */
    struct share_lent *lent;     /* NULL; or where such a process notes a change of a mode */
    bool keeps;                  /* it is a mirror (mirror.h): nodes stay until their end is told */
    uint64_t lock_order;         /* counts up as locks of files are told */

    _Atomic bool ready;     /* the guest has said FUSE_INIT */
    _Atomic bool submounts; /* it knows of mounts inside */
};

#endif
