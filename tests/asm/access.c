/*
 * Accesses that cross pages, non-canonical addresses, alignment that instructions ask for, and
 * implicit accesses, in 64-bit mode (SDM volume 1, 3.3.7.1; volume 3, 4.6, 4.7, 6.15).
 */
#include "rt/paging.h"
#include "rt/rt.h"

#define BASE 0x40000000ul
#define EDGE (BASE + PAGE)        /* the second page, which tests take away */
#define HOLE 0x0000800000000000ul /* the first non-canonical address */

static struct space space;
static u8 *first, *second;

static void second_page(u64 bits)
{
    entry_write(&space, EDGE, 1, (word)second | bits);
    invlpg((void *)EDGE);
}

static void first_page(u64 bits)
{
    entry_write(&space, BASE, 1, (word)first | bits);
    invlpg((void *)BASE);
}

static void fill(void)
{
    memset(first, 0x11, PAGE);
    memset(second, 0x22, PAGE);
}

/* Nothing next to the edge was written. */
static bool untouched(void)
{
    for (unsigned i = 0; i < 64; i++)
        if (first[PAGE - 1 - i] != 0x11 || second[i] != 0x22)
            return false;
    return true;
}

#define STORE(text, address)                                                                       \
    asm volatile(text : : "D"(address), "a"(1ul), "d"(2ul) : "rcx", "memory", "cc")

/* An instruction that writes to ADDRESS, in RDI, across the edge: with the second page missing or
 * read-only, then the first missing. TCG: how QEMU differs, or NULL. */
#define CROSSING_WRITE(text, address, name, tcg)                                                   \
    do {                                                                                           \
        fill();                                                                                    \
        second_page(0);                                                                            \
        tcg_differs(tcg);                                                                          \
        page_faults(EDGE, PFE_W, STORE(text, address), name ", second page missing");              \
        tcg_differs(tcg);                                                                          \
        check(untouched(), name " wrote nothing");                                                 \
        second_page(PT_P);                                                                         \
        fill();                                                                                    \
        page_faults(EDGE, PFE_W | PFE_P, STORE(text, address), name ", second page read-only");    \
        tcg_differs(tcg);                                                                          \
        check(untouched(), name " wrote nothing");                                                 \
        second_page(PT_P | PT_W);                                                                  \
        first_page(0);                                                                             \
        fill();                                                                                    \
        tcg_differs(tcg);                                                                          \
        page_faults(address, PFE_W, STORE(text, address), name ", first page missing");            \
        first_page(PT_P | PT_W);                                                                   \
        check(untouched(), name " wrote nothing");                                                 \
    } while (0)

static void crossing(void)
{
    CROSSING_WRITE(AT "movw %%ax, (%%rdi)", EDGE - 1, "MOV word", NULL);
    CROSSING_WRITE(AT "movl %%eax, (%%rdi)", EDGE - 3, "MOV dword", NULL);
    CROSSING_WRITE(AT "movq %%rax, (%%rdi)", EDGE - 4, "MOV qword", NULL);
    CROSSING_WRITE(AT "addq %%rax, (%%rdi)", EDGE - 7, "ADD", "the fault is reported as a read");
    CROSSING_WRITE(AT "movups %%xmm0, (%%rdi)", EDGE - 8, "MOVUPS", "two stores");
    CROSSING_WRITE("lea 8(%%rdi), %%rsp\n" AT "push %%rax", EDGE - 4, "PUSH", NULL);

    fill();
    second_page(0);
    page_faults(EDGE, 0, (void)*(volatile u64 *)(EDGE - 1), "a read across the edge");
    page_faults(EDGE - 1, 0, first_page(0);
                (void)*(volatile u64 *)(EDGE - 1), "a read across the edge, both pages missing");
    first_page(PT_P | PT_W);
    page_faults(EDGE, 0, asm volatile("btq %0, (%1)" : : "r"(45 * 8ul), "r"(EDGE - 40) : "cc"),
                "BT reaches beyond its operand");
    runs((void)*(volatile u64 *)(EDGE - 8), "a read up to the edge");

    second_page(PT_P | PT_W);
    *(volatile u64 *)(EDGE - 3) = 0x0102030405060708;
    check(first[PAGE - 3] == 8 && first[PAGE - 1] == 6 && second[0] == 5 && second[4] == 1 &&
              second[5] == 0x22,
          "a write across pages that are not next to each other");
    equal(*(volatile u64 *)(EDGE - 3), 0x0102030405060708, "and a read");
    asm volatile("lock addq %0, (%1)" : : "r"(1ul), "r"(EDGE - 3) : "memory", "cc");
    equal(*(volatile u64 *)(EDGE - 3), 0x0102030405060709, "and a locked ADD");
}

/* Writes happen, as far as faults are concerned, even where the value stays. */
static void always_write(void)
{
    second_page(PT_P);
    word error = PFE_P | PFE_W;
    page_faults(
        EDGE, error,
        asm volatile(AT "cmpxchgl %%edx, (%0)" : : "r"(EDGE), "a"(1), "d"(2) : "memory", "cc"),
        "CMPXCHG that would not store");
    page_faults(EDGE, error, asm volatile(AT "orl $0, (%0)" : : "r"(EDGE) : "memory", "cc"),
                "OR of nothing");
    page_faults(EDGE, error, asm volatile(AT "xchgl %%eax, (%0)" : : "r"(EDGE), "a"(1) : "memory"),
                "XCHG");
    page_faults(EDGE, error,
                asm volatile(AT "shll %%cl, (%0)" : : "r"(EDGE), "c"(0) : "memory", "cc"),
                "SHL by zero");
    page_faults(EDGE, error,
                asm volatile(AT "cmpxchg8b (%0)" : : "r"(EDGE), "a"(1), "d"(2), "b"(3),
                             "c"(4) : "memory", "cc"),
                "CMPXCHG8B that would not store");
    runs(asm volatile("testl $1, (%0); cmpl $1, (%0)" : : "r"(EDGE) : "cc"),
         "TEST and CMP only read");
    second_page(PT_P | PT_W);
}

static void fetch(void)
{
    word nx = has(F_NX) ? PFE_I : 0;
    memset(first, 0x90, PAGE);
    static const u8 mov_eax_imm[] = {0xB8, 0x78, 0x56, 0x34, 0x12, 0xC3};
    memcpy(first + PAGE - 2, mov_eax_imm, 2);
    memcpy(second, mov_eax_imm + 2, 4);
    word (*code)(void) = (word(*)(void))(EDGE - 2);
    equal(code(), 0x12345678, "an instruction across the edge");
    second_page(0);
    struct trap *t = TRAP(code());
    rt_page_faulted(t, EDGE, nx, "an instruction across the edge, second page missing");
    equal(t->f.ip, EDGE - 2, "saves the instruction's own address");
    if (has(F_NX)) {
        second_page(PT_P | PT_W | PT_NX);
        t = TRAP(code());
        rt_page_faulted(t, EDGE, PFE_I | PFE_P, "an instruction across the edge, second page NX");
    }
    second_page(PT_P | PT_W);
    first[PAGE - 1] = 0xC3;
    runs(((void (*)(void))(EDGE - 1))(), "a one-byte instruction at the edge");
    second_page(0);
    runs(((void (*)(void))(EDGE - 1))(), "a one-byte instruction at the edge, second page missing");
    first[PAGE - 2] = 0x0F;
    first[PAGE - 1] = 0x0B;
    t = TRAP(((void (*)(void))(EDGE - 2))());
    rt_trapped(t, UD, 0, "UD2 up to the edge");
    second_page(PT_P | PT_W);
}

/* Runs the code at EDGE - 4 often, by the kernel or a user; whether it returned VALUE each time. */
static bool often(bool by_user, u32 value)
{
    word (*code)(word) = (word(*)(word))(EDGE - 4);
    bool all = true;

    for (unsigned i = 0; i < 300; i++)
        all &= (by_user ? user(code, 0)->f.ax : code(0)) == value;
    return all;
}

/* An instruction across the edge in code that is hot, while what is behind the edge changes. */
static void fetch_often(bool by_user)
{
    static const u8 code[] = {0x90, 0x90, 0xB8, 1, 2, 3, 4, 0xC3}; /* nop; nop; mov eax, imm; ret */
    const char *who = by_user ? "a user" : "the kernel";
    u64 bits = PT_P | PT_W | (by_user ? PT_U : 0);
    u8 *third = alloc_pages(1, PAGE);

    memcpy(first + PAGE - 4, code, 4);
    memcpy(second, code + 4, 4);
    memcpy(third, code + 4, 4);
    first_page(bits);
    second_page(bits);
    check(often(by_user, 0x04030201), "an instruction of %s's across the edge, often", who);
    second[0] = 0x12;
    check(often(by_user, 0x04031201), "the same for %s when its second page is written", who);
    first[PAGE - 1] = 0x11;
    check(often(by_user, 0x04031211), "the same for %s when its first page is written", who);
    entry_write(&space, EDGE, 1, (word)third | bits);
    invlpg((void *)EDGE);
    check(often(by_user, 0x04030211), "the same for %s when its second page is another one", who);
    second[1] = 0x14;
    check(often(by_user, 0x04030211), "the same for %s when the one that was is written", who);
    second_page(bits);
    check(often(by_user, 0x04141211), "the same for %s when the first is back", who);
    second_page(0);
    rt_page_faulted(by_user ? user((word(*)(word))(EDGE - 4), 0) : TRAP(often(false, 0)), EDGE,
                    (has(F_NX) ? PFE_I : 0) | (by_user ? PFE_U : 0),
                    "the same for %s when the second page is missing", who);
    first_page(PT_P | PT_W);
    second_page(PT_P | PT_W);
}

/* TEXT uses the non-canonical address HOLE + OFFSET, in %0, through the stack segment. */
#define stack_faults(text, offset, name)                                                           \
    do {                                                                                           \
        tcg_differs("#GP instead of #SS");                                                         \
        faults(SS, 0, asm volatile(text : : "r"(HOLE + offset) : "eax", "rcx", "memory"), name);   \
    } while (0)

static void canonical(void)
{
    faults(GP, 0, asm volatile(AT "movb (%0), %%al" : : "r"(HOLE) : "eax"), "load");
    faults(GP, 0, asm volatile(AT "movb %%al, (%0)" : : "r"(-HOLE - 1) : "memory"), "store");
    map(&space, HOLE - PAGE, (word)first, 1, PT_P | PT_W);
    faults(GP, 0, asm volatile(AT "movl (%0), %%eax" : : "r"(HOLE - 2) : "eax"),
           "load across the end of the low half");
    stack_faults("mov %0, %%rcx; xchg %%rbp, %%rcx\n" AT "movb (%%rbp), %%al", 0, "load by RBP");
    stack_faults("mov %0, %%rsp\n" AT "push %%rax", 64, "PUSH");
    stack_faults("mov %0, %%rsp\n" AT "pop %%rax", 0, "POP");
    stack_faults("mov %0, %%rsp\n" AT "call rt_start", 64, "CALL");
    stack_faults("mov %0, %%rsp\n" AT "ret", 0, "RET");
    faults(GP, 0, asm volatile(AT "movb (%%rcx,%%rbp), %%al" : : "c"(HOLE) : "eax"),
           "load with RBP as index");
    tcg_differs("the target faults, not the branch");
    faults(GP, 0, asm volatile(AT "jmp *%0" : : "r"(HOLE)), "JMP to a non-canonical target");
    tcg_differs("the target faults, not the branch");
    faults(GP, 0, asm volatile(AT "call *%0" : : "r"(HOLE)), "CALL to a non-canonical target");
    tcg_differs("the target faults, not the branch");
    faults(GP, 0, asm volatile("push %0\n" AT "ret" : : "r"(HOLE)),
           "RET to a non-canonical target");
    static const struct dtr bad = {0xFF, HOLE};
    tcg_differs("any base is taken");
    faults(GP, 0, asm volatile(AT "lgdt %0; lgdt rt_gdtr" : : "m"(bad)),
           "LGDT of a non-canonical base");
    tcg_differs("any base is taken");
    faults(GP, 0, asm volatile(AT "lidt %0; lidt rt_idtr" : : "m"(bad)),
           "LIDT of a non-canonical base");
    static const u32 base_msrs[] = {MSR_FS_BASE, MSR_GS_BASE,      MSR_KERNEL_GS_BASE, MSR_LSTAR,
                                    MSR_CSTAR,   MSR_SYSENTER_ESP, MSR_SYSENTER_EIP};
    for (unsigned i = 0; i < sizeof(base_msrs) / sizeof(*base_msrs); i++) {
        tcg_differs("MSRs take non-canonical addresses");
        faults(GP, 0, wrmsr(base_msrs[i], HOLE), "WRMSR %x of a non-canonical address",
               base_msrs[i]);
    }
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, -16ull);
    word value = 0;
    asm volatile("mov %%gs:(%1), %0" : "=r"(value) : "r"((word)&space.root + 16));
    equal(value, space.root, "segment base plus offset wraps at 64 bits");
    wrmsr(MSR_GS_BASE, HOLE - 1);
    faults(GP, 0, asm volatile(AT "movb %gs:1, %al"), "base plus offset is what must be canonical");
    wrmsr(MSR_GS_BASE, 0);
}

static void alignment(void)
{
    static u8 area[1024] __attribute__((aligned(64)));
    faults(GP, 0, asm volatile(AT "movaps %%xmm0, 8(%0)" : : "r"(area) : "memory"), "MOVAPS");
    faults(GP, 0, asm volatile(AT "addps 4(%0), %%xmm0" : : "r"(area)), "ADDPS");
    runs(asm volatile("movups %%xmm0, 8(%0)" : : "r"(area) : "memory"), "MOVUPS, not aligned");
    faults(GP, 0, asm volatile(AT "fxsave 8(%0)" : : "r"(area) : "memory"), "FXSAVE");
    if (has(F_CX16)) {
        faults(GP, 0,
               asm volatile(AT "cmpxchg16b 8(%0)" : : "r"(area), "a"(0), "d"(0), "b"(0),
                            "c"(0) : "memory", "cc"),
               "CMPXCHG16B");
    }
}

/* The processor's own accesses to descriptors are the kernel's, whatever runs and whatever AC says.
 * The page is an LDT, so that handlers do not need it. */
static void implicit(void)
{
    enum { LDT = SPARE, FROM_LDT = 0x0C };
    volatile u64 *slot = (volatile u64 *)EDGE + 1;
    word cr4 = read_cr4();
    second_page(PT_P | PT_W);
    rt_gdt[LDT / 8] = descriptor((u32)EDGE, 0xFFF, SYS_LDT);
    asm volatile("lldt %w0" : : "r"(LDT));
    *slot = descriptor(0, 0xFFFFF, (SEG_DATA | SEG_BIG | SEG_PAGES) & ~1u);
    LOAD_SEGMENT("fs", FROM_LDT);
    check(*slot >> 40 & 1, "loading a segment sets its descriptor's accessed bit");
    *slot &= ~(1ull << 40);
    second_page(PT_P);
    const struct trap *t = TRAP(LOAD_SEGMENT("fs", FROM_LDT));
    check(t->f.vector == PF && t->f.error == (PFE_P | PFE_W) && (t->cr2 & ~7ul) == (word)slot,
          "and needs a page that can be written");
    second_page(PT_P | PT_W);
    *slot |= 1ull << 40;
    second_page(PT_P);
    runs(LOAD_SEGMENT("fs", FROM_LDT), "unless it is set already");
    second_page(0);
    page_faults(slot, 0, LOAD_SEGMENT("fs", FROM_LDT), "a page not present");
    if (has(F_SMAP)) {
        second_page(PT_P | PT_W | PT_U);
        write_cr4(cr4 | CR4_SMAP);
        tcg_differs("AC counts for implicit accesses");
        page_faults(slot, PFE_P, asm volatile("stac\n" AT "mov %0, %%fs" : : "r"(FROM_LDT)),
                    "SMAP: AC does not help an implicit access");
        write_cr4(cr4);
    }
    asm volatile("mov %w0, %%fs; lldt %w0" : : "r"(0));
}

void test(void)
{
    static u8 stack[4096] __attribute__((aligned(16)));
    rt_tss.ist[0] = (word)(stack + sizeof(stack)); /* for faults with a bad RSP */
    reset_gate(SS, GATE_INTR, 1);
    reset_gate(GP, GATE_INTR, 1);
    reset_gate(PF, GATE_INTR, 1);
    write_cr4(read_cr4() | CR4_OSFXSR);
    first = alloc_pages(1, PAGE);
    (void)alloc_pages(1, PAGE); /* the two are not neighbours */
    second = alloc_pages(1, PAGE);
    space_init(&space, PAGING_4LEVEL);
    map(&space, BASE, (word)first, 1, PT_P | PT_W);
    map(&space, EDGE, (word)second, 1, PT_P | PT_W);
    space_enter(&space);
    crossing();
    always_write();
    fetch();
    fetch_often(false);
    fetch_often(true);
    canonical();
    alignment();
    implicit();
    space_leave();
}
