/*
 * The translator as an engine: when to translate, going in, and what to do on each way out.
 */
#include "cpu/bt/bt.h"
#include "cpu/interp/handlers.h"

#include <asm/prctl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int bt_create(struct vcpu *c, struct error *err)
{
    struct bt *bt = bt_of(c);
    int status = bt_code_create(bt, err);

    if (status == 0) {
        if (!bt->heat)
            bt->heat = BT_HEAT;
        bt->requests = &c->port->requests;
        bt_clear_jumps(bt);
    }
    return status;
}

static int bt_create_eager(struct vcpu *c, struct error *err)
{
    bt_of(c)->heat = 1;
    return bt_create(c, err);
}

static void bt_destroy(struct vcpu *c)
{
    bt_code_destroy(bt_of(c));
}

static void bt_forget(struct vcpu *c)
{
    bt_clear(bt_of(c));
}

static void bt_unmapped(struct vcpu *c)
{
    bt_clear_jumps(bt_of(c));
}

/* On the vCPU's thread, before it runs: GS leads to the vCPU, and no signal may come while RSP is
 * the guest's. */
static void bt_prepare(struct vcpu *c)
{
    sigset_t all;

    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGTRAP);
    pthread_sigmask(SIG_BLOCK, &all, &bt_of(c)->signals);
    syscall(SYS_arch_prctl, ARCH_SET_GS, c);
}

static void bt_finish(struct vcpu *c)
{
    pthread_sigmask(SIG_SETMASK, &bt_of(c)->signals, NULL);
}

/* Whether translated code may run now. What it takes for granted about the register files is
 * checked here; when that changes, all translations go. */
static bool can_run(struct bt *bt)
{
    const struct vcpu *c = &bt->c;
    unsigned files = 0;
    uint16_t control, status;
    uint32_t mxcsr;

    if ((c->mode & MODE_SIZE) != MODE_64 || c->watching || c->check_alignment)
        return false;
    memcpy(&control, c->x.xsave, 2);
    memcpy(&status, c->x.xsave + 2, 2);
    memcpy(&mxcsr, c->x.xsave + X86_XSAVE_MXCSR, 4);
    /* An unmasked or pending exception would be the host's. */
    if (!(c->fp_trap & (FP_SSE | FP_AVX)) && (mxcsr & 0x1F80) == 0x1F80)
        files |= BT_VECTORS;
    if (!(c->fp_trap & (FP_X87 | FP_MMX)) && (control & 0x3F) == 0x3F && !(status & 0x80))
        files |= BT_X87;
    if (files != bt->files) {
        bt->files = files;
        interp_forget(&bt->c);
    }
    return true;
}

static void set_key(struct bt *bt)
{
    bt->space = bt->c.mmu.space;
    bt->jump_key = (bt->space | (uint64_t)bt->c.context << 12) << 48;
}

static void remember(struct bt *bt, uint64_t rip, const void *code)
{
    uint32_t low = (uint32_t)rip, index = ((low >> 9) ^ low) & (BT_JUMPS - 1);

    bt->jump[index] = (struct bt_jump){rip ^ bt->jump_key, code};
}

/* Makes the branch that was left by go straight to CODE from now on. */
static void link_branch(struct bt *bt, uint64_t rip, const void *code)
{
    if (bt->link_site && bt->link_page == ALIGN_DOWN(rip, MEM_PAGE_SIZE)) {
        emit_patch(bt->write + bt->link_site, bt->write + ((const uint8_t *)code - bt->run));
        bt->links++;
    }
    bt->link_site = 0;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* B's code in the present context, translating it when it is due; NULL: not now. */
static const void *code_for(struct bt *bt, struct block *b)
{
    uint64_t start, clears = bt->clears;
    const void *code;

    if (b->code[bt->c.context])
        return b->code[bt->c.context];
    if (!b->cached || ++b->heat < bt->heat || b->heat >= BT_NEVER)
        return NULL;
    b->heat = 0; /* for another context */
    start = now_ns();
    code = bt_translate(bt, b, &bt->full);
    bt->translate_ns += now_ns() - start;
    if (bt->clears != clears)
        return NULL;
    b->code[bt->c.context] = code;
    if (!code && !bt->full)
        b->heat = BT_NEVER;
    return code;
}

static void run_one(struct bt *bt)
{
    bt->ones++;
    interp_execute_one(&bt->c);
}

/* After BT_FILL: enters the page and goes back, or has the interpreter do the instruction. */
static const void *fill(struct bt *bt)
{
    const struct bt_site site = bt->sites[bt->site];
    struct vcpu *c = &bt->c;

    bt->fills++;
    c->x.reg[X86_RIP] = bt->page + site.offset;
    c->instructions -= site.left; /* in case this raises */
    if (interp_fill(c, bt->address, site.size, site.write)) {
        c->instructions += site.left;
        return bt->run + site.retry;
    }
    run_one(bt);
    return NULL;
}

static void bt_run(struct vcpu *c)
{
    struct bt *bt = bt_of(c);
    const void *code;
    struct block *b;
    uint64_t clears;

    if (!can_run(bt)) {
        bt->link_site = 0;
        interp_execute(c, block_next(c));
        return;
    }
    if (bt->full) {
        bt->full = false;
        interp_forget(c);
    }
    b = block_next(c);
    clears = bt->clears;
    code = code_for(bt, b);
    if (clears != bt->clears) /* all is forgotten, B too */
        return;
    if (!code) {
        bt->link_site = 0;
        interp_execute(c, b);
        return;
    }
    set_key(bt);
    link_branch(bt, c->x.reg[X86_RIP], code);
    remember(bt, c->x.reg[X86_RIP], code);
    bt->page = ALIGN_DOWN(c->x.reg[X86_RIP], MEM_PAGE_SIZE);
    c->block = NULL;
    while (code) {
        int why = bt->enter(bt, code);

        code = NULL;
        switch (why) {
        case BT_NEXT: bt->link_site = 0; break;
        case BT_LINK:
            c->x.reg[X86_RIP] = bt->page + bt->offset;
            bt->link_page = bt->page;
            bt->link_site = bt->site;
            break;
        case BT_ONE:
            c->x.reg[X86_RIP] = bt->page + bt->offset;
            bt->link_site = 0;
            run_one(bt);
            break;
        default: code = fill(bt); break;
        }
    }
}

static void bt_stats(const struct vcpu *c, struct engine_stats *stats)
{
    const struct bt *bt = (const struct bt *)c;

    stats->translations = bt->translations;
    stats->translated_instructions = bt->translated_instructions;
    stats->translate_ns = bt->translate_ns;
    stats->links = bt->links;
    stats->tlb_fills = bt->fills;
    stats->interpreted = bt->ones;
    stats->evictions = bt->clears;
}

static const struct accelerator translator = {
    .vcpu_size = sizeof(struct bt),
    .create = bt_create,
    .destroy = bt_destroy,
    .prepare = bt_prepare,
    .finish = bt_finish,
    .run = bt_run,
    .forget = bt_forget,
    .unmapped = bt_unmapped,
    .stats = bt_stats,
};

static const struct accelerator eager_translator = {
    .vcpu_size = sizeof(struct bt),
    .create = bt_create_eager,
    .destroy = bt_destroy,
    .prepare = bt_prepare,
    .finish = bt_finish,
    .run = bt_run,
    .forget = bt_forget,
    .unmapped = bt_unmapped,
    .stats = bt_stats,
};

/* --- The contract: all but creation is the interpreter's
 * ------------------------------------------- */

static struct engine *create(const struct machine *machine, struct error *err)
{
    return interp_create_accelerated(machine, &translator, err);
}

static struct engine *create_eager(const struct machine *machine, struct error *err)
{
    return interp_create_accelerated(machine, &eager_translator, err);
}

static void destroy(struct engine *engine)
{
    interp_engine.destroy(engine);
}

static struct vcpu *vcpu_create(struct engine *engine, struct cpu_port *port, struct error *err)
{
    return interp_engine.vcpu_create(engine, port, err);
}

static void vcpu_destroy(struct vcpu *c)
{
    interp_engine.vcpu_destroy(c);
}

static enum engine_exit run(struct vcpu *c)
{
    return interp_engine.run(c);
}

static void state_out(struct vcpu *c, struct x86_cpu *cpu)
{
    interp_engine.state_out(c, cpu);
}

static void state_in(struct vcpu *c, const struct x86_cpu *cpu)
{
    interp_engine.state_in(c, cpu);
}

static void gpn_changed(struct engine *engine, uint64_t gpn)
{
    interp_engine.gpn_changed(engine, gpn);
}

static void stats(const struct vcpu *c, struct engine_stats *s)
{
    interp_engine.stats(c, s);
}

static void history(struct vcpu *c, char *buf, unsigned size)
{
    interp_engine.history(c, buf, size);
}

const struct engine_ops bt_engine = {
    .name = "bt",
    .create = create,
    .destroy = destroy,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .run = run,
    .state_out = state_out,
    .state_in = state_in,
    .gpn_changed = gpn_changed,
    .stats = stats,
    .history = history,
};

const struct engine_ops bt_eager_engine = {
    .name = "bt-eager",
    .create = create_eager,
    .destroy = destroy,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .run = run,
    .state_out = state_out,
    .state_in = state_in,
    .gpn_changed = gpn_changed,
    .stats = stats,
    .history = history,
};
