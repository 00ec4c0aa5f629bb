/*
 * The binary translator's own structures.
 *
 * The interpreter decodes guest code into blocks; one that runs often is translated, if it is
 * 64-bit code. Translated code keeps guest registers in their host namesakes, but for R10 and
 * R11, which stay in the vCPU between blocks and serve as scratch; a block that uses them trades
 * two others for them. RSP included: the host's stack is not used, and nothing but a fault could
 * push onto it. GS leads to the vCPU.
 *
 * At a block's boundaries the status flags are in vcpu.cc as far as anyone may read them. Within a
 * block they are in RFLAGS and are saved around what clobbers them, if they are live.
 *
 * What is not translated leaves the code with X86_RIP at the instruction (EXIT_ONE): the
 * interpreter executes that one and translated code goes on. A memory access that misses the
 * software TLB leaves with EXIT_FILL before anything of the instruction has happened, so state is
 * precise there too; after the fill it goes on at the access.
 */
#ifndef DOPPEL_CPU_BT_BT_H
#define DOPPEL_CPU_BT_BT_H

#include "cpu/bt/emit.h"
#include "cpu/interp/accelerate.h"

#include <signal.h>

#define BT_JUMP_BITS 12
#define BT_JUMPS     (1u << BT_JUMP_BITS)
#define BT_CODE_SIZE (48 * MiB)
#define BT_HEAT      24 /* executions by the interpreter before a block is translated */

/* Between blocks these are free. */
#define SCRATCH0 X86_R10
#define SCRATCH1 X86_R11

enum bt_exit {
    BT_NEXT, /* X86_RIP is set: look for its block */
    BT_LINK, /* the same for a branch within the page: offset says where, link can be patched */
    BT_ONE,  /* interpret one instruction, at offset */
    BT_FILL, /* the access at site needs its page entered into the software TLB */
};

/* A place in translated code that can be left in the middle. */
struct bt_site {
    uint32_t retry;  /* offset in the code of the access's check */
    uint16_t offset; /* of the instruction in its page */
    uint8_t size;
    bool write;
    uint8_t left; /* instructions of the block not executed, this one included */
};

/* What an instruction reads and writes. */
struct flow {
    uint32_t flags_in;   /* status flags read (or kept, where it writes only some) */
    uint32_t flags_out;  /* written for sure */
    uint32_t flags_may;  /* written perhaps */
    uint32_t live_after; /* read by someone later */
    uint16_t registers;  /* general-purpose, named or not; also in addresses */
};

/* A memory operand of the guest's. */
enum address_kind {
    ADDRESS_PLAIN,
    ADDRESS_RIP /* disp is from the page's start */,
    ADDRESS_FS,
    ADDRESS_GS
};
struct address {
    uint8_t base, index, scale; /* X86_NONE for no base or index; scale as a shift */
    uint8_t kind;
    int32_t disp;
};

/* Code that is jumped to rarely and stands behind the block. */
enum cold_kind { COLD_FILL, COLD_ONE, COLD_BRANCH, COLD_STALE };
#define COLDS 320
struct cold {
    uint8_t *jump; /* the displacement of the jump to it */
    enum cold_kind kind;
    struct address address; /* COLD_FILL */
    unsigned index;         /* of the instruction */
    unsigned size;
    bool write;
    const uint8_t *retry;
    int64_t target; /* COLD_BRANCH: from the page's start */
};

enum flags_place { FLAGS_MEMORY, FLAGS_HOST, FLAGS_BOTH };

/* One block under translation. */
struct translation {
    struct bt *bt;
    struct emitter e;
    const uint8_t *page;               /* the guest's */
    unsigned s0, s1;                   /* the scratch registers in this block */
    uint16_t vectors, vectors_written; /* vector registers held in the host's */
    bool ymm;                          /* with their upper halves */
    bool zeroes_upper;
    enum flags_place flags;
    unsigned count, i; /* instructions, and the present one */
    unsigned end;      /* offset in the page behind the last */
    unsigned colds;
    struct x86_insn insn[BLOCK_MAX];
    struct flow flow[BLOCK_MAX];
    uint16_t offset[BLOCK_MAX]; /* in the page */
    struct cold cold[COLDS];
};

struct bt_jump {
    uint64_t tag; /* RIP ^ bt.jump_key */
    const void *code;
};

/* The translator's part of a vCPU; translated code reaches it by GS. */
struct bt {
    struct vcpu c; /* first: GS and the interpreter point at it */

    uint64_t page;                    /* of the code that runs, a virtual address */
    uint64_t space;                   /* mmu.space, as wide as a register */
    uint64_t jump_key;                /* context, mode and address space, in bits 63:48 */
    const _Atomic uint32_t *requests; /* the port's */
    uint64_t address; /* BT_FILL: the access's; or where to go while registers are traded */
    uint64_t target;  /* of a branch, kept while the return address is pushed */
    uint64_t host_rsp;
    uint32_t offset; /* in the page, of where to go on */
    uint32_t site;   /* BT_FILL: index; BT_LINK: offset in the code of the branch to patch */
    uint32_t host_mxcsr;

    struct bt_jump jump[BT_JUMPS];

    uint8_t *write, *run; /* the same memory, to write and to execute */
    uint32_t used;
    struct bt_site *sites;
    struct translation work;
    uint32_t site_count;
    /* Made once: how to get in and the ways out. */
    int (*enter)(struct bt *bt, const void *code);
    uint32_t leave[4], lookup, first;

    uint64_t link_page; /* where to link from: the page, and the branch; 0: nowhere */
    uint32_t link_site;
    sigset_t signals; /* the thread's mask outside */
    uint32_t heat;    /* executions before a block is translated */
    bool full;        /* no room for another translation: forget all */
    uint8_t fp_trap;  /* what translations rely on */

    uint64_t translations, translated_instructions, links, fills, ones, lookups_missed, clears;
    uint64_t translate_ns;
};

#define BT_SITES (BT_CODE_SIZE / 64)

static inline struct bt *bt_of(struct vcpu *c)
{
    return (struct bt *)c;
}

/* live.c: flows of one instruction; liveness along COUNT of them, LIVE being live at the end,
 * returning what is live at the start; and what is live at OFFSET of PAGE, by a look at what stands
 * there. */
void flow_of(const struct x86_insn *insn, struct flow *flow);
uint32_t flow_liveness(struct flow *flows, unsigned count, uint32_t live);
uint32_t flow_peek(const uint8_t *page, unsigned offset);

/* code.c */
int bt_code_create(struct bt *bt, struct error *err);
void bt_code_destroy(struct bt *bt);
/* Emits the ways in and out; once, at the start of the code. */
void bt_emit_common(struct bt *bt);
/* Forgets all translations. */
void bt_clear(struct bt *bt);
void bt_clear_jumps(struct bt *bt);

/* translate.c: the code for B in the present context, or NULL if it cannot be (or, with *FULL, if
 * there is no room). LINEAR is where it is mapped. */
const void *bt_translate(struct bt *bt, const struct block *b, bool *full);

#endif
