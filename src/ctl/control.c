/*
 * The protocol of control sockets.
 */
#include "ctl/control.h"

#include "base/log.h"
#include "ctl/doppel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MOST  64  /* bytes of a request's name */
#define ERRNO_MOST 200 /* Linux has none above 133 */

static int refuse(struct control_request *request, struct error *err, const char *what)
{
    control_request_free(request);
    return error_set(err, EINVAL, "%s", what);
}

int control_request_parse(const char *text, size_t size, struct control_request *request,
                          struct error *err)
{
    const json_t *id, *name;

    *request = (struct control_request){0};
    request->line = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(request->line))
        return refuse(request, err, "a line is no JSON object");
    id = json_object_get(request->line, "id");
    name = json_object_get(request->line, "request");
    request->arguments = json_object_get(request->line, "arguments");
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) > CONTROL_ID_MOST)
        return refuse(request, err, "a request has no number as its id");
    if (!json_is_string(name) || json_string_length(name) > NAME_MOST)
        return refuse(request, err, "a line has no request");
    if (request->arguments && !json_is_object(request->arguments))
        return refuse(request, err, "the arguments of a request are no object");
    request->id = json_integer_value(id);
    request->name = json_string_value(name);
    return 0;
}

void control_request_free(struct control_request *request)
{
    json_decref(request->line);
    *request = (struct control_request){0};
}

int control_argument(const struct control_request *request, const char *name, double least,
                     double most, double *value, struct error *err)
{
    const json_t *given = json_object_get(request->arguments, name);

    if (!given)
        return 0;
    if (!json_is_number(given) || json_number_value(given) < least ||
        json_number_value(given) > most)
        return error_set(err, EINVAL, "the argument '%s' is no number from %g to %g", name, least,
                         most);
    *value = json_number_value(given);
    return 0;
}

json_t *control_text(const char *text)
{
    json_t *value;
    char *clean = strdup(text);

    if (!clean)
        return NULL;
    log_clean(clean);
    value = json_string(clean);
    for (char *at = clean; !value && *at; at++)
        if ((unsigned char)*at > 0x7e)
            *at = '?';
    if (!value)
        value = json_string(clean);
    free(clean);
    return value;
}

json_t *control_hello(const char *name)
{
    return json_pack("{s:s, s:i, s:o}", "doppel", doppel_version(), "protocol", CONTROL_PROTOCOL,
                     "name", control_text(name));
}

json_t *control_result(int64_t id, json_t *result)
{
    return json_pack("{s:I, s:o}", "id", (json_int_t)id, "result", result);
}

json_t *control_failure(int64_t id, int code, const char *message)
{
    const char *name = strerrorname_np(code);

    return json_pack("{s:I, s:{s:s, s:o}}", "id", (json_int_t)id, "error", "code",
                     name ? name : "EIO", "message", control_text(message));
}

char *control_line(json_t *line)
{
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL, *longer = NULL;
    size_t size = text ? strlen(text) : 0;

    json_decref(line);
    if (text && size + 1 < CONTROL_LINE_MOST)
        longer = realloc(text, size + 2);
    if (!longer) {
        free(text);
        return NULL;
    }
    longer[size] = '\n';
    longer[size + 1] = '\0';
    return longer;
}

int control_errno(const char *code)
{
    for (int i = 1; i < ERRNO_MOST; i++) {
        const char *name = strerrorname_np(i);

        if (name && !strcmp(name, code))
            return i;
    }
    return EPROTO;
}
