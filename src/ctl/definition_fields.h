/*
 * Which keys a definition has, for those who read and write it (definition_read.c, _write.c).
 */
#ifndef DOPPEL_CTL_DEFINITION_FIELDS_H
#define DOPPEL_CTL_DEFINITION_FIELDS_H

#include "ctl/definition.h"

enum definition_kind {
    DEFINITION_TEXT,
    DEFINITION_NAME,    /* a text that is a name */
    DEFINITION_USER,    /* a text that is a user's name */
    DEFINITION_MAC,     /* a text that is the address of a network card */
    DEFINITION_RESTART, /* a text: no, on-failure or always */
    DEFINITION_MEMORY,  /* uint64_t */
    DEFINITION_CPUS,    /* unsigned */
    DEFINITION_PORT,    /* unsigned */
    DEFINITION_WORDS,   /* struct definition_words */
    DEFINITION_GROUP,   /* keys of their own, one level below */
};

struct definition_field {
    const char *key; /* NULL behind the last one */
    enum definition_kind kind;
    size_t offset; /* in struct definition */
    const struct definition_field *group;
};

/* In the order in which they are written. */
extern const struct definition_field definition_fields[];

/* Whether TEXT is six pairs of hexadecimal digits with colons, and the address of one card; which
 * MAC is then set to. */
bool definition_parse_mac(const char *text, uint8_t mac[6]);

#endif
