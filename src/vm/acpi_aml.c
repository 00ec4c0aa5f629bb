/*
 * AML encoding (ACPI specification 6.4, chapter 20) and resource descriptors (6.4).
 *
 * A body's length stands before it in a field whose own size depends on the length. So a body is
 * written first, and aml_end makes room for the length where the body starts.
 */
#include "vm/acpi_aml.h"

#include "base/util.h"

#include <string.h>

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    PREFIX_BYTE = 0x0A,
    PREFIX_WORD = 0x0B,
    PREFIX_DWORD = 0x0C,
    PREFIX_STRING = 0x0D,
    PREFIX_QWORD = 0x0E,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    PREFIX_DUAL_NAME = 0x2E,
    OP_EXTENDED = 0x5B,
    OP_ARGUMENT_0 = 0x68,
    OP_STORE = 0x70,
    OP_IF = 0xA0,
    OP_RETURN = 0xA4,
    OP_EXT_DEVICE = 0x82,
};

/* Resource descriptor tags: small ones hold their length in the low three bits. */
enum {
    TAG_IRQ = 0x22,
    TAG_IO = 0x47,
    TAG_END = 0x79,
    TAG_DWORD_SPACE = 0x87,
    TAG_WORD_SPACE = 0x88,
    TAG_QWORD_SPACE = 0x8A,
};

/* Address space descriptors (6.4.3.5). */
enum { SPACE_MEMORY = 0, SPACE_IO = 1, SPACE_BUS = 2 };
#define SPACE_FIXED      0x0C /* both ends are fixed; positive decode */
#define MEMORY_WRITABLE  0x01
#define MEMORY_CACHEABLE 0x02
#define IO_ENTIRE_RANGE  0x03

static void put(struct aml *a, const void *bytes, size_t count)
{
    if (a->overflow || count > a->capacity - a->size) {
        a->overflow = true;
        return;
    }
    memcpy(a->data + a->size, bytes, count);
    a->size += count;
}

static void put8(struct aml *a, uint8_t value)
{
    put(a, &value, 1);
}

static void put16(struct aml *a, uint16_t value)
{
    put(a, &value, 2);
}

static void put32(struct aml *a, uint32_t value)
{
    put(a, &value, 4);
}

static void put64(struct aml *a, uint64_t value)
{
    put(a, &value, 8);
}

static void insert(struct aml *a, size_t at, const uint8_t *bytes, size_t count)
{
    size_t tail = a->size - at;

    put(a, bytes, count); /* for the room */
    if (a->overflow)
        return;
    memmove(a->data + at + count, a->data + at, tail);
    memcpy(a->data + at, bytes, count);
}

/* ---- Names (20.2.2) ---- */

static void put_path(struct aml *a, const char *path)
{
    size_t length;

    if (*path == '\\')
        put8(a, (uint8_t)*path++);
    length = strlen(path);
    if (length == 9) { /* two segments and a dot */
        put8(a, PREFIX_DUAL_NAME);
        put(a, path, 4);
        path += 5;
    }
    put(a, path, 4);
}

/* ---- Bodies and their length (20.2.4) ---- */

static void open_body(struct aml *a, bool resources)
{
    if (a->depth == AML_DEPTH) {
        a->overflow = true;
        return;
    }
    a->body[a->depth++] = (struct aml_body){.start = a->size, .resources = resources};
}

/* Inserts at AT the length of what follows; the length counts its own field. */
static void insert_length(struct aml *a, size_t at)
{
    size_t length = a->size - at;
    uint8_t field[3];

    if (length + 1 < 1u << 6) {
        field[0] = (uint8_t)(length + 1);
        insert(a, at, field, 1);
    } else if (length + 2 < 1u << 12) {
        length += 2;
        field[0] = (uint8_t)(1u << 6 | (length & 15));
        field[1] = (uint8_t)(length >> 4);
        insert(a, at, field, 2);
    } else {
        length += 3;
        field[0] = (uint8_t)(2u << 6 | (length & 15));
        field[1] = (uint8_t)(length >> 4);
        field[2] = (uint8_t)(length >> 12);
        insert(a, at, field, 3);
    }
}

void aml_end(struct aml *a)
{
    struct aml_body body;

    if (a->overflow || a->depth == 0)
        return;
    body = a->body[--a->depth];
    if (body.resources) {
        static const uint8_t end_tag[2] = {TAG_END, 0}; /* 0: no checksum */
        uint8_t count[3] = {PREFIX_WORD};
        size_t bytes;

        put(a, end_tag, sizeof(end_tag));
        bytes = a->size - body.start;
        count[1] = (uint8_t)bytes;
        count[2] = (uint8_t)(bytes >> 8);
        insert(a, body.start, count, sizeof(count));
    }
    insert_length(a, body.start);
}

void aml_scope(struct aml *a, const char *path)
{
    put8(a, OP_SCOPE);
    open_body(a, false);
    put_path(a, path);
}

void aml_device(struct aml *a, const char *name)
{
    put8(a, OP_EXTENDED);
    put8(a, OP_EXT_DEVICE);
    open_body(a, false);
    put_path(a, name);
}

void aml_package(struct aml *a, uint8_t elements)
{
    put8(a, OP_PACKAGE);
    open_body(a, false);
    put8(a, elements);
}

void aml_method(struct aml *a, const char *name, uint8_t arguments)
{
    put8(a, OP_METHOD);
    open_body(a, false);
    put_path(a, name);
    put8(a, arguments); /* the flags: not serialized */
}

void aml_if(struct aml *a, const char *name)
{
    put8(a, OP_IF);
    open_body(a, false);
    put_path(a, name);
}

void aml_store_argument(struct aml *a, unsigned n, const char *name)
{
    put8(a, OP_STORE);
    put8(a, (uint8_t)(OP_ARGUMENT_0 + n));
    put_path(a, name);
}

void aml_return(struct aml *a, const char *name)
{
    put8(a, OP_RETURN);
    put_path(a, name);
}

void aml_name(struct aml *a, const char *name)
{
    put8(a, OP_NAME);
    put_path(a, name);
}

/* ---- Values (20.2.3) ---- */

void aml_integer(struct aml *a, uint64_t value)
{
    if (value <= 1) {
        put8(a, value ? OP_ONE : OP_ZERO);
    } else if (value <= UINT8_MAX) {
        put8(a, PREFIX_BYTE);
        put8(a, (uint8_t)value);
    } else if (value <= UINT16_MAX) {
        put8(a, PREFIX_WORD);
        put16(a, (uint16_t)value);
    } else if (value <= UINT32_MAX) {
        put8(a, PREFIX_DWORD);
        put32(a, (uint32_t)value);
    } else {
        put8(a, PREFIX_QWORD);
        put64(a, value);
    }
}

void aml_string(struct aml *a, const char *text)
{
    put8(a, PREFIX_STRING);
    put(a, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A') + 10;
}

/* Three letters of five bits each and four hexadecimal digits, most significant byte first. */
void aml_eisa_id(struct aml *a, const char *id)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < 3; i++)
        value = value << 5 | (uint32_t)(id[i] - '@');
    for (unsigned i = 3; i < 7; i++)
        value = value << 4 | hex_digit(id[i]);
    put8(a, PREFIX_DWORD);
    put32(a, __builtin_bswap32(value));
}

void aml_name_integer(struct aml *a, const char *name, uint64_t value)
{
    aml_name(a, name);
    aml_integer(a, value);
}

void aml_name_eisa_id(struct aml *a, const char *name, const char *id)
{
    aml_name(a, name);
    aml_eisa_id(a, id);
}

/* ---- Resource descriptors (6.4.2, 6.4.3) ---- */

void aml_resources(struct aml *a)
{
    aml_name(a, "_CRS");
    put8(a, OP_BUFFER);
    open_body(a, true);
}

void aml_io(struct aml *a, uint16_t base, uint8_t length)
{
    put8(a, TAG_IO);
    put8(a, 1); /* all 16 address bits are decoded */
    put16(a, base);
    put16(a, base);
    put8(a, 1); /* alignment */
    put8(a, length);
}

void aml_irq(struct aml *a, unsigned irq)
{
    put8(a, TAG_IRQ);
    put16(a, (uint16_t)(1u << irq));
}

/* An address space descriptor for [FIRST, LAST], whose numbers have SIZE bytes each (ACPI 6.5,
 * 6.4.3.5.1 to 6.4.3.5.3). */
static void space(struct aml *a, uint8_t tag, unsigned size, uint8_t type, uint8_t flags,
                  uint64_t first, uint64_t last)
{
    const uint64_t numbers[] = {0 /* granularity */, first, last, 0 /* translation offset */,
                                last - first + 1};

    put8(a, tag);
    put16(a, (uint16_t)(3 + ARRAY_SIZE(numbers) * size)); /* length of what follows */
    put8(a, type);
    put8(a, SPACE_FIXED);
    put8(a, flags);
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
        put(a, &numbers[i], size); /* the first bytes of a number are its low ones */
}

void aml_bus_range(struct aml *a, uint16_t first, uint16_t last)
{
    space(a, TAG_WORD_SPACE, 2, SPACE_BUS, 0, first, last);
}

void aml_io_range(struct aml *a, uint16_t first, uint16_t last)
{
    space(a, TAG_WORD_SPACE, 2, SPACE_IO, IO_ENTIRE_RANGE, first, last);
}

void aml_memory_range(struct aml *a, uint32_t first, uint32_t last, bool cacheable)
{
    space(a, TAG_DWORD_SPACE, 4, SPACE_MEMORY, MEMORY_WRITABLE | (cacheable ? MEMORY_CACHEABLE : 0),
          first, last);
}

void aml_high_memory_range(struct aml *a, uint64_t first, uint64_t last)
{
    space(a, TAG_QWORD_SPACE, 8, SPACE_MEMORY, MEMORY_WRITABLE, first, last);
}
