/*
 * Option parsing and messages.
 */
#include "cli/cli.h"

#include "base/log.h"
#include "ctl/doppel.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void complain(const char *format, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    log_clean(text); /* a file's name may hold anything */
    fprintf(stderr, "doppel: %s\n", text);
}

int finish_output(int status)
{
    bool failed = ferror(stdout);

    if (fflush(stdout) || failed) {
        complain("cannot write standard output: %s", strerror(errno));
        return STATUS_ERROR;
    }
    return status;
}

/* WORD is no option. */
static void complain_of_word(const struct option_spec *spec, const char *word)
{
    while (spec->name)
        spec++;
    if (spec->help)
        complain("unexpected argument '%s' (%s)", word, spec->help);
    else
        complain("unexpected argument '%s'", word);
}

int options_next(struct options *options, const char **value)
{
    const char *word = *options->argv;
    size_t length;

    if (!word)
        return OPTIONS_END;
    options->argv++;
    if (!strcmp(word, "--"))
        return OPTIONS_END;
    if (word[0] != '-') {
        complain_of_word(options->specs, word);
        return OPTIONS_FAIL;
    }
    if (!strcmp(word, "-h"))
        word = "--help";
    length = strcspn(word, "=");
    for (int i = 0; options->specs[i].name && word[1] == '-'; i++) {
        const struct option_spec *spec = &options->specs[i];

        if (strlen(spec->name) != length - 2 || strncmp(spec->name, word + 2, length - 2) != 0)
            continue;
        if (!spec->value && word[length]) {
            complain("option '--%s' takes no value", spec->name);
            return OPTIONS_FAIL;
        }
        if (spec->value)
            *value = word[length] ? word + length + 1 : *options->argv;
        if (spec->value && !*value) {
            complain("option '--%s' needs a value (%s)", spec->name, spec->value);
            return OPTIONS_FAIL;
        }
        if (spec->value && !word[length])
            options->argv++;
        return i;
    }
    complain("unknown option '%s' (doppel %s --help lists them)", word, options->command);
    return OPTIONS_FAIL;
}

void options_help(const struct option_spec *specs)
{
    for (; specs->name; specs++) {
        char left[64];

        snprintf(left, sizeof(left), "--%s%s%s", specs->name, specs->value ? " " : "",
                 specs->value ? specs->value : "");
        printf("  %-22s %s\n", left, specs->help);
    }
}

bool parse_size(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    const char *unit;
    char *end;
    unsigned shift;
    uint64_t number;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    number = strtoull(text, &end, 10);
    unit = *end ? strchr(units, *end) : NULL;
    if (errno || !unit || (end[1] && strcmp(end + 1, "B") != 0 && strcmp(end + 1, "iB") != 0))
        return false;
    shift = 10 * (unsigned)(unit - units + 1);
    if (number > UINT64_MAX >> shift)
        return false;
    *bytes = number << shift;
    return true;
}

bool parse_unsigned(const char *text, unsigned least, unsigned most, unsigned *value)
{
    char *end;
    unsigned long number;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    number = strtoul(text, &end, 10);
    if (errno || *end || number < least || number > most)
        return false;
    *value = (unsigned)number;
    return true;
}
