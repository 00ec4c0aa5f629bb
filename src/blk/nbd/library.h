/*
 * libnbd, which is loaded when the first disk wants it: with what it needs in turn (TLS among it)
 * it would cost each start of doppel 10 ms and 5 MiB of memory.
 */
#ifndef DOPPEL_BLK_NBD_LIBRARY_H
#define DOPPEL_BLK_NBD_LIBRARY_H

#include "base/error.h"

#include <libnbd.h>

/* Calls X for each function that is used. */
#define NBD_FUNCTIONS(X)                                                                           \
    X(create)                                                                                      \
    X(close)                                                                                       \
    X(get_error)                                                                                   \
    X(get_errno)                                                                                   \
    X(aio_connect_uri)                                                                             \
    X(aio_disconnect)                                                                              \
    X(aio_is_ready)                                                                                \
    X(aio_is_dead)                                                                                 \
    X(aio_is_closed)                                                                               \
    X(aio_get_fd)                                                                                  \
    X(aio_get_direction)                                                                           \
    X(aio_notify_read)                                                                             \
    X(aio_notify_write)                                                                            \
    X(aio_pread)                                                                                   \
    X(aio_pwrite)                                                                                  \
    X(aio_flush)                                                                                   \
    X(aio_trim)                                                                                    \
    X(aio_zero)                                                                                    \
    X(get_size)                                                                                    \
    X(get_block_size)                                                                              \
    X(is_read_only)                                                                                \
    X(can_flush)                                                                                   \
    X(can_trim)                                                                                    \
    X(can_zero)

struct nbd_library {
#define X(name) __typeof__(nbd_##name) *name;
    NBD_FUNCTIONS(X)
#undef X
};

int nbd_library_load(struct nbd_library *library, struct error *err);

#endif
