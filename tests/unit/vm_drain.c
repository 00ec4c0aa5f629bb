/*
 * A VM whose one device never rests: what it does is done on a worker and on the event loop's
 * thread, and nothing of it may touch guest memory while the VM is paused, is reset, or has ended.
 * And the device holds the VM, as one does for which the host has no room.
 *
 * The board is the test's own, in place of vm/board.c. The guest does nothing but ring the device's
 * doorbell, under the real interpreter.
 */
#include "test.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "cpu/engines.h"
#include "dev/pc/lapic.h"
#include "vm/board.h"
#include "vm/vm.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define DOORBELL 0xE0   /* ports of the device */
#define RESET    0xE2   /* a write resets the machine */
#define CODE     0x1000 /* addresses of guest memory */
#define SERVED   0x5000
#define ENDED    0x5008

/* ---- The device, and a board with nothing but local APICs besides ---- */

const struct board_serial board_serial[BOARD_SERIAL_PORTS];

struct board {
    struct dev dev; /* the device is part of it */
    struct bus *bus;
    struct mem *mem;
    struct loop *loop;
    struct lapic_set *lapics;
    struct msi_sink msi;
    struct board_events events;

    struct work work;
    struct loop_job done;
    bool paused;             /* as the device knows it: guarded by pause itself */
    _Atomic unsigned active; /* threads of the device that may touch guest memory */
    _Atomic unsigned served;
    _Atomic unsigned intrusions; /* how often one did while the device stood still */
    _Atomic unsigned retries;    /* what it was told to do while it held the VM */

    /* With GATED, a worker waits here in the middle of its work. */
    _Atomic bool gated;
    sem_t begun, may_return;
};

/* The one VM that runs, so that the guest's loader finds the device. */
static struct board *board;

static void add_one(struct board *b, uint64_t gpa)
{
    uint64_t count = 0;

    if (b->paused)
        atomic_fetch_add(&b->intrusions, 1);
    mem_read(b->mem, gpa, &count, sizeof(count));
    count++;
    mem_write(b->mem, gpa, &count, sizeof(count));
}

/* On the loop's thread, or where the device is paused. */
static void complete(void *opaque)
{
    struct board *b = opaque;

    bus_lock(b->bus);
    atomic_fetch_add(&b->active, 1);
    add_one(b, ENDED);
    atomic_fetch_sub(&b->active, 1);
    bus_unlock(b->bus);
    b->msi.send(b->msi.opaque, 0xFEE00000, 0x50);
}

static __attribute__((noinline)) void wait_at_the_gate(struct board *b)
{
    sem_post(&b->begun);
    while (sem_wait(&b->may_return) < 0)
        ;
}

static __attribute__((noinline)) void serve(void *opaque)
{
    struct board *b = opaque;

    atomic_fetch_add(&b->active, 1);
    if (atomic_load(&b->gated))
        wait_at_the_gate(b);
    add_one(b, SERVED);
    atomic_fetch_add(&b->served, 1);
    atomic_fetch_sub(&b->active, 1);
    b->msi.send(b->msi.opaque, 0xFEE00000, 0x51);
    loop_post(b->loop, &b->done);
}

static void device_pause(struct dev *dev)
{
    struct board *b = container_of(dev, struct board, dev);

    workers_pause(&b->work);
    if (loop_cancel(b->loop, &b->done))
        complete(b);
    b->paused = true;
}

static void device_resume(struct dev *dev)
{
    struct board *b = container_of(dev, struct board, dev);

    b->paused = false;
    workers_resume(&b->work);
}

static const struct dev_ops device_ops = {
    .name = "restless", .pause = device_pause, .resume = device_resume};

static void ring(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct board *b = dev;

    workers_post(&b->work);
}

static uint64_t port_read(void *dev, uint64_t offset, unsigned size)
{
    return 0;
}

static void port_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct board *b = dev;

    b->events.reset(b->events.opaque);
}

static const struct bus_ops port_ops = {port_read, port_write, 1};

static void lapic_eoi(void *opaque, unsigned vector)
{
}

static unsigned lapic_acknowledge(void *opaque)
{
    return 0;
}

struct board *board_create(struct bus *bus, struct clock *clock, struct mem *mem,
                           const struct board_config *config, struct error *err)
{
    struct board *b = calloc(1, sizeof(*b));
    struct lapic_board outside = board_of_local_apics(b);

    *b = (struct board){.dev.ops = &device_ops,
                        .bus = bus,
                        .mem = mem,
                        .loop = config->loop,
                        .events = config->events,
                        .done = {.run = complete, .opaque = b}};
    sem_init(&b->begun, 0, 0);
    sem_init(&b->may_return, 0, 0);
    b->lapics =
        lapic_set_create(clock, config->ports, config->cpus, config->physical_bits, &outside, err);
    b->msi = lapic_set_msi(b->lapics);
    assert_int_equal(workers_add(config->workers, &b->work, serve, b, err), 0);
    assert_int_equal(bus_claim(bus, BUS_PORT, RESET, 1, "reset", &port_ops, b, err), 0);
    assert_int_equal(bus_claim_doorbell(bus, BUS_PORT, DOORBELL, 1, "bell", ring, b, err), 0);
    board = b;
    return b;
}

struct lapic_board board_of_local_apics(struct board *b)
{
    return (struct lapic_board){lapic_eoi, lapic_acknowledge, b};
}

void board_plug_local_apics(struct board *b, bool own)
{
    assert_true(own);
}

void board_set_local_apics(struct board *b, const struct local_apics *apics)
{
    assert_null(apics);
}

void board_destroy(struct board *b)
{
    bus_release_doorbell(b->bus, BUS_PORT, DOORBELL);
    workers_remove(&b->work);
    loop_cancel(b->loop, &b->done);
    lapic_set_dev(b->lapics)->ops->free(lapic_set_dev(b->lapics));
    assert_int_equal(atomic_load(&b->active), 0);
    assert_int_equal(atomic_load(&b->intrusions), 0);
    free(b);
    board = NULL;
}

void board_pause(struct board *b)
{
    b->dev.ops->pause(&b->dev);
}

void board_resume(struct board *b)
{
    b->dev.ops->resume(&b->dev);
}

int board_resize_disk(struct board *b, unsigned disk, uint64_t size, struct error *err)
{
    return -ENODEV;
}

struct where *board_disk_where(struct board *b, unsigned disk, unsigned n)
{
    return NULL;
}

struct where *board_share_where(struct board *b, unsigned share, unsigned n)
{
    return NULL;
}

int board_change_network(struct board *b, unsigned nic, const char *settings, struct error *err)
{
    return error_set(err, ENODEV, "no network cards here");
}

unsigned board_forward_port(struct board *b, unsigned nic, unsigned n)
{
    return 0;
}

struct where *board_network_where(struct board *b, unsigned nic, unsigned n)
{
    return NULL;
}

void board_retry(struct board *b)
{
    atomic_fetch_add(&b->retries, 1);
}

void board_reset(struct board *b)
{
    struct dev *dev = lapic_set_dev(b->lapics);

    bus_lock(b->bus);
    dev->ops->reset(dev);
    bus_unlock(b->bus);
}

void board_state(struct board *b, struct state *s)
{
}

void board_flush(struct board *b)
{
}

bool board_output_full(const struct board *b)
{
    return false;
}

void board_power_button(struct board *b)
{
}

size_t board_serial_input(struct board *b, unsigned port, const void *data, size_t size)
{
    return 0;
}

size_t board_console_input(struct board *b, const void *data, size_t size)
{
    return 0;
}

void board_console_room(struct board *b)
{
}

void board_console_resize(struct board *b, unsigned rows, unsigned columns)
{
}

/* ---- The guest ---- */

/* mov $200, %cx; 1: out %al, $DOORBELL; loop 1b; out %al, $RESET; jmp . */
static const uint8_t resetting_code[] = {0xB9, 200,  0,     0xE6, DOORBELL, 0xE2,
                                         0xFC, 0xE6, RESET, 0xEB, 0xFE};
/* 1: out %al, $DOORBELL; jmp 1b */
static const uint8_t ringing_code[] = {0xE6, DOORBELL, 0xEB, 0xFC};

struct guest {
    bool resets;
    _Atomic unsigned boots;
    unsigned held, released; /* what its VM has told */
};

/* At power-on and at each reset: memory has been cleared, and nothing may have reached it since. */
static int load(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    struct guest *guest = opaque;
    const uint8_t *code = guest->resets ? resetting_code : ringing_code;
    uint64_t served = 1, ended = 1;

    time_sleep_ns(NS_PER_MS / 2); /* time for a device that does not stand still */
    mem_read(mem, SERVED, &served, sizeof(served));
    mem_read(mem, ENDED, &ended, sizeof(ended));
    if (served || ended || (board && atomic_load(&board->active)))
        return error_set(err, EBUSY, "the device works while the machine is reset");
    atomic_fetch_add(&guest->boots, 1);
    cpu->seg[X86_CS].selector = 0;
    cpu->seg[X86_CS].base = 0;
    cpu->reg[X86_RIP] = CODE;
    return mem_write(mem, CODE, code,
                     guest->resets ? sizeof(resetting_code) : sizeof(ringing_code));
}

static void on_held(void *opaque, const char *why)
{
    struct guest *guest = opaque;

    assert_string_equal(why, "no room");
    guest->held++;
}

static void on_released(void *opaque, const char *why)
{
    struct guest *guest = opaque;

    assert_string_equal(why, "room");
    guest->released++;
}

static struct vm *create(struct guest *guest)
{
    struct vm_config config = {
        .cpus = 2,
        .memory = 2 * MiB,
        .load = load,
        .load_opaque = guest,
        .events = {.held = on_held, .released = on_released, .opaque = guest}};
    struct error err = {0};
    struct vm *vm = vm_create(&interp_engine, &config, &err);

    if (!vm)
        fail_msg("%s", err.text);
    return vm;
}

static void start(struct vm *vm)
{
    assert_int_equal(vm_start(vm, NULL), 0);
}

/* Waits until the device has served WANTED more often than now. */
static void let_serve(unsigned wanted)
{
    unsigned from = atomic_load(&board->served);

    for (unsigned i = 0; i < 10000 && atomic_load(&board->served) - from < wanted; i++)
        time_sleep_ns(NS_PER_MS);
    assert_true(atomic_load(&board->served) - from >= wanted);
}

/* Whether guest memory, and what the device counts, stay as they are. */
static void assert_still(void)
{
    uint64_t before[2], after[2];

    assert_int_equal(atomic_load(&board->active), 0);
    mem_read(board->mem, SERVED, before, sizeof(before));
    time_sleep_ns(10 * NS_PER_MS);
    mem_read(board->mem, SERVED, after, sizeof(after));
    assert_memory_equal(before, after, sizeof(before));
    assert_int_equal(atomic_load(&board->active), 0);
}

/* ---- Tests ---- */

static void test_pause(void **unused)
{
    struct guest guest = {.resets = false};
    struct vm *vm = create(&guest);

    vm_pause(vm); /* before the start, too */
    start(vm);
    assert_still();
    vm_resume(vm);
    vm_resume(vm); /* undoes nothing */
    for (unsigned i = 0; i < 5; i++) {
        let_serve(3);
        vm_pause(vm);
        assert_still();
        vm_pause(vm);
        vm_resume(vm);
        assert_still();
        vm_resume(vm);
    }
    let_serve(3);
    vm_destroy(vm);
}

/* Lets the worker go after a while, and says whether the VM's thread had to wait for that. */
struct release {
    struct vm *vm;
    void (*stand_still)(struct vm *vm);
    sem_t begun;
    bool active_after;
};

static void *stand_still(void *opaque)
{
    struct release *r = opaque;

    sem_post(&r->begun);
    r->stand_still(r->vm);
    r->active_after = atomic_load(&board->active);
    return NULL;
}

static void stop_and_wait(struct vm *vm)
{
    struct vm_end end;

    vm_stop(vm);
    assert_int_equal(vm_wait(vm, 10000, &end), 0);
    assert_int_equal(end.outcome, VM_STOPPED);
}

/* With a worker in the middle of its work, STAND returns when the work is done, and not before. */
static void waits_for_worker(void (*stand)(struct vm *vm))
{
    struct guest guest = {.resets = false};
    struct release r = {.vm = create(&guest), .stand_still = stand};
    pthread_t thread;

    sem_init(&r.begun, 0, 0);
    atomic_store(&board->gated, true);
    start(r.vm);
    sem_wait(&board->begun);
    assert_int_equal(thread_start(&thread, "stander", stand_still, &r, NULL), 0);
    sem_wait(&r.begun);
    time_sleep_ns(50 * NS_PER_MS); /* so that it is through if it does not wait */
    atomic_store(&board->gated, false);
    sem_post(&board->may_return);
    pthread_join(thread, NULL);
    assert_false(r.active_after);
    assert_still();
    vm_destroy(r.vm);
}

static void test_pause_waits(void **unused)
{
    waits_for_worker(vm_pause);
}

static void test_end_waits(void **unused)
{
    waits_for_worker(stop_and_wait);
}

static void test_destroy_waits(void **unused)
{
    struct guest guest = {.resets = false};
    struct vm *vm = create(&guest);

    vm_destroy(vm); /* never started */
    vm = create(&guest);
    start(vm);
    let_serve(1);
    vm_destroy(vm); /* board_destroy looks */
}

static void test_reset(void **unused)
{
    struct guest guest = {.resets = true};
    struct vm *vm = create(&guest);
    struct vm_end end;

    start(vm);
    for (unsigned i = 0; i < 10000 && atomic_load(&guest.boots) < 40; i++)
        time_sleep_ns(NS_PER_MS);
    vm_stop(vm);
    assert_int_equal(vm_wait(vm, 10000, &end), 0);
    assert_int_equal(end.outcome, VM_STOPPED); /* else load() complained */
    assert_true(atomic_load(&guest.boots) >= 40);
    vm_destroy(vm);
}

static void *pause_often(void *opaque)
{
    struct vm *vm = opaque;

    for (unsigned i = 0; i < 30; i++) {
        vm_pause(vm);
        if (atomic_load(&board->active))
            atomic_fetch_add(&board->intrusions, 1);
        sched_yield();
        vm_resume(vm);
    }
    return NULL;
}

/* Pauses from several threads, resets, and at last the end, in each other's midst. */
static void test_all_at_once(void **unused)
{
    struct guest guest = {.resets = true};
    struct vm *vm = create(&guest);
    pthread_t threads[3];

    start(vm);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(thread_start(&threads[i], "pauser", pause_often, vm, NULL), 0);
    time_sleep_ns(30 * NS_PER_MS);
    vm_stop(vm);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    stop_and_wait(vm);
    assert_still();
    vm_destroy(vm);
}

static void hold(const char *why)
{
    board->events.hold(board->events.opaque, why);
}

static void release(const char *why)
{
    board->events.release(board->events.opaque, why);
}

static void finished(void *opaque)
{
    sem_post(opaque);
}

/* Waits until the device has done all that it was asked for. */
static void let_finish(void)
{
    sem_t done;
    struct loop_job job = {.run = finished, .opaque = &done};

    sem_init(&done, 0, 0);
    workers_drain(board->work.workers);
    loop_post(board->loop, &job); /* behind what the worker has posted */
    while (sem_wait(&done) < 0)
        ;
    sem_destroy(&done);
}

/* vCPUs and guest time stand still, with devices that do not. */
static void assert_held(struct vm *vm)
{
    struct vm_stats before, after;

    assert_true(vm_held(vm));
    vm_pause(vm); /* which waits until all have parked */
    vm_resume(vm);
    let_finish();
    vm_stats(vm, &before);
    assert_still();
    vm_stats(vm, &after);
    assert_int_equal(before.elapsed_ns, after.elapsed_ns);
}

/* A device that cannot go on holds the VM, and is told to try again: at once, and each second. */
static void test_hold(void **unused)
{
    struct guest guest = {.resets = false};
    struct vm *vm = create(&guest);

    start(vm);
    let_serve(3);
    assert_false(vm_held(vm));
    hold("no room");
    assert_held(vm);
    hold("no room"); /* another device */
    release("room");
    assert_held(vm);
    atomic_store(&board->retries, 0);
    vm_retry(vm);
    assert_true(atomic_load(&board->retries) >= 1);
    for (unsigned i = 0; i < 10000 && atomic_load(&board->retries) < 3; i++)
        time_sleep_ns(NS_PER_MS);
    assert_true(atomic_load(&board->retries) >= 3);
    vm_pause(vm);
    release(NULL); /* it has given its requests back */
    assert_false(vm_held(vm));
    assert_still();
    vm_resume(vm);
    let_serve(3);
    assert_int_equal(guest.held, 2);
    assert_int_equal(guest.released, 1);
    hold("no room");
    vm_destroy(vm); /* held or not */
}

/* Statistics are read while they are written. */
static void add_exits(void *opaque, const struct engine_counter *counter)
{
    if (strcmp(counter->group, "exits") == 0)
        *(uint64_t *)opaque += counter->count;
}

static void test_counters(void **unused)
{
    struct guest guest = {.resets = true};
    struct vm *vm = create(&guest);
    uint64_t before = 0;

    start(vm);
    let_serve(1);
    for (unsigned i = 0; i < 50; i++) {
        struct vm_stats stats;
        uint64_t exits = 0;

        time_sleep_ns(NS_PER_MS / 10);
        vm_counters(vm, add_exits, &exits);
        vm_stats(vm, &stats);
        assert_true(exits >= before && exits > 0);
        before = exits;
    }
    vm_destroy(vm);
}

/* A worker that hangs is named. */
static void find_worker(void *opaque, const char *text)
{
    if (strstr(text, "worker 0: ") == text && strstr(text, "wait_at_the_gate"))
        *(bool *)opaque = true;
}

static void test_where(void **unused)
{
    struct guest guest = {.resets = false};
    struct vm *vm = create(&guest);
    bool found = false;

    atomic_store(&board->gated, true);
    start(vm);
    sem_wait(&board->begun);
    for (unsigned i = 0; i < 1000 && !found; i++) /* it may be on its way into the wait */
        vm_where(vm, find_worker, &found);
    assert_true(found);
    atomic_store(&board->gated, false);
    sem_post(&board->may_return);
    vm_destroy(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pause),     cmocka_unit_test(test_pause_waits),
        cmocka_unit_test(test_end_waits), cmocka_unit_test(test_destroy_waits),
        cmocka_unit_test(test_reset),     cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_where),     cmocka_unit_test(test_counters),
        cmocka_unit_test(test_hold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
