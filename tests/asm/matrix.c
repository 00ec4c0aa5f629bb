/*
 * Every kind of descriptor, privilege level of descriptor, selector and code, and presence, against
 * every way to use a selector: segment loads, far JMP and CALL, RETF, IRET, LAR, LSL, VERR, VERW.
 * What must come of it is modelled after the manual (SDM volume 3, 5.5 to 5.8; volume 2). Built for
 * 32-bit and 64-bit mode.
 */
#include "rt/rt.h"

enum { SLOT = SPARE, STACKS = SPARE + 16 }; /* stack segments for levels 0 to 3 */

enum use { LOAD_FS, LOAD_SS, JUMP, CALL, FAR_RETURN, INTERRUPT_RETURN, LAR, LSL, VERR, VERW, USES };
static const char *const use_name[] = {"MOV to FS", "MOV to SS", "far JMP", "far CALL", "RETF",
                                       "IRET",      "LAR",       "LSL",     "VERR",     "VERW"};

/* A case: the descriptor's type with S (bit 4), and the levels. */
struct query {
    unsigned type, dpl, rpl, cpl;
    bool present;
};

#define FINE NO_TRAP /* ran to its end; LAR and its kin: ZF set */
#define NO   1000ul  /* LAR and its kin: ZF clear */

static bool is_code(const struct query *q)
{
    return (q->type & 0x18) == 0x18;
}

static bool is_data(const struct query *q)
{
    return (q->type & 0x18) == 0x10;
}

static bool conforming(const struct query *q)
{
    return is_code(q) && q->type & 4;
}

static bool readable(const struct query *q)
{
    return is_data(q) || (is_code(q) && q->type & 2);
}

static bool writable(const struct query *q)
{
    return is_data(q) && q->type & 2;
}

static unsigned max(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

/* Whether data may be used from this level with this selector. */
static bool reachable(const struct query *q)
{
    return conforming(q) || q->dpl >= max(q->cpl, q->rpl);
}

static word load_model(const struct query *q, bool stack)
{
    if (stack) {
        if (q->rpl != q->cpl || !writable(q) || q->dpl != q->cpl)
            return GP;
        return q->present ? FINE : SS;
    }
    if (!readable(q) || !reachable(q))
        return GP;
    return q->present ? FINE : NP;
}

static word jump_model(const struct query *q)
{
    if (!is_code(q))
        return GP;
    if (conforming(q) ? q->dpl > q->cpl : q->rpl > q->cpl || q->dpl != q->cpl)
        return GP;
    return q->present ? FINE : NP;
}

static word return_model(const struct query *q)
{
    if (q->rpl < q->cpl || !is_code(q))
        return GP;
    if (conforming(q) ? q->dpl > q->rpl : q->dpl != q->rpl)
        return GP;
    return q->present ? FINE : NP;
}

static word ask_model(const struct query *q, enum use use)
{
#ifdef __x86_64__
    const unsigned for_lar = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12;
    const unsigned for_lsl = 1 << 2 | 1 << 9 | 1 << 11;
#else
    const unsigned for_lar =
        1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11 | 1 << 12;
    const unsigned for_lsl = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11;
#endif
    bool yes = false;
    bool segment = q->type & 0x10;
    switch (use) {
    case LAR: yes = segment || for_lar >> q->type & 1; break;
    case LSL: yes = segment || for_lsl >> q->type & 1; break;
    case VERR: yes = readable(q); break;
    default: yes = writable(q); break;
    }
    return yes && reachable(q) ? FINE : NO;
}

static word model(const struct query *q, enum use use)
{
    switch (use) {
    case LOAD_FS: return load_model(q, false);
    case LOAD_SS: return load_model(q, true);
    case JUMP:
    case CALL: return jump_model(q);
    case FAR_RETURN:
    case INTERRUPT_RETURN: return return_model(q);
    default: return ask_model(q, use);
    }
}

/* --- The uses, each at level 0 or 3 ----------------------------------------------------------- */

/* Where far transfers go: it gives up the processor at any level. */
asm("    .pushsection .user.text, \"ax\"\n"
    "landing: int $0x20\n"
    "    .popsection\n");
extern u8 landing[];

USER_DATA static struct {
    u32 offset;
    u16 selector;
} __attribute__((packed)) target = {0, 0};
USER_DATA static u8 outer_stack[256] __attribute__((aligned(16))) = {0};

#ifdef __x86_64__
#define WIDE "rex.w "
#else
#define WIDE ""
#endif

USER_CODE static word use_fs(word s)
{
    asm volatile(USER_AT "mov %w0, %%fs" : : "r"(s));
    return 0;
}

USER_CODE static word use_ss(word s)
{
    asm volatile("mov %%ss, %%ecx\n" USER_AT "mov %w0, %%ss; mov %%ecx, %%ss" : : "r"(s) : "ecx");
    return 0;
}

USER_CODE static word use_jump(word s)
{
    target.selector = (u16)s;
    asm volatile(USER_AT "ljmp *%0" : : "m"(target));
    return 0;
}

USER_CODE static word use_call(word s)
{
    target.selector = (u16)s;
    asm volatile(USER_AT "lcall *%0" : : "m"(target) : "memory");
    return 0;
}

USER_CODE static word use_return(word s)
{
    word sp = (word)(outer_stack + sizeof(outer_stack)), ss = STACKS + 8 * (s & 3) + (s & 3);
    asm volatile("push %0; push %1; push %2; push %3\n" USER_AT WIDE "lret"
                 :
                 : "r"(ss), "r"(sp), "r"(s), "r"((word)landing)
                 : "memory");
    return 0;
}

USER_CODE static word use_iret(word s)
{
    word sp = (word)(outer_stack + sizeof(outer_stack)), ss = STACKS + 8 * (s & 3) + (s & 3);
    asm volatile("push %0; push %1; pushf; push %2; push %3\n" USER_AT WIDE "iret"
                 :
                 : "r"(ss), "r"(sp), "r"(s), "r"((word)landing)
                 : "memory");
    return 0;
}

#define ASKING(name, text)                                                                         \
    USER_CODE static word name(word s)                                                             \
    {                                                                                              \
        bool yes;                                                                                  \
        asm volatile(text "; setz %0" : "=qm"(yes), "+r"(s) : : "eax", "cc");                      \
        return yes;                                                                                \
    }
ASKING(use_lar, "lar %1, %1")
ASKING(use_lsl, "lsl %1, %1")
ASKING(use_verr, "verr %w1")
ASKING(use_verw, "verw %w1")

static word (*const action[])(word) = {use_fs,   use_ss,  use_jump, use_call, use_return,
                                       use_iret, use_lar, use_lsl,  use_verr, use_verw};

static word outcome(const struct query *q, enum use use, word selector, word *error)
{
    static volatile word answer;
    const struct trap *t;
    if (q->cpl == 3) {
        t = user(action[use], selector);
        answer = t->f.ax;
    } else {
        rt_user_at = 0;
        t = TRAP(answer = action[use](selector));
    }
    *error = t->f.error;
    if (t->f.vector != NO_TRAP && t->f.vector != VECTOR_DONE)
        return t->f.vector;
    return use >= LAR && !answer ? NO : FINE;
}

static void try_all(enum use use, unsigned cpl)
{
    unsigned wrong = 0, cases = 0;
    for (unsigned n = 0; n < 32 * 4 * 4 * 2; n++) {
        struct query q = {.type = n & 31,
                          .dpl = n >> 5 & 3,
                          .rpl = n >> 7 & 3,
                          .present = n >> 9 & 1,
                          .cpl = cpl};
        bool system_transfer = !(q.type & 0x10) && (use == JUMP || use == CALL);
        bool gate_or_task = 1 << (q.type & 15) & (1 << 1 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 12);
        if (system_transfer && gate_or_task)
            continue; /* has tests of its own */
        u32 width = is_code(&q) && sizeof(word) == 8 ? SEG_LONG : SEG_BIG;
        u32 attr = q.type | q.dpl << 5 | (q.present ? SEG_P : 0) | width | SEG_PAGES;
        rt_gdt[SLOT / 8] = descriptor(0, 0xFFFFF, attr);
        word selector = SLOT | q.rpl, error = 0;
        word wanted = model(&q, use), got = outcome(&q, use, selector, &error);
        bool faulted = got != FINE && got != NO;
        cases++;
        if (got == wanted && (!faulted || error == SLOT))
            continue;
        if (!wrong++)
            print("# type %x DPL %u RPL %u P %d: %ld error %lx, wanted %ld\n", q.type, q.dpl, q.rpl,
                  q.present, got, error, wanted);
    }
    if (use == LAR || use == LSL)
        tcg_differs("16-bit types are taken in long mode");
    check(!wrong, "%s at level %u, %u cases", use_name[use], cpl, cases);
}

void test(void)
{
    target.offset = (u32)(word)landing;
    for (unsigned level = 0; level < 4; level++)
        rt_gdt[STACKS / 8 + level] =
            descriptor(0, 0xFFFFF, SEG_DATA | level << 5 | SEG_BIG | SEG_PAGES);
    for (enum use use = LOAD_FS; use < USES; use++) {
        try_all(use, 0);
        try_all(use, 3);
    }
}
