/*
 * The binary translator's own structures.
 *
 * The interpreter decodes guest code into blocks. Where a block has run often, the translator
 * translates the code that it leads to within its page: a region (region.c). It takes 64-bit code,
 * and 32-bit code with flat segments; that becomes 64-bit code whose addresses are cut to 32 bits,
 * whatever the upper halves of its registers hold.
 *
 *      other region                region
 *     +------------+   link   +----------------+  jump table  +-----------+
 *     |     branch-+--------->| entrance       |<-------------+ any code, |
 *     +------------+          |  part 0        |              | other page|
 *                             |  part 1 --+    |              +-----------+
 *                             |  part 2 <-+    |
 *                             +----------------+
 *                             | cold code      +--> exit point: BT_FILL, BT_ONE, BT_LOAD
 *                             +----------------+
 *
 * A part is entered at its first instruction only: from within its region, or from outside by an
 * entrance, which checks whether the guest's code is still what was translated, loads what the
 * region wants in registers and is made when it is first needed. A link is a branch that has been
 * patched to go straight to an entrance of the same page, past its check.
 *
 * Guest registers are in the host's registers of the same name, RSP included: translated code uses
 * no host stack, and only a fault of its own could push onto it. R10 and R11 are scratch registers;
 * the guest's are in the vCPU between regions. A region whose code uses R10 or R11 trades two other
 * registers, which its code does not use, for them at its edges. GS leads to the vCPU, FS to the
 * software TLB's present table.
 *
 * At a region's edges the status flags are in vcpu.cc, as far as any code may read them. Within a
 * region they are in RFLAGS, and live ones are saved before an instruction of the translator's own
 * overwrites them.
 *
 * Vector registers, MXCSR and the x87's registers stay in memory until a region that uses them is
 * entered: the region finds them absent and leaves with BT_LOAD. From then on they are in the
 * host's registers until control returns to C. The translator loads them only while their
 * instructions can raise nothing of their own: neither #NM nor #UD, and all floating-point
 * exceptions masked. So an instruction that can change this is translated only with a check that it
 * does not.
 *
 * An instruction that is not translated leaves the code with BT_ONE and X86_RIP at the instruction;
 * the interpreter executes it, and translated code goes on behind it. A memory access that misses
 * the software TLB leaves with BT_FILL before its instruction has done anything, so the guest's
 * state is precise there; after the page has been entered, translated code goes on at the access.
 */
#ifndef DOPPEL_CPU_BT_BT_H
#define DOPPEL_CPU_BT_BT_H

#include "cpu/bt/emit.h"
#include "cpu/bt/switches.h"
#include "cpu/core/code_memory.h"
#include "cpu/core/executor.h"
#include "x86/x87.h"

#include <signal.h>

#define BT_NEVER      UINT32_MAX /* heat of a block that cannot be translated */
#define BT_CODE_SIZE  (96 * MiB)
#define BT_CODE_LEAST (128 * KiB) /* any translation fits in; without it no machine begins */
/* How often the interpreter executes a block before it is translated; and how often that number is
 * doubled, at most, for code that is rewritten. */
#define BT_HEAT           12
#define BT_HEAT_DOUBLINGS 5
/* Exits at a point before the instruction's handler is inlined. That many exits cost about as much
 * as translating the handler. */
#define BT_INLINE 16

/* Code between regions does not use these; see above. */
#define SCRATCH0 X86_R10
#define SCRATCH1 X86_R11

/* Why translated code was left. */
enum bt_exit {
    BT_NEXT,        /* X86_RIP is set, and no translated code is known there */
    BT_BRANCH,      /* like BT_NEXT, after a RET or JMP; X86_RIP may not be canonical */
    BT_LINK,        /* a branch to bt.offset in the page; bt.exit_point says where to patch it */
    BT_ONE,         /* the interpreter is to execute the instruction at bt.offset */
    BT_FILL,        /* both levels of the software TLB miss the page of the access at exit_point */
    BT_LOAD,        /* the region entered at exit_point needs register files */
    BT_LINK_SINGLE, /* like BT_LINK, to code where no check serves several accesses */
    BT_EXITS
};

/* Register files that are loaded when they are needed. */
enum { BT_SSE = 1, BT_AVX = 2, BT_X87 = 4, BT_FILES = 7 };

/* All exceptions masked. */
#define MXCSR_MASKS 0x1F80u
#define FCW_MASKS   0x3Fu

/* A point at which translated code can be left in the middle of a part. */
struct bt_exit_point {
    uint64_t gpa;    /* BT_ONE: of the instruction */
    uint32_t retry;  /* where translated code goes on after the exit: offset in the cache */
    uint16_t offset; /* of the instruction in its page */
    uint16_t next;   /* BT_ONE: of the next instruction, which RETRY leads to */
    uint8_t size;    /* BT_FILL: of the access */
    bool write;      /* BT_FILL */
    uint8_t left;    /* instructions of the part not executed, this one included */
    uint8_t files;   /* that the code from RETRY on needs */
    /* BT_ONE: the jump to patch once the handler is inlined; 0: the handler is not to be inlined.
     * And how often the code has been left here. */
    _Atomic uint32_t link, exits;
};

/* What an instruction reads and writes, and what is live behind it. */
struct flow {
    uint32_t flags_in;  /* status flags that it reads */
    uint32_t flags_out; /* status flags that it always writes */
    uint32_t flags_may; /* status flags that it may write */
    uint32_t
        live_after;     /* status flags that a later instruction reads before another writes them */
    uint16_t registers; /* general-purpose registers, named or implicit; also in addresses */
    uint16_t written;   /* those of REGISTERS that it writes */
};

/* A memory operand of the guest's. */
struct address {
    uint8_t base, index, scale; /* X86_NONE for no base or index; scale as a shift */
    uint8_t segment;            /* X86_FS, X86_GS, or X86_DS for those without a base */
    bool rip;                   /* relative to RIP: no base, and disp is from the page's start */
    bool computed;              /* none of these: the linear address is in bt.temporary */
    int32_t disp;
};

/* What a check of the software TLB has found: addresses from LOW up to HIGH, counted from the value
 * that the registers of A have now, lie in one page that may be accessed. The page's addend, with
 * the segment's base, is in bt.addend or still in s1. In 32-bit code, where a sum of registers may
 * wrap between two accesses, it is the host's address of LOW, in a register. */
struct range {
    struct address a;
    int64_t low, high; /* LOW = HIGH: nothing */
    bool write;        /* the page may be written, too */
    bool saved;        /* the addend is in bt.addend */
};
#define RANGES_MAX 8

/* Registers that 32-bit code does not have. While it runs, the guest's are in the vCPU. */
#define RANGE_REGISTERS 6
static const uint8_t range_registers[RANGE_REGISTERS] = {X86_R8,  X86_R9,  X86_R12,
                                                         X86_R13, X86_R14, X86_R15};

/* Instructions of a region that are entered at the first one only. */
struct part {
    uint16_t first, count; /* instructions of the region */
    uint16_t start, end;   /* offsets in the page */
    uint32_t live;         /* flags live at its start; they are in RFLAGS then */
    bool only_from_before; /* it is reached only from the end of the part before: that one's ranges
                              still hold */
    bool after_call;       /* a call returns to it */
    const uint8_t *code;   /* where it was emitted, or NULL */
};

/* A jump that is rarely taken, to code behind the region; or a jump to a part that has no code yet.
 */
enum cold_kind { COLD_FILL, COLD_ONE, COLD_BRANCH, COLD_STALE, COLD_PART, COLD_LOAD };
#define COLDS (REGION_MAX * 8)
struct cold {
    uint8_t *jump; /* the displacement of the jump */
    enum cold_kind kind;
    struct address address; /* COLD_FILL */
    uint16_t index;         /* of the instruction */
    uint8_t size;
    bool write;
    const uint8_t *retry;
    uint8_t left;      /* instructions of the part not executed, this one included */
    int64_t target;    /* COLD_BRANCH: from the page's start; COLD_PART: the part */
    int64_t low, high; /* COLD_FILL: the range that was checked */
};

/* Where the guest's status flags are: in vcpu.cc, in RFLAGS, or in both. */
enum flags_place { FLAGS_MEMORY, FLAGS_HOST, FLAGS_BOTH };

/* A region while it is translated. */
#define REGION_MAX 128
#define PARTS_MAX  REGION_MAX
struct translation {
    struct bt *bt;
    struct bt_cache *cache;
    struct emitter e;
    uint64_t gpa;        /* of the first instruction */
    uint32_t generation; /* of its page */
    const uint8_t *page; /* the guest's */
    bool code64;         /* else 32-bit code */
    unsigned s0, s1;     /* the scratch registers */
    uint16_t registers;  /* that the region's code uses */
    uint8_t files;       /* that it needs */
    bool single_checks;  /* no check serves several accesses */
    bool again;          /* the first instruction's handler is inlined this time */
    struct range range[RANGES_MAX];
    const struct range *in_s1; /* the one whose addend is in s1, or NULL */
    unsigned next_range;       /* the place in RANGE that is taken next */
    bool x87_page; /* the part has stored its page as that of the last x87 instruction */
    bool keeps_s1; /* the present instruction uses s1 for nothing but its checks */
    enum flags_place flags;
    unsigned count, i; /* instructions, and the present one */
    unsigned parts;
    const struct part *now; /* the part under way */
    bool goes_on;           /* its code ends without a jump: control goes on in the next part */
    unsigned colds;
    uint16_t index[MEM_PAGE_SIZE];  /* 1 + instruction at an offset; or AHEAD | flags live there */
    uint16_t leader[REGION_MAX];    /* 1 + part that the instruction starts */
    bool other_ways_in[REGION_MAX]; /* it is reached not only from the instruction before it */
    bool after_call[REGION_MAX];
    struct {
        unsigned insn; /* 1 + the one instruction that ends in the next page; 0: none */
        uint64_t gpa;  /* of that page */
        uint32_t generation;
    } beyond;
    struct part part[PARTS_MAX];
    struct flow flow[REGION_MAX];
    uint16_t offset[REGION_MAX]; /* in the page */
    struct x86_insn insn[REGION_MAX];
    struct cold cold[COLDS];
};

#define AHEAD 0x8000u /* no number of an instruction, and no flag, has this bit */

/* A part that has been translated; see entries.c. */
struct bt_entry {
    uint64_t id;               /* bt_code_id */
    uint32_t generation;       /* of the page, when translated */
    _Atomic uint32_t entrance; /* offset in the cache of its entrance; 0: not made yet */
    uint32_t inside;           /* offset of the part's own code */
    uint16_t live;             /* flags that the part wants in RFLAGS */
    uint8_t files;             /* these three are as in struct translation */
    uint8_t s0, s1;
};

#define JUMP_VIEW_USER   (1u << 12) /* in jump_view: at level 3, */
#define JUMP_VIEW_CODE32 (1u << 14) /* and 32-bit code runs */

/* Data in front of an entrance, for the branches that are linked to it. */
struct bt_front {
    uint32_t page;   /* guest physical, cut to 32 bits: only branches of this page are linked */
    uint8_t checked; /* how many bytes behind the entrance a link leads to, past the check of the
                        code's age, */
    uint8_t traded;  /* and to which if the branch's region has traded the same registers */
    uint8_t s0, s1;
    uint8_t files;
};

/* Data behind a branch that may be linked. */
struct bt_behind {
    uint32_t page;    /* guest physical, cut to 32 bits */
    uint8_t untraded; /* how far in front of it another branch is that stands before the trade of
                       * registers; 0: nothing is traded */
    uint8_t s0, s1;
    uint8_t files;
};

/* An entry of the jump table's first level; see jumps.c. */
struct bt_jump {
    uint64_t rip;
    uint32_t view; /* bt.jump_view when it was entered; 0: empty */
    uint32_t code; /* offset in the cache */
};
#define BT_JUMP_PLACES 16384u
#define BT_JUMP_WAYS   2u
#define BT_JUMP_GRAIN  8u    /* bytes of guest code that share a place */
#define BT_JUMP_PAGES  4096u /* hashes of pages */

/* An entry of its second level. */
struct bt_second_jump {
    uint64_t id;   /* bt_second_jump_id; 0: empty */
    uint32_t code; /* offset in the cache */
};
#define BT_SECOND_JUMP_BITS   15
#define BT_SECOND_JUMP_FACTOR 0x9E3779B1u /* spreads the addresses over the places */

#define BT_STOPS       64
#define BT_EXIT_POINTS (BT_CODE_SIZE / 64)
#define BT_ENTRIES     (BT_CODE_SIZE / 256)

/* Entries, and a table for each page of guest memory that has some: see entries.c. */
struct bt_entries {
    struct bt_entry *entry; /* number 0 is not used */
    uint32_t count;
    uint64_t pages;
    _Atomic uint32_t *table_of; /* by GPN: where in WORDS its table is; 0: it has none */
    uint32_t *words;            /* the tables */
    uint32_t words_used;
    uint32_t free[32]; /* tables that are not used now, by the bits of their size */
    bool words_full;
};

/* What is translated; all vCPUs of a machine share it. */
struct bt_cache {
    struct bt_switches switches;
    bool measure;      /* the machine is measured */
    _Atomic bool busy; /* a vCPU changes what follows, but for tables of entries, entrances */
    struct code_memory memory;
    uint8_t *write, *run; /* it, to write and to execute */
    uint32_t used;
    struct bt_exit_point *exit_points;
    uint32_t exit_points_used;
    struct bt_entries entries;
    uint64_t stop[BT_STOPS]; /* guest physical addresses; see stops.c */
    _Atomic unsigned stop_count;
    /* Code that is made once (code.c): the way in, and, as offsets, the ways out. */
    void (*enter)(struct bt *bt, const void *code);
    uint32_t leave[BT_EXITS];
    uint32_t first;   /* where translations begin */
    uint32_t fill[2]; /* goes on from a miss of the software TLB; by whether it is for writing */
    uint32_t lookup, lookup_branch; /* go on at the address in SCRATCH0; see bt_emit_lookup */
    struct translation work;
};

/* The translator's part of a vCPU; translated code reaches it by GS. */
struct bt {
    struct vcpu c; /* first: GS and the core point at it */

    uint64_t page; /* of the code that runs, a virtual address */
    /* What decides which code an address means: level, code size and address space; not 0. And what
     * that is for a supervisor, and for a user. */
    uint64_t jump_view, level_view[2];
    const _Atomic uint32_t *requests; /* the port's */
    uint64_t address;   /* BT_FILL: the access's; or where to go while registers are traded */
    uint64_t temporary; /* a value or address within one instruction; see address.computed */
    struct {
        uint64_t from, to;      /* host addresses of the operands */
        uint64_t rsi, rdi, rcx; /* the guest's after the present run */
    } string;
    /* While the x87's registers are loaded: the page of its last instruction, the offset there, and
     * the other pointers. */
    struct {
        uint64_t page;
        uint32_t offset;
        struct x87_pointers others;
    } x87;
    uint64_t frame;              /* host address of IRETQ's frame */
    uint64_t tsc_offset;         /* guest TSC = host TSC + this + IA32_TSC_ADJUST */
    uint64_t addend[RANGES_MAX]; /* or, outside of 32-bit code, what range_registers have held */
    uint64_t host_rsp, host_fs;
    uint64_t spilled[2]; /* registers, while the second level is searched */
    uint64_t lines;      /* where code_page.lines of the page at host address 0 would be */
    uint32_t offset;     /* in the page, of where to go on */
    /* BT_FILL, BT_ONE, BT_LOAD: number of the exit point. BT_LINK: offset in the cache of the
     * branch to patch, or 0. BT_NO_EXIT_POINT: none; of BT_LINK: the code is out of date. */
    uint32_t exit_point;
    uint32_t exit; /* enum bt_exit */
    uint32_t host_mxcsr;
    uint8_t absent; /* of BT_FILES: not in the host's registers while translated code runs */

    const uint8_t *run; /* the cache's */
    const struct bt_exit_point *exit_points;
    uint32_t branch; /* the last RET or JMP: offset in the page, and << 12 the bytes it popped */
    struct bt_jump jump[BT_JUMP_PLACES][BT_JUMP_WAYS];
    /* A bit for each hash of a page of which the first level may have addresses. */
    uint32_t jump_pages[BT_JUMP_PAGES / 32];
    struct bt_second_jump second_jump[1u << BT_SECOND_JUMP_BITS];

    struct bt_cache *cache;
    uint64_t losses;    /* counts the times that translated code was forgotten, or may no longer be
                           entered */
    uint64_t unmaps;    /* counts the changes of where code is, or pages are in the host */
    uint64_t drops;     /* counts the times that decoded blocks were forgotten */
    uint64_t link_page; /* virtual address of the page whose code was left by BT_LINK, */
    uint32_t link_branch_at; /* and offset in the cache of the branch to link; 0: none */
    bool single_checks;      /* the vCPU looks for code where no check serves several accesses */
    uint64_t signals;        /* the thread's mask while translated code does not run */
    stack_t outer_stack;
    uint8_t signal_stack[64 * KiB];
    uint64_t scratch_seed;
    bool full; /* there is no room for another translation: all must be forgotten */

    struct counter translations, translated_instructions, links, fills, evictions;
    struct counter retranslations; /* translations made anew, with more inlined, because they were
                                      left too often */
    struct counter
        checks; /* searches of the software TLB by translated code, if the machine is measured */
    struct counter translate_ns; /* processor time; if the machine is measured */
};

#define BT_NO_EXIT_POINT UINT32_MAX

static inline struct bt *bt_of(struct vcpu *c)
{
    return (struct bt *)c;
}

/* --- live.c ----------------------------------------------------------------------------------- */

/* Sets *FLOW to what INSN by itself reads and writes. */
void flow_of(const struct x86_insn *insn, struct flow *flow);
/* Returns the flags that are live at OFFSET of PAGE, which holds code of this size for a processor
 * with FEATURE, as far as the next PEEK_BYTES bytes of code say; all others count as live. */
#define PEEK_BYTES 32
uint32_t flow_peek(const bool *feature, const uint8_t *page, unsigned offset,
                   enum x86_code_size size);

static inline enum x86_code_size code_size(const struct translation *t)
{
    return t->code64 ? X86_CODE64 : X86_CODE32;
}

/* --- cache.c ---------------------------------------------------------------------------------- */

struct bt_cache *bt_cache_create(const struct core *e, struct error *err);
void bt_cache_destroy(struct bt_cache *cache);
/* Takes the exclusive right to add to the cache. Returns false if another vCPU has it. That vCPU
 * may be waiting for the caller to reach a safe point, so the caller must not wait for the right.
 */
bool bt_cache_try(struct bt_cache *cache);
void bt_cache_release(struct bt_cache *cache);
/* Forgets all translations. With the exclusive right, at a safe point. */
void bt_cache_clear(struct bt_cache *cache);

/* --- entries.c -------------------------------------------------------------------------------- */

/* Returns zeroed memory that takes no room until it is touched, or NULL. */
void *bt_reserve(size_t size);
/* ENTRIES is zeroed. Returns false if there is not enough memory. */
bool bt_entries_create(struct bt_entries *entries, uint64_t pages);
void bt_entries_destroy(struct bt_entries *entries);
void bt_entries_clear(struct bt_entries *entries);
/* Whether the entries of one more translation may not fit. */
bool bt_entries_full(const struct bt_entries *entries);
/* Returns the entry of a valid translation of the code at GPA for the present context, or NULL. It
 * stays where it is until the next safe point. */
struct bt_entry *bt_entry_find(const struct bt *bt, uint64_t gpa);
/* Makes the part P, which has been translated, one that bt_entry_find finds. ENTRANCE: its
 * entrance, or NULL if that is not made yet. */
void bt_entry_add(struct translation *t, const struct part *p, const uint8_t *entrance);

/* The address of guest code, and in the upper bits what else its translation depends on. */
#define BT_CODE_ID_GPA ((1ULL << 60) - 1)
static inline uint64_t bt_code_id(const struct bt *bt, uint64_t gpa)
{
    return gpa | (uint64_t)(bt->c.context == MMU_USER) << 60 | (uint64_t)in_64(&bt->c) << 61 |
           (uint64_t)bt->single_checks << 62;
}

static inline const _Atomic uint32_t *bt_generation(const struct bt *bt, uint64_t gpa)
{
    return &bt->c.core->code[gpa >> MEM_PAGE_SHIFT].generation;
}

/* --- region.c --------------------------------------------------------------------------------- */

/* Finds the region that starts at T->gpa, and which flags are live where. Returns false if it is
 * not worth translating. */
bool region_find(struct translation *t);
/* Whether a branch of 32-bit code cuts its target to 16 bits. */
static inline bool cuts_target(const struct translation *t, const struct x86_insn *insn)
{
    return !t->code64 && insn->z.operand_width == 16;
}

/* Returns the part that starts at OFFSET, or NULL. */
struct part *region_part(struct translation *t, int64_t offset);

/* --- stops.c ---------------------------------------------------------------------------------- */

/* Whether translations end in front of the instruction at GPA. */
bool bt_is_stop(const struct bt_cache *cache, uint64_t gpa);
/* Makes them end there. Returns false if it cannot do so now; then no translated code of the page
 * may be entered. */
bool bt_stop_at(struct bt *bt, uint64_t gpa);

/* --- code.c, lookup.c, second.c --------------------------------------------------------------- */

/* Emits the way in and the ways out; once, at the start of the cache. */
void bt_emit_common(struct bt_cache *cache);
/* Emits a jump to the code for the virtual address in SCRATCH0, if the jump table has it and no
 * request is pending; WHY: how to leave otherwise. */
void bt_emit_lookup(struct bt_cache *cache, struct emitter *e, enum bt_exit why);
/* Emits what translated code does when an access misses the software TLB's first level. The
 * access's address is in bt.address and its exit point in bt.exit_point; the scratch registers are
 * free. */
void bt_emit_second(struct bt_cache *cache, struct emitter *e, bool write);

/* --- jumps.c ---------------------------------------------------------------------------------- */

/* Returns what finds the code at GPA in the second level, while VIEW is bt.jump_view: the address,
 * and all of the view but the address space. */
static inline uint64_t bt_second_jump_id(uint64_t view, uint64_t gpa)
{
    return gpa | view >> 12 << 60;
}

/* Returns the code that the first level has for RIP in the present context, or NULL. */
const void *bt_jump_find(struct bt *bt, uint64_t rip);
/* Enters CODE into the first level for RIP, and for GPA, to which RIP is mapped, into the second.
 */
void bt_jump_add(struct bt *bt, uint64_t rip, uint64_t gpa, const void *code);
/* Forgets where the code for RIP is. */
void bt_jump_forget(struct bt *bt, uint64_t rip);
/* Forget everything that the first level has, and what it has of the page at LINEAR. */
void bt_jumps_clear(struct bt *bt);
void bt_jumps_clear_page(struct bt *bt, uint64_t linear);
/* Forgets everything in both levels. */
void bt_jumps_clear_all(struct bt *bt);

/* --- translate.c: these three with the exclusive right; they may let other vCPUs run -----------
 */

/* Translates the code at GPA, which was decoded when its page had this GENERATION, for the present
 * context. Returns NULL if it cannot be translated or, with bt.full, if there is no room. */
const void *bt_translate(struct bt *bt, uint64_t gpa, uint32_t generation);
/* Does the same for an instruction at which the code is often left: this time its handler is
 * inlined. */
const void *bt_translate_again(struct bt *bt, uint64_t gpa, uint32_t generation);
/* Makes the entrance of ENTRY's part. Returns NULL in the same cases. */
const void *bt_entrance_add(struct bt *bt, struct bt_entry *entry);

#endif
