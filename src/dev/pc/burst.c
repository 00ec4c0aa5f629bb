/*
 * Output in bursts: handed on when the buffer is full or the oldest byte has waited long enough.
 */
#include "dev/pc/burst.h"

#include <stdlib.h>

#define BURST_SIZE 256
#define BURST_NS   200000 /* shorter than anybody notices, longer than a driver's loop */

struct burst {
    struct clock *clock;
    struct timer *timer;
    struct burst_backend backend;
    size_t count;
    uint8_t bytes[BURST_SIZE];
};

void burst_flush(struct burst *b)
{
    size_t count = b->count;

    b->count = 0;
    if (count && b->backend.output)
        b->backend.output(b->backend.opaque, b->bytes, count);
}

bool burst_full(const struct burst *b)
{
    return b->backend.full && b->backend.full(b->backend.opaque);
}

static void timer_fired(void *opaque)
{
    burst_flush(opaque);
}

struct burst *burst_create(struct clock *clock, const struct burst_backend *backend)
{
    struct burst *b = calloc(1, sizeof(*b));

    if (!b)
        return NULL;
    b->clock = clock;
    b->backend = *backend;
    b->timer = timer_create_on(clock, timer_fired, b);
    if (!b->timer) {
        free(b);
        return NULL;
    }
    return b;
}

void burst_free(struct burst *b)
{
    if (!b)
        return;
    timer_free(b->timer);
    burst_flush(b);
    free(b);
}

bool burst_put(struct burst *b, uint8_t byte)
{
    b->bytes[b->count++] = byte;
    /* What the timer hands on makes no vCPU wait, so a full backend is noticed at the next byte. */
    if (b->count == BURST_SIZE || burst_full(b))
        burst_flush(b);
    else if (b->count == 1)
        timer_arm(b->timer, clock_now(b->clock) + BURST_NS);
    return burst_full(b);
}
