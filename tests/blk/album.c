/*
 * Snapshots that a test makes of a disk.
 */
#include "album.h"

#include "blk/qcow2/qcow2.h"
#include "pattern.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE ALBUM_MOST

struct name {
    char text[16];
};

static struct name name_of(unsigned n)
{
    struct name name;

    snprintf(name.text, sizeof(name.text), "snapshot-%u", n);
    return name;
}

/* Whether it is done. If not, the disk must be full. */
static bool done(const struct guest *guest, int result, const struct error *err)
{
    if (!result || (guest->full && result == -ENOSPC))
        return !result;
    printf("snapshot: %s\n", err->text);
    fflush(stdout);
    abort();
}

static bool before(uint64_t moment, uint64_t cut)
{
    return moment && moment <= cut;
}

/* The picture called NAME that may be there after CUT, or NONE. *SURE: it must be. */
static unsigned find(const struct album *album, uint64_t cut, unsigned name, bool *sure)
{
    *sure = false;
    for (unsigned i = 0; i < album->count; i++) {
        const struct picture *picture = &album->picture[i];

        if (picture->name != name || !before(picture->begun, cut) || before(picture->dropped, cut))
            continue;
        *sure = before(picture->made, cut) && !before(picture->dropping, cut);
        return i;
    }
    return NONE;
}

static void make(struct album *album, struct guest *guest, unsigned name)
{
    struct picture *picture = &album->picture[album->count];
    struct error err = {0};

    if (album->count == ALBUM_MOST)
        return;
    guest_settle(guest);
    memcpy(album->version[album->count], guest->now, sizeof(album->version[0]));
    picture->name = name;
    picture->begun = history_moment(guest->history);
    album->count++;
    if (done(guest, qcow2_snapshot_create(guest->blk, name_of(name).text, &err), &err))
        picture->made = history_moment(guest->history);
    else
        picture->dropped = history_moment(guest->history);
}

static void drop(struct picture *picture, struct guest *guest)
{
    struct error err = {0};

    picture->dropping = history_moment(guest->history);
    if (done(guest, qcow2_snapshot_delete(guest->blk, name_of(picture->name).text, &err), &err))
        picture->dropped = history_moment(guest->history);
    else
        picture->dropping = 0;
}

static void apply(struct album *album, unsigned number, struct guest *guest)
{
    struct history_op *op = history_add(guest->history, HISTORY_REPLACE, 0, 0);
    struct error err = {0};

    if (!op)
        return;
    op->table = number;
    op->submitted = history_moment(guest->history);
    if (!done(guest,
              qcow2_snapshot_apply(guest->blk, name_of(album->picture[number].name).text, &err),
              &err)) {
        guest_settle(guest);
        return;
    }
    op->done = history_moment(guest->history);
    guest_replaced(guest, album->version[number]);
}

void album_change(struct album *album, struct guest *guest, uint64_t *random)
{
    unsigned name = (unsigned)pattern_below(random, ALBUM_NAMES), number;
    struct change *change = &album->change[album->changes];
    bool sure;

    if (album->changes == ALBUM_CHANGES)
        return;
    change->begin = history_moment(guest->history);
    album->changes++;
    number = find(album, UINT64_MAX, name, &sure);
    if (number == NONE)
        make(album, guest, name);
    else if (pattern_below(random, 2))
        drop(&album->picture[number], guest);
    else
        apply(album, number, guest);
    change->end = history_moment(guest->history);
}

bool album_busy(const struct album *album, uint64_t cut)
{
    for (unsigned i = 0; i < album->changes; i++)
        if (album->change[i].begin <= cut && !before(album->change[i].end, cut))
            return true;
    return false;
}

static bool has(struct blk *image, unsigned name)
{
    struct qcow2_snapshot *list;
    unsigned count;
    bool found = false;

    if (qcow2_snapshots(image, &list, &count, NULL))
        return false;
    for (unsigned i = 0; i < count; i++)
        found |= !strcmp(list[i].name, name_of(name).text);
    qcow2_snapshots_free(list, count);
    return found;
}

bool album_check(const struct album *album, uint64_t cut, struct blk *image, bool quiet)
{
    bool good = true;

    for (unsigned name = 0; name < ALBUM_NAMES; name++) {
        bool sure, there = has(image, name);
        unsigned number = find(album, cut, name, &sure);

        if (there ? number != NONE : !sure)
            continue;
        good = false;
        if (!quiet)
            printf("%s %s\n", name_of(name).text, there ? "was deleted" : "is lost");
    }
    return good;
}

bool album_apply(const struct album *album, uint64_t cut, struct blk *image, uint64_t *random,
                 bool quiet)
{
    unsigned name = (unsigned)pattern_below(random, ALBUM_NAMES), number;
    struct error err = {0};
    uint8_t *data;
    bool good, sure;

    number = find(album, cut, name, &sure);
    if (number == NONE || !has(image, name))
        return true;
    good = !qcow2_snapshot_apply(image, name_of(name).text, &err);
    data = good ? guest_read_all(image, GUEST_SECTORS) : NULL;
    good &= data != NULL;
    for (uint64_t i = 0; good && i < GUEST_SECTORS; i++)
        good = pattern_version(data + i * SECTOR, i) == album->version[number][i];
    if (!good && !quiet)
        printf("%s does not hold what it held %s\n", name_of(name).text, err.text);
    free(data);
    return good;
}

void album_turn(struct album *album, uint64_t cut, struct blk *image)
{
    unsigned kept = 0, found[ALBUM_NAMES];
    bool sure;

    for (unsigned name = 0; name < ALBUM_NAMES; name++) {
        unsigned number = find(album, cut, name, &sure);

        if (number != NONE && has(image, name))
            found[kept++] = number;
    }
    /* The numbers need not grow from name to name; each must be moved before it is overwritten. */
    for (unsigned i = 0; i < kept; i++) {
        unsigned least = i;

        for (unsigned k = i; k < kept; k++)
            least = found[k] < found[least] ? k : least;
        unsigned number = found[least];

        found[least] = found[i];
        memmove(album->version[i], album->version[number], sizeof(album->version[i]));
        album->picture[i] =
            (struct picture){.name = album->picture[number].name, .begun = 1, .made = 1};
    }
    memset(&album->picture[kept], 0, (ALBUM_MOST - kept) * sizeof(album->picture[0]));
    album->count = kept;
    memset(album->change, 0, sizeof(album->change));
    album->changes = 0;
}

void album_tables(const struct album *album, const uint32_t *tables[ALBUM_MOST])
{
    for (unsigned i = 0; i < ALBUM_MOST; i++)
        tables[i] = album->version[i];
}
