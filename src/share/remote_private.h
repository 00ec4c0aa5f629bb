/*
 * Inside of an isolated folder, for who uses it: shared by remote.c (the thread, and processes that
 * die) and requests.c.
 */
#ifndef DOPPEL_SHARE_REMOTE_PRIVATE_H
#define DOPPEL_SHARE_REMOTE_PRIVATE_H

#include "base/fifo.h"
#include "base/kept_user.h"
#include "share/remote.h"
#include "share/ring.h"

/* A request that was sent. */
struct remote_slot {
    struct share_request *request; /* NULL: free */
    struct share_ring_entry entry;
    uint32_t in_page, in_pages, out_page, out_pages;
    uint32_t next; /* free slot */
    bool renames;  /* it changes the names of files that may be open */
    bool recalled; /* it is to wait for a lock no more */
};

struct share_remote {
    struct share *share; /* the mirror */
    char name[300];      /* for messages */
    struct kept_user user;
    struct share_ring *ring; /* the user's */

    pthread_mutex_t tables; /* guards the mirror and NUMBER */
    uint64_t number;        /* of the process's hello */

    pthread_mutex_t lock; /* guards the rest */
    bool broken;
    struct kept_side requests;
    struct fifo waiting; /* not sent yet: jobs of struct share_request */
    struct remote_slot slot[RING_REQUESTS];
    uint32_t free, used; /* first free slot, RING_REQUESTS: none; how many are used */
    struct kept_pages pages;
    uint32_t controls; /* that are not DONE */
    bool pinged, recall_again;
    bool load_again; /* the process does not know yet what the mirror holds: requests wait */

    /* The thread's. */
    struct kept_side notes;
    struct share_note *note; /* room for one */
};

/* requests.c, with LOCK. */
void remote_slots_init(struct share_remote *r);
/* Sends what can be sent. Returns whether the process is to be woken. */
bool remote_pump(struct share_remote *r);
/* Sends what is no request. Returns the same. */
bool remote_control(struct share_remote *r, enum share_ring_kind kind);
/* Sends what the next process needs: the entry for what the guest knows, all requests that were
 * sent before, and those that wait. */
void remote_send_all(struct share_remote *r);
/* Takes the RESULT of request NUMBER: copies the answer, and frees the slot. NULL: it cannot be. */
struct share_request *remote_end(struct share_remote *r, uint32_t number, int32_t result);
/* Takes all requests out, into ALL. */
void remote_forget_all(struct share_remote *r, struct fifo *all);

/* Completes REQUEST, which cannot be carried out. Without locks. */
void remote_fail(struct share_request *request);

#endif
