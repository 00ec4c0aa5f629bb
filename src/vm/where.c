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
/* Of the threads of disks, shared folders and networks, which may be many, the first ones are
 * asked. */
#define DEVICE_THREADS 64

/* A thread that was asked, and what it is called. */
struct asked {
    const struct where *where;
    char name[80];
};

struct inquiry {
    struct asked asked[VM_MAX_CPUS + VM_WORKERS + 2 + 3 * DEVICE_THREADS];
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

/* Asks the threads of all devices of one kind, which WHERE_OF knows by the device's number and its
 * own. */
static void ask_devices(struct vm *vm, struct inquiry *inquiry, const char *kind,
                        struct where *(*where_of)(struct board *board, unsigned device, unsigned n))
{
    unsigned left = DEVICE_THREADS;
    struct where *where;

    for (unsigned device = 0; where_of(vm->board, device, 0); device++)
        for (unsigned n = 0; left > 0 && (where = where_of(vm->board, device, n)); n++, left--)
            ask(inquiry, where, "%s %u, thread %u", kind, device, n);
}

static uint64_t guest_rip(struct vm *vm, unsigned cpu)
{
    uint64_t rip;

    pthread_mutex_lock(&vm->engines);
    rip = vm->engine->ops->rip(vm->cpu[cpu].vcpu);
    pthread_mutex_unlock(&vm->engines);
    return rip;
}

static void ask_all(struct vm *vm, struct inquiry *inquiry)
{
    struct where *where;

    for (unsigned i = 0; i < vm->cpus; i++)
        ask(inquiry, &vm->cpu[i].where, "vCPU %u, guest near %llx", i,
            (unsigned long long)guest_rip(vm, i));
    if (vm->loop)
        ask(inquiry, loop_where(vm->loop), "event loop");
    for (unsigned i = 0; vm->workers && (where = workers_where(vm->workers, i)); i++)
        ask(inquiry, where, "worker %u", i);
    if (vm->board) {
        ask_devices(vm, inquiry, "disk", board_disk_where);
        ask_devices(vm, inquiry, "shared folder", board_share_where);
        ask_devices(vm, inquiry, "network", board_network_where);
    }
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
