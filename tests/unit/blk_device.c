/*
 * Block devices: loop devices over files, with blocks of 512 and 4096 bytes. Skipped where the test
 * may make none.
 */
#include "test.h"

#include "blk_rig.h"

#include <errno.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

struct device {
    char file[64], name[32];
    int fd; /* keeps the device; it vanishes when nobody has it open */
};

/* Makes a device of the file, if there are devices to be had. */
static bool try_device(struct device *d, int control, int backing, unsigned block, bool readonly)
{
    struct loop_config config = {
        .fd = (unsigned)backing,
        .block_size = block,
        .info.lo_flags = LO_FLAGS_AUTOCLEAR | (readonly ? LO_FLAGS_READ_ONLY : 0),
    };
    int number = ioctl(control, LOOP_CTL_GET_FREE);

    if (number < 0)
        return false;
    snprintf(d->name, sizeof(d->name), "/dev/loop%d", number);
    d->fd = open(d->name, O_RDWR | O_CLOEXEC);
    if (d->fd < 0)
        return false;
    if (ioctl(d->fd, LOOP_CONFIGURE, &config) == 0)
        return true;
    close(d->fd);
    return false;
}

static bool make_device(struct device *d, off_t size, unsigned block, bool readonly)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), backing;
    bool made = false;

    make_file(d->file, size);
    backing = open(d->file, O_RDWR | O_CLOEXEC);
    /* Somebody else may take the free one first. */
    for (unsigned i = 0; i < 20 && control >= 0 && !made; i++)
        made = try_device(d, control, backing, block, readonly);
    close(backing);
    if (control >= 0)
        close(control);
    if (!made)
        unlink(d->file);
    return made;
}

static void end_device(const struct device *d)
{
    close(d->fd);
    unlink(d->file);
}

static void check_all(const struct blk_info *info, uint64_t size, unsigned block)
{
    assert_int_equal(info->size, size);
    assert_int_equal(info->block, block);
    assert_true(info->optimal >= 4096);
    assert_false(info->readonly);
}

/* Writes, reads, discards and zeroes the device of D by MORE and HOST. */
static void use_device(const struct device *d, unsigned block, const char *more,
                       const struct blk_host *host)
{
    uint8_t *bytes = aligned_alloc(4096, 65536), *back = aligned_alloc(4096, 65536);
    struct blk *blk = open_disk(d->name, more, host);
    struct blk_info info = blk_info(blk);

    check_all(&info, 4 * MiB, block);
    fill(bytes, 65536, block);
    assert_int_equal(ask_once(blk, BLK_WRITE, 65536, bytes, 65536), 0);
    assert_int_equal(blk_write(blk, 2 * MiB, bytes, 65536), 0);
    assert_int_equal(ask_once(blk, BLK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(ask_once(blk, BLK_READ, 65536, back, 65536), 0);
    assert_memory_equal(bytes, back, 65536);
    /* From a buffer that is not aligned. */
    assert_int_equal(ask_once(blk, BLK_WRITE, 131072, bytes + 1, 4096), 0);
    assert_int_equal(ask_once(blk, BLK_READ, 131072, back + 3, 4096), 0);
    assert_memory_equal(bytes + 1, back + 3, 4096);
    assert_int_equal(ask_once(blk, BLK_ZEROES, 65536, NULL, 4096), 0);
    assert_int_equal(blk_zeroes(blk, 69632, 4096, true), 0);
    assert_int_equal(blk_read(blk, 65536, back, 65536), 0);
    for (unsigned i = 0; i < 8192; i++)
        assert_int_equal(back[i], 0);
    assert_memory_equal(bytes + 8192, back + 8192, 65536 - 8192);
    assert_int_equal(ask_once(blk, BLK_DISCARD, 0, NULL, MiB), 0);
    assert_int_equal(ask_once(blk, BLK_READ, 4 * MiB, back, 4096), -EIO);
    assert_int_equal(ask_once(blk, BLK_READ, block / 2, back, block), -EINVAL);
    assert_int_equal(blk_resize(blk, 8 * MiB, NULL), -ENOTSUP);
    assert_int_equal(blk_read(blk, 2 * MiB, back, 65536), 0);
    assert_memory_equal(bytes, back, 65536);
    refuse_disk(d->name, "", &(struct blk_host){.hasty = true}, EBUSY, "in use");
    blk_close(blk);
    free(bytes);
    free(back);
}

static void use_devices(unsigned block)
{
    static const struct blk_host threads = {.lane = BLK_LANE_THREADS}, any = {0};
    struct device d;
    uint64_t full;

    if (!make_device(&d, 4 * MiB, block, false))
        skip();
    use_device(&d, block, "", &threads);
    full = blocks_of(d.file);
    use_device(&d, block, "", &any);
    use_device(&d, block, ",cache=none", &threads);
    use_device(&d, block, ",cache=none", &any);
    /* What was discarded are holes in the file behind the device. */
    assert_true(full < MiB);
    end_device(&d);
}

static void test_512(void **unused)
{
    use_devices(512);
}

static void test_4096(void **unused)
{
    use_devices(4096);
}

static void test_parts(void **unused)
{
    struct device d;
    struct blk *blk;
    char sector[4096];

    if (!make_device(&d, 4 * MiB, 4096, false))
        skip();
    refuse_disk(d.name, ",offset=512", NULL, EINVAL, "must be multiples of 4096 bytes");
    refuse_disk(d.name, ",offset=3M,size=2M", NULL, EINVAL, "it has 4194304 bytes");
    blk = open_disk(d.name, ",offset=1M,size=1M", NULL);
    memset(sector, 'd', sizeof(sector));
    assert_int_equal(blk_write(blk, 0, sector, 4096), 0);
    blk_close(blk);
    blk = open_disk(d.name, ",readonly", NULL);
    memset(sector, 0, sizeof(sector));
    assert_int_equal(blk_read(blk, MiB, sector, 4096), 0);
    assert_int_equal(sector[0], 'd');
    blk_close(blk);
    end_device(&d);
}

/* What the host has mounted it holds exclusively. Then it is not written to, as a whole. */
static void test_held(void **unused)
{
    struct device d;
    int fd;

    if (!make_device(&d, MiB, 512, false))
        skip();
    fd = open(d.name, O_RDONLY | O_EXCL | O_CLOEXEC);
    assert_true(fd >= 0);
    refuse_disk(d.name, "", NULL, EBUSY, "is in use by the host");
    blk_close(open_disk(d.name, ",readonly", NULL));
    blk_close(open_disk(d.name, ",offset=512K", NULL));
    close(fd);
    blk_close(open_disk(d.name, "", NULL));
    end_device(&d);
}

static void test_readonly(void **unused)
{
    struct device d;
    char sector[512];
    struct blk *blk;

    if (!make_device(&d, MiB, 512, true))
        skip();
    refuse_disk(d.name, "", NULL, 0, ",readonly'");
    blk = open_disk(d.name, ",readonly", NULL);
    assert_int_equal(blk_read(blk, 0, sector, 512), 0);
    blk_close(blk);
    end_device(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_512),  cmocka_unit_test(test_4096),     cmocka_unit_test(test_parts),
        cmocka_unit_test(test_held), cmocka_unit_test(test_readonly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
