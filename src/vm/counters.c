/*
 * What the engines have counted: summed over vCPUs, and over the engines that the machine has had.
 */
#include "vm/vm_private.h"

#include <stdlib.h>
#include <string.h>

static struct engine_counter *find_sum(struct vm_sums *s, const struct engine_counter *counter)
{
    for (unsigned i = 0; i < s->count; i++)
        if (!strcmp(s->sum[i].name, counter->name) && !strcmp(s->sum[i].group, counter->group))
            return &s->sum[i];
    return NULL;
}

void vm_sums_add(void *sums, const struct engine_counter *counter)
{
    struct vm_sums *s = sums;
    struct engine_counter *sum = find_sum(s, counter);

    if (sum) {
        sum->count += counter->count;
        sum->ns += counter->ns;
        return;
    }
    if (s->count == s->room) {
        unsigned room = s->room ? s->room * 2 : 64;
        struct engine_counter *larger = realloc(s->sum, room * sizeof(*larger));

        if (!larger) {
            s->incomplete = true;
            return;
        }
        s->sum = larger;
        s->room = room;
    }
    s->sum[s->count++] = *counter;
}

void vm_sums_collect(struct vm *vm, struct vm_sums *sums)
{
    pthread_mutex_lock(&vm->engines);
    for (unsigned i = 0; i < vm->past.count; i++)
        vm_sums_add(sums, &vm->past.sum[i]);
    for (unsigned i = 0; i < vm->cpus; i++)
        vm->engine->ops->counters(vm->cpu[i].vcpu, vm_sums_add, sums);
    pthread_mutex_unlock(&vm->engines);
}

void vm_sums_free(struct vm_sums *sums)
{
    free(sums->sum);
    *sums = (struct vm_sums){0};
}

void vm_counters(struct vm *vm, engine_counter_fn *each, void *opaque)
{
    struct vm_sums sums = {0};

    vm_sums_collect(vm, &sums);
    for (unsigned i = 0; i < vm->cpus; i++)
        vm_sums_add(&sums, &(struct engine_counter){.group = "exits",
                                                    .name = exit_cause_name[CAUSE_HALT],
                                                    .ns = counter_read(&vm->cpu[i].halted_ns)});
    for (unsigned i = 0; i < sums.count; i++)
        each(opaque, &sums.sum[i]);
    vm_sums_free(&sums);
}
