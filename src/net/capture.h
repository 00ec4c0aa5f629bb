/*
 * A file of captured frames in the format of pcap (draft-ietf-opsawg-pcap, with nanoseconds), which
 * tcpdump and wireshark read.
 *
 * Its lock is a leaf. It is held while a frame is written to the file.
 */
#ifndef DOPPEL_NET_CAPTURE_H
#define DOPPEL_NET_CAPTURE_H

#include "base/error.h"
#include "base/log.h"

#include <stddef.h>
#include <sys/uio.h>

/* A capture that has grown so large ends, so that a forgotten one does not fill the disk. */
#define CAPTURE_MOST (UINT64_C(1) << 30)

struct capture;

/* Makes the file PATH, or replaces what is in it. Two captures to one file would spoil it: the
 * second one is refused (flock(2)). */
struct capture *capture_create(const char *path, const struct log *log, struct error *err);
void capture_destroy(struct capture *capture); /* NULL is allowed */

/* Writes the first SIZE bytes of the IOVS pieces as a frame, with the time of now. Any threads.
 * When the file cannot be written any more, that is logged once, and the capture ends. */
void capture_frame(struct capture *capture, const struct iovec *iov, unsigned iovs, size_t size);

#endif
