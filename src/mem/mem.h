/*
 * Guest memory: regions of guest physical space, and the one checked gate to guest bytes.
 *
 * RAM is one memfd. Guest physical layout, as on a PC: RAM from 0 to at most MEM_HOLE_START, the
 * device hole up to 4 GiB, the rest of RAM from 4 GiB. The VGA window A0000h-BFFFFh is not RAM.
 * Firmware and devices add regions of their own elsewhere. An address outside of all regions is an
 * error that the caller sees.
 *
 *     GPN --> table of regions --> state of the page --> machine page
 *
 * An engine asks the gate (mem_page) and remembers the answer, in a software TLB for example. It
 * listens (mem_listen) for what puts answers out of date. Everything else uses mem_read, mem_write
 * and mem_fill, or pins (mem/pin.h). Pages are taken away by mem/change.h; writes are recorded by
 * mem/log.h.
 *
 * Threads. A vCPU is *inside* while it may use answers of the gate, and *outside* otherwise. The
 * calls that may block say so; their caller holds no lock, and its vCPU is outside: others wait for
 * a vCPU that is inside to reach its next instruction.
 */
#ifndef DOPPEL_MEM_MEM_H
#define DOPPEL_MEM_MEM_H

#include "base/error.h"
#include "base/state.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEM_PAGE_SHIFT 12
#define MEM_PAGE_SIZE  4096u
#define MEM_HOLE_START 0xC0000000ULL /* 3 GiB */
#define MEM_HOLE_END   0x100000000ULL
#define MEM_VGA_START  0xA0000ULL
#define MEM_VGA_END    0xC0000ULL

struct mem;
struct mem_region;

enum mem_access { MEM_READ, MEM_WRITE };

/* RAM_BYTES: a multiple of 4096, at least 1 MiB. Zero-filled, allocated on first touch. */
struct mem *mem_create(uint64_t ram_bytes, struct error *err);
/* With the regions that are left. */
void mem_destroy(struct mem *mem);

uint64_t mem_ram_size(const struct mem *mem);
/* RAM below 4 GiB ends here; above, it runs from 4 GiB to mem_high_end (4 GiB when none). */
uint64_t mem_low_end(const struct mem *mem);
uint64_t mem_high_end(const struct mem *mem);
/* All GPNs of RAM are below this. */
uint64_t mem_gpn_limit(const struct mem *mem);
/* Resident bytes of guest RAM on the host, the pages that are shared included. */
uint64_t mem_resident(const struct mem *mem);

/* --- Regions ---------------------------------------------------------------------------------- */

enum mem_kind {
    MEM_RAM,    /* its pages have a state: see mem/change.h */
    MEM_ROM,    /* the guest reads it; a write goes to the bus, where a device may claim it */
    MEM_DEVICE, /* memory of a device: a framebuffer, a memory BAR */
};

/* The address of a region that is not mapped. */
#define MEM_NOWHERE UINT64_MAX

struct mem_region_config {
    const char *name; /* for messages; stays the caller's */
    uint64_t gpa;     /* a multiple of 4096, or MEM_NOWHERE */
    uint64_t size;    /* a multiple of 4096, not 0 */
    enum mem_kind kind;
    bool log; /* keeps a dirty log of its own: mem_region_log_fetch */
};

#define MEM_REGIONS_MAX 64

/* Adds a region, which reads as zeroes. Its bytes do not move when the region does. Fails if it
 * would overlap another (-EEXIST), or there are MEM_REGIONS_MAX (-ENOSPC). */
struct mem_region *mem_region_add(struct mem *mem, const struct mem_region_config *config,
                                  struct error *err);
/* Moves a region to GPA, or out of guest physical space. The calling vCPU, if it is
 * one, forgets what it knew of either place before its next instruction. Each other vCPU does so
 * before its own next instruction. Never waits, so a device may call it from a register write.
 * -EEXIST: another is there; -EBUSY: it is RAM, and pinned. */
int mem_region_move(struct mem_region *region, uint64_t gpa, struct error *err);
/* Removes a region. May block, until the last pin on it is gone. */
void mem_region_remove(struct mem_region *region);
uint64_t mem_region_gpa(const struct mem_region *region);
/* The region's bytes, for its device. What the device writes there it announces afterwards with
 * mem_region_written, if the region can hold code (ROM) or has a log. */
void *mem_region_host(const struct mem_region *region);
void mem_region_written(struct mem_region *region, uint64_t offset, uint64_t size);

/* Whether [GPA, GPA + SIZE) is RAM. */
bool mem_is_ram(const struct mem *mem, uint64_t gpa, uint64_t size);
/* Whether code of the page GPN may be kept decoded: all writes to it reach the listeners. */
bool mem_holds_code(const struct mem *mem, uint64_t gpn);

/* --- The gate --------------------------------------------------------------------------------- */

enum mem_answer {
    MEM_OK,
    MEM_NOT_RAM, /* ask the bus */
    MEM_ABSENT,  /* call mem_fault, then ask again */
};

/* Finds the machine page behind GPN for accesses of this kind; WRITE serves reading too, and marks
 * the page in the dirty logs. Never blocks, takes no lock. The answer holds until a listener hears
 * that it does not; it is for a vCPU that is inside, or while no other thread uses MEM. */
enum mem_answer mem_page(struct mem *mem, uint64_t gpn, enum mem_access access, void **host);

/* Whether mem_page would say OK for PAGES pages from GPN on, of one 2 MiB piece, with machine pages
 * that follow each other. Marks nothing: for WRITE the answer is false while there is a log. */
bool mem_is_whole(const struct mem *mem, uint64_t gpn, uint64_t pages, enum mem_access access);

/* Whether HOST is the machine page of GPN that RAM was created with: at mem_ram_base plus the guest
 * physical address. */
bool mem_is_own(const struct mem *mem, uint64_t gpn, const void *host);
/* The host address of guest physical address 0, in the RAM that MEM was created with. */
void *mem_ram_base(const struct mem *mem);

/* Pages that a vCPU has made present for the instruction that it is about to execute; they are not
 * taken away before mem_release. When there are more, the first are given up. */
#define MEM_KEPT 64
struct mem_kept {
    uint64_t gpn[MEM_KEPT];
    unsigned count; /* ever kept since mem_release */
};

/* Makes GPN present for accesses of this kind, and keeps it so in KEPT, which may be NULL. May
 * block, for as long as the pager does. 0, -EFAULT if it is not RAM, or the pager's error. */
int mem_fault(struct mem *mem, uint64_t gpn, enum mem_access access, struct mem_kept *kept);
void mem_release(struct mem *mem, struct mem_kept *kept);

/* The machine page behind GPN for reading, or NULL: for debuggers and tests. */
static inline void *mem_peek(struct mem *mem, uint64_t gpn)
{
    void *host;

    return mem_page(mem, gpn, MEM_READ, &host) == MEM_OK ? host : NULL;
}

/* --- Copies ----------------------------------------------------------------------------------- */

/* Copies. May block. 0, or -EFAULT with nothing copied when any byte is in no region; mem_write and
 * mem_fill do not write to ROM. -EIO: a page could not be brought in. */
int mem_read(struct mem *mem, uint64_t gpa, void *buf, uint64_t size);
int mem_write(struct mem *mem, uint64_t gpa, const void *buf, uint64_t size);
int mem_fill(struct mem *mem, uint64_t gpa, uint8_t byte, uint64_t size);

/* All RAM back to zero-filled, untouched pages (reset). vCPUs must be stopped. Changes
 * (mem/change.h) that are posted meanwhile find the pages in use. The pager is not told of
 * protected pages. */
int mem_clear(struct mem *mem, struct error *err);

/* Visits all RAM that is mapped: sections "ram", each with some pages that are not zero; then each
 * region of ROM and DEVICE, in the order in which they were added: "region", and "region_pages"
 * with its pages. When loading, RAM must be as mem_create left it and mapped where it was; the
 * other regions must be of the same names, kinds and sizes, and may be anywhere and hold anything.
 * vCPUs and devices must be stopped. */
void mem_state(struct mem *mem, struct state *s);

/* --- Listeners -------------------------------------------------------------------------------- */

/* Pages that are no longer where they were. */
struct mem_range {
    uint64_t gpa, size;
    const void *host; /* where the gate said they are, one behind the other; NULL: nowhere */
};

struct mem_listener_ops {
    /* The gate's answers for these RANGES are out of date: those for writing only, if ACCESS is
     * MEM_WRITE, else all. Each vCPU must forget them before its next instruction. Their bytes may
     * be the same; if not, `written` is called, too. Never waits; any thread, with or without
     * locks. */
    void (*invalidated)(void *opaque, const struct mem_range *ranges, unsigned count,
                        enum mem_access access);
    /* Returns when each vCPU has been outside, or between two instructions, since the call: none
     * uses what was invalidated before it, or what the gate can no longer find. Not on a vCPU's
     * thread that is inside, and with no lock held that a vCPU may wait for. */
    void (*settle)(void *opaque);
    /* Bytes were written by other than the engine, or are others because of a change. Any thread,
     * with or without locks. */
    void (*written)(void *opaque, uint64_t gpa, uint64_t size);
    /* The table of regions is another. As invalidated, which is called as well. */
    void (*regions_changed)(void *opaque);
    /* The dirty log has begun or ended (map.h says for which regions). What guest code has written
     * to without asking the gate, since it began or was asked last, is marked by the other one with
     * mem_mark_written. Without locks. */
    void (*log_changed)(void *opaque);
    void (*log_collect)(void *opaque);
};

/* Each of the ops may be NULL. */
struct mem_listener {
    const struct mem_listener_ops *ops;
    void *opaque;
    struct mem_listener *next; /* mem's */
};

/* LISTENER hears of what happens from now on, and must stay until mem_unlisten, after which it is
 * told nothing and is being told nothing. Any thread, not from a listener; waits for those that are
 * being told, and so not with a lock that one of them takes. */
void mem_listen(struct mem *mem, struct mem_listener *listener);
void mem_unlisten(struct mem *mem, struct mem_listener *listener);

/* CHECK is called wherever MEM is about to wait for vCPUs. It asserts that the thread holds no lock
 * that a vCPU may be waiting for, the board lock above all. */
void mem_set_check(struct mem *mem, void (*check)(void *opaque), void *opaque);

/* Has LOST called when for the first time a page cannot be provided by the host (lost.h): in a
 * signal handler, on the thread that touched the page, so LOST must be SIGNALS_SAFE. The virtual
 * machine must end then. Called before any other thread uses MEM. */
void mem_on_lost(struct mem *mem, void (*lost)(void *opaque), void *opaque);
/* Whether that has happened; *GPA is then the address of the page. Any thread. */
bool mem_lost(const struct mem *mem, uint64_t *gpa);

#endif
