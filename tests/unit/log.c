/*
 * The log: which lines reach the sink, and in what shape. And the host's time.
 */
#include "test.h"

#include "base/log.h"
#include "base/time.h"

#include <stdio.h>
#include <string.h>

struct lines {
    char text[4][LOG_TEXT];
    enum log_level level[4];
    unsigned count;
};

static void keep(void *opaque, enum log_level level, const char *text)
{
    struct lines *lines = opaque;

    assert_true(lines->count < 4);
    lines->level[lines->count] = level;
    snprintf(lines->text[lines->count++], LOG_TEXT, "%s", text);
}

static void test_levels(void **unused)
{
    struct lines lines = {.count = 0};
    const struct log log = {.most = LOG_LEVEL_WARNING, .line = keep, .opaque = &lines};

    log_line(&log, LOG_LEVEL_ERROR, "disk %d fails", 7);
    log_line(&log, LOG_LEVEL_WARNING, "slow");
    log_line(&log, LOG_LEVEL_INFO, "left out");
    log_line(&log, LOG_LEVEL_DEBUG, "left out");
    log_line(NULL, LOG_LEVEL_ERROR, "nobody listens");
    assert_int_equal(lines.count, 2);
    assert_string_equal(lines.text[0], "disk 7 fails");
    assert_int_equal(lines.level[1], LOG_LEVEL_WARNING);
    assert_string_equal(log_level_name(LOG_LEVEL_ERROR), "error");
    assert_string_equal(log_level_name(LOG_LEVEL_DEBUG), "debug");
}

/* What a user has to see at once is told whatever the level of the log. */
static void test_tell(void **unused)
{
    struct lines lines = {.count = 0}, log_lines = {.count = 0};
    struct log log = {.most = LOG_LEVEL_ERROR, .tell = keep, .opaque = &lines};

    log_tell(&log, LOG_LEVEL_INFO, "%s is\nback", "it");
    assert_int_equal(lines.count, 1);
    assert_int_equal(lines.level[0], LOG_LEVEL_INFO);
    assert_string_equal(lines.text[0], "it is?back");
    log_line(&log, LOG_LEVEL_ERROR, "logged");
    assert_int_equal(lines.count, 1);
    log = (struct log){.most = LOG_LEVEL_ERROR, .line = keep, .opaque = &log_lines};
    log_tell(&log, LOG_LEVEL_INFO, "left out");
    log_tell(&log, LOG_LEVEL_ERROR, "gone");
    log_tell(NULL, LOG_LEVEL_ERROR, "nobody listens");
    assert_int_equal(log_lines.count, 1);
    assert_string_equal(log_lines.text[0], "gone");
}

/* What a guest says must not reach a terminal as a command, nor begin another line. */
static void test_hostile_text(void **unused)
{
    struct lines lines = {.count = 0};
    const struct log log = {.most = LOG_LEVEL_DEBUG, .line = keep, .opaque = &lines};
    char big[2 * LOG_TEXT];

    log_line(&log, LOG_LEVEL_INFO, "name %s", "a\033[2J\nb\177\tc\303\244");
    assert_string_equal(lines.text[0], "name a?[2J?b??c\303\244");
    memset(big, 'x', sizeof(big));
    big[sizeof(big) - 1] = 0;
    log_line(&log, LOG_LEVEL_INFO, "%s", big);
    assert_int_equal(strlen(lines.text[1]), LOG_TEXT - 1);
}

/* Eight-bit controls do what ESC and a letter do, alone or as UTF-8; and what is not UTF-8 may be
 * one for a terminal of another kind. */
static void test_controls(void **unused)
{
    static const struct {
        const char *text, *clean;
    } cases[] = {
        {"a\x9b"
         "2J",
         "a?2J"}, /* CSI as one byte */
        {"a\xc2\x9b"
         "2J",
         "a??2J"},                                  /* and as U+009B */
        {"\xc2\x80\xc2\x9f", "????"},               /* the first and the last of them */
        {"\xc2\xa0|\xc3\xbc", "\xc2\xa0|\xc3\xbc"}, /* U+00A0 is none, U+00FC is a letter */
        {"\xe2\x82\xac|\xf0\x9f\x98\x80", "\xe2\x82\xac|\xf0\x9f\x98\x80"},
        {"\xc3", "?"}, /* cut off */
        {"\xe2\x82|", "??|"},
        {"\xf0\x9f\x98", "???"},
        {"\xc0\x9b|\xc1\xbf|\xf5\x80\x80\x80", "??|??|????"}, /* never UTF-8 */
        {"\x80\xbf", "??"},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[32];

        snprintf(text, sizeof(text), "%s", cases[i].text);
        log_clean(text);
        assert_string_equal(text, cases[i].clean);
    }
}

static void test_time(void **unused)
{
    uint64_t before = time_now_ns(), used = time_thread_ns();
    struct timespec spec = time_spec(3 * NS_PER_S + 7);

    time_sleep_ns(20 * NS_PER_MS);
    assert_true(time_now_ns() - before >= 20 * NS_PER_MS);
    assert_true(time_thread_ns() - used < 20 * NS_PER_MS); /* sleeping costs nothing */
    assert_true(time_process_ns() >= time_thread_ns() - used);
    assert_true(time_real_ns() > UINT64_C(1700000000) * NS_PER_S);
    assert_int_equal(spec.tv_sec, 3);
    assert_int_equal(spec.tv_nsec, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),       cmocka_unit_test(test_tell),
        cmocka_unit_test(test_hostile_text), cmocka_unit_test(test_controls),
        cmocka_unit_test(test_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
