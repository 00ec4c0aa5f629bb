/*
 * A host that runs out of memory: the virtual machine whose memory cannot be provided ends with a
 * clear error, whatever touched it, and another one in the same process goes on.
 */
#include "test.h"

#include "flat_kernel.h"
#include "memory_shrink.h"

#include "ctl/doppel.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

static const char *const debug_exit[] = {"debug-exit", NULL};

#define MIB       (1024 * 1024ULL)
#define WAIT_MS   60000
#define CODE(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

/* A machine of 16 MiB that is loaded with 32-bit CODE at 1 MiB, and its guest memory in *FD. */
static struct doppel_vm *create(enum doppel_engine engine, struct doppel_serial serial,
                                const uint8_t *code, size_t size, int *fd)
{
    char path[] = P_tmpdir "/doppel-memory-XXXXXX";
    struct doppel_error err = {0};
    bool before[SHRINK_MAX_FD];
    struct doppel_config config;
    struct doppel_vm *vm;

    write_flat_kernel(path, code, size);
    doppel_config_init(&config);
    config.engine = engine;
    config.memory = 16 * MIB;
    config.kernel = path;
    config.devices = debug_exit;
    config.serial[0] = serial;
    note_guest_memory(before);
    vm = doppel_create(&config, &err);
    unlink(path);
    if (!vm || doppel_start(vm, &err))
        fail_msg("%s", err.text);
    *fd = new_guest_memory(before);
    assert_true(*fd >= 0);
    return vm;
}

static void count(void *opaque, const void *data, size_t size)
{
    atomic_fetch_add((atomic_int *)opaque, (int)size);
}

/* Waits for one that echoes each byte on its serial port. */
static void assert_echoes(struct doppel_vm *vm, atomic_int *echoed)
{
    int before = *echoed;

    assert_int_equal(doppel_serial_input(vm, 0, "x", 1), 1);
    while (*echoed == before)
        usleep(1000);
}

/* What a guest does with each page from 4 MiB to 12 MiB, again and again. It sends a byte after
 * each round:
 * 1: mov $0x400000,%edi; 2: TOUCH; add $4096,%edi; cmp $0xC00000,%edi; jb 2b;
 * mov $0x3F8,%dx; out %al,%dx; jmp 1b */
#define ROUNDS(touch_size, ...)                                                                    \
    CODE(0xBF, 0x00, 0x00, 0x40, 0x00, __VA_ARGS__, 0x81, 0xC7, 0x00, 0x10, 0x00, 0x00, 0x81,      \
         0xFF, 0x00, 0x00, 0xC0, 0x00, 0x72, 0xF2 - (touch_size), 0x66, 0xBA, 0xF8, 0x03, 0xEE,    \
         0xEB, 0xE6 - (touch_size))

static void lose(enum doppel_engine engine, const uint8_t *code, size_t size)
{
    /* mov $0x3FD,%dx; 1: in %dx,%al; test $1,%al; jz 1b; mov $0x3F8,%dx; in %dx,%al; out %al,%dx;
     * jmp start */
    static const uint8_t echo[] = {0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xFB,
                                   0x66, 0xBA, 0xF8, 0x03, 0xEC, 0xEE, 0xEB, 0xEF};
    atomic_int rounds = 0, echoed = 0;
    struct doppel_vm *other, *vm;
    static struct doppel_end end;
    int fd, other_fd;

    other = create(engine, (struct doppel_serial){.output = count, .opaque = &echoed}, echo,
                   sizeof(echo), &other_fd);
    vm =
        create(engine, (struct doppel_serial){.output = count, .opaque = &rounds}, code, size, &fd);
    while (rounds < 3)
        if (doppel_wait(vm, 1, &end) == 0)
            fail_msg("%s", end.report);
    assert_int_equal(ftruncate(fd, 8 * MIB), 0);
    assert_int_equal(doppel_wait(vm, WAIT_MS, &end), 0);
    assert_int_equal(end.outcome, DOPPEL_FAILED);
    assert_non_null(strstr(end.report, "the host cannot provide the guest's memory at 0x"));
    doppel_destroy(vm);

    assert_echoes(other, &echoed);
    assert_int_equal(doppel_wait(other, 0, NULL), -ETIMEDOUT);
    doppel_destroy(other);
}

/* The interpreter's code, and the translator's. */
static void test_store(void **unused)
{
    lose(DOPPEL_ENGINE_INTERP, ROUNDS(2, 0x89, 0x07)); /* mov %eax,(%edi) */
    lose(DOPPEL_ENGINE_AUTO, ROUNDS(2, 0x89, 0x07));
}

static void test_load(void **unused)
{
    lose(DOPPEL_ENGINE_INTERP, ROUNDS(2, 0x8B, 0x07)); /* mov (%edi),%eax */
    lose(DOPPEL_ENGINE_AUTO, ROUNDS(2, 0x8B, 0x07));
}

/* A thunk's. */
static void test_x87(void **unused)
{
    /* fninit; fld1; fstpl (%edi) */
    lose(DOPPEL_ENGINE_INTERP, ROUNDS(6, 0xDB, 0xE3, 0xD9, 0xE8, 0xDD, 0x1F));
    lose(DOPPEL_ENGINE_AUTO, ROUNDS(6, 0xDB, 0xE3, 0xD9, 0xE8, 0xDD, 0x1F));
}

/* The monitor's own: a locked access that crosses a cache line works on a copy. */
static void test_split_lock(void **unused)
{
    /* lock incl 62(%edi) */
    lose(DOPPEL_ENGINE_INTERP, ROUNDS(4, 0xF0, 0xFF, 0x47, 0x3E));
    lose(DOPPEL_ENGINE_AUTO, ROUNDS(4, 0xF0, 0xFF, 0x47, 0x3E));
}

/* Runs of a repeated string instruction. */
static void test_string(void **unused)
{
    /* mov $64,%ecx; rep stosl; sub $256,%edi */
    lose(DOPPEL_ENGINE_INTERP, ROUNDS(13, 0xB9, 64, 0, 0, 0, 0xF3, 0xAB, 0x81, 0xEF, 0, 1, 0, 0));
    lose(DOPPEL_ENGINE_AUTO, ROUNDS(13, 0xB9, 64, 0, 0, 0, 0xF3, 0xAB, 0x81, 0xEF, 0, 1, 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store),  cmocka_unit_test(test_load),
        cmocka_unit_test(test_x87),    cmocka_unit_test(test_split_lock),
        cmocka_unit_test(test_string),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
