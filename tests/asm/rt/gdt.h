/*
 * Selectors of the runtime's GDT, for C and assembly. The order is the one SYSCALL, SYSRET,
 * SYSENTER and SYSEXIT ask for (SDM volume 2).
 */
#ifndef RT_GDT_H
#define RT_GDT_H

#define KCODE   0x08 /* of the guest's own width: 32-bit or 64-bit */
#define KDATA   0x10
#define UCODE32 0x18
#define UDATA   0x20
#define UCODE64 0x28
#define UDATA2  0x30
#define KCODE32 0x38
#define CODE16  0x40 /* base 0, limit FFFFh */
#define DATA16  0x48
#define TSS     0x50 /* two slots in 64-bit mode */
#define SPARE   0x60 /* from here to GDT_SIZE: for tests */

#define GDT_SLOTS 64

#ifdef __x86_64__
#define UCODE UCODE64
#else
#define UCODE UCODE32
#endif

/* The vector by which user code gives up the processor. */
#define VECTOR_DONE 0x20

/* Where a second processor starts, in real mode. */
#define AP_PAGE 0x8000

#endif
