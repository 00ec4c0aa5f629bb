/*
 * The escape keys of a terminal that belongs to a guest: Ctrl-A and one more key.
 */
#ifndef DOPPEL_CON_KEYS_H
#define DOPPEL_CON_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keys {
    bool prefix; /* the last key was Ctrl-A */
};

enum keys_action { KEYS_NONE, KEYS_QUIT, KEYS_HELP, KEYS_DETACH };

/* What KEYS_HELP shows, of a machine that the terminal belongs to and of one that runs without it;
 * every line ends in \r\n, for a terminal in raw mode. */
extern const char keys_help[], keys_help_apart[];

/* Takes the escape sequences out of the SIZE bytes at DATA, in place, and sets SIZE to what is left
 * for the guest. Returns the last action asked for; after KEYS_QUIT and KEYS_DETACH nothing more is
 * looked at. */
enum keys_action keys_filter(struct keys *keys, uint8_t *data, size_t *size);

#endif
