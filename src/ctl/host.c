/*
 * What this host offers, and which engine that means.
 */
#include "ctl/host.h"

#include "base/util.h"
#include "cpu/engines.h"
#include "ctl/choice.h"
#include "ctl/sized.h"
#include "x86/cpuid.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

static void probe_cpu(struct doppel_host *host)
{
    uint32_t brand[12] = {0};
    const char *start = (const char *)brand;

    for (unsigned i = 0; i < 3; i++) {
        uint32_t *r = brand + 4 * i;

        if (!__get_cpuid(0x80000002 + i, &r[0], &r[1], &r[2], &r[3]))
            break;
    }
    start += strspn(start, " ");
    snprintf(host->cpu, sizeof(host->cpu), "%.47s", *start ? start : "unknown");
}

static void probe_features(struct doppel_host *host)
{
    /* What x86-64-v3 consists of, as the psABI lists it, less what every x86-64 processor has. */
    static const struct {
        enum x86_feature feature;
        const char *name;
    } wanted[] = {
        {X86_FEAT_CX16, "cx16"},    {X86_FEAT_LAHF64, "lahf_lm"}, {X86_FEAT_POPCNT, "popcnt"},
        {X86_FEAT_SSE3, "sse3"},    {X86_FEAT_SSSE3, "ssse3"},    {X86_FEAT_SSE41, "sse4_1"},
        {X86_FEAT_SSE42, "sse4_2"}, {X86_FEAT_AVX, "avx"},        {X86_FEAT_AVX2, "avx2"},
        {X86_FEAT_BMI1, "bmi1"},    {X86_FEAT_BMI2, "bmi2"},      {X86_FEAT_F16C, "f16c"},
        {X86_FEAT_FMA, "fma"},      {X86_FEAT_LZCNT, "lzcnt"},    {X86_FEAT_MOVBE, "movbe"},
        {X86_FEAT_XSAVE, "xsave"},
    };
    struct x86_model model;
    size_t length = 0;

    x86_model_default(&model, 1, 1000000000);
    for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++)
        if (!model.feature[wanted[i].feature] && length < sizeof(host->missing))
            length += (size_t)snprintf(host->missing + length, sizeof(host->missing) - length,
                                       "%s%s", length ? " " : "", wanted[i].name);
    host->x86_64_v3 = length == 0;
}

static void tell_kvm(struct doppel_host *host, const struct kvm_worth *kvm)
{
    host->kvm_present = kvm->present;
    snprintf(host->kvm_detail, sizeof(host->kvm_detail), "%s", kvm->detail);
    snprintf(host->kvm_missing, sizeof(host->kvm_missing), "%s", kvm->missing);
    host->kvm_kernel_ips = kvm->figures.kernel_ips;
    host->kvm_user_ips = kvm->figures.user_ips;
    host->kvm_fault_ns = kvm->figures.fault_ns;
    host->kvm_cpuid_ns = kvm->figures.cpuid_ns;
    host->kvm_exit_ns = kvm->figures.exit_ns;
    host->kvm_native = kvm->native;
}

static void probe_memory(struct doppel_host *host)
{
    struct sysinfo info;
    FILE *file = fopen("/proc/meminfo", "re");
    unsigned long long kib;
    char line[128];

    if (sysinfo(&info) == 0) {
        host->memory = (uint64_t)info.totalram * info.mem_unit;
        host->memory_available = (uint64_t)info.freeram * info.mem_unit;
    }
    /* Better than what is free: what could be made free. */
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            host->memory_available = kib * KiB;
    if (file)
        fclose(file);
}

/* Whether translated code can run here. */
static bool translates(void)
{
    struct x86_model model;

    x86_model_default(&model, 1, 1000000000);
    return bt_runs_on(&model);
}

static enum doppel_engine engine_of(const struct engine_ops *ops)
{
    if (ops == &kvm_engine)
        return DOPPEL_ENGINE_KVM;
    return ops == &bt_engine ? DOPPEL_ENGINE_BT : DOPPEL_ENGINE_INTERP;
}

static void probe(struct doppel_host *host)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct kvm_worth kvm;

    memset(host, 0, sizeof(*host));
    host->cpus = cpus > 0 ? (unsigned)cpus : 1;
    probe_cpu(host);
    probe_features(host);
    probe_memory(host);
    kvm_worth_here(&kvm);
    tell_kvm(host, &kvm);
    host->chosen = engine_of(choose_engine(&kvm, translates(), host->reason, sizeof(host->reason)));
}

void doppel_probe_sized(struct doppel_host *to, size_t size)
{
    struct doppel_host host;

    probe(&host);
    sized_copy_out(to, size, &host, sizeof(host));
}

enum doppel_engine host_engine(void)
{
    struct kvm_worth kvm;

    kvm_worth_here(&kvm);
    return engine_of(choose_engine(&kvm, translates(), NULL, 0));
}

enum doppel_engine host_engine_without_kvm(void)
{
    static const struct kvm_worth none;

    return engine_of(choose_engine(&none, translates(), NULL, 0));
}

const char *doppel_engine_name(enum doppel_engine engine)
{
    switch (engine) {
    case DOPPEL_ENGINE_AUTO: return "auto";
    case DOPPEL_ENGINE_INTERP: return "interp";
    case DOPPEL_ENGINE_BT: return "bt";
    case DOPPEL_ENGINE_KVM: return "kvm";
    }
    return "unknown";
}
