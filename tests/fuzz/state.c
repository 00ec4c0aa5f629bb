/*
 * Fuzz target: a saved machine that somebody has changed. The first byte says how:
 *
 * - The rest is the file.
 * - The rest is changes to fields of a good file, whose checksums are made right again: the
 *   visitors see them. The last bytes of the input become code where the guest goes on.
 *
 * Whatever is loaded runs for a while. It must neither hurt the monitor nor bring about a state
 * that cannot be saved and loaded in turn.
 */
#include "../unit/fake_clock.h"
#include "../unit/state_image.h"

#include "base/util.h"
#include "cpu/core/run.h"
#include "cpu/engines.h"
#include "vm/snap/snap.h"
#include "vm/vm_private.h"

#include "take.h"

#include <stdlib.h>

#ifndef RIG_ENGINE
#define RIG_ENGINE interp_engine
#endif

#define CPUS     2
#define ENTRY    0x1000u
#define CODE_MAX 64
#define TURNS    200
#define CHANGES  8 /* at most */

/* Of the good file: sections before those of devices and processors, those that there are, most
 * fields in one; and how often the first sections are left alone, of 256. */
#define FIRST_PART   3
#define PARTS        22
#define FIELDS       96
#define RARE         250
#define FIELD_HEADER 4
#define CHANGE_NS    300000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

static int load_guest(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    cpu->seg[X86_CS].selector = 0;
    cpu->seg[X86_CS].base = 0;
    cpu->reg[X86_RIP] = ENTRY;
    cpu->reg[X86_RSP] = ENTRY;
    return 0;
}

static const char *const devices[] = {"test-device", "debug-exit", "debug-console", NULL};
static const struct vm_config config = {
    .cpus = CPUS, .memory = 1 * MiB, .load = load_guest, .devices.list = devices};

/* A good file, made once. */
static const struct state_image *good_file(void)
{
    static struct state_image image;
    struct state_writer writer = image_writer(&image);
    struct vm *vm;

    if (image.size)
        return &image;
    vm = vm_create(&RIG_ENGINE, &config, NULL);
    check(vm && vm_save(vm, "fuzz", &writer, NULL) == 0);
    vm_destroy(vm);
    return &image;
}

/* The offset of a section of IMAGE. Whatever is different in the first ones ends the load. */
static size_t pick_section(const struct state_image *image, uint8_t n)
{
    size_t at = IMAGE_HEADER;

    for (unsigned skip = n < RARE ? FIRST_PART + n % PARTS : n % PARTS; skip; skip--) {
        size_t next = image_next(image, at);

        if (next < image->size)
            at = next;
    }
    return at;
}

/* The offset of a field's value in the section at AT, and its size; the last one if there are not
 * as many. */
static size_t pick_field(const struct state_image *image, size_t at, uint8_t n, uint32_t *size)
{
    size_t end = image_next(image, at), field = at + IMAGE_SECTION;

    for (;; n--) {
        memcpy(size, image->data + field, FIELD_HEADER);
        if (!n || field + FIELD_HEADER + *size >= end)
            return field + FIELD_HEADER;
        field += FIELD_HEADER + *size;
    }
}

/* Writes some bytes into a field: of the input, or all alike. */
static void change(struct state_image *image, const uint8_t **data, size_t *size)
{
    size_t at = pick_section(image, take(data, size));
    uint8_t field = take(data, size), how = take(data, size), where = take(data, size);
    uint32_t length;

    if (image_next(image, at) == at + IMAGE_SECTION)
        return; /* it has no fields */
    at = pick_field(image, at, field % FIELDS, &length);
    where %= MIN(length, 256u);
    for (unsigned i = where; i < where + (1u << (how & 3)) && i < length; i++)
        image->data[at + i] = how & 4 ? take(data, size) : how & 8 ? 0xFF : (uint8_t)(how >> 4);
}

static struct vm *load(struct state_image *image)
{
    struct state_reader reader = image_reader(image);
    struct error err = {0};
    struct vm *vm = vm_load(&RIG_ENGINE, &config, &reader, &err);

    check(vm || (err.code > 0 && err.text[0]));
    return vm;
}

static void run(struct vm *vm)
{
    for (unsigned turn = 0; turn < TURNS && !vm->ending; turn++) {
        struct vm_cpu *cpu = &vm->cpu[turn % CPUS];

        atomic_fetch_and(&cpu->port.requests,
                         ~(uint32_t)(CPU_REQ_KICK | CPU_REQ_INIT | CPU_REQ_SIPI));
        if (core_turn(cpu->vcpu) == EXIT_SHUTDOWN)
            return;
        if (turn % 16 == 15)
            fake_clock_advance(vm->machine.clock, CHANGE_NS);
    }
}

/* Whether a processor is in shutdown, which ends a machine. */
static bool is_shut_down(struct vm *vm)
{
    for (unsigned i = 0; i < CPUS; i++) {
        struct x86_cpu x;

        vm->engine->ops->state_out(vm->cpu[i].vcpu, &x);
        if (x.activity == X86_SHUTDOWN)
            return true;
    }
    return vm->ending;
}

static void save_and_load(struct vm *vm)
{
    struct state_image image = {0};
    struct state_writer writer = image_writer(&image);
    struct vm *again;

    check(vm_save(vm, "fuzz", &writer, NULL) == 0);
    again = load(&image);
    check(again);
    vm_destroy(again);
    image_free(&image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t how = take(&data, &size);
    struct state_image image;
    struct vm *vm;

    if (how == 0) {
        image = (struct state_image){0};
        image_write(&image, data, size, NULL);
    } else {
        image = image_copy(good_file());
        for (unsigned n = 1 + how % CHANGES; n && size > CODE_MAX; n--)
            change(&image, &data, &size);
        image_seal(&image);
    }
    vm = load(&image);
    if (vm) {
        mem_write(vm->machine.mem, ENTRY, data, MIN(size, CODE_MAX));
        clock_resume(vm->machine.clock);
        run(vm);
        if (!is_shut_down(vm))
            save_and_load(vm);
        vm_destroy(vm);
    }
    image_free(&image);
    return 0;
}
