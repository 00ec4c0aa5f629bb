/*
 * What a client of the agent wants.
 */
#include "request.h"
#include "../agent_protocol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What stands behind KEY in TEXT, or NULL. */
static char *value_of(char *text, const char *key)
{
    size_t length = strlen(key);

    return strncmp(text, key, length) ? NULL : text + length;
}

static bool set_wish(struct agent_request *request, const char *value)
{
    static const char *const wishes[] = {
        [AGENT_EXEC] = "exec", [AGENT_ADDRESSES] = "addresses", [AGENT_SHUTDOWN] = "shutdown"};

    for (unsigned i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++)
        if (!strcmp(value, wishes[i])) {
            request->wish = (enum agent_wish)i;
            return true;
        }
    return false;
}

static bool set_terminal(struct agent_request *request, const char *value)
{
    request->terminal = true;
    return sscanf(value, "%5u,%5u", &request->rows, &request->columns) == 2 &&
           request->rows <= UINT16_MAX && request->columns <= UINT16_MAX;
}

/* False if TEXT says nothing that this version knows. */
static bool set(struct agent_request *request, char *text)
{
    char *value;

    if ((value = value_of(text, "arg=")))
        request->argv[request->argc++] = value;
    else if ((value = value_of(text, "env=")) && *value != '=' && strchr(value, '='))
        request->env[request->envc++] = value;
    else if ((value = value_of(text, "folder=")))
        request->folder = value;
    else if ((value = value_of(text, "user=")))
        request->user = value;
    else if ((value = value_of(text, "terminal=")))
        return set_terminal(request, value);
    else
        return false;
    return true;
}

/* The first string after TEXT; END if there is none. */
static char *next(char *text, char *end)
{
    size_t size = strlen(text) + 1;

    return size < (size_t)(end - text) ? text + size : end;
}

int agent_request_parse(char *text, size_t size, struct agent_request *request)
{
    char *end = text + size, *at, *value;
    size_t count = 0;

    *request = (struct agent_request){0};
    if (size == 0 || end[-1])
        return -EINVAL;
    if (strcmp(text, AGENT_MAGIC) != 0)
        return -EPROTO;
    at = next(text, end);
    value = at < end ? value_of(at, "request=") : NULL;
    if (!value || !set_wish(request, value))
        return -EINVAL;
    for (char *each = at; each < end; each = next(each, end))
        count++;
    request->argv = calloc(count + 1, sizeof(char *));
    request->env = calloc(count + 1, sizeof(char *));
    if (!request->argv || !request->env) {
        agent_request_free(request);
        return -ENOMEM;
    }
    for (at = next(at, end); at < end; at = next(at, end))
        if (!set(request, at)) {
            agent_request_free(request);
            return -EINVAL;
        }
    return 0;
}

void agent_request_free(struct agent_request *request)
{
    free(request->argv);
    free(request->env);
    request->argv = request->env = NULL;
}
