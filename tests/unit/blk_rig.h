/*
 * What tests of disks share: files that vanish with the test, disks by their text, and requests of
 * which many are in flight.
 */
#ifndef DOPPEL_TESTS_UNIT_BLK_RIG_H
#define DOPPEL_TESTS_UNIT_BLK_RIG_H

#include "base/util.h"
#include "blk/blk.h"
#include "blk/options.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Makes a file of SIZE bytes that read as zeroes; NAME is filled in. In the folder of the test's
 * program, because the system's folder for such files may have no direct I/O. */
static inline void make_file(char name[64], off_t size)
{
    int fd;

    strcpy(name, "unit-blk-XXXXXX");
    fd = mkstemp(name);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static inline struct blk *open_with(const char *text, const struct blk_host *host,
                                    struct error *err)
{
    struct blk_options options;
    struct blk *blk;

    if (blk_options_parse(text, &options, err) < 0)
        return NULL;
    blk = blk_open(&options, host, err);
    blk_options_free(&options);
    return blk;
}

/* Opens the file NAME with MORE behind it. */
static inline struct blk *open_disk(const char *name, const char *more, const struct blk_host *host)
{
    struct error err = {0};
    char text[256];
    struct blk *blk;

    snprintf(text, sizeof(text), "%s%s", name, more);
    blk = open_with(text, host, &err);
    if (!blk)
        print_error("%s\n", err.text);
    assert_non_null(blk);
    return blk;
}

/* Checks that NAME with MORE behind it cannot be opened, because of CODE (0: of any), and that the
 * message has WORDS. */
static inline void refuse_disk(const char *name, const char *more, const struct blk_host *host,
                               int code, const char *words)
{
    struct error err = {0};
    char text[256];

    snprintf(text, sizeof(text), "%s%s", name, more);
    assert_null(open_with(text, host, &err));
    if (!strstr(err.text, words))
        print_error("'%s' does not say '%s'\n", err.text, words);
    assert_int_not_equal(err.code, 0);
    if (code)
        assert_int_equal(err.code, code);
    assert_non_null(strstr(err.text, words));
}

/* A request of the test's, with one buffer. */
struct asked {
    struct blk_request request;
    struct iovec iov;
    struct asks *asks;
    int result;
    bool done;
};

/* Requests in flight. */
struct asks {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned open;
};

static inline void begin_asks(struct asks *asks)
{
    pthread_mutex_init(&asks->lock, NULL);
    pthread_cond_init(&asks->changed, NULL);
    asks->open = 0;
}

static inline void asked_done(struct blk_request *request, int result)
{
    struct asked *a = container_of(request, struct asked, request);

    pthread_mutex_lock(&a->asks->lock);
    assert_false(a->done);
    a->done = true;
    a->result = result;
    a->asks->open--;
    pthread_cond_signal(&a->asks->changed);
    pthread_mutex_unlock(&a->asks->lock);
}

/* Makes A ready to be submitted, with BUFFER. */
static inline void prepare_ask(struct asks *asks, struct asked *a, enum blk_kind kind,
                               uint64_t offset, void *buffer, uint64_t size)
{
    a->iov = (struct iovec){.iov_base = buffer, .iov_len = size};
    a->request = (struct blk_request){.kind = kind,
                                      .offset = offset,
                                      .size = size,
                                      .iov = &a->iov,
                                      .iovs = 1,
                                      .done = asked_done};
    a->asks = asks;
    a->done = false;
    pthread_mutex_lock(&asks->lock);
    asks->open++;
    pthread_mutex_unlock(&asks->lock);
}

static inline void ask(struct asks *asks, struct blk *blk, struct asked *a, enum blk_kind kind,
                       uint64_t offset, void *buffer, uint64_t size)
{
    prepare_ask(asks, a, kind, offset, buffer, size);
    blk_submit(blk, &a->request);
}

/* Returns when all that was asked is done. */
static inline void await(struct asks *asks, struct blk *blk)
{
    blk_kick(blk);
    pthread_mutex_lock(&asks->lock);
    while (asks->open)
        pthread_cond_wait(&asks->changed, &asks->lock);
    pthread_mutex_unlock(&asks->lock);
}

/* Asks for one thing and returns the result. */
static inline int ask_once(struct blk *blk, enum blk_kind kind, uint64_t offset, void *buffer,
                           uint64_t size)
{
    struct asks asks;
    struct asked a;

    begin_asks(&asks);
    ask(&asks, blk, &a, kind, offset, buffer, size);
    await(&asks, blk);
    return a.result;
}

/* Bytes by which a sector is recognized. */
static inline void fill(void *buffer, size_t size, uint64_t seed)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15 + 1;

    for (size_t i = 0; i + sizeof(x) <= size; i += sizeof(x)) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy((char *)buffer + i, &x, sizeof(x));
    }
}

/* What the log has been told. */
struct lines {
    enum log_level level; /* of the last line */
    unsigned count;
    char last[LOG_TEXT];
};

static inline void keep_line(void *opaque, enum log_level level, const char *text)
{
    struct lines *lines = opaque;

    lines->level = level;
    lines->count++;
    snprintf(lines->last, sizeof(lines->last), "%s", text);
}

static inline uint64_t blocks_of(const char *name)
{
    struct stat status;

    assert_int_equal(stat(name, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static inline uint64_t size_of(const char *name)
{
    struct stat status;

    assert_int_equal(stat(name, &status), 0);
    return (uint64_t)status.st_size;
}

#endif
