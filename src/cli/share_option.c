/*
 * The value of `--share`.
 */
#include "cli/share_option.h"

#include "base/field.h"
#include "vm/share.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Cuts SUFFIX off the first LENGTH bytes of TEXT, if they end with it. */
static bool cut(const char *text, size_t *length, const char *suffix)
{
    size_t size = strlen(suffix);

    if (*length < size || strncmp(text + *length - size, suffix, size) != 0)
        return false;
    *length -= size;
    return true;
}

/* Where the guest's path begins in the first LENGTH bytes of TEXT, or LENGTH: behind the last colon
 * before a slash. */
static size_t path_in(const char *text, size_t length)
{
    for (size_t at = length; at-- > 1;)
        if (text[at] == '/' && text[at - 1] == ':')
            return at;
    return length;
}

/* Whether the first LENGTH bytes of TEXT, in which commas are doubled, name something that is
 * there.
 */
static bool is_there(const char *text, size_t length)
{
    char *copy = strndup(text, length), *plain;
    const char *at = copy;
    bool there;

    plain = copy ? field_take(&at) : NULL;
    there = plain && access(plain, F_OK) == 0;
    free(plain);
    free(copy);
    return there;
}

/* Checks that the LENGTH bytes at TEXT, in which no path of the guest was found, do not end with
 * one that is not absolute. A folder's name may have a colon. */
static int check_colon(const char *text, size_t length, struct error *err)
{
    const char *colon = memrchr(text, ':', length);
    size_t folder = colon ? (size_t)(colon - text) : 0;

    if (!folder || is_there(text, length))
        return 0;
    return error_set(err, EINVAL,
                     "shared folder '%.*s': the guest's path '%.*s' must begin with '/'",
                     (int)folder, text, (int)(length - folder - 1), colon + 1);
}

/* The length of the first field of TEXT: up to a comma that is not doubled. */
static size_t first_field(const char *text)
{
    size_t length = strcspn(text, ",");

    while (text[length] == ',' && text[length + 1] == ',')
        length += 2 + strcspn(text + length + 2, ",");
    return length;
}

static bool has_tag(const char *rest)
{
    bool found = false;

    while (rest && !found) {
        char *field = field_take(&rest);

        found = field && field_after(field, "tag=");
        free(field);
    }
    return found;
}

/* Describes the first FOLDER bytes of TEXT with the settings that begin at REST. */
static char *describe(const char *text, size_t folder, const char *rest, bool readonly, unsigned n)
{
    char tag[32] = "", *description;

    if (!has_tag(*rest ? rest + 1 : NULL))
        snprintf(tag, sizeof(tag), ",tag=share%u", n);
    return asprintf(&description, "share,folder=%.*s%s%s%s", (int)folder, text, tag,
                    readonly ? ",readonly" : "", rest) < 0
               ? NULL
               : description;
}

/* Says how our init mounts what DESCRIPTION describes, on the LENGTH bytes at PATH, in which a
 * comma may be doubled. */
static int make_mount(const char *description, const char *path, size_t length, char **mount,
                      struct error *err)
{
    struct share_options options;
    char *copy = strndup(path, length), *plain = NULL;
    const char *at = copy;
    int ret = share_description(description, &options, err);

    if (ret == 0 && strchr(options.tag, ':')) {
        ret = error_set(err, EINVAL, "shared folder '%s': its tag must have no colon to be mounted",
                        options.folder);
    } else if (ret == 0) {
        plain = copy ? field_take(&at) : NULL;
        if (!plain ||
            asprintf(mount, "%s:%s:%s", options.readonly ? "ro" : "rw", options.tag, plain) < 0) {
            *mount = NULL;
            ret = error_set(err, ENOMEM, "out of memory");
        }
    }
    share_options_free(&options);
    free(plain);
    free(copy);
    return ret;
}

int share_option_parse(const char *text, unsigned n, char **description, char **mount,
                       struct error *err)
{
    size_t whole = first_field(text), length = whole;
    bool readonly = cut(text, &length, ":ro");
    size_t path, folder;
    int ret = 0;

    *mount = *description = NULL;
    if (!readonly)
        cut(text, &length, ":rw"); /* as it is anyway */
    path = path_in(text, length);
    folder = path < length ? path - 1 : length;
    if (path == length)
        ret = check_colon(text, length, err);
    if (ret < 0)
        return ret;
    *description = describe(text, folder, text + whole, readonly, n);
    if (!*description)
        return error_set(err, ENOMEM, "out of memory");
    if (path < length)
        ret = make_mount(*description, text + path, length - path, mount, err);
    if (ret < 0) {
        free(*description);
        *description = NULL;
    }
    return ret;
}
