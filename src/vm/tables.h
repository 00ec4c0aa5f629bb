/*
 * Where kernels look for what firmware says about the board: F0000h to FFFFFh, on boundaries of 16
 * bytes. The ACPI tables' root pointer (vm/acpi.h) comes first.
 */
#ifndef DOPPEL_VM_TABLES_H
#define DOPPEL_VM_TABLES_H

#include <stddef.h>
#include <stdint.h>

#define MP_POINTER_ADDRESS      0xF0040ULL
#define SMBIOS_POINTER_ADDRESS  0xF0060ULL
#define SMBIOS3_POINTER_ADDRESS 0xF0080ULL
#define MP_TABLE_ADDRESS        0xF0100ULL
#define SMBIOS_TABLE_ADDRESS    0xF4000ULL
#define SMBIOS_TABLE_END        0xF5000ULL

/* What makes the sum of all bytes 0, if the checksum's own was 0. */
static inline uint8_t table_checksum(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum += bytes[i];
    return (uint8_t)-sum;
}

#endif
