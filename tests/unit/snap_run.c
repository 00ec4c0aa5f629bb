/*
 * Machines that are saved while they run, and go on in another engine: on the real clock, with
 * threads.
 */
#include "test.h"

#include "base/util.h"
#include "cpu/engines.h"
#include "state_image.h"
#include "vm/snap/snap.h"
#include "vm/vm_private.h"

#include <stdio.h>
#include <time.h>

#define ENTRY   0x1000
#define COUNTER 0x500
#define END     0x504
#define GOOD    7
#define BAD     9

/*
 * The guest, 16-bit code: counts its rounds at 500h until 504h is not 0. The TSC must not run
 * backwards from one round to the next.
 */
__asm__(".pushsection .rodata\n"
        ".code16\n"
        "guest:\n"
        "    xorl %ebx, %ebx\n"
        "    xorl %ecx, %ecx\n"
        "1:  rdtsc\n"
        "    cmpl %ecx, %edx\n"
        "    jb 3f\n"
        "    ja 2f\n"
        "    cmpl %ebx, %eax\n"
        "    jb 3f\n"
        "2:  movl %eax, %ebx\n"
        "    movl %edx, %ecx\n"
        "    incl 0x500\n"
        "    cmpb $0, 0x504\n"
        "    je 1b\n"
        "    movb $7, %al\n"
        "    outb %al, $0xF4\n"
        "3:  movb $9, %al\n"
        "    outb %al, $0xF4\n"
        "4:  hlt\n"
        "    jmp 4b\n"
        "guest_end:\n"
        ".code64\n"
        ".popsection");
extern const uint8_t guest[], guest_end[];

static _Atomic unsigned loads;

static int load_guest(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    loads++;
    cpu->seg[X86_CS].selector = 0;
    cpu->seg[X86_CS].base = 0;
    cpu->reg[X86_RIP] = ENTRY;
    return mem_write(mem, ENTRY, guest, (uint64_t)(guest_end - guest));
}

static const char *const devices[] = {"debug-exit", NULL};
static const struct vm_config config = {
    .cpus = 1, .memory = 2 * MiB, .load = load_guest, .devices.list = devices};

static uint32_t rounds(struct vm *vm)
{
    uint32_t value = 0;

    assert_int_equal(mem_read(vm->machine.mem, COUNTER, &value, 4), 0);
    return value;
}

static struct vm *start(const struct engine_ops *engine)
{
    struct vm *vm = vm_create(engine, &config, NULL);

    assert_non_null(vm);
    assert_int_equal(vm_start(vm, NULL), 0);
    return vm;
}

static void wait_for_rounds(struct vm *vm, uint32_t wanted)
{
    const struct timespec pause = {.tv_nsec = 100000};

    while (rounds(vm) < wanted)
        nanosleep(&pause, NULL);
}

/* Saves VM, which is paused, and makes another of it. */
static struct vm *move(struct vm *vm, const struct engine_ops *to)
{
    struct state_image image = {0};
    struct state_writer writer = image_writer(&image);
    struct state_reader reader;
    struct error err = {0};

    if (vm_save(vm, "a test", &writer, &err) < 0)
        fail_msg("%s", err.text);
    vm_destroy(vm);
    reader = image_reader(&image);
    vm = vm_load(to, &config, &reader, &err);
    if (!vm)
        fail_msg("%s", err.text);
    image_free(&image);
    return vm;
}

static void expect_end(struct vm *vm)
{
    static struct vm_end end;
    const uint8_t yes = 1;

    wait_for_rounds(vm, rounds(vm) + 1000);
    assert_int_equal(mem_write(vm->machine.mem, END, &yes, 1), 0);
    assert_int_equal(vm_wait(vm, 60000, &end), 0);
    assert_int_equal(end.outcome, VM_DEBUG_EXIT);
    assert_int_equal(end.status, GOOD << 1 | 1);
}

/* Guest time and TSC stand still from the pause on and go on from there. */
static void test_goes_on(void **state)
{
    static const struct engine_ops *const engines[] = {&interp_engine, &bt_engine,
                                                       &bt_eager_engine};
    uint64_t ns, tsc, before;

    for (unsigned i = 0; i < 6; i++) {
        struct vm *vm = start(engines[i % 3]);

        wait_for_rounds(vm, 1000 * i);
        vm_pause(vm);
        ns = clock_now(vm->machine.clock);
        tsc = clock_tsc(vm->machine.clock);
        before = rounds(vm);
        vm = move(vm, engines[(i + i / 3 + 1) % 3]);
        assert_int_equal(rounds(vm), before);
        assert_int_equal(clock_now(vm->machine.clock), ns);
        assert_int_equal(clock_tsc(vm->machine.clock), tsc);
        assert_int_equal(vm_start(vm, NULL), 0);
        assert_true(clock_now(vm->machine.clock) >= ns);
        assert_true(clock_tsc(vm->machine.clock) >= tsc);
        expect_end(vm);
        vm_destroy(vm);
    }
}

/* Saving does not need a pause of the caller's, and does not end the machine. */
static void test_runs_on(void **state)
{
    struct state_image image = {0};
    struct vm *vm = start(&bt_engine);

    for (unsigned i = 0; i < 5; i++) {
        struct state_writer writer = image_writer(&image);

        assert_int_equal(vm_save(vm, "a test", &writer, NULL), 0);
        image.size = 0;
    }
    expect_end(vm);
    vm_destroy(vm);
    image_free(&image);
}

/* A reset that was asked for before the pause happens afterwards. */
static void test_reset_to_come(void **state)
{
    struct vm *vm = vm_create(&interp_engine, &config, NULL);

    loads = 0;
    bus_write(vm->machine.bus, BUS_PORT, 0xCF9, 1, 6);
    assert_int_equal(loads, 0);
    vm = move(vm, &bt_engine);
    assert_int_equal(loads, 0);
    assert_int_equal(vm_start(vm, NULL), 0);
    wait_for_rounds(vm, 1);
    assert_int_equal(loads, 1);
    expect_end(vm);
    vm_destroy(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_runs_on),
        cmocka_unit_test(test_reset_to_come),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
