/*
 * ACPI tables (ACPI specification 6.4, 5.2) for the board of vm/board.c: root pointer, RSDT and
 * XSDT, FADT, FACS, MADT and a DSDT in AML.
 */
#include "vm/acpi.h"

#include "base/util.h"
#include "dev/pc/ioapic.h"
#include "dev/pc/pm.h"
#include "dev/pc/rtc.h"
#include "dev/pci/host.h"
#include "vm/acpi_aml.h"
#include "vm/board.h"
#include "vm/boot/boot.h"
#include "vm/tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OEM_ID       "DOPPEL"
#define OEM_TABLE_ID "DOPPELVM"
#define CREATOR_ID   "DPPL"

#define AREA_SIZE (ACPI_RSDP_ADDRESS - BOOT_TABLES_START)

struct table_header {
    char signature[4];
    uint32_t length;
    uint8_t revision;
    uint8_t checksum;
    char oem_id[6];
    char oem_table_id[8];
    uint32_t oem_revision;
    char creator_id[4];
    uint32_t creator_revision;
} __attribute__((packed));

struct rsdp {
    char signature[8];
    uint8_t checksum; /* of the first 20 bytes */
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
    uint8_t extended_checksum;
    uint8_t reserved[3];
} __attribute__((packed));

struct facs {
    char signature[4];
    uint32_t length;
    uint32_t hardware_signature;
    uint32_t waking_vector;
    uint32_t global_lock;
    uint32_t flags;
    uint64_t x_waking_vector;
    uint8_t version;
    uint8_t reserved[31];
} __attribute__((packed));

/* A generic address (5.2.3.2). */
struct address {
    uint8_t space; /* 1: port */
    uint8_t bits;
    uint8_t offset;
    uint8_t access; /* 0: by width; 1: byte */
    uint64_t address;
} __attribute__((packed));

struct fadt {
    struct table_header header;
    uint32_t facs, dsdt;
    uint8_t reserved0;
    uint8_t profile;
    uint16_t sci;
    uint32_t smi_command;
    uint8_t acpi_enable, acpi_disable, s4bios, pstate;
    uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control;
    uint32_t pm2_control, pm_timer, gpe0, gpe1;
    uint8_t pm1_event_length, pm1_control_length, pm2_control_length, pm_timer_length;
    uint8_t gpe0_length, gpe1_length, gpe1_base, cst;
    uint16_t c2_latency, c3_latency;
    uint16_t flush_size, flush_stride;
    uint8_t duty_offset, duty_width;
    uint8_t day_alarm, month_alarm, century;
    uint16_t boot_architecture;
    uint8_t reserved1;
    uint32_t flags;
    struct address reset;
    uint8_t reset_value;
    uint16_t arm_boot_architecture;
    uint8_t minor;
    uint64_t x_facs, x_dsdt;
    struct address x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control;
    struct address x_pm2_control, x_pm_timer, x_gpe0, x_gpe1;
    struct address sleep_control, sleep_status;
    char hypervisor[8];
} __attribute__((packed));
_Static_assert(sizeof(struct fadt) == 276, "length of the FADT, revision 6");

/* FADT: boot architecture and flags (5.2.9). */
#define BOOT_LEGACY_DEVICES (1u << 0)
#define BOOT_8042           (1u << 1)
#define BOOT_NO_VGA         (1u << 2)
#define FADT_WBINVD         (1u << 0)
#define FADT_C1             (1u << 2)
#define FADT_NO_SLEEP_FIXED (1u << 5) /* there is no fixed sleep button */
#define FADT_TIMER_32       (1u << 8)
#define FADT_RESET          (1u << 10)
#define RESET_PORT          0xCF9
#define RESET_VALUE         0x06
#define C2_UNSUPPORTED      101 /* latencies in µs that mean "not there" */
#define C3_UNSUPPORTED      1001

/* MADT (5.2.12). */
struct madt {
    struct table_header header;
    uint32_t lapic_address;
    uint32_t flags;
} __attribute__((packed));
#define MADT_8259 1u

struct madt_lapic {
    uint8_t type, length, uid, apic_id;
    uint32_t flags;
} __attribute__((packed));

struct madt_ioapic {
    uint8_t type, length, id, reserved;
    uint32_t address, gsi_base;
} __attribute__((packed));

struct madt_override {
    uint8_t type, length, bus, irq;
    uint32_t gsi;
    uint16_t flags;
} __attribute__((packed));

struct madt_lapic_nmi {
    uint8_t type, length, uid;
    uint16_t flags;
    uint8_t lint;
} __attribute__((packed));

struct madt_x2apic {
    uint8_t type, length;
    uint16_t reserved;
    uint32_t apic_id, flags, uid;
} __attribute__((packed));

struct madt_x2apic_nmi {
    uint8_t type, length;
    uint16_t flags;
    uint32_t uid;
    uint8_t lint, reserved[3];
} __attribute__((packed));

#define MADT_ENABLED        1u
#define MADT_LEVEL_HIGH     0x0Du
#define MADT_ALL_CPUS       0xFF
#define MADT_ALL_CPUS_WIDE  0xFFFFFFFFu
#define MADT_LAPIC_ID_LIMIT 255 /* from here on, only x2APIC entries can hold the ID */

/* The tables under construction. */
struct area {
    uint8_t bytes[AREA_SIZE];
    size_t used;
    bool overflow;
};

static struct table_header header(const char *signature, uint8_t revision)
{
    struct table_header h = {.revision = revision, .oem_revision = 1, .creator_revision = 1};

    memcpy(h.signature, signature, sizeof(h.signature));
    memcpy(h.oem_id, OEM_ID, sizeof(h.oem_id));
    memcpy(h.oem_table_id, OEM_TABLE_ID, sizeof(h.oem_table_id));
    memcpy(h.creator_id, CREATOR_ID, sizeof(h.creator_id));
    return h;
}

static uint32_t append(struct area *a, const void *data, size_t size)
{
    size_t at = a->used;

    if (a->overflow || size > sizeof(a->bytes) - at) {
        a->overflow = true;
        return 0;
    }
    memcpy(a->bytes + at, data, size);
    a->used += size;
    return (uint32_t)(BOOT_TABLES_START + at);
}

/* Starts a table on a boundary that suits every table, the FACS's 64 bytes. */
static void align(struct area *a)
{
    a->used = MIN(ALIGN_UP(a->used, 64), sizeof(a->bytes));
}

/* Fills in length and checksum of the table that began at guest address ADDRESS and ends here. */
static void finish(struct area *a, uint32_t address)
{
    uint8_t *table;
    uint32_t length;

    if (a->overflow)
        return;
    table = a->bytes + (address - BOOT_TABLES_START);
    length = (uint32_t)(a->bytes + a->used - table);
    memcpy(table + offsetof(struct table_header, length), &length, sizeof(length));
    table[offsetof(struct table_header, checksum)] = table_checksum(table, length);
    align(a);
}

/* ---- DSDT ---- */

/* What the operating system tells by _PIC (5.8.1): 0 while it uses the 8259s, 1 for the I/O APIC.
 */
static void dsdt_interrupt_model(struct aml *a)
{
    aml_name_integer(a, "PICF", 0);
    aml_method(a, "_PIC", 1);
    aml_store_argument(a, 0, "PICF");
    aml_end(a);
}

/* Where interrupt pins lead (6.2.13): at the 8259s where firmware routes them to, or at the I/O
 * APIC. An entry is the device, any function of it, the pin, and the global interrupt. */
static void dsdt_routing(struct aml *a, const char *name, bool ioapic)
{
    aml_name(a, name);
    aml_package(a, PCI_DEVICES * PCI_PINS);
    for (unsigned i = 0; i < PCI_DEVICES * PCI_PINS; i++) {
        unsigned device = i / PCI_PINS, pin = i % PCI_PINS, pirq = PCI_PIRQ(device, pin);

        aml_package(a, 4);
        aml_integer(a, device << 16 | 0xFFFF);
        aml_integer(a, pin);
        aml_integer(a, 0);
        aml_integer(a, ioapic ? BOARD_PIRQ_GSI + pirq : PCI_FIRMWARE_ISA(pirq));
        aml_end(a);
    }
    aml_end(a);
}

static void dsdt_pci_interrupts(struct aml *a)
{
    dsdt_routing(a, "PRTA", true);
    dsdt_routing(a, "PRTP", false);
    aml_method(a, "_PRT", 0);
    aml_if(a, "PICF");
    aml_return(a, "PRTA");
    aml_end(a);
    aml_return(a, "PRTP");
    aml_end(a);
}

static void dsdt_pci(struct aml *a, const struct pci_window *high)
{
    aml_device(a, "PCI0");
    aml_name_eisa_id(a, "_HID", "PNP0A03");
    aml_name_integer(a, "_UID", 0);
    aml_name_integer(a, "_BBN", 0);
    aml_resources(a);
    aml_bus_range(a, 0, 255);
    aml_io(a, 0xCF8, 8);
    aml_io_range(a, 0, 0xCF7);
    aml_io_range(a, 0xD00, 0xFFFF);
    aml_memory_range(a, MEM_VGA_START, MEM_VGA_END - 1, true);
    aml_memory_range(a, PCI_MMIO_START, PCI_MMIO_END - 1, false);
    if (high->start < high->end)
        aml_high_memory_range(a, high->start, high->end - 1);
    aml_end(a);
    dsdt_pci_interrupts(a);
}

/* SECOND is one more port, or 0. */
static void dsdt_isa_device(struct aml *a, const char *name, const char *id, uint16_t port,
                            uint8_t ports, uint16_t second, unsigned irq)
{
    aml_device(a, name);
    aml_name_eisa_id(a, "_HID", id);
    aml_resources(a);
    aml_io(a, port, ports);
    if (second)
        aml_io(a, second, 1);
    aml_irq(a, irq);
    aml_end(a);
    aml_end(a);
}

static void dsdt_serial(struct aml *a, unsigned n)
{
    char name[5] = {'C', 'O', 'M', (char)('1' + n)};

    aml_device(a, name);
    aml_name_eisa_id(a, "_HID", "PNP0501");
    aml_name_integer(a, "_UID", n + 1);
    aml_resources(a);
    aml_io(a, board_serial[n].port, 8);
    aml_irq(a, board_serial[n].irq);
    aml_end(a);
    aml_end(a);
}

static void dsdt_processor(struct aml *a, unsigned n)
{
    static const char digits[] = "0123456789ABCDEF";
    char name[5] = {'C', digits[n >> 8 & 15], digits[n >> 4 & 15], digits[n & 15]};

    aml_device(a, name);
    aml_name(a, "_HID");
    aml_string(a, "ACPI0007");
    aml_name_integer(a, "_UID", n);
    aml_end(a);
}

static void dsdt_body(struct aml *a, unsigned cpus, const struct pci_window *high)
{
    dsdt_interrupt_model(a);
    aml_name(a, "\\_S5_");
    aml_package(a, 4);
    aml_integer(a, PM_SLEEP_TYPE_S5);
    aml_integer(a, PM_SLEEP_TYPE_S5);
    aml_integer(a, 0);
    aml_integer(a, 0);
    aml_end(a);

    aml_scope(a, "\\_SB_");
    for (unsigned i = 0; i < cpus; i++)
        dsdt_processor(a, i);
    dsdt_pci(a, high);
    aml_device(a, "ISA_");
    aml_name_integer(a, "_ADR", 0x00010000); /* device 1, function 0 */
    dsdt_isa_device(a, "TIMR", "PNP0100", 0x40, 4, 0, 0);
    dsdt_isa_device(a, "RTC_", "PNP0B00", 0x70, 2, 0, 8);
    dsdt_isa_device(a, "KBD_", "PNP0303", 0x60, 1, 0x64, 1);
    for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
        dsdt_serial(a, i);
    aml_end(a); /* ISA_ */
    aml_end(a); /* PCI0 */
    aml_end(a); /* \_SB */
}

static uint32_t add_dsdt(struct area *a, unsigned cpus, const struct pci_window *high)
{
    struct table_header h = header("DSDT", 2); /* 2: integers have 64 bits */
    uint32_t address = append(a, &h, sizeof(h));
    struct aml aml = {.data = a->bytes + a->used, .capacity = sizeof(a->bytes) - a->used};

    dsdt_body(&aml, cpus, high);
    if (aml.overflow)
        a->overflow = true;
    else
        a->used += aml.size;
    finish(a, address);
    return address;
}

/* ---- The other tables ---- */

static uint32_t add_facs(struct area *a)
{
    struct facs facs = {.signature = "FACS", .length = sizeof(facs), .version = 2};
    uint32_t address = append(a, &facs, sizeof(facs));

    align(a);
    return address;
}

static struct address port_address(uint16_t port, uint8_t bytes)
{
    return (struct address){.space = 1, .bits = bytes * 8, .address = port};
}

/* The power button and the RTC's alarm are fixed hardware, so the DSDT must not describe them as
 * well (4.8.2.2.1, 4.8.2.4). The RTC has registers for neither the day nor the month of an alarm.
 */
static uint32_t add_fadt(struct area *a, uint32_t facs, uint32_t dsdt)
{
    struct fadt f = {
        .header = header("FACP", 6),
        .facs = facs,
        .dsdt = dsdt,
        .x_dsdt = dsdt,
        .sci = PM_SCI,
        .pm1a_event = PM1_EVENT_PORT,
        .pm1_event_length = PM1_EVENT_SIZE,
        .x_pm1a_event = port_address(PM1_EVENT_PORT, PM1_EVENT_SIZE),
        .pm1a_control = PM1_CONTROL_PORT,
        .pm1_control_length = PM1_CONTROL_SIZE,
        .x_pm1a_control = port_address(PM1_CONTROL_PORT, PM1_CONTROL_SIZE),
        .pm_timer = PM_TIMER_PORT,
        .pm_timer_length = PM_TIMER_SIZE,
        .x_pm_timer = port_address(PM_TIMER_PORT, PM_TIMER_SIZE),
        .gpe0 = PM_GPE0_PORT,
        .gpe0_length = PM_GPE0_SIZE,
        .x_gpe0 = port_address(PM_GPE0_PORT, PM_GPE0_SIZE),
        .c2_latency = C2_UNSUPPORTED,
        .c3_latency = C3_UNSUPPORTED,
        .century = RTC_CENTURY_REGISTER,
        .boot_architecture = BOOT_LEGACY_DEVICES | BOOT_8042 | BOOT_NO_VGA,
        .flags = FADT_WBINVD | FADT_C1 | FADT_NO_SLEEP_FIXED | FADT_TIMER_32 | FADT_RESET,
        .reset = {.space = 1, .bits = 8, .access = 1, .address = RESET_PORT},
        .reset_value = RESET_VALUE,
        .minor = 4,
        .hypervisor = "DOPPEL",
    };
    uint32_t address = append(a, &f, sizeof(f));

    finish(a, address);
    return address;
}

static void add_processor(struct area *a, unsigned id)
{
    if (id < MADT_LAPIC_ID_LIMIT) {
        struct madt_lapic entry = {.type = 0,
                                   .length = sizeof(entry),
                                   .uid = (uint8_t)id,
                                   .apic_id = (uint8_t)id,
                                   .flags = MADT_ENABLED};
        append(a, &entry, sizeof(entry));
    } else {
        struct madt_x2apic entry = {
            .type = 9, .length = sizeof(entry), .uid = id, .apic_id = id, .flags = MADT_ENABLED};
        append(a, &entry, sizeof(entry));
    }
}

static uint32_t add_madt(struct area *a, unsigned cpus)
{
    struct madt madt = {
        .header = header("APIC", 5), .lapic_address = BOARD_LAPIC_ADDRESS, .flags = MADT_8259};
    struct madt_ioapic ioapic = {
        .type = 1, .length = sizeof(ioapic), .id = BOARD_IOAPIC_ID, .address = IOAPIC_BASE};
    struct madt_override timer = {
        .type = 2, .length = sizeof(timer), .irq = 0, .gsi = BOARD_TIMER_GSI};
    struct madt_override sci = {
        .type = 2, .length = sizeof(sci), .irq = PM_SCI, .gsi = PM_SCI, .flags = MADT_LEVEL_HIGH};
    struct madt_lapic_nmi nmi = {.type = 4, .length = sizeof(nmi), .uid = MADT_ALL_CPUS, .lint = 1};
    struct madt_x2apic_nmi wide_nmi = {
        .type = 10, .length = sizeof(wide_nmi), .uid = MADT_ALL_CPUS_WIDE, .lint = 1};
    uint32_t address = append(a, &madt, sizeof(madt));

    for (unsigned i = 0; i < cpus; i++)
        add_processor(a, i);
    append(a, &ioapic, sizeof(ioapic));
    append(a, &timer, sizeof(timer));
    append(a, &sci, sizeof(sci));
    append(a, &nmi, sizeof(nmi));
    if (cpus > MADT_LAPIC_ID_LIMIT)
        append(a, &wide_nmi, sizeof(wide_nmi));
    finish(a, address);
    return address;
}

/* The root tables list the others: 32-bit addresses in the RSDT, 64-bit ones in the XSDT. */
static uint32_t add_root(struct area *a, const char *signature, size_t width,
                         const uint32_t *tables, unsigned count)
{
    struct table_header h = header(signature, 1);
    uint32_t address = append(a, &h, sizeof(h));

    for (unsigned i = 0; i < count; i++) {
        uint64_t entry = tables[i];

        append(a, &entry, width);
    }
    finish(a, address);
    return address;
}

static struct rsdp make_rsdp(uint32_t rsdt, uint32_t xsdt)
{
    struct rsdp r = {.signature = "RSD PTR ",
                     .oem_id = OEM_ID,
                     .revision = 2,
                     .rsdt = rsdt,
                     .length = sizeof(r),
                     .xsdt = xsdt};

    r.checksum = table_checksum(&r, offsetof(struct rsdp, length));
    r.extended_checksum = table_checksum(&r, sizeof(r));
    return r;
}

int acpi_write(struct mem *mem, unsigned cpus, unsigned physical_bits, struct error *err)
{
    struct area *a = calloc(1, sizeof(*a));
    const struct pci_window high = pci_high_window(mem_high_end(mem), physical_bits);
    uint32_t facs, dsdt, tables[2];
    struct rsdp rsdp;
    int ret = 0;

    if (!a)
        return error_set(err, ENOMEM, "no memory for the ACPI tables");
    facs = add_facs(a);
    dsdt = add_dsdt(a, cpus, &high);
    tables[0] = add_fadt(a, facs, dsdt);
    tables[1] = add_madt(a, cpus);
    rsdp = make_rsdp(add_root(a, "RSDT", 4, tables, ARRAY_SIZE(tables)),
                     add_root(a, "XSDT", 8, tables, ARRAY_SIZE(tables)));
    if (a->overflow)
        ret = error_set(err, EFBIG, "the ACPI tables for %u processors do not fit", cpus);
    else if (mem_write(mem, BOOT_TABLES_START, a->bytes, a->used) < 0 ||
             mem_write(mem, ACPI_RSDP_ADDRESS, &rsdp, sizeof(rsdp)) < 0)
        ret = error_set(err, EFAULT, "there is no memory where the ACPI tables belong");
    free(a);
    return ret;
}
