/*
 * SMBIOS: both entry points lead to the same structures, which are whole and say how much memory
 * and how many processors there are.
 */
#include "test.h"

#include "base/util.h"
#include "vm/smbios.h"

#include "tables.h"

#define STRUCTURES 16

struct smbios {
    struct mem *mem;
    uint64_t at[STRUCTURES];
    unsigned count;
};

/* Checks both entry points; walks the structures that they lead to. */
static struct smbios read_tables(uint64_t ram, unsigned cpus)
{
    struct smbios s = {.mem = mem_create(ram, NULL)};
    uint64_t old, new, at, end, largest = 0;
    struct x86_model model;
    unsigned type;

    assert_non_null(s.mem);
    x86_model_default(&model, cpus, 2100000000);
    assert_int_equal(smbios_write(s.mem, &model, NULL), 0);
    old = find_signature(s.mem, "_SM_");
    assert_int_equal(get(s.mem, old + 5, 1), 31);
    assert_int_equal(sum(s.mem, old, 31), 0);
    assert_signature(s.mem, old + 16, "_DMI_");
    assert_int_equal(sum(s.mem, old + 16, 15), 0);
    new = find_signature(s.mem, "_SM3_");
    assert_int_equal(get(s.mem, new + 6, 1), 24);
    assert_int_equal(sum(s.mem, new, 24), 0);
    at = get(s.mem, old + 24, 4);
    assert_int_equal(get(s.mem, new + 16, 8), at);
    assert_int_equal(get(s.mem, new + 12, 4), get(s.mem, old + 22, 2));
    end = at + get(s.mem, old + 22, 2);
    do {
        uint64_t start = at;

        assert_true(s.count < STRUCTURES && at < end);
        type = (unsigned)get(s.mem, at, 1);
        for (unsigned i = 0; i < s.count; i++)
            assert_int_not_equal(get(s.mem, s.at[i] + 2, 2), get(s.mem, at + 2, 2));
        s.at[s.count++] = at;
        at += get(s.mem, at + 1, 1);
        while (get(s.mem, at, 2))
            at++;
        at += 2;
        largest = MAX(largest, at - start);
    } while (type != 127);
    assert_int_equal(at, end);
    assert_int_equal(s.count, get(s.mem, old + 28, 2));
    assert_int_equal(largest, get(s.mem, old + 8, 2));
    return s;
}

static uint64_t find_nth(const struct smbios *s, unsigned type, unsigned n)
{
    for (unsigned i = 0; i < s->count; i++)
        if (get(s->mem, s->at[i], 1) == type && n-- == 0)
            return s->at[i];
    return 0;
}

static uint64_t find(const struct smbios *s, unsigned type)
{
    uint64_t at = find_nth(s, type, 0);

    assert_true(at);
    return at;
}

static void test_machine(void **unused)
{
    struct smbios s = read_tables(512 * MiB, 3);
    uint64_t bios = find(&s, 0), system = find(&s, 1), cpu = find(&s, 4);

    assert_signature(s.mem, bios + get(s.mem, bios + 1, 1), "doppel");
    assert_int_equal(get(s.mem, bios + 19, 1) >> 4 & 1, 1); /* a virtual machine */
    assert_signature(s.mem, system + get(s.mem, system + 1, 1), "doppel");
    assert_true(find(&s, 3) && find(&s, 32));
    assert_int_equal(get(s.mem, cpu + 8, 4), X86_CPU_SIGNATURE);
    assert_int_equal(get(s.mem, cpu + 0x16, 2), 2100);
    assert_int_equal(get(s.mem, cpu + 0x23, 1), 3); /* cores */
    assert_int_equal(get(s.mem, cpu + 0x2A, 2), 3);
    mem_destroy(s.mem);
}

/* Sizes that need each of the ways to write one. */
static void test_memory(void **unused)
{
    static const struct {
        uint64_t ram, size, extended;
    } cases[] = {{2 * MiB + 4 * KiB, 0x8000 | 2052, 0},
                 {64 * MiB, 64, 0},
                 {5 * GiB, 5120, 0},
                 {40 * GiB, 0x7FFF, 40 * 1024},
                 {1024 * GiB, 0x7FFF, 1024 * 1024}};

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct smbios s = read_tables(cases[i].ram, 1);
        uint64_t array = find(&s, 16), device = find(&s, 17), high = find_nth(&s, 19, 1);
        uint64_t ram = (get(s.mem, find(&s, 19) + 8, 4) + 1) * KiB;

        assert_int_equal(get(s.mem, array + 7, 4), cases[i].ram / KiB);
        assert_int_equal(get(s.mem, device + 12, 2), cases[i].size);
        assert_int_equal(get(s.mem, device + 28, 4), cases[i].extended);
        assert_int_equal(get(s.mem, device + 4, 2), get(s.mem, array + 2, 2));
        assert_int_equal(high != 0, cases[i].ram > 3 * GiB);
        if (high)
            ram += (get(s.mem, high + 8, 4) + 1 - get(s.mem, high + 4, 4)) * KiB;
        assert_int_equal(ram, cases[i].ram);
        mem_destroy(s.mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
