/*
 * Writes JSON.
 */
#include "cli/json.h"

#include <inttypes.h>

static void write_string(const struct json *json, const char *text)
{
    fputc('"', json->to);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            fprintf(json->to, "\\%c", c);
        else if (c < 0x20)
            fprintf(json->to, "\\u%04x", c);
        else
            fputc(c, json->to);
    }
    fputc('"', json->to);
}

static void begin(struct json *json, const char *name)
{
    if (json->comma)
        fputs(", ", json->to);
    if (name) {
        write_string(json, name);
        fputs(": ", json->to);
    }
    json->comma = true;
}

void json_open(struct json *json, const char *name, char bracket)
{
    begin(json, name);
    fputc(bracket, json->to);
    json->comma = false;
}

void json_close(struct json *json, char bracket)
{
    fputc(bracket, json->to);
    json->comma = true;
}

void json_string(struct json *json, const char *name, const char *value)
{
    begin(json, name);
    write_string(json, value);
}

void json_number(struct json *json, const char *name, uint64_t value)
{
    begin(json, name);
    fprintf(json->to, "%" PRIu64, value);
}

void json_real(struct json *json, const char *name, double value)
{
    begin(json, name);
    fprintf(json->to, "%.3f", value);
}

void json_bool(struct json *json, const char *name, bool value)
{
    begin(json, name);
    fputs(value ? "true" : "false", json->to);
}
