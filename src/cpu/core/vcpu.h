/* clang-format off */
/*
 * The vCPU as all engines of this process know it, and what the vCPUs of one machine share.
 *
 * An arrow means "includes". Calls in the other direction go through the tables in executor.h.
 *
 *     engines.c          puts an engine together: the core, the interpreter, perhaps a translator
 *      |    |    |
 *      v    v    v
 *     bt/  ...  interp/  execute guest code: bt/ translates it; interp/ decodes it and executes one
 *      |         |       instruction at a time
 *      v         v
 *     core/              the vCPU, faults and their delivery, access to guest memory, code pages,
 *                        the run loop
 *
 * A fault leaves whatever runs by longjmp (fault.h); a function therefore changes nothing of the
 * architectural state before its last access that can fault.
 */
/* clang-format on */
#ifndef DOPPEL_CPU_CORE_VCPU_H
#define DOPPEL_CPU_CORE_VCPU_H

#include "base/counter.h"
#include "base/util.h"
#include "cpu/core/safepoint.h"
#include "cpu/engine.h"
#include "cpu/meter.h"
#include "cpu/mmu.h"
#include "x86/msr.h"

#include <setjmp.h>

/* Types of the interpreter, which the core only hands back to it: a decoded instruction (NULL where
 * there is none, as when an event is delivered), a run of them, and everything that a vCPU has
 * decoded. */
struct uop;
struct block;
struct block_cache;

/* How the interpreter's last block was left: by the first of its links, by the second, or
 * otherwise. */
enum { LINK_ON, LINK_TAKEN, NO_LINK };

struct accelerator; /* executor.h */
struct interpreter;

/* What is known of the code in a guest page; see code.h. */
struct code_page {
    _Atomic uint64_t lines;      /* a bit for each 64 bytes: code has been found there */
    _Atomic uint32_t generation; /* changes when one of them is written to */
    _Atomic uint32_t rewrites;   /* how often that happened lately; see code.c */
};

/* The mode in which code was decoded. */
#define MODE_16   0u
#define MODE_32   1u
#define MODE_64   2u
#define MODE_SIZE 3u
#define MODE_REAL 4u  /* real or virtual-8086 */
#define MODE_FLAT 8u  /* CS, DS, ES and SS span 4 GiB from 0, readable and writable; ESP is used */
#define MODE_STEP 16u /* one instruction only */

#define HISTORY 64

/* Pages of guest memory that have been taken away or have moved, in the order in which that
 * happened, for each vCPU to drop from its software TLB; see present.c. Written with the lock of
 * the safe point. */
#define STALE_NOTES 256
struct stale {
    _Atomic uint64_t posted; /* how many notes there have ever been */
    struct stale_note {
        uintptr_t first, last; /* bytes in the host; none if LAST is below FIRST */
        bool write_only;       /* entries for reading stay */
    } note[STALE_NOTES];
};

struct core {
    struct engine engine; /* first */
    const struct interpreter *interpreter;
    void *interpreter_shared;              /* what it has for all vCPUs */
    const struct accelerator *accelerator; /* or NULL */
    const void *accelerator_options;
    void *accelerator_shared;
    struct machine machine;
    struct x86_msrs msrs; /* that the machine's model has */
    struct safepoint safepoint;
    struct mem_listener listener;
    struct stale stale;
    struct code_page *code; /* by GPN; see code.h */
    uint64_t code_pages;
    /* Guest code writes to memory unseen, because the host's processor executes it as it is. So
     * decoded code is not kept, and CODE stays as it is. */
    bool writes_unseen;
    /* Local APICs of the accelerator's wake vCPUs, which it therefore runs while they are halted or
     * wait for start-up, too; it takes their interrupts. */
    bool wakes_inside;
    struct vcpu *vcpu[SAFEPOINT_MAX_CPUS];
};

struct event { /* an exception or interrupt about to be delivered */
    int vector;
    uint32_t error;
    bool has_error;
    bool software; /* raised by INT n, INT3 or INTO: the gate's DPL is checked, and RIP is behind
                      the instruction */
    bool external;
};

/* A piece of an operand in memory that lies within one page. */
struct span {
    uint8_t *host;      /* NULL: not RAM */
    const uint8_t *rom; /* of a write to ROM, which has no HOST: where it can be read */
    uint64_t gpa;
    unsigned size;
    bool in_place; /* HOST may be used after this access, too */
    bool cached;   /* its page is in the software TLB */
};

struct vcpu {
    struct x86_cpu x; /* status flags of x.rflags are stale; see cc */

    /* Status flags as LAHF and SETO leave them in AX: OF in bit 0; CF, PF, AF, ZF, SF in bits 8,
     * 10, 12, 14, 15. */
    uint16_t cc;
    uint8_t mode;   /* MODE_*, of the code segment */
    bool stepping;  /* instructions are executed one at a time: because of TF, RF, an interrupt
                       shadow or a breakpoint */
    bool repeating; /* a repeated string instruction is not finished */
    bool no_step;   /* the instruction under way has entered a handler: no single-step trap */
    bool single;    /* the next block is to be one instruction long */
    uint32_t interrupt_masked; /* an interrupt may have been pending when IF was last 0 */
    bool keep_rf;              /* the instruction under way loads RF (IRET, task switch) */
    bool holds_stop;           /* a locked access has stopped the other vCPUs; see locked_ptr */
    bool check_interrupt; /* an interrupt may be pending, held back by IF, a shadow or the TPR */
    uint8_t fp_trap;      /* FP_TRAP_*: why a floating-point instruction faults */
    uint8_t link;         /* which of block->link leads to the next block, or NO_LINK */
    uint64_t base[X86_SEGMENTS]; /* segment bases as 64-bit mode applies them, or x.seg[].base */
    uint8_t restricted[X86_SEGMENTS]; /* 1: not a writable data segment of 4 GiB */
    enum mmu_context context;         /* of data accesses */
    bool check_alignment;             /* #AC is on: CR0.AM, RFLAGS.AC and CPL 3 */
    bool watches_data;                /* a data breakpoint is armed */
    bool watches_code;                /* an instruction breakpoint is armed */
    uint64_t apic_page;               /* of the xAPIC's registers, or UINT64_MAX */
    const struct mmu_table *tlb;      /* of the current context */
    struct block *block;              /* under way in the interpreter, or NULL */
    struct counter instructions; /* executed; translated ones only if the machine is measured */
    bool limited; /* the run ends when INSTRUCTIONS has more than 32 bits; see core_run_for */

    struct core *core;
    struct mem *mem;
    struct bus *bus;
    struct cpu_port *port;
    struct block_cache *blocks;

    jmp_buf fault_exit;
    struct event fault;      /* what raise_* raised */
    int delivering;          /* vector under delivery, or -1 */
    bool delivered;          /* an event has been delivered; for EXIT_STEP */
    bool in_software;        /* INT n is being delivered: a fault is raised at it, */
    uint64_t software_start; /* at this address */
    uint32_t external; /* 1 while an event is delivered that INT n has not raised: bit EXT of error
                          codes */

    /* Pages of guest memory that are not present; see present.h. */
    struct mmu_absent absent; /* the one that the vCPU needs */
    struct mem_kept kept;     /* made present for the instruction under way */
    int memory_error;         /* FAULT_MEMORY: why one could not be */
    bool retry; /* the next instruction has waited for one, and is executed before anything else */
    uint64_t forgotten; /* how many of core.stale the vCPU has dropped */
    struct {            /* what a step took before its instruction; see begin_step */
        bool under_way, ss_shadow, interrupt_shadow, trap_pending;
        uint64_t pending_dr6;
    } step;

    /* A memory operand that cannot be used in place: its copy is in BOUNCE, where the *_ptr
     * functions put it. commit_ptr writes it back to the spans that write_ptr and rmw_ptr have
     * translated. */
    uint64_t bounce_va;
    struct span bounced[2];
    unsigned bounced_spans; /* 0: the operand was used in place */
    /* Where the operand of a locked access lies while holds_stop. */
    struct span locked[2];
    unsigned locked_spans;

    /* What a debugger outside of the guest wants, and what it has been told. */
    struct engine_debug debug;
    unsigned debug_met; /* the breakpoint met last */
    bool debug_hit;     /* the instruction under way has met one on data */
    bool debug_passed;  /* it has been told of the instruction at X86_RIP */

    uint64_t history[HISTORY]; /* RIP at the start of the last blocks */
    unsigned history_at;
    uint32_t clears; /* mmu.clears when the accelerator was last told of it */
    struct counter exits[CAUSE_COUNT], forgets[FORGET_COUNT];
    struct meter *meter;   /* or NULL */
    struct counter run_ns; /* time inside run() */
    unsigned pauses; /* PAUSEs since the last interrupt; now and then the thread yields its core */

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

#endif
