/*
 * Sectors that say what they are.
 */
#include "pattern.h"

#include <string.h>

#define WORDS (SECTOR / sizeof(uint64_t))

/* Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

uint64_t pattern_random(uint64_t *state)
{
    return mix(*state += 0x9E3779B97F4A7C15);
}

uint64_t pattern_below(uint64_t *state, uint64_t limit)
{
    return pattern_random(state) % limit;
}

static void fill_sector(uint64_t word[WORDS], uint64_t number, uint32_t version)
{
    uint64_t key = mix(number << 32 ^ version);

    if (!version) {
        memset(word, 0, SECTOR);
        return;
    }
    word[0] = number;
    word[1] = version;
    for (unsigned i = 2; i < WORDS; i++)
        word[i] = key += 0x9E3779B97F4A7C15;
}

void pattern_fill(void *data, uint64_t first, size_t count, uint32_t version)
{
    uint8_t *to = data;

    for (size_t i = 0; i < count; i++) {
        uint64_t word[WORDS];

        fill_sector(word, first + i, version);
        memcpy(to + i * SECTOR, word, SECTOR);
    }
}

uint32_t pattern_version(const void *data, uint64_t number)
{
    uint64_t word[WORDS], expected[WORDS];
    uint32_t version;

    memcpy(word, data, SECTOR);
    version = word[1] < PATTERN_NONE ? (uint32_t)word[1] : 0;
    fill_sector(expected, number, version);
    return memcmp(word, expected, SECTOR) ? PATTERN_NONE : version;
}
