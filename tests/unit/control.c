/*
 * Control sockets: the library's calls, and servers that do not keep to the protocol.
 */
#include "test.h"

#include "base/unix_socket.h"
#include "ctl/control_server.h"
#include "ctl/doppel.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char home[] = P_tmpdir "/doppel-control-XXXXXX";
static struct run_folder folder;
static char path[PATH_MAX];

/* A server on a thread of its own. */
struct rig {
    struct control_server *server;
    pthread_t thread;
    _Atomic bool stop;
};

static void on_request(void *opaque, uint64_t client, const struct control_request *request)
{
    struct rig *rig = opaque;
    struct error err = {0};

    if (!strcmp(request->name, "echo")) {
        control_answer(rig->server, client, request->id, json_deep_copy(request->arguments));
    } else if (!strcmp(request->name, "events")) {
        control_server_subscribe(rig->server, client, true);
        control_answer(rig->server, client, request->id, json_object());
        for (int i = 0; i < 100; i++)
            control_server_event(rig->server, json_pack("{s:s, s:i}", "event", "tick", "n", i));
    } else if (strcmp(request->name, "silence") != 0) {
        error_set(&err, EBUSY, "no \033[31m%s\n", request->name);
        control_refuse(rig->server, client, request->id, &err);
    }
}

static void *serve(void *opaque)
{
    struct rig *rig = opaque;

    while (!atomic_load(&rig->stop)) {
        struct pollfd pfd = {control_server_fd(rig->server), POLLIN, 0};

        poll(&pfd, 1, 5);
        control_server_work(rig->server);
    }
    return NULL;
}

static void begin(struct rig *rig)
{
    const struct control_ops ops = {on_request, rig};

    atomic_store(&rig->stop, false);
    rig->server = control_server_open(path, "web", &ops, NULL);
    assert_non_null(rig->server);
    assert_int_equal(pthread_create(&rig->thread, NULL, serve, rig), 0);
}

static void end(struct rig *rig)
{
    atomic_store(&rig->stop, true);
    pthread_join(rig->thread, NULL);
    control_server_close(rig->server);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void test_calls(void **unused)
{
    struct rig rig;
    struct doppel_error err = {0};
    struct doppel_control *control, *other;
    char *result = NULL;
    int number;

    assert_null(doppel_control_open("other", &err));
    assert_int_equal(err.code, ESRCH);
    assert_null(doppel_control_open("No", &err));
    assert_int_equal(err.code, EINVAL);
    begin(&rig);
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
    end(&rig);
    assert_int_equal(doppel_control_answer(control, number, -1, NULL, &err), -EPIPE);
    assert_int_equal(doppel_control_call(other, "echo", "{}", -1, NULL, &err), -EPIPE);
    doppel_control_close(control);
    doppel_control_close(other);
    doppel_control_close(NULL);
}

static void test_events(void **unused)
{
    struct rig rig;
    struct doppel_control *control;
    char *event = NULL;

    begin(&rig);
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
    end(&rig);
    doppel_control_close(control);
}

/* What a server says that does not keep to the protocol, and how the client's call ends. */
static void hears(const char *text, size_t size, int expected)
{
    int listener = unix_socket_listen(path, 1, NULL), fd;
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
    struct lock_holder holder;

    if (!mkdtemp(home) || setenv("XDG_RUNTIME_DIR", home, 1) < 0)
        return -1;
    if (run_folder_take("web", &folder, NULL) < 0)
        return -1;
    return run_folder_find("web", RUN_CONTROL, path, &holder, NULL);
}

static int tear_down(void **unused)
{
    char name[sizeof(home) + 16];

    run_folder_remove(&folder);
    snprintf(name, sizeof(name), "%s/doppel", home);
    return rmdir(name) < 0 || rmdir(home) < 0 ? -1 : 0;
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
