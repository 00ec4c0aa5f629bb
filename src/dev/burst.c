/*
 * Output in bursts: handed on when the buffer is full or the oldest byte has waited long enough.
 */
#include "dev/burst.h"

#include <stdlib.h>

#define BURST_SIZE 256
#define BURST_NS   200000 /* shorter than anybody notices, longer than a driver's loop */

struct burst {
    struct clock *clock;
    struct timer *timer;
    void (*output)(void *opaque, const void *data, size_t size);
    void *opaque;
    size_t count;
    uint8_t bytes[BURST_SIZE];
};

void burst_flush(struct burst *b)
{
    size_t count = b->count;

    b->count = 0;
    if (count && b->output)
        b->output(b->opaque, b->bytes, count);
}

static void timer_fired(void *opaque)
{
    burst_flush(opaque);
}

struct burst *burst_create(struct clock *clock,
                           void (*output)(void *opaque, const void *data, size_t size),
                           void *opaque)
{
    struct burst *b = calloc(1, sizeof(*b));

    if (!b)
        return NULL;
    b->clock = clock;
    b->output = output;
    b->opaque = opaque;
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

void burst_put(struct burst *b, uint8_t byte)
{
    b->bytes[b->count++] = byte;
    if (b->count == BURST_SIZE)
        burst_flush(b);
    else if (b->count == 1)
        timer_arm(b->timer, clock_now(b->clock) + BURST_NS);
}
