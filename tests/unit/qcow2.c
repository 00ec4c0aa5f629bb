/*
 * qcow2 images: what is refused, with which words and without a change of the file; what QEMU has
 * made and what QEMU thinks of what we have made; damage, and its repair. (qcow2_model.c does
 * random work.)
 */
#include "test.h"

#include "blk_rig.h"

#include "blk/qcow2/qcow2.h"
#include "blk/qcow2/format.h"

#include <endian.h>
#include <errno.h>
#include <sys/mman.h>

#define DISK    (8 * MiB)
#define CLUSTER 4096u

struct fixture {
    char name[64];
};

/* ---- Images and bytes of theirs ---- */

static void create(const char *name, struct qcow2_create what)
{
    struct error err = {0};
    struct blk *file = open_disk(name, ",format=raw", NULL);

    what.size = what.size ? what.size : DISK;
    what.cluster_size = what.cluster_size ? what.cluster_size : CLUSTER;
    if (qcow2_create(file, &what, &err) < 0)
        print_error("%s\n", err.text);
    assert_int_equal(err.code, 0);
    blk_close(file);
}

/* Writes SIZE bytes that SEED makes at OFFSET of the disk. */
static void put(struct blk *blk, uint64_t offset, uint64_t size, uint64_t seed)
{
    void *bytes = malloc(size);

    fill(bytes, size, seed);
    assert_int_equal(blk_write(blk, offset, bytes, size), 0);
    free(bytes);
}

static void expect_bytes(struct blk *blk, uint64_t offset, uint64_t size, uint64_t seed)
{
    void *bytes = malloc(size), *want = calloc(1, size);

    if (seed)
        fill(want, size, seed);
    assert_int_equal(blk_read(blk, offset, bytes, size), 0);
    assert_memory_equal(bytes, want, size);
    free(bytes);
    free(want);
}

static void poke(const char *name, uint64_t offset, const void *bytes, size_t size)
{
    int fd = open(name, O_WRONLY);

    assert_int_equal(pwrite(fd, bytes, size, (off_t)offset), size);
    close(fd);
}

static void poke32(const char *name, uint64_t offset, uint32_t value)
{
    value = htobe32(value);
    poke(name, offset, &value, sizeof(value));
}

static void poke64(const char *name, uint64_t offset, uint64_t value)
{
    value = htobe64(value);
    poke(name, offset, &value, sizeof(value));
}

static uint64_t peek64(const char *name, uint64_t offset)
{
    uint64_t value;
    int fd = open(name, O_RDONLY);

    assert_int_equal(pread(fd, &value, sizeof(value), (off_t)offset), sizeof(value));
    close(fd);
    return be64toh(value);
}

static uint64_t checksum(const char *name)
{
    uint64_t sum = 14695981039346656037ULL;
    FILE *file = fopen(name, "r");

    for (int c; (c = getc(file)) != EOF;)
        sum = (sum ^ (uint64_t)c) * 1099511628211ULL;
    fclose(file);
    return sum;
}

/* Has the shell run COMMAND, in which $F is NAME. */
static int run(const char *command, const char *name)
{
    setenv("F", name, 1);
    return system(command);
}

#define HEADER(member) offsetof(struct qcow2_raw_header, member)

/* Where the first L2 table and the first refcount block of the image are. */
static uint64_t l2_of(const char *name)
{
    return peek64(name, peek64(name, HEADER(l1_offset))) & QCOW2_OFFSET;
}

static uint64_t block_of(const char *name)
{
    return peek64(name, peek64(name, HEADER(reftable_offset)));
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct blk *blk;

    make_file(f->name, 0);
    create(f->name, (struct qcow2_create){0});
    blk = open_disk(f->name, ",format=qcow2", NULL);
    put(blk, 0, 64 * KiB, 1);
    blk_close(blk);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    unlink(f->name);
    free(f);
    return 0;
}

/* ---- What is refused ---- */

/* The file is refused with WORDS and stays as it is, then is as it was before the POKE again. */
static void refuse(const char *name, const char *words)
{
    uint64_t before = checksum(name), size = size_of(name);

    refuse_disk(name, ",format=qcow2", NULL, 0, words);
    assert_int_equal(checksum(name), before);
    assert_int_equal(size_of(name), size);
}

static void test_header(void **state)
{
    static const struct {
        uint64_t offset;
        unsigned bits;
        uint64_t value;
        const char *words;
    } cases[] = {
        {HEADER(magic), 32, 0, "not a qcow2 image"},
        {HEADER(version), 32, 1, "version 1"},
        {HEADER(version), 32, 4, "version 4"},
        {HEADER(cluster_bits), 32, 8, "clusters of 2^8"},
        {HEADER(cluster_bits), 32, 22, "clusters of 2^22"},
        {HEADER(cluster_bits), 32, 0xffffffff, "clusters of 2^"},
        {HEADER(size), 64, 1000, "1000 bytes"},
        {HEADER(size), 64, 1ULL << 63, "cannot be"},
        {HEADER(size), 64, 1ULL << 40, "too small for the disk"},
        {HEADER(crypt_method), 32, 1, "encrypted"},
        {HEADER(l1_entries), 32, 0x400001, "L1 table"},
        {HEADER(l1_entries), 32, 0x400000, "not in the file"},
        {HEADER(l1_offset), 64, 512, "L1 table"},
        {HEADER(l1_offset), 64, 1ULL << 40, "not in the file"},
        {HEADER(l1_offset), 64, 0, "L1 table"},
        {HEADER(l1_offset), 64, 2 * CLUSTER, "overlaps"},
        {HEADER(reftable_offset), 64, 0, "refcount table"},
        {HEADER(reftable_offset), 64, 8, "refcount table"},
        {HEADER(reftable_offset), 64, 1ULL << 50, "not in the file"},
        {HEADER(reftable_offset), 64, 3 * CLUSTER, "overlaps"},
        {HEADER(reftable_clusters), 32, 0, "refcount table"},
        {HEADER(reftable_clusters), 32, 0xffffffff, "refcount table"},
        {HEADER(snapshots), 32, 1, "snapshot table"},
        {HEADER(snapshots), 32, 0xffffffff, "snapshot table"},
        {HEADER(incompatible), 64, QCOW2_INCOMPATIBLE_CORRUPT, "marked as corrupt"},
        {HEADER(incompatible), 64, QCOW2_INCOMPATIBLE_EXTERNAL, "external file"},
        {HEADER(incompatible), 64, QCOW2_INCOMPATIBLE_COMPRESSION, "compressed in a way"},
        {HEADER(incompatible), 64, 1ULL << 63, "feature (bit 63)"},
        {HEADER(incompatible), 64, QCOW2_INCOMPATIBLE_EXTENDED_L2, "16 KiB"},
        {HEADER(refcount_order), 32, 7, "refcounts of 2^7"},
        {HEADER(header_size), 32, 96, "header's size"},
        {HEADER(header_size), 32, 113, "header's size"},
        {HEADER(header_size), 32, CLUSTER + 8, "header's size"},
        {HEADER(compression), 8, 1, "compressed in a way"},
        {HEADER(backing_offset), 64, CLUSTER - 4, NULL},
    };
    const char *name = ((struct fixture *)*state)->name;
    uint8_t whole[CLUSTER];
    int fd = open(name, O_RDONLY);

    assert_int_equal(read(fd, whole, sizeof(whole)), sizeof(whole));
    close(fd);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t value = htobe64(cases[i].value << (64 - cases[i].bits));

        poke(name, cases[i].offset, &value, cases[i].bits / 8);
        if (cases[i].words)
            refuse(name, cases[i].words);
        else
            poke32(name, HEADER(backing_size), 5), refuse(name, "not in the header");
        poke(name, 0, whole, sizeof(whole));
    }
    blk_close(open_disk(name, ",format=qcow2", NULL));
}

/* A feature that the image itself has a name for. */
static void test_feature_names(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    struct qcow2_raw_feature feature = {0, 5, "teleportation"};

    poke32(name, sizeof(struct qcow2_raw_header), QCOW2_EXTENSION_FEATURES);
    poke32(name, sizeof(struct qcow2_raw_header) + 4, sizeof(feature));
    poke(name, sizeof(struct qcow2_raw_header) + 8, &feature, sizeof(feature));
    poke64(name, HEADER(incompatible), 1 << 5);
    refuse(name, "the feature 'teleportation'");
}

/* Tables that lie on each other, or outside of the file. */
static void test_overlaps(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    uint64_t l1 = peek64(name, HEADER(l1_offset)), table = peek64(name, HEADER(reftable_offset));
    uint64_t entry = peek64(name, l1), block = peek64(name, table);

    poke64(name, l1, block | QCOW2_COPIED);
    refuse(name, "an L2 table overlaps");
    poke64(name, l1, (1ULL << 41) | QCOW2_COPIED);
    refuse(name, "an L2 table is not in the file");
    poke64(name, l1, entry);
    poke64(name, table, 0x1000);
    refuse(name, "a refcount block overlaps");
    poke64(name, table, l1);
    refuse(name, "a refcount block overlaps");
    poke64(name, table, 1ULL << 40);
    refuse(name, "a refcount block is not in the file");
    poke64(name, table, block | 0x100);
    refuse(name, "entry 0 of the refcount table has reserved bits");
    poke64(name, table, block);
    assert_int_equal(truncate(name, 3 * CLUSTER), 0);
    refuse(name, "not in the file, which may have been cut off");
    assert_int_equal(truncate(name, 100), 0);
    refuse(name, "cannot be");
    assert_int_equal(truncate(name, 0), 0);
    refuse(name, "is empty (0 bytes)");
}

/* Names are never followed unasked. */
static void test_backing(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    char base[64], with[128];
    struct blk *blk;

    make_file(base, MiB);
    snprintf(with, sizeof(with), ",format=qcow2,backing=%s", base);
    refuse_disk(name, with, NULL, EINVAL, "has no backing file");
    create(name, (struct qcow2_create){.backing = base, .backing_format = "raw"});
    refuse(name, "only if it is named");
    refuse_disk(name, ",format=qcow2,backing=no-such-file", NULL, ENOENT, "no-such-file");
    snprintf(with, sizeof(with), ",format=qcow2,backing=%s,,format=qcow2", name);
    refuse_disk(name, with, NULL, 0, "");
    snprintf(with, sizeof(with), ",format=qcow2,backing=%s", base);
    blk = open_disk(name, with, NULL);
    expect_bytes(blk, 0, 64 * KiB, 0);
    blk_close(blk);
    unlink(base);
}

/* What is written to a disk with `snapshot` is forgotten. */
static void test_forgotten(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    uint64_t before = checksum(name);
    struct blk *blk = open_disk(name, ",format=qcow2,snapshot", NULL);

    put(blk, 32 * KiB, 512 * KiB, 7);
    assert_int_equal(blk_flush(blk), 0);
    expect_bytes(blk, 32 * KiB, 512 * KiB, 7);
    assert_int_equal(blk_info(blk).size, DISK);
    blk_close(blk);
    assert_int_equal(checksum(name), before);
}

/* ---- Damage ---- */

/* An L2 entry leads to a refcount block: the write is refused, and no other follows. */
static void test_corrupt(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    uint64_t block = block_of(name), before;
    struct blk *blk;
    char bytes[512] = {0};

    poke64(name, l2_of(name), block | QCOW2_COPIED);
    before = peek64(name, block);
    blk = open_disk(name, ",format=qcow2", NULL);
    assert_int_equal(blk_write(blk, 0, bytes, sizeof(bytes)), -EIO);
    assert_int_equal(blk_write(blk, 32 * KiB, bytes, sizeof(bytes)), -EIO);
    assert_int_equal(blk_write(blk, MiB, bytes, sizeof(bytes)), -EIO);
    assert_int_equal(blk_flush(blk), -EIO);
    assert_int_equal(blk_discard(blk, 0, DISK), -EIO);
    blk_close(blk);
    assert_int_equal(peek64(name, block), before);
    assert_int_equal(peek64(name, HEADER(incompatible)), QCOW2_INCOMPATIBLE_CORRUPT);
    refuse(name, "marked as corrupt");
    blk = open_disk(name, ",format=qcow2,readonly", NULL);
    assert_int_equal(blk_read(blk, MiB, bytes, sizeof(bytes)), 0);
    blk_close(blk);
}

/* An L2 entry leads to the L1 table's cluster, as data or as compressed data, and is discarded or
 * cut off with the end of the disk: the table stays. */
static void test_drops_metadata(void **state)
{
    const char *name = ((struct fixture *)*state)->name;

    for (unsigned i = 0; i < 3; i++) {
        uint64_t l1, l2;
        struct blk *blk;

        create(name, (struct qcow2_create){0});
        blk = open_disk(name, ",format=qcow2", NULL);
        put(blk, 0, CLUSTER, 1);
        blk_close(blk);
        l1 = peek64(name, HEADER(l1_offset));
        l2 = peek64(name, l1);
        poke64(name, l2_of(name) + 8 * 8, l1 | (i == 1 ? QCOW2_IS_COMPRESSED : QCOW2_COPIED));
        blk = open_disk(name, ",format=qcow2", NULL);
        if (i < 2)
            assert_int_equal(blk_discard(blk, 8 * CLUSTER, CLUSTER), 0);
        assert_int_equal(i < 2 ? blk_flush(blk) : blk_resize(blk, CLUSTER, NULL), -EIO);
        blk_close(blk);
        assert_int_equal(peek64(name, l1) & QCOW2_OFFSET, l2 & QCOW2_OFFSET);
        refuse(name, "marked as corrupt");
    }
}

/* Entries that lead out of the file. */
static void test_nowhere(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    struct blk *blk;
    char bytes[512];

    poke64(name, l2_of(name), 1ULL << 45 | QCOW2_COPIED);
    poke64(name, l2_of(name) + 8, (1ULL << 40) | QCOW2_IS_COMPRESSED);
    poke64(name, l2_of(name) + 16, CLUSTER + 512);
    blk = open_disk(name, ",format=qcow2,readonly", NULL);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(blk_read(blk, i * CLUSTER, bytes, sizeof(bytes)), -EIO);
    assert_int_equal(blk_read(blk, 3 * CLUSTER, bytes, sizeof(bytes)), 0);
    blk_close(blk);
}

static struct qcow2_checked check(const char *name, bool repair)
{
    struct qcow2_how how = {.damaged = true, .readonly = !repair};
    struct qcow2_check what = {.repair_leaks = repair, .repair_errors = repair};
    struct qcow2_checked found;
    struct error err = {0};
    struct blk *blk = qcow2_open(
        open_disk(name, repair ? ",format=raw" : ",format=raw,readonly", NULL), &how, &err);

    if (!blk)
        print_error("%s\n", err.text);
    assert_non_null(blk);
    assert_int_equal(qcow2_check(blk, &what, &found, &err), 0);
    blk_close(blk);
    return found;
}

/* Finds ERRORS and LEAKS (or more, but none for 0), repairs them, and has QEMU look. */
static void repair(const char *name, uint64_t errors, uint64_t leaks)
{
    uint64_t before = checksum(name);
    struct qcow2_checked found = check(name, false);
    struct blk *blk;

    assert_true(found.errors >= errors && !found.errors == !errors);
    assert_true(found.leaks >= leaks && !found.leaks == !leaks);
    assert_int_equal(found.errors_fixed + found.leaks_fixed, 0);
    assert_int_equal(checksum(name), before);
    found = check(name, true);
    assert_int_equal(found.errors_fixed, found.errors);
    assert_int_equal(found.leaks_fixed, found.leaks);
    found = check(name, false);
    assert_int_equal(found.errors, 0);
    assert_int_equal(found.leaks, 0);
    assert_int_equal(run("qemu-img check -q -f qcow2 $F", name), 0);
    blk = open_disk(name, ",format=qcow2", NULL);
    expect_bytes(blk, 0, 64 * KiB, 1);
    put(blk, MiB, MiB, 3);
    blk_close(blk);
    assert_int_equal(run("qemu-img check -q -f qcow2 $F", name), 0);
}

/* Has the image COUNT snapshots, whose L1 tables of 32 MiB are holes of the file. */
static void poke_snapshots(const char *name, unsigned count)
{
    uint64_t table = ALIGN_UP(size_of(name), MiB), l1 = table + MiB;

    for (unsigned i = 0; i < count; i++) {
        struct {
            struct qcow2_raw_snapshot fixed;
            struct qcow2_raw_snapshot_extra extra;
            char text[8]; /* an id and a name of one byte each */
        } entry = {
            .fixed.l1_offset = htobe64(l1 + i * (uint64_t)QCOW2_L1_MAX),
            .fixed.l1_entries = htobe32(QCOW2_L1_MAX / 8),
            .fixed.id_size = htobe16(1),
            .fixed.name_size = htobe16(1),
            .fixed.extra_size = htobe32(sizeof(entry.extra)),
            .extra.disk_size = htobe64(DISK),
            .text = "in",
        };

        poke(name, table + i * sizeof(entry), &entry, sizeof(entry));
    }
    assert_int_equal(truncate(name, (off_t)(l1 + count * (uint64_t)QCOW2_L1_MAX)), 0);
    poke64(name, HEADER(snapshots_offset), table);
    poke32(name, HEADER(snapshots), count);
}

/* Snapshots whose tables cost a sparse file nothing and who reads them a lot. */
static void test_many_snapshots(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    struct qcow2_how how = {.damaged = true, .readonly = true};
    struct qcow2_check what = {0};
    struct qcow2_checked found;
    struct error err = {0};
    struct blk *blk;

    poke_snapshots(name, 2);
    assert_int_equal(check(name, false).leaks, 0);
    poke_snapshots(name, 33);
    refuse_disk(name, ",format=qcow2", NULL, EFBIG, "its snapshots' L1 tables are too large");
    blk = qcow2_open(open_disk(name, ",format=raw,readonly", NULL), &how, &err);
    assert_non_null(blk);
    assert_int_equal(qcow2_check(blk, &what, &found, &err), -EFBIG);
    assert_non_null(strstr(err.text, "too large"));
    blk_close(blk);
}

/* An image of clusters of 2 MiB with refcounts of one bit, and COUNT refcount blocks, which are
 * holes of the file but for the first: each is for 32 TiB. */
static void make_roomy(const char *name, unsigned count)
{
    struct qcow2_raw_header header = {
        .magic = htobe32(QCOW2_MAGIC),
        .version = htobe32(3),
        .cluster_bits = htobe32(21),
        .size = htobe64(MiB),
        .l1_entries = htobe32(1),
        .l1_offset = htobe64(4 * MiB),
        .reftable_offset = htobe64(2 * MiB),
        .reftable_clusters = htobe32(1),
        .header_size = htobe32(QCOW2_HEADER_V3),
    };

    assert_int_equal(truncate(name, 0), 0);
    poke(name, 0, &header, QCOW2_HEADER_V3);
    for (unsigned i = 0; i < count; i++)
        poke64(name, 2 * MiB + 8 * i, (3 + i) * 2 * MiB);
    for (unsigned i = 0; i < 3 + count; i += 8) {
        uint8_t bits = (uint8_t)(count + 3 - i >= 8 ? 0xff : (1u << (count + 3 - i)) - 1);

        poke(name, 6 * MiB + i / 8, &bits, 1);
    }
    assert_int_equal(truncate(name, (off_t)((3 + count) * 2 * MiB)), 0);
}

/* A check skips refcounts that are 0, of which there can be far more than anybody can look at, and
 * none that is not. */
static void test_roomy(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    const uint8_t one = 1, last = 0x80;
    struct qcow2_checked found;

    make_roomy(name, 100);
    found = check(name, false);
    assert_int_equal(found.errors + found.leaks, 0);
    poke(name, 6 * MiB + 1000, &one, 1);
    poke(name, 6 * MiB + 70 * 2 * MiB + 12345, &one, 1);
    poke(name, 6 * MiB + 100 * 2 * MiB - 1, &last, 1);
    found = check(name, true);
    assert_int_equal(found.errors, 0);
    assert_int_equal(found.leaks, 3);
    assert_int_equal(found.leaks_fixed, 3);
    make_roomy(name, 600);
    found = check(name, false);
    assert_int_equal(found.errors, 1);
    found = check(name, true);
    assert_int_equal(found.errors_fixed, 1);
    found = check(name, false);
    assert_int_equal(found.errors + found.leaks, 0);
}

/* How many bytes this process has read from files. */
static uint64_t bytes_read(void)
{
    char line[64];
    unsigned long long bytes = 0;
    FILE *f = fopen("/proc/self/io", "r");

    while (f && fgets(line, sizeof(line), f))
        sscanf(line, "rchar: %llu", &bytes);
    if (f)
        fclose(f);
    return bytes;
}

/* Writes a table of COUNT entries at OFFSET that lead to clusters of 2 MiB behind each other, from
 * PLACE on. */
static void poke_table(const char *name, uint64_t offset, uint64_t place, unsigned count)
{
    uint64_t *entries = calloc(count, sizeof(*entries));

    for (unsigned i = 0; i < count; i++)
        entries[i] = htobe64(place + i * 2 * MiB);
    poke(name, offset, entries, count * sizeof(*entries));
    free(entries);
}

/* A file of 2^60 bytes, nearly all of them holes, where tables can be that nobody has the time to
 * read: 2^15 refcount blocks of 2 MiB each, and as many L2 tables. */
static void test_endless(void **state)
{
    const unsigned tables = 1u << 15;
    const uint64_t l1 = 8 * MiB, place = UINT64_C(1) << 40;
    int fd = memfd_create("image", MFD_CLOEXEC);
    struct qcow2_checked found;
    char name[64];
    uint64_t before;

    assert_true(fd >= 0);
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    make_roomy(name, 1);
    poke_table(name, 2 * MiB + 8, place, tables - 1);
    poke_table(name, l1, place + tables * 2 * MiB, tables);
    poke64(name, HEADER(size), (uint64_t)tables << 39);
    poke64(name, HEADER(l1_offset), l1);
    poke32(name, HEADER(l1_entries), tables);
    assert_int_equal(ftruncate(fd, (off_t)1 << 60), 0);
    before = bytes_read();
    found = check(name, false);
    /* The tables are in use, and refcounts say that they are not. */
    assert_true(found.errors >= 2 * tables - 1);
    assert_int_equal(found.allocated, 0);
    assert_true(bytes_read() - before < 256 * MiB);
    close(fd);
}

static void test_repair(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    uint64_t block = block_of(name), l1 = peek64(name, HEADER(l1_offset));
    static const char zero[CLUSTER];
    uint16_t count = htobe16(5);

    repair(name, 0, 0);
    poke(name, block + 2 * 8, &count, 2);
    repair(name, 0, 1);
    poke(name, block, zero, 64);
    repair(name, 30, 0);
    poke(name, block, zero, sizeof(zero)); /* all of it */
    poke64(name, HEADER(incompatible), QCOW2_INCOMPATIBLE_CORRUPT);
    repair(name, 1, 0);
    poke64(name, peek64(name, HEADER(reftable_offset)), block_of(name) | 0x100);
    repair(name, 1, 1);
    l1 = peek64(name, HEADER(l1_offset));
    poke64(name, l1, l2_of(name)); /* flags */
    poke64(name, l2_of(name), peek64(name, l2_of(name)) & ~QCOW2_COPIED);
    repair(name, 2, 0);
}

/* The refcount table itself is gone, or leads nowhere. */
static void test_rebuild(void **state)
{
    const char *name = ((struct fixture *)*state)->name;

    poke64(name, peek64(name, HEADER(reftable_offset)), 0);
    repair(name, 10, 0);
    poke64(name, peek64(name, HEADER(reftable_offset)), 0x123400);
    repair(name, 10, 0);
    poke64(name, peek64(name, HEADER(reftable_offset)), peek64(name, HEADER(l1_offset)));
    repair(name, 1, 1); /* what is in the L1 table, read as refcounts */
}

/* An image with lazy refcounts that was not closed is repaired when it is opened. */
static void test_lazy(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    char copy[80];
    struct blk *blk;

    create(name, (struct qcow2_create){.lazy_refcounts = true});
    blk = open_disk(name, ",format=qcow2", NULL);
    put(blk, 0, 64 * KiB, 1);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(run("cp $F $F.killed", name), 0);
    blk_close(blk);
    assert_int_equal(peek64(name, HEADER(incompatible)), 0);
    snprintf(copy, sizeof(copy), "%s.killed", name);
    assert_int_equal(peek64(copy, HEADER(incompatible)), QCOW2_INCOMPATIBLE_DIRTY);
    assert_true(check(copy, false).errors > 0);
    blk = open_disk(copy, ",format=qcow2", NULL);
    expect_bytes(blk, 0, 64 * KiB, 1);
    blk_close(blk);
    assert_int_equal(peek64(copy, HEADER(incompatible)), 0);
    repair(copy, 0, 0);
    unlink(copy);
}

/* ---- Room ---- */

static void test_shrinks(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    struct blk *blk = open_disk(name, ",format=qcow2", NULL);
    uint64_t before = blocks_of(name);

    put(blk, MiB, 4 * MiB, 2);
    assert_int_equal(blk_flush(blk), 0);
    assert_true(blocks_of(name) >= before + 4 * MiB);
    assert_int_equal(blk_discard(blk, MiB, 4 * MiB), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_true(blocks_of(name) <= before + 64 * KiB);
    blk_close(blk);
    repair(name, 0, 0);
}

/* A part of a file, as a device is: it cannot grow, and its end fills no cluster. */
static void test_part(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    struct qcow2_create what = {.size = 8 * MiB, .cluster_size = 65536};
    const char *part = ",format=raw,offset=1M,size=2097664";
    struct error err = {0};
    uint64_t done = 0;
    struct blk *blk;

    assert_int_equal(truncate(name, 4 * MiB), 0);
    blk = open_disk(name, part, NULL);
    assert_int_equal(qcow2_create(blk, &what, &err), 0);
    blk_close(blk);
    blk = open_disk(name, ",format=qcow2,offset=1M,size=2097664", NULL);
    for (uint64_t at = 0; at < 8 * MiB; at += 65536) {
        int ret = blk_write(blk, at, (char[512]){1}, 512);

        assert_true(ret == 0 || ret == -ENOSPC);
        done += ret == 0;
    }
    assert_true(done > 20 && done < 33);
    blk_close(blk);
    blk = open_disk(name, ",format=qcow2,offset=1M,size=2097664,readonly", NULL);
    blk_close(blk);
    assert_int_equal(size_of(name), 4 * MiB);
}

/* ---- What QEMU has made ---- */

/* Compares the image with NAME.raw, which holds the same. */
static void same(const char *name, const char *more)
{
    static uint8_t bytes[64 * KiB], want[64 * KiB];
    char raw[80];
    struct blk *blk = open_disk(name, more, NULL);
    FILE *file;

    snprintf(raw, sizeof(raw), "%s.raw", name);
    file = fopen(raw, "r");
    for (uint64_t at = 0; at < blk_info(blk).size; at += sizeof(bytes)) {
        uint64_t n = MIN(sizeof(bytes), blk_info(blk).size - at);

        assert_int_equal(blk_read(blk, at, bytes, n), 0);
        assert_int_equal(fread(want, 1, n, file), n);
        assert_memory_equal(bytes, want, n);
    }
    fclose(file);
    blk_close(blk);
}

/* A raw file NAME.raw with parts that can be compressed and parts that cannot. */
static void make_raw(const char *name)
{
    assert_int_equal(run("yes compressible | head -c 3000000 >$F.raw; head -c 1000000 /dev/urandom "
                         ">>$F.raw; truncate -s 8M $F.raw",
                         name),
                     0);
}

static void test_compressed_by_qemu(void **state)
{
    const char *name = ((struct fixture *)*state)->name;

    make_raw(name);
    for (unsigned i = 0; i < 2; i++) {
        struct blk *blk;

        assert_int_equal(run(i ? "qemu-img convert -c -O qcow2 -o compression_type=zstd $F.raw $F"
                               : "qemu-img convert -c -O qcow2 $F.raw $F",
                             name),
                         0);
        same(name, ",format=qcow2,readonly");
        blk = open_disk(name, ",format=qcow2", NULL);
        put(blk, MiB + 512, 4 * KiB, 9);
        expect_bytes(blk, MiB + 512, 4 * KiB, 9);
        blk_close(blk);
        assert_int_equal(run("qemu-img check -q -f qcow2 $F", name), 0);
    }
    assert_int_equal(run("rm $F.raw", name), 0);
}

static void test_compressed_by_us(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    static uint8_t bytes[64 * KiB];
    char raw[80];

    make_raw(name);
    snprintf(raw, sizeof(raw), "%s.raw", name);
    for (unsigned i = 0; i < 2; i++) {
        struct error err = {0};
        FILE *file = fopen(raw, "r");
        struct blk *blk;

        create(name, (struct qcow2_create){.cluster_size = 65536,
                                           .compression = i ? QCOW2_ZSTD : QCOW2_ZLIB});
        blk = open_disk(name, ",format=qcow2", NULL);
        for (uint64_t at = 0; fread(bytes, sizeof(bytes), 1, file) == 1; at += sizeof(bytes))
            assert_int_equal(qcow2_write_compressed(blk, at, bytes, sizeof(bytes), &err), 0);
        blk_close(blk);
        fclose(file);
        same(name, ",format=qcow2,readonly");
        assert_true(size_of(name) < 2 * MiB);
        assert_int_equal(run("qemu-img check -q $F && qemu-img compare -q -F raw $F $F.raw", name),
                         0);
    }
    unlink(raw);
}

/* Extended L2 entries can be read; subclusters of each kind. */
static void test_extended(void **state)
{
    const char *name = ((struct fixture *)*state)->name;

    make_raw(name);
    assert_int_equal(run("qemu-img create -q -f qcow2 -F raw -b $F.raw -o extended_l2=on $F", name),
                     0);
    assert_int_equal(run("qemu-io -f qcow2 -c 'write -P 5 0 2k' -c 'write -P 6 70k 10k' -c 'write "
                         "-z 100k 30k' -c 'write -P 7 1M 64k' -c 'discard 3M 1M' $F >/dev/null",
                         name),
                     0);
    assert_int_equal(run("qemu-img convert -O raw $F $F.flat && mv $F.raw base.raw", name), 0);
    assert_int_equal(run("mv $F.flat $F.raw", name), 0);
    same(name, ",format=qcow2,readonly,backing=base.raw");
    refuse_disk(name, ",format=qcow2,backing=base.raw", NULL, ENOTSUP, "extended L2");
    assert_int_equal(check(name, false).errors + check(name, false).leaks, 0);
    assert_int_equal(run("rm $F.raw base.raw", name), 0);
}

/* QEMU's snapshots: listed, applied, and kept by our writes; and ours by QEMU. */
static void test_snapshots(void **state)
{
    const char *name = ((struct fixture *)*state)->name;
    struct qcow2_snapshot *list;
    struct error err = {0};
    unsigned count;
    struct blk *blk;

    assert_int_equal(run("qemu-img snapshot -c first $F", name), 0);
    blk = open_disk(name, ",format=qcow2", NULL);
    put(blk, 0, 32 * KiB, 2);
    assert_int_equal(qcow2_snapshot_create(blk, "second", &err), 0);
    assert_int_equal(qcow2_snapshot_create(blk, "second", &err), -EEXIST);
    assert_int_equal(qcow2_snapshot_apply(blk, "third", &err), -ENOENT);
    assert_int_equal(qcow2_snapshots(blk, &list, &count, &err), 0);
    assert_int_equal(count, 2);
    assert_string_equal(list[0].name, "first");
    assert_string_equal(list[1].name, "second");
    assert_string_equal(list[1].id, "2");
    assert_int_equal(list[1].disk_size, DISK);
    qcow2_snapshots_free(list, count);
    put(blk, 0, 16 * KiB, 3);
    assert_int_equal(qcow2_snapshot_apply(blk, "1", &err), 0);
    expect_bytes(blk, 0, 64 * KiB, 1);
    blk_close(blk);
    assert_int_equal(run("qemu-img check -q $F && qemu-img snapshot -a second $F", name), 0);
    blk = open_disk(name, ",format=qcow2", NULL);
    expect_bytes(blk, 0, 32 * KiB, 2);
    assert_int_equal(qcow2_snapshot_delete(blk, "first", &err), 0);
    assert_int_equal(qcow2_snapshot_delete(blk, "second", &err), 0);
    blk_close(blk);
    assert_int_equal(run("qemu-img check -q -f qcow2 $F", name), 0);
}

/* Bitmaps of QEMU's are stale after we have written, and say so. */
static void test_bitmaps(void **state)
{
    const char *name = ((struct fixture *)*state)->name;

    assert_int_equal(run("qemu-img bitmap --add --enable $F bitmap", name), 0);
    assert_int_equal(peek64(name, HEADER(autoclear)), QCOW2_AUTOCLEAR_BITMAPS);
    assert_int_equal(check(name, false).errors + check(name, false).leaks, 0);
    blk_close(open_disk(name, ",format=qcow2,readonly", NULL));
    assert_int_equal(peek64(name, HEADER(autoclear)), QCOW2_AUTOCLEAR_BITMAPS);
    blk_close(open_disk(name, ",format=qcow2", NULL));
    assert_int_equal(peek64(name, HEADER(autoclear)), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_header),
        TEST(test_feature_names),
        TEST(test_overlaps),
        TEST(test_backing),
        TEST(test_forgotten),
        TEST(test_corrupt),
        TEST(test_drops_metadata),
        TEST(test_nowhere),
        TEST(test_many_snapshots),
        TEST(test_roomy),
        TEST(test_endless),
        TEST(test_repair),
        TEST(test_rebuild),
        TEST(test_lazy),
        TEST(test_shrinks),
        TEST(test_part),
        TEST(test_compressed_by_qemu),
        TEST(test_compressed_by_us),
        TEST(test_extended),
        TEST(test_snapshots),
        TEST(test_bitmaps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
