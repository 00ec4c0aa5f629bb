/*
 * Locks of files, which exclude the guest's programs, the host's, and other guests'.
 *
 * flock locks belong to the guest's open file, and so to the descriptor of its handle. Locks by
 * fcntl belong to a process of the guest's, the *holder*: each holder of a file has a descriptor of
 * its own, whose open file description has the locks (fcntl(2), F_OFD_SETLK).
 *
 * A lock that must be waited for is tried again by one thread for all of them: at once when the
 * guest has released a lock, and at least every 20 ms, as the host does not say when it has. The
 * request holds nothing of guest memory meanwhile.
 */
#ifndef DOPPEL_SHARE_LOCK_H
#define DOPPEL_SHARE_LOCK_H

#include "share/handle.h"
#include "share/notes.h"

/* A process of the guest's that has locks by fcntl on a file. */
struct share_holder {
    struct share_node *node;
    struct share_holder *next; /* of the node */
    uint64_t owner;            /* the guest's name for it */
    uint64_t handle;           /* by which the first lock was taken */
    int fd;                    /* -1: of a mirror, which notes the ranges */
    uint64_t most, counted;    /* ranges that it has at most, and had when they were counted */
    uint32_t count;
    struct share_range *range;
    uint64_t order; /* of that note */
    unsigned users;
    bool ended; /* by the guest: it is in no list any more */
};

/* A lock that is asked for. */
struct share_lock {
    struct share_node *node;
    struct share_handle *handle;
    struct share_holder *holder; /* NULL: it is by flock */
    int operation;               /* flock(2): LOCK_SH, LOCK_EX, LOCK_UN */
    int type;                    /* fcntl(2): F_RDLCK, F_WRLCK, F_UNLCK */
    int64_t start, length;       /* LENGTH 0: to the end */
};

/* The holder OWNER of locks on the file of HANDLE, held; is made if there is none and MAKE. 0, with
 * *HOLDER NULL if there is none, or a negative errno. */
int share_holder_hold(struct share *share, struct share_handle *handle, uint64_t owner, bool make,
                      struct share_holder **holder);
void share_holder_drop(struct share *share, struct share_holder *holder);
/* Releases the locks of OWNER on NODE, or those of all that came by HANDLE. Returns whether there
 * were any. */
bool share_holder_end(struct share *share, struct share_node *node, uint64_t owner);
bool share_holders_end(struct share *share, struct share_node *node, uint64_t handle);
/* The same for all on NODE. */
void share_holders_end_all(struct share *share, struct share_node *node);
/* The ranges that HOLDER has locked, in RANGE. Returns how many these are; more than
 * SHARE_RANGES_MOST: they are not known. */
uint32_t share_holder_list(const struct share_holder *holder,
                           struct share_range range[SHARE_RANGES_MOST]);
/* For a mirror: notes that OWNER has COUNT ranges locked, or more than are known, by HANDLE, unless
 * what is known is newer. 0, -ENOMEM, or -ENOLCK: there are too many holders. */
int share_holder_put(struct share *share, struct share_handle *handle, uint64_t owner,
                     uint64_t order, uint32_t count, const struct share_range *range);
/* Opens the file of HANDLE for HOLDER, which was noted only, and locks what is noted. 0 or a
 * negative errno. */
int share_holder_open(struct share *share, struct share_holder *holder,
                      const struct share_handle *handle);
/* Releases the locks of all. */
void share_holders_release(struct share *share);

/* Tries to take or release LOCK. -EAGAIN: somebody else has it. -ENOLCK: there would be too many
 * ranges. -EBADF: its holder, or its handle, has ended meanwhile, and nobody has the lock. */
int share_lock_try(struct share *share, const struct share_lock *lock);

/* Tells with the answer of REQUEST that LOCK was taken or released, or that OWNER has none on NODE
 * any more. */
void share_lock_tell(struct share *share, const struct share_request *request,
                     const struct share_lock *lock);
void share_lock_tell_end(struct share *share, const struct share_request *request,
                         const struct share_node *node, uint64_t owner);

/* The locks that wait. */
struct share_waits *share_waits_create(void);
void share_waits_destroy(struct share_waits *waits);
/* Has REQUEST, whose header has UNIQUE, wait for LOCK, which holds node, handle and holder for it.
 * Returns a negative errno if it cannot wait; -ECANCELED: it was recalled. */
int share_wait(struct share *share, struct share_request *request, uint64_t unique,
               const struct share_lock *lock);
/* Ends the one with UNIQUE with -EINTR. Returns false if there is none. */
bool share_wait_interrupt(struct share *share, uint64_t unique);
/* A lock was released. */
void share_waits_kick(struct share_waits *waits);
/* How often all have been recalled. */
unsigned share_waits_recalls(const struct share_waits *waits);
/* Ends all with -EINTR, or recalls all, those that are to come from requests submitted before, too:
 * -ECANCELED. */
void share_waits_end(struct share_waits *waits, int result);
struct where *share_waits_where(struct share_waits *waits);

#endif
