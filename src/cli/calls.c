/*
 * Asking machines that run.
 */
#include "cli/calls.h"

#include "cli/cli.h"
#include "cli/machine_names.h"
#include "ctl/doppel.h"

#include <stdlib.h>

json_t *call_machine(const char *name, const char *request, json_t *arguments)
{
    return call_machine_within(name, request, arguments, CALL_MS);
}

json_t *call_machine_within(const char *name, const char *request, json_t *arguments, int ms)
{
    struct doppel_error err = {0};
    struct doppel_control *control = doppel_control_open(name, &err);
    char *text = arguments ? json_dumps(arguments, JSON_COMPACT) : NULL, *answer = NULL;
    json_t *result = NULL;

    if (control && doppel_control_call(control, request, text, ms, &answer, &err) == 0)
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
    struct machine_names names;
    int status = machine_names_read(argv, 0, help, &names);

    if (status >= 0)
        return status;
    status = 0;
    for (unsigned i = 0; i < names.count; i++) {
        json_t *result = call_machine(names.name[i], request, NULL);

        if (!result)
            status = STATUS_ERROR;
        json_decref(result);
    }
    machine_names_free(&names);
    return status;
}
