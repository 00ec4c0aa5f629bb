/*
 * Where a VM's threads are: for one that does not come to its end.
 */
#include "base/time.h"
#include "base/util.h"
#include "vm/vm_private.h"

#include <stdio.h>

/* A thread that is asked answers at once, or not at all. */
#define ANSWER_MS 300

/* A thread that was asked, and what it is called. */
struct asked {
    const struct where *where;
    char name[80];
};

struct inquiry {
    struct asked asked[VM_MAX_CPUS + 1 + VM_WORKERS];
    unsigned count;
};

/* Asks a thread, if it is there, and returns where to write its name. */
static char *ask(struct inquiry *inquiry, struct where *where)
{
    struct asked *asked = &inquiry->asked[inquiry->count];

    if (!where_ask(where))
        return NULL;
    asked->where = where;
    inquiry->count++;
    return asked->name;
}

static void ask_all(struct vm *vm, struct inquiry *inquiry)
{
    struct where *where;
    char *name;

    for (unsigned i = 0; i < vm->cpus; i++) {
        name = ask(inquiry, &vm->cpu[i].where);
        if (name)
            snprintf(name, sizeof(inquiry->asked->name), "vCPU %u, guest near %llx", i,
                     (unsigned long long)vm->engine->ops->rip(vm->cpu[i].vcpu));
    }
    name = vm->loop ? ask(inquiry, loop_where(vm->loop)) : NULL;
    if (name)
        snprintf(name, sizeof(inquiry->asked->name), "event loop");
    for (unsigned i = 0; vm->workers && (where = workers_where(vm->workers, i)); i++) {
        name = ask(inquiry, where);
        if (name)
            snprintf(name, sizeof(inquiry->asked->name), "worker %u", i);
    }
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
