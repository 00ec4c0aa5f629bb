/*
 * A disk in memory, with a cache that loses power.
 */
#include "medium.h"

#include "pattern.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Something that was done to a disk. */
struct event {
    enum medium_kind kind;
    uint64_t offset, size;
    uint8_t *data;            /* WRITE */
    uint64_t submitted, done; /* moments; 0: not yet */
};

struct medium {
    pthread_mutex_t lock; /* a leaf */
    struct history *history;
    struct medium_image now, before; /* BEFORE: all that is noted */
    struct event **event;
    size_t events, room;
};

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

/* Makes IMAGE at least SIZE bytes large. */
static void grow(struct medium_image *image, uint64_t size)
{
    if (size <= image->size)
        return;
    if (size > image->room) {
        image->room = size + size / 2;
        image->data = must(realloc(image->data, image->room));
    }
    memset(image->data + image->size, 0, size - image->size);
    image->size = size;
}

static void copy(struct medium_image *to, const struct medium_image *from)
{
    to->size = 0;
    grow(to, from->size);
    if (from->size)
        memcpy(to->data, from->data, from->size);
}

void medium_image_free(struct medium_image *image)
{
    free(image->data);
    *image = (struct medium_image){0};
}

struct medium *medium_create(const void *data, uint64_t size, struct history *history)
{
    struct medium *medium = must(calloc(1, sizeof(*medium)));

    pthread_mutex_init(&medium->lock, NULL);
    medium->history = history;
    grow(&medium->now, size);
    if (size)
        memcpy(medium->now.data, data, size);
    if (history)
        copy(&medium->before, &medium->now);
    return medium;
}

static void free_event(struct event *event)
{
    free(event->data);
    free(event);
}

void medium_destroy(struct medium *medium)
{
    if (!medium)
        return;
    for (size_t i = 0; i < medium->events; i++)
        if (medium->event[i])
            free_event(medium->event[i]);
    free(medium->event);
    medium_image_free(&medium->now);
    medium_image_free(&medium->before);
    pthread_mutex_destroy(&medium->lock);
    free(medium);
}

static uint64_t moment(struct medium *medium)
{
    return medium->history ? history_moment(medium->history) : 1;
}

size_t medium_begin(struct medium *medium, enum medium_kind kind, uint64_t offset, uint64_t size,
                    const struct iovec *iov, unsigned iovs)
{
    struct event *event = must(calloc(1, sizeof(*event)));
    uint64_t at = 0;
    size_t number;

    *event = (struct event){.kind = kind, .offset = offset, .size = size};
    if (kind == MEDIUM_WRITE)
        event->data = must(malloc(size));
    for (unsigned i = 0; kind == MEDIUM_WRITE && i < iovs; i++) {
        memcpy(event->data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    pthread_mutex_lock(&medium->lock);
    if (medium->events == medium->room) {
        medium->room = 2 * medium->room + 64;
        medium->event = must(realloc(medium->event, medium->room * sizeof(struct event *)));
    }
    event->submitted = moment(medium);
    number = medium->events++;
    medium->event[number] = event;
    pthread_mutex_unlock(&medium->lock);
    return number;
}

/* Does the part of EVENT from FROM to TO, bytes of its own. */
static void apply(struct medium_image *image, const struct event *event, uint64_t from, uint64_t to)
{
    uint64_t start = event->offset + from, end = event->offset + to;

    switch (event->kind) {
    case MEDIUM_WRITE:
        grow(image, end);
        memcpy(image->data + start, event->data + from, to - from);
        return;
    case MEDIUM_ZEROES:
        end = end < image->size ? end : image->size;
        if (start < end)
            memset(image->data + start, 0, end - start);
        return;
    case MEDIUM_RESIZE:
        grow(image, event->size);
        image->size = event->size;
        return;
    default: return;
    }
}

void medium_finish(struct medium *medium, size_t number)
{
    struct event *event;

    pthread_mutex_lock(&medium->lock);
    event = medium->event[number];
    apply(&medium->now, event, 0, event->size);
    event->done = moment(medium);
    if (!medium->history) {
        free_event(event);
        medium->event[number] = NULL;
        while (medium->events && !medium->event[medium->events - 1])
            medium->events--;
    }
    pthread_mutex_unlock(&medium->lock);
}

void medium_read(struct medium *medium, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    pthread_mutex_lock(&medium->lock);
    for (unsigned i = 0; i < iovs; i++) {
        uint64_t size = iov[i].iov_len, there;

        there = offset < medium->now.size ? medium->now.size - offset : 0;
        there = there < size ? there : size;
        if (there)
            memcpy(iov[i].iov_base, medium->now.data + offset, there);
        memset((char *)iov[i].iov_base + there, 0, size - there);
        offset += size;
    }
    pthread_mutex_unlock(&medium->lock);
}

uint64_t medium_size(struct medium *medium)
{
    uint64_t size;

    pthread_mutex_lock(&medium->lock);
    size = medium->now.size;
    pthread_mutex_unlock(&medium->lock);
    return size;
}

void medium_now(struct medium *medium, struct medium_image *image)
{
    *image = (struct medium_image){0};
    pthread_mutex_lock(&medium->lock);
    copy(image, &medium->now);
    pthread_mutex_unlock(&medium->lock);
}

unsigned medium_flushes(struct medium *medium)
{
    unsigned count = 0;

    for (size_t i = 0; i < medium->events; i++)
        count += medium->event[i]->kind == MEDIUM_FLUSH && medium->event[i]->done;
    return count;
}

uint64_t medium_flush_moment(struct medium *medium, unsigned n)
{
    for (size_t i = 0; i < medium->events; i++)
        if (medium->event[i]->kind == MEDIUM_FLUSH && medium->event[i]->done && !n--)
            return medium->event[i]->done;
    return 0;
}

/* ---- Cuts ---- */

/* All that was done before this moment is on the disk after a cut right after CUT. */
static uint64_t sure_before(const struct medium *medium, uint64_t cut)
{
    uint64_t sure = 0;

    for (size_t i = 0; i < medium->events; i++) {
        const struct event *event = medium->event[i];

        if (event->kind == MEDIUM_FLUSH && event->done && event->done <= cut)
            sure = event->submitted > sure ? event->submitted : sure;
    }
    return sure;
}

static bool is_sure(const struct event *event, uint64_t sure)
{
    return event->done && event->done < sure;
}

static int by_done(const void *a, const void *b)
{
    const struct event *x = *(struct event *const *)a, *y = *(struct event *const *)b;

    return x->done < y->done ? -1 : x->done > y->done;
}

/* Applies a part of what was not flushed: all of EVENT, some of its sectors, or up to one of them.
 */
static void tear(struct medium_image *image, const struct event *event, uint64_t *random)
{
    uint64_t sectors = (event->size + SECTOR - 1) / SECTOR;
    unsigned how = event->kind == MEDIUM_RESIZE ? 0 : (unsigned)pattern_below(random, 4);
    uint64_t most = how == 1 ? pattern_below(random, sectors + 1) : sectors;

    if (how != 1 && how != 2) {
        apply(image, event, 0, event->size);
        return;
    }
    for (uint64_t i = 0; i < most; i++) {
        uint64_t end = (i + 1) * SECTOR;

        if (how == 1 || pattern_below(random, 2))
            apply(image, event, i * SECTOR, end < event->size ? end : event->size);
    }
}

/* Applies what was not flushed, COUNT events of LIST, or some of it in an order of chance's. */
static void apply_pending(struct medium_image *image, struct event **list, size_t count,
                          enum medium_style style, uint64_t *random)
{
    static const unsigned percents[] = {5, 25, 50, 75, 95};
    unsigned percent = percents[pattern_below(random, 5)];

    for (size_t i = 0; i < count; i++) {
        size_t other = i + pattern_below(random, count - i);
        struct event *event = list[style == MEDIUM_SOME ? other : i];

        if (style == MEDIUM_EVERYTHING) {
            apply(image, event, 0, event->size);
            continue;
        }
        list[other] = list[i];
        if (pattern_below(random, 100) < percent)
            tear(image, event, random);
    }
}

void medium_cut(struct medium *medium, uint64_t cut, enum medium_style style, uint64_t *random,
                struct medium_image *image)
{
    struct event **list = must(malloc((medium->events + 1) * sizeof(struct event *)));
    uint64_t sure = sure_before(medium, cut);
    size_t count = 0;

    copy(image, &medium->before);
    for (size_t i = 0; i < medium->events; i++)
        if (is_sure(medium->event[i], sure))
            list[count++] = medium->event[i];
    qsort(list, count, sizeof(struct event *), by_done);
    for (size_t i = 0; i < count; i++)
        apply(image, list[i], 0, list[i]->size);

    count = 0;
    for (size_t i = 0; i < medium->events; i++)
        if (medium->event[i]->submitted <= cut && !is_sure(medium->event[i], sure))
            list[count++] = medium->event[i];
    if (style != MEDIUM_NOTHING)
        apply_pending(image, list, count, style, random);
    free(list);
}
