/*
 * Writes JSON (RFC 8259), a value after the other.
 */
#ifndef DOPPEL_CLI_JSON_TEXT_H
#define DOPPEL_CLI_JSON_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json_text {
    FILE *to;
    bool comma; /* something stands before the next value */
};

/* NAME is NULL for the outermost value and in arrays. BRACKET is '{' or '[', or their ends. */
void json_text_open(struct json_text *json, const char *name, char bracket);
void json_text_close(struct json_text *json, char bracket);
void json_text_string(struct json_text *json, const char *name, const char *value);
void json_text_number(struct json_text *json, const char *name, uint64_t value);
void json_text_real(struct json_text *json, const char *name, double value);
void json_text_bool(struct json_text *json, const char *name, bool value);

#endif
