/*
 * Fields of what a user says of a device.
 */
#include "base/field.h"

#include <stdlib.h>

char *field_take(const char **text)
{
    const char *from = *text;
    char *field = malloc(strlen(from) + 1), *to = field;

    if (!field)
        return NULL;
    while (*from && (from[0] != ',' || from[1] == ',')) {
        from += from[0] == ',';
        *to++ = *from++;
    }
    *to = '\0';
    *text = *from ? from + 1 : NULL;
    return field;
}

bool field_number(const char **text, uint64_t most, uint64_t *number)
{
    const char *at = *text;
    uint64_t value = 0;

    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value) || value > most)
            return false;
    }
    if (at == *text)
        return false;
    *text = at;
    *number = value;
    return true;
}
