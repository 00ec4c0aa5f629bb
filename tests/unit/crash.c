/*
 * The last word of a process that a signal kills: sent to its supervisor from wherever the thread
 * is.
 */
#include "test.h"

#include "base/error.h"
#include "cli/crash.h"

#include <asm/prctl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOWHERE 0x123000

/* What came of a process: its last word, and that in words. */
struct death {
    pid_t process;
    struct message note;
    char text[1024];
};

/* Has a new process execute RUN, watched, and checks that SIGNAL_NUMBER ends it. */
static void die(void (*run)(void), int signal_number, struct death *death)
{
    struct channel supervisor, vm;
    bool gone = false;
    int status = 0;

    assert_int_equal(channel_open(&supervisor, &vm, NULL), 0);
    death->process = fork();
    if (death->process == 0) {
        channel_close(&supervisor);
        /* Whatever handlers a sanitizer has, the default comes after ours. */
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        signal(SIGTRAP, SIG_DFL);
        signal(SIGSYS, SIG_DFL);
        crash_watch(&vm);
        run();
        _exit(0);
    }
    channel_close(&vm);
    assert_int_equal(waitpid(death->process, &status, 0), death->process);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), signal_number);
    assert_true(channel_receive(supervisor.notes, &death->note, &gone));
    channel_close(&supervisor);
    assert_int_equal(death->note.kind, NOTE_CRASH);
    assert_int_equal(death->note.crash.signal, signal_number);
    crash_describe(&death->note, death->process, death->text, sizeof(death->text));
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
    struct death death;

    die(calls_the_reader, SIGSEGV, &death);
    assert_int_equal(death.note.crash.address, NOWHERE);
    assert_non_null(strstr(death.text, "at address 0x123000; the thread was in reads_nowhere < "));
    assert_non_null(strstr(death.text, "calls_the_reader"));
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
    struct death death;

    die(faults_without_stack, SIGSEGV, &death);
    assert_int_equal(death.note.crash.address, NOWHERE);
    assert_int_equal(death.note.crash.words, 0);
    assert_non_null(strstr(death.text, "the thread was in faults_without_stack"));
}

static void test_abort(void **unused)
{
    struct death death;

    die(abort, SIGABRT, &death);
    assert_non_null(strstr(death.text, "raised by itself, in "));
}

static __attribute__((noinline)) void meets_a_breakpoint(void)
{
    asm volatile("int3");
}

/* The filter has getppid trapped. */
static __attribute__((noinline)) void calls_what_is_trapped(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
        _exit(1);
    syscall(SYS_getppid);
}

/* A trap, and a system call that was trapped, do not come again when the handler returns, but end
 * the process all the same. */
static void test_traps(void **unused)
{
    struct death death;

    die(meets_a_breakpoint, SIGTRAP, &death);
    assert_non_null(strstr(death.text, "the thread was in meets_a_breakpoint"));
    die(calls_what_is_trapped, SIGSYS, &death);
    assert_non_null(strstr(death.text, "calls_what_is_trapped"));
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
    struct death death;

    die(sends_it, SIGSEGV, &death);
    assert_int_not_equal(death.note.crash.sender, death.process);
    assert_non_null(strstr(death.text, "sent by process "));
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
        cmocka_unit_test(test_nonsense), cmocka_unit_test(test_traps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
