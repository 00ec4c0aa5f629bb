/*
 * What a user says of a disk, as text.
 */
#include "blk/options.h"

#include "base/field.h"
#include "base/settings.h"
#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct parser {
    struct blk_options *options;
    struct settings settings;
};

/* ---- Values ---- */

bool blk_parse_number(const char *text, uint64_t *number)
{
    static const char units[] = "KMGT";
    const char *at = text;
    uint64_t value;

    if (!field_number(&at, UINT64_MAX, &value))
        return false;
    if (*at && strchr(units, *at)) {
        unsigned shift = 10 * (unsigned)(strchr(units, *at++) - units + 1);

        if (value > UINT64_MAX >> shift)
            return false;
        value <<= shift;
        if (strcmp(at, "B") == 0 || strcmp(at, "iB") == 0)
            at += strlen(at);
    }
    *number = value;
    return *at == '\0';
}

static int set_number(const struct parser *p, const char *key, const char *value, uint64_t least,
                      uint64_t *number)
{
    uint64_t got;

    if (!value || !blk_parse_number(value, &got) || got < least || got > INT64_MAX)
        return error_set(p->settings.err, EINVAL,
                         "disk '%s': %s= must be a number%s, perhaps with K, M, G or T behind it",
                         p->options->file, key, least ? " above 0" : "");
    *number = got;
    return 0;
}

/* Sets *SECOND to whether VALUE is the second of two WORDS, and not the first. */
static int set_choice(const struct parser *p, const char *key, const char *value,
                      const char *const words[2], bool *second)
{
    for (unsigned i = 0; value && i < 2; i++) {
        if (strcmp(value, words[i]) == 0) {
            *second = i == 1;
            return 0;
        }
    }
    return error_set(p->settings.err, EINVAL, "disk '%s': %s= must be %s or %s%s%s%s",
                     p->options->file, key, words[0], words[1], value ? ", not '" : "",
                     value ? value : "", value ? "'" : "");
}

/* ---- Formats ---- */

static const char *const format_names[] = {[BLK_RAW] = "raw", [BLK_QCOW2] = "qcow2"};

const char *blk_format_name(enum blk_format format)
{
    return format_names[format];
}

enum blk_format blk_format_of(const char *name)
{
    static const char suffix[] = ".qcow2";
    size_t length = strlen(name);

    if (length < strlen(suffix) || strcmp(name + length - strlen(suffix), suffix) != 0)
        return BLK_RAW;
    return BLK_QCOW2;
}

int blk_format_parse(const char *file, const char *name, enum blk_format *format, struct error *err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(format_names); i++) {
        if (strcmp(name, format_names[i]) == 0) {
            *format = (enum blk_format)i;
            return 0;
        }
    }
    return error_set(err, EINVAL, "disk '%s': format= must be raw or qcow2, not '%s'", file, name);
}

/* ---- Keys ---- */

enum key {
    KEY_FORMAT,
    KEY_READONLY,
    KEY_SNAPSHOT,
    KEY_CACHE,
    KEY_DISCARD,
    KEY_SERIAL,
    KEY_OFFSET,
    KEY_SIZE,
    KEY_IOPS,
    KEY_BPS,
    KEY_ISOLATE,
    KEY_QUEUES,
    KEY_BACKING,
    KEYS,
};

static const char *const key_names[KEYS] = {
    [KEY_FORMAT] = "format",   [KEY_READONLY] = "readonly", [KEY_SNAPSHOT] = "snapshot",
    [KEY_CACHE] = "cache",     [KEY_DISCARD] = "discard",   [KEY_SERIAL] = "serial",
    [KEY_OFFSET] = "offset",   [KEY_SIZE] = "size",         [KEY_IOPS] = "iops",
    [KEY_BPS] = "bps",         [KEY_ISOLATE] = "isolate",   [KEY_QUEUES] = "queues",
    [KEY_BACKING] = "backing",
};

static int set_serial(const struct parser *p, const char *value)
{
    if (value && strlen(value) > BLK_SERIAL_MOST)
        return error_set(p->settings.err, EINVAL,
                         "disk '%s': serial= has %zu characters; %d are the most", p->options->file,
                         strlen(value), BLK_SERIAL_MOST);
    return settings_text(&p->settings, KEY_SERIAL, value, &p->options->serial);
}

static int set_queues(const struct parser *p, const char *value)
{
    uint64_t queues = 0;

    if (!value || !blk_parse_number(value, &queues) || queues < 1 || queues > BLK_QUEUES_MOST)
        return error_set(p->settings.err, EINVAL,
                         "disk '%s': queues= must be a number from 1 to %d", p->options->file,
                         BLK_QUEUES_MOST);
    p->options->queues = (unsigned)queues;
    return 0;
}

static int set_format(const struct parser *p, const char *value)
{
    return blk_format_parse(p->options->file, value ? value : "", &p->options->format,
                            p->settings.err);
}

static int set_cache(const struct parser *p, const char *value)
{
    bool none = false;
    int ret = set_choice(p, "cache", value, (const char *const[]){"writeback", "none"}, &none);

    p->options->cache = none ? BLK_CACHE_NONE : BLK_CACHE_WRITEBACK;
    return ret;
}

/* Sets what KEY stands for. VALUE is NULL if there is no '='. */
static int set_key(void *opaque, unsigned key, const char *value)
{
    static const char *const discards[] = {"unmap", "ignore"};
    const struct parser *p = opaque;
    struct blk_options *o = p->options;
    const char *name = key_names[key];

    switch ((enum key)key) {
    case KEY_FORMAT: return set_format(p, value);
    case KEY_READONLY: return settings_switch(&p->settings, key, value, &o->readonly);
    case KEY_SNAPSHOT: return settings_switch(&p->settings, key, value, &o->snapshot);
    case KEY_CACHE: return set_cache(p, value);
    case KEY_DISCARD: return set_choice(p, name, value, discards, &o->keep);
    case KEY_SERIAL: return set_serial(p, value);
    case KEY_OFFSET: return set_number(p, name, value, 0, &o->offset);
    case KEY_SIZE: return set_number(p, name, value, 1, &o->size);
    case KEY_IOPS: return set_number(p, name, value, 1, &o->iops);
    case KEY_BPS: return set_number(p, name, value, 1, &o->bps);
    case KEY_ISOLATE: return settings_switch(&p->settings, key, value, &o->isolate);
    case KEY_QUEUES: return set_queues(p, value);
    case KEY_BACKING: return settings_text(&p->settings, key, value, &o->backing);
    case KEYS: break;
    }
    return 0;
}

/* ---- The whole ---- */

static bool is_nbd(const char *name)
{
    static const char *const schemes[] = {
        "nbd:", "nbds:", "nbd+unix:", "nbds+unix:", "nbd+vsock:", "nbds+vsock:"};

    for (unsigned i = 0; i < ARRAY_SIZE(schemes); i++)
        if (field_after(name, schemes[i]))
            return true;
    return false;
}

static int set_file(void *opaque, const char *field)
{
    struct parser *p = opaque;
    struct blk_options *o = p->options;
    const char *file = field_after(field, "file="), *named = file ? file : field;
    const char *socket = field_after(named, "vhost-user="), *name = socket ? socket : named;

    if (!*name)
        return error_set(p->settings.err, EINVAL, "disk: the name of a file is missing");
    o->source = socket ? BLK_VHOST_USER : is_nbd(name) ? BLK_NBD : BLK_FILE;
    o->format = socket ? BLK_RAW : blk_format_of(name);
    if (settings_copy(&p->settings, &o->file, name) < 0)
        return -ENOMEM;
    p->settings.name = o->file;
    return 0;
}

/* What one setting forbids to another. */
static int check(const struct parser *p)
{
    const struct blk_options *o = p->options;
    uint64_t foreign = p->settings.seen & ~(1ULL << KEY_QUEUES);

    if (o->source == BLK_VHOST_USER && foreign)
        return error_set(p->settings.err, EINVAL,
                         "disk '%s': %s is the business of the process behind vhost-user", o->file,
                         key_names[__builtin_ctzll(foreign)]);
    if (o->backing && o->format == BLK_RAW)
        return error_set(p->settings.err, EINVAL, "disk '%s': a raw image has no backing file",
                         o->file);
    if (o->size && o->offset > INT64_MAX - o->size)
        return error_set(p->settings.err, EINVAL, "disk '%s': offset= and size= are too large",
                         o->file);
    return 0;
}

int blk_options_parse(const char *text, struct blk_options *options, struct error *err)
{
    struct parser p = {.options = options,
                       .settings = {.thing = "disk",
                                    .keys = key_names,
                                    .key_count = KEYS,
                                    .err = err,
                                    .what = set_file,
                                    .set = set_key,
                                    .opaque = &p}};
    int ret;

    *options = (struct blk_options){0};
    ret = settings_parse(&p.settings, text);
    if (ret == 0)
        ret = check(&p);
    if (ret < 0)
        blk_options_free(options);
    return ret;
}

void blk_options_free(struct blk_options *options)
{
    free(options->file);
    free(options->serial);
    free(options->backing);
    *options = (struct blk_options){0};
}
