/*
 * What changes in the middle of the code that uses it: page tables, CR3, CR4 and CR0, AC, segment
 * bases, and the register that addresses are made of. Each test is a loop, so that a translator has
 * it all in one piece and could know an address from the access before (SDM volume 3, 4.6, 4.10).
 */
#include "rt/paging.h"
#include "rt/rt.h"

#define BASE    0x40000000ul /* two pages that are not neighbours in memory */
#define TOP     (-PAGE)      /* the last page there is */
#define NOTHING 0xD0000000   /* an address without RAM, in the device hole of a PC with 64 MiB */
#define TURNS   300ul

static struct space space[2];
static u8 *page[4];
static volatile u64 *pte; /* of BASE in space 0 */

static u64 entry_for(unsigned n, u64 bits)
{
    return (word)page[n] | PT_P | PT_W | bits;
}

/* The value in page N, which is everywhere in it. */
static u64 value_in(unsigned n)
{
    return *(volatile u64 *)page[n];
}

/* --- Invalidation ---------------------------------------------------------------------------- */

/* Reads at BASE while BASE goes from page 0 to page 1 and back; FORGET is how the processor learns
 * of it. */
#define ALTERNATE(name, bits, forget)                                                              \
    do {                                                                                           \
        word sum = 0, count = TURNS;                                                               \
        *pte = entry_for(0, bits);                                                                 \
        write_cr3(read_cr3());                                                                     \
        invlpg((void *)BASE);                                                                      \
        asm volatile("1: add (%[va]), %[sum]\n"                                                    \
                     "mov %[second], (%[pte])\n" forget "add (%[va]), %[sum]\n"                    \
                     "add 8(%[va]), %[sum]\n"                                                      \
                     "mov %[first], (%[pte])\n" forget "add 8(%[va]), %[sum]\n"                    \
                     "dec %[count]\n"                                                              \
                     "jnz 1b\n"                                                                    \
                     : [sum] "+r"(sum), [count] "+r"(count)                                        \
                     : [va] "r"(BASE), [pte] "r"(pte), [first] "r"(entry_for(0, bits)),            \
                       [second] "r"(entry_for(1, bits)), [operand] "r"(invpcid_operand)            \
                     : "rax", "memory", "cc");                                                     \
        equal(sum, TURNS * 2 * (value_in(0) + value_in(1)), name " in a loop");                    \
    } while (0)

static const u64 invpcid_operand[2] = {0, BASE};

static void invalidation(void)
{
    ALTERNATE("INVLPG", 0, "invlpg (%[va])\n");
    ALTERNATE("INVLPG elsewhere in the page", 0, "invlpg 0xFFF(%[va])\n");
    ALTERNATE("MOV to CR3", 0, "mov %%cr3, %%rax\nmov %%rax, %%cr3\n");
    ALTERNATE("a change of CR4.PGE", 0, "mov %%cr4, %%rax\nxor $0x80, %%al\nmov %%rax, %%cr4\n");
    word cr4 = read_cr4();
    write_cr4(cr4 | CR4_PGE);
    ALTERNATE("INVLPG of a global page", PT_G, "invlpg (%[va])\n");
    ALTERNATE("CR4.PGE off and on", PT_G,
              "mov %%cr4, %%rax\nxor $0x80, %%al\nmov %%rax, %%cr4\n"
              "xor $0x80, %%al\nmov %%rax, %%cr4\n");
    if (has(F_INVPCID)) {
        ALTERNATE("INVPCID type 0", 0, "xor %%eax, %%eax\ninvpcid (%[operand]), %%rax\n");
        ALTERNATE("INVPCID type 2", PT_G, "mov $2, %%eax\ninvpcid (%[operand]), %%rax\n");
        ALTERNATE("INVPCID type 3", 0, "mov $3, %%eax\ninvpcid (%[operand]), %%rax\n");
    } else {
        skip("no INVPCID", "INVPCID in a loop");
    }
    write_cr4(cr4);
}

/* BASE is page 0 in space 0 and page 1 in space 1; KEPT is page 2 in both. */
static void two_spaces(bool global, bool pcid, const char *name)
{
    const word kept = BASE + PAGE, cr4 = read_cr4();
    word sum = 0, count = TURNS;
    for (unsigned s = 0; s < 2; s++) {
        map(&space[s], BASE, (word)page[s], 1, PT_P | PT_W);
        map(&space[s], kept, (word)page[2], 1, PT_P | PT_W | (global ? PT_G : 0));
    }
    write_cr3(space[0].root);
    write_cr4(cr4 | (global ? CR4_PGE : 0) | (pcid ? CR4_PCIDE : 0));
    invlpg((void *)kept);
    word keep = pcid ? 1ul << 63 : 0;
    if (pcid) /* nothing of them is known yet */
        write_cr3(space[1].root | 2);
    write_cr3(space[0].root | pcid);
    asm volatile("1: add (%[va]), %[sum]\n"
                 "add 4096(%[va]), %[sum]\n"
                 "mov %[second], %%cr3\n"
                 "add (%[va]), %[sum]\n"
                 "add 4096(%[va]), %[sum]\n"
                 "mov %[first], %%cr3\n"
                 "add 8(%[va]), %[sum]\n"
                 "add 4104(%[va]), %[sum]\n"
                 "dec %[count]\n"
                 "jnz 1b\n"
                 : [sum] "+r"(sum), [count] "+r"(count)
                 : [va] "r"(BASE), [first] "r"(space[0].root | pcid | keep),
                   [second] "r"(space[1].root | (pcid ? 2 : 0) | keep)
                 : "memory", "cc");
    equal(sum, TURNS * (2 * value_in(0) + value_in(1) + 3 * value_in(2)), "%s", name);
    write_cr3(space[0].root);
    write_cr4(cr4);
}

/* A page that only one of two spaces has, and one for the kernel only in the second. */
static void only_in_one(void)
{
    unsigned wrong = 0;
    entry_write(&space[1], BASE, 1, 0);
    for (unsigned i = 0; i < TURNS; i++) {
        write_cr3(space[0].root);
        wrong += *(volatile u64 *)BASE != value_in(0);
        write_cr3(space[1].root);
        struct trap *t = TRAP((void)*(volatile u64 *)BASE);
        wrong += t->f.vector != PF || t->cr2 != BASE || t->f.error != 0;
    }
    write_cr3(space[0].root);
    check(!wrong, "a page that the other space does not have");
}

/* --- Rights ---------------------------------------------------------------------------------- */

static volatile u32 refusals;

/* What faults is skipped, to where RCX says; RDX says whether it should have. */
static void on_refusal(struct frame *f)
{
    refusals += f->dx ? 1 : 1000000;
    f->ip = f->cx;
}

/* PERMIT, an access, FORBID, and an access that must fault, again and again. */
#define RIGHTS(name, permit, forbid, access)                                                       \
    do {                                                                                           \
        word count = TURNS;                                                                        \
        refusals = 0;                                                                              \
        rt_handler[PF] = on_refusal;                                                               \
        asm volatile("1: " permit "xor %%edx, %%edx\nmov $2f, %%ecx\n" access "2: " forbid         \
                     "mov $1, %%edx\nmov $3f, %%ecx\n" access "3: dec %[count]\njnz 1b\n"          \
                     : [count] "+r"(count)                                                         \
                     : [va] "r"(BASE), [pte] "r"(pte), [more] "r"(entry_for(0, 0)),                \
                       [less] "r"(entry_for(0, 0) & ~PT_W)                                         \
                     : "rax", "rcx", "rdx", "memory", "cc");                                       \
        rt_handler[PF] = NULL;                                                                     \
        equal(refusals, TURNS, name " in a loop");                                                 \
    } while (0)

#define CONTROL(name, change) "mov %%" name ", %%rax\n" change "mov %%rax, %%" name "\n"
#define READ                  "mov (%[va]), %%rax\n"
#define WRITE                 "mov %%rbx, 16(%[va])\n"

static void rights(void)
{
    *pte = entry_for(0, 0);
    write_cr3(read_cr3());
    RIGHTS("a page that comes and goes", "mov %[more], (%[pte])\n",
           "movq $0, (%[pte])\ninvlpg (%[va])\n", READ);
    RIGHTS("a page that is read-only at times", "mov %[more], (%[pte])\ninvlpg (%[va])\n",
           "mov %[less], (%[pte])\ninvlpg (%[va])\n", READ WRITE);
    *pte = entry_for(0, 0) & ~PT_W;
    invlpg((void *)BASE);
    word cr0 = read_cr0(), cr4 = read_cr4();
    RIGHTS("CR0.WP", CONTROL("cr0", "and $~0x10000, %%eax\n"),
           CONTROL("cr0", "or $0x10000, %%eax\n"), READ WRITE);
    write_cr0(cr0);
    if (!has(F_SMAP)) {
        skip("no SMAP", "SMAP in a loop");
        return;
    }
    *pte = entry_for(0, PT_U);
    invlpg((void *)BASE);
    write_cr4(cr4 | CR4_SMAP);
    RIGHTS("STAC and CLAC", "stac\n", "clac\n", READ);
    RIGHTS("STAC and CLAC around a store", "stac\n", "clac\n", WRITE);
    RIGHTS("AC by POPF", "pushf\norl $0x40000, (%%rsp)\npopf\n",
           "pushf\nandl $~0x40000, (%%rsp)\npopf\n", READ);
    RIGHTS("CR4.SMAP", CONTROL("cr4", "and $~0x200000, %%eax\n"),
           CONTROL("cr4", "or $0x200000, %%eax\n"), READ);
    write_cr4(cr4);
}

/* --- The address ----------------------------------------------------------------------------- */

/* An access by BASE_REGISTER, which SETUP leaves at BASE (it is in R8, and BASE + PAGE in R9) and
 * CHANGE sets to BASE + PAGE; R15 has the stack. Between the two there is one by another register,
 * so that what is known of the first has to be kept. */
#define OTHER "cmp %%r12, 64(%%r8)\n"
#define MOVED(name, base_register, setup, first, change, second)                                   \
    do {                                                                                           \
        word sum = 0, count = TURNS;                                                               \
        asm volatile("mov %[va], %%r8\nlea 4096(%%r8), %%r9\nmov %%rsp, %%r15\n"                   \
                     "mov %%rbp, %%r14\nxor %%r12d, %%r12d\nmov %[count], %%r13\n"                 \
                     "1: " setup "add " first "(%%" base_register "), %%r12\n" OTHER change        \
                     "add " second "(%%" base_register "), %%r12\n"                                \
                     "dec %%r13\njnz 1b\n"                                                         \
                     "mov %%r15, %%rsp\nmov %%r14, %%rbp\nmov %%r12, %[sum]\n"                     \
                     : [sum] "=a"(sum)                                                             \
                     : [va] "D"(BASE), [count] "S"(count)                                          \
                     : "rbx", "rcx", "rdx", "r8", "r9", "r12", "r13", "r14", "r15", "memory",      \
                       "cc");                                                                      \
        equal(sum, TURNS *(value_in(0) + value_in(3)), "a base moved by " name);                   \
    } while (0)

static volatile u64 second_page = BASE + PAGE, one = PAGE;

static void moved(void)
{
    enum { CELL = 0x800 };
    for (unsigned n = 0; n < 4; n += 3) {
        *(u64 *)(page[n] + CELL) = BASE + PAGE;
        *(u64 *)(page[n] + CELL + 8) = BASE + PAGE;
    }
    *pte = entry_for(0, 0);
    map(&space[0], BASE + PAGE, (word)page[3], 1, PT_P | PT_W);
    write_cr3(read_cr3());
    MOVED("MOV", "rdi", "mov %%r8, %%rdi\n", "", "mov %%r9, %%rdi\n", "");
    MOVED("MOV from memory", "rbx", "mov %%r8, %%rbx\n", "", "mov second_page, %%rbx\n", "8");
    MOVED("LEA", "rdi", "mov %%r8, %%rdi\n", "24", "lea 4096(%%rdi), %%rdi\n", "24");
    MOVED("ADD", "rcx", "mov %%r8, %%rcx\n", "", "add $4096, %%rcx\n", "");
    MOVED("SUB", "rsi", "mov %%r8, %%rsi\n", "", "sub $-4096, %%rsi\n", "");
    MOVED("ADD from memory", "rdx", "mov %%r8, %%rdx\n", "", "add one, %%rdx\n", "");
    MOVED("OR", "rdi", "mov %%r8, %%rdi\n", "", "or $0x1000, %%rdi\n", "");
    MOVED("BTS", "rdi", "mov %%r8, %%rdi\n", "", "bts $12, %%rdi\n", "");
    MOVED("ADD of a half", "rdi", "mov %%r8, %%rdi\n", "", "add $0x1000, %%di\n", "");
    MOVED("ADD of the second byte", "rbx", "mov %%r8, %%rbx\n", "", "add $0x10, %%bh\n", "");
    MOVED("CMOV", "rdi", "mov %%r8, %%rdi\n", "", "test %%r12, %%r12\ncmovnz %%r9, %%rdi\n", "");
    MOVED("XCHG", "rdi", "mov %%r8, %%rdi\n", "", "mov %%r9, %%rsi\nxchg %%rsi, %%rdi\n", "");
    MOVED("XADD", "rdi", "mov %%r8, %%rdi\n", "", "mov %%r9, %%rsi\nxadd %%rdi, %%rsi\n", "");
    MOVED("POP", "rdi", "push %%r9\nmov %%r8, %%rdi\n", "", "pop %%rdi\n", "");
    MOVED("LODS", "rsi", "mov %%r8, %%rsi\nmov $512, %%ecx\n", "", "rep lodsq\n", "");
    MOVED("SCAS", "rdi", "mov %%r8, %%rdi\nmov $512, %%ecx\nmov $1, %%eax\n", "", "repne scasq\n",
          "");
    /* One element each, the last of a page. What is written is what was there. */
    MOVED("one LODS", "rsi", "lea 4088(%%r8), %%rsi\n", "", "lodsq\n", "");
    MOVED("one SCAS", "rdi", "lea 4088(%%r8), %%rdi\n", "", "scasq\n", "");
    MOVED("one CMPS, RSI", "rsi", "lea 4088(%%r8), %%rsi\nmov %%r8, %%rdi\n", "", "cmpsq\n", "");
    MOVED("one CMPS, RDI", "rdi", "lea 4088(%%r8), %%rdi\nmov %%r8, %%rsi\n", "", "cmpsq\n", "");
    MOVED("one MOVS, RSI", "rsi", "lea 4088(%%r8), %%rsi\nmov %%r8, %%rdi\n", "", "movsq\n", "");
    MOVED("one MOVS, RDI", "rdi", "lea 4088(%%r8), %%rdi\nmov %%r8, %%rsi\n", "", "movsq\n", "");
    MOVED("one STOS", "rdi", "lea 4088(%%r8), %%rdi\nmov (%%rdi), %%rax\n", "", "stosq\n", "");
    MOVED("a repeated STOS", "rdi", "lea 4088(%%r8), %%rdi\nmov (%%rdi), %%rax\nmov $1, %%ecx\n",
          "", "rep stosq\n", "");
    MOVED("a repeated MOVS", "rsi", "lea 4088(%%r8), %%rsi\nmov %%r8, %%rdi\nmov $1, %%ecx\n", "",
          "rep movsq\n", "");
    MOVED("MUL", "rdx", "mov %%r8, %%rdx\n", "",
          "mov %%r9, %%rax\nshl $16, %%rax\nmov $1, %%ecx\nshl $48, %%rcx\nmul %%rcx\n", "");
    MOVED("CMPXCHG", "rax", "mov %%r8, %%rax\n", "", "cmpxchg %%r8, second_page\n", "");
    MOVED("IMUL", "rbx", "mov %%r8, %%rbx\n", "", "imul $1, %%r9, %%rbx\n", "");
    MOVED("BSWAP", "rbx", "mov %%r8, %%rbx\n", "",
          "mov %%r9, %%rcx\nbswap %%rcx\nmov %%rcx, %%rbx\nbswap %%rbx\n", "");
    MOVED("MOV, RSP", "rsp", "mov %%r8, %%rsp\n", "", "mov %%r9, %%rsp\n", "");
    MOVED("POP RSP", "rsp", "lea 0x800(%%r8), %%rsp\n", "-0x800", "pop %%rsp\n", "");
    MOVED("POP and ADD, RSP", "rsp", "lea 0x800(%%r8), %%rsp\n", "-0x800",
          "pop %%rcx\npop %%rcx\nadd $0xFF0, %%rsp\n", "0x10");
    MOVED("PUSH across the edge", "rsp", "mov %%r8, %%rsp\n", "",
          "lea 0x1008(%%r8), %%rsp\npush 16(%%rsp)\n", "0");
    MOVED("LEAVE", "rbp", "lea 0x800(%%r8), %%rbp\n", "-0x800", "leave\n", "");
    MOVED("LEAVE, RSP", "rsp", "mov %%r8, %%rsp\nlea 0x7F8(%%r9), %%rbp\n", "", "leave\n",
          "-0x800");
}

/* FS and GS lead to BASE and to BASE + PAGE in turn. */
#define SEGMENT(name, first, second)                                                               \
    do {                                                                                           \
        word sum = 0, count = TURNS;                                                               \
        asm volatile("1: " first "add %%gs:8, %[sum]\n" second "add %%gs:8, %[sum]\n"              \
                     "dec %[count]\njnz 1b\n"                                                      \
                     : [sum] "+r"(sum), [count] "+r"(count)                                        \
                     : [va] "r"(BASE), [next] "r"(BASE + PAGE)                                     \
                     : "rax", "rcx", "rdx", "memory", "cc");                                       \
        equal(sum, TURNS *(value_in(0) + value_in(3)), "a segment moved by " name);                \
    } while (0)

#define WRITE_GS_BASE(value)                                                                       \
    "mov %[" value "], %%rax\nxor %%edx, %%edx\nmov $0xC0000101, %%ecx\n"                          \
    "wrmsr\n"

static void segments(void)
{
    SEGMENT("WRMSR", WRITE_GS_BASE("va"), WRITE_GS_BASE("next"));
    wrmsr(MSR_GS_BASE, BASE + PAGE);
    wrmsr(MSR_KERNEL_GS_BASE, BASE);
    SEGMENT("SWAPGS", "swapgs\n", "swapgs\n");
    if (has(F_FSGSBASE)) {
        write_cr4(read_cr4() | CR4_FSGSBASE);
        SEGMENT("WRGSBASE", "wrgsbase %[va]\n", "wrgsbase %[next]\n");
        write_cr4(read_cr4() & ~CR4_FSGSBASE);
    } else {
        skip("no FSGSBASE", "a segment moved by WRGSBASE");
    }
    wrmsr(MSR_GS_BASE, 0);
    wrmsr(MSR_KERNEL_GS_BASE, 0);
}

/* The last page of the address space and the first are neighbours. */
static void wrap(void)
{
    word sum = 0, count = TURNS, expected;
    map(&space[0], TOP, (word)page[2], 1, PT_P | PT_W);
    invlpg((void *)TOP);
    asm volatile("mov 0, %0\nadd 8, %0" : "=r"(expected));
    asm volatile("1: add (%[va]), %[sum]\n"
                 "add 8(%[va]), %[sum]\n"
                 "add 16(%[va]), %[sum]\n"
                 "add -8(%[va]), %[sum]\n"
                 "add (%[va],%[far],8), %[sum]\n" /* 2^64 bytes on */
                 "dec %[count]\n"
                 "jnz 1b\n"
                 : [sum] "+r"(sum), [count] "+r"(count)
                 : [va] "r"(-8ul), [far] "r"(1ul << 61)
                 : "memory", "cc");
    equal(sum, TURNS * (expected + 3 * value_in(2)), "addresses beyond the last are the first");
}

/* A run of accesses that begins in RAM and ends where nothing is, which reads as ones and swallows
 * what is written. */
static void end_of_memory(void)
{
    const word edge = BASE + PAGE;
    word sum = 0, count = TURNS;
    u32 *last = (u32 *)(page[0] + PAGE - 4), before = *last;
    map(&space[0], edge, NOTHING, 1, PT_P | PT_W);
    invlpg((void *)edge);
    asm volatile("1: add -12(%[va]), %[sum]\n"
                 "add -4(%[va]), %[sum]\n"
                 "add 4(%[va]), %[sum]\n"
                 "mov %[count], -4(%[va])\n"
                 "mov %[count], 16(%[va])\n"
                 "dec %[count]\n"
                 "jnz 1b\n"
                 : [sum] "+r"(sum), [count] "+r"(count)
                 : [va] "r"(edge)
                 : "memory", "cc");
    word first = *(word *)(page[0] + PAGE - 12), lasts = before;
    for (word n = TURNS; n > 1; n--)
        lasts += (u32)n;
    /* Of the second read the lower half is in RAM, the upper one all ones; the third is -1. */
    tcg_differs("nothing reads as 0");
    equal(sum, TURNS * (first + (0xFFFFFFFFul << 32) - 1) + lasts, "from RAM into nothing");
    equal(*last, 1, "what was written last is there");
    *last = before;
    map(&space[0], edge, (word)page[3], 1, PT_P | PT_W);
    invlpg((void *)edge);
}

/* --- What is not executed -------------------------------------------------------------------- */

/* Accesses that a branch goes past, by the register of those before it. */
static void not_taken(void)
{
    const u64 used = PT_A | PT_D;
    for (unsigned present = 0; present < 2; present++) {
        word sum = 0, count = TURNS;
        entry_write(&space[0], BASE + PAGE, 1, present ? entry_for(3, 0) : 0);
        invlpg((void *)(BASE + PAGE));
        struct trap *t = TRAP(asm volatile("1: add (%[va]), %[sum]\n"
                                           "test %[count], %[count]\n"
                                           "jnz 2f\n"
                                           "add 4096(%[va]), %[sum]\n"
                                           "mov %[sum], 4104(%[va])\n"
                                           "2: add 8(%[va]), %[sum]\n"
                                           "dec %[count]\n"
                                           "jnz 1b\n" : [sum] "+r"(sum),
                                           [count] "+r"(count) : [va] "r"(BASE) : "memory", "cc"));
        rt_trapped(t, NO_TRAP, 0, "an access that is branched around, page %s",
                   present ? "present" : "missing");
        equal(entry_read(&space[0], BASE + PAGE, 1) & used, 0, "leaves its page unused");
    }
}

/* --- Code ------------------------------------------------------------------------------------ */

static u8 copy_from = 1, copy_to;

/* Copies a byte; by an instruction that a translator may want to look at again, and behind a branch
 * that is not taken at first. The others store AL, which is 0. */
static const u8 rep_movsb[7] = {0xF3, 0xA4, 0xC3}, rep_stosb[7] = {0xF3, 0xAA, 0xC3};
static const u8 jz_movsb[] = {0x84, 0xC0, 0x74, 0x01, 0xC3, 0xA4, 0xC3}; /* test al, al; jz */
static const u8 jz_stosb[] = {0x84, 0xC0, 0x74, 0x01, 0xC3, 0xAA, 0xC3};

static void call_copy(word code, word ax)
{
    word di = (word)&copy_to, si = (word)&copy_from, cx = 1;
    asm volatile("call *%[code]"
                 : "+D"(di), "+S"(si), "+c"(cx)
                 : [code] "r"(code), "a"(ax)
                 : "memory", "cc");
}

/* The entry for code that runs often comes to be AWAY, and the processor is not told: it may go by
 * what it remembers or by what is there, but not come to grief, and has to be right again once it
 * is told. Code elsewhere has it forget some of what it remembers. */
static void code_moves(unsigned offset, u64 away, const u8 *copy, const u8 *store, const char *name)
{
    const word code = BASE + offset, elsewhere = BASE + 0x1000000;
    static volatile unsigned calls;
    memcpy(page[0] + offset, copy, sizeof(jz_movsb));
    memcpy(page[1] + offset, store, sizeof(jz_stosb));
    page[2][0] = 0xC3; /* ret */
    *pte = entry_for(0, 0);
    map(&space[0], elsewhere, (word)page[2], 1, PT_P | PT_W);
    write_cr3(read_cr3());
    for (calls = 0; calls < 20; calls++)
        call_copy(code, 1);
    asm volatile("call *%0" : : "r"(elsewhere) : "memory", "cc");
    *pte = away;
    for (; calls < TURNS; calls++)
        (void)TRAP(call_copy(code, 0));
    equal(calls, TURNS, "code whose page is %s at once", name);
    *pte = entry_for(0, 0);
    invlpg((void *)BASE);
    copy_to = 0;
    runs(call_copy(code, 0), "the code when it is back");
    equal(copy_to, copy_from, "does what it did");
}

void test(void)
{
    for (unsigned n = 0; n < 4; n++) {
        page[n] = alloc_pages(1, PAGE);
        (void)alloc_pages(1, PAGE);
        for (unsigned i = 0; i < PAGE / 8; i++)
            ((u64 *)page[n])[i] = 0x1111111111ull << 8 * n;
    }
    for (unsigned s = 0; s < 2; s++) {
        space_init(&space[s], PAGING_4LEVEL);
        map(&space[s], BASE, (word)page[0], 1, PT_P | PT_W);
    }
    u64 table = entry_read(&space[0], BASE, 2) & PT_ADDRESS;
    pte = (volatile u64 *)table + (BASE >> 12 & 511);
    space_enter(&space[0]);
    invalidation();
    two_spaces(false, false, "CR3 to and fro in a loop");
    two_spaces(true, false, "CR3 to and fro in a loop, with a global page");
    only_in_one();
    if (has(F_PCID)) {
        two_spaces(false, true, "CR3 to and fro in a loop, with PCIDs");
        two_spaces(true, true, "CR3 to and fro in a loop, with PCIDs and a global page");
    } else {
        skip("no PCID", "PCIDs in a loop");
    }
    rights();
    moved();
    segments();
    wrap();
    end_of_memory();
    not_taken();
    code_moves(0, NOTHING | PT_P | PT_W, rep_movsb, rep_stosb, "nothing");
    code_moves(64, entry_for(1, 0), rep_movsb, rep_stosb, "another");
    code_moves(128, NOTHING | PT_P | PT_W, jz_movsb, jz_stosb, "nothing beyond a branch");
    code_moves(192, entry_for(1, 0), jz_movsb, jz_stosb, "another beyond a branch");
    space_leave();
}
