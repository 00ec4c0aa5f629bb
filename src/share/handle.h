/*
 * What the guest has open: a descriptor of the host's for each.
 */
#ifndef DOPPEL_SHARE_HANDLE_H
#define DOPPEL_SHARE_HANDLE_H

#include "share/node.h"

struct share_handle {
    uint64_t number; /* the guest's name for it */
    int fd;          /* -1: it could not be opened again after a load */
    int flags;       /* it was opened with */
    struct share_node *node;
    struct share_handle *next; /* of the node */
    unsigned users;
    bool released;     /* by the guest */
    bool lost;         /* somebody else has had a lock of its: it is stale from now on */
    _Atomic int flock; /* LOCK_SH, LOCK_EX, or LOCK_UN */
    uint64_t order;    /* of a mirror's: of the note about FLOCK */

    /* Directories. The lock is held while entries are read. */
    pthread_mutex_t reading;
    uint64_t at; /* where the descriptor stands */
};

/* Makes one of FD, which is then the handle's, also on failure. */
int share_handle_add(struct share *share, struct share_node *node, int fd, int flags,
                     struct share_handle **handle);
/* The same, with a NUMBER that it had before. -EINVAL: there is one, or there cannot be. */
int share_handle_put(struct share *share, struct share_node *node, uint64_t number, int fd,
                     int flags, struct share_handle **handle);
/* The handle with this NUMBER, which must be NODE's if that is not NULL, until it is dropped; or
 * NULL. */
struct share_handle *share_handle_hold(struct share *share, const struct share_node *node,
                                       uint64_t number);
/* Whether HANDLE was opened with the access FLAGS. */
bool share_handle_allows(const struct share_handle *handle, int flags);
/* The handle of NODE's that has most access of those that are open on the host, held; or NULL. */
struct share_handle *share_handle_any(struct share *share, const struct share_node *node);
void share_handle_drop(struct share *share, struct share_handle *handle);
/* The guest needs it no more: it is closed when it is dropped. */
void share_handle_release(struct share *share, struct share_handle *handle);
/* The guest needs none of NODE's any more, or none at all. */
void share_handles_end(struct share *share, struct share_node *node);
void share_handles_release(struct share *share);

#endif
