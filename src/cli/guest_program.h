/*
 * A program of a guest's whose streams this process has: `doppel exec` as a child, which reaches
 * the guest by its agent or by ssh.
 */
#ifndef DOPPEL_CLI_GUEST_PROGRAM_H
#define DOPPEL_CLI_GUEST_PROGRAM_H

#include "base/error.h"
#include "cli/program.h"

#include <pthread.h>

#define GUEST_PROGRAM_WORDS  24   /* at most, of a command */
#define GUEST_PROGRAM_ERRORS 2048 /* bytes of its error output that are kept */

struct guest_place {
    const char *name; /* the machine's */
    const char *user; /* NULL: root */
    const char *wait; /* seconds, as text; NULL: as doppel exec does */
};

struct guest_program {
    const char *name;
    struct program_child child;
    pthread_t reader; /* of its error output */
    char errors[GUEST_PROGRAM_ERRORS];
    size_t errors_size;
};

/* Starts COMMAND, up to a NULL. *PROGRAM must stay where it is. */
int guest_program_start(struct guest_program *program, const struct guest_place *place,
                        const char *const *command, bool input, bool output, struct error *err);
/* Waits for its end, and says what it has complained of, a line each. Returns its exit status. */
int guest_program_end(struct guest_program *program);

#endif
