/*
 * The MP floating pointer and configuration table (Intel MultiProcessor Specification 1.4, chapter
 * 4) for the board of vm/board.c. It says what the MADT (vm/acpi.c) says.
 */
#include "vm/mp_table.h"

#include "base/util.h"
#include "dev/pc/ioapic.h"
#include "dev/pc/lapic.h"
#include "dev/pc/pm.h"
#include "dev/pci/host.h"
#include "vm/board.h"
#include "vm/tables.h"

#include <errno.h>
#include <string.h>

#define MP_VERSION 4 /* 1.4 */

struct mp_pointer {
    char signature[4];
    uint32_t table;
    uint8_t length; /* in units of 16 bytes */
    uint8_t version;
    uint8_t checksum;
    uint8_t features[5]; /* all 0: there is a table, and PIC mode is not implemented */
} __attribute__((packed));

struct mp_header {
    char signature[4];
    uint16_t length;
    uint8_t version;
    uint8_t checksum;
    char oem_id[8], product_id[12];
    uint32_t oem_table;
    uint16_t oem_size, entries;
    uint32_t lapic_address;
    uint16_t extended_length;
    uint8_t extended_checksum, reserved;
} __attribute__((packed));

/* Entries, in the order in which they stand in the table. */
enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_INTERRUPT, MP_LOCAL_INTERRUPT };

struct mp_processor {
    uint8_t type, apic_id, apic_version, flags;
    uint32_t signature, features;
    uint32_t reserved[2];
} __attribute__((packed));
#define PROCESSOR_ENABLED   1
#define PROCESSOR_BOOTSTRAP 2

struct mp_bus {
    uint8_t type, id;
    char name[6];
} __attribute__((packed));

struct mp_ioapic {
    uint8_t type, id, version, flags;
    uint32_t address;
} __attribute__((packed));
#define IOAPIC_ENABLED 1

/* From an interrupt of a bus to a pin of the I/O APIC or, locally, of every processor's APIC. */
struct mp_interrupt {
    uint8_t type, kind;
    uint16_t flags;
    uint8_t bus, irq, apic, pin;
} __attribute__((packed));
enum { KIND_INT, KIND_NMI, KIND_SMI, KIND_EXTINT };
#define CONFORMS_TO_BUS 0
#define LEVEL_HIGH      0x0D
#define LEVEL_LOW       0x0F
#define ALL_APICS       0xFF

enum { PCI_BUS, ISA_BUS };
#define ISA_INTERRUPTS 16
#define ISA_CASCADE    2 /* the second 8259 */

/* APIC IDs have 8 bits, of which the last value means all. */
#define MAX_PROCESSORS 255
#define MAX_SIZE                                                                                   \
    (sizeof(struct mp_header) + MAX_PROCESSORS * sizeof(struct mp_processor) +                     \
     2 * sizeof(struct mp_bus) + sizeof(struct mp_ioapic) +                                        \
     (ISA_INTERRUPTS + PCI_DEVICES * PCI_PINS + 2) * sizeof(struct mp_interrupt))
_Static_assert(MP_TABLE_ADDRESS + MAX_SIZE <= SMBIOS_TABLE_ADDRESS, "room for the table");

struct mp_table {
    uint8_t bytes[MAX_SIZE];
    uint16_t size, entries;
};

static void add(struct mp_table *t, const void *entry, size_t size)
{
    memcpy(t->bytes + t->size, entry, size);
    t->size += (uint16_t)size;
    t->entries++;
}

static void add_processors(struct mp_table *t, const struct x86_model *model)
{
    static const struct x86_cpu after_reset;
    uint32_t features = x86_cpuid(model, &after_reset, 0, 1, 0).edx;

    for (unsigned i = 0; i < MIN(model->cpus, MAX_PROCESSORS); i++) {
        struct mp_processor p = {
            .type = MP_PROCESSOR,
            .apic_id = (uint8_t)i,
            .apic_version = LAPIC_VERSION & 0xFF,
            .flags = PROCESSOR_ENABLED | (i == 0 ? PROCESSOR_BOOTSTRAP : 0),
            .signature = X86_CPU_SIGNATURE,
            .features = features,
        };

        add(t, &p, sizeof(p));
    }
}

static void add_bus(struct mp_table *t, uint8_t id, const char *name)
{
    struct mp_bus bus = {.type = MP_BUS, .id = id};

    memcpy(bus.name, name, sizeof(bus.name));
    add(t, &bus, sizeof(bus));
}

/* The ISA interrupts: each at the pin of its number, but for the timer's. */
static void add_isa_interrupts(struct mp_table *t)
{
    for (uint8_t irq = 0; irq < ISA_INTERRUPTS; irq++) {
        struct mp_interrupt entry = {
            .type = MP_INTERRUPT,
            .kind = KIND_INT,
            .flags = irq == PM_SCI ? LEVEL_HIGH : CONFORMS_TO_BUS,
            .bus = ISA_BUS,
            .irq = irq,
            .apic = BOARD_IOAPIC_ID,
            .pin = irq == 0 ? BOARD_TIMER_GSI : irq,
        };

        if (irq != ISA_CASCADE)
            add(t, &entry, sizeof(entry));
    }
}

/* The pins of all devices on the PCI bus (D.3). */
static void add_pci_interrupts(struct mp_table *t)
{
    for (unsigned i = 0; i < PCI_DEVICES * PCI_PINS; i++) {
        unsigned device = i / PCI_PINS, pin = i % PCI_PINS;
        const struct mp_interrupt entry = {
            .type = MP_INTERRUPT,
            .kind = KIND_INT,
            .flags = LEVEL_LOW,
            .bus = PCI_BUS,
            .irq = (uint8_t)(device << 2 | pin),
            .apic = BOARD_IOAPIC_ID,
            .pin = (uint8_t)(BOARD_PIRQ_GSI + PCI_PIRQ(device, pin)),
        };

        add(t, &entry, sizeof(entry));
    }
}

static void add_local_interrupts(struct mp_table *t)
{
    const struct mp_interrupt entries[] = {
        {.type = MP_LOCAL_INTERRUPT, .kind = KIND_EXTINT, .bus = ISA_BUS, .apic = ALL_APICS},
        {.type = MP_LOCAL_INTERRUPT, .kind = KIND_NMI, .bus = ISA_BUS, .apic = ALL_APICS, .pin = 1},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(entries); i++)
        add(t, &entries[i], sizeof(entries[i]));
}

int mp_table_write(struct mem *mem, const struct x86_model *model, struct error *err)
{
    const struct mp_ioapic ioapic = {.type = MP_IOAPIC,
                                     .id = BOARD_IOAPIC_ID,
                                     .version = IOAPIC_VERSION & 0xFF,
                                     .flags = IOAPIC_ENABLED,
                                     .address = IOAPIC_BASE};
    struct mp_pointer pointer = {.signature = "_MP_",
                                 .table = MP_TABLE_ADDRESS,
                                 .length = sizeof(pointer) / 16,
                                 .version = MP_VERSION};
    struct mp_header header = {.signature = "PCMP",
                               .version = MP_VERSION,
                               .oem_id = "DOPPEL  ",
                               .product_id = "PC          ",
                               .lapic_address = BOARD_LAPIC_ADDRESS};
    struct mp_table table = {.size = sizeof(header)};

    add_processors(&table, model);
    add_bus(&table, PCI_BUS, "PCI   ");
    add_bus(&table, ISA_BUS, "ISA   ");
    add(&table, &ioapic, sizeof(ioapic));
    add_isa_interrupts(&table);
    add_pci_interrupts(&table);
    add_local_interrupts(&table);
    header.length = table.size;
    header.entries = table.entries;
    memcpy(table.bytes, &header, sizeof(header));
    header.checksum = table_checksum(table.bytes, table.size);
    memcpy(table.bytes, &header, sizeof(header));
    pointer.checksum = table_checksum(&pointer, sizeof(pointer));
    if (mem_write(mem, MP_TABLE_ADDRESS, table.bytes, table.size) < 0 ||
        mem_write(mem, MP_POINTER_ADDRESS, &pointer, sizeof(pointer)) < 0)
        return error_set(err, EFAULT, "there is no memory where the MP table belongs");
    return 0;
}
