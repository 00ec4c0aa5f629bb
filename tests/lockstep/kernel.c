/*
 * Reading and preparing what a test boots.
 */
#include "kernel.h"

#include "vm/acpi.h"

#include <stdio.h>
#include <stdlib.h>

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *bytes = NULL;
    long length;

    if (f && fseek(f, 0, SEEK_END) == 0 && (length = ftell(f)) > 0) {
        rewind(f);
        bytes = malloc((size_t)length);
        *size = bytes ? fread(bytes, 1, (size_t)length, f) : 0;
    }
    if (f)
        fclose(f);
    if (!bytes)
        fprintf(stderr, "cannot read %s\n", path);
    return bytes;
}

bool kernel_open(struct kernel *k, const char *name, const char *initrd, const char *command_line)
{
    struct boot_source *s = &k->source;
    struct error err = {0};

    *k = (struct kernel){.source = {.rsdp = ACPI_RSDP_ADDRESS,
                                    .kernel_name = name,
                                    .initrd_name = initrd,
                                    .command_line = command_line}};
    s->kernel = read_file(name, &s->kernel_size);
    if (initrd)
        s->initrd = read_file(initrd, &s->initrd_size);
    if (s->kernel && (!initrd || s->initrd) && !(k->image = boot_prepare(s, &err)))
        fprintf(stderr, "%s\n", err.text);
    if (!k->image)
        kernel_close(k);
    return k->image;
}

void kernel_close(struct kernel *k)
{
    boot_free(k->image);
    free((void *)(uintptr_t)k->source.kernel);
    free((void *)(uintptr_t)k->source.initrd);
    *k = (struct kernel){.image = NULL};
}

int kernel_load(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    return boot_load(opaque, mem, cpu, err);
}
