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

/* Segmentation alone: the linear address of OFFSET in SEG, checked. MMU_EXEC: code that cannot be
 * read will do. */
uint64_t seg_linear(struct vcpu *c, const struct uop *op, unsigned seg, uint64_t offset,
                    unsigned size, enum mmu_access access);

/* Slow paths; LINEAR is any linear address, SIZE up to 8. OP may be NULL. */
uint64_t load_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size);
void store_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                uint64_t value);

/* Accesses that the processor makes on its own (descriptor tables, TSS): supervisor rights. */
uint64_t load_system(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size);
void store_system(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                  uint64_t value);

/* Copies of any size up to a page; waits in the middle of the instruction for pages that are
 * absent, as the above do, so that what was read from a device before is not read again. */
void load_bytes_slow(struct vcpu *c, const struct uop *op, uint64_t linear, void *buf,
                     unsigned size);
void store_bytes_slow(struct vcpu *c, const struct uop *op, uint64_t linear, const void *buf,
                      unsigned size);

/* Writes to guest physical memory for the monitor. Nothing is written if not all of it is RAM. */
void store_physical(struct vcpu *c, uint64_t gpa, const void *buf, unsigned size);

/* Operands of any size up to 64: a host pointer to the operand in place,
 * or to the bounce buffer with the guest address's alignment. After write_ptr and rmw_ptr,
 * commit_ptr finishes. It cannot fault: the operand has been translated already, and the
 * instruction may have had effects. */
void *read_ptr_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size);
void *write_ptr_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                     bool read);
void commit_ptr_slow(struct vcpu *c, const struct uop *op);

/* Translates an access in the present context and enters it into the software TLB. Returns whether
 * it can now be made directly; raises what the access raises. */
bool fill_software_tlb(struct vcpu *c, uint64_t linear, unsigned size, bool write);

/* Checks that [LINEAR, LINEAR + SIZE) can be written, without writing. */
void probe_write(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size);

/* The host address for an access within one page, or NULL when the fast path does not apply. */
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

/* For an operand that is read and written; faults as a write before anything is read. */
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

/* Ends the stop of a locked access (holds_stop). */
void vcpu_resume_others(struct vcpu *c);

/* Whether an operand lies in two cache lines. The host must never execute a locked instruction on
 * one: such a split lock stalls all of its processors, and its kernel may slow down or kill the
 * process (split_lock_detect). */
#define CACHE_LINE 64
static inline bool splits_line(uint64_t linear, unsigned size)
{
    return (linear & (CACHE_LINE - 1)) + size > CACHE_LINE;
}

/* For LOCKed operations: the operand in place. Where that cannot be (it crosses a cache line, is
 * MMIO or decoded code), stops the other vCPUs and gives a copy of the operand, which lies in one
 * cache line. commit_locked writes the copy back and resumes them; it raises nothing. */
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
