/*
 * Jumps that are rarely taken, noted until the code that they lead to is emitted (edges.c).
 */
#include "cpu/bt/translate.h"

unsigned instructions_left(const struct translation *t)
{
    return (unsigned)t->now->first + t->now->count - t->i;
}

static struct cold *cold_new(struct translation *t, uint8_t *jump, enum cold_kind kind)
{
    struct cold *c = &t->cold[t->colds];

    if (t->colds == COLDS - 1)
        t->e.full = true; /* and the last one is overwritten */
    else
        t->colds++;
    *c = (struct cold){.jump = jump, .kind = kind, .index = (uint16_t)t->i};
    return c;
}

void cold_add_fill(struct translation *t, uint8_t *jump, const struct address *a, unsigned size,
                   const struct range *k, const uint8_t *retry)
{
    struct cold *c = cold_new(t, jump, COLD_FILL);

    c->address = *a;
    c->size = (uint8_t)size;
    c->write = k->write;
    c->low = k->low;
    c->high = k->high;
    c->retry = retry;
    c->left = (uint8_t)instructions_left(t);
}

void cold_add_one(struct translation *t, uint8_t *jump)
{
    cold_new(t, jump, COLD_ONE)->left = (uint8_t)instructions_left(t);
}

void cold_add_target(struct translation *t, uint8_t *jump, enum cold_kind kind, int64_t target)
{
    cold_new(t, jump, kind)->target = target;
}
