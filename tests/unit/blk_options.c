/*
 * What a user says of a disk, as text: each word, and what is said of words that are wrong.
 */
#include "test.h"

#include "base/util.h"
#include "blk/options.h"

#include <errno.h>
#include <string.h>

static struct blk_options parse(const char *text)
{
    struct blk_options options;
    struct error err = {0};
    int ret = blk_options_parse(text, &options, &err);

    if (ret < 0)
        print_error("'%s': %s\n", text, err.text);
    assert_int_equal(ret, 0);
    return options;
}

static void test_defaults(void **unused)
{
    struct blk_options o = parse("data.raw");

    assert_string_equal(o.file, "data.raw");
    assert_int_equal(o.source, BLK_FILE);
    assert_int_equal(o.format, BLK_RAW);
    assert_int_equal(o.cache, BLK_CACHE_WRITEBACK);
    assert_false(o.readonly || o.snapshot || o.isolate || o.keep);
    assert_null(o.serial);
    assert_null(o.backing);
    assert_true(o.offset == 0 && o.size == 0 && o.iops == 0 && o.bps == 0 && o.queues == 0);
    blk_options_free(&o);
    assert_null(o.file);
}

static void test_all(void **unused)
{
    struct blk_options o = parse("file=a.img,format=qcow2,readonly=off,snapshot,cache=none,"
                                 "discard=ignore,serial=A 1,offset=1M,size=3G,iops=500,bps=20M,"
                                 "isolate=on,queues=4,backing=b,,c.raw");

    assert_string_equal(o.file, "a.img");
    assert_int_equal(o.format, BLK_QCOW2);
    assert_false(o.readonly);
    assert_true(o.snapshot && o.isolate && o.keep);
    assert_int_equal(o.cache, BLK_CACHE_NONE);
    assert_string_equal(o.serial, "A 1");
    assert_string_equal(o.backing, "b,c.raw");
    assert_int_equal(o.offset, MiB);
    assert_int_equal(o.size, 3 * GiB);
    assert_int_equal(o.iops, 500);
    assert_int_equal(o.bps, 20 * MiB);
    assert_int_equal(o.queues, 4);
    blk_options_free(&o);
    o = parse("x,readonly,cache=writeback,discard=unmap,isolate=off,snapshot=on");
    assert_true(o.readonly && o.snapshot && !o.isolate && !o.keep);
    assert_int_equal(o.cache, BLK_CACHE_WRITEBACK);
    blk_options_free(&o);
}

/* The format is known from the name's end or not at all. */
static void test_format(void **unused)
{
    static const struct {
        const char *text;
        enum blk_format format;
    } cases[] = {
        {"web.qcow2", BLK_QCOW2},      {"web.qcow2,format=raw", BLK_RAW},
        {"web.QCOW2", BLK_RAW},        {"qcow2", BLK_RAW},
        {"web.qcow2.bak", BLK_RAW},    {".qcow2", BLK_QCOW2},
        {"w,format=qcow2", BLK_QCOW2},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct blk_options o = parse(cases[i].text);

        assert_int_equal(o.format, cases[i].format);
        blk_options_free(&o);
    }
}

static void test_sources(void **unused)
{
    static const struct {
        const char *text, *file;
        enum blk_source source;
    } cases[] = {
        {"a,,b=c.raw", "a,b=c.raw", BLK_FILE},
        {"a,,,readonly", "a,", BLK_FILE},
        {"file=vhost-user=x", "x", BLK_VHOST_USER},
        {"./vhost-user=x", "./vhost-user=x", BLK_FILE},
        {"file=file=x", "file=x", BLK_FILE},
        {"./nbd:x", "./nbd:x", BLK_FILE},
        {"nbd.raw", "nbd.raw", BLK_FILE},
        {"nbd://host/disk", "nbd://host/disk", BLK_NBD},
        {"nbd+unix:///?socket=/a/b,readonly", "nbd+unix:///?socket=/a/b", BLK_NBD},
        {"vhost-user=/a/b,,c,queues=2", "/a/b,c", BLK_VHOST_USER},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct blk_options o = parse(cases[i].text);

        assert_string_equal(o.file, cases[i].file);
        assert_int_equal(o.source, cases[i].source);
        blk_options_free(&o);
    }
}

/* Each wrong text, and the words that the message must have. */
static void test_wrong(void **unused)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "the name of a file is missing"},
        {",readonly", "the name of a file is missing"},
        {"file=", "the name of a file is missing"},
        {"vhost-user=", "the name of a file is missing"},
        {"x,", "'x': there is no setting ''"},
        {"x,colour=red", "'x': there is no setting 'colour'"},
        {"x,Readonly", "there is no setting 'Readonly'"},
        {"x,readonly=yes", "readonly= must be on or off, not 'yes'"},
        {"x,snapshot=", "snapshot= must be on or off, not ''"},
        {"x,isolate=ON", "isolate= must be on or off, not 'ON'"},
        {"x,format=vmdk", "format= must be raw or qcow2, not 'vmdk'"},
        {"x,format", "format= must be raw or qcow2, not ''"},
        {"x,cache=writethrough", "cache= must be writeback or none, not 'writethrough'"},
        {"x,cache", "cache= must be writeback or none"},
        {"x,discard=on", "discard= must be unmap or ignore, not 'on'"},
        {"x,serial", "serial= needs a value"},
        {"x,serial=", "serial= needs a value"},
        {"x,serial=123456789012345678901", "serial= has 21 characters; 20 are the most"},
        {"x,offset=1x", "offset= must be a number"},
        {"x,offset=-1", "offset= must be a number"},
        {"x,offset= 1", "offset= must be a number"},
        {"x,offset=", "offset= must be a number"},
        {"x,offset=9223372036854775808", "offset= must be a number"},
        {"x,size=0", "size= must be a number above 0"},
        {"x,size=1Gi", "size= must be a number above 0"},
        {"x,size=99999999999999999999", "size= must be a number above 0"},
        {"x,size=16777216T", "size= must be a number above 0"},
        {"x,iops=0", "iops= must be a number above 0"},
        {"x,bps=fast", "bps= must be a number above 0"},
        {"x,bps", "bps= must be a number above 0"},
        {"x,queues=0", "queues= must be a number from 1 to 32"},
        {"x,queues=33", "queues= must be a number from 1 to 32"},
        {"x,queues", "queues= must be a number from 1 to 32"},
        {"x.qcow2,backing=", "backing= needs a value"},
        {"x,backing=y", "a raw image has no backing file"},
        {"x,readonly,readonly", "readonly is given twice"},
        {"x,size=1,cache=none,size=1", "size is given twice"},
        {"x,offset=9223372036854775807,size=1", "offset= and size= are too large"},
        {"file=vhost-user=", "the name of a file is missing"},
        {"vhost-user=s,readonly", "readonly is the business of the process behind vhost-user"},
        {"vhost-user=s,queues=2,cache=none", "cache is the business of"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct blk_options o;
        struct error err = {0};

        assert_int_equal(blk_options_parse(cases[i].text, &o, &err), -EINVAL);
        if (!strstr(err.text, cases[i].words))
            print_error("'%s': %s\n", cases[i].text, err.text);
        assert_non_null(strstr(err.text, cases[i].words));
        assert_null(o.file);
    }
}

static void test_numbers(void **unused)
{
    uint64_t n = 0;

    assert_true(blk_parse_number("0", &n) && n == 0);
    assert_true(blk_parse_number("18446744073709551615", &n) && n == UINT64_MAX);
    assert_false(blk_parse_number("18446744073709551616", &n));
    assert_true(blk_parse_number("16383P", &n) == false);
    assert_true(blk_parse_number("16777215T", &n) && n == UINT64_C(16777215) << 40);
    assert_true(blk_parse_number("2K", &n) && n == 2048);
    assert_true(blk_parse_number("2KB", &n) && n == 2048);
    assert_true(blk_parse_number("3MiB", &n) && n == 3 << 20);
    assert_false(blk_parse_number("2Ki", &n));
    assert_false(blk_parse_number("2B", &n));
    assert_false(blk_parse_number("2KBB", &n));
    assert_false(blk_parse_number("K", &n));
    assert_false(blk_parse_number("", &n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_all),
        cmocka_unit_test(test_format),   cmocka_unit_test(test_sources),
        cmocka_unit_test(test_wrong),    cmocka_unit_test(test_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
