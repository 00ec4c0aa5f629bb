/*
 * Event files that another process has, too.
 */
#include "base/event.h"

#include "base/util.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* A thread has at most one completion in the context, from event_signal's first call of the kernel
 * to the second. */
#define COMPLETIONS 32u
#define ATTEMPTS    8u

int event_sender_open(struct event_sender *sender, struct error *err)
{
    aio_context_t context = 0;

    *sender = EVENT_SENDER_CLOSED;
    sender->empty = memfd_create("empty", MFD_CLOEXEC);
    if (sender->empty < 0)
        return error_set(err, errno, "cannot make a memory file: %s", strerror(errno));
    if (syscall(SYS_io_setup, COMPLETIONS, &context) < 0) {
        int code = errno;

        event_sender_close(sender);
        return error_set(err, code, "cannot get a context for asynchronous events: %s%s",
                         strerror(code),
                         code == EAGAIN ? "; the limit is /proc/sys/fs/aio-max-nr" : "");
    }
    sender->context = context;
    return 0;
}

void event_sender_close(struct event_sender *sender)
{
    if (sender->context)
        syscall(SYS_io_destroy, sender->context);
    if (sender->empty >= 0)
        close(sender->empty);
    *sender = EVENT_SENDER_CLOSED;
}

/* Takes completions out of the context, those of other threads, too. */
static void drop_completions(struct event_sender *sender)
{
    struct io_event completions[COMPLETIONS];
    struct timespec none = {0, 0};

    syscall(SYS_io_getevents, sender->context, 0L, (long)COMPLETIONS, completions, &none);
}

int event_signal(struct event_sender *sender, int fd)
{
    char byte;
    struct iocb read = {.aio_lio_opcode = IOCB_CMD_PREAD,
                        .aio_fildes = (uint32_t)sender->empty,
                        .aio_buf = (uintptr_t)&byte,
                        .aio_nbytes = 1,
                        .aio_flags = IOCB_FLAG_RESFD,
                        .aio_resfd = (uint32_t)fd};
    struct iocb *list[] = {&read};
    int ret = -EAGAIN;

    for (unsigned i = 0; i < ATTEMPTS && ret == -EAGAIN; i++) {
        ret = syscall(SYS_io_submit, sender->context, 1L, list) < 0 ? -errno : 0;
        drop_completions(sender);
    }
    return ret;
}

bool event_clear(int fd)
{
    uint64_t count;
    struct iovec iov = {&count, sizeof(count)};

    return preadv2(fd, &iov, 1, -1, RWF_NOWAIT) == (ssize_t)sizeof(count);
}
