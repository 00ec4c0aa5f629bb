/*
 * The pool of shared pages: one machine page for all guest pages that hold the same bytes, found by
 * a hash of them. Its caller has a lock.
 */
#ifndef DOPPEL_MEM_POOL_H
#define DOPPEL_MEM_POOL_H

#include "mem/lost.h"

#include <stdint.h>

#define POOL_NONE UINT32_MAX

struct mem_pool;

/* Room for PAGES pages; takes memory for those that are there. If the host loses one of them, that
 * counts as the loss of guest physical address 0 in LOST. NULL: there is no memory. */
struct mem_pool *mem_pool_create(uint32_t pages, struct lost *lost);
void mem_pool_destroy(struct mem_pool *pool);
/* The slot of a page that holds the same as PAGE, put there if it is new; one user more. POOL_NONE:
 * the pool is full, or the host has no memory. */
uint32_t mem_pool_put(struct mem_pool *pool, const void *page);
/* A slot has one user less; after the last its bytes are gone. */
void mem_pool_drop(struct mem_pool *pool, uint32_t slot);
/* Where the page can be read. Writing there is a fault. */
const void *mem_pool_page(const struct mem_pool *pool, uint32_t slot);
/* Pages that have users, and bytes that they take on the host. */
uint32_t mem_pool_used(const struct mem_pool *pool);
uint64_t mem_pool_resident(const struct mem_pool *pool);

#endif
