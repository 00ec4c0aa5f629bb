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
