/*
 * The edges of translated code: what changes between the state outside of a region and the state
 * within it, how control leaves, and code that is rarely run.
 */
#include "cpu/bt/translate.h"

#include <string.h>

/* --- Registers ------------------------------------------------------------------------------- */

/* Emits the trade of registers at the beginning of a region: stores the guest's s0 and s1, and
 * loads its R10 and R11. Nothing if those are s0 and s1. */
static void emit_prologue(struct translation *t)
{
    if (t->s0 != SCRATCH0) {
        emit_mem(&t->e, true, OP_STORE, t->s0, REGISTER(t->s0));
        emit_mem(&t->e, true, OP_STORE, t->s1, REGISTER(t->s1));
        emit_mem(&t->e, true, OP_LOAD, SCRATCH0, REGISTER(SCRATCH0));
        emit_mem(&t->e, true, OP_LOAD, SCRATCH1, REGISTER(SCRATCH1));
    }
}

/* Emits the trade back at the end of a region. */
static void emit_epilogue(struct translation *t)
{
    if (t->s0 != SCRATCH0) {
        emit_mem(&t->e, true, OP_STORE, SCRATCH0, REGISTER(SCRATCH0));
        emit_mem(&t->e, true, OP_STORE, SCRATCH1, REGISTER(SCRATCH1));
        emit_mem(&t->e, true, OP_LOAD, t->s0, REGISTER(t->s0));
        emit_mem(&t->e, true, OP_LOAD, t->s1, REGISTER(t->s1));
    }
}

/* Checks whether the code is still what was translated; if not, looks for other code at OFFSET. */
static void emit_validate(struct translation *t, unsigned offset)
{
    emit_load_imm(&t->e, SCRATCH0, (uintptr_t)bt_generation(t->bt, t->gpa));
    emit_alu_mem_imm(&t->e, false, ALU_N_CMP, at(SCRATCH0, 0), (int32_t)t->generation);
    cold_add_target(t, emit_jcc(&t->e, CC_NE), COLD_STALE, offset);
}

void emit_check_beyond(struct translation *t)
{
    int32_t entries = (int32_t)offsetof(struct mmu_table, entry[MMU_EXEC]);

    flags_clobber(t, live_before(&t->flow[t->i]));
    t->in_s1 = NULL;
    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(page));
    emit_mem(&t->e, t->code64, OP_LEA, t->s0, at(t->s0, MEM_PAGE_SIZE));
    emit_rorx32(&t->e, t->s1, t->s0, MEM_PAGE_SHIFT - 4);
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s1, (MMU_TLB_SIZE - 1) << 4);
    emit_mem(&t->e, true, OP_ADD_LOAD, t->s0, table_at_index(t->s1, entries)); /* 0: this page */
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
    /* An entry for code leads to the guest physical address. */
    emit_mem(&t->e, true, OP_LOAD, t->s0, table_at_index(t->s1, entries + 8));
    emit_mem(&t->e, true, OP_ADD_LOAD, t->s0, VCPU(page));
    emit_load_imm(&t->e, t->s1, t->beyond.gpa - MEM_PAGE_SIZE);
    emit_reg(&t->e, true, OP_CMP_LOAD, t->s0, t->s1);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
    emit_load_imm(&t->e, t->s0, (uintptr_t)bt_generation(t->bt, t->beyond.gpa));
    emit_alu_mem_imm(&t->e, false, ALU_N_CMP, at(t->s0, 0), (int32_t)t->beyond.generation);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
}

/* Checks whether the register files that the region needs are in the host's registers; if not,
 * leaves with BT_LOAD. */
static void emit_files(struct translation *t, unsigned offset)
{
    const uint8_t *retry = t->e.at;

    if (!t->files)
        return;
    emit_test_mem8(&t->e, VCPU(absent), t->files);
    cold_add_target(t, emit_jcc(&t->e, CC_NE), COLD_LOAD, offset);
    t->cold[t->colds - 1].retry = retry;
}

static uint32_t page_of(const struct translation *t)
{
    return (uint32_t)(t->gpa >> MEM_PAGE_SHIFT);
}

void emit_entry(struct translation *t, unsigned offset, uint32_t live)
{
    struct bt_front front = {
        .page = page_of(t), .s0 = (uint8_t)t->s0, .s1 = (uint8_t)t->s1, .files = t->files};
    uint8_t *start = t->e.at;

    emit_validate(t, offset);
    front.checked = (uint8_t)(t->e.at - start);
    emit_files(t, offset);
    emit_prologue(t);
    front.traded = (uint8_t)(t->e.at - start);
    memcpy(start - sizeof(front), &front, sizeof(front));
    t->flags = FLAGS_MEMORY;
    if (live)
        flags_need(t);
}

/* --- Ways out -------------------------------------------------------------------------------- */

/* Emits a way out of translated code for the reason WHY. OFFSET is where to go on in the page,
 * POINT is for bt.exit_point. */
static void emit_leave_at(struct translation *t, enum bt_exit why, unsigned offset, uint32_t point)
{
    emit_store_imm(&t->e, false, VCPU(offset), (int32_t)offset);
    emit_store_imm(&t->e, false, VCPU(exit_point), (int32_t)point);
    emit_jmp_to(&t->e, t->cache->write + t->cache->leave[why]);
}

/* Emits the trade back and a jump to LOOKUP (emit_lookup), which goes on at the address in s0. */
static void emit_exit_to(struct translation *t, uint32_t lookup)
{
    if (t->s0 != SCRATCH0) { /* as emit_epilogue does, with the address in between */
        emit_mem(&t->e, true, OP_STORE, SCRATCH0, REGISTER(SCRATCH0));
        emit_mem(&t->e, true, OP_STORE, SCRATCH1, REGISTER(SCRATCH1));
        emit_reg(&t->e, true, OP_LOAD, SCRATCH0, t->s0);
        emit_mem(&t->e, true, OP_LOAD, t->s0, REGISTER(t->s0));
        emit_mem(&t->e, true, OP_LOAD, t->s1, REGISTER(t->s1));
    }
    emit_jmp_to(&t->e, t->cache->write + lookup);
}

void emit_exit_indirect(struct translation *t)
{
    emit_exit_to(t, t->cache->lookup);
}

void emit_exit_branch(struct translation *t, unsigned popped)
{
    emit_store_imm(&t->e, false, VCPU(branch),
                   (int32_t)(popped << MEM_PAGE_SHIFT | t->offset[t->i]));
    emit_exit_to(t, t->cache->lookup_branch);
}

/* Emits a branch that may be linked; at first it leads to the code that follows. UNTRADED: another
 * such branch, which stands before the trade of registers, or NULL. */
static uint8_t *emit_link(struct translation *t, const uint8_t *untraded)
{
    uint8_t *link = emit_jmp_aligned(&t->e);
    const struct bt_behind behind = {
        .page = page_of(t),
        .untraded = untraded ? (uint8_t)(link - untraded) : 0,
        .s0 = (uint8_t)t->s0,
        .s1 = (uint8_t)t->s1,
        .files = t->files,
    };

    emit_bytes(&t->e, &behind, sizeof(behind));
    if (!t->e.full)
        emit_patch(link, t->e.at);
    return link;
}

/* Emits two branches that may be linked, with the trade of registers between them. */
static uint8_t *emit_untraded(struct translation *t)
{
    uint8_t *untraded = emit_jmp_aligned(&t->e); /* at first to what follows */

    emit_epilogue(t);
    return emit_link(t, untraded);
}

void emit_exit_direct(struct translation *t, int64_t target)
{
    uint8_t *request, *link;

    if (target < 0 || target >= (int64_t)MEM_PAGE_SIZE) {
        emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(page));
        emit_mem(&t->e, t->code64, OP_LEA, t->s0, at(t->s0, (int32_t)target));
        emit_exit_indirect(t);
        return;
    }
    /* Regions that are linked in a circle must notice requests, too. */
    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(requests));
    emit_alu_mem_imm(&t->e, false, ALU_N_CMP, at(t->s0, 0), 0);
    request = emit_jcc(&t->e, CC_NE);
    /* It leads to the code that follows until the target has code. */
    link = t->s0 == SCRATCH0 ? emit_link(t, NULL) : emit_untraded(t);
    emit_leave_at(t, BT_LINK, (unsigned)target, (uint32_t)(link - t->cache->write));
    if (t->e.full)
        return;
    emit_patch(request, t->e.at);
    emit_epilogue(t);
    emit_leave_at(t, BT_LINK, (unsigned)target, 0);
}

/* Adds MORE to the count of instructions; the flags are in memory. */
static void emit_recount(struct translation *t, int32_t more)
{
    if (t->bt->c.core->machine.measure)
        emit_alu_mem_imm(&t->e, true, ALU_N_ADD, VCPU(c.instructions), more);
}

void emit_exit_one(struct translation *t, unsigned i, unsigned left)
{
    emit_epilogue(t);
    emit_recount(t, -(int32_t)left);
    emit_leave_at(t, BT_ONE, t->offset[i], BT_NO_EXIT_POINT);
}

void emit_one(struct translation *t, bool unless)
{
    unsigned left = instructions_left(t);
    uint16_t next = (uint16_t)(t->offset[t->i] + t->insn[t->i].z.length);
    uint32_t point = t->cache->exit_points_used++;
    uint8_t *link = NULL;

    flags_leave(t, X86_FLAGS_STATUS);
    emit_epilogue(t);
    emit_recount(t, -(int32_t)left);
    if (unless)
        link = emit_link(t, NULL);
    emit_leave_at(t, BT_ONE, t->offset[t->i], point);
    t->cache->exit_points[point] = (struct bt_exit_point){
        .gpa = ALIGN_DOWN(t->gpa, MEM_PAGE_SIZE) + t->offset[t->i],
        .retry = (uint32_t)(t->e.at - t->cache->write),
        .offset = t->offset[t->i],
        .next = next,
        .files = t->files,
        .link = link ? (uint32_t)(link - t->cache->write) : 0,
    };
    emit_validate(t, next);
    emit_recount(t, (int32_t)left - 1);
    emit_prologue(t);
    group_forget(t);
    t->flags = FLAGS_MEMORY;
}

/* Looks for requests before a jump back to P. Saves the flags that P wants. */
static void emit_poll(struct translation *t, const struct part *p)
{
    flags_clobber(t, p->live);
    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(requests));
    emit_alu_mem_imm(&t->e, false, ALU_N_CMP, at(t->s0, 0), 0);
    cold_add_target(t, emit_jcc(&t->e, CC_NE), COLD_BRANCH, p->start);
}

void emit_goto(struct translation *t, int64_t target, uint32_t live)
{
    struct part *p = region_part(t, target);

    if (!p) {
        flags_leave(t, live);
        emit_exit_direct(t, target);
        return;
    }
    if (p->code)
        emit_poll(t, p);
    if (p->live)
        flags_need(t);
    t->goes_on = p == t->now + 1 && !p->code;
    if (!t->goes_on)
        cold_add_target(t, emit_jmp(&t->e), COLD_PART, p - t->part);
}

/* --- Cold code ------------------------------------------------------------------------------- */

/* After a check of a range has failed: if the range does not lie in one page, goes on with code
 * where no check serves several accesses. */
static void emit_cold_single(struct translation *t, const struct cold *c)
{
    struct address low = c->address;
    uint8_t *within, *link;

    low.disp = (int32_t)c->low;
    emit_address(t, &low, t->s0);
    emit_mem(&t->e, true, OP_LEA, t->s1, at(t->s0, (int32_t)(c->high - c->low) - 1));
    emit_reg(&t->e, true, OP_XOR_LOAD, t->s1, t->s0);
    emit_shift_imm(&t->e, true, SHIFT_N_SHR, t->s1, MEM_PAGE_SHIFT);
    within = emit_jcc(&t->e, CC_E);
    emit_epilogue(t);
    emit_recount(t, -(int32_t)c->left);
    link = emit_link(t, NULL);
    emit_leave_at(t, BT_LINK_SINGLE, t->offset[c->index], (uint32_t)(link - t->cache->write));
    if (!t->e.full)
        emit_patch(within, t->e.at);
}

static void emit_cold_fill(struct translation *t, const struct cold *c)
{
    struct bt_cache *cache = t->cache;
    uint32_t point = cache->exit_points_used;
    const uint8_t *retry = c->retry;

    if (c->high - c->low > c->size)
        emit_cold_single(t, c);
    emit_address(t, &c->address, t->s0);
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(address));
    emit_epilogue(t);
    emit_store_imm(&t->e, false, VCPU(exit_point), (int32_t)point);
    emit_jmp_to(&t->e, cache->write + cache->fill[c->write]);
    if (t->s0 != SCRATCH0) { /* back in, by way of the prologue */
        retry = t->e.at;
        emit_prologue(t);
        emit_jmp_to(&t->e, c->retry);
    }
    cache->exit_points[cache->exit_points_used++] = (struct bt_exit_point){
        .retry = (uint32_t)(retry - cache->write),
        .offset = t->offset[c->index],
        .size = c->size,
        .write = c->write,
        .left = c->left,
        .files = t->files,
    };
}

static void emit_cold_load(struct translation *t, const struct cold *c)
{
    struct bt_cache *cache = t->cache;
    uint32_t point = cache->exit_points_used++;

    emit_leave_at(t, BT_LOAD, (unsigned)c->target, point);
    cache->exit_points[point] =
        (struct bt_exit_point){.retry = (uint32_t)(c->retry - cache->write), .files = t->files};
}

void emit_cold(struct translation *t)
{
    for (unsigned i = 0; i < t->colds && !t->e.full; i++) {
        const struct cold *c = &t->cold[i];

        if (c->kind == COLD_PART) {
            emit_patch(c->jump, t->part[c->target].code);
            continue;
        }
        emit_patch(c->jump, t->e.at);
        switch (c->kind) {
        case COLD_FILL: emit_cold_fill(t, c); break;
        case COLD_ONE: emit_exit_one(t, c->index, c->left); break;
        case COLD_BRANCH: emit_exit_direct(t, c->target); break;
        case COLD_STALE: emit_leave_at(t, BT_LINK, (unsigned)c->target, BT_NO_EXIT_POINT); break;
        case COLD_LOAD: emit_cold_load(t, c); break;
        case COLD_PART: break;
        }
    }
}
