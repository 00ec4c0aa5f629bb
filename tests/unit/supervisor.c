/*
 * A supervisor whose VM process has gone over to the guest: it sends whatever it likes. The
 * supervisor does not crash, heeds its own signals, and keeps within its limits.
 */
#include "test.h"

#include "base/util.h"
#include "cli/supervisor.h"
#include "ctl/journal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = P_tmpdir "/doppel-supervisor-XXXXXX", path[64], older[64], pid_file[64];

static int setup(void **unused)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/log", folder);
    snprintf(older, sizeof(older), "%s/log.1", folder);
    snprintf(pid_file, sizeof(pid_file), "%s/pid", folder);
    return 0;
}

static int teardown(void **unused)
{
    unlink(path);
    unlink(older);
    unlink(pid_file);
    return rmdir(folder);
}

/* ---- VM processes ---- */

/* Says that it listens, and that its test may begin. */
static void begin(const struct channel *channel)
{
    channel_send(channel->notes, true, NOTE_LISTENS, 0, NULL);
    close(open(pid_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

/* Messages of all kinds, lengths and contents, without an end. The wish to end is left to the
 * test. */
__attribute__((noreturn)) static int floods(void *opaque, const struct channel *channel)
{
    struct message message;
    unsigned seed = 1;

    begin(channel);
    for (;;) {
        uint8_t *bytes = (uint8_t *)&message;

        for (size_t i = 0; i < sizeof(message); i++) {
            seed = seed * 1103515245 + 12345;
            bytes[i] = (uint8_t)(seed >> 16);
        }
        message.kind %= ANSWER + 3;
        if (message.kind != NOTE_WISH && message.kind != NOTE_SIGNAL)
            send(seed & 1 << 20 ? channel->requests : channel->notes, &message,
                 (seed >> 8) % (sizeof(message) + 1), MSG_NOSIGNAL | MSG_DONTWAIT);
        channel_send(channel->notes, false, NOTE_LOG, (int)seed, "flood");
    }
}

__attribute__((noreturn)) static int closes(void *opaque, const struct channel *channel)
{
    begin(channel);
    close(channel->notes);
    close(channel->requests);
    for (;;)
        pause();
}

__attribute__((noreturn)) static int claims_a_crash(void *opaque, const struct channel *channel)
{
    struct message message;

    memset(&message, 0xEE, sizeof(message));
    message.kind = NOTE_CRASH;
    begin(channel);
    send(channel->notes, &message, sizeof(message), MSG_NOSIGNAL);
    signal(SIGABRT, SIG_DFL);
    abort();
}

/* ---- The supervisor ---- */

/* Starts one whose VM process executes RUN, and waits until that has begun. */
static pid_t start(int (*run)(void *, const struct channel *))
{
    const struct supervisor_config config = {.log_path = path};
    pid_t supervisor;

    unlink(pid_file);
    supervisor = fork();
    if (supervisor == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        dup2(null, STDIN_FILENO);
        dup2(null, STDERR_FILENO);
        _exit(supervise(&config, run, NULL));
    }
    while (access(pid_file, F_OK) != 0)
        usleep(1000);
    return supervisor;
}

/* Its exit status, and the processor time that it and its VM process have used. */
static int status_of(pid_t supervisor, struct rusage *used)
{
    int status;

    assert_int_equal(wait4(supervisor, &status, 0, used), supervisor);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void check_log(void)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_in_range(st.st_size, 1, JOURNAL_LIMIT);
    if (stat(older, &st) == 0)
        assert_in_range(st.st_size, 1, JOURNAL_LIMIT);
}

static void test_floods(void **unused)
{
    pid_t supervisor = start(floods);
    struct rusage used;

    usleep(300000);
    kill(supervisor, SIGTERM);
    usleep(100000);
    kill(supervisor, SIGTERM);
    assert_int_equal(status_of(supervisor, &used), 128 + SIGTERM);
    check_log();
}

static void test_closes(void **unused)
{
    pid_t supervisor = start(closes);
    struct rusage used;

    usleep(500000);
    kill(supervisor, SIGTERM);
    usleep(100000);
    kill(supervisor, SIGINT);
    assert_int_equal(status_of(supervisor, &used), 128 + SIGINT);
    assert_true(used.ru_utime.tv_sec + used.ru_stime.tv_sec == 0);
    assert_in_range(used.ru_utime.tv_usec + used.ru_stime.tv_usec, 0, 300000);
}

static void test_claims_a_crash(void **unused)
{
    struct rusage used;

    assert_int_equal(status_of(start(claims_a_crash), &used), 128 + SIGABRT);
    check_log();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floods),
        cmocka_unit_test(test_closes),
        cmocka_unit_test(test_claims_a_crash),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
