/*
 * The last word of a process that a signal kills: sent to its supervisor from wherever the thread
 * is.
 */
#include "test.h"

#include "base/error.h"
#include "cli/crash.h"

#include <asm/prctl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOWHERE 0x123000

/* Has a new process execute RUN, watched, and returns by which signal that ended. NOTE is zero if
 * none came. */
static int last_word(void (*run)(void), struct message *note, pid_t *process)
{
    struct channel supervisor, vm;
    bool gone = false;
    int status = 0;

    assert_int_equal(channel_open(&supervisor, &vm, NULL), 0);
    *process = fork();
    if (*process == 0) {
        channel_close(&supervisor);
        /* Whatever handlers a sanitizer has, the default comes after ours. */
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        crash_watch(&vm);
        run();
        _exit(0);
    }
    channel_close(&vm);
    assert_int_equal(waitpid(*process, &status, 0), *process);
    channel_receive(supervisor.notes, note, &gone);
    channel_close(&supervisor);
    assert_true(WIFSIGNALED(status));
    return WTERMSIG(status);
}

static __attribute__((noinline, no_sanitize("address", "undefined"))) void reads_nowhere(void)
{
    volatile const int *nowhere = (const int *)NOWHERE;

    (void)*nowhere;
}

static __attribute__((noinline)) void calls_the_reader(void)
{
    reads_nowhere();
    asm volatile(""); /* no jump, but a call */
}

static void test_fault(void **unused)
{
    struct message note;
    char text[1024];
    pid_t process;

    assert_int_equal(last_word(calls_the_reader, &note, &process), SIGSEGV);
    assert_int_equal(note.kind, NOTE_CRASH);
    assert_int_equal(note.crash.signal, SIGSEGV);
    assert_int_equal(note.crash.address, NOWHERE);
    crash_describe(&note, process, text, sizeof(text));
    assert_non_null(strstr(text, "at address 0x123000; the thread was in reads_nowhere < "));
    assert_non_null(strstr(text, "calls_the_reader"));
}

/* As translated code faults: FS leads to no thread-local storage, and RSP to no stack. */
static __attribute__((noinline, no_stack_protector, no_sanitize("address", "undefined"))) void
faults_without_stack(void)
{
    static char own_stack[64 * 1024], no_storage[4096];
    stack_t stack = {.ss_sp = own_stack, .ss_size = sizeof(own_stack)};

    sigaltstack(&stack, NULL);
    asm volatile("syscall\n\t"
                 "mov $0x1000, %%rsp\n\t"
                 "mov %0, %%ebx\n\t"
                 "mov (%%rbx), %%eax\n\t"
                 "ud2"
                 :
                 : "i"(NOWHERE), "a"(SYS_arch_prctl), "D"(ARCH_SET_FS),
                   "S"(no_storage + sizeof(no_storage) / 2));
}

static void test_without_stack(void **unused)
{
    struct message note;
    char text[1024];
    pid_t process;

    assert_int_equal(last_word(faults_without_stack, &note, &process), SIGSEGV);
    assert_int_equal(note.kind, NOTE_CRASH);
    assert_int_equal(note.crash.address, NOWHERE);
    assert_int_equal(note.crash.words, 0);
    crash_describe(&note, process, text, sizeof(text));
    assert_non_null(strstr(text, "the thread was in faults_without_stack"));
}

static void test_abort(void **unused)
{
    struct message note;
    char text[1024];
    pid_t process;

    assert_int_equal(last_word(abort, &note, &process), SIGABRT);
    assert_int_equal(note.kind, NOTE_CRASH);
    crash_describe(&note, process, text, sizeof(text));
    assert_int_equal(strncmp(text, "raised by itself, in ", 21), 0);
}

/* A signal from another process, which the handler has to send once more. */
static void sends_it(void)
{
    pid_t itself = getpid(), child = fork();

    if (child == 0) {
        kill(itself, SIGSEGV);
        _exit(0);
    }
    for (;;)
        pause();
}

static void test_sent(void **unused)
{
    struct message note;
    char text[1024];
    pid_t process;

    assert_int_equal(last_word(sends_it, &note, &process), SIGSEGV);
    assert_int_equal(note.kind, NOTE_CRASH);
    assert_int_not_equal(note.crash.sender, process);
    crash_describe(&note, process, text, sizeof(text));
    assert_int_equal(strncmp(text, "sent by process ", 16), 0);
}

/* Whatever the other side sends, describing it ends. */
static void test_nonsense(void **unused)
{
    struct message note;
    char text[64];

    memset(&note, 0xFF, sizeof(note));
    crash_describe(&note, 1, text, sizeof(text));
    assert_true(strlen(text) < sizeof(text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fault),    cmocka_unit_test(test_without_stack),
        cmocka_unit_test(test_abort),    cmocka_unit_test(test_sent),
        cmocka_unit_test(test_nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
