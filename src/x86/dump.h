/*
 * The state of a processor as text, for whoever has to find out why a guest died.
 */
#ifndef DOPPEL_X86_DUMP_H
#define DOPPEL_X86_DUMP_H

#include "x86/cpu.h"

#include <stddef.h>

/* Writes lines to BUF, cut off (and terminated) at SIZE. Returns the length written. */
size_t x86_dump(const struct x86_cpu *cpu, char *buf, size_t size);

#endif
