/*
 * Reads definitions: YAML 1.1 by libyaml's parser of events, so that nothing is built that is not
 * wanted.
 */
#include "blk/options.h"
#include "ctl/definition_fields.h"
#include "ctl/doppel.h"
#include "ctl/replace.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct reader {
    yaml_parser_t yaml;
    yaml_event_t event; /* the present one; empty before the first */
    const char *file;
    struct error *err;
};

/* Reports what is wrong at the present event. */
__attribute__((format(printf, 2, 3))) static int fail(const struct reader *r, const char *format,
                                                      ...)
{
    char text[240];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    return error_set(r->err, EINVAL, "%s:%zu: %s", r->file, r->event.start_mark.line + 1, text);
}

/* Reports what libyaml has not understood. */
static int fail_syntax(const struct reader *r)
{
    const yaml_parser_t *yaml = &r->yaml;

    if (yaml->error == YAML_MEMORY_ERROR)
        return error_set(r->err, ENOMEM, "out of memory");
    if (yaml->error == YAML_READER_ERROR)
        return error_set(r->err, EINVAL, "%s: byte %zu is no text (%s)", r->file,
                         yaml->problem_offset, yaml->problem);
    return error_set(r->err, EINVAL, "%s:%zu: %s", r->file, yaml->problem_mark.line + 1,
                     yaml->problem ? yaml->problem : "no YAML");
}

/* Goes on to the next event. */
static int next(struct reader *r)
{
    const yaml_event_t *e = &r->event;
    const void *odd = NULL;

    yaml_event_delete(&r->event);
    if (!yaml_parser_parse(&r->yaml, &r->event))
        return fail_syntax(r);
    if (e->type == YAML_ALIAS_EVENT)
        return fail(r, "aliases are not understood here");
    if (e->type == YAML_SCALAR_EVENT)
        odd = e->data.scalar.anchor ? e->data.scalar.anchor : e->data.scalar.tag;
    if (e->type == YAML_SEQUENCE_START_EVENT)
        odd = e->data.sequence_start.anchor ? e->data.sequence_start.anchor
                                            : e->data.sequence_start.tag;
    if (e->type == YAML_MAPPING_START_EVENT)
        odd =
            e->data.mapping_start.anchor ? e->data.mapping_start.anchor : e->data.mapping_start.tag;
    return odd ? fail(r, "anchors and tags are not understood here") : 0;
}

/* The next event must be of TYPE; else, WHAT was expected. */
static int expect(struct reader *r, yaml_event_type_t type, const char *what)
{
    int ret = next(r);

    if (!ret && r->event.type != type)
        ret = fail(r, "%s is expected here", what);
    return ret;
}

/* Whether TEXT, UTF-8, has control characters: those of ASCII, or U+0080 to U+009F. */
static bool has_controls(const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++)
        if (*at < 0x20 || *at == 0x7f || (at[0] == 0xc2 && at[1] < 0xa0))
            return true;
    return false;
}

/* Whether TEXT can be the name of a guest's user: it is a word of ssh's configuration, in which
 * blanks, quotes and '%' mean something. */
static bool is_user(const char *text)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@+-";
    size_t length = strspn(text, letters);

    return length > 0 && length <= DEFINITION_USER_MOST && !text[length] && text[0] != '-';
}

/* Whether the present event is nothing, as behind "disks:". */
static bool is_nothing(const struct reader *r)
{
    return r->event.type == YAML_SCALAR_EVENT && r->event.data.scalar.length == 0 &&
           r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* Sets *TEXT to the text of the present event, which lives as long as that. */
static int take_text(const struct reader *r, const char **text)
{
    size_t length;

    if (r->event.type != YAML_SCALAR_EVENT)
        return fail(r, "a text is expected here");
    *text = (const char *)r->event.data.scalar.value;
    length = r->event.data.scalar.length;
    if (length > DEFINITION_TEXT_MOST)
        return fail(r, "a text of more than %d bytes", DEFINITION_TEXT_MOST);
    if (strlen(*text) != length || has_controls(*text))
        return fail(r, "a text with control characters");
    return 0;
}

/* ---- Values ---- */

static int set_memory(const struct reader *r, const char *text, uint64_t *memory)
{
    uint64_t bytes;

    if (!text[strspn(text, "0123456789")] || !blk_parse_number(text, &bytes))
        return fail(r, "memory: '%.60s' is not a size (a number and a unit, as in 512M)", text);
    if (bytes < 1 << 20 || bytes > DOPPEL_MAX_MEMORY || bytes % 4096)
        return fail(r, "memory: '%.60s' is no multiple of 4K from 1M to %lluG", text,
                    DOPPEL_MAX_MEMORY >> 30);
    *memory = bytes;
    return 0;
}

static int set_number(const struct reader *r, const char *key, const char *text, unsigned most,
                      unsigned *number)
{
    size_t digits = strspn(text, "0123456789");
    unsigned long value = strtoul(text, NULL, 10);

    if (!digits || text[digits] || digits > 6 || value < 1 || value > most)
        return fail(r, "%s: '%.60s' is not a number from 1 to %u", key, text, most);
    *number = (unsigned)value;
    return 0;
}

/* Reads the value of FIELD, which is one text, into MEMBER. */
static int read_scalar(const struct reader *r, const struct definition_field *field, void *member)
{
    const char *text = NULL;
    uint8_t mac[6];
    int ret = take_text(r, &text);

    if (ret)
        return ret;
    switch (field->kind) {
    case DEFINITION_MEMORY: return set_memory(r, text, member);
    case DEFINITION_CPUS: return set_number(r, field->key, text, DOPPEL_MAX_CPUS, member);
    case DEFINITION_PORT: return set_number(r, field->key, text, UINT16_MAX, member);
    case DEFINITION_MAC:
        if (!definition_parse_mac(text, mac))
            return fail(r, "mac: '%.60s' is no address of a network card", text);
        break;
    case DEFINITION_NAME:
        if (!home_valid_name(text))
            return fail(r, "%s: '%.60s' is not a name", field->key, text);
        break;
    case DEFINITION_RESTART:
        if (strcmp(text, "no") != 0 && strcmp(text, "on-failure") != 0 &&
            strcmp(text, "always") != 0)
            return fail(r, "restart: '%.60s' is not one of no, on-failure and always", text);
        break;
    case DEFINITION_USER:
        if (!is_user(text))
            return fail(r, "%s: '%.60s' is not a user's name", field->key, text);
        break;
    default: break;
    }
    return definition_set(member, text, r->err);
}

static int read_words(struct reader *r, const struct definition_field *field,
                      struct definition_words *words)
{
    const char *text = NULL;
    int ret;

    if (r->event.type != YAML_SEQUENCE_START_EVENT)
        return fail(r, "%s: a list is expected here", field->key);
    for (;;) {
        ret = next(r);
        if (ret || r->event.type == YAML_SEQUENCE_END_EVENT)
            return ret;
        ret = take_text(r, &text);
        if (!ret && !*text)
            ret = fail(r, "%s: an empty word", field->key);
        if (!ret && words->count == DEFINITION_WORDS_MOST)
            ret = fail(r, "%s: more than %d", field->key, DEFINITION_WORDS_MOST);
        if (!ret)
            ret = definition_add(words, text, r->err);
        if (ret)
            return ret;
    }
}

/* ---- Keys ---- */

/* Finds the field that the present event is the key of. *SEEN has a bit for each that there was. */
static int find_field(const struct reader *r, const struct definition_field *fields, unsigned *seen,
                      const struct definition_field **field)
{
    const char *key = NULL;
    unsigned i = 0;
    int ret = take_text(r, &key);

    if (ret)
        return ret;
    while (fields[i].key && strcmp(fields[i].key, key) != 0)
        i++;
    if (!fields[i].key)
        return fail(r, "there is no key '%.60s'", key);
    if (*seen & 1U << i)
        return fail(r, "%s is given twice", key);
    *seen |= 1U << i;
    *field = &fields[i];
    return 0;
}

/* Reads the keys of a group, of which there are no deeper ones, up to its end. */
static int read_group(struct reader *r, const struct definition_field *group, struct definition *d)
{
    const struct definition_field *field = NULL;
    unsigned seen = 0;
    int ret;

    if (r->event.type != YAML_MAPPING_START_EVENT)
        return fail(r, "%s: keys are expected here", group->key);
    for (;;) {
        ret = next(r);
        if (ret || r->event.type == YAML_MAPPING_END_EVENT)
            return ret;
        ret = find_field(r, group->group, &seen, &field);
        if (!ret)
            ret = next(r);
        if (!ret && !is_nothing(r))
            ret = read_scalar(r, field, (char *)d + field->offset);
        if (ret)
            return ret;
    }
}

static int read_value(struct reader *r, const struct definition_field *field, struct definition *d)
{
    void *member = (char *)d + field->offset;
    int ret = next(r);

    if (ret || is_nothing(r))
        return ret;
    if (field->kind == DEFINITION_GROUP)
        return read_group(r, field, d);
    return field->kind == DEFINITION_WORDS ? read_words(r, field, member)
                                           : read_scalar(r, field, member);
}

/* The version is the first key, so that a definition of a later one is not judged by its others. */
static int read_version(struct reader *r)
{
    const char *text = NULL;
    unsigned version = 0;
    int ret = next(r);

    if (!ret && r->event.type != YAML_MAPPING_END_EVENT)
        ret = take_text(r, &text);
    if (!ret && (!text || strcmp(text, "version") != 0))
        return fail(r, "the first key must be 'version: %d'", DEFINITION_VERSION);
    if (!ret)
        ret = next(r);
    if (!ret)
        ret = take_text(r, &text);
    if (!ret)
        ret = set_number(r, "version", text, 999999, &version);
    if (!ret && version != DEFINITION_VERSION)
        ret = fail(r, "version %u is of a later doppel: this one knows version %d", version,
                   DEFINITION_VERSION);
    return ret;
}

static int read_definition(struct reader *r, struct definition *d)
{
    const struct definition_field *field = NULL;
    unsigned seen = 0;
    int ret = expect(r, YAML_STREAM_START_EVENT, "a text");

    if (!ret)
        ret = next(r);
    if (!ret && r->event.type != YAML_DOCUMENT_START_EVENT)
        return error_set(r->err, EINVAL, "%s: it is empty", r->file);
    if (!ret)
        ret = expect(r, YAML_MAPPING_START_EVENT, "'KEY: VALUE'");
    if (!ret)
        ret = read_version(r);
    while (!ret) {
        ret = next(r);
        if (ret || r->event.type == YAML_MAPPING_END_EVENT)
            break;
        ret = find_field(r, definition_fields, &seen, &field);
        if (!ret)
            ret = read_value(r, field, d);
    }
    if (!ret)
        ret = expect(r, YAML_DOCUMENT_END_EVENT, "the end");
    return ret ? ret : expect(r, YAML_STREAM_END_EVENT, "the end");
}

int definition_parse(const char *text, size_t size, const char *file, struct definition *definition,
                     struct error *err)
{
    struct reader r = {.file = file, .err = err};
    int ret;

    *definition = (struct definition){0};
    if (size > DEFINITION_MOST)
        return error_set(err, EFBIG, "%s is larger than %d bytes", file, DEFINITION_MOST);
    if (!yaml_parser_initialize(&r.yaml))
        return error_set(err, ENOMEM, "out of memory");
    yaml_parser_set_encoding(&r.yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.yaml, (const unsigned char *)text, size);
    ret = read_definition(&r, definition);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.yaml);
    if (ret)
        definition_free(definition);
    return ret;
}

int definition_load(const char *file, struct definition *definition, struct error *err)
{
    struct error why = {0};
    size_t size = 0;
    char *text = read_small_file(file, DEFINITION_MOST, &size, &why);
    int ret;

    *definition = (struct definition){0};
    if (!text)
        return error_set(err, why.code, "%s", why.text);
    ret = definition_parse(text, size, file, definition, err);
    free(text);
    return ret;
}
