/*
 * Host ends of ports: files that are appended to, sockets with clients that come, go, are slow and
 * leave things behind, paths that cannot be. ThreadSanitizer looks at it, too.
 */
#include "test.h"

#include "base/util.h"
#include "con/end.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 60 /* seconds: only a test that fails waits so long */

struct fixture {
    char dir[64], path[96];
    struct loop *loop;
    struct con_end *end;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned ready, connects, disconnects;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->dir, P_tmpdir "/doppel-end-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/it", f->dir);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    f->loop = loop_create(NULL);
    assert_int_equal(loop_start(f->loop, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    con_end_close(f->end);
    loop_destroy(f->loop);
    unlink(f->path);
    assert_int_equal(rmdir(f->dir), 0);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
    return 0;
}

static void count(struct fixture *f, unsigned *counter)
{
    pthread_mutex_lock(&f->lock);
    ++*counter;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void on_ready(void *opaque)
{
    struct fixture *f = opaque;

    count(f, &f->ready);
}

static void on_connected(void *opaque, bool connected)
{
    struct fixture *f = opaque;

    count(f, connected ? &f->connects : &f->disconnects);
}

/* Waits until *COUNTER is no longer LAST. */
static void await(struct fixture *f, const unsigned *counter, unsigned last)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    pthread_mutex_lock(&f->lock);
    while (*counter == last)
        assert_int_equal(pthread_cond_timedwait(&f->changed, &f->lock, &until), 0);
    pthread_mutex_unlock(&f->lock);
}

static unsigned look(struct fixture *f, const unsigned *counter)
{
    unsigned value;

    pthread_mutex_lock(&f->lock);
    value = *counter;
    pthread_mutex_unlock(&f->lock);
    return value;
}

static struct con_end *open_end(struct fixture *f, const char *kind, struct error *err)
{
    char where[128];

    snprintf(where, sizeof(where), "%s:%s", kind, f->path);
    return con_end_open(where, NULL, f->loop, err);
}

static void begin(struct fixture *f, const char *kind)
{
    const struct con_end_events events = {on_ready, on_connected, f};

    f->end = open_end(f, kind, NULL);
    assert_non_null(f->end);
    con_end_begin(f->end, &events);
}

/* Reads exactly SIZE bytes, waiting for them. */
static void read_all(struct fixture *f, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        unsigned before = look(f, &f->ready);
        size_t n = con_end_read(f->end, (char *)data + done, size - done);

        done += n;
        if (!n)
            await(f, &f->ready, before);
    }
}

static void write_all(struct fixture *f, const char *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        unsigned before = look(f, &f->ready);
        size_t n = con_end_write(f->end, data + done, size - done);

        done += n;
        if (done < size)
            await(f, &f->ready, before);
    }
}

static void connect_to(struct fixture *f, int fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(address.sun_path, f->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

static int client(struct fixture *f)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    connect_to(f, fd);
    return fd;
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {
        "", "tty:", "file:", "unix:", "pipe:", "file", "/dev/null", "nothing:else"};
    struct error err = {0};
    char where[300] = "unix:/";

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_null(con_end_open(bad[i], NULL, f->loop, &err));
    assert_int_equal(err.code, EINVAL);
    memset(where + 6, 'x', 150);
    assert_null(con_end_open(where, NULL, f->loop, &err));
    assert_int_equal(err.code, ENAMETOOLONG);
    assert_null(con_end_open("file:/nowhere/at/all", NULL, f->loop, &err));
    assert_int_equal(err.code, ENOENT);
    assert_null(con_end_open("unix:/nowhere/at/all", NULL, f->loop, &err));
    assert_int_equal(err.code, ENOENT);
    assert_null(con_end_open("file:/dev/null", NULL, f->loop, &err));
    assert_int_equal(err.code, EINVAL);
    assert_int_equal(mkfifo(f->path, 0600), 0); /* would hold up a worker */
    assert_null(open_end(f, "file", &err));
}

static void test_file(void **state)
{
    struct fixture *f = *state;
    char bytes[32];
    int fd = open(f->path, O_WRONLY | O_CREAT, 0600);

    assert_int_equal(write(fd, "before ", 7), 7);
    close(fd);
    begin(f, "file");
    assert_true(con_end_connected(f->end));
    assert_int_equal(con_end_write(f->end, "after", 5), 5);
    assert_int_equal(con_end_read(f->end, bytes, sizeof(bytes)), 0);
    fd = open(f->path, O_RDONLY);
    assert_int_equal(read(fd, bytes, sizeof(bytes)), 12);
    assert_memory_equal(bytes, "before after", 12);
    close(fd);
}

static void test_socket(void **state)
{
    struct fixture *f = *state;
    struct stat status;
    char bytes[32];
    int fd;

    begin(f, "unix");
    assert_int_equal(stat(f->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_false(con_end_connected(f->end));
    assert_int_equal(con_end_write(f->end, "nobody hears", 12), 12);
    assert_int_equal(con_end_read(f->end, bytes, 32), 0);
    for (unsigned i = 0; i < 3; i++) {
        fd = client(f);
        await(f, &f->connects, i);
        assert_true(con_end_connected(f->end));
        assert_int_equal(send(fd, "question", 8, 0), 8);
        read_all(f, bytes, 8);
        assert_memory_equal(bytes, "question", 8);
        assert_int_equal(con_end_write(f->end, "answer", 6), 6);
        assert_int_equal(recv(fd, bytes, 6, MSG_WAITALL), 6);
        assert_memory_equal(bytes, "answer", 6);
        close(fd);
        while (look(f, &f->disconnects) == i) /* a reader finds out */
            con_end_read(f->end, bytes, sizeof(bytes));
        assert_false(con_end_connected(f->end));
    }
    con_end_close(f->end);
    f->end = NULL;
    assert_int_equal(stat(f->path, &status), -1);
}

/* What a client sent before it went is there, and only then the next one has its turn. */
static void test_left_behind(void **state)
{
    struct fixture *f = *state;
    char bytes[32];
    int first, second;

    begin(f, "unix");
    first = client(f);
    await(f, &f->connects, 0);
    assert_int_equal(send(first, "first", 5, 0), 5);
    close(first);
    second = client(f);
    assert_int_equal(send(second, "second", 6, 0), 6);
    read_all(f, bytes, 5);
    assert_memory_equal(bytes, "first", 5);
    read_all(f, bytes, 6);
    assert_memory_equal(bytes, "second", 6);
    await(f, &f->connects, 1);
    assert_int_equal(look(f, &f->connects), 2);
    assert_int_equal(look(f, &f->disconnects), 1);
    close(second);
}

/* A client that sends no more still gets what the guest says. */
static void test_half_closed(void **state)
{
    struct fixture *f = *state;
    char bytes[32];
    int fd;

    begin(f, "unix");
    fd = client(f);
    await(f, &f->connects, 0);
    assert_int_equal(send(fd, "ask", 3, 0), 3);
    shutdown(fd, SHUT_WR);
    read_all(f, bytes, 3);
    assert_int_equal(con_end_read(f->end, bytes, 1), 0);
    assert_int_equal(con_end_write(f->end, "answer", 6), 6);
    assert_int_equal(recv(fd, bytes, 6, MSG_WAITALL), 6);
    assert_int_equal(look(f, &f->disconnects), 0);
    close(fd);
    await(f, &f->disconnects, 0);
}

#define MUCH (4u << 20)

static void *drain(void *opaque)
{
    int fd = *(int *)opaque;
    static char bytes[65536];
    size_t total = 0;
    ssize_t n;

    while (total < MUCH && (n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
        for (ssize_t i = 0; i < n; i++, total++)
            if (bytes[i] != (char)(total / 1000))
                return NULL;
    return opaque;
}

/* More than a socket holds: writing finds no room, and hears when there is some. */
static void test_slow_client(void **state)
{
    struct fixture *f = *state;
    char *much = malloc(MUCH);
    pthread_t thread;
    void *result;
    int fd;

    for (size_t i = 0; i < MUCH; i++)
        much[i] = (char)(i / 1000);
    begin(f, "unix");
    fd = client(f);
    await(f, &f->connects, 0);
    assert_true(con_end_write(f->end, much, MUCH) < MUCH);
    close(fd); /* and now it goes: what waits is dropped */
    await(f, &f->disconnects, 0);
    assert_int_equal(con_end_write(f->end, much, MUCH), MUCH);
    fd = client(f);
    await(f, &f->connects, 1);
    pthread_create(&thread, NULL, drain, &fd);
    write_all(f, much, MUCH);
    pthread_join(thread, &result);
    assert_ptr_equal(result, &fd);
    close(fd);
    free(much);
}

/* A socket of a process that was killed is replaced; one that is in use, and other files, are not.
 */
static void test_stale(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct error err = {0};

    strcpy(address.sun_path, f->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_null(open_end(f, "unix", &err));
    assert_int_equal(err.code, EADDRINUSE);
    close(fd);
    begin(f, "unix");
    fd = client(f);
    await(f, &f->connects, 0);
    close(fd);
    con_end_close(f->end);
    f->end = NULL;
    fd = open(f->path, O_WRONLY | O_CREAT, 0600);
    close(fd);
    assert_null(open_end(f, "unix", &err));
    assert_int_equal(err.code, EADDRINUSE);
}

/* Closed while clients come and go. */
static void test_close_busy(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 50; i++) {
        char bytes[8];
        int fd;

        begin(f, "unix");
        fd = client(f);
        assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
        if (i % 2)
            close(fd);
        con_end_read(f->end, bytes, sizeof(bytes));
        con_end_write(f->end, "y", 1);
        con_end_close(f->end);
        f->end = NULL;
        if (i % 2 == 0)
            close(fd);
    }
}

/* Where the process has no descriptor left, a client is sent away, and the next one is heard. */
static void test_no_descriptor(void **state)
{
    struct fixture *f = *state;
    struct rlimit files, few;
    int fd, probe;
    char byte;

    begin(f, "unix");
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    probe = dup(0);
    close(probe);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    few = files;
    few.rlim_cur = (rlim_t)probe;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    connect_to(f, fd);
    assert_int_equal(poll(&(struct pollfd){fd, POLLIN, 0}, 1, PATIENCE * 1000), 1);
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    close(fd);
    assert_int_equal(look(f, &f->connects), 0);
    fd = client(f);
    await(f, &f->connects, 0);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_refused),     TEST(test_file),        TEST(test_socket),
        TEST(test_left_behind), TEST(test_half_closed), TEST(test_slow_client),
        TEST(test_stale),       TEST(test_close_busy),  TEST(test_no_descriptor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
