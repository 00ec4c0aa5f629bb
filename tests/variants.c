/*
 * The engines to test: the interpreter, the translator where code is translated at once, and that
 * with its rare paths made frequent.
 */
#include "variants.h"

#include "base/util.h"
#include "cpu/bt/switches.h"
#include "cpu/kvm/kvm.h"

#include <string.h>

#define REGIONS      48u
#define CODE         (4u * MiB)
#define TINY         (160u * KiB)
#define SCRATCH_SEED 1

/* Regions of one instruction, and both levels of the software TLB small; a cache that is full all
 * the time, and a check for each access; registers traded at random; every access by way of the
 * cold path; and nearly all of it. */
static const struct bt_switches
    one = {.heat = 1, .region_max = 1, .code_size = CODE, .refills = true, .second = 4},
    tiny = {.heat = 1,
            .region_max = REGIONS,
            .inline_after = 2,
            .code_size = TINY,
            .single_checks = true},
    scratch = {.heat = 1,
               .region_max = REGIONS,
               .code_size = CODE,
               .scratch_seed = SCRATCH_SEED,
               .refills = true},
    cold = {.heat = 1, .region_max = REGIONS, .code_size = CODE, .forgetful = true},
    all = {.heat = 2,
           .region_max = 3,
           .inline_after = 1,
           .code_size = TINY,
           .scratch_seed = SCRATCH_SEED,
           .forgetful = true};

#define VARIANT(SWITCHES)                                                                          \
    static struct engine *create_##SWITCHES(const struct machine *machine, struct error *err)      \
    {                                                                                              \
        return bt_create_with(machine, &(SWITCHES), err);                                          \
    }
VARIANT(one)
VARIANT(tiny)
VARIANT(scratch)
VARIANT(cold)
VARIANT(all)
#undef VARIANT

/* KVM with the board's local APICs, also where it can have some. */
static struct engine *create_kvm_board(const struct machine *machine, struct error *err)
{
    static const struct kvm_options options = {.calls = &kvm_host_calls, .apics = KVM_APICS_BOARD};

    return kvm_create_with(machine, &options, err);
}

/* KVM with local APICs of its own, also where it is late with interrupts. */
static struct engine *create_kvm_own(const struct machine *machine, struct error *err)
{
    static const struct kvm_options options = {.calls = &kvm_host_calls, .apics = KVM_APICS_OWN};

    return kvm_create_with(machine, &options, err);
}

const struct engine_ops *variant_find(const char *name, struct engine_ops *space)
{
    static const struct {
        const char *name;
        const struct engine_ops *like;
        struct engine *(*create)(const struct machine *machine, struct error *err);
    } variants[] = {
        {"bt-one", &bt_engine, create_one},         {"bt-tiny", &bt_engine, create_tiny},
        {"bt-scratch", &bt_engine, create_scratch}, {"bt-cold", &bt_engine, create_cold},
        {"bt-all", &bt_engine, create_all},         {"kvm-board", &kvm_engine, create_kvm_board},
        {"kvm-own", &kvm_engine, create_kvm_own}};

    if (!strcmp(name, interp_engine.name))
        return &interp_engine;
    if (!strcmp(name, bt_engine.name))
        return &bt_engine;
    if (!strcmp(name, bt_eager_engine.name))
        return &bt_eager_engine;
    if (!strcmp(name, kvm_engine.name))
        return &kvm_engine;
    for (unsigned i = 0; i < ARRAY_SIZE(variants); i++) {
        if (strcmp(name, variants[i].name) != 0)
            continue;
        *space = *variants[i].like;
        space->name = variants[i].name;
        space->create = variants[i].create;
        return space;
    }
    return NULL;
}

unsigned variants_find(char *names, struct engine_ops *engines, unsigned most)
{
    unsigned count = 0;
    char *rest = NULL;

    for (char *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        struct engine_ops space;
        const struct engine_ops *ops = variant_find(name, &space);

        if (!ops || count == most)
            return 0;
        engines[count++] = *ops;
    }
    return count;
}
