/*
 * The MP table, by which kernels without ACPI find processors and interrupts.
 */
#ifndef DOPPEL_VM_MP_TABLE_H
#define DOPPEL_VM_MP_TABLE_H

#include "base/error.h"
#include "mem/mem.h"
#include "x86/cpuid.h"

/* Writes the table of a board whose processors are MODEL's; their APIC IDs are 0 and up. */
int mp_table_write(struct mem *mem, const struct x86_model *model, struct error *err);

#endif
