/*
 * The memory that holds thunks, and where each of them lies.
 */
#include "cpu/interp/thunk_impl.h"

#include "base/util.h"
#include "cpu/core/code_memory.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CODE_SIZE  (32 * MiB)
#define CODE_LEAST (64 * KiB) /* without which no machine begins */
#define ALIGNMENT  16
#define SPANS      (CODE_SIZE / ALIGNMENT) /* always enough */

/* Where one thunk lies; offsets from the start of the code. */
struct span {
    uint32_t start, insn, tail, leave;
};

struct thunk_memory {
    struct code_memory code;
    uint32_t used;          /* bytes of code */
    struct span *spans;     /* by rising start */
    _Atomic uint32_t count; /* of spans; stored after the span is complete */
};

struct thunk_memory *thunk_memory_create(struct error *err)
{
    struct thunk_memory *memory = calloc(1, sizeof(*memory));
    void *spans;

    if (!memory) {
        error_set(err, ENOMEM, "out of memory for thunks");
        return NULL;
    }
    if (code_memory_create(&memory->code, "doppel-thunks", CODE_SIZE, CODE_LEAST, err) < 0) {
        free(memory);
        return NULL;
    }
    spans = mmap(NULL, SPANS * sizeof(struct span), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (spans == MAP_FAILED) {
        error_set(err, errno, "cannot map memory for thunks: %s", strerror(errno));
        code_memory_destroy(&memory->code);
        free(memory);
        return NULL;
    }
    memory->spans = spans;
    return memory;
}

void thunk_memory_destroy(struct thunk_memory *memory)
{
    if (!memory)
        return;
    code_memory_destroy(&memory->code);
    munmap(memory->spans, SPANS * sizeof(struct span));
    free(memory);
}

thunk_fn *thunk_memory_add(struct thunk_memory *memory, const struct thunk_code *code)
{
    uint32_t start = memory->used;
    uint32_t count = atomic_load_explicit(&memory->count, memory_order_relaxed);
    const void *entry = memory->code.run + start;
    thunk_fn *fn;

    if (code->size > CODE_SIZE - start ||
        code_memory_provide(&memory->code, start + code->size) < start + code->size)
        return NULL;
    memcpy(memory->code.write + start, code->bytes, code->size);
    memory->spans[count] = (struct span){
        .start = start,
        .insn = start + code->insn,
        .tail = start + code->tail,
        .leave = start + code->leave,
    };
    atomic_store_explicit(&memory->count, count + 1, memory_order_release);
    memory->used = MIN(ALIGN_UP(start + code->size, ALIGNMENT), CODE_SIZE);
    memcpy(&fn, &entry, sizeof(fn)); /* C has no cast from object to function pointers */
    return fn;
}

void thunk_memory_clear(struct thunk_memory *memory)
{
    atomic_store_explicit(&memory->count, 0, memory_order_release);
    memory->used = 0;
}

void thunk_memory_range(const struct thunk_memory *memory, uintptr_t *start, uintptr_t *end)
{
    *start = (uintptr_t)memory->code.run;
    *end = *start + CODE_SIZE;
}

SIGNALS_SAFE uintptr_t thunk_memory_landing(const struct thunk_memory *memory, uintptr_t rip)
{
    uintptr_t offset = rip - (uintptr_t)memory->code.run;
    uint32_t low = 0, high = atomic_load_explicit(&memory->count, memory_order_acquire);
    const struct span *span;

    if (offset >= CODE_SIZE || high == 0)
        return 0;
    while (high - low > 1) { /* spans[low].start <= offset, and all from high on are beyond it */
        uint32_t middle = low + (high - low) / 2;

        if (memory->spans[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    span = &memory->spans[low];
    return (uintptr_t)memory->code.run + (offset == span->insn ? span->tail : span->leave);
}
