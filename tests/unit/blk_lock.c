/*
 * Who may use an image at once: each pair of users, users of parts among them, and QEMU.
 */
#include "test.h"

#include "blk_rig.h"

#include "blk/file/lock.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static const struct blk_host hasty = {.hasty = true};

/* Ways to open a file of 4 MiB. */
struct use {
    const char *more;
    bool writes;
    uint64_t offset, size; /* SIZE 0: the whole */
};

static const struct use uses[] = {
    {"", true, 0, 0},
    {",readonly", false, 0, 0},
    {",offset=0,size=1M", true, 0, MiB},
    {",offset=1M,size=1M", true, MiB, MiB},
    {",offset=512K", true, 512 * KiB, 1ULL << 61},
    {",size=1M,readonly", false, 0, MiB},
    {",offset=512K,size=1M,readonly", false, 512 * KiB, MiB},
};

/* What the table in lock.h says. */
static bool may_meet(const struct use *a, const struct use *b)
{
    bool overlap = a->size == 0 || b->size == 0 ||
                   (a->offset < b->offset + b->size && b->offset < a->offset + a->size);

    return !(a->writes || b->writes) || !overlap;
}

static void test_pairs(void **unused)
{
    char name[64];

    make_file(name, 4 * MiB);
    for (unsigned i = 0; i < ARRAY_SIZE(uses); i++) {
        for (unsigned j = 0; j < ARRAY_SIZE(uses); j++) {
            struct blk *first = open_disk(name, uses[i].more, NULL);

            if (may_meet(&uses[i], &uses[j]))
                blk_close(open_disk(name, uses[j].more, NULL));
            else
                refuse_disk(name, uses[j].more, &hasty, EBUSY,
                            "is in use already: it is named twice, or its parts overlap");
            blk_close(first);
            /* Nothing stays locked. */
            blk_close(open_disk(name, uses[j].more, NULL));
        }
    }
    unlink(name);
}

/* A user of the whole is refused while only parts are in use, and parts go on being added. */
static void test_parts_add_up(void **unused)
{
    struct blk *a, *b, *c;
    char name[64];

    make_file(name, 4 * MiB);
    a = open_disk(name, ",size=1M", NULL);
    b = open_disk(name, ",offset=1M,size=1M,readonly", NULL);
    c = open_disk(name, ",offset=2M", NULL);
    refuse_disk(name, "", &hasty, EBUSY, "is in use");
    refuse_disk(name, ",readonly", &hasty, EBUSY, "its parts overlap");
    blk_close(a);
    refuse_disk(name, ",readonly", &hasty, EBUSY, "its parts overlap");
    blk_close(c);
    blk_close(open_disk(name, ",readonly", NULL));
    refuse_disk(name, "", &hasty, EBUSY, "is in use");
    blk_close(b);
    blk_close(open_disk(name, "", NULL));
    unlink(name);
}

/* ---- QEMU ----
 *
 * Its raw format lets readers and writers meet in some of its tools; qcow2 does not, in any. */

static bool have_qemu(void)
{
    return system("qemu-io --version > /dev/null 2>&1") == 0;
}

/* Makes a qcow2 file as long as those of the other tests. */
static void make_qcow2(char name[static 64])
{
    char command[256];

    make_file(name, 0);
    snprintf(command, sizeof(command), "qemu-img create -q -f qcow2 %s 4M", name);
    assert_int_equal(system(command), 0);
    assert_int_equal(truncate(name, 4 * MiB), 0);
}

/* Has qemu-io open NAME and read from it. Returns whether it was allowed to. */
static bool qemu_may(const char *name, bool writes)
{
    char command[256];

    snprintf(command, sizeof(command), "qemu-io -f qcow2 %s -c 'read 0 512' %s > /dev/null 2>&1",
             writes ? "" : "-r", name);
    return system(command) == 0;
}

/* A qemu-io that has NAME open until it is told to go. */
struct qemu {
    pid_t pid;
    int to;
};

static void start_qemu(struct qemu *qemu, const char *name, bool writes)
{
    int in[2], out[2];
    char line[256] = {0};

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    qemu->pid = fork();
    if (qemu->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        if (writes)
            execlp("qemu-io", "qemu-io", "-f", "qcow2", name, NULL);
        execlp("qemu-io", "qemu-io", "-f", "qcow2", "-r", name, NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    qemu->to = in[1];
    /* It answers when it has opened the file. */
    assert_int_equal(write(qemu->to, "length\n", 7), 7);
    assert_true(read(out[0], line, sizeof(line) - 1) > 0);
    close(out[0]);
}

static void end_qemu(const struct qemu *qemu)
{
    int status;

    close(qemu->to);
    assert_int_equal(waitpid(qemu->pid, &status, 0), qemu->pid);
}

static void test_qemu_is_refused(void **unused)
{
    struct blk *blk;
    char name[64];

    if (!have_qemu())
        skip();
    make_qcow2(name);
    assert_true(qemu_may(name, true));
    blk = open_disk(name, "", NULL);
    assert_false(qemu_may(name, true));
    assert_false(qemu_may(name, false));
    blk_close(blk);
    blk = open_disk(name, ",readonly", NULL);
    assert_false(qemu_may(name, true));
    assert_true(qemu_may(name, false));
    blk_close(blk);
    blk = open_disk(name, ",offset=1M,size=1M", NULL);
    assert_false(qemu_may(name, true));
    assert_false(qemu_may(name, false));
    blk_close(blk);
    blk = open_disk(name, ",offset=1M,size=1M,readonly", NULL);
    assert_false(qemu_may(name, true));
    assert_true(qemu_may(name, false));
    blk_close(blk);
    assert_true(qemu_may(name, true));
    unlink(name);
}

static void test_qemu_refuses(void **unused)
{
    struct qemu qemu;
    char name[64];

    if (!have_qemu())
        skip();
    make_qcow2(name);
    start_qemu(&qemu, name, true);
    for (unsigned i = 0; i < ARRAY_SIZE(uses); i++)
        refuse_disk(name, uses[i].more, &hasty, EBUSY, "is in use by another process");
    end_qemu(&qemu);
    start_qemu(&qemu, name, false);
    for (unsigned i = 0; i < ARRAY_SIZE(uses); i++) {
        if (uses[i].writes)
            refuse_disk(name, uses[i].more, &hasty, EBUSY, "is in use by another process");
        else
            blk_close(open_disk(name, uses[i].more, NULL));
    }
    end_qemu(&qemu);
    blk_close(open_disk(name, "", NULL));
    unlink(name);
}

/* A process that is killed with requests in flight gives its image back. */
static void test_killed(void **unused)
{
    enum { COUNT = 64, SIZE = 65536 };
    char name[64], byte;
    int pipes[2], status;
    pid_t pid;

    make_file(name, COUNT * SIZE);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        struct blk *blk = open_disk(name, "", NULL);
        struct asked asked[COUNT];
        struct asks asks;

        begin_asks(&asks);
        for (unsigned i = 0; i < COUNT; i++)
            ask(&asks, blk, &asked[i], i % 2 ? BLK_READ : BLK_WRITE, (uint64_t)i * SIZE,
                calloc(1, SIZE), SIZE);
        blk_kick(blk);
        if (write(pipes[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    refuse_disk(name, "", &hasty, EBUSY, "is in use by another process");
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    blk_close(open_disk(name, "", NULL));
    close(pipes[0]);
    close(pipes[1]);
    unlink(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),        cmocka_unit_test(test_parts_add_up),
        cmocka_unit_test(test_killed),       cmocka_unit_test(test_qemu_is_refused),
        cmocka_unit_test(test_qemu_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
