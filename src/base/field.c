/*
 * Fields of what a user says of a device.
 */
#include "base/field.h"

#include <stdlib.h>

const char *field_end(const char *text)
{
    text += strcspn(text, ",");
    while (text[0] == ',' && text[1] == ',')
        text += 2 + strcspn(text + 2, ",");
    return text;
}

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

char *field_make(const char *text)
{
    char *field = malloc(2 * strlen(text) + 1), *to = field;

    if (!field)
        return NULL;
    for (; *text; text++) {
        if (*text == ',')
            *to++ = ',';
        *to++ = *text;
    }
    *to = '\0';
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

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool field_mac(const char *text, uint8_t mac[6])
{
    for (unsigned i = 0; i < 6; i++, text += 3) {
        int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);

        if (low < 0 || text[2] != (i < 5 ? ':' : '\0'))
            return false;
        mac[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
