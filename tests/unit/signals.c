/*
 * The process's signal handlers: shared by count, given back, and passing on what is not theirs.
 */
#include "test.h"

#include "base/signals.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

/* What the program's own handler has seen. */
static struct {
    struct sigaction before; /* what was there when it was installed */
    volatile int calls;
    void *volatile address;
} program;

static void *map(int protection)
{
    void *page = mmap(NULL, PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(page, MAP_FAILED);
    return page;
}

/* Makes the page accessible, so that the access succeeds when it is repeated. */
static void program_handler(int number, siginfo_t *info, void *context)
{
    program.calls++;
    program.address = info->si_addr;
    if (info->si_code > 0)
        mprotect(info->si_addr, PAGE, PROT_READ | PROT_WRITE);
}

/* Does the same only with what no handler before it wants. */
static void program_chains(int number, siginfo_t *info, void *context)
{
    program.calls++;
    program.before.sa_sigaction(number, info, context);
}

static void install(void (*handler)(int number, siginfo_t *info, void *context))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};

    program.calls = 0;
    assert_int_equal(sigaction(SIGSEGV, &action, &program.before), 0);
}

static bool is_installed(void (*handler)(int number, siginfo_t *info, void *context))
{
    struct sigaction now;

    assert_int_equal(sigaction(SIGSEGV, NULL, &now), 0);
    return now.sa_flags & SA_SIGINFO && now.sa_sigaction == handler;
}

/* A range of the library's: its page becomes accessible, too. */
struct range {
    char *page;
    atomic_int faults;
    struct signals_watch *watch;
};

SIGNALS_SAFE static bool on_fault(void *opaque, const struct signals_fault *fault)
{
    struct range *range = opaque;

    if (fault->number != SIGSEGV)
        return false;
    atomic_fetch_add(&range->faults, 1);
    mprotect(range->page, PAGE, PROT_READ | PROT_WRITE);
    return true;
}

static void watch(struct range *range)
{
    range->page = map(PROT_NONE);
    range->faults = 0;
    range->watch = signals_watch(SIGNALS_BY_ADDRESS, (uintptr_t)range->page,
                                 (uintptr_t)range->page + PAGE, on_fault, range, NULL);
    assert_non_null(range->watch);
}

static void unwatch(struct range *range)
{
    signals_unwatch(range->watch);
    munmap(range->page, PAGE);
}

static void touch(char *page)
{
    *(volatile char *)page = 1;
}

static void test_count(void **unused)
{
    struct range one, two;

    install(program_handler);
    watch(&one);
    assert_false(is_installed(program_handler));
    watch(&two);
    unwatch(&one);
    assert_false(is_installed(program_handler));
    touch(two.page);
    assert_int_equal(two.faults, 1);
    unwatch(&two);
    assert_true(is_installed(program_handler));
    assert_int_equal(program.calls, 0);
    sigaction(SIGSEGV, &program.before, NULL);
}

/* Faults elsewhere, and signals that somebody sends, are the program's. */
static void test_passed_on(void **unused)
{
    char *page = map(PROT_NONE);
    struct range range;

    install(program_handler);
    watch(&range);
    touch(page);
    assert_int_equal(program.calls, 1);
    assert_ptr_equal(program.address, page);
    touch(range.page);
    assert_int_equal(program.calls, 1);
    assert_int_equal(range.faults, 1);
    raise(SIGSEGV);
    assert_int_equal(program.calls, 2);
    unwatch(&range);
    sigaction(SIGSEGV, &program.before, NULL);
    munmap(page, PAGE);
}

/* A handler that the program installs later stays, and is in front of the library's for ever. */
static void test_later_handler(void **unused)
{
    struct sigaction first;
    struct range range;

    sigaction(SIGSEGV, NULL, &first);
    watch(&range);
    install(program_chains);
    touch(range.page);
    assert_int_equal(program.calls, 1);
    assert_int_equal(range.faults, 1);
    unwatch(&range);
    assert_true(is_installed(program_chains));

    watch(&range);
    assert_true(is_installed(program_chains));
    touch(range.page);
    assert_int_equal(program.calls, 2);
    assert_int_equal(range.faults, 1);

    /* Back to the library's own: its last user takes it away. */
    sigaction(SIGSEGV, &program.before, NULL);
    unwatch(&range);
    sigaction(SIGSEGV, NULL, &program.before);
    assert_memory_equal(&first.sa_sigaction, &program.before.sa_sigaction, sizeof(void *));
}

/* A program that resets the signal to its default does not cut off users who come afterwards. */
static void test_reset(void **unused)
{
    struct sigaction first;
    struct range one, two;

    sigaction(SIGSEGV, NULL, &first);
    watch(&one);
    signal(SIGSEGV, SIG_DFL);
    watch(&two);
    touch(two.page);
    touch(one.page);
    assert_int_equal(one.faults + two.faults, 2);
    unwatch(&one);
    unwatch(&two);
    sigaction(SIGSEGV, &first, NULL);
}

/* Where the program has no handler, or ignores the signal, a fault ends it as it would have. */
static void test_default(void **unused)
{
    static void (*const dispositions[])(int) = {SIG_DFL, SIG_IGN};

    for (unsigned i = 0; i < 2; i++) {
        struct range range;
        int status = 0;
        pid_t child = fork();

        if (child == 0) {
            signal(SIGSEGV, dispositions[i]);
            watch(&range);
            touch(range.page);
            touch(map(PROT_NONE));
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSEGV);
    }
}

/* ---- Threads ---- */

#define ROUNDS 2000

static void *come_and_go(void *opaque)
{
    atomic_int *wrong = opaque;

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct range range;

        watch(&range);
        touch(range.page);
        if (range.faults != 1)
            atomic_fetch_add(wrong, 1);
        unwatch(&range);
    }
    return NULL;
}

/* Each fault finds its own range while the others are added and removed. */
static void test_threads(void **unused)
{
    atomic_int wrong = 0;
    pthread_t threads[4];

    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &wrong), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_count),         cmocka_unit_test(test_passed_on),
        cmocka_unit_test(test_later_handler), cmocka_unit_test(test_reset),
        cmocka_unit_test(test_default),       cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
