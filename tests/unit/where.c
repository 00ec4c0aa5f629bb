/*
 * Where a thread is, asked from outside: one that waits, and one whose registers are not the C
 * library's.
 */
#include "test.h"

#include "base/where.h"

#include <asm/prctl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct thread {
    struct where where;
    int wait_fd;
    _Atomic int release;
};

static const char *ask(struct thread *t)
{
    static char text[1024];

    while (!where_ask(&t->where))
        usleep(100); /* it has not begun */
    while (!where_has_answered(&t->where))
        usleep(100);
    where_describe(&t->where, text, sizeof(text));
    return text;
}

static __attribute__((noinline)) ssize_t waits_for_a_byte(int fd)
{
    char byte;
    volatile ssize_t n = read(fd, &byte, 1); /* volatile: it is no jump, but a call */

    return n;
}

static __attribute__((noinline)) ssize_t calls_who_waits(int fd)
{
    volatile ssize_t n = waits_for_a_byte(fd);

    return n;
}

static void *wait(void *opaque)
{
    struct thread *t = opaque;

    where_begin(&t->where);
    calls_who_waits(t->wait_fd);
    where_end(&t->where);
    return NULL;
}

static void test_waiting(void **unused)
{
    static struct thread t;
    const char *inner, *outer;
    pthread_t thread;
    int ends[2];

    assert_false(where_ask(&t.where));
    assert_int_equal(pipe(ends), 0);
    t.wait_fd = ends[0];
    assert_int_equal(pthread_create(&thread, NULL, wait, &t), 0);
    /* It may still be on its way there. */
    do {
        inner = strstr(ask(&t), "waits_for_a_byte");
    } while (!inner);
    outer = strstr(inner, "calls_who_waits");
    assert_non_null(outer);
    assert_int_equal(write(ends[1], "x", 1), 1);
    pthread_join(thread, NULL);
    assert_false(where_ask(&t.where));
    close(ends[0]);
    close(ends[1]);
}

/* Spins with an RSP and an FS that lead nowhere, as in translated code. */
static void *spin(void *opaque)
{
    const stack_t stack = {.ss_sp = malloc(64 * 1024), .ss_size = 64 * 1024},
                  none = {.ss_flags = SS_DISABLE};
    struct thread *t = opaque;
    unsigned long fs = 0;

    sigaltstack(&stack, NULL);
    where_begin(&t->where);
    syscall(SYS_arch_prctl, ARCH_GET_FS, &fs);
    asm volatile("mov %%rsp, %%r12\n\t"
                 "mov $158, %%eax\n\t"    /* arch_prctl */
                 "mov $0x1002, %%edi\n\t" /* ARCH_SET_FS */
                 "mov $0x1000, %%esi\n\t"
                 "syscall\n\t"
                 "movabs $0x5A5A5A5A5A5A5A5A, %%rsp\n"
                 "1:\n\t"
                 "pause\n\t"
                 "cmpl $0, (%[release])\n\t"
                 "je 1b\n\t"
                 "mov %%r12, %%rsp\n\t"
                 "mov $158, %%eax\n\t"
                 "mov $0x1002, %%edi\n\t"
                 "mov %[fs], %%rsi\n\t"
                 "syscall"
                 :
                 : [release] "r"(&t->release), [fs] "r"(fs)
                 : "rax", "rcx", "rdx", "rsi", "rdi", "r11", "r12", "cc", "memory");
    where_end(&t->where);
    sigaltstack(&none, NULL);
    free(stack.ss_sp);
    return NULL;
}

static void test_foreign_registers(void **unused)
{
    static struct thread t;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, spin, &t), 0);
    do
        ask(&t);
    while (t.where.words > 0); /* not there yet */
    assert_string_equal(ask(&t), "spin");
    atomic_store(&t.release, 1);
    pthread_join(thread, NULL);
}

/* Sends T the signal that where_ask sends, as any process of the same user could. */
static void forge(struct thread *t, void *pointer)
{
    siginfo_t info = {.si_signo = WHERE_SIGNAL,
                      .si_errno = 0x3F3F3F3F, /* as in where.c */
                      .si_code = SI_QUEUE,
                      .si_pid = getpid()};

    info.si_value.sival_ptr = pointer;
    assert_int_equal(syscall(SYS_rt_tgsigqueueinfo, getpid(), atomic_load(&t->where.thread),
                             WHERE_SIGNAL, &info),
                     0);
}

/* What the signal carries leads nowhere: the thread writes into its own struct where, and only when
 * it has been asked. */
static void test_forged(void **unused)
{
    static struct thread t;
    static struct where decoy, untouched;
    pthread_t thread;
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    t.wait_fd = ends[0];
    assert_int_equal(pthread_create(&thread, NULL, wait, &t), 0);
    ask(&t);
    t.where.counter = 0x1234;
    decoy.turn = untouched.turn = WHERE_ASKED;
    forge(&t, &decoy);
    forge(&t, NULL);
    forge(&t, (void *)0x123000);
    /* It has taken them when it has answered a question of ours, which comes after them. */
    assert_int_equal(t.where.counter, 0x1234);
    ask(&t);
    assert_int_not_equal(t.where.counter, 0x1234);
    assert_memory_equal(&decoy, &untouched, sizeof(decoy));
    assert_int_equal(write(ends[1], "x", 1), 1);
    pthread_join(thread, NULL);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_waiting),
                                       cmocka_unit_test(test_foreign_registers),
                                       cmocka_unit_test(test_forged)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
