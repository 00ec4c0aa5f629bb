/*
 * The dump of a processor's state.
 */
#include "test.h"

#include "x86/dump.h"

#include <string.h>

static void test_reset_state(void **unused)
{
    struct x86_cpu cpu = {0};
    char text[4096];
    size_t length;

    x86_cpu_reset(&cpu);
    length = x86_dump(&cpu, text, sizeof(text));
    assert_int_equal(length, strlen(text));
    assert_non_null(strstr(text, "running, real mode, CPL 0\n"));
    assert_non_null(strstr(text, "RIP 000000000000fff0 RFLAGS 00000002 [IOPL=0]\n"));
    assert_non_null(strstr(text, "CS   f000 base 00000000ffff0000 limit 0000ffff"));
    assert_non_null(strstr(text, "CR0 60000010"));
}

static void test_long_mode(void **unused)
{
    struct x86_cpu cpu = {0};
    char text[4096];

    x86_cpu_reset(&cpu);
    cpu.cr0 |= X86_CR0_PE | X86_CR0_PG;
    cpu.efer = X86_EFER_LME | X86_EFER_LMA;
    cpu.seg[X86_CS].attr = X86_ATTR_P | X86_ATTR_S | X86_ATTR_CODE | X86_ATTR_L | 3 << 5;
    cpu.seg[X86_SS].attr = X86_ATTR_P | X86_ATTR_S | 3 << 5;
    cpu.seg[X86_GS].attr = X86_ATTR_UNUSABLE;
    cpu.rflags = X86_FLAG_ONE | X86_FLAG_IF | X86_FLAG_ZF | X86_FLAG_IOPL;
    cpu.reg[X86_R15] = 0xFEDCBA9876543210;
    cpu.nmi_blocked = true;
    cpu.activity = X86_SHUTDOWN;
    x86_dump(&cpu, text, sizeof(text));
    assert_non_null(strstr(text, "shut down, 64-bit mode, CPL 3, in NMI\n"));
    assert_non_null(strstr(text, "[IOPL=3 ZF IF]"));
    assert_non_null(strstr(text, "R15 fedcba9876543210\n"));
    assert_non_null(strstr(text, "code64 DPL 3\n"));
    assert_non_null(strstr(text, "unusable\n"));
    cpu.seg[X86_CS].attr &= ~X86_ATTR_L;
    x86_dump(&cpu, text, sizeof(text));
    assert_non_null(strstr(text, "16-bit compatibility mode"));
}

static void test_cut_off(void **unused)
{
    struct x86_cpu cpu = {0};
    char text[64], all[4096];

    x86_cpu_reset(&cpu);
    x86_dump(&cpu, all, sizeof(all));
    memset(text, '#', sizeof(text));
    assert_int_equal(x86_dump(&cpu, text, 40), 39);
    assert_int_equal(text[39], '\0');
    assert_int_equal(text[40], '#');
    assert_memory_equal(text, all, 39);
    assert_int_equal(x86_dump(&cpu, text, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset_state),
        cmocka_unit_test(test_long_mode),
        cmocka_unit_test(test_cut_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
