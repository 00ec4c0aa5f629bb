/*
 * What the x87 remembers: where its last instruction stood, and the operand's address and opcode of
 * the last one with an unmasked exception (SDM volume 1, 8.1.8, 8.1.9). The host's processor would
 * note the addresses of code that stands in for the guest's, or nothing, so the engines keep the
 * guest's themselves.
 */
#ifndef DOPPEL_X86_X87_H
#define DOPPEL_X86_X87_H

#include "x86/insn.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Where x86_cpu.xsave has the control, status and abridged tag words, the pointers and the
 * registers (SDM volume 1, table 10-2). */
enum {
    X87_FCW = 0,
    X87_FSW = 2,
    X87_FTW = 4,
    X87_FOP = 6,
    X87_FIP = 8,
    X87_FDP = 16,
    X87_REGISTERS = 32,
    X87_REGISTER = 16 /* bytes from one to the next */
};

static inline uint16_t x87_word(const uint8_t *p)
{
    uint16_t word;

    memcpy(&word, p, sizeof(word));
    return word;
}

static inline void x87_set_word(uint8_t *p, uint16_t word)
{
    memcpy(p, &word, sizeof(word));
}

struct x87_pointers {
    uint64_t ip, data; /* offsets in their segments */
    uint16_t opcode;   /* the low bits of the first byte, and the second one: 11 bits */
};

/* From the image that x86_cpu.xsave is, and into it. */
struct x87_pointers x87_pointers_get(const uint8_t *xsave);
void x87_pointers_set(uint8_t *xsave, const struct x87_pointers *pointers);

/* Whether INSN becomes the last instruction. Those that control the x87 do not, nor do MMX's. */
bool x87_is_noted(const struct x86_insn *insn);
uint16_t x87_opcode(const struct x86_insn *insn);

/* What loading an image makes of FCW and FSW. */
void x87_settle(uint8_t *xsave);

#endif
