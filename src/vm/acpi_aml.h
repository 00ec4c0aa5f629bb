/*
 * A small emitter of AML, the bytecode of ACPI's definition blocks.
 *
 * Calls are made in the order in which the ASL would be read. Whatever has a body (scope, device,
 * package, method, if, resources) is opened by its call and closed by aml_end.
 */
#ifndef DOPPEL_VM_ACPI_AML_H
#define DOPPEL_VM_ACPI_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH 8

struct aml {
    uint8_t *data; /* the caller's buffer */
    size_t size, capacity;
    bool overflow; /* the buffer was too small; SIZE and content mean nothing */
    unsigned depth;
    struct aml_body {
        size_t start;
        bool resources;
    } body[AML_DEPTH];
};

/* Names are paths as in ASL, each segment four characters: "\\_SB_", "_HID". */
void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *name);
void aml_name(struct aml *a, const char *name); /* its value follows */
void aml_package(struct aml *a, uint8_t elements);
void aml_method(struct aml *a, const char *name, uint8_t arguments);
void aml_if(struct aml *a, const char *name); /* the named integer is not 0 */
void aml_end(struct aml *a);

void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
void aml_eisa_id(struct aml *a, const char *id); /* "PNP0501" */

/* Statements of a method: NAME = ARGN, and return NAME. */
void aml_store_argument(struct aml *a, unsigned n, const char *name);
void aml_return(struct aml *a, const char *name);

/* Shorthands: a name and its value. */
void aml_name_integer(struct aml *a, const char *name, uint64_t value);
void aml_name_eisa_id(struct aml *a, const char *name, const char *id);

/* A resource template under _CRS; descriptors follow, then aml_end. */
void aml_resources(struct aml *a);
void aml_io(struct aml *a, uint16_t base, uint8_t length);
void aml_irq(struct aml *a, unsigned irq); /* edge-triggered, active high */
void aml_bus_range(struct aml *a, uint16_t first, uint16_t last);
void aml_io_range(struct aml *a, uint16_t first, uint16_t last);
void aml_memory_range(struct aml *a, uint32_t first, uint32_t last, bool cacheable);
void aml_high_memory_range(struct aml *a, uint64_t first, uint64_t last); /* not cacheable */

#endif
