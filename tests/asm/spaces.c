/*
 * A random walk over address spaces: entries change and are invalidated in every permitted way,
 * CR3 goes from space to space with and without PCIDs, WP, SMAP and AC come and go, and in between
 * pages are read, written and executed by kernel and user in runs of accesses that cross pages and
 * share a base register. A model says what each must give (SDM volume 3, 4.6, 4.10). What it looks
 * for are translations that outlive their invalidation, or leak from one space, one privilege
 * level or one kind of access into another.
 *
 * Entries are invalidated whenever the manual asks for it, so nothing here depends on what a
 * processor chooses to remember.
 */
#include "rt/paging.h"
#include "rt/rt.h"

#define SPACES 12 /* at most */
#define FEW    3
#define STEPS  10000 /* of the walk, in each setting */
#define LARGE  (512 * PAGE)
#define MAPPED (16ul << 20) /* what space_init maps */

static struct space space[SPACES];
static u64 seed = 1;

static u32 below(u32 n)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (u32)(seed >> 33) % n;
}

/* --- The model ------------------------------------------------------------------------------- */

/* Virtual pages, in runs of three. The distances are such that small tables that are indexed by
 * address have them collide; the last of LOW_END is next to the non-canonical addresses. */
#define LOW_END    0x00007FFFFFFFD000ul
#define LARGE_BASE 0x60000000ul
#define RUN        3
static const word run_base[] = {
    0x40000000,         0x40800000,         0x44000000,         LOW_END,
    0xFFFF800040000000, 0xFFFFFFFF80000000, 0xFFFFFFFF84000000, LARGE_BASE};
#define RUNS     (sizeof(run_base) / sizeof(*run_base))
#define SLOTS    (RUNS * RUN)
#define IN_LARGE (SLOTS - RUN) /* the first slot of the run that a 2 MiB page may cover */

static u64 entry_of[SPACES][SLOTS]; /* as in the page tables, without A and D */
static u64 large_of[SPACES];        /* 2 MiB page at LARGE_BASE, or 0 */
static u64 table_of[SPACES];        /* else the entry that names the page table there */
static bool global[SLOTS];          /* the same in all spaces */
static bool stale[SPACES];          /* changed since its PCID was last flushed */
static unsigned spaces, current;    /* how many are in use, and which now */
static bool pge, pcid, wp, smap, has_invpcid;

/* Physical memory: one large page, its copy in the model, and the pages of it that small
 * translations lead to, each with a function. */
static u8 *memory, *shadow;
static const u16 frame[] = {0, 1, 2, 3, 17, 255, 256, 510, 511};
#define FRAMES (sizeof(frame) / sizeof(*frame))
#define CODE   0xF00u /* where in a page its function is; data accesses stay away from it */
#define CODED  16u

static word slot_address(unsigned slot)
{
    return run_base[slot / RUN] + slot % RUN * PAGE;
}

/* The entry that maps VA in the current space, or 0; *OFFSET is where in memory it leads. */
static u64 mapping(word va, word *offset)
{
    word base;

    if (large_of[current] && va - LARGE_BASE < LARGE) {
        *offset = va - LARGE_BASE;
        return large_of[current];
    }
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        base = slot_address(slot);
        if (va - base < PAGE) {
            *offset = (word)(entry_of[current][slot] & PT_ADDRESS) - (word)memory + (va - base);
            return entry_of[current][slot];
        }
    }
    return 0;
}

enum kind { READ = 1, WRITE = 2, BOTH = 3, FETCH = 4 };
enum who { KERNEL, KERNEL_AC, USER, WHO };

/* What an access to a page meets: -1, or a page-fault error code. */
static int refused(u64 entry, enum kind kind, enum who who)
{
    word error =
        (kind & WRITE ? PFE_W : 0) | (who == USER ? PFE_U : 0) | (kind == FETCH ? PFE_I : 0);

    if (!(entry & PT_P))
        return (int)error;
    error |= PFE_P;
    if (who == USER && !(entry & PT_U))
        return (int)error;
    if (who == KERNEL && smap && kind != FETCH && entry & PT_U)
        return (int)error;
    if (kind & WRITE && !(entry & PT_W) && (who == USER || wp))
        return (int)error;
    return -1;
}

/* --- What is done to a page ------------------------------------------------------------------ */

/* A form is called with the address in RDI and a value in R9, and returns the sum of what it read.
 * A step of it is one access, which stores the value or adds it to what is there. */
struct step {
    u32 ip; /* 0: the end */
    int offset;
    u32 size, kind;
};

struct form {
    u32 code, stack; /* STACK: through the stack segment */
    struct step step[];
};

#define STEP(kind, size, offset, text)                                                             \
    ".pushsection .data\n.long 9f, " #offset ", " #size ", " #kind "\n.popsection\n9: " text "\n"
/* One more access by the instruction of the step that follows. */
#define REPEAT(kind, size, offset)                                                                 \
    ".pushsection .data\n.long 9f, " #offset ", " #size ", " #kind "\n.popsection\n"
#define R(size, offset, text) STEP(1, size, offset, text)
#define W(size, offset, text) STEP(2, size, offset, text)
#define X(size, offset, text) STEP(3, size, offset, text)
#define FORM(name, stack, text)                                                                    \
    extern const struct form name;                                                                 \
    asm(".pushsection .data\n.balign 8\n" #name ": .long 8f, " #stack "\n.popsection\n"            \
        ".pushsection .user.text, \"ax\"\n8: xor %eax, %eax\n" text "ret\n.popsection\n"           \
        ".pushsection .data\n.long 0\n.popsection\n")
#define SUM "add %rdx, %rax\n"

FORM(read1, 0, R(1, 0, "movzbl (%rdi), %eax"));
FORM(read4, 0, R(4, 0, "movl (%rdi), %eax"));
FORM(read8, 0, R(8, 0, "addq (%rdi), %rax"));
FORM(write2, 0, W(2, 0, "movw %r9w, (%rdi)"));
FORM(write8, 0, W(8, 0, "movq %r9, (%rdi)"));
FORM(add4, 0, "mov %r9, %rdx\n" X(4, 0, "lock xaddl %edx, (%rdi)") SUM);
FORM(read16, 0,
     R(16, 3, "movups 3(%rdi), %xmm1") "movq %xmm1, %rax\npsrldq $8, %xmm1\n"
                                       "movq %xmm1, %rdx\n" SUM);
FORM(write16, 0, "movq %r9, %xmm0\npunpcklqdq %xmm0, %xmm0\n" W(16, 0, "movups %xmm0, (%rdi)"));
/* Runs that share a base register, near and far; around a base that changes; with an index. */
FORM(reads, 0,
     R(8, 0, "addq (%rdi), %rax") R(8, 8, "addq 8(%rdi), %rax") R(8, 16, "addq 16(%rdi), %rax")
         R(8, -8, "addq -8(%rdi), %rax"));
FORM(mixed, 0,
     R(8, 0, "addq (%rdi), %rax") W(8, 8, "movq %r9, 8(%rdi)") R(4, 4, "movl 4(%rdi), %edx")
         SUM W(2, -6, "movw %r9w, -6(%rdi)") R(8, 6, "addq 6(%rdi), %rax"));
FORM(far, 0,
     R(8, 0, "addq (%rdi), %rax") R(8, 4088, "addq 4088(%rdi), %rax")
         W(8, 2048, "movq %r9, 2048(%rdi)") W(1, -4096, "movb %r9b, -4096(%rdi)")
             R(8, 2048, "addq 2048(%rdi), %rax"));
FORM(moved, 0,
     R(8, 0, "addq (%rdi), %rax") "add $8, %rdi\n" W(
         8, 8,
         "movq %r9, (%rdi)") "lea 4080(%rdi), %rdi\n" R(8, 4088,
                                                        "addq (%rdi), %rax") "sub $4096, "
                                                                             "%rdi\n" R(8, 0,
                                                                                        "addq "
                                                                                        "8(%rdi),"
                                                                                        " %rax"));
FORM(indexed, 0,
     "mov $2, %ecx\n" R(8, 16, "addq (%rdi,%rcx,8), %rax")
         W(4, 8, "movl %r9d, 4(%rdi,%rcx,2)") "mov $-3, %rcx\n" R(8, 0, "addq 3(%rcx,%rdi), %rax"));
FORM(stack, 1,
     "mov %rsp, %r8\nmov %rdi, %rsp\n" W(8, -8, "push %r9") W(8, -16, "push %r9")
         R(8, -8, "addq 8(%rsp), %rax") R(8, -16, "pop %rdx")
             SUM W(2, -10, "pushw %r9w") "mov %r8, %rsp\n");
FORM(string, 0,
     "mov $3, %ecx\nmov %r9, %rax\n" REPEAT(2, 8, 0) REPEAT(2, 8, 8)
         W(8, 16, "rep stosq") "xor %eax, %eax\n");
FORM(loop, 0,
     "mov $4, %ecx\n1: " REPEAT(1, 8, 0) REPEAT(1, 8, 8) REPEAT(1, 8, 16) R(
         8, 24,
         "addq (%rdi), %rax") "mov %rdi, %rsi\nadd $8, %rsi\nxchg %rsi, %rdi\ndec %ecx\njnz 1b\n");

/* Through segments whose bases are SEGMENT_BASE: a sum that wraps, and a run. */
#define SEGMENT_BASE 0xFFFF800000001000ul
#define FROM_SEGMENT "mov $0x7FFFFFFFF000, %rcx\nadd %rdi, %rcx\n"
FORM(segment1, 0, FROM_SEGMENT R(1, 0, "movzbl %gs:(%rcx), %eax"));
FORM(segment8, 0, FROM_SEGMENT W(8, 5, "movq %r9, %fs:5(%rcx)"));
FORM(segments, 0,
     FROM_SEGMENT R(8, 0, "addq %gs:(%rcx), %rax") W(8, 8, "movq %r9, %gs:8(%rcx)")
         R(8, 16, "addq 16(%rdi), %rax") R(2, -7, "movzwl %gs:-7(%rcx), %edx") SUM
     "mov %r9, %rdx\n" X(4, 12, "lock xaddl %edx, %fs:12(%rcx)") SUM);

static const struct form *const forms[] = {
    &read1, &read4, &read8,   &write2, &write8, &add4, &read16,   &write16,  &reads,   &mixed,
    &far,   &moved, &indexed, &stack,  &string, &loop, &segment1, &segment8, &segments};

/* What a form meets: the trap, and the sum if there is none. */
struct outcome {
    word vector, error, address, ip, sum;
};

/* Where the bytes of an access are, or the trap that it causes. */
static bool locate(word va, unsigned size, enum kind kind, enum who who, bool by_stack,
                   word offset[2], struct outcome *o)
{
    word last = va + size - 1;

    if ((word)((long)va << 16 >> 16) != va || (word)((long)last << 16 >> 16) != last) {
        o->vector = by_stack ? SS : GP;
        return false;
    }
    for (word page = va & -PAGE, n = 0; page <= last; page += PAGE, n++) {
        word at = page < va ? va : page;
        int error = refused(mapping(at, &offset[n]), kind, who);

        if (error >= 0) {
            *o = (struct outcome){.vector = PF, .error = (word)error, .address = at, .ip = o->ip};
            return false;
        }
    }
    return true;
}

static u8 *byte_at(u8 *base, word va, unsigned i, const word offset[2])
{
    unsigned here = (unsigned)(PAGE - (va & (PAGE - 1)));

    return base + (i < here ? offset[0] + i : offset[1] + i - here);
}

/* One access: takes effect in the model. Returns what is read, in one or two parts. */
static u64 perform(const struct step *step, word va, u64 value, const word offset[2])
{
    u64 sum = 0;

    for (unsigned part = 0; part < step->size; part += 8) {
        unsigned size = step->size < 8 ? step->size : 8;
        u64 old = 0, new = value;

        for (unsigned i = 0; i < size; i++)
            old |= (u64)*byte_at(shadow, va, part + i, offset) << 8 * i;
        if (step->kind & READ) {
            sum += old;
            new += old;
        }
        for (unsigned i = 0; i < size && step->kind & WRITE; i++)
            *byte_at(shadow, va, part + i, offset) = (u8)(new >> 8 * i);
    }
    return sum;
}

static struct outcome predict(const struct form *form, word va, u64 value, enum who who)
{
    struct outcome o = {.vector = who == USER ? VECTOR_DONE : NO_TRAP};
    word offset[2];

    for (const struct step *step = form->step; step->ip; step++) {
        o.ip = step->ip;
        if (!locate(va + (word)(long)step->offset, step->size, step->kind, who, form->stack, offset,
                    &o))
            return o;
        o.sum += perform(step, va + (word)(long)step->offset, value, offset);
    }
    return o;
}

/* --- The real thing -------------------------------------------------------------------------- */

typedef word function(word di, word si, word dx, word cx, word r8, word r9);
/* What R9 holds stays there on the way to the user. */
extern void enter_user(void *code, word arg, void *stack, word flags, unsigned cs,
                       word r9) asm("rt_enter_user");

static struct outcome execute(word code, word va, u64 value, enum who who)
{
    extern void rt_user_return(void);
    USER_DATA static word user_stack[64];
    static volatile word sum;
    word flags = read_flags();
    struct trap *t;

    if (who != KERNEL)
        write_flags(flags | FL_AC);
    if (who == USER) {
        user_stack[63] = (word)rt_user_return;
        t = TRAP(enter_user((void *)code, va, &user_stack[63], rt_user_flags, UCODE | 3, value));
        sum = t->f.ax;
    } else {
        t = TRAP(sum = ((function *)code)(va, 0, 0, 0, 0, value));
    }
    write_flags(flags);
    return (struct outcome){t->f.vector, t->f.error, t->cr2, t->f.ip, sum};
}

static bool agrees(const struct outcome *got, const struct outcome *wanted)
{
    if (got->vector != wanted->vector)
        return false;
    if (got->vector == NO_TRAP || got->vector == VECTOR_DONE)
        return got->sum == wanted->sum;
    return got->ip == wanted->ip && got->error == wanted->error &&
           (got->vector != PF || got->address == wanted->address);
}

static bool report(const char *what, word va, enum who who, const struct outcome *got,
                   const struct outcome *wanted)
{
    static const char *const names[WHO] = {"the kernel", "the kernel with AC", "a user"};

    return check(false,
                 "%s at %lx by %s: trap %lx error %lx address %lx at %lx sum %lx instead of "
                 "trap %lx error %lx address %lx at %lx sum %lx",
                 what, va, names[who], got->vector, got->error, got->address, got->ip, got->sum,
                 wanted->vector, wanted->error, wanted->address, wanted->ip, wanted->sum);
}

/* A run of accesses near the start, the middle or the end of a page. */
static bool probe_data(unsigned slot)
{
    static const u16 start[] = {0, 8, 3, 0x300, PAGE - 32, PAGE - 8, PAGE - 5, PAGE - 1};
    const struct form *form = forms[below(sizeof(forms) / sizeof(*forms))];
    word va = slot_address(slot) + start[below(sizeof(start) / sizeof(*start))];
    u64 value = seed * 0x9E3779B97F4A7C15;
    enum who who = below(WHO);
    struct outcome wanted = predict(form, va, value, who),
                   got = execute(form->code, va, value, who);

    return agrees(&got, &wanted) || report("accesses", va, who, &got, &wanted);
}

/* The function in a page, which is changed at times through whatever maps it. */
static bool probe_code(unsigned slot)
{
    word va = slot_address(slot) + CODE, offset[2];
    enum who who = below(WHO);
    struct outcome wanted = {.vector = who == USER ? VECTOR_DONE : NO_TRAP, .ip = va}, got;

    if (locate(va, CODED, FETCH, who, false, offset, &wanted)) {
        u32 result;

        memcpy(&result, shadow + offset[0] + 1, 4);
        wanted.sum = result;
    }
    got = execute(va, 0, 0, who);
    return agrees(&got, &wanted) || report("code", va, who, &got, &wanted);
}

static bool rewrite_code(unsigned slot)
{
    word va = slot_address(slot) + CODE + 1, value = below(1u << 30);
    struct outcome wanted = predict(&write2, va, value, KERNEL_AC),
                   got = execute(write2.code, va, value, KERNEL_AC);

    return agrees(&got, &wanted) || report("writing code", va, KERNEL_AC, &got, &wanted);
}

static bool same_memory(void)
{
    return memcmp(memory, shadow, LARGE) == 0;
}

/* --- The walk -------------------------------------------------------------------------------- */

static void invpcid(word type, u64 id, u64 address)
{
    u64 operand[2] = {id, address};

    asm volatile("invpcid %1, %0" : : "r"(type), "m"(operand) : "memory");
}

static void go_to(unsigned s)
{
    bool keep = pcid && !stale[s] && below(4);

    write_cr3(space[s].root | (pcid ? s + 1 : 0) | (keep ? 1ul << 63 : 0));
    current = s;
    stale[s] = false;
}

static void flush_global(void)
{
    write_cr4(read_cr4() ^ CR4_PGE);
    write_cr4(read_cr4() ^ CR4_PGE);
}

/* After the translation of VA in a space that is not the present one has changed. */
static void forget_elsewhere(unsigned s, word va)
{
    if (!pcid)
        return; /* CR3 will do it */
    switch (has_invpcid ? below(16) : 0) {
    case 0: stale[s] = true; return;
    case 1: invpcid(3, 0, 0); return;
    default:
        if (below(2))
            invpcid(0, s + 1, va);
        else
            invpcid(1, s + 1, 0);
    }
}

/* The same in the present one, or in all for a global page. */
static void forget_here(word va, bool is_global)
{
    unsigned n = below(32);

    if (n > 3 || (n < 2 && !has_invpcid)) {
        invlpg((void *)(va + below(PAGE)));
    } else if (n == 0) {
        invpcid(2, 0, 0);
    } else if (n == 1 && !is_global) {
        invpcid(below(2), pcid ? current + 1 : 0, va);
    } else if (is_global) {
        flush_global();
    } else {
        stale[current] = true;
        go_to(current);
    }
}

static u64 random_rights(void)
{
    return (below(8) ? PT_P : 0) | (below(4) ? PT_W : 0) | (below(2) ? PT_U : 0);
}

static void change(unsigned s, unsigned slot)
{
    word va = slot_address(slot);
    u64 entry = (word)memory + frame[below(FRAMES)] * PAGE, old = entry_of[s][slot];

    entry |= random_rights() | (global[slot] || (!pge && below(2)) ? PT_G : 0);
    if (slot >= IN_LARGE && large_of[s]) /* no table to write to */
        return;
    for (unsigned i = 0; i < spaces; i++) {
        if (i == s || global[slot]) {
            entry_of[i][slot] = entry;
            entry_write(&space[i], va, 1, entry);
        }
    }
    if (!(old & PT_P) && below(2))
        return; /* what was not there is not remembered */
    if (s == current || global[slot])
        forget_here(va, global[slot]);
    else
        forget_elsewhere(s, va);
}

/* Puts a large page in the place of a table, or the table back. INVLPG of one page is enough for
 * what came from a large one, but not for what came from a table. */
static void split_or_join(unsigned s)
{
    bool was_large = large_of[s] != 0;

    large_of[s] = was_large ? 0 : (word)memory | PT_PS | random_rights() | PT_P;
    entry_write(&space[s], LARGE_BASE, 2, was_large ? table_of[s] : large_of[s]);
    for (unsigned i = 0; i < (was_large ? 1 : RUN); i++) {
        word va = slot_address(IN_LARGE + (was_large ? below(RUN) : i));

        if (s == current)
            invlpg((void *)va);
        else
            forget_elsewhere(s, va);
    }
}

static void toggle(void)
{
    if (below(2)) {
        wp = !wp;
        write_cr0(read_cr0() ^ CR0_WP);
    } else if (has(F_SMAP)) {
        smap = !smap;
        write_cr4(read_cr4() ^ CR4_SMAP);
    }
}

static bool probe(unsigned slot)
{
    switch (below(6)) {
    case 0: return probe_code(slot);
    case 1: return rewrite_code(slot);
    default: return probe_data(slot);
    }
}

static bool walk(void)
{
    unsigned focus = 0;

    for (unsigned n = 0; n < STEPS; n++) {
        unsigned slot, other = below(spaces);

        if (n % 32 == 0)
            focus = below(SLOTS);
        slot = below(4) ? focus : below(SLOTS);
        switch (below(24)) {
        case 0:
        case 1:
        case 2: change(current, slot); break;
        case 3:
        case 4: change(other, slot); break;
        case 5:
        case 6:
        case 7:
        case 8: go_to(other); break;
        case 9: toggle(); break;
        case 10: split_or_join(other); break;
        default: break;
        }
        if (!probe(slot))
            return false;
    }
    return true;
}

/* The runtime's own pages are the same in all spaces: they may be global, or not. */
static void map_kernel(bool as_global)
{
    for (unsigned s = 0; s < SPACES; s++)
        for (word va = 0; va < MAPPED; va += PAGE) {
            u64 entry = entry_read(&space[s], va, 1) & ~PT_G;

            entry_write(&space[s], va, 1, entry | (as_global ? PT_G : 0));
        }
}

/* The walk starts anew, with control bits that it does not change itself. */
static void start(unsigned count, bool with_pge, bool with_pcid)
{
    spaces = count;
    pge = with_pge;
    pcid = with_pcid;
    write_cr3(space[0].root);
    write_cr4((read_cr4() & ~(CR4_PGE | CR4_PCIDE)) | (pge ? CR4_PGE : 0) | (pcid ? CR4_PCIDE : 0));
    for (unsigned slot = 0; slot < SLOTS; slot++)
        global[slot] = pge && slot < IN_LARGE && below(3) == 0;
    for (unsigned s = 0; s < spaces; s++) {
        if (large_of[s])
            split_or_join(s);
        for (unsigned slot = 0; slot < SLOTS; slot++)
            if (!global[slot] || s == 0)
                change(s, slot);
        stale[s] = true;
    }
    if (pge)
        flush_global();
    go_to(0);
}

static void setting(unsigned count, bool with_pge, bool with_pcid, const char *name)
{
    start(count, with_pge, with_pcid);
    if (!walk())
        return;
    if (pge) {
        map_kernel(true);
        flush_global();
        if (!walk())
            return;
        map_kernel(false);
        flush_global();
    }
    check(same_memory(), "%s: every access as the tables say, and nothing else written", name);
}

void test(void)
{
    static u8 stack[4096] __attribute__((aligned(16)));

    rt_tss.ist[0] = (word)(stack + sizeof(stack)); /* the stack pointer may be anywhere */
    reset_gate(SS, GATE_INTR, 1);
    reset_gate(GP, GATE_INTR, 1);
    reset_gate(PF, GATE_INTR, 1);
    write_cr4(read_cr4() | CR4_OSFXSR);
    wp = read_cr0() & CR0_WP;
    has_invpcid = has(F_INVPCID);
    memory = alloc_pages(512, LARGE);
    shadow = alloc_pages(512, PAGE);
    for (unsigned i = 0; i < FRAMES; i++) {
        u8 *page = memory + frame[i] * PAGE;

        for (unsigned at = 0; at < PAGE; at += 4)
            memcpy(page + at, &(u32){frame[i] << 16 | at}, 4);
        memcpy(page + CODE, (u8[]){0xB8, (u8)i, 0, 0, 0, 0xC3}, 6);
    }
    memcpy(shadow, memory, LARGE);
    for (unsigned s = 0; s < SPACES; s++) {
        space_init(&space[s], PAGING_4LEVEL);
        for (unsigned slot = 0; slot < SLOTS; slot++)
            entry_write(&space[s], slot_address(slot), 1, 0);
        table_of[s] = entry_read(&space[s], LARGE_BASE, 2);
    }
    wrmsr(MSR_FS_BASE, SEGMENT_BASE);
    wrmsr(MSR_GS_BASE, SEGMENT_BASE);
    space_enter(&space[0]);
    setting(FEW, false, false, "no PGE, no PCID");
    setting(FEW, true, false, "global pages");
    if (has(F_PCID)) {
        setting(FEW, false, true, "PCIDs");
        setting(FEW, true, true, "PCIDs and global pages");
        setting(SPACES, true, true, "many PCIDs");
    } else {
        skip("no PCID", "PCIDs");
    }
    write_cr3(space[0].root);
    write_cr4(read_cr4() & ~(CR4_PGE | CR4_PCIDE | CR4_SMAP));
    space_leave();
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
}
