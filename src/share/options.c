/*
 * What a user says of a shared folder, as text.
 */
#include "share/options.h"

#include "base/field.h"
#include "base/settings.h"
#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MOST_S 3600u

struct parser {
    struct share_options *options;
    struct settings settings;
};

/* ---- Values ---- */

static int set_tag(const struct parser *p, const char *value)
{
    if (!value || !*value || strlen(value) > SHARE_TAG_MOST)
        return error_set(p->settings.err, EINVAL,
                         "shared folder '%s': tag= must have 1 to %d bytes", p->options->folder,
                         SHARE_TAG_MOST);
    return settings_copy(&p->settings, &p->options->tag, value);
}

static bool take_id(const char **text, uint32_t *id)
{
    uint64_t number = 0;
    bool good = field_number(text, UINT32_MAX - 1, &number); /* the last one means nobody */

    *id = (uint32_t)number;
    return good;
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
    return error_set(p->settings.err, EINVAL,
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
        return error_set(p->settings.err, EINVAL,
                         "shared folder '%s': timeout= must be seconds, from 0 to %u",
                         p->options->folder, TIMEOUT_MOST_S);
    p->options->timeout_ms = seconds * 1000 + thousandths;
    return 0;
}

static int set_queues(const struct parser *p, const char *value)
{
    const char *at = value ? value : "";
    uint64_t queues;

    if (!field_number(&at, SHARE_QUEUES_MOST, &queues) || *at || queues < 1)
        return error_set(p->settings.err, EINVAL,
                         "shared folder '%s': queues= must be a number from 1 to %d",
                         p->options->folder, SHARE_QUEUES_MOST);
    p->options->queues = (unsigned)queues;
    return 0;
}

/* ---- Keys ---- */

enum key {
    KEY_TAG,
    KEY_READONLY,
    KEY_OWNER,
    KEY_MOUNTS,
    KEY_TIMEOUT,
    KEY_QUEUES,
    KEY_ISOLATE,
    KEYS
};

static const char *const key_names[KEYS] = {
    [KEY_TAG] = "tag",         [KEY_READONLY] = "readonly", [KEY_OWNER] = "owner",
    [KEY_MOUNTS] = "mounts",   [KEY_TIMEOUT] = "timeout",   [KEY_QUEUES] = "queues",
    [KEY_ISOLATE] = "isolate",
};

/* Sets what KEY stands for. VALUE is NULL if there is no '='. */
static int set_key(void *opaque, unsigned key, const char *value)
{
    const struct parser *p = opaque;

    if (p->options->vhost_user && key != KEY_TAG && key != KEY_QUEUES)
        return error_set(p->settings.err, EINVAL,
                         "shared folder '%s': %s is for the program that serves it",
                         p->options->folder, key_names[key]);
    switch ((enum key)key) {
    case KEY_TAG: return set_tag(p, value);
    case KEY_READONLY: return settings_switch(&p->settings, key, value, &p->options->readonly);
    case KEY_OWNER: return set_owner(p, value);
    case KEY_MOUNTS: return settings_switch(&p->settings, key, value, &p->options->mounts);
    case KEY_TIMEOUT: return set_timeout(p, value);
    case KEY_QUEUES: return set_queues(p, value);
    case KEY_ISOLATE: return settings_switch(&p->settings, key, value, &p->options->isolate);
    case KEYS: break;
    }
    return 0;
}

static int set_folder(void *opaque, const char *field)
{
    struct parser *p = opaque;
    const char *named = field_after(field, "folder="), *folder = named ? named : field;
    const char *socket = field_after(folder, "vhost-user=");

    p->options->vhost_user = socket != NULL;
    folder = socket ? socket : folder;
    if (!*folder)
        return error_set(p->settings.err, EINVAL, "shared folder: the name of a folder is missing");
    if (settings_copy(&p->settings, &p->options->folder, folder) < 0)
        return -ENOMEM;
    p->settings.name = p->options->folder;
    return 0;
}

int share_options_parse(const char *text, struct share_options *options, struct error *err)
{
    struct parser p = {.options = options,
                       .settings = {.thing = "shared folder",
                                    .keys = key_names,
                                    .key_count = KEYS,
                                    .err = err,
                                    .what = set_folder,
                                    .set = set_key,
                                    .opaque = &p}};
    int ret;

    *options = (struct share_options){.timeout_ms = 1000};
    ret = settings_copy(&p.settings, &options->tag, "share");
    if (ret == 0)
        ret = settings_parse(&p.settings, text);
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
