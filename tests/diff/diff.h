/*
 * The differential test against silicon: instruction sequences run natively on the host and in an
 * engine from the same state, and everything a program can see afterwards must be the same.
 *
 *   forms.c     every instruction form that decodes, from walking the opcode maps
 *   generate.c  one case from (seed, number): bytes, registers, memory
 *   sequence.c  cases of many instructions
 *   steer.c     makes operands point at memory that is there (or deliberately not)
 *   cases*      cases written by hand
 *   segments.c  the segments of code that is not 64-bit
 *   native.c    runs a case on the host's processor
 *   engine.c    runs a case as CPL 3 code of a tiny guest, under any engine
 *   mask.c      what may differ, by name, with the manual's reference
 *   compare.c   finds and prints differences
 */
#ifndef DOPPEL_TESTS_DIFF_H
#define DOPPEL_TESTS_DIFF_H

#include "x86/cpu.h"
#include "x86/cpuid.h"
#include "x86/insn.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Memory: a window of pages, seen at two addresses (one that 32-bit code reaches, one above
 * 4 GiB), so that aliases are exercised too. What is not listed is absent.
 */
#define DIFF_LOW   0x10000000ULL
#define DIFF_HIGH  0x300010000000ULL
#define DIFF_PAGES 15u
#define DIFF_SIZE  (DIFF_PAGES * 4096u)

enum { DIFF_R = 1, DIFF_W = 2, DIFF_X = 4 };

#define DIFF_CODE     0x1000u /* 2 pages, read and execute */
#define DIFF_CODE_RWX 0x4000u /* 2 pages, writable too: self-modifying code */
#define DIFF_DATA     0x7000u /* 2 pages */
#define DIFF_READONLY 0x9000u /* 1 page */
#define DIFF_DATA2    0xA000u /* 1 page; the next is absent */
#define DIFF_STACK    0xC000u /* 2 pages between absent ones */

/* Access rights of page I of the window, 0 when it is absent. */
static inline unsigned diff_page_access(unsigned i)
{
    static const uint8_t access[DIFF_PAGES] = {
        [1] = DIFF_R | DIFF_X,
        [2] = DIFF_R | DIFF_X,
        [4] = DIFF_R | DIFF_W | DIFF_X,
        [5] = DIFF_R | DIFF_W | DIFF_X,
        [7] = DIFF_R | DIFF_W,
        [8] = DIFF_R | DIFF_W,
        [9] = DIFF_R,
        [10] = DIFF_R | DIFF_W,
        [12] = DIFF_R | DIFF_W,
        [13] = DIFF_R | DIFF_W,
    };

    return access[i];
}

/* The selectors Linux gives to user code; the guest's GDT has the same. */
#define DIFF_CS64 0x33
#define DIFF_CS32 0x23
#define DIFF_DS   0x2B
/* And an LDT of our own; its segments begin at DIFF_LOW, most end with the window. */
struct diff_segment {
    uint16_t selector;
    uint16_t attr; /* as in struct x86_seg */
    uint32_t base, limit;
};
#define DIFF_CS16       0x07
#define DIFF_DS16       0x0F
#define DIFF_DOWN       0x17 /* expand-down: from DIFF_DATA to 4 GiB */
#define DIFF_DS_READ    0x1F /* read-only, up to 1 MiB */
#define DIFF_CS_EXECUTE 0x27 /* 32-bit code that cannot be read */
#define DIFF_ABSENT     0x2F
#define DIFF_DS32       0x37
#define DIFF_LDT        7
#define DIFF_LIMIT      (DIFF_SIZE - 1)
extern const struct diff_segment diff_ldt[DIFF_LDT];

/* What a program can see of the processor. Segment selectors are in enum x86_segment's order. */
struct diff_state {
    uint64_t gpr[X86_GPRS];
    uint64_t rip, rflags;
    uint64_t fs_base, gs_base;
    uint16_t selector[X86_SEGMENTS];
    _Alignas(64) uint8_t xsave[X86_XSAVE_SIZE];
};

struct diff_case {
    uint64_t number;
    const char *name; /* of a case written by hand, else NULL */
    enum x86_code_size code_size;
    unsigned size; /* bytes of code at in.rip; what follows is INT3 */
    /* The instruction, where the case is a single one. */
    bool single;
    struct x86_insn insn;
    struct diff_state in;
    uint8_t image[DIFF_SIZE];
};

/* segments.c */
/* The one with SELECTOR, one of those that cases start with; otherwise flat data. */
const struct diff_segment *diff_find_segment(uint16_t selector);
uint64_t diff_segment_base(const struct diff_case *c, enum x86_segment segment);
bool diff_small_stack(const struct diff_case *c); /* only SP counts */
uint64_t diff_stack_linear(const struct diff_case *c, uint64_t rsp);
/* Where in the window the instruction at IP is; DIFF_SIZE or more: not in it. */
uint64_t diff_code_offset(const struct diff_case *c, uint64_t ip);

/* How a case ended: with an exception, always. */
struct diff_result {
    bool timeout;
    bool translated; /* by an engine that translates */
    bool emulated;   /* by a KVM that emulates */
    int vector;      /* -1: the engine left guest code in another way */
    uint64_t error, cr2;
    struct diff_state out;
    uint8_t image[DIFF_SIZE];
};

/* What runs cases. */
struct executor {
    const char *name;
    void (*run)(void *opaque, const struct diff_case *c, struct diff_result *r);
    void *opaque;
};

/* native.c: one per process. TICK is called every 50 ms of processor time while no case runs
 * natively, from a signal handler. */
struct native;
struct native *native_create(void (*tick)(void *), void *tick_opaque);
void native_destroy(struct native *native);
void native_run(void *native, const struct diff_case *c, struct diff_result *r);

/* Puts the parts of the XSAVE image that are in their initial configuration (XSTATE_BV) in the
 * form they have when saved, and clears what has no meaning, so that images compare bytewise. */
void diff_normalize_xsave(uint8_t *xsave);

/* Random numbers, repeatable. */
struct rng {
    uint64_t state;
};
uint64_t rng_next(struct rng *rng);
static inline uint64_t rng_below(struct rng *rng, uint64_t n)
{
    return (rng_next(rng) >> 11) % n;
}
static inline bool rng_percent(struct rng *rng, unsigned percent)
{
    return rng_below(rng, 100) < percent;
}

#endif
