/*
 * The front end of vhost-user and a back end that keeps it waiting, which this test plays, with the
 * host's clock (and the linker's --wrap).
 */
#include "test.h"

#include "base/thread.h"
#include "base/time.h"
#include "dev/vhost/frontend.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static _Atomic uint64_t now = NS_PER_S;

uint64_t __wrap_time_now_ns(void);
uint64_t __wrap_time_now_ns(void)
{
    return atomic_load(&now);
}

struct slow {
    struct sockaddr_un address;
    int listener;
    uint64_t delay; /* of each answer */
    unsigned answers, answered;
    pthread_t thread;
};

/* Answers so many questions that have an answer, and lets a second pass instead of the next one. */
static void *serve(void *opaque)
{
    struct slow *s = opaque;
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    struct vhost_reader reader = {.have = 0};

    while (vhost_receive(&reader, fd) > 0) {
        const struct vhost_message *m = &reader.message;
        struct vhost_message reply = {
            .request = m->request, .flags = VHOST_VERSION | VHOST_REPLY, .size = sizeof(reply.u64)};

        if (!vhost_has_reply((enum vhost_request)m->request))
            continue;
        atomic_fetch_add(&now, s->answered < s->answers ? s->delay : NS_PER_S);
        if (s->answered == s->answers)
            continue;
        s->answered++;
        reply.u64 = m->request == VHOST_GET_FEATURES ? 1u << VHOST_F_PROTOCOL_FEATURES
                                                     : 1u << VHOST_PROTOCOL_MQ;
        if (vhost_send(fd, &reply, 60000, -1) < 0)
            break;
    }
    vhost_reader_drop(&reader);
    close(fd);
    return NULL;
}

/* Connects to a back end that takes DELAY for each of ANSWERS. */
static void connect_to(uint64_t delay, unsigned answers, int wanted)
{
    struct slow s = {.address = {.sun_family = AF_UNIX}, .delay = delay, .answers = answers};
    struct vhost_connection c;
    struct error err = {0};

    snprintf(s.address.sun_path, sizeof(s.address.sun_path), P_tmpdir "/doppel-vhost-frontend-%d",
             getpid());
    s.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s.listener, (struct sockaddr *)&s.address, sizeof(s.address)), 0);
    assert_int_equal(listen(s.listener, 1), 0);
    assert_int_equal(thread_start(&s.thread, "back end", serve, &s, NULL), 0);
    assert_int_equal(vhost_connect(&c, s.address.sun_path, -1, &err), wanted);
    vhost_disconnect(&c);
    pthread_join(s.thread, NULL);
    close(s.listener);
    unlink(s.address.sun_path);
    assert_int_equal(s.answered, answers);
}

static void test_answers(void **unused)
{
    connect_to(0, 3, 0);
    connect_to(3 * NS_PER_S, 3, 0);
}

/* Each question is answered in time, or could still be; but all together take too long. */
static void test_slow(void **unused)
{
    connect_to((VHOST_CALL_MS / 2 - 100) * NS_PER_MS, 2, -ETIMEDOUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_slow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
