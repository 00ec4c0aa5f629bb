/*
 * Translation of a region: its parts, instruction by instruction, and their entrances.
 */
#include "cpu/bt/translate.h"

#include <string.h>

#define ENTRY_ALIGN 16

/* Whether the inlined code of INSN is so long that it is emitted only where INSN is frequent. */
static bool has_big_handler(const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: return is_bit_string(insn);
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: return true;
    default: return insn->info->class == X86_CLASS_STRING && string_repeats(insn);
    }
}

/* Whether the present instruction is not inlined until it proves to be frequent. */
static bool is_deferred(const struct translation *t)
{
    return t->cache->switches.inline_after && has_big_handler(&t->insn[t->i]) &&
           !(t->again && t->i == 0);
}

static bool translate_insn(struct translation *t, const struct x86_insn *insn)
{
    if (scope_excludes(t, insn) || is_deferred(t))
        return false;
    switch ((enum x86_class)insn->info->class) {
    case X86_CLASS_INTEGER: return translate_integer(t, insn);
    case X86_CLASS_NATIVE: return translate_native(t, insn);
    case X86_CLASS_X87: return translate_x87(t, insn);
    case X86_CLASS_XSTATE: return translate_mxcsr(t, insn);
    case X86_CLASS_STACK: return translate_stack(t, insn);
    case X86_CLASS_BRANCH: return translate_branch(t, insn);
    case X86_CLASS_STRING: return translate_string(t, insn);
    case X86_CLASS_SYSTEM: return translate_system(t, insn);
    case X86_CLASS_FAR: return translate_far(t, insn);
    default: return false;
    }
}

/* Counts the part's instructions if the machine is measured. Does not change live flags. */
static void emit_count(struct translation *t, const struct part *p)
{
    if (!t->bt->c.core->machine.measure)
        return;
    if (!p->live) {
        emit_alu_mem_imm(&t->e, true, ALU_N_ADD, VCPU(c.instructions), p->count);
        return;
    }
    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(c.instructions));
    emit_mem(&t->e, true, OP_LEA, t->s0, at(t->s0, p->count));
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(c.instructions));
}

static void emit_part(struct translation *t, struct part *p)
{
    t->now = p;
    t->i = p->first;
    p->code = t->e.at;
    t->goes_on = false;
    if (!p->only_from_before)
        group_forget(t);
    t->flags = p->live ? FLAGS_HOST : FLAGS_MEMORY;
    t->x87_page = false;
    emit_count(t, p);
    for (; t->i < (unsigned)p->first + p->count && !t->e.full; t->i++) {
        const struct x86_insn *insn = &t->insn[t->i];
        enum flags_place flags = t->flags;
        uint8_t *start = t->e.at;
        unsigned colds = t->colds;

        t->keeps_s1 = false;
        if (t->beyond.insn == t->i + 1)
            emit_check_beyond(t);
        if (!translate_insn(t, insn)) {
            t->e.at = start; /* drops what was emitted of it */
            t->colds = colds;
            t->flags = flags;
            t->x87_page = false;
            if (insn->info->class != X86_CLASS_FAR && insn->info->class != X86_CLASS_BRANCH) {
                emit_one(t, is_deferred(t) && !scope_excludes(t, insn));
                continue;
            }
            flags_leave(t, X86_FLAGS_STATUS);
            emit_exit_one(t, t->i, instructions_left(t));
            return;
        }
        if (group_breaks(t, t->i))
            group_forget(t);
        else
            group_after(t, t->keeps_s1);
        if (insn->info->class == X86_CLASS_BRANCH || insn->info->class == X86_CLASS_FAR)
            return;
    }
    if (t->e.full)
        return;
    t->i--;
    emit_goto(t, p->end, t->flow[t->i].live_after);
}

/* Begins to emit code, behind room for struct bt_front. If the host has no memory for more code,
 * the cache is full for now. */
static void begin(struct translation *t)
{
    struct bt_cache *cache = t->cache;
    uint32_t end;

    cache->used = (uint32_t)ALIGN_UP(cache->used + sizeof(struct bt_front), ENTRY_ALIGN);
    end = code_memory_provide(&cache->memory, (uint64_t)cache->used + BT_CODE_LEAST);
    t->e = (struct emitter){.at = cache->write + cache->used, .end = cache->write + end};
}

/* Keeps the code that was emitted. Returns it where it is executed, or NULL if the cache is full.
 */
static const void *finish(struct translation *t)
{
    struct bt_cache *cache = t->cache;
    const void *code = cache->run + cache->used;

    if (t->e.full) {
        /* What does not fit into an empty cache never will. */
        t->bt->full = cache->used > ALIGN_UP(cache->first + sizeof(struct bt_front), ENTRY_ALIGN);
        return NULL;
    }
    cache->used = (uint32_t)(t->e.at - cache->write);
    return code;
}

/* Emits an entrance to P in front of it if a return will want one: there it takes no jump, and what
 * the host fetches of its code is the part's own. Returns the entrance, or NULL. */
static const uint8_t *emit_entrance_here(struct translation *t, struct part *p)
{
    const uint8_t *entrance;

    if (!p->after_call || t->goes_on)
        return NULL;
    emit_bytes(&t->e, &(struct bt_front){0}, sizeof(struct bt_front));
    entrance = t->e.at;
    t->now = p;
    t->i = p->first;
    emit_entry(t, p->start, p->live);
    return entrance;
}

static const void *emit_region(struct translation *t)
{
    const uint8_t *entrance[PARTS_MAX];
    const void *code;

    begin(t);
    entrance[0] = t->e.at;
    t->now = &t->part[0];
    emit_entry(t, t->part[0].start, t->part[0].live);
    for (unsigned n = 0; n < t->parts; n++) {
        if (n)
            entrance[n] = emit_entrance_here(t, &t->part[n]);
        emit_part(t, &t->part[n]);
    }
    emit_cold(t);
    code = finish(t);
    for (unsigned n = 0; code && n < t->parts; n++)
        if (!t->part[n].only_from_before)
            bt_entry_add(t, &t->part[n], entrance[n]);
    return code;
}

/* Prepares the translation of the code at GPA. Returns NULL, with bt.full, if there may be no room.
 */
static struct translation *start(struct bt *bt, uint64_t gpa, uint32_t generation)
{
    struct bt_cache *cache = bt->cache;
    struct translation *t = &cache->work;

    bt->full = cache->memory.size - cache->used < ENTRY_ALIGN * 2 ||
               BT_EXIT_POINTS - cache->exit_points_used < COLDS + REGION_MAX ||
               bt_entries_full(&cache->entries);
    if (bt->full)
        return NULL;
    memset(t, 0, offsetof(struct translation, index));
    t->bt = bt;
    t->cache = cache;
    t->gpa = gpa;
    t->generation = generation;
    t->single_checks = bt->single_checks || cache->switches.single_checks;
    return t;
}

static const void *translate(struct bt *bt, uint64_t gpa, uint32_t generation, bool again)
{
    struct translation *t = start(bt, gpa, generation);
    const void *code;

    if (!t)
        return NULL;
    t->again = again;
    if (!region_find(t))
        return NULL;
    code = emit_region(t);
    if (code) {
        counter_add(&bt->translations, 1);
        counter_add(&bt->retranslations, again);
        counter_add(&bt->translated_instructions, t->count);
    }
    return code;
}

const void *bt_translate(struct bt *bt, uint64_t gpa, uint32_t generation)
{
    return translate(bt, gpa, generation, false);
}

const void *bt_translate_again(struct bt *bt, uint64_t gpa, uint32_t generation)
{
    return translate(bt, gpa, generation, true);
}

const void *bt_entrance_add(struct bt *bt, struct bt_entry *entry)
{
    struct translation *t = start(bt, entry->id & BT_CODE_ID_GPA, entry->generation);
    const void *code;

    if (!t)
        return NULL;
    t->s0 = entry->s0;
    t->s1 = entry->s1;
    t->files = entry->files;
    begin(t);
    emit_entry(t, t->gpa & (MEM_PAGE_SIZE - 1), entry->live);
    emit_jmp_to(&t->e, t->cache->write + entry->inside);
    emit_cold(t);
    code = finish(t);
    if (code)
        atomic_store_explicit(&entry->entrance, (uint32_t)((const uint8_t *)code - t->cache->run),
                              memory_order_release);
    return code;
}
