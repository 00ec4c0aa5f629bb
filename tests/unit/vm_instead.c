/*
 * A machine whose engine cannot be had: it gets the one that is named for that case, and the log
 * says why; without such a name there is no machine.
 */
#include "kvm_failing.h"
#include "test.h"

#include "base/log.h"
#include "base/util.h"
#include "cpu/engines.h"
#include "cpu/kvm/kvm.h"
#include "vm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ENTRY      0x1000
#define STATUS     7
#define TIMEOUT_MS 60000

/* Writes STATUS to the debug exit. */
static const uint8_t guest[] = {0xB0, STATUS, 0xE6, 0xF4, 0xEB, 0xFE};

static int load_guest(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    cpu->seg[X86_CS].selector = 0;
    cpu->seg[X86_CS].base = 0;
    cpu->reg[X86_RIP] = ENTRY;
    return mem_write(mem, ENTRY, guest, sizeof(guest));
}

/* ---- KVM, of which one call fails; and a model that is refused ---- */

static bool refuses_model;

static struct engine *create_failing(const struct machine *machine, struct error *err)
{
    static const struct kvm_options options = {.calls = &kvm_failing_calls};

    return kvm_create_with(machine, &options, err);
}

static int restrict_model(struct x86_model *model, struct error *err)
{
    if (refuses_model)
        return error_set(err, EPERM, "no model fits here");
    kvm_restrict_model(model, err); /* where there is no KVM, the engine's creation says so */
    return 0;
}

static struct engine_ops failing_engine;

static int make_engine(void **unused)
{
    failing_engine = kvm_engine;
    failing_engine.create = create_failing;
    failing_engine.restrict_model = restrict_model;
    return 0;
}

/* ---- What the log says ---- */

static struct {
    unsigned warnings;
    char text[256];
} told;

static void on_line(void *opaque, enum log_level level, const char *text)
{
    if (level != LOG_LEVEL_WARNING)
        return;
    told.warnings++;
    snprintf(told.text, sizeof(told.text), "%s", text);
}

static void expect_told(const char *why)
{
    assert_int_equal(told.warnings, 1);
    assert_non_null(strstr(told.text, "the engine is interp, because kvm cannot be used: "));
    assert_non_null(strstr(told.text, why));
}

/* ---- Machines ---- */

static const char *const devices[] = {"debug-exit", NULL};
static const struct log journal = {.most = LOG_LEVEL_WARNING, .line = on_line};

static struct vm *create(const struct engine_ops *instead, struct error *err)
{
    const struct vm_config config = {.cpus = 2,
                                     .memory = 2 * MiB,
                                     .load = load_guest,
                                     .log = &journal,
                                     .devices.list = devices,
                                     .instead = instead};

    fault.calls = told.warnings = 0;
    return vm_create(&failing_engine, &config, err);
}

static void expect_end(struct vm *vm)
{
    static struct vm_end end;

    assert_int_equal(vm_start(vm, NULL), 0);
    assert_int_equal(vm_wait(vm, TIMEOUT_MS, &end), 0);
    assert_int_equal(end.outcome, VM_DEBUG_EXIT);
    assert_int_equal(end.status, STATUS << 1 | 1);
    vm_destroy(vm);
}

/* ---- Tests ---- */

static void test_no_model(void **unused)
{
    struct error err = {0};
    struct vm *vm;

    refuses_model = true;
    assert_null(create(NULL, &err));
    assert_int_equal(err.code, EPERM);
    assert_int_equal(told.warnings, 0);
    vm = create(&interp_engine, &err);
    refuses_model = false;
    assert_non_null(vm);
    assert_ptr_equal(vm_engine_of(vm), &interp_engine);
    expect_told("no model fits here");
    expect_end(vm);
}

/* Each call that the engine needs to be created, with an error of its own. A call that it can do
 * without is none that it needs. */
static void test_no_engine(void **unused)
{
    static const int codes[] = {ENOENT, EPERM, EBUSY, ENOMEM};
    unsigned refusals = 0;

    for (unsigned n = 1;; n++) {
        struct error err = {0};
        struct vm *vm;
        bool failed;

        fault.fail_at = n;
        fault.code = codes[n % ARRAY_SIZE(codes)];
        vm = create(NULL, &err);
        failed = fault.calls >= n;
        assert_int_equal(told.warnings, 0);
        vm_destroy(vm);
        if (!failed)
            break;
        if (vm)
            continue;
        assert_true(err.code > 0);
        expect_end(create(&interp_engine, NULL));
        expect_told(err.text);
        refusals++;
    }
    print_message("%u calls are needed\n", refusals);
    assert_true(refusals >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_model),
        cmocka_unit_test(test_no_engine),
    };

    return cmocka_run_group_tests(tests, make_engine, NULL);
}
