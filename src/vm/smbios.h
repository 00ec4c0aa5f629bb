/*
 * SMBIOS: what machine this is, for kernels and people (DMI).
 */
#ifndef DOPPEL_VM_SMBIOS_H
#define DOPPEL_VM_SMBIOS_H

#include "base/error.h"
#include "mem/mem.h"
#include "x86/cpuid.h"

/* Writes the structures and both entry points. */
int smbios_write(struct mem *mem, const struct x86_model *model, struct error *err);

#endif
