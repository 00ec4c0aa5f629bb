/*
 * `doppel show`: the definition of a machine, and what it says of itself.
 */
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/live.h"

#include "ctl/control.h"
#include "ctl/definition.h"
#include "ctl/definition_fields.h"
#include "ctl/registry.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPT_JSON, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_JSON] = {"json", NULL, "as one JSON object, with what it does now"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const struct arguments arguments = {
    .name = "show",
    .usage = "Usage: doppel show [--json] NAME\n"
             "Shows the definition of a machine (docs/machines.md lists its keys).\n",
    .specs = specs};

static json_t *words_json(const struct definition_words *words)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < words->count; i++)
        json_array_append_new(array, control_text(words->word[i]));
    return array;
}

static json_t *fields_json(const struct definition *d, const struct definition_field *field);

/* What a key has; NULL: nothing. */
static json_t *field_json(const struct definition *d, const struct definition_field *field)
{
    const void *at = (const char *)d + field->offset;

    switch (field->kind) {
    case DEFINITION_TEXT:
    case DEFINITION_NAME:
    case DEFINITION_USER:
    case DEFINITION_RESTART:
    case DEFINITION_MAC: return *(char *const *)at ? control_text(*(char *const *)at) : NULL;
    case DEFINITION_MEMORY:
        return *(const uint64_t *)at ? json_integer((json_int_t) * (const uint64_t *)at) : NULL;
    case DEFINITION_CPUS:
    case DEFINITION_PORT: return *(const unsigned *)at ? json_integer(*(const unsigned *)at) : NULL;
    case DEFINITION_WORDS:
        return ((const struct definition_words *)at)->count ? words_json(at) : NULL;
    case DEFINITION_GROUP: return fields_json(d, field->group);
    }
    return NULL;
}

static json_t *fields_json(const struct definition *d, const struct definition_field *field)
{
    json_t *object = json_object();

    for (; field->key; field++) {
        json_t *value = field_json(d, field);

        if (json_is_object(value) && json_object_size(value) == 0) {
            json_decref(value);
            value = NULL;
        }
        if (value)
            json_object_set_new(object, field->key, value);
    }
    return object;
}

static int print_json(const char *name, const char *folder, const struct definition *d)
{
    struct live live = {.name = name};
    json_t *all = json_pack("{s:s, s:o, s:o}", "name", name, "folder", control_text(folder),
                            "definition", fields_json(d, definition_fields));
    int ret;

    live_ask(&live, 1);
    if (live.state)
        json_object_set_new(all, "state", live.state);
    ret = all ? json_dumpf(all, stdout, JSON_INDENT(2)) : -1;
    putchar('\n');
    json_decref(all);
    return ret;
}

static int show(const char *name, bool as_json, struct error *err)
{
    char folder[PATH_MAX], file[PATH_MAX], *text;
    struct definition definition = {0};
    int ret = registry_definition(name, folder, file, err);

    if (!ret)
        ret = definition_load(file, &definition, err);
    if (ret)
        return ret;
    text = as_json ? NULL : definition_text(&definition, err);
    if (as_json && print_json(name, folder, &definition) < 0)
        ret = error_set(err, ENOMEM, "out of memory");
    else if (!as_json && !text)
        ret = -err->code;
    if (text)
        fputs(text, stdout);
    free(text);
    definition_free(&definition);
    return ret;
}

int cmd_show(char **argv)
{
    struct argument_words words = {.names = "NAME", .least = 1, .most = 1};
    bool as_json = false;
    const struct argument_setting settings[] = {[OPT_JSON] = {.flag = &as_json}, [OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words);
    struct error err = {0};

    if (status != ARGUMENTS_GO_ON)
        return status;
    if (show(words.word[0], as_json, &err) < 0) {
        complain("%s", err.text);
        return STATUS_ERROR;
    }
    return finish_output(0);
}
