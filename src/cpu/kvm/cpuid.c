/*
 * CPUID under KVM (Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_CPUID and KVM_SET_CPUID2). KVM
 * itself keeps the bits up to date that depend on control registers, but for one: SYSCALL is
 * announced in all modes, as on AMD's processors.
 */
#include "cpu/kvm/cpuid.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENTRIES_MAX 512

/* A struct kvm_cpuid2 with room. */
struct entries {
    uint32_t nent, padding;
    struct kvm_cpuid_entry2 entry[ENTRIES_MAX];
};

/* --- What a model says ----------------------------------------------------------------------- */

/* The leaves that the model has, each with the number of its subleaves. */
static const struct {
    uint32_t first, last, subleaves;
} leaves[] = {
    {0x0, 0x3, 1},
    {0x4, 0x4, 5},
    {0x5, 0x6, 1},
    {0x7, 0x7, 3},
    {0x8, 0xA, 1},
    {0xB, 0xB, 3},
    {0xC, 0xC, 1},
    {0xD, 0xD, 3},
    {0xE, 0x16, 1},
    {0x40000000, 0x40000001, 1},
    {0x40000010, 0x40000010, 1},
    {0x80000000, 0x80000008, 1},
};

static void add(struct entries *e, const struct x86_model *model, unsigned id, uint32_t leaf,
                uint32_t subleaf, bool indexed)
{
    /* The bits that depend on the state are KVM's, except that code may be 64-bit. */
    static const struct x86_cpu cpu = {
        .efer = X86_EFER_LMA, .seg[X86_CS].attr = X86_ATTR_L, .xcr0 = X86_XCR0_X87};
    struct x86_cpuid_regs r = x86_cpuid(model, &cpu, id, leaf, subleaf);

    e->entry[e->nent++] = (struct kvm_cpuid_entry2){
        .function = leaf,
        .index = subleaf,
        .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
        .eax = r.eax,
        .ebx = r.ebx,
        .ecx = r.ecx,
        .edx = r.edx,
    };
}

/* Stores all that MODEL says to vCPU ID. */
static void fill(struct entries *e, const struct x86_model *model, unsigned id)
{
    e->nent = e->padding = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++)
        for (uint32_t leaf = leaves[i].first; leaf <= leaves[i].last; leaf++)
            for (uint32_t sub = 0; sub < leaves[i].subleaves; sub++)
                add(e, model, id, leaf, sub, leaves[i].subleaves > 1);
}

/* --- What KVM offers -------------------------------------------------------------------------- */

static struct x86_cpuid_regs find(const struct entries *e, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < e->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &e->entry[i];
        bool indexed = entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

        if (entry->function == leaf && (!indexed || entry->index == subleaf))
            return (struct x86_cpuid_regs){entry->eax, entry->ebx, entry->ecx, entry->edx};
    }
    return (struct x86_cpuid_regs){0};
}

/* What KVM offers, and what its guests see whatever they are told, because KVM cannot hide it. */
struct offer {
    struct entries supported, forced;
};

static struct x86_cpuid_regs offered(const void *opaque, uint32_t leaf, uint32_t subleaf)
{
    const struct offer *offer = opaque;
    struct x86_cpuid_regs a = find(&offer->supported, leaf, subleaf);
    struct x86_cpuid_regs b = find(&offer->forced, leaf, subleaf);

    return (struct x86_cpuid_regs){a.eax | b.eax, a.ebx | b.ebx, a.ecx | b.ecx, a.edx | b.edx};
}

/* Finds out what the vCPU FD sees that is told that it has nothing. */
static int ask_forced(const struct kvm_calls *calls, int fd, struct entries *e)
{
    static const struct x86_model nothing = {.cpus = 1, .physical_bits = 36};
    int ret;

    fill(e, &nothing, 0);
    for (unsigned i = 0; i < e->nent; i++) /* what every model has */
        if (e->entry[i].function != 0 && e->entry[i].function != 0x80000000)
            e->entry[i].ebx = e->entry[i].ecx = e->entry[i].edx = 0;
    ret = kvm_call(calls, fd, KVM_SET_CPUID2, (uintptr_t)e);
    e->nent = ENTRIES_MAX;
    return ret < 0 ? ret : kvm_call(calls, fd, KVM_GET_CPUID2, (uintptr_t)e);
}

/* The same, in a virtual machine that is thrown away. */
static int find_forced(const struct kvm_calls *calls, int system, struct entries *e)
{
    int vm = kvm_call(calls, system, KVM_CREATE_VM, 0);
    int fd = vm < 0 ? vm : kvm_call(calls, vm, KVM_CREATE_VCPU, 0);
    int ret = fd < 0 ? fd : ask_forced(calls, fd, e);

    if (fd >= 0)
        close(fd);
    if (vm >= 0)
        close(vm);
    return ret;
}

/* What the host says of itself in IA32_ARCH_CAPABILITIES as far as KVM lets guests know; 0 if it
 * says nothing. */
static uint64_t arch_capabilities(const struct kvm_calls *calls, int system)
{
    struct {
        uint32_t nmsrs, padding;
        struct kvm_msr_entry entry;
    } msr = {.nmsrs = 1, .entry.index = X86_MSR_ARCH_CAPABILITIES};

    return kvm_call(calls, system, KVM_GET_MSRS, (uintptr_t)&msr) == 1 ? msr.entry.data : 0;
}

int kvm_cpuid_restrict(const struct kvm_calls *calls, int system, struct x86_model *model,
                       struct error *err)
{
    struct offer *offer = calloc(1, sizeof(*offer));
    int ret;

    if (!offer)
        return error_set(err, ENOMEM, "out of memory for what KVM supports");
    offer->supported.nent = ENTRIES_MAX;
    ret = kvm_call(calls, system, KVM_GET_SUPPORTED_CPUID, (uintptr_t)&offer->supported);
    if (ret >= 0)
        ret = find_forced(calls, system, &offer->forced);
    if (ret < 0) {
        error_set(err, -ret, "KVM does not say what it supports: %s", strerror(-ret));
    } else {
        x86_model_restrict(model, offered, offer);
        model->arch_capabilities &= arch_capabilities(calls, system);
    }
    free(offer);
    return ret < 0 ? ret : 0;
}

/* --- Telling KVM ------------------------------------------------------------------------------ */

int kvm_cpuid_set(const struct kvm_calls *calls, int fd, const struct x86_model *model, unsigned id,
                  struct error *err)
{
    struct entries *e = calloc(1, sizeof(*e));
    int ret;

    if (!e)
        return error_set(err, ENOMEM, "out of memory for CPUID");
    fill(e, model, id);
    ret = kvm_call(calls, fd, KVM_SET_CPUID2, (uintptr_t)e);
    free(e);
    if (ret < 0)
        return error_set(err, -ret, "KVM refuses CPUID: %s", strerror(-ret));
    return 0;
}
