/*
 * Where a VM's threads are: for one that does not come to its end.
 */
#include "base/time.h"
#include "base/util.h"
#include "mem/change.h"
#include "vm/vm_private.h"

#include <stdarg.h>
#include <stdio.h>

/* A thread that is asked answers at once, or not at all. */
#define ANSWER_MS 300
/* Of the threads of disks and of shared folders, which may be many, the first ones are asked. */
#define DISK_THREADS    64
#define SHARE_THREADS   64
#define NETWORK_THREADS 32

/* A thread that was asked, and what it is called. */
struct asked {
    const struct where *where;
    char name[80];
};

struct inquiry {
    struct asked
        asked[VM_MAX_CPUS + VM_WORKERS + 2 + DISK_THREADS + SHARE_THREADS + NETWORK_THREADS];
    unsigned count;
};

/* Asks a thread if it is there. The rest makes its name. */
__attribute__((format(printf, 3, 4))) static void ask(struct inquiry *inquiry, struct where *where,
                                                      const char *format, ...)
{
    struct asked *asked = &inquiry->asked[inquiry->count];
    va_list ap;

    if (!where_ask(where))
        return;
    asked->where = where;
    va_start(ap, format);
    vsnprintf(asked->name, sizeof(asked->name), format, ap);
    va_end(ap);
    inquiry->count++;
}

static void ask_disks(struct vm *vm, struct inquiry *inquiry)
{
    unsigned left = DISK_THREADS;
    struct where *where;

    for (unsigned disk = 0; board_disk_where(vm->board, disk, 0); disk++)
        for (unsigned n = 0; left > 0 && (where = board_disk_where(vm->board, disk, n));
             n++, left--)
            ask(inquiry, where, "disk %u, thread %u", disk, n);
}

static void ask_shares(struct vm *vm, struct inquiry *inquiry)
{
    unsigned left = SHARE_THREADS;
    struct where *where;

    for (unsigned share = 0; board_share_where(vm->board, share, 0); share++)
        for (unsigned n = 0; left > 0 && (where = board_share_where(vm->board, share, n));
             n++, left--)
            ask(inquiry, where, "shared folder %u, thread %u", share, n);
}

static void ask_networks(struct vm *vm, struct inquiry *inquiry)
{
    unsigned left = NETWORK_THREADS;
    struct where *where;

    for (unsigned nic = 0; board_network_where(vm->board, nic, 0); nic++)
        for (unsigned n = 0; left > 0 && (where = board_network_where(vm->board, nic, n));
             n++, left--)
            ask(inquiry, where, "network %u, thread %u", nic, n);
}

static void ask_all(struct vm *vm, struct inquiry *inquiry)
{
    struct where *where;

    for (unsigned i = 0; i < vm->cpus; i++)
        ask(inquiry, &vm->cpu[i].where, "vCPU %u, guest near %llx", i,
            (unsigned long long)vm->engine->ops->rip(vm->cpu[i].vcpu));
    if (vm->loop)
        ask(inquiry, loop_where(vm->loop), "event loop");
    for (unsigned i = 0; vm->workers && (where = workers_where(vm->workers, i)); i++)
        ask(inquiry, where, "worker %u", i);
    if (vm->board) {
        ask_disks(vm, inquiry);
        ask_shares(vm, inquiry);
    }
    if (vm->board)
        ask_networks(vm, inquiry);
    if (vm->machine.mem)
        ask(inquiry, mem_where(vm->machine.mem), "memory manager");
}

static bool all_answered(const struct inquiry *inquiry)
{
    for (unsigned i = 0; i < inquiry->count; i++)
        if (!where_has_answered(inquiry->asked[i].where))
            return false;
    return true;
}

static void describe(const struct asked *asked, void (*line)(void *opaque, const char *text),
                     void *opaque)
{
    char functions[640], text[768];

    if (where_has_answered(asked->where))
        where_describe(asked->where, functions, sizeof(functions));
    else
        snprintf(functions, sizeof(functions), "does not answer");
    snprintf(text, sizeof(text), "%s: %s", asked->name, functions);
    line(opaque, text);
}

void vm_where(struct vm *vm, void (*line)(void *opaque, const char *text), void *opaque)
{
    struct inquiry inquiry = {.count = 0};

    pthread_mutex_lock(&vm->asking);
    ask_all(vm, &inquiry);
    for (unsigned ms = 0; ms < ANSWER_MS && !all_answered(&inquiry); ms++)
        time_sleep_ns(NS_PER_MS);
    for (unsigned i = 0; i < inquiry.count; i++)
        describe(&inquiry.asked[i], line, opaque);
    pthread_mutex_unlock(&vm->asking);
}
