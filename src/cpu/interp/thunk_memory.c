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
#define PLACES     (CODE_SIZE / ALIGNMENT) /* there are never more thunks */

/* Where one thunk lies; offsets from the start of the code. */
struct thunk_place {
    uint32_t start, insn, tail, leave;
};

struct thunk_memory {
    struct code_memory code;
    uint32_t used;              /* bytes of code */
    struct thunk_place *places; /* by rising start */
    _Atomic uint32_t count;     /* of places; stored after a place is complete */
};

struct thunk_memory *thunk_memory_create(struct error *err)
{
    struct thunk_memory *memory = calloc(1, sizeof(*memory));
    void *places;

    if (!memory) {
        error_set(err, ENOMEM, "out of memory for thunks");
        return NULL;
    }
    if (code_memory_create(&memory->code, "doppel-thunks", CODE_SIZE, CODE_LEAST, err) < 0) {
        free(memory);
        return NULL;
    }
    places = mmap(NULL, PLACES * sizeof(struct thunk_place), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (places == MAP_FAILED) {
        error_set(err, errno, "cannot map memory for thunks: %s", strerror(errno));
        code_memory_destroy(&memory->code);
        free(memory);
        return NULL;
    }
    memory->places = places;
    return memory;
}

void thunk_memory_destroy(struct thunk_memory *memory)
{
    if (!memory)
        return;
    code_memory_destroy(&memory->code);
    munmap(memory->places, PLACES * sizeof(struct thunk_place));
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
    memory->places[count] = (struct thunk_place){
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
    const struct thunk_place *place;

    if (offset >= CODE_SIZE || high == 0)
        return 0;
    while (high - low > 1) { /* places[low].start <= offset, and all from high on are beyond it */
        uint32_t middle = low + (high - low) / 2;

        if (memory->places[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    place = &memory->places[low];
    return (uintptr_t)memory->code.run + (offset == place->insn ? place->tail : place->leave);
}
