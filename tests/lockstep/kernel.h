/*
 * What a test boots: a kernel and perhaps an initramfs, read and prepared.
 */
#ifndef DOPPEL_TESTS_LOCKSTEP_KERNEL_H
#define DOPPEL_TESTS_LOCKSTEP_KERNEL_H

#include "vm/boot/boot.h"

struct kernel {
    struct boot_source source; /* its files are this structure's own */
    struct boot_image *image;
};

/* INITRD may be NULL. False: that fails, which is reported; there is nothing to close. The strings
 * stay the caller's, until kernel_close. */
bool kernel_open(struct kernel *kernel, const char *name, const char *initrd,
                 const char *command_line);
void kernel_close(struct kernel *kernel);

/* For struct vm_config, with the image as OPAQUE. */
int kernel_load(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err);

#endif
