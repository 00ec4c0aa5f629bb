/*
 * Runs a bare-metal guest as `doppel run` does, in any engine that is linked in, those that only
 * tests want included: the guest's debug console goes to standard output, and the status that it
 * ends with becomes this program's.
 *
 *     asm-direct ENGINE KERNEL [CPUS]
 */
#include "base/util.h"
#include "../variants.h"
#include "vm/acpi.h"
#include "vm/boot/boot.h"
#include "vm/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_ERROR 100
#define MEMORY       (64 * MiB)
#define KERNEL_LIMIT (4 * MiB)
#define TIMEOUT_MS   60000

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

/* Returns what to exit with. */
static int run(struct vm *vm)
{
    static struct vm_end end; /* large */
    struct error err = {0};

    if (vm_start(vm, &err) != 0) {
        fprintf(stderr, "asm-direct: %s\n", err.text);
        return STATUS_ERROR;
    }
    if (vm_wait(vm, TIMEOUT_MS, &end) != 0) {
        fprintf(stderr, "asm-direct: no end within a minute\n");
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
    struct engine_ops space;
    const struct engine_ops *engine = argc > 2 ? variant_find(argv[1], &space) : NULL;
    struct boot_source source = {.kernel = kernel, .command_line = "", .rsdp = ACPI_RSDP_ADDRESS};
    static const char *const devices[] = {"test-device", "debug-exit", "debug-console", NULL};
    struct vm_config config = {
        .cpus = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 1,
        .memory = MEMORY,
        .no_reboot = true,
        .devices = {.list = devices, .debug_output = {.output = print}},
        .load = load,
    };
    struct error err = {0};
    struct boot_image *image;
    int status = STATUS_ERROR;
    struct vm *vm;

    if (!engine) {
        fprintf(stderr, "usage: asm-direct ENGINE KERNEL [CPUS]; see variants.c\n");
        return STATUS_ERROR;
    }
    source.kernel_name = argv[2];
    source.kernel_size = read_kernel(argv[2], kernel);
    image = boot_prepare(&source, &err);
    config.load_opaque = image;
    vm = image ? vm_create(engine, &config, &err) : NULL;
    if (vm)
        status = run(vm);
    else
        fprintf(stderr, "asm-direct: %s\n", err.text);
    if (vm)
        vm_destroy(vm);
    if (image)
        boot_free(image);
    return status;
}
