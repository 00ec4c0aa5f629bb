/*
 * Descriptions of devices, as they stand on the command line: NAME[,KEY=VALUE...]. A comma that
 * belongs to a value is doubled.
 *
 * The board alone knows what they mean; everyone else hands them on unchanged.
 */
#ifndef DOPPEL_VM_DESCRIPTION_H
#define DOPPEL_VM_DESCRIPTION_H

#include "base/error.h"

#include <stdbool.h>

/* Whether TEXT describes a device called NAME. */
bool description_is(const char *text, const char *name);
/* Checks that TEXT is a name and settings, each of a key in KEYS (up to a NULL; KEYS may be NULL),
 * none twice. */
int description_check(const char *text, const char *const *keys, struct error *err);
/* Sets VALUE if TEXT has a setting KEY, which must be there once and be a decimal number from LEAST
 * to MOST. */
int description_number(const char *text, const char *key, unsigned least, unsigned most,
                       unsigned *value, struct error *err);
/* Returns the settings of TEXT but for those with a key in KEYS (up to a NULL), as they stand there
 * and with commas between them: what another reader of settings is given. The caller frees it.
 * NULL: there is no memory. */
char *description_rest(const char *text, const char *const *keys, struct error *err);
/* Calls EACH with all settings of TEXT in their order, commas undoubled, until one returns a
 * negative errno, which is then returned. */
int description_each(const char *text,
                     int (*each)(void *opaque, const char *key, const char *value,
                                 struct error *err),
                     void *opaque, struct error *err);

#endif
