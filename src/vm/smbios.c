/*
 * SMBIOS structures (DMTF DSP0134, version 3.0) with entry points of both kinds: "_SM_" (5.2.1) and
 * "_SM3_" (5.2.2). They say what is so, and "unknown" where a machine of software has no answer.
 */
#include "vm/smbios.h"

#include "base/util.h"
#include "vm/tables.h"

#include <errno.h>
#include <string.h>

#define MAKER   "doppel"
#define PRODUCT "PC"
#define VERSION "1" /* of the board */
/* Kernels take it for the age of the firmware, and work around the faults of old ones. */
#define RELEASE_DATE "01/01/2026"

enum {
    TYPE_BIOS = 0,
    TYPE_SYSTEM = 1,
    TYPE_CHASSIS = 3,
    TYPE_PROCESSOR = 4,
    TYPE_MEMORY_ARRAY = 16,
    TYPE_MEMORY_DEVICE = 17,
    TYPE_MAPPED_ADDRESS = 19,
    TYPE_BOOT = 32,
    TYPE_END = 127,
};

/* A handle is 256 times the type, plus a number where there are several. */
#define HANDLE(type, n) ((uint16_t)((type) << 8 | (n)))
#define NO_HANDLE       0xFFFF
#define NO_ERROR_INFO   0xFFFE

/* Values that several fields share. */
enum { OTHER = 1, UNKNOWN = 2, SAFE = 3, NONE = 3 };

struct header {
    uint8_t type, length;
    uint16_t handle;
} __attribute__((packed));

/* Text fields number the strings that follow the structure, from 1. */
struct bios {
    struct header header;
    uint8_t vendor, version;
    uint16_t segment;
    uint8_t date;
    uint8_t rom_size; /* 64 KiB * (n + 1) */
    uint64_t characteristics;
    uint8_t extension[2];
    uint8_t major, minor, controller_major, controller_minor;
} __attribute__((packed));
#define BIOS_NO_CHARACTERISTICS (1u << 3) /* they are not given */
#define BIOS_ACPI               (1u << 0) /* in the first extension */
#define BIOS_VIRTUAL_MACHINE    (1u << 4) /* in the second */
#define NOT_UPGRADABLE          0xFF

struct system {
    struct header header;
    uint8_t maker, product, version, serial;
    uint8_t uuid[16]; /* all 0: there is none */
    uint8_t wake_up, sku, family;
} __attribute__((packed));
#define WAKE_UP_POWER_SWITCH 6

struct chassis {
    struct header header;
    uint8_t maker, type, version, serial, asset;
    uint8_t boot_state, power_state, thermal_state, security;
    uint32_t oem;
    uint8_t height, cords, elements, element_length, sku;
} __attribute__((packed));

struct processor {
    struct header header;
    uint8_t socket, type, family, maker;
    uint32_t signature, features;
    uint8_t version, voltage;
    uint16_t external_mhz, max_mhz, mhz;
    uint8_t status, upgrade;
    uint16_t l1, l2, l3;
    uint8_t serial, asset, part;
    uint8_t cores, enabled_cores, threads;
    uint16_t characteristics;
    uint16_t family2, cores2, enabled_cores2, threads2;
} __attribute__((packed));
_Static_assert(sizeof(struct processor) == 48, "length of version 3.0");
#define PROCESSOR_CENTRAL    3
#define PROCESSOR_ENABLED    0x41 /* and the socket is populated */
#define PROCESSOR_64_BIT     (1u << 2)
#define PROCESSOR_MULTI_CORE (1u << 3)
#define PROCESSOR_NO_EXECUTE (1u << 5)

struct memory_array {
    struct header header;
    uint8_t location, use, correction;
    uint32_t capacity; /* KiB, or CAPACITY_EXTENDED */
    uint16_t error, devices;
    uint64_t extended_capacity; /* bytes */
} __attribute__((packed));
#define USE_SYSTEM_MEMORY 3
#define CAPACITY_EXTENDED 0x80000000u

struct memory_device {
    struct header header;
    uint16_t array, error;
    uint16_t total_width, data_width;
    uint16_t size; /* MiB, or KiB with SIZE_IN_KIB, or SIZE_EXTENDED */
    uint8_t form, set, locator, bank, type;
    uint16_t detail, speed;
    uint8_t maker, serial, asset, part, attributes;
    uint32_t extended_size; /* MiB */
    uint16_t configured_speed, minimum_voltage, maximum_voltage, voltage;
} __attribute__((packed));
_Static_assert(sizeof(struct memory_device) == 40, "length of version 2.8");
#define WIDTH_UNKNOWN   0xFFFF
#define SIZE_IN_KIB     0x8000
#define SIZE_EXTENDED   0x7FFF
#define MEMORY_TYPE_RAM 7
#define DETAIL_OTHER    (1u << 1)

struct mapped_address {
    struct header header;
    uint32_t start, end; /* KiB, the last one included; or ADDRESS_EXTENDED */
    uint16_t array;
    uint8_t width;
    uint64_t extended_start, extended_end; /* bytes, the same */
} __attribute__((packed));
#define ADDRESS_EXTENDED 0xFFFFFFFFu

struct boot {
    struct header header;
    uint8_t reserved[6], status; /* 0: no errors */
} __attribute__((packed));

struct pointer {
    char anchor[4];
    uint8_t checksum, length, major, minor;
    uint16_t largest;
    uint8_t revision, formatted[5];
    char second_anchor[5];
    uint8_t second_checksum; /* of what begins at second_anchor */
    uint16_t table_length;
    uint32_t table;
    uint16_t structures;
    uint8_t bcd_version;
} __attribute__((packed));
_Static_assert(sizeof(struct pointer) == 31, "length of the 32-bit entry point");

struct pointer3 {
    char anchor[5];
    uint8_t checksum, length, major, minor, document, revision, reserved;
    uint32_t table_maximum;
    uint64_t table;
} __attribute__((packed));
_Static_assert(sizeof(struct pointer3) == 24, "length of the 64-bit entry point");

/* The structures under construction. */
struct structures {
    uint8_t bytes[SMBIOS_TABLE_END - SMBIOS_TABLE_ADDRESS];
    uint16_t size, count, largest;
};

/* Appends a structure of type TYPE, whose fields after the header are filled in, and its strings,
 * each ended by a zero; STRINGS as a whole is ended by one more. None needs two. */
static void add(struct structures *s, uint8_t type, unsigned n, void *structure, uint8_t length,
                const char *strings, size_t strings_size)
{
    const struct header header = {type, length, HANDLE(type, n)};
    uint16_t size = (uint16_t)(length + MAX(strings_size, 2));

    memcpy(structure, &header, sizeof(header));
    memcpy(s->bytes + s->size, structure, length);
    memcpy(s->bytes + s->size + length, strings, strings_size);
    s->size += size;
    s->count++;
    s->largest = MAX(s->largest, size);
}
#define ADD(s, type, n, structure, strings)                                                        \
    add(s, type, n, &(structure), sizeof(structure), strings, sizeof(strings))

static void add_machine(struct structures *s)
{
    struct bios bios = {.vendor = 1,
                        .version = 2,
                        .segment = 0xF000,
                        .date = 3,
                        .characteristics = BIOS_NO_CHARACTERISTICS,
                        .extension = {BIOS_ACPI, BIOS_VIRTUAL_MACHINE},
                        .major = NOT_UPGRADABLE,
                        .minor = NOT_UPGRADABLE,
                        .controller_major = NOT_UPGRADABLE,
                        .controller_minor = NOT_UPGRADABLE};
    struct system system = {
        .maker = 1, .product = 2, .version = 3, .wake_up = WAKE_UP_POWER_SWITCH};
    struct chassis chassis = {.maker = 1,
                              .type = OTHER,
                              .boot_state = SAFE,
                              .power_state = SAFE,
                              .thermal_state = SAFE,
                              .security = NONE};

    ADD(s, TYPE_BIOS, 0, bios, MAKER "\0" VERSION "\0" RELEASE_DATE "\0");
    ADD(s, TYPE_SYSTEM, 0, system, MAKER "\0" PRODUCT "\0" VERSION "\0");
    ADD(s, TYPE_CHASSIS, 0, chassis, MAKER "\0");
}

/* All vCPUs are cores of one package. */
static void add_processor(struct structures *s, const struct x86_model *model)
{
    static const struct x86_cpu after_reset;
    uint16_t mhz = (uint16_t)MIN((model->tsc_hz + 500000) / 1000000, UINT16_MAX);
    uint8_t cores = (uint8_t)MIN(model->cpus, UINT8_MAX); /* 255: see the wider fields */
    struct processor p = {
        .socket = 1,
        .type = PROCESSOR_CENTRAL,
        .family = OTHER,
        .maker = 2,
        .signature = X86_CPU_SIGNATURE,
        .features = x86_cpuid(model, &after_reset, 0, 1, 0).edx,
        .version = 3,
        .max_mhz = mhz,
        .mhz = mhz,
        .status = PROCESSOR_ENABLED,
        .upgrade = UNKNOWN,
        .l1 = NO_HANDLE,
        .l2 = NO_HANDLE,
        .l3 = NO_HANDLE,
        .cores = cores,
        .enabled_cores = cores,
        .threads = cores,
        .characteristics =
            PROCESSOR_64_BIT | PROCESSOR_NO_EXECUTE | (model->cpus > 1 ? PROCESSOR_MULTI_CORE : 0),
        .family2 = OTHER,
        .cores2 = (uint16_t)model->cpus,
        .enabled_cores2 = (uint16_t)model->cpus,
        .threads2 = (uint16_t)model->cpus,
    };

    ADD(s, TYPE_PROCESSOR, 0, p, "CPU\0" MAKER "\0doppel virtual processor\0");
}

static void add_range(struct structures *s, unsigned n, uint64_t start, uint64_t end)
{
    struct mapped_address a = {.array = HANDLE(TYPE_MEMORY_ARRAY, 0), .width = 1};

    if (end / KiB <= ADDRESS_EXTENDED) {
        a.start = (uint32_t)(start / KiB);
        a.end = (uint32_t)(end / KiB - 1);
    } else {
        a.start = a.end = ADDRESS_EXTENDED;
        a.extended_start = start;
        a.extended_end = end - 1;
    }
    ADD(s, TYPE_MAPPED_ADDRESS, n, a, "");
}

/* One device of all the RAM, which stands at one or two ranges of addresses. */
static void add_memory(struct structures *s, const struct mem *mem)
{
    uint64_t size = mem_ram_size(mem);
    bool extended = size / KiB >= CAPACITY_EXTENDED;
    struct memory_array array = {
        .location = OTHER,
        .use = USE_SYSTEM_MEMORY,
        .correction = NONE,
        .capacity = extended ? CAPACITY_EXTENDED : (uint32_t)(size / KiB),
        .error = NO_ERROR_INFO,
        .devices = 1,
        .extended_capacity = extended ? size : 0,
    };
    struct memory_device device = {
        .array = HANDLE(TYPE_MEMORY_ARRAY, 0),
        .error = NO_ERROR_INFO,
        .total_width = WIDTH_UNKNOWN,
        .data_width = WIDTH_UNKNOWN,
        .form = OTHER,
        .locator = 1,
        .type = MEMORY_TYPE_RAM,
        .detail = DETAIL_OTHER,
    };

    if (size / KiB < SIZE_IN_KIB - 1) {
        device.size = (uint16_t)(SIZE_IN_KIB | size / KiB);
    } else if (size / MiB < SIZE_EXTENDED) {
        device.size = (uint16_t)(size / MiB);
    } else {
        device.size = SIZE_EXTENDED;
        device.extended_size = (uint32_t)(size / MiB);
    }
    ADD(s, TYPE_MEMORY_ARRAY, 0, array, "");
    ADD(s, TYPE_MEMORY_DEVICE, 0, device, "RAM\0");
    add_range(s, 0, 0, mem_low_end(mem));
    if (mem_high_end(mem) > MEM_HOLE_END)
        add_range(s, 1, MEM_HOLE_END, mem_high_end(mem));
}

static struct pointer make_pointer(const struct structures *s)
{
    struct pointer p = {.anchor = "_SM_",
                        .length = sizeof(p),
                        .major = 2,
                        .minor = 8,
                        .largest = s->largest,
                        .second_anchor = "_DMI_",
                        .table_length = s->size,
                        .table = SMBIOS_TABLE_ADDRESS,
                        .structures = s->count,
                        .bcd_version = 0x28};
    size_t second = offsetof(struct pointer, second_anchor);

    p.second_checksum = table_checksum((const uint8_t *)&p + second, sizeof(p) - second);
    p.checksum = table_checksum(&p, sizeof(p));
    return p;
}

static struct pointer3 make_pointer3(const struct structures *s)
{
    struct pointer3 p = {.anchor = "_SM3_",
                         .length = sizeof(p),
                         .major = 3,
                         .revision = 1,
                         .table_maximum = s->size,
                         .table = SMBIOS_TABLE_ADDRESS};

    p.checksum = table_checksum(&p, sizeof(p));
    return p;
}

int smbios_write(struct mem *mem, const struct x86_model *model, struct error *err)
{
    struct structures s = {0};
    struct boot boot = {0};
    struct header end = {0};
    struct pointer pointer;
    struct pointer3 pointer3;

    add_machine(&s);
    add_processor(&s, model);
    add_memory(&s, mem);
    ADD(&s, TYPE_BOOT, 0, boot, "");
    ADD(&s, TYPE_END, 0, end, "");
    pointer = make_pointer(&s);
    pointer3 = make_pointer3(&s);
    if (mem_write(mem, SMBIOS_TABLE_ADDRESS, s.bytes, s.size) < 0 ||
        mem_write(mem, SMBIOS_POINTER_ADDRESS, &pointer, sizeof(pointer)) < 0 ||
        mem_write(mem, SMBIOS3_POINTER_ADDRESS, &pointer3, sizeof(pointer3)) < 0)
        return error_set(err, EFAULT, "there is no memory where the SMBIOS tables belong");
    return 0;
}
