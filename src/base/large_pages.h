/*
 * Memory in large pages: what is accessed all over, again and again, misses the host's TLB less
 * often there. All of it is a request: a host without large pages gives small ones.
 */
#ifndef DOPPEL_BASE_LARGE_PAGES_H
#define DOPPEL_BASE_LARGE_PAGES_H

#include <stdbool.h>
#include <stddef.h>

#define LARGE_PAGE ((size_t)2 << 20)

/* Maps SIZE bytes that are zero, in large pages, of which each is taken as a whole when it is first
 * touched. munmap gives them back. Returns NULL if there is not enough memory. */
void *large_pages_map(size_t size);

/* Maps the first SIZE bytes of the file FD with PROTECTION, shared, so that large pages may be
 * mapped there. munmap gives them back. Returns NULL on failure, with errno set. */
void *large_pages_map_file(size_t size, int protection, int fd);

/* Has the host make one large page of the LARGE_PAGE bytes at AT, a multiple of that, which are of
 * a file that lies in memory. They stay as they are, and threads may be using them; what was not
 * there before reads as zero. Returns false if the host does not. */
bool large_pages_join(void *at);

#endif
