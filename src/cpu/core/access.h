/*
 * Guest memory as instructions and events see it. The fast path is one look into the software TLB;
 * everything else (misses, page crossings, MMIO, decoded code, breakpoints) is in access.c. OP is
 * the instruction that makes the access, for the fault that it may raise; NULL: none does.
 *
 * Loads and stores are single host instructions where they do not cross a page, and so are as
 * atomic and as ordered as the guest expects.
 */
#ifndef DOPPEL_CPU_CORE_ACCESS_H
#define DOPPEL_CPU_CORE_ACCESS_H

#include "cpu/core/fault.h"

#include <string.h>

typedef uint16_t unaligned16 __attribute__((aligned(1), may_alias));
typedef uint32_t unaligned32 __attribute__((aligned(1), may_alias));
typedef uint64_t unaligned64 __attribute__((aligned(1), may_alias));
/* An operand in guest memory, by its size in bits. */
typedef uint8_t memory8 __attribute__((may_alias));
typedef unaligned16 memory16;
typedef unaligned32 memory32;
typedef unaligned64 memory64;

/* Applies segmentation: returns the linear address of OFFSET in segment SEG for an access of SIZE
 * bytes. Raises #GP or #SS if the segment does not permit it. MMU_EXEC: the segment need not be
 * readable. */
uint64_t seg_linear(struct vcpu *c, const struct uop *op, unsigned seg, uint64_t offset,
                    unsigned size, enum mmu_access access);

/* The slow paths of load and store. LINEAR is any linear address, in RAM or not, also in front of a
 * page boundary; SIZE is 1 to 8. OP may be NULL. */
uint64_t load_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size);
void store_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                uint64_t value);

/* Load and store for the processor itself (descriptor tables, the TSS): with a supervisor's rights,
 * whatever the CPL is. */
uint64_t load_system(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size);
void store_system(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                  uint64_t value);

/* Copy SIZE bytes, at most a page. If a page is absent, these and the functions above wait for it
 * in the middle of the instruction, so that what the instruction has read from a device is not read
 * twice. */
void load_bytes_slow(struct vcpu *c, const struct uop *op, uint64_t linear, void *buf,
                     unsigned size);
void store_bytes_slow(struct vcpu *c, const struct uop *op, uint64_t linear, const void *buf,
                      unsigned size);

/* Writes SIZE bytes to guest physical memory. Writes nothing if any of them is not RAM. */
void store_physical(struct vcpu *c, uint64_t gpa, const void *buf, unsigned size);

/* Returns the size of the next access to a device of which LEFT bytes from GPA on are to be
 * accessed: a power of two, at most 8. */
unsigned mmio_width(uint64_t gpa, unsigned left);

/* Operands of up to 64 bytes that are used in place. Each returns a host pointer: to guest memory,
 * or to a copy in the bounce buffer (vcpu.bounce), which has the operand's alignment. After
 * write_ptr and rmw_ptr the caller calls commit_ptr, which writes a copy back. commit_ptr cannot
 * fault: the operand has been translated already, because the instruction may have had effects by
 * then. */
void *read_ptr_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size);
void *write_ptr_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                     bool read);
void commit_ptr_slow(struct vcpu *c, const struct uop *op);

/* Translates LINEAR in the present context for an access of SIZE bytes, and enters its page into
 * the software TLB. Returns false if the access must take the slow path all the same. Raises what
 * the access raises. */
bool fill_software_tlb(struct vcpu *c, uint64_t linear, unsigned size, bool write);

/* Checks that [LINEAR, LINEAR + SIZE) can be written. Writes nothing; raises what the write would
 * raise. */
void probe_write(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size);

/* Returns the host address for an access within one page, or NULL if the access must take the slow
 * path. */
static inline void *fast_access(struct vcpu *c, enum mmu_access access, uint64_t linear,
                                unsigned size)
{
    const struct mmu_entry *e = mmu_entry(c->tlb, access, linear);

    return likely(mmu_hit(e, linear, size)) ? (void *)(linear + e->addend) : NULL;
}

static inline void *fast_read(struct vcpu *c, uint64_t linear, unsigned size)
{
    return fast_access(c, MMU_READ, linear, size);
}

static inline void *fast_write(struct vcpu *c, uint64_t linear, unsigned size)
{
    return fast_access(c, MMU_WRITE, linear, size);
}

#define DEFINE_ACCESS(BITS, TYPE)                                                                  \
    static inline uint##BITS##_t load##BITS(struct vcpu *c, const struct uop *op, uint64_t linear) \
    {                                                                                              \
        const void *host = fast_read(c, linear, (BITS) / 8);                                       \
        return likely(host) ? *(const volatile TYPE *)host                                         \
                            : (uint##BITS##_t)load_slow(c, op, linear, (BITS) / 8);                \
    }                                                                                              \
    static inline void store##BITS(struct vcpu *c, const struct uop *op, uint64_t linear,          \
                                   uint##BITS##_t value)                                           \
    {                                                                                              \
        void *host = fast_write(c, linear, (BITS) / 8);                                            \
        if (likely(host))                                                                          \
            *(volatile TYPE *)host = value;                                                        \
        else                                                                                       \
            store_slow(c, op, linear, (BITS) / 8, value);                                          \
    }
DEFINE_ACCESS(8, uint8_t)
DEFINE_ACCESS(16, unaligned16)
DEFINE_ACCESS(32, unaligned32)
DEFINE_ACCESS(64, unaligned64)
#undef DEFINE_ACCESS

static inline uint64_t load_sized(struct vcpu *c, const struct uop *op, uint64_t linear,
                                  unsigned size)
{
    switch (size) {
    case 1: return load8(c, op, linear);
    case 2: return load16(c, op, linear);
    case 4: return load32(c, op, linear);
    default: return load64(c, op, linear);
    }
}

static inline void store_sized(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                               uint64_t value)
{
    switch (size) {
    case 1: store8(c, op, linear, (uint8_t)value); break;
    case 2: store16(c, op, linear, (uint16_t)value); break;
    case 4: store32(c, op, linear, (uint32_t)value); break;
    default: store64(c, op, linear, value); break;
    }
}

static inline void load_bytes(struct vcpu *c, const struct uop *op, uint64_t linear, void *buf,
                              unsigned size)
{
    const void *host = fast_read(c, linear, size);

    if (likely(host))
        memcpy(buf, host, size);
    else
        load_bytes_slow(c, op, linear, buf, size);
}

static inline void store_bytes(struct vcpu *c, const struct uop *op, uint64_t linear,
                               const void *buf, unsigned size)
{
    void *host = fast_write(c, linear, size);

    if (likely(host))
        memcpy(host, buf, size);
    else
        store_bytes_slow(c, op, linear, buf, size);
}

static inline void *read_ptr(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size)
{
    void *host = fast_read(c, linear, size);

    return likely(host) ? host : read_ptr_slow(c, op, linear, size);
}

/* For an operand that is written without being read. */
static inline void *write_ptr(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size)
{
    void *host = fast_write(c, linear, size);

    return likely(host) ? host : write_ptr_slow(c, op, linear, size, false);
}

/* For an operand that is read and written. Raises what the write raises before anything is read. */
static inline void *rmw_ptr(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size)
{
    void *host = fast_write(c, linear, size);

    return likely(host) ? host : write_ptr_slow(c, op, linear, size, true);
}

static inline void commit_ptr(struct vcpu *c, const struct uop *op)
{
    if (unlikely(c->bounced_spans))
        commit_ptr_slow(c, op);
}

/* Lets the other vCPUs run again, which a locked access has stopped (vcpu.holds_stop). */
void vcpu_resume_others(struct vcpu *c);

/* Whether an operand lies in two cache lines. The host must never execute a locked instruction on
 * one: such a split lock stalls all of its processors, and its kernel may slow down or kill the
 * process (split_lock_detect). */
#define CACHE_LINE 64
static inline bool splits_line(uint64_t linear, unsigned size)
{
    return (linear & (CACHE_LINE - 1)) + size > CACHE_LINE;
}

/* Returns a host pointer to the operand of a LOCKed instruction. If the operand crosses a cache
 * line, or is a device's, or is decoded code, stops the other vCPUs and returns a pointer to a
 * copy, which lies in one cache line. commit_locked then writes the copy back and lets the other
 * vCPUs run; it raises nothing. */
void *locked_ptr_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size);
void commit_locked_slow(struct vcpu *c);

static inline void *locked_ptr(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size)
{
    void *host = splits_line(linear, size) ? NULL : fast_write(c, linear, size);

    return likely(host) ? host : locked_ptr_slow(c, op, linear, size);
}

static inline void commit_locked(struct vcpu *c)
{
    if (unlikely(c->holds_stop))
        commit_locked_slow(c);
}

#endif
