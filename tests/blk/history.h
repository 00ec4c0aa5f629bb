/*
 * What was asked of a disk, and when; and what may be read from it after a cut.
 *
 * A cut is the end of a process, or of power, at some moment. What was flushed before must be
 * there. Of what was not flushed, each sector may be there or not. So a sector has candidates: the
 * version that the last flush made sure of, and all that were written over it later.
 *
 *      write v1 |--done|                                 v1 is sure: it is done when the flush
 *                        flush |----done|                begins, and the flush is done
 *      write v2             |------done|                 v2 is a candidate
 *      ---------------------------------- cut --> time   {v1, v2}
 *
 * Moments are numbers of one counter. A history may lie in memory that processes share, and several
 * threads may add to it. Operations on one sector follow each other: the next is begun when the one
 * before is done, by the same thread or behind a barrier.
 */
#ifndef DOPPEL_TESTS_BLK_HISTORY_H
#define DOPPEL_TESTS_BLK_HISTORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum history_kind {
    HISTORY_WRITE,
    HISTORY_ZEROES,
    HISTORY_DISCARD, /* a sector has its old version, or zeros */
    HISTORY_FLUSH,
    HISTORY_REPLACE, /* all sectors get the versions of a table, and that is flushed */
};

struct history_op {
    enum history_kind kind;
    uint32_t version;                 /* WRITE */
    uint32_t table;                   /* REPLACE: the table's number */
    uint64_t first, count;            /* sectors */
    _Atomic uint64_t submitted, done; /* moments; 0: not yet */
};

/* Zero at first but for MOST. */
struct history {
    _Atomic uint64_t now;   /* the last moment */
    _Atomic uint32_t count; /* of operations */
    uint32_t most;
    struct history_op op[];
};

/* Bytes that a history of at most MOST operations takes. */
size_t history_size(uint32_t most);

/* Adds an operation, not yet submitted. NULL: there is no room for another. */
struct history_op *history_add(struct history *history, enum history_kind kind, uint64_t first,
                               uint64_t count);
/* A new moment. Called just before an operation is submitted, and first of all when it is done. */
uint64_t history_moment(struct history *history);

/* What a disk may hold. */
struct candidates;

/* What a disk of SECTORS may hold after a cut right after moment CUT. Before the history it held
 * the versions BASE. TABLES are those that REPLACE names. SETTLED: the cut spares what is done,
 * whether it was flushed or not. */
struct candidates *candidates_after(struct history *history, uint64_t cut, const uint32_t *base,
                                    const uint32_t *const *tables, uint64_t sectors, bool settled);
/* What it holds if nothing is cut: the newest versions only, and those that could not be written.
 */
struct candidates *candidates_now(struct history *history, const uint32_t *base,
                                  const uint32_t *const *tables, uint64_t sectors);
/* How many sectors the changes have, one by one, that such a cut may undo. A REPLACE has all. */
uint64_t history_unsure(struct history *history, uint64_t cut, uint64_t sectors);
bool candidates_have(const struct candidates *candidates, uint64_t sector, uint32_t version);
/* Compares them with what was read. False: something is wrong, and unless QUIET a message about the
 * first sector has been printed. Each version read is also stored in READ, if that is not NULL. */
bool candidates_check(const struct candidates *candidates, const uint8_t *data, uint32_t *read,
                      bool quiet);
void candidates_free(struct candidates *candidates);

#endif
