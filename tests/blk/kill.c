/*
 * Kills at any moment: a process works on an image, with several queues and with snapshots, and is
 * killed (SIGKILL). Then the image must be consistent, and hold what the process had flushed. The
 * next process goes on with it.
 *
 *     kill OPERATIONS [SEED]
 *
 * does so many operations on each kind of image. The images are files in memory: a kill loses
 * nothing that the kernel has been given, so no disk is needed.
 */
#include "album.h"
#include "formats.h"
#include "guest.h"
#include "pattern.h"
#include "peer.h"

#include "base/util.h"
#include "blk/options.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECTORS  GUEST_SECTORS
#define QUEUES   4u
#define DEPTH    8u
#define ROUND    600u /* operations in one process, at most */
#define PEER_ONE 16u  /* rounds of so many have qemu-img look */

/* What the processes share. */
struct shared {
    _Atomic uint32_t version;
    _Atomic uint32_t changes; /* of snapshots */
    uint32_t base[SECTORS];   /* what the disk held when the process began */
    struct album album;
    struct history history; /* its operations follow */
};

struct test {
    const struct format *format;
    bool settled; /* done writes survive, flushed or not */
    struct shared *shared;
    int image, backing; /* descriptors */
    uint64_t random, seed;
    unsigned round;
    uint64_t leaks;
};

static void die(const struct test *test, const char *what, const char *why)
{
    printf("%s, seed %" PRIu64 ", round %u: %s: %s\n", test->format->name, test->seed, test->round,
           what, why);
    fflush(stdout);
    abort();
}

/* ---- Images ---- */

/* Opens the file in the descriptor FD. */
static struct blk *open_file(const struct test *test, int fd)
{
    static const struct blk_host host = {.lane = BLK_LANE_THREADS};
    char name[32];
    struct blk_options options = {.file = name};
    struct error err = {0};
    struct blk *blk;

    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    blk = blk_open(&options, &host, &err);
    if (!blk)
        die(test, "open", err.text);
    return blk;
}

static struct blk *open_image(const struct test *test, int fd)
{
    return format_open(test->format, open_file(test, fd), test->settled);
}

/* ---- The process that is killed ---- */

struct worker {
    struct test *test;
    struct guest *guest;
    pthread_rwlock_t *quiet; /* held for writing while no requests are under way */
    uint64_t random;
    unsigned queue;
};

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    bool room = true;

    while (room) {
        pthread_rwlock_rdlock(worker->quiet);
        room = guest_batch(worker->guest, DEPTH, &worker->random);
        pthread_rwlock_unlock(worker->quiet);
        if (worker->queue == 0 && pattern_below(&worker->random, 12) == 0) {
            pthread_rwlock_wrlock(worker->quiet);
            album_change(&worker->test->shared->album, worker->guest, &worker->random);
            atomic_fetch_add(&worker->test->shared->changes, 1);
            pthread_rwlock_unlock(worker->quiet);
        }
    }
    return NULL;
}

/* What the process does until it is killed, or has done all. */
static void live(struct test *test)
{
    struct guest guest = {.blk = open_image(test, test->image),
                          .history = &test->shared->history,
                          .sectors = SECTORS,
                          .version = &test->shared->version};
    struct worker worker[QUEUES];
    pthread_t thread[QUEUES];
    pthread_rwlockattr_t fair;
    pthread_rwlock_t quiet;

    pthread_rwlockattr_init(&fair);
    pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&quiet, &fair);
    guest_begin(&guest, test->shared->base);
    for (unsigned i = 0; i < QUEUES; i++) {
        worker[i] = (struct worker){.test = test,
                                    .guest = &guest,
                                    .quiet = &quiet,
                                    .random = pattern_random(&test->random),
                                    .queue = i};
        if (pthread_create(&thread[i], NULL, work, &worker[i]))
            die(test, "pthread_create", strerror(errno));
    }
    for (unsigned i = 0; i < QUEUES; i++)
        pthread_join(thread[i], NULL);
    guest_flush(&guest);
    blk_close(guest.blk);
    guest_end(&guest);
}

/* ---- The process that looks at what is left ---- */

static uint8_t *read_all(const struct test *test, struct blk *image)
{
    uint8_t *data = guest_read_all(image, SECTORS);

    if (!data)
        die(test, "read", "it fails");
    return data;
}

static void report(void *opaque, const char *line)
{
    (void)opaque;
    puts(line);
}

static struct qcow2_checked check(const struct test *test, struct blk *image, bool repair)
{
    struct qcow2_check how = {.repair_leaks = repair, .repair_errors = repair};
    struct qcow2_checked checked = {0};
    struct error err = {0};

    if (qcow2_check(image, &how, &checked, &err))
        die(test, "check", err.text);
    if (checked.errors > checked.errors_fixed) {
        how = (struct qcow2_check){.report = report};
        qcow2_check(image, &how, &checked, &err);
        die(test, "check", "the image has errors");
    }
    return checked;
}

/* How many clusters may be lost: what was not flushed may have been given clusters of its own, and
 * tables to find them. */
static uint64_t leaks_allowed(struct test *test)
{
    uint64_t cluster = test->format->what.cluster_size;
    struct history *history = &test->shared->history;
    uint64_t unsure = history_unsure(history, history->now, SECTORS);

    return 2 * unsure * SECTOR / cluster + 3 * ROUND;
}

/* Looks at the metadata as the kill has left it. */
static void check_metadata(struct test *test)
{
    struct qcow2_how how = {.readonly = true, .offline = true, .damaged = true};
    struct blk *file = open_file(test, test->image), *image;
    struct error err = {0};
    uint64_t leaks;

    image = qcow2_open(file, &how, &err);
    if (!image)
        die(test, "open", err.text);
    leaks = check(test, image, false).leaks;
    test->leaks += leaks;
    if (leaks > leaks_allowed(test))
        die(test, "check", "the image has lost more clusters than were in use");
    blk_close(image);
}

/* A copy of the image's file, as a descriptor. */
static int copy_file(const struct test *test)
{
    off_t size = lseek(test->image, 0, SEEK_END);
    void *data = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, test->image, 0);
    int copy;

    if (data == MAP_FAILED)
        die(test, "mmap", strerror(errno));
    copy = peer_file(data, (uint64_t)size);
    munmap(data, (size_t)size);
    return copy;
}

static void check_snapshots(struct test *test, struct blk *image)
{
    uint64_t cut = test->shared->history.now;

    if (!album_check(&test->shared->album, cut, image, false))
        die(test, "snapshots", "not those that were made");
}

/* Applies a snapshot on a copy of the image. */
static void check_one_snapshot(struct test *test)
{
    uint64_t cut = test->shared->history.now;
    int copy = copy_file(test);
    struct blk *image = open_image(test, copy);

    if (!album_apply(&test->shared->album, cut, image, &test->random, false))
        die(test, "snapshot", "other contents");
    check(test, image, false);
    blk_close(image);
    close(copy);
}

static void check_peer(const struct test *test, const uint8_t *data)
{
    if (peer_check(test->image, test->backing))
        die(test, "qemu-img check", "the image is not clean");
    if (!peer_compare(test->image, test->backing, data, SECTORS * (uint64_t)SECTOR))
        die(test, "qemu-img compare", "other contents");
}

/* Checks all that the killed process has left, and takes it over for the next one. */
static void look(struct test *test)
{
    static uint32_t read[SECTORS];
    struct shared *shared = test->shared;
    const uint32_t *tables[ALBUM_MOST];
    struct candidates *candidates;
    struct blk *image;
    uint8_t *data;

    album_tables(&shared->album, tables);
    if (!test->format->what.lazy_refcounts && !album_busy(&shared->album, shared->history.now))
        check_metadata(test);
    image = open_image(test, test->image);
    data = read_all(test, image);
    candidates = candidates_after(&shared->history, shared->history.now, shared->base, tables,
                                  SECTORS, test->settled);
    if (!candidates_check(candidates, data, read, false))
        die(test, "contents", "flushed data is lost, or something else is there");
    candidates_free(candidates);
    check(test, image, true);
    check_snapshots(test, image);
    blk_close(image);
    check_one_snapshot(test);
    image = open_image(test, test->image);
    album_turn(&shared->album, shared->history.now, image);
    blk_close(image);
    if (test->round % PEER_ONE == 0)
        check_peer(test, data);
    free(data);
    memcpy(shared->base, read, sizeof(read));
}

/* ---- Rounds ---- */

static void begin_round(struct test *test)
{
    struct history *history = &test->shared->history;

    memset(history, 0, history_size(ROUND));
    history->most = ROUND;
    history->now = 1; /* in which the snapshots were made that there are */
    fflush(stdout);
}

/* Waits until so many operations have begun, and kills. */
static void kill_after(struct test *test, pid_t pid, uint32_t operations)
{
    int status;

    while (atomic_load(&test->shared->history.count) < operations) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            if (!WIFEXITED(status) || WEXITSTATUS(status))
                die(test, "the process", "has failed");
            return;
        }
        usleep(20);
    }
    usleep((useconds_t)pattern_below(&test->random, 300));
    kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid)
        die(test, "waitpid", strerror(errno));
    if (WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) != SIGKILL)
        die(test, "the process", "has failed");
}

static uint64_t run_round(struct test *test)
{
    uint32_t operations = 1 + (uint32_t)pattern_below(&test->random, ROUND + ROUND / 8);
    pid_t pid;

    begin_round(test);
    pid = fork();
    if (pid < 0)
        die(test, "fork", strerror(errno));
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        live(test);
        fflush(stdout);
        _exit(0);
    }
    kill_after(test, pid, operations);
    look(test);
    test->round++;
    return MIN(test->shared->history.count, ROUND);
}

static void create(struct test *test)
{
    struct blk *file;

    test->image = peer_file(NULL, 0);
    test->backing = test->format->backing ? backing_file() : -1;
    file = open_file(test, test->image);
    format_create(test->format, file, test->shared->base);
    blk_close(file);
}

static void run(const struct format *format, bool settled, uint64_t most, uint64_t seed)
{
    size_t size = sizeof(struct shared) + history_size(ROUND);
    struct test test = {.format = format, .settled = settled, .seed = seed, .random = seed};
    uint64_t done = 0;

    test.shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (test.shared == MAP_FAILED)
        die(&test, "mmap", strerror(errno));
    create(&test);
    while (done < most)
        done += run_round(&test);
    printf("%s%s: %u kills, %" PRIu64 " operations and %u changes of snapshots, %" PRIu64
           " clusters lost and found\n",
           format->name, settled ? ", settled" : "", test.round, done, test.shared->changes,
           test.leaks);
    fflush(stdout);
    munmap(test.shared, size);
    close(test.image);
    if (test.backing >= 0)
        close(test.backing);
}

int main(int argc, char **argv)
{
    uint64_t most = argc > 1 ? strtoull(argv[1], NULL, 0) : 3000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

    for (const struct format *format = formats; format->name; format++) {
        if (format->raw)
            continue;
        run(format, false, most, seed);
        run(format, true, most / 4, seed);
    }
    return 0;
}
