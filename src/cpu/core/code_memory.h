/*
 * Memory for code that is generated while the machine runs: one memfd mapped twice, written through
 * one mapping and executed through the other, so that no page is ever writable and executable at
 * one address.
 *
 * Whoever writes there has the host provide the memory first. A host that has none left then says
 * so; otherwise it would send SIGBUS to the thread that writes, or to one that executes.
 *
 * No locks: one thread at a time provides.
 */
#ifndef DOPPEL_CPU_CORE_CODE_MEMORY_H
#define DOPPEL_CPU_CORE_CODE_MEMORY_H

#include "base/error.h"

#include <stdint.h>

struct code_memory {
    uint8_t *write; /* PROT_READ | PROT_WRITE */
    uint8_t *run;   /* PROT_READ | PROT_EXEC */
    uint32_t size;
    uint32_t provided; /* bytes from the start that the host has given */
    int fd;
};

/* Maps SIZE bytes, of which the host provides the first FIRST at once. NAME is what the kernel
 * shows; a constant. On failure MEMORY is all zero, and code_memory_destroy does nothing. */
int code_memory_create(struct code_memory *memory, const char *name, uint32_t size, uint32_t first,
                       struct error *err);
void code_memory_destroy(struct code_memory *memory);

/* Has the host provide the first WANTED bytes, or all if that is more. Returns how many bytes from
 * the start may be written and executed: fewer than WANTED if the host has no memory for more now.
 * They stay provided. */
uint32_t code_memory_provide(struct code_memory *memory, uint64_t wanted);

#endif
