/*
 * Boots one kernel on two machines, interpreted and translated, and keeps them in step: whenever
 * the translated one stops, the interpreted one is brought to the very same instruction, and all
 * registers must be the same there; now and then all memory, too.
 *
 * Time is what makes this possible. Both have a clock that stands still while they run and is moved
 * by the number of instructions between two stops, so timers fire at the same instruction on both
 * and interrupts are delivered at arbitrary places. Nothing else comes from outside but what is
 * typed, once the guest has written a prompt.
 *
 * On a difference everything is done again, and from the last stop that was good on the two are
 * compared at every edge of a region, so that the report names the instructions that it came from.
 *
 * With --restore, the leading machine is saved, destroyed and made again every so many instructions
 * on average, at places that the seed determines, and goes on in the next of its engines; the other
 * machine is left alone. With --switch, it stays the same machine and gets the next engine.
 *
 *     lockstep-boot [--engine NAME[,NAME]...] [--restore INSTRUCTIONS | --switch INSTRUCTIONS]
 *                   [--seed N] [--slice INSTRUCTIONS] [--instructions MAX] [--memory MiB]
 *                   [--append STRING]
 *                   [--prompt STRING] [--type LINE]... [--test-devices] KERNEL [INITRD]
 *
 * --test-devices adds the devices of the bare-metal guests (tests/asm), whose end must be good.
 */
#include "../unit/fake_clock.h"
#include "../variants.h"
#include "kernel.h"
#include "restore.h"

#include "base/util.h"
#include "cpu/core/run.h"
#include "vm/vm_private.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define LINES_MAX     64
#define OUTPUT_MAX    (1 * MiB)
#define SLICE         50000    /* instructions between two stops */
#define MEMORY_EVERY  40000000 /* between two looks at all memory */
#define DIFFERENT_MAX 16       /* differences that are listed */
#define STATUS_USAGE  2
#define STATUS_PASSED 1 /* of a bare-metal guest that is content */
#define ENGINES_MAX   8

struct options {
    const char *kernel, *initrd, *append, *prompt;
    const char *line[LINES_MAX];
    unsigned lines;
    uint64_t slice, memory, instructions;
    uint64_t disturb, seed; /* disturb: the mean distance of what is done to it, or 0 */
    bool switches;          /* that is a change of engine, not of the machine */
    bool test_devices;
    /* Of the leading machine: as they are, and with create_leading. */
    unsigned engines;
    struct engine_ops engine[ENGINES_MAX], leading[ENGINES_MAX];
    /* From these instructions on, look at all memory whenever registers are looked at, and look at
     * every edge of a region. */
    uint64_t memory_from, edges_from;
};

enum verdict { SAME, UNFINISHED, REGISTERS_DIFFER, MEMORY_DIFFERS };

/* One of the two machines. */
struct side {
    const struct engine_ops *ops;
    struct vm_config config;
    struct vm *vm;
    struct vcpu *cpu;
    char *output; /* OUTPUT_MAX bytes; what is beyond them is dropped */
    size_t written;
};

enum { INTERPRETED, TRANSLATED, SIDES };

struct pair {
    const struct options *options;
    struct side side[SIDES];
    uint64_t instructions; /* executed by each */
    uint64_t slice_end;    /* at how many time passes next */
    uint64_t good;         /* of them, up to the last stop that was compared */
    uint64_t good_memory;  /* and up to the last with all memory */
    uint64_t stops, flags_repaired, words_repaired;
    size_t shown, prompted; /* of the output */
    unsigned typed;         /* lines */
    struct chance chance;
    uint64_t next_disturbance; /* at how many instructions */
    unsigned disturbances;
    enum verdict verdict;
    bool over;
};

/* The C library's, for the boot loader, which hands the guest a random seed: always the same. */
ssize_t getrandom(void *buffer, size_t size, unsigned flags)
{
    memset(buffer, 0x5A, size);
    return (ssize_t)size;
}

/* --- Machines -------------------------------------------------------------------------------- */

/* What the two engines have in common, but for the numbers that the processor makes up. */
static struct engine *create(const struct engine_ops *ops, const struct machine *machine,
                             struct error *err)
{
    struct machine m = *machine;

    m.model.feature[X86_FEAT_RDRAND] = m.model.feature[X86_FEAT_RDSEED] = false;
    m.measure = ops != &interp_engine; /* translated code counts instructions */
    return ops->create(&m, err);
}

static struct engine *create_interpreted(const struct machine *machine, struct error *err)
{
    return create(&interp_engine, machine, err);
}

/* The other machine's operations. */
static struct engine_ops undisturbed;

/* The leading machine's engine, for create_leading. */
static const struct engine_ops *leading_ops;

static struct engine *create_leading(const struct machine *machine, struct error *err)
{
    return create(leading_ops, machine, err);
}

/* The operations of the Nth of its engines, to be used before those of another. */
static const struct engine_ops *lead_with(const struct options *o, unsigned n)
{
    leading_ops = &o->engine[n % o->engines];
    return &o->leading[n % o->engines];
}

static void on_output(void *opaque, const void *data, size_t size)
{
    struct side *side = opaque;

    size = MIN(size, OUTPUT_MAX - side->written);
    memcpy(side->output + side->written, data, size);
    side->written += size;
}

/* VM may be NULL: that has been reported. */
static bool side_take(struct side *side, const struct engine_ops *ops, struct vm *vm)
{
    side->ops = ops;
    side->vm = vm;
    if (!vm)
        return false;
    side->cpu = vm->cpu[0].vcpu;
    /* Saving has paused the machine; it has no thread that would take notice. */
    atomic_fetch_and(&vm->cpu[0].port.requests, ~(uint32_t)CPU_REQ_KICK);
    clock_resume(vm->machine.clock);
    return true;
}

static bool side_create(struct side *side, const struct engine_ops *ops, struct boot_image *image,
                        const struct options *options)
{
    static const char *const test_devices[] = {"test-device", "debug-exit", "debug-console", NULL};
    struct error err = {0};
    struct vm *vm;

    side->config = (struct vm_config){
        .cpus = 1,
        .memory = options->memory,
        .load = kernel_load,
        .load_opaque = image,
        .devices = {.list = options->test_devices ? test_devices : NULL,
                    .serial[0] = {.sent = {.output = on_output, .opaque = side}},
                    .debug_output = {.output = on_output, .opaque = side}},
    };
    side->written = 0;
    vm = vm_create(ops, &side->config, &err);
    if (!vm)
        fprintf(stderr, "lockstep: %s\n", err.text);
    return side_take(side, ops, vm);
}

/* --- Comparing ------------------------------------------------------------------------------- */

static bool same_value(const char *what, unsigned i, uint64_t a, uint64_t b)
{
    if (a != b)
        printf("  %s %u: interpreted %" PRIx64 ", translated %" PRIx64 "\n", what, i, a, b);
    return a == b;
}

/* Says where A and B differ; something in them does. */
static void show_registers(const struct x86_cpu *a, const struct x86_cpu *b)
{
    static const char *const name[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                       "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                       "r12", "r13", "r14", "r15", "",    "rip"};

    for (unsigned i = 0; i <= X86_RIP; i++)
        same_value(name[i], i, a->reg[i], b->reg[i]);
    same_value("rflags", 0, a->rflags, b->rflags);
    same_value("cr2", 0, a->cr2, b->cr2);
    same_value("cr3", 0, a->cr3, b->cr3);
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        same_value("segment base", i, a->seg[i].base, b->seg[i].base);
    for (unsigned i = 0; i < X86_XSAVE_SIZE; i++)
        same_value("xsave byte", i, a->xsave[i], b->xsave[i]);
    for (size_t i = 0; i < sizeof(*a) / 8; i++)
        same_value("word of the state", (unsigned)i, ((const uint64_t *)a)[i],
                   ((const uint64_t *)b)[i]);
}

/* Whether A and B are RFLAGS as exceptions save them, in code where nobody will read the status
 * flags that they differ in: the only difference that there may be. Faults save RF, too, and
 * Linux hands some of the bits to signal handlers. */
static bool is_saved_flags(uint64_t a, uint64_t b)
{
    const uint64_t all = 0x3FFFFF, always = X86_FLAG_ONE | X86_FLAG_IF;

    return !((a ^ b) & ~(uint64_t)X86_FLAGS_STATUS) && !(a & ~all) &&
           ((a & X86_FLAG_RF) || (a & always) == always);
}

/* Status flags that nobody will read may differ at a stop, and where they have been saved. Where
 * time passes they become the same, for an interrupt may save them; not at other stops, where that
 * would repair what is to be found. */
static void repair_flags(struct pair *p, struct x86_cpu *a, struct x86_cpu *b)
{
    struct vcpu *translated = p->side[TRANSLATED].cpu;
    bool lasting = p->instructions >= p->slice_end;

    /* What IRET loads into RF is gone with the next instruction, and without breakpoints, with
     * which nothing is translated, it is nothing to anyone. */
    b->rflags |= a->rflags & X86_FLAG_RF;

    if ((a->rflags ^ b->rflags) & X86_FLAGS_STATUS) {
        b->rflags = (b->rflags & ~(uint64_t)X86_FLAGS_STATUS) | (a->rflags & X86_FLAGS_STATUS);
        if (lasting)
            translated->cc = p->side[INTERPRETED].cpu->cc;
        p->flags_repaired++;
    }
    for (unsigned i = 0; i < X86_GPRS; i++) {
        if (a->reg[i] == b->reg[i] || !is_saved_flags(a->reg[i], b->reg[i]))
            continue;
        b->reg[i] = a->reg[i];
        if (lasting)
            translated->x.reg[i] = a->reg[i];
        p->words_repaired++;
    }
}

/* Byte for byte, padding too: both are copies of states that began as zeroes. */
static bool same_state(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct x86_cpu)) == 0;
}

static bool same_registers(struct pair *p)
{
    struct x86_cpu state[SIDES];

    memset(state, 0, sizeof(state));
    for (unsigned i = 0; i < SIDES; i++)
        p->side[i].ops->state_out(p->side[i].cpu, &state[i]);
    repair_flags(p, &state[0], &state[1]);
    if (same_state(&state[0], &state[1]))
        return true;
    printf("lockstep: registers differ:\n");
    show_registers(&state[0], &state[1]);
    return false;
}

static bool same_page(struct pair *p, uint64_t gpn, unsigned *different)
{
    const uint32_t *a = mem_peek(p->side[0].vm->machine.mem, gpn);
    uint32_t *b = mem_peek(p->side[1].vm->machine.mem, gpn);

    if (!a || !b || memcmp(a, b, MEM_PAGE_SIZE) == 0)
        return true;
    for (unsigned i = 0; i < MEM_PAGE_SIZE / 4; i++) {
        if (a[i] == b[i])
            continue;
        if (is_saved_flags(a[i], b[i])) {
            b[i] = a[i];
            p->words_repaired++;
            continue;
        }
        if (++*different <= DIFFERENT_MAX)
            same_value("memory, page", (unsigned)gpn, a[i], b[i]);
    }
    return !*different;
}

static bool same_memory(struct pair *p)
{
    unsigned different = 0;
    bool same = true;

    for (uint64_t gpn = 0; gpn < p->options->memory >> MEM_PAGE_SHIFT; gpn++)
        same &= same_page(p, gpn, &different);
    if (!same)
        printf("lockstep: %u words of memory differ\n", different);
    return same;
}

static bool same_output(const struct pair *p)
{
    const struct side *a = &p->side[0], *b = &p->side[1];

    if (a->written == b->written && memcmp(a->output, b->output, a->written) == 0)
        return true;
    printf("lockstep: the guests' output differs\n");
    return false;
}

/* --- Running --------------------------------------------------------------------------------- */

/* One stop further, if both go the same way. *EXIT as core_run_for. */
static bool advance(struct pair *p, uint64_t limit, int *exit, uint64_t *count)
{
    struct side *leader = &p->side[TRANSLATED], *follower = &p->side[INTERPRETED];
    uint64_t followed = 0, more = 0;
    int same_exit = -1;

    *exit = core_run_for(leader->cpu, limit, count);
    if (*count)
        same_exit = core_run_for(follower->cpu, *count, &followed);
    if (*exit >= 0 && same_exit < 0) /* has yet to look why it should stop */
        same_exit = core_run_for(follower->cpu, 0, &more);
    if (*count == followed + more && *exit == same_exit)
        return true;
    printf("lockstep: translated, %" PRIu64 " instructions and exit %d; interpreted, %" PRIu64
           " and %d\n",
           *count, *exit, followed + more, same_exit);
    (void)same_registers(p);
    return false;
}

static void pass(struct pair *p, uint64_t ns)
{
    for (unsigned i = 0; i < SIDES; i++)
        fake_clock_advance(p->side[i].vm->machine.clock, ns);
}

/* Both have halted: what comes next, unless it has come already? */
static bool wait(struct pair *p)
{
    const struct vm *vm = p->side[0].vm;
    uint64_t next = fake_clock_next(vm->machine.clock);

    if (atomic_load(&vm->cpu[0].port.requests))
        return true;
    if (next == UINT64_MAX) {
        printf("lockstep: the guest sleeps for ever\n");
        p->over = true;
        return false;
    }
    pass(p, next - clock_now(vm->machine.clock));
    return true;
}

/* Reset, power-off or the like, which both have asked for. */
static bool handle_kick(struct pair *p)
{
    struct error err = {0};

    for (unsigned i = 0; i < SIDES; i++) {
        struct vm *vm = p->side[i].vm;

        atomic_fetch_and(&vm->cpu[0].port.requests, ~(uint32_t)CPU_REQ_KICK);
        p->over |= vm->ending;
        if (vm->reset_wanted && vm_boot(vm, &err) != 0) {
            printf("lockstep: %s\n", err.text);
            return false;
        }
        vm->reset_wanted = false;
    }
    return true;
}

/* Types the next line when the guest has asked for it. */
static void type(struct pair *p)
{
    const struct options *o = p->options;
    const struct side *side = &p->side[0];

    if (p->typed == o->lines || !memmem(side->output + p->prompted, side->written - p->prompted,
                                        o->prompt, strlen(o->prompt)))
        return;
    for (unsigned i = 0; i < SIDES; i++) {
        vm_serial_input(p->side[i].vm, 0, o->line[p->typed], strlen(o->line[p->typed]));
        vm_serial_input(p->side[i].vm, 0, "\n", 1);
    }
    p->prompted = side->written;
    p->typed++;
}

static void show_output(struct pair *p)
{
    const struct side *side = &p->side[0];

    fwrite(side->output + p->shown, 1, side->written - p->shown, stdout);
    fflush(stdout);
    p->shown = side->written;
}

static bool compare(struct pair *p)
{
    const struct options *o = p->options;

    p->stops++;
    if (!same_registers(p) || !same_output(p)) {
        p->verdict = REGISTERS_DIFFER;
        return false;
    }
    if (p->over || p->instructions >= MIN(o->memory_from, p->good_memory + MEMORY_EVERY)) {
        if (!same_memory(p)) {
            p->verdict = MEMORY_DIFFERS;
            return false;
        }
        p->good_memory = p->instructions;
    }
    p->good = p->instructions;
    return true;
}

/* To the next stop at which time passes; *EXIT as core_run_for. Within it there are stops only
 * when looking closely. */
static bool slice(struct pair *p, int *exit)
{
    uint64_t start = p->instructions;

    p->slice_end = start + p->options->slice;
    if (p->options->disturb)
        p->slice_end = MIN(p->slice_end, MAX(p->next_disturbance, start + 1));
    *exit = -1;
    while (*exit < 0 && p->instructions < p->slice_end) {
        bool every = p->instructions >= p->options->edges_from;
        uint64_t limit = every ? 1 : p->slice_end - p->instructions, count;

        if (!advance(p, limit, exit, &count)) {
            p->verdict = REGISTERS_DIFFER;
            return false;
        }
        p->instructions += count;
        if (*exit >= 0)
            p->slice_end = p->instructions;
        if (*exit == EXIT_SHUTDOWN)
            p->over = true;
        if (*exit == EXIT_KICK && !handle_kick(p))
            return false;
        if (!compare(p))
            return false;
    }
    pass(p, p->instructions - start);
    return true;
}

/* Gives the leading machine another engine. False: that failed. */
static bool switch_leader(struct side *leader, const struct engine_ops *ops)
{
    struct error err = {0};

    if (vm_switch_engine(leader->vm, ops, &err) < 0) {
        printf("lockstep: %s\n", err.text);
        return false;
    }
    leader->ops = ops;
    leader->cpu = leader->vm->cpu[0].vcpu;
    atomic_fetch_and(&leader->vm->cpu[0].port.requests, ~(uint32_t)CPU_REQ_KICK);
    return true;
}

/* Has another machine, or another engine, take the leading one's place, if it is time. False: that
 * failed. */
static bool disturb_leader(struct pair *p)
{
    const struct options *o = p->options;
    struct side *leader = &p->side[TRANSLATED];
    const struct engine_ops *ops;

    if (!o->disturb || p->instructions < p->next_disturbance || leader->vm->ending)
        return true;
    p->next_disturbance = p->instructions + chance_around(&p->chance, o->disturb);
    ops = lead_with(o, ++p->disturbances);
    if (o->switches)
        return switch_leader(leader, ops);
    /* What the leader has buffered goes out with it. */
    board_flush(p->side[INTERPRETED].vm->board);
    return side_take(leader, ops, restore(leader->vm, ops, &leader->config));
}

/* Whether the guests have come to a good end, or as far as they were to go. */
static bool is_finished(const struct pair *p)
{
    const struct options *o = p->options;
    const struct vm_end *end = &p->side[0].vm->end;

    if (o->instructions)
        return !p->over;
    if (o->test_devices)
        return end->outcome == VM_DEBUG_EXIT && end->status == STATUS_PASSED;
    return p->typed == o->lines;
}

static void run(struct pair *p)
{
    const struct options *o = p->options;
    int exit;

    while (!p->over && (!o->instructions || p->instructions < o->instructions)) {
        if (!slice(p, &exit))
            return;
        show_output(p);
        type(p);
        if (!p->over && !disturb_leader(p))
            return;
        if (exit == EXIT_HALT && !wait(p))
            return;
    }
    if (!p->over && !same_memory(p)) {
        p->verdict = MEMORY_DIFFERS;
        return;
    }
    printf("lockstep: %" PRIu64 " instructions, the same at all of %" PRIu64
           " stops (dead flags differed at %" PRIu64 ", and %" PRIu64 " words of memory)\n",
           p->instructions, p->stops, p->flags_repaired, p->words_repaired);
    if (o->disturb)
        printf("lockstep: %s %u times, with seed %" PRIu64 "\n",
               o->switches ? "engine switched" : "saved and restored", p->disturbances, o->seed);
    p->verdict = is_finished(p) ? SAME : UNFINISHED;
}

static void show_history(struct pair *p)
{
    static char text[16384];

    for (unsigned i = 0; i < SIDES; i++) {
        text[0] = 0;
        p->side[i].ops->history(p->side[i].cpu, text, sizeof(text));
        printf("%s, the last:\n%s", p->side[i].ops->name, text);
    }
}

/* Runs the guest to its end, which is to be after all was typed. *GOOD and *GOOD_MEMORY: for how
 * many instructions all was the same. */
static enum verdict run_pair(struct boot_image *image, const struct options *options,
                             uint64_t *good, uint64_t *good_memory)
{
    struct pair p = {
        .options = options, .verdict = UNFINISHED, .chance = {.state = options->seed * 2 + 1}};
    bool ready = true;

    for (unsigned i = 0; i < SIDES; i++) {
        const struct engine_ops *ops = i == TRANSLATED ? lead_with(options, 0) : &undisturbed;

        p.side[i].output = malloc(OUTPUT_MAX);
        ready = ready && p.side[i].output && side_create(&p.side[i], ops, image, options);
    }
    if (options->disturb)
        p.next_disturbance = chance_around(&p.chance, options->disturb);
    if (ready)
        run(&p);
    if (p.verdict > UNFINISHED) {
        show_output(&p);
        printf("lockstep: the last good stop was after %" PRIu64 " instructions\n", p.good);
        show_history(&p);
    }
    *good = p.good;
    *good_memory = p.good_memory;
    for (unsigned i = 0; i < SIDES; i++) {
        vm_destroy(p.side[i].vm);
        free(p.side[i].output);
    }
    return p.verdict;
}

/* The same with closer and closer looks, until a difference has been found between two edges. */
static bool run_closely(struct boot_image *image, struct options *options)
{
    uint64_t good, good_memory;
    enum verdict verdict = run_pair(image, options, &good, &good_memory);
    bool same = verdict == SAME;

    if (verdict == MEMORY_DIFFERS) {
        printf("lockstep: again, with a look at all memory at each stop from there on\n");
        options->memory_from = good_memory;
        verdict = run_pair(image, options, &good, &good_memory);
    }
    if (verdict > UNFINISHED) {
        printf("lockstep: again, with a stop at each edge from there on\n");
        options->edges_from = good;
        verdict = run_pair(image, options, &good, &good_memory);
    }
    if (!same && verdict == SAME)
        printf("lockstep: this time without a difference\n");
    return same;
}

/* --- The program ----------------------------------------------------------------------------- */

/* Finds the leading machine's engines, NAMES with commas in between. */
static bool find_engines(struct options *o, char *names)
{
    o->engines = variants_find(names, o->engine, ENGINES_MAX);
    for (unsigned i = 0; i < o->engines; i++) {
        o->leading[i] = o->engine[i];
        o->leading[i].create = create_leading;
    }
    return o->engines;
}

static bool parse_files(int argc, char **argv, struct options *o)
{
    if (argc < 1 || argc > 2)
        return false;
    o->kernel = argv[0];
    o->initrd = argc > 1 ? argv[1] : NULL;
    return true;
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"engine", required_argument, NULL, 'e'},       {"restore", required_argument, NULL, 'r'},
        {"switch", required_argument, NULL, 'w'},       {"seed", required_argument, NULL, 'S'},
        {"instructions", required_argument, NULL, 'i'}, {"test-devices", no_argument, NULL, 'd'},
        {"slice", required_argument, NULL, 's'},        {"memory", required_argument, NULL, 'm'},
        {"append", required_argument, NULL, 'a'},       {"prompt", required_argument, NULL, 'p'},
        {"type", required_argument, NULL, 't'},         {0}};
    char bt[] = "bt", *engines = bt;
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'e': engines = optarg; break;
        case 'r':
        case 'w':
            o->disturb = strtoull(optarg, NULL, 0);
            o->switches = option == 'w';
            break;
        case 'S': o->seed = strtoull(optarg, NULL, 0); break;
        case 'i': o->instructions = strtoull(optarg, NULL, 0); break;
        case 'd': o->test_devices = true; break;
        case 's': o->slice = strtoull(optarg, NULL, 0); break;
        case 'm': o->memory = strtoull(optarg, NULL, 0) * MiB; break;
        case 'a': o->append = optarg; break;
        case 'p': o->prompt = optarg; break;
        case 't':
            if (o->lines == LINES_MAX)
                return false;
            o->line[o->lines++] = optarg;
            break;
        default: return false;
        }
    }
    return o->slice && !(o->slice >> 31) && find_engines(o, engines) &&
           parse_files(argc - optind, argv + optind, o);
}

int main(int argc, char **argv)
{
    struct options options = {.append = "console=ttyS0",
                              .prompt = "# ",
                              .slice = SLICE,
                              .memory = 128 * MiB,
                              .memory_from = UINT64_MAX,
                              .edges_from = UINT64_MAX};
    struct kernel kernel;
    bool same;

    if (!parse(argc, argv, &options)) {
        fprintf(stderr, "usage: lockstep-boot [OPTION]... KERNEL INITRD; see boot.c\n");
        return STATUS_USAGE;
    }
    undisturbed = interp_engine;
    undisturbed.create = create_interpreted;
    if (!kernel_open(&kernel, options.kernel, options.initrd, options.append))
        return STATUS_USAGE;
    same = run_closely(kernel.image, &options);
    kernel_close(&kernel);
    return !same;
}
