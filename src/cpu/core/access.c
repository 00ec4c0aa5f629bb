/*
 * Guest memory, the slow paths: segmentation (SDM volume 3, chapter 5), software TLB misses, page
 * crossings, MMIO, writes to decoded code, data breakpoints and alignment checks.
 */
#include "cpu/core/access.h"

#include "cpu/core/code.h"
#include "cpu/core/debug.h"
#include "cpu/core/executor.h"
#include "cpu/core/present.h"

#include <string.h>

_Noreturn static void raise_segment(struct vcpu *c, const struct uop *op, unsigned seg)
{
    raise_error(c, op, seg == X86_SS ? X86_SS_FAULT : X86_GP, 0);
}

uint64_t seg_linear(struct vcpu *c, const struct uop *op, unsigned seg, uint64_t offset,
                    unsigned size, enum mmu_access access)
{
    const struct x86_seg *s = &c->x.seg[seg];
    uint64_t last = offset + size - 1;

    if (in_64(c))
        return offset + c->base[seg];
    if (s->attr & X86_ATTR_UNUSABLE)
        raise_segment(c, op, seg);
    if (!(c->mode & MODE_REAL)) {
        bool code = s->attr & X86_ATTR_CODE;

        if (access == MMU_WRITE ? code || !(s->attr & X86_ATTR_WRITE)
                                : access == MMU_READ && code && !(s->attr & X86_ATTR_WRITE))
            raise_segment(c, op, seg);
    }
    if ((s->attr & (X86_ATTR_CODE | X86_ATTR_DOWN)) == X86_ATTR_DOWN) {
        if (offset <= s->limit || last > (s->attr & X86_ATTR_DB ? 0xFFFFFFFF : 0xFFFF))
            raise_segment(c, op, seg);
    } else if (last > s->limit) {
        raise_segment(c, op, seg);
    }
    return (uint32_t)(offset + s->base);
}

/* Whether the software TLB may hold the 2 MiB around LINEAR as one large entry. PAGE is what LINEAR
 * was translated to. Returns false if the guest maps it by a small page, if the local APIC's page
 * or a data breakpoint lies there, or if a page there is not the guest's own. */
static bool is_whole(const struct vcpu *c, uint64_t linear, enum mmu_access access,
                     const struct mmu_page *page)
{
    uint64_t piece = 1ULL << MMU_LARGE_SHIFT;

    return page->page_bits > MEM_PAGE_SHIFT && (page->gpa ^ c->apic_page) >= piece &&
           mem_is_whole(c->mem, ALIGN_DOWN(page->gpa, piece) >> MEM_PAGE_SHIFT,
                        piece >> MEM_PAGE_SHIFT, access == MMU_WRITE ? MEM_WRITE : MEM_READ) &&
           !breakpoint_on_data(c, linear, MMU_LARGE_SHIFT);
}

/* Enters PAGE, to which LINEAR is translated, into both levels of the software TLB. Returns false,
 * and enters nothing, if a data breakpoint lies in the page. Only this function makes TLB entries
 * for data. */
static bool enter_data(struct vcpu *c, enum mmu_context context, enum mmu_access access,
                       uint64_t linear, void *host, struct mmu_page *page)
{
    if (breakpoint_on_data(c, linear, MEM_PAGE_SHIFT))
        return false;
    page->own = mem_is_own(c->mem, page->gpa >> MEM_PAGE_SHIFT, host);
    page->whole = is_whole(c, linear, access, page);
    mmu_fill(&c->mmu, context, access, linear, host, page);
    return true;
}

/* Whether writes to GPN must be noticed, because code has been found there. */
static bool holds_code(const struct vcpu *c, uint64_t gpn)
{
    return gpn < c->core->code_pages && atomic_load(&c->core->code[gpn].lines);
}

/* Finds the machine page of SPAN, which begins at the guest physical address PAGE->gpa, and enters
 * it into the software TLB if nothing keeps it out. Returns false, with vcpu.absent set, if the
 * page is not present. */
static bool span_find(struct vcpu *c, uint64_t linear, enum mmu_access access,
                      enum mmu_context context, struct mmu_page *page, struct span *span)
{
    uint64_t gpn = page->gpa >> MEM_PAGE_SHIFT, offset = page->gpa & (MEM_PAGE_SIZE - 1);
    enum mem_access how = access == MMU_WRITE ? MEM_WRITE : MEM_READ;
    enum mem_answer answer = MEM_NOT_RAM;
    void *host;

    *span = (struct span){.gpa = page->gpa, .size = span->size};
    if (gpn != c->apic_page >> MEM_PAGE_SHIFT)
        answer = mem_page(c->mem, gpn, how, &host);
    if (answer == MEM_ABSENT) {
        c->absent = (struct mmu_absent){gpn, how};
        return false;
    }
    if (answer == MEM_NOT_RAM) {
        if (how == MEM_WRITE && gpn != c->apic_page >> MEM_PAGE_SHIFT &&
            mem_page(c->mem, gpn, MEM_READ, &host) == MEM_OK)
            span->rom = (uint8_t *)host + offset;
        return true;
    }
    span->host = (uint8_t *)host + offset;
    span->in_place = how == MEM_READ || !holds_code(c, gpn);
    span->cached = span->in_place && enter_data(c, context, access, linear, host, page);
    return true;
}

/* Translates LINEAR, where SPAN begins; SPAN->size is set already. Returns false, with vcpu.absent
 * set, if the page or one of the guest's page tables is not present: the caller waits for it and
 * translates again, or gives up the instruction. */
static bool span_translate(struct vcpu *c, const struct uop *op, uint64_t linear,
                           enum mmu_access access, enum mmu_context context, struct span *span)
{
    enum mmu_result result;
    struct mmu_page page;
    uint32_t error;
    unsigned before;
    bool present;

    counter_add(&c->exits[CAUSE_TLB_MISS], 1);
    before = meter_enter(c->meter, CAUSE_TLB_MISS, 0, linear, access);
    result = mmu_walk(c->mem, &c->x, linear, access, context, &page, &error, &c->absent);
    if (result == MMU_FAULT) {
        meter_detail(c->meter, CAUSE_TLB_MISS, linear, access | TRACE_FAULT);
        meter_leave(c->meter, before);
        raise_page_fault(c, op, linear, error);
    }
    present = result == MMU_DONE && span_find(c, linear, access, context, &page, span);
    meter_leave(c->meter, before);
    return present;
}

/* The segment of OP's memory operand; see struct interpreter. */
static unsigned operand_segment(const struct vcpu *c, const struct uop *op, bool *wraps)
{
    return op ? c->core->interpreter->segment(op, wraps) : X86_DS;
}

/* Translates a whole operand, which may lie in two pages, before any of it is accessed. Returns the
 * number of spans, or 0 if a page is not present. */
static unsigned try_spans(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                          enum mmu_access access, enum mmu_context context, struct span span[2])
{
    unsigned first = MEM_PAGE_SIZE - (linear & (MEM_PAGE_SIZE - 1));
    uint64_t last = linear + size - 1;
    bool wraps;

    if (in_long_mode(c) && !(is_canonical(linear) && is_canonical(last)))
        raise_segment(c, op, operand_segment(c, op, &wraps));
    if (op && !(linear >> 32) && last >> 32) {
        unsigned seg = operand_segment(c, op, &wraps);

        if (wraps)
            raise_segment(c, op, seg);
    }
    if (c->check_alignment && context == MMU_USER && size <= 8 && (linear & (size - 1)))
        raise_error(c, op, X86_AC, 0);
    span[0].size = MIN(size, first);
    if (!span_translate(c, op, linear, access, context, &span[0]))
        return 0;
    if (c->watches_data && context == c->context)
        debug_data_access(c, op, linear, size, access == MMU_WRITE);
    if (size <= first)
        return 1;
    span[1].size = size - first;
    linear += first;
    if (!in_long_mode(c))
        linear = (uint32_t)linear;
    return span_translate(c, op, linear, access, context, &span[1]) ? 2 : 0;
}

/* Does the same for an access that copies a value: waits for pages that are not present. */
static unsigned value_spans(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                            enum mmu_access access, enum mmu_context context, struct span span[2])
{
    unsigned spans;

    while (unlikely(!(spans = try_spans(c, op, linear, size, access, context, span)))) {
        if (c->holds_stop) /* they are stopped, and would have to wait for the page, too */
            raise_absent(c, op);
        present_wait(c);
    }
    return spans;
}

/* Does the same for an access that needs a host address: if a page is not present, gives up the
 * instruction, which is executed again when the page is there. */
static unsigned operand_spans(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                              enum mmu_access access, enum mmu_context context, struct span span[2])
{
    unsigned spans = try_spans(c, op, linear, size, access, context, span);

    if (unlikely(!spans))
        raise_absent(c, op);
    return spans;
}

static uint64_t mmio_read(struct vcpu *c, const struct uop *op, uint64_t gpa, unsigned size)
{
    unsigned before = meter_enter(c->meter, CAUSE_MMIO, c->x.reg[X86_RIP], gpa, size);
    uint64_t value;

    counter_add(&c->exits[CAUSE_MMIO], 1);
    debug_device_access(c, op);
    if ((gpa ^ c->apic_page) < MEM_PAGE_SIZE)
        value = c->port->apic_ops->mmio_read(c->port->apic, gpa & (MEM_PAGE_SIZE - 1), size);
    else
        value = bus_read(c->bus, BUS_MMIO, gpa, size);
    meter_leave(c->meter, before);
    return value;
}

static void mmio_write(struct vcpu *c, const struct uop *op, uint64_t gpa, unsigned size,
                       uint64_t value)
{
    unsigned before = meter_enter(c->meter, CAUSE_MMIO, c->x.reg[X86_RIP], gpa, size | TRACE_WRITE);

    counter_add(&c->exits[CAUSE_MMIO], 1);
    debug_device_access(c, op);
    if ((gpa ^ c->apic_page) < MEM_PAGE_SIZE) {
        c->port->apic_ops->mmio_write(c->port->apic, gpa & (MEM_PAGE_SIZE - 1), size, value);
        c->check_interrupt = true;
    } else if (unlikely(bus_write(c->bus, BUS_MMIO, gpa, size, value))) {
        cpu_port_hold(c->port);
    }
    meter_leave(c->meter, before);
}

unsigned mmio_width(uint64_t gpa, unsigned left)
{
    unsigned width = 8;

    while (width > left || (width > 1 && (gpa & (width - 1)) && width > (left & -left)))
        width /= 2;
    return width;
}

/* Copies SIZE bytes out of guest memory, in one host access if there is one of that size: guests
 * rely on it that such an access is atomic. */
static void host_load(uint8_t *buf, const uint8_t *host, unsigned size)
{
    switch (size) {
    case 1: *buf = *(const volatile uint8_t *)host; break;
    case 2: *(unaligned16 *)buf = *(const volatile unaligned16 *)host; break;
    case 4: *(unaligned32 *)buf = *(const volatile unaligned32 *)host; break;
    case 8: *(unaligned64 *)buf = *(const volatile unaligned64 *)host; break;
    default: memcpy(buf, host, size); break;
    }
}

static void host_store(uint8_t *host, const uint8_t *buf, unsigned size)
{
    switch (size) {
    case 1: *(volatile uint8_t *)host = *buf; break;
    case 2: *(volatile unaligned16 *)host = *(const unaligned16 *)buf; break;
    case 4: *(volatile unaligned32 *)host = *(const unaligned32 *)buf; break;
    case 8: *(volatile unaligned64 *)host = *(const unaligned64 *)buf; break;
    default: memcpy(host, buf, size); break;
    }
}

static void span_read(struct vcpu *c, const struct uop *op, const struct span *span, uint8_t *buf)
{
    const uint8_t *host = span->host ? span->host : span->rom;

    if (host) {
        host_load(buf, host, span->size);
        return;
    }
    for (unsigned done = 0; done < span->size;) {
        unsigned width = mmio_width(span->gpa + done, span->size - done);
        uint64_t value = mmio_read(c, op, span->gpa + done, width);

        memcpy(buf + done, &value, width);
        done += width;
    }
}

static void span_write(struct vcpu *c, const struct uop *op, const struct span *span,
                       const uint8_t *buf)
{
    if (span->host) {
        host_store(span->host, buf, span->size);
        if (!span->in_place && code_written(c->core, c, span->gpa, span->size)) {
            counter_add(&c->forgets[FORGET_WRITTEN], 1);
            c->core->interpreter->code_written(c);
        }
        return;
    }
    for (unsigned done = 0; done < span->size;) {
        unsigned width = mmio_width(span->gpa + done, span->size - done);
        uint64_t value = 0;

        memcpy(&value, buf + done, width);
        mmio_write(c, op, span->gpa + done, width, value);
        done += width;
    }
}

static void guest_read(struct vcpu *c, const struct uop *op, uint64_t linear, void *buf,
                       unsigned size, enum mmu_context context)
{
    struct span span[2];
    unsigned spans = value_spans(c, op, linear, size, MMU_READ, context, span);

    for (unsigned i = 0, at = 0; i < spans; at += span[i++].size)
        span_read(c, op, &span[i], (uint8_t *)buf + at);
}

static void guest_write(struct vcpu *c, const struct uop *op, uint64_t linear, const void *buf,
                        unsigned size, enum mmu_context context)
{
    struct span span[2];
    unsigned spans = value_spans(c, op, linear, size, MMU_WRITE, context, span);

    for (unsigned i = 0, at = 0; i < spans; at += span[i++].size)
        span_write(c, op, &span[i], (const uint8_t *)buf + at);
}

uint64_t load_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size)
{
    uint64_t value = 0;

    guest_read(c, op, linear, &value, size, c->context);
    return value;
}

void store_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                uint64_t value)
{
    guest_write(c, op, linear, &value, size, c->context);
}

/* Returns the context of the processor's own accesses. */
static enum mmu_context system_context(const struct vcpu *c)
{
    return c->x.cr4 & X86_CR4_SMAP ? MMU_SUPER : MMU_SUPER_AC;
}

/* Returns the host address for an access of the processor itself, or NULL if the software TLB does
 * not have it. Alignment is never checked for such an access, so the current table need not be
 * asked. */
static void *fast_system(const struct vcpu *c, enum mmu_access access, uint64_t linear,
                         unsigned size)
{
    const struct mmu_entry *e = mmu_entry(c->mmu.table[system_context(c)], access, linear);

    return mmu_hit(e, linear, size) ? (void *)(linear + e->addend) : NULL;
}

uint64_t load_system(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size)
{
    const void *host = fast_system(c, MMU_READ, linear, size);
    uint64_t value = 0;

    if (host) {
        host_load((uint8_t *)&value, host, size);
        return value;
    }
    guest_read(c, op, linear, &value, size, system_context(c));
    return value;
}

void store_system(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                  uint64_t value)
{
    void *host = fast_system(c, MMU_WRITE, linear, size);

    if (host) {
        host_store(host, (const uint8_t *)&value, size);
        return;
    }
    guest_write(c, op, linear, &value, size, system_context(c));
}

void load_bytes_slow(struct vcpu *c, const struct uop *op, uint64_t linear, void *buf,
                     unsigned size)
{
    guest_read(c, op, linear, buf, size, c->context);
}

void store_bytes_slow(struct vcpu *c, const struct uop *op, uint64_t linear, const void *buf,
                      unsigned size)
{
    guest_write(c, op, linear, buf, size, c->context);
}

/* Returns where in the host the guest physical address GPA can be written to. Waits until the page
 * is present. Returns NULL if it cannot be written to. */
static uint8_t *physical_page(struct vcpu *c, uint64_t gpa)
{
    uint64_t gpn = gpa >> MEM_PAGE_SHIFT;
    enum mem_answer answer;
    void *host;

    while ((answer = mem_page(c->mem, gpn, MEM_WRITE, &host)) == MEM_ABSENT) {
        c->absent = (struct mmu_absent){gpn, MEM_WRITE};
        present_wait(c);
    }
    return answer == MEM_OK ? (uint8_t *)host + (gpa & (MEM_PAGE_SIZE - 1)) : NULL;
}

void store_physical(struct vcpu *c, uint64_t gpa, const void *buf, unsigned size)
{
    if (!mem_is_ram(c->mem, gpa, size))
        return;
    for (unsigned done = 0; done < size;) {
        uint64_t at = gpa + done;
        unsigned part = (unsigned)MIN(size - done, MEM_PAGE_SIZE - (at & (MEM_PAGE_SIZE - 1)));
        uint8_t *host = physical_page(c, at);

        if (host)
            memcpy(host, (const uint8_t *)buf + done, part);
        if (host && code_written(c->core, c, at, part))
            c->core->interpreter->code_written(c);
        done += part;
    }
}

void probe_write(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size)
{
    struct span span[2];

    value_spans(c, op, linear, size, MMU_WRITE, c->context, span);
}

bool fill_software_tlb(struct vcpu *c, uint64_t linear, unsigned size, bool write)
{
    enum mmu_access access = write ? MMU_WRITE : MMU_READ;
    struct span span;

    if (!is_canonical(linear) || (linear & (MEM_PAGE_SIZE - 1)) + size > MEM_PAGE_SIZE ||
        breakpoint_on_data(c, linear, MEM_PAGE_SHIFT))
        return false;
    if (!span_translate(c, NULL, linear, access, c->context, &span))
        raise_absent(c, NULL);
    return span.cached;
}

/* Returns the place in the bounce buffer for an operand at LINEAR, which has the same offset in a
 * cache line. */
static uint8_t *bounce_at(struct vcpu *c, uint64_t linear)
{
    return c->bounce + (linear & 63);
}

void *read_ptr_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size)
{
    struct span span[2];
    unsigned spans = operand_spans(c, op, linear, size, MMU_READ, c->context, span);

    if (spans == 1 && span[0].host)
        return span[0].host;
    for (unsigned i = 0, at = 0; i < spans; at += span[i++].size)
        span_read(c, op, &span[i], bounce_at(c, linear) + at);
    return bounce_at(c, linear);
}

void *write_ptr_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size,
                     bool read)
{
    unsigned spans = operand_spans(c, op, linear, size, MMU_WRITE, c->context, c->bounced);

    if (spans == 1 && c->bounced[0].in_place)
        return c->bounced[0].host;
    for (unsigned i = 0; i < spans; i++)
        if (!c->bounced[i].host)
            debug_device_access(
                c, op); /* may restart the instruction as a step, which commit_ptr must not */
    for (unsigned i = 0, at = 0; read && i < spans; at += c->bounced[i++].size)
        span_read(c, op, &c->bounced[i], bounce_at(c, linear) + at);
    c->bounce_va = linear;
    c->bounced_spans = spans;
    return bounce_at(c, linear);
}

void commit_ptr_slow(struct vcpu *c, const struct uop *op)
{
    unsigned spans = c->bounced_spans;

    c->bounced_spans = 0;
    for (unsigned i = 0, at = 0; i < spans; at += c->bounced[i++].size)
        span_write(c, op, &c->bounced[i], bounce_at(c, c->bounce_va) + at);
}

/* Stops the other vCPUs at a safe point, until vcpu_resume_others or until this vCPU raises a
 * fault. They may run before they stop and change mappings and code, so the caller translates its
 * operand again. */
static void stop_others(struct vcpu *c)
{
    present_stop_others(c);
    c->holds_stop = true;
}

void vcpu_resume_others(struct vcpu *c)
{
    c->holds_stop = false;
    present_resume_others(c);
}

void *locked_ptr_slow(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned size)
{
    struct span span[2];
    unsigned spans = operand_spans(c, op, linear, size, MMU_WRITE, c->context, span);

    if (spans == 1 && span[0].in_place && !splits_line(linear, size))
        return span[0].host;
    stop_others(c);
    spans = operand_spans(c, op, linear, size, MMU_WRITE, c->context, c->locked);
    for (unsigned i = 0, at = 0; i < spans; at += c->locked[i++].size)
        span_read(c, op, &c->locked[i], c->bounce + at);
    c->locked_spans = spans;
    return c->bounce;
}

void commit_locked_slow(struct vcpu *c)
{
    for (unsigned i = 0, at = 0; i < c->locked_spans; at += c->locked[i++].size)
        span_write(c, NULL, &c->locked[i], c->bounce + at);
    vcpu_resume_others(c);
}
