/*
 * The engines, put together: each is the core with the interpreter, and bt has the translator
 * besides, and kvm the host's KVM.
 */
#include "cpu/engines.h"

#include "cpu/bt/translator.h"
#include "cpu/core/core.h"
#include "cpu/interp/interp.h"
#include "cpu/kvm/kvm.h"

#include <errno.h>

static struct engine *create_interp(const struct machine *machine, struct error *err)
{
    return core_create(&interp_engine, machine, &interp_executor, NULL, NULL, err);
}

bool bt_runs_on(const struct x86_model *model)
{
    return bt_translator_runs_on(model);
}

static struct engine *create_translating(const struct engine_ops *ops,
                                         const struct machine *machine,
                                         const struct bt_switches *switches, struct error *err)
{
    if (!bt_runs_on(&machine->model)) {
        error_set(err, ENOTSUP,
                  "this host's processor has no BMI2 and AVX, or its kernel keeps "
                  "FSGSBASE off, which translated code needs; "
                  "use the engine interp");
        return NULL;
    }
    return core_create(ops, machine, &interp_executor, &bt_translator, switches, err);
}

struct engine *bt_create_with(const struct machine *machine, const struct bt_switches *switches,
                              struct error *err)
{
    return create_translating(&bt_engine, machine, switches, err);
}

static struct engine *create_bt(const struct machine *machine, struct error *err)
{
    return create_translating(&bt_engine, machine, &bt_usual, err);
}

static struct engine *create_bt_eager(const struct machine *machine, struct error *err)
{
    return create_translating(&bt_eager_engine, machine, &bt_eager, err);
}

struct engine *kvm_create_with(const struct machine *machine, const struct kvm_options *options,
                               struct error *err)
{
    return core_create(&kvm_engine, machine, &interp_executor, &kvm_accelerator, options, err);
}

static struct engine *create_kvm(const struct machine *machine, struct error *err)
{
    return kvm_create_with(machine, &kvm_usual, err);
}

/* The engines differ in what they are created with. */
#define ENGINE(NAME, CREATE)                                                                       \
    .name = NAME, .create = CREATE, .destroy = core_destroy, .vcpu_create = core_vcpu_create,      \
    .vcpu_destroy = core_vcpu_destroy, .run = core_run, .state_out = core_state_out,               \
    .state_in = core_state_in, .rip = core_rip, .history = core_history,                           \
    .counters = core_counters, .kick = core_kick, .debug = core_debug, .debug_met = core_debug_met

const struct engine_ops interp_engine = {ENGINE("interp", create_interp)};
const struct engine_ops bt_engine = {ENGINE("bt", create_bt)};
const struct engine_ops bt_eager_engine = {ENGINE("bt-eager", create_bt_eager)};
const struct engine_ops kvm_engine = {ENGINE("kvm", create_kvm),
                                      .restrict_model = kvm_restrict_model,
                                      .local_apics = core_local_apics, .failure = kvm_failure};
