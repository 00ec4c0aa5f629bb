/*
 * Where a thread of this process is: what is said of one that does not come to its end.
 *
 * The thread is asked by a signal. The handler writes down the program counter and the top of the
 * stack; whoever asked makes names of functions of them. Neither side allocates, and no lock is
 * taken but the dynamic loader's (by dladdr), so it does not matter what else the thread holds. The
 * handler uses no thread-local storage and runs on the alternate stack, so it does not matter
 * either what the thread's FS and RSP are.
 */
#ifndef DOPPEL_BASE_WHERE_H
#define DOPPEL_BASE_WHERE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* SIGSTKFLT, which Linux numbers and never sends. Threads that can be asked must not block it. */
#define WHERE_SIGNAL 16

#define WHERE_WORDS 1024

/* Whose turn it is to use what a thread has written down: the thread writes only when it is asked,
 * and what it has written stays until it is asked again. */
enum where_turn { WHERE_UNASKED, WHERE_ASKED, WHERE_ANSWERED };

/* Zeroed at first. Lives until nobody can ask any more. */
struct where {
    _Atomic int thread; /* its number in the kernel; 0: there is none, or no longer */
    uintptr_t stack_start, stack_end;
    _Atomic int turn; /* enum where_turn */
    uintptr_t counter;
    unsigned words;
    uintptr_t word[WHERE_WORDS]; /* the stack, from its top on */
};

/* On the thread itself: from when to when it can be asked. The end blocks WHERE_SIGNAL in it for
 * good. If the signal's handler cannot be installed, the thread is one that nobody can ask. */
void where_begin(struct where *where);
void where_end(struct where *where);

/* Asks the thread. False: there is no thread. One thread at a time asks and describes. */
bool where_ask(struct where *where);
/* Whether it has answered since. */
bool where_has_answered(const struct where *where);
/* Writes the functions that a thread which has answered was in, innermost first: "a < b < c". */
void where_describe(const struct where *where, char *text, size_t size);

#endif
