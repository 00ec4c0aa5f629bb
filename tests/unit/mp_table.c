/*
 * The MP table: found where kernels look, whole, and of one mind with the MADT.
 */
#include "test.h"

#include "base/util.h"
#include "vm/mp_table.h"

#include "tables.h"

static struct mem *with_table(unsigned cpus)
{
    struct mem *mem = mem_create(2 * MiB, NULL);
    struct x86_model model;

    assert_non_null(mem);
    x86_model_default(&model, cpus, 2000000000);
    assert_int_equal(mp_table_write(mem, &model, NULL), 0);
    return mem;
}

/* The configuration table. */
static uint64_t find_table(struct mem *mem)
{
    uint64_t pointer = find_signature(mem, "_MP_"), table = get(mem, pointer + 4, 4);

    assert_int_equal(sum(mem, pointer, 16), 0);
    assert_int_equal(get(mem, pointer + 8, 1), 1);  /* 16 bytes */
    assert_int_equal(get(mem, pointer + 9, 1), 4);  /* version 1.4 */
    assert_int_equal(get(mem, pointer + 11, 5), 0); /* a table; no PIC mode */
    assert_signature(mem, table, "PCMP");
    assert_int_equal(sum(mem, table, get(mem, table + 4, 2)), 0);
    assert_int_equal(get(mem, table + 6, 1), 4);
    assert_int_equal(get(mem, table + 36, 4), 0xFEE00000);
    return table;
}

/* Of PCI devices: level-triggered, from pin 16 on, turned by one for each device. */
static void check_pci_interrupt(struct mem *mem, uint64_t at)
{
    uint64_t device = get(mem, at + 5, 1) >> 2, pin = get(mem, at + 5, 1) & 3;

    assert_int_equal(get(mem, at + 1, 1), 0);
    assert_int_equal(get(mem, at + 2, 2), 0xF);
    assert_int_equal(get(mem, at + 6, 1), 0);
    assert_int_equal(get(mem, at + 7, 1), 16 + (device + pin) % 4);
}

static void check_interrupt(struct mem *mem, uint64_t at)
{
    uint64_t irq = get(mem, at + 5, 1);

    assert_int_equal(get(mem, at + 1, 1), 0); /* INT */
    assert_int_equal(get(mem, at + 2, 2), irq == 9 ? 0xD : 0);
    assert_int_equal(get(mem, at + 4, 1), 1); /* ISA */
    assert_int_equal(get(mem, at + 6, 1), 0);
    assert_int_equal(get(mem, at + 7, 1), irq == 0 ? 2 : irq);
}

static void check_entries(unsigned cpus)
{
    static const uint8_t sizes[] = {20, 8, 8, 8, 8};
    struct mem *mem = with_table(cpus);
    uint64_t table = find_table(mem), end = table + get(mem, table + 4, 2), at = table + 44;
    unsigned seen[5] = {0}, entries = 0, last = 0, irqs = 0, pins = 0;

    for (; at < end; entries++) {
        unsigned type = (unsigned)get(mem, at, 1);

        assert_in_range(type, last, 4); /* in order */
        if (type == 0) {
            assert_int_equal(get(mem, at + 1, 1), seen[0]);
            assert_int_equal(get(mem, at + 3, 1), seen[0] == 0 ? 3 : 1);
            assert_int_equal(get(mem, at + 4, 4), X86_CPU_SIGNATURE);
            assert_true(get(mem, at + 8, 4) & 1u << 9); /* APIC */
        } else if (type == 1) {
            assert_signature(mem, at + 2, seen[1] == 0 ? "PCI   " : "ISA   ");
            assert_int_equal(get(mem, at + 1, 1), seen[1]);
        } else if (type == 2) {
            assert_int_equal(get(mem, at + 4, 4), 0xFEC00000);
        } else if (type == 3 && get(mem, at + 4, 1) == 0) {
            check_pci_interrupt(mem, at);
            pins++;
        } else if (type == 3) {
            check_interrupt(mem, at);
            irqs |= 1u << get(mem, at + 5, 1);
        } else { /* ExtINT at LINT0, NMI at LINT1, of all processors */
            assert_int_equal(get(mem, at + 1, 1), seen[4] == 0 ? 3 : 1);
            assert_int_equal(get(mem, at + 6, 1), 0xFF);
            assert_int_equal(get(mem, at + 7, 1), seen[4]);
        }
        seen[type]++;
        last = type;
        at += sizes[type];
    }
    assert_int_equal(at, end);
    assert_int_equal(entries, get(mem, table + 34, 2));
    assert_int_equal(seen[0], MIN(cpus, 255));
    assert_int_equal(seen[1], 2);
    assert_int_equal(seen[2], 1);
    assert_int_equal(irqs, 0xFFFB); /* all but the cascade */
    assert_int_equal(pins, 32 * 4);
    assert_int_equal(seen[4], 2);
    mem_destroy(mem);
}

static void test_entries(void **unused)
{
    static const unsigned cpus[] = {1, 2, 64, 300};

    for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++)
        check_entries(cpus[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
