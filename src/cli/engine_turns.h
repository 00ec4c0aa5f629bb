/*
 * Engines by name, and `doppel run --switch-engine`, which has a machine's engines take turns.
 */
#ifndef DOPPEL_CLI_ENGINE_TURNS_H
#define DOPPEL_CLI_ENGINE_TURNS_H

#include "base/log.h"
#include "ctl/doppel.h"

#include <stdbool.h>

/* Sets *ENGINE to the one called NAME. OPTION is for the message when there is none. */
bool engine_named(const char *option, const char *name, enum doppel_engine *engine);

#define ENGINE_TURNS_MOST 8

/* Which engines, in order, and how long each has the machine. */
struct engine_turns_plan {
    enum doppel_engine engine[ENGINE_TURNS_MOST];
    unsigned count; /* 0: they do not take turns */
    unsigned ms;
};

/* Reads LIST@TIME, as in "bt,interp@5s"; complains if TEXT is something else. */
bool engine_turns_parse(const char *text, struct engine_turns_plan *plan);

/* The engine under which a machine is to be made so that its processors have nothing that one of
 * PLAN's engines cannot give them: the first one, or KVM, which depends on the host's. */
enum doppel_engine engine_turns_maker(const struct engine_turns_plan *plan);

struct engine_turns;

/* Starts a thread that gives VM, which has the first engine of PLAN, the next one each time its
 * time is up. NULL: a message has been printed. LOG and VM must stay until engine_turns_end. */
struct engine_turns *engine_turns_begin(const struct engine_turns_plan *plan, struct doppel_vm *vm,
                                        const struct log *log);
/* Ends the thread, also of a machine that has ended, and says what has failed. TURNS may be NULL.
 */
void engine_turns_end(struct engine_turns *turns);

#endif
