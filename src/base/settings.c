/*
 * Settings.
 */
#include "base/settings.h"

#include "base/field.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int settings_no_memory(const struct settings *s)
{
    return error_set(s->err, ENOMEM, "%s: out of memory", s->thing);
}

int settings_copy(const struct settings *s, char **string, const char *value)
{
    char *copy = strdup(value);

    if (!copy)
        return settings_no_memory(s);
    free(*string);
    *string = copy;
    return 0;
}

int settings_switch(const struct settings *s, unsigned key, const char *value, bool *on)
{
    if (value && strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
        return error_set(s->err, EINVAL, "%s '%s': %s= must be on or off, not '%s'", s->thing,
                         s->name, s->keys[key], value);
    *on = !value || strcmp(value, "on") == 0;
    return 0;
}

int settings_text(const struct settings *s, unsigned key, const char *value, char **text)
{
    if (!value || !*value)
        return error_set(s->err, EINVAL, "%s '%s': %s= needs a value", s->thing, s->name,
                         s->keys[key]);
    return settings_copy(s, text, value);
}

/* Reads KEY[=VALUE]. Cuts FIELD. */
static int parse_setting(struct settings *s, char *field)
{
    char *equals = strchr(field, '=');
    unsigned key = 0;

    if (equals)
        *equals = '\0';
    while (key < s->key_count && strcmp(field, s->keys[key]) != 0)
        key++;
    if (key == s->key_count)
        return error_set(s->err, EINVAL,
                         "%s '%s': there is no setting '%s' (a comma in a name is written as ',,')",
                         s->thing, s->name, field);
    if (s->seen & ~s->repeated & UINT64_C(1) << key)
        return error_set(s->err, EINVAL, "%s '%s': %s is given twice", s->thing, s->name, field);
    s->seen |= UINT64_C(1) << key;
    return s->set(s->opaque, key, equals ? equals + 1 : NULL);
}

static int parse(struct settings *s, const char *text, bool what)
{
    int ret = 0;

    for (; text && ret == 0; what = false) {
        char *field = field_take(&text);

        if (!field)
            return settings_no_memory(s);
        ret = what ? s->what(s->opaque, field) : parse_setting(s, field);
        free(field);
    }
    return ret;
}

int settings_parse(struct settings *s, const char *text)
{
    return parse(s, text, true);
}

int settings_parse_all(struct settings *s, const char *text)
{
    return parse(s, text, false);
}
