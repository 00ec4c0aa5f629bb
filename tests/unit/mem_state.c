/*
 * Guest memory in a saved machine: RAM that was added, ROM and memory of devices, wherever they are
 * mapped, and files that do not fit.
 */
#include "test.h"

#include "base/util.h"
#include "mem/log.h"
#include "mem/mem.h"
#include "state_image.h"

#include <string.h>

#define ROM      0xFFFE0000ULL
#define ROM_SIZE (128 * KiB)
#define VRAM     (3 * MiB) /* more pages than one section holds */
#define BAR      0xE0000000ULL
#define MORE     0x200000000ULL

/* A machine's memory with one region of each kind, and what a listener has heard of it. */
struct machine {
    struct mem *mem;
    struct mem_region *rom, *vram, *more;
    struct mem_listener listener;
    uint64_t written; /* bytes of the ROM */
};

static void on_written(void *opaque, uint64_t gpa, uint64_t size)
{
    struct machine *m = opaque;

    m->written += gpa >= ROM && gpa < ROM + ROM_SIZE ? size : 0;
}

static const struct mem_listener_ops ops = {.written = on_written};

static struct mem_region *add(struct machine *m, const char *name, uint64_t gpa, uint64_t size,
                              enum mem_kind kind)
{
    struct mem_region_config config = {
        .name = name, .gpa = gpa, .size = size, .kind = kind, .log = kind == MEM_DEVICE};
    struct error err = {0};
    struct mem_region *r = mem_region_add(m->mem, &config, &err);

    if (!r)
        fail_msg("%s", err.text);
    return r;
}

/* VRAM_AT may be MEM_NOWHERE. */
static void build(struct machine *m, uint64_t vram_at)
{
    *m = (struct machine){.mem = mem_create(4 * MiB, NULL)};
    assert_non_null(m->mem);
    m->rom = add(m, "firmware", ROM, ROM_SIZE, MEM_ROM);
    m->vram = add(m, "video memory", vram_at, VRAM, MEM_DEVICE);
    m->more = add(m, "more memory", MORE, 2 * MiB, MEM_RAM);
    m->listener = (struct mem_listener){.ops = &ops, .opaque = m};
    mem_listen(m->mem, &m->listener);
}

static void destroy(struct machine *m)
{
    mem_unlisten(m->mem, &m->listener);
    mem_destroy(m->mem);
}

static struct state_image save(struct mem *mem)
{
    struct state_image image = {0};
    struct state *s = image_save(&image);

    mem_state(mem, s);
    assert_int_equal(image_done(s), 0);
    return image;
}

/* Why IMAGE is not loaded into MEM. */
static struct error failure(struct state_image *image, struct mem *mem)
{
    struct state *s = image_load(image);
    struct error err;

    mem_state(mem, s);
    assert_true(state_finish(s) < 0);
    err = *state_failure(s);
    state_free(s);
    return err;
}

static void load(struct state_image *image, struct mem *mem)
{
    struct state *s = image_load(image);

    mem_state(mem, s);
    assert_int_equal(image_done(s), 0);
}

/* Every byte comes back, what a new machine's firmware has elsewhere is gone, and whoever keeps
 * code or shows a picture hears of it. */
static void test_all_kinds(void **unused)
{
    static uint64_t dirty[VRAM / MEM_PAGE_SIZE / 64];
    struct machine from, to;
    struct state_image image;
    uint64_t value = 0x1122334455667788, got = 0;

    build(&from, BAR);
    memcpy(mem_region_host(from.rom), "old firmware", 12);
    memset((char *)mem_region_host(from.rom) + ROM_SIZE - 100, 0xCC, 100);
    for (uint64_t at = 0; at < VRAM; at += MEM_PAGE_SIZE)
        memcpy((char *)mem_region_host(from.vram) + at + 8, &at, 8);
    assert_int_equal(mem_write(from.mem, MORE + 2 * MiB - 8, &value, 8), 0);
    assert_int_equal(mem_write(from.mem, 0x1000, &value, 8), 0);
    image = save(from.mem);

    build(&to, MEM_NOWHERE);
    memset(mem_region_host(to.rom), 0xEE, ROM_SIZE);
    load(&image, to.mem);
    assert_memory_equal(mem_region_host(to.rom), mem_region_host(from.rom), ROM_SIZE);
    assert_memory_equal(mem_region_host(to.vram), mem_region_host(from.vram), VRAM);
    assert_int_equal(mem_read(to.mem, MORE + 2 * MiB - 8, &got, 8), 0);
    assert_int_equal(got, value);
    assert_int_equal(mem_read(to.mem, 0x1000, &got, 8), 0);
    assert_int_equal(got, value);
    assert_int_equal(to.written, ROM_SIZE);
    assert_int_equal(mem_region_log_fetch(to.vram, dirty), VRAM / MEM_PAGE_SIZE);
    destroy(&from);
    destroy(&to);
    image_free(&image);
}

/* Memory of a device that nobody has touched takes no room in the file, nor on the host. */
static void test_untouched(void **unused)
{
    struct machine from, to;
    struct state_image image;

    build(&from, BAR);
    ((char *)mem_region_host(from.vram))[2 * MiB] = 1;
    image = save(from.mem);
    assert_true(image.size < 32 * KiB);
    destroy(&from);
    build(&to, BAR);
    load(&image, to.mem);
    assert_int_equal(((char *)mem_region_host(to.vram))[2 * MiB], 1);
    image_free(&image);
    image = save(to.mem);
    assert_true(image.size < 32 * KiB);
    destroy(&to);
    image_free(&image);
}

/* A machine whose regions are others is another machine. */
static void test_other_regions(void **unused)
{
    struct machine from;
    struct mem *mem = mem_create(4 * MiB, NULL);
    struct machine other = {.mem = mem};
    struct state_image image;

    build(&from, BAR);
    mem_region_remove(from.more);
    image = save(from.mem);
    destroy(&from);
    assert_string_equal(failure(&image, mem).text,
                        "section end 0: missing, and section region 0 is in its place: the saved "
                        "machine is another");
    add(&other, "firmware", ROM, ROM_SIZE / 2, MEM_ROM);
    assert_string_equal(failure(&image, mem).text,
                        "section region 0: the saved machine has another region of memory than "
                        "firmware of 64 KiB here");
    mem_destroy(mem);
    mem = other.mem = mem_create(4 * MiB, NULL);
    add(&other, "firmware", ROM, ROM_SIZE, MEM_ROM);
    add(&other, "a picture's memory, with a name that is cut off", BAR, VRAM, MEM_DEVICE);
    assert_string_equal(failure(&image, mem).text,
                        "section region 1: the saved machine has another region of memory than a "
                        "picture's memory, wit of 3072 KiB here");
    mem_destroy(mem);
    image_free(&image);
}

/* The section NAME, whichever comes first. */
static uint8_t *fields_of(const struct state_image *image, const char *name)
{
    size_t at = IMAGE_HEADER;

    while (strcmp((const char *)image->data + at, name) != 0)
        at = image_next(image, at);
    return image->data + at + IMAGE_SECTION;
}

/* Pages that a region does not have are not written. */
static void test_impossible(void **unused)
{
    struct machine from, to;
    struct state_image image;
    uint64_t page = ROM_SIZE / MEM_PAGE_SIZE;
    uint32_t count = 257;
    uint8_t *fields;

    build(&from, BAR);
    memset(mem_region_host(from.rom), 1, ROM_SIZE);
    image = save(from.mem);
    destroy(&from);
    build(&to, BAR);
    fields = fields_of(&image, "region_pages");
    memcpy(fields + 8 + 4 + 31 * 8, &page, 8);
    image_seal(&image);
    assert_string_equal(failure(&image, to.mem).text,
                        "section region_pages 0: page 20: not in the region");
    page = 0;
    memcpy(fields + 8 + 4 + 31 * 8, &page, 8);
    image_seal(&image);
    assert_string_equal(failure(&image, to.mem).text,
                        "section region_pages 0: page 0: not in order");
    memcpy(fields + 4, &count, 4);
    image_seal(&image);
    assert_string_equal(failure(&image, to.mem).text,
                        "section region_pages 0: count 257: must be 256 or less");
    destroy(&to);
    image_free(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_kinds),
        cmocka_unit_test(test_untouched),
        cmocka_unit_test(test_other_regions),
        cmocka_unit_test(test_impossible),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
