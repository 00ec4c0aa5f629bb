/*
 * Descriptions of devices: NAME[,KEY=VALUE...].
 */
#include "vm/description.h"

#include "base/field.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The settings begin behind the name, which is a field (base/field.h), at a comma; and this steps
 * from one to the next, or to the end of the text. */
static const char *next(const char *setting)
{
    return field_end(setting + 1);
}

static bool has_key(const char *setting, const char *key)
{
    size_t length = strlen(key);

    return strncmp(setting + 1, key, length) == 0 && setting[1 + length] == '=';
}

/* The first setting with KEY from SETTING on, or NULL. */
static const char *find(const char *setting, const char *key)
{
    for (; *setting; setting = next(setting))
        if (has_key(setting, key))
            return setting;
    return NULL;
}

bool description_is(const char *text, const char *name)
{
    size_t length = strlen(name);

    return strncmp(text, name, length) == 0 && field_end(text) == text + length;
}

int description_check(const char *text, const char *const *keys, struct error *err)
{
    int name = (int)(field_end(text) - text);

    for (const char *setting = field_end(text); *setting; setting = next(setting)) {
        int length = (int)strcspn(setting + 1, "=,");
        unsigned i = 0;

        while (keys && keys[i] && !has_key(setting, keys[i]))
            i++;
        if (setting[1 + length] != '=')
            return error_set(err, EINVAL, "device %s: '%.*s' is not KEY=VALUE", text, length,
                             setting + 1);
        if (!keys || !keys[i])
            return error_set(err, EINVAL, "device %s: %.*s has no setting '%.*s'", text, name, text,
                             length, setting + 1);
        if (find(next(setting), keys[i]))
            return error_set(err, EINVAL, "device %s: '%s' is given twice", text, keys[i]);
    }
    return 0;
}

int description_number(const char *text, const char *key, unsigned least, unsigned most,
                       unsigned *value, struct error *err)
{
    const char *setting = find(field_end(text), key), *digits;
    unsigned long number;
    char *end;

    if (!setting)
        return 0;
    if (find(next(setting), key))
        return error_set(err, EINVAL, "device %s: '%s' is given twice", text, key);
    digits = setting + 1 + strlen(key) + 1;
    errno = 0;
    number = strtoul(digits, &end, 10);
    if (*digits < '0' || *digits > '9' || end != field_end(digits) || errno || number < least ||
        number > most)
        return error_set(err, EINVAL, "device %s: %s must be a number from %u to %u", text, key,
                         least, most);
    *value = (unsigned)number;
    return 0;
}

static bool has_any_key(const char *setting, const char *const *keys)
{
    while (*keys && !has_key(setting, *keys))
        keys++;
    return *keys;
}

char *description_rest(const char *text, const char *const *keys, struct error *err)
{
    char *rest = malloc(strlen(text) + 1), *end = rest;

    if (!rest) {
        error_set(err, ENOMEM, "device %s: out of memory", text);
        return NULL;
    }
    for (const char *setting = field_end(text); *setting; setting = next(setting))
        if (!has_any_key(setting, keys))
            end = mempcpy(end, setting, (size_t)(next(setting) - setting));
    *end = 0;
    if (*rest == ',')
        memmove(rest, rest + 1, strlen(rest));
    return rest;
}

int description_each(const char *text,
                     int (*each)(void *opaque, const char *key, const char *value,
                                 struct error *err),
                     void *opaque, struct error *err)
{
    const char *rest = field_end(text);
    int ret = 0;

    for (rest = *rest ? rest + 1 : NULL; rest && ret == 0;) {
        char *key = field_take(&rest), *equals;

        if (!key)
            return error_set(err, ENOMEM, "device %s: out of memory", text);
        equals = strchr(key, '=');
        if (equals && equals != key) {
            *equals = 0;
            ret = each(opaque, key, equals + 1, err);
        } else {
            ret = error_set(err, EINVAL, "device %s: '%s' is not KEY=VALUE", text, key);
        }
        free(key);
    }
    return ret;
}
