/*
 * What was asked of a disk, and what may be read from it after a cut.
 */
#include "history.h"

#include "pattern.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

size_t history_size(uint32_t most)
{
    return sizeof(struct history) + most * sizeof(struct history_op);
}

struct history_op *history_add(struct history *history, enum history_kind kind, uint64_t first,
                               uint64_t count)
{
    uint32_t index = atomic_fetch_add(&history->count, 1);
    struct history_op *op = &history->op[index];

    if (index >= history->most) {
        atomic_fetch_sub(&history->count, 1);
        return NULL;
    }
    op->kind = kind;
    op->first = first;
    op->count = count;
    return op;
}

uint64_t history_moment(struct history *history)
{
    return atomic_fetch_add(&history->now, 1) + 1;
}

/* How many operations there are. A thread that was killed in history_add may have counted one for
 * which there was no room. */
static uint32_t count_of(struct history *history)
{
    uint32_t count = atomic_load(&history->count);

    return count < history->most ? count : history->most;
}

/* A list of versions for each sector. The nodes lie in one array. */
struct candidate {
    uint32_t version, next; /* NEXT is an index; NO_NEXT: this is the last */
};
#define NO_NEXT UINT32_MAX

struct candidates {
    uint64_t sectors;
    uint32_t *head; /* by sector */
    struct candidate *node;
    uint32_t nodes, room;
};

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

static void add_candidate(struct candidates *c, uint64_t sector, uint32_t version, bool only)
{
    if (c->nodes == c->room) {
        c->room = 2 * c->room + 1024;
        c->node = must(realloc(c->node, c->room * sizeof(*c->node)));
    }
    c->node[c->nodes] = (struct candidate){version, only ? NO_NEXT : c->head[sector]};
    c->head[sector] = c->nodes++;
}

/* ONLY: what was there before OP is gone for sure. */
static void add_op(struct candidates *c, const struct history_op *op, const uint32_t *const *tables,
                   bool only)
{
    switch (op->kind) {
    case HISTORY_WRITE:
    case HISTORY_ZEROES:
        for (uint64_t i = op->first; i < op->first + op->count; i++)
            add_candidate(c, i, op->kind == HISTORY_WRITE ? op->version : 0, only);
        return;
    case HISTORY_DISCARD:
        for (uint64_t i = op->first; i < op->first + op->count; i++)
            add_candidate(c, i, 0, false);
        return;
    case HISTORY_REPLACE:
        for (uint64_t i = 0; i < c->sectors; i++)
            add_candidate(c, i, tables[op->table][i], only);
        return;
    default: return;
    }
}

/* Whether OP was done at CUT. */
static bool was_done(struct history_op *op, uint64_t cut)
{
    uint64_t done = atomic_load(&op->done);

    return done && done <= cut;
}

/* All that was done before this moment is on the disk. */
static uint64_t sure_before(struct history *history, uint64_t cut)
{
    uint64_t sure = 0;

    for (uint32_t i = 0; i < count_of(history); i++) {
        struct history_op *op = &history->op[i];
        uint64_t from = 0;

        if (op->kind == HISTORY_FLUSH && was_done(op, cut))
            from = atomic_load(&op->submitted);
        if (op->kind == HISTORY_REPLACE && was_done(op, cut))
            from = atomic_load(&op->done) + 1;
        sure = from > sure ? from : sure;
    }
    return sure;
}

static struct candidates *create(const uint32_t *base, uint64_t sectors)
{
    struct candidates *c = must(calloc(1, sizeof(*c)));

    c->sectors = sectors;
    c->head = must(calloc(sectors, sizeof(*c->head)));
    for (uint64_t i = 0; i < sectors; i++)
        add_candidate(c, i, base[i], true);
    return c;
}

struct candidates *candidates_after(struct history *history, uint64_t cut, const uint32_t *base,
                                    const uint32_t *const *tables, uint64_t sectors, bool settled)
{
    struct candidates *c = create(base, sectors);
    uint64_t sure = settled ? cut + 1 : sure_before(history, cut);

    for (uint32_t i = 0; i < count_of(history); i++) {
        struct history_op *op = &history->op[i];
        uint64_t submitted = atomic_load(&op->submitted), done = atomic_load(&op->done);

        if (submitted && submitted <= cut)
            add_op(c, op, tables, done && done < sure);
    }
    return c;
}

struct candidates *candidates_now(struct history *history, const uint32_t *base,
                                  const uint32_t *const *tables, uint64_t sectors)
{
    struct candidates *c = create(base, sectors);

    for (uint32_t i = 0; i < count_of(history); i++)
        if (atomic_load(&history->op[i].submitted))
            add_op(c, &history->op[i], tables, atomic_load(&history->op[i].done));
    return c;
}

uint64_t history_unsure(struct history *history, uint64_t cut, uint64_t sectors)
{
    uint64_t sure = sure_before(history, cut), count = 0;

    for (uint32_t i = 0; i < count_of(history); i++) {
        struct history_op *op = &history->op[i];
        uint64_t submitted = atomic_load(&op->submitted), done = atomic_load(&op->done);

        if (submitted && submitted <= cut && !(done && done < sure))
            count += op->kind == HISTORY_REPLACE ? sectors : op->count;
    }
    return count;
}

bool candidates_have(const struct candidates *candidates, uint64_t sector, uint32_t version)
{
    uint32_t at = candidates->head[sector];

    while (at != NO_NEXT && candidates->node[at].version != version)
        at = candidates->node[at].next;
    return at != NO_NEXT;
}

static void complain(const struct candidates *candidates, uint64_t sector, uint32_t version)
{
    if (version == PATTERN_NONE)
        printf("sector %" PRIu64 " holds nothing that was ever written to it; it may hold", sector);
    else
        printf("sector %" PRIu64 " holds version %" PRIu32 "; it may hold", sector, version);
    for (uint32_t at = candidates->head[sector]; at != NO_NEXT; at = candidates->node[at].next)
        printf(" %" PRIu32, candidates->node[at].version);
    putchar('\n');
}

bool candidates_check(const struct candidates *candidates, const uint8_t *data, uint32_t *read,
                      bool quiet)
{
    uint64_t wrong = 0;

    for (uint64_t i = 0; i < candidates->sectors; i++) {
        uint32_t version = pattern_version(data + i * SECTOR, i);

        if (read)
            read[i] = version;
        if (!candidates_have(candidates, i, version) && !wrong++ && !quiet)
            complain(candidates, i, version);
    }
    if (wrong > 1 && !quiet)
        printf("and %" PRIu64 " more sectors are wrong\n", wrong - 1);
    return !wrong;
}

void candidates_free(struct candidates *candidates)
{
    if (!candidates)
        return;
    free(candidates->head);
    free(candidates->node);
    free(candidates);
}
