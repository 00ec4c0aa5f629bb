/*
 * The runtime: descriptor tables, trap dispatch, user mode, feature flags, memory. See rt.h.
 */
#include "rt.h"
#include "result.h"

extern u8 rt_stubs[], rt_image_end[];
void rt_user_return(void);
void rt_dispatch(struct frame *f);
void rt_main(void);

struct tss rt_tss;
struct gate rt_idt[MAX_VECTORS];
struct dtr rt_idtr = {sizeof(rt_idt) - 1, (word)rt_idt};
trap_handler *rt_handler[MAX_VECTORS];
struct trap rt_last;
volatile bool rt_marked;
volatile u32 rt_at;
USER_DATA volatile u32 rt_user_at = 0;
word rt_user_flags = 2;

static u8 trap_stack[16384] __attribute__((aligned(16)));
USER_DATA static u8 user_stack[8192] __attribute__((aligned(16))) = {0};

static const char *vector_name(word vector)
{
    static const char names[][4] = {"DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", "9",
                                    "TS", "NP", "SS",  "GP", "PF", "15", "MF", "AC", "MC", "XM"};
    return vector < sizeof(names) / sizeof(*names) ? names[vector] : "vector";
}

void rt_dispatch(struct frame *f)
{
    if (rt_handler[f->vector]) {
        rt_handler[f->vector](f);
        return;
    }
    if (!rt_marked)
        fatal("unexpected #%s (%lu) error %lx ip %lx:%lx cr2 %lx", vector_name(f->vector),
              f->vector, f->error, f->cs, f->ip, read_cr2());
    memcpy(&rt_last.f, f, sizeof(*f));
    rt_last.cr2 = read_cr2();
    write_flags(read_flags() | FL_AC); /* for user data, in spite of SMAP */
    rt_last.at = (f->cs & 3) == 3 ? rt_user_at : rt_at;
    rt_marked = false;
    rt_unwind();
}

static bool is_fault(word vector)
{
    return vector < VECTOR_DONE && vector != DB && vector != NMI && vector != BP && vector != OF &&
           vector != DF;
}

static void print_trap(word vector, word error)
{
    if (vector == NO_TRAP)
        print("no trap");
    else if (vector == VECTOR_DONE)
        print("no trap in user code");
    else
        print("#%s (%lu) error %lx", vector_name(vector), vector, error);
}

static bool judge(const struct trap *t, word vector, word error, bool address_ok)
{
    return t->f.vector == vector && (vector >= VECTOR_DONE || t->f.error == error) &&
           (!is_fault(vector) || !t->at || t->f.ip == t->at) && address_ok;
}

static void explain(const struct trap *t, word vector, word error)
{
    print(": ");
    print_trap(t->f.vector, t->f.error);
    if (t->f.vector != NO_TRAP)
        print(" ip %lx cr2 %lx", t->f.ip, t->cr2);
    print(", wanted ");
    print_trap(vector, error);
    if (t->at && is_fault(vector))
        print(" ip %x", t->at);
}

bool rt_trapped(const struct trap *t, word vector, word error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bool ok = rt_vcheck(judge(t, vector, error, true), format, args);
    va_end(args);
    if (!ok) {
        explain(t, vector, error);
        print("\n");
    }
    return ok;
}

bool rt_page_faulted(const struct trap *t, word address, word error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bool ok = rt_vcheck(judge(t, PF, error, t->cr2 == address), format, args);
    va_end(args);
    if (!ok) {
        explain(t, PF, error);
        print(" cr2 %lx\n", address);
    }
    return ok;
}

struct trap *user(word (*fn)(word arg), word arg)
{
    word *sp = (word *)(user_stack + sizeof(user_stack) - 64), flags = read_flags();
    write_flags(flags | FL_AC); /* for user data, in spite of SMAP */
#ifndef __x86_64__
    *--sp = arg;
#endif
    *--sp = (word)rt_user_return;
    write_flags(flags);
    struct trap *t = TRAP(rt_enter_user((void *)fn, arg, sp, rt_user_flags, UCODE | 3));
    write_flags(flags | FL_AC);
    rt_user_at = 0;
    write_flags(flags);
    return t;
}

u64 descriptor(u32 base, u32 limit, u32 attr)
{
    return (limit & 0xFFFF) | (u64)(base & 0xFFFFFF) << 16 | (u64)(attr & 0xF0FF) << 40 |
           (u64)(limit >> 16 & 0xF) << 48 | (u64)(base >> 24) << 56;
}

struct gate gate(void *offset, u16 selector, u8 attr)
{
    word o = (word)offset;
    struct gate g = {
        .offset_low = (u16)o, .selector = selector, .attr = attr, .offset_high = (u16)(o >> 16)};
#ifdef __x86_64__
    g.offset_top = (u32)(o >> 32);
#endif
    return g;
}

void reset_gate(unsigned vector, u8 attr, u8 ist)
{
    rt_idt[vector] = gate(rt_stubs + 16 * vector, KCODE, attr);
    rt_idt[vector].ist = ist;
}

void load_tss(void)
{
    word base = (word)&rt_tss;
    rt_gdt[TSS / 8] = descriptor((u32)base, sizeof(rt_tss) - 1, SYS_TSS);
#ifdef __x86_64__
    rt_gdt[TSS / 8 + 1] = base >> 32;
#endif
    asm volatile("ltr %w0" : : "r"(TSS));
}

static void set_up_tables(void)
{
    for (unsigned v = 0; v < MAX_VECTORS; v++)
        reset_gate(v, GATE_INTR, 0);
    reset_gate(VECTOR_DONE, GATE_INTR | SEG_DPL3, 0);
    lidt(&rt_idtr);
#ifdef __x86_64__
    rt_tss.rsp[0] = (word)(trap_stack + sizeof(trap_stack));
#else
    rt_tss.esp0 = (word)(trap_stack + sizeof(trap_stack));
    rt_tss.ss0 = KDATA;
#endif
    rt_tss.iomap = offsetof(struct tss, io_bits);
    memset(rt_tss.io_bits, 0xFF, sizeof(rt_tss.io_bits));
    load_tss();
}

void *alloc_pages(unsigned n, size_t align)
{
    static word next;
    if (!next)
        next = (word)rt_image_end;
    next = (next + align - 1) & -align;
    void *p = (void *)next;
    next += n * PAGE;
    return memset(p, 0, n * PAGE);
}

bool has(enum feature f)
{
    struct cpuid l1 = cpuid(1, 0), l7 = cpuid(7, 0), x1 = cpuid(0x80000001, 0);
    switch (f) {
    case F_PCID: return l1.c >> 17 & 1;
    case F_INVPCID: return l7.b >> 10 & 1;
    case F_SMEP: return l7.b >> 7 & 1;
    case F_SMAP: return l7.b >> 20 & 1;
    case F_UMIP: return l7.c >> 2 & 1;
    case F_NX: return x1.d >> 20 & 1;
    case F_1G: return x1.d >> 26 & 1;
    case F_FSGSBASE: return l7.b & 1;
    case F_XSAVE: return l1.c >> 26 & 1;
    case F_AVX: return l1.c >> 28 & 1;
    case F_X2APIC: return l1.c >> 21 & 1;
    case F_TSC_DEADLINE: return l1.c >> 24 & 1;
    case F_RDTSCP: return x1.d >> 27 & 1;
    case F_RDPID: return l7.c >> 22 & 1;
    case F_CX16: return l1.c >> 13 & 1;
    case F_LM: return x1.d >> 29 & 1;
    case F_VME: return l1.d >> 1 & 1;
    }
    return false;
}

bool is_intel(void)
{
    return cpuid(0, 0).b == 0x756E6547; /* "Genu" */
}

bool on_tcg(void)
{
    return (cpuid(1, 0).c >> 31 & 1) && cpuid(0x40000000, 0).b == 0x54474354; /* "TCGT" */
}

void *memset(void *p, int c, size_t n)
{
    void *to = p;
    asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
    return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *d = to;
    asm volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const u8 *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

void rt_main(void)
{
    outb(0x21, 0xFF); /* no interrupts from the PICs but those a test asks for */
    outb(0xA1, 0xFF);
    set_up_tables();
    test();
    finish();
}
