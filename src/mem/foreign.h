/*
 * Memory that two processes map, as vhost-user has it: the one that has the guest exports its RAM,
 * and the other imports it.
 *
 * A process that maps RAM reads and writes it without the gate. So while RAM is exported its pages
 * are the guest's own at all times: they are neither shared with other virtual machines nor swapped
 * out nor protected (mem/change.h: -EPERM). The balloon goes on, because who gives a page back does
 * not have a device write to it. Writes from outside reach neither dirty logs nor listeners:
 * whoever hands requests to the other process says afterwards what was written
 * (mem_foreign_written).
 */
#ifndef DOPPEL_MEM_FOREIGN_H
#define DOPPEL_MEM_FOREIGN_H

#include "mem/mem.h"

/* A part of RAM: SIZE bytes at GPA are those of the file FD, which stays MEM's, from OFFSET on. */
struct mem_export {
    uint64_t gpa, size;
    int fd;
    uint64_t offset;
};

/* Stores in PARTS what RAM consists of, and how many they are in COUNT, which says how many there
 * is room for. RAM is exported from then on, for good, and its files keep their size: they are
 * sealed (F_SEAL_SHRINK, F_SEAL_GROW), which fails for an imported file without seals. -EBUSY:
 * pages are shared or swapped out; -ENOSPC: there are more parts. Not while another thread changes
 * pages. */
int mem_export_ram(struct mem *mem, struct mem_export *parts, unsigned *count, struct error *err);
bool mem_is_exported(const struct mem *mem);

/* Says that a process to which RAM is exported may have written to [GPA, GPA + SIZE), which is RAM:
 * for the dirty logs, and for those who keep decoded code. Any thread, without locks. */
void mem_foreign_written(struct mem *mem, uint64_t gpa, uint64_t size);

/* Guest memory without RAM: for regions that are imported. */
struct mem *mem_create_empty(struct error *err);

/* As mem_region_add, with the bytes of the file FD from OFFSET on. FD is the region's from then on,
 * and is closed on failure, too. The file may become shorter at any time: who touches what it no
 * longer has finds zeroes, and mem_on_lost tells. */
struct mem_region *mem_region_import(struct mem *mem, const struct mem_region_config *config,
                                     int fd, uint64_t offset, struct error *err);
/* Has mem_on_lost tell again: the regions that lost something have been removed. */
void mem_forget_lost(struct mem *mem);

#endif
