/*
 * Fuzz target: two vCPUs of a whole machine at random code, side by side in the same memory: locked
 * and split accesses, code that both rewrite and execute, page tables that change under way,
 * devices, interrupts and NMIs that they send each other, exceptions whose delivery raises
 * exceptions. The harness meanwhile pauses the machine, writes into its memory and sends it input.
 *
 * Wrong is what a sanitizer finds; a machine that cannot be paused, since then some vCPU no longer
 * looks at its requests (the watchdog gives it a minute); and a process that grows. What the guest
 * does to itself is its own business: most of them end in exceptions without end.
 *
 * Inputs are deterministic, and what is made of one is, too; how the vCPUs meet is not.
 */
#include "base/util.h"
#include "mem/change.h"
#include "cpu/engines.h"
#include "race.h"
#include "vm/vm_private.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef RIG_ENGINE
#define RIG_ENGINE interp_engine
#endif

#define WATCHDOG_S  60
#define RESIDENT_KB (1536L * 1024) /* caches that are full, and a sanitizer's */
#define ACTIONS     4
#define ACTION_US   400

static struct vm *vm;
static const uint8_t *present; /* the input, for what the watchdog says */
static size_t present_size;

static void fail(const char *what)
{
    fprintf(stderr, "race: %s; input:", what);
    for (size_t i = 0; i < present_size; i++)
        fprintf(stderr, " %02x", present[i]);
    for (unsigned i = 0; vm && i < RACE_CPUS; i++)
        fprintf(stderr, "\nvCPU %u: requests %x, sleeping %d", i,
                atomic_load(&vm->cpu[i].port.requests), atomic_load(&vm->cpu[i].sleeping));
    fprintf(stderr, "\n");
    abort();
}

static void on_alarm(int signal)
{
    fail("the machine does not stand still");
}

static int load(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    race_write(mem, present, present_size);
    race_state(cpu, 0, present, present_size);
    return 0;
}

static void create(void)
{
    const struct vm_config config = {.cpus = RACE_CPUS, .memory = RACE_RAM, .load = load};
    struct error err;

    vm = vm_create(&RIG_ENGINE, &config, &err);
    if (!vm) {
        fprintf(stderr, "race: %s\n", err.text);
        abort();
    }
    vm_pause(vm);
    if (vm_start(vm, &err) != 0)
        abort();
}

static void destroy(void)
{
    vm_destroy(vm);
    vm = NULL;
}

/* Both vCPUs at the beginning of what the input says. The machine is paused. */
static void restart(void)
{
    struct x86_cpu state;
    struct error err;

    if (vm_boot(vm, &err) != 0)
        abort();
    x86_cpu_reset(&state);
    state.physical_bits = vm->machine.model.physical_bits;
    race_state(&state, 1, present, present_size);
    RIG_ENGINE.state_in(vm->cpu[1].vcpu, &state);
    vm->cpu[1].wait_sipi = false;
}

/* Pages are shared, protected, and given back: those of the guest's shared memory and, for it is
 * all the same to the guest, those of its page tables and code. What is ballooned is lost, as if
 * the guest had written zeroes. */
static void take_away(unsigned action)
{
    struct mem_change batch[16];

    for (unsigned i = 0; i < ARRAY_SIZE(batch); i++)
        batch[i] = (struct mem_change){
            .kind = i == 7  ? MEM_BALLOON
                    : i & 1 ? MEM_SHARE
                            : MEM_PROTECT,
            .gpn = (action * 16 + i) % (RACE_RAM >> MEM_PAGE_SHIFT),
        };
    mem_change(vm->machine.mem, batch, ARRAY_SIZE(batch));
}

/* Something from outside while the vCPUs run. */
static void act(unsigned action)
{
    const uint64_t shared = RACE_SHARED + (action & 0xFF0);
    uint8_t code[4] = {0x90, 0x90, 0x90, 0xC3};

    switch (action & 7) {
    case 0:
        vm_pause(vm);
        vm_resume(vm);
        break;
    case 1: mem_write(vm->machine.mem, shared, code, sizeof(code)); break;
    case 2: take_away(action); break;
    case 3: vm_serial_input(vm, 0, code, sizeof(code)); break;
    case 4: cpu_port_request(&vm->cpu[action >> 3 & 1].port, CPU_REQ_NMI); break;
    default: break;
    }
}

static void check_growth(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    if (usage.ru_maxrss > RESIDENT_KB)
        fail("the process grows");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < RACE_INPUT_MIN || size > 4096)
        return 0;
    present = data;
    present_size = size;
    if (!vm) {
        signal(SIGALRM, on_alarm);
        atexit(destroy);
    } else if (vm->ending) {
        destroy();
    }
    alarm(WATCHDOG_S);
    if (!vm)
        create();
    restart();
    vm_resume(vm);
    for (unsigned i = 0; i < ACTIONS; i++) {
        usleep(ACTION_US);
        act(data[size - 1 - i] | (unsigned)data[i] << 8);
    }
    vm_pause(vm);
    alarm(0);
    check_growth();
    return 0;
}
