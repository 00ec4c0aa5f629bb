/*
 * The privileged instructions as inline functions, and names for the bits tests use
 * (SDM volume 3, chapter 2; volume 4).
 */
#ifndef RT_X86_H
#define RT_X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
typedef unsigned long word; /* a register of the guest's width */

enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, MC, XM };

#define FL_CF   0x1ul
#define FL_ZF   0x40ul
#define FL_TF   0x100ul
#define FL_IF   0x200ul
#define FL_DF   0x400ul
#define FL_IOPL 0x3000ul
#define FL_NT   0x4000ul
#define FL_RF   0x10000ul
#define FL_VM   0x20000ul
#define FL_AC   0x40000ul

#define CR0_PE (1ul << 0)
#define CR0_MP (1ul << 1)
#define CR0_EM (1ul << 2)
#define CR0_TS (1ul << 3)
#define CR0_NE (1ul << 5)
#define CR0_WP (1ul << 16)
#define CR0_AM (1ul << 18)
#define CR0_NW (1ul << 29)
#define CR0_CD (1ul << 30)
#define CR0_PG (1ul << 31)

#define CR4_VME        (1ul << 0)
#define CR4_TSD        (1ul << 2)
#define CR4_DE         (1ul << 3)
#define CR4_PSE        (1ul << 4)
#define CR4_PAE        (1ul << 5)
#define CR4_PGE        (1ul << 7)
#define CR4_OSFXSR     (1ul << 9)
#define CR4_OSXMMEXCPT (1ul << 10)
#define CR4_UMIP       (1ul << 11)
#define CR4_FSGSBASE   (1ul << 16)
#define CR4_PCIDE      (1ul << 17)
#define CR4_OSXSAVE    (1ul << 18)
#define CR4_SMEP       (1ul << 20)
#define CR4_SMAP       (1ul << 21)

#define MSR_APIC_BASE      0x1B
#define MSR_SYSENTER_CS    0x174
#define MSR_SYSENTER_ESP   0x175
#define MSR_SYSENTER_EIP   0x176
#define MSR_TSC_DEADLINE   0x6E0
#define MSR_EFER           0xC0000080
#define MSR_STAR           0xC0000081
#define MSR_LSTAR          0xC0000082
#define MSR_CSTAR          0xC0000083
#define MSR_SFMASK         0xC0000084
#define MSR_FS_BASE        0xC0000100
#define MSR_GS_BASE        0xC0000101
#define MSR_KERNEL_GS_BASE 0xC0000102
#define MSR_TSC_AUX        0xC0000103

#define EFER_SCE 0x1u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u

#define PFE_P    1u
#define PFE_W    2u
#define PFE_U    4u
#define PFE_RSVD 8u
#define PFE_I    16u

#define REGISTER_RW(name)                                                                          \
    static inline word read_##name(void)                                                           \
    {                                                                                              \
        word v;                                                                                    \
        asm volatile("mov %%" #name ", %0" : "=r"(v)::"memory");                                   \
        return v;                                                                                  \
    }                                                                                              \
    static inline void write_##name(word v)                                                        \
    {                                                                                              \
        asm volatile("mov %0, %%" #name : : "r"(v) : "memory");                                    \
    }
REGISTER_RW(cr0)
REGISTER_RW(cr2)
REGISTER_RW(cr3)
REGISTER_RW(cr4)
REGISTER_RW(dr0)
REGISTER_RW(dr1)
REGISTER_RW(dr2)
REGISTER_RW(dr3)
REGISTER_RW(dr6)
REGISTER_RW(dr7)
#ifdef __x86_64__
REGISTER_RW(cr8)
#endif

static inline u64 rdmsr(u32 msr)
{
    u32 lo, hi;
    asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
    return lo | (u64)hi << 32;
}

static inline void wrmsr(u32 msr, u64 v)
{
    asm volatile("wrmsr" : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
    u32 lo, hi;
    asm volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return lo | (u64)hi << 32;
}

static inline void outb(u16 port, u8 v)
{
    asm volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline u8 inb(u16 port)
{
    u8 v;
    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

static inline word read_flags(void)
{
    word v;
    asm volatile("pushf; pop %0" : "=r"(v) : : "memory");
    return v;
}

static inline void write_flags(word v)
{
    asm volatile("push %0; popf" : : "r"(v) : "memory", "cc");
}

static inline void invlpg(void *p)
{
    asm volatile("invlpg (%0)" : : "r"(p) : "memory");
}

static inline void cpu_pause(void)
{
    asm volatile("pause" : : : "memory");
}

struct cpuid {
    u32 a, b, c, d;
};

static inline struct cpuid cpuid(u32 leaf, u32 subleaf)
{
    struct cpuid r;
    asm volatile("cpuid"
                 : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d)
                 : "a"(leaf), "c"(subleaf)
                 : "memory");
    return r;
}

struct dtr {
    u16 limit;
    word base;
} __attribute__((packed));

static inline void lidt(const struct dtr *p)
{
    asm volatile("lidt %0" : : "m"(*p) : "memory");
}

static inline void lgdt(const struct dtr *p)
{
    asm volatile("lgdt %0" : : "m"(*p) : "memory");
}

#endif
