/*
 * Local APICs in KVM's form and in that of all engines: nothing is lost between the two. No KVM is
 * needed.
 */
#include "test.h"

#include "base/util.h"
#include "cpu/kvm/lapic_page.h"

#include <string.h>

#define MS 1000000u

static void fill(struct lapic_state *s)
{
    apic_after_firmware(s, 3);
    s->tpr = 0x35;
    s->ldr = 0x04000000;
    s->dfr = 0x0FFFFFFF;
    s->svr = 0x11F3;
    s->icr = 0x0200000000004600;
    s->esr = 0x40;
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        s->lvt[i] = 0x10000 + 0x41 + i;
    s->irr.word[0] = 1ULL << 0x31;
    s->irr.word[3] = 1ULL << 63;
    s->isr.word[1] = 1ULL << 5 | 1ULL << 40;
    s->tmr.word[2] = 0x8000000100000001;
    s->timer_divide = 0xB;
    s->timer_initial = 100 * MS;
    s->timer_running = true;
}

static void test_both_ways(void **unused)
{
    static const uint64_t bases[] = {APIC_BASE_USUAL | APIC_BASE_ENABLE,
                                     APIC_BASE_USUAL | APIC_BASE_ENABLE | APIC_BASE_X2APIC};

    for (unsigned i = 0; i < ARRAY_SIZE(bases); i++) {
        struct lapic_state from, to;
        struct kvm_lapic_state page;

        memset(&from, 0, sizeof(from));
        fill(&from);
        from.base = bases[i];
        from.ldr = i ? 0 : from.ldr; /* in x2APIC mode it follows from the ID */
        apic_page_of(&page, &from, 3);
        assert_int_equal(apic_page_read(&page, APIC_ID), i ? 3 : 3 << 24);
        to = from;
        memset(&to.irr, 0xFF, sizeof(to.irr));
        memset(&to.isr, 0xFF, sizeof(to.isr));
        memset(&to.tmr, 0xFF, sizeof(to.tmr));
        memset(to.lvt, 0xFF, sizeof(to.lvt));
        to.tpr = to.esr = 0xFF;
        to.icr = to.timer_initial = to.svr = to.dfr = to.ldr = 0;
        apic_page_out(&page, &to);
        assert_memory_equal(&to, &from, sizeof(to));
    }
}

static void test_bits(void **unused)
{
    struct lapic_state s;
    struct kvm_lapic_state page;

    fill(&s);
    apic_page_of(&page, &s, 0);
    assert_int_equal(apic_page_highest(&page, APIC_IRR), 255);
    assert_int_equal(apic_page_highest(&page, APIC_ISR), 64 + 40);
    assert_true(apic_page_bit(&page, APIC_ISR, 64 + 5));
    apic_page_clear_bit(&page, APIC_ISR, 64 + 40);
    assert_int_equal(apic_page_highest(&page, APIC_ISR), 64 + 5);
    apic_page_clear_bit(&page, APIC_ISR, 64 + 5);
    assert_int_equal(apic_page_highest(&page, APIC_ISR), -1);
}

/* One-shot, with each divider: what has been counted, and from when on. */
static void test_one_shot(void **unused)
{
    static const struct {
        uint8_t code;
        unsigned by;
    } dividers[] = {{0xB, 1}, {0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {0xA, 128}};

    for (unsigned i = 0; i < ARRAY_SIZE(dividers); i++) {
        const uint64_t start = 5000ULL * MS, by = dividers[i].by;
        struct kvm_lapic_state page;
        struct lapic_state s;

        fill(&s);
        s.lvt[0] = 0x40;
        s.timer_divide = dividers[i].code;
        apic_page_of(&page, &s, 0);
        assert_true(apic_page_counts(&page));
        assert_int_equal(apic_page_timer_start(&page, start), start);
        apic_page_set_timer_start(&page, start, start + 30 * MS * by);
        assert_int_equal(apic_page_read(&page, APIC_CURRENT), 70 * MS);
        assert_int_equal(apic_page_timer_start(&page, start + 30 * MS * by), start);
        apic_page_set_timer_start(&page, start, start + 200 * MS * by); /* it has ended */
        assert_int_equal(apic_page_read(&page, APIC_CURRENT), 0);
        assert_false(apic_page_counts(&page));
        assert_int_equal(apic_page_read(&page, APIC_INITIAL), 100 * MS);
    }
}

static void test_other_modes(void **unused)
{
    struct kvm_lapic_state page;
    struct lapic_state s;

    fill(&s);
    s.lvt[0] = 0x20040; /* periodic */
    apic_page_of(&page, &s, 0);
    apic_page_set_timer_start(&page, 0, 730 * MS);
    assert_int_equal(apic_page_read(&page, APIC_CURRENT), 70 * MS);
    apic_page_write(&page, APIC_CURRENT, 0);
    assert_true(apic_page_counts(&page));
    apic_page_write(&page, APIC_CURRENT, UINT32_MAX); /* KVM has made it longer */
    assert_int_equal(apic_page_timer_start(&page, 77), 77);
    s.timer_running = false; /* KVM would start it */
    apic_page_of(&page, &s, 0);
    assert_int_equal(apic_page_read(&page, APIC_INITIAL), 0);
    assert_false(apic_page_counts(&page));
    s.timer_running = true;
    s.lvt[0] = 0x40040; /* TSC deadline */
    apic_page_of(&page, &s, 0);
    assert_false(apic_page_counts(&page));
}

/* What a guest may write to IA32_APIC_BASE (SDM volume 3, figure 11-27). */
static void test_base(void **unused)
{
    const uint64_t off = APIC_BASE_USUAL, on = off | APIC_BASE_ENABLE, x2 = on | APIC_BASE_X2APIC;

    assert_true(apic_base_allowed(off, on, 40));
    assert_true(apic_base_allowed(on, x2, 40));
    assert_true(apic_base_allowed(x2, off, 40));
    assert_true(apic_base_allowed(x2, x2, 40));
    assert_false(apic_base_allowed(x2, on, 40));
    assert_false(apic_base_allowed(off, x2, 40));
    assert_false(apic_base_allowed(on, off | APIC_BASE_X2APIC, 40));
    assert_false(apic_base_allowed(on, on | 1, 40));
    assert_false(apic_base_allowed(on, on | 1ULL << 40, 40));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways), cmocka_unit_test(test_bits),
        cmocka_unit_test(test_one_shot),  cmocka_unit_test(test_other_modes),
        cmocka_unit_test(test_base),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
