/*
 * What `doppel run --trace exits` prints.
 */
#include "cli/trace.h"

#include "cli/cli.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define COLUMN 44

struct trace {
    FILE *to;
    const char *path;
    unsigned long limit, printed;
    struct doppel_vm *vm;
    pthread_mutex_t lock;
};

struct trace *trace_create(const char *path, unsigned lines)
{
    struct trace *t = calloc(1, sizeof(*t));

    if (!t) {
        complain("out of memory");
        return NULL;
    }
    t->path = path;
    t->limit = lines;
    t->to = path ? fopen(path, "we") : stderr;
    if (!t->to) {
        complain("--trace: cannot open %s: %m", path);
        free(t);
        return NULL;
    }
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

/* On the threads of the vCPUs. */
static void print_step(void *opaque, const struct doppel_step *step)
{
    struct trace *t = opaque;
    int indent = step->actor == DOPPEL_PROCESS  ? 0
                 : step->actor == DOPPEL_KERNEL ? COLUMN
                                                : 2 * COLUMN;

    pthread_mutex_lock(&t->lock);
    if (!t->limit || t->printed < t->limit)
        fprintf(t->to, "%11.2f %3u  %*s%s\n", (double)step->ns / 1e3, step->cpu, indent, "",
                step->text);
    if (++t->printed == t->limit) {
        fprintf(t->to, "# that was line %lu, the last one asked for\n", t->limit);
        doppel_trace(t->vm, false);
    }
    pthread_mutex_unlock(&t->lock);
}

void trace_plug(struct trace *t, struct doppel_config *config)
{
    config->trace = print_step;
    config->trace_opaque = t;
}

void trace_begin(struct trace *t, struct doppel_vm *vm)
{
    if (!t || t->vm)
        return;
    t->vm = vm;
    fprintf(t->to, "#   time/us cpu  %-*s%-*s%s\n", COLUMN, "process", COLUMN, "guest's kernel",
            "monitor");
    doppel_trace(vm, true);
}

void trace_end(struct trace *t, struct doppel_vm *vm)
{
    if (t)
        doppel_trace(vm, false);
}

bool trace_destroy(struct trace *t)
{
    bool whole = true;

    if (!t)
        return true;
    if (t->to != stderr) {
        whole = !ferror(t->to);
        whole &= fclose(t->to) == 0;
        if (!whole)
            complain("--trace: cannot write %s", t->path);
    }
    pthread_mutex_destroy(&t->lock);
    free(t);
    return whole;
}
