/*
 * The dirty log: which pages have been written to, by whomever: guest code, page walks that set
 * accessed and dirty bits, devices, mem_write, pins.
 *
 * A page that is written to between two fetches is in the second one's answer; its bytes may be
 * newer than that. So who copies what was fetched, and again what was written meanwhile, ends with
 * the guest's memory once vCPUs and devices stand still.
 *
 * There is one log of all memory that can be written to, and each region that was added with one
 * has its own besides.
 */
#ifndef DOPPEL_MEM_LOG_H
#define DOPPEL_MEM_LOG_H

#include "mem/mem.h"

/* Begins to record. May block. -EBUSY: it has begun already. */
int mem_log_start(struct mem *mem, struct error *err);
/* Ends it. May block. */
void mem_log_stop(struct mem *mem);

/* Stores in BITMAP which of PAGES pages from GPN on were written to since they were fetched last
 * (or the log was started), and begins anew for these: bit N % 64 of word N / 64 is for page GPN +
 * N. GPN and PAGES are multiples of 64. May block. Returns how many there are. */
uint64_t mem_log_fetch(struct mem *mem, uint64_t gpn, uint64_t pages, uint64_t *bitmap);

/* The same for all pages of a region that has a log of its own, counted from its start. BITMAP has
 * room for them, rounded up to 64. */
uint64_t mem_region_log_fetch(struct mem_region *region, uint64_t *bitmap);

#endif
