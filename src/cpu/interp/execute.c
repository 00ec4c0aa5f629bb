/*
 * The interpreter: executes blocks, and single instructions of them.
 */
#include "cpu/interp/block.h"

#include <errno.h>
#include <stdlib.h>

/* Bytes for the decoded blocks of a vCPU. Fewer are enough where code that runs often is
 * translated: with 8 MiB a boot and a compiler are as fast as with 32, and with 4 MiB a compiler
 * takes half as long again. */
#define ARENA_SIZE             (32 * MiB)
#define ARENA_SIZE_ACCELERATED (8 * MiB)

static int start(struct core *e, struct error *err)
{
    struct interp *interp = calloc(1, sizeof(*interp));

    if (!interp) {
        error_set(err, ENOMEM, "out of memory for the interpreter");
        return -1;
    }
    interp->arena_size = e->accelerator ? ARENA_SIZE_ACCELERATED : ARENA_SIZE;
    interp->thunks = thunk_cache_create(err);
    if (!interp->thunks) {
        free(interp);
        return -1;
    }
    e->interpreter_shared = interp;
    return 0;
}

static void stop(struct core *e)
{
    struct interp *interp = interp_of(e);

    if (!interp)
        return;
    thunk_cache_destroy(interp->thunks);
    free(interp);
    e->interpreter_shared = NULL;
}

static int create(struct vcpu *c, struct error *err)
{
    c->blocks = block_cache_create(interp_of(c->core)->arena_size, err);
    return c->blocks ? 0 : -1;
}

static void destroy(struct vcpu *c)
{
    block_cache_destroy(c->blocks);
}

static void counters(const struct vcpu *c, engine_counter_fn *each, void *opaque)
{
    each(opaque,
         &(struct engine_counter){"work", "blocks-decoded", counter_read(&c->blocks->decoded), 0});
    each(opaque, &(struct engine_counter){"work", "blocks-invalidated",
                                          counter_read(&c->blocks->invalidated), 0});
}

/* --- Executing -------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void execute(struct vcpu *c, struct block *b)
{
    const struct uop *op = block_uops(b);

    c->block = b;
    counter_add(&c->instructions, b->count);
    c->history[c->history_at++ % HISTORY] = c->x.reg[X86_RIP];
    do
        op = op->fn(c, op);
    while (op);
}

static void run(struct vcpu *c)
{
    do
        execute(c, block_next(c));
    while (likely(!vcpu_is_due(c)));
}

static void run_block(struct vcpu *c)
{
    execute(c, block_next(c));
}

static void step(struct vcpu *c)
{
    execute(c, block_find(c));
}

/* Executes B for the accelerator, and counts it as one exit of cause CAUSE_BLOCK. May raise. */
static void execute_for_accelerator(struct vcpu *c, struct block *b)
{
    counter_add(&c->exits[CAUSE_BLOCK], 1);
    meter_switch(c->meter, CAUSE_BLOCK);
    execute(c, b);
    meter_restore(c->meter);
    vcpu_check_spaces(c);
}

/* Executes B, which is one instruction, and notes how long it took. */
static void execute_metered(struct vcpu *c, struct block *b)
{
    unsigned mnemonic = block_uops(b)->mnemonic;
    struct meter_count *count = &c->meter->mnemonic[mnemonic];
    uint64_t start = __rdtsc();

    counter_add(&count->count, 1); /* now, because the instruction may raise */
    meter_detail(c->meter, CAUSE_INSTRUCTION, mnemonic, 0);
    execute(c, b);
    counter_add(&count->ticks, __rdtsc() - start);
}

static void execute_one(struct vcpu *c)
{
    struct block *b;
    unsigned before;

    counter_add(&c->exits[CAUSE_INSTRUCTION], 1);
    before = meter_enter(c->meter, CAUSE_INSTRUCTION, c->x.reg[X86_RIP], 0, 0);
    c->single = true;
    c->block = NULL;
    b = block_find(c);
    if (unlikely(c->meter))
        execute_metered(c, b);
    else
        execute(c, b);
    vcpu_check_spaces(c);
    c->single = false;
    c->block = NULL;
    meter_leave(c->meter, before);
}

const struct interpreter interp_executor = {
    .start = start,
    .stop = stop,
    .create = create,
    .destroy = destroy,
    .counters = counters,
    .run = run,
    .run_block = run_block,
    .step = step,
    .retract = uop_retract,
    .address = uop_address,
    .segment = uop_segment,
    .code_written = block_check,
    .unmapped = block_unmapped,
    .execute_one = execute_one,
    .execute = execute_for_accelerator,
    .next = block_next,
    .linked = block_linked,
    .has_run = block_has_run,
};
