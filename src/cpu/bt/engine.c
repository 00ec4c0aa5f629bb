/*
 * The translator as an engine: when to translate, going in, and what to do on each way out.
 */
#include "cpu/bt/bt.h"

#include "base/where.h"
#include "cpu/bt/translator.h"
#include "cpu/core/access.h"
#include "cpu/core/code.h"
#include "cpu/core/debug.h"
#include "cpu/core/fetch.h"
#include "cpu/core/mode.h"

#include <asm/hwcap2.h>
#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

const struct bt_switches bt_usual = {
    .heat = BT_HEAT,
    .inline_after = BT_INLINE,
    .region_max = REGION_MAX,
    .code_size = BT_CODE_SIZE,
};

const struct bt_switches bt_eager = {
    .heat = 1, .region_max = REGION_MAX, .code_size = BT_CODE_SIZE};

static void bt_create(struct vcpu *c)
{
    struct bt *bt = bt_of(c);

    bt->cache = c->core->accelerator_shared;
    bt->run = bt->cache->run;
    bt->exit_points = bt->cache->exit_points;
    bt->lines = (uintptr_t)c->core->code -
                ((uintptr_t)mem_page(c->mem, 0) >> MEM_PAGE_SHIFT) * sizeof(struct code_page);
    if (bt->cache->switches.second)
        c->mmu.second.page_mask = c->mmu.second.large_mask = bt->cache->switches.second - 1;
    bt->scratch_seed = bt->cache->switches.scratch_seed;
    bt->requests = &c->port->requests;
    bt->absent = BT_FILES;
    bt_jumps_clear(bt);
}

static int bt_start(struct core *e, struct error *err)
{
    e->accelerator_shared = bt_cache_create(e, err);
    return e->accelerator_shared ? 0 : -1;
}

static void bt_stop(struct core *e)
{
    bt_cache_destroy(e->accelerator_shared);
}

static void bt_forget(struct vcpu *c)
{
    bt_of(c)->drops++;
}

static void bt_unmapped(struct vcpu *c, uint64_t linear, bool large)
{
    bt_of(c)->unmaps++;
    if (large)
        bt_jumps_clear(bt_of(c));
    else
        bt_jumps_clear_page(bt_of(c), linear);
}

/* The kernel's own signal sets: the C library's leave out signals that it uses itself. */
#define SIGNAL(n) (1ULL << (-1 + (n)))
static const uint64_t blocked_signals = ~(SIGNAL(SIGSEGV) | SIGNAL(SIGBUS) | SIGNAL(SIGILL) |
                                          SIGNAL(SIGFPE) | SIGNAL(SIGTRAP) | SIGNAL(WHERE_SIGNAL));

/* What translated code asks in place of requests while instructions are limited: the upper half of
 * their number. */
static const _Atomic uint32_t *limit_reached(const struct vcpu *c)
{
    return (const _Atomic uint32_t *)((const char *)&c->instructions + 4);
}

/* On the vCPU's thread, before it runs: GS leads to the vCPU, no signal may come while RSP is the
 * guest's, and a fault, which would be a bug, must not have its frame put there either. The clock
 * stands still only while no vCPU runs. */
static void bt_prepare(struct vcpu *c)
{
    struct bt *bt = bt_of(c);
    const stack_t stack = {.ss_sp = bt->signal_stack, .ss_size = sizeof(bt->signal_stack)};

    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &blocked_signals, &bt->signals, sizeof(bt->signals));
    sigaltstack(&stack, &bt->outer_stack);
    syscall(SYS_arch_prctl, ARCH_SET_GS, c);
    syscall(SYS_arch_prctl, ARCH_GET_FS, &bt->host_fs);
    bt->requests = c->limited ? limit_reached(c) : &c->port->requests;
    bt->tsc_offset = clock_tsc_offset(c->core->machine.clock);
}

static void bt_finish(struct vcpu *c)
{
    struct bt *bt = bt_of(c);

    sigaltstack(&bt->outer_stack, NULL);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &bt->signals, NULL, sizeof(bt->signals));
}

/* Whatever the vCPU knows of translated code must not be used any more. */
static void lose_code(struct bt *bt)
{
    bt->losses++;
    bt->link_branch_at = 0;
    bt_jumps_clear(bt);
}

/* Makes room in the cache: all vCPUs stop, and all translations are forgotten. */
static void evict(struct bt *bt)
{
    struct core *e = bt->c.core;

    if (!bt_cache_try(bt->cache))
        return; /* and try again later */
    safepoint_stop(&e->safepoint, true);
    if (bt->full) { /* no other vCPU was faster */
        bt_cache_clear(bt->cache);
        for (unsigned i = 0; i < e->machine.cpus; i++) {
            if (!e->vcpu[i])
                continue;
            lose_code(bt_of(e->vcpu[i]));
            bt_of(e->vcpu[i])->full = false;
        }
        counter_add(&bt->evictions, 1);
        counter_add(&bt->c.forgets[FORGET_CODE_FULL], 1);
    }
    safepoint_resume(&e->safepoint, true);
    bt_cache_release(bt->cache);
}

/* Whether translated code may run now. */
static bool can_run(const struct bt *bt)
{
    const struct vcpu *c = &bt->c;

    /* CPL 1 and 2 have a supervisor's context, but not its privileges. */
    return (in_64(c) || c->mode == (MODE_32 | MODE_FLAT)) && !c->check_alignment &&
           (c->context == MMU_USER || cpl(c) == 0);
}

/* The register files that translated code may use now. An unmasked or pending exception would be
 * the host's. */
static unsigned usable_files(const struct vcpu *c)
{
    unsigned files = 0;
    uint16_t control, status;
    uint32_t mxcsr;

    memcpy(&control, c->x.xsave, 2);
    memcpy(&status, c->x.xsave + 2, 2);
    memcpy(&mxcsr, c->x.xsave + X86_XSAVE_MXCSR, 4);
    if ((mxcsr & MXCSR_MASKS) == MXCSR_MASKS) {
        files |= c->fp_trap & FP_SSE ? 0 : BT_SSE;
        files |= c->fp_trap & FP_AVX ? 0 : BT_AVX;
    }
    if (!(c->fp_trap & (FP_X87 | FP_MMX)) && (control & FCW_MASKS) == FCW_MASKS && !(status & 0x80))
        files |= BT_X87;
    return files;
}

/* Translated code notes the x87's last instruction in the vCPU, because the host's would be its own
 * and is not always kept. Operands and opcodes are kept for unmasked exceptions only, which
 * translated code does not raise: those in the image stay. */
static void load_x87_pointers(struct bt *bt)
{
    struct x87_pointers p = x87_pointers_get(bt->c.x.xsave);

    bt->x87.page = ALIGN_DOWN(p.ip, MEM_PAGE_SIZE);
    bt->x87.offset = (uint32_t)(p.ip % MEM_PAGE_SIZE);
    bt->x87.others = p;
}

static void save_x87_pointers(struct bt *bt)
{
    bt->x87.others.ip = bt->x87.page + bt->x87.offset;
    x87_pointers_set(bt->c.x.xsave, &bt->x87.others);
}

/* Has FILES, or all vectors if any, loaded on the way in; all of them must be usable. */
static bool want_files(struct bt *bt, unsigned files)
{
    unsigned usable;

    if (!files)
        return true;
    usable = usable_files(&bt->c);
    if (files & ~usable)
        return false;
    if (files & (BT_SSE | BT_AVX))
        files |= usable & (BT_SSE | BT_AVX);
    bt->absent = (uint8_t)(BT_FILES & ~files);
    if (files & BT_X87)
        load_x87_pointers(bt);
    return true;
}

/* What jump_key is at a level: address space, level and code size. As long as all that supervisors
 * have run or touched is mapped globally, their code is the same in every address space. */
static uint64_t key_of(const struct bt *bt, bool user)
{
    const struct vcpu *c = &bt->c;
    uint64_t space = user || c->mmu.private ? c->mmu.space : 0;

    return 1u << 15 | (in_64(c) ? 0 : JUMP_KEY_CODE32) | (uint64_t)user << 12 | space;
}

/* Takes over the present address space; of both levels, because translated code goes from one to
 * the other. Returns whether it is another one for the code under way. */
static bool set_space(struct bt *bt)
{
    uint64_t before = bt->jump_key;

    for (unsigned user = 0; user < 2; user++)
        bt->level_key[user] = key_of(bt, user);
    bt->jump_key = bt->level_key[bt->c.context == MMU_USER];
    return bt->jump_key != before;
}

/* Whether the code behind FRONT can be entered with the registers that are traded in front of
 * BEHIND, and all register files it needs loaded. */
static bool suits(const struct bt_front *front, const struct bt_behind *behind)
{
    return front->s0 == behind->s0 && front->s1 == behind->s1 &&
           !(front->files & ~(unsigned)behind->files);
}

/* Makes the branch that was left by go straight to CODE from now on, past its check and, if it can,
 * past the trade of registers on both sides. Not if the page tables have changed without notice
 * since its code was entered, and lead to another page. */
static void link_branch(struct bt *bt, uint64_t rip, const void *code)
{
    if (bt->link_branch_at && bt->link_page == ALIGN_DOWN(rip, MEM_PAGE_SIZE)) {
        const uint8_t *target = bt->cache->write + ((const uint8_t *)code - bt->cache->run);
        uint8_t *branch = bt->cache->write + bt->link_branch_at;
        struct bt_behind behind;
        struct bt_front front;

        memcpy(&front, target - sizeof(front), sizeof(front));
        memcpy(&behind, branch + 4, sizeof(behind));
        if (front.page == behind.page) {
            if (behind.untraded && suits(&front, &behind))
                emit_patch_running(branch - behind.untraded, target + front.traded);
            else
                emit_patch_running(branch, target + front.checked);
            counter_add(&bt->links, 1);
        }
    }
    bt->link_branch_at = 0;
}

/* Of the processor, not of the clock on the wall: the host may be busy with other things. That
 * takes a system call, so only for who wants to know. */
static uint64_t cpu_ns(const struct bt *bt)
{
    struct timespec t;

    if (!bt->c.meter)
        return 0;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* What is translated of the code at GPA, in the present context; or NULL. */
static const void *translated(struct bt *bt, uint64_t gpa)
{
    struct bt_entry *entry = bt_entry_find(bt, gpa);
    const void *code = NULL;
    uint32_t entrance;

    if (!entry)
        return NULL;
    entrance = atomic_load_explicit(&entry->entrance, memory_order_acquire);
    if (entrance)
        return bt->cache->run + entrance;
    if (bt_cache_try(bt->cache)) {
        code = bt_entrance_add(bt, entry);
        bt_cache_release(bt->cache);
    }
    return code;
}

/* What TRANSLATE makes of the code at GPA; and how long it took. */
static const void *timed(struct bt *bt,
                         const void *(*translate)(struct bt *bt, uint64_t gpa, uint32_t generation),
                         uint64_t gpa, uint32_t generation)
{
    unsigned before = meter_enter(bt->c.meter, CAUSE_TRANSLATION, 0, 0, 0);
    uint64_t start = cpu_ns(bt), instructions = counter_read(&bt->translated_instructions);
    uint32_t used = bt->cache->used;
    const void *code = translate(bt, gpa, generation);

    counter_add(&bt->c.exits[CAUSE_TRANSLATION], 1);
    counter_add(&bt->translate_ns, cpu_ns(bt) - start);
    meter_detail(bt->c.meter, CAUSE_TRANSLATION,
                 counter_read(&bt->translated_instructions) - instructions, bt->cache->used - used);
    meter_leave(bt->c.meter, before);
    return code;
}

/* How often B must run before translating it pays. Code of a page that is rewritten over and over
 * may not last long: there it must have run for about twice as long as its translation takes. */
static uint32_t heat_wanted(const struct bt *bt, const struct block *b)
{
    unsigned heat = bt->cache->switches.heat;

    return heat < BT_HEAT ? heat : heat << MIN(code_rewrites(b->page), BT_HEAT_DOUBLINGS);
}

/* Counts an execution of B. Returns whether it has run often enough to be translated. */
static bool is_hot(const struct bt *bt, struct block *b)
{
    if (!b->heat)
        b->heat = heat_wanted(bt, b);
    if (b->heat > 1 && b->heat != BT_NEVER)
        b->heat--;
    else
        return b->heat == 1;
    return false;
}

/* Translates B in the present context when it is due; NULL: not now. */
static const void *translate(struct bt *bt, struct block *b)
{
    uint64_t drops = bt->drops;
    const void *code;

    if (!b->cached || !is_hot(bt, b) || !bt_cache_try(bt->cache))
        return NULL;
    code = timed(bt, bt_translate, b->gpa, b->generation);
    bt_cache_release(bt->cache);
    if (!code && !bt->full && bt->drops == drops &&
        !bt_entry_find(bt, b->gpa)) /* unless another vCPU was faster */
        b->heat = BT_NEVER;
    return code;
}

/* Whether anything but translated code is called for now. */
static bool is_due(const struct vcpu *c)
{
    return vcpu_is_due(c) ||
           (c->limited && atomic_load_explicit(limit_reached(c), memory_order_relaxed));
}

/* At SITE, which exits: when it has done so often, the code from there on with the handler inlined,
 * to which the exit goes from now on; else NULL. That code is of the page that the exit is of,
 * whatever the page tables say by now. */
static const void *inline_handler(struct bt *bt, struct bt_exit_point *point)
{
    const void *code = NULL;

    if (!point->link || ++point->exits < bt->cache->switches.inline_after ||
        !bt_cache_try(bt->cache))
        return NULL;
    if (point->link) { /* no other vCPU was faster */
        code =
            timed(bt, bt_translate_again, point->gpa, atomic_load(bt_generation(bt, point->gpa)));
        bt->link_page = bt->page;
        bt->link_branch_at = point->link;
        point->link = 0;
    }
    if (code)
        link_branch(bt, bt->c.x.reg[X86_RIP], code);
    bt_cache_release(bt->cache);
    return code;
}

/* Interprets the instruction at X86_RIP. Returns where to go on in the code behind it, or NULL. */
static const void *run_one(struct bt *bt, uint32_t index)
{
    struct bt_exit_point *point = index == BT_NO_EXIT_POINT ? NULL : &bt->cache->exit_points[index];
    const void *code = point ? bt->cache->run + point->retry : NULL;
    uint64_t losses = bt->losses, unmaps = bt->unmaps, next = code ? bt->page + point->next : 0;

    if (point) {
        const void *inlined = inline_handler(bt, point);

        if (inlined)
            return inlined;
    }
    bt->link_branch_at = 0;
    bt->c.core->interpreter->execute_one(&bt->c);
    if (set_space(bt) || !code || losses != bt->losses || bt->c.x.reg[X86_RIP] != next ||
        is_due(&bt->c) || unmaps != bt->unmaps || !can_run(bt) || !want_files(bt, point->files))
        return NULL;
    return code;
}

/* For the report when the guest dies. */
static void note_history(struct vcpu *c)
{
    c->history[c->history_at++ % HISTORY] = c->x.reg[X86_RIP];
}

/* After BT_FILL: enters the page and goes back, or has the interpreter do the instruction. HAD:
 * register files that were loaded, as they may be again. */
static const void *fill(struct bt *bt, unsigned had)
{
    const struct bt_exit_point point = bt->cache->exit_points[bt->exit_point];
    struct vcpu *c = &bt->c;

    counter_add(&bt->fills, 1);
    meter_switch(c->meter, CAUSE_TLB_MISS);
    if (bt->cache->switches.forgetful)
        mmu_table_clear(c->mmu.table[c->context]);
    c->x.reg[X86_RIP] = bt->page + point.offset;
    counter_sub(&c->instructions, point.left); /* in case this raises */
    note_history(c);
    if (fill_software_tlb(c, bt->address, point.size, point.write)) {
        counter_add(&c->instructions, point.left);
        meter_restore(c->meter);
        want_files(bt, point.files | (had & BT_SSE));
        return bt->cache->run + point.retry;
    }
    return run_one(bt, BT_NO_EXIT_POINT);
}

static void interpret_block(struct vcpu *c)
{
    const struct interpreter *interpreter = c->core->interpreter;

    interpreter->execute(c, interpreter->next(c));
}

/* After BT_LOAD: goes back with the register files that the region needs besides what it had, or
 * has the interpreter execute a block. */
static const void *load(struct bt *bt, unsigned had)
{
    const struct bt_exit_point *point = &bt->cache->exit_points[bt->exit_point];

    bt->c.x.reg[X86_RIP] = bt->page + bt->offset;
    if (want_files(bt, point->files | had) || want_files(bt, point->files))
        return bt->cache->run + point->retry;
    bt->link_branch_at = 0;
    interpret_block(&bt->c);
    return NULL;
}

/* Runs CODE until it is left. Returns where to go on in translated code, or NULL. */
static const void *go(struct bt *bt, const void *code)
{
    uint64_t *rip = &bt->c.x.reg[X86_RIP];
    unsigned had;

    meter_switch(bt->c.meter, METER_GUEST);
    bt->cache->enter(bt, code);
    meter_restore(bt->c.meter);
    had = BT_FILES & ~(unsigned)bt->absent;
    bt->absent = BT_FILES;
    if (had & BT_X87)
        save_x87_pointers(bt);
    switch ((enum bt_exit)bt->exit) {
    case BT_BRANCH:
        if (in_64(&bt->c) && !is_canonical(*rip)) { /* back to the branch: it faults */
            *rip = bt->page + bt->branch % MEM_PAGE_SIZE;
            bt->c.x.reg[X86_RSP] -= bt->branch / MEM_PAGE_SIZE;
            counter_sub(&bt->c.instructions, 1);
            return run_one(bt, BT_NO_EXIT_POINT);
        }
        __attribute__((fallthrough));
    case BT_NEXT: bt->link_branch_at = 0; return NULL;
    case BT_LINK_SINGLE: bt->single_checks = true; __attribute__((fallthrough));
    case BT_LINK:
        *rip = bt->page + bt->offset;
        bt->link_page = bt->page;
        bt->link_branch_at = bt->exit_point;
        if (bt->exit_point == BT_NO_EXIT_POINT) { /* the code is stale */
            bt->link_branch_at = 0;
            bt_jump_forget(bt, *rip);
        }
        return NULL;
    case BT_ONE: *rip = bt->page + bt->offset; return run_one(bt, bt->exit_point);
    case BT_LOAD: return load(bt, had);
    default: return fill(bt, had);
    }
}

/* Whether translated code of the page at X86_RIP, which is at GPA, may be entered: it stops in
 * front of the page's breakpoints. */
static bool may_enter(struct bt *bt, uint64_t gpa)
{
    struct vcpu *c = &bt->c;
    uint64_t linear = code_address(c), page = ALIGN_DOWN(gpa, MEM_PAGE_SIZE), address;
    unsigned i = 0;

    if (likely(!breakpoint_on_code(c, linear)))
        return true;
    if (gpa >> MEM_PAGE_SHIFT >= c->core->code_pages)
        return false;
    while (breakpoint_next_on_code(c, linear, &i, &address))
        if (!bt_stop_at(bt, page + address % MEM_PAGE_SIZE))
            return false;
    return true;
}

/* Executes B and the blocks that follow by links, as long as nothing of their page is translated or
 * due to be: there is no code to look for. */
static void interpret(struct bt *bt, struct block *b)
{
    struct vcpu *c = &bt->c;
    const struct interpreter *interpreter = c->core->interpreter;

    do {
        interpreter->execute(c, b);
        b = interpreter->linked(c);
    } while (b && !is_due(c) && !bt_page_is_live(bt, b->gpa) && !is_hot(bt, b));
}

/* The code at X86_RIP, or NULL when the interpreter has executed something instead. */
static const void *find_code(struct bt *bt)
{
    struct vcpu *c = &bt->c;
    uint64_t rip = c->x.reg[X86_RIP];
    const void *code;
    bool single = bt->single_checks;

    counter_add(&c->exits[CAUSE_LOOKUP], 1);
    set_space(bt);
    /* A link goes past the check of the code's age, so it must not be to what the table knows. */
    code = bt->link_branch_at || single ? NULL : bt_jump_find(bt, rip);
    if (!code) {
        uint64_t gpa = fetch_gpa(c, fetch_linear(c, c->x.reg[X86_RIP])), losses = bt->losses;
        bool enter = may_enter(bt, gpa);

        code = enter ? translated(bt, gpa) : NULL;
        if (!code) {
            struct block *b = c->core->interpreter->next(c);
            uint64_t drops = bt->drops;

            /* Decoding B may have waited while another vCPU cleared the cache, and all stops. */
            code = enter && losses == bt->losses ? translate(bt, b) : NULL;
            if (!code) {
                bt->link_branch_at = 0;
                bt->single_checks = false;
                if (bt->drops == drops) /* B is still there */
                    interpret(bt, b);
                return NULL;
            }
        }
        bt->single_checks = false;
        set_space(bt); /* finding may have changed its identifier */
        if (!single)
            bt_jump_add(bt, rip, code);
    }
    note_history(c);
    link_branch(bt, rip, code);
    bt->page = ALIGN_DOWN(rip, MEM_PAGE_SIZE);
    c->block = NULL;
    return code;
}

static void bt_run(struct vcpu *c)
{
    struct bt *bt = bt_of(c);

    bt->link_branch_at = 0; /* an interrupt may have come since */
    bt->single_checks = false;
    if (bt->full)
        evict(bt);
    do {
        const void *code;

        if (!can_run(bt)) {
            bt->link_branch_at = 0;
            interpret_block(c);
            return;
        }
        code = find_code(bt);
        if (!code)
            return;
        if (bt->cache->switches.refills)
            mmu_table_clear(c->mmu.table[c->context]);
        while (code)
            code = go(bt, code);
    } while (!is_due(c));
}

static void bt_counters(const struct vcpu *c, engine_counter_fn *each, void *opaque)
{
    const struct bt *bt = (const struct bt *)c;
    const struct engine_counter counters[] = {
        {"work", "translations", counter_read(&bt->translations), 0},
        {"work", "translated-instructions", counter_read(&bt->translated_instructions), 0},
        {"work", "translation-us", counter_read(&bt->translate_ns) / 1000, 0},
        {"work", "links", counter_read(&bt->links), 0},
        {"work", "retranslations", counter_read(&bt->retranslations), 0},
        {"work", "evictions", counter_read(&bt->evictions), 0},
        {"work", "tlb-fills", counter_read(&bt->fills), 0},
        {"work", "tlb-checks", counter_read(&bt->checks), 0},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(counters); i++)
        each(opaque, &counters[i]);
}

const struct accelerator bt_translator = {
    .vcpu_size = sizeof(struct bt),
    .start = bt_start,
    .stop = bt_stop,
    .create = bt_create,
    .prepare = bt_prepare,
    .finish = bt_finish,
    .run = bt_run,
    .forget = bt_forget,
    .unmapped = bt_unmapped,
    .counters = bt_counters,
};

/* RORX is BMI2; leaving translated code ends with VZEROUPPER; FS changes with WRFSBASE. */
bool bt_runs_on(const struct x86_model *model)
{
    return model->feature[X86_FEAT_BMI2] && model->feature[X86_FEAT_AVX] &&
           (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE);
}
