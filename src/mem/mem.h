/*
 * Guest memory: guest page number to machine page, and the one checked gate to guest bytes.
 *
 * RAM is one memfd. Guest physical layout, as on a PC: RAM from 0 to at most MEM_HOLE_START, the
 * device hole up to 4 GiB, the rest of RAM from 4 GiB. The VGA window A0000h-BFFFFh is not RAM.
 * Every address outside is an error the caller sees.
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

/* Told about every change behind an engine's back, before mem_write returns. Any thread. */
struct mem_listener {
    void (*written)(void *opaque, uint64_t gpa, uint64_t size);
    void *opaque;
};

/* RAM_BYTES: a multiple of 4096, at least 1 MiB. Zero-filled, allocated on first touch. */
struct mem *mem_create(uint64_t ram_bytes, struct error *err);
void mem_destroy(struct mem *mem);

uint64_t mem_ram_size(const struct mem *mem);
/* RAM below 4 GiB ends here; above, it runs from 4 GiB to mem_high_end (4 GiB when none). */
uint64_t mem_low_end(const struct mem *mem);
uint64_t mem_high_end(const struct mem *mem);
/* Number of guest pages in the map: all GPNs that can be RAM are below this. */
uint64_t mem_gpn_limit(const struct mem *mem);
/* Resident bytes of guest RAM on the host. */
uint64_t mem_resident(const struct mem *mem);

/* The first page from GPN on that has been touched since it was last cleared, or all of them
 * further on read as zeroes: then mem_gpn_limit. It is found without touching those before it. */
uint64_t mem_next_touched(const struct mem *mem, uint64_t gpn);

bool mem_is_ram(const struct mem *mem, uint64_t gpa, uint64_t size);

/* Copies. 0, or -EFAULT with nothing copied when any byte is not RAM. */
int mem_read(struct mem *mem, uint64_t gpa, void *buf, uint64_t size);
int mem_write(struct mem *mem, uint64_t gpa, const void *buf, uint64_t size);
int mem_fill(struct mem *mem, uint64_t gpa, uint8_t byte, uint64_t size);

/* All RAM back to zero-filled, untouched pages (reset). vCPUs must be stopped. */
int mem_clear(struct mem *mem, struct error *err);

/* For engines' fast paths and for device calls that keep it no longer than the call: the machine
 * page behind GPN, or NULL when that is not RAM. */
void *mem_page(struct mem *mem, uint64_t gpn);

/* Visits all RAM: sections "ram", each with some pages that are not zero. When loading, RAM must be
 * as mem_create left it. vCPUs must be stopped. */
void mem_state(struct mem *mem, struct state *s);

void mem_set_listener(struct mem *mem, const struct mem_listener *listener);

/* Has LOST called when for the first time a page cannot be provided by the host (lost.h): in a
 * signal handler, on the thread that touched the page, so LOST must be SIGNALS_SAFE. The virtual
 * machine must end then. Called before any other thread uses MEM. */
void mem_on_lost(struct mem *mem, void (*lost)(void *opaque), void *opaque);
/* Whether that has happened; *GPA is then the address of the page. Any thread. */
bool mem_lost(const struct mem *mem, uint64_t *gpa);

#endif
