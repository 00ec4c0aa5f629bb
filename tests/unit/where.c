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
    while (!atomic_load(&t->where.answered))
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_waiting),
                                       cmocka_unit_test(test_foreign_registers)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
