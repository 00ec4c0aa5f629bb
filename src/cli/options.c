/*
 * Option parsing and messages.
 */
#include "cli/cli.h"

#include "base/log.h"
#include "blk/options.h"
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

void complain_of_word(const struct option_spec *spec, const char *word)
{
    while (spec->name)
        spec++;
    if (spec->help)
        complain("unexpected argument '%s' (%s)", word, spec->help);
    else
        complain("unexpected argument '%s'", word);
}

/* The index of the option that WORD, up to LENGTH, is the long or the short name of; -1: of none.
 */
static int find_option(const struct options *options, const char *word, size_t length)
{
    for (int i = 0; options->specs[i].name; i++) {
        const char *name = options->specs[i].name;

        if (word[1] == '-' && strlen(name) == length - 2 && !strncmp(name, word + 2, length - 2))
            return i;
        if (options->letters && length == 2 && word[1] != ' ' && word[1] == options->letters[i])
            return i;
    }
    return -1;
}

/* "-1G" is a word: no option's letter is a digit. */
static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] && !(word[1] >= '0' && word[1] <= '9');
}

/* Whether a word that is no option comes next. */
static bool at_word(struct options *options)
{
    const char *word = *options->argv;

    if (options->words && !options->takes_command && !options->only_words && word &&
        !strcmp(word, "--")) {
        options->only_words = true;
        word = *++options->argv;
    }
    return options->words && word && (options->only_words || !is_option(word));
}

/* The index of the option with that LETTER, or -1. */
static int find_letter(const struct options *options, char letter)
{
    for (int i = 0; options->letters && letter && letter != ' ' && options->specs[i].name; i++)
        if (options->letters[i] == letter)
            return i;
    return -1;
}

/* Option FOUND has been given with the value GIVEN behind a '=', or NULL: then the next word is one
 * if the option needs it. Returns FOUND or OPTIONS_FAIL. */
static int check_value(struct options *options, int found, const char *given, const char **value)
{
    const struct option_spec *spec = &options->specs[found];

    if (!spec->value && given) {
        complain("option '--%s' takes no value", spec->name);
        return OPTIONS_FAIL;
    }
    if (!spec->value)
        return found;
    *value = given ? given : *options->argv;
    if (!*value || (!given && !strcmp(*value, "--"))) {
        complain("option '--%s' needs a value (%s)", spec->name, spec->value);
        return OPTIONS_FAIL;
    }
    if (!given)
        options->argv++;
    return found;
}

/* Option FOUND, given by a letter with REST behind it: its value, or more letters. */
static int letter_option(struct options *options, int found, const char *rest, const char **value)
{
    bool takes_value = options->specs[found].value;

    options->cluster = *rest && !takes_value ? rest : NULL;
    return check_value(options, found, *rest && takes_value ? rest : NULL, value);
}

int options_next(struct options *options, const char **value)
{
    const char *word;
    size_t length;
    int found;

    if (options->cluster) {
        found = find_letter(options, *options->cluster);
        if (found >= 0)
            return letter_option(options, found, options->cluster + 1, value);
        complain("unknown option '-%c' (doppel %s --help lists them)", *options->cluster,
                 options->command);
        return OPTIONS_FAIL;
    }
    if (at_word(options)) {
        *value = *options->argv++;
        return OPTIONS_WORD;
    }
    word = *options->argv;
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
    found = find_option(options, word, length);
    if (found < 0 && (found = find_letter(options, word[1])) >= 0)
        return letter_option(options, found, word + 2, value);
    if (found < 0) {
        complain("unknown option '%s' (doppel %s --help lists them)", word, options->command);
        return OPTIONS_FAIL;
    }
    return check_value(options, found, word[length] ? word + length + 1 : NULL, value);
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
    return text[strspn(text, "0123456789")] && blk_parse_number(text, bytes);
}

bool parse_bytes(const char *text, uint64_t *bytes)
{
    return blk_parse_number(text, bytes);
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

bool parse_wait(const char *text, unsigned *seconds)
{
    if (parse_unsigned(text, 0, 86400, seconds))
        return true;
    complain("--wait: '%s' is not a number of seconds, up to a day", text);
    return false;
}

void quote_for_shell(FILE *to, const char *text)
{
    fputc('\'', to);
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\'", to);
        fputc(*text, to);
    }
    fputc('\'', to);
}
