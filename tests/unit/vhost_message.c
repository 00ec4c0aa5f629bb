/*
 * Messages of vhost-user: what arrives in pieces, with descriptors, and what is refused.
 */
#include "test.h"

#include "base/util.h"
#include "dev/vhost/message.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct pair {
    int a, b;
    struct vhost_reader reader;
};

static int setup(void **state)
{
    static struct pair pair;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    pair = (struct pair){.a = fds[0], .b = fds[1]};
    *state = &pair;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;

    vhost_reader_drop(&p->reader);
    close(p->a);
    close(p->b);
    return 0;
}

static struct vhost_message request(uint32_t number, uint32_t size)
{
    return (struct vhost_message){.request = number, .flags = VHOST_VERSION, .size = size};
}

static struct vhost_message memory(unsigned count)
{
    struct vhost_message m = request(VHOST_SET_MEM_TABLE, 8 + 32 * count);

    m.memory.count = count;
    m.fd_count = count;
    for (unsigned i = 0; i < count && i < VHOST_REGIONS_MAX; i++)
        m.memory.region[i] =
            (struct vhost_region){.gpa = i * MiB, .size = MiB, .user = GiB + i * MiB, .offset = 0};
    return m;
}

static unsigned open_files(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* What is sent arrives, with its descriptors, and every message by itself. */
static void whole(void **state)
{
    struct pair *p = *state;
    struct vhost_message m = memory(3), next = request(VHOST_SET_FEATURES, 8);
    struct stat sent, got;
    unsigned before;

    for (unsigned i = 0; i < 3; i++)
        m.fds[i] = p->a;
    next.u64 = 0x123456789ABCDEF;
    assert_int_equal(vhost_send(p->a, &m, 1000, -1), 0);
    assert_int_equal(vhost_send(p->a, &next, 1000, -1), 0);
    before = open_files();

    assert_int_equal(vhost_receive(&p->reader, p->b), 1);
    assert_true(vhost_check(&p->reader.message));
    assert_int_equal(p->reader.message.size, m.size);
    assert_memory_equal(&p->reader.message.memory, &m.memory, m.size);
    assert_int_equal(p->reader.message.fd_count, 3);
    assert_int_equal(fstat(p->a, &sent), 0);
    assert_int_equal(fstat(p->reader.message.fds[2], &got), 0);
    assert_int_equal(sent.st_ino, got.st_ino);
    assert_int_equal(open_files(), before + 3);

    close(vhost_take_fd(&p->reader.message, 1));
    assert_int_equal(vhost_receive(&p->reader, p->b), 1);
    assert_int_equal(open_files(), before);
    assert_int_equal(p->reader.message.fd_count, 0);
    assert_int_equal(p->reader.message.u64, next.u64);
    assert_int_equal(vhost_receive(&p->reader, p->b), 0);
}

/* A message that comes byte by byte. */
static void in_pieces(void **state)
{
    struct pair *p = *state;
    struct vhost_message m = request(VHOST_SET_VRING_NUM, 8);
    uint8_t bytes[20];

    m.state = (struct vhost_state){.queue = 3, .value = 256};
    memcpy(bytes, &m, 12);
    memcpy(bytes + 12, &m.state, 8);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < sizeof(bytes); i++) {
            assert_int_equal(vhost_receive(&p->reader, p->b), 0);
            assert_int_equal(send(p->a, bytes + i, 1, 0), 1);
        }
        assert_int_equal(vhost_receive(&p->reader, p->b), 1);
        assert_true(vhost_check(&p->reader.message));
        assert_int_equal(p->reader.message.state.value, 256);
    }
}

static void ends(void **state)
{
    struct pair *p = *state;
    struct vhost_message m = request(VHOST_GET_FEATURES, 0);

    /* More than any message may have. */
    m.size = 4096;
    assert_int_equal(send(p->a, &m, 12, 0), 12);
    assert_int_equal(vhost_receive(&p->reader, p->b), -EPROTO);
    vhost_reader_drop(&p->reader);

    /* The other end goes in the middle of one. */
    m.size = 8;
    assert_int_equal(send(p->a, &m, 12, 0), 12);
    assert_int_equal(vhost_receive(&p->reader, p->b), 0);
    shutdown(p->a, SHUT_WR);
    assert_int_equal(vhost_receive(&p->reader, p->b), -ECONNRESET);
}

/* More descriptors than a message may have do not stay open. */
static void too_many_descriptors(void **state)
{
    struct pair *p = *state;
    struct vhost_message m = request(VHOST_GET_FEATURES, 0);
    unsigned before = open_files();
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * 20)];
    } control = {.space = {0}};
    struct iovec iov = {&m, 12};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * 20);
    for (unsigned i = 0; i < 20; i++)
        memcpy(CMSG_DATA(c) + i * sizeof(int), &p->a, sizeof(int));
    assert_int_equal(sendmsg(p->a, &msg, 0), 12);
    assert_int_equal(vhost_receive(&p->reader, p->b), -EPROTO);
    vhost_reader_drop(&p->reader);
    assert_int_equal(open_files(), before);
}

/* A sender does not wait for ever for one who does not read. */
static void nobody_reads(void **state)
{
    struct pair *p = *state;
    struct vhost_message m = memory(0);
    int ret = 0;

    for (unsigned i = 0; i < 100000 && ret == 0; i++)
        ret = vhost_send(p->a, &m, 0, -1);
    assert_int_equal(ret, -ETIMEDOUT);
}

static void checks(void **state)
{
    struct vhost_message m = memory(8);

    assert_true(vhost_check(&m));
    m.flags |= VHOST_NEED_REPLY;
    assert_true(vhost_check(&m));
    m.flags = VHOST_VERSION | VHOST_REPLY;
    assert_false(vhost_check(&m));
    m.flags = 2;
    assert_false(vhost_check(&m));

    /* Counts, sizes and descriptors disagree. */
    m = memory(2);
    m.memory.count = 3;
    assert_false(vhost_check(&m));
    m = memory(2);
    m.fd_count = 1;
    assert_false(vhost_check(&m));
    m = memory(9);
    assert_false(vhost_check(&m));
    /* Regions that wrap or are empty. */
    m = memory(2);
    m.memory.region[1].size = 0;
    assert_false(vhost_check(&m));
    m = memory(2);
    m.memory.region[1].gpa = UINT64_MAX - 4095;
    assert_false(vhost_check(&m));
    m.memory.region[1].gpa = UINT64_MAX - MiB + 1;
    assert_true(vhost_check(&m));
    m.memory.region[0].offset = INT64_MAX;
    assert_false(vhost_check(&m));

    m = request(VHOST_SET_VRING_KICK, 8);
    m.u64 = 7;
    assert_false(vhost_check(&m));
    m.fd_count = 1;
    assert_true(vhost_check(&m));
    m.u64 |= VHOST_NO_FD;
    assert_false(vhost_check(&m));
    m.fd_count = 0;
    assert_true(vhost_check(&m));
    m.u64 |= 0x200;
    assert_false(vhost_check(&m));

    m = request(VHOST_SET_VRING_BASE, 8);
    m.state.queue = VHOST_QUEUES_MAX;
    assert_false(vhost_check(&m));
    m.state.queue--;
    assert_true(vhost_check(&m));
    m.size = 4;
    assert_false(vhost_check(&m));

    m = request(VHOST_GET_CONFIG, VHOST_CONFIG_HEADER + 60);
    m.config.size = 60;
    assert_true(vhost_check(&m));
    m.config.offset = 200;
    assert_false(vhost_check(&m));
    m = request(0, 0);
    assert_false(vhost_check(&m));
    m = request(1000, 0);
    assert_false(vhost_check(&m));
}

static void replies(void **state)
{
    struct vhost_message m = request(VHOST_GET_FEATURES, 8);

    assert_false(vhost_check_reply(&m, VHOST_GET_FEATURES, false));
    m.flags |= VHOST_REPLY;
    assert_true(vhost_check_reply(&m, VHOST_GET_FEATURES, false));
    assert_false(vhost_check_reply(&m, VHOST_GET_QUEUE_NUM, false));
    m.request = VHOST_SET_FEATURES;
    assert_true(vhost_check_reply(&m, VHOST_SET_FEATURES, true));
    m.fd_count = 1;
    assert_false(vhost_check_reply(&m, VHOST_SET_FEATURES, true));

    m = request(VHOST_GET_CONFIG, 0);
    m.flags |= VHOST_REPLY;
    assert_true(vhost_check_reply(&m, VHOST_GET_CONFIG, false));
    m = request(VHOST_GET_INFLIGHT_FD, 24);
    m.flags |= VHOST_REPLY;
    assert_false(vhost_check_reply(&m, VHOST_GET_INFLIGHT_FD, false));
    m.fd_count = 1;
    assert_true(vhost_check_reply(&m, VHOST_GET_INFLIGHT_FD, false));

    m = request(VHOST_BACKEND_CONFIG_CHANGE, 0);
    assert_true(vhost_check_backend(&m));
    m.request = 3;
    assert_false(vhost_check_backend(&m));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whole, setup, teardown),
        cmocka_unit_test_setup_teardown(in_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(ends, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_reads, setup, teardown),
        cmocka_unit_test(checks),
        cmocka_unit_test(replies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
