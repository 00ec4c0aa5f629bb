/*
 * Runs a fuzz target on inputs that are made from seeds, for one whose inputs are no format of
 * which examples are worth keeping:
 *
 *     fuzz-NAME FIRST COUNT [SECONDS]
 *
 * It runs COUNT seeds, or with SECONDS as many as it can in that time.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SIZE 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, done = 0;
    time_t seconds = argc > 3 ? strtol(argv[3], NULL, 0) : 0, end = time(NULL) + seconds;

    for (; seconds ? time(NULL) < end : done < count; seed++, done++) {
        uint64_t state = seed;
        uint8_t data[SIZE];

        for (unsigned i = 0; i < SIZE; i++)
            data[i] = (uint8_t)next(&state);
        LLVMFuzzerTestOneInput(data, SIZE);
    }
    printf("%llu inputs, up to seed %llu\n", (unsigned long long)done,
           (unsigned long long)(seed - 1));
    return 0;
}
