/*
 * Runs a bare-metal guest as `doppel run` does, in any engine that is linked in, those that only
 * tests want included: the guest's debug console goes to standard output, and the status that it
 * ends with becomes this program's.
 *
 *     asm-direct [--switch] ENGINE[,ENGINE]... KERNEL [CPUS]
 *
 * With several engines it saves the running machine every now and then, destroys it, and goes on
 * with one that it makes of that in the next engine. With --switch the machine stays and gets the
 * next engine.
 */
#include "base/util.h"
#include "../unit/state_image.h"
#include "../variants.h"
#include "vm/acpi.h"
#include "vm/boot/boot.h"
#include "vm/snap/snap.h"
#include "vm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_ERROR 100
#define MEMORY       (64 * MiB)
#define KERNEL_LIMIT (4 * MiB)
#define TIMEOUT_MS   60000
#define ENGINES_MAX  4
#define MOVE_MS      20 /* between two engines */
#define SWITCH_MS    5  /* the same in one machine */

static void print(void *opaque, const void *data, size_t size)
{
    fwrite(data, 1, size, stdout);
}

static size_t read_kernel(const char *path, uint8_t *bytes)
{
    FILE *f = fopen(path, "rb");
    size_t size;

    if (!f)
        return 0;
    size = fread(bytes, 1, KERNEL_LIMIT, f);
    fclose(f);
    return size;
}

struct engines {
    unsigned count;
    bool switched; /* in one machine */
    struct engine_ops ops[ENGINES_MAX];
};

static bool find_engines(struct engines *engines, char *names)
{
    char *rest = NULL;

    for (char *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        struct engine_ops space;
        const struct engine_ops *ops = variant_find(name, &space);

        if (!ops || engines->count == ENGINES_MAX)
            return false;
        engines->ops[engines->count++] = *ops;
    }
    return engines->count;
}

/* Makes *VM anew in ENGINE, unless it ends first. */
static int move(struct vm **vm, const struct engine_ops *engine, const struct vm_config *config,
                struct error *err)
{
    struct state_image image = {0};
    struct state_writer writer = image_writer(&image);
    struct state_reader reader;
    int ret;

    vm_pause(*vm);
    ret = vm_save(*vm, "asm-direct", &writer, err);
    if (ret == 0) {
        vm_destroy(*vm);
        reader = image_reader(&image);
        *vm = vm_load(engine, config, &reader, err);
        ret = *vm ? vm_start(*vm, err) : -err->code;
    } else {
        vm_resume(*vm);
    }
    image_free(&image);
    return ret == -ESHUTDOWN ? 0 : ret;
}

/* Gives VM another engine, unless it ends first. */
static int switch_to(struct vm *vm, const struct engine_ops *engine, struct error *err)
{
    int ret = vm_switch_engine(vm, engine, err);

    return ret == -ESHUTDOWN ? 0 : ret;
}

/* Waits for the end of *VM, in one engine after another. */
static int run_moving(struct vm **vm, const struct engines *engines, const struct vm_config *config,
                      struct vm_end *end, struct error *err)
{
    const int pause_ms = engines->switched ? SWITCH_MS : MOVE_MS;
    unsigned moves = 0;
    int ret = 0;

    while (ret == 0 && vm_wait(*vm, pause_ms, end) == -ETIMEDOUT) {
        if (++moves > (unsigned)(TIMEOUT_MS / pause_ms))
            return error_set(err, ETIMEDOUT, "no end within a minute");
        if (engines->switched)
            ret = switch_to(*vm, &engines->ops[moves % engines->count], err);
        else
            ret = move(vm, &engines->ops[moves % engines->count], config, err);
    }
    fprintf(stderr, "asm-direct: moved %u times\n", moves);
    return ret;
}

/* Returns what to exit with. */
static int run(struct vm **vm, const struct engines *engines, const struct vm_config *config)
{
    static struct vm_end end; /* large */
    struct error err = {0};
    int ret = vm_start(*vm, &err);

    if (ret == 0 && engines->count > 1)
        ret = run_moving(vm, engines, config, &end, &err);
    else if (ret == 0 && vm_wait(*vm, TIMEOUT_MS, &end) != 0)
        ret = error_set(&err, ETIMEDOUT, "no end within a minute");
    if (ret != 0) {
        fprintf(stderr, "asm-direct: %s\n", err.text);
        return STATUS_ERROR;
    }
    if (end.outcome == VM_CRASHED)
        printf("%s", end.report);
    return end.outcome == VM_DEBUG_EXIT ? end.status : STATUS_ERROR + (int)end.outcome;
}

static int load(void *image, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    return boot_load(image, mem, cpu, err);
}

int main(int argc, char **argv)
{
    static uint8_t kernel[KERNEL_LIMIT];
    struct engines engines = {.switched = argc > 1 && !strcmp(argv[1], "--switch")};
    struct boot_source source = {.kernel = kernel, .command_line = "", .rsdp = ACPI_RSDP_ADDRESS};
    static const char *const devices[] = {"test-device", "debug-exit", "debug-console", "rng",
                                          NULL};
    struct vm_config config = {
        .cpus = 1,
        .memory = MEMORY,
        .no_reboot = true,
        .devices = {.list = devices, .debug_output = {.output = print}},
        .load = load,
    };
    struct error err = {0};
    struct boot_image *image;
    int status = STATUS_ERROR;
    struct vm *vm;

    argc -= engines.switched;
    argv += engines.switched;
    if (argc < 3 || !find_engines(&engines, argv[1])) {
        fprintf(stderr,
                "usage: asm-direct [--switch] ENGINE[,ENGINE]... KERNEL [CPUS]; see variants.c\n");
        return STATUS_ERROR;
    }
    if (argc > 3)
        config.cpus = (unsigned)strtoul(argv[3], NULL, 0);
    source.kernel_name = argv[2];
    source.kernel_size = read_kernel(argv[2], kernel);
    image = boot_prepare(&source, &err);
    config.load_opaque = image;
    vm = image ? vm_create(&engines.ops[0], &config, &err) : NULL;
    if (vm)
        status = run(&vm, &engines, &config);
    else
        fprintf(stderr, "asm-direct: %s\n", err.text);
    if (vm)
        vm_destroy(vm);
    if (image)
        boot_free(image);
    return status;
}
