/*
 * A disk in memory, for tests.
 */
#include "fake_blk.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct blk fake_blk;

static void check(bool holds)
{
    if (!holds)
        abort();
}

void fake_blk_make(uint64_t size)
{
    fake_blk = (struct blk){
        .info = {.size = size,
                 .block = 512,
                 .optimal = 65536,
                 .discards = true,
                 .zeroes = true,
                 .format = "raw",
                 .file = "test.raw"},
        .bytes = malloc(size),
        .room = size,
    };
    check(fake_blk.bytes);
    for (size_t i = 0; i < size; i++)
        fake_blk.bytes[i] = (uint8_t)(i * 7 + i / 512);
}

void fake_blk_free(void)
{
    check(fake_blk.count == 0);
    free(fake_blk.bytes);
    fake_blk.bytes = NULL;
}

static void move(const struct blk_request *r)
{
    uint8_t *at = fake_blk.bytes + r->offset;
    uint64_t total = 0;

    for (unsigned i = 0; i < r->iovs; i++) {
        size_t size = r->iov[i].iov_len;

        check(size <= r->size - total);
        if (r->kind == BLK_READ)
            memcpy(r->iov[i].iov_base, at + total, size);
        else
            memcpy(at + total, r->iov[i].iov_base, size);
        total += size;
    }
    check(total == r->size);
}

static int perform(const struct blk_request *r)
{
    const struct blk_info *info = &fake_blk.info;
    int fails = r->kind == BLK_READ ? fake_blk.read_fails : fake_blk.write_fails;

    check(r->kind == BLK_FLUSH ||
          (r->size && r->size % info->block == 0 && r->offset % info->block == 0 &&
           r->size <= info->size && r->offset <= info->size - r->size));
    if (info->readonly && r->kind != BLK_READ && r->kind != BLK_FLUSH)
        return -EPERM;
    if (fails)
        return fails;
    if (r->kind == BLK_READ || r->kind == BLK_WRITE)
        move(r);
    else if (r->kind != BLK_FLUSH)
        memset(fake_blk.bytes + r->offset, r->kind == BLK_DISCARD ? 0xDD : !r->unmap, r->size);
    if (fake_blk.done[r->kind]++ < sizeof(fake_blk.letters) &&
        strlen(fake_blk.letters) + 1 < sizeof(fake_blk.letters))
        fake_blk.letters[strlen(fake_blk.letters)] = "rwfdz"[r->kind];
    return 0;
}

void fake_blk_end(unsigned n)
{
    struct blk_request *r = fake_blk.kept[n];

    check(n < fake_blk.count);
    memmove(&fake_blk.kept[n], &fake_blk.kept[n + 1],
            (--fake_blk.count - n) * sizeof(*fake_blk.kept));
    r->done(r, perform(r));
}

void blk_submit(struct blk *blk, struct blk_request *r)
{
    check(blk == &fake_blk);
    if (!fake_blk.later) {
        r->done(r, perform(r));
        return;
    }
    check(fake_blk.count < FAKE_BLK_KEPT);
    fake_blk.kept[fake_blk.count++] = r;
}

void blk_kick(struct blk *blk)
{
    blk->kicks++;
}

void blk_recall(struct blk *blk)
{
    blk->recalls++;
}

struct blk_info blk_info(struct blk *blk)
{
    return blk->info;
}

void blk_close(struct blk *blk)
{
    fake_blk.closed++;
}

int blk_resize(struct blk *blk, uint64_t size, struct error *err)
{
    if (size > blk->room)
        return error_set(err, ENOSPC, "no room");
    blk->info.size = size;
    return 0;
}

struct where *blk_where(struct blk *blk, unsigned n)
{
    return NULL;
}
