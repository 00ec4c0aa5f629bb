/*
 * Regions: which instructions are translated together, and the flow of status flags between them.
 *
 * A region holds the instructions that can be reached from its first one within its page, those
 * behind calls included, up to a limit; so loops run without leaving the code. It ends where code
 * is translated already, which it is linked to, and at code that has never been executed: most of
 * that never will be.
 */
#include "cpu/bt/translate.h"

#include "cpu/core/code.h"
#include "cpu/core/fetch.h"

#include <string.h>

/* Registers that can stand in for the usual scratch registers when a region uses those. */
static const uint16_t spare_registers =
    1u << X86_RBX | 1u << X86_RBP | 1u << X86_RSI | 1u << X86_RDI | 1u << X86_R8 | 1u << X86_R9 |
    1u << X86_R12 | 1u << X86_R13 | 1u << X86_R14 | 1u << X86_R15;
static const uint16_t scratch_registers = 1u << SCRATCH0 | 1u << SCRATCH1;

/* Whether code that uses REGISTERS leaves the translator two scratch registers. */
static bool leaves_scratch(uint16_t registers)
{
    return !(registers & scratch_registers) ||
           __builtin_popcount(spare_registers & ~(unsigned)registers) >= 2;
}

static bool is_direct(const struct translation *t, const struct x86_insn *insn)
{
    return insn->info->class == X86_CLASS_BRANCH && !cuts_target(t, insn) &&
           insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
           insn->z.mnemonic != ZYDIS_MNEMONIC_RET;
}

static bool is_conditional(const struct translation *t, const struct x86_insn *insn)
{
    return is_direct(t, insn) && insn->z.mnemonic != ZYDIS_MNEMONIC_JMP &&
           insn->z.mnemonic != ZYDIS_MNEMONIC_CALL;
}

static unsigned next_offset(const struct translation *t, unsigned i)
{
    return t->offset[i] + t->insn[i].z.length;
}

static int64_t target_offset(const struct translation *t, unsigned i)
{
    return (int64_t)next_offset(t, i) + t->insn[i].op[0].imm.value.s;
}

/* Whether the instruction behind INSN is not executed next, whatever INSN does. */
static bool ends_run(const struct translation *t, const struct x86_insn *insn)
{
    return insn->info->class == X86_CLASS_FAR ||
           (insn->info->class == X86_CLASS_BRANCH && !is_conditional(t, insn));
}

static uint64_t gpa_of(const struct translation *t, unsigned offset)
{
    return ALIGN_DOWN(t->gpa, MEM_PAGE_SIZE) + offset;
}

/* Finds where the region's page is; anew whenever other vCPUs may have run, as it may have been
 * taken away. Returns false if it has. */
static bool find_page(struct translation *t)
{
    t->page = mem_peek(t->bt->c.mem, t->gpa >> MEM_PAGE_SHIFT);
    return t->page;
}

/* Whether the interpreter has executed the code at OFFSET, behind a branch; or whether that says
 * nothing, because code is translated before it is executed, or because an instruction may lie
 * across two pages there. */
static bool has_run(const struct translation *t, unsigned offset)
{
    return t->cache->switches.heat < 2 || offset > MEM_PAGE_SIZE - X86_LENGTH_MAX ||
           t->bt->c.core->interpreter->has_run(&t->bt->c, gpa_of(t, offset));
}

static const bool *features(const struct translation *t)
{
    return t->bt->c.core->machine.model.feature;
}

/* Decodes an instruction that begins at OFFSET and ends in the next virtual page. Returns its
 * length, or 0 if the next page is not mapped or not in RAM. */
static int decode_across(struct translation *t, unsigned offset, struct x86_insn *insn)
{
    struct vcpu *c = &t->bt->c;
    uint64_t next = ALIGN_DOWN(c->x.reg[X86_RIP], MEM_PAGE_SIZE) + MEM_PAGE_SIZE, gpa;
    unsigned first = MEM_PAGE_SIZE - offset;
    uint8_t bytes[X86_LENGTH_MAX];
    const uint8_t *page;
    int length;

    if (!t->code64)
        next = (uint32_t)next;
    if (t->beyond.insn || !fetch_peek(c, next, &gpa))
        return 0;
    if (!mem_holds_code(c->mem, gpa >> MEM_PAGE_SHIFT) ||
        gpa >> MEM_PAGE_SHIFT >= c->core->code_pages)
        return 0;
    /* Read the generation before code_watch. A page that is written often is watched no more, and
     * its generation moves on one last time after that: if this is read later than that, nothing
     * shows that the code has changed. */
    t->beyond.gpa = gpa;
    t->beyond.generation = atomic_load(bt_generation(t->bt, gpa));
    code_watch(c, gpa, X86_LENGTH_MAX);
    page = mem_peek(c->mem, gpa >> MEM_PAGE_SHIFT);
    if (!page || !find_page(t)) /* it is not present any more */
        return 0;
    memcpy(bytes, t->page + offset, first);
    memcpy(bytes + first, page, sizeof(bytes) - first);
    length = x86_decode_for(features(t), code_size(t), false, bytes, sizeof(bytes), insn);
    if (length > 0)
        t->beyond.insn = t->count + 1;
    return length;
}

/* Decodes the instruction at OFFSET and adds it to the region. Returns false if the region ends in
 * front of it. */
static bool take(struct translation *t, unsigned offset)
{
    struct x86_insn *insn = &t->insn[t->count];
    struct flow *flow = &t->flow[t->count];
    int length;

    if (!t->page || t->count == t->cache->switches.region_max ||
        bt_is_stop(t->cache, gpa_of(t, offset)))
        return false;
    length = x86_decode_for(features(t), code_size(t), false, t->page + offset,
                            MEM_PAGE_SIZE - offset, insn);
    if (length == 0)
        length = decode_across(t, offset, insn);
    if (length <= 0)
        return false;
    flow_of(insn, flow);
    if (!leaves_scratch(t->registers | flow->registers))
        return false;
    if (scope_excludes(t, insn) || insn->info->class == X86_CLASS_FAR)
        flow->flags_in = X86_FLAGS_STATUS;
    t->registers |= flow->registers;
    t->offset[t->count++] = (uint16_t)offset;
    t->index[offset] = (uint16_t)t->count;
    return true;
}

/* Whether the code at OFFSET is translated already, and is not the code to translate again. */
static bool ends_at(const struct translation *t, unsigned offset)
{
    return !(t->again && t->count == 0) && bt_entry_find(t->bt, gpa_of(t, offset));
}

/* Adds the code from OFFSET on to the region, until it ends or meets code of the region. */
static void take_run(struct translation *t, int64_t offset)
{
    bool branch = !t->again || t->count;

    while (offset >= 0 && offset < (int64_t)MEM_PAGE_SIZE && !t->index[offset] &&
           !(branch && !has_run(t, (unsigned)offset)) && !ends_at(t, (unsigned)offset) &&
           take(t, (unsigned)offset)) {
        unsigned i = t->count - 1;

        if (ends_run(t, &t->insn[i]))
            return;
        branch = is_conditional(t, &t->insn[i]);
        offset = next_offset(t, i);
    }
}

/* Adds the code that the region's branches lead to, and that its calls return to. */
static void take_all(struct translation *t)
{
    take_run(t, t->gpa & (MEM_PAGE_SIZE - 1));
    for (unsigned i = 0; i < t->count; i++) {
        if (t->insn[i].z.mnemonic == ZYDIS_MNEMONIC_CALL)
            take_run(t, next_offset(t, i));
        else if (is_direct(t, &t->insn[i]))
            take_run(t, target_offset(t, i));
    }
}

/* The region's instruction at OFFSET, or -1. */
static int instruction_at(const struct translation *t, int64_t offset)
{
    if (offset < 0 || offset >= (int64_t)MEM_PAGE_SIZE || (t->index[offset] & AHEAD))
        return -1;
    return t->index[offset] - 1;
}

/* Notes that a part begins at OFFSET, if that is in the region. */
static void mark_leader(struct translation *t, int64_t offset, bool other_way_in)
{
    int i = instruction_at(t, offset);

    if (i >= 0) {
        t->leader[i] = 1;
        t->other_ways_in[i] |= other_way_in;
    }
}

/* Cuts the instructions into parts, in the order they were found. Returns false if there are too
 * many. */
static bool cut(struct translation *t)
{
    memset(t->leader, 0, sizeof(t->leader));
    memset(t->other_ways_in, 0, sizeof(t->other_ways_in));
    memset(t->after_call, 0, sizeof(t->after_call));
    for (unsigned i = 0; i < t->count; i++) {
        int next = instruction_at(t, next_offset(t, i));

        if (next >= 0)
            t->after_call[next] |= t->insn[i].z.mnemonic == ZYDIS_MNEMONIC_CALL;
        if (is_direct(t, &t->insn[i]))
            mark_leader(t, target_offset(t, i), true);
        if (t->insn[i].info->class == X86_CLASS_BRANCH)
            mark_leader(t, next_offset(t, i), !is_conditional(t, &t->insn[i]));
        if (i + 1 == t->count || t->offset[i + 1] != next_offset(t, i)) {
            mark_leader(t, next_offset(t, i), true);
            if (i + 1 < t->count)
                t->leader[i + 1] = t->other_ways_in[i + 1] = true;
        }
    }
    t->leader[0] = t->other_ways_in[0] = true;
    for (unsigned i = 0; i < t->count; i++) {
        struct part *p = &t->part[t->parts];

        if (t->leader[i]) {
            if (t->parts == PARTS_MAX)
                return false;
            *p = (struct part){.first = (uint16_t)i,
                               .start = t->offset[i],
                               .only_from_before = !t->other_ways_in[i],
                               .after_call = t->after_call[i]};
            t->leader[i] = (uint16_t)++t->parts;
        }
        p = &t->part[t->parts - 1];
        p->count++;
        p->end = (uint16_t)next_offset(t, i);
    }
    return true;
}

struct part *region_part(struct translation *t, int64_t offset)
{
    int i = instruction_at(t, offset);

    return i >= 0 && t->leader[i] ? &t->part[t->leader[i] - 1] : NULL;
}

/* Returns the flags that are live at OFFSET, which is not in the region. */
static uint32_t live_ahead(struct translation *t, unsigned offset)
{
    const struct bt_entry *entry = bt_entry_find(t->bt, gpa_of(t, offset));

    return entry ? entry->live : flow_peek(features(t), t->page, offset, code_size(t));
}

/* Returns the flags that are live where control goes to OFFSET. */
static uint32_t live_at(struct translation *t, int64_t offset)
{
    const struct part *p = region_part(t, offset);

    if (p)
        return p->live;
    if (offset < 0 || offset >= (int64_t)MEM_PAGE_SIZE)
        return X86_FLAGS_STATUS;
    if (!t->index[offset])
        t->index[offset] = (uint16_t)(AHEAD | live_ahead(t, (unsigned)offset));
    return t->index[offset] & ~AHEAD;
}

/* Returns the flags that are live behind the last instruction of P. */
static uint32_t live_behind(struct translation *t, const struct part *p)
{
    unsigned last = p->first + p->count - 1u;
    const struct x86_insn *insn = &t->insn[last];
    uint32_t live = 0;

    if (insn->info->class != X86_CLASS_BRANCH)
        return insn->info->class == X86_CLASS_FAR ? X86_FLAGS_STATUS : live_at(t, p->end);
    if (!is_direct(t, insn))
        return X86_FLAGS_STATUS;
    live = live_at(t, target_offset(t, last));
    if (is_conditional(t, insn))
        live |= live_at(t, p->end);
    return live;
}

/* Finds the flags that are live behind each instruction and at the start of each part. Parts are
 * looked at again until nothing changes. */
static void find_liveness(struct translation *t)
{
    bool changed;

    do {
        changed = false;
        for (unsigned n = t->parts; n-- > 0;) {
            struct part *p = &t->part[n];
            uint32_t live = live_behind(t, p);

            for (unsigned i = p->first + p->count; i-- > p->first;) {
                t->flow[i].live_after = live;
                live = (live & ~t->flow[i].flags_out) | t->flow[i].flags_in;
            }
            changed |= live != p->live;
            p->live = live;
        }
    } while (changed);
}

/* Returns the register files that INSN uses. */
static unsigned files_of(const struct x86_insn *insn)
{
    unsigned files = insn->info->class == X86_CLASS_X87 ? BT_X87 : 0;

    if (x86_uses_vectors(insn))
        files |= insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? BT_AVX : BT_SSE;
    return files;
}

/* Has writes to the code at OFFSET noticed if that code has been looked at for live flags. */
static void watch_peeked(struct translation *t, int64_t offset)
{
    if (offset >= 0 && offset < (int64_t)MEM_PAGE_SIZE && !region_part(t, offset))
        code_watch(&t->bt->c, gpa_of(t, (unsigned)offset),
                   MIN(PEEK_BYTES, MEM_PAGE_SIZE - (uint64_t)offset));
}

/* Has writes to the region's code noticed. A write since it was decoded has moved the generation on
 * already, so that the translation is out of date from the start. */
static void watch(struct translation *t)
{
    for (unsigned n = 0; n < t->parts; n++) {
        const struct part *p = &t->part[n];
        unsigned last = p->first + p->count - 1u;

        code_watch(&t->bt->c, gpa_of(t, p->start), (uint64_t)p->end - p->start);
        watch_peeked(t, p->end);
        if (is_direct(t, &t->insn[last]))
            watch_peeked(t, target_offset(t, last));
    }
}

/* For tests: removes members from the set FREE at random, but leaves two. */
static unsigned forget_some(struct bt *bt, unsigned free)
{
    for (unsigned i = 0; i < 16 && __builtin_popcount(free) > 2; i++) {
        bt->scratch_seed = bt->scratch_seed * 6364136223846793005 + 1442695040888963407;
        free &= ~(1u << (bt->scratch_seed >> 60));
    }
    return free;
}

/* Chooses the scratch registers of the region: R10 and R11, unless its code uses them. */
static void choose_scratch(struct translation *t)
{
    unsigned free = spare_registers & ~(unsigned)t->registers;

    t->s0 = SCRATCH0;
    t->s1 = SCRATCH1;
    if (!t->code64) /* 32-bit code does not name these; the others are range_registers */
        return;
    if (t->cache->switches.scratch_seed)
        free = forget_some(t->bt, free);
    if (t->cache->switches.scratch_seed ? __builtin_popcount(free) < 2
                                        : !(t->registers & scratch_registers))
        return;
    t->s0 = 31u - (unsigned)__builtin_clz(free);
    t->s1 = 31u - (unsigned)__builtin_clz(free & ~(1u << t->s0));
}

/* Whether the bytes are still those that were decoded. */
static bool unchanged(const struct translation *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        unsigned length = t->insn[i].z.length, here = MIN(length, MEM_PAGE_SIZE - t->offset[i]);

        /* The bytes in the next page have been read after code_watch. */
        if (memcmp(t->page + t->offset[i], t->insn[i].bytes, here) != 0)
            return false;
    }
    return true;
}

bool region_find(struct translation *t)
{
    memset(t->index, 0, sizeof(t->index));
    t->beyond.insn = 0;
    t->registers = 1u << X86_RAX | 1u << X86_RCX | 1u << X86_RDX | 1u << X86_RSP;
    t->code64 = in_64(&t->bt->c);
    if (find_page(t))
        take_all(t);
    /* Writes are noticed from here on; an earlier one shows in the bytes. */
    if (!t->count || !cut(t))
        return false;
    watch(t);
    if (!find_page(t) || !unchanged(t))
        return false;
    find_liveness(t);
    for (unsigned i = 0; i < t->count; i++)
        if (!scope_excludes(t, &t->insn[i]))
            t->files |= (uint8_t)files_of(&t->insn[i]);
    choose_scratch(t);
    return true;
}
