/*
 * Fields of what a user says of a device, as text: FIELD[,FIELD]... A comma within a field is
 * written as two.
 */
#ifndef DOPPEL_BASE_FIELD_H
#define DOPPEL_BASE_FIELD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Where the field at TEXT ends: at a comma that stands alone, or at the end of the text. */
const char *field_end(const char *text);
/* Takes the field at *TEXT, up to a single comma or the end, and steps behind it: *TEXT becomes
 * NULL at the end. Of two commas, one is kept. The caller frees it. NULL: out of memory. */
char *field_take(const char **text);

/* Returns TEXT as a field has it, with two commas for each. The caller frees it. NULL: out of
 * memory. */
char *field_make(const char *text);

/* Reads decimal digits at *TEXT, a number of at most MOST, and steps behind them. False: there are
 * none, or it is larger. */
bool field_number(const char **text, uint64_t most, uint64_t *number);

/* Reads all of TEXT as an Ethernet address: six pairs of hexadecimal digits with colons between. */
bool field_mac(const char *text, uint8_t mac[6]);

/* What follows PREFIX in TEXT; NULL if TEXT does not begin so. */
static inline const char *field_after(const char *text, const char *prefix)
{
    size_t length = strlen(prefix);

    return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

#endif
