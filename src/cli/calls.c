/*
 * Asking machines that run.
 */
#include "cli/calls.h"

#include "cli/cli.h"
#include "ctl/doppel.h"

#include <stdio.h>
#include <stdlib.h>

json_t *call_machine(const char *name, const char *request, json_t *arguments)
{
    struct doppel_error err = {0};
    struct doppel_control *control = doppel_control_open(name, &err);
    char *text = arguments ? json_dumps(arguments, JSON_COMPACT) : NULL, *answer = NULL;
    json_t *result = NULL;

    if (control && doppel_control_call(control, request, text, CALL_MS, &answer, &err) == 0)
        result = json_loads(answer, 0, NULL);
    if (!result)
        complain("%s", *err.text ? err.text : "the machine's process sends what is no answer");
    doppel_control_close(control);
    free(answer);
    free(text);
    json_decref(arguments);
    return result;
}

int call_each(char **argv, const char *request, const char *help)
{
    static const struct option_spec specs[] = {{"help", NULL, "show this"}, {NULL, NULL, NULL}};
    struct options options = {.command = argv[0], .specs = specs, .argv = argv + 1, .words = true};
    const char *value = NULL;
    char **names = argv + 1;
    unsigned count = 0;
    int option, status = 0;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return STATUS_ERROR;
        if (option != OPTIONS_WORD) {
            fputs(help, stdout);
            putchar('\n');
            options_help(specs);
            return finish_output(0);
        }
        names[count++] = (char *)(uintptr_t)value;
    }
    if (count == 0)
        complain("no name of a machine (doppel list shows those there are)");
    for (unsigned i = 0; i < count; i++) {
        json_t *result = call_machine(names[i], request, NULL);

        if (!result)
            status = STATUS_ERROR;
        json_decref(result);
    }
    return count ? status : STATUS_ERROR;
}
