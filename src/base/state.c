/*
 * The save/restore visitor over a stream of checked sections (docs/state.md).
 */
#include "base/state.h"

#include "base/util.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define MAGIC_SIZE 8
#define MAKER_SIZE 40
#define NAME_SIZE  24

/* The last section: how many sections there are before it. */
#define END_NAME    "end"
#define END_VERSION 1

static const char magic[MAGIC_SIZE] = {'d', 'o', 'p', 'p', 'e', 'l', 'S', 'T'};

/* On the wire all numbers are little-endian, as they are in memory here. */
struct file_header {
    char magic[MAGIC_SIZE];
    uint32_t format;
    uint32_t reserved; /* 0 */
    char maker[MAKER_SIZE];
    uint64_t checksum; /* of all before it */
};

struct section_header {
    char name[NAME_SIZE]; /* padded with zeroes */
    uint32_t instance, version;
    uint64_t length;   /* of the fields that follow */
    uint64_t checksum; /* of the fields, with the checksum of all before it as the seed */
};

_Static_assert(sizeof(struct file_header) == 64, "no padding");
_Static_assert(sizeof(struct section_header) == 48, "no padding");

struct state {
    bool saving;
    struct state_writer writer;
    struct state_reader reader;
    struct error error; /* the first failure; code 0: none */
    char maker[MAKER_SIZE];

    /* The present section. */
    bool open;
    struct section_header section;
    uint8_t *data;
    size_t size, capacity;
    size_t at;         /* loading: bytes that have been visited */
    uint64_t sections; /* before it */
};

/* ---- Failures ---- */

static int fail(struct state *s, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(struct state *s, int code, const char *fmt, ...)
{
    va_list ap;

    if (!s->error.code) {
        va_start(ap, fmt);
        s->error.code = code;
        vsnprintf(s->error.text, sizeof(s->error.text), fmt, ap);
        va_end(ap);
    }
    return -s->error.code;
}

int state_fail(struct state *s, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return fail(s, EINVAL, "section %s %x: %s", s->section.name, s->section.instance, text);
}

int state_error(const struct state *s)
{
    return -s->error.code;
}

const struct error *state_failure(const struct state *s)
{
    return s->error.code ? &s->error : NULL;
}

/* The name of the field in a C expression: "ier" in "u->ier", "lint[0]" in "&apic->lint[0]". */
static const char *field_name(const char *expression)
{
    const char *name = expression;

    for (const char *c = expression; *c; c++)
        if (*c == '&' || *c == '>' || *c == '.')
            name = c + 1;
    return name;
}

static int fail_field(struct state *s, const char *expression, const char *what)
{
    return fail(s, EINVAL, "section %s %x, field %s: %s", s->section.name, s->section.instance,
                field_name(expression), what);
}

/* Makes TEXT, which came out of a file, fit to be shown: terminated and printable. */
static void make_printable(char *text, size_t size)
{
    text[size - 1] = 0;
    for (char *c = text; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

/* ---- The stream ---- */

static uint64_t header_checksum(const struct file_header *header)
{
    return XXH3_64bits(header, offsetof(struct file_header, checksum));
}

static uint64_t section_checksum(const struct section_header *section, const void *data)
{
    uint64_t seed = XXH3_64bits(section, offsetof(struct section_header, checksum));

    return XXH3_64bits_withSeed(data, section->length, seed);
}

static void put(struct state *s, const void *data, size_t size)
{
    struct error err = {0};
    int ret;

    if (s->error.code)
        return;
    ret = s->writer.write(s->writer.opaque, data, size, &err);
    if (ret < 0)
        fail(s, -ret, "the state cannot be saved: %s", err.code ? err.text : strerror(-ret));
}

/* Reads SIZE bytes. Returns how many there were before the end; 0 after a failure. */
static size_t take(struct state *s, void *data, size_t size)
{
    struct error err = {0};
    ssize_t got;

    if (s->error.code)
        return 0;
    got = s->reader.read(s->reader.opaque, data, size, &err);
    if (got < 0)
        fail(s, (int)-got, "the saved state cannot be read: %s",
             err.code ? err.text : strerror((int)-got));
    return got < 0 ? 0 : MIN((size_t)got, size);
}

/* Makes room for CAPACITY bytes of the present section. */
static bool reserve(struct state *s, size_t capacity)
{
    uint8_t *grown;

    if (capacity <= s->capacity)
        return true;
    grown = realloc(s->data, capacity);
    if (!grown) {
        fail(s, ENOMEM, "out of memory for a section of %zu bytes", capacity);
        return false;
    }
    s->data = grown;
    s->capacity = capacity;
    return true;
}

/* ---- Beginning and end ---- */

static void write_header(struct state *s, const char *maker)
{
    struct file_header header = {.format = STATE_FORMAT};

    memcpy(header.magic, magic, MAGIC_SIZE);
    snprintf(header.maker, MAKER_SIZE, "%s", maker);
    memcpy(s->maker, header.maker, MAKER_SIZE);
    header.checksum = header_checksum(&header);
    put(s, &header, sizeof(header));
}

static void read_header(struct state *s)
{
    struct file_header header = {0};
    size_t got = take(s, &header, sizeof(header));
    bool good;

    if (s->error.code)
        return;
    if (got < MAGIC_SIZE || memcmp(header.magic, magic, MAGIC_SIZE) != 0) {
        fail(s, EINVAL, "this is not a saved machine");
        return;
    }
    if (got < sizeof(header)) {
        fail(s, EINVAL, "the saved state ends within its header: it is cut off");
        return;
    }
    good = header.checksum == header_checksum(&header);
    memcpy(s->maker, header.maker, MAKER_SIZE);
    make_printable(s->maker, MAKER_SIZE);
    if (!good)
        fail(s, EINVAL, "the header of the saved state is damaged: wrong checksum");
    else if (header.format != STATE_FORMAT)
        fail(s, EINVAL,
             "the saved state has format %u, made by %s; this version of doppel knows format %d",
             header.format, s->maker, STATE_FORMAT);
}

static struct state *create(struct error *err)
{
    struct state *s = calloc(1, sizeof(*s));

    if (!s)
        error_set(err, ENOMEM, "out of memory for saving or loading a state");
    return s;
}

/* Frees S and passes its failure on, if there is one. */
static struct state *check(struct state *s, struct error *err)
{
    if (!s->error.code)
        return s;
    if (err)
        *err = s->error;
    state_free(s);
    return NULL;
}

struct state *state_create_save(const struct state_writer *writer, const char *maker,
                                struct error *err)
{
    struct state *s = create(err);

    if (!s)
        return NULL;
    s->saving = true;
    s->writer = *writer;
    write_header(s, maker);
    return check(s, err);
}

struct state *state_create_load(const struct state_reader *reader, struct error *err)
{
    struct state *s = create(err);

    if (!s)
        return NULL;
    s->reader = *reader;
    read_header(s);
    return check(s, err);
}

void state_free(struct state *s)
{
    if (s)
        free(s->data);
    free(s);
}

bool state_saving(const struct state *s)
{
    return s->saving;
}

const char *state_maker(const struct state *s)
{
    return s->maker;
}

/* ---- Sections ---- */

/* Ends the present section, if there is one: writes it, or finds that all of it has been read. */
static void close_section(struct state *s)
{
    if (!s->open)
        return;
    s->open = false;
    s->sections++;
    if (s->saving) {
        s->section.length = s->size;
        s->section.checksum = section_checksum(&s->section, s->data);
        put(s, &s->section, sizeof(s->section));
        put(s, s->data, s->size);
    } else if (s->at != s->size) {
        state_fail(s, "%zu bytes are left over", s->size - s->at);
    }
}

/* Reads a section's header. False: there is none, or it cannot be one. */
static bool read_section_header(struct state *s, const struct section_header *wanted)
{
    struct section_header *found = &s->section;
    struct section_header read = {0};
    size_t got = take(s, &read, sizeof(read));

    *found = *wanted;
    if (s->error.code)
        return false;
    if (got < sizeof(read)) {
        state_fail(s, "missing: the saved state is cut off");
        return false;
    }
    if (memcmp(read.name, wanted->name, NAME_SIZE) != 0 || read.instance != wanted->instance) {
        make_printable(read.name, NAME_SIZE);
        state_fail(s, "missing, and section %s %x is in its place: the saved machine is another",
                   read.name, read.instance);
        return false;
    }
    if (read.length > STATE_SECTION_MAX) {
        state_fail(s, "its length of %llu bytes cannot be", (unsigned long long)read.length);
        return false;
    }
    *found = read;
    return true;
}

/* Reads a section whole. */
static void read_section(struct state *s, const struct section_header *wanted)
{
    if (!read_section_header(s, wanted))
        return;
    s->size = s->at = 0;
    if (!reserve(s, MAX(s->section.length, 1)))
        return;
    s->size = take(s, s->data, s->section.length);
    if (s->error.code)
        return;
    if (s->size < s->section.length)
        state_fail(s, "the saved state is cut off within it");
    else if (s->section.checksum != section_checksum(&s->section, s->data))
        state_fail(s, "damaged: wrong checksum");
    else if (s->section.version == 0 || s->section.version > wanted->version)
        state_fail(s, "it has version %u, made by %s; this version of doppel knows version %u",
                   s->section.version, s->maker, wanted->version);
}

uint32_t state_section(struct state *s, const char *name, uint32_t instance, uint32_t version)
{
    struct section_header wanted = {.instance = instance, .version = version};

    close_section(s);
    if (s->error.code)
        return 0;
    memcpy(wanted.name, name, MIN(strlen(name), NAME_SIZE - 1));
    if (s->saving) {
        s->section = wanted;
        s->size = 0;
    } else {
        read_section(s, &wanted);
    }
    s->open = !s->error.code;
    return s->open ? s->section.version : 0;
}

int state_finish(struct state *s)
{
    uint64_t sections, expected;

    close_section(s);
    sections = expected = s->sections;
    state_section(s, END_NAME, 0, END_VERSION);
    state_field(s, sections);
    if (sections != expected)
        state_fail(s, "there were %llu sections, and should be %llu", (unsigned long long)expected,
                   (unsigned long long)sections);
    close_section(s);
    return state_error(s);
}

/* ---- Fields ---- */

/* A field is its size, 32 bits, and its bytes. */
static void put_field(struct state *s, const char *name, const void *data, uint32_t size)
{
    size_t needed = s->size + sizeof(size) + size;

    if (needed > STATE_SECTION_MAX) {
        fail_field(s, name, "the section becomes too long");
        return;
    }
    if (!reserve(s, needed <= s->capacity ? needed : MAX(needed, s->capacity * 2)))
        return;
    memcpy(s->data + s->size, &size, sizeof(size));
    memcpy(s->data + s->size + sizeof(size), data, size);
    s->size = needed;
}

static void take_field(struct state *s, const char *name, void *data, uint32_t size)
{
    uint32_t found;

    if (s->size - s->at < sizeof(found)) {
        fail_field(s, name, "missing");
        return;
    }
    memcpy(&found, s->data + s->at, sizeof(found));
    if (found != size) {
        fail_field(s, name, "it has another size");
        return;
    }
    s->at += sizeof(found);
    if (s->size - s->at < size) {
        fail_field(s, name, "cut off");
        return;
    }
    memcpy(data, s->data + s->at, size);
    s->at += size;
}

void state_value(struct state *s, const char *name, void *data, size_t size)
{
    if (s->error.code)
        return;
    if (!s->open || size > STATE_SECTION_MAX)
        fail_field(s, name, s->open ? "too long" : "outside of a section");
    else if (s->saving)
        put_field(s, name, data, (uint32_t)size);
    else
        take_field(s, name, data, (uint32_t)size);
}

void state_flag(struct state *s, const char *name, bool *value)
{
    uint8_t byte = s->saving && *value;

    state_value(s, name, &byte, 1);
    if (!s->saving && !s->error.code)
        *value = byte != 0;
}
