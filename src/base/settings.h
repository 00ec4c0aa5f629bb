/*
 * Settings, as a user writes them behind what they are about: WHAT[,KEY[=VALUE]]... (field.h).
 *
 * A disk, a network and a shared folder each know their keys and what these mean; how settings are
 * taken apart, and what is wrong with any of them, is here.
 */
#ifndef DOPPEL_BASE_SETTINGS_H
#define DOPPEL_BASE_SETTINGS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct settings {
    const char *thing; /* "disk", ...: messages begin with it, ... */
    const char *name;  /* ... and with which one it is, as soon as that is known */
    const char *const *keys;
    unsigned key_count; /* at most 64 */
    uint64_t repeated;  /* by number of the key: it may be given again */
    uint64_t seen;      /* the same: it has been given */
    struct error *err;  /* what each function that fails fills in */

    /* What settings_parse calls, with OPAQUE. 0 or a negative errno. */
    int (*what)(void *opaque, const char *what);
    /* KEY is the number of one. VALUE is NULL if there is no '='. */
    int (*set)(void *opaque, unsigned key, const char *value);
    void *opaque;
};

/* Takes TEXT apart. Returns 0, or what the first call that failed has returned. */
int settings_parse(struct settings *settings, const char *text);
/* The same for a text that begins with settings. */
int settings_parse_all(struct settings *settings, const char *text);

/* Values of keys. */

/* VALUE is on, off, or NULL, which means on. */
int settings_switch(const struct settings *settings, unsigned key, const char *value, bool *on);
/* VALUE is not empty. *TEXT is replaced by a copy. */
int settings_text(const struct settings *settings, unsigned key, const char *value, char **text);
/* Replaces *STRING by a copy of VALUE. */
int settings_copy(const struct settings *settings, char **string, const char *value);
/* Says that there is no memory. Returns -ENOMEM. */
int settings_no_memory(const struct settings *settings);

#endif
