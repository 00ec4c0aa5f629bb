/*
 * What a guest with several queues may do to a disk, at random: it reads, writes, zeroes, discards
 * and flushes, keeps a history of it, and checks what it reads.
 *
 * As real ones, it has no two requests for the same sector under way unless both read.
 */
#ifndef DOPPEL_TESTS_BLK_GUEST_H
#define DOPPEL_TESTS_BLK_GUEST_H

#include "blk/blk.h"
#include "history.h"

#include <pthread.h>

#define GUEST_SECTORS 4096u /* of the disks that the tests of cuts use */
#define GUEST_DEPTH   16    /* requests under way in one queue, at most */

/* Shared by the threads that call guest_batch, one for each queue. */
struct guest {
    struct blk *blk;
    struct history *history;
    uint64_t sectors;
    _Atomic uint32_t *version; /* the last version written; a later write has a higher one */
    bool full;                 /* the host may have no room: requests may fail with -ENOSPC */
    _Atomic unsigned refused;  /* requests for which there was no room */
    pthread_mutex_t lock;      /* guards the arrays, by sector; a leaf */
    bool *busy;                /* a request for it is under way */
    uint32_t *now;             /* its version */
    bool *discarded;           /* since that was written: it may read as zeros, too */
};

/* Members above REFUSED are the caller's to set. BASE is what the disk holds. */
void guest_begin(struct guest *guest, const uint32_t *base);
void guest_end(struct guest *guest);

/* Submits up to DEPTH requests, as RANDOM chooses, and waits for all of them. False: the history is
 * full. A request that fails, or reads what it must not, ends the process with a message. */
bool guest_batch(struct guest *guest, unsigned depth, uint64_t *random);
/* While nothing is under way: makes sure of what discarded sectors hold, by reading them. */
void guest_settle(struct guest *guest);
/* While nothing is under way: takes note that all sectors have got other versions. */
void guest_replaced(struct guest *guest, const uint32_t *versions);
/* Flushes, and notes it. */
void guest_flush(struct guest *guest);

/* Reads all of a disk, which the caller frees; NULL: that fails. */
uint8_t *guest_read_all(struct blk *blk, uint64_t sectors);

#endif
