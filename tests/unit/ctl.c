/*
 * The public library: what it refuses and how it says so, and how machines end. The guests are a
 * few instructions each, in a Multiboot file without ELF.
 */
#include "test.h"

#include "ctl/doppel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB       (1024 * 1024ULL)
#define LOAD      0x100000u
#define WAIT_MS   60000
#define CODE(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

static char dir[] = P_tmpdir "/doppel-ctl-XXXXXX";

/* The path of a file in the test's directory; overwritten by the next call. */
static const char *path_of(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static const char *write_file(const char *name, const void *data, size_t size)
{
    const char *path = path_of(name);
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
    return path;
}

/* A Multiboot file that is loaded at 1 MiB and starts with CODE, 32-bit. */
static const char *write_kernel(const char *name, const uint8_t *code, size_t size)
{
    uint8_t file[256] = {0};
    uint32_t header[8] = {0x1BADB002, 0x10000, 0u - 0x1BADB002 - 0x10000, LOAD, LOAD,
                          0,          0,       LOAD + sizeof(header)};

    assert_true(sizeof(header) + size <= sizeof(file));
    memcpy(file, header, sizeof(header));
    memcpy(file + sizeof(header), code, size);
    return write_file(name, file, sizeof(header) + size);
}

static struct doppel_config config_of(const char *kernel)
{
    static const char *const devices[] = {"debug-exit", NULL};
    struct doppel_config config;

    doppel_config_init(&config);
    config.memory = 16 * MIB;
    config.kernel = kernel;
    config.devices = devices;
    return config;
}

static struct doppel_end *run(const struct doppel_config *config)
{
    static struct doppel_end end;
    struct doppel_error err = {0};
    struct doppel_vm *vm = doppel_create(config, &err);

    if (!vm)
        fail_msg("%s", err.text);
    assert_int_equal(doppel_start(vm, &err), 0);
    assert_int_equal(doppel_wait(vm, WAIT_MS, &end), 0);
    doppel_destroy(vm);
    return &end;
}

/* CONFIG is refused with CODE and one line that says WORDS. */
static void assert_refused(const struct doppel_config *config, int code, const char *words)
{
    struct doppel_error err = {0};

    assert_null(doppel_create(config, &err));
    if (err.code != code || !strstr(err.text, words) || strchr(err.text, '\n'))
        fail_msg("%d: %s", err.code, err.text);
    assert_null(doppel_create(config, NULL));
}

/* ---- Refusals ---- */

static void test_defaults(void **unused)
{
    struct doppel_config config;

    doppel_config_init(&config);
    assert_int_equal(config.cpus, 1);
    assert_int_equal(config.memory, 512 * MIB);
    assert_int_equal(config.engine, DOPPEL_ENGINE_AUTO);
    assert_refused(&config, EINVAL, "no kernel");
}

static void test_numbers(void **unused)
{
    struct doppel_config good = config_of("kernel"), bad;

    bad = good;
    bad.cpus = 0;
    assert_refused(&bad, EINVAL, "0 vCPUs");
    bad.cpus = DOPPEL_MAX_CPUS + 1;
    assert_refused(&bad, EINVAL, "65 vCPUs");
    bad = good;
    bad.memory = 4096;
    assert_refused(&bad, EINVAL, "too few");
    bad.memory = 2 * DOPPEL_MAX_MEMORY;
    assert_refused(&bad, EINVAL, "too many");
    bad.memory = DOPPEL_MAX_MEMORY;
    assert_refused(&bad, ENOMEM, "more than this host's");
    bad.memory = 16 * MIB + 1;
    assert_refused(&bad, EINVAL, "multiple of 4096");
    bad = good;
    bad.engine = (enum doppel_engine)7;
    assert_refused(&bad, EINVAL, "engine");
}

static void test_files(void **unused)
{
    struct doppel_config config = config_of("");

    assert_refused(&config, EINVAL, "no kernel");
    config.kernel = path_of("missing");
    assert_refused(&config, ENOENT, "missing: cannot open the kernel");
    config.kernel = dir;
    assert_refused(&config, EISDIR, "directory");
    config.kernel = write_file("empty", "", 0);
    assert_refused(&config, EINVAL, "empty: the kernel is empty");
    config.kernel = write_file("text", "This is no kernel.\n", 19);
    assert_refused(&config, ENOEXEC, "text");
    config.kernel = write_file("huge", "x", 1);
    assert_int_equal(truncate(config.kernel, 3LL << 30), 0);
    assert_refused(&config, EFBIG, "larger than 2 GiB");
    if (geteuid() != 0) { /* root may read everything */
        config.kernel = write_file("secret", "x", 1);
        assert_int_equal(chmod(config.kernel, 0), 0);
        assert_refused(&config, EACCES, "secret: cannot open the kernel");
    }
}

static void test_initrd(void **unused)
{
    char kernel[256], *big = calloc(1, 32 * MIB);
    struct doppel_config config;

    snprintf(kernel, sizeof(kernel), "%s", write_kernel("kernel", CODE(0xF4)));
    config = config_of(kernel);
    config.initrd = path_of("no-initrd");
    assert_refused(&config, ENOENT, "no-initrd: cannot open the initrd");
    config.initrd = write_file("big", big, 32 * MIB);
    assert_refused(&config, ENOMEM, "big");
    config.initrd = NULL;
    config.initrd_extra_size = 5;
    assert_refused(&config, EINVAL, "initrd_extra");
    free(big);
}

/* ---- Ends ---- */

static void test_debug_exit(void **unused)
{
    /* mov $0xF4,%dx; mov $21,%al; out %al,%dx; 1: hlt; jmp 1b */
    struct doppel_config config = config_of(
        write_kernel("exit", CODE(0x66, 0xBA, 0xF4, 0x00, 0xB0, 0x15, 0xEE, 0xF4, 0xEB, 0xFD)));
    const struct doppel_end *end = run(&config);

    assert_int_equal(end->outcome, DOPPEL_DEBUG_EXIT);
    assert_int_equal(end->status, 43);
}

static void hear(void *opaque, const void *data, size_t size)
{
    char *text = opaque;

    strncat(text, data, size);
}

/* mov $0x3F8,%dx; out "ok"; mov $0x604,%dx; mov $0x3400,%ax; out %ax,%dx; 1: hlt; jmp 1b */
#define SAY_OK                                                                                     \
    CODE(0x66, 0xBA, 0xF8, 0x03, 0xB0, 'o', 0xEE, 0xB0, 'k', 0xEE, 0x66, 0xBA, 0x04, 0x06, 0x66,   \
         0xB8, 0x00, 0x34, 0x66, 0xEF, 0xF4, 0xEB, 0xFD)

static void test_poweroff_and_serial(void **unused)
{
    char text[16] = "";
    struct doppel_config config = config_of(write_kernel("ok", SAY_OK));

    config.serial[0] = (struct doppel_serial){.output = hear, .opaque = text};
    assert_int_equal(run(&config)->outcome, DOPPEL_POWEROFF);
    assert_string_equal(text, "ok");
}

static void test_input(void **unused)
{
    /* mov $0x2FD,%dx; 1: in %dx,%al; test $1,%al; jz 1b; mov $0x2F8,%dx; in %dx,%al;
     * mov $0xF4,%dx; out %al,%dx; hlt */
    struct doppel_config config = config_of(
        write_kernel("input", CODE(0x66, 0xBA, 0xFD, 0x02, 0xEC, 0xA8, 0x01, 0x74, 0xFB, 0x66, 0xBA,
                                   0xF8, 0x02, 0xEC, 0x66, 0xBA, 0xF4, 0x00, 0xEE, 0xF4)));
    struct doppel_vm *vm = doppel_create(&config, NULL);
    struct doppel_end end;

    assert_non_null(vm);
    assert_int_equal(doppel_start(vm, NULL), 0);
    assert_int_equal(doppel_wait(vm, 10, &end), -ETIMEDOUT);
    assert_int_equal(end.outcome, DOPPEL_RUNNING);
    assert_int_equal(doppel_serial_input(vm, 1, "\x2A", 1), 1);
    assert_int_equal(doppel_serial_input(vm, 4, "x", 1), 0);
    assert_int_equal(doppel_wait(vm, WAIT_MS, &end), 0);
    assert_int_equal(end.status, 0x2A << 1 | 1);
    doppel_destroy(vm);
}

static void test_crash(void **unused)
{
    /* mov $0x12345678,%ebx; ud2, with no interrupt table */
    struct doppel_config config =
        config_of(write_kernel("crash", CODE(0xBB, 0x78, 0x56, 0x34, 0x12, 0x0F, 0x0B)));
    const struct doppel_end *end = run(&config);

    assert_int_equal(end->outcome, DOPPEL_CRASHED);
    assert_non_null(strstr(end->report, "triple fault"));
    assert_non_null(strstr(end->report, "RBX 0000000012345678"));
    assert_non_null(strstr(end->report, "mov ebx, 0x12345678"));
}

static void test_reset(void **unused)
{
    /* mov $0xFE,%al; out %al,$0x64; 1: hlt; jmp 1b */
    struct doppel_config config =
        config_of(write_kernel("reset", CODE(0xB0, 0xFE, 0xE6, 0x64, 0xF4, 0xEB, 0xFD)));

    config.no_reboot = true;
    assert_int_equal(run(&config)->outcome, DOPPEL_RESET);
}

/* Reboots once, the first time the scratch byte in the CMOS RAM is 0:
 * mov $0x7F,%al; out %al,$0x70; in $0x71,%al; test %al,%al; jnz 2f;
 * inc %al; out %al,$0x71; mov $6,%al; mov $0xCF9,%dx; out %al,%dx; 1: hlt; jmp 1b;
 * 2: mov $0xF4,%dx; out %al,%dx; hlt */
#define REBOOTS_ONCE                                                                               \
    CODE(0xB0, 0x7F, 0xE6, 0x70, 0xE4, 0x71, 0x84, 0xC0, 0x75, 0x0E, 0xFE, 0xC0, 0xE6, 0x71, 0xB0, \
         0x06, 0x66, 0xBA, 0xF9, 0x0C, 0xEE, 0xF4, 0xEB, 0xFD, 0x66, 0xBA, 0xF4, 0x00, 0xEE, 0xF4)

static void test_reboot(void **unused)
{
    struct doppel_config config = config_of(write_kernel("reboot", REBOOTS_ONCE));
    const struct doppel_end *end = run(&config);

    assert_int_equal(end->outcome, DOPPEL_DEBUG_EXIT);
    assert_int_equal(end->status, 3);
}

/* Runs what PATH was when the machine was created, after CHANGE has been done to it. */
static const struct doppel_end *run_changed(const char *path, void (*change)(const char *path))
{
    static struct doppel_end end;
    struct doppel_config config = config_of(path);
    struct doppel_vm *vm = doppel_create(&config, NULL);

    assert_non_null(vm);
    change(path);
    assert_int_equal(doppel_start(vm, NULL), 0);
    assert_int_equal(doppel_wait(vm, WAIT_MS, &end), 0);
    doppel_destroy(vm);
    return &end;
}

static void remove_it(const char *path)
{
    assert_int_equal(unlink(path), 0);
}

static void empty_it(const char *path)
{
    assert_int_equal(truncate(path, 0), 0);
}

static void leave_it(const char *path)
{
}

/* A reset reads the files again, as they are in the meantime; a removed one is still there, and
 * what came out of a pipe has been kept. */
static void test_reboot_files(void **unused)
{
    const char *path = write_kernel("removed", REBOOTS_ONCE);
    const struct doppel_end *end = run_changed(path, remove_it);
    char copy[64];
    int pipe_fd[2];
    size_t size;
    char kernel[512];
    FILE *file;

    assert_int_equal(end->outcome, DOPPEL_DEBUG_EXIT);
    end = run_changed(write_kernel("emptied", REBOOTS_ONCE), empty_it);
    assert_int_equal(end->outcome, DOPPEL_FAILED);
    assert_non_null(strstr(end->report, "the kernel is empty"));

    file = fopen(write_kernel("piped", REBOOTS_ONCE), "rb");
    size = fread(kernel, 1, sizeof(kernel), file);
    fclose(file);
    assert_int_equal(pipe(pipe_fd), 0);
    assert_int_equal(write(pipe_fd[1], kernel, size), (ssize_t)size);
    close(pipe_fd[1]);
    snprintf(copy, sizeof(copy), "/proc/self/fd/%d", pipe_fd[0]);
    end = run_changed(copy, leave_it);
    close(pipe_fd[0]);
    assert_int_equal(end->outcome, DOPPEL_DEBUG_EXIT);
    assert_int_equal(end->status, 3);
}

static void test_stop_and_stats(void **unused)
{
    struct doppel_config config = config_of(write_kernel("loop", CODE(0xEB, 0xFE))); /* 1: jmp 1b */
    struct doppel_vm *vm;
    struct doppel_host host;
    struct doppel_stats stats;
    struct doppel_end end;

    config.measure = true;
    vm = doppel_create(&config, NULL);
    assert_int_equal(doppel_start(vm, NULL), 0);
    doppel_wait(vm, 50, NULL);
    doppel_stop(vm);
    assert_int_equal(doppel_wait(vm, WAIT_MS, &end), 0);
    assert_int_equal(end.outcome, DOPPEL_STOPPED);
    doppel_stats(vm, &stats);
    doppel_probe(&host); /* the configuration said auto */
    assert_string_equal(stats.engine, doppel_engine_name(host.chosen));
    assert_true(stats.instructions > 1000);
    assert_true(stats.run_ns > 1000000 && stats.elapsed_ns >= 50000000);
    assert_in_range(stats.guest_resident, 4096, 16 * MIB);
    assert_true(stats.resident >= stats.guest_resident);
    assert_true(stats.exit_causes > 0);
    for (unsigned i = 0; i < stats.exit_causes; i++)
        assert_non_null(stats.exits[i].name);
    doppel_destroy(vm);
}

struct steps {
    struct doppel_vm *vm;
    unsigned count, end_after;
    char text[8][64];
    enum doppel_actor actor[8];
};

static void note_step(void *opaque, const struct doppel_step *step)
{
    struct steps *s = opaque;

    if (s->count < 8) {
        snprintf(s->text[s->count], sizeof(s->text[0]), "%s", step->text);
        s->actor[s->count] = step->actor;
    }
    if (++s->count == s->end_after)
        doppel_trace(s->vm, false);
}

/* What a machine tells of three instructions that need the monitor. */
static void trace(enum doppel_engine engine, struct steps *steps, bool on)
{
    /* mov $7, %eax; cpuid; mov $5, %al; out %al, $0x80; out %al, $0xf4 */
    struct doppel_config config = config_of(
        write_kernel("steps", CODE(0xB8, 7, 0, 0, 0, 0x0F, 0xA2, 0xB0, 5, 0xE6, 0x80, 0xE6, 0xF4)));
    struct doppel_end end;

    config.engine = engine;
    config.trace = note_step;
    config.trace_opaque = steps;
    steps->vm = doppel_create(&config, NULL);
    assert_non_null(steps->vm);
    if (on)
        doppel_trace(steps->vm, true);
    assert_int_equal(doppel_start(steps->vm, NULL), 0);
    assert_int_equal(doppel_wait(steps->vm, WAIT_MS, &end), 0);
    assert_int_equal(end.status, 11);
    doppel_destroy(steps->vm);
}

static void test_trace(void **unused)
{
    static const char *const said[] = {
        "fills the TLB for executing 100020 (",
        "cpuid 7",
        "emulates it (",
        "out to port 80",
        "emulates it (",
        "out to port f4",
    };
    enum doppel_engine engines[] = {DOPPEL_ENGINE_INTERP, DOPPEL_ENGINE_BT};
    struct doppel_host host;

    doppel_probe(&host);
    for (unsigned i = 0; i < 1u + (host.chosen == DOPPEL_ENGINE_BT); i++) {
        struct steps steps = {0};

        trace(engines[i], &steps, true);
        assert_true(steps.count >= 6);
        for (unsigned k = 0; k < 6; k++) {
            assert_int_equal(strncmp(steps.text[k], said[k], strlen(said[k])), 0);
            assert_int_equal(steps.actor[k],
                             k == 1 || k == 3 || k == 5 ? DOPPEL_KERNEL : DOPPEL_MONITOR);
        }
        steps = (struct steps){.end_after = 3};
        trace(engines[i], &steps, true);
        assert_int_equal(steps.count, 3);
        steps = (struct steps){0};
        trace(engines[i], &steps, false);
        assert_int_equal(steps.count, 0);
    }
}

/* Two machines at once, with output and end of their own. */
static void test_two(void **unused)
{
    char text[2][16] = {"", ""};
    struct doppel_config config = config_of(write_kernel("ok", SAY_OK));
    struct doppel_vm *vm[2];
    struct doppel_end end;

    for (unsigned i = 0; i < 2; i++) {
        config.serial[0] = (struct doppel_serial){.output = hear, .opaque = text[i]};
        vm[i] = doppel_create(&config, NULL);
        assert_non_null(vm[i]);
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(doppel_start(vm[i], NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(doppel_wait(vm[i], WAIT_MS, &end), 0);
        assert_int_equal(end.outcome, DOPPEL_POWEROFF);
        assert_string_equal(text[i], "ok");
        doppel_destroy(vm[i]);
    }
}

static void test_probe(void **unused)
{
    struct doppel_host host;

    doppel_probe(&host);
    assert_true(host.cpus >= 1);
    assert_true(host.memory > host.memory_available / 2 && host.memory_available > 0);
    assert_true(host.cpu[0] && host.kvm_detail[0] && host.reason[0]);
    assert_int_equal(host.kvm_present, access("/dev/kvm", R_OK | W_OK) == 0);
    assert_int_equal(host.x86_64_v3, host.missing[0] == '\0');
    assert_int_equal(host.chosen, __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("avx")
                                      ? DOPPEL_ENGINE_BT
                                      : DOPPEL_ENGINE_INTERP);
    assert_string_equal(doppel_engine_name(DOPPEL_ENGINE_INTERP), "interp");
    assert_string_equal(doppel_engine_name(DOPPEL_ENGINE_BT), "bt");
    assert_string_equal(doppel_engine_name(DOPPEL_ENGINE_KVM), "kvm");
    assert_string_equal(doppel_version(), DOPPEL_VERSION);
}

static int make_dir(void **unused)
{
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **unused)
{
    char command[300];

    snprintf(command, sizeof(command), "rm -r '%s'", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),     cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_files),        cmocka_unit_test(test_initrd),
        cmocka_unit_test(test_debug_exit),   cmocka_unit_test(test_poweroff_and_serial),
        cmocka_unit_test(test_input),        cmocka_unit_test(test_crash),
        cmocka_unit_test(test_reset),        cmocka_unit_test(test_reboot),
        cmocka_unit_test(test_reboot_files), cmocka_unit_test(test_stop_and_stats),
        cmocka_unit_test(test_trace),        cmocka_unit_test(test_two),
        cmocka_unit_test(test_probe),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
