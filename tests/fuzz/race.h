/*
 * What the vCPUs of race.c find: memory with code made of an input, and the states in which they
 * begin.
 */
#ifndef DOPPEL_TESTS_FUZZ_RACE_H
#define DOPPEL_TESTS_FUZZ_RACE_H

#include "mem/mem.h"
#include "x86/cpu.h"

#define RACE_CPUS      2
#define RACE_RAM       0x400000ULL
#define RACE_SHARED    0x24000ULL /* a page that both write, and execute */
#define RACE_INPUT_MIN 16

/* Tables, handlers, and the code of both vCPUs. */
void race_write(struct mem *mem, const uint8_t *input, size_t size);
/* Sets CPU, which is as after a reset, to the state that vCPU N begins in. */
void race_state(struct x86_cpu *cpu, unsigned n, const uint8_t *input, size_t size);

#endif
