/*
 * The interpreter's own structures: the vCPU, the decoded instruction (uop) and the block.
 *
 * Guest code is decoded into blocks: runs of instructions within one guest page that end at the
 * first branch. A block is an array of uops, each with the function that executes it:
 *
 *     do
 *         op = op->fn(c, op);
 *     while (op);
 *
 * A handler returns the next uop, or NULL at the end of the block after setting X86_RIP. While a
 * block runs, X86_RIP holds the address of its first instruction, so that RIP-relative operands are
 * just a base register, and a block serves every virtual address its page is mapped at.
 *
 * A fault leaves a handler by longjmp (raise_*); a handler therefore changes nothing of the
 * architectural state before its last access that can fault.
 */
#ifndef DOPPEL_CPU_CORE_VCPU_H
#define DOPPEL_CPU_CORE_VCPU_H

#include "base/util.h"
#include "cpu/engine.h"
#include "cpu/interp/thunk.h"
#include "cpu/meter.h"
#include "cpu/mmu.h"
#include "cpu/core/safepoint.h"
#include "x86/insn.h"
#include "x86/msr.h"

#include <setjmp.h>

struct uop;
typedef const struct uop *uop_fn(struct vcpu *c, const struct uop *op);

/* How an effective address is formed. */
enum ea_kind {
    EA_64,   /* 64-bit mode and address size */
    EA_FLAT, /* 32-bit address size, flat segment: no check but for the wrap at 4 GiB */
    EA_SLOW, /* everything else: ea_slow */
    EA_NONE, /* the operand is a register */
};

struct uop {
    uop_fn *fn;
    int64_t disp;
    uint64_t imm;        /* immediate; branch: target relative to the block; thunk: the function */
    uint8_t dst, src;    /* byte offsets into x86_cpu.reg, so that AH is 1 */
    uint8_t base, index; /* register numbers, or X86_NONE or X86_RIP */
    uint8_t scale;       /* as a shift */
    uint8_t seg;         /* enum x86_segment of the memory operand */
    uint8_t ea;          /* enum ea_kind */
    uint8_t asize;       /* address size in bytes: 2, 4, 8 */
    uint8_t osize;       /* operand size in bytes */
    uint8_t len;         /* of the instruction */
    uint8_t aux;         /* the handler's own: condition, segment number, REP prefix, ... */
    uint8_t
        number;   /* of the instruction in its block; operands may be made up in copies of a uop */
    uint16_t off; /* of the instruction from the block's start */
    uint16_t mnemonic;
};

/* What the decode caches of all vCPUs know about a guest page, so that whoever writes to it can
 * invalidate them: which 64-byte lines were decoded, and a count that blocks remember. */
struct code_page {
    _Atomic uint64_t lines;
    _Atomic uint32_t generation;
    _Atomic uint32_t rewrites; /* how often lately; see block.c */
};

/* The mode in which code was decoded. */
#define MODE_16   0u
#define MODE_32   1u
#define MODE_64   2u
#define MODE_SIZE 3u
#define MODE_REAL 4u  /* real or virtual-8086 */
#define MODE_FLAT 8u  /* CS, DS, ES and SS span 4 GiB from 0, readable and writable; ESP is used */
#define MODE_STEP 16u /* one instruction only */

struct block {
    struct code_page *page;
    uint64_t gpa;
    struct block *hash_next;
    struct block *link[2]; /* successors within the page, once known */
    uint32_t heat;         /* an accelerator's: executions until it acts; 0: it knows nothing yet */
    uint32_t generation;   /* of the page when decoded */
    uint16_t count;        /* instructions */
    uint16_t uops;         /* and one to go on with, where no branch ends the block */
    uint16_t bytes;
    uint8_t mode;
    bool cached; /* in the cache proper: its bytes lie in one page of RAM */
    struct uop op[];
};

#define BLOCK_MAX 64

/* Where the block that starts at a linear address was found last. */
struct jump_entry {
    uint64_t linear;
    uint64_t key; /* mode, privilege and address space; see block.c */
    struct block *block;
};
#define JUMP_GROUP_BITS 6 /* entries of one page lie together */
#define JUMP_BITS       12

#define HISTORY 64

struct accelerator; /* accelerate.h */

struct core {
    const struct accelerator *accelerator; /* or NULL */
    const void *accelerator_options;
    void *accelerator_shared; /* what it has for all vCPUs */
    struct machine machine;
    struct x86_msrs msrs; /* that the machine's model has */
    struct thunk_cache *thunks;
    struct safepoint safepoint;
    struct code_page *code; /* by GPN */
    uint64_t code_pages;
    size_t arena_size;            /* of each vCPU's decoded blocks, in bytes */
    uint64_t epoch_tsc, epoch_ns; /* one moment by both clocks, without TSC_ADJUST */
    struct vcpu *vcpu[SAFEPOINT_MAX_CPUS];
};

struct event { /* an exception or interrupt about to be delivered */
    int vector;
    uint32_t error;
    bool has_error;
    bool software; /* INT n, INT3, INTO: DPL is checked, the return address is past it */
    bool external;
};

struct block_cache; /* block.c */

/* A piece of an operand in memory that lies within one page. */
struct span {
    uint8_t *host; /* NULL: not RAM */
    uint64_t gpa;
    unsigned size;
    bool in_place; /* host may be used for longer than this access */
    bool cached;   /* it is in the software TLB */
};

struct vcpu {
    struct x86_cpu x; /* status flags of x.rflags are stale; see cc */

    /* Status flags as LAHF and SETO leave them in AX: OF in bit 0; CF, PF, AF, ZF, SF in bits 8,
     * 10, 12, 14, 15. */
    uint16_t cc;
    uint8_t mode;   /* MODE_*, of the code segment */
    bool stepping;  /* one instruction at a time: TF, RF, an interrupt shadow, a breakpoint */
    bool repeating; /* a repeated string instruction will go on */
    bool ss_shadow; /* the last instruction loaded SS: debug traps wait, too */
    bool no_step;   /* the instruction under way hands over to a handler: no single-step trap */
    bool single;    /* the next block is to be one instruction long */
    uint32_t interrupt_masked;    /* one may have been waiting when IF was last found 0 */
    bool keep_rf;                 /* the instruction under way loads RF (IRET, task switch) */
    bool holds_stop;              /* a locked access has stopped the other vCPUs; see locked_ptr */
    bool check_interrupt;         /* an interrupt may be waiting for IF, a shadow or the TPR */
    uint8_t fp_trap;              /* FP_TRAP_*: why a floating-point instruction faults */
    uint8_t link;                 /* which of block->link leads on; 2: none */
    uint64_t base[X86_SEGMENTS];  /* segment bases as 64-bit mode applies them, or x.seg[].base */
    uint8_t narrow[X86_SEGMENTS]; /* 1: not writable data of 4 GiB */
    enum mmu_context context;     /* of data accesses */
    bool check_alignment;         /* #AC is on: CR0.AM, RFLAGS.AC and CPL 3 */
    bool watches_data;            /* a data breakpoint is armed */
    bool watches_code;            /* an instruction breakpoint is armed */
    uint64_t apic_page;           /* of the xAPIC's registers, or UINT64_MAX */
    const struct mmu_table *tlb;  /* of the current context */
    struct block *block;
    uint64_t instructions;
    bool limited; /* run until there are more than 32 bits of them; see interp_run_for */

    struct core *core;
    struct mem *mem;
    struct bus *bus;
    struct cpu_port *port;
    struct block_cache *blocks;

    jmp_buf fault_exit;
    struct event fault;      /* what raise_* raised */
    uint64_t pending_dr6;    /* data and I/O breakpoints met by the instruction under way */
    bool trap_pending;       /* #DB trap after the instruction, DR6 bits in pending_dr6 */
    int delivering;          /* vector under delivery, or -1 */
    bool in_software;        /* INT n is being delivered: a fault belongs to it, */
    uint64_t software_start; /* at this address */
    uint32_t external;       /* 1 while delivering what no INT n asked for: EXT in error codes */

    /* A memory operand that cannot be used in place (bounce): filled by the *_ptr functions,
     * written back by commit_ptr. */
    uint64_t bounce_va;
    unsigned bounce_size; /* 0: the operand was used in place */
    /* Where the operand of a locked access lies while holds_stop. */
    struct span locked[2];
    unsigned locked_spans;

    uint64_t history[HISTORY]; /* RIP at the start of the last blocks */
    unsigned history_at;
    uint32_t clears; /* mmu.clears, as the accelerator knows it */
    uint64_t exits[CAUSE_COUNT], forgets[FORGET_COUNT];
    struct meter *meter; /* or NULL */
    uint64_t run_ns;
    unsigned pauses; /* PAUSEs since the last interrupt, to give the core away now and then */

    _Alignas(64) uint8_t bounce[192];
    struct mmu mmu;
};

/* --- Registers and flags ------------------------------------------------------------------- */

#define REG8(c, off)  (*((uint8_t *)(c)->x.reg + (off)))
#define REG16(c, off) (*(uint16_t *)((uint8_t *)(c)->x.reg + (off)))
#define REG32(c, off) (*(uint32_t *)((uint8_t *)(c)->x.reg + (off)))
#define REG64(c, off) (*(uint64_t *)((uint8_t *)(c)->x.reg + (off)))

/* Writes a register as an instruction of that operand size does; 32 bits clear the upper half. */
static inline void set_reg(struct vcpu *c, unsigned off, unsigned size, uint64_t value)
{
    if (size == 8)
        REG64(c, off) = value;
    else if (size == 4)
        REG64(c, off) = (uint32_t)value;
    else if (size == 2)
        REG16(c, off) = (uint16_t)value;
    else
        REG8(c, off) = (uint8_t)value;
}

static inline uint64_t get_reg(const struct vcpu *c, unsigned off, unsigned size)
{
    if (size == 8)
        return REG64(c, off);
    if (size == 4)
        return REG32(c, off);
    if (size == 2)
        return REG16(c, off);
    return REG8(c, off);
}

#define CC_OF 0x0001u
#define CC_CF 0x0100u
#define CC_PF 0x0400u
#define CC_AF 0x1000u
#define CC_ZF 0x4000u
#define CC_SF 0x8000u

static inline uint64_t flags_get(const struct vcpu *c)
{
    return (c->x.rflags & ~(uint64_t)X86_FLAGS_STATUS) | (c->cc >> 8 & 0xD5) |
           (uint64_t)(c->cc & CC_OF) << 11;
}

static inline void flags_set_status(struct vcpu *c, uint64_t rflags)
{
    c->cc = (uint16_t)((rflags & 0xD5) << 8 | (rflags >> 11 & 1));
}

static inline bool in_64(const struct vcpu *c)
{
    return (c->mode & MODE_SIZE) == MODE_64;
}

static inline bool is_canonical(uint64_t va)
{
    return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

static inline unsigned cpl(const struct vcpu *c)
{
    return x86_cpl(&c->x);
}

static inline bool in_v86(const struct vcpu *c)
{
    return c->x.rflags & X86_FLAG_VM;
}

static inline bool in_real(const struct vcpu *c)
{
    return !(c->x.cr0 & X86_CR0_PE);
}

static inline bool in_long_mode(const struct vcpu *c)
{
    return c->x.efer & X86_EFER_LMA;
}

static inline unsigned iopl(const struct vcpu *c)
{
    return (c->x.rflags & X86_FLAG_IOPL) >> 12;
}

/* The linear address of X86_RIP, which may not be canonical. */
static inline uint64_t code_address(const struct vcpu *c)
{
    uint64_t rip = c->x.reg[X86_RIP];

    return in_64(c) ? rip : (uint32_t)(c->x.seg[X86_CS].base + rip);
}

/* The address of the instruction after OP (offset in CS). */
static inline uint64_t next_rip(const struct vcpu *c, const struct uop *op)
{
    return c->x.reg[X86_RIP] + op->off + op->len;
}

/* The address of OP itself, or of what X86_RIP names already. */
static inline uint64_t rip_of(const struct vcpu *c, const struct uop *op)
{
    return c->x.reg[X86_RIP] + (op && c->block ? op->off : 0);
}

/* Ends the block after OP, going on with the next instruction. */
const struct uop *end_block(struct vcpu *c, const struct uop *op);

/* --- run.c ---------------------------------------------------------------------------------- */

/* Raise a fault at OP: RIP points at it. OP NULL: X86_RIP is right already. */
_Noreturn void raise_fault(struct vcpu *c, const struct uop *op, int vector);
_Noreturn void raise_error(struct vcpu *c, const struct uop *op, int vector, uint32_t error);
_Noreturn void raise_page_fault(struct vcpu *c, const struct uop *op, uint64_t va, uint32_t error);

/* Leaves OP, of which nothing has happened yet, as a fault does, and has it executed again as a
 * single step: it concerns a breakpoint. */
_Noreturn void restart_as_step(struct vcpu *c, const struct uop *op);

static inline void require_cpl0(struct vcpu *c, const struct uop *op)
{
    if (cpl(c) != 0)
        raise_error(c, op, X86_GP, 0);
}

/* UMIP: user code may not read where system structures are. */
static inline void check_umip(struct vcpu *c, const struct uop *op)
{
    if ((c->x.cr4 & X86_CR4_UMIP) && cpl(c) > 0)
        raise_error(c, op, X86_GP, 0);
}

/* After changes that derived state depends on: segments, control registers, CPL, RFLAGS. */
void update_mode(struct vcpu *c);     /* CS, CR0, EFER, RFLAGS.VM, segment bases and limits */
void update_context(struct vcpu *c);  /* CPL, CR4.SMAP, RFLAGS.AC, address space */
void update_fp_trap(struct vcpu *c);  /* CR0, CR4, XCR0 */
void update_stepping(struct vcpu *c); /* RFLAGS.TF, DR7, interrupt shadow */
/* All translations, those of global pages, too. */
void flush_translations(struct vcpu *c);
/* RFLAGS as a whole, with all that follows. */
void flags_set(struct vcpu *c, uint64_t rflags);

/* --- block.c -------------------------------------------------------------------------------- */

/* ARENA_SIZE: bytes for decoded blocks; the cache starts over when they are used up. */
struct block_cache *block_cache_create(size_t arena_size, struct error *err);
void block_cache_destroy(struct block_cache *cache);
/* The block at the current RIP, decoded if need be. Raises what fetching raises. */
struct block *block_find(struct vcpu *c);
/* The block to run after c->block, by its links if it has them. */
struct block *block_next(struct vcpu *c);
/* The same if a link leads to it, else NULL. */
struct block *block_linked(const struct vcpu *c);
/* Forgets where blocks of the page at LINEAR were found (INVLPG); LARGE: of any page. */
void block_flush_page(struct vcpu *c, uint64_t linear, bool large);
/* Ends the block now running after the present instruction if that has made it stale. Other vCPUs'
 * blocks run out: a processor too sees another's changes of code only when it serializes. */
void block_check(struct vcpu *c);
uint64_t block_decoded(const struct block_cache *cache);
uint64_t block_invalidated(const struct block_cache *cache);
/* Tells all decode caches that [GPA, GPA + SIZE) was written; whether any was affected. SELF: the
 * vCPU that wrote, or NULL. */
bool code_written(struct core *e, const struct vcpu *self, uint64_t gpa, uint64_t size);
/* Makes room for thunks: all vCPUs forget theirs, with all that they have decoded. */
void block_renew_thunks(struct vcpu *c);

/* --- select.c ------------------------------------------------------------------------------- */

/* Chooses the handler and fills in the rest of OP, whose off and len are set. Returns true when the
 * instruction ends a block. */
bool select_uop(struct vcpu *c, const struct x86_insn *insn, unsigned mode, struct uop *op);

/* --- deliver.c ------------------------------------------------------------------------------ */

/* Delivers an exception or interrupt through the IVT or IDT; may raise in turn. RIP is the
 * return address. */
void deliver(struct vcpu *c, const struct event *event);

#endif
