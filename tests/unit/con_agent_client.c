/*
 * The host's end of the agent's protocol: framing however it is cut, credit, and agents that do not
 * keep to it.
 */
#include "test.h"

#include "../../guests/agent_protocol.h"
#include "con/agent_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct host {
    struct agent_client *client;
    uint8_t *sent;
    size_t sent_size, out_size, err_size;
};

static void on_send(void *opaque, const void *data, size_t size)
{
    struct host *h = opaque;

    h->sent = realloc(h->sent, h->sent_size + size);
    assert_non_null(h->sent);
    memcpy(h->sent + h->sent_size, data, size);
    h->sent_size += size;
}

static void on_output(void *opaque, int fd, const uint8_t *data, size_t size)
{
    struct host *h = opaque;

    assert_true(fd == 1 || fd == 2);
    assert_true(size == 0 || data[0] == 'x');
    *(fd == 1 ? &h->out_size : &h->err_size) += size;
}

static const struct agent_client_ops ops = {on_send, on_output};

static void begin(struct host *h)
{
    const char *const argv[] = {"ls", "", "a\nb", NULL}, *const env[] = {"A=b", NULL};
    const struct agent_client_request request = {.wish = "exec",
                                                 .argv = argv,
                                                 .env = env,
                                                 .folder = "/tmp",
                                                 .terminal = true,
                                                 .rows = 100000,
                                                 .columns = 80};

    *h = (struct host){0};
    h->client = agent_client_create(&ops, h, &request, NULL);
    assert_non_null(h->client);
}

static void end(struct host *h)
{
    agent_client_destroy(h->client);
    free(h->sent);
}

static void receive(struct host *h, enum agent_type type, const void *payload, size_t size)
{
    uint8_t *frame = calloc(1, AGENT_HEADER + size);

    agent_put_header(frame, type, size);
    if (payload)
        memcpy(frame + AGENT_HEADER, payload, size);
    else
        memset(frame + AGENT_HEADER, 'x', size);
    agent_client_receive(h->client, frame, AGENT_HEADER + size);
    free(frame);
}

static void hello(struct host *h)
{
    uint8_t version[4];

    agent_put32(version, AGENT_VERSION);
    receive(h, AGENT_HELLO_FRAME, version, sizeof(version));
    assert_int_equal(agent_client_state(h->client), AGENT_CLIENT_RUNNING);
    h->sent_size = 0;
}

static void test_request(void **unused)
{
    static const char expected[] = AGENT_MAGIC "\0request=exec\0arg=ls\0arg=\0arg=a\nb\0"
                                               "env=A=b\0folder=/tmp\0terminal=65535,80";
    struct host h;

    begin(&h);
    assert_int_equal(h.sent[0], AGENT_OPEN_FRAME);
    assert_int_equal(agent_get32(h.sent + 4), sizeof(expected));
    assert_int_equal(h.sent_size, AGENT_HEADER + sizeof(expected));
    assert_memory_equal(h.sent + AGENT_HEADER, expected, sizeof(expected));
    end(&h);
}

/* A request that the agent would not take. */
static void test_too_long(void **unused)
{
    char *word = calloc(1, AGENT_OPEN);
    const char *const argv[] = {word, NULL};
    const struct agent_client_request request = {.wish = "exec", .argv = argv};
    struct host h = {0};
    struct error err;

    memset(word, 'x', AGENT_OPEN - 1);
    assert_null(agent_client_create(&ops, &h, &request, &err));
    assert_int_equal(err.code, E2BIG);
    assert_int_equal(h.sent_size, 0);
    free(word);
}

/* Bytes come one by one, and the end is the end. */
static void test_cut(void **unused)
{
    static const uint8_t bytes[] = {
        'H', 0, 0, 0, 4,  0, 0, 0, AGENT_VERSION, 0,   0, 0, 'O', 0, 0, 0, 2, 0,  0,   0, 'x', 'x',
        'E', 0, 0, 0, 1,  0, 0, 0, 'x',           'X', 0, 0, 0,   1, 0, 0, 0, 42, 'O', 0, 0,   0,
        1,   0, 0, 0, 'x'};
    struct host h;

    begin(&h);
    for (size_t i = 0; i < sizeof(bytes); i++)
        agent_client_receive(h.client, &bytes[i], 1);
    assert_int_equal(agent_client_state(h.client), AGENT_CLIENT_EXITED);
    assert_int_equal(agent_client_status(h.client), 42);
    assert_int_equal(h.out_size, 2);
    assert_int_equal(h.err_size, 1);
    end(&h);
}

static void test_output_credit(void **unused)
{
    struct host h;

    begin(&h);
    hello(&h);
    for (unsigned i = 0; i < 8; i++)
        receive(&h, AGENT_OUT_FRAME, NULL, AGENT_OUT_WINDOW / 16);
    agent_client_written(h.client, 1, AGENT_OUT_WINDOW / 4 - 1);
    assert_int_equal(h.sent_size, 0); /* not worth a frame yet */
    agent_client_written(h.client, 1, 1);
    assert_int_equal(h.sent_size, AGENT_HEADER + 5);
    assert_int_equal(h.sent[AGENT_HEADER], AGENT_STREAM_OUT);
    assert_int_equal(agent_get32(h.sent + AGENT_HEADER + 1), AGENT_OUT_WINDOW / 4);
    /* A quarter of the window is held: three more, and one byte, and it is too much. */
    for (unsigned i = 0; i < 12; i++)
        receive(&h, AGENT_OUT_FRAME, NULL, AGENT_OUT_WINDOW / 16);
    assert_int_equal(agent_client_state(h.client), AGENT_CLIENT_RUNNING);
    receive(&h, AGENT_ERR_FRAME, NULL, 1); /* a window of its own */
    assert_int_equal(agent_client_state(h.client), AGENT_CLIENT_RUNNING);
    receive(&h, AGENT_OUT_FRAME, NULL, 1);
    assert_int_equal(agent_client_state(h.client), AGENT_CLIENT_BROKEN);
    assert_int_equal(h.out_size, 20 * (AGENT_OUT_WINDOW / 16));
    end(&h);
}

static void test_input_credit(void **unused)
{
    static uint8_t data[AGENT_IN_WINDOW];
    uint8_t credit[5] = {AGENT_STREAM_IN};
    struct host h;

    begin(&h);
    hello(&h);
    assert_int_equal(agent_client_room(h.client), AGENT_IN_WINDOW);
    agent_client_input(h.client, data, sizeof(data));
    assert_int_equal(agent_client_room(h.client), 0);
    assert_int_equal(h.sent_size, AGENT_IN_WINDOW + 3 * AGENT_HEADER);
    agent_put32(credit + 1, 1000);
    receive(&h, AGENT_CREDIT_FRAME, credit, sizeof(credit));
    assert_int_equal(agent_client_room(h.client), 1000);
    agent_client_input_end(h.client);
    agent_client_input_end(h.client);
    assert_int_equal(h.sent_size, AGENT_IN_WINDOW + 4 * AGENT_HEADER);
    assert_int_equal(agent_client_room(h.client), 0);
    agent_put32(credit + 1, AGENT_IN_WINDOW);
    receive(&h, AGENT_CREDIT_FRAME, credit, sizeof(credit)); /* more than there was */
    assert_int_equal(agent_client_state(h.client), AGENT_CLIENT_BROKEN);
    end(&h);
}

static void test_failure(void **unused)
{
    struct host h;

    begin(&h);
    hello(&h);
    receive(&h, AGENT_FAIL_FRAME, "\177no \033[1msuch\nfile", 17);
    assert_int_equal(agent_client_state(h.client), AGENT_CLIENT_FAILED);
    assert_int_equal(agent_client_status(h.client), 127);
    assert_string_equal(agent_client_failure(h.client), "no ?[1msuch?file");
    h.sent_size = 0;
    agent_client_signal(h.client, 2);
    agent_client_resize(h.client, 1, 1);
    assert_int_equal(h.sent_size, 0);
    end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request),      cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_cut),          cmocka_unit_test(test_output_credit),
        cmocka_unit_test(test_input_credit), cmocka_unit_test(test_failure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
