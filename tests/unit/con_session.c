/*
 * The session protocol: framing, the handshake, credit, and guests that do not keep to it.
 */
#include "test.h"

#include "../../guests/protocol.h"
#include "con/session.h"

#include <stdlib.h>
#include <string.h>

struct host {
    struct proto_reader reader;
    char frames[256]; /* the types sent, in order */
    uint8_t last[PROTO_PAYLOAD + 1];
    size_t last_size;
    char out[64 * 1024], err[256];
    size_t out_size, err_size;
    size_t sent;
    bool busy; /* the line takes nothing */
};

static void on_send(void *opaque, const uint8_t *data, size_t size)
{
    struct host *h = opaque;

    h->sent += size;
    for (size_t i = 0; i < size; i++) {
        if (!proto_decode(&h->reader, data[i]))
            continue;
        h->frames[strlen(h->frames)] = (char)h->reader.frame[0];
        memcpy(h->last, h->reader.frame, h->reader.size);
        h->last_size = h->reader.size;
        proto_next(&h->reader);
    }
}

static void on_output(void *opaque, int fd, const uint8_t *data, size_t size)
{
    struct host *h = opaque;
    char *to = fd == 1 ? h->out + h->out_size : h->err + h->err_size;

    memcpy(to, data, size);
    *(fd == 1 ? &h->out_size : &h->err_size) += size;
}

static bool on_ready(void *opaque)
{
    return !((const struct host *)opaque)->busy;
}

static const struct session_ops ops = {on_send, on_ready, on_output};

static void from_guest(struct session *s, enum proto_type type, const void *data, size_t size)
{
    uint8_t line[PROTO_ENCODED(PROTO_PAYLOAD)];

    session_receive(s, line, proto_encode(line, type, data, size));
}

static void test_framing(void **unused)
{
    uint8_t payload[256], line[PROTO_ENCODED(256)];
    struct proto_reader r = {0};
    size_t size;
    unsigned frames = 0;

    for (unsigned i = 0; i < 256; i++)
        payload[i] = (uint8_t)i;
    size = proto_encode(line, PROTO_OUT, payload, 256);
    /* Joined in the middle: nothing until the next frame begins. */
    for (size_t i = 5; i < size; i++)
        assert_false(proto_decode(&r, line[i]));
    for (size_t i = 0; i < size; i++)
        frames += proto_decode(&r, line[i]);
    assert_int_equal(frames, 1);
    assert_int_equal(r.size, 257);
    assert_int_equal(r.frame[0], PROTO_OUT);
    assert_memory_equal(r.frame + 1, payload, 256);
    proto_next(&r);

    /* Too long, and wrongly escaped: dropped, and the next one is in step. */
    for (unsigned i = 0; i < PROTO_PAYLOAD + 2; i++)
        assert_false(proto_decode(&r, 'x'));
    assert_false(proto_decode(&r, PROTO_END));
    assert_false(proto_decode(&r, PROTO_ESC));
    assert_false(proto_decode(&r, 'x'));
    assert_false(proto_decode(&r, PROTO_END));
    assert_false(proto_decode(&r, PROTO_EXIT));
    assert_true(proto_decode(&r, PROTO_END));
    assert_int_equal(r.size, 1);
}

static void test_session(void **unused)
{
    static const uint8_t hello[] = {PROTO_VERSION, 1, 2, 3, 4},
                         again[] = {PROTO_VERSION, 9, 9, 9, 9};
    uint8_t credit[4];
    struct host h = {0};
    struct session *s = session_create(&ops, &h, NULL);
    uint8_t *data = calloc(1, PROTO_WINDOW);

    session_resize(s, 24, 80);
    assert_int_equal(session_room(s), 0);
    from_guest(s, PROTO_OUT, "early", 5);
    assert_int_equal(h.out_size, 0);
    from_guest(s, PROTO_HELLO, hello, sizeof(hello));
    assert_int_equal(session_state(s), SESSION_RUNNING);
    assert_string_equal(h.frames, "S");
    assert_memory_equal(h.last + 1, "\1\2\3\4\30\0\120\0", 8);
    from_guest(s, PROTO_HELLO, hello, sizeof(hello));
    assert_string_equal(h.frames, "S");

    assert_int_equal(session_room(s), PROTO_WINDOW);
    session_input(s, data, PROTO_WINDOW);
    assert_int_equal(session_room(s), 0);
    proto_put32(credit, 100);
    from_guest(s, PROTO_CREDIT, credit, 4);
    assert_int_equal(session_room(s), 100);

    from_guest(s, PROTO_OUT, "out\xC0\xDB", 5);
    from_guest(s, PROTO_ERR, "err", 3);
    assert_memory_equal(h.out, "out\xC0\xDB", 5);
    assert_memory_equal(h.err, "err", 3);
    session_written(s, 100); /* no more credit than was owed */
    assert_int_equal(h.last[0], PROTO_CREDIT);
    assert_int_equal(proto_get32(h.last + 1), 8);

    /* A reboot: everything begins anew, and an input that has ended still has. */
    session_input_end(s);
    h.frames[0] = 0;
    memset(h.frames, 0, sizeof(h.frames));
    from_guest(s, PROTO_HELLO, again, sizeof(again));
    assert_string_equal(h.frames, "SZ");

    from_guest(s, PROTO_EXIT, "\7", 1);
    assert_int_equal(session_state(s), SESSION_EXITED);
    assert_int_equal(session_status(s), 7);
    free(data);
    session_destroy(s);
}

static void test_bad_guest(void **unused)
{
    static const uint8_t other[] = {PROTO_VERSION + 1, 1, 2, 3, 4};
    static const uint8_t hello[] = {PROTO_VERSION, 1, 2, 3, 4};
    static uint8_t data[PROTO_PAYLOAD];
    static struct host h;
    struct session *s = session_create(&ops, &h, NULL);

    from_guest(s, PROTO_HELLO, other, sizeof(other));
    assert_int_equal(session_state(s), SESSION_MISMATCH);
    session_destroy(s);

    /* One that ignores its credit is stopped before it fills the host's memory. */
    memset(&h, 0, sizeof(h));
    s = session_create(&ops, &h, NULL);
    from_guest(s, PROTO_HELLO, hello, sizeof(hello));
    from_guest(s, PROTO_EXIT, "", 0);
    assert_int_equal(session_state(s), SESSION_RUNNING);
    for (unsigned i = 0; i < 4 * PROTO_WINDOW / PROTO_PAYLOAD; i++)
        from_guest(s, PROTO_OUT, data, sizeof(data));
    assert_int_equal(session_state(s), SESSION_RUNNING);
    from_guest(s, PROTO_OUT, data, sizeof(data));
    assert_int_equal(session_state(s), SESSION_MISMATCH);
    session_destroy(s);

    memset(&h, 0, sizeof(h));
    s = session_create(&ops, &h, NULL);
    from_guest(s, PROTO_HELLO, hello, sizeof(hello));
    from_guest(s, PROTO_FAIL, "\177nope", 5);
    assert_int_equal(session_state(s), SESSION_FAILED);
    assert_int_equal(session_status(s), 127);
    assert_string_equal(session_failure(s), "nope");
    session_destroy(s);
}

/* A guest that reads nothing makes the session send nothing, whatever it sends itself. When it
 * reads again, it is told what holds now. */
static void test_silent_line(void **unused)
{
    static struct host h;
    struct session *s = session_create(&ops, &h, NULL);
    uint8_t hello[] = {PROTO_VERSION, 0, 0, 0, 0};

    memset(&h, 0, sizeof(h));
    h.busy = true;
    session_resize(s, 24, 80);
    for (unsigned i = 0; i < 10000; i++) {
        proto_put32(hello + 1, i);
        from_guest(s, PROTO_HELLO, hello, sizeof(hello));
        h.out_size = 0;
        from_guest(s, PROTO_OUT, "x", 1);
        session_written(s, 1);
        session_resize(s, 25, i & 127);
        assert_int_equal(session_room(s), 0);
    }
    assert_int_equal(h.sent, 0);
    h.busy = false;
    session_flush(s);
    assert_string_equal(h.frames, "SC");
    assert_memory_equal(h.last + 1, "\1\0\0\0", 4);
    assert_int_equal(session_room(s), PROTO_WINDOW);

    /* Credit adds up, in one frame, and the end of input comes last. */
    h.busy = true;
    h.sent = 0;
    for (unsigned i = 0; i < 10000; i++) {
        h.out_size = 0;
        from_guest(s, PROTO_OUT, "x", 1);
        session_written(s, 1);
    }
    session_resize(s, 30, 90);
    session_input_end(s);
    assert_int_equal(h.sent, 0);
    h.busy = false;
    memset(h.frames, 0, sizeof(h.frames));
    session_flush(s);
    assert_string_equal(h.frames, "CWZ");
    session_destroy(s);
}

static void test_archive(void **unused)
{
    static const char *const argv[] = {"a", "b c", NULL}, *const env[] = {"X=1", NULL};
    static const char text[] =
        "doppel-session 1\0mode=pipe\0newline=lf\0path=a\0arg=a\0arg=b c\0env=X=1";
    struct session_command command = {SESSION_PIPE, false, "a", argv, env, NULL};
    size_t size;
    char *archive = session_archive(&command, &size);

    /* header 110 bytes, name "doppel/session" with its NUL 15 bytes, padding 3 */
    assert_non_null(archive);
    assert_int_equal(size % 4, 0);
    assert_memory_equal(archive, "070701", 6);
    assert_int_equal(strtoul((char[9]){archive[54], archive[55], archive[56], archive[57],
                                       archive[58], archive[59], archive[60], archive[61], 0},
                             NULL, 16),
                     sizeof(text));
    assert_string_equal(archive + 110, "doppel/session");
    assert_memory_equal(archive + 128, text, sizeof(text));
    assert_memory_equal(archive + size - 14, "TRAILER!!!", 11);
    free(archive);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_framing),   cmocka_unit_test(test_session),
        cmocka_unit_test(test_bad_guest), cmocka_unit_test(test_silent_line),
        cmocka_unit_test(test_archive),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
