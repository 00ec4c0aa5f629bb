/*
 * The command lines of commands with few options.
 */
#include "cli/arguments.h"

#include <stdio.h>
#include <string.h>

static bool add_word(struct argument_words *words, const char *word)
{
    if (words->count == words->most) {
        complain("unexpected argument '%s' (there is to be: %s)", word, words->names);
        return false;
    }
    words->word[words->count++] = word;
    return true;
}

static int help(const struct arguments *arguments)
{
    puts(arguments->usage);
    options_help(arguments->specs);
    return finish_output(0);
}

int arguments_read(const struct arguments *arguments, const struct argument_setting *settings,
                   char **argv, struct argument_words *words)
{
    struct options options = {.command = arguments->name,
                              .specs = arguments->specs,
                              .argv = argv + 1,
                              .letters = arguments->letters,
                              .words = true,
                              .takes_command = arguments->takes_command};
    const char *value = NULL;
    int option;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL || (option == OPTIONS_WORD && !add_word(words, value)))
            return STATUS_ERROR;
        if (option == OPTIONS_WORD)
            continue;
        if (settings[option].flag)
            *settings[option].flag = true;
        else if (settings[option].value)
            *settings[option].value = value;
        else
            return help(arguments);
    }
    if (*options.argv)
        words->command = options.argv;
    if (arguments->takes_command && !words->command && !strcmp(options.argv[-1], "--"))
        complain("no command after --");
    else if (words->count < words->least)
        complain("too few arguments (there is to be: %s)", words->names);
    else
        return ARGUMENTS_GO_ON;
    return STATUS_ERROR;
}
