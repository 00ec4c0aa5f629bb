/*
 * Power cuts: a guest works on a disk whose medium notes all writes and flushes (medium.h). Then
 * the medium's contents are made as a cut may have left them: after each flush, and at random
 * moments, with what was not flushed dropped, reordered and torn. All that the guest had flushed
 * must be there, and an image is never corrupt. For some images the host has no room for a while.
 *
 *     powercut MOMENTS [SEED]
 *
 * cuts each kind of disk at so many random moments, and after flushes.
 */
#include "album.h"
#include "formats.h"
#include "guest.h"
#include "medium.h"
#include "memory.h"
#include "pattern.h"

#include "base/util.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define OPERATIONS 240u /* in one run */
#define PER_RUN    40u  /* random moments of one run, at most */

/* One guest's work. */
struct run {
    const struct format *format;
    uint64_t seed, random;
    unsigned depth;
    bool lies;
    struct medium *medium;
    struct history *history;
    _Atomic uint32_t version;
    uint32_t *base; /* what the disk held at first */
    struct album *album;
    unsigned refused; /* requests for which there was no room */
};

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

/* A new image, in part written, on a medium that notes nothing of that. */
static void prepare(struct run *run)
{
    struct medium *medium = medium_create(NULL, 0, NULL);
    struct medium_image image;
    struct blk *blk;

    run->base = must(calloc(GUEST_SECTORS, sizeof(*run->base)));
    run->history = must(calloc(1, history_size(OPERATIONS)));
    run->history->most = OPERATIONS;
    run->album = must(calloc(1, sizeof(*run->album)));
    blk = memory_open(medium, &(struct memory_options){0});
    format_create(run->format, blk, run->base);
    blk = format_open(run->format, blk, false);
    for (unsigned i = 0; i < 20; i++) {
        uint64_t first = pattern_below(&run->random, GUEST_SECTORS - 64);
        uint64_t count = 1 + pattern_below(&run->random, 64);
        uint32_t version = atomic_fetch_add(&run->version, 1) + 1;
        uint8_t data[64 * SECTOR];

        pattern_fill(data, first, count, version);
        if (blk_write(blk, first * SECTOR, data, count * SECTOR))
            abort();
        for (uint64_t k = first; k < first + count; k++)
            run->base[k] = version;
    }
    if (blk_flush(blk))
        abort();
    blk_close(blk);
    medium_now(medium, &image);
    run->medium = medium_create(image.data, image.size, run->history);
    medium_image_free(&image);
    medium_destroy(medium);
}

/* Has the guest work, and checks what it sees in the end. */
static bool work(struct run *run)
{
    bool full = !run->format->raw && run->seed % 4 > 1;
    struct memory_options options = {.threaded = run->depth > 1,
                                     .lies = run->lies,
                                     .seed = run->seed,
                                     .sparse = run->seed % 8 > 3};
    struct blk *file, *blk;
    struct guest guest = {
        .history = run->history, .sectors = GUEST_SECTORS, .version = &run->version, .full = full};
    const uint32_t *tables[ALBUM_MOST];
    struct candidates *candidates;
    uint8_t *data;
    bool good;

    if (full)
        options.most = medium_size(run->medium) + pattern_below(&run->random, 64) * KiB;
    file = memory_open(run->medium, &options);
    guest.blk = blk = format_open(run->format, file, false);
    guest_begin(&guest, run->base);
    while (guest_batch(&guest, run->depth, &run->random)) {
        if (full && atomic_load(&run->history->count) > OPERATIONS / 2)
            memory_make_room(file);
        if (!run->format->raw && pattern_below(&run->random, run->depth == 1 ? 32 : 8) == 0)
            album_change(run->album, &guest, &run->random);
    }
    album_tables(run->album, tables);
    data = must(guest_read_all(blk, GUEST_SECTORS));
    candidates = candidates_now(run->history, run->base, tables, GUEST_SECTORS);
    good = candidates_check(candidates, data, NULL, false);
    candidates_free(candidates);
    free(data);
    run->refused = guest.refused;
    guest_end(&guest);
    blk_close(blk);
    return good;
}

/* Whether the disk is good in one state. */
static bool check_state(struct run *run, uint64_t cut, enum medium_style style, bool peer)
{
    static const char *const names[] = {[MEDIUM_NOTHING] = "only what was flushed",
                                        [MEDIUM_EVERYTHING] = "all that was submitted",
                                        [MEDIUM_SOME] = "some of it"};
    uint64_t chance = run->random;
    struct inspection how = {.format = run->format,
                             .album = run->format->raw ? NULL : run->album,
                             .cut = cut,
                             .busy = album_busy(run->album, cut),
                             .random = &run->random,
                             .peer = peer,
                             .quiet = run->lies};
    const uint32_t *tables[ALBUM_MOST];
    struct medium_image image = {0};
    struct candidates *candidates;
    uint8_t *data;
    bool good;

    album_tables(run->album, tables);
    medium_cut(run->medium, cut, style, &run->random, &image);
    candidates = candidates_after(run->history, cut, run->base, tables, GUEST_SECTORS, false);
    data = format_inspect(&how, &image);
    good = data && candidates_check(candidates, data, NULL, run->lies);
    if (!good && !run->lies)
        printf("%s: cut after moment %" PRIu64 ", %s, seed %" PRIu64 ", chance %" PRIu64 "\n",
               run->format->name, cut, names[style], run->seed, chance);
    free(data);
    candidates_free(candidates);
    medium_image_free(&image);
    return good;
}

/* What has been checked of one kind of disk. */
struct tally {
    unsigned moments, flushes; /* cuts at random, and after flushes */
    unsigned bad, refused;
};

/* Checks MOST states at random, and those after all flushes, or in a short test after some. */
static void check_states(struct run *run, unsigned most, struct tally *tally)
{
    unsigned all = medium_flushes(run->medium), flushes = most < PER_RUN ? MIN(all, most) : all;
    uint64_t last = run->history->now;

    for (unsigned i = 0; i < flushes; i++) {
        unsigned n = flushes == all ? i : (unsigned)pattern_below(&run->random, all);

        tally->bad += !check_state(run, medium_flush_moment(run->medium, n),
                                   i % 2 ? MEDIUM_EVERYTHING : MEDIUM_NOTHING, false);
    }
    for (unsigned i = 0; i < most; i++)
        tally->bad +=
            !check_state(run, 1 + pattern_below(&run->random, last), MEDIUM_SOME, !i && !run->lies);
    tally->flushes += flushes;
    tally->moments += most;
}

static void run_once(const struct format *format, uint64_t seed, unsigned most, bool lies,
                     struct tally *tally)
{
    struct run run = {.format = format, .seed = seed, .random = seed, .lies = lies};

    run.depth = seed % 2 ? 1 : 8;
    prepare(&run);
    tally->bad += !work(&run);
    check_states(&run, most, tally);
    tally->refused += run.refused;
    medium_destroy(run.medium);
    free(run.history);
    free(run.base);
    free(run.album);
}

/* A medium that confirms flushes and forgets them must be noticed: else this test sees nothing. */
static bool notices_lies(const struct format *format)
{
    struct tally tally = {0};

    for (uint64_t seed = 1; seed <= 2; seed++)
        run_once(format, seed, 5, true, &tally);
    if (!tally.bad)
        printf("%s: flushes that do nothing were not noticed\n", format->name);
    return tally.bad;
}

int main(int argc, char **argv)
{
    unsigned most = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 300;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    unsigned per_run = MAX(1, MIN(most / 4, PER_RUN));
    bool good = true;

    for (const struct format *format = formats; format->name; format++) {
        struct tally tally = {0};

        good &= notices_lies(format);
        for (uint64_t seed = first; tally.moments < most; seed++)
            run_once(format, seed, MIN(per_run, most - tally.moments), false, &tally);
        printf("%s: cuts after %u flushes and at %u other moments, %u bad; %u requests found no "
               "room\n",
               format->name, tally.flushes, tally.moments, tally.bad, tally.refused);
        fflush(stdout);
        good &= !tally.bad;
    }
    return good ? 0 : 1;
}
