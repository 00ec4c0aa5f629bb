/*
 * How a kept process begins to serve.
 */
#ifndef DOPPEL_BASE_KEPT_SERVER_H
#define DOPPEL_BASE_KEPT_SERVER_H

#include "base/kept_link.h"
#include "base/kept_memory.h"

/* Says HELLO, waits for the files, and maps SIZE bytes of memory, which kept_memory_drop gives
 * back. 0; -EPIPE: nobody wants to be served any more, and ERR is not set; or another negative
 * errno. */
int kept_server_begin(int link, const struct kept_hello *hello, uint64_t size,
                      int files[KEPT_FILES], void **memory, struct error *err);
/* Says, to the other side and in ERR, that nothing can be served because of WHY. */
int kept_server_apologize(int link, const struct error *why, struct error *err);

#endif
