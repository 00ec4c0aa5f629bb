/*
 * The binary translator's own structures.
 *
 * The interpreter decodes guest code into blocks; where one runs often, its region is translated
 * (region.c), if it is 64-bit code or 32-bit code with flat segments. The latter becomes 64-bit
 * code whose addresses are cut to 32 bits, whatever the upper halves of its registers hold.
 * Translated code keeps guest registers in their host namesakes, but for R10 and R11, which stay in
 * the vCPU between regions and serve as scratch; a region that uses them trades two others for
 * them. RSP included: the host's stack is not used, and nothing but a fault could push onto it. GS
 * leads to the vCPU, FS to the software TLB's present table.
 *
 * At a region's boundaries the status flags are in vcpu.cc as far as anyone may read them. Within
 * it they are in RFLAGS and are saved around what clobbers them, if they are live.
 *
 * Vector registers, MXCSR and the x87's registers stay in memory until a region that uses them is
 * entered: it finds them absent and leaves with BT_LOAD. From then on they are in the host's, until
 * control goes to C again. They are loaded only when their instructions can raise nothing but page
 * faults and the like: neither #NM nor #UD, and all floating-point exceptions masked. So what
 * changes that must never be translated without a check that it stays so.
 *
 * What is not translated leaves the code with X86_RIP at the instruction (BT_ONE): the interpreter
 * executes that one and translated code goes on. A memory access that misses the software TLB
 * leaves with BT_FILL before anything of the instruction has happened, so state is precise there
 * too; after the fill it goes on at the access.
 */
#ifndef DOPPEL_CPU_BT_BT_H
#define DOPPEL_CPU_BT_BT_H

#include "cpu/bt/emit.h"
#include "cpu/bt/switches.h"
#include "cpu/core/executor.h"
#include "x86/x87.h"

#include <signal.h>

#define BT_NEVER          UINT32_MAX /* heat of a block that cannot be translated */
#define BT_CODE_SIZE      (96 * MiB)
#define BT_HEAT           12 /* executions by the interpreter before a block is translated */
#define BT_HEAT_DOUBLINGS 5  /* of that, at most */
#define BT_INLINE         16 /* exits of a site before its handler is inlined, which costs as much */

/* Between blocks these are free. */
#define SCRATCH0 X86_R10
#define SCRATCH1 X86_R11

enum bt_exit {
    BT_NEXT,   /* X86_RIP is set: look for its block */
    BT_BRANCH, /* the same after a RET or JMP whose target may be none */
    BT_LINK,   /* the same for a branch within the page: offset says where, link can be patched */
    BT_ONE,    /* interpret one instruction, at offset */
    BT_FILL,   /* the access at site needs its page, which both levels of the software TLB miss */
    BT_LOAD,   /* the region entered at site needs register files */
    BT_NARROW, /* like BT_LINK, to code whose checks are for one access each */
    BT_EXITS
};

/* Register files that are loaded when they are needed. */
enum { BT_SSE = 1, BT_AVX = 2, BT_X87 = 4, BT_FILES = 7 };

/* All exceptions masked. */
#define MXCSR_MASKS 0x1F80u
#define FCW_MASKS   0x3Fu

/* A place in translated code that can be left in the middle. */
struct bt_site {
    uint64_t gpa;    /* BT_ONE: of the instruction */
    uint32_t retry;  /* offset in the code of the access's check */
    uint16_t offset; /* of the instruction in its page */
    uint16_t next;   /* BT_ONE: of the one behind it, where retry goes on */
    uint8_t size;
    bool write;
    uint8_t left;  /* instructions of the block not executed, this one included */
    uint8_t files; /* that the code from retry on needs */
    /* BT_ONE: the jump to patch once the handler is inlined, 0: it is not to be; exits so far. */
    _Atomic uint32_t link, exits;
};

/* What an instruction reads and writes. */
struct flow {
    uint32_t flags_in;   /* status flags read */
    uint32_t flags_out;  /* written for sure */
    uint32_t flags_may;  /* written perhaps */
    uint32_t live_after; /* read by someone later */
    uint16_t registers;  /* general-purpose, named or not; also in addresses */
    uint16_t written;    /* of these */
};

/* A memory operand of the guest's. */
struct address {
    uint8_t base, index, scale; /* X86_NONE for no base or index; scale as a shift */
    uint8_t segment;            /* X86_FS, X86_GS, or X86_DS for those without a base */
    bool rip;                   /* no base: disp is from the page's start */
    bool made;                  /* nor anything else: the linear address is in vcpu.target */
    int32_t disp;
};

/* A page that has been looked up: addresses from LOW up to HIGH, counted from the value that the
 * registers have now. Its addend, with the segment's base, is in vcpu.addend or still in s1. In
 * 32-bit code, where sums of registers may wrap between two accesses, it is the host's address of
 * LOW, in a register. */
struct known {
    struct address a;
    int64_t low, high; /* LOW = HIGH: nothing */
    bool write, saved;
};
#define KNOWN_MAX 8

/* Registers that 32-bit code has no use for. While it runs, the guest's are in the vCPU. */
#define KNOWN_REGISTERS 6
static const uint8_t known_registers[KNOWN_REGISTERS] = {X86_R8,  X86_R9,  X86_R12,
                                                         X86_R13, X86_R14, X86_R15};

/* A run of instructions that is entered at its first one only; from within the region or, through
 * an entrance of its own, from outside. */
struct part {
    uint16_t first, count; /* instructions of the region */
    uint16_t start, end;   /* offsets in the page */
    uint32_t live;         /* flags live at its start; they are in RFLAGS then */
    bool inherits;         /* what is known: only the part before leads here, by going on */
    const uint8_t *code;   /* where it was emitted, or NULL */
};

/* Code that is jumped to rarely and stands behind the region, or a jump to a part that has no
 * code yet. */
enum cold_kind { COLD_FILL, COLD_ONE, COLD_BRANCH, COLD_STALE, COLD_PART, COLD_LOAD };
#define COLDS (REGION_MAX * 8)
struct cold {
    uint8_t *jump; /* the displacement of the jump to it */
    enum cold_kind kind;
    struct address address; /* COLD_FILL */
    uint16_t index;         /* of the instruction */
    uint8_t size;
    bool write;
    const uint8_t *retry;
    uint8_t left;      /* instructions of the part not executed, this one included */
    int64_t target;    /* COLD_BRANCH: from the page's start; COLD_PART: the part */
    int64_t low, high; /* COLD_FILL: what was asked for */
};

enum flags_place { FLAGS_MEMORY, FLAGS_HOST, FLAGS_BOTH };

/* What is translated at once: code that the first instruction leads to within its page. */
#define REGION_MAX 128
#define PARTS_MAX  REGION_MAX
struct translation {
    struct bt *bt;
    struct bt_cache *cache;
    struct emitter e;
    uint64_t gpa;        /* of the first instruction */
    uint32_t generation; /* of its page */
    const uint8_t *page; /* the guest's */
    bool wide;           /* 64-bit code; else 32-bit code */
    unsigned s0, s1;     /* the scratch registers */
    uint16_t registers;  /* that the region names */
    uint8_t files;       /* that it needs */
    bool narrow;         /* no check is for more than one access */
    bool again;          /* the first instruction's handler is inlined now */
    struct known known[KNOWN_MAX];
    const struct known *held; /* HELD: its addend is in s1 */
    unsigned next_known;
    bool x87_page; /* the part has stored its page as that of the last x87 instruction */
    bool keeps_s1; /* the present instruction uses s1 for nothing but its checks */
    enum flags_place flags;
    unsigned count, i; /* instructions, and the present one */
    unsigned parts;
    const struct part *now; /* the part under way */
    unsigned colds;
    uint16_t index[MEM_PAGE_SIZE]; /* 1 + instruction at an offset; or AHEAD | flags live there */
    uint16_t leader[REGION_MAX];   /* 1 + part that the instruction starts */
    bool joined[REGION_MAX];       /* by more ways than one, or from outside */
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

#define AHEAD 0x8000u /* no region's count and no status flag */

/* Where translated code can be entered, by the start of a part. */
struct bt_entry {
    uint64_t key;              /* bt_key */
    uint32_t generation;       /* of the page, when translated */
    _Atomic uint32_t entrance; /* offset of the code that enters from outside; 0: not made */
    uint32_t inside;           /* offset of the part's own code */
    uint16_t live;             /* flags that the part wants in RFLAGS */
    uint8_t files;             /* from here on: as in struct translation */
    uint8_t s0, s1;
};

#define BT_KEY_NARROW (1u << 14) /* in jump_key: 32-bit code runs */

/* Stands in front of code that is entered from outside: how far it is to where links lead, past
 * the check of its age, and to where those lead that come with the same registers traded; what
 * those must have; and the page whose code it is, which is the only one to link from. */
struct bt_front {
    uint32_t page; /* guest physical, cut to 32 bits */
    uint8_t checked, traded;
    uint8_t s0, s1;
    uint8_t files;
};

/* Stands behind a branch that may be linked: the page whose code it is; and, if it has traded
 * registers, how far in front of it another is that has not yet done so, or 0. */
struct bt_behind {
    uint32_t page;
    uint8_t untraded;
    uint8_t s0, s1;
    uint8_t files;
};

struct bt_jump {
    uint64_t rip;
    uint32_t key;  /* bt.jump_key when it was entered; 0: empty */
    uint32_t code; /* offset in the cache */
};
#define BT_JUMP_PLACES 16384u
#define BT_JUMP_WAYS   2u
#define BT_JUMP_GRAIN  8u /* bytes of code that have a place in common */

#define BT_STOPS   64
#define BT_SITES   (BT_CODE_SIZE / 64)
#define BT_ENTRIES (BT_CODE_SIZE / 256)

/* Entries, and a table for each page of guest memory that has some: see entries.c. */
struct bt_entries {
    struct bt_entry *entry; /* the first one is none */
    uint32_t count;
    uint64_t pages;
    _Atomic uint32_t *table_of; /* by GPN: where in WORDS its table is; 0: it has none */
    uint32_t *words;            /* the tables */
    uint32_t words_used;
    uint32_t free[32]; /* tables that nothing leads to, by the bits of their size */
    bool words_full;
};

/* What is translated; all vCPUs of a machine have it in common. */
struct bt_cache {
    struct bt_switches switches;
    bool measure;         /* the machine is */
    _Atomic bool busy;    /* someone changes it: all below but tables of entries and entrances */
    uint8_t *write, *run; /* the same memory, to write and to execute */
    uint32_t used;
    struct bt_site *sites;
    uint32_t site_count;
    struct bt_entries entries;
    uint64_t stop[BT_STOPS]; /* stops.c */
    _Atomic unsigned stop_count;
    /* Made once: how to get in and the ways out. */
    void (*enter)(struct bt *bt, const void *code);
    uint32_t leave[BT_EXITS], first;
    uint32_t fill[2]; /* on from a miss of the software TLB; by whether it is for writing */
    uint32_t lookup, lookup_branch; /* on at the address in SCRATCH0; see emit_lookup */
    struct translation work;
};

/* The translator's part of a vCPU; translated code reaches it by GS. */
struct bt {
    struct vcpu c; /* first: GS and the interpreter point at it */

    uint64_t page;                    /* of the code that runs, a virtual address */
    uint64_t jump_key;                /* level, code size and address space; not 0 */
    uint64_t level_key[2];            /* what it is for a supervisor, and for a user */
    const _Atomic uint32_t *requests; /* the port's */
    uint64_t address; /* BT_FILL: the access's; or where to go while registers are traded */
    uint64_t target;  /* of a branch, kept while the return address is pushed; see address.made */
    struct {
        uint64_t from, to;      /* the operands, in the host */
        uint64_t rsi, rdi, rcx; /* the guest's, behind the present run */
    } string;
    /* While the x87's registers are loaded: the page of its last instruction, the offset there, and
     * what else there is of pointers. */
    struct {
        uint64_t page;
        uint32_t offset;
        struct x87_pointers others;
    } x87;
    uint64_t frame;             /* IRETQ's, in the host */
    uint64_t tsc_offset;        /* guest TSC = host TSC + this + IA32_TSC_ADJUST */
    uint64_t addend[KNOWN_MAX]; /* or, out of 32-bit code, its known_registers */
    uint64_t host_rsp, host_fs;
    uint64_t spilled[2]; /* registers, while the second level is searched */
    uint64_t lines;      /* where code_page.lines would be of the page at host address 0 */
    uint32_t offset;     /* in the page, of where to go on */
    uint32_t site;       /* BT_FILL, BT_ONE: index; BT_LINK: the branch to patch; or BT_NO_SITE */
    uint32_t exit;       /* enum bt_exit */
    uint32_t host_mxcsr;
    uint8_t absent; /* of BT_FILES: not in the host's registers while translated code runs */

    const uint8_t *run; /* the cache's */
    const struct bt_site *sites;
    uint32_t branch; /* the last RET or JMP: offset in the page, and << 12 what it has popped */
    struct bt_jump jump[BT_JUMP_PLACES][BT_JUMP_WAYS];
    uint64_t jump_pages[64]; /* which pages it may have addresses of; hashed */

    struct bt_cache *cache;
    uint64_t losses;    /* how often code has gone, or may not be run any more */
    uint64_t unmaps;    /* how often where code is mapped has changed */
    uint64_t drops;     /* how often decoded blocks have gone */
    uint64_t link_page; /* where to link from: the page, and the branch; 0: nowhere */
    uint32_t link_site;
    bool narrow;      /* what is to be found next: code with narrow checks */
    uint64_t signals; /* the thread's mask outside */
    stack_t outer_stack;
    uint8_t signal_stack[64 * KiB];
    uint64_t scratch_seed;
    bool full; /* no room for another translation: forget all */

    struct counter translations, translated_instructions, links, fills, evictions;
    struct counter retranslations; /* of what left too often: with more of it inlined */
    struct counter checks; /* of the software TLB by translated code, if the machine is measured */
    struct counter translate_ns; /* of the processor, not of the clock on the wall; if measured */
};

#define BT_NO_SITE UINT32_MAX

static inline struct bt *bt_of(struct vcpu *c)
{
    return (struct bt *)c;
}

/* live.c: what INSN by itself does; and what is live at OFFSET of PAGE, which holds code of this
 * size for a processor with FEATURE, by a look at the next PEEK_BYTES there. */
#define PEEK_BYTES 32
void flow_of(const struct x86_insn *insn, struct flow *flow);
uint32_t flow_peek(const bool *feature, const uint8_t *page, unsigned offset,
                   enum x86_code_size size);

static inline enum x86_code_size code_size(const struct translation *t)
{
    return t->wide ? X86_CODE64 : X86_CODE32;
}

/* cache.c */
struct bt_cache *bt_cache_create(const struct core *e, struct error *err);
void bt_cache_destroy(struct bt_cache *cache);
/* For the exclusive right to add to the cache. False: another vCPU has it, and may keep it while it
 * waits for this one to reach a safe point, so do something else. */
bool bt_cache_try(struct bt_cache *cache);
void bt_cache_release(struct bt_cache *cache);
/* Forgets all translations. With the exclusive right, at a safe point. */
void bt_cache_clear(struct bt_cache *cache);

/* entries.c: zeroed memory that takes no room until it is touched; NULL: there is none. */
void *bt_reserve(size_t size);
/* Of zeroed memory. False: there is not enough. */
bool bt_entries_create(struct bt_entries *entries, uint64_t pages);
void bt_entries_destroy(struct bt_entries *entries);
void bt_entries_clear(struct bt_entries *entries);
/* Whether the entries of one more translation may not fit. */
bool bt_entries_full(const struct bt_entries *entries);
/* Whether any code of GPA's page has been translated since it last changed. */
bool bt_page_is_live(const struct bt *bt, uint64_t gpa);
/* What is translated of the code at GPA in the present context, and still valid; or NULL. It stays
 * where it is until the next safe point. */
struct bt_entry *bt_entry_find(const struct bt *bt, uint64_t gpa);
/* Announces a part that has been translated. ENTRANCE: if it has one already. */
void bt_entry_add(struct translation *t, const struct part *p, const uint8_t *entrance);

/* What the translation of a guest physical address depends on. */
#define BT_KEY_GPA ((1ULL << 60) - 1)
static inline uint64_t bt_key(const struct bt *bt, uint64_t gpa)
{
    return gpa | (uint64_t)(bt->c.context == MMU_USER) << 60 | (uint64_t)in_64(&bt->c) << 61 |
           (uint64_t)bt->narrow << 62;
}

static inline const _Atomic uint32_t *bt_generation(const struct bt *bt, uint64_t gpa)
{
    return &bt->c.core->code[gpa >> MEM_PAGE_SHIFT].generation;
}

/* region.c: finds the region that starts at T->gpa, and what is live where. False when it is not
 * worth translating. */
bool region_find(struct translation *t);
/* Whether a branch of 32-bit code cuts its target to 16 bits. */
static inline bool cuts_target(const struct translation *t, const struct x86_insn *insn)
{
    return !t->wide && insn->z.operand_width == 16;
}

/* The part that starts at OFFSET, or NULL. */
struct part *region_part(struct translation *t, int64_t offset);

/* stops.c. Whether translations end in front of the instruction at GPA. */
bool bt_is_stop(const struct bt_cache *cache, uint64_t gpa);
/* Makes them do so. Returns false if it cannot now; then no translated code of the page may be
 * entered. */
bool bt_stop_at(struct bt *bt, uint64_t gpa);

/* code.c: emits the ways in and out; once, at the start of the code. */
void bt_emit_common(struct bt_cache *cache);
/* second.c: emits what goes on at a miss of the software TLB's first level. The access's address is
 * in vcpu.address and its site in vcpu.site; the scratch registers are free. */
void bt_emit_second(struct bt_cache *cache, struct emitter *e, bool write);

/* jumps.c: the code at RIP in the present context, if the table knows it, or NULL; enters it;
 * forgets it, all, and all of a page. */
const void *bt_jump_find(struct bt *bt, uint64_t rip);
void bt_jump_add(struct bt *bt, uint64_t rip, const void *code);
void bt_jump_forget(struct bt *bt, uint64_t rip);
void bt_jumps_clear(struct bt *bt);
void bt_jumps_clear_page(struct bt *bt, uint64_t linear);

/* translate.c: translates the code at GPA, decoded when its page had this GENERATION, for the
 * present context. NULL if it cannot be or, with bt.full, if there is no room. With the exclusive
 * right; may let other vCPUs run. */
const void *bt_translate(struct bt *bt, uint64_t gpa, uint32_t generation);
/* The same, anew from a site on that exits often. */
const void *bt_translate_again(struct bt *bt, uint64_t gpa, uint32_t generation);
/* Makes the code that enters at ENTRY from outside; the same holds. */
const void *bt_entrance_add(struct bt *bt, struct bt_entry *entry);

#endif
