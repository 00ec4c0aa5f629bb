/*
 * The escape keys of a terminal that belongs to a guest.
 */
#include "con/keys.h"

#define CTRL_A 1

const char keys_help[] = "\r\n"
                         "Ctrl-A X       end the virtual machine at once\r\n"
                         "Ctrl-A H       list these keys\r\n"
                         "Ctrl-A Ctrl-A  type Ctrl-A\r\n";

const char keys_help_apart[] = "\r\n"
                               "Ctrl-A D       leave the console; the virtual machine runs on\r\n"
                               "Ctrl-A H       list these keys\r\n"
                               "Ctrl-A Ctrl-A  type Ctrl-A\r\n";

enum keys_action keys_filter(struct keys *keys, uint8_t *data, size_t *size)
{
    enum keys_action action = KEYS_NONE;
    size_t kept = 0;

    for (size_t i = 0; i < *size; i++) {
        uint8_t key = data[i];

        if (!keys->prefix) {
            if (key == CTRL_A)
                keys->prefix = true;
            else
                data[kept++] = key;
            continue;
        }
        keys->prefix = false;
        switch (key) {
        case 'x':
        case 'X': *size = kept; return KEYS_QUIT;
        case 'd':
        case 'D': *size = kept; return KEYS_DETACH;
        case 'h':
        case 'H': action = KEYS_HELP; break;
        case CTRL_A: data[kept++] = CTRL_A; break;
        default: break; /* no such key: swallowed, like a mistyped one */
        }
    }
    *size = kept;
    return action;
}
