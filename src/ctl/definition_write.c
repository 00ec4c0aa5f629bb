/*
 * Writes definitions, by libyaml's emitter.
 */
#include "base/util.h"
#include "ctl/definition_fields.h"
#include "ctl/replace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct writer {
    yaml_emitter_t yaml;
    char *text;
    size_t size; /* bytes written, of DEFINITION_MOST; TEXT has one more */
    bool ok;
};

static int append(void *opaque, unsigned char *data, size_t size)
{
    struct writer *w = opaque;

    if (size > DEFINITION_MOST - w->size)
        return 0;
    memcpy(w->text + w->size, data, size);
    w->size += size;
    return 1;
}

/* Writes EVENT, which was made if MADE. */
static void emit(struct writer *w, yaml_event_t *event, int made)
{
    if (!made)
        w->ok = false;
    else if (!w->ok)
        yaml_event_delete(event);
    else
        w->ok = yaml_emitter_emit(&w->yaml, event);
}

static void put_text(struct writer *w, const char *text)
{
    /* "" would be nothing without quotes. */
    yaml_scalar_style_t style = *text ? YAML_ANY_SCALAR_STYLE : YAML_SINGLE_QUOTED_SCALAR_STYLE;
    yaml_event_t event;

    emit(w, &event,
         yaml_scalar_event_initialize(&event, NULL, NULL, (const unsigned char *)text,
                                      (int)strlen(text), 1, 1, style));
}

static void begin_keys(struct writer *w)
{
    yaml_event_t event;

    emit(w, &event,
         yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
}

static void end_keys(struct writer *w)
{
    yaml_event_t event;

    emit(w, &event, yaml_mapping_end_event_initialize(&event));
}

static void put_words(struct writer *w, const struct definition_words *words)
{
    yaml_event_t event;

    emit(w, &event,
         yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE));
    for (unsigned i = 0; i < words->count; i++)
        put_text(w, words->word[i]);
    emit(w, &event, yaml_sequence_end_event_initialize(&event));
}

/* In the largest unit of which it is a multiple. */
static void memory_text(char text[32], uint64_t bytes)
{
    const char *unit = "K";
    uint64_t number = bytes / KiB;

    if (bytes % GiB == 0) {
        unit = "G";
        number = bytes / GiB;
    } else if (bytes % MiB == 0) {
        unit = "M";
        number = bytes / MiB;
    }
    snprintf(text, 32, "%" PRIu64 "%s", number, unit);
}

static void put_fields(struct writer *w, const struct definition_field *fields,
                       const struct definition *d);

/* Whether the definition says anything of FIELD. */
static bool is_said(const struct definition_field *field, const struct definition *d)
{
    const void *member = (const char *)d + field->offset;

    switch (field->kind) {
    case DEFINITION_MEMORY: return *(const uint64_t *)member != 0;
    case DEFINITION_CPUS:
    case DEFINITION_PORT: return *(const unsigned *)member != 0;
    case DEFINITION_WORDS: return ((const struct definition_words *)member)->count > 0;
    case DEFINITION_GROUP:
        for (const struct definition_field *f = field->group; f->key; f++)
            if (is_said(f, d))
                return true;
        return false;
    default: return *(char *const *)member != NULL;
    }
}

static void put_value(struct writer *w, const struct definition_field *field,
                      const struct definition *d)
{
    const void *member = (const char *)d + field->offset;
    char text[32];

    switch (field->kind) {
    case DEFINITION_WORDS: put_words(w, member); return;
    case DEFINITION_GROUP:
        begin_keys(w);
        put_fields(w, field->group, d);
        end_keys(w);
        return;
    case DEFINITION_MEMORY: memory_text(text, *(const uint64_t *)member); break;
    case DEFINITION_CPUS:
    case DEFINITION_PORT: snprintf(text, sizeof(text), "%u", *(const unsigned *)member); break;
    default: put_text(w, *(char *const *)member); return;
    }
    put_text(w, text);
}

static void put_fields(struct writer *w, const struct definition_field *fields,
                       const struct definition *d)
{
    for (const struct definition_field *field = fields; field->key; field++) {
        if (!is_said(field, d))
            continue;
        put_text(w, field->key);
        put_value(w, field, d);
    }
}

static void put_definition(struct writer *w, const struct definition *d)
{
    yaml_event_t event;
    char version[32];

    emit(w, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
    emit(w, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
    begin_keys(w);
    put_text(w, "version");
    snprintf(version, sizeof(version), "%d", DEFINITION_VERSION);
    put_text(w, version);
    put_fields(w, definition_fields, d);
    end_keys(w);
    emit(w, &event, yaml_document_end_event_initialize(&event, 1));
    emit(w, &event, yaml_stream_end_event_initialize(&event));
    w->ok = w->ok && yaml_emitter_flush(&w->yaml);
}

/* The text, which the caller frees, of *SIZE bytes; or NULL. */
static char *write_text(const struct definition *definition, size_t *size)
{
    struct writer w = {.text = malloc(DEFINITION_MOST + 1), .ok = true};

    if (!w.text || !yaml_emitter_initialize(&w.yaml)) {
        free(w.text);
        return NULL;
    }
    yaml_emitter_set_output(&w.yaml, append, &w);
    yaml_emitter_set_unicode(&w.yaml, 1);
    yaml_emitter_set_width(&w.yaml, -1); /* a line for each text */
    put_definition(&w, definition);
    yaml_emitter_delete(&w.yaml);
    w.text[w.size] = '\0';
    *size = w.size;
    if (w.ok)
        return w.text;
    free(w.text);
    return NULL;
}

char *definition_text(const struct definition *definition, struct error *err)
{
    size_t size = 0;
    char *text = write_text(definition, &size);
    struct definition again;

    if (!text) {
        error_set(err, EINVAL, "the definition is too large, or is no text");
        return NULL;
    }
    if (definition_parse(text, size, "the definition", &again, err) < 0) {
        free(text);
        return NULL;
    }
    definition_free(&again);
    return text;
}

int definition_save(const struct definition *definition, const char *file, struct error *err)
{
    char *text = definition_text(definition, err);
    int ret = text ? replace_file(file, text, strlen(text), 0600, err) : -EINVAL;

    free(text);
    return ret;
}
