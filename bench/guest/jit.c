/*
 * Tests with freshly written code, as just-in-time compilers have it.
 */
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

#define PAGE     4096u
#define ARENA    (64u << 10)
#define SLOT     64u
#define IMM      1u /* where the function's immediate operand is */
#define CALLS    8u /* of each function while it is as it is */
#define WRITABLE (PROT_READ | PROT_WRITE)
#define BLOCKS   100u
#define RUNS     1000u /* of each version of a chain */

typedef uint32_t function(uint32_t);

static uint8_t *arena;

/* mov $IMM, %eax; 1: add %edi, %eax; rol $3, %eax; dec %edi; jns 1b; ret */
static const uint8_t body[] = {0xB8, 0,    0,    0,    0,    0x01, 0xF8, 0xC1,
                               0xC0, 0x03, 0xFF, 0xCF, 0x79, 0xF7, 0xC3};

static void make_arena(void)
{
    arena = mmap(NULL, ARENA, WRITABLE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(arena != MAP_FAILED);
}

static void patch(uint8_t *at, uint32_t immediate)
{
    memcpy(at + IMM, &immediate, sizeof(immediate));
}

static void write_function(uint8_t *at, uint32_t immediate)
{
    memcpy(at, body, sizeof(body));
    patch(at, immediate);
}

static uint32_t call(const uint8_t *at)
{
    function *volatile f = (function *)(uintptr_t)at;
    uint32_t sum = 0;

    for (uint32_t i = 0; i < CALLS; i++)
        sum += f(i);
    return sum;
}

static void check(const uint8_t *at, uint32_t immediate)
{
    CHECK(((function *)(uintptr_t)at)(0) == (immediate << 3 | immediate >> 29));
}

/* One function after the other, over and over through the arena. */
static void write_anew(uint64_t ops)
{
    uint32_t sum = 0;

    for (uint64_t i = 0; i < ops; i++) {
        uint8_t *at = arena + i * SLOT % ARENA;

        write_function(at, (uint32_t)i);
        sum += call(at);
        if (i % 1024 == 0)
            check(at, (uint32_t)i);
    }
    sink = sum;
}

/* One function with an operand that changes: an inline cache. */
static void patch_operand(uint64_t ops)
{
    uint32_t sum = 0;

    write_function(arena, 0);
    for (uint64_t i = 0; i < ops; i++) {
        patch(arena, (uint32_t)i);
        sum += call(arena);
        if (i % 1024 == 0)
            check(arena, (uint32_t)i);
    }
    sink = sum;
}

/* Data beside code on one page. */
static void data_beside_code(uint64_t ops)
{
    uint32_t sum = 0;
    volatile uint64_t *data = (volatile uint64_t *)(void *)(arena + PAGE / 2);

    write_function(arena, 5);
    for (uint64_t i = 0; i < ops; i++) {
        *data += i;
        sum += call(arena);
    }
    check(arena, 5);
    sink = sum + *data;
}

/* Never writable and executable at once. */
static void write_xor_execute(uint64_t ops)
{
    uint32_t sum = 0;

    for (uint64_t i = 0; i < ops; i++) {
        uint8_t *page = arena + i * PAGE % ARENA;

        CHECK(!mprotect(page, PAGE, WRITABLE));
        write_function(page, (uint32_t)i);
        CHECK(!mprotect(page, PAGE, PROT_READ | PROT_EXEC));
        sum += call(page);
        check(page, (uint32_t)i);
    }
    sink = sum;
}

/* A chain of BLOCKS blocks, each of which adds to EAX; returns the sum. */
static uint32_t write_chain(uint8_t *at, uint32_t version)
{
    static const uint8_t clear[] = {0x31, 0xC0}; /* xor %eax, %eax */
    /* add $..., %eax; test %edi, %edi; js to what follows */
    static const uint8_t block[] = {0x05, 0, 0, 0, 0, 0x85, 0xFF, 0x78, 0x00};
    uint32_t sum = 0;

    memcpy(at, clear, sizeof(clear));
    at += sizeof(clear);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        memcpy(at, block, sizeof(block));
        patch(at, version + i);
        sum += version + i;
        at += sizeof(block);
    }
    *at = 0xC3; /* ret */
    return sum;
}

/* A page gets new code, at another place each time, which runs a while. */
static void rewrite_chain(uint64_t ops)
{
    for (uint32_t version = 0; ops > 0; version++) {
        uint8_t *at = arena + version % 64 * 16;
        uint32_t sum = write_chain(at, version);
        function *volatile f = (function *)(uintptr_t)at;

        for (unsigned i = 0; i < RUNS && ops > 0; i++, ops--)
            CHECK(f(1) == sum);
    }
}

const struct test jit_tests[] = {
    {"jit-write", "jit", "function, 8 calls", make_arena, write_anew, NULL, 0},
    {"jit-patch", "jit", "operand, 8 calls", make_arena, patch_operand, NULL, 0},
    {"jit-data", "jit", "write beside, 8 calls", make_arena, data_beside_code, NULL, 0},
    {"jit-chain", "jit", "100 blocks, a 1000 runs", make_arena, rewrite_chain, NULL, 0},
    {"jit-wx", "jit", "function, W^X, 9 calls", make_arena, write_xor_execute, NULL, 0},
    {0},
};
