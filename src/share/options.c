/*
 * What a user says of a shared folder, as text.
 */
#include "share/options.h"

#include "base/field.h"
#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MOST_S 3600u

struct parser {
    struct share_options *options;
    unsigned seen; /* by number of the key: it has been given */
    struct error *err;
};

static int no_memory(struct error *err)
{
    return error_set(err, ENOMEM, "shared folder: out of memory");
}

static int replace(const struct parser *p, char **string, const char *value)
{
    char *copy = strdup(value);

    if (!copy)
        return no_memory(p->err);
    free(*string);
    *string = copy;
    return 0;
}

/* ---- Values ---- */

static int set_switch(const struct parser *p, const char *key, const char *value, bool *on)
{
    if (value && strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
        return error_set(p->err, EINVAL, "shared folder '%s': %s= must be on or off, not '%s'",
                         p->options->folder, key, value);
    *on = !value || strcmp(value, "on") == 0;
    return 0;
}

static int set_tag(const struct parser *p, const char *value)
{
    if (!value || !*value || strlen(value) > SHARE_TAG_MOST)
        return error_set(p->err, EINVAL, "shared folder '%s': tag= must have 1 to %d bytes",
                         p->options->folder, SHARE_TAG_MOST);
    return replace(p, &p->options->tag, value);
}

/* Reads digits at *TEXT and steps behind them. */
static bool take_id(const char **text, uint32_t *id)
{
    uint64_t number = 0;
    const char *from = *text;

    for (; **text >= '0' && **text <= '9' && number < UINT32_MAX; ++*text)
        number = number * 10 + (uint64_t)(**text - '0');
    *id = (uint32_t)number;
    return *text != from && number < UINT32_MAX; /* that one means nobody */
}

static int set_owner(const struct parser *p, const char *value)
{
    struct share_options *o = p->options;
    const char *at = value ? value : "";

    if (strcmp(at, "xattr") == 0 || strcmp(at, "host") == 0) {
        o->owner = *at == 'x' ? SHARE_OWNER_XATTR : SHARE_OWNER_HOST;
        return 0;
    }
    if (take_id(&at, &o->uid)) {
        o->gid = o->uid;
        if (!*at || (*at++ == ':' && take_id(&at, &o->gid) && !*at))
            return 0;
    }
    return error_set(p->err, EINVAL,
                     "shared folder '%s': owner= must be UID, UID:GID, xattr or host", o->folder);
}

static int set_timeout(const struct parser *p, const char *value)
{
    unsigned seconds = 0, thousandths = 0;
    char digits[4] = "000";
    int end = 0;

    if (value && sscanf(value, "%4u%n", &seconds, &end) == 1 && value[end] == '.') {
        size_t length = strspn(value + end + 1, "0123456789");

        memcpy(digits, value + end + 1, MIN(length, 3));
        thousandths = (unsigned)strtoul(digits, NULL, 10);
        end += length >= 1 && length <= 3 ? (int)length + 1 : 0;
    }
    if (!end || value[end] || *value < '0' || *value > '9' || seconds > TIMEOUT_MOST_S)
        return error_set(p->err, EINVAL,
                         "shared folder '%s': timeout= must be seconds, from 0 to %u",
                         p->options->folder, TIMEOUT_MOST_S);
    p->options->timeout_ms = seconds * 1000 + thousandths;
    return 0;
}

static int set_queues(const struct parser *p, const char *value)
{
    const char *at = value ? value : "";
    uint32_t queues;

    if (!take_id(&at, &queues) || *at || queues < 1 || queues > SHARE_QUEUES_MOST)
        return error_set(p->err, EINVAL,
                         "shared folder '%s': queues= must be a number from 1 to %d",
                         p->options->folder, SHARE_QUEUES_MOST);
    p->options->queues = queues;
    return 0;
}

/* ---- Keys ---- */

enum key { KEY_TAG, KEY_READONLY, KEY_OWNER, KEY_MOUNTS, KEY_TIMEOUT, KEY_QUEUES, KEYS };

static const char *const key_names[KEYS] = {
    [KEY_TAG] = "tag",       [KEY_READONLY] = "readonly", [KEY_OWNER] = "owner",
    [KEY_MOUNTS] = "mounts", [KEY_TIMEOUT] = "timeout",   [KEY_QUEUES] = "queues",
};

/* Sets what KEY stands for. VALUE is NULL if there is no '='. */
static int set_key(const struct parser *p, enum key key, const char *value)
{
    switch (key) {
    case KEY_TAG: return set_tag(p, value);
    case KEY_READONLY: return set_switch(p, key_names[key], value, &p->options->readonly);
    case KEY_OWNER: return set_owner(p, value);
    case KEY_MOUNTS: return set_switch(p, key_names[key], value, &p->options->mounts);
    case KEY_TIMEOUT: return set_timeout(p, value);
    case KEY_QUEUES: return set_queues(p, value);
    case KEYS: break;
    }
    return 0;
}

static int parse_setting(struct parser *p, char *field)
{
    char *equals = strchr(field, '=');
    unsigned key = 0;

    if (equals)
        *equals = '\0';
    while (key < KEYS && strcmp(field, key_names[key]) != 0)
        key++;
    if (key == KEYS)
        return error_set(
            p->err, EINVAL,
            "shared folder '%s': there is no setting '%s' (a comma in a name is written as ',,')",
            p->options->folder, field);
    if (p->seen & 1u << key)
        return error_set(p->err, EINVAL, "shared folder '%s': %s is given twice",
                         p->options->folder, field);
    if (p->options->vhost_user && key != KEY_TAG && key != KEY_QUEUES)
        return error_set(p->err, EINVAL, "shared folder '%s': %s is for the program that serves it",
                         p->options->folder, field);
    p->seen |= 1u << key;
    return set_key(p, (enum key)key, equals ? equals + 1 : NULL);
}

static int parse_folder(const struct parser *p, const char *field)
{
    const char *named = field_after(field, "folder="), *folder = named ? named : field;
    const char *socket = field_after(folder, "vhost-user=");

    p->options->vhost_user = socket != NULL;
    folder = socket ? socket : folder;
    if (!*folder)
        return error_set(p->err, EINVAL, "shared folder: the name of a folder is missing");
    return replace(p, &p->options->folder, folder);
}

static int parse(struct parser *p, const char *text)
{
    int ret = replace(p, &p->options->tag, "share");

    for (bool first = true; text && ret == 0; first = false) {
        char *field = field_take(&text);

        if (!field)
            return no_memory(p->err);
        ret = first ? parse_folder(p, field) : parse_setting(p, field);
        free(field);
    }
    return ret;
}

int share_options_parse(const char *text, struct share_options *options, struct error *err)
{
    struct parser p = {.options = options, .err = err};
    int ret;

    *options = (struct share_options){.timeout_ms = 1000};
    ret = parse(&p, text);
    if (ret < 0)
        share_options_free(options);
    return ret;
}

void share_options_free(struct share_options *options)
{
    free(options->folder);
    free(options->tag);
    *options = (struct share_options){0};
}
