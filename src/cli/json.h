/*
 * Writes JSON (RFC 8259), a value after the other.
 */
#ifndef DOPPEL_CLI_JSON_H
#define DOPPEL_CLI_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
    FILE *to;
    bool comma; /* something stands before the next value */
};

/* NAME is NULL for the outermost value and in arrays. BRACKET is '{' or '[', or their ends. */
void json_open(struct json *json, const char *name, char bracket);
void json_close(struct json *json, char bracket);
void json_string(struct json *json, const char *name, const char *value);
void json_number(struct json *json, const char *name, uint64_t value);
void json_real(struct json *json, const char *name, double value);
void json_bool(struct json *json, const char *name, bool value);

#endif
