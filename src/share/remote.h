/*
 * An isolated folder, for who uses it: requests go to the process that serves it (serve.h), through
 * memory that both have (ring.h).
 *
 *      VM process                                               the folder's process
 *      share_remote_submit --> copy --> ring of requests -----> share_submit --> the folder
 *              done() <-- mirror, copy <-- notes <-------------'
 *
 * When that process dies, the supervisor starts the next one. It gets what the mirror says of
 * nodes, open files and locks (share_tables_state), and then all requests once more that were not
 * answered. Those that cannot be done twice find in the memory what was found before (intent.h). So
 * the guest sees a pause. What cannot be had again is stale for it: open files without a name, and
 * files with a lock that somebody else has taken meanwhile.
 *
 * A process that lives and does not answer is killed (base/kept_watch.h). One that breaks the rules
 * is not listened to any more: then all requests fail with EIO.
 *
 * Two locks: TABLES guards the mirror, and is taken first; LOCK guards requests and the ring, and
 * is a leaf.
 */
#ifndef DOPPEL_SHARE_REMOTE_H
#define DOPPEL_SHARE_REMOTE_H

#include "share/share_private.h"

struct share_remote;

/* For SHARE, a mirror. LINK is the remote's, also on failure. Waits until the process has opened
 * the folder. */
struct share_remote *share_remote_open(struct share *share, int link, struct error *err);
/* REMOTE may be NULL. */
void share_remote_close(struct share_remote *remote);

/* As the functions of a share (share.h). */
void share_remote_submit(struct share_remote *remote, struct share_request *request);
void share_remote_recall(struct share_remote *remote);
void share_remote_reset(struct share_remote *remote);
void share_remote_state(struct share_remote *remote, struct state *s, uint32_t instance);
struct where *share_remote_where(struct share_remote *remote);

#endif
