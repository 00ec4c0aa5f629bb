/*
 * The save/restore visitor and its format: what is saved comes back, and whatever is wrong with a
 * saved state is found before it has been used, and named.
 */
#include "test.h"

#include "state_image.h"

#include <errno.h>

/* What is saved in most tests: two things of one kind, and another. */
struct thing {
    uint32_t number;
    bool flag;
    uint8_t bytes[3];
};

static uint32_t visit_thing(struct thing *t, struct state *s, uint32_t instance, uint32_t version)
{
    uint32_t found = state_section(s, "thing", instance, version);

    state_field(s, t->number);
    state_bool(s, &t->flag);
    state_bytes(s, t->bytes, sizeof(t->bytes));
    return found;
}

static void visit_all(struct thing all[3], struct state *s)
{
    visit_thing(&all[0], s, 0, 1);
    visit_thing(&all[1], s, 0x3F8, 1);
    state_section(s, "other", 0, 1);
    state_field(s, all[2].number);
}

static const struct thing saved[3] = {
    {7, true, {1, 2, 3}}, {9, false, {4, 5, 6}}, {11, false, {0}}};

static struct state_image save_all(void)
{
    struct state_image image = {0};
    struct thing all[3];
    struct state *s = image_save(&image);

    memcpy(all, saved, sizeof(all));
    visit_all(all, s);
    assert_int_equal(image_done(s), 0);
    return image;
}

/* Loads IMAGE, which must fail, and returns why. */
static struct error failure(struct state_image *image)
{
    struct state_reader reader = image_reader(image);
    struct error err = {0};
    struct thing all[3] = {0};
    struct state *s = state_create_load(&reader, &err);

    if (s) {
        visit_all(all, s);
        assert_int_not_equal(state_finish(s), 0);
        assert_non_null(state_failure(s));
        err = *state_failure(s);
        assert_int_equal(state_error(s), -err.code);
        state_free(s);
    }
    assert_int_not_equal(err.code, 0);
    assert_null(strchr(err.text, '\n'));
    return err;
}

static void expect_failure(struct state_image *image, const char *text)
{
    struct error err = failure(image);

    assert_string_equal(err.text, text);
    image_free(image);
}

/* The offset of section N. */
static size_t section(const struct state_image *image, unsigned n)
{
    size_t at = IMAGE_HEADER;

    while (n--)
        at = image_next(image, at);
    return at;
}

static void test_round_trip(void **unused)
{
    struct state_image image = save_all();
    struct thing all[3] = {0};
    struct state *s = image_load(&image);

    (void)unused;
    assert_false(state_saving(s));
    assert_string_equal(state_maker(s), "a test");
    visit_all(all, s);
    assert_int_equal(image_done(s), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(all[i].number, saved[i].number);
        assert_int_equal(all[i].flag, saved[i].flag);
        assert_memory_equal(all[i].bytes, saved[i].bytes, 3);
    }
    assert_int_equal(image.at, image.size);
    image_free(&image);
}

/* Wherever it ends before its end, that is noticed, and no field changes after it. */
static void test_cut_off(void **unused)
{
    struct state_image image = save_all();
    size_t size = image.size, first = section(&image, 0), third = section(&image, 2);

    (void)unused;
    for (image.size = 0; image.size < size; image.size++)
        failure(&image);
    image.size = 20;
    assert_string_equal(failure(&image).text,
                        "the saved state ends within its header: it is cut off");
    image.size = first + 60;
    assert_string_equal(failure(&image).text,
                        "section thing 0: the saved state is cut off within it");
    image.size = third;
    assert_string_equal(failure(&image).text,
                        "section other 0: missing: the saved state is cut off");
    image_free(&image);
}

/* No bit can change. */
static void test_damaged(void **unused)
{
    struct state_image image = save_all();

    (void)unused;
    for (size_t i = 0; i < image.size * 8; i++) {
        image.data[i / 8] ^= (uint8_t)(1u << i % 8);
        failure(&image);
        image.data[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    image.data[section(&image, 1) + IMAGE_SECTION + 4]++;
    expect_failure(&image, "section thing 3f8: damaged: wrong checksum");
}

/* A section that is damaged is found out before the visitor has seen a field of it. */
static void test_fields_stay(void **unused)
{
    struct state_image image = save_all();
    struct thing t = {.number = 77, .flag = true};
    struct state *s;

    (void)unused;
    image.data[section(&image, 1) - 1]++; /* the last field of the first thing */
    s = image_load(&image);
    assert_int_equal(visit_thing(&t, s, 0, 1), 0);
    assert_int_equal(t.number, 77);
    assert_true(t.flag);
    assert_int_equal(state_section(s, "other", 0, 1), 0);
    state_free(s);
    image_free(&image);
}

static void test_not_ours(void **unused)
{
    struct state_image image = save_all();

    (void)unused;
    image.data[0] = 'D';
    image_seal(&image);
    expect_failure(&image, "this is not a saved machine");
    image = (struct state_image){0};
    expect_failure(&image, "this is not a saved machine");
}

static void test_newer(void **unused)
{
    struct state_image image = save_all();

    (void)unused;
    image.data[IMAGE_FORMAT] = 2;
    memcpy(image.data + 16, "doppel\x1B 9", 9);
    image_seal(&image);
    expect_failure(&image,
                   "the saved state has format 2, made by doppel? 9; this version of doppel "
                   "knows format 1");
    image = save_all();
    image.data[section(&image, 1) + IMAGE_VERSION] = 4;
    image_seal(&image);
    expect_failure(&image, "section thing 3f8: it has version 4, made by a test; this version of "
                           "doppel knows version 1");
    image = save_all();
    image.data[section(&image, 1) + IMAGE_VERSION] = 0;
    image_seal(&image);
    failure(&image);
    image_free(&image);
}

/* A visitor that knows a newer version is told which one it reads. */
static void test_older(void **unused)
{
    struct state_image image = save_all();
    struct state *s = image_load(&image);
    struct thing t = {0};

    (void)unused;
    assert_int_equal(visit_thing(&t, s, 0, 3), 1);
    assert_int_equal(t.number, saved[0].number);
    state_free(s);
    image_free(&image);
}

static void test_other_sections(void **unused)
{
    struct state_image image = save_all();

    (void)unused;
    image.data[section(&image, 1)] = 'T';
    image.data[section(&image, 1) + 1] = '\n';
    image_seal(&image);
    expect_failure(&image, "section thing 3f8: missing, and section T?ing 3f8 is in its place: the "
                           "saved machine is another");
    image = save_all();
    image.data[section(&image, 1) + 24] = 0xE8;
    image_seal(&image);
    expect_failure(&image, "section thing 3f8: missing, and section thing 3e8 is in its place: the "
                           "saved machine is another");
}

/* What it says of its lengths is not believed. */
static void test_lengths(void **unused)
{
    struct state_image image = save_all();
    size_t at = section(&image, 1);

    (void)unused;
    image_put64(&image, at + IMAGE_LENGTH, STATE_SECTION_MAX + 1);
    expect_failure(&image, "section thing 3f8: its length of 2097153 bytes cannot be");
    image = save_all();
    image.data[at + IMAGE_SECTION] = 3; /* of its first field */
    image_seal(&image);
    expect_failure(&image, "section thing 3f8, field number: it has another size");
    image = save_all();
    image.data[section(&image, 2) - 7] = 2; /* of its last field */
    image_seal(&image);
    expect_failure(&image, "section thing 3f8, field bytes: it has another size");
}

/* A section must have just the fields that the visitor knows. */
static void test_other_fields(void **unused)
{
    struct state_image image = {0};
    struct thing t = saved[0];
    uint64_t more = 0;
    struct state *s = image_save(&image);

    (void)unused;
    visit_thing(&t, s, 0, 1);
    state_field(s, more);
    assert_int_equal(image_done(s), 0);
    expect_failure(&image, "section thing 0: 12 bytes are left over");

    s = image_save(&image);
    state_section(s, "thing", 0, 1);
    state_field(s, t.number);
    assert_int_equal(image_done(s), 0);
    expect_failure(&image, "section thing 0, field flag: missing");
}

/* A section between others that has gone is missed at the latest at the end. */
static void test_count(void **unused)
{
    struct state_image image = save_all();
    size_t end = section(&image, 3);

    (void)unused;
    image.data[end + IMAGE_SECTION + 4] = 2;
    image_seal(&image);
    expect_failure(&image, "section end 0: there were 3 sections, and should be 2");
}

static void test_visitor_fails(void **unused)
{
    struct state_image image = save_all();
    struct state *s = image_load(&image);
    struct thing t = {0};

    (void)unused;
    visit_thing(&t, s, 0, 1);
    assert_int_equal(state_fail(s, "number %u is odd", t.number), -EINVAL);
    assert_string_equal(state_failure(s)->text, "section thing 0: number 7 is odd");
    state_fail(s, "and then");
    assert_string_equal(state_failure(s)->text, "section thing 0: number 7 is odd");
    assert_int_equal(visit_thing(&t, s, 0x3F8, 1), 0);
    assert_int_equal(t.number, 7);
    state_free(s);
    image_free(&image);
}

/* --- The other end --------------------------------------------------------------------------- */

static int no_room(void *opaque, const void *data, size_t size, struct error *err)
{
    unsigned *calls = opaque;

    return --*calls ? 0 : error_set(err, ENOSPC, "the disk is full");
}

static ssize_t no_data(void *opaque, void *data, size_t size, struct error *err)
{
    struct state_image *image = opaque;

    if (image->at > 100)
        return error_set(err, EIO, "the disk is broken");
    return image_read(image, data, size, err);
}

static void test_other_end_fails(void **unused)
{
    struct thing all[3];
    struct error err = {0};
    unsigned calls = 1;
    struct state_writer writer = {.write = no_room, .opaque = &calls};
    struct state *s = state_create_save(&writer, "a test", &err);
    struct state_image image = save_all();
    struct state_reader reader = {.read = no_data, .opaque = &image};

    (void)unused;
    assert_null(s);
    assert_int_equal(err.code, ENOSPC);
    assert_string_equal(err.text, "the state cannot be saved: the disk is full");
    calls = 4;
    s = state_create_save(&writer, "a test", &err);
    memcpy(all, saved, sizeof(all));
    visit_all(all, s);
    assert_int_equal(state_finish(s), -ENOSPC);
    state_free(s);

    s = state_create_load(&reader, &err);
    visit_all(all, s);
    assert_int_equal(state_error(s), -EIO);
    assert_string_equal(state_failure(s)->text,
                        "the saved state cannot be read: the disk is broken");
    state_free(s);
    image_free(&image);
}

/* A section has a size that a reader can count on. */
static void test_section_too_long(void **unused)
{
    struct state_image image = {0};
    struct state *s = image_save(&image);
    static uint8_t half[STATE_SECTION_MAX / 2];

    (void)unused;
    state_section(s, "long", 0, 1);
    state_bytes(s, half, sizeof(half));
    assert_int_equal(state_error(s), 0);
    state_bytes(s, half, sizeof(half));
    assert_string_equal(state_failure(s)->text,
                        "section long 0, field half: the section becomes too long");
    state_free(s);
    image_free(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_damaged),         cmocka_unit_test(test_fields_stay),
        cmocka_unit_test(test_not_ours),        cmocka_unit_test(test_newer),
        cmocka_unit_test(test_older),           cmocka_unit_test(test_other_sections),
        cmocka_unit_test(test_lengths),         cmocka_unit_test(test_other_fields),
        cmocka_unit_test(test_count),           cmocka_unit_test(test_visitor_fails),
        cmocka_unit_test(test_other_end_fails), cmocka_unit_test(test_section_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
