/*
 * Reads and writes of a file by io_uring(7): many at once, without a thread for each.
 *
 * One thread has the ring to itself. It hands all requests that have come to it (inbox.h) to the
 * kernel, waits for what is done, and calls end(), in one system call for each turn. It hears of a
 * kick by a read of the inbox's eventfd, which the ring has, too.
 *
 * The ring is made disabled. Before it is enabled, it is restricted for good to reads and writes.
 * The file is not registered in it: the kernel would keep it open, and so the lock of the image,
 * for some 30 ms after the process has been killed.
 */
#ifndef DOPPEL_BLK_FILE_URING_H
#define DOPPEL_BLK_FILE_URING_H

#include "blk/blk.h"

struct uring;

/* What came of REQUEST: the number of bytes, perhaps fewer than it has, or a negative errno. */
typedef void uring_end(struct blk_request *request, int result);

/* Makes a ring for the file FD and starts its thread. */
struct uring *uring_create(int fd, uring_end *end, struct error *err);
/* Nothing is in flight. URING may be NULL. */
void uring_destroy(struct uring *uring);

/* REQUEST is a READ or WRITE with IOV_MAX buffers at most. It begins after the next kick, at the
 * latest. Both from any thread. */
void uring_submit(struct uring *uring, struct blk_request *request);
void uring_kick(struct uring *uring);

/* For asking where the thread is (base/where.h). */
struct where *uring_where(struct uring *uring);

#endif
