/*
 * Control sockets: the library's calls, and servers that do not keep to the protocol.
 */
#include "control_rig.h"
#include "test.h"

#include "ctl/doppel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *path; /* of the socket */

static void test_calls(void **unused)
{
    struct rig *rig = rig_begin();
    struct doppel_error err = {0};
    struct doppel_control *control, *other;
    char *result = NULL;
    int number;

    assert_null(doppel_control_open("other", &err));
    assert_int_equal(err.code, ESRCH);
    assert_null(doppel_control_open("No", &err));
    assert_int_equal(err.code, EINVAL);
    control = doppel_control_open("web", &err);
    other = doppel_control_open("web", &err);
    assert_non_null(control);
    assert_non_null(other);
    assert_int_equal(
        doppel_control_call(control, "echo", "{\"a\": [1, \"\xc3\xa9\"]}", -1, &result, &err), 0);
    assert_string_equal(result, "{\"a\":[1,\"\xc3\xa9\"]}");
    free(result);
    assert_int_equal(doppel_control_call(control, "echo", "[]", -1, &result, &err), -EINVAL);
    assert_int_equal(doppel_control_call(control, "frob", NULL, -1, NULL, &err), -EBUSY);
    assert_string_equal(err.text, "no ?[31mfrob?");
    /* One answer is waited for, another one comes. */
    number = doppel_control_send(control, "silence", NULL, &err);
    assert_true(number > 0);
    assert_int_equal(doppel_control_call(control, "echo", "{}", -1, NULL, &err), 0);
    assert_int_equal(doppel_control_answer(control, number, 0, NULL, &err), -ETIMEDOUT);
    assert_int_equal(doppel_control_call(other, "echo", "{}", -1, NULL, NULL), 0);
    rig_end(rig);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(doppel_control_answer(control, number, -1, NULL, &err), -EPIPE);
    assert_int_equal(doppel_control_call(other, "echo", "{}", -1, NULL, &err), -EPIPE);
    doppel_control_close(control);
    doppel_control_close(other);
    doppel_control_close(NULL);
}

static void test_events(void **unused)
{
    struct rig *rig = rig_begin();
    struct doppel_control *control;
    char *event = NULL;

    control = doppel_control_open("web", NULL);
    assert_non_null(control);
    assert_int_equal(doppel_control_call(control, "events", NULL, -1, NULL, NULL), 0);
    assert_int_equal(doppel_control_event(control, -1, &event, NULL), 0);
    assert_non_null(strstr(event, "\"tick\""));
    free(event);
    /* All others have been sent, since they came before this answer; the oldest were dropped. */
    assert_int_equal(doppel_control_call(control, "echo", "{}", -1, NULL, NULL), 0);
    for (int i = 0; doppel_control_event(control, 0, &event, NULL) == 0; i++) {
        assert_true(i < 100);
        if (i == 0)
            assert_null(strstr(event, "\"n\":0,"));
        free(event);
    }
    rig_end(rig);
    assert_int_not_equal(access(path, F_OK), 0);
    doppel_control_close(control);
}

/* What a server says that does not keep to the protocol, and how the client's call ends. */
static void hears(const char *text, size_t size, int expected)
{
    int listener = rig_listen(), fd;
    struct doppel_control *control;
    struct doppel_error err = {0};

    assert_true(listener >= 0);
    control = doppel_control_open("web", NULL);
    assert_non_null(control);
    fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    assert_int_equal(doppel_control_send(control, "state", NULL, NULL), 1);
    assert_int_equal(send(fd, text, size, MSG_NOSIGNAL), (ssize_t)size);
    assert_int_equal(doppel_control_answer(control, 1, 0, NULL, &err), expected);
    assert_true(*err.text && strlen(err.text) < sizeof(err.text));
    doppel_control_close(control);
    close(fd);
    close(listener);
    unlink(path);
}

static void test_strange_servers(void **unused)
{
    static const char *const answers[] = {
        "\n", "[]\n", "{}\n", "{\"id\": 2, \"result\": {}}\n", "\xff\xff\n", "{\"id\": \"1\"}\n"};
    static char endless[100000];

    for (unsigned i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
        hears(answers[i], strlen(answers[i]), -ETIMEDOUT);
    hears("{\"id\": 1}\n", 10, -EPROTO);
    hears("{\"id\": 1, \"error\": 5}\n", 22, -EPROTO);
    hears("{\"id\": 1, \"error\": {\"code\": \"EFROB\"}}\n", 38, -EPROTO);
    hears("{\"id\": 0, \"error\": {\"code\": \"EINVAL\", \"message\": \"\"}}\n", 54, -EINVAL);
    memset(endless, 'x', sizeof(endless));
    hears(endless, sizeof(endless), -EPROTO);
}

static int set_up(void **unused)
{
    path = rig_take_folder();
    return path ? 0 : -1;
}

static int tear_down(void **unused)
{
    return rig_leave_folder() ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_strange_servers),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
