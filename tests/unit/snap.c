/*
 * Whole machines that are saved and made again, on a clock that stands still: everything comes
 * back, other machines and damaged files do not get in, and empty memory costs nothing.
 */
#include "test.h"

#include "base/util.h"
#include "cpu/engines.h"
#include "fake_clock.h"
#include "state_image.h"
#include "vm/snap/snap.h"
#include "vm/vm_private.h"

#include <errno.h>

static const char *const debug_exit[] = {"debug-exit", NULL};
static const struct vm_config two_cpus = {.cpus = 2, .memory = 4 * MiB, .devices.list = debug_exit};

static struct vm *create(const struct vm_config *config)
{
    struct error err = {0};
    struct vm *vm = vm_create(&interp_engine, config, &err);

    if (!vm)
        fail_msg("%s", err.text);
    return vm;
}

static struct state_image save(struct vm *vm)
{
    struct state_image image = {0};
    struct state_writer writer = image_writer(&image);
    struct error err = {0};

    if (vm_save(vm, "a test", &writer, &err) < 0)
        fail_msg("%s", err.text);
    return image;
}

static struct vm *load(struct state_image *image, const struct vm_config *config)
{
    struct state_reader reader = image_reader(image);
    struct error err = {0};
    struct vm *vm = vm_load(&interp_engine, config, &reader, &err);

    if (!vm)
        fail_msg("%s", err.text);
    return vm;
}

/* Why IMAGE is not loaded. */
static struct error failure(struct state_image *image, const struct vm_config *config)
{
    struct state_reader reader = image_reader(image);
    struct error err = {0};

    assert_null(vm_load(&interp_engine, config, &reader, &err));
    assert_int_not_equal(err.code, 0);
    assert_null(strchr(err.text, '\n'));
    return err;
}

/* --- What comes back -------------------------------------------------------------------------- */

static void out(struct vm *vm, uint16_t port, unsigned size, uint64_t value)
{
    bus_write(vm->machine.bus, BUS_PORT, port, size, value);
}

static uint64_t in(struct vm *vm, uint16_t port, unsigned size)
{
    return bus_read(vm->machine.bus, BUS_PORT, port, size);
}

/* All of it is the same when it is saved again, and the devices are what they were. */
static void test_everything(void **unused)
{
    struct vm *vm = create(&two_cpus), *other;
    struct state_image image, again;
    uint64_t word = 0x123456789ABCDEF;

    clock_resume(vm->machine.clock);
    fake_clock_advance(vm->machine.clock, 123456789);
    out(vm, 0x70, 1, 0x5F);
    out(vm, 0x71, 1, 0xA5);
    out(vm, 0x43, 1, 0x34);
    out(vm, 0x40, 1, 0x12);
    out(vm, 0x40, 1, 0x34);
    assert_int_equal(mem_write(vm->machine.mem, 0x3FF008, &word, 8), 0);
    image = save(vm);
    vm_destroy(vm);
    other = load(&image, &two_cpus);
    again = save(other);
    assert_int_equal(image.size, again.size);
    assert_memory_equal(image.data, again.data, image.size);
    assert_int_equal(clock_now(other->machine.clock), 123456789);
    assert_int_equal(in(other, 0x71, 1), 0xA5);
    word = 0;
    assert_int_equal(mem_read(other->machine.mem, 0x3FF008, &word, 8), 0);
    assert_int_equal(word, 0x123456789ABCDEF);
    assert_int_equal(image.at, image.size);
    vm_destroy(other);
    image_free(&image);
    image_free(&again);
}

/* What a vCPU has been asked to do and has not done yet, and what it waits for. */
static void test_requests(void **unused)
{
    const uint32_t guest = CPU_REQ_NMI | CPU_REQ_NMI_AGAIN | CPU_REQ_INIT | CPU_REQ_SIPI;
    struct vm *vm = create(&two_cpus), *other;
    struct state_image image;

    assert_false(vm->cpu[0].wait_sipi);
    assert_true(vm->cpu[1].wait_sipi);
    cpu_port_request(&vm->cpu[1].port, CPU_REQ_NMI | CPU_REQ_INIT | CPU_REQ_KICK);
    cpu_port_request(&vm->cpu[1].port, CPU_REQ_NMI | CPU_REQ_SIPI | CPU_REQ_ENGINE);
    atomic_store(&vm->cpu[1].port.sipi_vector, 0x9A);
    image = save(vm);
    vm_destroy(vm);
    other = load(&image, &two_cpus);
    assert_false(other->cpu[0].wait_sipi);
    assert_true(other->cpu[1].wait_sipi);
    assert_int_equal(atomic_load(&other->cpu[0].port.requests), 0);
    assert_int_equal(atomic_load(&other->cpu[1].port.requests), guest);
    assert_int_equal(atomic_load(&other->cpu[1].port.sipi_vector), 0x9A);
    vm_destroy(other);
    image_free(&image);
}

static void test_button(void **unused)
{
    struct vm *vm = create(&two_cpus), *other;
    struct state_image image;

    vm_power_button(vm);
    image = save(vm);
    vm_destroy(vm);
    other = load(&image, &two_cpus);
    assert_int_equal(in(other, 0x600, 2) & 0x100, 0);
    clock_resume(other->machine.clock);
    fake_clock_advance(other->machine.clock, 1);
    assert_int_equal(in(other, 0x600, 2) & 0x100, 0x100);
    vm_destroy(other);
    image_free(&image);
}

/* Memory that nobody has touched is not touched by saving either, and not saved; nor are zeroes. */
static void test_empty_memory(void **unused)
{
    static const uint8_t zeroes[MEM_PAGE_SIZE * 16];
    const struct vm_config config = {.cpus = 1, .memory = 5 * GiB};
    struct vm *vm = create(&config), *other;
    struct mem *mem = vm->machine.mem;
    struct state_image image;
    uint64_t resident, word = 0x55;

    for (uint64_t gpa = 0x200000; gpa < 0x300000; gpa += sizeof(zeroes))
        assert_int_equal(mem_write(mem, gpa, zeroes, sizeof(zeroes)), 0);
    assert_int_equal(mem_write(mem, MEM_HOLE_START - 8, &word, 8), 0);
    assert_int_equal(mem_write(mem, MEM_HOLE_END, &word, 8), 0);
    assert_int_equal(mem_write(mem, mem_high_end(mem) - 8, &word, 8), 0);
    resident = mem_resident(mem);
    image = save(vm);
    assert_int_equal(mem_resident(mem), resident);
    assert_true(image.size < 128 * KiB);
    vm_destroy(vm);
    other = load(&image, &config);
    mem = other->machine.mem;
    assert_true(mem_resident(mem) < resident - 512 * KiB);
    word = 0;
    assert_int_equal(mem_read(mem, MEM_HOLE_START - 8, &word, 8), 0);
    assert_int_equal(word, 0x55);
    word = 0;
    assert_int_equal(mem_read(mem, mem_high_end(mem) - 8, &word, 8), 0);
    assert_int_equal(word, 0x55);
    vm_destroy(other);
    image_free(&image);
}

/* More pages than one section holds. */
static void test_much_memory(void **unused)
{
    struct vm *vm = create(&two_cpus), *other;
    struct state_image image;
    uint64_t word;

    for (uint64_t gpa = 0x100000; gpa < 4 * MiB; gpa += MEM_PAGE_SIZE)
        assert_int_equal(mem_write(vm->machine.mem, gpa + 8, &gpa, 8), 0);
    image = save(vm);
    vm_destroy(vm);
    other = load(&image, &two_cpus);
    for (uint64_t gpa = 0x100000; gpa < 4 * MiB; gpa += MEM_PAGE_SIZE) {
        assert_int_equal(mem_read(other->machine.mem, gpa + 8, &word, 8), 0);
        assert_int_equal(word, gpa);
    }
    vm_destroy(other);
    image_free(&image);
}

/* --- What does not get in --------------------------------------------------------------------- */

static void test_other_machines(void **unused)
{
    struct vm *vm = create(&two_cpus);
    struct state_image image = save(vm);
    static const char *const both[] = {"debug-exit", "debug-console", NULL};
    struct vm_config config = two_cpus;

    vm_destroy(vm);
    config.cpus = 3;
    assert_string_equal(failure(&image, &config).text,
                        "section machine 0: the saved machine has 2 vCPUs, and this one 3");
    config = two_cpus;
    config.memory = 8 * MiB;
    assert_string_equal(failure(&image, &config).text,
                        "section machine 0: the saved machine has 4 MiB of memory, and this one 8");
    config = two_cpus;
    config.devices.list = both;
    assert_string_equal(failure(&image, &config).text,
                        "section debug_console 0: missing, and section cpu 0 is in its place: the "
                        "saved machine is another");
    config = two_cpus;
    config.devices.list = NULL;
    assert_string_equal(failure(&image, &config).text,
                        "section cpu 0: missing, and section debug_exit 0 is in its place: the "
                        "saved machine is another");
    image_free(&image);
}

/* Finds the section NAME INSTANCE. */
static size_t section(const struct state_image *image, const char *name, uint32_t instance)
{
    size_t at = IMAGE_HEADER;

    while (strcmp((const char *)image->data + at, name) != 0 ||
           memcmp(image->data + at + 24, &instance, 4) != 0) {
        at = image_next(image, at);
        assert_true(at < image->size);
    }
    return at;
}

static void test_newer(void **unused)
{
    struct vm *vm = create(&two_cpus);
    struct state_image image = save(vm), copy = image_copy(&image);

    vm_destroy(vm);
    copy.data[IMAGE_FORMAT]++;
    image_seal(&copy);
    assert_string_equal(failure(&copy, &two_cpus).text,
                        "the saved state has format 2, made by a test; this version of doppel "
                        "knows format 1");
    image_free(&copy);
    image.data[section(&image, "uart", 0x2F8) + IMAGE_VERSION] = 9;
    image_seal(&image);
    assert_string_equal(failure(&image, &two_cpus).text,
                        "section uart 2f8: it has version 9, made by a test; this version of "
                        "doppel knows version 1");
    image_free(&image);
}

/* Cut off in front of each section and in the middle of it; and a bit of each is another. */
static void test_damaged(void **unused)
{
    struct vm *vm = create(&two_cpus);
    struct state_image image = save(vm);
    size_t size = image.size;

    vm_destroy(vm);
    for (size_t at = IMAGE_HEADER, next; at < size; at = next) {
        image.size = size;
        next = image_next(&image, at);
        image.size = at;
        failure(&image, &two_cpus);
        image.size = at + (next - at) / 2;
        failure(&image, &two_cpus);
        image.size = size;
        image.data[(at + next) / 2] ^= 4;
        failure(&image, &two_cpus);
        image.data[(at + next) / 2] ^= 4;
    }
    vm_destroy(load(&image, &two_cpus));
    image.size = section(&image, "pit", 0);
    assert_string_equal(failure(&image, &two_cpus).text,
                        "section pit 0: missing: the saved state is cut off");
    image.size = size;
    image_free(&image);
}

/* The bytes of field N of the section at AT. */
static uint8_t *field(const struct state_image *image, size_t at, unsigned n)
{
    uint8_t *p = image->data + at + IMAGE_SECTION;
    uint32_t size;

    for (; n; n--) {
        memcpy(&size, p, 4);
        p += 4 + size;
    }
    return p + 4;
}

/* Values that no machine can have, under right checksums. */
static void test_impossible(void **unused)
{
    static const struct {
        const char *section, *text;
        unsigned field;
        uint64_t value;
    } cases[] = {
        {"cpu", "section cpu 0: rflags: no processor of this model can hold this value", 2, 0},
        {"clock", "section clock 0: ns 18446744073709551615: a clock that has run for 146 years", 0,
         UINT64_MAX},
        {"ram", "section ram 0: gpn 8000000000000: not in RAM", 1, 1ULL << 51},
        {"ram", "section ram 0: gpn a0: not in RAM", 1, 0xA0},
        {"model",
         "section model 0: tsc_hz: the TSC of the saved machine runs at 1 Hz, and this "
         "host's at 2000000000",
         2, 1},
        {"model", "section model 0: arch_capabilities: bits 0x8000000000000000 are not known", 3,
         1ULL << 63},
    };
    struct vm *vm = create(&two_cpus);
    struct state_image image = save(vm);

    vm_destroy(vm);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct state_image copy = image_copy(&image);

        memcpy(field(&copy, section(&copy, cases[i].section, 0), cases[i].field), &cases[i].value,
               8);
        image_seal(&copy);
        assert_string_equal(failure(&copy, &two_cpus).text, cases[i].text);
        image_free(&copy);
    }
    image_free(&image);
}

/* Pages come in order, so that a file cannot make the loader work without end. */
static void test_pages_in_order(void **unused)
{
    struct vm *vm = create(&two_cpus);
    struct state_image image = save(vm);
    uint64_t *gpn = (uint64_t *)(uintptr_t)field(&image, section(&image, "ram", 0), 1);
    uint64_t first;
    uint32_t count = 257;

    vm_destroy(vm);
    memcpy(&first, gpn, 8);
    memcpy((uint8_t *)gpn + 8, &first, 8);
    image_seal(&image);
    assert_non_null(strstr(failure(&image, &two_cpus).text, "not in order"));
    memcpy(field(&image, section(&image, "ram", 0), 0), &count, 4);
    image_seal(&image);
    assert_string_equal(failure(&image, &two_cpus).text,
                        "section ram 0: count 257: must be 256 or less");
    image_free(&image);
}

/* --- When ------------------------------------------------------------------------------------- */

static void test_ended(void **unused)
{
    struct vm *vm = create(&two_cpus);
    struct state_image image = {0};
    struct state_writer writer = image_writer(&image);
    struct error err = {0};

    vm_stop(vm);
    assert_int_equal(vm_save(vm, "a test", &writer, &err), -ESHUTDOWN);
    assert_string_equal(err.text, "the virtual machine has ended: there is nothing to save");
    assert_int_equal(image.size, 0);
    vm_destroy(vm);
}

static int no_room(void *opaque, const void *data, size_t size, struct error *err)
{
    return error_set(err, ENOSPC, "the disk is full");
}

static void test_cannot_write(void **unused)
{
    const struct state_writer writer = {.write = no_room};
    struct vm *vm = create(&two_cpus);
    struct error err = {0};

    assert_int_equal(vm_save(vm, "a test", &writer, &err), -ENOSPC);
    assert_string_equal(err.text, "the state cannot be saved: the disk is full");
    assert_int_equal(vm->pauses, 0);
    vm_destroy(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything),  cmocka_unit_test(test_requests),
        cmocka_unit_test(test_button),      cmocka_unit_test(test_empty_memory),
        cmocka_unit_test(test_much_memory), cmocka_unit_test(test_other_machines),
        cmocka_unit_test(test_newer),       cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_impossible),  cmocka_unit_test(test_pages_in_order),
        cmocka_unit_test(test_ended),       cmocka_unit_test(test_cannot_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
