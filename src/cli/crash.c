/*
 * The last word of a process that a signal is about to kill.
 *
 * Handlers belong to the process, and so does what is static here.
 */
#include "cli/crash.h"

#include "base/raw_syscall.h"
#include "base/signals.h"
#include "base/util.h"
#include "base/where.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <ucontext.h>

static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS};

/* Set before there are threads, and not changed afterwards. */
static struct {
    int fd;
    struct sigaction before[ARRAY_SIZE(fatal)];
} watch;

/* The beginning of a NOTE_CRASH. The stack behind it comes from where it is: the handler's own may
 * be small. */
struct head {
    uint32_t kind;
    int32_t value;
    struct crash crash;
};
_Static_assert(offsetof(struct head, crash) == offsetof(struct message, crash) &&
                   sizeof(struct head) == offsetof(struct message, stack),
               "a head and a stack make a message");

/* The kernel copies the stack, or refuses to: RSP may be the guest's. */
SIGNALS_SAFE static void send_note(struct head *head, uint64_t stack)
{
    struct iovec parts[2];
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    long sent = -EFAULT;

    parts[0].iov_base = head;
    parts[0].iov_len = sizeof(*head);
    parts[1].iov_base = (void *)stack;
    for (head->crash.words = CHANNEL_STACK; sent == -EFAULT; head->crash.words /= 2) {
        parts[1].iov_len = head->crash.words * sizeof(uint64_t);
        sent = raw_syscall(SYS_sendmsg, watch.fd, (long)&message, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0,
                           0);
        if (!head->crash.words)
            return;
    }
}

/* What the kernel takes in place of the C library's struct sigaction, whose function needs the C
 * library's thread. */
struct kernel_action {
    void (*handler)(int number, siginfo_t *info, void *context);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

SIGNALS_SAFE static void restore(int number, const struct sigaction *before)
{
    const struct kernel_action action = {.handler = before->sa_sigaction,
                                         .flags = (unsigned long)before->sa_flags,
                                         .restorer = before->sa_restorer};

    raw_syscall(SYS_rt_sigaction, number, (long)&action, 0, sizeof(action.mask), 0, 0);
}

SIGNALS_SAFE static void on_fatal(int number, siginfo_t *info, void *context)
{
    const greg_t *gregs = ((const ucontext_t *)context)->uc_mcontext.gregs;
    bool fault = info->si_code > 0;
    struct head head = {
        .kind = NOTE_CRASH,
        .crash = {.signal = number,
                  .code = info->si_code,
                  .sender = fault ? 0 : info->si_pid,
                  .address = fault ? (uint64_t)info->si_addr : 0,
                  .counter = (uint64_t)gregs[REG_RIP]},
    };

    send_note(&head, ALIGN_UP((uint64_t)gregs[REG_RSP], sizeof(uint64_t)));
    for (unsigned i = 0; i < ARRAY_SIZE(fatal); i++)
        if (fatal[i] == number)
            restore(number, &watch.before[i]);
    /* A fault comes again when this returns. What a process has sent does not, nor do a trap and a
     * system call that was trapped. */
    if (!fault || number == SIGTRAP || number == SIGSYS)
        raw_syscall(SYS_tgkill, raw_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0),
                    raw_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0), number, 0, 0, 0);
}

void crash_watch(const struct channel *channel)
{
    struct sigaction action = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    watch.fd = channel->notes;
    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < ARRAY_SIZE(fatal); i++)
        sigaction(fatal[i], &action, &watch.before[i]);
}

void crash_describe(const struct message *note, pid_t vm, char *text, size_t size)
{
    const struct crash *crash = &note->crash;
    struct where where = {.counter = crash->counter, .words = MIN(crash->words, CHANNEL_STACK)};
    size_t length;

    memcpy(where.word, note->stack, where.words * sizeof(where.word[0]));
    if (crash->code > 0)
        length = (size_t)snprintf(text, size, "at address %#llx; the thread was in ",
                                  (unsigned long long)crash->address);
    else if (crash->sender == vm)
        length = (size_t)snprintf(text, size, "raised by itself, in ");
    else
        length = (size_t)snprintf(text, size, "sent by process %d; the thread that got it was in ",
                                  crash->sender);
    if (length < size)
        where_describe(&where, text + length, size - length);
}
