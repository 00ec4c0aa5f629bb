/*
 * Tests that compute: after the first touch of their memory they need nothing from the kernel.
 */
#include "bench.h"

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TABLE      4096u
#define VECTOR     4096u            /* floats: 16 KiB, in the first-level cache */
#define COPY       (4u << 20)       /* beyond the second-level cache */
#define SMALL_RING (16u << 10 >> 3) /* pointers: 16 KiB */
#define LARGE_RING (16u << 20 >> 3) /* 16 MiB: misses of cache and TLB */
#define VAST       (100u << 20)     /* beyond what any TLB reaches with small pages */
#define SORTED     1024u
#define NOINLINE   __attribute__((noinline))

static uint32_t table[TABLE];
static float vector_a[VECTOR] __attribute__((aligned(32)));
static float vector_b[VECTOR] __attribute__((aligned(32)));
static char *copy_from, *copy_to;
static void **ring;
static uint8_t *vast;

/* --- Integers ------------------------------------------------------------------------------ */

static void fill_table(void)
{
    uint64_t random = 88172645463325252u;

    for (unsigned i = 0; i < TABLE; i++)
        table[i] = (uint32_t)next_random(&random);
}

/* Four hashes at once with table look-ups and branches that are seldom taken, as most code has it:
 * neither one long chain nor hard to predict. */
static void integer(uint64_t ops)
{
    uint32_t hash[4] = {2166136261u, 374761393u, 668265263u, 2246822519u}, seldom = 0;

    for (uint64_t i = 0; i < ops; i++) {
        for (unsigned lane = 0; lane < 4; lane++) {
            uint32_t h = hash[lane] ^ table[(i * 4 + lane) % TABLE];

            h = (h << 13 | h >> 19) * 5 + 0xe6546b64u;
            if (h % 128 == lane)
                seldom += table[h / 128 % TABLE];
            hash[lane] = h ^ h >> 15;
        }
    }
    sink = hash[0] + hash[1] + hash[2] + hash[3] + seldom;
}

static void sieve(uint64_t ops)
{
    static uint8_t composite[32768];
    uint64_t primes = 0;

    while (ops-- > 0) {
        memset(composite, 0, sizeof(composite));
        for (unsigned i = 2; i < sizeof(composite); i++) {
            if (composite[i])
                continue;
            primes++;
            for (unsigned j = 2 * i; j < sizeof(composite); j += i)
                composite[j] = 1;
        }
    }
    sink = primes;
}

static void division(uint64_t ops)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < ops; i++) {
        uint64_t divisor = (i & 1023) + 3, x = i * 0x9e3779b97f4a7c15u;

        sum += x / divisor + (uint64_t)((int32_t)x % (int32_t)divisor);
    }
    sink = sum;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void sort(uint64_t ops)
{
    uint32_t copy[SORTED];

    while (ops-- > 0) {
        memcpy(copy, table, sizeof(copy));
        qsort(copy, SORTED, sizeof(copy[0]), compare);
        sink = copy[SORTED / 2];
    }
}

/* --- Calls --------------------------------------------------------------------------------- */

static NOINLINE uint64_t fibonacci(uint64_t n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static void calls(uint64_t ops)
{
    uint64_t sum = 0;

    while (ops-- > 0)
        sum += fibonacci(12);
    sink = sum;
}

static NOINLINE uint64_t call_add(uint64_t x)
{
    return x + 3;
}

static NOINLINE uint64_t call_xor(uint64_t x)
{
    return x ^ 0x55;
}

static NOINLINE uint64_t call_rotate(uint64_t x)
{
    return x << 7 | x >> 57;
}

static NOINLINE uint64_t call_multiply(uint64_t x)
{
    return x * 5;
}

static void indirect_calls(uint64_t ops)
{
    static uint64_t (*const volatile callee[])(uint64_t) = {
        call_add, call_xor, call_rotate, call_multiply, call_xor, call_rotate, call_add, call_xor,
    };
    uint64_t x = 1;

    for (uint64_t i = 0; i < ops; i++)
        x = callee[(i ^ x) & 7](x);
    sink = x;
}

/* An interpreter's loop: a jump table over a program that computes for a while. */
static void bytecode(uint64_t ops)
{
    enum { PUSH, ADD, MULTIPLY, SWAP, DUPLICATE, XOR, SHIFT, REPEAT };
    static const uint8_t program[] = {PUSH, DUPLICATE, ADD,  PUSH, MULTIPLY, DUPLICATE, SHIFT,
                                      XOR,  PUSH,      SWAP, ADD,  PUSH,     XOR,       REPEAT};
    uint64_t stack[8] = {1, 2, 3, 4}, top = 1, constant = 7;
    unsigned depth = 1, pc = 0;

    while (ops > 0) {
        switch (program[pc++]) {
        case PUSH:
            stack[depth++ & 7] = top;
            top = constant++;
            break;
        case ADD: top += stack[--depth & 7]; break;
        case MULTIPLY: top *= stack[--depth & 7]; break;
        case XOR: top ^= stack[--depth & 7]; break;
        case DUPLICATE: stack[depth++ & 7] = top; break;
        case SHIFT: top >>= 3; break;
        case SWAP: {
            uint64_t second = stack[(depth - 1) & 7];

            stack[(depth - 1) & 7] = top;
            top = second;
            break;
        }
        default:
            pc = 0;
            depth = 1;
            break;
        }
        ops--;
    }
    sink = top;
}

/* --- Floating point and vectors ------------------------------------------------------------ */

/* Five bodies of a planetary system, in scalar double precision. */
static void scalar_fp(uint64_t ops)
{
    static double p[5][3], v[5][3];
    static const double mass[5] = {39.5, 0.038, 0.011, 0.0017, 0.002};

    for (unsigned i = 0; i < 5; i++)
        for (unsigned k = 0; k < 3; k++) {
            p[i][k] = i * 3.1 + k * 0.7;
            v[i][k] = (k + 1) * 0.01 * i;
        }
    while (ops-- > 0) {
        for (unsigned i = 0; i < 5; i++)
            for (unsigned j = i + 1; j < 5; j++) {
                double x = p[i][0] - p[j][0], y = p[i][1] - p[j][1], z = p[i][2] - p[j][2];
                double square = x * x + y * y + z * z + 0.01;
                double pull = 0.001 / (square * sqrt(square));

                v[i][0] -= x * mass[j] * pull;
                v[i][1] -= y * mass[j] * pull;
                v[i][2] -= z * mass[j] * pull;
                v[j][0] += x * mass[i] * pull;
                v[j][1] += y * mass[i] * pull;
                v[j][2] += z * mass[i] * pull;
            }
        for (unsigned i = 0; i < 5; i++)
            for (unsigned k = 0; k < 3; k++)
                p[i][k] += 0.001 * v[i][k];
    }
    sink_fp = p[0][0];
}

static void x87(uint64_t ops)
{
    volatile long double start = 1.0L;
    long double sum = 0, x = start;

    for (uint64_t i = 0; i < ops; i++) {
        sum += x / (2.0L * (long double)i + 1.0L);
        x = -x;
    }
    sink_fp = (double)sum;
}

static void libm(uint64_t ops)
{
    double x = 0.5, sum = 0;

    for (uint64_t i = 0; i < ops; i++) {
        sum += sin(x) + exp(-x) + log(x + 1.5) + pow(x + 0.5, 1.7) + atan2(x, 2.0);
        x = x < 20 ? x + 0.37 : 0.5;
    }
    sink_fp = sum;
}

static void fill_vectors(void)
{
    for (unsigned i = 0; i < VECTOR; i++) {
        vector_a[i] = (float)i * 0.25f;
        vector_b[i] = 1.0f;
    }
}

static void sse2(uint64_t ops)
{
    const __m128 factor = _mm_set1_ps(0.999f);

    while (ops-- > 0)
        for (unsigned i = 0; i < VECTOR; i += 8) {
            __m128 low = _mm_load_ps(vector_a + i), high = _mm_load_ps(vector_a + i + 4);

            low = _mm_add_ps(_mm_mul_ps(_mm_load_ps(vector_b + i), factor), low);
            high = _mm_add_ps(_mm_mul_ps(_mm_load_ps(vector_b + i + 4), factor), high);
            _mm_store_ps(vector_b + i, _mm_min_ps(low, high));
            _mm_store_ps(vector_b + i + 4, _mm_shuffle_ps(low, high, 0x4e));
        }
    sink_fp = (double)vector_b[7];
}

__attribute__((target("avx2,fma"))) static void avx2(uint64_t ops)
{
    const __m256 factor = _mm256_set1_ps(0.999f);

    while (ops-- > 0)
        for (unsigned i = 0; i < VECTOR; i += 16) {
            __m256 low = _mm256_load_ps(vector_a + i), high = _mm256_load_ps(vector_a + i + 8);

            low = _mm256_fmadd_ps(_mm256_load_ps(vector_b + i), factor, low);
            high = _mm256_fmadd_ps(_mm256_load_ps(vector_b + i + 8), factor, high);
            _mm256_store_ps(vector_b + i, _mm256_min_ps(low, high));
            _mm256_store_ps(vector_b + i + 8, _mm256_permute2f128_ps(low, high, 0x21));
        }
    sink_fp = (double)vector_b[7];
}

/* --- Memory -------------------------------------------------------------------------------- */

static void strings(uint64_t ops)
{
    static const char text[] = "It is a truth universally acknowledged, that a single man in "
                               "possession of a good fortune, must be in want of a wife.";
    char *(*volatile copy_string)(char *, const char *) = strcpy;
    size_t (*volatile length)(const char *) = strlen;
    char copy[sizeof(text)];
    uint64_t sum = 0;

    while (ops-- > 0) {
        copy_string(copy, text);
        sum += length(copy);
        sum += (uint64_t)(strchr(copy, 'w') - copy);
        sum += (uint64_t)(strstr(copy, "fortune") - copy);
        sum += (uint64_t)(memcmp(copy, text, length(text)) == 0);
    }
    sink = sum;
}

/* The string instructions themselves, on the few hundred bytes that a kernel often has for them. */
static void string_instructions(uint64_t ops)
{
    static char from[512], to[512];

    while (ops-- > 0) {
        char *source = from, *target = to;
        size_t count = sizeof(from);

        __asm__ volatile("rep movsb" : "+S"(source), "+D"(target), "+c"(count) : : "memory");
        target = from;
        count = sizeof(from) / 8;
        __asm__ volatile("rep stosq" : "+D"(target), "+c"(count) : "a"(ops) : "memory");
    }
}

static void make_copies(void)
{
    copy_from = malloc(COPY);
    copy_to = malloc(COPY);
    CHECK(copy_from && copy_to);
    memset(copy_from, 1, COPY);
    memset(copy_to, 2, COPY);
}

static void large_copies(uint64_t ops)
{
    void *(*volatile copy)(void *, const void *, size_t) = memcpy;

    while (ops-- > 0)
        copy(copy_to, copy_from, COPY);
    sink = (uint64_t)copy_to[COPY / 2];
}

/* One cycle through all pointers in random order (Sattolo's shuffle). */
static void make_ring(uint32_t size)
{
    uint32_t *order = malloc(size * sizeof(*order));
    uint64_t random = 88172645463325252u;

    ring = malloc(size * sizeof(*ring));
    CHECK(order && ring);
    for (uint32_t i = 0; i < size; i++)
        order[i] = i;
    for (uint32_t i = size - 1; i > 0; i--) {
        uint32_t other = (uint32_t)(next_random(&random) % i), held = order[i];

        order[i] = order[other];
        order[other] = held;
    }
    for (uint32_t i = 0; i < size; i++)
        ring[order[i]] = &ring[order[(i + 1) % size]];
    free(order);
}

static void make_small_ring(void)
{
    make_ring(SMALL_RING);
}

static void make_large_ring(void)
{
    make_ring(LARGE_RING);
}

static void chase(uint64_t ops)
{
    void **at = ring;

    while (ops-- > 0)
        at = *at;
    sink = (uint64_t)(uintptr_t)at;
}

static void make_vast(void)
{
    vast = malloc(VAST);
    CHECK(vast);
    memset(vast, 1, VAST);
}

static void random_reads(uint64_t ops)
{
    uint64_t random = 88172645463325252u, sum = 0;

    while (ops-- > 0)
        sum += vast[(next_random(&random) >> 32) * VAST >> 32];
    sink = sum;
}

/* Crosses out the multiples of one prime after the other; an operation is one number crossed out.
 */
static void large_sieve(uint64_t ops)
{
    static uint64_t prime = 2, next = 4;

    while (ops-- > 0) {
        vast[next] = 0;
        next += prime;
        if (next >= VAST) {
            do
                prime = prime + 1 < VAST / 2 ? prime + 1 : 2;
            while (!vast[prime] && prime > 2);
            next = 2 * prime;
        }
    }
    sink = prime;
}

const struct test compute_tests[] = {
    {"integer", "compute", "four hash steps", fill_table, integer, NULL, 0},
    {"sieve", "compute", "sieve of 32768", NULL, sieve, NULL, 0},
    {"division", "compute", "two divisions", NULL, division, NULL, 0},
    {"qsort", "compute", "1024 numbers", fill_table, sort, NULL, 0},
    {"calls", "compute", "fib(12)", NULL, calls, NULL, 0},
    {"indirect-calls", "compute", "call", NULL, indirect_calls, NULL, 0},
    {"bytecode", "compute", "bytecode", NULL, bytecode, NULL, 0},
    {"scalar-fp", "compute", "n-body step", NULL, scalar_fp, NULL, 0},
    {"sse2", "compute", "16 KiB", fill_vectors, sse2, NULL, 0},
    {"avx2", "compute", "16 KiB", fill_vectors, avx2, NULL, 0},
    {"x87", "compute", "term of a series", NULL, x87, NULL, 0},
    {"libm", "compute", "five functions", NULL, libm, NULL, 0},
    {"strings", "compute", "five functions", NULL, strings, NULL, 0},
    {"string-instructions", "compute", "movs, stos of 512 B", NULL, string_instructions, NULL, 0},
    {"large-copies", "compute", "4 MiB", make_copies, large_copies, NULL, 0},
    {"chase-16K", "compute", "load", make_small_ring, chase, NULL, 0},
    {"chase-16M", "compute", "load", make_large_ring, chase, NULL, 0},
    {"random-100M", "compute", "byte read", make_vast, random_reads, NULL, 0},
    {"sieve-100M", "compute", "number crossed out", make_vast, large_sieve, NULL, 0},
    {0},
};
