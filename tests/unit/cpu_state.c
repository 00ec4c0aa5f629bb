/*
 * Processors in saved machines: every field comes back, no state comes in that a processor cannot
 * be in, and no model that this host cannot offer.
 */
#include "test.h"

#include "state_image.h"
#include "x86/cpu_state.h"

#include <errno.h>
#include <stdio.h>

static struct x86_model model;

static struct x86_cpu reset_state(void)
{
    struct x86_cpu cpu;

    memset(&cpu, 0, sizeof(cpu));
    x86_cpu_reset(&cpu);
    cpu.physical_bits = model.physical_bits;
    return cpu;
}

/* --- Every field ------------------------------------------------------------------------------ */

/* What is not a field: holes between members, and what is not saved. A field that is added and not
 * visited makes more bytes stay as they were; one that fills a hole makes this number wrong. */
#define HOLES                                                                                      \
    (2 * (sizeof(struct x86_dtr) - 10) + /* behind the limits */                                   \
     4 +                                 /* physical_bits, */                                      \
     4 +                                 /* and before DR0 */                                      \
     8 * 1 +                             /* reg[X86_NONE] */                                       \
     ACTIVITY_HOLES)
/* From ACTIVITY to the end of EXCEPTION, and from there to XSAVE, less the members. */
#define ACTIVITY_HOLES                                                                             \
    (offsetof(struct x86_cpu, xsave) - offsetof(struct x86_cpu, activity) - sizeof(uint32_t) -     \
     4 * sizeof(bool) - 1 - 8 - sizeof(struct x86_exception))

static void test_every_field(void **unused)
{
    struct state_image image = {0};
    struct x86_cpu from, to;
    struct state *s;
    unsigned stayed = 0;

    (void)unused;
    memset(&from, 0x01, sizeof(from)); /* so that bools are true, */
    from.activity = X86_HALTED;        /* and enums what they can be */
    memset(&to, 0xFE, sizeof(to));
    s = image_save(&image);
    x86_cpu_state(&from, s, 3);
    assert_int_equal(image_done(s), 0);
    s = image_load(&image);
    x86_cpu_state(&to, s, 3);
    assert_int_equal(image_done(s), 0);
    for (size_t i = 0; i < sizeof(to); i++)
        stayed += ((const uint8_t *)&to)[i] == 0xFE;
    assert_int_equal(stayed, HOLES);
    assert_int_equal(to.activity, X86_HALTED);
    assert_int_equal(to.xsave[X86_XSAVE_SIZE - 1], 0x01);
    image_free(&image);
}

/* --- What can be ------------------------------------------------------------------------------ */

static void expect_good(const struct x86_cpu *cpu)
{
    struct error err = {0};

    if (x86_cpu_check(cpu, &model, &err) != 0)
        fail_msg("%s", err.text);
}

static void enter_v86(struct x86_cpu *cpu)
{
    cpu->cr0 |= X86_CR0_PE;
    cpu->rflags |= X86_FLAG_VM;
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        cpu->seg[i] =
            (struct x86_seg){.base = 0x12340, .limit = 0xFFFF, .attr = 0xF3, .selector = 0x1234};
}

static void test_good_states(void **unused)
{
    struct x86_cpu cpu = reset_state();

    (void)unused;
    expect_good(&cpu);
    x86_cpu_init(&cpu);
    cpu.activity = X86_WAIT_SIPI;
    expect_good(&cpu);
    /* 64-bit code at CPL 3 that has just loaded SS in a step, with an NMI to come. */
    cpu.cr0 |= X86_CR0_PE | X86_CR0_PG | X86_CR0_NE;
    cpu.cr4 |= X86_CR4_PAE | X86_CR4_OSFXSR;
    cpu.efer |= X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE;
    cpu.seg[X86_SS].attr |= X86_ATTR_DPL;
    cpu.seg[X86_CS].attr |= X86_ATTR_DPL | X86_ATTR_L;
    cpu.seg[X86_GS].base = 0xFFFF800000000000;
    cpu.interrupt_shadow = cpu.ss_shadow = cpu.trap_pending = true;
    cpu.pending_dr6 = 0x4001;
    cpu.nmis_pending = 2;
    expect_good(&cpu);
    cpu.nmi_blocked = true;
    cpu.nmis_pending = 1;
    expect_good(&cpu);
    cpu.reg[X86_RIP] = 0xFFFFFFFF80000000;
    cpu.exception.pending = true;
    cpu.activity = X86_RUNNING;
    expect_good(&cpu);
    /* An x87 exception that is not masked, and is announced. */
    cpu.xsave[0] = 0x7E;
    cpu.xsave[2] = 0x81;
    cpu.xsave[3] = 0x80;
    expect_good(&cpu);
    /* Out of long mode, with what 64-bit code has loaded into CR3. */
    cpu = reset_state();
    cpu.cr3 = 1ULL << 32;
    expect_good(&cpu);
    /* PDPTEs: an absent one may hold anything. */
    cpu.cr0 |= X86_CR0_PE | X86_CR0_PG;
    cpu.cr4 |= X86_CR4_PAE;
    cpu.pdpte[0] = 0x1000 | 1 << 3 | 1;
    cpu.pdpte[3] = ~1ULL;
    expect_good(&cpu);
    enter_v86(&cpu);
    expect_good(&cpu);
}

/* Each LINE of these makes a good state one that cannot be; it is refused for WHY. */
#define REFUSED(why, ...)                                                                          \
    do {                                                                                           \
        struct x86_cpu cpu = reset_state();                                                        \
        struct error err = {0};                                                                    \
        __VA_ARGS__;                                                                               \
        assert_int_equal(x86_cpu_check(&cpu, &model, &err), -EINVAL);                              \
        if (strstr(err.text, why ": ") != err.text)                                                \
            fail_msg("%s", err.text);                                                              \
    } while (0)

static void test_refused_control(void **unused)
{
    (void)unused;
    REFUSED("cr0", cpu.cr0 |= 1ULL << 32);
    REFUSED("cr0", cpu.cr0 &= ~(uint64_t)X86_CR0_ET);
    REFUSED("cr0", cpu.cr0 |= X86_CR0_PG);
    REFUSED("cr0", cpu.cr0 &= ~(uint64_t)X86_CR0_CD);
    REFUSED("cr4", cpu.cr4 |= X86_CR4_VME);
    REFUSED("cr4", cpu.cr4 |= X86_CR4_PCIDE);
    REFUSED("efer", cpu.efer |= 1u << 1);
    REFUSED("efer", cpu.efer |= X86_EFER_LMA; cpu.cr4 |= X86_CR4_PAE);
    REFUSED("efer", cpu.efer |= X86_EFER_LME; cpu.cr0 |= X86_CR0_PE | X86_CR0_PG);
    REFUSED("cr4", cpu.efer |= X86_EFER_LME | X86_EFER_LMA; cpu.cr0 |= X86_CR0_PE | X86_CR0_PG);
    REFUSED("cr3", cpu.efer |= X86_EFER_LME | X86_EFER_LMA; cpu.cr0 |= X86_CR0_PE | X86_CR0_PG;
            cpu.cr4 |= X86_CR4_PAE; cpu.cr3 = 1ULL << 60);
    REFUSED("cr3", cpu.cr3 = 1ULL << 60);
    REFUSED("pdpte", cpu.pdpte[3] = 3);
    REFUSED("pdpte", cpu.pdpte[0] = 1ULL << 60 | 1);
    REFUSED("xcr0", cpu.xcr0 = X86_XCR0_SSE);
    REFUSED("xcr0", cpu.xcr0 = X86_XCR0_X87 | X86_XCR0_AVX);
    REFUSED("xcr0", cpu.xcr0 |= 1u << 9);
    REFUSED("dr6", cpu.dr6 = 0);
    REFUSED("dr7", cpu.dr7 |= 1ULL << 40);
}

static void test_refused_segments(void **unused)
{
    (void)unused;
    REFUSED("segment", cpu.seg[X86_CS].base = 1ULL << 32);
    REFUSED("segment", cpu.seg[X86_FS].base = 1ULL << 60);
    REFUSED("segment", cpu.seg[X86_ES].attr |= 0x0200);
    REFUSED("system segment", cpu.tr.base = 1ULL << 60);
    REFUSED("descriptor table", cpu.idtr.base = 1ULL << 60);
    REFUSED("code segment", cpu.efer |= X86_EFER_LME | X86_EFER_LMA; cpu.cr4 |= X86_CR4_PAE;
            cpu.cr0 |= X86_CR0_PE | X86_CR0_PG; cpu.seg[X86_CS].attr |= X86_ATTR_L | X86_ATTR_DB);
    REFUSED("privilege level", cpu.seg[X86_SS].attr |= X86_ATTR_DPL);
    REFUSED("privilege level", cpu.cr0 |= X86_CR0_PE; cpu.rflags |= X86_FLAG_VM);
    REFUSED("code segment", cpu.seg[X86_CS].attr |= X86_ATTR_UNUSABLE);
    REFUSED("virtual-8086 segment", enter_v86(&cpu); cpu.seg[X86_GS].base++);
    REFUSED("virtual-8086 segment", enter_v86(&cpu); cpu.seg[X86_CS].limit = UINT32_MAX);
    REFUSED("rip", cpu.reg[X86_RIP] = 1ULL << 32);
}

static void test_refused_rest(void **unused)
{
    (void)unused;
    REFUSED("mxcsr", cpu.xsave[X86_XSAVE_MXCSR + 2] = 1);
    REFUSED("x87 control word", cpu.xsave[0] = 0x3F);
    REFUSED("x87 control word", cpu.xsave[1] = 0x20);
    REFUSED("x87 status word", cpu.xsave[2] = 0x01);
    REFUSED("x87 status word", cpu.xsave[2] = 0x80);
    REFUSED("model-specific register", cpu.lstar = 1ULL << 60);
    REFUSED("model-specific register", cpu.tsc_aux = 1ULL << 32);
    REFUSED("model-specific register", cpu.pat = 2);
    REFUSED("model-specific register", cpu.mtrr_fixed[10] = 7);
    REFUSED("model-specific register", cpu.mtrr_mask[7] = 1);
    REFUSED("model-specific register", cpu.spec_ctrl = 1ULL << 50);
    REFUSED("rflags", cpu.rflags = 0);
    REFUSED("rflags", cpu.rflags |= 1u << 15);
    REFUSED("rflags", cpu.efer |= X86_EFER_LME | X86_EFER_LMA; cpu.cr4 |= X86_CR4_PAE;
            cpu.cr0 |= X86_CR0_PG; enter_v86(&cpu));
    REFUSED("nmis_pending", cpu.nmis_pending = 3);
    REFUSED("nmis_pending", cpu.nmi_blocked = true; cpu.nmis_pending = 2);
    REFUSED("ss_shadow", cpu.ss_shadow = true);
    REFUSED("pending_dr6", cpu.pending_dr6 = 0x10);
    REFUSED("exception.vector", cpu.exception.vector = 32);
    REFUSED("exception.pending", cpu.exception.pending = true; cpu.activity = X86_HALTED);
    REFUSED("exception.pending", cpu.exception.pending = true; cpu.activity = X86_WAIT_SIPI);
}

/* An enum is checked before it becomes one. */
static void test_activity(void **unused)
{
    struct x86_cpu cpu = reset_state();
    struct state_image image = {0};
    struct state *s = image_save(&image);

    (void)unused;
    cpu.activity = X86_SHUTDOWN;
    x86_cpu_state(&cpu, s, 0);
    assert_string_equal(state_failure(s)->text,
                        "section cpu 0: activity 3: neither runs, nor is halted, nor waits for a "
                        "start-up IPI");
    state_free(s);
    image_free(&image);
}

/* --- Models ----------------------------------------------------------------------------------- */

static struct state_image save_model(struct x86_model *m)
{
    struct state_image image = {0};
    struct state *s = image_save(&image);

    x86_model_state(m, s);
    assert_int_equal(image_done(s), 0);
    return image;
}

static void test_model(void **unused)
{
    struct x86_model saved = model, here = model;
    struct state_image image;
    struct state *s;

    (void)unused;
    saved.feature[X86_FEAT_MOVBE] = saved.feature[X86_FEAT_XSAVEC] = false;
    saved.tsc_hz = 1234567890;
    saved.physical_bits = 39;
    image = save_model(&saved);
    s = image_load(&image);
    x86_model_state(&here, s);
    assert_int_equal(image_done(s), 0);
    assert_memory_equal(here.feature, saved.feature, sizeof(here.feature));
    assert_int_equal(here.tsc_hz, saved.tsc_hz);
    assert_int_equal(here.physical_bits, 39);
    image_free(&image);
}

static void expect_no_model(struct state_image *image, struct x86_model here, const char *text)
{
    struct state *s = image_load(image);

    x86_model_state(&here, s);
    assert_string_equal(state_failure(s)->text, text);
    state_free(s);
    image_free(image);
}

static void test_other_models(void **unused)
{
    struct x86_model saved = model, here = model;
    struct state_image image;

    (void)unused;
    saved.feature[X86_FEAT_MOVBE] = true;
    here.feature[X86_FEAT_MOVBE] = false;
    image = save_model(&saved);
    expect_no_model(&image, here,
                    "section model 0: cpuid: bit 22 of ECX in leaf 1h is 1 in the "
                    "saved processor and 0 here");
    /* A feature that nobody knows, and one that every processor has. */
    image = save_model(&saved);
    image.data[IMAGE_HEADER + IMAGE_SECTION + 4 + 2 * 16 + 6] |= 0x80; /* leaf 7, EBX bit 23 */
    image.data[IMAGE_HEADER + IMAGE_SECTION + 4 + 2 * 16 + 4] |= 0x04;
    image_seal(&image);
    expect_no_model(&image, saved,
                    "section model 0: cpuid: bit 2 of EBX in leaf 7h is 1 in the "
                    "saved processor and 0 here");
    image = save_model(&saved);
    image.data[IMAGE_HEADER + IMAGE_SECTION + 4 + 12] &= 0xFB;
    image_seal(&image);
    expect_no_model(&image, saved,
                    "section model 0: cpuid: bit 2 of EDX in leaf 1h is 0 in the "
                    "saved processor and 1 here");
    /* One that needs AVX, without it. */
    saved.feature[X86_FEAT_AVX] = saved.feature[X86_FEAT_FMA] = saved.feature[X86_FEAT_F16C] =
        false;
    saved.feature[X86_FEAT_AVX2] = true;
    image = save_model(&saved);
    expect_no_model(&image, saved,
                    "section model 0: cpuid: bit 5 of EBX in leaf 7h is 1 in the "
                    "saved processor and 0 here");
    saved.feature[X86_FEAT_AVX2] = false;
    saved.physical_bits = 60;
    image = save_model(&saved);
    expect_no_model(&image, here,
                    "section model 0: cpuid: bit 22 of ECX in leaf 1h is 1 in the "
                    "saved processor and 0 here");
    image = save_model(&saved);
    expect_no_model(&image, saved, "section model 0: physical_bits 60: must be 36 to 46");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_field),     cmocka_unit_test(test_good_states),
        cmocka_unit_test(test_refused_control), cmocka_unit_test(test_refused_segments),
        cmocka_unit_test(test_refused_rest),    cmocka_unit_test(test_activity),
        cmocka_unit_test(test_model),           cmocka_unit_test(test_other_models),
    };

    x86_model_default(&model, 2, 2000000000);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
