/*
 * What makes a network worse than it is.
 */
#include "net/shaper.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "base/where.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* What waits at most: for the line, so that a slow one does not make a long queue of what the guest
 * could still hold back; and in all. */
#define LINE_MOST_NS (50 * NS_PER_MS)
#define BYTES_MOST   (16 * MiB)
#define MILLION      1000000u
/* What is received may be so much early: threads are not woken for each frame. */
#define EARLY_NS NS_PER_MS

struct parcel {
    struct parcel *next;
    uint64_t at; /* nanoseconds: when it is to pass */
    size_t size;
    struct net_offload offload;
    uint8_t data[];
};

/* The memory of a parcel for SIZE bytes. Small frames need several times as much as they have. */
static size_t memory_of(size_t size)
{
    return sizeof(struct parcel) + size;
}

struct shaper {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct net_shape shape;
    struct shaper_exit way_out;
    struct parcel *first, *last;
    size_t bytes;          /* of memory that the frames need which wait */
    uint64_t line_free;    /* when the line out has sent what it was given; nanoseconds */
    uint64_t last_at;      /* when the last frame passes */
    bool full;             /* somebody waits for room in the queue */
    bool blocked;          /* the exit has no room */
    uint64_t receive_free; /* of the line in */
    uint64_t wake_at;      /* when to say that a frame may be received; UINT64_MAX: no need to */
    uint64_t chance;
    bool ending;
    pthread_t thread;
    struct where where;
};

/* ---- Chance and time ---- */

/* Splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). */
static uint64_t by_chance(struct shaper *s)
{
    uint64_t z = s->chance += 0x9E3779B97F4A7C15;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

/* How long the line takes for SIZE bytes. */
static uint64_t line_time(const struct shaper *s, size_t size)
{
    return s->shape.rate ? size * 8 * NS_PER_S / s->shape.rate : 0;
}

/* When a frame that leaves the line at LEFT arrives. */
static uint64_t arrival(struct shaper *s, uint64_t left)
{
    uint64_t at = left + s->shape.delay, jitter = s->shape.jitter;

    if (jitter) {
        at += by_chance(s) % (2 * jitter + 1);
        at -= MIN(at, jitter);
    }
    return s->last_at = MAX(at, s->last_at);
}

static bool shapes(const struct shaper *s)
{
    return s->shape.delay || s->shape.jitter || s->shape.loss || s->shape.rate;
}

/* ---- The thread ---- */

/* Lets the first frame pass, whose time has come. False: the exit has no room. With the lock, which
 * is released meanwhile. */
static bool pass_first(struct shaper *s)
{
    struct parcel *first = s->first;
    bool sent, full;

    s->blocked = true; /* unless shaper_room comes meanwhile */
    pthread_mutex_unlock(&s->lock);
    sent = s->way_out.send(s->way_out.opaque, first->data, first->size, &first->offload);
    pthread_mutex_lock(&s->lock);
    if (!sent)
        return !s->blocked;
    s->blocked = false;
    s->first = first->next;
    if (!s->first)
        s->last = NULL;
    s->bytes -= memory_of(first->size);
    full = s->full;
    s->full = false;
    pthread_mutex_unlock(&s->lock);
    free(first);
    if (full)
        s->way_out.ready(s->way_out.opaque);
    pthread_mutex_lock(&s->lock);
    return true;
}

static void say_ready(struct shaper *s)
{
    s->wake_at = UINT64_MAX;
    pthread_mutex_unlock(&s->lock);
    s->way_out.ready(s->way_out.opaque);
    pthread_mutex_lock(&s->lock);
}

static void flush(struct shaper *s)
{
    pthread_mutex_unlock(&s->lock);
    s->way_out.flush(s->way_out.opaque);
    pthread_mutex_lock(&s->lock);
}

static void wait_until(struct shaper *s, uint64_t until)
{
    struct timespec at = time_spec(until);

    if (until == UINT64_MAX)
        pthread_cond_wait(&s->changed, &s->lock);
    else
        pthread_cond_timedwait(&s->changed, &s->lock, &at);
}

/* Lets all frames pass whose time has come. */
static void pass_all(struct shaper *s)
{
    bool any = false;

    while (s->first && !s->ending && s->first->at <= time_now_ns() && pass_first(s))
        any = true;
    if (any)
        flush(s);
}

static void *serve(void *opaque)
{
    struct shaper *s = opaque;

    where_begin(&s->where);
    pthread_mutex_lock(&s->lock);
    while (!s->ending) {
        uint64_t until = s->wake_at;

        if (s->first && !s->blocked)
            until = MIN(until, s->first->at);
        if (until > time_now_ns()) {
            wait_until(s, until);
            continue;
        }
        if (s->wake_at <= time_now_ns())
            say_ready(s);
        if (!s->blocked)
            pass_all(s);
    }
    pthread_mutex_unlock(&s->lock);
    where_end(&s->where);
    return NULL;
}

/* ---- Sending ---- */

bool shaper_active(struct shaper *s)
{
    bool active;

    pthread_mutex_lock(&s->lock);
    active = shapes(s) || s->first;
    pthread_mutex_unlock(&s->lock);
    return active;
}

bool shaper_open(struct shaper *s)
{
    uint64_t now = time_now_ns();
    bool open;

    pthread_mutex_lock(&s->lock);
    if (s->bytes >= BYTES_MOST) {
        open = false;
        s->full = true; /* the thread says so when a frame has passed */
    } else {
        open = s->line_free < now + LINE_MOST_NS;
    }
    if (!open && !s->full) {
        s->wake_at = MIN(s->wake_at, s->line_free - LINE_MOST_NS / 2);
        pthread_cond_signal(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return open;
}

static struct parcel *wrap(const void *data, size_t size, const struct net_offload *offload)
{
    struct parcel *parcel = malloc(memory_of(size));

    if (!parcel)
        return NULL;
    *parcel = (struct parcel){.size = size, .offload = *offload};
    memcpy(parcel->data, data, size);
    return parcel;
}

/* With the lock. */
static void append(struct shaper *s, struct parcel *parcel)
{
    if (s->last)
        s->last->next = parcel;
    else
        s->first = parcel;
    s->last = parcel;
    s->bytes += memory_of(parcel->size);
    if (s->first == parcel)
        pthread_cond_signal(&s->changed);
}

void shaper_put(struct shaper *s, const void *data, size_t size, const struct net_offload *offload)
{
    struct parcel *parcel = wrap(data, size, offload);
    bool lost = !parcel;

    pthread_mutex_lock(&s->lock);
    s->line_free = MAX(s->line_free, time_now_ns()) + line_time(s, size);
    lost |= by_chance(s) % MILLION < s->shape.loss;
    if (!lost) {
        parcel->at = arrival(s, s->line_free);
        append(s, parcel);
    }
    pthread_mutex_unlock(&s->lock);
    if (lost)
        free(parcel);
}

void shaper_room(struct shaper *s)
{
    pthread_mutex_lock(&s->lock);
    s->blocked = false;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* ---- Receiving ---- */

bool shaper_may_receive(struct shaper *s)
{
    uint64_t now = time_now_ns();
    bool may;

    pthread_mutex_lock(&s->lock);
    may = !s->shape.rate || s->receive_free <= now + EARLY_NS;
    if (!may) {
        s->wake_at = MIN(s->wake_at, s->receive_free);
        pthread_cond_signal(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return may;
}

void shaper_received(struct shaper *s, size_t size)
{
    pthread_mutex_lock(&s->lock);
    s->receive_free = MAX(s->receive_free, time_now_ns()) + line_time(s, size);
    pthread_mutex_unlock(&s->lock);
}

/* ---- Making, changing and unmaking ---- */

/* Has all that waits pass at LAST, in its order: a frame that was put behind an hour's delay would
 * keep those up that come later, with a shorter one. With the lock. */
static void hurry(struct shaper *s, uint64_t last)
{
    for (struct parcel *parcel = s->first; parcel; parcel = parcel->next)
        parcel->at = MIN(parcel->at, last);
    s->last_at = MIN(s->last_at, last);
}

void shaper_set(struct shaper *s, const struct net_shape *shape)
{
    uint64_t now = time_now_ns();

    pthread_mutex_lock(&s->lock);
    s->shape = *shape;
    hurry(s, now + shape->delay + shape->jitter);
    /* What was reckoned by an old rate does not hold up what is sent by the new one. */
    s->line_free = MIN(s->line_free, now);
    s->receive_free = MIN(s->receive_free, now);
    if (s->wake_at != UINT64_MAX)
        s->wake_at = now;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

struct net_shape shaper_get(struct shaper *s)
{
    struct net_shape shape;

    pthread_mutex_lock(&s->lock);
    shape = s->shape;
    pthread_mutex_unlock(&s->lock);
    return shape;
}

struct where *shaper_where(struct shaper *s)
{
    return &s->where;
}

void shaper_free(struct shaper *s)
{
    if (!s)
        return;
    while (s->first) {
        struct parcel *parcel = s->first;

        s->first = parcel->next;
        free(parcel);
    }
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct shaper *shaper_create(const struct shaper_exit *way_out, struct error *err)
{
    struct shaper *s = calloc(1, sizeof(*s));

    if (!s) {
        error_set(err, ENOMEM, "network: out of memory");
        return NULL;
    }
    s->way_out = *way_out;
    s->wake_at = UINT64_MAX;
    if (getrandom(&s->chance, sizeof(s->chance), GRND_NONBLOCK) != sizeof(s->chance))
        s->chance = time_real_ns();
    pthread_mutex_init(&s->lock, NULL);
    thread_cond_init(&s->changed);
    if (thread_start(&s->thread, "net shaper", serve, s, err) < 0) {
        shaper_free(s);
        return NULL;
    }
    return s;
}

void shaper_stop(struct shaper *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->ending = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
}
