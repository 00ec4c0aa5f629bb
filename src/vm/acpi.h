/*
 * The ACPI tables: how a guest learns what is on the board.
 */
#ifndef DOPPEL_VM_ACPI_H
#define DOPPEL_VM_ACPI_H

#include "base/error.h"
#include "mem/mem.h"

/* Where the root pointer is; all else is found from there. */
#define ACPI_RSDP_ADDRESS 0xF0000ULL

/* Writes the tables of a board with CPUS processors, whose APIC IDs are 0 to CPUS - 1 and which
 * have PHYSICAL_BITS bits of address. */
int acpi_write(struct mem *mem, unsigned cpus, unsigned physical_bits, struct error *err);

#endif
