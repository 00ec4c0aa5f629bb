/*
 * The runtime of the bare-metal tests: traps that a test expects, user mode, descriptors, and the
 * lines it prints. A guest defines test(); everything before and after is done here.
 *
 * Output is TAP-like, to port E9h and COM1: "ok N - name", "not ok N - name: what came instead",
 * "ok N - name # SKIP why", and at the end "1..N". The status goes to port F4h: 0 when all passed.
 */
#ifndef RT_H
#define RT_H

#include "gdt.h"
#include "x86.h"

void test(void);

/* --- printing and results; formats know %d %u %x %lx %llx %s %c ------------------------------ */

void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One result line, named by FORMAT. Returns OK. */
bool check(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Like check(A == B), showing both when they differ. */
bool equal(u64 got, u64 wanted, const char *format, ...) __attribute__((format(printf, 3, 4)));
void skip(const char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The next result line may fail when this runs under QEMU's TCG, which differs from the manual
 * there: it is printed but does not count. */
void tcg_differs(const char *how);
/* Ends the guest with the results so far. */
void finish(void) __attribute__((noreturn));
void fatal(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* --- traps ----------------------------------------------------------------------------------- */

/* What the entry code pushes. SP and SS are there in 64-bit mode, or after a change of privilege.
 */
struct frame {
#ifdef __x86_64__
    word r15, r14, r13, r12, r11, r10, r9, r8;
#endif
    word di, si, bp, unused, bx, dx, cx, ax;
#ifndef __x86_64__
    word gs, fs, es, ds;
#endif
    word vector, error, ip, cs, flags, sp, ss;
#ifndef __x86_64__
    word v86_es, v86_ds, v86_fs, v86_gs;
#endif
};

/* A trap that ended a piece of code. */
struct trap {
    struct frame f;
    word cr2;
    u32 at; /* where AT said the instruction is, or 0 */
};

#define NO_TRAP     ~0ul
#define MAX_VECTORS 256

/* Called for its vector in place of the default; it may change the frame, and returns to it. */
typedef void trap_handler(struct frame *f);
extern trap_handler *rt_handler[MAX_VECTORS];

extern struct trap rt_last;
extern volatile bool rt_marked;
int rt_mark(void) __attribute__((returns_twice));
/* Back to the mark, as after a trap. */
void rt_unwind(void) __attribute__((noreturn));

/* Runs CODE. Its value is the trap that ended it; f.vector is NO_TRAP when it ran to its end. What
 * CODE changes must be volatile or static to be seen after a trap. */
#define TRAP(...)                                                                                  \
    ({                                                                                             \
        rt_last.f.vector = NO_TRAP;                                                                \
        rt_at = 0;                                                                                 \
        if (!rt_mark()) {                                                                          \
            rt_marked = true;                                                                      \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
        rt_marked = false;                                                                         \
        &rt_last;                                                                                  \
    })

/* Before the instruction in an asm text: a fault must then save just its address. */
#define AT      "movl $1f, rt_at\n1: "
#define USER_AT "movl $1f, rt_user_at\n1: "
extern volatile u32 rt_at, rt_user_at;

/* Loads a segment register; loads it and uses it. */
#define LOAD_SEGMENT(name, selector)                                                               \
    asm volatile(AT "mov %w0, %%" name : : "r"(selector) : "memory")
#define WITH_SEGMENT(name, selector, text)                                                         \
    asm volatile("mov %w0, %%" name "\n" AT text : : "r"(selector) : "eax", "memory")

bool rt_trapped(const struct trap *t, word vector, word error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
bool rt_page_faulted(const struct trap *t, word address, word error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* CODE raises VECTOR with error code ERROR (0 where there is none); a page fault, at ADDRESS; or
 * runs to its end. The name follows, as for check(). */
#define faults(vector, error, code, ...) rt_trapped(TRAP(code), vector, error, __VA_ARGS__)
#define page_faults(address, error, code, ...)                                                     \
    rt_page_faulted(TRAP(code), (word)(address), error, __VA_ARGS__)
#define runs(code, ...) rt_trapped(TRAP(code), NO_TRAP, 0, __VA_ARGS__)

/* --- user mode ------------------------------------------------------------------------------- */

/* Where user code and data must be in guests that map the rest for the kernel only. */
#define USER_CODE __attribute__((section(".user.text"), noinline, used))
#define USER_DATA __attribute__((section(".user.data")))
extern u8 rt_user_begin[], rt_user_end[];

/* Runs FN(ARG) at privilege level 3, as TRAP does; f.vector is VECTOR_DONE when it returned, with
 * its result in f.ax. */
struct trap *user(word (*fn)(word arg), word arg);
extern word rt_user_flags; /* RFLAGS in user mode */

/* The bare way there: to CODE at STACK, for use in TRAP(). */
void rt_enter_user(void *code, word arg, void *stack, word flags, unsigned cs)
    __attribute__((noreturn));

#define user_faults(vector, error, fn, arg, ...)                                                   \
    rt_trapped(user(fn, (word)(arg)), vector, error, __VA_ARGS__)
#define user_runs(fn, arg, ...) rt_trapped(user(fn, (word)(arg)), VECTOR_DONE, 0, __VA_ARGS__)

/* A function for user() that consists of one instruction (its argument is in AX and CX). */
#define USER_INSN(name, text)                                                                      \
    USER_CODE static word name(word arg)                                                           \
    {                                                                                              \
        asm volatile(USER_AT text : "+a"(arg) : "c"(arg) : "edx", "memory", "cc");                 \
        return arg;                                                                                \
    }

/* --- descriptors (SDM volume 3, 3.4.5, 6.11, 7.2) -------------------------------------------- */

extern u64 rt_gdt[GDT_SLOTS];
extern struct dtr rt_gdtr;

/* ATTR: bits 40-55 of the descriptor: type, S, DPL, P; and 1000h AVL, 2000h L, 4000h D/B, 8000h G.
 * LIMIT is the 20-bit field. */
u64 descriptor(u32 base, u32 limit, u32 attr);
#define SEG_DATA  0x93u
#define SEG_CODE  0x9Bu
#define SEG_DPL3  0x60u
#define SEG_BIG   0x4000u
#define SEG_LONG  0x2000u
#define SEG_PAGES 0x8000u
#define SEG_P     0x80u
#define SYS_LDT   0x82u
#define SYS_TSS   0x89u
#define GATE_CALL 0x8Cu
#define GATE_INTR 0x8Eu
#define GATE_TRAP 0x8Fu
#define GATE_TASK 0x85u

struct tss {
#ifdef __x86_64__
    u32 reserved0;
    u64 rsp[3], reserved1, ist[7], reserved2;
    u16 reserved3, iomap;
#else
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi,
        edi, es, cs, ss, ds, fs, gs, ldt;
    u16 debug_trap, iomap;
#endif
    u8 io_bits[8192 + 1];
} __attribute__((packed));
extern struct tss rt_tss;

struct gate {
    u16 offset_low, selector;
    u8 ist, attr;
    u16 offset_high;
#ifdef __x86_64__
    u32 offset_top, reserved;
#endif
};
extern struct gate rt_idt[MAX_VECTORS];
extern struct dtr rt_idtr;

/* A gate to OFFSET in SELECTOR; ATTR as GATE_x with the DPL in SEG_DPL3. */
struct gate gate(void *offset, u16 selector, u8 attr);
void load_tss(void);
/* Gives VECTOR its usual gate back, with an interrupt stack (64-bit) or 0. */
void reset_gate(unsigned vector, u8 attr, u8 ist);

/* --- pages, features, other processors ------------------------------------------------------- */

#define PAGE 4096ul
/* Zeroed, aligned memory that is never given back. */
void *alloc_pages(unsigned n, size_t align);

enum feature {
    F_PCID,
    F_INVPCID,
    F_SMEP,
    F_SMAP,
    F_UMIP,
    F_NX,
    F_1G,
    F_FSGSBASE,
    F_XSAVE,
    F_AVX,
    F_X2APIC,
    F_TSC_DEADLINE,
    F_RDTSCP,
    F_RDPID,
    F_CX16,
    F_LM,
    F_VME,
};
bool has(enum feature f);
bool is_intel(void); /* vendor string, where the vendors' processors differ */
bool on_tcg(void);

void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);

#endif
