/*
 * When guest code is translated, how control enters translated code, and what is done after each
 * way out of it.
 */
#include "cpu/bt/bt.h"

#include "base/time.h"
#include "base/where.h"
#include "cpu/bt/translator.h"
#include "cpu/core/access.h"
#include "cpu/core/code.h"
#include "cpu/core/debug.h"
#include "cpu/core/fetch.h"
#include "cpu/core/mode.h"
#include "cpu/core/present.h"

#include <asm/hwcap2.h>
#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

const struct bt_switches bt_usual = {
    .heat = BT_HEAT,
    .inline_after = BT_INLINE,
    .region_max = REGION_MAX,
    .code_size = BT_CODE_SIZE,
};

const struct bt_switches bt_eager = {
    .heat = 1, .region_max = REGION_MAX, .code_size = BT_CODE_SIZE};

static int bt_create(struct vcpu *c, struct error *err)
{
    struct bt *bt = bt_of(c);

    bt->cache = c->core->accelerator_shared;
    bt->run = bt->cache->run;
    bt->exit_points = bt->cache->exit_points;
    bt->lines = (uintptr_t)c->core->code -
                ((uintptr_t)mem_ram_base(c->mem) >> MEM_PAGE_SHIFT) * sizeof(struct code_page);
    if (bt->cache->switches.second)
        c->mmu.second.page_mask = c->mmu.second.large_mask = bt->cache->switches.second - 1;
    bt->scratch_seed = bt->cache->switches.scratch_seed;
    bt->requests = &c->port->requests;
    bt->absent = BT_FILES;
    bt_jumps_clear(bt);
    return 0;
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

static void bt_pages_moved(struct vcpu *c)
{
    bt_of(c)->unmaps++;
}

static void bt_unmapped(struct vcpu *c, uint64_t linear, bool large)
{
    bt_of(c)->unmaps++;
    if (large)
        bt_jumps_clear(bt_of(c));
    else
        bt_jumps_clear_page(bt_of(c), linear);
}

/* Signal sets as the kernel has them: those of the C library leave out signals that it uses itself.
 */
#define SIGNAL(n) (1ULL << (-1 + (n)))
static const uint64_t blocked_signals = ~(SIGNAL(SIGSEGV) | SIGNAL(SIGBUS) | SIGNAL(SIGILL) |
                                          SIGNAL(SIGFPE) | SIGNAL(SIGTRAP) | SIGNAL(WHERE_SIGNAL));

/* Returns the word that translated code looks at in place of requests while instructions are
 * limited: the upper half of their number, which is not 0 once the limit is reached. */
static const _Atomic uint32_t *limit_reached(const struct vcpu *c)
{
    return (const _Atomic uint32_t *)((const char *)&c->instructions + 4);
}

/* Prepares the vCPU's thread for translated code. GS leads to the vCPU. No signal may be delivered
 * while RSP is the guest's; a fault, which would be a bug, has its frame on a stack of its own. The
 * clock's offset changes only while no vCPU runs. */
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

/* Has the vCPU forget where translated code is. */
static void lose_code(struct bt *bt)
{
    bt->losses++;
    bt->link_branch_at = 0;
    bt_jumps_clear_all(bt);
}

/* Makes room in the cache: stops all vCPUs and forgets all translations. Tries again later if
 * another vCPU adds to the cache now. */
static void evict(struct bt *bt)
{
    struct core *e = bt->c.core;

    if (!bt_cache_try(bt->cache))
        return;
    present_stop_others(&bt->c);
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
    present_resume_others(&bt->c);
    bt_cache_release(bt->cache);
}

/* Whether translated code may run in the vCPU's present mode. */
static bool can_run(const struct bt *bt)
{
    const struct vcpu *c = &bt->c;

    /* CPL 1 and 2 have a supervisor's context, but not its privileges. */
    return (in_64(c) || c->mode == (MODE_32 | MODE_FLAT)) && !c->check_alignment &&
           (c->context == MMU_USER || cpl(c) == 0);
}

/* Returns the register files that translated code may use now. While a floating-point exception is
 * unmasked or pending, their instructions would raise it on the host. */
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

/* While the x87 is loaded, translated code stores the address of its last instruction in the vCPU,
 * because the host's processor would note an address of its own, or none. The pointers to the last
 * operand and opcode change only with unmasked exceptions, which translated code does not raise. */
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

/* Has FILES loaded when translated code is entered next; both vector files, if it is one of them.
 * Returns false if one of FILES must not be used now. */
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

/* Returns jump_view for one privilege level: address space, level and code size. */
static uint64_t jump_view_of(const struct bt *bt, bool user)
{
    const struct vcpu *c = &bt->c;

    return 1u << 15 | (in_64(c) ? 0 : JUMP_VIEW_CODE32) | (user ? JUMP_VIEW_USER : 0) |
           mmu_code_space(&c->mmu, user);
}

/* Sets jump_view for the present address space, and level_view for both privilege levels, because
 * translated code goes from one to the other. Returns whether jump_view has changed. */
static bool set_jump_views(struct bt *bt)
{
    uint64_t before = bt->jump_view;

    for (unsigned user = 0; user < 2; user++)
        bt->level_view[user] = jump_view_of(bt, user);
    bt->jump_view = bt->level_view[bt->c.context == MMU_USER];
    return bt->jump_view != before;
}

/* Whether a branch in front of BEHIND may lead past the trade of registers to the code behind
 * FRONT: both have traded the same registers, and the register files that the code needs are
 * loaded. */
static bool has_same_trade(const struct bt_front *front, const struct bt_behind *behind)
{
    return front->s0 == behind->s0 && front->s1 == behind->s1 &&
           !(front->files & ~(unsigned)behind->files);
}

/* Patches the branch by which translated code was left (link_branch_at): from now on it leads to
 * CODE, past the check of the code's age and, if both sides have traded the same registers, past
 * the trade. Does nothing if CODE is of another page, as the guest may have changed its page tables
 * without an invalidation since the branch's code was entered. */
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
            if (behind.untraded && has_same_trade(&front, &behind))
                emit_patch_running(branch - behind.untraded, target + front.traded);
            else
                emit_patch_running(branch, target + front.checked);
            counter_add(&bt->links, 1);
        }
    }
    bt->link_branch_at = 0;
}

/* Returns the processor time of the thread, which does not count what else the host does. Returns 0
 * unless the machine is measured, because this takes a system call. */
static uint64_t cpu_ns(const struct bt *bt)
{
    return bt->c.meter ? time_thread_ns() : 0;
}

/* Returns the entrance to the translation of the code at GPA for the present context, which it
 * makes if need be. NULL: there is no translation, or no entrance can be made now. */
static const void *find_translation(struct bt *bt, uint64_t gpa)
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

/* Calls TRANSLATE for the code at GPA, and counts it with the time it takes. */
static const void *translate_timed(struct bt *bt,
                                   const void *(*translate)(struct bt *bt, uint64_t gpa,
                                                            uint32_t generation),
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

/* Returns how often B must run before it is translated. Code of a page that is rewritten over and
 * over may not last long: it must have run for about twice as long as its translation takes. */
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

/* Translates B for the present context if it has run often enough. Returns its code, or NULL. */
static const void *translate_if_hot(struct bt *bt, struct block *b)
{
    uint64_t drops = bt->drops;
    const void *code;

    if (!b->cached || !is_hot(bt, b) || !bt_cache_try(bt->cache))
        return NULL;
    code = translate_timed(bt, bt_translate, b->gpa, b->generation);
    bt_cache_release(bt->cache);
    if (!code && !bt->full && bt->drops == drops &&
        !bt_entry_find(bt, b->gpa)) /* unless another vCPU has translated it meanwhile */
        b->heat = BT_NEVER;
    return code;
}

/* Whether the vCPU must leave translated code now: a request or an interrupt may be pending, it
 * single-steps, it is not running, or its limit of instructions is reached. */
static bool is_due(const struct vcpu *c)
{
    return vcpu_is_due(c) ||
           (c->limited && atomic_load_explicit(limit_reached(c), memory_order_relaxed));
}

/* Counts an exit at POINT. If that has become frequent, translates the code from there on with the
 * instruction's handler inlined, links the exit to it and returns it; else returns NULL. The code
 * is of the page that the exit is of, whatever the page tables say by now. */
static const void *inline_handler(struct bt *bt, struct bt_exit_point *point)
{
    const void *code = NULL;

    if (!point->link || ++point->exits < bt->cache->switches.inline_after ||
        !bt_cache_try(bt->cache))
        return NULL;
    if (point->link) { /* no other vCPU was faster */
        code = translate_timed(bt, bt_translate_again, point->gpa,
                               atomic_load(bt_generation(bt, point->gpa)));
        bt->link_page = bt->page;
        bt->link_branch_at = point->link;
        point->link = 0;
    }
    if (code)
        link_branch(bt, bt->c.x.reg[X86_RIP], code);
    bt_cache_release(bt->cache);
    return code;
}

/* Has the interpreter execute the instruction at X86_RIP, which left translated code at exit point
 * INDEX. Returns the translated code behind the instruction if control may go on there, or NULL. */
static const void *interpret_one(struct bt *bt, uint32_t index)
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
    if (set_jump_views(bt) || !code || losses != bt->losses || bt->c.x.reg[X86_RIP] != next ||
        is_due(&bt->c) || unmaps != bt->unmaps || !can_run(bt) || !want_files(bt, point->files))
        return NULL;
    return code;
}

/* Notes X86_RIP for the report that is written when the guest dies. */
static void note_history(struct vcpu *c)
{
    c->history[c->history_at++ % HISTORY] = c->x.reg[X86_RIP];
}

/* After BT_FILL: enters the page into the software TLB and returns the code that tries the access
 * again, or has the interpreter execute the instruction. HAD: register files that were loaded. */
static const void *fill_and_retry(struct bt *bt, unsigned had)
{
    const struct bt_exit_point point = bt->cache->exit_points[bt->exit_point];
    struct vcpu *c = &bt->c;

    counter_add(&bt->fills, 1);
    meter_switch(c->meter, CAUSE_TLB_MISS);
    if (bt->cache->switches.forgetful)
        mmu_table_clear(c->mmu.table[c->context]);
    c->x.reg[X86_RIP] = bt->page + point.offset;
    counter_sub(&c->instructions, point.left); /* now, because this may raise */
    note_history(c);
    if (fill_software_tlb(c, bt->address, point.size, point.write)) {
        counter_add(&c->instructions, point.left);
        meter_restore(c->meter);
        want_files(bt, point.files | (had & BT_SSE));
        return bt->cache->run + point.retry;
    }
    return interpret_one(bt, BT_NO_EXIT_POINT);
}

static void interpret_block(struct vcpu *c)
{
    const struct interpreter *interpreter = c->core->interpreter;

    interpreter->execute(c, interpreter->next(c));
}

/* After BT_LOAD: has the register files loaded that the region needs, besides those that were
 * loaded (HAD), and returns the region's code; or has the interpreter execute a block. */
static const void *load_and_retry(struct bt *bt, unsigned had)
{
    const struct bt_exit_point *point = &bt->cache->exit_points[bt->exit_point];

    bt->c.x.reg[X86_RIP] = bt->page + bt->offset;
    if (want_files(bt, point->files | had) || want_files(bt, point->files))
        return bt->cache->run + point->retry;
    bt->link_branch_at = 0;
    interpret_block(&bt->c);
    return NULL;
}

/* Executes the translated CODE until it is left. Returns the translated code to go on with, or
 * NULL.
 */
static const void *run_code(struct bt *bt, const void *code)
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
            return interpret_one(bt, BT_NO_EXIT_POINT);
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
    case BT_ONE: *rip = bt->page + bt->offset; return interpret_one(bt, bt->exit_point);
    case BT_LOAD: return load_and_retry(bt, had);
    default: return fill_and_retry(bt, had);
    }
}

/* Whether translated code of the page at X86_RIP, which is at GPA, may be entered: its translations
 * end in front of the page's breakpoints. */
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

/* Has the interpreter execute B and the blocks that follow by links, as long as they have no
 * translation and have not run often enough for one. */
static void interpret_blocks(struct bt *bt, struct block *b)
{
    struct vcpu *c = &bt->c;
    const struct interpreter *interpreter = c->core->interpreter;

    do {
        interpreter->execute(c, b);
        b = interpreter->linked(c);
    } while (b && !is_due(c) && !bt_entry_find(bt, b->gpa) && !is_hot(bt, b));
}

/* Returns the translated code at X86_RIP, or NULL after the interpreter has executed something
 * instead. */
static const void *find_code(struct bt *bt)
{
    struct vcpu *c = &bt->c;
    uint64_t rip = c->x.reg[X86_RIP];
    const void *code;
    bool single = bt->single_checks;

    counter_add(&c->exits[CAUSE_LOOKUP], 1);
    set_jump_views(bt);
    /* A link leads past the check of the code's age, so the jump table's code may be too old. */
    code = bt->link_branch_at || single ? NULL : bt_jump_find(bt, rip);
    if (!code) {
        uint64_t gpa = fetch_gpa(c, fetch_linear(c, c->x.reg[X86_RIP])), losses = bt->losses;
        bool enter = may_enter(bt, gpa);

        code = enter ? find_translation(bt, gpa) : NULL;
        if (!code) {
            struct block *b = c->core->interpreter->next(c);
            uint64_t drops = bt->drops;

            /* Decoding B may have waited while another vCPU cleared the cache, and all stops. */
            code = enter && losses == bt->losses ? translate_if_hot(bt, b) : NULL;
            if (!code) {
                bt->link_branch_at = 0;
                bt->single_checks = false;
                if (bt->drops == drops) /* B has not been forgotten */
                    interpret_blocks(bt, b);
                return NULL;
            }
        }
        bt->single_checks = false;
        set_jump_views(bt); /* looking for code may have changed the space's identifier */
        if (!single)
            bt_jump_add(bt, rip, gpa, code);
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
            code = run_code(bt, code);
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
    .pages_moved = bt_pages_moved,
};

/* RORX is BMI2; leaving translated code ends with VZEROUPPER; FS changes with WRFSBASE. */
bool bt_translator_runs_on(const struct x86_model *model)
{
    return model->feature[X86_FEAT_BMI2] && model->feature[X86_FEAT_AVX] &&
           (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE);
}
