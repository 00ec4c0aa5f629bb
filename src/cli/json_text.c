/*
 * Writes JSON.
 */
#include "cli/json_text.h"

#include <inttypes.h>

static void write_string(const struct json_text *json, const char *text)
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

static void begin(struct json_text *json, const char *name)
{
    if (json->comma)
        fputs(", ", json->to);
    if (name) {
        write_string(json, name);
        fputs(": ", json->to);
    }
    json->comma = true;
}

void json_text_open(struct json_text *json, const char *name, char bracket)
{
    begin(json, name);
    fputc(bracket, json->to);
    json->comma = false;
}

void json_text_close(struct json_text *json, char bracket)
{
    fputc(bracket, json->to);
    json->comma = true;
}

void json_text_string(struct json_text *json, const char *name, const char *value)
{
    begin(json, name);
    write_string(json, value);
}

void json_text_number(struct json_text *json, const char *name, uint64_t value)
{
    begin(json, name);
    fprintf(json->to, "%" PRIu64, value);
}

void json_text_real(struct json_text *json, const char *name, double value)
{
    begin(json, name);
    fprintf(json->to, "%.3f", value);
}

void json_text_bool(struct json_text *json, const char *name, bool value)
{
    begin(json, name);
    fputs(value ? "true" : "false", json->to);
}
