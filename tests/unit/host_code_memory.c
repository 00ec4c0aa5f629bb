/*
 * A host that has no memory left for generated code: the machine goes on with what it has, and
 * forgets translations and thunks more often.
 */
#include "test.h"

#include "flat_kernel.h"

#include "ctl/doppel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define WAIT_MS  60000
#define CODE_MAX (512 * 1024)

static const char *const debug_exit[] = {"debug-exit", NULL};

/* ---- The host ---- */

static _Atomic bool exhausted;

/* The library's fallocate, as the C library calls it where files are large. */
int __real_fallocate64(int fd, int mode, off_t offset, off_t size);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t size);

static bool is_for_code(int fd)
{
    char link[64], name[64] = "";

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    return readlink(link, name, sizeof(name) - 1) > 0 &&
           (strstr(name, "doppel-translations") || strstr(name, "doppel-thunks"));
}

/* Once the host is exhausted, whatever lies behind what it has provided raises SIGBUS. */
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t size)
{
    if (mode || !exhausted || !is_for_code(fd))
        return __real_fallocate64(fd, mode, offset, size);
    if (ftruncate(fd, offset) < 0)
        abort();
    errno = ENOSPC;
    return -1;
}

/* ---- The guests, in 32-bit code ---- */

struct code {
    uint8_t bytes[CODE_MAX];
    size_t size;
};

static void put(struct code *code, const void *bytes, size_t size)
{
    assert_true(size <= CODE_MAX - code->size);
    memcpy(code->bytes + code->size, bytes, size);
    code->size += size;
}

#define PUT(code, ...)                                                                             \
    put(code, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put_u32(struct code *code, uint32_t value)
{
    put(code, &value, sizeof(value));
}

/* mov $ROUNDS,%ecx. Returns where the rounds begin. */
static size_t begin_rounds(struct code *code, uint32_t rounds)
{
    PUT(code, 0xB9);
    put_u32(code, rounds);
    return code->size;
}

/* dec %ecx; jnz START */
static void end_rounds(struct code *code, size_t start)
{
    PUT(code, 0x49, 0x0F, 0x85);
    put_u32(code, (uint32_t)(start - (code->size + 4)));
}

#define WORDS  0x200000u
#define COUNT  64u
#define ADDS   40000u
#define ROUNDS 60u /* enough for the translator to care */
#define RESULT (ADDS / COUNT * ROUNDS & 0xFF)

/* Adds 1 to each of the words, in ADDS instructions: far more than can be kept translated. */
static void write_adds(struct code *code)
{
    size_t start;

    PUT(code, 0xB8, 1, 0, 0, 0); /* mov $1,%eax */
    start = begin_rounds(code, ROUNDS);
    for (unsigned i = 0; i < ADDS; i++) {
        PUT(code, 0x01, 0x05); /* add %eax,WORD */
        put_u32(code, WORDS + i % COUNT * 4);
    }
    end_rounds(code, start);
    PUT(code, 0xA1); /* mov WORDS,%eax; out %al,$0xF4 */
    put_u32(code, WORDS);
    PUT(code, 0xE6, 0xF4, 0xEB, 0xFE);
}

/* Packed instructions with all pairs of registers, each of which is a thunk of its own. */
static void write_packed(struct code *code)
{
    static const uint8_t opcodes[] = {0xFC, 0xFD, 0xFE, 0xD4, 0xEF, 0xEB, 0xDB, 0xDF, 0xF8, 0xF9,
                                      0xFA, 0xFB, 0x60, 0x61, 0x62, 0x68, 0x69, 0x6A, 0xDC, 0xDD};
    size_t start;

    PUT(code, 0x0F, 0x20, 0xE0, 0x0D, 0, 6, 0, 0, 0x0F, 0x22, 0xE0); /* CR4.OSFXSR, OSXMMEXCPT */
    start = begin_rounds(code, 3);
    for (unsigned i = 0; i < sizeof(opcodes); i++)
        for (unsigned registers = 0; registers < 64; registers++)
            PUT(code, 0x66, 0x0F, opcodes[i], (uint8_t)(0xC0 | registers));
    end_rounds(code, start);
    PUT(code, 0xB0, RESULT, 0xE6, 0xF4, 0xEB, 0xFE); /* mov $RESULT,%al; out %al,$0xF4 */
}

/* ---- Tests ---- */

/* How often COUNTERS say that NAME happened. */
static uint64_t counted(const struct doppel_count *counters, unsigned count, const char *name)
{
    for (unsigned i = 0; i < count; i++)
        if (!strcmp(counters[i].name, name))
            return counters[i].count;
    fail_msg("nothing counts %s", name);
    return 0;
}

/* Runs what WRITE writes with ENGINE, on a host that is exhausted as soon as the machine is there.
 * CAUSE is why code is then forgotten. */
static void run(enum doppel_engine engine, void (*write)(struct code *code), const char *cause)
{
    static struct code code;
    static struct doppel_end end;
    static struct doppel_stats stats;
    char path[] = P_tmpdir "/doppel-code-XXXXXX";
    struct doppel_error err = {0};
    struct doppel_config config;
    struct doppel_vm *vm;

    code.size = 0;
    write(&code);
    write_flat_kernel(path, code.bytes, code.size);
    doppel_config_init(&config);
    config.engine = engine;
    config.memory = 16 << 20;
    config.kernel = path;
    config.devices = debug_exit;
    exhausted = false;
    vm = doppel_create(&config, &err);
    unlink(path);
    exhausted = true;
    if (!vm || doppel_start(vm, &err))
        fail_msg("%s", err.text);
    assert_int_equal(doppel_wait(vm, WAIT_MS, &end), 0);
    assert_int_equal(end.outcome, DOPPEL_DEBUG_EXIT);
    assert_int_equal(end.status, RESULT << 1 | 1);
    doppel_stats(vm, &stats);
    assert_true(counted(stats.forgotten, stats.forget_causes, cause) > 0);
    doppel_destroy(vm);
}

static void test_translations(void **unused)
{
    struct doppel_host host;

    doppel_probe(&host);
    if (host.chosen != DOPPEL_ENGINE_BT)
        skip();
    run(DOPPEL_ENGINE_BT, write_adds, "translations-full");
}

static void test_thunks(void **unused)
{
    run(DOPPEL_ENGINE_INTERP, write_packed, "thunks-full");
}

/* A host that has nothing at all. */
static void test_creation(void **unused)
{
    char path[] = P_tmpdir "/doppel-code-XXXXXX";
    struct doppel_error err = {0};
    struct doppel_config config;

    write_flat_kernel(path, (const uint8_t[]){0xEB, 0xFE}, 2);
    doppel_config_init(&config);
    config.memory = 16 << 20;
    config.kernel = path;
    exhausted = true;
    assert_null(doppel_create(&config, &err));
    assert_int_equal(err.code, ENOSPC);
    assert_string_equal(err.text, "cannot get memory for generated code: No space left on device");
    exhausted = false;
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_translations),
                                       cmocka_unit_test(test_thunks),
                                       cmocka_unit_test(test_creation)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
