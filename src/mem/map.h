/*
 * For an engine whose guest code reaches memory by a mapping that the engine has made (KVM), and
 * not through the gate: what there is to map, which pages the guest may use as they are, and how
 * pages that it has written to get into the dirty logs.
 *
 * Such an engine maps a page for as long as the page is plain. Other pages it takes out of its
 * mapping before a listener's `settle` returns, if an `invalidated` before has named them; the
 * guest's next access to one of them goes through the gate.
 */
#ifndef DOPPEL_MEM_MAP_H
#define DOPPEL_MEM_MAP_H

#include "mem/mem.h"

/* A region that is mapped. FD is the caller's, and has the region's bytes from OFFSET on. */
struct mem_map {
    uint64_t region; /* a number that no other region of this memory ever has */
    uint64_t gpa, size;
    enum mem_kind kind;
    bool logged; /* writes to it are recorded in some dirty log */
    int fd;
    uint64_t offset;
};
#define MEM_MAPS_MAX (MEM_REGIONS_MAX + 3)

/* Stores what is mapped in MAPS, which has room for MEM_MAPS_MAX. Returns how many they are, or a
 * negative errno: no descriptor is left. */
int mem_maps(struct mem *mem, struct mem_map *maps, struct error *err);

/* Whether the page GPN is plain: in a region, the guest's own, and not protected. Stores in SAME
 * for how many pages from GPN on, at most PAGES, the answer is the same. Marks nothing; the answer
 * holds until the listener's `settle` that follows `invalidated`. */
bool mem_is_plain(struct mem *mem, uint64_t gpn, uint64_t pages, uint64_t *same);

/* Has pages of RAM be present from now on, but for ballooned ones, until mem_end_keeping has been
 * called as often: they are neither shared nor swapped out nor protected (mem/change.h: -EPERM), as
 * while RAM is exported. Brings back those that are. May block. 0, or the pager's error. */
int mem_keep_present(struct mem *mem);
void mem_end_keeping(struct mem *mem);

/* Marks pages of a region that guest code has written to: bit N % 64 of word N / 64 is for page N.
 * Does nothing if the region is gone. */
void mem_mark_written(struct mem *mem, uint64_t region, const uint64_t *bitmap, uint64_t pages);

#endif
