/*
 * The end can always be reached: machines whose output nobody takes, and what is said of threads
 * that hang. The guests are a few instructions in a Multiboot file without ELF.
 */
#include "test.h"

#include "flat_kernel.h"

#include "ctl/doppel.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_MS 60000
#define LIMIT   1000

static const enum doppel_engine engines[] = {DOPPEL_ENGINE_INTERP, DOPPEL_ENGINE_AUTO,
                                             DOPPEL_ENGINE_KVM};
static unsigned engine_count; /* those that run on this host */

/* A file of 32-bit code that is loaded at 1 MiB; unlinked by run_kernel. */
static char kernel[] = P_tmpdir "/doppel-ends-XXXXXX";

static struct doppel_vm *run_kernel(struct doppel_config *config, const uint8_t *code, size_t size)
{
    struct doppel_error err = {0};
    struct doppel_vm *vm;

    write_flat_kernel(kernel, code, size);
    config->kernel = kernel;
    vm = doppel_create(config, &err);
    unlink(kernel);
    if (!vm || doppel_start(vm, &err))
        fail_msg("%s", err.text);
    return vm;
}

static struct doppel_config config_of(enum doppel_engine engine)
{
    struct doppel_config config;

    doppel_config_init(&config);
    config.engine = engine;
    config.memory = 16 * 1024 * 1024;
    return config;
}

/* ---- Output that nobody takes ---- */

struct drain {
    _Atomic size_t taken, limit;
};

static void drain_output(void *opaque, const void *data, size_t size)
{
    atomic_fetch_add(&((struct drain *)opaque)->taken, size);
}

static bool drain_full(void *opaque)
{
    struct drain *d = opaque;

    return atomic_load(&d->taken) >= atomic_load(&d->limit);
}

static void await_taken(struct drain *d, size_t size)
{
    while (atomic_load(&d->taken) < size)
        usleep(1000);
}

/* A guest that sends without end. When its output is full its vCPU stands still: the one who drains
 * can press the power button and type, has all its output after all, and the end is reached. */
static void hold(struct doppel_config *config, struct drain *d, const uint8_t *code, size_t size)
{
    struct doppel_vm *vm;
    struct doppel_end end;

    atomic_store(&d->limit, LIMIT);
    vm = run_kernel(config, code, size);
    await_taken(d, LIMIT);
    doppel_power_button(vm);
    doppel_serial_input(vm, 1, "x", 1);
    for (size_t n = 2; n <= 10; n++) {
        assert_int_equal(doppel_wait(vm, 2, &end), -ETIMEDOUT);
        assert_true(atomic_load(&d->taken) < atomic_load(&d->limit) + DOPPEL_OUTPUT_EXCESS);
        atomic_store(&d->limit, atomic_load(&d->taken) + LIMIT);
        doppel_output_room(vm);
        await_taken(d, atomic_load(&d->limit));
    }
    doppel_stop(vm);
    assert_int_equal(doppel_wait(vm, WAIT_MS, &end), 0);
    assert_int_equal(end.outcome, DOPPEL_STOPPED);
    doppel_destroy(vm);
}

static void test_held(void **unused)
{
    /* mov $0x3F8,%dx; 1: out %al,%dx; jmp 1b */
    static const uint8_t bytes[] = {0x66, 0xBA, 0xF8, 0x03, 0xEE, 0xEB, 0xFD};
    /* mov $0x3F8,%dx; 1: mov $-1,%ecx; xor %esi,%esi; rep outsb; jmp 1b */
    static const uint8_t string[] = {0x66, 0xBA, 0xF8, 0x03, 0xB9, 0xFF, 0xFF, 0xFF,
                                     0xFF, 0x31, 0xF6, 0xF3, 0x6E, 0xEB, 0xF5};
    /* mov $0xE9,%dx; 1: out %al,%dx; jmp 1b */
    static const uint8_t debug[] = {0x66, 0xBA, 0xE9, 0x00, 0xEE, 0xEB, 0xFD};

    static const char *const devices[] = {"debug-console", NULL};

    for (unsigned i = 0; i < engine_count; i++) {
        struct doppel_config config = config_of(engines[i]);
        struct drain d[3] = {0};

        config.serial[0] = (struct doppel_serial){drain_output, drain_full, NULL, &d[0]};
        hold(&config, &d[0], bytes, sizeof(bytes));
        config.serial[0].opaque = &d[1];
        hold(&config, &d[1], string, sizeof(string));
        config = config_of(engines[i]);
        config.devices = devices;
        config.debug_output = drain_output;
        config.debug_full = drain_full;
        config.debug_opaque = &d[2];
        hold(&config, &d[2], debug, sizeof(debug));
    }
}

/* ---- Threads that hang ---- */

/* A backend that hangs, and how often it has begun to. */
struct hanging {
    sem_t release;
    _Atomic unsigned begun;
};

static __attribute__((noinline)) void hangs_for_ever(void *opaque, const void *data, size_t size)
{
    struct hanging *h = opaque;

    atomic_fetch_add(&h->begun, 1);
    while (sem_wait(&h->release))
        ;
}

static void collect(void *opaque, const char *text)
{
    strcat(opaque, text);
    strcat(opaque, "\n");
}

static const char *where(struct doppel_vm *vm)
{
    static char text[4096];

    text[0] = 0;
    doppel_where(vm, collect, text);
    return text;
}

/* Whether the thread whose name begins LINE is in FUNCTION, among others. */
static bool is_in(const char *text, const char *line, const char *function)
{
    const char *from = strstr(text, line), *end = from ? strchr(from, '\n') : NULL;
    const char *found = from ? strstr(from, function) : NULL;

    return found && found < end;
}

/* Asks until the thread says that it is in FUNCTION: on a busy host it may answer late. */
static const char *await_in(struct doppel_vm *vm, const char *line, const char *function)
{
    const char *text;

    do
        text = where(vm);
    while (!is_in(text, line, function));
    return text;
}

/* Waits until the vCPU hangs. The event loop, which empties the port after a while, may come first
 * on a busy host: it is let go. */
static void await_hanging_vcpu(struct doppel_vm *vm, struct hanging *h)
{
    unsigned released = 0;

    for (;;) {
        unsigned begun = atomic_load(&h->begun);
        const char *text = where(vm);

        if (begun == released || begun != atomic_load(&h->begun))
            continue;
        if (is_in(text, "vCPU 0", "hangs_for_ever"))
            return;
        if (is_in(text, "event loop", "hangs_for_ever")) {
            sem_post(&h->release);
            released++;
        }
    }
}

static void release(struct hanging *h)
{
    for (unsigned i = 0; i < 1000; i++)
        sem_post(&h->release);
}

/* The backend of a serial port breaks its contract. The vCPU, or the event loop and the vCPU that
 * wants the board lock, are named, with the function that is to blame. Not under KVM, which may be
 * too slow to fill the port before the event loop empties it. */
static void test_hanging_backend(void **unused)
{
    /* mov $0x3F8,%dx; mov $0x7FFFFFFF,%ecx; 1: rep outsb; jmp 1b */
    static const uint8_t burst[] = {0x66, 0xBA, 0xF8, 0x03, 0xB9, 0xFF, 0xFF,
                                    0xFF, 0x7F, 0xF3, 0x6E, 0xEB, 0xFC};
    /* mov $0x3F8,%dx; out %al,%dx; 1: in $0x61,%al; jmp 1b */
    static const uint8_t one[] = {0x66, 0xBA, 0xF8, 0x03, 0xEE, 0xE4, 0x61, 0xEB, 0xFC};

    for (unsigned i = 0; i < 4; i++) {
        struct doppel_config config = config_of(engines[i % 2]);
        struct doppel_vm *vm;
        const char *text;
        struct hanging hanging = {.begun = 0};

        sem_init(&hanging.release, 0, 0);
        config.serial[0] = (struct doppel_serial){.output = hangs_for_ever, .opaque = &hanging};
        vm = i < 2 ? run_kernel(&config, burst, sizeof(burst))
                   : run_kernel(&config, one, sizeof(one));
        if (i < 2)
            await_hanging_vcpu(vm, &hanging);
        else
            await_in(vm, "event loop", "hangs_for_ever");
        /* A vCPU that is told to stop before it wants the board lock ends, and wants it no more. */
        await_in(vm, "vCPU 0", i < 2 ? "port_out" : "bus_read");
        doppel_stop(vm);
        assert_int_equal(doppel_wait(vm, 20, NULL), -ETIMEDOUT);
        text = await_in(vm, "vCPU 0", i < 2 ? "port_out" : "bus_read");
        assert_non_null(strstr(text, "vCPU 0, guest near 1000"));
        release(&hanging);
        assert_int_equal(doppel_wait(vm, WAIT_MS, NULL), 0);
        doppel_destroy(vm);
        sem_destroy(&hanging.release);
    }
}

/* Guest code that runs, with an ESP that leads nowhere, answers; and it runs on. */
static void test_guest_runs(void **unused)
{
    /* mov $0xF0000000,%esp; mov $0x3F8,%dx; 1: inc %eax; test $0x1FFFF,%eax; jnz 1b; out %al,%dx;
     * jmp 1b */
    static const uint8_t code[] = {0xBC, 0,    0,    0,    0xF0, 0x66, 0xBA, 0xF8, 0x03, 0x40,
                                   0xA9, 0xFF, 0xFF, 0x01, 0,    0x75, 0xF8, 0xEE, 0xEB, 0xF5};

    for (unsigned i = 0; i < engine_count; i++) {
        struct doppel_config config = config_of(engines[i]);
        struct doppel_vm *vm;
        struct drain d = {0};

        config.serial[0] = (struct doppel_serial){.output = drain_output, .opaque = &d};
        vm = run_kernel(&config, code, sizeof(code));
        for (unsigned answers = 0; answers < 20;) {
            const char *text = where(vm);

            answers += is_in(text, "vCPU 0", "") && !is_in(text, "vCPU 0", "does not answer");
        }
        await_taken(&d, atomic_load(&d.taken) + 2);
        doppel_stop(vm);
        assert_int_equal(doppel_wait(vm, WAIT_MS, NULL), 0);
        doppel_destroy(vm);
    }
}

/* Whether the last of ENGINES can be used here. */
static bool kvm_runs(void)
{
    static const uint8_t code[] = {0xF4}; /* hlt */
    struct doppel_config config = config_of(DOPPEL_ENGINE_KVM);
    struct doppel_error err = {0};
    struct doppel_vm *vm;

    write_flat_kernel(kernel, code, sizeof(code));
    config.kernel = kernel;
    vm = doppel_create(&config, &err);
    unlink(kernel);
    if (!vm)
        fprintf(stderr, "ends: without KVM: %s\n", err.text);
    else
        doppel_destroy(vm);
    return vm;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_hanging_backend),
        cmocka_unit_test(test_guest_runs),
    };

    engine_count = 2 + kvm_runs();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
